//! The condition `Connected`, the only thing that the gateway writes to a PartnerConnection. Pure.
//!
//! It says whether there was a WireGuard handshake in the last 180 s, changes only after 60 s of the new value (but the
//! first True at once), and is not written when it stands there already.

use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use liaison_crds::PartnerConnection;

use crate::tunnel::Running;

/// The condition's type.
pub const TYPE: &str = "Connected";
/// A handshake older than this no longer counts: WireGuard makes a new one every two minutes while there is traffic.
pub const RECENT: Duration = Duration::from_mins(3);
/// How long a new value must hold before it is written.
pub const HOLD: Duration = Duration::from_mins(1);
/// How long until a value that did not get through is written again.
const RETRY: Duration = Duration::from_secs(10);

/// The reasons of the condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// True.
    HandshakeRecent,
    /// False: never connected since it was opened.
    AwaitingFirstHandshake,
    /// False: the last handshake is too old.
    HandshakeStale,
    /// False: the gateway does not serve this partner.
    Closed,
}

impl Reason {
    /// As in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HandshakeRecent => "HandshakeRecent",
            Self::AwaitingFirstHandshake => "AwaitingFirstHandshake",
            Self::HandshakeStale => "HandshakeStale",
            Self::Closed => "Closed",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::HandshakeRecent, Self::AwaitingFirstHandshake, Self::HandshakeStale, Self::Closed]
            .into_iter()
            .find(|reason| reason.as_str() == text)
    }

    /// The condition's status.
    pub const fn status(self) -> &'static str {
        if matches!(self, Self::HandshakeRecent) { "True" } else { "False" }
    }

    /// The condition's message, where this ends the tunnels.
    fn message(self, backend: Running) -> &'static str {
        match (self, backend) {
            (Self::HandshakeRecent, Running::Kernel) => "The partner's tunnel is up; the node's kernel ends it.",
            (Self::HandshakeRecent, Running::Userspace) => "The partner's tunnel is up; the gateway's process ends it.",
            (Self::AwaitingFirstHandshake, _) => "The partner has not connected yet.",
            (Self::HandshakeStale, _) => "No WireGuard handshake for three minutes.",
            (Self::Closed, _) => "The gateway does not serve this partner; the other conditions and spec say why.",
        }
    }
}

/// What the API has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Written {
    status: String,
    reason: Option<Reason>,
    message: String,
    since: Option<jiff::Timestamp>,
}

impl Written {
    /// Reads it from an object.
    pub fn of(object: &PartnerConnection) -> Self {
        let conditions = object.status.iter().flat_map(|s| &s.conditions);
        conditions.into_iter().find(|c| c.type_ == TYPE).map_or_else(Self::default, |c| Self {
            status: c.status.clone(),
            reason: Reason::parse(&c.reason),
            message: c.message.clone(),
            since: Some(c.last_transition_time.0),
        })
    }
}

/// What should be said now; `None` leaves what is there.
///
/// `handshake` is the time since the last one that this process saw, `uptime` how long it has watched. A gateway that has
/// just started does not know whether a partner of whom the API says "connected" is gone: it waits as long as it would
/// have waited for the next handshake.
pub fn wanted(open: bool, handshake: Option<Duration>, uptime: Duration, written: &Written) -> Option<Reason> {
    let was_connected = matches!(written.reason, Some(Reason::HandshakeRecent | Reason::HandshakeStale));
    match handshake {
        _ if !open => Some(Reason::Closed),
        Some(age) if age <= RECENT => Some(Reason::HandshakeRecent),
        None if !was_connected => Some(Reason::AwaitingFirstHandshake),
        None if uptime <= RECENT => None,
        Some(_) | None => Some(Reason::HandshakeStale),
    }
}

/// The memory between two looks at one partner.
#[derive(Debug, Default)]
pub struct Tracker {
    pending: Option<(Reason, Instant)>,
    tried: Option<Instant>,
}

impl Tracker {
    /// Whether `wanted` is to be written now, where `backend` ends the tunnels.
    pub fn due(&mut self, wanted: Option<Reason>, written: &Written, backend: Running, now: Instant) -> Option<Reason> {
        let wanted = wanted.filter(|w| {
            written.reason != Some(*w) || written.status != w.status() || written.message != w.message(backend)
        });
        let Some(wanted) = wanted else {
            *self = Self::default();
            return None;
        };
        let since = match self.pending {
            Some((reason, since)) if reason == wanted => since,
            _ => {
                *self = Self { pending: Some((wanted, now)), tried: None };
                now
            }
        };
        let first =
            wanted == Reason::HandshakeRecent && matches!(written.reason, None | Some(Reason::AwaitingFirstHandshake));
        let ripe = first || now.duration_since(since) >= HOLD;
        let again = self.tried.is_none_or(|tried| now.duration_since(tried) >= RETRY);
        (ripe && again).then(|| {
            self.tried = Some(now);
            wanted
        })
    }
}

/// The condition to write. The time of transition moves only with the status.
pub fn condition(reason: Reason, written: &Written, backend: Running, now: jiff::Timestamp) -> Condition {
    let since = written.since.filter(|_| written.status == reason.status()).unwrap_or(now);
    Condition {
        type_: TYPE.to_owned(),
        status: reason.status().to_owned(),
        reason: reason.as_str().to_owned(),
        message: reason.message(backend).to_owned(),
        last_transition_time: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(since),
        observed_generation: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(reason: Reason) -> Written {
        Written {
            status: reason.status().to_owned(),
            reason: Some(reason),
            message: reason.message(Running::Userspace).to_owned(),
            since: Some(jiff::Timestamp::UNIX_EPOCH),
        }
    }

    #[test]
    fn what_is_wanted() {
        let (fresh, old, long) = (Duration::from_secs(9), Duration::from_secs(181), Duration::from_mins(15));
        let none = Written::default();
        let recent = written(Reason::HandshakeRecent);
        assert_eq!(wanted(false, Some(fresh), long, &none), Some(Reason::Closed));
        assert_eq!(wanted(true, Some(fresh), fresh, &none), Some(Reason::HandshakeRecent));
        assert_eq!(wanted(true, Some(old), long, &recent), Some(Reason::HandshakeStale));
        assert_eq!(wanted(true, None, fresh, &none), Some(Reason::AwaitingFirstHandshake));
        assert_eq!(wanted(true, None, long, &written(Reason::Closed)), Some(Reason::AwaitingFirstHandshake));
        assert_eq!(wanted(true, None, fresh, &recent), None, "just restarted: it cannot know yet");
        assert_eq!(wanted(true, None, long, &recent), Some(Reason::HandshakeStale));
    }

    #[test]
    fn first_true_at_once_everything_else_after_a_minute() {
        let start = Instant::now();
        let after = |s| start + Duration::from_secs(s);
        let mut tracker = Tracker::default();
        let none = Written::default();
        let mut due = |wanted, written: &Written, now| tracker.due(wanted, written, Running::Userspace, now);
        assert_eq!(due(Some(Reason::AwaitingFirstHandshake), &none, start), None);
        assert_eq!(due(Some(Reason::HandshakeRecent), &none, after(3)), Some(Reason::HandshakeRecent));
        assert_eq!(due(Some(Reason::HandshakeRecent), &none, after(4)), None, "under way");
        assert_eq!(due(Some(Reason::HandshakeRecent), &none, after(14)), Some(Reason::HandshakeRecent), "lost");
        let there = written(Reason::HandshakeRecent);
        assert_eq!(due(Some(Reason::HandshakeRecent), &there, after(15)), None, "unchanged: no write");

        assert_eq!(due(Some(Reason::HandshakeStale), &there, after(100)), None);
        assert_eq!(due(Some(Reason::HandshakeRecent), &there, after(130)), None, "came back: nothing happened");
        assert_eq!(due(Some(Reason::HandshakeStale), &there, after(140)), None);
        assert_eq!(due(Some(Reason::HandshakeStale), &there, after(199)), None);
        assert_eq!(due(Some(Reason::HandshakeStale), &there, after(200)), Some(Reason::HandshakeStale));
    }

    #[test]
    fn what_ends_the_tunnel_now_is_said_once() {
        let (start, mut tracker) = (Instant::now(), Tracker::default());
        let there = written(Reason::HandshakeRecent);
        let wanted = Some(Reason::HandshakeRecent);
        assert_eq!(tracker.due(wanted, &there, Running::Kernel, start), None);
        assert_eq!(tracker.due(wanted, &there, Running::Kernel, start + HOLD), wanted);
        let now = jiff::Timestamp::UNIX_EPOCH;
        let message = condition(Reason::HandshakeRecent, &there, Running::Kernel, now).message;
        assert_eq!(tracker.due(wanted, &Written { message, ..there }, Running::Kernel, start + 2 * HOLD), None);
    }

    #[test]
    fn transition_time_moves_with_the_status_only() {
        let now = jiff::Timestamp::from_second(1_000).unwrap();
        let stale = written(Reason::HandshakeStale);
        assert_eq!(
            condition(Reason::Closed, &stale, Running::Userspace, now).last_transition_time.0,
            jiff::Timestamp::UNIX_EPOCH
        );
        assert_eq!(condition(Reason::HandshakeRecent, &stale, Running::Userspace, now).last_transition_time.0, now);
    }
}
