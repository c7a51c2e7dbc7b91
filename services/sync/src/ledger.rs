//! The disclosure ledger: what its hashes cover, and what became of a batch that was prepared. Pure.

use sha2::{Digest, Sha256};

use crate::cursor::Cursor;

/// What happened to a file in a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EntryKind {
    /// The file entered the scope.
    Enter,
    /// It was and is in the scope, and differs.
    Stay,
    /// It left the scope.
    Leave,
    /// Reference records, of no file.
    Reference,
}

impl EntryKind {
    /// As the ledger spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enter => "enter",
            Self::Stay => "stay",
            Self::Leave => "leave",
            Self::Reference => "reference",
        }
    }
}

/// One line of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The file; `None` for reference records.
    pub offender: Option<i64>,
    /// Groups of which something crossed or was withdrawn, sorted.
    pub groups: Vec<String>,
    /// What happened.
    pub kind: EntryKind,
    /// SHA-256 over what crossed and what was withdrawn.
    pub digest: [u8; 32],
}

/// Digest of what crossed: the records' hashes, then the keys that were withdrawn, both in ascending order.
pub fn entry_digest(crossed: &mut [[u8; 32]], withdrawn: &mut [(String, i64)]) -> [u8; 32] {
    crossed.sort_unstable();
    withdrawn.sort_unstable();
    let mut sha = Sha256::new();
    for hash in crossed.iter() {
        sha.update(hash);
    }
    sha.update([0]);
    for (tbl, id) in withdrawn.iter() {
        sha.update(tbl.as_bytes());
        sha.update([0]);
        sha.update(id.to_be_bytes());
    }
    sha.finalize().into()
}

/// What the head of a batch covers beside its predecessor's.
#[derive(Debug, Clone, Copy)]
pub struct Heading<'a> {
    /// Partner's name.
    pub partner: &'a str,
    /// Number, counted a partner.
    pub batch: i64,
    /// Agreement.
    pub agreement: &'a str,
    /// Generation of the connection.
    pub generation: i64,
    /// Digest of the entries.
    pub digest: &'a [u8; 32],
}

/// Digest of all entries of a batch, in their order.
pub fn batch_digest(entries: &[Entry]) -> [u8; 32] {
    let mut sha = Sha256::new();
    for entry in entries {
        let Entry { offender, groups, kind, digest } = entry;
        sha.update(offender.map_or_else(String::new, |o| o.to_string()).as_bytes());
        sha.update([0]);
        sha.update(groups.join(",").as_bytes());
        sha.update([0]);
        sha.update(kind.as_str().as_bytes());
        sha.update([0]);
        sha.update(digest);
    }
    sha.finalize().into()
}

/// The new head of a partner's chain. `previous` is empty for the first batch.
pub fn head(previous: &[u8], heading: &Heading<'_>) -> [u8; 32] {
    let Heading { partner, batch, agreement, generation, digest } = *heading;
    let mut sha = Sha256::new();
    sha.update(previous);
    for part in [partner, &batch.to_string(), agreement, &generation.to_string()] {
        sha.update(part.as_bytes());
        sha.update([0]);
    }
    sha.update(digest);
    sha.finalize().into()
}

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

    #[test]
    fn the_head_covers_everything() {
        let entry =
            |offender| Entry { offender, groups: vec!["identity".into()], kind: EntryKind::Enter, digest: [1; 32] };
        let digest = batch_digest(&[entry(Some(1)), entry(Some(2))]);
        assert_ne!(digest, batch_digest(&[entry(Some(2)), entry(Some(1))]), "order");
        assert_ne!(digest, batch_digest(&[entry(Some(1))]), "removal");
        let heading = Heading { partner: "p", batch: 1, agreement: "a", generation: 1, digest: &digest };
        let first = head(&[], &heading);
        assert_ne!(first, head(&first, &heading), "predecessor");
        assert_ne!(first, head(&[], &Heading { generation: 2, ..heading }));
    }
}
