//! Checkpoints: now and then the heads of all partners' chains in one signed statement, so that a ledger that was cut off or
//! restored is noticed when every replica is gone too.

use std::collections::BTreeMap;

use liaison_records::{
    evidence::{Mark, facts, marks},
    statement::{self, Kind},
};
use serde_json::{Map, Value, json};
use tokio_postgres::{Client, Transaction};

use crate::{
    error::{Error, Of},
    export::{batch, batch_columns},
};

/// A checkpoint is due this long after the last one, if the ledger grew.
pub const SECONDS: i32 = 3_600;
/// Or after this many batches, whichever comes first.
pub const BATCHES: i64 = 10_000;

/// Makes a checkpoint if one is due, and returns its number. Any worker may: one at a time does.
pub async fn if_due(hub: &mut Client, seconds: i32, batches: i64) -> Result<Option<i64>, Error> {
    let tx = hub.transaction().await.hub()?;
    let row = tx
        .query_one(
            "WITH last AS (SELECT max(at) AS at FROM liaison.statement WHERE kind = 'checkpoint')
             SELECT pg_try_advisory_xact_lock(hashtext('liaison checkpoint')), count(b.*),
                coalesce(max(last.at) < clock_timestamp() - make_interval(secs => $1), true)
             FROM last LEFT JOIN liaison.ledger_batch b ON last.at IS NULL OR b.at > last.at",
            &[&f64::from(seconds)],
        )
        .await
        .hub()?;
    let (ours, grown, old): (bool, i64, bool) = (row.try_get(0).hub()?, row.try_get(1).hub()?, row.try_get(2).hub()?);
    if !ours || grown == 0 || !(old || grown >= batches) {
        tx.rollback().await.hub()?;
        return Ok(None);
    }
    let number = make(&tx).await?;
    tx.commit().await.hub()?;
    Ok(number)
}

/// Says the heads as they are now. Goes on from the last checkpoint, so its cost is what was written since.
async fn make(tx: &Transaction<'_>) -> Result<Option<i64>, Error> {
    let last = tx
        .query_opt(
            "SELECT statement FROM liaison.statement WHERE kind = 'checkpoint' ORDER BY number DESC LIMIT 1",
            &[],
        )
        .await
        .hub()?;
    let mut heads: BTreeMap<String, Mark> = BTreeMap::new();
    if let Some(row) = last {
        let read = statement::read(row.try_get(0).hub()?).and_then(|(_, fields)| marks(&fields));
        let marks = read.ok_or_else(|| Error::Corrupt("the last checkpoint cannot be read".to_owned()))?;
        heads.extend(marks.into_iter().map(|mark| (mark.partner.clone(), mark)));
    }
    let partners: Vec<String> = tx
        .query("SELECT DISTINCT partner FROM liaison.ledger_batch ORDER BY 1", &[])
        .await
        .hub()?
        .iter()
        .map(|row| row.try_get(0).hub())
        .collect::<Result<_, _>>()?;
    let mut grown = false;
    for partner in partners {
        let mark = heads.remove(&partner);
        let next = advance(tx, &partner, mark.clone()).await?;
        grown |= next != mark;
        heads.extend(next.map(|next| (partner, next)));
    }
    if !grown {
        return Ok(None);
    }
    let heads: Vec<Mark> = heads.into_values().collect();
    let fields = Map::from_iter([("heads".to_owned(), json!(heads))]);
    crate::statement::insert(tx, Kind::Checkpoint, "", fields).await.map(Some)
}

/// The mark of one partner after `mark`: up to the last batch before which all are settled.
async fn advance(tx: &Transaction<'_>, partner: &str, mark: Option<Mark>) -> Result<Option<Mark>, Error> {
    let from = mark.as_ref().map_or(i64::MIN, |mark| mark.batch);
    let sql = format!(
        "SELECT {}, (SELECT count(*) FROM liaison.ledger_entry e WHERE e.partner = b.partner AND e.batch = b.batch)
         FROM liaison.ledger_batch b WHERE partner = $1 AND batch > $2 ORDER BY batch",
        batch_columns()
    );
    let mut mark = mark;
    for row in tx.query(&sql, &[&partner, &from]).await.hub()? {
        let line = batch(&row)?;
        if line.state == "prepared" {
            break;
        }
        let before = mark.as_ref().map_or_else(Vec::new, |m| hex::decode(&m.facts).unwrap_or_default());
        let entries = mark.as_ref().map_or(0, |m| m.entries) + row.try_get::<_, i64>(13).hub()?;
        let facts = hex::encode(facts(&before, &line));
        mark = Some(Mark { partner: partner.to_owned(), batch: line.batch, head: line.head, entries, facts });
    }
    Ok(mark)
}

/// What the last checkpoint names and the ledger does not have: it was cut off, or another wrote in its place.
pub async fn lost(hub: &Client, checkpoint: &str) -> Result<Vec<Mark>, Error> {
    let fields: Map<String, Value> = statement::read(checkpoint).map(|(_, fields)| fields).unwrap_or_default();
    let mut lost = Vec::new();
    for mark in marks(&fields).ok_or_else(|| Error::Corrupt("a checkpoint cannot be read".to_owned()))? {
        let found = hub
            .query_opt(
                "SELECT FROM liaison.ledger_batch WHERE partner = $1 AND batch = $2 AND encode(head, 'hex') = $3",
                &[&mark.partner, &mark.batch, &mark.head],
            )
            .await
            .hub()?;
        if found.is_none() {
            lost.push(mark);
        }
    }
    Ok(lost)
}
