//! The search row of a file, and the hash of a record: what `liaison_records` defines, in the form the replica takes. Pure.

use std::{borrow::Cow, sync::Arc};

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

/// A value that a search row has from the file's own record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// FPS number.
    Fps,
    /// Surname as written.
    Surname,
    /// Given names as written.
    Given,
    /// `YYYY-MM-DD`.
    BirthDate,
    /// Code of `Custody`.
    Custody,
    /// Code of `Status`.
    Status,
    /// Code of `AtLarge`.
    AtLarge,
    /// ISO 3166-2.
    Jurisdiction,
    /// Census subdivision.
    Municipality,
}

/// How many there are.
pub const PARTS: usize = 9;

/// What a search row has from the file's own record. One text of all values: there is one for each file that changed, and mostly
/// it is only compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Core(String);

impl Core {
    /// Between two values.
    const SEPARATOR: &str = "\u{1f}";

    /// Of these values, in the order of [`Part`]. `None` when a separator is in one of them.
    pub fn new(values: [&str; PARTS]) -> Option<Self> {
        let core = values.join(Self::SEPARATOR);
        (core.matches(Self::SEPARATOR).count() == PARTS - 1).then_some(Self(core))
    }

    /// One of them.
    pub fn part(&self, part: Part) -> &str {
        self.0.split(Self::SEPARATOR).nth(part as usize).unwrap_or_default()
    }

    /// What search keys are made of.
    pub fn names(&self) -> (&str, &str) {
        (self.part(Part::Surname), self.part(Part::Given))
    }
}

/// The core of a file's own record; `None` when it is not as the catalogue says.
pub fn core(record: &Record) -> Option<Core> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Own<'a> {
        #[serde(borrow)]
        fps: Cow<'a, str>,
        #[serde(borrow)]
        surname: Cow<'a, str>,
        #[serde(borrow)]
        given: Cow<'a, str>,
        #[serde(borrow)]
        birth_date: Cow<'a, str>,
        #[serde(borrow)]
        custody: Cow<'a, str>,
        #[serde(borrow)]
        status: Cow<'a, str>,
        #[serde(borrow)]
        at_large: Cow<'a, str>,
        #[serde(borrow)]
        jurisdiction: Cow<'a, str>,
        #[serde(borrow)]
        municipality: Cow<'a, str>,
    }
    let Own { fps, surname, given, birth_date, custody, status, at_large, jurisdiction, municipality } =
        serde_json::from_str(&record.body).ok()?;
    Core::new([&fps, &surname, &given, &birth_date, &custody, &status, &at_large, &jurisdiction, &municipality])
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_is_told_from_another_by_each_of_its_values() {
        let values = ["1", "Roy", "", "1980-01-02", "C", "S", "N", "CA-BC", "5915022"];
        let core = Core::new(values).unwrap();
        assert_eq!((core.part(Part::Fps), core.names(), core.part(Part::Municipality)), ("1", ("Roy", ""), "5915022"));
        for changed in 0..PARTS {
            let mut other = values;
            other[changed] = "other";
            assert_ne!(Core::new(other).unwrap(), core);
        }
        assert_eq!(Core::new(["1", "R\u{1f}oy", "", "", "", "", "", "", ""]), None);
    }

    #[test]
    fn a_core_is_read_from_a_record_also_where_something_is_escaped() {
        let body = r#"{"id": 7, "fps": "1", "given": "A", "status": "S", "atLarge": "N", "custody": "C", "surname": "O\"Roy",
            "birthDate": "1980-01-02", "jurisdiction": "CA-BC", "municipality": "5915022", "height": null}"#;
        let record = Record {
            offender: Some(7),
            group: "identity".into(),
            table: OFFENDER.into(),
            id: 7,
            body: body.to_owned(),
            hash: Hash::default(),
        };
        let whole = Core::new(["1", "O\"Roy", "A", "1980-01-02", "C", "S", "N", "CA-BC", "5915022"]);
        assert_eq!(core(&record), whole);
        assert_eq!(core(&Record { body: body.replace("\"fps\": \"1\", ", ""), ..record }), None);
    }
}
