//! Marks on the hub. A replica's position may move to a snapshot without a batch, since nothing crossed. Then the ledger does not
//! show that the hub once had what lies between: one that was put back to before it, and has since used the same transaction
//! numbers again, would pass for the hub that the replica follows. So a position that moves without a batch names a mark, written
//! on the hub after the snapshot was opened; a hub that does not have it is another, and the replica is compared.
//!
//! One mark serves all partners of a worker. It is written when the leases are renewed, and only if changes were passed since
//! the last one; the as-of row alone needs none.

use liaison_records::names::PartnerName;
use tokio_postgres::{Client, types::Type};

use crate::error::{Error, Of};

/// A mark.
pub type Mark = [u8; 16];

/// Leaves a new one. Over the connection on which the snapshot was opened: over another it might be on a hub that was put back
/// meanwhile.
pub async fn leave(hub: &Client) -> Result<Mark, Error> {
    let mark: Mark = rand::random();
    hub.execute_typed("INSERT INTO liaison.mark (mark) VALUES ($1)", &[(&mark.as_slice(), Type::BYTEA)]).await.hub()?;
    Ok(mark)
}

/// Of a replica: the end of its chain and, if its position moved since, the mark that it names.
#[derive(Debug)]
pub struct Claim {
    /// Whose.
    pub partner: PartnerName,
    /// The head of its last batch in the ledger.
    pub head: Vec<u8>,
    /// What its cursor names.
    pub mark: Option<Vec<u8>>,
}

/// Whether the hub has this mark.
pub async fn known(hub: &Client, mark: &[u8]) -> Result<bool, Error> {
    let sql = "SELECT EXISTS (SELECT FROM liaison.mark WHERE mark = $1)";
    hub.query_one(sql, &[&mark]).await.hub()?.try_get(0).hub()
}

/// Those whose ledger does not end where they say, or whose mark is not there: this is not the hub that they know.
pub async fn strangers(hub: &Client, claims: &[Claim]) -> Result<Vec<PartnerName>, Error> {
    let partners: Vec<&str> = claims.iter().map(|c| c.partner.as_str()).collect();
    let heads: Vec<&[u8]> = claims.iter().map(|c| c.head.as_slice()).collect();
    let marks: Vec<Option<&[u8]>> = claims.iter().map(|c| c.mark.as_deref()).collect();
    let rows = hub
        .query_typed(
            "SELECT n FROM unnest($1, $2, $3) WITH ORDINALITY AS c (partner, head, mark, n)
             WHERE coalesce((SELECT b.head FROM liaison.ledger_batch b WHERE b.partner = c.partner
                             ORDER BY b.batch DESC LIMIT 1), '') <> c.head
                OR c.mark IS NOT NULL AND NOT EXISTS (SELECT FROM liaison.mark m WHERE m.mark = c.mark)",
            &[(&partners, Type::TEXT_ARRAY), (&heads, Type::BYTEA_ARRAY), (&marks, Type::BYTEA_ARRAY)],
        )
        .await
        .hub()?;
    let mut strangers = Vec::with_capacity(rows.len());
    for row in &rows {
        let place: i64 = row.try_get(0).hub()?;
        let claim = usize::try_from(place - 1).ok().and_then(|place| claims.get(place));
        strangers.extend(claim.map(|claim| claim.partner.clone()));
    }
    Ok(strangers)
}

/// Deletes those that no cursor names any more: one older is of a replica that is compared in any case.
pub async fn trim(hub: &Client) -> Result<(), Error> {
    hub.execute("DELETE FROM liaison.mark WHERE at < clock_timestamp() - interval '8 days'", &[]).await.hub()?;
    Ok(())
}
