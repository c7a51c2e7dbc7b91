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

mod links;
pub mod netlink;
mod nft;
pub mod rules;
mod state;
pub mod wireguard;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use futures::future::BoxFuture;
pub use links::Links;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use self::{netlink::NetlinkError, state::State};
use super::{PeerStats, PrivateKeys, Running, Tunnel, TunnelError, listeners::Switch};
use crate::{addresses::Addresses, metrics::Metrics, secrets::PresharedKey, state::WireGuardKey};

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

/// The kernel's WireGuard.
pub struct Kernel {
    state: Arc<Mutex<State>>,
    switch: Arc<Switch>,
    addresses: Addresses,
    metrics: Arc<Metrics>,
    failed: CancellationToken,
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
        let state = Arc::new(Mutex::new(State::new(links)));
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
            state.routed(astray);
            Ok(())
        })
        .await
    }

    async fn look(&self) -> Result<(), KernelError> {
        let (dropped, heard) = self
            .with(|state| {
                let heard = if state.is_both() { state.heard()? } else { Vec::new() };
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
                    self.with(State::listen_to_both).await?;
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
