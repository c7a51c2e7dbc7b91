//! Keys that Liaison makes for a partner that cannot (custody Liaison): a pair for each number that the manifest asks for.
//!
//! The private halves are in one Secret a pair in the system namespace, and in the partner's bundle, until that is picked up; then
//! the partner alone has them. The public halves stand in status, and count as the manifest's own keys do.

use base64::{Engine, engine::general_purpose::STANDARD};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt, api::ListParams};
use liaison_crds::{
    PARTNER_LABEL, PartnerConnection,
    partner_connection::{CustodyKeys, KeyCustody},
};

use super::{Error, names::Names, validate::Checked};
use crate::{apply, ca, context::Context, install};

/// Pairs that are kept: the newest, and the one before.
const PAIRS: usize = 2;
/// Keys of the Secret: the WireGuard private key in base64, and the certificate's in PEM.
const WIRE_GUARD: &str = "wireguard";
const CERTIFICATE: &str = "tls.key";
/// The label that says what such a Secret is for.
const APP: &str = "custody";

/// The private halves; cannot be logged.
pub struct Pair {
    /// WireGuard, base64.
    pub wire_guard: String,
    /// The certificate's, PEM.
    pub certificate: String,
}

fn secrets(ctx: &Context) -> Api<Secret> {
    Api::namespaced(ctx.client.clone(), &ctx.settings.system_namespace)
}

fn secret_name(names: &Names, number: i32) -> String {
    format!("keys-{}-{number}", names.partner)
}

/// The pairs that the connection is to have, if they are not what status says: a new one is made for a new number, once
/// the manifest is accepted and nothing is revoked.
pub async fn ensure(
    ctx: &Context,
    names: &Names,
    connection: &PartnerConnection,
    checked: &Checked,
) -> Result<Option<Vec<CustodyKeys>>, Error> {
    let before = connection.status.as_ref().map(|status| status.custody.as_slice()).unwrap_or_default();
    let credentials = &connection.spec.credentials;
    if credentials.key_custody == KeyCustody::Partner {
        for pair in before {
            forget(ctx, names, pair.number).await?;
        }
        return Ok(None);
    }
    let number = credentials.key_number.unwrap_or(1);
    if !checked.accepted() || checked.revoked || before.iter().any(|pair| pair.number == number) {
        return Ok(None);
    }
    let mut all = vec![make(ctx, names, number).await?];
    all.extend(before.iter().cloned());
    for pair in all.split_off(PAIRS.min(all.len())) {
        forget(ctx, names, pair.number).await?;
    }
    Ok(Some(all))
}

/// Makes a pair, or finds the one that an earlier visit made.
async fn make(ctx: &Context, names: &Names, number: i32) -> Result<CustodyKeys, Error> {
    let name = secret_name(names, number);
    let (api, live) = (secrets(ctx), secrets(ctx).get_opt(&name).await?);
    let live = if let Some(live) = live {
        live
    } else {
        let private = x25519_dalek::StaticSecret::random();
        let data = [
            (WIRE_GUARD.to_owned(), install::bytes(&STANDARD.encode(private.as_bytes()))),
            (CERTIFICATE.to_owned(), install::bytes(&ca::new_key()?.0)),
        ];
        let mut secret = install::secret(&name, "Opaque", data.into());
        secret.labels_mut().extend(names.labels(APP));
        apply::create_once(&api, &secret).await?.0
    };
    let broken = || install::Error::Broken { name: name.clone(), key: WIRE_GUARD };
    let pair = read(&live).ok_or_else(broken)?;
    let bytes: Option<[u8; 32]> = STANDARD.decode(&pair.wire_guard).ok().and_then(|bytes| bytes.try_into().ok());
    let public = x25519_dalek::PublicKey::from(&x25519_dalek::StaticSecret::from(bytes.ok_or_else(broken)?));
    Ok(CustodyKeys {
        number,
        public_key: STANDARD.encode(public.as_bytes()),
        signing_request: ca::request_for(&ca::KeyPem(pair.certificate))?,
    })
}

fn read(secret: &Secret) -> Option<Pair> {
    Some(Pair { wire_guard: install::text(secret, WIRE_GUARD)?, certificate: install::text(secret, CERTIFICATE)? })
}

/// The private halves of a pair; none once it was picked up.
pub async fn pair(ctx: &Context, names: &Names, number: i32) -> Result<Option<Pair>, kube::Error> {
    Ok(secrets(ctx).get_opt(&secret_name(names, number)).await?.as_ref().and_then(read))
}

/// Removes the private halves of a pair.
pub async fn forget(ctx: &Context, names: &Names, number: i32) -> Result<(), kube::Error> {
    apply::ensure_gone(&secrets(ctx), &secret_name(names, number), false).await.map(drop)
}

/// Removes all private halves of a partner's keys.
pub async fn forget_all(ctx: &Context, names: &Names) -> Result<(), kube::Error> {
    let which = format!("app.kubernetes.io/name={APP},{PARTNER_LABEL}={}", names.partner);
    for secret in secrets(ctx).list(&ListParams::default().labels(&which)).await? {
        apply::ensure_gone(&secrets(ctx), &secret.name_any(), false).await?;
    }
    Ok(())
}
