//! Small objects for unit tests.

#![allow(clippy::missing_panics_doc)]

use jiff::Timestamp;
use liaison_crds::{PartnerConnection, PartnerConnectionStatus, SharingAgreement};
use sha2::{Digest, Sha256};

use crate::{
    ca::{self, Authority},
    gateway_keys::Gateway,
    settings::Settings,
};

/// The tests' now.
pub fn now() -> Timestamp {
    "2026-11-22T00:00:00Z".parse().unwrap()
}

/// A CA.
pub fn authority() -> Authority {
    let root = ca::make_root("liaison.example.ca", 1, now(), [1; 16]).unwrap();
    let issuing = ca::make_issuing(&root, "liaison.example.ca", 1, now(), [2; 16]).unwrap();
    Authority::load(&issuing, "", &root.certificate).unwrap()
}

/// Settings.
pub fn settings() -> Settings {
    Settings {
        slot_quarantine_days: 30,
        key_overlap_hours: 72,
        domain: "liaison.example.ca".into(),
        gateways: "gateway=gateway.example.ca:51820,gateway.example.ca:51821".parse().unwrap(),
        pool_v4: "100.72.0.0/16".into(),
        pool_v6: "fd4c:6961:6973::/112".into(),
        image_sync: "liaison/sync:t".into(),
        image_infopol: "liaison/infopol:t".into(),
        infopol_replicas: 1,
        image_pull_policy: "IfNotPresent".into(),
        image_pull_secrets: String::new(),
        default_store: "shared".into(),
        store_secret: "liaison-store".into(),
        hub_secret: "liaison-hub".into(),
        system_namespace: "liaison-system".into(),
        gateway_namespace: "liaison-gateway".into(),
        partners_namespace: "liaison-partners".into(),
        pod_name: "operator-0".into(),
        health_addr: "127.0.0.1:0".parse().unwrap(),
        concurrency: 4,
        verify_seconds: 86_400,
        verify_at_once: 2,
    }
}

/// An agreement that covers Vancouver's police.
pub fn agreement() -> SharingAgreement {
    serde_saphyr::from_str(
        "
apiVersion: federation.csc-scc.gc.ca/v1alpha1
kind: SharingAgreement
metadata: {name: bc-2003}
spec:
  reference: BC-2003
  parties: [vancouver-police]
  legalBasis: [CCRA s.25(1)]
  effectiveDate: '2026-01-01'
  expiryDate: '2099-12-31'
  purposes: [Supervision]
  allows:
    fieldGroups: [identity, aliases]
    population: {anyOf: [{jurisdictions: [CA-BC]}]}
  retention: {disposalDays: 30}
  assessments: {privacyImpact: PIA-1, threatRisk: TRA-1}
",
    )
    .unwrap()
}

/// A connection under it, with keys of its own.
pub fn connection(name: &str) -> PartnerConnection {
    let secret: [u8; 32] = Sha256::digest(name).into();
    let public = x25519_dalek::PublicKey::from(&x25519_dalek::StaticSecret::from(secret));
    let key = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, public.as_bytes());
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let csr = rcgen::CertificateParams::default().serialize_request(&pair).unwrap().pem().unwrap();
    serde_json::from_value(serde_json::json!({
        "apiVersion": "federation.csc-scc.gc.ca/v1alpha1",
        "kind": "PartnerConnection",
        "metadata": {"name": name, "generation": 1},
        "spec": {
            "partner": {
                "type": "PoliceService", "jurisdiction": "CA-BC", "timeZone": "America/Vancouver",
                "name": {"en": "Vancouver Police Department", "fr": "Service de police de Vancouver"},
            },
            "agreementRef": {"name": "bc-2003"},
            "share": {"fieldGroups": ["identity"], "population": {"anyOf": [{"jurisdictions": ["CA-BC"]}]}},
            "credentials": {
                "keyCustody": "Partner",
                "wireGuard": {"publicKeys": [key]},
                "certificate": {"signingRequests": [csr]},
            },
        },
    }))
    .unwrap()
}

/// A status as after an earlier visit.
pub fn provisioned() -> PartnerConnectionStatus {
    let pools = crate::slots::Pools::parse("100.72.0.0/16", "fd4c:6961:6973::/112").unwrap();
    let gateway = Gateway { key: "g".into(), endpoint: "gateway.example.ca:51820".into(), retiring: None };
    let shard = &"gateway".parse().unwrap();
    PartnerConnectionStatus {
        observed_generation: 1,
        conditions: vec![],
        authorized_until: None,
        store_name: Some("shared".into()),
        connection: Some(super::plan::connection(
            "vancouver-police",
            5,
            &pools,
            &settings(),
            (shard, &gateway),
            "root",
        )),
        wire_guard_keys: vec![],
        wire_guard_keys_seen: vec![],
        certificates: vec![],
        enrolment: None,
        custody: vec![],
        bundle: None,
        replica: None,
        gateways: vec![],
    }
}
