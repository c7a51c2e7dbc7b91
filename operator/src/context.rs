//! What every reconcile is given: the client, the settings, the CA, metrics and the one event recorder.

use std::sync::Arc;

use jiff::Timestamp;
use kube::core::DeserializeGuard;
use kube::{
    Client,
    runtime::{
        events::{Recorder, Reporter},
        reflector::Store,
    },
};
use liaison_crds::PartnerConnection;
use tokio::sync::watch;

use crate::{
    apply,
    backoff::Backoff,
    ca::{Authority, Signer},
    gateway_keys::Gateway,
    install::Installed,
    metrics::Metrics,
    settings::Settings,
    slots::{BadPool, Pools},
};

/// Shared by all reconciles.
pub struct Context {
    /// Connection to the API server.
    pub client: Client,
    /// Settings.
    pub settings: Settings,
    /// Tunnel pools.
    pub pools: Pools,
    /// The issuing CA; another after a rotation.
    authority: watch::Sender<Arc<Authority>>,
    /// What signs statements and bundles; another when its certificate was renewed.
    signer: watch::Sender<Arc<Signer>>,
    /// What partners are told of the gateway; another while its own key changes.
    gateway: watch::Sender<Arc<Gateway>>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Waits after failures, for each object.
    pub backoff: Backoff,
    /// Events go through one recorder, which folds repetitions.
    pub recorder: Recorder,
    /// All connections, as last seen; None in tests of one object.
    pub connections: Option<Store<DeserializeGuard<PartnerConnection>>>,
    /// Held by who counts the verifications under way and may start one.
    pub verifying: tokio::sync::Mutex<()>,
    /// The clock.
    pub clock: fn() -> Timestamp,
}

impl Context {
    /// With everything but the store of connections.
    pub fn new(
        client: Client,
        settings: Settings,
        installed: Installed,
        metrics: Arc<Metrics>,
    ) -> Result<Self, BadPool> {
        let pools = Pools::parse(&settings.pool_v4, &settings.pool_v6)?;
        let reporter = Reporter { controller: apply::MANAGER.to_owned(), instance: Some(settings.pod_name.clone()) };
        Ok(Self {
            recorder: Recorder::new(client.clone(), reporter),
            client,
            settings,
            pools,
            authority: watch::Sender::new(installed.authority),
            signer: watch::Sender::new(installed.signer),
            gateway: watch::Sender::new(installed.gateway),
            metrics,
            backoff: Backoff::default(),
            connections: None,
            verifying: tokio::sync::Mutex::new(()),
            clock: Timestamp::now,
        })
    }

    /// The issuing CA, as it is now.
    pub fn authority(&self) -> Arc<Authority> {
        self.authority.borrow().clone()
    }

    /// What partners are told of the gateway, as it is now.
    pub fn gateway(&self) -> Arc<Gateway> {
        self.gateway.borrow().clone()
    }

    /// Takes what the installation has now: perhaps another issuing CA, other roots beside it, or another key of the gateway; then
    /// what was issued and told is looked at again.
    pub fn take(&self, installed: Installed) {
        let moved = *self.gateway.borrow() != installed.gateway;
        self.gateway.send_replace(installed.gateway);
        self.authority.send_if_modified(|held| {
            let other = !held.is_same(&installed.authority);
            *held = installed.authority;
            other || moved
        });
        self.signer.send_replace(installed.signer);
    }

    /// What signs statements and bundles, as it is now and as it will be.
    pub fn signers(&self) -> watch::Receiver<Arc<Signer>> {
        self.signer.subscribe()
    }

    /// Says when there is another.
    pub fn authorities(&self) -> watch::Receiver<Arc<Authority>> {
        self.authority.subscribe()
    }

    /// Now, in whole seconds, which is what Kubernetes keeps.
    pub fn now(&self) -> Timestamp {
        Timestamp::from_second((self.clock)().as_second()).unwrap_or(Timestamp::UNIX_EPOCH)
    }
}
