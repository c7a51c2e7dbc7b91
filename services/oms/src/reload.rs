//! `liaison-oms reload`: what many extracts do every night: throw everything away and load it again, in one transaction, here
//! with the same content. Whoever follows the hub must come out of it with nothing changed.

use std::time::Instant;

use liaison_records::catalogue::{TABLES, Table};
use serde::Serialize;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

use crate::{bulk, error::Error, generate::all_tables, rows::load_order};

/// What was done.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reloaded {
    /// Rows loaded again.
    pub records: u64,
    /// Wall time in seconds.
    pub seconds: f64,
}

/// Reloads every table of the catalogue. Images stay: they are named by their content.
pub async fn reload(hub: &mut PgConnection) -> Result<Reloaded, Error> {
    let begun = Instant::now();
    let mut tx = hub.begin().await?;
    for table in TABLES {
        tx.execute(AssertSqlSafe(format!(
            "CREATE TEMP TABLE aside_{0} ON COMMIT DROP AS SELECT * FROM oms.{0}",
            table.name
        )))
        .await?;
    }
    tx.execute(AssertSqlSafe(format!("TRUNCATE {}", all_tables()))).await?;
    let keys = bulk::put_aside(&mut tx).await?;
    let mut records = 0;
    let mut tables: Vec<&Table> = TABLES.iter().collect();
    tables.sort_by_key(|table| load_order(table));
    for table in tables {
        let insert = format!("INSERT INTO oms.{0} SELECT * FROM aside_{0}", table.name);
        records += tx.execute(AssertSqlSafe(insert)).await?.rows_affected();
    }
    bulk::restore(&mut tx, keys).await?;
    tx.commit().await?;
    Ok(Reloaded { records, seconds: begun.elapsed().as_secs_f64() })
}
