//! Rows of OMS in PostgreSQL's binary COPY format, a buffer a table, checked against the catalogue as they are made.

use jiff::civil::Date;
#[cfg(test)]
use liaison_records::catalogue::ColumnType;
use liaison_records::catalogue::{TABLES, Table, TableKind};

/// One value of one column.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// NULL.
    Null,
    /// Text or a code.
    Text(String),
    /// A code or a constant text.
    Code(&'static str),
    /// `integer`.
    Int(i32),
    /// `bigint`: the id of a reference row.
    Id(i64),
    /// `boolean`.
    Bool(bool),
    /// `date`.
    Date(Date),
    /// `timestamptz`: a date and seconds of its UTC day.
    Instant(Date, i32),
    /// `bytea`.
    Bytes(Vec<u8>),
}

impl From<&str> for Value {
    fn from(s: &str) -> Self {
        Self::Text(s.to_owned())
    }
}

impl From<&String> for Value {
    fn from(s: &String) -> Self {
        Self::Text(s.clone())
    }
}

impl From<String> for Value {
    fn from(s: String) -> Self {
        Self::Text(s)
    }
}

impl From<i32> for Value {
    fn from(n: i32) -> Self {
        Self::Int(n)
    }
}

impl From<i64> for Value {
    fn from(n: i64) -> Self {
        Self::Id(n)
    }
}

impl From<bool> for Value {
    fn from(b: bool) -> Self {
        Self::Bool(b)
    }
}

impl From<Date> for Value {
    fn from(d: Date) -> Self {
        Self::Date(d)
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// Makes a row's values: `values![x, y]`.
#[macro_export]
macro_rules! values {
    ($($value:expr),* $(,)?) => { [$($crate::rows::Value::from($value)),*] };
}

/// The header of a binary COPY: signature, flags, extension.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const TRAILER: [u8; 2] = (-1i16).to_be_bytes();

/// Rows of one table, encoded.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// The COPY stream without header and trailer.
    pub bytes: Vec<u8>,
    /// Rows in it.
    pub rows: u64,
}

/// Rows of all tables of the catalogue, and images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rows {
    tables: Vec<Encoded>,
    images: Encoded,
    /// Files in it.
    pub files: u64,
}

impl Default for Rows {
    fn default() -> Self {
        Self { tables: vec![Encoded::default(); TABLES.len()], images: Encoded::default(), files: 0 }
    }
}

impl Rows {
    /// Adds a row; `offender` is for file tables other than `offender` itself. Tests refuse values that are
    /// not what the catalogue says; otherwise the refusal is the database's.
    pub fn push(&mut self, table: &'static str, id: i64, offender: Option<i64>, values: &[Value]) {
        let Some(index) = TABLES.iter().position(|t| t.name == table) else {
            debug_assert!(false, "no table {table}");
            return;
        };
        #[cfg(test)]
        assert_eq!(check(&TABLES[index], offender, values), Ok(()), "{table} {id}");
        let buffer = &mut self.tables[index];
        let fields = 1 + usize::from(offender.is_some()) + values.len();
        #[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "a table has few columns")]
        buffer.bytes.extend_from_slice(&(fields as i16).to_be_bytes());
        field(&mut buffer.bytes, &id.to_be_bytes());
        if let Some(offender) = offender {
            field(&mut buffer.bytes, &offender.to_be_bytes());
        }
        for value in values {
            encode(&mut buffer.bytes, value);
        }
        buffer.rows += 1;
    }

    /// Adds an image.
    pub fn push_image(&mut self, sha256: &[u8; 32], jpeg: &[u8]) {
        self.images.bytes.extend_from_slice(&2i16.to_be_bytes());
        field(&mut self.images.bytes, sha256);
        field(&mut self.images.bytes, jpeg);
        self.images.rows += 1;
    }

    /// What was made for one table.
    pub fn of(&self, table: &str) -> Option<&Encoded> {
        TABLES.iter().position(|t| t.name == table).map(|index| &self.tables[index])
    }

    /// The COPY statements with their streams, in an order that foreign keys allow; empty tables are left out.
    pub fn copies(self) -> Vec<(String, Vec<u8>, u64)> {
        let mut out = Vec::new();
        let mut add = |sql: String, encoded: Encoded| {
            if encoded.rows > 0 {
                let mut bytes = Vec::with_capacity(encoded.bytes.len() + HEADER.len() + 2);
                bytes.extend_from_slice(HEADER);
                bytes.extend_from_slice(&encoded.bytes);
                bytes.extend_from_slice(&TRAILER);
                out.push((sql, bytes, encoded.rows));
            }
        };
        add("COPY oms.image (sha256, jpeg) FROM STDIN (FORMAT binary)".to_owned(), self.images);
        let mut tables: Vec<(&Table, Encoded)> = TABLES.iter().zip(self.tables).collect();
        tables.sort_by_key(|(table, _)| load_order(table));
        for (table, encoded) in tables {
            add(format!("COPY oms.{} ({}) FROM STDIN (FORMAT binary)", table.name, columns(table)), encoded);
        }
        out
    }
}

/// Offices before officers, references before files, files before what is of them.
pub fn load_order(table: &Table) -> u8 {
    match (table.kind, table.name) {
        (TableKind::Reference, "office") => 0,
        (TableKind::Reference, _) => 1,
        (TableKind::File, "offender") => 2,
        (TableKind::File, _) => 3,
    }
}

/// The column list of a table, ids first.
pub fn columns(table: &Table) -> String {
    let mut columns = vec!["id"];
    if table.offender_column() == Some("offender") {
        columns.push("offender");
    }
    columns.extend(table.columns.iter().map(|c| c.name));
    columns.join(", ")
}

/// Whether the values are what the catalogue says.
#[cfg(test)]
fn check(table: &Table, offender: Option<i64>, values: &[Value]) -> Result<(), String> {
    if offender.is_some() != (table.offender_column() == Some("offender")) {
        return Err("offender given or missing".to_owned());
    }
    if values.len() != table.columns.len() {
        return Err(format!("{} values for {} columns", values.len(), table.columns.len()));
    }
    for (column, value) in table.columns.iter().zip(values) {
        let fits = match (column.ty, value) {
            (_, Value::Null) => column.nullable,
            (ColumnType::Text, Value::Text(_) | Value::Code(_))
            | (ColumnType::Integer, Value::Int(_))
            | (ColumnType::Boolean, Value::Bool(_))
            | (ColumnType::Date, Value::Date(_))
            | (ColumnType::Instant, Value::Instant(..))
            | (ColumnType::Reference(_), Value::Id(_)) => true,
            (ColumnType::Hash, Value::Bytes(bytes)) => bytes.len() == 32,
            (ColumnType::Code(list), Value::Text(code)) => list.label(code).is_some(),
            (ColumnType::Code(list), Value::Code(code)) => list.label(code).is_some(),
            _ => false,
        };
        if !fits {
            return Err(format!("{} cannot be {value:?}", column.name));
        }
    }
    Ok(())
}

fn field(out: &mut Vec<u8>, bytes: &[u8]) {
    #[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "a field is far below 2 GiB")]
    out.extend_from_slice(&(bytes.len() as i32).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// Days from 1 January 2000, PostgreSQL's epoch.
pub(crate) fn days(date: Date) -> i32 {
    const EPOCH: Date = jiff::civil::date(2000, 1, 1);
    EPOCH.until(date).map_or(0, |span| span.get_days())
}

fn encode(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.extend_from_slice(&(-1i32).to_be_bytes()),
        Value::Text(s) => field(out, s.as_bytes()),
        Value::Code(s) => field(out, s.as_bytes()),
        Value::Int(n) => field(out, &n.to_be_bytes()),
        Value::Id(n) => field(out, &n.to_be_bytes()),
        Value::Bool(b) => field(out, &[u8::from(*b)]),
        Value::Date(d) => field(out, &days(*d).to_be_bytes()),
        Value::Instant(d, seconds) => {
            let micros = (i64::from(days(*d)) * 86_400 + i64::from(*seconds)) * 1_000_000;
            field(out, &micros.to_be_bytes());
        }
        Value::Bytes(b) => field(out, b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_count_from_2000() {
        assert_eq!(days(jiff::civil::date(2000, 1, 1)), 0);
        assert_eq!(days(jiff::civil::date(1999, 12, 31)), -1);
        assert_eq!(days(jiff::civil::date(2024, 3, 1)), 8826);
    }

    #[test]
    fn a_row_is_checked_against_the_catalogue() {
        let table = liaison_records::catalogue::table("caution").unwrap();
        let date = jiff::civil::date(2020, 1, 1);
        assert_eq!(check(table, Some(1), &values![Value::Code("Violent"), date, Value::Null]), Ok(()));
        assert!(check(table, Some(1), &values![Value::Code("violent"), date, Value::Null]).is_err());
        assert!(check(table, Some(1), &values![Value::Code("Violent"), Value::Null, Value::Null]).is_err());
        assert!(check(table, None, &values![Value::Code("Violent"), date, Value::Null]).is_err());
        assert!(check(table, Some(1), &values![date]).is_err());
    }
}
