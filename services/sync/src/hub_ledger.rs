//! What sync writes on the hub: leases, the ledger, and the trimming of the change log.

use std::{
    collections::{HashMap, HashSet},
    pin::pin,
    time::Duration,
};

use liaison_records::names::PartnerName;
use tokio_postgres::{
    Client, Transaction,
    binary_copy::BinaryCopyInWriter,
    types::{ToSql, Type},
};

use crate::{
    cursor::Snapshot,
    error::{Error, Of},
    ledger::{Entry, Outcome, Recorded, Tail},
    together::Together,
};

/// How long a lease lasts without being renewed, in seconds.
pub const LEASE_SECONDS: i32 = 30;

/// Whether a lease may be taken from a holder that still renews it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Only when it is free, has run out, or is ours.
    Polite,
    /// In any case: disposal.
    Force,
}

/// Takes the lease of a partner and raises its epoch. Whoever held it can no longer write a ledger batch.
pub async fn take_lease(hub: &Client, partner: &PartnerName, holder: &str, claim: Claim) -> Result<i64, Error> {
    let force = claim == Claim::Force;
    let row = hub
        .query_opt(
            "INSERT INTO liaison.lease AS l (partner, epoch, holder, until)
             VALUES ($1, 1, $2, clock_timestamp() + make_interval(secs => $3))
             ON CONFLICT (partner) DO UPDATE
                SET epoch = l.epoch + 1, holder = EXCLUDED.holder, until = EXCLUDED.until
                WHERE $4 OR l.until < clock_timestamp() OR l.holder = EXCLUDED.holder
                   -- Written by a clock that has been put back since.
                   OR l.until > clock_timestamp() + 2 * make_interval(secs => $3)
             RETURNING epoch",
            &[&partner.as_str(), &holder, &f64::from(LEASE_SECONDS), &force],
        )
        .await
        .hub()?;
    row.ok_or_else(|| Error::LeaseHeld(partner.clone()))?.try_get(0).hub()
}

/// Moves our epoch past what a replica bears: the hub was restored, and counts anew. Fails if the lease is not ours.
pub async fn raise_epoch(hub: &Client, partner: &PartnerName, mine: i64, beyond: i64) -> Result<i64, Error> {
    let row = hub
        .query_opt(
            "UPDATE liaison.lease SET epoch = $3::bigint + 1 WHERE partner = $1 AND epoch = $2 RETURNING epoch",
            &[&partner.as_str(), &mine, &beyond],
        )
        .await
        .hub()?;
    row.ok_or_else(|| Error::Fenced { partner: partner.clone(), epoch: mine })?.try_get(0).hub()
}

/// What a replica needs of the change log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follows {
    /// The changes of this transaction and of later ones.
    From(u64),
    /// What it needed before.
    AsBefore,
    /// Nothing: it waits for a person, and is compared then.
    Nothing,
}

/// Renews leases, and notes how far their replicas are. Returns those that are still ours.
pub async fn renew(hub: &Client, leases: &[(PartnerName, i64, Follows)]) -> Result<HashSet<PartnerName>, Error> {
    let partners: Vec<&str> = leases.iter().map(|(p, ..)| p.as_str()).collect();
    let epochs: Vec<i64> = leases.iter().map(|(_, epoch, _)| *epoch).collect();
    let positions: Vec<Option<String>> = leases
        .iter()
        .map(|(.., follows)| match follows {
            Follows::From(xid) => Some(xid.to_string()),
            Follows::AsBefore => None,
            Follows::Nothing => Some(String::new()),
        })
        .collect();
    let rows = hub
        .query(
            // In one order wherever many leases are locked: no two transactions wait for each other.
            "WITH ours AS (
                 SELECT l.partner, h.position
                 FROM liaison.lease l JOIN unnest($1::text[], $2::bigint[], $3::text[]) AS h (partner, epoch, position)
                     ON l.partner = h.partner AND l.epoch = h.epoch
                 ORDER BY l.partner FOR NO KEY UPDATE OF l)
             UPDATE liaison.lease l
             SET until = clock_timestamp() + make_interval(secs => $4),
                 position = CASE WHEN ours.position IS NULL THEN l.position ELSE nullif(ours.position, '')::xid8 END,
                 position_at = CASE WHEN ours.position IS NULL THEN l.position_at ELSE clock_timestamp() END
             FROM ours WHERE l.partner = ours.partner
             RETURNING l.partner",
            &[&partners, &epochs, &positions, &f64::from(LEASE_SECONDS)],
        )
        .await
        .hub()?;
    let ours: HashSet<&str> = rows.iter().map(|row| row.try_get(0).hub()).collect::<Result<_, _>>()?;
    Ok(leases.iter().map(|(p, ..)| p).filter(|p| ours.contains(p.as_str())).cloned().collect())
}

/// Gives leases back, so that another worker need not wait for them to run out.
pub async fn release(hub: &Client, held: &[(PartnerName, i64)]) -> Result<(), Error> {
    let partners: Vec<&str> = held.iter().map(|(p, _)| p.as_str()).collect();
    let epochs: Vec<i64> = held.iter().map(|(_, epoch)| *epoch).collect();
    hub.execute(
        "UPDATE liaison.lease l SET until = '-infinity'
         FROM unnest($1::text[], $2::bigint[]) AS h (partner, epoch)
         WHERE l.partner = h.partner AND l.epoch = h.epoch",
        &[&partners, &epochs],
    )
    .await
    .hub()?;
    Ok(())
}

/// Says that `holder` is alive, and asks how many are that share this store's partners; at least one, oneself.
pub async fn workers(hub: &Client, holder: &str, store: &str) -> Result<usize, Error> {
    let row = hub
        .query_one(
            "WITH here AS (
                 INSERT INTO liaison.worker (holder, store) VALUES ($1, $2)
                 ON CONFLICT (holder) DO UPDATE SET store = EXCLUDED.store, seen = clock_timestamp()),
             gone AS (DELETE FROM liaison.worker WHERE seen < clock_timestamp() - interval '1 hour')
             SELECT count(*) FROM liaison.worker
             WHERE store = $2 AND holder <> $1 AND seen > clock_timestamp() - make_interval(secs => $3)",
            &[&holder, &store, &f64::from(LEASE_SECONDS)],
        )
        .await
        .hub()?;
    Ok(usize::try_from(row.try_get::<_, i64>(0).hub()?).unwrap_or(0) + 1)
}

/// `holder` stops: the others need not wait to find out.
pub async fn leave(hub: &Client, holder: &str) -> Result<(), Error> {
    hub.execute("DELETE FROM liaison.worker WHERE holder = $1", &[&holder]).await.hub()?;
    Ok(())
}

/// The end of a partner's ledger, and whether its last batch is void.
pub async fn tail(hub: &Client, partner: &PartnerName) -> Result<(Tail, bool), Error> {
    let recorded = |row: &tokio_postgres::Row| -> Result<Recorded, Error> {
        Ok(Recorded {
            batch: row.try_get("batch").hub()?,
            head: row.try_get("head").hub()?,
            prepared: row.try_get::<_, &str>("state").hub()? == "prepared",
            store_identity: row.try_get("store_identity").hub()?,
        })
    };
    let columns = "SELECT batch, head, state, store_identity FROM liaison.ledger_batch WHERE partner = $1";
    let Some(row) =
        hub.query_opt(&format!("{columns} ORDER BY batch DESC LIMIT 1"), &[&partner.as_str()]).await.hub()?
    else {
        return Ok((Tail::default(), false));
    };
    let last = recorded(&row)?;
    let void = row.try_get::<_, &str>("state").hub()? == "void";
    let before = hub
        .query_opt(
            &format!("{columns} AND batch < $2 AND state <> 'void' ORDER BY batch DESC LIMIT 1"),
            &[&partner.as_str(), &last.batch],
        )
        .await
        .hub()?;
    let before = before.as_ref().map(recorded).transpose()?;
    Ok((Tail { last: Some(last), before }, void))
}

/// Writes what became of a batch that was prepared.
pub async fn settle(hub: &Client, partner: &PartnerName, batch: i64, outcome: Outcome) -> Result<(), Error> {
    let state = match outcome {
        Outcome::Settled => return Ok(()),
        Outcome::Landed => "landed",
        Outcome::Void => "void",
        Outcome::Disclosed => "disclosed",
    };
    hub.execute(
        "UPDATE liaison.ledger_batch SET state = $3 WHERE partner = $1 AND batch = $2 AND state = 'prepared'",
        &[&partner.as_str(), &batch, &state],
    )
    .await
    .hub()?;
    Ok(())
}

/// That a batch landed, and how far its replica is now.
#[derive(Debug, Clone)]
pub struct Landed {
    /// Whose.
    pub partner: PartnerName,
    /// The lease under which it was written.
    pub epoch: i64,
    /// Number.
    pub batch: i64,
    /// What the replica follows.
    pub position: Snapshot,
}

impl Together for Landed {
    const MOST: usize = 1_000;
    // Nothing waits for it but the task itself.
    const LINGER: Duration = Duration::from_millis(30);

    /// Best effort: the next lease settles it otherwise.
    async fn run(hub: &mut Client, notes: &[Self]) -> Result<Vec<Result<(), Error>>, Error> {
        let partners: Vec<&str> = notes.iter().map(|n| n.partner.as_str()).collect();
        let epochs: Vec<i64> = notes.iter().map(|n| n.epoch).collect();
        let batches: Vec<i64> = notes.iter().map(|n| n.batch).collect();
        let positions: Vec<String> = notes.iter().map(|n| n.position.xmin.to_string()).collect();
        hub.execute_typed(
            "WITH note AS (
                 SELECT * FROM unnest($1, $2, $3, $4) AS n (partner, epoch, batch, position)),
             settled AS (
                 UPDATE liaison.ledger_batch b SET state = 'landed' FROM note
                 WHERE b.partner = note.partner AND b.batch = note.batch AND b.state = 'prepared'),
             ours AS (
                 SELECT l.partner, note.position FROM liaison.lease l
                 JOIN note ON l.partner = note.partner AND l.epoch = note.epoch
                 ORDER BY l.partner FOR NO KEY UPDATE OF l)
             UPDATE liaison.lease l SET position = ours.position::xid8, position_at = clock_timestamp(),
                    until = clock_timestamp() + make_interval(secs => $5)
             FROM ours WHERE l.partner = ours.partner",
            &[
                (&partners, Type::TEXT_ARRAY),
                (&epochs, Type::INT8_ARRAY),
                (&batches, Type::INT8_ARRAY),
                (&positions, Type::TEXT_ARRAY),
                (&f64::from(LEASE_SECONDS), Type::FLOAT8),
            ],
        )
        .await
        .hub()?;
        Ok(notes.iter().map(|_| Ok(())).collect())
    }
}

/// A batch about to be committed to the ledger.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Whose.
    pub partner: PartnerName,
    /// Number.
    pub batch: i64,
    /// The lease under which it is written.
    pub epoch: i64,
    /// `changes`, `compare` or `rebuild`.
    pub kind: &'static str,
    /// Agreement.
    pub agreement: String,
    /// Generation of the connection.
    pub generation: i64,
    /// The store that it is written for.
    pub store_identity: String,
    /// Its lines.
    pub entries: Vec<Entry>,
    /// FPS numbers that cross with it and are new to the replica, each with its file.
    pub numbers: Vec<(String, i64)>,
    /// Their digest.
    pub digest: [u8; 32],
    /// Head before it.
    pub previous: Vec<u8>,
    /// Head after it.
    pub head: [u8; 32],
}

impl Together for Batch {
    const MOST: usize = 256;
    const LINGER: Duration = Duration::ZERO;

    async fn run(hub: &mut Client, batches: &[Self]) -> Result<Vec<Result<(), Error>>, Error> {
        match commit(hub, batches).await {
            // What the database refuses of one must not keep the others back: each by itself.
            Err(Error::Refused { .. }) if batches.len() > 1 => {
                let mut answers = Vec::with_capacity(batches.len());
                for batch in batches {
                    let answer = commit(hub, std::slice::from_ref(batch)).await;
                    answers.push(answer.and_then(|mut answers| answers.pop().unwrap_or(Ok(()))));
                }
                Ok(answers)
            }
            other => other,
        }
    }
}

/// Commits batches of as many partners to the ledger, in one transaction that checks each one's epoch, and that its chain ends
/// where the batch begins: a hub that was put back may have put the lease back with it. Who has lost its lease, or its ledger's
/// end, is left out, and told so. After it, and only after it, the others may cross.
pub async fn commit(hub: &mut Client, batches: &[Batch]) -> Result<Vec<Result<(), Error>>, Error> {
    let tx = hub.transaction().await.hub()?;
    let partners: Vec<&str> = batches.iter().map(|b| b.partner.as_str()).collect();
    let epochs: Vec<i64> = batches.iter().map(|b| b.epoch).collect();
    // Whatever the database's or the role's defaults are: what has not reached the disk is not in the ledger. The rows stay
    // locked until we commit: who takes a lease meanwhile waits, and then finds this batch.
    let asked: [(&(dyn ToSql + Sync), Type); 2] = [(&partners, Type::TEXT_ARRAY), (&epochs, Type::INT8_ARRAY)];
    let (durable, rows) = futures::join!(
        tx.batch_execute("SET LOCAL synchronous_commit = on"),
        tx.query_typed(
            // Nobody adds to a chain but who has the epoch, so what the statement sees of its end is its end.
            "SELECT l.partner, coalesce((SELECT b.head FROM liaison.ledger_batch b WHERE b.partner = l.partner
                                         ORDER BY b.batch DESC LIMIT 1), '') AS head
             FROM liaison.lease l
             JOIN unnest($1, $2) AS k (partner, epoch) ON l.partner = k.partner AND l.epoch = k.epoch
             ORDER BY l.partner FOR SHARE OF l",
            &asked,
        )
    );
    durable.hub()?;
    let rows = rows.hub()?;
    let ends: HashMap<&str, &[u8]> =
        rows.iter().map(|row| Ok((row.try_get(0).hub()?, row.try_get(1).hub()?))).collect::<Result<_, Error>>()?;
    let answer = |b: &Batch| match ends.get(b.partner.as_str()) {
        None => Err(Error::Fenced { partner: b.partner.clone(), epoch: b.epoch }),
        Some(end) if *end != b.previous => Err(Error::LedgerPutBack(b.partner.clone())),
        Some(_) => Ok(()),
    };
    let kept: Vec<&Batch> = batches.iter().filter(|b| answer(b).is_ok()).collect();
    if !kept.is_empty() {
        let (batches, numbers) = futures::join!(
            insert_batches(&tx, &kept),
            crate::account::remember(&tx, kept.iter().flat_map(|b| &b.numbers)),
        );
        batches?;
        numbers?;
        insert_entries(&tx, &kept).await?;
        tx.commit().await.hub()?;
    }
    Ok(batches.iter().map(answer).collect())
}

async fn insert_batches(tx: &Transaction<'_>, batches: &[&Batch]) -> Result<(), Error> {
    fn column<'a, T>(batches: &[&'a Batch], of: impl Fn(&'a Batch) -> T) -> Vec<T> {
        batches.iter().map(|b| of(b)).collect()
    }
    let files =
        |b: &Batch| i32::try_from(b.entries.iter().filter(|e| e.offender.is_some()).count()).unwrap_or(i32::MAX);
    tx.execute_typed(
        "INSERT INTO liaison.ledger_batch
            (partner, batch, epoch, kind, agreement, generation, store_identity, files, digest, previous, head)
         SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        &[
            (&column(batches, |b| b.partner.as_str()), Type::TEXT_ARRAY),
            (&column(batches, |b| b.batch), Type::INT8_ARRAY),
            (&column(batches, |b| b.epoch), Type::INT8_ARRAY),
            (&column(batches, |b| b.kind), Type::TEXT_ARRAY),
            (&column(batches, |b| b.agreement.as_str()), Type::TEXT_ARRAY),
            (&column(batches, |b| b.generation), Type::INT8_ARRAY),
            (&column(batches, |b| b.store_identity.as_str()), Type::TEXT_ARRAY),
            (&column(batches, files), Type::INT4_ARRAY),
            (&column(batches, |b| b.digest.as_slice()), Type::BYTEA_ARRAY),
            (&column(batches, |b| b.previous.as_slice()), Type::BYTEA_ARRAY),
            (&column(batches, |b| b.head.as_slice()), Type::BYTEA_ARRAY),
        ],
    )
    .await
    .hub()?;
    Ok(())
}

/// By COPY: a batch's lines are most of what the hub writes, and this is the cheapest that it takes them.
async fn insert_entries(tx: &Transaction<'_>, batches: &[&Batch]) -> Result<(), Error> {
    let sink = tx
        .copy_in(
            "COPY liaison.ledger_entry (partner, batch, seq, offender, groups, kind, digest) FROM STDIN (FORMAT binary)",
        )
        .await
        .hub()?;
    let types = [Type::TEXT, Type::INT8, Type::INT4, Type::INT8, Type::TEXT_ARRAY, Type::TEXT, Type::BYTEA];
    let mut rows = pin!(BinaryCopyInWriter::new(sink, &types));
    for batch in batches {
        let partner = batch.partner.as_str();
        for (seq, entry) in (0_i32..).zip(&batch.entries) {
            let (kind, digest) = (entry.kind.as_str(), entry.digest.as_slice());
            rows.as_mut()
                .write(&[&partner, &batch.batch, &seq, &entry.offender, &entry.groups, &kind, &digest])
                .await
                .hub()?;
        }
    }
    rows.finish().await.hub()?;
    Ok(())
}

/// Deletes change rows that every replica has passed; a replica not heard of for a week no longer counts, and starts over
/// when it comes back. Returns how many were deleted.
pub async fn trim(hub: &mut Client) -> Result<u64, Error> {
    let tx = hub.transaction().await.hub()?;
    // The horizon moves in the same transaction: a snapshot that misses the rows sees the horizon too.
    let row = tx
        .query_opt(
            "UPDATE liaison.change_horizon h SET xid = p.least
             FROM (SELECT min(position) AS least FROM liaison.lease
                   WHERE position IS NOT NULL AND position_at > clock_timestamp() - interval '7 days') p
             WHERE p.least > h.xid RETURNING h.xid::text",
            &[],
        )
        .await
        .hub()?;
    let Some(row) = row else {
        tx.rollback().await.hub()?;
        return Ok(0);
    };
    let horizon: &str = row.try_get(0).hub()?;
    let gone = tx.execute("DELETE FROM liaison.change WHERE xid < $1::text::xid8", &[&horizon]).await.hub()?;
    tx.commit().await.hub()?;
    Ok(gone)
}
