//! The ledger as a file, and its verification: what [`liaison_records::evidence`] defines, from the hub and to a reader's disk.

use std::io::{BufRead, Write};

use futures::TryStreamExt;
use liaison_records::{
    evidence::{BatchLine, EntryLine, Line, StatementLine, Totals, Verdict, Verifier},
    names::PartnerName,
};
use tokio_postgres::{Client, IsolationLevel, Row};

use crate::{
    error::{Error, Of},
    signature,
};

/// Instants as the ledger's file has them: every digit counts, since they are hashed.
pub(crate) const AT: &str = "to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";

/// The columns of a batch `b`, in the order that [`batch`] reads.
pub(crate) fn batch_columns() -> String {
    format!(
        "b.partner, b.batch, b.epoch, b.kind, b.agreement, b.generation, b.store_identity, b.files, \
         encode(b.digest, 'hex'), encode(b.previous, 'hex'), encode(b.head, 'hex'), b.state, {}",
        AT.replace("to_char(at", "to_char(b.at")
    )
}

pub(crate) fn batch(row: &Row) -> Result<BatchLine, Error> {
    Ok(BatchLine {
        partner: row.try_get(0).hub()?,
        batch: row.try_get(1).hub()?,
        epoch: row.try_get(2).hub()?,
        kind: row.try_get(3).hub()?,
        agreement: row.try_get(4).hub()?,
        generation: row.try_get(5).hub()?,
        store_identity: row.try_get(6).hub()?,
        files: i64::from(row.try_get::<_, i32>(7).hub()?),
        digest: row.try_get(8).hub()?,
        previous: row.try_get(9).hub()?,
        head: row.try_get(10).hub()?,
        state: row.try_get(11).hub()?,
        at: row.try_get(12).hub()?,
    })
}

/// The entry that stands beside a batch's columns, if there is one.
fn entry(row: &Row, batch: &BatchLine) -> Result<Option<EntryLine>, Error> {
    let Some(seq) = row.try_get::<_, Option<i32>>(13).hub()? else { return Ok(None) };
    Ok(Some(EntryLine {
        partner: batch.partner.clone(),
        batch: batch.batch,
        seq,
        offender: row.try_get(14).hub()?,
        groups: row.try_get(15).hub()?,
        kind: row.try_get(16).hub()?,
        digest: row.try_get(17).hub()?,
    }))
}

fn statement(row: &Row) -> Result<StatementLine, Error> {
    Ok(StatementLine {
        statement: row.try_get(0).hub()?,
        signature: row.try_get(1).hub()?,
        key_id: row.try_get(2).hub()?,
        chain: row.try_get(3).hub()?,
        signed_at: row.try_get(4).hub()?,
    })
}

/// Writes the ledger of one partner, or of all, as of one snapshot. Statements of all partners (checkpoints) go with either.
pub async fn export(hub: &mut Client, partner: Option<&PartnerName>, out: &mut impl Write) -> Result<Totals, Error> {
    let tx =
        hub.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true).start().await.hub()?;
    let who = partner.map(PartnerName::as_str);
    let mut totals = Totals::default();
    let mut put = |line: &Line| -> Result<(), Error> {
        match line {
            Line::Statement(_) => totals.statements += 1,
            Line::Batch(_) => totals.batches += 1,
            Line::Entry(_) => totals.entries += 1,
            Line::End(_) => {}
        }
        let written = serde_json::to_writer(&mut *out, line).map_err(std::io::Error::from);
        written
            .and_then(|()| out.write_all(b"\n"))
            .map_err(|e| Error::Config(format!("the file cannot be written: {e}")))
    };
    let signed = AT.replace("to_char(at", "to_char(signed_at");
    let sql = format!(
        "SELECT statement, encode(signature, 'hex'), key_id, chain, {signed} FROM liaison.statement
         WHERE $1::text IS NULL OR partner IN ('', $1) ORDER BY kind, partner, number"
    );
    for row in tx.query(&sql, &[&who]).await.hub()? {
        put(&Line::Statement(statement(&row)?))?;
    }
    let sql = format!(
        "SELECT {}, e.seq, e.offender, e.groups, e.kind, encode(e.digest, 'hex')
         FROM liaison.ledger_batch b LEFT JOIN liaison.ledger_entry e ON e.partner = b.partner AND e.batch = b.batch
         WHERE $1::text IS NULL OR b.partner = $1 ORDER BY b.partner, b.batch, e.seq",
        batch_columns()
    );
    let mut rows = std::pin::pin!(tx.query_raw(&sql, [&who]).await.hub()?);
    let mut last: Option<(String, i64)> = None;
    while let Some(row) = rows.try_next().await.hub()? {
        let line = batch(&row)?;
        let entry = entry(&row, &line)?;
        let key = (line.partner.clone(), line.batch);
        if last.as_ref() != Some(&key) {
            put(&Line::Batch(line))?;
            last = Some(key);
        }
        if let Some(entry) = entry {
            put(&Line::Entry(entry))?;
        }
    }
    let end = totals.clone();
    put_end(out, &end)?;
    tx.commit().await.hub()?;
    Ok(end)
}

fn put_end(out: &mut impl Write, totals: &Totals) -> Result<(), Error> {
    let written = serde_json::to_writer(&mut *out, &Line::End(totals.clone())).map_err(std::io::Error::from);
    written
        .and_then(|()| out.write_all(b"\n"))
        .and_then(|()| out.flush())
        .map_err(|e| Error::Config(format!("the file cannot be written: {e}")))
}

/// Verifies a file. `root`: certificates in PEM to which signatures must lead; without it a signature counts under the key that
/// stands beside it, which shows a change but not who signed. `one`: the file is of this partner alone.
pub fn verify(
    input: impl BufRead,
    root: Option<&str>,
    one: Option<&str>,
    mut verifier: Verifier,
) -> Result<Verdict, Error> {
    for line in input.lines() {
        let line = line.map_err(|e| Error::Config(format!("the file cannot be read: {e}")))?;
        verifier.line(&line, |line| check(line, root));
    }
    Ok(verifier.finish(one))
}

fn check(line: &StatementLine, root: Option<&str>) -> Result<(), String> {
    let StatementLine { statement, signature, key_id, chain, signed_at } = line;
    let (Some(signature), Some(key_id), Some(chain), Some(signed_at)) = (signature, key_id, chain, signed_at) else {
        return Err("its signature is not whole".to_owned());
    };
    let bytes = hex::decode(signature).map_err(|_| "its signature is not hex".to_owned())?;
    signature::check(statement, &bytes, key_id, chain).map_err(|e| e.to_string())?;
    if let Some(root) = root {
        let at: jiff::Timestamp = signed_at.parse().map_err(|_| "its time of signing cannot be read".to_owned())?;
        let seconds = u64::try_from(at.as_second()).unwrap_or_default();
        signature::check_root(chain, root, seconds).map_err(|e| e.to_string())?;
    }
    Ok(())
}
