//! The search row of a file, and the hash of a record: what `liaison_records` defines, in the form the replica takes. Pure.

use std::sync::Arc;

use liaison_records::{
    catalogue::OFFENDER,
    encoding::{self, RecordRef},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    error::Error,
    record::{Hash, PHOTOGRAPH, Record},
    terms::Grant,
};

/// Whether the search row is made of records of this table.
pub fn feeds(table: &str) -> bool {
    FEEDS.contains(&table)
}

/// The tables that the search row is made of.
pub const FEEDS: [&str; 3] = [OFFENDER, "alias", PHOTOGRAPH];

/// What a search row has from the file's own record.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Core {
    /// FPS number.
    pub fps: String,
    /// Surname as written.
    pub surname: String,
    /// Given names as written.
    pub given: String,
    /// `YYYY-MM-DD`.
    pub birth_date: String,
    /// Code of `Custody`.
    pub custody: String,
    /// Code of `Status`.
    pub status: String,
    /// Code of `AtLarge`.
    pub at_large: String,
    /// ISO 3166-2.
    pub jurisdiction: String,
    /// Census subdivision.
    pub municipality: String,
}

impl Core {
    /// What search keys are made of.
    pub fn names(&self) -> (&str, &str) {
        (&self.surname, &self.given)
    }
}

/// The core of a file's own record; `None` when it is not as the catalogue says.
pub fn core(record: &Record) -> Option<Core> {
    serde_json::from_str(&record.body).ok()
}

/// The FPS number in a file's own record.
pub fn number(record: &Record) -> Option<String> {
    #[derive(Deserialize)]
    struct Number {
        fps: Option<String>,
    }
    serde_json::from_str::<Number>(&record.body).ok()?.fps
}

/// Hash of a record.
pub fn record_hash(grp: &str, tbl: &str, id: i64, offender: Option<i64>, body: &str) -> Hash {
    encoding::record_hash(&RecordRef { offender, grp, tbl, id, body })
}

/// The search row of `file`, as the JSON that the replica's statement takes. A file whose records are not as the catalogue
/// says is held, and cannot be found by name.
pub fn row(file: i64, records: &[Arc<Record>]) -> Result<Value, Error> {
    let subject = encoding::subject(records.iter().map(|r| RecordRef {
        offender: r.offender,
        grp: &r.group,
        tbl: &r.table,
        id: r.id,
        body: &r.body,
    }));
    let Some(subject) = subject else {
        return Ok(json!({"offender": file, "surname": "", "given": "", "names": [], "sounds": [], "other_dates": [],
                         "custody": "", "status": "", "at_large": "", "jurisdiction": "", "municipality": ""}));
    };
    let encoding::Subject {
        offender,
        fps,
        surname,
        given,
        names,
        sounds,
        birth_date,
        other_dates,
        custody,
        status,
        at_large,
        jurisdiction,
        municipality,
        photograph,
    } = subject;
    if offender != file {
        return Err(Error::Corrupt("a file's own record bears the number of another file".to_owned()));
    }
    Ok(json!({
        "offender": offender, "fps": fps, "surname": surname, "given": given, "names": names, "sounds": sounds,
        "birth_date": birth_date, "other_dates": other_dates, "custody": custody, "status": status,
        "at_large": at_large, "jurisdiction": jurisdiction, "municipality": municipality,
        "photograph": photograph.map(hex::encode),
    }))
}

/// The scope as the cursor keeps it.
pub fn scope_json(grant: &Grant) -> Result<Value, Error> {
    serde_json::to_value(&grant.scope).map_err(|_| Error::Corrupt("the scope cannot be written as JSON".to_owned()))
}
