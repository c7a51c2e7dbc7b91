//! The index of live connections, by which they are cut.
//!
//! Every connection is registered before it is judged, from the moment its TCP is accepted, whatever else is known of it:
//! so there is none that a change of the table does not reach.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use liaison_records::names::PartnerName;
use tokio_util::sync::CancellationToken;

use crate::{
    authorise::{Facts, Now, Refusal, Stage, View, authorise},
    metrics::Metrics,
    state::Fingerprint,
};

/// What the handshake of a connection showed.
#[derive(Debug)]
struct Shown {
    leaf: Option<Fingerprint>,
    sni: Option<String>,
    door: Door,
}

/// On which port a connection came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// That of HTTPS: a leaf is demanded.
    Https,
    /// That of enrolment: one may be there.
    Enrolment,
}

#[derive(Debug)]
struct Entry {
    partner: PartnerName,
    local: IpAddr,
    remote: IpAddr,
    /// Once the handshake is done.
    accepted: Option<Shown>,
    cut: CancellationToken,
}

/// The index.
#[derive(Debug)]
pub struct Connections {
    next: AtomicU64,
    live: Mutex<HashMap<u64, Entry>>,
    metrics: Arc<Metrics>,
}

/// A registered connection; leaves the index when dropped.
#[derive(Debug)]
pub struct Registered {
    id: u64,
    partner: PartnerName,
    index: Arc<Connections>,
}

impl Connections {
    /// An empty index.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { next: AtomicU64::new(0), live: Mutex::default(), metrics }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Entry>> {
        // Nothing panics while it is held; and if something did, cutting must go on.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a connection of a partner, unless it has `limit` already.
    pub fn register(
        self: &Arc<Self>,
        partner: &PartnerName,
        local: IpAddr,
        remote: IpAddr,
        limit: usize,
        cut: CancellationToken,
    ) -> Result<Registered, Refusal> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let mut live = self.lock();
        if live.values().filter(|e| e.partner == *partner).count() >= limit {
            return Err(Refusal::TooManyConnections);
        }
        live.insert(id, Entry { partner: partner.clone(), local, remote, accepted: None, cut });
        drop(live);
        self.metrics.connections(partner.as_str(), 1);
        Ok(Registered { id, partner: partner.clone(), index: Arc::clone(self) })
    }

    /// Judges every live connection anew and cuts those that are refused. Returns whose were cut, and why.
    pub fn recheck(&self, view: &View, now: Now) -> Vec<(PartnerName, Refusal)> {
        let mut cut = Vec::new();
        for entry in self.lock().values() {
            if entry.cut.is_cancelled() {
                continue;
            }
            let stage = match &entry.accepted {
                None => Stage::Opened,
                Some(Shown { leaf, sni, door: Door::Https }) => Stage::Accepted { leaf: *leaf, sni: sni.as_deref() },
                Some(Shown { leaf, sni, door: Door::Enrolment }) => {
                    Stage::Enrolling { leaf: *leaf, sni: sni.as_deref() }
                }
            };
            let facts = Facts { local: entry.local, remote: entry.remote, stage };
            let refusal = match authorise(&facts, view, now) {
                Ok(partner) if partner.name == entry.partner => continue,
                Ok(_) => Refusal::WrongSource,
                Err(refusal) => refusal,
            };
            entry.cut.cancel();
            self.metrics.cut(entry.partner.as_str());
            cut.push((entry.partner.clone(), refusal));
        }
        cut
    }

    /// Whether a partner has connections that were cut and have not ended yet.
    pub fn ending(&self, partner: &PartnerName) -> bool {
        self.lock().values().any(|entry| entry.partner == *partner && entry.cut.is_cancelled())
    }

    /// How many connections a partner has.
    pub fn count(&self, partner: &PartnerName) -> usize {
        self.lock().values().filter(|e| e.partner == *partner).count()
    }

    /// How many connections there are.
    pub fn total(&self) -> usize {
        self.lock().len()
    }
}

impl Registered {
    /// Notes what the handshake showed.
    pub fn accepted(&self, leaf: Option<Fingerprint>, sni: Option<String>, door: Door) {
        if let Some(entry) = self.index.lock().get_mut(&self.id) {
            entry.accepted = Some(Shown { leaf, sni, door });
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.index.lock().remove(&self.id);
        self.index.metrics.connections(self.partner.as_str(), -1);
    }
}
