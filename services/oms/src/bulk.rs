//! Loading very many rows: foreign keys are put aside and checked once at the end, in the same transaction. Checked row by row
//! they cost eight times what the rows do.

use sqlx::{AssertSqlSafe, Executor as _, PgConnection, Row as _};

use crate::error::Error;

/// Foreign keys that were put aside.
#[derive(Debug)]
pub struct ForeignKeys(Vec<(String, String, String)>);

/// Drops the foreign keys of schema oms; the caller holds a transaction and calls [`restore`] in it.
pub async fn put_aside(tx: &mut PgConnection) -> Result<ForeignKeys, Error> {
    let rows = sqlx::query(
        "SELECT conrelid::regclass::text AS tbl, quote_ident(conname) AS name, pg_get_constraintdef(oid) AS def \
         FROM pg_constraint WHERE contype = 'f' AND connamespace = 'oms'::regnamespace ORDER BY 1, 2",
    )
    .fetch_all(&mut *tx)
    .await?;
    let mut keys = Vec::new();
    for row in rows {
        keys.push((row.try_get("tbl")?, row.try_get("name")?, row.try_get("def")?));
    }
    for (table, name, _) in &keys {
        tx.execute(AssertSqlSafe(format!("ALTER TABLE {table} DROP CONSTRAINT {name}"))).await?;
    }
    Ok(ForeignKeys(keys))
}

/// Makes them again, which checks every row.
pub async fn restore(tx: &mut PgConnection, keys: ForeignKeys) -> Result<(), Error> {
    for (table, name, definition) in keys.0 {
        tx.execute(AssertSqlSafe(format!("ALTER TABLE {table} ADD CONSTRAINT {name} {definition}"))).await?;
    }
    Ok(())
}
