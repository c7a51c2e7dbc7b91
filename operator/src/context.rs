//! What every reconcile is given: the client, the settings, the CA, metrics and the one event recorder.

use std::{
    collections::{BTreeSet, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use jiff::Timestamp;
use kube::core::DeserializeGuard;
use kube::{
    Api, Client, Resource,
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
    claims::Claims,
    gateway_keys::Gateways,
    install::Installed,
    metrics::Metrics,
    partner_connection::status::{is_new, only_ours},
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
    /// What partners are told of each shard of the gateway; something else while its own key changes.
    gateways: watch::Sender<Arc<Gateways>>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Claims of slots and keys.
    pub claims: Claims,
    /// Waits after failures, for each object.
    pub backoff: Backoff,
    /// Events go through one recorder, which folds repetitions.
    pub recorder: Recorder,
    /// All connections, as last seen; None in tests of one object.
    pub connections: Option<Store<DeserializeGuard<PartnerConnection>>>,
    /// Held by who counts the verifications under way and may start one.
    pub verifying: tokio::sync::Mutex<()>,
    /// Held by who changes the Secrets of preshared keys, which partners have in common.
    pub preshared: tokio::sync::Mutex<()>,
    /// Connections whose replica was left for later, since others waited for credentials.
    left: Mutex<BTreeSet<String>>,
    /// What the visits themselves wrote, and need not look at again.
    pub written: Written,
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
        let claims = Claims::new(Api::namespaced(client.clone(), &settings.system_namespace));
        Ok(Self {
            recorder: Recorder::new(client.clone(), reporter),
            client,
            settings,
            pools,
            authority: watch::Sender::new(installed.authority),
            signer: watch::Sender::new(installed.signer),
            gateways: watch::Sender::new(installed.gateways),
            claims,
            metrics,
            backoff: Backoff::default(),
            connections: None,
            verifying: tokio::sync::Mutex::new(()),
            preshared: tokio::sync::Mutex::new(()),
            left: Mutex::default(),
            written: Written::default(),
            clock: Timestamp::now,
        })
    }

    /// The issuing CA, as it is now.
    pub fn authority(&self) -> Arc<Authority> {
        self.authority.borrow().clone()
    }

    /// What partners are told of each shard of the gateway, as it is now.
    pub fn gateways(&self) -> Arc<Gateways> {
        self.gateways.borrow().clone()
    }

    /// Takes what the installation has now: perhaps another issuing CA, other roots beside it, or another key of the gateway's own; then
    /// what was issued and told is looked at again.
    pub fn take(&self, installed: Installed) {
        let moved = *self.gateways.borrow() != installed.gateways;
        self.gateways.send_replace(installed.gateways);
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

    /// Takes what the API server answered to a write of a visit, so that the visit is not made again for it, unless something else has
    /// changed as well since it was read.
    pub fn wrote(&self, read: &PartnerConnection, answer: PartnerConnection) -> PartnerConnection {
        if only_ours(read, &answer) {
            self.written.note(&answer);
        }
        answer
    }

    /// How many connections wait for their first visit, or are at it, as far as the watch has told.
    pub fn newcomers(&self) -> usize {
        let waits = |other: &Arc<DeserializeGuard<PartnerConnection>>| {
            let there = other.0.as_ref().ok().filter(|there| there.metadata.deletion_timestamp.is_none());
            there.is_some_and(is_new)
        };
        self.connections.as_ref().map_or(0, |all| all.state().iter().filter(|other| waits(other)).count())
    }

    /// Notes that a connection's replica is left for later.
    pub fn leave(&self, partner: &str) {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).insert(partner.to_owned());
    }

    /// Whose replicas were left, once nobody waits for a first visit any more; each is told once.
    pub fn take_left(&self) -> BTreeSet<String> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        if left.is_empty() || self.newcomers() > 0 { BTreeSet::new() } else { std::mem::take(&mut *left) }
    }

    /// Now, in whole seconds, which is what Kubernetes keeps.
    pub fn now(&self) -> Timestamp {
        Timestamp::from_second((self.clock)().as_second()).unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

/// Versions of objects that are a visit's own work, until a watch has told of them. Each version of a kind is another object's or
/// another state's, so what somebody else has written meanwhile is never taken for it.
#[derive(Debug, Default)]
pub struct Written(Mutex<HashSet<(String, String)>>);

impl Written {
    /// Kept at most. With more, none is known: whoever is looked at again in vain is found as it should be.
    const MOST: usize = 10_000;

    /// Notes what the API server answered to a write.
    pub fn note<K: Resource<DynamicType = ()>>(&self, object: &K) {
        let Some(version) = version(object) else { return };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= Self::MOST {
            all.clear();
        }
        all.insert(version);
    }

    /// Whether the object is as a visit left it; asked once.
    pub fn is<K: Resource<DynamicType = ()>>(&self, object: &K) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        version(object).is_some_and(|version| all.remove(&version))
    }
}

fn version<K: Resource<DynamicType = ()>>(object: &K) -> Option<(String, String)> {
    Some((K::kind(&()).into_owned(), object.meta().resource_version.clone()?))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};

    use super::*;

    #[test]
    fn a_version_is_known_once_and_of_its_own_kind_alone() {
        let (mut job, mut pod) = (Job::default(), Pod::default());
        (job.metadata.resource_version, pod.metadata.resource_version) = (Some("7".into()), Some("7".into()));
        let written = Written::default();
        written.note(&job);
        assert!(!written.is(&pod) && written.is(&job) && !written.is(&job));
        // Without a version there is nothing to be known by.
        written.note(&Pod::default());
        assert!(!written.is(&Pod::default()));
    }
}
