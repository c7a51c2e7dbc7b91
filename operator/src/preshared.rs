//! Preshared keys: one for each WireGuard key of a partner, in a few Secrets beside the gateway, which reads them by name.
//!
//! The operator makes a preshared key once and reads it again only to encrypt it for its partner; it is in no object but its Secret. An entry is
//! named after its WireGuard key, as the key's claim is, and goes before the claim does.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{Api, ResourceExt, api::Patch};
use serde_json::json;

use crate::{apply, context::Context, install};

/// Secret and entry of a WireGuard key, by the Lease that claims it; none of another Lease.
pub fn place(lease: &str) -> Option<(&'static str, &str)> {
    let entry = lease.strip_prefix("wgkey-")?;
    Some((liaison_crds::preshared_secret(entry)?, entry))
}

/// Makes the preshared key of a WireGuard key, unless there is one.
pub async fn ensure(ctx: &Context, lease: &str, value: [u8; 32]) -> Result<(), kube::Error> {
    let Some((name, entry)) = place(lease) else { return Ok(()) };
    let api = secrets(ctx);
    let value = STANDARD.encode(value);
    let _alone = ctx.preshared.lock().await;
    let live = if let Some(live) = api.get_opt(name).await? {
        live
    } else {
        let data: BTreeMap<String, ByteString> = [(entry.to_owned(), install::bytes(&value))].into();
        apply::create_once(&api, &install::secret(name, "Opaque", data)).await?.0
    };
    if has(&live, entry) {
        return Ok(());
    }
    // With the resourceVersion: of two operators that make the same, one fails and looks again.
    let patch = json!({
        "metadata": {"resourceVersion": live.resource_version()},
        "stringData": {entry: value},
    });
    api.patch(name, &apply::merging(), &Patch::Merge(&patch)).await.map(drop)
}

/// The preshared key of a WireGuard key, base64.
pub async fn read(ctx: &Context, entry: &str) -> Result<Option<String>, kube::Error> {
    let Some(name) = liaison_crds::preshared_secret(entry) else { return Ok(None) };
    let live = secrets(ctx).get_opt(name).await?;
    Ok(live.and_then(|live| install::text(&live, entry)))
}

/// Removes the preshared key of a WireGuard key, if there is one.
pub async fn forget(ctx: &Context, lease: &str) -> Result<(), kube::Error> {
    let Some((name, entry)) = place(lease) else { return Ok(()) };
    let api = secrets(ctx);
    let _alone = ctx.preshared.lock().await;
    match api.get_opt(name).await? {
        Some(live) if has(&live, entry) => {
            api.patch(name, &apply::merging(), &Patch::Merge(&json!({"data": {entry: null}}))).await.map(drop)
        }
        _ => Ok(()),
    }
}

fn secrets(ctx: &Context) -> Api<Secret> {
    Api::namespaced(ctx.client.clone(), &ctx.settings.gateway_namespace)
}

fn has(secret: &Secret, entry: &str) -> bool {
    secret.data.as_ref().is_some_and(|data| data.contains_key(entry))
}

#[cfg(test)]
mod tests {
    use liaison_crds::PRESHARED_SECRETS;

    use super::*;

    #[test]
    fn every_wire_guard_key_has_its_place_and_nothing_else_has() {
        let lease = crate::claims::wire_guard_lease(&[7; 32]);
        let (secret, entry) = place(&lease).unwrap();
        assert!(PRESHARED_SECRETS.contains(&secret));
        assert_eq!(entry, liaison_crds::preshared_entry(&[7; 32]));
        assert_eq!(place("csrkey-00"), None);
        assert_eq!(place("slot-7"), None);
    }
}
