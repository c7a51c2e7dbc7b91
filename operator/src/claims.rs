//! Claims of tunnel slots and keys: Leases named after what they claim, made by plain create. 409 = another was first.
//!
//! The name in etcd is the lock. A claim stays until its partner is disposed of or no longer names the key.

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, ObjectMeta, Preconditions},
};
use liaison_crds::PARTNER_LABEL;
use sha2::{Digest, Sha256};

use crate::{
    apply,
    slots::{self, Pools},
};

/// Whose a claim is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// The one who asked.
    Mine,
    /// Another partner's, by name.
    Of(String),
}

/// No slot left.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// From the API server.
    #[error(transparent)]
    Kube(#[from] kube::Error),
    /// The pool is full.
    #[error("no tunnel slot is free: all {0} of the pool are claimed; enlarge POOL_V4 and POOL_V6")]
    PoolFull(u32),
}

/// Name of the Lease that claims a WireGuard key, given its 32 bytes.
pub fn wire_guard_lease(key: &[u8]) -> String {
    format!("wgkey-{}", &hex::encode(Sha256::digest(key))[..40])
}

/// Name of the Lease that claims a certificate key, given the hex SHA-256 of its SubjectPublicKeyInfo.
pub fn request_lease(public_key_sha256: &str) -> String {
    format!("csrkey-{}", public_key_sha256.get(..40).unwrap_or(public_key_sha256))
}

/// All claims of a partner.
pub async fn of(leases: &Api<Lease>, partner: &str) -> Result<Vec<Lease>, kube::Error> {
    let list = leases.list(&ListParams::default().labels(&format!("{PARTNER_LABEL}={partner}"))).await?;
    Ok(list.items.into_iter().filter(|lease| holder(lease) == partner).collect())
}

/// Claims one thing.
pub async fn claim(leases: &Api<Lease>, name: &str, partner: &str) -> Result<Claim, kube::Error> {
    // Looking first keeps a claim that is lost from being tried as a write on every visit.
    let lease = match leases.get_opt(name).await? {
        Some(lease) => lease,
        None => apply::create_once(leases, &lease(name, partner)).await?.0,
    };
    let holder = holder(&lease);
    Ok(if holder == partner { Claim::Mine } else { Claim::Of(holder.to_owned()) })
}

/// Claims a slot: the partner's own if it has one, else the first free one in its order.
pub async fn claim_slot(leases: &Api<Lease>, held: &[Lease], pools: &Pools, partner: &str) -> Result<u32, Error> {
    if let Some(slot) = held_slot(held) {
        return Ok(slot);
    }
    for slot in pools.probe(partner) {
        if claim(leases, &slots::lease_name(slot), partner).await? == Claim::Mine {
            return Ok(slot);
        }
    }
    Err(Error::PoolFull(pools.usable()))
}

/// The slot among a partner's claims; the smallest, should there be two.
pub fn held_slot(held: &[Lease]) -> Option<u32> {
    held.iter().filter_map(|lease| slots::slot_of(&lease.name_any())).min()
}

/// Frees a claim, unless it has changed hands since it was read.
pub async fn release(leases: &Api<Lease>, lease: &Lease) -> Result<(), kube::Error> {
    let preconditions = Preconditions { uid: lease.metadata.uid.clone(), resource_version: None };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    match leases.delete(&lease.name_any(), &params).await {
        Ok(_) => Ok(()),
        Err(error) if apply::is_gone(&error) => Ok(()),
        Err(error) => Err(error),
    }
}

fn holder(lease: &Lease) -> &str {
    lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default()
}

fn lease(name: &str, partner: &str) -> Lease {
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
        spec: Some(LeaseSpec { holder_identity: Some(partner.to_owned()), ..LeaseSpec::default() }),
    }
}
