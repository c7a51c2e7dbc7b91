//! How far a first fill is, said once a minute: the worker that serves does not have the lease meanwhile, and does not know.

use std::time::Duration;

use jiff::Timestamp;
use kube::Client;

use crate::{
    connect::Target,
    desired,
    error::{Error, Of},
    replica::Share,
    status::{Condition, FILLING, Fresh, filling},
    terms::Terms,
};

const PERIOD: Duration = Duration::from_secs(60);

/// Writes DataFresh with the number of files filled, until it is dropped. A first fill of less than a minute says nothing.
pub async fn report(client: &Client, namespace: &str, hub: &Target, store: &Target, terms: &Terms) {
    let since = Timestamp::now();
    loop {
        tokio::time::sleep(PERIOD).await;
        let said = async {
            let condition = Condition {
                fresh: Fresh::False,
                reason: FILLING.to_owned(),
                message: filling(Some(count(hub, store, terms).await?)),
                generation: terms.generation,
                at: since,
            };
            desired::write_condition(client, namespace, &terms.partner, &condition).await
        };
        if let Err(error) = said.await {
            tracing::debug!(reason = error.reason(), "progress was not reported: {error}");
        }
    }
}

/// Files in the replica, and in its scope.
async fn count(hub: &Target, store: &Target, terms: &Terms) -> Result<(usize, usize), Error> {
    let (filled, _) = Share::new(&terms.partner).counts(&store.connect().await?).await?;
    let all = match &terms.grant {
        Some(grant) => {
            let sql = format!("SELECT count(*) FROM oms.offender o WHERE {}", grant.scope.to_sql("o"));
            hub.connect().await?.query_one(&sql, &[]).await.hub()?.try_get::<_, i64>(0).hub()?
        }
        None => 0,
    };
    let number = |n: i64| usize::try_from(n).unwrap_or(0);
    Ok((number(filled), number(all)))
}
