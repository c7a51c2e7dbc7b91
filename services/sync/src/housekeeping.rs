//! What a worker does once a minute beside its rounds: the change log is trimmed and measured, and replicas whose time has come
//! are disposed of. It takes as long as it takes; no partner waits for it.

use std::sync::Arc;

use jiff::Timestamp;
use liaison_records::names::PartnerName;
use tokio::sync::watch;

use crate::{
    backlog,
    connect::Target,
    cursor::Snapshot,
    desired::Desired,
    dispose::{self, Policy},
    error::Error,
    retention::{self, Due},
    telemetry::Metrics,
    worker::Context,
};

/// The chores of one store's worker.
#[derive(Clone)]
pub(crate) struct House {
    context: Arc<Context>,
    hub: Target,
    store: Target,
    store_name: String,
    holder: String,
    metrics: Arc<Metrics>,
    wanted: watch::Receiver<Option<Vec<Desired>>>,
}

impl House {
    /// `wanted` says what the resources say whenever it is asked.
    pub(crate) fn new(
        context: Arc<Context>,
        hub: &Target,
        store: &Target,
        store_name: &str,
        holder: &str,
        metrics: Arc<Metrics>,
        wanted: watch::Receiver<Option<Vec<Desired>>>,
    ) -> Self {
        let (store_name, holder) = (store_name.to_owned(), format!("{holder}-dispose"));
        Self { context, hub: hub.clone(), store: store.clone(), store_name, holder, metrics, wanted }
    }

    /// Does all of it once. `positions`: what the replicas follow.
    pub(crate) async fn keep(self, positions: Vec<(PartnerName, Snapshot)>) {
        match self.context.trim().await {
            Ok(rows) => self.metrics.trimmed(rows),
            Err(error) => tracing::warn!(reason = error.reason(), "the change log was not trimmed: {error}"),
        }
        if let Err(error) = backlog::measure(&self.hub, &positions, &self.metrics).await {
            tracing::warn!(reason = error.reason(), "the change log was not measured: {error}");
        }
        match self.due().await {
            Ok(due) => {
                for due in due {
                    self.dispose(due).await;
                }
            }
            Err(error) => tracing::warn!(reason = error.reason(), "disposals could not be listed: {error}"),
        }
    }

    /// What must be gone by now. What the resources say counts before what is due: a renewed agreement lifts the date.
    async fn due(&self) -> Result<Vec<Due>, Error> {
        let client = self.hub.connect().await?;
        let said: Vec<_> =
            self.wanted.borrow().iter().flatten().filter_map(|desired| desired.retention.clone()).collect();
        retention::note(&client, &self.store_name, &said, Timestamp::now()).await?;
        retention::due(&client, &self.store_name).await
    }

    /// Disposes of one, if what the resources say now does not forbid it: others may have taken long.
    async fn dispose(&self, Due { partner, deleted }: Due) {
        let there = self.wanted.borrow().iter().flatten().find(|desired| desired.terms.partner == partner).cloned();
        let policy = match &there {
            // While the connection is there, a renewed agreement fills the same schemas again.
            Some(desired) if !desired.disposable(Timestamp::now()) => return,
            Some(_) if !deleted => Policy::Empty,
            _ => Policy::Delete,
        };
        match dispose::dispose(&self.hub, &self.store, &partner, &policy, &self.holder).await {
            Ok(_) => tracing::info!(%partner, "a replica is disposed of: its time had come"),
            Err(error) => tracing::warn!(%partner, reason = error.reason(), "disposal failed: {error}"),
        }
    }
}
