//! The ledger as a file, and what shows whether anything in it was changed, removed, reordered or cut off. Needs neither hub nor
//! replica, and no key: who checks a signature is the caller's.
//!
//! A file is lines of JSON: statements, then each partner's batches in order, each followed by its entries, then one line with
//! the totals.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    ledger::{self, Entry, EntryKind, Heading},
    statement::{self, Id, Kind},
};

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", deny_unknown_fields)]
pub enum Line {
    /// A statement, signed or not yet.
    Statement(StatementLine),
    /// A batch.
    Batch(BatchLine),
    /// A file in the batch before.
    Entry(EntryLine),
    /// The last line.
    End(Totals),
}

/// A statement as the hub keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StatementLine {
    /// What was signed, byte for byte.
    pub statement: String,
    /// DER, in hex; absent while it is not signed.
    pub signature: Option<String>,
    /// The signing key.
    pub key_id: Option<String>,
    /// Its certificates in PEM.
    pub chain: Option<String>,
    /// RFC 3339.
    pub signed_at: Option<String>,
}

/// A batch as the hub keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BatchLine {
    /// Whose.
    pub partner: String,
    /// Number.
    pub batch: i64,
    /// The lease under which it was written.
    pub epoch: i64,
    /// changes, compare or rebuild.
    pub kind: String,
    /// Agreement.
    pub agreement: String,
    /// Generation of the connection.
    pub generation: i64,
    /// The store that it was written for.
    pub store_identity: String,
    /// How many of its entries are files.
    pub files: i64,
    /// Hex of the digest of its entries.
    pub digest: String,
    /// Hex of the head before; empty before the first.
    pub previous: String,
    /// Hex of the head after.
    pub head: String,
    /// prepared, landed, void or disclosed.
    pub state: String,
    /// RFC 3339, in UTC, with microseconds.
    pub at: String,
}

/// A line of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EntryLine {
    /// Whose.
    pub partner: String,
    /// In which batch.
    pub batch: i64,
    /// Its place, from 0.
    pub seq: i32,
    /// The file; absent for reference records.
    pub offender: Option<i64>,
    /// Groups.
    pub groups: Vec<String>,
    /// enter, stay, leave or reference.
    pub kind: String,
    /// Hex.
    pub digest: String,
}

/// What the last line says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Totals {
    /// Statements.
    pub statements: u64,
    /// Batches.
    pub batches: u64,
    /// Entries.
    pub entries: u64,
}

/// What a batch's head does not cover, chained from batch to batch and signed in checkpoints: so a state that is changed to void
/// afterwards is found. `before` is empty for the first batch. Only for a batch that is settled.
pub fn facts(before: &[u8], batch: &BatchLine) -> [u8; 32] {
    let BatchLine { epoch, kind, store_identity, files, head, state, at, .. } = batch;
    let mut sha = Sha256::new();
    sha.update(before);
    for part in [&epoch.to_string(), kind, store_identity, &files.to_string(), head, state, at] {
        sha.update(part.as_bytes());
        sha.update([0]);
    }
    sha.finalize().into()
}

/// The end of a partner's chain, as a checkpoint says it: the last batch before which all are settled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mark {
    /// Whose.
    pub partner: String,
    /// Batch.
    pub batch: i64,
    /// Hex of the head after it.
    pub head: String,
    /// Entries up to and with it.
    pub entries: i64,
    /// Hex of the facts up to and with it.
    pub facts: String,
}

/// The marks of a checkpoint's fields; `None` when they cannot be read.
pub fn marks(fields: &serde_json::Map<String, Value>) -> Option<Vec<Mark>> {
    serde_json::from_value(fields.get("heads")?.clone()).ok()
}

/// Something that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// Whose chain; "" where it is of all.
    pub partner: String,
    /// Batch, where there is one.
    pub batch: Option<i64>,
    /// What is wrong.
    pub what: String,
}

/// What was verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// How much there was.
    pub counted: Totals,
    /// Partners.
    pub partners: usize,
    /// Statements with a signature that counts.
    pub signed: u64,
    /// Statements without one yet.
    pub unsigned: u64,
    /// Nothing here: whole.
    pub findings: Vec<Finding>,
}

#[derive(Debug, Clone)]
struct Passed {
    batch: i64,
    head: String,
    entries: i64,
    facts: Option<[u8; 32]>,
}

#[derive(Debug, Default)]
struct Chain {
    passed: Vec<Passed>,
    entries: i64,
}

/// Reads a file line by line.
#[derive(Debug, Default)]
pub struct Verifier {
    chains: BTreeMap<String, Chain>,
    open: Option<(BatchLine, Vec<Entry>)>,
    marks: Vec<(String, Mark)>,
    numbers: BTreeMap<(Kind, String), BTreeSet<i64>>,
    counted: Totals,
    end: Option<Totals>,
    signed: u64,
    unsigned: u64,
    findings: Vec<Finding>,
}

impl Verifier {
    /// A mark from elsewhere: a replica's cursor, or a checkpoint that was kept outside the hub.
    pub fn expect(&mut self, from: &str, mark: Mark) {
        self.marks.push((from.to_owned(), mark));
    }

    fn find(&mut self, partner: &str, batch: Option<i64>, what: impl Into<String>) {
        self.findings.push(Finding { partner: partner.to_owned(), batch, what: what.into() });
    }

    /// Takes the next line. `signature` says why a signature does not count.
    pub fn line(&mut self, text: &str, signature: impl Fn(&StatementLine) -> Result<(), String>) {
        if self.end.is_some() {
            self.find("", None, "lines follow the last one");
        }
        match serde_json::from_str(text) {
            Ok(Line::Statement(line)) => {
                self.close();
                self.statement(&line, signature);
            }
            Ok(Line::Batch(line)) => {
                self.close();
                self.counted.batches += 1;
                self.open = Some((line, Vec::new()));
            }
            Ok(Line::Entry(line)) => self.entry(line),
            Ok(Line::End(totals)) => {
                self.close();
                self.end = Some(totals);
            }
            Err(error) => self.find("", None, format!("a line cannot be read: {error}")),
        }
    }

    fn entry(&mut self, line: EntryLine) {
        self.counted.entries += 1;
        let digest: Option<[u8; 32]> = hex::decode(&line.digest).ok().and_then(|bytes| bytes.try_into().ok());
        let (Some(kind), Some(digest)) = (EntryKind::parse(&line.kind), digest) else {
            return self.find(&line.partner, Some(line.batch), format!("entry {} cannot be read", line.seq));
        };
        let Some((batch, entries)) = &mut self.open else {
            return self.find(&line.partner, Some(line.batch), format!("entry {} is of no batch", line.seq));
        };
        if (batch.partner.as_str(), batch.batch) != (line.partner.as_str(), line.batch) {
            return self.find(
                &line.partner,
                Some(line.batch),
                format!("entry {} stands under another batch", line.seq),
            );
        }
        if usize::try_from(line.seq) != Ok(entries.len()) {
            let what =
                format!("entry {} stands where entry {} was: removed, added or reordered", line.seq, entries.len());
            entries.push(Entry { offender: line.offender, groups: line.groups, kind, digest });
            return self.find(&line.partner, Some(line.batch), what);
        }
        entries.push(Entry { offender: line.offender, groups: line.groups, kind, digest });
    }

    /// Checks the batch whose entries have all been read.
    fn close(&mut self) {
        let Some((batch, entries)) = self.open.take() else { return };
        let (partner, number) = (batch.partner.clone(), batch.batch);
        let chain = self.chains.entry(partner.clone()).or_default();
        let before = chain.passed.last().cloned();
        let mut wrong: Vec<String> = Vec::new();
        if let Some(before) = &before
            && before.batch >= number
        {
            wrong.push(format!("stands after batch {}: reordered or repeated", before.batch));
        }
        let previous = before.as_ref().map_or("", |b| b.head.as_str());
        if batch.previous != previous {
            let last = before.as_ref().map_or("the beginning".to_owned(), |b| format!("batch {}", b.batch));
            wrong.push(format!("does not follow {last}: what stood between was removed, reordered or changed"));
        }
        let digest = ledger::batch_digest(&entries);
        if hex::encode(digest) != batch.digest {
            wrong.push(
                "its entries are not those that were written: one was changed, removed, added or reordered".into(),
            );
        }
        let files = entries.iter().filter(|e| e.offender.is_some()).count();
        if usize::try_from(batch.files) != Ok(files) {
            wrong.push(format!("says {} files and has {files}", batch.files));
        }
        let heading = Heading {
            partner: &batch.partner,
            batch: number,
            agreement: &batch.agreement,
            generation: batch.generation,
            digest: &digest,
        };
        let claimed = hex::decode(&batch.previous).unwrap_or_default();
        if hex::encode(ledger::head(&claimed, &heading)) != batch.head {
            wrong.push("its head is not that of its partner, number, agreement, generation and entries".into());
        }
        if !["prepared", "landed", "void", "disclosed"].contains(&batch.state.as_str()) {
            wrong.push(format!("has the unknown state '{}'", batch.state));
        }
        chain.entries += i64::try_from(entries.len()).unwrap_or(i64::MAX);
        let settled = batch.state != "prepared";
        let earlier = match &before {
            None => Some(Vec::new()),
            Some(before) => before.facts.map(Vec::from),
        };
        let facts = earlier.filter(|_| settled).map(|earlier| facts(&earlier, &batch));
        chain.passed.push(Passed { batch: number, head: batch.head, entries: chain.entries, facts });
        for what in wrong {
            self.find(&partner, Some(number), what);
        }
    }

    fn statement(&mut self, line: &StatementLine, signature: impl Fn(&StatementLine) -> Result<(), String>) {
        self.counted.statements += 1;
        let Some((id, fields)) = statement::read(&line.statement) else {
            return self.find("", None, "a statement cannot be read");
        };
        let Id { kind, partner, number } = id;
        let name = format!("statement {kind} {number}");
        if !self.numbers.entry((kind, partner.clone())).or_default().insert(number) {
            self.find(&partner, None, format!("{name} stands there twice"));
        }
        if line.signature.is_none() {
            self.unsigned += 1;
        } else {
            match signature(line) {
                Ok(()) => self.signed += 1,
                Err(why) => self.find(&partner, None, format!("{name}: {why}")),
            }
        }
        if kind == Kind::Checkpoint {
            match marks(&fields) {
                Some(marks) => self.marks.extend(marks.into_iter().map(|mark| (name.clone(), mark))),
                None => self.find(&partner, None, format!("{name} has no heads")),
            }
        }
    }

    /// What was found. `one`: the file is of one partner only, so marks of others say nothing.
    pub fn finish(mut self, one: Option<&str>) -> Verdict {
        self.close();
        match self.end.take() {
            None => self.find("", None, "the last line is missing: the file was cut off"),
            Some(end) if end != self.counted => self.find("", None, {
                let counted = json!(self.counted);
                format!("the last line says {} and there are {counted}: lines were removed or added", json!(end))
            }),
            Some(_) => {}
        }
        for ((kind, partner), numbers) in std::mem::take(&mut self.numbers) {
            let last = numbers.last().copied().unwrap_or(0);
            for missing in (1..=last).filter(|n| !numbers.contains(n)).take(20) {
                self.find(&partner, None, format!("statement {kind} {missing} is missing"));
            }
        }
        for (from, mark) in std::mem::take(&mut self.marks) {
            if one.is_some_and(|one| one != mark.partner) {
                continue;
            }
            let passed =
                self.chains.get(&mark.partner).and_then(|chain| chain.passed.iter().find(|p| p.batch == mark.batch));
            let what = match passed {
                None => {
                    Some(format!("{from} names this batch, and it is not there: the ledger was cut off or restored"))
                }
                Some(p) if p.head != mark.head => Some(format!("{from} names another head: the ledger was rewritten")),
                // A cursor knows nothing else.
                Some(_) if mark.facts.is_empty() => None,
                Some(p) if p.entries != mark.entries => {
                    Some(format!("{from} counts {} entries up to here, and there are {}", mark.entries, p.entries))
                }
                Some(p) if p.facts.map(hex::encode).as_ref() != Some(&mark.facts) => {
                    Some(format!("{from}: state, time, kind, epoch, store or files of a batch up to here were changed"))
                }
                Some(_) => None,
            };
            if let Some(what) = what {
                self.find(&mark.partner, Some(mark.batch), what);
            }
        }
        let Self { chains, counted, signed, unsigned, findings, .. } = self;
        Verdict { counted, partners: chains.len(), signed, unsigned, findings }
    }
}

#[cfg(test)]
#[path = "evidence_tests.rs"]
mod tests;
