//! What Kubernetes says: watches of the two resources, boiled down to each partner's terms, and the DataFresh condition.

use std::collections::BTreeMap;

use futures::{Stream, StreamExt};
use jiff::Timestamp;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams},
    core::DeserializeGuard,
    runtime::{WatchStreamExt, watcher},
};
use liaison_crds::{PartnerConnection, SharingAgreement};
use liaison_records::names::PartnerName;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::{
    error::Error,
    retention::Retention,
    status::{Condition, Fresh},
    terms::Terms,
};

const MANAGER: &str = "liaison-sync";

/// What is wanted of a partner, and what its object says of freshness.
#[derive(Debug, Clone, PartialEq)]
pub struct Desired {
    /// Its terms.
    pub terms: Terms,
    /// The status of DataFresh in its object.
    pub fresh: Fresh,
    /// Since when.
    pub since: Option<Timestamp>,
    /// How long its replica may stay; `None`: its object cannot be read, and may hold it.
    pub retention: Option<Retention>,
}

impl Desired {
    /// Whether its replica may be disposed of, if its time has come: nothing that was said since speaks against it.
    pub fn disposable(&self, now: Timestamp) -> bool {
        self.terms.open(now).is_none() && self.retention.as_ref().is_some_and(|retention| !retention.hold)
    }
}

/// All objects of the two kinds, as last heard.
#[derive(Debug, Default)]
struct Objects {
    connections: Kept<PartnerConnection>,
    agreements: Kept<SharingAgreement>,
}

/// The objects of one kind.
#[derive(Debug)]
struct Kept<K> {
    objects: BTreeMap<String, Read<K>>,
    listing: Option<BTreeMap<String, Read<K>>>,
    listed: bool,
}

/// An object, or the generation of one that cannot be read.
type Read<K> = Result<K, i64>;

impl<K> Default for Kept<K> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), listing: None, listed: false }
    }
}

impl<K: Resource<DynamicType = ()>> Kept<K> {
    fn take(&mut self, event: watcher::Event<DeserializeGuard<K>>) {
        match event {
            watcher::Event::Init => self.listing = Some(BTreeMap::new()),
            watcher::Event::InitApply(object) => {
                self.listing.get_or_insert_default().insert(object.name_any(), readable(object));
            }
            watcher::Event::InitDone => {
                self.objects = self.listing.take().unwrap_or_default();
                self.listed = true;
            }
            watcher::Event::Apply(object) => {
                self.objects.insert(object.name_any(), readable(object));
            }
            watcher::Event::Delete(object) => {
                self.objects.remove(&object.name_any());
            }
        }
    }
}

fn readable<K: Resource<DynamicType = ()>>(object: DeserializeGuard<K>) -> Read<K> {
    object.0.map_err(|invalid| {
        let name = invalid.metadata.name.unwrap_or_default();
        tracing::warn!(%name, kind = %K::kind(&()), "an object cannot be read: its share is closed");
        invalid.metadata.generation.unwrap_or(0)
    })
}

/// The terms of all partners of `store`.
fn desired(objects: &Objects, store: &str) -> Vec<Desired> {
    let agreements = &objects.agreements.objects;
    objects
        .connections
        .objects
        .iter()
        .filter_map(|(name, connection)| {
            let connection = match connection {
                Ok(connection) => connection,
                // In which store it is cannot be read either: a worker of another finds no replica of that name.
                Err(generation) => {
                    let terms = Terms::unreadable(name.parse().ok()?, *generation);
                    return Some(Desired { terms, fresh: Fresh::Unknown, since: None, retention: None });
                }
            };
            let named = connection.status.as_ref().and_then(|status| status.store_name.as_deref());
            let named = named.or(connection.spec.replica.as_ref().map(|r| r.store_name.as_str()));
            if named.is_some_and(|name| name != store) {
                return None;
            }
            let agreement = agreements.get(&connection.spec.agreement_ref.name).and_then(|a| a.as_ref().ok());
            let terms = Terms::of(connection, agreement)?;
            let retention = Some(Retention::of(&terms.partner, connection, agreement));
            let (fresh, since) = Fresh::of(connection);
            Some(Desired { terms, fresh, since, retention })
        })
        .collect()
}

/// Watches both kinds in `namespace` until the receiver is dropped. `None` until both have been listed.
pub fn watch_terms(client: &Client, namespace: &str, store: String) -> watch::Receiver<Option<Vec<Desired>>> {
    let (sender, receiver) = watch::channel(None);
    let connections = events(Api::<DeserializeGuard<PartnerConnection>>::namespaced(client.clone(), namespace));
    let agreements = events(Api::<DeserializeGuard<SharingAgreement>>::namespaced(client.clone(), namespace));
    tokio::spawn(async move {
        let mut objects = Objects::default();
        let mut connections = std::pin::pin!(connections);
        let mut agreements = std::pin::pin!(agreements);
        loop {
            tokio::select! {
                Some(event) = connections.next() => objects.connections.take(event),
                Some(event) = agreements.next() => objects.agreements.take(event),
                () = sender.closed() => return,
                else => return,
            }
            if objects.connections.listed && objects.agreements.listed {
                let now = Some(desired(&objects, &store));
                sender.send_if_modified(|before| {
                    let differs = *before != now;
                    *before = now;
                    differs
                });
            }
        }
    });
    receiver
}

/// Events of a kind, for ever: errors are logged and waited out.
fn events<K>(api: Api<DeserializeGuard<K>>) -> impl Stream<Item = watcher::Event<DeserializeGuard<K>>> + Send
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Send + Sync + 'static,
{
    watcher(api, watcher::Config::default())
        .default_backoff()
        .modify(|object| object.managed_fields_mut().clear())
        .filter_map(|event| async move {
            event.inspect_err(|error| tracing::warn!(%error, "watching the Kubernetes API failed, trying again")).ok()
        })
}

/// The terms of one partner, asked once; `None` when there is no such connection.
pub async fn terms_of(client: &Client, namespace: &str, partner: &PartnerName) -> Result<Option<Terms>, Error> {
    let kubernetes = |error: kube::Error| Error::Kubernetes(error.to_string());
    let connections: Api<PartnerConnection> = Api::namespaced(client.clone(), namespace);
    let Some(connection) = connections.get_opt(partner.as_str()).await.map_err(kubernetes)? else { return Ok(None) };
    let agreements: Api<SharingAgreement> = Api::namespaced(client.clone(), namespace);
    let agreement = agreements.get_opt(&connection.spec.agreement_ref.name).await.map_err(kubernetes)?;
    Ok(Terms::of(&connection, agreement.as_ref()))
}

/// A connection as it stands, and its agreement.
pub async fn connection(
    client: &Client,
    namespace: &str,
    partner: &PartnerName,
) -> Result<Option<(PartnerConnection, Option<SharingAgreement>)>, Error> {
    let kubernetes = |error: kube::Error| Error::Kubernetes(error.to_string());
    let connections: Api<PartnerConnection> = Api::namespaced(client.clone(), namespace);
    let Some(connection) = connections.get_opt(partner.as_str()).await.map_err(kubernetes)? else { return Ok(None) };
    let agreements: Api<SharingAgreement> = Api::namespaced(client.clone(), namespace);
    let agreement = agreements.get_opt(&connection.spec.agreement_ref.name).await.map_err(kubernetes)?;
    Ok(Some((connection, agreement)))
}

/// Writes DataFresh by server-side apply; nothing else of status is ours.
pub async fn write_condition(
    client: &Client,
    namespace: &str,
    partner: &PartnerName,
    condition: &Condition,
) -> Result<(), Error> {
    let api: Api<PartnerConnection> = Api::namespaced(client.clone(), namespace);
    let body = serde_json::json!({
        "apiVersion": PartnerConnection::api_version(&()),
        "kind": PartnerConnection::kind(&()),
        "metadata": {"name": partner.as_str()},
        "status": {"conditions": [condition.to_json()]},
    });
    let params = PatchParams::apply(MANAGER).force();
    api.patch_status(partner.as_str(), &params, &Patch::Apply(&body))
        .await
        .map_err(|error| Error::Kubernetes(error.to_string()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn guard(value: Value) -> DeserializeGuard<PartnerConnection> {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_connection_that_cannot_be_read_is_closed_and_not_forgotten() {
        let mut objects = Objects::default();
        let spoilt = json!({"apiVersion": "federation.csc-scc.gc.ca/v1alpha1", "kind": "PartnerConnection",
            "metadata": {"name": "vancouver-police", "generation": 7}, "spec": {"partner": 1}});
        objects.connections.take(watcher::Event::Apply(guard(spoilt)));
        let wanted = desired(&objects, "any");
        let [Desired { terms, retention, .. }] = &wanted[..] else { panic!("{wanted:?}") };
        assert_eq!((terms.partner.as_str(), terms.generation, terms.suspended), ("vancouver-police", 7, true));
        assert!(terms.open(Timestamp::now()).is_none());
        assert!(retention.is_none() && !wanted[0].disposable(Timestamp::now()), "it may be under a legal hold");
    }
}
