//! What crosses: a record's canonical form and hash, and the search row that is made of a file's records.

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::search;

/// One record as the view `liaison.record` has it. `body` is the text that PostgreSQL prints for the `jsonb`: its key order
/// and spacing are the canonical form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordRef<'a> {
    /// The file, or `None` for a reference record.
    pub offender: Option<i64>,
    /// Field group.
    pub grp: &'a str,
    /// Table of the catalogue.
    pub tbl: &'a str,
    /// Id within the table.
    pub id: i64,
    /// `body::text`.
    pub body: &'a str,
}

/// SHA-256 over `grp \0 tbl \0 id \0 offender-or-empty \0 body`.
pub fn record_hash(record: &RecordRef<'_>) -> [u8; 32] {
    let offender = record.offender.map(|o| o.to_string()).unwrap_or_default();
    let mut hash = Sha256::new();
    for part in [record.grp, record.tbl, &record.id.to_string(), &offender] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    hash.update(record.body.as_bytes());
    hash.finalize().into()
}

/// The search row of one file: a pure function of those of its records that a replica holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The file.
    pub offender: i64,
    /// FPS number, six digits and a letter.
    pub fps: String,
    /// Surname as written.
    pub surname: String,
    /// Given names as written.
    pub given: String,
    /// Name keys of the file and of its aliases, sorted.
    pub names: Vec<String>,
    /// Sound keys of the file and of its aliases, sorted.
    pub sounds: Vec<String>,
    /// `YYYY-MM-DD`.
    pub birth_date: String,
    /// Dates of birth given with aliases, sorted, `YYYY-MM-DD`.
    pub other_dates: Vec<String>,
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
    /// SHA-256 of the latest photograph, if the replica holds photographs.
    pub photograph: Option<[u8; 32]>,
}

/// Makes the search row from the records of **one** file, in any order; other tables than `offender`, `alias` and
/// `photograph` are passed over. `None` when the file's own record is not among them or is not as the catalogue says.
pub fn subject<'a>(records: impl IntoIterator<Item = RecordRef<'a>>) -> Option<Subject> {
    let mut own: Option<(i64, Value)> = None;
    let mut aliases: Vec<Value> = Vec::new();
    let mut photographs: Vec<(String, i64, [u8; 32])> = Vec::new();
    for record in records {
        match record.tbl {
            "offender" => own = Some((record.id, serde_json::from_str(record.body).ok()?)),
            "alias" => aliases.push(serde_json::from_str(record.body).ok()?),
            "photograph" => {
                let body: Value = serde_json::from_str(record.body).ok()?;
                let mut sha256 = [0; 32];
                hex::decode_to_slice(text(&body, "sha256")?, &mut sha256).ok()?;
                photographs.push((text(&body, "takenOn")?, record.id, sha256));
            }
            _ => {}
        }
    }
    let (offender, own) = own?;
    let surname = text(&own, "surname")?;
    let given = text(&own, "given")?;
    let mut names = Vec::new();
    let mut sounds = Vec::new();
    let mut other_dates = Vec::new();
    add_name(&mut names, &mut sounds, &surname, &given);
    for alias in &aliases {
        add_name(&mut names, &mut sounds, &text(alias, "surname")?, &text(alias, "given")?);
        other_dates.extend(text(alias, "birthDate"));
    }
    for list in [&mut names, &mut sounds, &mut other_dates] {
        list.sort();
        list.dedup();
    }
    Some(Subject {
        offender,
        fps: text(&own, "fps")?,
        surname,
        given,
        names,
        sounds,
        birth_date: text(&own, "birthDate")?,
        other_dates,
        custody: text(&own, "custody")?,
        status: text(&own, "status")?,
        at_large: text(&own, "atLarge")?,
        jurisdiction: text(&own, "jurisdiction")?,
        municipality: text(&own, "municipality")?,
        photograph: photographs.into_iter().max().map(|(_, _, sha256)| sha256),
    })
}

fn add_name(names: &mut Vec<String>, sounds: &mut Vec<String>, surname: &str, given: &str) {
    for name in [surname, given] {
        names.extend(search::name_keys(name));
        sounds.extend(search::sounds(name));
    }
    names.push(search::normalise_name(&format!("{given} {surname}")));
    names.push(search::normalise_name(&format!("{surname} {given}")));
}

fn text(body: &Value, key: &str) -> Option<String> {
    body.get(key)?.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = r#"{"fps":"123456A","given":"Marc-André","surname":"St-Pierre","birthDate":"1980-02-29","custody":"Community","status":"Released","atLarge":"NotAtLarge","jurisdiction":"CA-QC","municipality":"2466023"}"#;

    fn record<'a>(tbl: &'a str, id: i64, body: &'a str) -> RecordRef<'a> {
        RecordRef { offender: Some(7), grp: "identity", tbl, id, body }
    }

    #[test]
    fn the_hash_is_as_documented() {
        let r = RecordRef { offender: None, grp: "supervision", tbl: "office", id: 3, body: "{}" };
        let expected: [u8; 32] = Sha256::digest(b"supervision\0office\x003\0\0{}").into();
        assert_eq!(record_hash(&r), expected);
        assert_ne!(record_hash(&RecordRef { offender: Some(3), ..r }), expected);
    }

    #[test]
    fn a_subject_holds_what_its_records_say_in_any_order() {
        let alias = r#"{"surname":"O'Brien","given":"Marco","birthDate":"1981-01-01"}"#;
        let (a, b) = ("aa".repeat(32), "bb".repeat(32));
        let older = format!(r#"{{"sha256":"{b}","takenOn":"2019-01-01"}}"#);
        let newer = format!(r#"{{"sha256":"{a}","takenOn":"2024-01-01"}}"#);
        let records = [
            record("photograph", 1, &newer),
            record("alias", 2, alias),
            record("offender", 7, OWN),
            record("photograph", 2, &older),
            record("incident", 1, "not looked at"),
        ];
        let one = subject(records).unwrap();
        assert_eq!(one, subject(records.into_iter().rev()).unwrap());
        assert_eq!(one.photograph, Some([0xaa; 32]));
        assert_eq!(one.other_dates, ["1981-01-01"]);
        for key in
            ["stpierre", "pierre", "marcandre", "andre", "obrien", "marco", "marcandrestpierre", "stpierremarcandre"]
        {
            assert!(one.names.iter().any(|n| n == key), "{key} in {:?}", one.names);
        }
    }

    #[test]
    fn without_its_own_record_there_is_no_subject() {
        assert_eq!(subject([record("alias", 1, r#"{"surname":"x","given":"y"}"#)]), None);
        assert_eq!(subject([record("offender", 1, "{}")]), None);
    }
}
