//! Makes a partner's schemas and role, and fills its replica. Idempotent: run again, it converges and changes nothing.
//!
//! Whatever Liaison makes outside Kubernetes bears its mark, which is checked before anything is altered.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use liaison_records::names::PartnerName;
use tokio_postgres::{Client, Transaction};

use crate::{
    compare::Budget,
    connect::Target,
    cursor::ALL,
    error::{Error, Of},
    fault::Faults,
    quote::{ident, literal},
    replica::Share,
    terms::Terms,
    worker::{Context, Worker},
};

const SHARE: &str = include_str!("../sql/share.sql");
const JOURNAL: &str = include_str!("../sql/journal.sql");

/// How long a seed may go on filling, unless its Job says less.
const DEADLINE: Duration = Duration::from_mins(60);

/// What a seed did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seeded {
    /// Files in the replica.
    pub files: i64,
    /// Records in the replica.
    pub records: i64,
}

/// The comment that Liaison's schemas and role of a partner bear.
pub fn mark(partner: &PartnerName) -> String {
    format!("liaison: partner {partner}")
}

/// What exists under a name that would be Liaison's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// Ours.
    Ours,
}

/// Looks for a schema; one without the mark is an error.
pub async fn schema(tx: &Transaction<'_>, partner: &PartnerName, name: &str) -> Result<Found, Error> {
    let row = tx
        .query_opt("SELECT obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = $1", &[&name])
        .await
        .store()?;
    marked(row.as_ref(), partner, &format!("schema {name}"))
}

/// Looks for a role; one without the mark is an error.
pub async fn role(tx: &Transaction<'_>, partner: &PartnerName) -> Result<Found, Error> {
    let name = partner.reader_role();
    let row = tx
        .query_opt("SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = $1", &[&name])
        .await
        .store()?;
    marked(row.as_ref(), partner, &format!("role {name}"))
}

fn marked(row: Option<&tokio_postgres::Row>, partner: &PartnerName, what: &str) -> Result<Found, Error> {
    let Some(row) = row else { return Ok(Found::Nothing) };
    let mark = mark(partner);
    if row.try_get::<_, Option<&str>>(0).store()? == Some(mark.as_str()) {
        Ok(Found::Ours)
    } else {
        Err(Error::NotOurs { what: what.to_owned(), mark })
    }
}

/// Jobs that change roles and rights wait for each other: two grants on one database at once are an error to PostgreSQL.
pub(crate) async fn lock_roles(tx: &Transaction<'_>) -> Result<(), Error> {
    tx.execute("SELECT pg_advisory_xact_lock(hashtext('liaison roles'))", &[]).await.store()?;
    Ok(())
}

/// The tables of a replica, in a schema that is there.
pub(crate) fn share_sql(schema: &str) -> String {
    SHARE.replace("{share}", &ident(schema))
}

/// Makes, or brings up to date, the two schemas and the role of a partner. `verifier` is a SCRAM-SHA-256 verifier: the
/// password itself is never here.
pub async fn prepare(store: &mut Client, partner: &PartnerName, verifier: &str) -> Result<(), Error> {
    if !verifier.starts_with("SCRAM-SHA-256$") {
        return Err(Error::Config("READER_VERIFIER must be a SCRAM-SHA-256 verifier".to_owned()));
    }
    let (share, journal) = (partner.share_schema(), partner.journal_schema());
    let (reader, mark) = (ident(&partner.reader_role()), literal(&mark(partner)));
    let tx = store.transaction().await.store()?;
    lock_roles(&tx).await?;
    if role(&tx, partner).await? == Found::Nothing {
        tx.batch_execute(&format!("CREATE ROLE {reader}; COMMENT ON ROLE {reader} IS {mark}")).await.store()?;
    }
    let database: String = tx.query_one("SELECT current_database()::text", &[]).await.store()?.try_get(0).store()?;
    tx.batch_execute(&format!(
        "ALTER ROLE {reader} LOGIN NOINHERIT CONNECTION LIMIT 64 PASSWORD {}; GRANT CONNECT ON DATABASE {} TO {reader}",
        literal(verifier),
        ident(&database)
    ))
    .await
    .store()?;
    for name in [&share, &journal] {
        if schema(&tx, partner, name).await? == Found::Nothing {
            let quoted = ident(name);
            tx.batch_execute(&format!(
                "CREATE SCHEMA {quoted}; COMMENT ON SCHEMA {quoted} IS {mark}; REVOKE ALL ON SCHEMA {quoted} FROM PUBLIC"
            ))
            .await
            .store()?;
        }
    }
    for template in [SHARE, JOURNAL] {
        let sql = template
            .replace("{share}", &ident(&share))
            .replace("{journal}", &ident(&journal))
            .replace("{reader}", &reader);
        tx.batch_execute(&sql).await.store()?;
    }
    tx.commit().await.store()
}

/// Seeds a partner's replica: prepares it, and fills it from the hub. `holder` names this process.
///
/// This is all that a test needs to have a real replica: no Kubernetes.
pub async fn seed(
    hub: &Target,
    store: &Target,
    terms: &Terms,
    verifier: &str,
    holder: &str,
    budget: Budget,
    faults: Faults,
) -> Result<Seeded, Error> {
    fill(Context::new(hub, store, holder, budget, faults), terms, verifier).await
}

/// The same, with what the process has.
pub async fn fill(context: Context, terms: &Terms, verifier: &str) -> Result<Seeded, Error> {
    let (hub, store) = (context.leases.target().clone(), context.store.target().clone());
    let mut client = store.connect().await?;
    prepare(&mut client, &terms.partner, verifier).await?;
    adopt(&hub, &client, &terms.partner).await?;
    let share = Share::new(&terms.partner);
    let mut worker = Worker::new(context);
    worker.set_terms(vec![terms.clone()]);
    let started = Instant::now();
    loop {
        match worker.converge(Timestamp::now()).await {
            Ok(()) => break,
            // The steady state fills it as well: let it.
            Err((_, "LeaseHeld" | "HubBusy" | "CaptureLost" | "CaptureWaits", _)) if started.elapsed() < DEADLINE => {
                let cursor = share.cursor(&client).await?;
                if cursor.filled == ALL && cursor.seeded {
                    break;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Err((_, reason, message)) => {
                worker.shut_down().await;
                return Err(Error::Job { reason, message });
            }
        }
    }
    worker.shut_down().await;
    let (files, records) = share.counts(&client).await?;
    Ok(Seeded { files, records })
}

/// A replica that was kept for disposal is wanted again: it is compared with the hub from the start.
async fn adopt(hub: &Target, store: &Client, partner: &PartnerName) -> Result<(), Error> {
    let client = hub.connect().await?;
    let kept = client
        .execute(
            "UPDATE liaison.disposal SET cause = 'agreement', due = NULL, disposed = NULL
             WHERE partner = $1 AND cause = 'deletion'",
            &[&partner.as_str()],
        )
        .await
        .hub()?;
    if kept > 0 {
        let sql = format!("UPDATE {}.cursor SET hub_identity = NULL", ident(&partner.share_schema()));
        store.execute(&sql, &[]).await.store()?;
    }
    Ok(())
}
