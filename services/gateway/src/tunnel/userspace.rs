//! WireGuard in this process, over a TUN device: gotatun, with [`super::filter`] between the two.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures::future::{BoxFuture, join_all};
use gotatun::{
    device::{Device, DeviceBuilder, Peer},
    x25519::{PublicKey, StaticSecret},
};
use tokio::{
    sync::Mutex,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tun_rs::SyncDevice;

use super::{
    PeerStats, PrivateKeys, Running, Tunnel, TunnelError, device,
    filter::{Incoming, Outgoing},
    listeners::{LISTENERS, Switch},
    together, udp,
};
use crate::{metrics::Metrics, secrets::PresharedKey, state::WireGuardKey};

/// How long an answer to a handshake of ours is waited for.
const ANSWER: Duration = Duration::from_secs(2);
/// How often, and after how long, a listener's socket is tried again.
const REOPENINGS: u32 = 50;
const REOPENING: Duration = Duration::from_millis(20);

/// gotatun over a TUN device.
pub struct Userspace {
    incoming: Incoming,
    switch: Arc<Switch>,
    ports: [u16; LISTENERS],
    state: Mutex<State>,
}

type Listener = Arc<Device<(udp::Factory, Incoming, Outgoing)>>;

struct State {
    keys: PrivateKeys,
    /// The first also reads the TUN device, so it is there without a key as well: with one that nobody knows, and no peers.
    first: Listener,
    second: Option<Listener>,
    /// The peers that each listener with a key has.
    peers: BTreeMap<WireGuardKey, (Option<PresharedKey>, Vec<IpAddr>)>,
}

impl State {
    /// The listeners with a key.
    fn open(&self) -> Vec<Listener> {
        let first = self.keys[0].is_some().then(|| Arc::clone(&self.first));
        first.into_iter().chain(self.second.clone()).collect()
    }
}

fn peer(key: WireGuardKey, preshared: Option<PresharedKey>, addresses: &[IpAddr]) -> Peer {
    let mut peer = Peer::new(PublicKey::from(key.0)).with_allowed_ips(addresses.iter().copied().map(Into::into));
    peer.preshared_key = preshared.map(|key| key.0);
    peer
}

async fn listen(
    port: u16,
    key: Option<[u8; 32]>,
    incoming: Incoming,
    outgoing: Outgoing,
) -> Result<Listener, TunnelError> {
    let device = DeviceBuilder::new()
        .with_udp(udp::Factory::default())
        .with_ip_pair(incoming, outgoing)
        .with_private_key(key.map_or_else(StaticSecret::random, StaticSecret::from))
        .with_listen_port(port)
        .build()
        .await?;
    // The builder does not listen as long as there is no peer; this brings the socket up.
    device.clear_peers().await?;
    Ok(Arc::new(device))
}

/// Gives a listener another key, and perhaps other peers. Its socket is opened anew with that; the one before may take a moment to
/// close.
async fn rekey(listener: &Listener, port: u16, key: StaticSecret, peers: Option<Vec<Peer>>) -> Result<(), TunnelError> {
    let changed = listener.write(async |device| {
        device.set_private_key(key).await;
        if let Some(peers) = peers {
            device.clear_peers();
            device.add_peers(peers);
        }
    });
    let mut opened = changed.await;
    for _ in 0..REOPENINGS {
        if opened.is_ok() {
            break;
        }
        sleep(REOPENING).await;
        // That it is to be opened is said by another port alone.
        for port in [0, port] {
            opened = listener.write(async |device| device.set_listen_port(port)).await;
        }
    }
    Ok(opened?)
}

impl Userspace {
    /// Takes the open TUN device and listens on the UDP ports of those listeners that have a key. `failed` is cancelled when
    /// the TUN device is gone.
    pub async fn open(
        tun: SyncDevice,
        ports: [u16; LISTENERS],
        keys: PrivateKeys,
        metrics: Arc<Metrics>,
        failed: CancellationToken,
    ) -> Result<Self, TunnelError> {
        let (reader, writer) = device::split(tun, &metrics, &failed)?;
        let switch = Arc::new(Switch::default());
        let outgoing = Outgoing::of_device(reader, Arc::clone(&metrics), Arc::clone(&switch));
        let incoming = Incoming::new(writer, metrics, Arc::clone(&switch));
        let first = listen(ports[0], keys[0], incoming.clone(), outgoing).await?;
        let state = State { keys: [keys[0], None], first, second: None, peers: BTreeMap::new() };
        let tunnel = Self { incoming, switch, ports, state: Mutex::new(state) };
        tunnel.set_private_keys(keys).await?;
        Ok(tunnel)
    }
}

impl Tunnel for Userspace {
    fn add(
        &self,
        key: WireGuardKey,
        preshared: Option<PresharedKey>,
        addresses: Vec<IpAddr>,
    ) -> BoxFuture<'_, Result<(), TunnelError>> {
        Box::pin(async move {
            let mut state = self.state.lock().await;
            for listener in state.open() {
                listener.add_peer(peer(key, preshared, &addresses)).await?;
            }
            state.peers.insert(key, (preshared, addresses));
            Ok(())
        })
    }

    fn remove(&self, key: WireGuardKey) -> BoxFuture<'_, Result<(), TunnelError>> {
        Box::pin(async move {
            let mut state = self.state.lock().await;
            for listener in state.open() {
                listener.remove_peer(&PublicKey::from(key.0)).await?;
            }
            state.peers.remove(&key);
            Ok(())
        })
    }

    fn hand_over(
        &self,
        from: WireGuardKey,
        to: WireGuardKey,
        addresses: Vec<IpAddr>,
    ) -> BoxFuture<'_, Result<(), TunnelError>> {
        Box::pin(async move {
            let mut state = self.state.lock().await;
            let (old, new) = (PublicKey::from(from.0), PublicKey::from(to.0));
            for listener in state.open() {
                let addresses = addresses.clone();
                listener
                    .write(async |device| {
                        device.modify_peer(&old, gotatun::device::configure::PeerMut::clear_allowed_ips).await;
                        device.modify_peer(&new, |peer| peer.add_allowed_ips(addresses)).await;
                    })
                    .await?;
            }
            if let Some((_, held)) = state.peers.get_mut(&from) {
                held.clear();
            }
            if let Some((_, held)) = state.peers.get_mut(&to) {
                *held = addresses;
            }
            Ok(())
        })
    }

    fn reach(&self, key: WireGuardKey, endpoint: SocketAddr) -> BoxFuture<'_, Result<(), TunnelError>> {
        Box::pin(async move {
            // By which of them it was heard is not known; it answers to the one that it knows.
            let open = self.state.lock().await.open();
            let key = PublicKey::from(key.0);
            let tried = join_all(open.iter().map(async |listener| {
                listener
                    .write(async |device| {
                        device.modify_peer(&key, |peer| peer.set_endpoint(Some(endpoint))).await;
                    })
                    .await?;
                // Where there is no answer, the device's own timers try again.
                let _ = timeout(ANSWER, listener.force_handshake(&key)).await;
                Ok(())
            }));
            tried.await.into_iter().collect()
        })
    }

    fn peers(&self) -> BoxFuture<'_, Result<Vec<PeerStats>, TunnelError>> {
        Box::pin(async move {
            let open = self.state.lock().await.open();
            let mut all: BTreeMap<WireGuardKey, PeerStats> = BTreeMap::new();
            for found in join_all(open.iter().map(|listener| listener.peers())).await.into_iter().flatten() {
                let stats = PeerStats {
                    key: WireGuardKey(found.peer.public_key.to_bytes()),
                    last_handshake: found.stats.last_handshake,
                    rx_bytes: found.stats.rx_bytes as u64,
                    tx_bytes: found.stats.tx_bytes as u64,
                    endpoint: found.peer.endpoint,
                    session: None,
                };
                all.entry(stats.key).and_modify(|other| *other = together(*other, stats)).or_insert(stats);
            }
            Ok(all.into_values().collect())
        })
    }

    fn set_private_keys(&self, keys: PrivateKeys) -> BoxFuture<'_, Result<(), TunnelError>> {
        Box::pin(async move {
            let mut state = self.state.lock().await;
            let before = state.keys;
            let peers: Vec<Peer> = state.peers.iter().map(|(key, (shared, held))| peer(*key, *shared, held)).collect();
            // A listener that is new has the peers of the other before it is used.
            let peers_of = |listener: usize| before[listener].is_none().then(|| peers.clone());
            if let Some(key) = keys[0].filter(|_| keys[0] != before[0]) {
                rekey(&state.first, self.ports[0], StaticSecret::from(key), peers_of(0)).await?;
            }
            let second = match (keys[1], state.second.clone()) {
                (None, _) => None,
                (Some(key), second) => {
                    let second = if let Some(second) = second {
                        second
                    } else {
                        let outgoing = Outgoing::of_second(&self.switch);
                        listen(self.ports[1], Some(key), self.incoming.second(), outgoing).await?
                    };
                    match peers_of(1) {
                        Some(peers) => drop(second.add_peers(peers).await?),
                        None if keys[1] != before[1] => {
                            rekey(&second, self.ports[1], StaticSecret::from(key), None).await?;
                        }
                        None => {}
                    }
                    Some(second)
                }
            };
            self.switch.open(keys.map(|key| key.is_some()));
            if keys[0].is_none() && before[0].is_some() {
                rekey(&state.first, self.ports[0], StaticSecret::random(), Some(Vec::new())).await?;
            }
            (state.keys, state.second) = (keys, second);
            Ok(())
        })
    }

    fn compare(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let open = self.state.lock().await.open();
            let [first, second] = open.as_slice() else { return };
            let mut latest: HashMap<IpAddr, (Duration, usize)> = HashMap::new();
            for (listener, device) in [first, second].into_iter().enumerate() {
                for found in device.peers().await {
                    let Some(age) = found.stats.last_handshake else { continue };
                    for address in found.peer.allowed_ips {
                        let known = latest.entry(address.ip()).or_insert((age, listener));
                        *known = (*known).min((age, listener));
                    }
                }
            }
            self.switch.shook(latest.into_iter().map(|(address, (_, listener))| (address, listener)).collect());
        })
    }

    fn running(&self) -> Running {
        Running::Userspace
    }

    fn by(&self, addresses: &[IpAddr]) -> Option<usize> {
        self.switch.by(addresses)
    }
}
