//! Leader election: one Lease, replaced with its resourceVersion, so of two that try one fails.
//!
//! [`evaluate`] is pure. A holder counts as alive for the Lease's duration after this process saw the Lease change, on this
//! process's own clock; the other's clock is never read. What becomes of a holder that cannot renew is its own to say.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api,
    api::{ObjectMeta, PostParams},
};

/// How a Lease is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// How long a silent holder is believed alive; a whole number of seconds.
    pub duration: Duration,
    /// How often the holder renews and others look.
    pub period: Duration,
}

/// What this process saw of the Lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Who holds it; empty when released.
    pub holder: String,
    /// Its resourceVersion.
    pub version: String,
    /// When this process first saw that version.
    pub since: Instant,
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// There is no Lease: create it.
    Create,
    /// It is ours: renew it.
    Renew,
    /// Its holder released it or has been silent too long: take it.
    Take,
    /// Another leads.
    Wait,
}

/// Decides, given what was last seen of the Lease.
pub fn evaluate(lease: Option<&Seen>, me: &str, now: Instant, duration: Duration) -> Decision {
    match lease {
        None => Decision::Create,
        Some(seen) if seen.holder == me => Decision::Renew,
        Some(seen) if seen.holder.is_empty() || now.duration_since(seen.since) >= duration => Decision::Take,
        Some(_) => Decision::Wait,
    }
}

/// One candidate.
#[derive(Debug)]
pub struct Candidate {
    leases: Api<Lease>,
    name: String,
    me: String,
    pace: Pace,
    seen: Option<Seen>,
}

impl Candidate {
    /// For a Lease of that name.
    pub fn new(leases: Api<Lease>, name: &str, me: &str, pace: Pace) -> Self {
        Self { leases, name: name.to_owned(), me: me.to_owned(), pace, seen: None }
    }

    /// Looks, and acts; true when this process leads afterwards.
    pub async fn step(&mut self) -> Result<bool, kube::Error> {
        let live = self.leases.get_opt(&self.name).await?;
        let seen = live.as_ref().map(|lease| {
            let version = lease.metadata.resource_version.clone().unwrap_or_default();
            let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone()).unwrap_or_default();
            match &self.seen {
                Some(old) if old.version == version => old.clone(),
                _ => Seen { holder, version, since: Instant::now() },
            }
        });
        self.seen.clone_from(&seen);
        let decision = evaluate(seen.as_ref(), &self.me, Instant::now(), self.pace.duration);
        let written = match (decision, live) {
            (Decision::Wait, _) => return Ok(false),
            (_, None) => self.leases.create(&PostParams::default(), &self.lease(None, true)).await,
            (_, Some(old)) => {
                self.leases.replace(&self.name, &PostParams::default(), &self.lease(Some(old), true)).await
            }
        };
        match written {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Gives the Lease back, so that the next need not wait.
    pub async fn release(&mut self) -> Result<(), kube::Error> {
        let Some(old) = self.leases.get_opt(&self.name).await? else { return Ok(()) };
        if old.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()) == Some(self.me.as_str()) {
            self.leases.replace(&self.name, &PostParams::default(), &self.lease(Some(old), false)).await?;
        }
        Ok(())
    }

    fn lease(&self, old: Option<Lease>, hold: bool) -> Lease {
        let before = old.as_ref().and_then(|lease| lease.spec.clone()).unwrap_or_default();
        let same = before.holder_identity.as_deref() == Some(self.me.as_str());
        let now = MicroTime(Timestamp::now());
        Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                resource_version: old.and_then(|lease| lease.metadata.resource_version),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(if hold { self.me.clone() } else { String::new() }),
                lease_duration_seconds: i32::try_from(self.pace.duration.as_secs()).ok(),
                acquire_time: if same { before.acquire_time } else { Some(now.clone()) },
                renew_time: Some(now),
                lease_transitions: Some(before.lease_transitions.unwrap_or(0) + i32::from(!same)),
                ..LeaseSpec::default()
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_renewed_taken_or_waited_for() {
        let now = Instant::now();
        let seen = |holder: &str, age: Duration| Seen {
            holder: holder.into(),
            version: "1".into(),
            since: now.checked_sub(age).unwrap(),
        };
        let duration = Duration::from_secs(15);
        let decide = |seen: Option<Seen>| evaluate(seen.as_ref(), "me", now, duration);
        assert_eq!(decide(None), Decision::Create);
        assert_eq!(decide(Some(seen("me", duration * 2))), Decision::Renew);
        assert_eq!(decide(Some(seen("other", Duration::ZERO))), Decision::Wait);
        assert_eq!(
            decide(Some(seen("other", duration.checked_sub(Duration::from_millis(1)).unwrap()))),
            Decision::Wait
        );
        assert_eq!(decide(Some(seen("other", duration))), Decision::Take);
        assert_eq!(decide(Some(seen("", Duration::ZERO))), Decision::Take);
    }
}
