//! The gateway's own keys and certificates, and taking them into use for new connections.

use std::{collections::BTreeMap, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use gotatun::x25519::{PublicKey, StaticSecret};
use liaison_crds::{PRESHARED_SECRETS, preshared_entry};

use crate::{
    gate::Gate,
    kubernetes::{CLIENT_SECRET, SERVER_SECRET},
    state::{Partner, WireGuardKey},
    tls::{self, KeyMaterial},
    tunnel::listeners::LISTENERS,
};

/// The gateway's own keys; each `None` until its Secret is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Secrets {
    /// `gateway-tls`.
    pub server: Option<KeyMaterial>,
    /// `gateway-client-tls`.
    pub client: Option<KeyMaterial>,
    /// The shard's own WireGuard keys, one for each listener that is open.
    pub wireguard: [Option<WireGuardPrivateKey>; LISTENERS],
    /// Preshared keys, a map for each of [`PRESHARED_SECRETS`], by [`preshared_entry`] of the WireGuard key.
    pub preshared: [BTreeMap<String, PresharedKey>; PRESHARED_SECRETS.len()],
}

impl Secrets {
    /// The preshared key of a WireGuard key.
    pub fn preshared(&self, key: WireGuardKey) -> Option<PresharedKey> {
        let entry = preshared_entry(&key.0);
        self.preshared.iter().find_map(|entries| entries.get(&entry)).copied()
    }

    /// Whether all that it takes to start is there.
    pub fn is_complete(&self) -> bool {
        self.server.is_some() && self.client.is_some() && self.wireguard.iter().any(Option::is_some)
    }

    /// The listeners' private keys.
    pub fn private_keys(&self) -> [Option<[u8; 32]>; LISTENERS] {
        self.wireguard.map(|key| key.map(|key| key.0))
    }

    /// The listeners' public keys, base64.
    pub fn public_keys(&self) -> [Option<String>; LISTENERS] {
        let public = |key: [u8; 32]| PublicKey::from(&StaticSecret::from(key));
        self.private_keys().map(|key| key.map(|key| STANDARD.encode(public(key).as_bytes())))
    }
}

/// The gateway's WireGuard private key; cannot be logged.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct WireGuardPrivateKey(pub [u8; 32]);

impl std::fmt::Debug for WireGuardPrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WireGuardPrivateKey")
    }
}

/// A preshared key; cannot be logged.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PresharedKey(pub [u8; 32]);

impl std::fmt::Debug for PresharedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PresharedKey")
    }
}

/// A WireGuard key takes a preshared key, and there is none yet.
#[derive(Debug, PartialEq, Eq)]
pub struct Missing;

/// What a key is to be added with: its preshared key if it takes one, nothing if it takes none.
pub fn wanted_preshared(
    secrets: &Secrets,
    partner: &Partner,
    key: WireGuardKey,
) -> Result<Option<PresharedKey>, Missing> {
    if partner.preshared.contains(&key) { secrets.preshared(key).map(Some).ok_or(Missing) } else { Ok(None) }
}

/// Takes TLS material for new connections; material that cannot be used leaves what is there.
pub fn install(gate: &Arc<Gate>, secrets: &Secrets) -> bool {
    let server = secrets.server.as_ref().map(|material| (material, tls::server_config(material, gate.elsewhere())));
    let client = secrets.client.as_ref().map(|material| (material, tls::client_config(material)));
    let enrolling = secrets.server.as_ref().map(tls::enrolling);
    let mut both = server.is_some() && client.is_some();
    match server {
        Some((material, Ok(config))) => {
            gate.set_server_tls(Arc::new(config));
            if let Some(Ok(enrolling)) = enrolling {
                gate.set_enrolling(enrolling);
            }
            gate.set_trust(|report| tls::said(report, SERVER_SECRET, material));
        }
        Some((_, Err(error))) => {
            both = false;
            tracing::error!(%error, "gateway-tls not taken");
        }
        None => {}
    }
    match client {
        Some((material, Ok(config))) => {
            gate.upstream.set_tls(Arc::new(config));
            gate.set_trust(|report| tls::said(report, CLIENT_SECRET, material));
        }
        Some((_, Err(error))) => {
            both = false;
            tracing::error!(%error, "gateway-client-tls not taken");
        }
        None => {}
    }
    both
}
