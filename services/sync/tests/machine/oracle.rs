//! What must be true of hub, ledger and replicas between two steps. It reads the databases and nothing of sync's state, in one
//! question to each, and says what is wrong instead of ending the test: the seeded faults must be found by it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use liaison_records::set_hash::{SetHash, Unit, search_row_hash};
use liaison_sync::{
    ledger::{self, Entry, EntryKind, Heading},
    quote::{ident, literal},
    record::{Hash, Record},
    subject,
    terms::Terms,
};
use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};

/// What is wrong: the invariant, and the particulars.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub invariant: &'static str,
    pub detail: String,
}

pub fn violation<T>(invariant: &'static str, detail: impl Into<String>) -> Result<T, Violation> {
    Err(Violation { invariant, detail: detail.into() })
}

/// File, group and body of a record by table and number.
type Records = BTreeMap<(String, i64), (Option<i64>, String, String)>;

/// A replica as it stands.
#[derive(Debug, Default, Clone)]
pub struct Replica {
    records: Records,
    hashes: HashMap<(String, i64), (String, i64)>,
    subjects: BTreeMap<i64, (serde_json::Value, i64)>,
    photographs: BTreeMap<String, bool>,
    pub cursor: CursorRow,
}

impl Replica {
    /// The files of which it has anything.
    pub fn files(&self) -> BTreeSet<i64> {
        let of_records = self.records.values().filter_map(|(offender, ..)| *offender);
        of_records.chain(self.subjects.keys().copied()).collect()
    }

    /// What the certificate of its disposal has to say.
    pub fn certified(&self) -> [(&'static str, serde_json::Value); 5] {
        let mut set = SetHash::default();
        let mut files: BTreeMap<i64, Vec<Hash>> = BTreeMap::new();
        for ((table, id), (offender, group, body)) in &self.records {
            let hash = subject::record_hash(group, table, *id, *offender, body);
            match offender {
                Some(file) => files.entry(*file).or_default().push(hash),
                None => set.add(Unit::Reference(table.as_str().into(), *id), &mut [hash]),
            }
        }
        for (file, (row, _)) in &self.subjects {
            files.entry(*file).or_default().push(search_row_hash(row));
        }
        let count = files.len();
        for (file, mut items) in files {
            set.add(Unit::File(file), &mut items);
        }
        for sha256 in self.photographs.keys() {
            let sha256: Hash = hex::decode(sha256).unwrap().try_into().unwrap();
            set.add(Unit::Picture(sha256), &mut [sha256]);
        }
        [
            ("files", count.into()),
            ("records", self.records.len().into()),
            ("photographs", self.photographs.len().into()),
            ("lastBatch", self.cursor.batch.into()),
            ("root", hex::encode(set.finish().root()).into()),
        ]
    }
}

/// Its cursor row.
#[allow(clippy::struct_excessive_bools, reason = "as the row has them")]
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct CursorRow {
    pub snapshot: Option<String>,
    pub batch: i64,
    pub filled: i64,
    pub seeded: bool,
    pub fenced: bool,
    pub suspended: bool,
    pub authorized: bool,
    pub generation: i64,
    pub groups: Vec<String>,
    pub population: Option<serde_json::Value>,
}

/// What is known of a partner's ledger, so that each batch is verified once.
#[derive(Debug, Default)]
struct Chain {
    last: i64,
    head: Vec<u8>,
    /// Groups by file, of each batch that is not void.
    lines: HashMap<i64, HashMap<Option<i64>, BTreeSet<String>>>,
}

/// The oracle of one world.
#[derive(Debug, Default)]
pub struct Oracle {
    chains: Vec<Chain>,
    /// The number of the last batch of partners that were closed at the last full check.
    closed: HashMap<usize, i64>,
    rows: HashMap<Vec<Hash>, serde_json::Value>,
    /// Records compared with the hub's so far.
    pub compared: u64,
}

/// How far a replica must be exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    /// Not at all: no batch of the present state of the hub has landed.
    Nothing,
    /// Files up to its cursor's `filled`, and none outside the scope.
    Filled,
    /// All of it.
    All,
}

async fn rows(client: &Client, sql: &str) -> Vec<SimpleQueryRow> {
    let messages = client.simple_query(sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    messages.into_iter().filter_map(|m| if let SimpleQueryMessage::Row(row) = m { Some(row) } else { None }).collect()
}

fn number(row: &SimpleQueryRow, index: usize) -> i64 {
    row.get(index).unwrap().parse().unwrap()
}

fn maybe(row: &SimpleQueryRow, index: usize) -> Option<i64> {
    row.get(index).map(|s| s.parse().unwrap())
}

/// All replicas of `terms`, in one question.
pub async fn replicas(store: &Client, terms: &[Terms]) -> Vec<Replica> {
    let mut sql = String::new();
    for (index, terms) in terms.iter().enumerate() {
        let share = ident(&terms.partner.share_schema());
        sql += &format!(
            "SELECT {index}, 'r', offender, grp, tbl, id, body, encode(hash, 'hex'), batch FROM {share}.record;
             SELECT {index}, 's', offender, batch, to_jsonb(s) - 'batch' || jsonb_build_object('photograph', encode(photograph, 'hex'))
             FROM (SELECT offender, fps, surname, given, names, sounds, birth_date, other_dates, custody, status, at_large,
                          jurisdiction, municipality, photograph, batch FROM {share}.subject) s;
             SELECT {index}, 'p', encode(sha256, 'hex'), sha256(jpeg) = sha256 FROM {share}.photograph;
             SELECT {index}, 'c', snapshot, batch, filled, seeded, fenced, suspended, authorized_until > now(), generation,
                    array_to_string(groups, ','), population FROM {share}.cursor;"
        );
    }
    let mut all = vec![Replica::default(); terms.len()];
    for row in rows(store, &sql).await {
        let replica = &mut all[usize::try_from(number(&row, 0)).unwrap()];
        let text = |index: usize| row.get(index).unwrap_or_default().to_owned();
        match row.get(1).unwrap() {
            "r" => {
                let key = (text(4), number(&row, 5));
                replica.hashes.insert(key.clone(), (text(7), number(&row, 8)));
                replica.records.insert(key, (maybe(&row, 2), text(3), text(6)));
            }
            "s" => {
                let json = serde_json::from_str(row.get(4).unwrap()).unwrap();
                replica.subjects.insert(number(&row, 2), (json, number(&row, 3)));
            }
            "p" => {
                replica.photographs.insert(text(2), row.get(3) == Some("t"));
            }
            _ => {
                let is = |index: usize| row.get(index) == Some("t");
                replica.cursor = CursorRow {
                    snapshot: row.get(2).map(str::to_owned),
                    batch: number(&row, 3),
                    filled: number(&row, 4),
                    seeded: is(5),
                    fenced: is(6),
                    suspended: is(7),
                    authorized: is(8),
                    generation: number(&row, 9),
                    groups: text(10).split(',').filter(|g| !g.is_empty()).map(str::to_owned).collect(),
                    population: row.get(11).map(|json| serde_json::from_str(json).unwrap()),
                };
            }
        }
    }
    all
}

/// The oracle of I1, for all partners in one query: `liaison.record`, and whether each partner's scope has the row's file.
async fn wanted(hub: &Client, terms: &[Terms]) -> Vec<Records> {
    let columns: String = terms
        .iter()
        .map(|terms| {
            let Some(grant) = &terms.grant else { return ", false".to_owned() };
            let groups: Vec<String> = grant.group_names().iter().map(|g| literal(g)).collect();
            if groups.is_empty() {
                return ", false".to_owned();
            }
            // A code that is in no list, and a sealed file: shared with nobody (I5).
            format!(
                ", r.grp IN ({}) AND (r.offender IS NULL OR (o.status <> 'Unlisted' AND o.sealed_on IS NULL AND {}))",
                groups.join(","),
                grant.scope.to_sql("o")
            )
        })
        .collect();
    let sql = format!(
        "SELECT r.offender, r.grp, r.tbl, r.id, r.body{columns} FROM liaison.record r LEFT JOIN oms.offender o ON o.id = r.offender"
    );
    let mut all = vec![Records::new(); terms.len()];
    for row in rows(hub, &sql).await {
        let text = |index: usize| row.get(index).unwrap().to_owned();
        for (index, wanted) in all.iter_mut().enumerate() {
            if row.get(5 + index) == Some("t") {
                wanted.insert((text(2), number(&row, 3)), (maybe(&row, 0), text(1), text(4)));
            }
        }
    }
    all
}

impl Oracle {
    pub fn new(partners: usize) -> Self {
        Self { chains: (0..partners).map(|_| Chain::default()).collect(), ..Self::default() }
    }

    /// The hub was restored: what it says of its ledger is verified from the start.
    pub fn forget(&mut self) {
        self.chains.iter_mut().for_each(|chain| *chain = Chain::default());
        self.closed.clear();
    }

    /// Checks every partner's ledger and replica. `ranges`: how far each must be exact.
    pub async fn check(
        &mut self,
        hub: &Client,
        store: &Client,
        terms: &[Terms],
        ranges: &[Range],
    ) -> Result<Vec<Replica>, Violation> {
        let replicas = replicas(store, terms).await;
        self.ledger(hub, terms).await?;
        for (index, replica) in replicas.iter().enumerate() {
            self.disclosed(index, &terms[index], replica)?;
            readable(&terms[index], replica)?;
        }
        if ranges.iter().any(|range| *range != Range::Nothing) {
            let wanted = wanted(hub, terms).await;
            for (index, replica) in replicas.iter().enumerate() {
                self.exact(&terms[index], replica, &wanted[index], ranges[index])?;
            }
        }
        Ok(replicas)
    }

    /// I7 and I5 of partners that may have nothing: closed in the replica, and no batch since.
    pub fn closed(&mut self, index: usize, terms: &Terms, open: bool, replica: &Replica) -> Result<(), Violation> {
        if open {
            self.closed.remove(&index);
            return Ok(());
        }
        if !replica.cursor.suspended && replica.cursor.authorized {
            return violation("I7", format!("{} is closed, and its replica may be read", terms.partner));
        }
        let last = self.chains[index].last;
        let before = *self.closed.entry(index).or_insert(last);
        if before != last {
            return violation("I7", format!("batch {last} went to {}, which is closed since {before}", terms.partner));
        }
        Ok(())
    }

    /// The chain of each partner from where it was verified last.
    async fn ledger(&mut self, hub: &Client, terms: &[Terms]) -> Result<(), Violation> {
        let mut sql = String::new();
        for (index, terms) in terms.iter().enumerate() {
            let (partner, last) = (literal(terms.partner.as_str()), self.chains[index].last);
            sql += &format!(
                "SELECT {index}, 'b', batch, agreement, generation, encode(digest, 'hex'), encode(previous, 'hex'), encode(head, 'hex'), state
                 FROM liaison.ledger_batch WHERE partner = {partner} AND batch > {last} ORDER BY batch;
                 SELECT {index}, 'e', batch, offender, array_to_string(groups, ','), kind, encode(digest, 'hex')
                 FROM liaison.ledger_entry WHERE partner = {partner} AND batch > {last} ORDER BY batch, seq;"
            );
        }
        let mut batches: Vec<SimpleQueryRow> = Vec::new();
        let mut entries: HashMap<(i64, i64), Vec<Entry>> = HashMap::new();
        for row in rows(hub, &sql).await {
            if row.get(1) == Some("b") {
                batches.push(row);
                continue;
            }
            let kind = |s: &str| {
                [EntryKind::Enter, EntryKind::Stay, EntryKind::Leave, EntryKind::Reference]
                    .into_iter()
                    .find(|k| k.as_str() == s)
                    .unwrap()
            };
            let entry = Entry {
                offender: maybe(&row, 3),
                groups: row.get(4).unwrap().split(',').filter(|g| !g.is_empty()).map(str::to_owned).collect(),
                kind: kind(row.get(5).unwrap()),
                digest: hex::decode(row.get(6).unwrap()).unwrap().try_into().unwrap(),
            };
            entries.entry((number(&row, 0), number(&row, 2))).or_default().push(entry);
        }
        let mut heads: HashMap<usize, Vec<u8>> = HashMap::new();
        let mut unsettled: HashSet<usize> = HashSet::new();
        for row in &batches {
            let index = usize::try_from(number(row, 0)).unwrap();
            let chain = &mut self.chains[index];
            let partner = &terms[index].partner;
            let batch = number(row, 2);
            let bytes = |at: usize| hex::decode(row.get(at).unwrap()).unwrap();
            let previous = heads.get(&index).unwrap_or(&chain.head).clone();
            if bytes(6) != previous {
                return violation("I2", format!("the chain of {partner} is broken before batch {batch}"));
            }
            let entries = entries.remove(&(number(row, 0), batch)).unwrap_or_default();
            let digest = ledger::batch_digest(&entries);
            let heading = Heading {
                partner: partner.as_str(),
                batch,
                agreement: row.get(3).unwrap(),
                generation: number(row, 4),
                digest: &digest,
            };
            let head = ledger::head(&previous, &heading);
            if bytes(5) != digest || bytes(7) != head {
                return violation("I2", format!("digest or head of batch {batch} of {partner} is not what it covers"));
            }
            let state = row.get(8).unwrap();
            if state == "void" {
                chain.lines.remove(&batch);
            } else {
                let lines = chain.lines.entry(batch).or_default();
                for entry in entries {
                    lines.entry(entry.offender).or_default().extend(entry.groups);
                }
            }
            // What is prepared is looked at again: it may yet be void.
            if state == "prepared" {
                unsettled.insert(index);
            }
            if !unsettled.contains(&index) {
                chain.last = batch;
                chain.head = head.to_vec();
            }
            heads.insert(index, head.to_vec());
        }
        Ok(())
    }

    /// I2: each row's batch is in the ledger and not void, and says that this group of this file crossed.
    fn disclosed(&mut self, index: usize, terms: &Terms, replica: &Replica) -> Result<(), Violation> {
        if terms.grant.is_none() || terms.suspended {
            // A partner that is closed, whose hub or replica was restored, is made anew when it is opened, and hidden until then.
            if replica.cursor.fenced {
                return Ok(());
            }
        }
        let chain = &mut self.chains[index];
        let mut alive = HashSet::new();
        for (key, (offender, group, _)) in &replica.records {
            let batch = replica.hashes[key].1;
            alive.insert(batch);
            let line = chain.lines.get(&batch).and_then(|lines| lines.get(offender));
            if line.is_none_or(|groups| !groups.contains(group)) {
                let detail =
                    format!("{key:?} of {} came with batch {batch}, of which the ledger says nothing", terms.partner);
                return violation("I2", detail);
            }
        }
        for (file, (_, batch)) in &replica.subjects {
            alive.insert(*batch);
            if !chain.lines.contains_key(batch) {
                let detail =
                    format!("search row {file} of {} bears batch {batch}, which is not in the ledger", terms.partner);
                return violation("I2", detail);
            }
        }
        let last = chain.last;
        chain.lines.retain(|batch, _| alive.contains(batch) || *batch >= last - 3);
        Ok(())
    }

    /// I1, over the key range.
    fn exact(&mut self, terms: &Terms, replica: &Replica, wanted: &Records, range: Range) -> Result<(), Violation> {
        let filled = match range {
            Range::Nothing => return Ok(()),
            Range::Filled => replica.cursor.filled,
            Range::All => i64::MAX,
        };
        let partner = &terms.partner;
        let inside = |offender: Option<i64>| offender.is_none_or(|file| file <= filled);
        for (key, row) in wanted.iter().filter(|(_, row)| inside(row.0)) {
            match replica.records.get(key) {
                None => return violation("I1", format!("{partner} lacks {key:?}: {row:?}")),
                Some(held) if held != row => {
                    return violation("I1", format!("{partner} has {key:?} as {held:?}, it is {row:?}"));
                }
                Some((offender, group, body)) => {
                    let hash = subject::record_hash(group, &key.0, key.1, *offender, body);
                    if hex::encode(hash) != replica.hashes[key].0 {
                        return violation("I1", format!("{partner}: the hash of {key:?} is not its own"));
                    }
                }
            }
        }
        self.compared += wanted.len() as u64;
        let files: HashSet<i64> = wanted.values().filter_map(|(file, ..)| *file).collect();
        for (key, (offender, ..)) in &replica.records {
            if (inside(*offender) && !wanted.contains_key(key)) || offender.is_some_and(|file| !files.contains(&file)) {
                return violation("I1", format!("{partner} has {key:?} of {offender:?}, which it is not to have"));
            }
        }
        self.searchable(partner.as_str(), replica, wanted, filled)?;
        // Pictures: exactly those that the replica's own records name, with their own bytes.
        let named: BTreeSet<String> = replica
            .records
            .iter()
            .filter(|((table, _), _)| table == "photograph")
            .filter_map(|(_, (_, _, body))| {
                let body: serde_json::Value = serde_json::from_str(body).unwrap();
                body["sha256"].as_str().map(str::to_owned)
            })
            .collect();
        let held: BTreeSet<String> = replica.photographs.keys().cloned().collect();
        if named != held || replica.photographs.values().any(|right| !right) {
            return violation("I1", format!("{partner}: pictures named and held differ: {named:?} {held:?}"));
        }
        if range == Range::All {
            let cursor = &replica.cursor;
            let grant = terms.grant.as_ref().unwrap();
            let population = serde_json::to_value(&grant.scope).unwrap();
            if cursor.filled != i64::MAX
                || !cursor.seeded
                || cursor.fenced
                || cursor.generation != terms.generation
                || cursor.groups != grant.group_names()
                || cursor.population.as_ref() != Some(&population)
            {
                return violation("I1", format!("{partner}: the cursor is not that of a complete replica: {cursor:?}"));
            }
        }
        Ok(())
    }

    /// The search rows are what the records make of them.
    fn searchable(&mut self, partner: &str, replica: &Replica, wanted: &Records, filled: i64) -> Result<(), Violation> {
        let mut files: BTreeMap<i64, Vec<std::sync::Arc<Record>>> = BTreeMap::new();
        for ((table, id), (offender, group, body)) in wanted {
            if let Some(file) = offender.filter(|file| *file <= filled) {
                let hash = subject::record_hash(group, table, *id, *offender, body);
                let record = Record {
                    offender: *offender,
                    group: group.as_str().into(),
                    table: table.as_str().into(),
                    id: *id,
                    body: body.clone(),
                    hash,
                };
                files.entry(file).or_default().push(record.into());
            }
        }
        if self.rows.len() > 20_000 {
            self.rows.clear();
        }
        for (file, records) in &files {
            let key: Vec<Hash> = records.iter().map(|r| r.hash).collect();
            let expected = self.rows.entry(key).or_insert_with(|| subject::row(*file, records).unwrap());
            let held = replica.subjects.get(file).map(|(row, _)| row);
            if held != Some(expected) {
                return violation("I1", format!("{partner}: search row of {file} is {held:?}, ought to be {expected}"));
            }
        }
        match replica.subjects.keys().find(|file| **file <= filled && !files.contains_key(file)) {
            Some(file) => violation("I1", format!("{partner} has a search row of {file}, which it is not to have")),
            None => Ok(()),
        }
    }
}

/// I7: what can be read is of the groups that the cursor says.
fn readable(terms: &Terms, replica: &Replica) -> Result<(), Violation> {
    let cursor = &replica.cursor;
    if cursor.fenced || cursor.suspended {
        return Ok(());
    }
    match replica.records.iter().find(|(_, (_, group, _))| !cursor.groups.contains(group)) {
        Some((key, _)) => violation("I7", format!("{} can read {key:?}, whose group is not granted", terms.partner)),
        None => Ok(()),
    }
}
