//! The data plane: WireGuard behind a small trait, and the packet filter between it and the host's stack.
//!
//! [`userspace`] is gotatun over a TUN device, [`kernel`] is the kernel's own by netlink. Peers are only ever added and removed one by
//! one; an address moves from one key to another in one step. Endpoints are learned from the peers' own packets and never written:
//! writing them would cut roaming partners.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use futures::future::BoxFuture;

use crate::{secrets::PresharedKey, state::WireGuardKey};

pub mod device;
pub mod filter;
pub mod kernel;
pub mod listeners;
mod udp;
pub mod userspace;

use listeners::LISTENERS;

/// What failed in the WireGuard device.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// The device.
    #[error("wireguard device: {0}")]
    Device(#[from] gotatun::device::Error),
    /// The TUN device, which was open already.
    #[error("TUN device: {0}")]
    Tun(#[from] std::io::Error),
    /// The kernel.
    #[error("wireguard of the kernel: {0}")]
    Kernel(#[from] kernel::KernelError),
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
    /// Tells its session from the one before, where a session counts only once the peer has sent something in it (kernel); 0: there was
    /// none. None where bytes say more (userspace).
    pub session: Option<u64>,
}

/// What ends the partners' tunnels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Running {
    /// The kernel.
    Kernel,
    /// This process.
    Userspace,
}

impl Running {
    /// The label in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Userspace => "userspace",
        }
    }
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
    /// Statistics of every peer that there is: whoever is not among them gets nothing through.
    fn peers(&self) -> BoxFuture<'_, Result<Vec<PeerStats>, TunnelError>>;
    /// Has a listener for each of the gateway's own keys, with all peers; closes one that has no key any more. No-op when they are
    /// the same.
    fn set_private_keys(&self, keys: PrivateKeys) -> BoxFuture<'_, Result<(), TunnelError>>;
    /// Called twice a second. While there are two listeners it looks by which of them each peer shook hands last, so that a partner
    /// that comes over and only receives does not stand still.
    fn compare(&self) -> BoxFuture<'_, ()>;
    /// Which it is.
    fn running(&self) -> Running;
    /// By which listener data has come from one of a partner's addresses, if any has since there are two.
    fn by(&self, addresses: &[IpAddr]) -> Option<usize>;
}

/// The gateway's own keys, one for each listener that is open.
pub type PrivateKeys = [Option<[u8; 32]>; LISTENERS];

/// One peer as two listeners see it.
fn together(one: PeerStats, other: PeerStats) -> PeerStats {
    let age = |stats: &PeerStats| stats.last_handshake.unwrap_or(Duration::MAX);
    let later = if age(&other) < age(&one) { other } else { one };
    PeerStats {
        rx_bytes: one.rx_bytes + other.rx_bytes,
        tx_bytes: one.tx_bytes + other.tx_bytes,
        endpoint: later.endpoint.or(one.endpoint).or(other.endpoint),
        ..later
    }
}
