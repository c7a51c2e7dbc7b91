//! When DataFresh is written: only when its value has been new for 60 s, but the first True at once. Pure.

use std::{collections::HashMap, time::Duration};

use jiff::Timestamp;
use liaison_crds::PartnerConnection;
use liaison_records::names::PartnerName;
use serde_json::{Value, json};

use crate::worker::Standing;

/// How long a new value must last before it is written.
pub const LASTING: Duration = Duration::from_secs(60);

/// The value of DataFresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fresh {
    /// The replica is younger than its objective.
    True,
    /// It is not, or is not complete.
    False,
    /// Nobody may read it, or nobody has looked.
    Unknown,
}

impl Fresh {
    /// As a condition spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }

    /// What an object says, and since when.
    pub fn of(connection: &PartnerConnection) -> (Self, Option<Timestamp>) {
        let conditions = connection.status.as_ref().map_or(&[][..], |status| &status.conditions);
        let Some(condition) = conditions.iter().find(|c| c.type_ == "DataFresh") else { return (Self::Unknown, None) };
        let fresh = match condition.status.as_str() {
            "True" => Self::True,
            "False" => Self::False,
            _ => Self::Unknown,
        };
        (fresh, Some(condition.last_transition_time.0))
    }
}

/// A condition to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Value.
    pub fresh: Fresh,
    /// Reason, stable.
    pub reason: String,
    /// For a person; no ages, which are metrics.
    pub message: String,
    /// Generation that it speaks of.
    pub generation: i64,
    /// When the value changed.
    pub at: Timestamp,
}

impl Condition {
    /// As `metav1.Condition`.
    pub fn to_json(&self) -> Value {
        let Self { fresh, reason, message, generation, at } = self;
        let at = jiff::Timestamp::from_second(at.as_second()).unwrap_or(*at);
        json!({"type": "DataFresh", "status": fresh.as_str(), "reason": reason, "message": message,
               "observedGeneration": generation, "lastTransitionTime": at.to_string()})
    }
}

/// What a standing means. `hub`: what the hub's trouble is, if it has any. `None`: another worker holds the lease, and it is
/// the one to say.
pub fn judge(
    standing: &Standing,
    hub: Option<&(&'static str, String)>,
    freshness_seconds: u32,
    now: Timestamp,
) -> Option<(Fresh, &'static str, String)> {
    if let Some((reason, message)) = &standing.trouble {
        return match *reason {
            "LeaseHeld" => None,
            "NotSeeded" => Some((Fresh::Unknown, "NotSeeded", "the replica has not been made yet".to_owned())),
            _ if !standing.open => Some((Fresh::Unknown, "Closed", closed())),
            _ => Some((Fresh::False, reason, message.clone())),
        };
    }
    if !standing.open {
        return Some((Fresh::Unknown, "Closed", closed()));
    }
    let Some(exact_at) = standing.exact_at_millis.filter(|_| standing.complete) else {
        return Some((Fresh::False, FILLING, filling(standing.progress)));
    };
    if standing.rebuilding {
        return Some((Fresh::False, FILLING, filling(standing.progress)));
    }
    let age = now.as_millisecond().saturating_sub(exact_at);
    Some(if age <= i64::from(freshness_seconds) * 1000 {
        (Fresh::True, "UpToDate", format!("the replica is at most {freshness_seconds} s behind the hub"))
    } else if let Some((reason, message)) = hub {
        (Fresh::False, *reason, message.clone())
    } else {
        (Fresh::False, "Lagging", format!("the replica is more than {freshness_seconds} s behind the hub"))
    })
}

/// The reason of a replica that does not have all of its scope yet.
pub const FILLING: &str = "Filling";

/// How far it is.
pub fn filling(progress: Option<(usize, usize)>) -> String {
    match progress {
        Some((filled, all)) => format!("the replica is being filled: {filled} of {all} files"),
        None => "the replica is being filled".to_owned(),
    }
}

fn closed() -> String {
    "suspended, revoked, deleted or without an agreement in force: nothing is shared".to_owned()
}

/// Since when each partner has had a value that is not written yet, and which progress was written when.
#[derive(Debug, Default)]
pub struct Pending {
    values: HashMap<PartnerName, (Fresh, Timestamp)>,
    progress: HashMap<PartnerName, (String, Timestamp)>,
}

impl Pending {
    /// Whether `new` is to be written now, given what the object says.
    pub fn due(&mut self, partner: &PartnerName, written: Fresh, new: Fresh, now: Timestamp) -> bool {
        if written == new {
            self.values.remove(partner);
            return false;
        }
        if written == Fresh::Unknown && new == Fresh::True {
            return true;
        }
        let (pending, since) = *self.values.entry(partner.clone()).or_insert((new, now));
        if pending != new {
            self.values.insert(partner.clone(), (new, now));
            return false;
        }
        now.duration_since(since).unsigned_abs() >= LASTING
    }

    /// Whether the message of a replica that is being filled is to be written again: it says more, and a minute has passed.
    pub fn progressed(&mut self, partner: &PartnerName, message: &str, now: Timestamp) -> bool {
        let (said, at) = self.progress.entry(partner.clone()).or_insert_with(|| (String::new(), now));
        if said == message || now.duration_since(*at).unsigned_abs() < LASTING {
            return false;
        }
        (*said, *at) = (message.to_owned(), now);
        true
    }

    /// It is filled, or no more.
    pub fn settled(&mut self, partner: &PartnerName) {
        self.progress.remove(partner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    #[test]
    fn a_value_must_last_before_it_is_written() {
        let partner: PartnerName = "p".parse().unwrap();
        let mut pending = Pending::default();
        assert!(pending.due(&partner, Fresh::Unknown, Fresh::True, at(0)), "the first True at once");
        assert!(!pending.due(&partner, Fresh::True, Fresh::True, at(1)), "unchanged: no write");
        assert!(!pending.due(&partner, Fresh::True, Fresh::False, at(2)));
        assert!(!pending.due(&partner, Fresh::True, Fresh::False, at(61)));
        assert!(!pending.due(&partner, Fresh::True, Fresh::True, at(61)), "it came back");
        assert!(!pending.due(&partner, Fresh::True, Fresh::False, at(62)));
        assert!(pending.due(&partner, Fresh::True, Fresh::False, at(122)));
    }

    #[test]
    fn progress_is_written_at_most_once_a_minute() {
        let partner: PartnerName = "p".parse().unwrap();
        let mut pending = Pending::default();
        assert!(!pending.progressed(&partner, "10 of 90", at(0)), "the condition itself says it first");
        assert!(!pending.progressed(&partner, "20 of 90", at(59)));
        assert!(pending.progressed(&partner, "30 of 90", at(60)));
        assert!(!pending.progressed(&partner, "30 of 90", at(121)), "nothing new");
        assert!(!pending.progressed(&partner, "40 of 90", at(119)));
        assert!(pending.progressed(&partner, "50 of 90", at(122)));
        let standing = Standing { open: true, progress: Some((50, 90)), ..Standing::default() };
        let (fresh, reason, message) = judge(&standing, None, 60, at(0)).unwrap();
        assert_eq!(
            (fresh, reason, message.as_str()),
            (Fresh::False, "Filling", "the replica is being filled: 50 of 90 files")
        );
    }

    #[test]
    fn closed_is_unknown_and_old_is_false() {
        let standing = Standing {
            files: 1,
            exact_at_millis: Some(at(0).as_millisecond()),
            complete: true,
            trouble: None,
            open: true,
            ..Standing::default()
        };
        let judged =
            |standing: &Standing, now| judge(standing, None, 60, at(now)).map(|(fresh, reason, _)| (fresh, reason));
        assert_eq!(judged(&standing, 60), Some((Fresh::True, "UpToDate")));
        assert_eq!(judged(&standing, 61), Some((Fresh::False, "Lagging")));
        let hub = ("HubUnreachable", "the hub cannot be reached".to_owned());
        let said = |now| judge(&standing, Some(&hub), 60, at(now)).map(|(fresh, reason, _)| (fresh, reason));
        assert_eq!(said(60), Some((Fresh::True, "UpToDate")), "not old yet");
        assert_eq!(said(61), Some((Fresh::False, "HubUnreachable")));
        assert_eq!(judged(&Standing { open: false, ..standing.clone() }, 0), Some((Fresh::Unknown, "Closed")));
        let held = Standing { trouble: Some(("LeaseHeld", String::new())), ..standing.clone() };
        assert_eq!(judged(&held, 0), None);
        let down = Standing { trouble: Some(("StoreUnreachable", String::new())), ..standing };
        assert_eq!(judged(&down, 0), Some((Fresh::False, "StoreUnreachable")));
    }
}
