//! The leases of a worker: renewed together, shared with the other workers, and what goes to the hub along with that.

use std::time::Instant;

use liaison_records::names::PartnerName;

use super::Worker;
use crate::{cursor::Snapshot, error::Error, hub_ledger, mark, partner::Held};

/// Among how many workers the partners are shared.
#[derive(Debug)]
pub(super) struct Sharing {
    /// Whose partners: those of one store.
    pub(super) store: String,
    /// Workers that are alive, ourselves among them; 0: not asked yet.
    pub(super) live: usize,
}

/// How many partners one of `live` workers holds at most.
pub(super) fn quota(partners: usize, live: usize) -> usize {
    partners.div_ceil(live.max(1))
}

impl Worker {
    pub(super) async fn renew(&mut self) -> Result<(), Error> {
        let unasked = self.sharing.as_ref().is_some_and(|sharing| sharing.live == 0);
        if self.renewed.elapsed() < self.renewal && !unasked {
            return Ok(());
        }
        let held: Vec<(PartnerName, i64, Option<Snapshot>)> = self
            .partners
            .values()
            .filter_map(|s| s.held.as_ref())
            .map(|h| (h.partner.clone(), h.epoch, h.cursor.snapshot.clone()))
            .collect();
        let context = self.context.clone();
        let mut lane = context.leases.lane("renew").await?;
        let ours = hub_ledger::renew(lane.client()?, &held).await?;
        if let Some(sharing) = &mut self.sharing {
            sharing.live = hub_ledger::workers(lane.client()?, &context.holder, &sharing.store).await?;
        }
        for (partner, epoch, _) in &held {
            if !ours.contains(partner)
                && let Some(state) = self.partners.get_mut(partner)
            {
                tracing::info!(%partner, epoch, "another worker took the lease");
                state.held = None;
            }
        }
        self.renewed = Instant::now();
        self.give_back(lane.client()?).await?;
        self.leave_mark().await
    }

    /// A mark on the hub for all whose position is to move without a batch.
    async fn leave_mark(&mut self) -> Result<(), Error> {
        let mut wanting: Vec<&mut Held> = self.partners.values_mut().filter_map(|state| state.held.as_mut()).collect();
        wanting.retain(|held| held.wants_mark());
        if wanting.is_empty() {
            return Ok(());
        }
        let context = self.context.clone();
        let mut lane = context.reading.lane("cycle").await?;
        let connection = context.reading.opened();
        // What was seen over an earlier connection may have been another hub's.
        wanting.retain(|held| held.recognised == connection);
        if wanting.is_empty() {
            return Ok(());
        }
        let mark = mark::leave(lane.client()?).await.inspect_err(|_| lane.discard())?;
        for held in wanting {
            held.mark(mark);
        }
        Ok(())
    }

    /// Gives back what is more than our part of the partners.
    async fn give_back(&mut self, hub: &tokio_postgres::Client) -> Result<(), Error> {
        let Some(sharing) = &self.sharing else { return Ok(()) };
        let ours = self.partners.values().filter(|state| state.held.is_some() || state.busy).count();
        let more = ours.saturating_sub(quota(self.partners.len(), sharing.live));
        let idle = self.partners.values().rev().filter(|state| !state.busy).filter_map(|state| state.held.as_ref());
        let given: Vec<(PartnerName, i64)> = idle.take(more).map(|held| (held.partner.clone(), held.epoch)).collect();
        if given.is_empty() {
            return Ok(());
        }
        tracing::info!(partners = given.len(), workers = sharing.live, "giving partners back: another worker is here");
        for (partner, _) in &given {
            if let Some(state) = self.partners.get_mut(partner) {
                state.let_go();
                self.members.forget(state.slot);
            }
        }
        hub_ledger::release(hub, &given).await
    }
}
