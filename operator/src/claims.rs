//! Claims of tunnel slots and keys: Leases named after what they claim, made by plain create. 409 = another was first.
//!
//! The name in etcd is the lock. A claim stays until its partner is disposed of or no longer names the key; a slot's longer
//! (see [`crate::pool`]). A key's claim
//! remembers when the key was first seen, and that it was revoked: such a claim is never freed, so the key is never accepted
//! again, whoever names it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, Preconditions},
};
use liaison_crds::{PARTNER_LABEL, REVOKED_ANNOTATION, enrolment, partner_connection::IssuedCertificate};
use serde_json::json;

use crate::{apply, crl};

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

/// All claims of a partner.
pub async fn of(leases: &Api<Lease>, partner: &str) -> Result<Vec<Lease>, kube::Error> {
    let list = leases.list(&ListParams::default().labels(&format!("{PARTNER_LABEL}={partner}"))).await?;
    Ok(list.items.into_iter().filter(|lease| holder(lease) == partner).collect())
}

/// Claims one thing, which is seen for the first time at `now` if nobody has claimed it. With `look`, it is looked first whether
/// somebody has: that keeps a claim that is lost from being tried as a write on every visit.
pub async fn claim(
    leases: &Api<Lease>,
    name: &str,
    partner: &str,
    now: Timestamp,
    look: bool,
) -> Result<Claim, kube::Error> {
    let found = if look { leases.get_opt(name).await? } else { None };
    let lease = match found {
        Some(lease) => lease,
        None => apply::create_once(leases, &lease(name, partner, now)).await?.0,
    };
    let holder = holder(&lease).to_owned();
    Ok(if holder == partner { Claim::Mine(Box::new(lease)) } else { Claim::Of(holder) })
}

/// The annotation of a token's claim that says for which key it was used.
const USED_BY: &str = "federation.csc-scc.gc.ca/used-by";

/// Claims an enrolment token for one key, by the hex SHA-256 of its SubjectPublicKeyInfo. None: another has it.
pub async fn claim_token(
    leases: &Api<Lease>,
    digest: &str,
    partner: &str,
    key: &str,
    now: Timestamp,
) -> Result<Option<Lease>, kube::Error> {
    let mut wanted = lease(&enrolment::token_lease(digest), partner, now);
    wanted.annotations_mut().insert(USED_BY.to_owned(), key.to_owned());
    let (live, _) = apply::create_once(leases, &wanted).await?;
    let mine = holder(&live) == partner && live.annotations().get(USED_BY).is_some_and(|used| used == key);
    Ok(mine.then_some(live))
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
    /// When it was first seen, to the second.
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

/// Notes that a key was revoked, and which of the certificates on it would still be valid.
pub async fn revoke(
    leases: &Api<Lease>,
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
    let params = PatchParams { field_manager: Some(apply::MANAGER.to_owned()), ..PatchParams::default() };
    leases.patch(&lease.name_any(), &params, &Patch::Merge(&patch)).await
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
