//! What must be written to one replica: the difference between what it has and what it should have. Pure.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use liaison_records::catalogue::OFFENDER;

use crate::{
    ledger::{Entry, EntryKind, entry_digest},
    record::{Hash, Key, Place, Record},
    route::Want,
    subject::{self, Core, Part},
};

/// What a cycle read from the hub, for all partners.
#[derive(Debug, Default)]
pub struct Source {
    /// All records of files that enter somewhere.
    pub files: HashMap<i64, Vec<Arc<Record>>>,
    /// The records behind changed keys; `None`: there is none.
    pub keys: HashMap<Key, Option<Arc<Record>>>,
    /// Bytes of pictures that may be needed.
    pub images: HashMap<Hash, Arc<Vec<u8>>>,
}

/// A record as a replica was found to have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// The file under which the replica has it.
    pub offender: Option<i64>,
    /// Its hash there.
    pub hash: Hash,
    /// Where its row was then.
    pub place: Place,
}

/// What a replica has under each key.
pub type Seen = HashMap<Key, Stored>;

/// What a replica was found to have of what a cycle is about.
#[derive(Debug, Default)]
pub struct Looked {
    /// Under the keys asked for.
    pub seen: Seen,
    /// In the search rows of the files asked for.
    pub cores: HashMap<i64, Core>,
}

/// What must be written to one replica.
#[derive(Debug, Default)]
pub struct Delta {
    /// Records that are new or differ.
    pub upserts: BTreeMap<Key, Arc<Record>>,
    /// Records that must go, with the file under which the replica has them.
    pub deletes: BTreeMap<Key, Option<i64>>,
    /// Files that must go whole.
    pub leave: BTreeSet<i64>,
    /// Files that come.
    pub enter: BTreeSet<i64>,
    /// Of the records that are new or differ, those that the replica was found to have under their key.
    pub known: HashMap<Key, Stored>,
    /// Files whose search row must be made anew, with the records it is made of.
    pub subjects: BTreeMap<i64, Vec<Arc<Record>>>,
    /// Files whose search row must be made anew from the records that the replica has in the end.
    pub remake: BTreeSet<i64>,
    /// Files whose own record the replica was found to have under the FPS number that it has now.
    pub numbered: HashSet<i64>,
    /// Files in whose search row only this changes: no name, so none of what is made of names.
    pub cores: BTreeMap<i64, Core>,
    /// Records were compared a file at a time, or all that have none: one that is new to its file may stand under another.
    pub robs: bool,
    /// Field groups of which everything but these must go.
    pub only_groups: Option<Vec<String>>,
    /// Pictures whose bytes must go, before those that come are written.
    pub pictures: BTreeSet<Hash>,
}

impl Delta {
    /// Whether nothing is to be written.
    pub fn is_empty(&self) -> bool {
        self.upserts.is_empty()
            && self.deletes.is_empty()
            && self.leave.is_empty()
            && self.subjects.is_empty()
            && self.remake.is_empty()
            && self.cores.is_empty()
            && self.only_groups.is_none()
            && self.pictures.is_empty()
    }

    /// Where a record is that is still there to be updated once all that goes has gone.
    pub fn updates(&self, key: &Key) -> Option<Place> {
        let known = self.known.get(key).filter(|_| self.only_groups.is_none() && !self.deletes.contains_key(key))?;
        known.offender.is_none_or(|file| !self.leave.contains(&file)).then_some(known.place)
    }

    /// Whether the replica was asked for each record under its own key, so that one which it was not found to have, or which goes
    /// before, can be inserted.
    pub fn looked_up(&self) -> bool {
        !self.robs && self.only_groups.is_none()
    }

    /// Pictures that the new records name.
    pub fn photographs(&self) -> BTreeSet<Hash> {
        self.upserts.values().filter_map(|record| record.photograph()).collect()
    }

    /// FPS numbers that the new records bear and the replica was not found to have, each with its file.
    pub fn numbers(&self) -> Vec<(String, i64)> {
        let own = self.upserts.values().filter(|record| *record.table == *OFFENDER);
        own.filter_map(|record| {
            let file = record.offender.filter(|file| !self.numbered.contains(file))?;
            Some((subject::number(record)?, file))
        })
        .collect()
    }

    /// The ledger's lines, ordered by file; reference records first.
    pub fn entries(&self, groups: &[String]) -> Vec<Entry> {
        #[derive(Default)]
        struct Line<'a> {
            groups: BTreeSet<&'a str>,
            crossed: Vec<Hash>,
            withdrawn: Vec<(String, i64)>,
        }
        let mut lines: BTreeMap<Option<i64>, Line> = BTreeMap::new();
        for record in self.upserts.values() {
            let line = lines.entry(record.offender).or_default();
            line.groups.insert(&record.group);
            line.crossed.push(record.hash);
        }
        for ((table, id), offender) in &self.deletes {
            lines.entry(*offender).or_default().withdrawn.push((table.to_string(), *id));
        }
        for file in &self.leave {
            let line = lines.entry(Some(*file)).or_default();
            line.groups.extend(groups.iter().map(String::as_str));
            line.withdrawn.push(("*".to_owned(), *file));
        }
        if let Some(only) = &self.only_groups {
            // Groups that are no longer granted are withdrawn from every file at once.
            let line = lines.entry(None).or_default();
            line.withdrawn.push((format!("not in {}", only.join(",")), 0));
        }
        for picture in &self.pictures {
            let line = lines.entry(None).or_default();
            line.withdrawn.push((format!("image {}", hex::encode(picture)), 0));
        }
        lines
            .into_iter()
            .map(|(offender, mut line)| Entry {
                offender,
                kind: match offender {
                    None => EntryKind::Reference,
                    Some(file) if self.leave.contains(&file) => EntryKind::Leave,
                    Some(file) if self.enter.contains(&file) => EntryKind::Enter,
                    Some(_) => EntryKind::Stay,
                },
                groups: line.groups.into_iter().map(str::to_owned).collect(),
                digest: entry_digest(&mut line.crossed, &mut line.withdrawn),
            })
            .collect()
    }

    fn settle(&mut self, record: &Arc<Record>, seen: &Seen) -> bool {
        let key = record.key();
        let there = seen.get(&key);
        let differs = there.is_none_or(|there| there.hash != record.hash);
        if differs {
            if let Some(there) = there {
                self.known.insert(key.clone(), *there);
            }
            self.upserts.insert(key, record.clone());
        }
        differs
    }

    /// Adds what routed changes mean, given what the replica has under [`keys`] and for [`cores`]. `holds`: the files that the
    /// replica holds and had filled before this batch.
    pub fn changes(
        &mut self,
        want: &Want,
        source: &Source,
        looked: &Looked,
        groups: &HashSet<&str>,
        holds: impl Fn(i64) -> bool,
    ) {
        let Looked { seen, cores } = looked;
        let granted = |record: &Record| groups.contains(&*record.group);
        let (entering, leaving): (HashSet<i64>, HashSet<i64>) =
            (want.enter.iter().copied().collect(), want.leave.iter().copied().collect());
        let here = |file: i64| !leaving.contains(&file) && (entering.contains(&file) || holds(file));
        self.leave.extend(&leaving);
        for file in &want.enter {
            let records = source.files.get(file).map_or(&[][..], Vec::as_slice);
            let granted: Vec<Arc<Record>> = records.iter().filter(|r| granted(r)).cloned().collect();
            for record in &granted {
                self.settle(record, seen);
            }
            self.enter.insert(*file);
            self.subjects.insert(*file, granted);
        }
        let mut remake: BTreeSet<i64> = BTreeSet::new();
        for key in &want.keys {
            let before = seen.get(key).map(|there| there.offender);
            let record = source.keys.get(key).and_then(Option::as_ref);
            match record.filter(|r| granted(r) && r.offender.is_none_or(&here)) {
                Some(record) => {
                    if !self.settle(record, seen) || !subject::feeds(&key.0) {
                        continue;
                    }
                    let own = record.offender.filter(|_| *key.0 == *OFFENDER);
                    let own = own.and_then(|file| Some((file, cores.get(&file)?, subject::core(record)?)));
                    self.numbered.extend(
                        own.iter()
                            .filter(|(_, old, new)| old.part(Part::Fps) == new.part(Part::Fps))
                            .map(|(file, ..)| *file),
                    );
                    match own {
                        Some((_, old, new)) if *old == new => {}
                        Some((file, old, new)) if old.names() == new.names() => {
                            self.cores.insert(file, new);
                        }
                        _ => {
                            remake.extend(record.offender);
                            remake.extend(before.flatten());
                        }
                    }
                }
                None => {
                    if let Some(offender) = before {
                        self.deletes.insert(key.clone(), offender);
                        if subject::feeds(&key.0) {
                            remake.extend(offender);
                        }
                    }
                }
            }
        }
        self.remake.extend(remake.into_iter().filter(|file| here(*file) && !entering.contains(file)));
        self.cores.retain(|file, _| !self.remake.contains(file) && !self.subjects.contains_key(file));
    }

    /// Adds the difference of one file between hub and replica, whatever the change log says. `records`: its granted
    /// records on the hub; `seen`: what the replica has of the file; `held`: whether the replica has a search row for it.
    /// `anew`: make the search row in any case.
    pub fn compare(&mut self, file: i64, records: &[Arc<Record>], seen: &Seen, held: bool, anew: bool) {
        let mut searchable = !held || anew;
        self.robs = true;
        for record in records {
            searchable |= self.settle(record, seen) && subject::feeds(&record.table);
        }
        let there: HashSet<Key> = records.iter().map(|r| r.key()).collect();
        for (key, Stored { offender, .. }) in seen {
            if *offender == Some(file) && !there.contains(key) {
                self.deletes.insert(key.clone(), *offender);
                searchable |= subject::feeds(&key.0);
            }
        }
        if !held {
            self.enter.insert(file);
        }
        if searchable {
            self.subjects.insert(file, records.to_vec());
        }
    }

    /// Adds the difference of the reference records.
    pub fn references(&mut self, records: &[Arc<Record>], seen: &Seen) {
        self.robs = true;
        for record in records {
            self.settle(record, seen);
        }
        let there: HashSet<Key> = records.iter().map(|r| r.key()).collect();
        for key in seen.keys().filter(|key| !there.contains(*key)) {
            self.deletes.insert(key.clone(), None);
        }
    }

    /// Takes another delta in; what both have, the other has newer.
    pub fn absorb(&mut self, other: Self) {
        let Self {
            upserts,
            known,
            deletes,
            leave,
            enter,
            subjects,
            remake,
            numbered,
            cores,
            robs,
            only_groups,
            pictures,
        } = other;
        self.upserts.extend(upserts);
        self.known.extend(known);
        self.deletes.extend(deletes);
        self.leave.extend(leave);
        self.enter.extend(enter);
        self.subjects.extend(subjects);
        self.pictures.extend(pictures);
        self.remake.extend(remake);
        self.numbered.extend(numbered);
        self.cores.extend(cores);
        self.robs |= robs;
        if only_groups.is_some() {
            self.only_groups = only_groups;
        }
    }

    /// Bytes that it weighs, roughly: what bounds a batch.
    pub fn weight(&self) -> usize {
        self.upserts.values().map(|r| r.body.len() + 200).sum::<usize>()
            + (self.subjects.len() + self.remake.len()) * 500
    }
}

/// The keys whose state in the replica [`Delta::changes`] must know, each once.
pub fn keys<'a, S: std::hash::BuildHasher>(
    want: &'a Want,
    source: &'a Source,
    groups: &HashSet<&str, S>,
) -> Vec<(&'a str, i64)> {
    let entering = want.enter.iter().filter_map(|file| source.files.get(file)).flatten();
    let entering = entering.filter(|r| groups.contains(&*r.group)).map(|r| (&*r.table, r.id));
    let mut keys: Vec<(&str, i64)> = want.keys.iter().map(|(table, id)| (&**table, *id)).chain(entering).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// The files whose search row [`Delta::changes`] must know: their own record changed.
pub fn cores(want: &Want, source: &Source) -> Vec<i64> {
    let own = want.keys.iter().filter(|(table, _)| **table == *OFFENDER);
    own.filter_map(|key| source.keys.get(key)?.as_ref()?.offender).collect()
}
