//! Signs what sync says: ledger checkpoints, attestations, disposal certificates. sync has no key, and this has no SQL.
//!
//! A statement is a ConfigMap in the system namespace with a label. It is signed once, where it is, by server-side apply; what
//! is not canonical, or does not stand under its own name, is refused in the same place. sync takes the signature from there.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use futures::TryStreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, ResourceExt,
    api::Patch,
    runtime::{WatchStreamExt, watcher},
};
use liaison_records::statement::{self, LABEL, MAX_STATEMENT, keys};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{
    apply,
    ca::{self, Signer},
};

/// What is added to a ConfigMap; `None` when it has been answered already.
pub fn answer(object: &ConfigMap, signer: &Signer, now: Timestamp) -> Result<Option<Value>, ca::Error> {
    let data = object.data.clone().unwrap_or_default();
    if data.contains_key(keys::SIGNATURE) || data.contains_key(keys::REFUSED) {
        return Ok(None);
    }
    let name = object.name_any();
    let text = data.get(keys::STATEMENT).map(String::as_str).unwrap_or_default();
    let said = statement::read(text).filter(|_| text.len() <= MAX_STATEMENT);
    let added = match said {
        Some((id, _)) if id.object_name() == name => json!({
            keys::SIGNATURE: STANDARD.encode(signer.sign(text.as_bytes())?),
            keys::KEY_ID: signer.key_id,
            keys::CHAIN: signer.chain,
            keys::SIGNED_AT: now.to_string(),
        }),
        Some((id, _)) => json!({keys::REFUSED: format!("must be named {}, as its text says", id.object_name())}),
        None => json!({keys::REFUSED: "must be a statement in canonical JSON with kind, partner and number"}),
    };
    Ok(Some(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": added})))
}

/// Answers one ConfigMap, if it has not been; whether it was written.
pub async fn sign(api: &Api<ConfigMap>, object: &ConfigMap, signer: &Signer, now: Timestamp) -> Result<bool, Error> {
    let Some(mut added) = answer(object, signer, now)? else { return Ok(false) };
    // Of this object and no other: a patch never makes one, and sync removes it when it is done.
    added["metadata"]["uid"] = json!(object.metadata.uid);
    added["metadata"]["resourceVersion"] = json!(object.metadata.resource_version);
    match api.patch(&object.name_any(), &apply::params(), &Patch::Apply(&added)).await {
        Ok(_) => Ok(true),
        // Gone, or changed since: what changed comes by the watch.
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// A statement could not be signed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// From the API server.
    #[error(transparent)]
    Kube(#[from] kube::Error),
    /// From the key.
    #[error(transparent)]
    Ca(#[from] ca::Error),
}

/// How often what could not be signed is tried again.
const AGAIN: Duration = Duration::from_secs(30);

/// Signs statements as they come, until the watch ends.
pub async fn run(
    client: &Client,
    namespace: &str,
    signers: &watch::Receiver<Arc<Signer>>,
    now: impl Fn() -> Timestamp,
) {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let config = watcher::Config::default().labels(LABEL).timeout(200);
    let mut objects = std::pin::pin!(watcher(api.clone(), config).default_backoff().applied_objects());
    let mut again = tokio::time::interval(AGAIN);
    again.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut failed: BTreeSet<String> = BTreeSet::new();
    loop {
        let (name, object) = tokio::select! {
            event = objects.try_next() => match event {
                Ok(Some(object)) => (object.name_any(), Some(object)),
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(%error, "watching statements");
                    continue;
                }
            },
            _ = again.tick() => match failed.pop_first() {
                Some(name) => {
                    if let Ok(object) = api.get_opt(&name).await {
                        (name, object)
                    } else {
                        failed.insert(name);
                        continue;
                    }
                }
                None => continue,
            },
        };
        let Some(object) = object else { continue };
        let signer = signers.borrow().clone();
        match sign(&api, &object, &signer, now()).await {
            Ok(true) => tracing::info!(statement = name, "answered"),
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(statement = name, %error, "not signed, trying again");
                failed.insert(name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use liaison_records::statement::{Id, Kind};

    use super::*;
    use crate::ca::{Authority, Subject, make_issuing, make_root};

    fn now() -> Timestamp {
        "2026-11-22T00:00:00Z".parse().unwrap()
    }

    fn signer() -> Signer {
        let root = make_root("liaison.example.ca", 1, now(), [1; 16]).unwrap();
        let issuing = make_issuing(&root, "liaison.example.ca", 1, now(), [2; 16]).unwrap();
        let authority = Authority::load(&issuing, "", &root.certificate).unwrap();
        let (issued, key) = authority.issue_with_key(&Subject::default(), now(), [3; 16]).unwrap();
        Signer::load(&issued.chain, &key).unwrap()
    }

    fn object(name: &str, data: &[(&str, &str)]) -> ConfigMap {
        let data: BTreeMap<String, String> = data.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let mut object = ConfigMap { data: Some(data), ..ConfigMap::default() };
        object.metadata.name = Some(name.to_owned());
        object
    }

    #[test]
    fn a_statement_is_signed_once_and_anything_else_is_refused() {
        let signer = signer();
        let id = Id { kind: Kind::Disposal, partner: "p".into(), number: 1 };
        let text = statement::text(&id, "2026-11-22T00:00:00Z", serde_json::Map::new());
        let added =
            answer(&object("statement-disposal-p-1", &[("statement", &text)]), &signer, now()).unwrap().unwrap();
        assert_eq!(added["data"]["keyId"], json!(signer.key_id));
        assert!(added["data"].get("statement").is_none(), "its text stays sync's");
        assert!(
            answer(&object("statement-disposal-p-1", &[("statement", &text), ("signature", "x")]), &signer, now())
                .unwrap()
                .is_none()
        );
        for (name, text, says) in [
            ("statement-disposal-p-2", text.as_str(), "must be named statement-disposal-p-1"),
            ("statement-disposal-p-1", r#"{"kind":"disposal"}"#, "must be a statement"),
            ("statement-disposal-p-1", "rm -rf", "must be a statement"),
        ] {
            let added = answer(&object(name, &[("statement", text)]), &signer, now()).unwrap().unwrap();
            assert!(added["data"]["refused"].as_str().unwrap().contains(says), "{added}");
            assert!(added["data"].get("signature").is_none());
        }
    }
}
