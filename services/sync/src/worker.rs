//! The steady state: leases, cycles and comparisons for all partners of one worker. Knows nothing of Kubernetes.
//!
//! What a partner needs is a task of its own, over the lane of its store: one that hangs or fails is that partner's
//! problem. It falls behind, and joins again from its own cursor.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use liaison_records::names::PartnerName;
use tokio::task::JoinSet;

use crate::{
    cursor::{ALL, Point, Snapshot},
    delta::Source,
    error::{Error, Side},
    gather::{Asker, gather},
    hub::{self, Reading, View},
    hub_ledger, mark,
    partner::{Held, Written},
    rebuild,
    route::{Candidate, Members, Slot, Want},
    tasks::{Done, Finished, deliver, fence, run_compare, take_lease, tell, timed, touch},
    terms::{Grant, Terms},
    verify::{self, News},
};

pub use crate::tasks::Context;

/// What happened to a partner's replica, for metrics and status.
#[derive(Debug, Clone)]
pub struct Report {
    /// Whose.
    pub partner: PartnerName,
    /// What was written, or why not.
    pub result: Result<Written, &'static str>,
    /// How long it took.
    pub took: Duration,
}

/// How a partner's replica stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, each asked for by itself")]
pub struct Standing {
    /// Files held.
    pub files: usize,
    /// Milliseconds since 1970 of the hub's clock up to which the replica is exact.
    pub exact_at_millis: Option<i64>,
    /// Whether it is complete.
    pub complete: bool,
    /// Why the last attempt failed.
    pub trouble: Option<(&'static str, String)>,
    /// Whether records may cross at all.
    pub open: bool,
    /// Whether its lease is ours.
    pub held: bool,
    /// Whether reads are refused for a moment.
    pub fenced: bool,
    /// Batches in its ledger.
    pub ledger: i64,
    /// Whether it is being made anew beside.
    pub rebuilding: bool,
    /// Files filled, of files in scope, while it is being filled.
    pub progress: Option<(usize, usize)>,
}

struct State {
    slot: Slot,
    terms: Terms,
    held: Option<Held>,
    busy: bool,
    compare: bool,
    failures: u32,
    not_before: Instant,
    trouble: Option<(&'static str, String)>,
    /// How far the replica was when it was last looked at; what holds while a task is under way.
    reached: Reached,
}

impl State {
    /// Leaves the partner to another worker, which is the one to say how it stands.
    fn let_go(&mut self) {
        self.held = None;
        self.reached = Reached::default();
        self.trouble = Some(Error::LeaseHeld(self.terms.partner.clone())).map(|e| (e.reason(), e.to_string()));
    }
}

/// How far a replica is: exact as of these milliseconds, and whether it is complete.
#[derive(Debug, Clone, Copy, Default)]
struct Reached {
    exact_at_millis: Option<i64>,
    complete: bool,
    fenced: bool,
    rebuilding: bool,
    ledger: i64,
    progress: Option<(usize, usize)>,
}

impl Reached {
    fn of(held: &Held) -> Self {
        let exact_at = held.exact_at.as_ref().map(|p| p.millis).or(held.cursor.as_of_millis);
        Self {
            exact_at_millis: exact_at.filter(|_| held.cursor.filled == ALL),
            complete: held.cursor.filled == ALL && !held.cursor.fenced,
            fenced: held.cursor.fenced,
            rebuilding: held.rebuild.is_some(),
            ledger: held.ledger(),
            progress: held.progress.filter(|_| held.cursor.filled != ALL || held.rebuild.is_some()),
        }
    }
}

/// Among how many workers the partners are shared.
#[derive(Debug)]
struct Sharing {
    /// Whose partners: those of one store.
    store: String,
    /// Workers that are alive, ourselves among them; 0: not asked yet.
    live: usize,
}

/// How many partners one of `live` workers holds at most.
fn quota(partners: usize, live: usize) -> usize {
    partners.div_ceil(live.max(1))
}

/// When the next cycle may begin. A batch costs about the same whether it carries one change or a hundred: while there is much to
/// do, changes are let gather, as long as nobody's data get old by it.
#[derive(Debug, Default)]
struct Pace {
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

    fn landed(&mut self) {
        self.took = self.began.map_or(Duration::ZERO, |began| began.elapsed());
    }

    /// Whether the next may begin; it does in any case a quarter of the strictest freshness objective after the last.
    fn due(&self, freshness: Duration) -> bool {
        self.began.is_none_or(|began| began.elapsed() >= (self.took * Self::REST).min(freshness / 4))
    }
}

/// The partners of one process.
pub struct Worker {
    context: Arc<Context>,
    partners: BTreeMap<PartnerName, State>,
    members: Members,
    slots: Slot,
    last: Option<Point>,
    tasks: JoinSet<Done>,
    pace: Pace,
    renewed: Instant,
    renewal: Duration,
    sharing: Option<Sharing>,
    patience: Duration,
    reports: Vec<Report>,
    news: Vec<News>,
    asked: Option<Instant>,
}

impl Worker {
    /// Without partners.
    pub fn new(context: Context) -> Self {
        Self {
            context: Arc::new(context),
            partners: BTreeMap::new(),
            members: Members::default(),
            slots: 0,
            last: None,
            tasks: JoinSet::new(),
            pace: Pace::default(),
            renewed: Instant::now(),
            renewal: Duration::from_secs(8),
            sharing: None,
            patience: Duration::from_secs(1),
            reports: Vec::new(),
            news: Vec::new(),
            asked: None,
        }
    }

    /// Waits this long at first after a failure, twice as long each time, at most 60 times as long.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Shares the partners of `store` with the other workers that say the same: each holds at most its part, gives back what
    /// is more when another comes, and takes over from one that is no longer heard of. Without this a worker takes all it can.
    #[must_use]
    pub fn sharing(mut self, store: &str) -> Self {
        self.sharing = Some(Sharing { store: store.to_owned(), live: 0 });
        self
    }

    /// Renews leases, and counts the workers, this often; well below the time that a lease lasts.
    #[must_use]
    pub fn with_renewal(mut self, every: Duration) -> Self {
        self.renewal = every;
        self
    }

    /// What is wanted now; partners that are not named are let go.
    pub fn set_terms(&mut self, terms: Vec<Terms>) {
        let named: HashSet<PartnerName> = terms.iter().map(|t| t.partner.clone()).collect();
        let gone: Vec<PartnerName> = self.partners.keys().filter(|p| !named.contains(*p)).cloned().collect();
        for partner in gone {
            if let Some(state) = self.partners.remove(&partner) {
                self.members.forget(state.slot);
            }
        }
        for terms in terms {
            match self.partners.get_mut(&terms.partner) {
                Some(state) if state.terms == terms => {}
                Some(state) => {
                    // Suspension does not wait for a backoff to pass.
                    state.not_before = Instant::now();
                    state.terms = terms;
                }
                None => {
                    self.slots += 1;
                    let state = State {
                        slot: self.slots,
                        held: None,
                        busy: false,
                        compare: false,
                        failures: 0,
                        not_before: Instant::now(),
                        trouble: None,
                        reached: Reached::default(),
                        terms,
                    };
                    self.partners.insert(state.terms.partner.clone(), state);
                }
            }
        }
    }

    /// How each partner stands.
    pub fn standings(&mut self, now: Timestamp) -> BTreeMap<PartnerName, Standing> {
        let members = &self.members;
        let standing = |state: &mut State| {
            match &state.held {
                Some(held) => state.reached = Reached::of(held),
                // A task has it: what it does is no reason to say that the replica is not there.
                None if state.busy => {}
                None => state.reached = Reached::default(),
            }
            Standing {
                files: members.count(state.slot),
                exact_at_millis: state.reached.exact_at_millis,
                complete: state.reached.complete,
                rebuilding: state.reached.rebuilding,
                trouble: state.trouble.clone(),
                open: state.terms.open(now).is_some(),
                held: state.held.is_some() || state.busy,
                fenced: state.reached.fenced,
                ledger: state.reached.ledger,
                progress: state.reached.progress,
            }
        };
        self.partners.iter_mut().map(|(partner, state)| (partner.clone(), standing(state))).collect()
    }

    /// The snapshots up to which the replicas that we hold are exact.
    pub fn positions(&self) -> Vec<(PartnerName, Snapshot)> {
        let held = self.partners.values().filter_map(|state| state.held.as_ref());
        held.filter_map(|held| Some((held.partner.clone(), held.position()?.clone()))).collect()
    }

    /// What happened since this was last asked.
    pub fn take_reports(&mut self) -> Vec<Report> {
        std::mem::take(&mut self.reports)
    }

    /// What came of verifications since this was last asked.
    pub fn take_news(&mut self) -> Vec<News> {
        self.news.append(&mut self.context.desk.news());
        std::mem::take(&mut self.news)
    }

    /// Whether tasks are under way.
    pub fn busy(&self) -> bool {
        !self.tasks.is_empty()
    }

    /// One round: takes in what has finished, starts what each partner needs, and runs a cycle if anything changed. Returns
    /// whether anything was started; an error is the hub's.
    pub async fn round(&mut self, now: Timestamp) -> Result<bool, Error> {
        self.reap();
        self.look_again();
        // Terms reach the replicas also while the hub is down.
        let renewed = self.renew().await;
        let mut started = false;
        let ours = self.partners.values().filter(|state| state.held.is_some() || state.busy).count();
        let mut room = match &self.sharing {
            // Not before it is known with how many to share.
            Some(Sharing { live: 0, .. }) => 0,
            Some(Sharing { live, .. }) => quota(self.partners.len(), *live).saturating_sub(ours),
            None => usize::MAX,
        };
        let names: Vec<PartnerName> = self.partners.keys().cloned().collect();
        for partner in names {
            started |= self.attend(&partner, now, &mut room);
        }
        renewed?;
        let cycle = self.cycle(now).await;
        // What the cycle did not give a batch.
        started |= self.touch(now);
        started |= cycle?;
        self.ask().await?;
        Ok(started)
    }

    /// Waits until a task ends, or for `at_most`.
    pub async fn wait(&mut self, at_most: Duration) {
        let next = tokio::time::timeout(at_most, self.tasks.join_next());
        if let Ok(Some(joined)) = next.await {
            self.take(joined);
        }
    }

    fn reap(&mut self) {
        while let Some(joined) = self.tasks.try_join_next() {
            self.take(joined);
        }
    }

    fn take(&mut self, joined: Result<Done, tokio::task::JoinError>) {
        let Ok(Done { partner, result, took }) = joined else {
            // A task that panicked told nobody whose it was: every busy partner starts over.
            for state in self.partners.values_mut().filter(|state| state.busy) {
                state.busy = false;
                state.held = None;
            }
            return;
        };
        let Some(state) = self.partners.get_mut(&partner) else { return };
        state.busy = false;
        match result {
            Ok(Finished { held, written, cycle, files, enter, leave }) => {
                let lost = held.lost.as_ref().map(|_| Error::LedgerLost(partner.clone()));
                state.trouble = lost.map(|error| (error.reason(), error.to_string()));
                state.held = Some(held);
                state.failures = 0;
                // Whatever the numbers say.
                state.compare |= state.held.as_ref().is_some_and(|held| held.stranger);
                let slot = state.slot;
                if let Some(files) = files {
                    self.members.load(slot, files);
                }
                for file in leave {
                    self.members.leave(slot, file);
                }
                for file in enter {
                    self.members.enter(slot, file);
                }
                if cycle {
                    self.pace.landed();
                }
                if let Some(written) = written {
                    self.reports.push(Report { partner, result: Ok(written), took });
                }
            }
            Err(error) => {
                // Whatever went wrong: step 1 again.
                state.held = None;
                state.failures += 1;
                let reason = error.reason();
                let expected = matches!(error, Error::NotSeeded(_) | Error::LeaseHeld(_) | Error::HubBusy);
                let factor = if expected { 5 } else { 1 << state.failures.min(6).saturating_sub(1) };
                let wait = self.patience * factor.min(60);
                state.not_before = Instant::now() + wait.mul_f64(0.75 + 0.5 * rand::random::<f64>());
                if expected {
                    tracing::debug!(%partner, reason, "not ours to sync now: {error}");
                } else if state.trouble.as_ref().is_none_or(|(before, _)| *before != reason) {
                    tracing::warn!(%partner, reason, "sync failed, trying again: {error}");
                }
                state.trouble = Some((reason, error.to_string()));
                if !expected {
                    self.reports.push(Report { partner, result: Err(reason), took });
                }
            }
        }
    }

    async fn renew(&mut self) -> Result<(), Error> {
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

    /// Asks the hub which verifications are wanted, and closes those that were given up.
    async fn ask(&mut self) -> Result<(), Error> {
        let news = self.context.desk.news();
        if news.is_empty() && self.asked.is_some_and(|at| at.elapsed() < self.patience * 2) {
            return Ok(());
        }
        self.asked = Some(Instant::now());
        self.news.extend(news.iter().cloned());
        let context = self.context.clone();
        let mut lane = context.leases.lane("verify").await?;
        let hub = lane.client()?;
        for item in &news {
            if let News::GivenUp(partner, id, reason) = item {
                let closed = verify::give_up(hub, *id, reason).await;
                self.context.desk.closed(partner, *id, closed.is_ok());
                closed?;
            }
        }
        let mut requests = verify::open(hub).await?;
        requests.retain(|(partner, ..)| self.partners.contains_key(partner));
        self.context.desk.open(&requests);
        Ok(())
    }

    /// What the hub lacked may have been accepted: step 1 again.
    fn look_again(&mut self) {
        let known = &self.context.known;
        for (partner, state) in &mut self.partners {
            if state.held.as_ref().is_some_and(|held| held.lost.is_some() && held.lost != known.mark(partner)) {
                state.held = None;
                // Reads may have been refused meanwhile.
                state.compare = true;
            }
        }
    }

    /// Starts what a partner needs beside the cycle. Returns whether it did.
    fn attend(&mut self, partner: &PartnerName, now: Timestamp, room: &mut usize) -> bool {
        let context = self.context.clone();
        let Some(state) = self.partners.get_mut(partner) else { return false };
        if state.busy || state.not_before > Instant::now() {
            return false;
        }
        let name = partner.clone();
        let terms = state.terms.clone();
        let Some(mut held) = state.held.take() else {
            if *room == 0 {
                state.let_go();
                return false;
            }
            *room -= 1;
            state.busy = true;
            self.tasks.spawn(timed(name.clone(), 30, async move { take_lease(&context, &name, &terms).await }));
            return true;
        };
        if held.told.as_ref() != Some(&terms) {
            state.busy = true;
            self.tasks.spawn(timed(name, 30, async move { tell(&context, held, &terms).await }));
            return true;
        }
        if held.lost.is_some() {
            // Like a hub that is away: what is there serves and ages, but for what may no longer be seen.
            if let Some(grant) = terms.open(now).filter(|grant| held.must_fence(grant)).cloned() {
                state.busy = true;
                self.tasks.spawn(timed(name, 30, async move { fence(&context, held, &grant).await }));
                return true;
            }
            state.held = Some(held);
            return false;
        }
        if let Some(grant) = terms.open(now).cloned() {
            if let Some(rebuild) = held.rebuild.or_else(|| context.desk.rebuild(&name)) {
                state.busy = true;
                held.rebuild = Some(rebuild);
                let work = rebuild::step(context, held, rebuild, grant, terms.generation);
                self.tasks.spawn(timed(name, 300, work));
                return true;
            }
            // A fence that nothing is left behind of, as when a narrowed scope was widened again, goes the same way.
            let whole = held.cursor.filled == ALL && held.cursor.snapshot.is_some() && !held.cursor.fenced;
            if state.compare || !held.follows(&grant) || !whole {
                let afresh = std::mem::take(&mut state.compare);
                state.busy = true;
                let work = async move { run_compare(&context, held, &grant, terms.generation, afresh).await };
                self.tasks.spawn(timed(name, 300, work));
                return true;
            }
            if let Some(turn) = context.desk.turn(&name) {
                state.busy = true;
                let work = verify::turn(context, held, grant, terms.generation, turn);
                self.tasks.spawn(timed(name, 300, work));
                return true;
            }
        }
        state.held = Some(held);
        false
    }

    /// The as-of row, once per half freshness objective; also when the hub's clock was put back. Returns whether any is due.
    fn touch(&mut self, now: Timestamp) -> bool {
        let mut started = false;
        for (partner, state) in &mut self.partners {
            let due = i64::from(state.terms.freshness_seconds) * 500;
            let idle = !state.busy && !state.compare && state.terms.open(now).is_some();
            let old = |held: &mut Held| {
                let written = held.cursor.as_of_millis.unwrap_or(0);
                held.exact_at.as_ref().is_some_and(|point| (point.millis - written).abs() >= due)
            };
            if let Some(held) = state.held.take_if(|held| idle && old(held)) {
                state.busy = true;
                started = true;
                let context = self.context.clone();
                self.tasks.spawn(timed(partner.clone(), 30, async move { touch(&context, held).await }));
            }
        }
        started
    }

    /// Probes the hub; if something changed, or somebody lags, routes it and starts what follows.
    async fn cycle(&mut self, now: Timestamp) -> Result<bool, Error> {
        let mut ready: Vec<(PartnerName, Slot, Grant, Snapshot, i64)> = Vec::new();
        for (partner, state) in &self.partners {
            let Some(held) = state.held.as_ref().filter(|_| !state.busy && !state.compare) else { continue };
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
        match tokio::time::timeout(bound, work).await {
            Ok(Ok(started)) => Ok(started),
            // As-of stands still meanwhile; the next round tries again.
            Ok(Err(Error::HubBusy)) => Ok(false),
            Ok(Err(error)) => {
                lane.discard();
                Err(error)
            }
            Err(_) => {
                lane.discard();
                Err(Error::Timeout { side: Side::Hub, seconds: bound.as_secs() })
            }
        }
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
                    && h.position().is_some_and(|s| s.xmin >= horizon && s.xmax <= point.snapshot.xmax)
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
            state.busy = true;
            started = true;
            let holds: HashSet<i64> = stays(&want, &source).filter(|f| self.members.holds(slot, *f)).collect();
            let (context, source, point, identity) =
                (self.context.clone(), source.clone(), point.clone(), identity.clone());
            let work = async move {
                deliver(&context, held, &grant, generation, &point, &identity, &want, &source, &holds).await
            };
            self.tasks.spawn(timed(partner, 60, work));
        }
        self.last = Some(point);
        Ok(started)
    }

    fn exact(&mut self, partner: &PartnerName, point: &Point, changes: bool) {
        if let Some(held) = self.partners.get_mut(partner).and_then(|s| s.held.as_mut()) {
            held.exact(point, changes);
        }
    }

    /// Rounds until every partner that may have records has all of them as of a snapshot taken after this call, or one has
    /// failed. For Jobs and tests.
    pub async fn converge(&mut self, now: Timestamp) -> Result<(), (PartnerName, &'static str, String)> {
        self.last = None;
        let mut fresh: HashSet<PartnerName> = HashSet::new();
        for state in self.partners.values_mut() {
            state.not_before = Instant::now();
            state.trouble = None;
        }
        // Only what a snapshot of this call showed counts, not what an earlier one did.
        let before: HashMap<PartnerName, Option<Point>> = self
            .partners
            .iter()
            .map(|(partner, state)| (partner.clone(), state.held.as_ref().and_then(|h| h.exact_at.clone())))
            .collect();
        loop {
            self.pace = Pace::default();
            match self.round(now).await {
                Ok(true) => {}
                Ok(false) => tokio::time::sleep(Duration::from_millis(5)).await,
                Err(error) => {
                    if let Some(partner) = self.partners.keys().next().cloned() {
                        return Err((partner, error.reason(), error.to_string()));
                    }
                }
            }
            while self.busy() {
                self.wait(Duration::from_secs(1)).await;
            }
            for (partner, standing) in self.standings(now) {
                if let Some((reason, message)) = standing.trouble {
                    return Err((partner, reason, message));
                }
                let held = self.partners.get(&partner).filter(|s| !s.compare).and_then(|s| {
                    // A batch that was under way when the terms changed is exact, and follows the old ones.
                    let follows = |h: &Held| s.terms.open(now).is_none_or(|grant| h.follows(grant));
                    s.held.as_ref().filter(|h| h.told.as_ref() == Some(&s.terms) && follows(h))
                });
                let Some(held) = held else { continue };
                let earlier = before.get(&partner).and_then(Option::as_ref);
                let later = held.exact_at.as_ref().is_some_and(|point| Some(point) != earlier);
                if !standing.open || (standing.complete && !standing.rebuilding && later) {
                    fresh.insert(partner);
                }
            }
            if fresh.len() == self.partners.len() {
                return Ok(());
            }
        }
    }

    /// Ends all tasks, and gives the leases back.
    pub async fn shut_down(mut self) {
        self.context.desk.stop();
        let grace = Instant::now();
        while self.busy() && grace.elapsed() < Duration::from_secs(20) {
            self.wait(Duration::from_secs(1)).await;
        }
        self.tasks.shutdown().await;
        let held: Vec<(PartnerName, i64)> =
            self.partners.values().filter_map(|s| s.held.as_ref()).map(|h| (h.partner.clone(), h.epoch)).collect();
        if let Ok(mut lane) = self.context.leases.lane("renew").await
            && let Ok(client) = lane.client()
        {
            let _ = hub_ledger::release(client, &held).await;
            if self.sharing.is_some() {
                let _ = hub_ledger::leave(client, &self.context.holder).await;
            }
        }
    }

    /// Trims the change log on the hub.
    pub async fn trim(&self) -> Result<u64, Error> {
        let mut lane = self.context.leases.lane("trim").await?;
        mark::trim(lane.client()?).await?;
        hub_ledger::trim(lane.client()?).await
    }
}

/// The files that the changed records of `want` are of now.
fn stays<'a>(want: &'a Want, source: &'a Source) -> impl Iterator<Item = i64> + 'a {
    let records = want.keys.iter().filter_map(|key| source.keys.get(key)?.as_ref()?.offender);
    want.stay.iter().copied().chain(records)
}
