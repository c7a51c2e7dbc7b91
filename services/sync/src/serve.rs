//! The steady state as a process: terms from Kubernetes, rounds of the worker, DataFresh and metrics.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use kube::Client;
use liaison_records::names::PartnerName;
use tokio::{sync::watch, task::JoinSet};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    compare::Budget,
    connect::Target,
    desired::{self, Desired},
    error::Error,
    fault::Faults,
    housekeeping::House,
    signing,
    status::{Condition, FILLING, Pending, judge},
    telemetry::Metrics,
    witness::{self, Known},
    worker::{Context, Worker},
};

/// What `serve` needs to know.
#[derive(Debug)]
pub struct Settings {
    /// The hub.
    pub hub: Target,
    /// The replica store.
    pub store: Target,
    /// Its name in manifests.
    pub store_name: String,
    /// Where the two resources stand.
    pub namespace: String,
    /// Where statements are signed.
    pub system_namespace: String,
    /// Names this process.
    pub holder: String,
}

const PROBE: Duration = Duration::from_secs(1);
const HOUSEKEEPING: Duration = Duration::from_secs(60);

/// Runs until `stop`.
pub async fn serve(
    settings: Settings,
    client: Client,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) -> Result<(), Error> {
    let Settings { hub, store, store_name, namespace, system_namespace, holder } = settings;
    let known = Known::default();
    // Before anything crosses: what the ledger must have.
    loop {
        match witness::load(&client, &system_namespace).await {
            Ok(witness) => break known.set(witness),
            Err(error) => tracing::warn!(reason = error.reason(), "the kept checkpoint cannot be read: {error}"),
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(PROBE) => metrics.beat(Timestamp::now()),
        }
    }
    let keeping = signing::run(client.clone(), system_namespace, hub.clone(), known.clone(), metrics.clone());
    let signing = AbortOnDropHandle::new(tokio::spawn(keeping));
    let mut terms = desired::watch_terms(&client, &namespace, store_name.clone());
    let context = Context::new(&hub, &store, &holder, Budget::default(), Faults::default()).witnessed(&known);
    let mut worker = Worker::new(context).sharing(&store_name);
    let mut pending = Pending::default();
    let mut known: BTreeSet<PartnerName> = BTreeSet::new();
    let house = House::new(worker.context(), &hub, &store, &store_name, &holder, metrics.clone(), terms.clone());
    // Beside the rounds, which wait for none of it.
    let mut chores = JoinSet::new();
    let mut housekept: Option<Instant> = None;
    let mut hub_down = false;
    // Nothing is done before both kinds are listed: an empty list would read as "no partner".
    tokio::select! {
        () = stop.cancelled() => return Ok(()),
        listed = terms.wait_for(Option::is_some) => {
            if listed.is_err() { return Err(Error::Kubernetes("the watches ended".to_owned())); }
        }
    }
    while !stop.is_cancelled() {
        let now = Timestamp::now();
        metrics.beat(now);
        let wanted = terms.borrow_and_update().clone().unwrap_or_default();
        worker.set_terms(wanted.iter().map(|d| d.terms.clone()).collect());
        let result = worker.round(now).await;
        metrics.hub(result.is_ok());
        match &result {
            Ok(_) if hub_down => {
                tracing::info!("the hub answers again");
                hub_down = false;
            }
            Err(error) if !hub_down => {
                tracing::warn!(reason = error.reason(), "no cycle: {error}");
                hub_down = true;
            }
            _ => {}
        }
        for report in worker.take_reports() {
            metrics.report(&report);
            if let Ok(written) = report.result
                && let Some(batch) = written.batch
            {
                let millis = u64::try_from(report.took.as_millis()).unwrap_or(u64::MAX);
                tracing::info!(partner = %report.partner, batch, records = written.records, withdrawn = written.withdrawn,
                    bytes = written.bytes, millis, "batch landed");
            }
        }
        for news in worker.take_news() {
            metrics.news(&news);
        }
        let trouble = result.as_ref().err().map(|error| (error.reason(), error.to_string()));
        say(&mut worker, trouble.as_ref(), &wanted, &client, &namespace, &mut pending, &metrics, &mut known).await;
        if result.is_ok() && housekept.is_none_or(|at| at.elapsed() > HOUSEKEEPING) && chores.is_empty() {
            housekept = Some(Instant::now());
            chores.spawn(house.clone().keep(worker.positions(now)));
        }
        // One that panicked is begun again with the next.
        while chores.try_join_next().is_some() {}
        pause(&mut worker, &mut terms, &stop, result.unwrap_or(false)).await;
    }
    drop(signing);
    chores.shutdown().await;
    worker.shut_down().await;
    Ok(())
}

/// Until the next round: a second, or less when tasks end or terms change.
async fn pause(
    worker: &mut Worker,
    terms: &mut watch::Receiver<Option<Vec<Desired>>>,
    stop: &CancellationToken,
    started: bool,
) {
    let until = Instant::now() + PROBE;
    // What was just started mostly ends soon, and what follows it should not wait for the next probe.
    let slice = if started { Duration::from_millis(20) } else { Duration::ZERO };
    tokio::time::sleep(slice).await;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        if worker.busy() {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = terms.changed() => return,
                () = worker.wait(left) => if started { return },
            }
        } else {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = terms.changed() => return,
                () = tokio::time::sleep(left) => return,
            }
        }
    }
}

/// Metrics and DataFresh. `hub`: why there was no cycle.
#[expect(clippy::too_many_arguments, reason = "what is known, and the three places where it is said")]
async fn say(
    worker: &mut Worker,
    hub: Option<&(&'static str, String)>,
    wanted: &[Desired],
    client: &Client,
    namespace: &str,
    pending: &mut Pending,
    metrics: &Metrics,
    known: &mut BTreeSet<PartnerName>,
) {
    let now = Timestamp::now();
    // Of a partner that another worker holds, that one speaks.
    let mut standings = worker.standings(now);
    standings.retain(|_, standing| standing.trouble.as_ref().is_none_or(|(reason, _)| *reason != "LeaseHeld"));
    let freshness: HashMap<&PartnerName, &Desired> = wanted.iter().map(|d| (&d.terms.partner, d)).collect();
    let names: BTreeSet<PartnerName> = standings.keys().cloned().collect();
    for gone in known.difference(&names) {
        metrics.forget(gone.as_str());
        pending.settled(gone);
    }
    *known = names;
    metrics.partners(standings.len(), standings.values().filter(|s| s.held).count());
    for (partner, standing) in &standings {
        metrics.standing(partner.as_str(), standing, now);
        let Some(Desired { terms, fresh: written, since, .. }) = freshness.get(partner) else { continue };
        let Some((fresh, reason, message)) = judge(standing, hub, terms.freshness_seconds, now) else { continue };
        let due = pending.due(partner, *written, fresh, now);
        if reason != FILLING {
            pending.settled(partner);
        }
        let progressed = reason == FILLING && *written == fresh && pending.progressed(partner, &message, now);
        if !due && !progressed {
            continue;
        }
        // The time of a condition moves with its value only.
        let at = since.filter(|_| !due).unwrap_or(now);
        let condition = Condition { fresh, reason: reason.to_owned(), message, generation: terms.generation, at };
        if let Err(error) = desired::write_condition(client, namespace, partner, &condition).await {
            tracing::warn!(%partner, reason = error.reason(), "DataFresh could not be written: {error}");
        }
    }
}
