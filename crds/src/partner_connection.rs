//! `PartnerConnection`: one province, force or justice system.

// Each printcolumn has a name of its own; the lint looks at the word `name` alone.
#![allow(clippy::duplicated_attributes)]

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use liaison_records::{
    codes::{Code, FieldGroup, Jurisdiction},
    population::Population,
};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use crate::{
    gateway::{LONGEST as GATEWAY_LONGEST, PATTERN as GATEWAY_PATTERN},
    schema::{acknowledgements_schema, conditions_schema, time_schema},
};

/// One partner: who, under which agreement, what is shared, and the public keys by which it connects.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "federation.csc-scc.gc.ca",
    version = "v1alpha1",
    kind = "PartnerConnection",
    plural = "partnerconnections",
    shortname = "pconn",
    namespaced,
    status = "PartnerConnectionStatus",
    category = "liaison",
    derive = "PartialEq",
    // Whose agreement is looked at asks for its connections alone.
    selectable = ".spec.agreementRef.name",
    printcolumn(name = "Partner", type_ = "string", json_path = ".spec.partner.jurisdiction"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Connected", type_ = "string", json_path = ".status.conditions[?(@.type=='Connected')].status"),
    printcolumn(name = "Fresh", type_ = "string", json_path = ".status.conditions[?(@.type=='DataFresh')].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Organization", type_ = "string", json_path = ".spec.partner.name.en", priority = 1),
    printcolumn(name = "Agreement", type_ = "string", json_path = ".spec.agreementRef.name", priority = 1),
    printcolumn(
        name = "Tunnel",
        type_ = "string",
        json_path = ".status.connection.partnerAddresses.ipv4",
        priority = 1
    ),
    printcolumn(name = "Gateway", type_ = "string", json_path = ".status.connection.gateway", priority = 1),
    printcolumn(
        name = "Certificate-Expires",
        type_ = "string",
        json_path = ".status.certificates[0].notAfter",
        priority = 1
    ),
    printcolumn(
        name = "Verified",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Verified')].status",
        priority = 1
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].reason",
        priority = 1
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].message",
        priority = 1
    ),
    doc = "One province, police force or justice system with which CSC shares offender records."
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PartnerConnectionSpec {
    /// Who the partner is.
    pub partner: Partner,
    /// The SharingAgreement in the same namespace under which records are shared.
    pub agreement_ref: AgreementRef,
    /// What CSC shares with the partner; must lie inside the agreement.
    pub share: Share,
    /// Public keys of the partner.
    pub credentials: Credentials,
    /// The partner's IPv4 address in the tunnel, if it must have this one: the odd address of a /31 of the pool, as in
    /// `status.connection.partnerAddresses`. Absent: Liaison chooses one, which the partner keeps. Naming it here keeps it when
    /// claims and status have been lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 7, max = 15), regex(pattern = r"^[0-9]{1,3}(\.[0-9]{1,3}){3}$"))]
    pub tunnel_address: Option<String>,
    /// The shard of the gateway that serves the partner, by its name in the chart's `gateway.shards`. Absent: Liaison chooses one,
    /// which the partner keeps. Another name cuts the partner until it has the new `status.connection.endpoint` and key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = GATEWAY_LONGEST), regex(pattern = GATEWAY_PATTERN))]
    pub gateway: Option<String>,
    /// Where the partner's replica stands; absent means the installation's default store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica: Option<Replica>,
    /// True closes access and stops sharing until it is removed; absent means false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// Revocation of the partner's credentials; absent means not revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocation: Option<Revocation>,
    /// What deleting this object does to the replica; absent means Retain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,
    /// True keeps the replica, whatever is due, until removed; absent means false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub legal_hold: Option<bool>,
}

/// Who the partner is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Partner {
    /// Kind of organization.
    #[serde(rename = "type")]
    pub kind: PartnerType,
    /// ISO 3166-2 code of the province or territory, or CA for a national body; immutable.
    pub jurisdiction: PartnerJurisdiction,
    /// Name in both official languages.
    pub name: BilingualName,
    /// IANA time zone in which the partner's people read times and the agreement's last day ends.
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: String,
}

/// Kind of organization.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PartnerType {
    /// A police service.
    PoliceService,
    /// A provincial or territorial correctional service.
    CorrectionalService,
    /// A parole board.
    ParoleBoard,
    /// The Canadian Police Information Centre.
    PoliceInformationCentre,
    /// A health care system.
    HealthCare,
    /// A jail management system.
    JailManagement,
}

/// A province or territory, or the country.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PartnerJurisdiction {
    /// A province or territory.
    Province(Jurisdiction),
    /// The whole country.
    National(Country),
}

/// The country, for a national body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Country {
    /// Canada.
    #[serde(rename = "CA")]
    Canada,
}

// By hand: the derived schema of an untagged enum is not structural.
impl JsonSchema for PartnerJurisdiction {
    fn schema_name() -> Cow<'static, str> {
        "PartnerJurisdiction".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let codes: Vec<&str> = Jurisdiction::ALL.iter().map(|code| code.as_str()).chain(["CA"]).collect();
        schemars::json_schema!({ "type": "string", "enum": codes })
    }
}

/// A name in both official languages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BilingualName {
    /// English name.
    #[schemars(length(min = 1, max = 200))]
    pub en: String,
    /// French name.
    #[schemars(length(min = 1, max = 200))]
    pub fr: String,
}

/// A SharingAgreement in the same namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AgreementRef {
    /// Its name.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
}

/// What CSC shares with the partner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Share {
    /// Field groups; identity must be among them.
    #[schemars(length(min = 1, max = 16))]
    pub field_groups: Vec<FieldGroup>,
    /// Offender files.
    pub population: Population,
    /// How old, in seconds, the replica may be before DataFresh turns False; absent means 60.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 86400))]
    pub freshness_objective_seconds: Option<i32>,
}

/// Public keys of the partner; no private key ever appears here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Credentials {
    /// Who makes and keeps the private keys.
    pub key_custody: KeyCustody,
    /// WireGuard public keys.
    pub wire_guard: WireGuardKeys,
    /// Certificate signing requests.
    pub certificate: CertificateRequests,
    /// With custody Liaison: number of the pair of keys. Another number makes a new pair; the one before serves on for a time.
    /// Absent means 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub key_number: Option<i32>,
    /// One or two `age` public keys (`age1...`) of the partner's, to which secrets that CSC makes for it are encrypted in one
    /// bundle; absent means no bundle.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2), inner(length(min = 62, max = 62), regex(pattern = "^age1[02-9ac-hj-np-z]{58}$")))]
    pub recipients: Vec<String>,
}

/// Who makes and keeps the private keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum KeyCustody {
    /// The partner; only public keys reach Liaison.
    Partner,
    /// Liaison makes them, for a partner that cannot, and keeps them until the partner has picked them up.
    Liaison,
}

/// WireGuard public keys of the partner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WireGuardKeys {
    /// One or two base64 Curve25519 public keys, as `wg pubkey` prints them: active, and staged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 2),
        inner(length(min = 44, max = 44), regex(pattern = "^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$"))
    )]
    pub public_keys: Vec<String>,
    /// Whether each key that is accepted from now on has a preshared key of its own; absent means no. Keys that are accepted
    /// already stay as they are, so that nobody is cut: a preshared key comes with the next WireGuard key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preshared_key: Option<PresharedKey>,
}

/// Whether a preshared key is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PresharedKey {
    /// Each new key has one.
    Required,
}

/// Certificate signing requests of the partner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CertificateRequests {
    /// At most two PKCS#10 requests in PEM; only the public key is used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2), inner(length(min = 1, max = 8192)))]
    pub signing_requests: Vec<String>,
    /// The cert-manager issuer that issues the certificates instead of Liaison's own CA; absent means Liaison's. Each request
    /// must then ask for the partner's SPIFFE ID, and no other name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer_ref: Option<IssuerRef>,
    /// Lets the partner ask for certificates itself, inside its tunnel, by EST (RFC 7030); absent means it may not, and no
    /// certificate that it got so is accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enrolment: Option<Enrolment>,
}

/// An issuer, as cert-manager's CertificateRequest names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IssuerRef {
    /// Name of the issuer; an Issuer is in the connection's own namespace.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"))]
    pub name: String,
    /// Kind of the issuer; absent means Issuer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[A-Za-z][A-Za-z0-9]*$"))]
    pub kind: Option<String>,
    /// API group of the issuer; absent means cert-manager.io.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"))]
    pub group: Option<String>,
}

impl IssuerRef {
    /// Kind, as it is when the manifest does not say.
    pub fn kind(&self) -> &str {
        self.kind.as_deref().unwrap_or("Issuer")
    }

    /// API group, as it is when the manifest does not say.
    pub fn group(&self) -> &str {
        self.group.as_deref().unwrap_or("cert-manager.io")
    }
}

impl std::fmt::Display for IssuerRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.group(), self.kind(), self.name)
    }
}

/// Enrolment by the partner itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Enrolment {
    /// Number of the one-time token that brings the first certificate: another number makes a new token, and voids the one
    /// before. Absent means no token: the partner can only renew a certificate that it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub token_number: Option<i32>,
}

/// Where the replica stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Replica {
    /// Name of a replica store of this installation; immutable.
    #[schemars(length(min = 1, max = 63))]
    pub store_name: String,
}

/// Revocation of the partner's credentials. What was revoked stays so: no key that was, is ever accepted again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Revocation {
    /// True ends the tunnel, the certificates and every live connection; coming back needs new keys.
    pub revoked: bool,
    /// Every key that was first seen before this instant is revoked, with its certificates; later ones stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "time_schema")]
    pub not_before: Option<Time>,
}

/// What deleting the object does to the replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// Access is cut; the replica is disposed of within the agreement's bound.
    Retain,
    /// Access is cut and the replica is dropped.
    Delete,
}

/// What is in force. Status grants; spec takes away. Everything here is public.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PartnerConnectionStatus {
    /// The generation that the operator last acted on; -1 until it has looked.
    pub observed_generation: i64,
    /// Conditions: Ready, Accepted, CredentialsReady, ReplicaReady, AccessReady, Verified, Connected, DataFresh.
    #[serde(default)]
    #[schemars(schema_with = "conditions_schema")]
    pub conditions: Vec<Condition>,
    /// The instant at which the agreement ends; nothing is served from then on, whoever is down. Absent: nothing is served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "time_schema")]
    pub authorized_until: Option<Time>,
    /// The replica store in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub store_name: Option<String>,
    /// How the partner connects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<Connection>,
    /// WireGuard public keys that are accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2), inner(length(max = 44)))]
    pub wire_guard_keys: Vec<String>,
    /// When each of them was first seen, which is what `spec.revocation.notBefore` is held against.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    pub wire_guard_keys_seen: Vec<SeenKey>,
    /// Certificates that are accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub certificates: Vec<IssuedCertificate>,
    /// The enrolment token; the token itself is in no status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enrolment: Option<EnrolmentToken>,
    /// The public halves of keys that Liaison has made, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    pub custody: Vec<CustodyKeys>,
    /// The bundle of secrets that were made for the partner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<SecretBundle>,
    /// What the last verification of the replica found. Changes only when one ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica: Option<VerifiedReplica>,
    /// What each gateway has revoked, and when nothing more got through; written by the gateways, which never take any of it back.
    /// And which key each sees in use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "acknowledgements_schema")]
    pub gateways: Vec<Acknowledgement>,
}

/// When a key was first seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SeenKey {
    /// The key.
    #[schemars(length(max = 44))]
    pub public_key: String,
    /// When it was claimed for the partner.
    #[schemars(schema_with = "time_schema")]
    pub first_seen: Time,
    /// True: it is accepted together with its preshared key only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub preshared: bool,
}

/// A gateway's word: that a revocation has taken effect there, peers gone, live connections ended; and which key is in use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Acknowledgement {
    /// The gateway.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// The generation at which `revokedAt` was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// When `spec.revocation.revoked` last took effect; keys seen until then stay revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "time_schema")]
    pub revoked_at: Option<Time>,
    /// The `spec.revocation.notBefore` that last took effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "time_schema")]
    pub not_before: Option<Time>,
    /// When it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "time_schema")]
    pub not_before_at: Option<Time>,
    /// The WireGuard key by which the partner's data comes, where it has more than one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_in_use: Option<KeyInUse>,
}

/// A WireGuard key that is in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyInUse {
    /// The key.
    #[schemars(length(max = 44))]
    pub public_key: String,
    /// Since when.
    #[schemars(schema_with = "time_schema")]
    pub since: Time,
}

/// What the last verification of the replica found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VerifiedReplica {
    /// The snapshot, by the hub's clock, at which the replica was last shown to be exactly what is shared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "time_schema")]
    pub last_verified: Option<Time>,
    /// Lower-case hex SHA-256 that hub and replica had in common then; the signed attestation names the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub root: Option<String>,
    /// Offender files in the replica then.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub files: i64,
    /// Records in the replica then.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub records: i64,
    /// Files, reference records and pictures that had to be repaired before the two were the same.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub mismatches: i64,
    /// Number of the last scheduled verification that ended.
    #[serde(default)]
    pub observed_turn: i64,
    /// Digest of the annotation `federation.csc-scc.gc.ca/verify` that was last worked off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub observed_verify: Option<String>,
    /// Digest of the annotation `federation.csc-scc.gc.ca/rebuild` that was last worked off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub observed_rebuild: Option<String>,
}

/// How the partner connects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Connection {
    /// The shard of the gateway that serves the partner; what follows is that shard's. Absent: the one named `gateway`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = GATEWAY_LONGEST), regex(pattern = GATEWAY_PATTERN))]
    pub gateway: Option<String>,
    /// `host:port` (UDP) of the gateway.
    #[schemars(length(max = 262))]
    pub endpoint: String,
    /// WireGuard public keys of the gateway: the one to use at `endpoint`, and while it is new the one before.
    #[schemars(length(max = 2), inner(length(max = 44)))]
    pub gateway_public_keys: Vec<String>,
    /// `host:port` at which the second of `gatewayPublicKeys` still serves, until all partners have come over to the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 262))]
    pub retiring_endpoint: Option<String>,
    /// The partner's addresses in the tunnel: the odd ones of its /31 and /127.
    pub partner_addresses: AddressPair,
    /// The gateway's addresses for this partner: the even ones. HTTPS is on port 443.
    pub gateway_addresses: AddressPair,
    /// Name that the gateway's certificate and the requests' Host must bear.
    #[schemars(length(max = 253))]
    pub server_name: String,
    /// CA certificates in PEM against which the gateway's certificate is verified; more than one while roots change.
    #[schemars(length(max = 16384))]
    pub ca_bundle: String,
}

/// One address of each family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AddressPair {
    /// IPv4 address.
    #[schemars(length(max = 15))]
    pub ipv4: String,
    /// IPv6 address.
    #[schemars(length(max = 45))]
    pub ipv6: String,
}

/// A pair of keys that Liaison has made for the partner, by their public halves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CustodyKeys {
    /// Its number in the manifest.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub number: i32,
    /// The WireGuard public key.
    #[schemars(length(max = 44))]
    pub public_key: String,
    /// A PKCS#10 request in PEM with the certificate's key.
    #[schemars(length(max = 8192))]
    pub signing_request: String,
}

impl PartnerConnection {
    /// The WireGuard keys and the signing requests that the connection names: the manifest's own, or those of the pairs that
    /// Liaison has made, as long as the manifest leaves the keys to it and asks for their number or a later one.
    pub fn named_keys(&self) -> (Vec<&String>, Vec<&String>) {
        let credentials = &self.spec.credentials;
        match credentials.key_custody {
            KeyCustody::Partner => (
                credentials.wire_guard.public_keys.iter().collect(),
                credentials.certificate.signing_requests.iter().collect(),
            ),
            KeyCustody::Liaison => {
                let number = credentials.key_number.unwrap_or(1);
                let pairs = self.status.iter().flat_map(|status| &status.custody);
                pairs.filter(|pair| pair.number <= number).map(|pair| (&pair.public_key, &pair.signing_request)).unzip()
            }
        }
    }
}

/// Secrets made for the partner, encrypted to its recipients, as ConfigMap `bundle-<name>` until they are picked up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretBundle {
    /// Lower-case hex SHA-256 of the bundle that waits to be picked up; absent when none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub sha256: Option<String>,
    /// When that was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "time_schema")]
    pub made: Option<Time>,
    /// Names of what is in it; no secret is in a name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(max = 64)))]
    pub contents: Vec<String>,
    /// Names of what was picked up and is still in use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(max = 64)))]
    pub handed_over: Vec<String>,
}

/// A one-time token, by what can be told of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnrolmentToken {
    /// Its number in the manifest.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub token_number: i32,
    /// Lower-case hex SHA-256 of the SHA-256 of the token.
    #[schemars(length(max = 64))]
    pub token_digest: String,
    /// When it was made.
    #[schemars(schema_with = "time_schema")]
    pub issued: Time,
    /// Until when it can be used.
    #[schemars(schema_with = "time_schema")]
    pub not_after: Time,
    /// Lower-case hex SHA-256 of the SubjectPublicKeyInfo for which it was used. It brings no other key a certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub used_by: Option<String>,
}

/// A certificate issued on one of the signing requests, or on a request that the partner sent itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IssuedCertificate {
    /// Lower-case hex SHA-256 of the leaf's DER: its fingerprint.
    #[schemars(length(max = 64))]
    pub sha256: String,
    /// Lower-case hex SHA-256 of the SubjectPublicKeyInfo, the same as in the request it was issued on.
    #[schemars(length(max = 64))]
    pub public_key_sha256: String,
    /// When that key was first seen, which is what `spec.revocation.notBefore` is held against.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "time_schema")]
    pub key_first_seen: Option<Time>,
    /// The CertificateSigningRequest by which the partner itself asked for it; absent for one on a request of the manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub enrolled_by: Option<String>,
    /// The issuer of `spec.credentials.certificate.issuerRef` that issued it, as group/kind/name; absent for Liaison's own CA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 571))]
    pub issued_by: Option<String>,
    /// Leaf and issuing certificate in PEM, and while roots change the new root as the old one certifies it.
    #[schemars(length(max = 16384))]
    pub chain: String,
    /// Start of validity.
    #[schemars(schema_with = "time_schema")]
    pub not_before: Time,
    /// End of validity.
    #[schemars(schema_with = "time_schema")]
    pub not_after: Time,
}
