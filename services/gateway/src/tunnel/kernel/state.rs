//! What the links and the filter were told, and telling them more. Each call waits for the kernel's answer; a step that fails is done
//! again by asking for the same.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{
    KernelError,
    links::Links,
    rules::{self, Counted, Dropped},
    wireguard::{Found, Wanted},
};
use crate::{
    rotation::INITIATION,
    secrets::PresharedKey,
    state::WireGuardKey,
    tunnel::{
        PeerStats, PrivateKeys,
        listeners::{LISTENERS, Switch},
        together,
    },
};

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

/// The links with their peers.
pub(super) struct State {
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
    /// Without keys and peers.
    pub(super) fn new(links: Links) -> Self {
        Self {
            links,
            keys: [None; LISTENERS],
            peers: BTreeMap::new(),
            through: BTreeSet::new(),
            received: Default::default(),
            routes: HashMap::new(),
            dropped: HashMap::new(),
        }
    }

    /// Whether both links have a key.
    pub(super) fn is_both(&self) -> bool {
        self.keys.iter().all(Option::is_some)
    }

    /// From now on what comes by each link is new, and no route is known to go by either.
    pub(super) fn listen_to_both(&mut self) -> Result<(), KernelError> {
        (self.received, self.routes) = Default::default();
        self.heard().map(drop)
    }

    /// These routes go by these links now.
    pub(super) fn routed(&mut self, routes: Vec<(IpAddr, usize)>) {
        self.routes.extend(routes);
    }

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

    pub(super) fn add(
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

    pub(super) fn remove(&mut self, key: WireGuardKey) -> Result<(), KernelError> {
        self.change_all(&[Wanted::gone(key)])?;
        self.let_through(&self.held(key), &[])?;
        self.peers.remove(&key);
        Ok(())
    }

    pub(super) fn hand_over(
        &mut self,
        from: WireGuardKey,
        to: WireGuardKey,
        addresses: Vec<IpAddr>,
    ) -> Result<(), KernelError> {
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

    pub(super) fn reach(&mut self, key: WireGuardKey, endpoint: SocketAddr) -> Result<(), KernelError> {
        self.change_all(&[Wanted::called(key, endpoint), Wanted::quiet(key)])
    }

    pub(super) fn stats(&mut self) -> Result<Vec<PeerStats>, KernelError> {
        let mut all: BTreeMap<WireGuardKey, PeerStats> = BTreeMap::new();
        for link in self.open() {
            for Found { stats, .. } in self.found(link)? {
                all.entry(stats.key).and_modify(|other| *other = together(*other, stats)).or_insert(stats);
            }
        }
        Ok(all.into_values().collect())
    }

    pub(super) fn set_keys(&mut self, keys: PrivateKeys) -> Result<(), KernelError> {
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

    pub(super) fn close(&mut self, keys: PrivateKeys) -> Result<(), KernelError> {
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
    pub(super) fn heard(&mut self) -> Result<Vec<(IpAddr, usize)>, KernelError> {
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
    pub(super) fn astray(&self, switch: &Switch) -> Vec<(IpAddr, usize)> {
        let wanted = self.through.iter().map(|address| (*address, usize::from(switch.goes(*address)[1])));
        wanted.filter(|(address, link)| self.routes.get(address) != Some(link)).collect()
    }

    /// What the filter has dropped since the last look.
    pub(super) fn newly_dropped(&mut self) -> Result<Vec<(Dropped, u64)>, KernelError> {
        let counted: Vec<Counted> = self.links.filter.ask(rules::counted()).map_err(KernelError::Filter)?;
        let mut new = Vec::new();
        for (dropped, packets) in counted.into_iter().filter_map(|Counted(counted)| counted) {
            let before = self.dropped.insert(dropped, packets).unwrap_or(0);
            new.push((dropped, packets.saturating_sub(before)));
        }
        Ok(new)
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
