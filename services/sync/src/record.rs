//! A record as it crosses: read, encoded and hashed once, for all who are entitled to it. Pure.

use std::{collections::HashMap, error::Error, sync::Arc};

use bytes::{BufMut, BytesMut};
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, accepts, to_sql_checked};

/// What names a record: its table and its number.
pub type Key = (Arc<str>, i64);

/// SHA-256 of a record.
pub type Hash = [u8; 32];

/// Where a row is in its table: PostgreSQL's `tid`, as it crosses, four bytes of the page and two of the place on it. Whoever
/// moves the row makes it stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place([u8; 6]);

impl<'a> FromSql<'a> for Place {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(raw.try_into()?))
    }

    accepts!(TID);
}

impl ToSql for Place {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.put_slice(&self.0);
        Ok(IsNull::No)
    }

    accepts!(TID);
    to_sql_checked!();
}

/// One row of `liaison.record`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The file; `None` for a reference record.
    pub offender: Option<i64>,
    /// Field group.
    pub group: Arc<str>,
    /// Table.
    pub table: Arc<str>,
    /// Number within the table.
    pub id: i64,
    /// Canonical JSON.
    pub body: String,
    /// Over all of the above.
    pub hash: Hash,
}

impl Record {
    /// Its key.
    pub fn key(&self) -> Key {
        (self.table.clone(), self.id)
    }

    /// The picture that a photograph record names.
    pub fn photograph(&self) -> Option<Hash> {
        if &*self.table != PHOTOGRAPH {
            return None;
        }
        let body: serde_json::Value = serde_json::from_str(&self.body).ok()?;
        hex::decode(body.get("sha256")?.as_str()?).ok()?.try_into().ok()
    }
}

/// The table whose records name pictures.
pub const PHOTOGRAPH: &str = "photograph";

/// The few distinct names of tables and groups, each kept once.
#[derive(Debug, Default)]
pub struct Names(HashMap<String, Arc<str>>);

impl Names {
    /// The one copy of `name`.
    pub fn get(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.0.get(name) {
            return known.clone();
        }
        let new: Arc<str> = name.into();
        self.0.insert(name.to_owned(), new.clone());
        new
    }
}
