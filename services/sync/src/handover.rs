//! What a partner has picked up, in the ledger: a statement with the digest of the bundle and the names of what was in it. The
//! secrets themselves are nowhere in it. Saying it again says it once.

use liaison_records::{names::PartnerName, statement::Kind};
use serde_json::{Map, json};
use tokio_postgres::Client;

use crate::{
    error::{Error, Of},
    statement,
};

/// Notes that a bundle was picked up, by the lower-case hex SHA-256 of it; returns the statement's number.
pub async fn note(hub: &mut Client, partner: &PartnerName, bundle: &str, contents: &[String]) -> Result<i64, Error> {
    let tx = hub.transaction().await.hub()?;
    // The same lock as the insertion takes: of two that say the same, the second finds it.
    tx.execute(
        "SELECT pg_advisory_xact_lock(hashtext('liaison statement'), hashtext($1 || ' ' || $2))",
        &[&Kind::Handover.as_str(), &partner.as_str()],
    )
    .await
    .hub()?;
    let said = tx
        .query_opt(
            "SELECT number FROM liaison.statement
             WHERE kind = $1 AND partner = $2 AND statement::jsonb ->> 'bundle' = $3",
            &[&Kind::Handover.as_str(), &partner.as_str(), &bundle],
        )
        .await
        .hub()?;
    let number = if let Some(row) = said {
        row.try_get(0).hub()?
    } else {
        let mut fields = Map::new();
        fields.insert("bundle".to_owned(), bundle.into());
        fields.insert("contents".to_owned(), json!(contents));
        statement::insert(&tx, Kind::Handover, partner.as_str(), fields).await?
    };
    tx.commit().await.hub()?;
    Ok(number)
}
