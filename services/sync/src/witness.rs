//! The newest signed checkpoint is kept off the hub, as the ConfigMap in which it was signed, until a newer one is stored: a hub
//! that was put back to an earlier day takes its own checkpoints back with it, and this one not.
//!
//! What it names and the hub's ledger lacks is lost. Then nothing is signed, and nothing crosses to the partners concerned,
//! until a person has accepted the loss ([`accept`]), which is entered on the hub together with the checkpoint.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client as Kubernetes, ResourceExt,
    api::{DeleteParams, ListParams, Preconditions},
};
use liaison_records::{
    evidence::{Mark, marks},
    names::PartnerName,
    statement::{self, Kind, LABEL, keys},
};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio_postgres::Client;

use crate::{
    checkpoint,
    error::{Error, Of},
    signature,
    signing::Signed,
};

/// A signed checkpoint as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witness {
    /// Its number.
    pub number: i64,
    /// What was signed.
    pub text: String,
    /// Its signature, which holds.
    pub signed: Signed,
    /// The ends of the partners' chains when it was made.
    pub marks: BTreeMap<String, Mark>,
    /// Of the ConfigMap.
    uid: Option<String>,
    name: String,
}

impl Witness {
    /// What a ConfigMap holds; `None` when it is no checkpoint, or not signed.
    pub fn of(object: &ConfigMap) -> Option<Self> {
        let get = |key: &str| object.data.as_ref().and_then(|data| data.get(key)).cloned();
        let text = get(keys::STATEMENT)?;
        let (id, fields) = statement::read(&text).filter(|(id, _)| id.kind == Kind::Checkpoint)?;
        let signed = Signed {
            signature: STANDARD.decode(get(keys::SIGNATURE)?).ok()?,
            key_id: get(keys::KEY_ID)?,
            chain: get(keys::CHAIN)?,
            signed_at: get(keys::SIGNED_AT)?,
        };
        signature::check(&text, &signed.signature, &signed.key_id, &signed.chain).ok()?;
        let marks = marks(&fields)?.into_iter().map(|mark| (mark.partner.clone(), mark)).collect();
        Some(Self { number: id.number, text, signed, marks, uid: object.uid(), name: object.name_any() })
    }

    /// Of the ConfigMap.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// The newest signed checkpoint among what is out.
pub fn newest<'a>(objects: impl IntoIterator<Item = &'a ConfigMap>) -> Option<Witness> {
    objects.into_iter().filter_map(Witness::of).max_by_key(|witness| witness.number)
}

/// What a process knows of it: one for all of its tasks.
#[derive(Debug, Clone, Default)]
pub struct Known(Arc<RwLock<Option<Arc<Witness>>>>);

impl Known {
    /// It is this one from now on.
    pub fn set(&self, witness: Option<Witness>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = witness.map(Arc::new);
    }

    /// The end of a partner's chain that the hub must have.
    pub fn mark(&self, partner: &PartnerName) -> Option<Mark> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.as_ref()?.marks.get(partner.as_str()).cloned()
    }
}

fn statements(kubernetes: &Kubernetes, namespace: &str) -> Api<ConfigMap> {
    Api::namespaced(kubernetes.clone(), namespace)
}

/// The one that is kept in `namespace`.
pub async fn load(kubernetes: &Kubernetes, namespace: &str) -> Result<Option<Witness>, Error> {
    let which = ListParams::default().labels(&format!("{LABEL}={}", Kind::Checkpoint));
    let out = statements(kubernetes, namespace).list(&which).await;
    Ok(newest(&out.map_err(|error| Error::Kubernetes(error.to_string()))?))
}

/// What was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The checkpoint that saw it.
    pub number: i64,
    /// The ends of chains that the hub lacks.
    pub lost: Vec<Mark>,
}

/// A person decides that the ledger goes on although the hub lacks what the kept checkpoint had seen. The checkpoint, who decided
/// and why stand on the hub from then on, and the next checkpoint names it; then it is no longer kept. `None`: nothing is lost.
pub async fn accept(
    kubernetes: &Kubernetes,
    namespace: &str,
    hub: &Client,
    by: &str,
    reason: &str,
) -> Result<Option<Accepted>, Error> {
    let Some(witness) = load(kubernetes, namespace).await? else { return Ok(None) };
    let lost = checkpoint::missing(hub, witness.marks.values()).await?;
    if lost.is_empty() {
        return Ok(None);
    }
    let Witness { number, text, signed, name, uid, .. } = witness;
    let Signed { signature, key_id, chain, signed_at } = &signed;
    let digest = Sha256::digest(text.as_bytes()).to_vec();
    hub.execute(
        "INSERT INTO liaison.ledger_loss
            (checkpoint, accepted_by, reason, lost, statement, signature, key_id, chain, signed_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9::text::timestamptz) ON CONFLICT (checkpoint) DO NOTHING",
        &[&digest, &by, &reason, &json!(lost), &text, signature, key_id, chain, signed_at],
    )
    .await
    .hub()?;
    tracing::warn!(checkpoint = number, partners = lost.len(), by, "the loss of a part of the ledger was accepted");
    let exactly = Preconditions { uid, ..Preconditions::default() };
    let params = DeleteParams { preconditions: Some(exactly), ..DeleteParams::default() };
    match statements(kubernetes, namespace).delete(&name, &params).await {
        Ok(_) => {}
        // Another removed it; a newer one in its place is not this one.
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {}
        Err(error) => return Err(Error::Kubernetes(error.to_string())),
    }
    Ok(Some(Accepted { number, lost }))
}
