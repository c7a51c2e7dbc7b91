//! The catalogue: field group -> table -> column, each with its type, labels, NIEM 6 name and sensitivity.
//!
//! Everything that shows a record comes from here: the hub's view, the JSON bodies, labels on screens, documentation.
//! A table belongs to one group, and a published group is frozen, because it is what a legal instrument grants: more
//! columns come as a new revision under a new name. Names with the prefix `ca:` are Liaison's own extension; the others
//! are of NIEM 6.0 (`nc`, `j`, `iso_3166`).

use std::fmt::Write as _;

use crate::codes::{Code as _, CodeList, FieldGroup, Label};

mod history;
mod markdown;
mod person;

pub use markdown::markdown;

/// Whether a table's rows are of one offender file, or of none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableKind {
    /// Each row belongs to one offender.
    File,
    /// Offices, officers, institutions: nothing about offenders; crosses whole to whoever is granted its group.
    Reference,
}

/// The Government of Canada's marking of what a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sensitivity {
    /// Public.
    Unclassified,
    /// Limited injury if disclosed: contact data of staff.
    ProtectedA,
    /// Serious injury if disclosed: everything about an offender.
    ProtectedB,
}

impl Sensitivity {
    /// The marking as it is printed.
    pub fn label(self) -> Label {
        match self {
            Self::Unclassified => Label { en: "Unclassified", fr: "Non classifié" },
            Self::ProtectedA => Label { en: "Protected A", fr: "Protégé A" },
            Self::ProtectedB => Label { en: "Protected B", fr: "Protégé B" },
        }
    }
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnType {
    /// UTF-8 text.
    Text,
    /// A 32-bit integer; the unit is in the label.
    Integer,
    /// True or false.
    Boolean,
    /// A plain date, `YYYY-MM-DD`.
    Date,
    /// An instant, in JSON `YYYY-MM-DDThh:mm:ssZ`.
    Instant,
    /// A SHA-256, in JSON 64 lower-case hexadecimal digits.
    Hash,
    /// The id of a row of the named reference table.
    Reference(&'static str),
    /// A code of a closed list.
    Code(CodeList),
}

impl ColumnType {
    /// The column's type in the hub, as `information_schema` spells it.
    pub fn sql(self) -> &'static str {
        match self {
            Self::Text | Self::Code(_) => "text",
            Self::Integer => "integer",
            Self::Boolean => "boolean",
            Self::Date => "date",
            Self::Instant => "timestamp with time zone",
            Self::Hash => "bytea",
            Self::Reference(_) => "bigint",
        }
    }
}

/// One column of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// The column in `oms.<table>`.
    pub name: &'static str,
    /// The key in a record's body: the name in camelCase.
    pub json_name: &'static str,
    /// What it holds.
    pub ty: ColumnType,
    /// Whether it may be NULL; the body then has an explicit `null`.
    pub nullable: bool,
    /// What a person reads.
    pub label: Label,
    /// The property of NIEM 6.0, or of the extension `ca:`.
    pub niem: &'static str,
    /// How it is to be handled.
    pub sensitivity: Sensitivity,
}

impl Column {
    const fn nullable(mut self) -> Self {
        self.nullable = true;
        self
    }

    const fn classified(mut self, sensitivity: Sensitivity) -> Self {
        self.sensitivity = sensitivity;
        self
    }

    /// The list of a code column.
    pub fn codes(&self) -> Option<CodeList> {
        match self.ty {
            ColumnType::Code(list) => Some(list),
            _ => None,
        }
    }
}

const fn column(
    name: &'static str,
    json_name: &'static str,
    ty: ColumnType,
    niem: &'static str,
    en: &'static str,
    fr: &'static str,
) -> Column {
    Column { name, json_name, ty, nullable: false, label: Label { en, fr }, niem, sensitivity: Sensitivity::ProtectedB }
}

/// One table of OMS, all of whose rows are records.
///
/// Besides its columns each table has `id bigint`, and a file table but `offender` itself has `offender bigint`; they
/// are the record's own, not part of its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    /// The table in schema `oms`, and `tbl` of a record.
    pub name: &'static str,
    /// The group that grants it.
    pub group: FieldGroup,
    /// Of a file, or of none.
    pub kind: TableKind,
    /// What a person reads.
    pub label: Label,
    /// The type or property of NIEM 6.0, or of the extension `ca:`.
    pub niem: &'static str,
    /// The columns, in the order in which they are shown.
    pub columns: &'static [Column],
}

impl Table {
    /// The column whose JSON key is this.
    pub fn column(&self, json_name: &str) -> Option<&'static Column> {
        self.columns.iter().find(|column| column.json_name == json_name)
    }

    /// The column of `oms.<table>` that names the offender; `None` for a reference table.
    pub fn offender_column(&self) -> Option<&'static str> {
        match self.kind {
            TableKind::Reference => None,
            TableKind::File if self.name == OFFENDER => Some("id"),
            TableKind::File => Some("offender"),
        }
    }
}

/// The table whose rows are the files themselves.
pub const OFFENDER: &str = "offender";

/// Every table, group by group, in display order.
pub const TABLES: &[Table] = &[
    person::OFFENDER,
    person::CAUTION,
    person::MARK,
    person::ALIAS,
    person::PHOTOGRAPH,
    person::SENTENCE,
    person::OFFENCE,
    person::PRIOR_OFFENCE,
    person::RELEASE,
    person::SUSPENSION,
    person::CONDITION,
    person::SUPERVISION,
    person::PAROLE_OFFICER,
    person::OFFICE,
    history::WARRANT,
    history::MOVEMENT,
    history::SECURITY_LEVEL,
    history::INSTITUTION,
    history::INCIDENT,
    history::RISK_ASSESSMENT,
    history::PROGRAM,
    history::WORK_ASSIGNMENT,
    history::EDUCATION,
    history::PROGRESS_REPORT,
    history::COMMUNITY_ASSESSMENT,
    history::RELEASE_DECISION,
];

/// Every table.
pub fn all_tables() -> &'static [Table] {
    TABLES
}

/// The table of this name.
pub fn table(name: &str) -> Option<&'static Table> {
    TABLES.iter().find(|table| table.name == name)
}

/// The tables that a group grants.
pub fn tables_of(group: FieldGroup) -> impl Iterator<Item = &'static Table> {
    TABLES.iter().filter(move |table| table.group == group)
}

/// The SELECT of the hub's view `liaison.record`: `(offender, grp, tbl, id, body)`, one branch a table.
///
/// `body` is text. Bodies do not depend on the session: dates are ISO, instants are UTC to the second, hashes hexadecimal.
pub fn record_view_sql() -> String {
    let mut sql = String::new();
    for (index, table) in TABLES.iter().enumerate() {
        if index > 0 {
            sql.push_str("\nUNION ALL\n");
        }
        let offender = table.offender_column().map_or("NULL::bigint".to_owned(), |column| format!("r.{column}"));
        // Writing to a String does not fail.
        let _ = write!(
            sql,
            "SELECT {offender} AS offender, '{}'::text AS grp, '{}'::text AS tbl, r.id AS id, {} AS body FROM oms.{} r",
            table.group.as_str(),
            table.name,
            body_sql(table),
            table.name,
        );
    }
    sql
}

/// The text that PostgreSQL prints for the `jsonb` of a row: shorter keys first, then by their bytes. Written down as text at
/// once, since building the `jsonb` first costs most of what reading a record costs.
fn body_sql(table: &Table) -> String {
    let mut columns: Vec<&Column> = table.columns.iter().collect();
    columns.sort_by_key(|column| (column.json_name.len(), column.json_name));
    let (mut parts, mut constant) = (Vec::new(), "{".to_owned());
    for (index, column) in columns.iter().enumerate() {
        if index > 0 {
            constant.push_str(", ");
        }
        let _ = write!(constant, "\"{}\": ", column.json_name);
        let (quote, value) = value_sql(column);
        // What stands around a value that is always there is part of the constants beside it: each call costs.
        if column.nullable {
            parts.push(format!("'{constant}'"));
            constant.clear();
            let value = if quote.is_empty() { value } else { format!("'{quote}' || {value} || '{quote}'") };
            parts.push(format!("coalesce({value}, 'null')"));
        } else {
            parts.push(format!("'{constant}{quote}'"));
            quote.clone_into(&mut constant);
            parts.push(value);
        }
    }
    parts.push(format!("'{constant}}}'"));
    joined(&parts)
}

/// Texts one after the other. In halves, and so each is copied a few times only; `concat` costs half as much again, since it asks for
/// the type of each and prints it.
fn joined(parts: &[String]) -> String {
    match parts {
        [] => "''".to_owned(),
        [part] => part.clone(),
        parts => {
            let (before, after) = parts.split_at(parts.len() / 2);
            format!("({} || {})", joined(before), joined(after))
        }
    }
}

/// What a value stands between in JSON, and the value as text; NULL where the column is.
fn value_sql(column: &Column) -> (&'static str, String) {
    let name = column.name;
    match column.ty {
        ColumnType::Text | ColumnType::Date => ("", format!("to_json(r.{name})::text")),
        ColumnType::Integer | ColumnType::Reference(_) => ("", format!("r.{name}::text")),
        ColumnType::Boolean => ("", format!("CASE WHEN r.{name} THEN 'true' WHEN NOT r.{name} THEN 'false' END")),
        ColumnType::Instant => {
            ("\"", format!("to_char(r.{name} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')"))
        }
        ColumnType::Hash => ("\"", format!("encode(r.{name}, 'hex')")),
        // Nothing that would have to be escaped is in a code, and each column has a CHECK.
        ColumnType::Code(_) => ("\"", format!("r.{name}")),
    }
}

/// One line a published column, `group table column json type null`: what the frozen-group test compares.
pub fn published() -> String {
    let mut out = String::new();
    for table in TABLES {
        for column in table.columns {
            let ty = match column.ty {
                ColumnType::Code(list) => format!("code:{}", list.name),
                ColumnType::Reference(to) => format!("reference:{to}"),
                other => other.sql().to_owned(),
            };
            let null = if column.nullable { "null" } else { "not-null" };
            let _ = writeln!(
                out,
                "{}\t{}\t{}\t{}\t{ty}\t{null}",
                table.group.as_str(),
                table.name,
                column.name,
                column.json_name
            );
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn camel(name: &str) -> String {
        let mut out = String::new();
        for (index, part) in name.split('_').enumerate() {
            if index == 0 {
                out.push_str(part);
            } else {
                out.push_str(&part[..1].to_uppercase());
                out.push_str(&part[1..]);
            }
        }
        out
    }

    #[test]
    fn every_group_has_a_table_and_every_name_is_unique() {
        for group in FieldGroup::ALL {
            assert!(tables_of(*group).any(|t| t.kind == TableKind::File), "{group:?} grants no file table");
        }
        let names: BTreeSet<_> = TABLES.iter().map(|t| t.name).collect();
        assert_eq!(names.len(), TABLES.len());
        for t in TABLES {
            let columns: BTreeSet<_> = t.columns.iter().map(|c| c.name).collect();
            assert_eq!(columns.len(), t.columns.len(), "{}", t.name);
        }
    }

    #[test]
    fn columns_are_named_labelled_and_refer_to_reference_tables() {
        for t in TABLES {
            for c in t.columns {
                assert_eq!(c.json_name, camel(c.name), "{}.{}", t.name, c.name);
                assert!(!c.label.en.is_empty() && !c.label.fr.is_empty());
                assert!(c.niem.contains(':'), "{}.{}", t.name, c.name);
                if let ColumnType::Reference(to) = c.ty {
                    let target = table(to).unwrap();
                    assert_eq!(target.kind, TableKind::Reference);
                    assert_eq!(target.group, t.group, "{}.{} would need another group's table", t.name, c.name);
                }
                assert!(t.kind == TableKind::Reference || c.sensitivity == Sensitivity::ProtectedB);
            }
        }
    }

    /// `niem-6.0.txt`: the names used here, each looked up in `csv/Property.csv` of niemopen/niem-model at 6.0.
    #[test]
    fn niem_names_exist() {
        let known: BTreeSet<_> = include_str!("catalogue/niem-6.0.txt").lines().collect();
        for t in TABLES {
            for name in t.columns.iter().map(|c| c.niem).chain([t.niem]) {
                assert!(name.starts_with("ca:") || known.contains(name), "{}: {name} is not in NIEM 6.0", t.name);
            }
        }
    }

    #[test]
    fn no_table_is_of_victims() {
        assert!(TABLES.iter().all(|t| !t.name.contains("victim")));
    }

    /// A published group is frozen: what an agreement granted yesterday is what it grants today. To add a column, add a
    /// group under a new name; only an unpublished table may change its lines in the fixture.
    #[test]
    fn published_groups_are_frozen() {
        assert_eq!(published(), include_str!("catalogue/published.txt"), "see the comment of this test");
    }

    #[test]
    fn documentation_is_generated() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/catalogue.md");
        let now = markdown();
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(path, &now).unwrap();
        }
        assert_eq!(
            std::fs::read_to_string(path).unwrap_or_default(),
            now,
            "run `UPDATE=1 cargo test -p liaison-records documentation`"
        );
    }
}
