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
    connect::{Lanes, Target},
    cursor::{ALL, Point},
    delta::{Delta, Source, cores, keys},
    error::{Error, Side},
    fault::{Faults, Step},
    hub::Reading,
    hub_ledger::Claim,
    partner::{self, Held, Ledger, Written},
    route::Want,
    terms::{Grant, Terms},
    verify::desk::Desk,
    wal::Wal,
    witness::Known,
};

const BULK: usize = 2;

/// Connections and settings that all tasks of a worker share.
#[derive(Debug)]
pub struct Context {
    /// Snapshots and the probe.
    pub(crate) reading: Lanes,
    /// The change log, where it is read from the write-ahead log.
    pub(crate) wal: Wal,
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
pub(crate) struct Finished {
    pub(crate) held: Held,
    pub(crate) written: Option<Written>,
    /// Whether it was part of a cycle.
    pub(crate) cycle: bool,
    pub(crate) files: Option<Vec<i64>>,
    pub(crate) enter: Vec<i64>,
    pub(crate) leave: Vec<i64>,
}

/// Bounds a task in time.
pub(crate) async fn timed(
    partner: PartnerName,
    seconds: u64,
    work: impl Future<Output = Result<Finished, Error>> + Send,
) -> Done {
    let started = Instant::now();
    let result = match tokio::time::timeout(Duration::from_secs(seconds), work).await {
        Ok(result) => result,
        Err(_) => Err(Error::Timeout { side: Side::Store, seconds }),
    };
    Done { partner, result, took: started.elapsed() }
}

fn finished(held: Held) -> Finished {
    Finished { held, written: None, cycle: false, files: None, enter: Vec::new(), leave: Vec::new() }
}

/// Step 1, and the terms.
pub(crate) async fn take_lease(context: &Context, partner: &PartnerName, terms: &Terms) -> Result<Finished, Error> {
    let mut store = context.store.lane(partner.as_str()).await?;
    let mut hub = context.leases.lane(partner.as_str()).await?;
    let result = async {
        let store = store.client()?;
        let (mut held, files) =
            partner::lease(hub.client()?, store, partner, &context.holder, Claim::Polite, &context.faults).await?;
        if let Some(mark) = context.known.mark(partner) {
            held.lost = checkpoint::missing(hub.client()?, [&mark]).await?.pop();
        }
        held.tell(store, terms).await?;
        Ok((held, files))
    }
    .await;
    let (held, files) = result.inspect_err(|_| {
        store.discard();
        hub.discard();
    })?;
    Ok(Finished { files: Some(files), ..finished(held) })
}

/// The terms into the cursor.
pub(crate) async fn tell(context: &Context, mut held: Held, terms: &Terms) -> Result<Finished, Error> {
    let mut store = context.store.lane(held.partner.as_str()).await?;
    let result = async { held.tell(store.client()?, terms).await }.await;
    result.inspect_err(|_| store.discard())?;
    Ok(finished(held))
}

/// Reads are refused: what a narrowed scope takes away cannot leave now.
pub(crate) async fn fence(context: &Context, mut held: Held, grant: &Grant) -> Result<Finished, Error> {
    let mut store = context.store.lane(held.partner.as_str()).await?;
    let result = async { held.fence(store.client()?, grant, &context.faults).await }.await;
    result.inspect_err(|_| store.discard())?;
    Ok(finished(held))
}

/// The as-of row.
pub(crate) async fn touch(context: &Context, mut held: Held) -> Result<Finished, Error> {
    let mut store = context.store.lane(held.partner.as_str()).await?;
    let result = async { held.touch(store.client()?).await }.await;
    result.inspect_err(|_| store.discard())?;
    Ok(finished(held))
}

/// A comparing batch, over connections of its own.
pub(crate) async fn run_compare(
    context: &Context,
    mut held: Held,
    grant: &Grant,
    generation: i64,
    afresh: bool,
) -> Result<Finished, Error> {
    let turn = context.bulk.acquire().await;
    let partner = held.partner.clone();
    let mut reading = context.comparing.lane(partner.as_str()).await?;
    let mut store = context.store_bulk.lane(partner.as_str()).await?;
    let result = async {
        compare(
            &mut held,
            Reading { client: reading.client()?, wal: &context.wal },
            &context.ledger_bulk,
            store.client()?,
            grant,
            generation,
            afresh,
            context.budget,
            &context.faults,
        )
        .await
    }
    .await;
    let compared = result.inspect_err(|_| {
        reading.discard();
        store.discard();
    })?;
    drop(turn);
    Ok(Finished { written: Some(compared.written), enter: compared.enter, leave: compared.leave, ..finished(held) })
}

/// Works over the lane of a partner's store. A connection on which anything failed is given up.
async fn over<T>(
    context: &Context,
    partner: &PartnerName,
    work: impl AsyncFnOnce(&mut Client) -> Result<T, Error>,
) -> Result<T, Error> {
    let mut lane = context.store.lane(partner.as_str()).await?;
    let result = match lane.client() {
        Ok(client) => work(client).await,
        Err(error) => Err(error),
    };
    result.inspect_err(|_| lane.discard())
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
    let images = over(context, &partner, async |store| {
        let looked = held.share.look(store, &keys(want, source, &names), &cores(want, source)).await?;
        delta.changes(want, source, &looked, &names, |file| holds.contains(&file));
        faults.found(&mut delta);
        held.pick(store, &delta, &source.images).await
    })
    .await?;
    // The lane is free meanwhile: the ledger takes many partners' batches at once.
    let recorded = held.record(&context.ledger, grant, generation, &delta, "changes", faults).await?;
    let written = over(context, &partner, async |store| {
        held.land(store, recorded.as_ref(), None, grant, point, identity, ALL, &delta, &images, faults).await
    })
    .await?;
    held.note(&context.ledger, &written, point, faults).await?;
    Ok(Finished {
        written: Some(written),
        cycle: true,
        enter: delta.enter.into_iter().collect(),
        leave: delta.leave.into_iter().collect(),
        ..finished(held)
    })
}
