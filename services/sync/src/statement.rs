//! What is to be signed, on the hub. Kinds and canonical text are [`liaison_records::statement`]'s; who signs is the operator.

use liaison_records::statement::{self, Id};
use serde_json::{Map, Value};
use tokio_postgres::Transaction;

pub use liaison_records::statement::Kind;

use crate::error::{Error, Of};

/// Says a statement in the transaction that it belongs to, and returns its number. `partner` is "" where it is of all. The
/// text is `fields` with kind, partner, number and the hub's clock; no personal data may be in it.
pub async fn insert(
    hub: &Transaction<'_>,
    kind: Kind,
    partner: &str,
    fields: Map<String, Value>,
) -> Result<i64, Error> {
    // Two that say the same kind at once wait for each other: numbers have no gaps, and none is given twice.
    hub.execute(
        "SELECT pg_advisory_xact_lock(hashtext('liaison statement'), hashtext($1 || ' ' || $2))",
        &[&kind.as_str(), &partner],
    )
    .await
    .hub()?;
    let row = hub
        .query_one(
            "SELECT coalesce(max(number), 0) + 1, to_json(date_trunc('milliseconds', clock_timestamp())) #>> '{}'
             FROM liaison.statement WHERE kind = $1 AND partner = $2",
            &[&kind.as_str(), &partner],
        )
        .await
        .hub()?;
    let (number, at): (i64, String) = (row.try_get(0).hub()?, row.try_get(1).hub()?);
    let text = statement::text(&Id { kind, partner: partner.to_owned(), number }, &at, fields);
    if text.len() > statement::MAX_STATEMENT {
        return Err(Error::Corrupt(format!("a statement of {} bytes is too long to be signed", text.len())));
    }
    hub.execute(
        "INSERT INTO liaison.statement (kind, partner, number, statement, at) VALUES ($1, $2, $3, $4, $5::text::timestamptz)",
        &[&kind.as_str(), &partner, &number, &text, &at],
    )
    .await
    .hub()?;
    Ok(number)
}
