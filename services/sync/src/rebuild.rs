//! A replica made anew beside the one that is read, and swapped in by a rename: after a restore, when ledger and cursor
//! disagree, when too much of it is not what it ought to be, and on demand.
//!
//! `next_<name>` has the same tables, Liaison's mark, our epoch and a cursor of its own; nobody but sync has any right there.
//! It is filled by the same comparing batches as any replica, ledger first, of kind `rebuild`, a step at a time, so that what
//! is told to the partner (terms, suspension) goes on reaching the replica that is read. What is read stays as it was until
//! the swap, and says how old it is; but for files that are sealed meanwhile, which leave it before each step. If it may not be
//! shown, it is fenced before the first.
//!
//! Killed at any point: before the swap, the cursor of `next_<name>` names the ledger's last batch, and whoever takes the
//! lease goes on from there; if it does not name it, it is dropped and begun again. After the swap, what is left of the old
//! replica (`old_<name>`) is dropped with the next lease.

use std::sync::Arc;

use liaison_records::names::PartnerName;
use tokio_postgres::{Client, Transaction};

use crate::{
    compare::compare,
    cursor::{ALL, Cursor},
    error::{Error, Of},
    fault::{Faults, Step},
    hub::Reading,
    partner::Held,
    quote::{ident, literal},
    replica::Share,
    seed::{Found, mark, schema, share_sql},
    tasks::{Context, Finished},
    terms::{Grant, unsealed},
    verify,
};

/// What is to be made anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rebuild {
    /// What is there may not be shown meanwhile.
    pub hide: bool,
}

/// Gives the replica that is being made beside our epoch, if there is one, and returns its cursor. The cursor of the one that
/// is read bears it already. What an earlier swap left is dropped.
pub(crate) async fn take_epoch(store: &mut Client, partner: &PartnerName, epoch: i64) -> Result<Option<Cursor>, Error> {
    let (next, old) = (partner.next_schema(), partner.old_schema());
    let row = store
        .query_one(
            "SELECT to_regnamespace($1) IS NOT NULL, to_regnamespace($2) IS NOT NULL",
            &[&ident(&next), &ident(&old)],
        )
        .await
        .store()?;
    if row.try_get(1).store()? {
        remove(store, partner, &[&old]).await?;
    }
    if !row.try_get::<_, bool>(0).store()? {
        return Ok(None);
    }
    let tx = store.transaction().await.store()?;
    if schema(&tx, partner, &next).await? == Found::Nothing {
        return Ok(None);
    }
    tx.execute(&format!("UPDATE {}.cursor SET epoch = $1 WHERE epoch < $1", ident(&next)), &[&epoch]).await.store()?;
    tx.commit().await.store()?;
    Ok(Some(Share::beside(partner).cursor(store).await?))
}

/// Drops schemas that bear our mark.
pub(crate) async fn remove(store: &mut Client, partner: &PartnerName, names: &[&str]) -> Result<(), Error> {
    let tx = store.transaction().await.store()?;
    for name in names {
        if schema(&tx, partner, name).await? == Found::Ours {
            tx.batch_execute(&format!("DROP SCHEMA {} CASCADE", ident(name))).await.store()?;
        }
    }
    tx.commit().await.store()
}

async fn check(tx: &Transaction<'_>, held: &Held) -> Result<(), Error> {
    let sql = format!("SELECT FROM {}.cursor WHERE epoch = $1 FOR UPDATE", ident(&held.partner.share_schema()));
    match tx.query_opt(&sql, &[&held.epoch]).await.store()? {
        Some(_) => Ok(()),
        None => Err(Error::Fenced { partner: held.partner.clone(), epoch: held.epoch }),
    }
}

/// Makes `next_<name>` empty, following nothing, with the ledger's end as its last batch; unless it is there, and goes on
/// from there.
async fn begin(store: &mut Client, held: &mut Held, rebuild: Rebuild) -> Result<Cursor, Error> {
    let partner = held.partner.clone();
    let (share, next) = (ident(&partner.share_schema()), partner.next_schema());
    let quoted = ident(&next);
    let (batch, end) = held.chain_to_follow();
    let tx = store.transaction().await.store()?;
    check(&tx, held).await?;
    if rebuild.hide {
        tx.execute(&format!("UPDATE {share}.cursor SET fenced = true"), &[]).await.store()?;
    }
    let goes_on = if schema(&tx, &partner, &next).await? == Found::Ours {
        // Its cursor may name the one before the ledger's last, if that is void; then the lease has found out that it is so.
        let sql = format!("SELECT FROM {quoted}.cursor WHERE epoch = $1 AND ($4 OR batch = $2 AND head = $3)");
        tx.query_opt(&sql, &[&held.epoch, &batch, &end, &held.goes_on()]).await.store()?.is_some()
    } else {
        false
    };
    if !goes_on {
        let mark = literal(&mark(&partner));
        tx.batch_execute(&format!(
            "DROP SCHEMA IF EXISTS {quoted} CASCADE; CREATE SCHEMA {quoted}; COMMENT ON SCHEMA {quoted} IS {mark};
             REVOKE ALL ON SCHEMA {quoted} FROM PUBLIC; {}",
            share_sql(&next)
        ))
        .await
        .store()?;
        let sql = format!("UPDATE {quoted}.cursor SET epoch = $1, batch = $2, head = $3");
        tx.execute(&sql, &[&held.epoch, &batch, &end]).await.store()?;
    }
    tx.commit().await.store()?;
    held.cursor.fenced |= rebuild.hide;
    Share::beside(&partner).cursor(store).await
}

/// Takes out of the replica that is read what has been sealed since it was exact: a sealed file waits for nothing else. Its
/// cursor may go on naming an older snapshot: what it holds is always asked of it, and a file that it lacks can only enter.
pub(crate) async fn take_out_sealed(hub: &Client, store: &mut Client, held: &Held) -> Result<(), Error> {
    if held.cursor.fenced {
        return Ok(());
    }
    let files: Vec<i64> = held.share.present(store).await?.into_iter().collect();
    let sql = format!("SELECT o.id FROM oms.offender o WHERE o.id = ANY ($1) AND NOT ({})", unsealed("o"));
    let rows = hub.query(&sql, &[&files]).await.hub()?;
    let sealed: Vec<i64> = rows.iter().map(|row| row.try_get(0).hub()).collect::<Result<_, _>>()?;
    if sealed.is_empty() {
        return Ok(());
    }
    let share = ident(&held.partner.share_schema());
    let tx = store.transaction().await.store()?;
    check(&tx, held).await?;
    for sql in [
        format!("DELETE FROM {share}.record WHERE offender = ANY ($1)"),
        format!("DELETE FROM {share}.subject WHERE offender = ANY ($1)"),
    ] {
        tx.execute(&sql, &[&sealed]).await.store()?;
    }
    tx.batch_execute(&format!(
        "DELETE FROM {share}.photograph p
         WHERE NOT EXISTS (SELECT FROM {share}.record r WHERE r.picture = encode(p.sha256, 'hex'))"
    ))
    .await
    .store()?;
    tx.commit().await.store()
}

/// One step: a comparing batch beside, and the swap when that has all.
pub(crate) async fn step(
    context: Arc<Context>,
    mut held: Held,
    rebuild: Rebuild,
    grant: Grant,
    generation: i64,
) -> Result<Finished, Error> {
    let _turn = context.bulk.acquire().await;
    let partner = held.partner.clone();
    let work = async |hub: &mut Client, store: &mut Client| {
        let faults = &context.faults;
        let cursor = begin(store, &mut held, rebuild).await?;
        take_out_sealed(hub, store, &held).await?;
        let mut beside = held.beside(cursor);
        let compared = compare(
            &mut beside,
            Reading { client: &mut *hub, wal: &context.wal },
            &context.ledger_bulk,
            store,
            &grant,
            generation,
            false,
            context.budget,
            faults,
        )
        .await?;
        held.follow_chain(&beside);
        held.progress = beside.progress;
        let mut files = None;
        if beside.cursor.filled == ALL && beside.follows(&grant) {
            // Before the swap: killed in between, whoever has the lease next finds it whole beside, and swaps it in. Afterwards
            // nothing would say that it had been.
            if let Some(request) = context.desk.asked_anew(&partner) {
                verify::made_anew(hub, request).await?;
            }
            swap(store, &held, faults).await?;
            held.swapped(beside);
            context.desk.rebuilt(&partner);
            held.cursor = held.share.cursor(store).await?;
            files = Some(held.share.held(store).await?);
        }
        Ok((compared.written, files))
    };
    let (written, files) = context.comparing(&partner, work).await?;
    Ok(Finished { written: Some(written), files, ..held.into() })
}

/// The terms as they are told now, the pictures that both have, and the names: one transaction. Sessions that are open
/// find the new tables under the old name with their next statement.
async fn swap(store: &mut Client, held: &Held, faults: &Faults) -> Result<(), Error> {
    let partner = &held.partner;
    let (share, next, old) = (partner.share_schema(), partner.next_schema(), partner.old_schema());
    let (share, next, old_name) = (ident(&share), ident(&next), ident(&old));
    let tx = store.transaction().await.store()?;
    check(&tx, held).await?;
    tx.batch_execute(&format!(
        "UPDATE {next}.cursor n SET generation = s.generation, purposes = s.purposes, time_zone = s.time_zone,
            partner_en = s.partner_en, partner_fr = s.partner_fr, authorized_until = s.authorized_until,
            suspended = s.suspended FROM {share}.cursor s;
         INSERT INTO {next}.photograph SELECT sha256, jpeg FROM {share}.photograph p
         WHERE sha256(jpeg) = sha256 AND EXISTS (SELECT FROM {next}.record r
            WHERE r.picture = encode(p.sha256, 'hex'))
         ON CONFLICT DO NOTHING;
         ALTER SCHEMA {share} RENAME TO {old_name}; ALTER SCHEMA {next} RENAME TO {share}"
    ))
    .await
    .store()?;
    faults.at(Step::Written, partner).await?;
    tx.commit().await.store()?;
    faults.at(Step::Landed, partner).await?;
    // Not in the same transaction: it waits for readers that are under way, who may wait for what it has.
    remove(store, partner, &[&old]).await?;
    tracing::info!(%partner, "the replica was made anew and swapped in");
    Ok(())
}
