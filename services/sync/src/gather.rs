//! Steps 2 to 4 for many partners at once: one snapshot, each change routed once, each record read and encoded once.

use std::collections::{BTreeSet, HashMap, HashSet};

use liaison_records::{catalogue::TABLES, codes::Code};

use crate::{
    cursor::Snapshot,
    delta::Source,
    error::Error,
    hub::{View, union},
    record::{Hash, Key},
    route::{Candidate, Changes, Members, Slot, Want, route},
    subject,
};

/// A partner with more entering files than this in one cycle is compared, in parts.
pub const MOST_ENTERING: usize = 1_000;
/// Entering files that are read in one cycle for all partners; who comes after waits for the next.
const MOST_READ: usize = 3_000;

/// A partner to whom changes are to be routed.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    /// Slot, scope, key range.
    pub candidate: Candidate<'a>,
    /// Granted groups.
    pub groups: &'a [String],
    /// What its replica follows.
    pub since: &'a Snapshot,
}

/// What a cycle found.
#[derive(Debug, Default)]
pub struct Gathered {
    /// What it read.
    pub source: Source,
    /// What each partner wants; a partner that is in none of the three lists waits for the next cycle.
    pub wants: HashMap<Slot, Want>,
    /// Partners that must be compared instead.
    pub compare: BTreeSet<Slot>,
    /// Change rows met.
    pub changes: usize,
}

/// Routes what changed since each asker's snapshot, and reads what they need of it.
pub async fn gather(view: &mut View<'_>, askers: &[Asker<'_>], members: &Members) -> Result<Gathered, Error> {
    let mut gathered = Gathered::default();
    // Most replicas follow the same snapshot; those that lag are asked for separately.
    let mut by_snapshot: HashMap<String, Vec<&Asker<'_>>> = HashMap::new();
    for asker in askers {
        by_snapshot.entry(asker.since.to_string()).or_default().push(asker);
    }
    for askers in by_snapshot.into_values() {
        let changes = view.changes(askers[0].since).await?;
        gathered.changes += changes.rows.len() + changes.everything.len();
        let (compared, routed): (Vec<&Asker<'_>>, Vec<&Asker<'_>>) =
            askers.into_iter().partition(|asker| changes.overflow || everything_concerns(&changes, asker.groups));
        gathered.compare.extend(compared.iter().map(|asker| asker.candidate.slot));
        let axes = view.axes(&changes.files()).await?;
        let candidates: Vec<Candidate<'_>> = routed.iter().map(|asker| asker.candidate).collect();
        gathered.wants.extend(route(&changes, &axes, &candidates, members));
        // Without a group there is no file, and no search row either (a share without identity).
        for asker in routed.iter().filter(|asker| asker.groups.is_empty()) {
            gathered.wants.insert(asker.candidate.slot, Want::default());
        }
    }
    bound(&mut gathered);
    read(view, askers, &mut gathered).await?;
    Ok(gathered)
}

/// Whether a table of which everything may have changed is granted. A table that the catalogue does not know concerns all.
fn everything_concerns(changes: &Changes, groups: &[String]) -> bool {
    changes.everything.iter().any(|table| {
        TABLES.iter().find(|t| t.name == table).is_none_or(|t| groups.iter().any(|group| group == t.group.as_str()))
    })
}

fn bound(gathered: &mut Gathered) {
    let large: Vec<Slot> =
        gathered.wants.iter().filter(|(_, want)| want.enter.len() > MOST_ENTERING).map(|(slot, _)| *slot).collect();
    for slot in large {
        gathered.wants.remove(&slot);
        gathered.compare.insert(slot);
    }
    let mut reading: HashSet<i64> = HashSet::new();
    let mut slots: Vec<Slot> = gathered.wants.keys().copied().collect();
    slots.sort_by_key(|slot| gathered.wants[slot].enter.len());
    for slot in slots {
        let more = gathered.wants[&slot].enter.iter().filter(|file| !reading.contains(file)).count();
        if reading.len() + more > MOST_READ {
            gathered.wants.remove(&slot);
        } else {
            reading.extend(&gathered.wants[&slot].enter);
        }
    }
}

async fn read(view: &mut View<'_>, askers: &[Asker<'_>], gathered: &mut Gathered) -> Result<(), Error> {
    let wants = &gathered.wants;
    let groups = union(askers.iter().filter(|a| wants.contains_key(&a.candidate.slot)).map(|a| a.groups));
    let entering: BTreeSet<i64> = wants.values().flat_map(|want| want.enter.iter().copied()).collect();
    let entering: Vec<i64> = entering.into_iter().collect();
    let keys: BTreeSet<Key> = wants.values().flat_map(|want| want.keys.iter().cloned()).collect();
    let searchable = keys.iter().any(|(table, _)| subject::feeds(table));
    let staying: BTreeSet<i64> =
        if searchable { wants.values().flat_map(|want| want.stay.iter().copied()).collect() } else { BTreeSet::new() };
    let staying: Vec<i64> = staying.into_iter().collect();
    gathered.source.files = view.files(&entering, &groups).await?;
    gathered.source.keys = view.keys(&keys).await?;
    gathered.source.subjects = view.subjects(&staying).await?;
    let source = &gathered.source;
    let photographs: BTreeSet<Hash> = source
        .files
        .values()
        .flatten()
        .chain(source.keys.values().flatten())
        .filter_map(|record| record.photograph())
        .collect();
    let photographs: Vec<Hash> = photographs.into_iter().collect();
    gathered.source.images = view.images(&photographs).await?;
    Ok(())
}
