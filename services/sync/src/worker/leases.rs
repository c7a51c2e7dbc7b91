//! The leases of a worker: renewed together, shared with the other workers, and what goes to the hub along with that.

use std::time::Instant;

use jiff::Timestamp;
use liaison_records::names::PartnerName;

use super::{State, Worker};
use crate::{
    connect::within,
    error::{Error, Side},
    hub_ledger::{self, Follows},
    mark,
    partner::Held,
    tasks::ANSWER,
};

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

impl State {
    /// The lease that we have, and what of the change log it keeps.
    fn lease(&self, now: Timestamp) -> Option<(PartnerName, i64, Follows)> {
        let partner = self.terms.partner.clone();
        let Some(held) = &self.held else {
            return Some((partner, self.task.as_ref()?.epoch?, Follows::AsBefore));
        };
        // Nothing crosses: when something does again, all is compared if need be.
        let waits = self.terms.open(now).is_none() || held.lost.is_some();
        let snapshot = held.cursor.snapshot.as_ref().filter(|_| !waits);
        Some((partner, held.epoch, snapshot.map_or(Follows::Nothing, |snapshot| Follows::From(snapshot.xmin))))
    }
}

impl Worker {
    pub(super) async fn renew(&mut self, now: Timestamp) -> Result<(), Error> {
        let unasked = self.sharing.as_ref().is_some_and(|sharing| sharing.live == 0);
        if self.renewed.elapsed() < self.renewal && !unasked {
            return Ok(());
        }
        let leases: Vec<_> = self.partners.values().filter_map(|state| state.lease(now)).collect();
        let context = self.context.clone();
        let store = self.sharing.as_ref().map(|sharing| sharing.store.clone());
        let (ours, live) = context
            .of_hub(async |hub| {
                let ours = hub_ledger::renew(hub, &leases).await?;
                let live = match &store {
                    Some(store) => hub_ledger::workers(hub, &context.holder, store).await?,
                    None => 0,
                };
                Ok((ours, live))
            })
            .await?;
        for (partner, epoch, _) in &leases {
            if !ours.contains(partner)
                && let Some(state) = self.partners.get_mut(partner)
            {
                tracing::info!(%partner, epoch, "another worker took the lease");
                // A task that has it finds out.
                state.held = None;
            }
        }
        self.renewed = Instant::now();
        if let Some(sharing) = &mut self.sharing {
            sharing.live = live;
            let given = self.give_back();
            if !given.is_empty() {
                context.of_hub(async |hub| hub_ledger::release(hub, &given).await).await?;
            }
        }
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
        let leave = context.reading.over("cycle", async |hub| {
            let connection = context.reading.opened();
            // What was seen over an earlier connection may have been another hub's.
            wanting.retain(|held| held.recognised == connection);
            if wanting.is_empty() {
                return Ok(());
            }
            let mark = mark::leave(hub).await?;
            for held in wanting {
                held.mark(mark);
            }
            Ok(())
        });
        within(ANSWER, Side::Hub, leave).await
    }

    /// Lets go of what is more than our part of the partners.
    fn give_back(&mut self) -> Vec<(PartnerName, i64)> {
        let Some(sharing) = &self.sharing else { return Vec::new() };
        let ours = self.partners.values().filter(|state| state.held.is_some() || state.busy()).count();
        let more = ours.saturating_sub(quota(self.partners.len(), sharing.live));
        let idle = self.partners.values().rev().filter(|state| !state.busy()).filter_map(|state| state.held.as_ref());
        let given: Vec<(PartnerName, i64)> = idle.take(more).map(|held| (held.partner.clone(), held.epoch)).collect();
        if given.is_empty() {
            return given;
        }
        tracing::info!(partners = given.len(), workers = sharing.live, "giving partners back: another worker is here");
        for (partner, _) in &given {
            if let Some(state) = self.partners.get_mut(partner) {
                state.let_go();
                self.members.forget(state.slot);
            }
        }
        given
    }
}
