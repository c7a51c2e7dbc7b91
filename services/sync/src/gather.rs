//! Steps 2 to 4 for many partners at once: one snapshot, each change routed once, each record read and encoded once.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use liaison_records::{catalogue::TABLES, codes::Code};

use crate::{
    cursor::Snapshot,
    delta::Source,
    error::Error,
    hub::{View, union},
    record::{Hash, Key, Record},
    route::{Candidate, Changes, Members, Slot, Want, route},
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
    for (since, askers) in together(view, askers).await? {
        let changes = view.changes(&since).await?;
        gathered.changes += changes.rows.len() + changes.everything.len();
        let (compared, routed): (Vec<&Asker<'_>>, Vec<&Asker<'_>>) =
            askers.into_iter().partition(|asker| changes.overflow || everything_concerns(&changes, asker.groups));
        gathered.compare.extend(compared.iter().map(|asker| asker.candidate.slot));
        let axes = view.axes(&changes.moved()).await?;
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

/// The askers in groups, each with a snapshot that is no later than any of its own. Mostly all replicas follow the same one;
/// after seeding, or when some lag, there are many, and asking for each would cost changes times partners.
async fn together<'a, 'b>(
    view: &View<'_>,
    askers: &'a [Asker<'b>],
) -> Result<Vec<(Snapshot, Vec<&'a Asker<'b>>)>, Error> {
    let mut askers: Vec<&Asker<'_>> = askers.iter().collect();
    askers.sort_by_key(|asker| asker.since.xmax);
    let mut distinct: Vec<u64> = askers.iter().map(|asker| asker.since.xmax).collect();
    distinct.dedup();
    let after: Vec<i64> = if distinct.len() > 1 { view.counts(&distinct).await? } else { vec![0; distinct.len()] };
    let after: HashMap<u64, i64> = distinct.into_iter().zip(after).collect();
    let mut groups: Vec<(i64, Snapshot, Vec<&Asker<'_>>)> = Vec::new();
    for asker in askers {
        let rows = after.get(&asker.since.xmax).copied().unwrap_or(0);
        match groups.last_mut() {
            // Dirt that a replica has seen already does no harm; at most as much of it as there is of what it has not.
            Some((most, since, group)) if rows >= *most / 2 => {
                since.include(asker.since);
                group.push(asker);
            }
            _ => groups.push((rows, asker.since.clone(), vec![asker])),
        }
    }
    Ok(groups.into_iter().map(|(_, since, group)| (since, group)).collect())
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
    let mut keys: HashMap<Key, Option<Arc<Record>>> = HashMap::new();
    for key in wants.values().flat_map(|want| &want.keys) {
        if !keys.contains_key(key) {
            keys.insert(key.clone(), None);
        }
    }
    gathered.source.files = view.files(&entering, &groups).await?;
    view.keys(&mut keys).await?;
    gathered.source.keys = keys;
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
