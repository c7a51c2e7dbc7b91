//! A cycle: one snapshot of the hub, one routing pass for all partners that are ready, and a batch for each that it concerns.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use liaison_records::names::PartnerName;

use super::Worker;
use crate::{
    connect::within,
    cursor::{ALL, Point, Snapshot},
    delta::Source,
    error::{Error, Side},
    gather::{Asker, gather},
    hub::{self, Reading, View},
    mark,
    partner::Held,
    route::{Candidate, Slot, Want},
    tasks::deliver,
    terms::Grant,
};

/// The longest that a batch of changes may take.
const BATCH: Duration = Duration::from_secs(60);

/// When the next cycle may begin. A batch costs about the same whether it carries one change or a hundred: while there is much to
/// do, changes are let gather, as long as nobody's data get old by it.
#[derive(Debug, Default)]
pub(super) struct Pace {
    began: Option<Instant>,
    /// How long it took to the last batch that landed; one that hangs does not count.
    took: Duration,
}

impl Pace {
    /// Of the time, at most one part in so many is spent on cycles.
    const REST: u32 = 4;

    fn begin(&mut self) {
        *self = Self { began: Some(Instant::now()), took: Duration::ZERO };
    }

    pub(super) fn landed(&mut self) {
        self.took = self.began.map_or(Duration::ZERO, |began| began.elapsed());
    }

    /// Whether the next may begin; it does in any case a quarter of the strictest freshness objective after the last.
    fn due(&self, freshness: Duration) -> bool {
        self.began.is_none_or(|began| began.elapsed() >= (self.took * Self::REST).min(freshness / 4))
    }
}

impl Worker {
    /// Probes the hub; if something changed, or somebody lags, routes it and starts what follows.
    pub(super) async fn cycle(&mut self, now: Timestamp) -> Result<bool, Error> {
        let mut ready: Vec<(PartnerName, Slot, Grant, Snapshot, i64)> = Vec::new();
        for (partner, state) in &self.partners {
            let Some(held) = state.held.as_ref().filter(|_| !state.busy() && !state.compare) else { continue };
            let (Some(grant), Some(since)) = (state.terms.open(now), held.position()) else { continue };
            let whole = held.cursor.filled == ALL && held.rebuild.is_none() && held.lost.is_none();
            if whole && held.follows(grant) && held.told.as_ref() == Some(&state.terms) {
                let since = self.context.faults.since(since.clone());
                ready.push((partner.clone(), state.slot, grant.clone(), since, state.terms.generation));
            }
        }
        let strictest =
            ready.iter().filter_map(|(partner, ..)| self.partners.get(partner)).map(|s| s.terms.freshness_seconds);
        let freshness = Duration::from_secs(strictest.min().unwrap_or(0).into());
        if ready.is_empty() || !self.pace.due(freshness) {
            return Ok(false);
        }
        let context = self.context.clone();
        let mut lane = context.reading.lane("cycle").await?;
        let bound = Duration::from_secs(60);
        let connection = context.reading.opened();
        let work = async {
            let client = lane.client()?;
            if self.recognise(client, connection, &ready).await? {
                // Each from its own cursor, with the next round.
                return Ok(true);
            }
            self.cycle_over(client, ready).await
        };
        let started = match within(bound, Side::Hub, work).await {
            // As-of stands still meanwhile; the next round tries again.
            Err(Error::HubBusy) => false,
            ended => ended?,
        };
        lane.keep();
        Ok(started)
    }

    /// Over another connection the hub may be another: whether it has what these partners know of it. Returns whether it was asked.
    async fn recognise(
        &mut self,
        hub: &tokio_postgres::Client,
        connection: u64,
        ready: &[(PartnerName, Slot, Grant, Snapshot, i64)],
    ) -> Result<bool, Error> {
        let held = ready.iter().filter_map(|(partner, ..)| self.partners.get(partner)?.held.as_ref());
        let claims: Vec<mark::Claim> = held.filter(|h| h.recognised != connection).map(Held::claim).collect();
        if claims.is_empty() {
            return Ok(false);
        }
        let strangers: HashSet<PartnerName> = mark::strangers(hub, &claims).await?.into_iter().collect();
        self.last = None;
        for mark::Claim { partner, .. } in claims {
            let Some(state) = self.partners.get_mut(&partner) else { continue };
            if !self.context.faults.recognised(!strangers.contains(&partner)) {
                tracing::warn!(%partner, "the hub was put back to an earlier state: looking again, and comparing all");
                state.compare = true;
                state.held = None;
            } else if let Some(held) = &mut state.held {
                held.recognise(connection);
            }
        }
        Ok(true)
    }

    async fn cycle_over(
        &mut self,
        client: &mut tokio_postgres::Client,
        ready: Vec<(PartnerName, Slot, Grant, Snapshot, i64)>,
    ) -> Result<bool, Error> {
        let context = self.context.clone();
        if let Some(last) = &self.last
            && ready.iter().all(|(_, _, _, since, _)| *since == last.snapshot)
        {
            let (point, changed) = hub::probe(client, &context.wal, &last.snapshot).await?;
            if !changed {
                for (partner, ..) in &ready {
                    self.exact(partner, &point, false);
                }
                self.last = Some(point);
                return Ok(false);
            }
        }
        self.pace.begin();
        let mut view = View::open(Reading { client, wal: &context.wal }).await?;
        let (point, identity) = (view.point.clone(), view.identity.clone());
        let horizon = view.horizon;
        let (usable, unusable): (Vec<_>, Vec<_>) = ready.into_iter().partition(|(partner, ..)| {
            let held = self.partners.get(partner).and_then(|s| s.held.as_ref());
            held.is_some_and(|h| {
                h.cursor.hub_identity.as_deref() == Some(&identity)
                    && h.position().is_some_and(|s| s.followed_by(horizon, point.snapshot.xmax))
            })
        });
        let names: HashMap<Slot, Vec<String>> =
            usable.iter().map(|(_, s, grant, ..)| (*s, grant.group_names())).collect();
        let askers: Vec<Asker<'_>> = usable
            .iter()
            .map(|(_, slot, grant, since, _)| Asker {
                candidate: Candidate { slot: *slot, scope: &grant.scope, filled: ALL },
                groups: &names[slot],
                since,
            })
            .collect();
        let mut gathered = gather(&mut view, &askers, &self.members).await?;
        view.close().await?;
        drop(askers);
        let mut started = false;
        for (partner, ..) in unusable {
            if let Some(state) = self.partners.get_mut(&partner) {
                tracing::warn!(%partner, "the cursor is of another hub, or not of this one's change log: comparing all");
                state.compare = true;
                // What this hub's ledger knows is not what ours did: step 1 again, before anything is added to it.
                state.held = None;
                started = true;
            }
        }
        let source = Arc::new(std::mem::take(&mut gathered.source));
        for (partner, slot, grant, _, generation) in usable {
            if gathered.compare.contains(&slot) {
                if let Some(state) = self.partners.get_mut(&partner) {
                    state.compare = true;
                    started = true;
                }
                continue;
            }
            let Some(want) = gathered.wants.remove(&slot) else { continue };
            if want.is_empty() {
                self.exact(&partner, &point, gathered.changes > 0);
                continue;
            }
            let Some(state) = self.partners.get_mut(&partner) else { continue };
            let Some(held) = state.held.take() else { continue };
            let epoch = held.epoch;
            started = true;
            let holds: HashSet<i64> = stays(&want, &source).filter(|f| self.members.holds(slot, *f)).collect();
            let (context, source, point, identity) =
                (self.context.clone(), source.clone(), point.clone(), identity.clone());
            let work = async move {
                deliver(&context, held, &grant, generation, &point, &identity, &want, &source, &holds).await
            };
            state.start(&mut self.tasks, Some(epoch), BATCH, work);
        }
        self.last = Some(point);
        Ok(started)
    }

    fn exact(&mut self, partner: &PartnerName, point: &Point, changes: bool) {
        if let Some(held) = self.partners.get_mut(partner).and_then(|s| s.held.as_mut()) {
            held.exact(point, changes);
        }
    }
}

/// The files that the changed records of `want` are of now.
fn stays<'a>(want: &'a Want, source: &'a Source) -> impl Iterator<Item = i64> + 'a {
    let records = want.keys.iter().filter_map(|key| source.keys.get(key)?.as_ref()?.offender);
    want.stay.iter().copied().chain(records)
}
