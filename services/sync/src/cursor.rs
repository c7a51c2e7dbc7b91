//! Where a replica stands: which snapshot of which hub, and under which terms. Pure.

use std::{fmt, str::FromStr};

use crate::error::Error;

/// All offender numbers: the end of every key range.
pub const ALL: i64 = i64::MAX;

/// A `pg_snapshot`: transactions below `xmin` are in it, those from `xmax` on and those in progress are not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Every older transaction is visible, or rolled back.
    pub xmin: u64,
    /// This and every newer transaction is not.
    pub xmax: u64,
    /// What was in progress between the two, ascending.
    pub in_progress: Vec<u64>,
}

impl Snapshot {
    /// Whether a hub whose change log begins at `horizon`, and whose next transaction is `xmax`, can tell the changes since: not older
    /// than what it still has, and not of transactions that it has not had yet, as after a restore that left its timeline what it was.
    pub fn followed_by(&self, horizon: u64, xmax: u64) -> bool {
        self.xmin >= horizon && self.xmax <= xmax
    }

    /// Whether a transaction's work is part of it.
    pub fn sees(&self, xid: u64) -> bool {
        xid < self.xmax && self.in_progress.binary_search(&xid).is_err()
    }

    /// Becomes one that sees nothing that it or `other` does not see.
    pub fn include(&mut self, other: &Self) {
        self.xmin = self.xmin.min(other.xmin);
        self.xmax = self.xmax.min(other.xmax);
        self.in_progress.extend(&other.in_progress);
        self.in_progress.sort_unstable();
        self.in_progress.dedup();
        // What is not before `xmax` is not seen anyway.
        let xmax = self.xmax;
        self.in_progress.retain(|xid| *xid < xmax);
    }
}

impl FromStr for Snapshot {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self, Error> {
        let bad = || Error::Corrupt("a snapshot in a cursor cannot be read".to_owned());
        let number = |s: &str| s.parse::<u64>().map_err(|_| bad());
        let mut parts = s.split(':');
        let (Some(xmin), Some(xmax), Some(list), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(bad());
        };
        let mut in_progress = list.split(',').filter(|x| !x.is_empty()).map(number).collect::<Result<Vec<_>, _>>()?;
        in_progress.sort_unstable();
        Ok(Self { xmin: number(xmin)?, xmax: number(xmax)?, in_progress })
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list: Vec<String> = self.in_progress.iter().map(u64::to_string).collect();
        write!(f, "{}:{}:{}", self.xmin, self.xmax, list.join(","))
    }
}

/// A snapshot of the hub, taken once a cycle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    /// What is visible.
    pub snapshot: Snapshot,
    /// The hub's clock then, as PostgreSQL prints a `timestamptz` in UTC.
    pub as_of: String,
    /// The same in milliseconds since 1970.
    pub millis: i64,
}

/// The cursor row of a replica, but for the terms that its readers are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// Identity of the hub that `snapshot` is of.
    pub hub_identity: Option<String>,
    /// What the replica follows; `None` before the first batch.
    pub snapshot: Option<Snapshot>,
    /// Milliseconds since 1970 of the hub's clock at `snapshot`, once complete.
    pub as_of_millis: Option<i64>,
    /// Last batch that landed.
    pub batch: i64,
    /// The ledger's head with it; empty before the first.
    pub head: Vec<u8>,
    /// What the hub of `snapshot` had after it, if no batch of it says so.
    pub mark: Option<Vec<u8>>,
    /// The lease.
    pub epoch: i64,
    /// Exact up to this offender number.
    pub filled: i64,
    /// Whether it was complete once.
    pub seeded: bool,
    /// Field groups that the records follow, sorted.
    pub groups: Vec<String>,
    /// Agreement that the records follow.
    pub agreement: String,
    /// Scope that the records follow.
    pub population: Option<serde_json::Value>,
    /// Whether reads are refused for a moment.
    pub fenced: bool,
}

impl Cursor {
    /// Whether changes can be applied: of this hub, which can tell them.
    pub fn usable(&self, hub_identity: &str, horizon: u64, xmax: u64) -> bool {
        self.hub_identity.as_deref() == Some(hub_identity)
            && self.snapshot.as_ref().is_some_and(|s| s.followed_by(horizon, xmax))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_reads_and_prints_as_postgresql_does() {
        let snapshot: Snapshot = "10:20:12,14".parse().unwrap();
        assert!(snapshot.sees(11) && !snapshot.sees(12) && snapshot.sees(19) && !snapshot.sees(20));
        assert_eq!(snapshot.to_string(), "10:20:12,14");
        assert_eq!("7:7:".parse::<Snapshot>().unwrap().to_string(), "7:7:");
        assert!("7:7".parse::<Snapshot>().is_err());
    }

    #[test]
    fn two_snapshots_together_see_what_both_see() {
        let (a, b): (Snapshot, Snapshot) = ("10:20:12,14".parse().unwrap(), "12:17:12,13,16".parse().unwrap());
        let mut both = a.clone();
        both.include(&b);
        assert_eq!(both.to_string(), "10:17:12,13,14,16");
        assert!((0..30).all(|xid| both.sees(xid) == (a.sees(xid) && b.sees(xid))));
    }
}
