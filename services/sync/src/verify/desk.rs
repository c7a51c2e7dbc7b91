//! Which verifications this worker has before it, and how far each is.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use liaison_records::{
    names::PartnerName,
    set_hash::{Difference, Unit},
};
use tokio::task::AbortHandle;

use super::requests::Outcome;
use crate::{cursor::Point, rebuild::Rebuild, record::Hash};

/// How many a worker runs at once: each reads a whole replica, and the hub's part of it.
const AT_ONCE: usize = 1;
/// A turn that failed is tried again so often.
const ATTEMPTS: u32 = 5;
/// So many repairs must have made the difference smaller.
const REPAIRS: u32 = 3;

/// What differed, over all turns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Found {
    /// Files, reference records and pictures.
    pub units: u64,
    /// Buckets that they were in.
    pub buckets: u64,
}

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Whose.
    pub partner: PartnerName,
    /// The request.
    pub id: i64,
    /// Agreement that the replica follows.
    pub agreement: String,
    /// Generation of the connection.
    pub generation: i64,
    /// Snapshot S.
    pub point: Point,
    /// The hub that S is of.
    pub hub_identity: String,
    /// Last batch of the ledger that the replica has.
    pub batch: i64,
    /// The ledger's head with it.
    pub head: Vec<u8>,
    /// Of both sides.
    pub root: Hash,
    /// Files.
    pub files: i64,
    /// Records.
    pub records: i64,
    /// Pictures.
    pub photographs: i64,
    /// What differed before it was repaired.
    pub found: Found,
    /// Why it could not be shown.
    pub failure: Option<&'static str>,
}

impl Verified {
    /// How it ended.
    pub fn outcome(&self) -> Outcome {
        match (self.failure, self.found.units) {
            (Some(_), _) => Outcome::Failed,
            (None, 0) => Outcome::Equal,
            (None, _) => Outcome::Repaired,
        }
    }
}

/// What a turn is about.
#[derive(Debug, Clone)]
pub(crate) struct Turn {
    pub(super) id: i64,
    /// The replica is to be made anew first.
    rebuild: Option<Rebuild>,
    /// What is to be repaired first.
    pub(super) suspects: Option<BTreeSet<Unit>>,
    pub(super) found: Found,
    attempts: u32,
    repairs: u32,
    left: usize,
    not_before: Instant,
}

/// How a turn ended.
pub(super) enum Came {
    Equal(Box<Verified>),
    Differs(Difference),
    /// The replica must first be compared, or the hub is busy.
    Later,
    Failed(&'static str),
}

/// What is to be told of verifications.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// It ended with equal roots.
    Verified(Box<Verified>),
    /// The roots differed.
    Differed(PartnerName, Found),
    /// It was given up.
    GivenUp(PartnerName, i64, &'static str),
}

enum Entry {
    Waiting(Turn),
    Running(Option<AbortHandle>),
}

/// The verifications of one worker.
#[derive(Clone, Default)]
pub(crate) struct Desk(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    entries: HashMap<PartnerName, Entry>,
    /// The last request of each that ended here: a list read before that still has it.
    done: HashMap<PartnerName, i64>,
    news: Vec<News>,
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk").finish_non_exhaustive()
    }
}

impl Desk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The requests that are open now; what another worker has ended meanwhile is dropped.
    pub(crate) fn open(&self, requests: &[(PartnerName, i64, bool)]) {
        let mut state = self.state();
        state.entries.retain(|partner, entry| match entry {
            Entry::Waiting(turn) => requests.iter().any(|(p, id, _)| p == partner && *id == turn.id),
            // One that panicked told nobody.
            Entry::Running(handle) => handle.as_ref().is_none_or(|h| !h.is_finished()),
        });
        for (partner, id, anew) in requests {
            if state.done.get(partner) == Some(id) {
                continue;
            }
            state.entries.entry(partner.clone()).or_insert_with(|| {
                Entry::Waiting(Turn {
                    id: *id,
                    rebuild: anew.then_some(Rebuild { hide: false }),
                    suspects: None,
                    found: Found::default(),
                    attempts: 0,
                    repairs: 0,
                    left: usize::MAX,
                    not_before: Instant::now(),
                })
            });
        }
    }

    /// What is to be done for a partner now, if anything.
    pub(crate) fn turn(&self, partner: &PartnerName) -> Option<Turn> {
        let mut state = self.state();
        if state.entries.values().filter(|entry| matches!(entry, Entry::Running(..))).count() >= AT_ONCE {
            return None;
        }
        let entry = state.entries.get_mut(partner)?;
        let Entry::Waiting(turn) = entry else { return None };
        if turn.not_before > Instant::now() || turn.rebuild.is_some() {
            return None;
        }
        let turn = turn.clone();
        *entry = Entry::Running(None);
        Some(turn)
    }

    /// Whether a partner's replica is to be made anew, before it is verified.
    pub(crate) fn rebuild(&self, partner: &PartnerName) -> Option<Rebuild> {
        match self.state().entries.get(partner)? {
            Entry::Waiting(turn) => turn.rebuild,
            Entry::Running(_) => None,
        }
    }

    /// The request that asks for a replica made anew, before it is.
    pub(crate) fn asked_anew(&self, partner: &PartnerName) -> Option<i64> {
        match self.state().entries.get(partner)? {
            Entry::Waiting(turn) => turn.rebuild.map(|_| turn.id),
            Entry::Running(_) => None,
        }
    }

    /// It was made anew.
    pub(crate) fn rebuilt(&self, partner: &PartnerName) {
        if let Some(Entry::Waiting(turn)) = self.state().entries.get_mut(partner) {
            turn.rebuild = None;
        }
    }

    /// How to stop what is running.
    pub(super) fn running(&self, partner: &PartnerName, handle: AbortHandle) {
        if let Some(Entry::Running(slot)) = self.state().entries.get_mut(partner) {
            *slot = Some(handle);
        }
    }

    /// A turn ended.
    pub(super) fn ended(&self, partner: &PartnerName, mut turn: Turn, result: Came) {
        let mut state = self.state();
        let wait = |turn: &mut Turn, seconds: u64| turn.not_before = Instant::now() + Duration::from_secs(seconds);
        match result {
            Came::Equal(verified) => {
                state.done.insert(partner.clone(), turn.id);
                state.entries.remove(partner);
                tracing::info!(%partner, files = verified.files, records = verified.records,
                    mismatches = verified.found.units, root = hex::encode(verified.root), "replica verified");
                state.news.push(News::Verified(verified));
                return;
            }
            Came::Differs(difference) => {
                let found = Found { units: difference.units.len() as u64, buckets: difference.buckets.len() as u64 };
                tracing::warn!(%partner, units = found.units, buckets = found.buckets, "replica and hub differ");
                state.news.push(News::Differed(partner.clone(), found));
                turn.found.units += found.units;
                turn.found.buckets += found.buckets;
                turn.repairs = if difference.units.len() < turn.left { turn.repairs } else { turn.repairs + 1 };
                turn.left = difference.units.len();
                if difference.units.len() > super::MOST_REPAIRED {
                    // So much is no accident of a few rows, and some of it may be what the partner must not see.
                    turn.rebuild = Some(Rebuild { hide: true });
                    turn.suspects = None;
                } else {
                    turn.suspects = Some(difference.units);
                }
                if turn.repairs > REPAIRS {
                    state.entries.remove(partner);
                    state.done.insert(partner.clone(), turn.id);
                    state.news.push(News::GivenUp(partner.clone(), turn.id, "Mismatch"));
                    return;
                }
            }
            Came::Later => wait(&mut turn, 1),
            Came::Failed(reason) => {
                turn.attempts += 1;
                tracing::warn!(%partner, reason, attempt = turn.attempts, "a verification failed");
                if turn.attempts >= ATTEMPTS {
                    state.entries.remove(partner);
                    state.done.insert(partner.clone(), turn.id);
                    state.news.push(News::GivenUp(partner.clone(), turn.id, reason));
                    return;
                }
                let seconds = 1 << turn.attempts;
                wait(&mut turn, seconds);
            }
        }
        state.entries.insert(partner.clone(), Entry::Waiting(turn));
    }

    /// A request that was given up is closed on the hub, or could not be: then it is worked off again.
    pub(crate) fn closed(&self, partner: &PartnerName, id: i64, closed: bool) {
        let mut state = self.state();
        if closed {
            state.done.insert(partner.clone(), id);
        } else if state.done.get(partner) == Some(&id) {
            state.done.remove(partner);
        }
    }

    /// What happened since this was last asked.
    pub(crate) fn news(&self) -> Vec<News> {
        std::mem::take(&mut self.state().news)
    }

    /// Stops everything: the requests stay open, and are somebody else's.
    pub(crate) fn stop(&self) {
        for entry in std::mem::take(&mut self.state().entries).into_values() {
            if let Entry::Running(Some(handle)) = entry {
                handle.abort();
            }
        }
    }
}
