//! What may happen to a hub, its replicas and the process that syncs them: drawn at random, printable, and executable in any
//! order and number, so that a failure can be made smaller by leaving actions out.

use std::fmt::Write as _;

use liaison_sync::fault::{STEPS, Step};
use rand::{RngExt, rngs::StdRng, seq::IndexedRandom};

use crate::support::{file_sql, picture_sql};

pub const PLACES: [&str; 4] = ["5915022", "5917034", "4711066", "4706027"];
pub const STATUSES: [&str; 3] = ["Released", "Suspended", "Revoked"];
/// Files that transactions work on.
pub const FILES: i64 = 16;
/// Files that a transaction that stays open works on: nobody else does, so that nobody waits for it.
pub const LATE: std::ops::RangeInclusive<i64> = FILES + 1..=FILES + 4;

/// One statement on the hub, or a few that belong together.
#[derive(Debug, Clone)]
pub enum Op {
    Insert { file: i64, place: &'static str, status: &'static str, children: i64 },
    Move { file: i64, place: &'static str },
    Status { file: i64, other: i64, status: &'static str },
    AtLarge { file: i64, escaped: bool },
    EnterAndLeave { file: i64, place: &'static str },
    Delete { file: i64 },
    Alias { key: i64, number: i64 },
    MoveRecord { key: i64, to: i64 },
    ReuseKey { key: i64, to: i64 },
    Picture { file: i64, number: i64 },
    Office { office: i64, number: i64 },
    DeleteChildren { file: i64, office: i64 },
    RolledBack { file: i64 },
    UnknownCode { file: i64 },
    Seal { file: i64, other: i64 },
    Unseal { file: i64, other: i64 },
    SealAndUnseal { file: i64, place: &'static str },
    UnknownGroup { file: i64, key: i64 },
}

fn province(place: &str) -> &'static str {
    if place.starts_with("59") { "CA-BC" } else { "CA-SK" }
}

impl Op {
    pub fn draw(rng: &mut StdRng) -> Self {
        let (file, other) = (rng.random_range(1..=FILES), rng.random_range(1..=FILES));
        let place = *PLACES.choose(rng).unwrap();
        let status = *STATUSES.choose(rng).unwrap();
        let key = file * 100 + rng.random_range(0..2i64);
        match rng.random_range(0..26) {
            0..=3 => Self::Insert { file, place, status, children: rng.random_range(0..3) },
            4..=5 => Self::Move { file, place },
            6 => Self::Status { file, other, status },
            7 => Self::AtLarge { file, escaped: rng.random_range(0..2) == 0 },
            8..=9 => Self::EnterAndLeave { file, place },
            10 => Self::Delete { file },
            11 => Self::Alias { key, number: rng.random_range(0..100) },
            12..=13 => Self::MoveRecord { key, to: other },
            14..=15 => Self::ReuseKey { key, to: other },
            16 => Self::Picture { file, number: rng.random_range(0..12) },
            17 => Self::Office { office: rng.random_range(1..4), number: rng.random_range(0..9) },
            18 => Self::DeleteChildren { file, office: rng.random_range(1..4) },
            19 => Self::RolledBack { file },
            20 => Self::UnknownCode { file },
            21 => Self::Seal { file, other },
            22..=23 => Self::Unseal { file, other },
            24 => Self::SealAndUnseal { file, place },
            _ => Self::UnknownGroup { file, key },
        }
    }

    /// What the coverage calls it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Insert { .. } => "insert",
            Self::Move { .. } => "move to another place",
            Self::Status { .. } => "change of status",
            Self::AtLarge { .. } => "at large",
            Self::EnterAndLeave { .. } => "enter and leave in one transaction",
            Self::Delete { .. } => "cascade",
            Self::Alias { .. } => "alias",
            Self::MoveRecord { .. } => "record moves to another file",
            Self::ReuseKey { .. } => "key reuse",
            Self::Picture { .. } => "photograph",
            Self::Office { .. } => "reference record",
            Self::DeleteChildren { .. } => "delete of children",
            Self::RolledBack { .. } => "savepoint rolled back",
            Self::UnknownCode { .. } => "unknown code",
            Self::Seal { .. } => "seal",
            Self::Unseal { .. } => "unseal",
            Self::SealAndUnseal { .. } => "seal and unseal in one transaction",
            Self::UnknownGroup { .. } => "unknown field group",
        }
    }

    pub fn sql(&self) -> String {
        match self {
            Self::Insert { file, place, status, children } => {
                format!("DELETE FROM oms.offender WHERE id = {file}; {}", file_sql(*file, place, status, *children))
            }
            Self::Move { file, place } => format!(
                "UPDATE oms.offender SET municipality = '{place}', jurisdiction = '{}' WHERE id = {file};",
                province(place)
            ),
            Self::Status { file, other, status } => {
                format!("UPDATE oms.offender SET status = '{status}' WHERE id IN ({file}, {other});")
            }
            Self::AtLarge { file, escaped } => format!(
                "UPDATE oms.offender SET at_large = '{}' WHERE id = {file};",
                if *escaped { "Escaped" } else { "NotAtLarge" }
            ),
            Self::EnterAndLeave { file, place } => format!(
                "UPDATE oms.offender SET at_large = 'Escaped', municipality = '5915022', jurisdiction = 'CA-BC' WHERE id = {file};
                 UPDATE oms.alias SET surname = surname || 'x' WHERE offender = {file};
                 UPDATE oms.alias SET surname = left(surname, 12) WHERE offender = {file};
                 UPDATE oms.offender SET at_large = 'NotAtLarge', municipality = '{place}', jurisdiction = '{}'
                 WHERE id = {file};",
                province(place)
            ),
            Self::Delete { file } => format!("DELETE FROM oms.offender WHERE id = {file};"),
            Self::Alias { key, number } => format!("UPDATE oms.alias SET surname = 'Gagnon{number}' WHERE id = {key};"),
            Self::MoveRecord { key, to } => format!(
                "UPDATE oms.alias SET offender = {to} WHERE id = {key} AND EXISTS (SELECT FROM oms.offender WHERE id = {to});
                 UPDATE oms.photograph SET offender = {to} WHERE id = {key} AND EXISTS (SELECT FROM oms.offender WHERE id = {to});"
            ),
            Self::ReuseKey { key, to } => format!(
                "DELETE FROM oms.sentence WHERE id = {key}; DELETE FROM oms.alias WHERE id = {key};
                 INSERT INTO oms.sentence SELECT {key}, id, 7 FROM oms.offender WHERE id = {to};
                 INSERT INTO oms.alias SELECT {key}, id, 'Reused', 'Y' FROM oms.offender WHERE id = {to};"
            ),
            Self::Picture { file, number } => {
                let sql = picture_sql(file * 100, *file, &format!("picture {number}"));
                format!("DO $$ BEGIN IF EXISTS (SELECT FROM oms.offender WHERE id = {file}) THEN {sql} END IF; END $$;")
            }
            Self::Office { office, number } => format!(
                "INSERT INTO oms.office VALUES ({office}, 'Office {number}')
                 ON CONFLICT (id) DO UPDATE SET name_en = EXCLUDED.name_en;"
            ),
            Self::DeleteChildren { file, office } => format!(
                "DELETE FROM oms.alias WHERE offender = {file}; DELETE FROM oms.photograph WHERE offender = {file};
                 DELETE FROM oms.office WHERE id = {office};"
            ),
            Self::RolledBack { file } => {
                format!("SAVEPOINT s; DELETE FROM oms.offender WHERE id = {file}; ROLLBACK TO s;")
            }
            Self::UnknownCode { file } => format!("UPDATE oms.offender SET status = 'Unlisted' WHERE id = {file};"),
            Self::Seal { file, other } => format!(
                "UPDATE oms.offender SET sealed_on = '2026-11-01' WHERE id IN ({file}, {other});
                 UPDATE oms.alias SET surname = 'Sealed' WHERE offender = {file};"
            ),
            Self::Unseal { file, other } => {
                format!("UPDATE oms.offender SET sealed_on = NULL WHERE id IN ({file}, {other});")
            }
            Self::SealAndUnseal { file, place } => format!(
                "UPDATE oms.offender SET sealed_on = '2026-11-01' WHERE id = {file};
                 UPDATE oms.offender SET municipality = '{place}', jurisdiction = '{}' WHERE id = {file};
                 UPDATE oms.offender SET sealed_on = NULL WHERE id = {file};",
                province(place)
            ),
            Self::UnknownGroup { file, key } => format!(
                "INSERT INTO oms.victim SELECT {key}, id, 'never' FROM oms.offender WHERE id = {file}
                 ON CONFLICT (id) DO UPDATE SET note = oms.victim.note || '!';"
            ),
        }
    }
}

const RELOAD: &str = "
    CREATE TEMP TABLE o ON COMMIT DROP AS TABLE oms.offender; CREATE TEMP TABLE a ON COMMIT DROP AS TABLE oms.alias;
    CREATE TEMP TABLE p ON COMMIT DROP AS TABLE oms.photograph; CREATE TEMP TABLE s ON COMMIT DROP AS TABLE oms.sentence;
    CREATE TEMP TABLE f ON COMMIT DROP AS TABLE oms.office;
    TRUNCATE oms.offender, oms.alias, oms.photograph, oms.sentence, oms.office, oms.victim;
    INSERT INTO oms.offender TABLE o; INSERT INTO oms.alias TABLE a; INSERT INTO oms.photograph TABLE p;
    INSERT INTO oms.sentence TABLE s; INSERT INTO oms.office TABLE f;";

/// What a transaction does to whole tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whole {
    Nothing,
    Reload,
    Truncate,
}

/// A transaction on the hub.
#[derive(Debug, Clone)]
pub struct Transaction {
    pub whole: Whole,
    pub ops: Vec<Op>,
    pub rollback: bool,
}

impl Transaction {
    pub fn draw(rng: &mut StdRng) -> Self {
        let whole = match rng.random_range(0..60) {
            0 => Whole::Reload,
            1 => Whole::Truncate,
            _ => Whole::Nothing,
        };
        let count = rng.random_range(1..5);
        Self { whole, ops: (0..count).map(|_| Op::draw(rng)).collect(), rollback: rng.random_range(0..12) == 0 }
    }

    /// `waits`: another transaction is open, for which TRUNCATE would wait.
    pub fn sql(&self, waits: bool) -> String {
        let mut sql = "BEGIN; SET LOCAL client_min_messages = error;".to_owned();
        match self.whole {
            Whole::Reload if !waits => sql.push_str(RELOAD),
            Whole::Truncate if !waits => sql.push_str("TRUNCATE oms.sentence;"),
            _ => {}
        }
        for op in &self.ops {
            let _ = write!(sql, "{}", op.sql());
        }
        sql.push_str(if self.rollback { "ROLLBACK" } else { "COMMIT" });
        sql
    }
}

/// What a partner is to have: field groups, and the populations of its share and its agreement as JSON.
#[derive(Debug, Clone)]
pub struct Want {
    pub groups: Vec<&'static str>,
    pub share: String,
    pub agreement: String,
}

const EVERYBODY: &str = r#"{"custody":["Community","Incarcerated","Archived"]}"#;

impl Want {
    pub fn draw(rng: &mut StdRng) -> Self {
        // Now and then all there is, so that what comes next narrows.
        let all = rng.random_range(0..4) == 0;
        let mut groups = vec!["identity"];
        for group in ["aliases", "photograph", "sentence", "supervision"] {
            if all || rng.random_range(0..3) > 0 {
                groups.push(group);
            }
        }
        if rng.random_range(0..30) == 0 {
            // Without identity there is no file: nothing crosses.
            groups.clear();
        }
        let share = if all { EVERYBODY.to_owned() } else { Self::terms(rng) };
        let agreement = if rng.random_range(0..4) == 0 { Self::terms(rng) } else { EVERYBODY.to_owned() };
        Self { groups, share: format!(r#"{{"anyOf":[{share}]}}"#), agreement: format!(r#"{{"anyOf":[{agreement}]}}"#) }
    }

    fn terms(rng: &mut StdRng) -> String {
        let count = rng.random_range(1..=2);
        (0..count).map(|_| Self::term(rng)).collect::<Vec<_>>().join(",")
    }

    fn term(rng: &mut StdRng) -> String {
        let some = |rng: &mut StdRng, values: &[&str]| {
            let first = rng.random_range(0..values.len());
            let many = rng.random_range(1..=2).min(values.len() - first);
            format!("[{}]", values[first..first + many].iter().map(|v| format!("{v:?}")).collect::<Vec<_>>().join(","))
        };
        let mut keys = vec![match rng.random_range(0..6) {
            0..=2 => format!(r#""municipalities":{}"#, some(rng, &PLACES)),
            3 => format!(r#""jurisdictions":{}"#, some(rng, &["CA-BC", "CA-SK"])),
            4 => r#""atLarge":["Escaped"]"#.to_owned(),
            _ => r#""custody":["Community"]"#.to_owned(),
        }];
        if rng.random_range(0..2) == 0 {
            keys.push(format!(r#""statuses":{}"#, some(rng, &STATUSES)));
        }
        format!("{{{}}}", keys.join(","))
    }
}

/// One step of the machine. Partners are numbers.
#[derive(Debug, Clone)]
pub enum Action {
    /// A transaction on the hub.
    Transact(Transaction),
    /// A transaction that stays open over what follows.
    OpenLate { file: i64, place: &'static str },
    /// It ends.
    EndLate { commit: bool },
    /// Another share or agreement.
    Edit { partner: usize, want: Want },
    /// Suspended, or no longer.
    Suspend { partner: usize },
    /// The agreement ends, or is in force again.
    Agreement { partner: usize },
    /// Everybody is brought up to date.
    Sync,
    /// A batch stops at a step; `crash`: the process is gone, too.
    Kill { partner: usize, step: Step, before: Transaction, edit: Option<Want>, crash: bool },
    /// A worker is held up at a step, another takes its leases and brings all up to date, then the first one goes on.
    LoseLease { partner: usize, step: Step, before: Transaction, meanwhile: Transaction },
    /// The scope is narrowed while a batch that widens it is under way.
    NarrowDuring { partner: usize, step: Step, before: Transaction, then: Want },
    /// Another process takes over; `small`: its batches hold little, so that fills take many.
    Restart { small: bool },
    /// The change log is trimmed.
    Trim,
    /// Changes are captured the other way from here on: by triggers, or from the write-ahead log.
    SwitchCapture,
    /// The slot that the log is read from is dropped, or moved over what was not read yet.
    LoseSlot { before: Transaction, moved: bool },
    /// A backup of the hub is made.
    BackUpHub,
    /// The hub is restored from it.
    RestoreHub,
    /// A backup of the hub; what happens then crosses to nobody, and is passed by; the hub is restored, and uses the lost
    /// transaction numbers for something else. `lives`: the process that syncs lives on.
    PutBack { partner: usize, after: Transaction, lives: bool },
    /// A backup of a replica is made.
    BackUpReplica { partner: usize },
    /// The replica is restored from it.
    RestoreReplica { partner: usize },
    /// The connection is deleted, its replica disposed of; then it is made again.
    Dispose { partner: usize, want: Want },
}

impl Action {
    /// The next action of a machine with so many partners.
    pub fn draw(rng: &mut StdRng, partners: usize) -> Self {
        let partner = rng.random_range(0..partners);
        let late = [Step::Ledgered, Step::Written, Step::Landed, Step::Decided];
        match rng.random_range(0..1000) {
            0..516 => Self::Transact(Transaction::draw(rng)),
            516..520 => {
                let after = Transaction { rollback: false, ..Transaction::draw(rng) };
                Self::PutBack { partner, after, lives: rng.random_range(0..3) == 0 }
            }
            520..780 => Self::Sync,
            780..840 => Self::Edit { partner, want: Want::draw(rng) },
            840..846 => Self::SwitchCapture,
            846..865 => Self::OpenLate { file: rng.random_range(LATE), place: PLACES.choose(rng).unwrap() },
            865..890 => Self::EndLate { commit: rng.random_range(0..4) > 0 },
            890..950 => {
                let step = *if rng.random_range(0..2) == 0 { STEPS.choose(rng) } else { late.choose(rng) }.unwrap();
                let edits = step == Step::Narrowing || rng.random_range(0..3) == 0;
                Self::Kill {
                    partner,
                    step,
                    before: Transaction::draw(rng),
                    edit: edits.then(|| Want::draw(rng)),
                    crash: rng.random_range(0..6) == 0,
                }
            }
            950..956 => Self::Suspend { partner },
            956..960 => Self::Agreement { partner },
            960..970 => {
                let step = *[Step::Ledgered, Step::Ledgered, Step::Decided, Step::Read].choose(rng).unwrap();
                let (before, meanwhile) = (Transaction::draw(rng), Transaction::draw(rng));
                Self::LoseLease { partner, step, before, meanwhile }
            }
            970..978 => {
                let step = *[Step::Read, Step::Decided, Step::Ledgered, Step::Written].choose(rng).unwrap();
                Self::NarrowDuring { partner, step, before: Transaction::draw(rng), then: Want::draw(rng) }
            }
            978..984 => Self::Restart { small: rng.random_range(0..2) == 0 },
            984..987 => Self::Trim,
            987 => Self::LoseSlot { before: Transaction::draw(rng), moved: rng.random_range(0..2) == 0 },
            988..991 => Self::BackUpReplica { partner },
            991..994 => Self::RestoreReplica { partner },
            994..995 => Self::Dispose { partner, want: Want::draw(rng) },
            995..997 => Self::BackUpHub,
            _ => Self::RestoreHub,
        }
    }
}
