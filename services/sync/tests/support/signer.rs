//! Signs statements in the operator's place.

use liaison_records::statement::{self, keys};
use serde_json::json;

/// The operator's part of signing, with a key of the test's own.
pub struct Signer {
    key: rcgen::KeyPair,
    chain: String,
}

impl Signer {
    pub fn new() -> Self {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let chain = rcgen::CertificateParams::new(vec![]).unwrap().self_signed(&key).unwrap().pem();
        Self { key, chain }
    }

    pub fn data(&self, text: &str) -> serde_json::Value {
        use base64::Engine;
        let signature = rcgen::SigningKey::sign(&self.key, text.as_bytes()).unwrap();
        json!({
            keys::SIGNATURE: base64::engine::general_purpose::STANDARD.encode(signature),
            keys::KEY_ID: statement::key_id(&rcgen::PublicKeyData::subject_public_key_info(&self.key)),
            keys::CHAIN: self.chain, keys::SIGNED_AT: "2026-11-22T00:00:00Z",
        })
    }
}
