//! Which partner a change concerns, and how: decided once a cycle for all partners. Pure.
//!
//! Whether a file leaves is decided from the files that the replica holds, never from its earlier state on the hub: what
//! changed twice in one transaction, was deleted with its file or took a used number all comes out right.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use liaison_records::{
    codes::{AtLarge, Custody, Jurisdiction, ReleaseType, Status, WarrantState},
    population::Axes,
};

use crate::{record::Key, terms::Scope};

/// A partner's number within a worker.
pub type Slot = u32;

/// What the change log says between two snapshots.
#[derive(Debug, Default)]
pub struct Changes {
    /// Tables of which everything may have changed.
    pub everything: BTreeSet<String>,
    /// Records that changed, with their file; a record that moved is there twice.
    pub rows: Vec<(Key, Option<i64>)>,
    /// There were more than a cycle takes: compare instead.
    pub overflow: bool,
}

impl Changes {
    /// The files among them, each once, ascending.
    pub fn files(&self) -> Vec<i64> {
        let files: BTreeSet<i64> = self.rows.iter().filter_map(|(_, offender)| *offender).collect();
        files.into_iter().collect()
    }
}

/// Which replicas hold which files.
#[derive(Debug, Default)]
pub struct Members {
    holders: HashMap<i64, Vec<Slot>>,
}

impl Members {
    /// Takes over what a replica was found to hold.
    pub fn load(&mut self, slot: Slot, files: impl IntoIterator<Item = i64>) {
        self.forget(slot);
        for file in files {
            self.holders.entry(file).or_default().push(slot);
        }
    }

    /// Forgets a replica.
    pub fn forget(&mut self, slot: Slot) {
        self.holders.retain(|_, slots| {
            slots.retain(|s| *s != slot);
            !slots.is_empty()
        });
    }

    /// A file that a replica has since a batch.
    pub fn enter(&mut self, slot: Slot, file: i64) {
        let slots = self.holders.entry(file).or_default();
        if !slots.contains(&slot) {
            slots.push(slot);
        }
    }

    /// A file that a replica no longer has.
    pub fn leave(&mut self, slot: Slot, file: i64) {
        if let Some(slots) = self.holders.get_mut(&file) {
            slots.retain(|s| *s != slot);
            if slots.is_empty() {
                self.holders.remove(&file);
            }
        }
    }

    /// Who holds a file.
    pub fn holders(&self, file: i64) -> &[Slot] {
        self.holders.get(&file).map_or(&[], Vec::as_slice)
    }

    /// Whether a replica holds a file.
    pub fn holds(&self, slot: Slot, file: i64) -> bool {
        self.holders(file).contains(&slot)
    }

    /// How many files a replica holds.
    pub fn count(&self, slot: Slot) -> usize {
        self.holders.values().filter(|slots| slots.contains(&slot)).count()
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
    /// The records that changed in files that stay, and reference records.
    pub keys: BTreeSet<Key>,
}

impl Want {
    /// Whether nothing changed for this partner.
    pub fn is_empty(&self) -> bool {
        self.enter.is_empty() && self.leave.is_empty() && self.keys.is_empty()
    }
}

/// Routes changes. `axes` are those of the changed files that exist at the snapshot; a file without is gone.
pub fn route<S: std::hash::BuildHasher>(
    changes: &Changes,
    axes: &HashMap<i64, Axes, S>,
    candidates: &[Candidate<'_>],
    members: &Members,
) -> HashMap<Slot, Want> {
    let mut wants: HashMap<Slot, Want> = candidates.iter().map(|c| (c.slot, Want::default())).collect();
    let filled: HashMap<Slot, i64> = candidates.iter().map(|c| (c.slot, c.filled)).collect();
    let mut by_file: HashMap<i64, Vec<&Key>> = HashMap::new();
    for (key, offender) in &changes.rows {
        if let Some(file) = offender {
            by_file.entry(*file).or_default().push(key);
        } else {
            for want in wants.values_mut() {
                want.keys.insert(key.clone());
            }
        }
    }
    let mut cover = Cover::new(candidates);
    for file in changes.files() {
        let covering = axes.get(&file).map(|axes| cover.of(axes)).unwrap_or_default();
        for slot in covering.iter().filter(|slot| file <= filled[*slot]) {
            let Some(want) = wants.get_mut(slot) else { continue };
            if members.holds(*slot, file) {
                want.stay.push(file);
                want.keys.extend(by_file[&file].iter().map(|key| (*key).clone()));
            } else {
                want.enter.push(file);
            }
        }
        for slot in members.holders(file) {
            let inside = filled.get(slot).is_some_and(|filled| file <= *filled);
            if inside
                && !covering.contains(slot)
                && let Some(want) = wants.get_mut(slot)
            {
                want.leave.push(file);
            }
        }
    }
    wants
}

type AxesKey = (Custody, Status, Option<ReleaseType>, AtLarge, WarrantState, Jurisdiction, String);

/// Predicates asked once for each combination of axes, not once for each file and partner.
struct Cover<'a> {
    candidates: &'a [Candidate<'a>],
    known: HashMap<AxesKey, Arc<[Slot]>>,
}

impl<'a> Cover<'a> {
    fn new(candidates: &'a [Candidate<'a>]) -> Self {
        Self { candidates, known: HashMap::new() }
    }

    fn of(&mut self, axes: &Axes) -> Arc<[Slot]> {
        let Axes { custody, status, release_type, at_large, warrant, jurisdiction, municipality } = axes;
        let key = (*custody, *status, *release_type, *at_large, *warrant, *jurisdiction, municipality.clone());
        let candidates = self.candidates;
        self.known
            .entry(key)
            .or_insert_with(|| candidates.iter().filter(|c| c.scope.covers(axes)).map(|c| c.slot).collect())
            .clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use liaison_records::population::Population;

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
                (key("alias", 3), Some(8)),    // enters Victoria
                (key("office", 4), None),
            ],
            ..Changes::default()
        };
        let axes = HashMap::from([(7, axes("5915022")), (9, axes("5917034")), (8, axes("5917034"))]);
        let wants = route(&changes, &axes, &candidates, &members);
        assert_eq!(
            wants[&0],
            Want {
                enter: vec![],
                leave: vec![9],
                stay: vec![7],
                keys: BTreeSet::from([key("alias", 1), key("office", 4)])
            }
        );
        assert_eq!(
            wants[&1],
            Want { enter: vec![8], leave: vec![5], stay: vec![], keys: BTreeSet::from([key("office", 4)]) }
        );
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
