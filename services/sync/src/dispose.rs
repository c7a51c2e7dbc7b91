//! Removes a partner's replica, or closes it and notes by when it must be gone. Idempotent; access is cut first, then the data
//! go, then a certificate says so (I7). A legal hold refuses both, and leaves access cut.

use jiff::Timestamp;
use liaison_records::{names::PartnerName, statement::Kind};
use serde_json::{Map, Value, json};
use tokio_postgres::Client;

use crate::{
    connect::Target,
    error::{Error, Of},
    fault::Faults,
    hub_ledger::{self, Claim},
    partner,
    quote::ident,
    rebuild, retention,
    seed::{Found, lock_roles, role, schema},
    statement,
    verify::roots,
};

/// What is to become of the replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Policy {
    /// Schemas and role are dropped.
    Delete,
    /// The agreement ended, and the connection is still there: all records go, the empty schemas stay for a renewed one.
    Empty,
    /// It is closed, and must be gone by `due`.
    Retain {
        /// The agreement's bound.
        due: Timestamp,
        /// Which agreement.
        agreement: String,
        /// Where it stands.
        store: String,
    },
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disposed {
    /// Access-log rows that the hub has now.
    pub drained: u64,
    /// Whether the records are gone.
    pub gone: bool,
    /// Number of the certificate made now.
    pub certificate: Option<i64>,
}

/// Disposes of a partner's replica.
pub async fn dispose(
    hub: &Target,
    store: &Target,
    partner: &PartnerName,
    policy: &Policy,
    holder: &str,
) -> Result<Disposed, Error> {
    let mut hub = hub.connect().await?;
    let mut store = store.connect().await?;
    let epoch = cut(&hub, &mut store, partner, policy, holder).await?;
    let drained = drain(&mut hub, &store, partner).await?;
    // What was being made beside is nobody's to read, and no part of what may be retained.
    rebuild::remove(&mut store, partner, &[&partner.next_schema(), &partner.old_schema()]).await?;
    let result = match policy {
        Policy::Delete | Policy::Empty => {
            if retention::is_held(&hub, partner).await? {
                Err(Error::LegalHold(partner.clone()))
            } else {
                let certificate = destroy(&mut hub, &mut store, partner, policy, epoch).await?;
                Ok(Disposed { drained, gone: true, certificate })
            }
        }
        Policy::Retain { due, agreement, store } => {
            hub.execute(
                "INSERT INTO liaison.disposal AS d (partner, agreement, store, due, cause)
                 VALUES ($1, $2, $3, $4::text::timestamptz, 'deletion')
                 ON CONFLICT (partner) DO UPDATE SET store = EXCLUDED.store, cause = 'deletion',
                    agreement = coalesce(nullif(EXCLUDED.agreement, ''), d.agreement),
                    due = CASE WHEN d.disposed IS NULL THEN least(d.due, EXCLUDED.due) ELSE EXCLUDED.due END,
                    disposed = NULL",
                &[&partner.as_str(), agreement, store, &due.to_string()],
            )
            .await
            .hub()?;
            Ok(Disposed { drained, gone: false, certificate: None })
        }
    };
    if let Some(epoch) = epoch {
        // Who seeds a partner of this name again need not wait for it to run out.
        hub_ledger::release(&hub, &[(partner.clone(), epoch)]).await?;
    }
    result
}

/// Counts, removes, certifies. What was counted stands on the hub before anything goes, so that a process killed in between
/// still certifies what went: who comes next finds nothing left, and leaves it standing.
async fn destroy(
    hub: &mut Client,
    store: &mut Client,
    partner: &PartnerName,
    policy: &Policy,
    epoch: Option<i64>,
) -> Result<Option<i64>, Error> {
    if let Some(facts) = count(hub, store, partner, policy).await? {
        hub.execute(
            r#"INSERT INTO liaison.disposal AS d (partner, agreement, store, cause, facts)
             VALUES ($1, $3, '', 'deletion', $2)
             ON CONFLICT (partner) DO UPDATE SET disposed = NULL,
                facts = CASE WHEN d.facts IS NOT NULL AND $2::jsonb @> '{"files": 0, "records": 0, "photographs": 0}'
                             THEN d.facts ELSE $2 END,
                agreement = coalesce(nullif(d.agreement, ''), EXCLUDED.agreement)"#,
            &[&partner.as_str(), &facts, &facts["agreement"].as_str().unwrap_or_default()],
        )
        .await
        .hub()?;
    }
    match policy {
        Policy::Empty => empty(store, partner, epoch).await?,
        _ => remove(store, partner).await?,
    }
    certify(hub, partner).await
}

/// What is in the replica; `None` when there is none. Its root is the one of a verification, made of its own bytes, so that
/// the certificate can be held against the last attestation.
async fn count(
    hub: &Client,
    store: &mut Client,
    partner: &PartnerName,
    policy: &Policy,
) -> Result<Option<Value>, Error> {
    let share = ident(&partner.share_schema());
    let there = store.query_one("SELECT to_regclass($1) IS NOT NULL", &[&format!("{share}.cursor")]).await.store()?;
    if !there.try_get::<_, bool>(0).store()? {
        return Ok(None);
    }
    let tx = roots::snapshot(store).await?;
    let hashed = roots::replica(&tx, partner).await?;
    let sql = format!(
        "SELECT c.batch, encode(c.head, 'hex'), c.agreement, c.generation, c.hub_identity FROM {share}.cursor c"
    );
    let row = tx.query_one(&sql, &[]).await.store()?;
    tx.rollback().await.store()?;
    let number = |index: usize| row.try_get::<_, i64>(index).store();
    let text = |index: usize| row.try_get::<_, String>(index).store();
    let rows = hub
        .query_one("SELECT count(*) FROM liaison.access_log WHERE partner = $1", &[&partner.as_str()])
        .await
        .hub()?;
    let (schemas, method): (Vec<String>, &str) = match policy {
        Policy::Empty => (vec![partner.share_schema()], "emptied"),
        _ => (vec![partner.share_schema(), partner.journal_schema()], "dropped"),
    };
    Ok(Some(json!({
        "schemas": schemas, "method": method,
        "files": hashed.files, "records": hashed.records, "photographs": hashed.photographs,
        "root": hex::encode(hashed.tree.root()),
        "lastBatch": number(0)?, "head": text(1)?, "agreement": text(2)?, "generation": number(3)?,
        "hub": row.try_get::<_, Option<String>>(4).store()?,
        "store": crate::replica::identity(store).await?,
        "accessLogRows": rows.try_get::<_, i64>(0).hub()?,
    })))
}

/// Takes all records out. TRUNCATE, so that no old tuple stays for a VACUUM that comes later; the journal stays, and what it
/// held before is on the hub.
async fn empty(store: &mut Client, partner: &PartnerName, epoch: Option<i64>) -> Result<(), Error> {
    let Some(epoch) = epoch else { return Ok(()) };
    let share = ident(&partner.share_schema());
    let tx = store.transaction().await.store()?;
    let sql = format!(
        "UPDATE {share}.cursor SET hub_identity = NULL, snapshot = NULL, as_of = NULL, filled = 0, seeded = false,
            fenced = true, groups = '{{}}', agreement = '', population = NULL WHERE epoch = $1"
    );
    if tx.execute(&sql, &[&epoch]).await.store()? == 0 {
        return Err(Error::Fenced { partner: partner.clone(), epoch });
    }
    tx.batch_execute(&format!("TRUNCATE {share}.record, {share}.subject, {share}.photograph")).await.store()?;
    tx.commit().await.store()
}

/// Says what went, once: the statement and the end of the disposal are one transaction.
async fn certify(hub: &mut Client, partner: &PartnerName) -> Result<Option<i64>, Error> {
    let tx = hub.transaction().await.hub()?;
    let row = tx
        .query_opt(
            "SELECT facts, agreement, reference, legal_basis, cause, to_json(due) #>> '{}'
             FROM liaison.disposal WHERE partner = $1 AND facts IS NOT NULL FOR UPDATE",
            &[&partner.as_str()],
        )
        .await
        .hub()?;
    let Some(row) = row else {
        tx.execute(
            "UPDATE liaison.disposal SET disposed = clock_timestamp() WHERE partner = $1 AND disposed IS NULL",
            &[&partner.as_str()],
        )
        .await
        .hub()?;
        tx.commit().await.hub()?;
        return Ok(None);
    };
    let mut fields: Map<String, Value> = match row.try_get::<_, Value>(0).hub()? {
        Value::Object(fields) => fields,
        _ => return Err(Error::Corrupt("liaison.disposal has facts that cannot be read".to_owned())),
    };
    let agreement: String = row.try_get(1).hub()?;
    if !agreement.is_empty() {
        fields.insert("agreement".to_owned(), agreement.into());
    }
    fields.insert("reference".to_owned(), row.try_get::<_, String>(2).hub()?.into());
    fields.insert("legalBasis".to_owned(), row.try_get::<_, Vec<String>>(3).hub()?.into());
    fields.insert("cause".to_owned(), row.try_get::<_, String>(4).hub()?.into());
    fields.insert("due".to_owned(), row.try_get::<_, Option<String>>(5).hub()?.into());
    let number = statement::insert(&tx, Kind::Disposal, partner.as_str(), fields).await?;
    tx.execute(
        "UPDATE liaison.disposal SET disposed = clock_timestamp(), facts = NULL WHERE partner = $1",
        &[&partner.as_str()],
    )
    .await
    .hub()?;
    tx.commit().await.hub()?;
    Ok(Some(number))
}

/// Takes the lease from whoever has it, closes the cursor, and disables the role, unless the connection is still there.
async fn cut(
    hub: &Client,
    store: &mut Client,
    partner: &PartnerName,
    policy: &Policy,
    holder: &str,
) -> Result<Option<i64>, Error> {
    let epoch = match partner::lease(hub, store, partner, holder, Claim::Force, &Faults::default()).await {
        Ok((held, _)) => {
            let tx = store.transaction().await.store()?;
            let sql = format!(
                "UPDATE {}.cursor SET suspended = true, authorized_until = NULL WHERE epoch = $1",
                ident(&partner.share_schema())
            );
            if tx.execute(&sql, &[&held.epoch]).await.store()? == 0 {
                return Err(Error::Fenced { partner: partner.clone(), epoch: held.epoch });
            }
            tx.commit().await.store()?;
            Some(held.epoch)
        }
        Err(Error::NotSeeded(_)) => None,
        Err(error) => return Err(error),
    };
    if *policy == Policy::Empty {
        return Ok(epoch);
    }
    let tx = store.transaction().await.store()?;
    if role(&tx, partner).await? == Found::Ours {
        tx.batch_execute(&format!("ALTER ROLE {} NOLOGIN PASSWORD NULL", ident(&partner.reader_role())))
            .await
            .store()?;
    }
    tx.commit().await.store()?;
    // Sessions that are open still find the cursor closed; ending them is good manners, and needs a right we may lack.
    let _ = store
        .execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", &[&partner.reader_role()])
        .await;
    Ok(epoch)
}

/// Copies the access log to the hub: it outlives the replica.
async fn drain(hub: &mut Client, store: &Client, partner: &PartnerName) -> Result<u64, Error> {
    let journal = partner.journal_schema();
    let there = store
        .query_one("SELECT to_regclass($1) IS NOT NULL", &[&format!("{}.access_log", ident(&journal))])
        .await
        .store()?;
    if !there.try_get::<_, bool>(0).store()? {
        return Ok(0);
    }
    let log = format!("{}.access_log", ident(&journal));
    // Numbers start again in a journal that is made anew: its first instant tells the journals apart.
    let first: Option<String> =
        store.query_one(&format!("SELECT min(at)::text FROM {log}"), &[]).await.store()?.try_get(0).store()?;
    let Some(first) = first else { return Ok(0) };
    let (mut after, mut drained) = (i64::MIN, 0);
    loop {
        let sql = format!("SELECT l.id, to_jsonb(l)::text FROM {log} l WHERE l.id > $1 ORDER BY l.id LIMIT 5000");
        let rows = store.query(&sql, &[&after]).await.store()?;
        let Some(last) = rows.last() else { return Ok(drained) };
        after = last.try_get(0).store()?;
        let ids: Vec<i64> = rows.iter().map(|r| r.try_get(0).store()).collect::<Result<_, _>>()?;
        let entries: Vec<String> = rows.iter().map(|r| r.try_get(1).store()).collect::<Result<_, _>>()?;
        let tx = hub.transaction().await.hub()?;
        tx.execute(
            "INSERT INTO liaison.access_log (partner, journal, id, entry)
             SELECT $1, $2::text::timestamptz, i, e::jsonb FROM unnest($3::bigint[], $4::text[]) AS n (i, e)
             ON CONFLICT DO NOTHING",
            &[&partner.as_str(), &first, &ids, &entries],
        )
        .await
        .hub()?;
        tx.commit().await.hub()?;
        drained += ids.len() as u64;
    }
}

/// Drops what bears our mark.
async fn remove(store: &mut Client, partner: &PartnerName) -> Result<(), Error> {
    let tx = store.transaction().await.store()?;
    for name in [partner.share_schema(), partner.journal_schema()] {
        if schema(&tx, partner, &name).await? == Found::Ours {
            tx.batch_execute(&format!("DROP SCHEMA {} CASCADE", ident(&name))).await.store()?;
        }
    }
    if role(&tx, partner).await? == Found::Ours {
        lock_roles(&tx).await?;
        let reader = ident(&partner.reader_role());
        let database: String =
            tx.query_one("SELECT current_database()::text", &[]).await.store()?.try_get(0).store()?;
        tx.batch_execute(&format!("REVOKE ALL ON DATABASE {} FROM {reader}; DROP ROLE {reader}", ident(&database)))
            .await
            .store()?;
    }
    tx.commit().await.store()
}
