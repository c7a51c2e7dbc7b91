//! `liaison-oms capture`: by triggers, or from the write-ahead log. Going from one to the other loses nothing and needs no
//! pause: for a moment both write the change log, and a key that stands there twice is read once.

use sqlx::{Connection as _, Executor as _, PgConnection};

use crate::error::Error;

/// Who writes the change log of inserts and updates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Capture {
    /// Each writer, by triggers: about 20 microseconds a row. Works on any hub.
    Triggers,
    /// sync, from one logical slot: nothing for the writer. Needs `wal_level = logical`.
    Wal,
}

/// Messages that are read from the log at once.
const MOST: i32 = 1_000_000;

/// How it is now.
pub async fn captured_by(hub: &mut PgConnection) -> Result<Capture, Error> {
    let wal: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM liaison.wal_position)").fetch_one(hub).await?;
    Ok(if wal { Capture::Wal } else { Capture::Triggers })
}

/// Makes it so; nothing happens if it is so already.
///
/// # Errors
///
/// [`Error::Config`] when the server cannot do it, with what to set.
pub async fn capture_by(hub: &mut PgConnection, wanted: Capture) -> Result<(), Error> {
    if captured_by(hub).await? == wanted {
        return Ok(());
    }
    match wanted {
        Capture::Wal => from_the_log(hub).await,
        Capture::Triggers => by_triggers(hub).await,
    }
}

async fn from_the_log(hub: &mut PgConnection) -> Result<(), Error> {
    let (level, may): (String, bool) = sqlx::query_as(
        "SELECT current_setting('wal_level'), rolsuper OR rolreplication FROM pg_roles WHERE rolname = current_user",
    )
    .fetch_one(&mut *hub)
    .await?;
    if level != "logical" {
        return Err(Error::Config(format!(
            "the hub's wal_level is {level}: set wal_level = logical and restart PostgreSQL, or stay with triggers"
        )));
    }
    if !may {
        return Err(Error::Config(
            "who migrates the hub must have the attribute REPLICATION to read its log: ALTER ROLE ... REPLICATION"
                .into(),
        ));
    }
    hub.execute(
        "DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_publication WHERE pubname = 'liaison_capture') THEN
             CREATE PUBLICATION liaison_capture WITH (publish = 'insert, update');
         END IF; END $$",
    )
    .await?;
    // First the slot: what is committed from here on can be read, whoever else still writes it down.
    hub.execute(
        "SELECT liaison.wal_create()
         WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = liaison.wal_slot())",
    )
    .await?;
    let switched = switch(hub).await;
    if switched.is_err() {
        // Nobody would read it, and it would keep the log for ever.
        hub.execute("SELECT pg_drop_replication_slot(liaison.wal_slot())").await?;
    }
    switched
}

async fn switch(hub: &mut PgConnection) -> Result<(), Error> {
    let mut tx = hub.begin().await?;
    tx.execute(
        "INSERT INTO liaison.wal_position (position)
         SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = liaison.wal_slot()",
    )
    .await?;
    tx.execute("SELECT liaison.capture_from(rel::regclass, name, offender_column) FROM liaison.captured").await?;
    tx.commit().await?;
    Ok(())
}

async fn by_triggers(hub: &mut PgConnection) -> Result<(), Error> {
    hub.execute("SELECT liaison.capture(rel::regclass, name, offender_column) FROM liaison.captured").await?;
    // From here on triggers write everything. What was committed before is still only in the log.
    let upto: String = sqlx::query_scalar("SELECT pg_current_wal_insert_lsn()::text").fetch_one(&mut *hub).await?;
    loop {
        let state: String = sqlx::query_scalar("SELECT liaison.wal_drain($1::pg_lsn, $2)")
            .bind(&upto)
            .bind(MOST)
            .fetch_one(&mut *hub)
            .await?;
        match state.as_str() {
            "complete" => break,
            "lost" => {
                hub.execute("INSERT INTO liaison.change (tbl) SELECT name FROM liaison.captured").await?;
                break;
            }
            _ => {
                hub.execute("SELECT liaison.wal_release()").await?;
            }
        }
    }
    // Together: a sync that finds the slot gone would make another.
    hub.execute(
        "DO $$ BEGIN
             PERFORM pg_advisory_xact_lock(liaison.wal_lock());
             DELETE FROM liaison.wal_position;
             PERFORM pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = liaison.wal_slot();
         END $$",
    )
    .await?;
    hub.execute("DROP PUBLICATION IF EXISTS liaison_capture").await?;
    Ok(())
}

/// Connects and sets it: for tests and benchmarks of other crates.
pub async fn capture_url(url: &str, wanted: Capture) -> Result<(), Error> {
    let mut hub = PgConnection::connect_with(&crate::connect::from_url(url)?).await?;
    capture_by(&mut hub, wanted).await?;
    hub.close().await?;
    Ok(())
}
