//! One hash of a whole replica, so made that two sides which computed it apart from each other find where they differ.
//!
//! What is hashed is a set of *units*: a file with all its records and its search row, a reference record, a picture. Each
//! falls into one of [`BUCKETS`] by its name. A unit's digest is SHA-256 over its name and the sorted hashes of what it
//! holds; a bucket's leaf is SHA-256 over the sorted digests of its units; the root is SHA-256 over the leaves. So the root
//! does not depend on the order in which anything was read, and equal roots mean the same set (SHA-256 has no known
//! collisions; a sum of short hashes would be no evidence).

use std::{collections::BTreeSet, sync::Arc};

use serde_json::Value;
use sha2::{Digest, Sha256};

/// Into how many buckets the units fall.
pub const BUCKETS: usize = 1024;

/// SHA-256.
pub type Hash = [u8; 32];

/// What is hashed as one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unit {
    /// A record of no file: its table and number.
    Reference(Arc<str>, i64),
    /// A file.
    File(i64),
    /// A picture, by the SHA-256 under which it stands.
    Picture(Hash),
}

impl Unit {
    fn name(&self) -> Sha256 {
        let mut sha = Sha256::new();
        match self {
            Self::Reference(table, id) => {
                sha.update(b"reference\0");
                sha.update(table.as_bytes());
                sha.update([0]);
                sha.update(id.to_be_bytes());
            }
            Self::File(file) => {
                sha.update(b"file\0");
                sha.update(file.to_be_bytes());
            }
            Self::Picture(sha256) => {
                sha.update(b"picture\0");
                sha.update(sha256);
            }
        }
        sha
    }

    /// The bucket that it falls into.
    pub fn bucket(&self) -> usize {
        let name = self.name().finalize();
        usize::from(u16::from_be_bytes([name[0], name[1]])) % BUCKETS
    }
}

/// Hash of a search row: of its columns, in the order of [`SEARCH_COLUMNS`], a missing one as `null`.
pub fn search_row_hash(row: &Value) -> Hash {
    let mut sha = Sha256::new();
    // No field group begins with a zero byte: no record hashes the same bytes.
    sha.update(b"\0search row\0");
    for column in SEARCH_COLUMNS {
        sha.update(row.get(column).unwrap_or(&Value::Null).to_string().as_bytes());
        sha.update([0]);
    }
    sha.finalize().into()
}

/// The columns of a search row that are a function of the file's records; dates as `YYYY-MM-DD`, the photograph in hex.
pub const SEARCH_COLUMNS: [&str; 14] = [
    "offender",
    "fps",
    "surname",
    "given",
    "names",
    "sounds",
    "birth_date",
    "other_dates",
    "custody",
    "status",
    "at_large",
    "jurisdiction",
    "municipality",
    "photograph",
];

/// What is told of a stored record whose stored hash is not the one that its bytes have: never the hash of a record.
pub fn false_hash(computed: &Hash, stored: &[u8]) -> Hash {
    let mut sha = Sha256::new();
    sha.update(b"\0false\0");
    sha.update(computed);
    sha.update(stored);
    sha.finalize().into()
}

/// A set that is being hashed.
#[derive(Debug)]
pub struct SetHash(Vec<Vec<(Unit, Hash)>>);

impl Default for SetHash {
    fn default() -> Self {
        Self(vec![Vec::new(); BUCKETS])
    }
}

impl SetHash {
    /// Takes a unit in, once, with the hashes of all that it holds, in any order.
    pub fn add(&mut self, unit: Unit, items: &mut [Hash]) {
        items.sort_unstable();
        let mut sha = unit.name();
        sha.update([0]);
        for item in items.iter() {
            sha.update(item);
        }
        let digest = sha.finalize().into();
        self.0[unit.bucket()].push((unit, digest));
    }

    /// Everything is in.
    pub fn finish(self) -> Tree {
        let mut buckets = self.0;
        let mut root = Sha256::new();
        root.update(b"liaison set hash 1\0");
        let mut leaves = Vec::with_capacity(buckets.len());
        for bucket in &mut buckets {
            bucket.sort_unstable();
            let mut digests: Vec<&Hash> = bucket.iter().map(|(_, digest)| digest).collect();
            digests.sort_unstable();
            let mut sha = Sha256::new();
            for digest in digests {
                sha.update(digest);
            }
            let leaf: Hash = sha.finalize().into();
            root.update(leaf);
            leaves.push(leaf);
        }
        Tree { buckets, leaves, root: root.finalize().into() }
    }
}

/// A set's hash, and what is needed to find a difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    buckets: Vec<Vec<(Unit, Hash)>>,
    leaves: Vec<Hash>,
    root: Hash,
}

/// Where two sets differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// Buckets whose leaves differ.
    pub buckets: Vec<usize>,
    /// The units in them that only one side has, or that differ.
    pub units: BTreeSet<Unit>,
}

impl Tree {
    /// The hash of all.
    pub fn root(&self) -> Hash {
        self.root
    }

    /// Where `self` and `other` differ: only buckets with different leaves are looked into.
    pub fn against(&self, other: &Self) -> Difference {
        let mut difference = Difference::default();
        for (number, (mine, theirs)) in self.leaves.iter().zip(&other.leaves).enumerate() {
            if mine == theirs {
                continue;
            }
            difference.buckets.push(number);
            let mine: BTreeSet<&(Unit, Hash)> = self.buckets[number].iter().collect();
            let theirs: BTreeSet<&(Unit, Hash)> = other.buckets[number].iter().collect();
            difference.units.extend(mine.symmetric_difference(&theirs).map(|(unit, _)| unit.clone()));
        }
        difference
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(units: &[(i64, Vec<u8>)]) -> Tree {
        let mut set = SetHash::default();
        for (file, items) in units {
            let mut items: Vec<Hash> = items.iter().map(|item| [*item; 32]).collect();
            set.add(Unit::File(*file), &mut items);
        }
        set.finish()
    }

    #[test]
    fn equal_sets_have_equal_roots_in_any_order_and_one_change_is_found() {
        for round in 0..200_u64 {
            // Sets of many sizes, drawn from a hash.
            let drawn = |what: u64| u64::from(Sha256::digest(format!("{round} {what}"))[0]);
            let mut units: Vec<(i64, Vec<u8>)> = (0..drawn(0) % 60)
                .map(|n| {
                    (
                        i64::try_from(n * 37 + round).unwrap(),
                        (0..drawn(n + 1) % 4).map(|i| u8::try_from(i * 85).unwrap()).collect(),
                    )
                })
                .collect();
            let mut other: Vec<_> =
                units.iter().rev().map(|(file, items)| (*file, items.iter().rev().copied().collect())).collect();
            if !other.is_empty() {
                other.rotate_left(usize::try_from(drawn(99)).unwrap() % units.len());
            }
            let before = tree(&units);
            assert_eq!(before, tree(&other));
            if let Some((file, items)) = units.last_mut() {
                items.push(7);
                let unit = Unit::File(*file);
                let difference = before.against(&tree(&units));
                assert_eq!((difference.buckets, difference.units), (vec![unit.bucket()], BTreeSet::from([unit])));
            }
        }
    }

    #[test]
    fn missing_and_extra_units_are_named() {
        let one = tree(&[(1, vec![1]), (2, vec![2])]);
        let two = tree(&[(2, vec![2]), (3, vec![3])]);
        assert_ne!(one.root(), two.root());
        assert_eq!(one.against(&two).units, BTreeSet::from([Unit::File(1), Unit::File(3)]));
        assert_eq!(one.against(&one), Difference::default());
    }

    #[test]
    fn the_root_is_as_documented() {
        let mut set = SetHash::default();
        set.add(Unit::Reference("office".into(), 3), &mut [[2; 32], [1; 32]]);
        let mut unit = Sha256::new();
        unit.update(b"reference\0office\0\0\0\0\0\0\0\0\x03\0");
        unit.update([1; 32]);
        unit.update([2; 32]);
        let unit = unit.finalize();
        let name = Sha256::digest(b"reference\0office\0\0\0\0\0\0\0\0\x03");
        let bucket = usize::from(u16::from_be_bytes([name[0], name[1]])) % BUCKETS;
        let mut root = Sha256::new();
        root.update(b"liaison set hash 1\0");
        for number in 0..BUCKETS {
            root.update(if number == bucket { Sha256::digest(unit) } else { Sha256::digest([]) });
        }
        assert_eq!(set.finish().root(), <Hash>::from(root.finalize()));
    }

    #[test]
    fn a_missing_column_is_null() {
        let row = serde_json::json!({"offender": 1, "surname": ""});
        let full = serde_json::json!({"offender": 1, "surname": "", "fps": null, "photograph": null});
        assert_eq!(search_row_hash(&row), search_row_hash(&full));
        assert_ne!(search_row_hash(&row), search_row_hash(&serde_json::json!({"offender": 1, "surname": "x"})));
    }
}
