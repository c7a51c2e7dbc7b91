//! The rows of `liaison.verification` on the hub: asking, what is open, and what came of it, with its attestation.

use std::collections::BTreeMap;

use liaison_records::names::PartnerName;
use serde_json::{Map, Value, json};
use tokio_postgres::Client;

use super::desk::Verified;
use crate::{
    error::{Error, Of},
    statement::{self, Kind},
};

/// How a verification ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The roots were equal at once.
    Equal,
    /// They were, after what differed had crossed again.
    Repaired,
    /// It could not be shown.
    Failed,
}

impl Outcome {
    /// As the hub and the metrics spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::Repaired => "repaired",
            Self::Failed => "failed",
        }
    }
}

/// A verification that has ended, as the hub keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// How.
    pub outcome: Outcome,
    /// Why it failed.
    pub reason: Option<String>,
    /// When, by the hub's clock, RFC 3339 in UTC to the second.
    pub ended_at: String,
    /// The hub's clock at the snapshot, as `ended_at`.
    pub as_of: Option<String>,
    /// Root of both sides, in hex.
    pub root: Option<String>,
    /// Files.
    pub files: i64,
    /// Records.
    pub records: i64,
    /// Pictures.
    pub photographs: i64,
    /// Units that differed.
    pub mismatches: i64,
}

/// Asks for a verification; `token` names who asks, and asking twice is asking once.
/// `anew`: the replica is made anew first.
pub async fn request(hub: &Client, partner: &PartnerName, token: &str, anew: bool) -> Result<(), Error> {
    hub.execute(
        "INSERT INTO liaison.verification (partner, token, anew) VALUES ($1, $2, $3)
         ON CONFLICT (partner, token) DO NOTHING",
        &[&partner.as_str(), &token, &anew],
    )
    .await
    .hub()?;
    Ok(())
}

const RFC3339: &str = r#"'YYYY-MM-DD"T"HH24:MI:SS"Z"'"#;

/// What came of a request; `None` while it is open.
pub async fn ended(hub: &Client, partner: &PartnerName, token: &str) -> Result<Option<Ended>, Error> {
    let row = hub
        .query_opt(
            &format!(
                "SELECT outcome, reason, to_char(ended_at AT TIME ZONE 'UTC', {RFC3339}) AS ended_at,
                        to_char(as_of AT TIME ZONE 'UTC', {RFC3339}) AS as_of, encode(root, 'hex') AS root,
                        coalesce(files, 0) AS files, coalesce(records, 0) AS records,
                        coalesce(photographs, 0) AS photographs, coalesce(mismatches, 0) AS mismatches
                 FROM liaison.verification WHERE partner = $1 AND token = $2 AND ended_at IS NOT NULL"
            ),
            &[&partner.as_str(), &token],
        )
        .await
        .hub()?;
    let Some(row) = row else { return Ok(None) };
    let outcome = match row.try_get::<_, &str>("outcome").hub()? {
        "equal" => Outcome::Equal,
        "repaired" => Outcome::Repaired,
        _ => Outcome::Failed,
    };
    Ok(Some(Ended {
        outcome,
        reason: row.try_get("reason").hub()?,
        ended_at: row.try_get("ended_at").hub()?,
        as_of: row.try_get("as_of").hub()?,
        root: row.try_get("root").hub()?,
        files: row.try_get("files").hub()?,
        records: row.try_get("records").hub()?,
        photographs: row.try_get("photographs").hub()?,
        mismatches: row.try_get("mismatches").hub()?,
    }))
}

/// When the replicas of these partners were last shown to be their scope: seconds since 1970 by the hub's clock.
pub async fn last(hub: &Client, partners: &[&str]) -> Result<BTreeMap<String, i64>, Error> {
    let rows = hub
        .query(
            "SELECT p.partner, extract(epoch FROM v.as_of)::bigint FROM unnest($1::text[]) AS p (partner)
             CROSS JOIN LATERAL (SELECT as_of FROM liaison.verification v
                 WHERE v.partner = p.partner AND v.root IS NOT NULL ORDER BY as_of DESC LIMIT 1) v",
            &[&partners],
        )
        .await
        .hub()?;
    rows.iter().map(|row| Ok((row.try_get(0).hub()?, row.try_get(1).hub()?))).collect()
}

/// The open requests: the oldest of each partner, and whether the replica is to be made anew.
pub(super) async fn open(hub: &Client) -> Result<Vec<(PartnerName, i64, bool)>, Error> {
    let sql = "SELECT DISTINCT ON (partner) partner, id, anew FROM liaison.verification WHERE ended_at IS NULL
               ORDER BY partner, id";
    let rows = hub.query(sql, &[]).await.hub()?;
    let mut open = Vec::with_capacity(rows.len());
    for row in &rows {
        let name: String = row.try_get(0).hub()?;
        let name = name.parse().map_err(|_| Error::Corrupt("liaison.verification names no partner".to_owned()))?;
        open.push((name, row.try_get(1).hub()?, row.try_get(2).hub()?));
    }
    Ok(open)
}

/// Writes what came of a verification and, when the roots are equal, the attestation to be signed, in one transaction. Whoever
/// ended it first is right: the second time nothing is written.
pub(super) async fn finish(hub: &mut Client, verified: &Verified) -> Result<(), Error> {
    let Verified { partner, id, agreement, generation, point, found, files, records, photographs, .. } = verified;
    let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let outcome = verified.outcome();
    let root = verified.failure.is_none().then_some(verified.root.as_slice());
    let tx = hub.transaction().await.hub()?;
    let ours = tx
        .execute(
            "UPDATE liaison.verification SET ended_at = clock_timestamp(), outcome = $2, reason = $3, agreement = $4,
                generation = $5, snapshot = $6::text::pg_snapshot, as_of = $7::text::timestamptz, root = $8, files = $9,
                records = $10, photographs = $11, mismatches = $12, buckets = $13
             WHERE id = $1 AND ended_at IS NULL",
            &[
                id,
                &outcome.as_str(),
                &verified.failure,
                agreement,
                generation,
                &point.snapshot.to_string(),
                &point.as_of,
                &root,
                files,
                records,
                photographs,
                &count(found.units),
                &count(found.buckets),
            ],
        )
        .await
        .hub()?;
    if ours == 1 && root.is_some() {
        statement::insert(&tx, Kind::Attestation, partner.as_str(), attestation(verified)).await?;
    }
    tx.commit().await.hub()
}

/// What a request wanted made anew is whole beside, and goes on to the swap whoever has the lease: it is not made twice.
pub(super) async fn anew(hub: &Client, id: i64) -> Result<(), Error> {
    hub.execute("UPDATE liaison.verification SET anew = false WHERE id = $1 AND ended_at IS NULL", &[&id])
        .await
        .hub()?;
    Ok(())
}

/// Ends a request that cannot be met.
pub(super) async fn fail(hub: &Client, id: i64, reason: &str) -> Result<(), Error> {
    hub.execute(
        "UPDATE liaison.verification SET ended_at = clock_timestamp(), outcome = 'failed', reason = $2
         WHERE id = $1 AND ended_at IS NULL",
        &[&id, &reason],
    )
    .await
    .hub()?;
    Ok(())
}

/// What is signed: that this partner's replica was its scope at a snapshot. Names, digests and counts only.
fn attestation(verified: &Verified) -> Map<String, Value> {
    let Verified { agreement, generation, point, hub_identity, batch, head, root, found, .. } = verified;
    let fields = [
        ("agreement", json!(agreement)),
        ("asOf", json!(point.as_of)),
        ("files", json!(verified.files)),
        ("generation", json!(generation)),
        ("hub", json!(hub_identity)),
        ("ledgerBatch", json!(batch)),
        ("ledgerHead", json!(hex::encode(head))),
        ("mismatches", json!(found.units)),
        ("photographs", json!(verified.photographs)),
        ("records", json!(verified.records)),
        ("root", json!(hex::encode(root))),
        ("snapshot", json!(point.snapshot.to_string())),
    ];
    fields.map(|(key, value)| (key.to_owned(), value)).into_iter().collect()
}
