//! The control loop: what the API says, made into peers, addresses, the table, and cut connections.
//!
//! One task owns all of it. Taking away goes first and in this order: the table (so that nothing new is let in), live
//! connections, WireGuard peers, addresses. A step that fails is tried again at the next look; what it would have granted
//! is not there yet, and what it would have taken is refused by the table already.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{StreamExt as _, stream};
use liaison_crds::GatewayName;
use liaison_records::names::PartnerName;
use tokio::{
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use crate::{
    acknowledge::Acknowledgements,
    addresses::Addresses,
    authorise::{Now, View},
    checkpoint::Checkpoint,
    config::Config,
    connected::{self, Tracker, Written},
    feeds::{Change, Feeds, Observed, StatusWrite, Word},
    gate::Gate,
    lead::Standing,
    rotation::{Received, Told},
    secrets::{PresharedKey, Secrets, install, wanted_preshared},
    state::{Candidate, Closed, Partner, Slot, Table, WireGuardKey, candidate},
    traffic::Traffic,
    tunnel::{PeerStats, Tunnel, listeners::LISTENERS},
};

/// How often the clock is looked at.
const TICK: Duration = Duration::from_millis(500);
/// How often a partner with more than one key is looked at.
const ROTATION: Duration = Duration::from_millis(100);
/// Handshakes of ours at a time.
const AT_ONCE: usize = 64;
/// When what failed is tried again.
const AGAIN: Duration = Duration::from_secs(2);
/// How soon again, when what was revoked has not ended yet.
const SOON: Duration = Duration::from_millis(20);

/// What was done for a partner on the data plane.
#[derive(Debug, Default)]
struct Applied {
    slot: Option<Slot>,
    /// Its peers, each with the preshared key that it was added with.
    keys: BTreeMap<WireGuardKey, Option<PresharedKey>>,
    /// The key that holds the addresses.
    holder: Option<WireGuardKey>,
    /// Whether data has come by it.
    proved: bool,
    /// What has come by its keys.
    received: Received,
}

/// The control loop's state.
pub struct Control<T: ?Sized> {
    /// The shard.
    name: GatewayName,
    domain: String,
    staleness_limit: Duration,
    secrets: Secrets,
    /// The public keys that are listened with, base64.
    public_keys: [Option<String>; LISTENERS],
    /// Whether the listeners have the keys that there are.
    listening: bool,
    acknowledgements: Acknowledgements,
    gate: Arc<Gate>,
    tunnel: Arc<T>,
    addresses: Addresses,
    candidates: BTreeMap<PartnerName, Candidate>,
    written: BTreeMap<PartnerName, Written>,
    trackers: BTreeMap<PartnerName, Tracker>,
    told: BTreeMap<PartnerName, Told>,
    applied: BTreeMap<PartnerName, Applied>,
    gone: BTreeSet<PartnerName>,
    checkpoint: Checkpoint,
    state_dir: Option<PathBuf>,
    traffic: Traffic,
    /// What this process is in its shard.
    standing: Standing,
    /// Keys that the device may have though it did not say so: adding them failed.
    strays: BTreeSet<WireGuardKey>,
    /// Partners whose agreement has ended, or whose address or key another has too: of those the candidate does not say it.
    closed: BTreeMap<PartnerName, Closed>,
    heard: Option<Instant>,
    started: Instant,
    retry: Option<Instant>,
    serving: Arc<AtomicBool>,
}

impl<T: Tunnel + ?Sized> Control<T> {
    /// A loop that has heard nothing yet. `serving` is set while there is fresh word from the API.
    pub fn new(
        config: &Config,
        secrets: Secrets,
        gate: Arc<Gate>,
        tunnel: Arc<T>,
        addresses: Addresses,
        serving: Arc<AtomicBool>,
    ) -> Self {
        Self {
            name: config.name.clone(),
            domain: config.domain.clone(),
            staleness_limit: config.staleness_limit(),
            public_keys: secrets.public_keys(),
            listening: true,
            secrets,
            acknowledgements: Acknowledgements::new(config.name.to_string()),
            gate,
            tunnel,
            addresses,
            candidates: BTreeMap::new(),
            written: BTreeMap::new(),
            trackers: BTreeMap::new(),
            told: BTreeMap::new(),
            applied: BTreeMap::new(),
            gone: BTreeSet::new(),
            checkpoint: Checkpoint::default(),
            state_dir: config.state_dir.clone(),
            traffic: Traffic::default(),
            standing: Standing::Aside,
            strays: BTreeSet::new(),
            closed: BTreeMap::new(),
            heard: None,
            started: Instant::now(),
            retry: None,
            serving,
        }
    }

    /// Runs until `stop`.
    pub async fn run(mut self, mut feeds: Feeds, stop: CancellationToken) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut rotation = interval(ROTATION);
        rotation.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let first = *feeds.standing.borrow_and_update();
        self.lead(first, &feeds.serving).await;
        loop {
            let rotating = self.applied.values().any(|applied| applied.keys.len() > 1);
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                change = feeds.changes.recv() => {
                    // Without a source there is no word any more, nor a tick that would cut who may no longer be served: it ends.
                    let Some(change) = change else { return };
                    let mut changed = self.take(change);
                    while let Ok(change) = feeds.changes.try_recv() {
                        changed |= self.take(change);
                    }
                    if changed {
                        self.converge(Now::read(), true).await;
                        if self.standing.serves() && !self.acknowledge(Now::read(), &feeds.words).await {
                            tick.reset_after(SOON);
                        }
                    } else {
                        self.gate.set_view(self.view(self.gate.view().table));
                    }
                }
                Ok(()) = feeds.standing.changed() => {
                    let standing = *feeds.standing.borrow_and_update();
                    self.lead(standing, &feeds.serving).await;
                }
                Ok(()) = feeds.secrets.changed() => {
                    let secrets = feeds.secrets.borrow_and_update().clone();
                    self.rekey(&secrets).await;
                }
                _ = rotation.tick(), if rotating => self.follow().await,
                _ = tick.tick() => {
                    let now = Now::read();
                    self.converge(now, false).await;
                    if !self.listening {
                        self.listen().await;
                    }
                    self.tunnel.compare().await;
                    self.tell_listeners(&self.gate.view().table);
                    // What is said in status, whoever serves says.
                    if self.standing.serves() {
                        if !self.acknowledge(Now::read(), &feeds.words).await {
                            tick.reset_after(SOON);
                        }
                        self.look(now, &feeds.words).await;
                    }
                    self.gate.tell_suppressed(now.mono);
                }
            }
        }
    }

    /// Serves from now on, or leaves that to another.
    async fn lead(&mut self, standing: Standing, serving: &watch::Sender<bool>) {
        let before = std::mem::replace(&mut self.standing, standing);
        if before.serves() == standing.serves() {
            return;
        }
        self.gate.metrics.active.set(i64::from(standing.serves()));
        if standing.serves() {
            tracing::info!("this process serves");
            // Where partners were heard from by whoever served before.
            self.checkpoint = Checkpoint::load(self.state_dir.as_deref());
            self.started = Instant::now();
            serving.send_replace(true);
        } else {
            tracing::warn!("another process serves");
        }
        self.converge(Now::read(), true).await;
        // A peer that could not be removed is refused by the table; what it had open has been cut.
        serving.send_replace(standing.serves());
    }

    /// Takes a word in; tells whether a candidate changed.
    fn take(&mut self, change: Change) -> bool {
        self.heard = Some(Instant::now());
        self.gate.metrics.heard.set(jiff::Timestamp::now().as_second());
        match change {
            Change::Heard => false,
            Change::Applied(name, observed) => self.observe(&name, observed),
            Change::Deleted(name) => self.forget(&name),
            Change::Listed(list) => {
                let listed: BTreeSet<&str> = list.iter().map(|(name, _)| name.as_str()).collect();
                let missing: Vec<String> = self
                    .candidates
                    .keys()
                    .map(ToString::to_string)
                    .filter(|name| !listed.contains(name.as_str()))
                    .collect();
                let mut changed = false;
                for name in missing {
                    changed |= self.forget(&name);
                }
                for (name, observed) in list {
                    changed |= self.observe(&name, observed);
                }
                changed
            }
        }
    }

    fn observe(&mut self, object_name: &str, observed: Observed) -> bool {
        let Ok(name) = object_name.parse::<PartnerName>() else {
            tracing::warn!(object = object_name, "not a partner's name; ignored");
            return false;
        };
        let candidate = match observed {
            Ok(object) => {
                self.written.insert(name.clone(), Written::of(&object));
                self.told.entry(name.clone()).or_default().observe(&object, self.name.as_str());
                let remembered = self.acknowledgements.observe(&name, &object, jiff::Timestamp::now());
                candidate(&object, &self.domain, remembered)
            }
            Err(error) => {
                tracing::warn!(partner = %name, error, "object cannot be read; partner closed");
                // Whose it was, it is.
                let gateway = self.candidates.get(&name).map_or_else(|| self.name.to_string(), |c| c.gateway.clone());
                Candidate { gateway, partner: Err(Closed::Malformed) }
            }
        };
        let (ours, was_ours) = (self.is_ours(&candidate), self.candidates.get(&name).is_some_and(|c| self.is_ours(c)));
        if ours {
            self.gone.remove(&name);
        } else if was_ours {
            self.trackers.remove(&name);
            self.gone.insert(name.clone());
        }
        if self.candidates.get(&name) == Some(&candidate) {
            return false;
        }
        match &candidate.partner {
            _ if !ours && was_ours => tracing::info!(partner = %name, to = candidate.gateway, "partner moved"),
            _ if !ours => {}
            // The table says more of it.
            Ok(_) if self.closed.contains_key(&name) => {}
            Ok(_) => tracing::info!(partner = %name, "partner open"),
            Err(reason) => tracing::info!(partner = %name, %reason, "partner closed"),
        }
        self.candidates.insert(name, candidate);
        true
    }

    /// Whether a partner, open or closed, is this shard's. Of another's nothing is granted and nothing said here but that its
    /// revocation has taken effect.
    fn is_ours(&self, candidate: &Candidate) -> bool {
        candidate.gateway == self.name.as_str()
    }

    fn forget(&mut self, object_name: &str) -> bool {
        let Ok(name) = object_name.parse::<PartnerName>() else { return false };
        tracing::info!(partner = %name, "partner gone");
        self.written.remove(&name);
        self.trackers.remove(&name);
        self.told.remove(&name);
        self.acknowledgements.forget(&name);
        let changed = self.candidates.remove(&name).is_some();
        self.gone.insert(name);
        changed
    }

    fn view(&self, table: Arc<Table>) -> View {
        View { table, heard_until: self.heard.map(|at| at + self.staleness_limit) }
    }

    /// Brings everything in line with the candidates and the clock.
    async fn converge(&mut self, now: Now, changed: bool) {
        let fresh = self.heard.is_some_and(|at| now.mono < at + self.staleness_limit);
        if self.serving.swap(fresh, Ordering::Relaxed) != fresh {
            if fresh {
                tracing::info!("the API is heard; partners are served");
            } else {
                tracing::error!("no word from the API within the limit; nothing is served");
            }
        }
        let serves = fresh && self.standing.serves();
        let table = if serves { Table::build(&self.candidates, &self.name, now.wall) } else { Table::default() };
        let old = self.gate.view().table;
        let retry = self.retry.is_some_and(|at| at <= now.mono);
        let view = if table == *old { self.view(old) } else { self.view(Arc::new(table)) };
        let same = Arc::ptr_eq(&view.table, &self.gate.view().table);
        self.gate.set_view(view.clone());
        for (partner, refusal) in self.gate.connections.recheck(&view, now) {
            tracing::info!(%partner, reason = refusal.label(), "live connection cut");
        }
        if same && !changed && !retry {
            return;
        }
        self.gate.metrics.partners(view.table.partners().len(), view.table.closed().len());
        if serves {
            self.tell_closed(&view.table);
        }
        self.retry = None;
        self.take_away(&view.table).await;
        self.grant(&view.table).await;
    }

    /// Logs, once, whom the table closes though what is said of it alone would open it; and that it no longer does.
    fn tell_closed(&mut self, table: &Table) {
        let only_here = |reason: &Closed| matches!(reason, Closed::Ended | Closed::ClaimedTwice);
        let closed = table.closed().iter().filter(|(_, reason)| only_here(reason));
        let closed: BTreeMap<PartnerName, Closed> = closed.map(|(name, reason)| (name.clone(), *reason)).collect();
        for (partner, reason) in closed.iter().filter(|(name, reason)| self.closed.get(*name) != Some(*reason)) {
            tracing::warn!(%partner, %reason, "partner closed");
        }
        for partner in self.closed.keys().filter(|name| table.partners().contains_key(*name)) {
            tracing::info!(%partner, "partner open");
        }
        self.closed = closed;
    }

    async fn take_away(&mut self, table: &Table) {
        let mut freed = Vec::new();
        for key in std::mem::take(&mut self.strays) {
            if let Err(error) = self.tunnel.remove(key).await {
                self.strays.insert(key);
                self.gate.metrics.apply_errors.inc();
                tracing::error!(?key, %error, "a peer that was added by half is not removed; trying again");
                self.retry = Some(Instant::now() + AGAIN);
            }
        }
        for (name, applied) in &mut self.applied {
            let wanted = table.partners().get(name);
            // A preshared key that changed takes the peer away: its session was made with the old one.
            let keep = |key: &WireGuardKey, with: &Option<PresharedKey>| {
                wanted.is_some_and(|p| p.keys.contains(key) && wanted_preshared(&self.secrets, p, *key) == Ok(*with))
            };
            let same_slot = wanted.is_some_and(|p| Some(p.slot) == applied.slot);
            let doomed: Vec<_> =
                applied.keys.iter().filter(|(key, with)| !same_slot || !keep(key, with)).map(|(key, _)| *key).collect();
            for key in doomed {
                match self.tunnel.remove(key).await {
                    Ok(()) => {
                        applied.keys.remove(&key);
                        applied.holder = applied.holder.filter(|holder| *holder != key);
                        applied.proved &= applied.holder.is_some();
                        tracing::info!(partner = %name, "wireguard peer removed");
                    }
                    Err(error) => later(&mut self.retry, &self.gate, name, &error),
                }
            }
            if wanted.is_none() {
                self.gate.upstream.forget(name);
            }
            if !same_slot && let Some(slot) = applied.slot {
                freed.push((name.clone(), slot));
            }
        }
        for (name, slot) in freed {
            match self.addresses.remove(&slot).await {
                Ok(()) => {
                    if let Some(applied) = self.applied.get_mut(&name) {
                        applied.slot = None;
                    }
                }
                Err(error) => later(&mut self.retry, &self.gate, &name, &error),
            }
        }
        self.applied.retain(|_, applied| applied.slot.is_some() || !applied.keys.is_empty());
    }

    async fn grant(&mut self, table: &Table) {
        let new: Vec<Arc<Partner>> = table
            .partners()
            .values()
            .filter(|p| self.applied.get(&p.name).is_none_or(|a| a.slot != Some(p.slot)))
            .cloned()
            .collect();
        let slots: Vec<Slot> = new.iter().map(|p| p.slot).collect();
        let all = self.addresses.add(&slots).await;
        for partner in &new {
            // One slot that is refused must not keep the others out.
            let one = if all.is_ok() { Ok(()) } else { self.addresses.add(&[partner.slot]).await };
            match one {
                Ok(()) => self.applied.entry(partner.name.clone()).or_default().slot = Some(partner.slot),
                Err(error) => later(&mut self.retry, &self.gate, &partner.name, &error),
            }
        }
        let mut known = Vec::new();
        for partner in table.partners().values() {
            let Some(applied) = self.applied.get_mut(&partner.name).filter(|a| a.slot == Some(partner.slot)) else {
                continue;
            };
            for key in &partner.keys {
                if applied.keys.contains_key(key) {
                    continue;
                }
                let Ok(preshared) = wanted_preshared(&self.secrets, partner, *key) else {
                    tracing::warn!(partner = %partner.name, "a wireguard key waits for its preshared key");
                    continue;
                };
                let addresses = if applied.holder.is_none() { partner.slot.partner().to_vec() } else { Vec::new() };
                self.strays.insert(*key);
                match self.tunnel.add(*key, preshared, addresses).await {
                    Ok(()) => {
                        self.strays.remove(key);
                        applied.keys.insert(*key, preshared);
                        applied.holder = applied.holder.or(Some(*key));
                        tracing::info!(partner = %partner.name, "wireguard peer added");
                        known.extend(self.checkpoint.take(*key).map(|endpoint| (*key, endpoint)));
                    }
                    Err(error) => later(&mut self.retry, &self.gate, &partner.name, &error),
                }
            }
            // The key that held the addresses was removed: another takes them.
            if applied.holder.is_none()
                && let Some(key) = applied.keys.keys().next().copied()
            {
                match self.tunnel.hand_over(key, key, partner.slot.partner().to_vec()).await {
                    Ok(()) => applied.holder = Some(key),
                    Err(error) => later(&mut self.retry, &self.gate, &partner.name, &error),
                }
            }
        }
        self.reach(known);
    }

    /// Shakes hands with peers at the addresses where the process before heard them, several at a time.
    fn reach(&self, known: Vec<(WireGuardKey, SocketAddr)>) {
        if known.is_empty() {
            return;
        }
        tracing::info!(peers = known.len(), "partners are shaken hands with where they were before");
        let tunnel = Arc::clone(&self.tunnel);
        tokio::spawn(stream::iter(known).for_each_concurrent(AT_ONCE, move |(key, endpoint)| {
            let tunnel = Arc::clone(&tunnel);
            async move {
                if let Err(error) = tunnel.reach(key, endpoint).await {
                    tracing::warn!(%error, "a partner's old address was not tried");
                }
            }
        }));
    }

    /// Says which revocations have taken effect: the device has no peer, and the index no connection, that is not granted.
    /// False if one of them has not yet.
    async fn acknowledge(&mut self, now: Now, words: &mpsc::Sender<StatusWrite>) -> bool {
        let owed = self.acknowledgements.owed();
        self.gate.metrics.unacknowledged.set(i64::try_from(owed.len()).unwrap_or(i64::MAX));
        // One that was overtaken does not know of it, and may serve.
        if owed.is_empty() || self.standing != Standing::Alone {
            return true;
        }
        // What the device itself says, not what it was asked for.
        let peers = match self.tunnel.peers().await {
            Ok(peers) => peers,
            Err(error) => {
                tracing::error!(%error, "the device does not say whom it lets through; no revocation is acknowledged");
                return false;
            }
        };
        let table = self.gate.view().table;
        let granted: BTreeSet<WireGuardKey> = table.partners().values().flat_map(|p| p.keys.iter().copied()).collect();
        let mut all = true;
        for name in owed {
            let of_others =
                |key| self.applied.iter().any(|(other, applied)| *other != name && applied.keys.contains_key(key));
            let through = peers.iter().any(|peer| !granted.contains(&peer.key) && !of_others(&peer.key));
            if through || self.gate.connections.ending(&name) {
                all = false;
            } else if let Some(word) = self.acknowledgements.due(&name, now) {
                // A full queue is no loss: it is due again in a few seconds.
                let _ = words.try_send(StatusWrite { partner: name, word: Word::Revoked(word) });
            }
        }
        all
    }

    /// Moves the addresses of partners with more than one key to the key that their data comes by, without a gap.
    async fn follow(&mut self) {
        let Ok(peers) = self.tunnel.peers().await else { return };
        let peers: BTreeMap<WireGuardKey, PeerStats> = peers.into_iter().map(|peer| (peer.key, peer)).collect();
        let table = self.gate.view().table;
        for (name, applied) in &mut self.applied {
            let (true, Some(holder), Some(partner)) =
                (applied.keys.len() > 1, applied.holder, table.partners().get(name))
            else {
                continue;
            };
            let Some(key) = applied.received.by(applied.keys.keys().filter_map(|key| peers.get(key))) else { continue };
            if key == holder {
                applied.proved = true;
                continue;
            }
            match self.tunnel.hand_over(holder, key, partner.slot.partner().to_vec()).await {
                Ok(()) => {
                    (applied.holder, applied.proved) = (Some(key), true);
                    tracing::info!(partner = %name, "addresses moved to the partner's other key");
                }
                Err(error) => later(&mut self.retry, &self.gate, name, &error),
            }
        }
    }

    /// Looks at the peers: metrics, the condition, the key in use.
    async fn look(&mut self, now: Now, words: &mpsc::Sender<StatusWrite>) {
        let peers = match self.tunnel.peers().await {
            Ok(peers) => peers,
            Err(error) => return tracing::warn!(%error, "the device does not say what came"),
        };
        let owner: BTreeMap<WireGuardKey, &PartnerName> =
            self.applied.iter().flat_map(|(name, a)| a.keys.keys().map(move |key| (*key, name))).collect();
        let seen = self.traffic.look(&peers, &owner, now, &self.gate.metrics);

        let table = self.gate.view().table;
        for (name, applied) in &self.applied {
            let (Some(holder), Some(partner)) = (applied.holder, table.partners().get(name)) else { continue };
            if let Some(index) = partner.keys.iter().position(|key| *key == holder) {
                self.gate.metrics.key_in_use(name.as_str(), index);
            }
            let several = applied.keys.len() > 1;
            if (applied.proved || !several)
                && let Some(told) = self.told.get_mut(name)
                && let Some(word) = told.due(holder, several, self.name.as_str(), now)
            {
                // A full queue is no loss: it is due again in a few seconds.
                let _ = words.try_send(StatusWrite { partner: name.clone(), word: Word::InUse(word) });
            }
        }

        let heard: BTreeMap<WireGuardKey, Option<SocketAddr>> =
            peers.iter().map(|peer| (peer.key, peer.endpoint)).collect();
        let holders: Vec<_> = self.applied.values().filter_map(|applied| applied.holder).collect();
        let holders: Vec<_> = holders.into_iter().map(|key| (key, heard.get(&key).copied().flatten())).collect();
        // While nothing is served nobody is known; that is no news.
        if self.serving.load(Ordering::Relaxed)
            && let Err(error) = self.checkpoint.keep(&holders, now.mono).await
            && let Some(suppressed) = self.gate.quiet.admit("", "checkpoint", now.mono)
        {
            tracing::warn!(%error, suppressed, "it could not be kept where partners are");
        }

        let uptime = now.mono.duration_since(self.started);
        for (name, candidate) in &self.candidates {
            // The condition is one, and of several shards the partner's own writes it.
            if candidate.gateway != self.name.as_str() {
                continue;
            }
            // Not before the object was read: its condition would be written over.
            let Some(written) = self.written.get(name) else { continue };
            let open = table.partners().contains_key(name);
            let wanted = connected::wanted(open, seen.get(name).copied(), uptime, written);
            let tracker = self.trackers.entry(name.clone()).or_default();
            if let Some(reason) = tracker.due(wanted, written, self.tunnel.running(), now.mono) {
                let condition = connected::condition(reason, written, self.tunnel.running(), now.wall);
                // A full queue is no loss: it is due again in a few seconds.
                let _ = words.try_send(StatusWrite { partner: name.clone(), word: Word::Connected(condition) });
            }
        }
        let connections = &self.gate.connections;
        let (metrics, paces) = (&self.gate.metrics, &self.gate.paces);
        self.gone.retain(|name| {
            let busy = connections.count(name) > 0;
            if !busy {
                metrics.forget(name.as_str());
                paces.forget(name);
            }
            busy
        });
    }

    /// Says on the health port by which of the gateway's own keys each partner's data comes; under no key who has not been heard. That
    /// entry is there only while this process serves: else nobody is heard here, and it says nothing of anybody.
    fn tell_listeners(&self, table: &Table) {
        let keys = &self.public_keys;
        let mut said: BTreeMap<String, BTreeSet<String>> =
            keys.iter().flatten().map(|key| (key.clone(), BTreeSet::new())).collect();
        if self.standing.serves() && self.serving.load(Ordering::Relaxed) {
            said.insert(String::new(), BTreeSet::new());
            for partner in table.partners().values() {
                let by = self.tunnel.by(&partner.slot.partner()).and_then(|listener| keys.get(listener)?.clone());
                said.entry(by.unwrap_or_default()).or_default().insert(partner.name.to_string());
            }
        }
        self.gate.set_trust(|report| report.wireguard = said);
    }

    async fn rekey(&mut self, secrets: &Secrets) {
        install(&self.gate, secrets);
        let changed = self.secrets.preshared != secrets.preshared;
        self.secrets = secrets.clone();
        self.listen().await;
        if changed {
            self.converge(Now::read(), true).await;
        }
    }

    /// Has a listener for each of the gateway's own keys. A key that is not listened with yet is not told.
    async fn listen(&mut self) {
        match self.tunnel.set_private_keys(self.secrets.private_keys()).await {
            Ok(()) => (self.public_keys, self.listening) = (self.secrets.public_keys(), true),
            Err(error) => {
                self.listening = false;
                let now = Now::read().mono;
                if let Some(suppressed) = self.gate.quiet.admit("", "listener", now) {
                    tracing::error!(%error, suppressed, "the gateway's own key is not listened with; trying again");
                }
            }
        }
    }
}

fn later(retry: &mut Option<Instant>, gate: &Gate, partner: &PartnerName, error: &dyn std::fmt::Display) {
    gate.metrics.apply_errors.inc();
    tracing::error!(%partner, %error, "data plane not changed; trying again");
    *retry = Some(Instant::now() + AGAIN);
}
