//! What the hub says of the partners of this worker: how many changes each has before it, how long the change log is, and
//! when each replica was last verified. Asked once a minute.

use std::collections::BTreeMap;

use liaison_records::names::PartnerName;
use tokio_postgres::Client;

use crate::{
    connect::Target,
    cursor::Snapshot,
    error::{Error, Of},
    telemetry::Metrics,
    verify,
};

/// So many different snapshots are asked for: most replicas follow the same one.
const MOST: usize = 64;

/// Takes the measures of partners that follow these snapshots.
pub async fn measure(hub: &Target, positions: &[(PartnerName, Snapshot)], metrics: &Metrics) -> Result<(), Error> {
    let client = hub.connect().await?;
    let rows = "SELECT coalesce(n_live_tup, 0) FROM pg_stat_all_tables WHERE relid = 'liaison.change'::regclass";
    if let Some(row) = client.query_opt(rows, &[]).await.hub()? {
        metrics.change_log(row.try_get(0).hub()?);
    }
    let mut partners: BTreeMap<String, Vec<&PartnerName>> = BTreeMap::new();
    for (partner, snapshot) in positions {
        partners.entry(snapshot.to_string()).or_default().push(partner);
    }
    for (snapshot, partners) in partners.into_iter().take(MOST) {
        let changes = behind(&client, &snapshot.parse()?).await?;
        for partner in partners {
            metrics.behind(partner.as_str(), changes);
        }
    }
    let names: Vec<&str> = positions.iter().map(|(partner, _)| partner.as_str()).collect();
    for (partner, second) in verify::last(&client, &names).await? {
        metrics.verified_at(&partner, second);
    }
    Ok(())
}

/// Rows of the change log that a snapshot does not have; counted to a million.
async fn behind(hub: &Client, since: &Snapshot) -> Result<i64, Error> {
    let in_progress: Vec<String> = since.in_progress.iter().map(u64::to_string).collect();
    let row = hub
        .query_one(
            "SELECT count(*) FROM (
                 SELECT FROM liaison.change WHERE xid >= $1::text::xid8
                 UNION ALL SELECT FROM liaison.change WHERE xid = ANY ($2::text[]::xid8[]) LIMIT 1000000) c",
            &[&since.xmax.to_string(), &in_progress],
        )
        .await
        .hub()?;
    row.try_get(0).hub()
}
