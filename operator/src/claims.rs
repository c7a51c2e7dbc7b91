//! Claims of tunnel slots and keys: Leases named after what they claim, made by plain create. 409 = another was first.
//!
//! The name in etcd is the lock. A claim stays until its partner is disposed of or no longer names the key; a slot's longer
//! (see [`crate::pool`]). A key's claim remembers when the key was first seen, and that it was revoked: such a claim is never
//! freed, so the key is never accepted again, whoever names it.
//!
//! A watch tells which claims there are; what one says is always read from the API server. To list them by partner there would
//! cost a look at all claims of all partners on each visit.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use futures::{Stream, StreamExt, future::try_join_all};
use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, ListParams, ObjectMeta, Patch, Preconditions},
    core::PartialObjectMeta,
    runtime::watcher,
};
use liaison_crds::{PARTNER_LABEL, REVOKED_ANNOTATION, enrolment, partner_connection::IssuedCertificate};
use serde_json::json;

use crate::{apply, crl};

/// The annotation of a token's claim that says for which key it was used.
const USED_BY: &str = "federation.csc-scc.gc.ca/used-by";

/// Whose a claim is.
#[derive(Debug, Clone, PartialEq)]
pub enum Claim {
    /// The one's who asked.
    Mine(Box<Lease>),
    /// Another partner's, by name.
    Of(String),
}

/// Name of the Lease that claims a WireGuard key, given its 32 bytes.
pub fn wire_guard_lease(key: &[u8]) -> String {
    format!("wgkey-{}", liaison_crds::preshared_entry(key))
}

/// Name of the Lease that claims a certificate key, given the hex SHA-256 of its SubjectPublicKeyInfo.
pub fn request_lease(public_key_sha256: &str) -> String {
    format!("csrkey-{}", public_key_sha256.get(..40).unwrap_or(public_key_sha256))
}

/// The claims of an installation.
#[derive(Debug)]
pub struct Claims {
    leases: Api<Lease>,
    /// None until the watch has told of all that there are.
    known: Mutex<Option<Known>>,
}

/// Names of claims, both ways.
#[derive(Debug, Default)]
struct Known {
    partners: HashMap<String, String>,
    names: HashMap<String, BTreeSet<String>>,
}

impl Known {
    fn insert<K: Resource>(&mut self, lease: &K) {
        let (Some(name), Some(partner)) = (&lease.meta().name, lease.labels().get(PARTNER_LABEL)) else { return };
        self.remove(name);
        self.partners.insert(name.clone(), partner.clone());
        self.names.entry(partner.clone()).or_default().insert(name.clone());
    }

    fn remove(&mut self, name: &str) {
        let Some(partner) = self.partners.remove(name) else { return };
        if let Some(names) = self.names.get_mut(&partner) {
            names.remove(name);
            if names.is_empty() {
                self.names.remove(&partner);
            }
        }
    }
}

impl Claims {
    /// Claims in the namespace of this API. Nothing is known of them yet, so each is looked for, and all are listed.
    pub fn new(leases: Api<Lease>) -> Self {
        Self { leases, known: Mutex::default() }
    }

    /// Where they are.
    pub fn api(&self) -> &Api<Lease> {
        &self.leases
    }

    fn known(&self) -> MutexGuard<'_, Option<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what a watch of all claims tells, until it ends.
    pub async fn follow(&self, events: impl Stream<Item = watcher::Result<watcher::Event<PartialObjectMeta<Lease>>>>) {
        let mut events = std::pin::pin!(events);
        let mut listed = Known::default();
        while let Some(event) = events.next().await {
            match event {
                Ok(watcher::Event::Init) => listed = Known::default(),
                Ok(watcher::Event::InitApply(lease)) => listed.insert(&lease),
                Ok(watcher::Event::InitDone) => *self.known() = Some(std::mem::take(&mut listed)),
                Ok(watcher::Event::Apply(lease)) => self.note(&lease),
                Ok(watcher::Event::Delete(lease)) => {
                    if let Some(known) = self.known().as_mut() {
                        known.remove(&lease.name_any());
                    }
                }
                Err(error) => tracing::warn!(%error, "the watch of claims"),
            }
        }
    }

    fn note<K: Resource>(&self, lease: &K) {
        if let Some(known) = self.known().as_mut() {
            known.insert(lease);
        }
    }

    /// A partner's claims as they are now: those that the watch has told of, and those whose names its status gives away.
    pub async fn of(&self, partner: &str, stated: impl IntoIterator<Item = String>) -> Result<Vec<Lease>, kube::Error> {
        let told = self.known().as_ref().map(|known| known.names.get(partner).cloned().unwrap_or_default());
        let Some(mut names) = told else { return self.all_of(partner).await };
        names.extend(stated);
        let found = try_join_all(names.iter().map(|name| self.leases.get_opt(name))).await?;
        Ok(found.into_iter().flatten().filter(|lease| holder(lease) == partner).collect())
    }

    /// All claims of a partner, by a look at all that there are.
    pub async fn all_of(&self, partner: &str) -> Result<Vec<Lease>, kube::Error> {
        let list = self.leases.list(&ListParams::default().labels(&format!("{PARTNER_LABEL}={partner}"))).await?;
        Ok(list.items.into_iter().filter(|lease| holder(lease) == partner).collect())
    }

    /// Claims one thing, which is seen for the first time at `now` if nobody has claimed it. Unless nobody is known to have it, it
    /// is looked first: that keeps a claim that is lost from being tried as a write on every visit.
    pub async fn claim(&self, name: &str, partner: &str, now: Timestamp) -> Result<Claim, kube::Error> {
        let free = self.known().as_ref().is_some_and(|known| !known.partners.contains_key(name));
        let found = if free { None } else { self.leases.get_opt(name).await? };
        let lease = match found {
            Some(lease) => lease,
            None => apply::create_once(&self.leases, &lease(name, partner, now)).await?.0,
        };
        self.note(&lease);
        let holder = holder(&lease).to_owned();
        Ok(if holder == partner { Claim::Mine(Box::new(lease)) } else { Claim::Of(holder) })
    }

    /// Claims an enrolment token for one key, by the hex SHA-256 of its SubjectPublicKeyInfo. None: another has it.
    pub async fn claim_token(
        &self,
        digest: &str,
        partner: &str,
        key: &str,
        now: Timestamp,
    ) -> Result<Option<Lease>, kube::Error> {
        let mut wanted = lease(&enrolment::token_lease(digest), partner, now);
        wanted.annotations_mut().insert(USED_BY.to_owned(), key.to_owned());
        let (live, _) = apply::create_once(&self.leases, &wanted).await?;
        self.note(&live);
        let mine = holder(&live) == partner && live.annotations().get(USED_BY).is_some_and(|used| used == key);
        Ok(mine.then_some(live))
    }

    /// Notes that a key was revoked, and which of the certificates on it would still be valid.
    pub async fn revoke(
        &self,
        lease: &Lease,
        certificates: &[IssuedCertificate],
        now: Timestamp,
    ) -> Result<Lease, kube::Error> {
        let name = lease.name_any();
        let on_it = certificates.iter().filter(|held| request_lease(&held.public_key_sha256) == name);
        let mut annotations = json!({REVOKED_ANNOTATION: now.to_string()});
        if let Some(noted) = crl::note(on_it, now) {
            annotations[crl::CERTIFICATES] = json!(noted);
        }
        let patch = json!({"metadata": {"annotations": annotations}});
        self.leases.patch(&name, &apply::merging(), &Patch::Merge(&patch)).await
    }

    /// Frees a claim, unless it has changed hands since it was read.
    pub async fn release(&self, lease: &Lease) -> Result<(), kube::Error> {
        let preconditions = Preconditions { uid: lease.metadata.uid.clone(), resource_version: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        match self.leases.delete(&lease.name_any(), &params).await {
            Ok(_) => Ok(()),
            Err(error) if apply::is_gone(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Whether a Lease of this name claims a token.
pub fn is_token(name: &str) -> bool {
    name.starts_with("token-")
}

/// Whether a Lease of this name claims a key.
pub fn is_key(name: &str) -> bool {
    name.starts_with("wgkey-") || name.starts_with("csrkey-")
}

/// What a claim remembers of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// When it was first seen, to the second; of a key that was enrolled, when what it was asked for by was.
    pub first_seen: Timestamp,
    /// Whether it was revoked.
    pub revoked: bool,
}

impl Memory {
    /// Reads it. A claim made by an earlier version says when in its metadata only.
    pub fn of(lease: &Lease) -> Self {
        let acquired = lease.spec.as_ref().and_then(|spec| spec.acquire_time.as_ref()).map(|at| at.0);
        let first_seen = acquired.or_else(|| lease.metadata.creation_timestamp.as_ref().map(|at| at.0));
        let whole = first_seen.and_then(|at| Timestamp::from_second(at.as_second()).ok());
        Self {
            first_seen: whole.unwrap_or(Timestamp::UNIX_EPOCH),
            revoked: lease.annotations().contains_key(REVOKED_ANNOTATION),
        }
    }
}

/// What a partner's claims remember of its keys, by the name of the Lease.
pub type Memories = BTreeMap<String, Memory>;

/// Reads them.
pub fn memories(held: &[Lease]) -> Memories {
    let keys = held.iter().filter(|lease| is_key(&lease.name_any()));
    keys.map(|lease| (lease.name_any(), Memory::of(lease))).collect()
}

fn holder(lease: &Lease) -> &str {
    lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default()
}

fn lease(name: &str, partner: &str, now: Timestamp) -> Lease {
    Lease {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(
                [
                    (PARTNER_LABEL, partner),
                    ("app.kubernetes.io/managed-by", apply::MANAGER),
                    ("app.kubernetes.io/part-of", "liaison"),
                ]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            ),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(partner.to_owned()),
            acquire_time: Some(MicroTime(now)),
            ..LeaseSpec::default()
        }),
    }
}

#[cfg(test)]
mod tests {
    use watcher::Event::{Apply, Delete, Init, InitApply, InitDone};

    use super::*;

    fn told(name: &str, partner: &str) -> PartialObjectMeta<Lease> {
        PartialObjectMeta {
            metadata: lease(name, partner, Timestamp::UNIX_EPOCH).metadata,
            ..PartialObjectMeta::default()
        }
    }

    #[tokio::test]
    async fn what_a_watch_tells_is_known_when_it_has_told_all_and_goes_with_what_it_stops_telling_of() {
        let uri = "http://127.0.0.1:1".parse().unwrap();
        let client = kube::Client::try_from(kube::Config::new(uri)).unwrap();
        let claims = Claims::new(Api::namespaced(client, "n"));
        let names = || claims.known().as_ref().map(|known| known.names.clone());
        let feed = |events: Vec<watcher::Event<PartialObjectMeta<Lease>>>| {
            claims.follow(futures::stream::iter(events.into_iter().map(Ok)))
        };
        feed(vec![Init, InitApply(told("slot-1", "a"))]).await;
        assert_eq!(names(), None);
        feed(vec![
            Init,
            InitApply(told("slot-1", "a")),
            InitDone,
            Apply(told("slot-2", "a")),
            Apply(told("slot-3", "b")),
        ])
        .await;
        feed(vec![Delete(told("slot-1", "a")), Delete(told("slot-3", "b")), Delete(told("slot-4", "c"))]).await;
        let one = |name: &str| BTreeSet::from([name.to_owned()]);
        assert_eq!(names().unwrap(), HashMap::from([("a".to_owned(), one("slot-2"))]));
        // Another's now; then the watch begins anew.
        feed(vec![Apply(told("slot-2", "b"))]).await;
        assert_eq!(names().unwrap(), HashMap::from([("b".to_owned(), one("slot-2"))]));
        feed(vec![Init, InitDone]).await;
        assert_eq!(names().unwrap(), HashMap::new());
    }
}
