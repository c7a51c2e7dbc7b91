//! What became of a ledger batch that was prepared. Pure. What its hashes cover is [`liaison_records::ledger`]'s.

pub use liaison_records::ledger::{Entry, EntryKind, Heading, batch_digest, entry_digest, head};

use crate::cursor::Cursor;

/// A batch of the ledger, as far as settling it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Number.
    pub batch: i64,
    /// Head after it.
    pub head: Vec<u8>,
    /// Whether it is not yet known to have landed.
    pub prepared: bool,
    /// The store that it was written for.
    pub store_identity: String,
}

/// The end of a partner's ledger.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tail {
    /// The last batch, void ones included: the chain goes on from it.
    pub last: Option<Recorded>,
    /// The last one before it that is not void.
    pub before: Option<Recorded>,
}

/// What became of the last batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing to settle.
    Settled,
    /// The replica has it.
    Landed,
    /// It certainly never crossed.
    Void,
    /// It cannot be known: it counts as crossed, and the replica starts over.
    Disclosed,
}

/// What step 1 finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settlement {
    /// State for the last batch.
    pub outcome: Outcome,
    /// Whether cursor and ledger disagree in a way that only a rebuild mends.
    pub rebuild: bool,
}

/// Settles the last batch of the ledger against the cursor (design 4, step 1). `last_void`: the last batch is void already.
pub fn settle(tail: &Tail, last_void: bool, cursor: &Cursor, store_identity: &str) -> Settlement {
    let names = |recorded: Option<&Recorded>| match recorded {
        Some(r) => cursor.batch == r.batch && cursor.head == r.head,
        None => cursor.batch == 0 && cursor.head.is_empty(),
    };
    let Some(last) = &tail.last else {
        // A cursor that names batches which this hub does not have: the hub was restored, or is another.
        return Settlement { outcome: Outcome::Settled, rebuild: !names(None) };
    };
    if last.prepared {
        if names(Some(last)) {
            Settlement { outcome: Outcome::Landed, rebuild: false }
        } else if names(tail.before.as_ref()) && last.store_identity == store_identity {
            Settlement { outcome: Outcome::Void, rebuild: false }
        } else {
            Settlement { outcome: Outcome::Disclosed, rebuild: true }
        }
    } else {
        let expected = if last_void { tail.before.as_ref() } else { Some(last) };
        Settlement { outcome: Outcome::Settled, rebuild: !names(expected) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(batch: i64, head: &[u8]) -> Cursor {
        Cursor {
            hub_identity: None,
            snapshot: None,
            as_of_millis: None,
            batch,
            head: head.to_vec(),
            mark: None,
            epoch: 1,
            filled: 0,
            seeded: false,
            groups: vec![],
            agreement: String::new(),
            population: None,
            fenced: true,
        }
    }

    fn recorded(batch: i64, head: &[u8], prepared: bool) -> Recorded {
        Recorded { batch, head: head.to_vec(), prepared, store_identity: "s/1".into() }
    }

    #[test]
    fn a_prepared_batch_is_landed_void_or_counts_as_disclosed() {
        let tail = Tail { last: Some(recorded(5, b"e", true)), before: Some(recorded(4, b"d", false)) };
        let outcome = |cursor: &Cursor, store: &str| settle(&tail, false, cursor, store).outcome;
        assert_eq!(outcome(&cursor(5, b"e"), "s/1"), Outcome::Landed);
        assert_eq!(outcome(&cursor(4, b"d"), "s/1"), Outcome::Void);
        assert_eq!(outcome(&cursor(4, b"d"), "s/2"), Outcome::Disclosed, "the store failed over: it may have landed");
        assert_eq!(outcome(&cursor(3, b"c"), "s/1"), Outcome::Disclosed, "a replica from a backup");
        assert_eq!(outcome(&cursor(5, b"x"), "s/1"), Outcome::Disclosed);
    }

    #[test]
    fn a_first_batch_that_never_landed_is_void() {
        let tail = Tail { last: Some(recorded(1, b"a", true)), before: None };
        assert_eq!(settle(&tail, false, &cursor(0, b""), "s/1").outcome, Outcome::Void);
    }

    #[test]
    fn a_restored_hub_or_replica_is_noticed() {
        let rebuild = |tail: &Tail, void: bool, cursor: &Cursor| settle(tail, void, cursor, "s/1").rebuild;
        let tail = Tail { last: Some(recorded(5, b"e", false)), before: Some(recorded(4, b"d", false)) };
        assert!(!rebuild(&tail, false, &cursor(5, b"e")));
        assert!(rebuild(&tail, false, &cursor(6, b"f")), "hub restored from a backup");
        assert!(rebuild(&tail, false, &cursor(4, b"d")), "replica restored from a backup");
        assert!(!rebuild(&tail, true, &cursor(4, b"d")), "the last one is void");
        assert!(rebuild(&Tail::default(), false, &cursor(1, b"a")));
        assert!(!rebuild(&Tail::default(), false, &cursor(0, b"")));
    }
}
