//! `liaison-oms migrate`: the embedded migrations, then what is generated from the catalogue: the view, the capture
//! triggers, the rights of sync. May be run again.

use liaison_records::catalogue::{TABLES, record_view_sql};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, migrate::Migrator};

use crate::error::Error;

/// The role of sync at the hub.
pub const SYNC_ROLE: &str = "liaison_sync";

static MIGRATOR: Migrator = sqlx::migrate!();

/// What stands between two runs at once: any number, the same for all.
const LOCK: i64 = 0x4c49_4149_534f_4e01;

/// Brings the hub of this connection up to date.
pub async fn migrate(hub: &mut PgConnection) -> Result<(), Error> {
    MIGRATOR.run(&mut *hub).await?;
    let mut tx = hub.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(LOCK).execute(&mut *tx).await?;
    // A view whose columns change type cannot be replaced: before it was text, the body was a `jsonb`.
    tx.execute(
        "DO $$ BEGIN IF EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass('liaison.record')
                                AND attname = 'body' AND atttypid = 'jsonb'::regtype)
                     THEN DROP VIEW liaison.record; END IF; END $$",
    )
    .await?;
    tx.execute(AssertSqlSafe(format!("CREATE OR REPLACE VIEW liaison.record AS\n{}", record_view_sql()))).await?;
    tx.execute("COMMENT ON VIEW liaison.record IS 'Every row of OMS as a record; generated from the catalogue'")
        .await?;
    if function_exists(&mut tx, "capture_from").await? {
        for table in TABLES {
            sqlx::query("SELECT liaison.capture_from($1::regclass, $2, $3)")
                .bind(format!("oms.{}", table.name))
                .bind(table.name)
                .bind(table.offender_column())
                .execute(&mut *tx)
                .await?;
        }
    }
    // Usually there already: whoever administers the server makes it, with its password or certificate.
    tx.execute(AssertSqlSafe(format!(
        "DO $do$ BEGIN IF to_regrole('{SYNC_ROLE}') IS NULL THEN CREATE ROLE {SYNC_ROLE}; END IF; \
         EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $do$"
    )))
    .await?;
    // Each migration that makes tables of sync's brings a function of its own.
    let admit: Vec<String> = sqlx::query_scalar(
        "SELECT quote_ident(p.proname) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace \
         WHERE n.nspname = 'liaison' AND starts_with(p.proname, 'admit_sync') ORDER BY p.proname",
    )
    .fetch_all(&mut *tx)
    .await?;
    for function in admit {
        sqlx::query(AssertSqlSafe(format!("SELECT liaison.{function}($1::name)")))
            .bind(SYNC_ROLE)
            .execute(&mut *tx)
            .await?;
    }
    tx.commit().await?;
    Ok(())
}

async fn function_exists(hub: &mut PgConnection, name: &str) -> Result<bool, Error> {
    Ok(sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace \
         WHERE n.nspname = 'liaison' AND p.proname = $1)",
    )
    .bind(name)
    .fetch_one(hub)
    .await?)
}

/// Connects and migrates: for tests of other crates.
pub async fn migrate_url(url: &str) -> Result<(), Error> {
    let mut hub = PgConnection::connect_with(&crate::connect::from_url(url)?).await?;
    migrate(&mut hub).await?;
    hub.close().await?;
    Ok(())
}
