//! What sync writes on the hub: leases, the ledger, and the trimming of the change log.

use liaison_records::names::PartnerName;
use tokio_postgres::Client;

use crate::{
    cursor::Snapshot,
    error::{Error, Of},
    ledger::{Entry, Outcome, Recorded, Tail},
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

/// Renews leases, and notes how far their replicas are. Returns those that are still ours.
pub async fn renew(hub: &Client, held: &[(PartnerName, i64, Option<Snapshot>)]) -> Result<Vec<PartnerName>, Error> {
    let partners: Vec<&str> = held.iter().map(|(p, ..)| p.as_str()).collect();
    let epochs: Vec<i64> = held.iter().map(|(_, epoch, _)| *epoch).collect();
    let positions: Vec<Option<String>> =
        held.iter().map(|(.., snapshot)| snapshot.as_ref().map(|s| s.xmin.to_string())).collect();
    let rows = hub
        .query(
            "UPDATE liaison.lease l
             SET until = clock_timestamp() + make_interval(secs => $4),
                 position = coalesce(h.position::xid8, l.position),
                 position_at = CASE WHEN h.position IS NULL THEN l.position_at ELSE clock_timestamp() END
             FROM unnest($1::text[], $2::bigint[], $3::text[]) AS h (partner, epoch, position)
             WHERE l.partner = h.partner AND l.epoch = h.epoch
             RETURNING l.partner",
            &[&partners, &epochs, &positions, &f64::from(LEASE_SECONDS)],
        )
        .await
        .hub()?;
    let ours: Vec<String> = rows.iter().map(|row| row.try_get(0).hub()).collect::<Result<_, _>>()?;
    Ok(held.iter().map(|(p, ..)| p).filter(|p| ours.iter().any(|o| o == p.as_str())).cloned().collect())
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

/// Notes that a batch landed, and how far its replica is now. Best effort: the next lease settles it otherwise.
pub async fn landed(
    hub: &Client,
    partner: &PartnerName,
    epoch: i64,
    batch: i64,
    position: &Snapshot,
) -> Result<(), Error> {
    hub.execute(
        "WITH settled AS (
             UPDATE liaison.ledger_batch SET state = 'landed' WHERE partner = $1 AND batch = $3 AND state = 'prepared')
         UPDATE liaison.lease SET position = $4::text::xid8, position_at = clock_timestamp(),
                until = clock_timestamp() + make_interval(secs => $5)
         WHERE partner = $1 AND epoch = $2",
        &[&partner.as_str(), &epoch, &batch, &position.xmin.to_string(), &f64::from(LEASE_SECONDS)],
    )
    .await
    .hub()?;
    Ok(())
}

/// A batch about to be committed to the ledger.
#[derive(Debug)]
pub struct Batch<'a> {
    /// Whose.
    pub partner: &'a PartnerName,
    /// Number.
    pub batch: i64,
    /// The lease under which it is written.
    pub epoch: i64,
    /// `changes`, `compare` or `rebuild`.
    pub kind: &'static str,
    /// Agreement.
    pub agreement: &'a str,
    /// Generation of the connection.
    pub generation: i64,
    /// The store that it is written for.
    pub store_identity: &'a str,
    /// Its lines.
    pub entries: &'a [Entry],
    /// Their digest.
    pub digest: [u8; 32],
    /// Head before it.
    pub previous: &'a [u8],
    /// Head after it.
    pub head: [u8; 32],
}

/// Commits a batch to the ledger, in a transaction that checks the epoch. After it, and only after it, the batch may cross.
pub async fn commit(hub: &mut Client, batch: &Batch<'_>) -> Result<(), Error> {
    let Batch {
        partner,
        batch: number,
        epoch,
        kind,
        agreement,
        generation,
        store_identity,
        entries,
        digest,
        previous,
        head,
    } = batch;
    let tx = hub.transaction().await.hub()?;
    // The row stays locked until we commit: who takes the lease meanwhile waits, and then finds this batch.
    let ours = tx
        .query_opt("SELECT FROM liaison.lease WHERE partner = $1 AND epoch = $2 FOR SHARE", &[&partner.as_str(), epoch])
        .await
        .hub()?;
    if ours.is_none() {
        return Err(Error::Fenced { partner: (*partner).clone(), epoch: *epoch });
    }
    let files = i32::try_from(entries.iter().filter(|e| e.offender.is_some()).count()).unwrap_or(i32::MAX);
    tx.execute(
        "INSERT INTO liaison.ledger_batch
            (partner, batch, epoch, kind, agreement, generation, store_identity, files, digest, previous, head)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        &[
            &partner.as_str(),
            number,
            epoch,
            kind,
            agreement,
            generation,
            store_identity,
            &files,
            &digest.as_slice(),
            previous,
            &head.as_slice(),
        ],
    )
    .await
    .hub()?;
    let statement = tx
        .prepare(
            "INSERT INTO liaison.ledger_entry (partner, batch, seq, offender, groups, kind, digest)
             SELECT $1, $2, s, o, coalesce(string_to_array(nullif(g, ''), ','), '{}'), k, d
             FROM unnest($3::int[], $4::bigint[], $5::text[], $6::text[], $7::bytea[]) AS e (s, o, g, k, d)",
        )
        .await
        .hub()?;
    for (index, chunk) in entries.chunks(5_000).enumerate() {
        let first = i32::try_from(index * 5_000).unwrap_or(i32::MAX);
        let seqs: Vec<i32> = (first..).take(chunk.len()).collect();
        let offenders: Vec<Option<i64>> = chunk.iter().map(|e| e.offender).collect();
        let groups: Vec<String> = chunk.iter().map(|e| e.groups.join(",")).collect();
        let kinds: Vec<&str> = chunk.iter().map(|e| e.kind.as_str()).collect();
        let digests: Vec<&[u8]> = chunk.iter().map(|e| e.digest.as_slice()).collect();
        tx.execute(&statement, &[&partner.as_str(), number, &seqs, &offenders, &groups, &kinds, &digests])
            .await
            .hub()?;
    }
    tx.commit().await.hub()
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
