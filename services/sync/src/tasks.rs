//! What a worker does for one partner at a time: a task each, over the lane of its store. A connection on which anything
//! failed is given up.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use liaison_records::names::PartnerName;
use tokio::sync::Semaphore;
use tokio_postgres::Client;

use crate::{
    checkpoint,
    compare::{Budget, compare},
    connect::{Lanes, Target, over_both, within},
    cursor::{ALL, Point},
    delta::{Delta, Source, cores, keys},
    error::{Error, Side},
    fault::{Faults, Step},
    hub::Reading,
    hub_ledger::{self, Claim},
    mark,
    partner::{self, Held, Ledger, Written},
    rebuild,
    replica::Share,
    route::Want,
    terms::{Grant, Terms},
    verify::desk::Desk,
    wal::Wal,
    witness::Known,
};

const BULK: usize = 2;
/// The longest that the hub may take for what a worker asks for all its partners.
pub(crate) const ANSWER: Duration = Duration::from_secs(10);

/// Connections and settings that all tasks of a worker share.
#[derive(Debug)]
pub struct Context {
    /// Snapshots and the probe.
    pub(crate) reading: Lanes,
    /// The change log, where it is read from the write-ahead log.
    pub(crate) wal: Wal,
    /// What a worker asks of the hub for all its partners: no partner's trouble may hold it up.
    pub(crate) control: Lanes,
    /// Leases.
    pub(crate) leases: Lanes,
    /// The ledger.
    pub(crate) ledger: Ledger,
    /// Snapshots of comparisons.
    pub(crate) comparing: Lanes,
    /// The ledger, for comparisons.
    pub(crate) ledger_bulk: Ledger,
    /// Replicas.
    pub(crate) store: Lanes,
    /// Replicas, for comparisons: they take long.
    pub(crate) store_bulk: Lanes,
    pub(crate) bulk: Semaphore,
    pub(crate) holder: String,
    pub(crate) budget: Budget,
    pub(crate) faults: Faults,
    /// The verifications.
    pub(crate) desk: Desk,
    /// What is known of the ledger off the hub.
    pub(crate) known: Known,
}

impl Context {
    /// `holder` names this process; two processes must not share a name.
    pub fn new(hub: &Target, store: &Target, holder: &str, budget: Budget, faults: Faults) -> Self {
        Self {
            reading: Lanes::new(hub.clone(), 1),
            wal: Wal::new(hub),
            control: Lanes::new(hub.clone(), 1),
            leases: Lanes::new(hub.clone(), 4),
            ledger: Ledger::new(hub),
            comparing: Lanes::new(hub.clone(), BULK),
            ledger_bulk: Ledger::new(hub),
            store: Lanes::new(store.clone(), 8),
            store_bulk: Lanes::new(store.clone(), BULK),
            bulk: Semaphore::new(BULK),
            holder: holder.to_owned(),
            budget,
            faults,
            desk: Desk::default(),
            known: Known::default(),
        }
    }

    /// What a worker asks of the hub for all its partners: a hub that hangs is one that is away.
    pub(crate) async fn of_hub<T>(&self, work: impl AsyncFnOnce(&mut Client) -> Result<T, Error>) -> Result<T, Error> {
        within(ANSWER, Side::Hub, self.control.over("", work)).await
    }

    /// Works on a partner over the lanes of comparisons, hub and store.
    pub(crate) async fn comparing<T>(
        &self,
        partner: &PartnerName,
        work: impl AsyncFnOnce(&mut Client, &mut Client) -> Result<T, Error>,
    ) -> Result<T, Error> {
        over_both(&self.comparing, &self.store_bulk, partner.as_str(), work).await
    }

    /// Trims the change log on the hub.
    pub async fn trim(&self) -> Result<u64, Error> {
        let hub = &mut self.leases.target().connect().await?;
        mark::trim(hub).await?;
        hub_ledger::trim(hub).await
    }

    /// The hub's ledger must have what `known` says.
    #[must_use]
    pub fn witnessed(mut self, known: &Known) -> Self {
        self.known = known.clone();
        self
    }
}

/// How a task ended.
pub(crate) struct Done {
    pub(crate) partner: PartnerName,
    pub(crate) result: Result<Finished, Error>,
    pub(crate) took: Duration,
}

/// What a task that went well leaves.
#[derive(Default)]
pub(crate) struct Finished {
    /// The replica; `None`: its lease is to be taken.
    pub(crate) held: Option<Held>,
    pub(crate) written: Option<Written>,
    /// Whether it was part of a cycle.
    pub(crate) cycle: bool,
    pub(crate) files: Option<Vec<i64>>,
    pub(crate) enter: Vec<i64>,
    pub(crate) leave: Vec<i64>,
}

impl From<Held> for Finished {
    fn from(held: Held) -> Self {
        Self { held: Some(held), ..Self::default() }
    }
}

/// Bounds a task in time.
pub(crate) async fn timed(
    partner: PartnerName,
    bound: Duration,
    work: impl Future<Output = Result<Finished, Error>> + Send,
) -> Done {
    let started = Instant::now();
    let result = within(bound, Side::Store, work).await;
    Done { partner, result, took: started.elapsed() }
}

/// Step 1, and the terms.
pub(crate) async fn take_lease(context: &Context, partner: &PartnerName, terms: &Terms) -> Result<Finished, Error> {
    let work = async |store: &mut Client, hub: &mut Client| {
        let (mut held, files) =
            partner::lease(hub, store, partner, &context.holder, Claim::Polite, &context.faults).await?;
        if let Some(mark) = context.known.mark(partner) {
            held.lost = checkpoint::missing(hub, [&mark]).await?.pop();
        }
        held.tell(store, terms).await?;
        Ok((held, files))
    };
    let (held, files) = over_both(&context.store, &context.leases, partner.as_str(), work).await?;
    Ok(Finished { files: Some(files), ..held.into() })
}

/// What was under way under the lease of `epoch` was given up, since `terms` take something away: the replica says so, and takes
/// nothing more of it. Asks nothing of the hub.
pub(crate) async fn cut(
    context: &Context,
    partner: &PartnerName,
    epoch: i64,
    terms: &Terms,
) -> Result<Finished, Error> {
    let work = async |store: &mut Client| Share::new(partner).cut(store, epoch, terms).await;
    context.store.over(partner.as_str(), work).await?;
    Ok(Finished::default())
}

/// Works on a replica that we hold, over the lane of its store.
pub(crate) async fn on(
    context: &Context,
    mut held: Held,
    work: impl AsyncFnOnce(&mut Held, &mut Client) -> Result<(), Error>,
) -> Result<Finished, Error> {
    let key = held.partner.clone();
    context.store.over(key.as_str(), async |store| work(&mut held, store).await).await?;
    Ok(held.into())
}

/// Takes out of a replica for which nothing may cross what has been sealed since.
pub(crate) async fn take_out_sealed(context: &Context, held: Held) -> Result<Finished, Error> {
    let work = async |hub: &mut Client, store: &mut Client| rebuild::take_out_sealed(hub, store, &held).await;
    context.comparing(&held.partner, work).await?;
    Ok(held.into())
}

/// A comparing batch, over connections of its own.
pub(crate) async fn run_compare(
    context: &Context,
    mut held: Held,
    grant: &Grant,
    generation: i64,
    afresh: bool,
) -> Result<Finished, Error> {
    let _turn = context.bulk.acquire().await;
    let partner = held.partner.clone();
    let work = async |hub: &mut Client, store: &mut Client| {
        let reading = Reading { client: hub, wal: &context.wal };
        let (ledger, budget, faults) = (&context.ledger_bulk, context.budget, &context.faults);
        compare(&mut held, reading, ledger, store, grant, generation, afresh, budget, faults).await
    };
    let compared = context.comparing(&partner, work).await?;
    Ok(Finished { written: Some(compared.written), enter: compared.enter, leave: compared.leave, ..held.into() })
}

/// What a cycle found for one partner: the difference, the ledger, the replica.
#[expect(clippy::too_many_arguments, reason = "what a cycle found for one partner")]
pub(crate) async fn deliver(
    context: &Context,
    mut held: Held,
    grant: &Grant,
    generation: i64,
    point: &Point,
    identity: &str,
    want: &Want,
    source: &Source,
    holds: &HashSet<i64>,
) -> Result<Finished, Error> {
    let (partner, faults) = (held.partner.clone(), &context.faults);
    faults.at(Step::Read, &partner).await?;
    let groups = grant.group_names();
    let names: HashSet<&str> = groups.iter().map(String::as_str).collect();
    let mut delta = Delta::default();
    let look = async |store: &mut Client| {
        let looked = held.share.look(store, &keys(want, source, &names), &cores(want, source)).await?;
        delta.changes(want, source, &looked, &names, |file| holds.contains(&file));
        faults.found(&mut delta);
        held.pick(store, &delta, &source.images).await
    };
    let images = context.store.over(partner.as_str(), look).await?;
    // The lane is free meanwhile: the ledger takes many partners' batches at once.
    let recorded = held.record(&context.ledger, grant, generation, &delta, "changes", faults).await?;
    let land = async |store: &mut Client| {
        held.land(store, recorded.as_ref(), None, grant, point, identity, ALL, &delta, &images, faults).await
    };
    let written = context.store.over(partner.as_str(), land).await?;
    held.note(&context.ledger, &written, point, faults).await?;
    Ok(Finished {
        written: Some(written),
        cycle: true,
        enter: delta.enter.into_iter().collect(),
        leave: delta.leave.into_iter().collect(),
        ..held.into()
    })
}
