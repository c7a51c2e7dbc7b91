//! Which partner a change concerns, and how: decided once a cycle for all partners. Pure.
//!
//! Whether a file leaves is decided from the files that the replica holds, never from its earlier state on the hub: what
//! changed twice in one transaction, was deleted with its file or took a used number all comes out right.

use std::collections::{BTreeSet, HashMap};

use liaison_records::{catalogue::OFFENDER, population::Axes};
use roaring::RoaringTreemap;

use crate::{cover::Cover, cursor::ALL, record::Key, terms::Scope};

/// A partner's number within a worker.
pub type Slot = u32;

/// What the change log says between two snapshots.
#[derive(Debug, Default)]
pub struct Changes {
    /// Tables of which everything may have changed.
    pub everything: BTreeSet<String>,
    /// Records that changed, with their file; a record that moved, or changed twice, may be there twice.
    pub rows: Vec<(Key, Option<i64>)>,
    /// There were more than a cycle takes: compare instead.
    pub overflow: bool,
}

impl Changes {
    /// The files whose own record changed, ascending: whoever covers them may be another now. Of any other file the scope is
    /// what it was.
    pub fn moved(&self) -> Vec<i64> {
        let moved: BTreeSet<i64> =
            self.rows.iter().filter(|((table, _), _)| &**table == OFFENDER).filter_map(|(_, file)| *file).collect();
        moved.into_iter().collect()
    }
}

/// Which replicas hold which files: a compressed bitmap a replica.
#[derive(Debug, Default)]
pub struct Members(HashMap<Slot, RoaringTreemap>);

impl Members {
    /// Takes over what a replica was found to hold.
    pub fn load(&mut self, slot: Slot, files: impl IntoIterator<Item = i64>) {
        self.0.insert(slot, files.into_iter().map(i64::cast_unsigned).collect());
    }

    /// Forgets a replica.
    pub fn forget(&mut self, slot: Slot) {
        self.0.remove(&slot);
    }

    /// A file that a replica has since a batch.
    pub fn enter(&mut self, slot: Slot, file: i64) {
        self.0.entry(slot).or_default().insert(file.cast_unsigned());
    }

    /// A file that a replica no longer has.
    pub fn leave(&mut self, slot: Slot, file: i64) {
        if let Some(files) = self.0.get_mut(&slot) {
            files.remove(file.cast_unsigned());
        }
    }

    /// Whether a replica holds a file.
    pub fn holds(&self, slot: Slot, file: i64) -> bool {
        self.0.get(&slot).is_some_and(|files| files.contains(file.cast_unsigned()))
    }

    /// How many files a replica holds.
    pub fn count(&self, slot: Slot) -> usize {
        self.0.get(&slot).map_or(0, |files| usize::try_from(files.len()).unwrap_or(usize::MAX))
    }

    /// Those of `files` that a replica holds.
    fn among(&self, slot: Slot, files: &RoaringTreemap) -> RoaringTreemap {
        self.0.get(&slot).map_or_else(RoaringTreemap::new, |held| held & files)
    }
}

/// A partner whose turn it is.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// Which.
    pub slot: Slot,
    /// Its effective scope.
    pub scope: &'a Scope,
    /// Its replica is exact up to this offender number; later files are filled later.
    pub filled: i64,
}

/// What the changes mean for one partner.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Want {
    /// Files that enter.
    pub enter: Vec<i64>,
    /// Files that leave.
    pub leave: Vec<i64>,
    /// Files that stay, in which something changed.
    pub stay: Vec<i64>,
    /// The records that changed in files that stay, and reference records; each once, ascending.
    pub keys: Vec<Key>,
}

impl Want {
    /// Whether nothing changed for this partner.
    pub fn is_empty(&self) -> bool {
        self.enter.is_empty() && self.leave.is_empty() && self.keys.is_empty()
    }
}

/// Routes changes. `axes` are those of the files that [`Changes::moved`] names, as far as they exist at the snapshot; a file
/// without is gone. Costs what the changes and those whom they concern cost, and a few words a partner.
pub fn route<S: std::hash::BuildHasher>(
    changes: &Changes,
    axes: &HashMap<i64, Axes, S>,
    candidates: &[Candidate<'_>],
    members: &Members,
) -> HashMap<Slot, Want> {
    let moved: RoaringTreemap = changes.moved().into_iter().map(i64::cast_unsigned).collect();
    let mut by_file: HashMap<i64, Vec<&Key>> = HashMap::new();
    let mut references: Vec<Key> = Vec::new();
    for (key, file) in &changes.rows {
        match file {
            Some(file) => by_file.entry(*file).or_default().push(key),
            None => references.push(key.clone()),
        }
    }
    let touched: RoaringTreemap = by_file.keys().map(|file| file.cast_unsigned()).collect();
    let others = &touched - &moved;
    let mut covered = covered(axes, candidates, &moved);
    let mut wants = HashMap::with_capacity(candidates.len());
    for (candidate, covered) in candidates.iter().zip(&mut covered) {
        let Candidate { slot, scope: _, filled } = *candidate;
        let held = members.among(slot, &moved);
        // A file whose own record did not change is where it was: who holds it keeps it.
        let stay = (&*covered & &held) | members.among(slot, &others);
        let list = |files: RoaringTreemap| -> Vec<i64> {
            files.into_iter().map(u64::cast_signed).filter(|file| filled == ALL || *file <= filled).collect()
        };
        let mut want = Want {
            enter: list(&*covered - &held),
            leave: list(&held - &*covered),
            stay: list(stay),
            keys: references.clone(),
        };
        want.keys.extend(want.stay.iter().filter_map(|file| by_file.get(file)).flatten().map(|key| (*key).clone()));
        want.keys.sort_unstable();
        want.keys.dedup();
        wants.insert(slot, want);
    }
    wants
}

/// For each candidate the files of `moved` that its scope covers now. Each combination of axes is asked for once.
fn covered<S: std::hash::BuildHasher>(
    axes: &HashMap<i64, Axes, S>,
    candidates: &[Candidate<'_>],
    moved: &RoaringTreemap,
) -> Vec<RoaringTreemap> {
    let mut covered = vec![RoaringTreemap::new(); candidates.len()];
    let cover = Cover::new(candidates.iter().map(|candidate| candidate.scope));
    let mut known: HashMap<&Axes, Vec<usize>> = HashMap::new();
    for file in moved {
        let Some(axes) = axes.get(&file.cast_signed()) else { continue };
        for candidate in known.entry(axes).or_insert_with(|| cover.of(axes)) {
            covered[*candidate].insert(file);
        }
    }
    covered
}

#[cfg(test)]
mod tests {
    use super::*;
    use liaison_records::{
        codes::{AtLarge, Custody, Jurisdiction, Status, WarrantState},
        population::Population,
    };

    fn scope(json: &str) -> Scope {
        let share: Population = serde_json::from_str(json).unwrap();
        Scope { agreement: share.clone(), share }
    }

    fn axes(municipality: &str) -> Axes {
        Axes {
            custody: Custody::Community,
            status: Status::Released,
            release_type: None,
            at_large: AtLarge::NotAtLarge,
            warrant: WarrantState::NoWarrant,
            jurisdiction: Jurisdiction::BritishColumbia,
            municipality: municipality.to_owned(),
        }
    }

    #[test]
    fn enter_stay_and_leave_follow_what_the_replica_holds() {
        let vancouver = scope(r#"{"anyOf":[{"municipalities":["5915022"]}]}"#);
        let victoria = scope(r#"{"anyOf":[{"municipalities":["5917034"]}]}"#);
        let candidates = [
            Candidate { slot: 0, scope: &vancouver, filled: i64::MAX },
            Candidate { slot: 1, scope: &victoria, filled: 8 },
        ];
        let mut members = Members::default();
        members.load(0, [7, 9]);
        members.load(1, [5]);
        let key = |table: &str, id| -> Key { (table.into(), id) };
        let changes = Changes {
            rows: vec![
                (key("alias", 1), Some(7)),    // stays in Vancouver
                (key("offender", 9), Some(9)), // moved to Victoria, which is not filled so far yet
                (key("offender", 5), Some(5)), // gone
                (key("offender", 8), Some(8)), // enters Victoria
                (key("alias", 4), Some(8)),
                (key("office", 4), None),
            ],
            ..Changes::default()
        };
        let axes = HashMap::from([(7, axes("5915022")), (9, axes("5917034")), (8, axes("5917034"))]);
        let wants = route(&changes, &axes, &candidates, &members);
        assert_eq!(
            wants[&0],
            Want { enter: vec![], leave: vec![9], stay: vec![7], keys: vec![key("alias", 1), key("office", 4)] }
        );
        assert_eq!(wants[&1], Want { enter: vec![8], leave: vec![5], stay: vec![], keys: vec![key("office", 4)] });
    }

    #[test]
    fn members_come_and_go() {
        let mut members = Members::default();
        members.load(3, [1, 2]);
        members.enter(3, 2);
        members.leave(3, 1);
        assert!(members.holds(3, 2) && !members.holds(3, 1) && members.count(3) == 1);
        members.forget(3);
        assert_eq!(members.count(3), 0);
    }
}
