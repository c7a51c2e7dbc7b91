//! The steady state: leases, cycles and comparisons for all partners of one worker. Knows nothing of Kubernetes.
//!
//! What a partner needs is a task of its own, over the lane of its store: one that hangs or fails is that partner's
//! problem. It falls behind, and joins again from its own cursor.

mod converge;
mod cycle;
mod leases;
mod standing;

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use liaison_records::names::PartnerName;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio_postgres::Client;

use self::{
    cycle::Pace,
    leases::{Sharing, quota},
    standing::Reached,
};
use crate::{
    cursor::{ALL, Point},
    error::Error,
    hub_ledger,
    partner::Held,
    rebuild,
    route::{Members, Slot},
    tasks::{Done, Finished, cut, on, run_compare, take_lease, take_out_sealed, timed},
    terms::Terms,
    verify::{self, News},
};

pub use self::standing::{Report, Standing};
pub use crate::tasks::Context;

/// The longest that a task may take which writes a row.
const SHORT: Duration = Duration::from_secs(30);
/// The longest that one may take which compares.
const LONG: Duration = Duration::from_secs(300);
/// How often a replica for which nothing may cross is rid of what is sealed.
const SWEEP: Duration = Duration::from_secs(60);

struct State {
    slot: Slot,
    terms: Terms,
    held: Option<Held>,
    /// The store's server when the lease was taken.
    server: u64,
    /// What is under way; it has the replica.
    task: Option<Task>,
    /// The lease of a task that was given up, since the terms take away what it may go on to write: the replica must be told before
    /// anything else.
    cut: Option<i64>,
    compare: bool,
    /// When a replica for which nothing may cross was last rid of what is sealed.
    swept: Option<Instant>,
    failures: u32,
    not_before: Instant,
    trouble: Option<(&'static str, String)>,
    /// How far the replica was when it was last looked at; what holds while a task is under way.
    reached: Reached,
}

/// A task of a partner, which ends with this.
struct Task {
    handle: AbortHandle,
    /// The lease that it has; `None`: it takes one.
    epoch: Option<i64>,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

impl State {
    fn new(slot: Slot, terms: Terms) -> Self {
        Self {
            slot,
            terms,
            held: None,
            server: 0,
            task: None,
            cut: None,
            compare: false,
            swept: None,
            failures: 0,
            not_before: Instant::now(),
            trouble: None,
            reached: Reached::default(),
        }
    }

    fn busy(&self) -> bool {
        self.task.is_some()
    }

    /// Starts what this partner needs, for at most so long.
    fn start(
        &mut self,
        tasks: &mut JoinSet<Done>,
        epoch: Option<i64>,
        bound: Duration,
        work: impl Future<Output = Result<Finished, Error>> + Send + 'static,
    ) {
        let handle = tasks.spawn(timed(self.terms.partner.clone(), bound, work));
        self.task = Some(Task { handle, epoch });
    }

    /// What is wanted from now on. What is under way for terms that allowed more is given up.
    fn follow(&mut self, terms: Terms) {
        // Suspension does not wait for a backoff to pass.
        self.not_before = Instant::now();
        if terms.takes_from(&self.terms)
            && let Some(task) = self.task.take()
        {
            self.cut = self.cut.or(task.epoch);
        }
        self.terms = terms;
    }

    /// Leaves the partner to another worker, which is the one to say how it stands.
    fn let_go(&mut self) {
        self.held = None;
        self.reached = Reached::default();
        self.trouble = Some(Error::LeaseHeld(self.terms.partner.clone())).map(|e| (e.reason(), e.to_string()));
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
                Some(state) => state.follow(terms),
                None => {
                    self.slots += 1;
                    self.partners.insert(terms.partner.clone(), State::new(self.slots, terms));
                }
            }
        }
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
        let renewed = self.renew(now).await;
        let mut started = false;
        let ours = self.partners.values().filter(|state| state.held.is_some() || state.busy()).count();
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
        let next = tokio::time::timeout(at_most, self.tasks.join_next_with_id());
        if let Ok(Some(joined)) = next.await {
            self.take(joined);
        }
    }

    fn reap(&mut self) {
        while let Some(joined) = self.tasks.try_join_next_with_id() {
            self.take(joined);
        }
    }

    fn take(&mut self, joined: Result<(Id, Done), JoinError>) {
        let has = |state: &State, id: Id| state.task.as_ref().is_some_and(|task| task.handle.id() == id);
        let (id, Done { partner, result, took }) = match joined {
            Ok(ended) => ended,
            // One that panicked told nobody whose it was.
            Err(error) => {
                let of = self.partners.iter().find(|(_, state)| has(state, error.id()));
                let Some((partner, _)) = of else { return };
                let result = Err(Error::Corrupt("a task of this partner ended without a word".to_owned()));
                (error.id(), Done { partner: partner.clone(), result, took: Duration::ZERO })
            }
        };
        // One that was given up is nobody's any more.
        let Some(state) = self.partners.get_mut(&partner).filter(|state| has(state, id)) else { return };
        let task = state.task.take();
        if state.cut.is_some() && task.is_some_and(|task| task.epoch == state.cut) {
            // Another has the lease, and the terms with it; or the replica was told.
            let told = matches!(result, Ok(_) | Err(Error::Fenced { .. } | Error::NotSeeded(_)));
            state.cut = state.cut.filter(|_| !told);
        }
        match result {
            Ok(Finished { held, written, cycle, files, enter, leave }) => {
                let lost = held.as_ref().is_some_and(|held| held.lost.is_some());
                let lost = lost.then(|| Error::LedgerLost(partner.clone()));
                state.trouble = lost.map(|error| (error.reason(), error.to_string()));
                state.held = held;
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

    /// Asks the hub which verifications are wanted, and closes those that were given up.
    async fn ask(&mut self) -> Result<(), Error> {
        let news = self.context.desk.news();
        if news.is_empty() && self.asked.is_some_and(|at| at.elapsed() < self.patience * 2) {
            return Ok(());
        }
        self.asked = Some(Instant::now());
        self.news.extend(news.iter().cloned());
        let desk = &self.context.desk;
        let given_up = news.iter().filter_map(|item| match item {
            News::GivenUp(partner, id, reason) => Some((partner, *id, *reason)),
            _ => None,
        });
        let mut requests = self
            .context
            .of_hub(async |hub| {
                for (partner, id, reason) in given_up {
                    let closed = verify::give_up(hub, id, reason).await;
                    desk.closed(partner, id, closed.is_ok());
                    closed?;
                }
                verify::open(hub).await
            })
            .await?;
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
        let tasks = &mut self.tasks;
        let Some(state) = self.partners.get_mut(partner) else { return false };
        if state.busy() || state.not_before > Instant::now() {
            return false;
        }
        let name = partner.clone();
        let terms = state.terms.clone();
        if let Some(epoch) = state.cut {
            let work = async move { cut(&context, &name, epoch, &terms).await };
            state.start(tasks, Some(epoch), SHORT, work);
            return true;
        }
        let server = context.store.server();
        // What it was on another may have been put back, or lost: step 1 again.
        let same = state.server == server;
        if !same && state.held.is_some() {
            *room = room.saturating_add(1);
        }
        let Some(mut held) = state.held.take().filter(|_| same) else {
            if *room == 0 {
                state.let_go();
                return false;
            }
            *room -= 1;
            state.server = server;
            state.start(tasks, None, SHORT, async move { take_lease(&context, &name, &terms).await });
            return true;
        };
        let epoch = Some(held.epoch);
        if held.told.as_ref() != Some(&terms) {
            let tell = async move |held: &mut Held, store: &mut Client| held.tell(store, &terms).await;
            state.start(tasks, epoch, SHORT, async move { on(&context, held, tell).await });
            return true;
        }
        let Some(grant) = terms.open(now).cloned() else {
            state.held = Some(held);
            return false;
        };
        // Before anything for which there may be a queue, and also while nothing may cross.
        if held.must_fence(&grant) {
            let faults = context.faults.clone();
            let fence = async move |held: &mut Held, store: &mut Client| held.fence(store, &grant, &faults).await;
            state.start(tasks, epoch, SHORT, async move { on(&context, held, fence).await });
            return true;
        }
        if held.lost.is_some() {
            // Like a hub that is away: what is there serves and ages, but for what may no longer be seen.
            if state.swept.is_none_or(|at| at.elapsed() >= SWEEP) {
                state.swept = Some(Instant::now());
                state.start(tasks, epoch, SHORT, async move { take_out_sealed(&context, held).await });
                return true;
            }
            state.held = Some(held);
            return false;
        }
        if let Some(rebuild) = held.rebuild.or_else(|| context.desk.rebuild(&name)) {
            held.rebuild = Some(rebuild);
            state.start(tasks, epoch, LONG, rebuild::step(context, held, rebuild, grant, terms.generation));
            return true;
        }
        // A fence that nothing is left behind of, as when a narrowed scope was widened again, goes the same way.
        let whole = held.cursor.filled == ALL && held.cursor.snapshot.is_some() && !held.cursor.fenced;
        if state.compare || !held.follows(&grant) || !whole {
            let afresh = std::mem::take(&mut state.compare);
            let work = async move { run_compare(&context, held, &grant, terms.generation, afresh).await };
            state.start(tasks, epoch, LONG, work);
            return true;
        }
        if let Some(turn) = context.desk.turn(&name) {
            state.start(tasks, epoch, LONG, verify::turn(context, held, grant, terms.generation, turn));
            return true;
        }
        state.held = Some(held);
        false
    }

    /// The as-of row, once per half freshness objective; also when the hub's clock was put back. Returns whether any is due.
    fn touch(&mut self, now: Timestamp) -> bool {
        let mut started = false;
        for state in self.partners.values_mut() {
            let due = i64::from(state.terms.freshness_seconds) * 500;
            let idle = !state.busy() && !state.compare && state.terms.open(now).is_some();
            let old = |held: &mut Held| {
                let written = held.cursor.as_of_millis.unwrap_or(0);
                held.exact_at.as_ref().is_some_and(|point| (point.millis - written).abs() >= due)
            };
            if let Some(held) = state.held.take_if(|held| idle && old(held)) {
                started = true;
                let (context, epoch) = (self.context.clone(), held.epoch);
                let touch = async |held: &mut Held, store: &mut Client| held.touch(store).await;
                state.start(&mut self.tasks, Some(epoch), SHORT, async move { on(&context, held, touch).await });
            }
        }
        started
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
        // Nobody waits longer for it than for leases to run out.
        let _ = self
            .context
            .of_hub(async |hub| {
                hub_ledger::release(hub, &held).await?;
                if self.sharing.is_some() {
                    hub_ledger::leave(hub, &self.context.holder).await?;
                }
                Ok(())
            })
            .await;
    }
}
