//! Removes a partner's replica, or closes it and notes by when it must be gone. Idempotent; access is cut first (I7).

use jiff::Timestamp;
use liaison_records::names::PartnerName;
use tokio_postgres::Client;

use crate::{
    connect::Target,
    error::{Error, Of},
    fault::Faults,
    hub_ledger::{self, Claim},
    partner,
    quote::ident,
    rebuild,
    seed::{Found, lock_roles, role, schema},
};

/// What is to become of the replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Policy {
    /// It is dropped.
    Delete,
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
    /// Whether the schemas and the role are gone.
    pub gone: bool,
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
    let epoch = cut(&hub, &mut store, partner, holder).await?;
    let drained = drain(&mut hub, &store, partner).await?;
    // What was being made beside is nobody's to read, and no part of what may be retained.
    rebuild::remove(&mut store, partner, &[&partner.next_schema(), &partner.old_schema()]).await?;
    if let Some(epoch) = epoch {
        // Who seeds a partner of this name again need not wait for it to run out.
        hub_ledger::release(&hub, &[(partner.clone(), epoch)]).await?;
    }
    match policy {
        Policy::Delete => {
            remove(&mut store, partner).await?;
            hub.execute(
                "UPDATE liaison.disposal SET disposed = clock_timestamp() WHERE partner = $1 AND disposed IS NULL",
                &[&partner.as_str()],
            )
            .await
            .hub()?;
            Ok(Disposed { drained, gone: true })
        }
        Policy::Retain { due, agreement, store } => {
            hub.execute(
                "INSERT INTO liaison.disposal AS d (partner, agreement, store, due)
                 VALUES ($1, $2, $3, $4::text::timestamptz)
                 ON CONFLICT (partner) DO UPDATE SET agreement = EXCLUDED.agreement, store = EXCLUDED.store,
                    due = CASE WHEN d.disposed IS NULL THEN least(d.due, EXCLUDED.due) ELSE EXCLUDED.due END,
                    disposed = NULL",
                &[&partner.as_str(), agreement, store, &due.to_string()],
            )
            .await
            .hub()?;
            Ok(Disposed { drained, gone: false })
        }
    }
}

/// The partners whose replicas must be gone by now.
pub async fn due(hub: &Client) -> Result<Vec<PartnerName>, Error> {
    let rows = hub
        .query("SELECT partner FROM liaison.disposal WHERE disposed IS NULL AND due <= clock_timestamp()", &[])
        .await
        .hub()?;
    let mut partners = Vec::with_capacity(rows.len());
    for row in &rows {
        let name: String = row.try_get(0).hub()?;
        partners.push(name.parse().map_err(|_| Error::Corrupt("liaison.disposal names no partner".to_owned()))?);
    }
    Ok(partners)
}

/// Takes the lease from whoever has it, closes the cursor, and disables the role.
async fn cut(hub: &Client, store: &mut Client, partner: &PartnerName, holder: &str) -> Result<Option<i64>, Error> {
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
