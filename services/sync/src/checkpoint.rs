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
                coalesce(max(last.at) < clock_timestamp() - make_interval(secs => $1), true),
                EXISTS (SELECT FROM liaison.ledger_loss l, last la WHERE la.at IS NULL OR l.at > la.at)
             FROM last LEFT JOIN liaison.ledger_batch b ON last.at IS NULL OR b.at > last.at",
            &[&f64::from(seconds)],
        )
        .await
        .hub()?;
    let (ours, grown, old): (bool, i64, bool) = (row.try_get(0).hub()?, row.try_get(1).hub()?, row.try_get(2).hub()?);
    // A loss that was accepted is said at once.
    let accepted: bool = row.try_get(3).hub()?;
    if !ours || !(accepted || grown > 0 && (old || grown >= batches)) {
        tx.rollback().await.hub()?;
        return Ok(None);
    }
    let number = make(&tx, accepted).await?;
    tx.commit().await.hub()?;
    Ok(number)
}

/// Says the heads as they are now, and the losses that were accepted. Goes on from the last checkpoint, so its cost is what was
/// written since.
async fn make(tx: &Transaction<'_>, accepted: bool) -> Result<Option<i64>, Error> {
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
    if !grown && !accepted {
        return Ok(None);
    }
    let heads: Vec<Mark> = heads.into_values().collect();
    let mut fields = Map::from_iter([("heads".to_owned(), json!(heads))]);
    let losses =
        tx.query("SELECT encode(checkpoint, 'hex') FROM liaison.ledger_loss ORDER BY at, 1", &[]).await.hub()?;
    if !losses.is_empty() {
        let losses: Vec<String> = losses.iter().map(|row| row.try_get(0).hub()).collect::<Result<_, _>>()?;
        fields.insert("acceptedLosses".to_owned(), json!(losses));
    }
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

/// What a checkpoint names and the ledger does not have: it was cut off, or another wrote in its place.
pub async fn lost(hub: &Client, checkpoint: &str) -> Result<Vec<Mark>, Error> {
    let fields: Map<String, Value> = statement::read(checkpoint).map(|(_, fields)| fields).unwrap_or_default();
    let marks = marks(&fields).ok_or_else(|| Error::Corrupt("a checkpoint cannot be read".to_owned()))?;
    missing(hub, &marks).await
}

/// Those of `marks` that the ledger does not have.
pub async fn missing(hub: &Client, marks: impl IntoIterator<Item = &Mark>) -> Result<Vec<Mark>, Error> {
    let marks: Vec<&Mark> = marks.into_iter().collect();
    let partners: Vec<&str> = marks.iter().map(|mark| mark.partner.as_str()).collect();
    let batches: Vec<i64> = marks.iter().map(|mark| mark.batch).collect();
    let heads: Vec<&str> = marks.iter().map(|mark| mark.head.as_str()).collect();
    let rows = hub
        .query(
            "SELECT n FROM unnest($1::text[], $2::bigint[], $3::text[]) WITH ORDINALITY AS m (partner, batch, head, n)
             WHERE NOT EXISTS (SELECT FROM liaison.ledger_batch b WHERE b.partner = m.partner AND b.batch = m.batch
                AND encode(b.head, 'hex') = m.head) ORDER BY n",
            &[&partners, &batches, &heads],
        )
        .await
        .hub()?;
    let place =
        |row: &tokio_postgres::Row| row.try_get::<_, i64>(0).map(|n| usize::try_from(n - 1).unwrap_or(usize::MAX));
    let mut lost = Vec::with_capacity(rows.len());
    for row in &rows {
        lost.extend(marks.get(place(row).hub()?).copied().cloned());
    }
    Ok(lost)
}
