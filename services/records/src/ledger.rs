//! The disclosure ledger's arithmetic: what its hashes cover. Enough to verify an export with neither hub nor replica.

use sha2::{Digest, Sha256};

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

    /// What the ledger spells so.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Enter, Self::Stay, Self::Leave, Self::Reference].into_iter().find(|kind| kind.as_str() == text)
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

#[cfg(test)]
mod tests {
    use super::*;

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
