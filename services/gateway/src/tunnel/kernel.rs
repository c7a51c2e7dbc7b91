//! WireGuard of the kernel: a link for each of the gateway's two listeners, and [`rules`] as the packet filter before the host's stack.
//!
//! What the kernel does otherwise than [`super::userspace`]:
//!
//! * It counts nothing of a key that holds no address, so the address moves when such a key has a session: the kernel says that a
//!   handshake is complete only when something came in it, or the answer to an initiation of its own, and neither can be a recording.
//!   A router that only keeps its tunnel alive therefore does take the address, until the other's next session.
//! * What goes to a partner goes by one link, by its route, and the route follows the link by which it was heard last.
//! * The links stay when the process dies. Who starts next in the pod makes them anew; until then a partner may shake hands, and
//!   nobody answers behind it.

pub mod netlink;
mod nft;
pub mod rules;
pub mod wireguard;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    net::{IpAddr, SocketAddr},
    process::Command,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::future::BoxFuture;
use netlink_sys::protocols::NETLINK_NETFILTER;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use self::{
    netlink::{Conversation, NetlinkError},
    rules::{Counted, Dropped},
    wireguard::{Found, Wanted, WireGuard},
};
use super::{
    PeerStats, PrivateKeys, Running, Tunnel, TunnelError,
    listeners::{LISTENERS, Switch},
    together,
};
use crate::{addresses::Addresses, metrics::Metrics, rotation::INITIATION, secrets::PresharedKey, state::WireGuardKey};

/// What the kernel did not do.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// `ip` could not be run.
    #[error("cannot run ip (iproute2 must be installed): {0}")]
    Run(io::Error),
    /// A link was not made, most often since the node's kernel has no WireGuard.
    #[error("no link: {0}")]
    Link(String),
    /// The conversation about a link or its peers.
    #[error("link: {0}")]
    WireGuard(#[source] NetlinkError),
    /// The conversation about the packet filter.
    #[error("packet filter (nftables): {0}")]
    Filter(#[source] NetlinkError),
    /// A route.
    #[error(transparent)]
    Route(#[from] crate::addresses::AddressError),
}

/// The links and the packet filter, without keys and peers. They go with this value.
pub struct Links {
    names: [String; LISTENERS],
    wireguard: WireGuard,
    filter: Conversation,
}

impl Links {
    /// Makes them, and the filter before them. What a process before left under these names is removed.
    ///
    /// # Errors
    ///
    /// Where the kernel has no WireGuard or no nftables, or the process no NET_ADMIN. Nothing is left then.
    pub fn make(name: &str) -> Result<Self, KernelError> {
        let names = [name.to_owned(), format!("{name}-2")];
        let mut filter = Conversation::open(NETLINK_NETFILTER).map_err(KernelError::Filter)?;
        for name in &names {
            // There is none, most often.
            let _ = link(&["del", "dev", name]);
        }
        let [first, second] = names.each_ref().map(String::as_str);
        filter.ask::<Counted>(rules::table(&[first, second])).map_err(KernelError::Filter)?;
        let made = [first, second]
            .into_iter()
            .try_for_each(|name| link(&["add", "dev", name, "type", "wireguard"]))
            .and_then(|()| WireGuard::open().map_err(KernelError::WireGuard));
        match made {
            Ok(wireguard) => Ok(Self { names, wireguard, filter }),
            Err(error) => {
                unmake(&names, &mut filter);
                Err(error)
            }
        }
    }

    /// Has them listen on these UDP ports, as soon as they are up.
    pub fn listen(mut self, ports: [u16; LISTENERS]) -> Result<Self, KernelError> {
        let mut each = self.names.iter().zip(ports);
        each.try_for_each(|(name, port)| self.wireguard.listen(name, port)).map_err(KernelError::WireGuard)?;
        Ok(self)
    }

    /// Their names, a listener each.
    pub const fn names(&self) -> &[String; LISTENERS] {
        &self.names
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        unmake(&self.names, &mut self.filter);
    }
}

fn unmake(names: &[String], filter: &mut Conversation) {
    for name in names {
        let _ = link(&["del", "dev", name]);
    }
    let _ = filter.ask::<Counted>(rules::no_table());
}

fn link(arguments: &[&str]) -> Result<(), KernelError> {
    let output = Command::new("ip").arg("link").args(arguments).output().map_err(KernelError::Run)?;
    if output.status.success() {
        return Ok(());
    }
    Err(KernelError::Link(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

/// The kernel's WireGuard.
pub struct Kernel {
    state: Arc<Mutex<State>>,
    switch: Arc<Switch>,
    addresses: Addresses,
    metrics: Arc<Metrics>,
    failed: CancellationToken,
}

/// What came by a link from each key until the last look.
#[derive(Default)]
struct Received(HashMap<WireGuardKey, PeerStats>);

impl Received {
    /// Whether something came since, that is no recording of an initiation.
    fn anew(&mut self, now: &PeerStats) -> bool {
        let before = self.0.insert(now.key, *now).filter(|before| before.rx_bytes <= now.rx_bytes);
        let (session, bytes) = before.map_or((Some(0), 0), |before| (before.session, before.rx_bytes));
        let another = now.session != session && now.session != Some(0);
        another || !(now.rx_bytes - bytes).is_multiple_of(INITIATION)
    }
}

struct State {
    links: Links,
    keys: PrivateKeys,
    /// The peers that each link with a key has.
    peers: BTreeMap<WireGuardKey, (Option<PresharedKey>, Vec<IpAddr>)>,
    /// Whose packets the filter lets through.
    through: BTreeSet<IpAddr>,
    /// Since there are two listeners: what came by each until the last look.
    received: [Received; LISTENERS],
    /// By which link each partner's address is routed, as far as it is known.
    routes: HashMap<IpAddr, usize>,
    /// What the filter had counted at the last look.
    dropped: HashMap<Dropped, u64>,
}

impl State {
    /// The links with a key, by their numbers.
    fn open(&self) -> Vec<usize> {
        (0..LISTENERS).filter(|link| self.keys[*link].is_some()).collect()
    }

    fn change(&mut self, link: usize, wanted: Vec<Wanted>) -> Result<(), KernelError> {
        let Links { names, wireguard, .. } = &mut self.links;
        wireguard.change(&names[link], wanted).map_err(KernelError::WireGuard)
    }

    /// Changes the same peers of every link with a key.
    fn change_all(&mut self, wanted: &[Wanted]) -> Result<(), KernelError> {
        self.open().into_iter().try_for_each(|link| self.change(link, wanted.to_vec()))
    }

    fn found(&mut self, link: usize) -> Result<Vec<Found>, KernelError> {
        let Links { names, wireguard, .. } = &mut self.links;
        wireguard.peers(&names[link]).map_err(KernelError::WireGuard)
    }

    /// Lets through whom these addresses belong to, instead of those before.
    fn let_through(&mut self, before: &[IpAddr], now: &[IpAddr]) -> Result<(), KernelError> {
        let added: Vec<IpAddr> = now.iter().filter(|address| !self.through.contains(address)).copied().collect();
        let removed: Vec<IpAddr> =
            before.iter().filter(|address| !now.contains(address) && self.through.contains(address)).copied().collect();
        if let Some(request) = rules::partners(&added, &removed) {
            self.links.filter.ask::<Counted>(request).map_err(KernelError::Filter)?;
        }
        for address in removed {
            self.through.remove(&address);
            self.routes.remove(&address);
        }
        self.through.extend(added);
        Ok(())
    }

    fn held(&self, key: WireGuardKey) -> Vec<IpAddr> {
        self.peers.get(&key).map(|(_, held)| held.clone()).unwrap_or_default()
    }

    fn add(
        &mut self,
        key: WireGuardKey,
        preshared: Option<PresharedKey>,
        addresses: Vec<IpAddr>,
    ) -> Result<(), KernelError> {
        self.change_all(&[Wanted::there(key, preshared, &addresses)])?;
        self.let_through(&self.held(key), &addresses)?;
        self.peers.insert(key, (preshared, addresses));
        Ok(())
    }

    fn remove(&mut self, key: WireGuardKey) -> Result<(), KernelError> {
        self.change_all(&[Wanted::gone(key)])?;
        self.let_through(&self.held(key), &[])?;
        self.peers.remove(&key);
        Ok(())
    }

    fn hand_over(&mut self, from: WireGuardKey, to: WireGuardKey, addresses: Vec<IpAddr>) -> Result<(), KernelError> {
        // The kernel takes an address from whom has it in the same step.
        let mut wanted = vec![Wanted::holds(to, &addresses)];
        if let Some((preshared, _)) = self.peers.get(&from).filter(|_| from != to) {
            // The other's session ends, so that it must shake hands again if it sends; else the kernel would answer it with
            // keepalives for two minutes.
            wanted.extend([Wanted::gone(from), Wanted::there(from, *preshared, &[])]);
        }
        self.change_all(&wanted)?;
        self.let_through(&[self.held(from), self.held(to)].concat(), &addresses)?;
        if let Some((_, held)) = self.peers.get_mut(&from) {
            held.clear();
        }
        if let Some((_, held)) = self.peers.get_mut(&to) {
            *held = addresses;
        }
        Ok(())
    }

    fn reach(&mut self, key: WireGuardKey, endpoint: SocketAddr) -> Result<(), KernelError> {
        self.change_all(&[Wanted::called(key, endpoint), Wanted::quiet(key)])
    }

    fn stats(&mut self) -> Result<Vec<PeerStats>, KernelError> {
        let mut all: BTreeMap<WireGuardKey, PeerStats> = BTreeMap::new();
        for link in self.open() {
            for Found { stats, .. } in self.found(link)? {
                all.entry(stats.key).and_modify(|other| *other = together(*other, stats)).or_insert(stats);
            }
        }
        Ok(all.into_values().collect())
    }

    fn set_keys(&mut self, keys: PrivateKeys) -> Result<(), KernelError> {
        for link in 0..LISTENERS {
            let (before, now) = (self.keys[link], keys[link]);
            let Some(key) = now.filter(|_| now != before) else { continue };
            let Links { names, wireguard, .. } = &mut self.links;
            wireguard.key(&names[link], &key).map_err(KernelError::WireGuard)?;
            // A link that is new has the peers of the other before it is used.
            if before.is_none() {
                let peers = self.peers.iter().map(|(key, (shared, held))| Wanted::there(*key, *shared, held)).collect();
                self.change(link, peers)?;
            }
            self.keys[link] = now;
        }
        Ok(())
    }

    fn close(&mut self, keys: PrivateKeys) -> Result<(), KernelError> {
        for link in 0..LISTENERS {
            if keys[link].is_none() && self.keys[link].is_some() {
                let Links { names, wireguard, .. } = &mut self.links;
                wireguard.close(&names[link]).map_err(KernelError::WireGuard)?;
                self.keys[link] = None;
            }
        }
        Ok(())
    }

    /// By which link each address was heard since the last look, in the order of the sessions.
    fn heard(&mut self) -> Result<Vec<(IpAddr, usize)>, KernelError> {
        let mut heard = Vec::new();
        for link in self.open() {
            let found = self.found(link)?;
            let received = &mut self.received[link];
            heard.extend(found.into_iter().filter(|peer| received.anew(&peer.stats)).map(|peer| (peer, link)));
        }
        heard.sort_by_key(|(peer, _)| Reverse(peer.stats.last_handshake.unwrap_or(Duration::MAX)));
        let each = heard.into_iter();
        Ok(each.flat_map(|(peer, link)| peer.addresses.into_iter().map(move |address| (address, link))).collect())
    }

    /// The addresses whose route is to go by another link, each with that.
    fn astray(&self, switch: &Switch) -> Vec<(IpAddr, usize)> {
        let wanted = self.through.iter().map(|address| (*address, usize::from(switch.goes(*address)[1])));
        wanted.filter(|(address, link)| self.routes.get(address) != Some(link)).collect()
    }

    /// What the filter has dropped since the last look.
    fn newly_dropped(&mut self) -> Result<Vec<(Dropped, u64)>, KernelError> {
        let counted: Vec<Counted> = self.links.filter.ask(rules::counted()).map_err(KernelError::Filter)?;
        let mut new = Vec::new();
        for (dropped, packets) in counted.into_iter().filter_map(|Counted(counted)| counted) {
            let before = self.dropped.insert(dropped, packets).unwrap_or(0);
            new.push((dropped, packets.saturating_sub(before)));
        }
        Ok(new)
    }
}

impl Kernel {
    /// Gives the links these keys. `failed` is cancelled when one of them is gone.
    pub async fn open(
        links: Links,
        keys: PrivateKeys,
        addresses: Addresses,
        metrics: Arc<Metrics>,
        failed: CancellationToken,
    ) -> Result<Self, TunnelError> {
        let state = State {
            links,
            keys: [None; LISTENERS],
            peers: BTreeMap::new(),
            through: BTreeSet::new(),
            received: Default::default(),
            routes: HashMap::new(),
            dropped: HashMap::new(),
        };
        let state = Arc::new(Mutex::new(state));
        let kernel = Self { state, switch: Arc::new(Switch::default()), addresses, metrics, failed };
        kernel.set_private_keys(keys).await?;
        Ok(kernel)
    }

    /// Speaks with the kernel where that holds up nobody.
    async fn with<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut State) -> Result<R, KernelError> + Send + 'static,
    ) -> Result<R, KernelError> {
        let state = Arc::clone(&self.state);
        let worked = spawn_blocking(move || work(&mut state.lock().unwrap_or_else(PoisonError::into_inner)));
        let result = worked.await.unwrap_or_else(|error| Err(KernelError::Run(io::Error::other(error))));
        if let Err(KernelError::WireGuard(error)) = &result
            && error.is_missing()
        {
            self.failed.cancel();
        }
        result
    }

    /// Has each address's route follow the switch.
    async fn route(&self) -> Result<(), KernelError> {
        let switch = Arc::clone(&self.switch);
        let astray = self.with(move |state| Ok(state.astray(&switch))).await?;
        if astray.is_empty() {
            return Ok(());
        }
        self.addresses.route(&astray).await?;
        self.with(move |state| {
            state.routes.extend(astray);
            Ok(())
        })
        .await
    }

    async fn look(&self) -> Result<(), KernelError> {
        let (dropped, heard) = self
            .with(|state| {
                let heard = if state.open().len() > 1 { state.heard()? } else { Vec::new() };
                Ok((state.newly_dropped()?, heard))
            })
            .await?;
        for (dropped, packets) in dropped {
            let (direction, reason) = dropped.labels();
            self.metrics.dropped_more(direction, reason, packets);
        }
        for (address, link) in heard {
            self.switch.came(address, link);
        }
        if self.switch.is_both() { self.route().await } else { Ok(()) }
    }
}

impl Tunnel for Kernel {
    fn add(
        &self,
        key: WireGuardKey,
        preshared: Option<PresharedKey>,
        addresses: Vec<IpAddr>,
    ) -> BoxFuture<'_, Result<(), TunnelError>> {
        Box::pin(async move { Ok(self.with(move |state| state.add(key, preshared, addresses)).await?) })
    }

    fn remove(&self, key: WireGuardKey) -> BoxFuture<'_, Result<(), TunnelError>> {
        Box::pin(async move { Ok(self.with(move |state| state.remove(key)).await?) })
    }

    fn hand_over(
        &self,
        from: WireGuardKey,
        to: WireGuardKey,
        addresses: Vec<IpAddr>,
    ) -> BoxFuture<'_, Result<(), TunnelError>> {
        Box::pin(async move { Ok(self.with(move |state| state.hand_over(from, to, addresses)).await?) })
    }

    fn reach(&self, key: WireGuardKey, endpoint: SocketAddr) -> BoxFuture<'_, Result<(), TunnelError>> {
        // Where there is no answer, the kernel's own timers try again.
        Box::pin(async move { Ok(self.with(move |state| state.reach(key, endpoint)).await?) })
    }

    fn peers(&self) -> BoxFuture<'_, Result<Vec<PeerStats>, TunnelError>> {
        Box::pin(async move { Ok(self.with(State::stats).await?) })
    }

    fn set_private_keys(&self, keys: PrivateKeys) -> BoxFuture<'_, Result<(), TunnelError>> {
        Box::pin(async move {
            self.with(move |state| state.set_keys(keys)).await?;
            let were_two = self.switch.is_both();
            self.switch.open(keys.map(|key| key.is_some()));
            if self.switch.is_both() {
                if !were_two {
                    // From now on; and no route is known to go by either.
                    self.with(|state| {
                        (state.received, state.routes) = Default::default();
                        state.heard().map(drop)
                    })
                    .await?;
                }
            } else {
                self.addresses.go_by(usize::from(!self.switch.first_alone()));
                self.route().await?;
            }
            Ok(self.with(move |state| state.close(keys)).await?)
        })
    }

    fn compare(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if let Err(error) = self.look().await {
                tracing::warn!(%error, "the kernel did not say what came");
            }
        })
    }

    fn running(&self) -> Running {
        Running::Kernel
    }

    fn by(&self, addresses: &[IpAddr]) -> Option<usize> {
        self.switch.by(addresses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_by_a_link_is_data_a_session_or_nothing() {
        let mut received = Received::default();
        let mut anew = |session, rx_bytes| {
            let key = WireGuardKey([1; 32]);
            let last_handshake = None;
            received.anew(&PeerStats {
                key,
                last_handshake,
                rx_bytes,
                tx_bytes: 0,
                endpoint: None,
                session: Some(session),
            })
        };
        assert!(!anew(0, 0), "a peer that is new");
        assert!(!anew(0, 148), "an initiation, which somebody may have recorded");
        assert!(anew(5, 148), "a session, of which something has come");
        assert!(!anew(5, 148), "nothing new");
        assert!(anew(5, 148 + 32), "it is kept alive");
        assert!(anew(6, 2 * 148 + 32), "the next session");
        assert!(!anew(6, 3 * 148 + 32));
        assert!(!anew(0, 0), "a peer that was made anew counts from nothing");
        assert!(anew(7, 148));
    }
}
