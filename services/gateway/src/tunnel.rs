//! WireGuard behind a small trait, so that another implementation (kernel, boringtun) can follow.
//!
//! Peers are only ever added and removed one by one; an address moves from one key to another in one step. Endpoints are
//! learned from the peers' own packets and never written: writing them would cut roaming partners.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures::future::BoxFuture;
use gotatun::{
    device::{Device, DeviceBuilder, Peer},
    tun::tun_async_device::TunDevice,
    x25519::{PublicKey, StaticSecret},
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::{control::PresharedKey, filter::FilteredTun, metrics::Metrics, state::WireGuardKey, udp};

/// How long an answer to a handshake of ours is waited for.
const ANSWER: Duration = Duration::from_secs(2);

/// What failed in the WireGuard device.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// The device.
    #[error("wireguard device: {0}")]
    Device(#[from] gotatun::device::Error),
    /// The TUN device, which was open already.
    #[error("TUN device: {0}")]
    Tun(#[from] std::io::Error),
}

/// What is known of one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerStats {
    /// Its key.
    pub key: WireGuardKey,
    /// Time since the last completed handshake.
    pub last_handshake: Option<Duration>,
    /// Bytes received from it.
    pub rx_bytes: u64,
    /// Bytes sent to it.
    pub tx_bytes: u64,
    /// Where its last packet came from.
    pub endpoint: Option<SocketAddr>,
}

/// A WireGuard device.
pub trait Tunnel: Send + Sync + 'static {
    /// Adds a peer that holds `addresses` (each as /32 or /128); idempotent. With a preshared key it shakes hands with no
    /// one who lacks it.
    fn add(
        &self,
        key: WireGuardKey,
        preshared: Option<PresharedKey>,
        addresses: Vec<IpAddr>,
    ) -> BoxFuture<'_, Result<(), TunnelError>>;
    /// Removes a peer with its sessions; idempotent.
    fn remove(&self, key: WireGuardKey) -> BoxFuture<'_, Result<(), TunnelError>>;
    /// Moves `addresses` from one peer to another, with no instant at which neither holds them.
    fn hand_over(
        &self,
        from: WireGuardKey,
        to: WireGuardKey,
        addresses: Vec<IpAddr>,
    ) -> BoxFuture<'_, Result<(), TunnelError>>;
    /// Shakes hands with a peer that has not been heard yet, at the address where the process before heard it.
    fn reach(&self, key: WireGuardKey, endpoint: SocketAddr) -> BoxFuture<'_, Result<(), TunnelError>>;
    /// Statistics of every peer.
    fn peers(&self) -> BoxFuture<'_, Vec<PeerStats>>;
    /// Replaces the gateway's own key; a no-op when it is the same.
    fn set_private_key(&self, key: [u8; 32]) -> BoxFuture<'_, Result<(), TunnelError>>;
}

/// gotatun over a TUN device.
pub struct Userspace {
    device: Device<(udp::Factory, FilteredTun, FilteredTun)>,
}

impl Userspace {
    /// Takes the open TUN device and listens on the UDP port. `failed` is cancelled when the TUN device is gone.
    pub async fn open(
        tun: tun::Device,
        port: u16,
        private_key: [u8; 32],
        metrics: Arc<Metrics>,
        failed: CancellationToken,
    ) -> Result<Self, TunnelError> {
        let tun = TunDevice::from_tun_device(tun::AsyncDevice::new(tun)?).map_err(gotatun::device::Error::from)?;
        let device = DeviceBuilder::new()
            .with_udp(udp::Factory::default())
            .with_ip(FilteredTun::new(tun, metrics, failed))
            .with_private_key(StaticSecret::from(private_key))
            .with_listen_port(port)
            .build()
            .await?;
        // The builder does not listen as long as there is no peer; this brings the socket up.
        device.clear_peers().await?;
        Ok(Self { device })
    }

    /// Stops every task of the device.
    pub async fn close(self) {
        self.device.stop().await;
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
            let mut peer = Peer::new(PublicKey::from(key.0)).with_allowed_ips(addresses.into_iter().map(Into::into));
            peer.preshared_key = preshared.map(|key| key.0);
            self.device.add_peer(peer).await?;
            Ok(())
        })
    }

    fn remove(&self, key: WireGuardKey) -> BoxFuture<'_, Result<(), TunnelError>> {
        Box::pin(async move {
            self.device.remove_peer(&PublicKey::from(key.0)).await?;
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
            let (from, to) = (PublicKey::from(from.0), PublicKey::from(to.0));
            self.device
                .write(async |device| {
                    device.modify_peer(&from, gotatun::device::configure::PeerMut::clear_allowed_ips).await;
                    device.modify_peer(&to, |peer| peer.add_allowed_ips(addresses)).await;
                })
                .await?;
            Ok(())
        })
    }

    fn reach(&self, key: WireGuardKey, endpoint: SocketAddr) -> BoxFuture<'_, Result<(), TunnelError>> {
        Box::pin(async move {
            let key = PublicKey::from(key.0);
            self.device
                .write(async |device| {
                    device.modify_peer(&key, |peer| peer.set_endpoint(Some(endpoint))).await;
                })
                .await?;
            // Where there is no answer, the device's own timers try again.
            let _ = timeout(ANSWER, self.device.force_handshake(&key)).await;
            Ok(())
        })
    }

    fn peers(&self) -> BoxFuture<'_, Vec<PeerStats>> {
        Box::pin(async move {
            let peers = self.device.peers().await;
            peers
                .into_iter()
                .map(|p| PeerStats {
                    key: WireGuardKey(p.peer.public_key.to_bytes()),
                    last_handshake: p.stats.last_handshake,
                    rx_bytes: p.stats.rx_bytes as u64,
                    tx_bytes: p.stats.tx_bytes as u64,
                    endpoint: p.peer.endpoint,
                })
                .collect()
        })
    }

    fn set_private_key(&self, key: [u8; 32]) -> BoxFuture<'_, Result<(), TunnelError>> {
        Box::pin(async move {
            self.device.set_private_key(StaticSecret::from(key)).await?;
            Ok(())
        })
    }
}
