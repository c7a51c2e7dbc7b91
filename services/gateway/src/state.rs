//! What is in force: PartnerConnections made into the peer table that everything else obeys.
//!
//! Pure: objects and the time come in as values. Status grants and spec takes away (design section 2), so a partner is
//! open only with what both name; whatever is missing, malformed or claimed twice closes it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use liaison_crds::{
    GatewayName, PartnerConnection, gateway, is_canonical, partner_connection::IssuedCertificate, revocation::Floor,
};
use liaison_records::names::PartnerName;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, pem::PemObject};
use sha2::{Digest, Sha256};
use x509_parser::{
    certificate::X509Certificate, certification_request::X509CertificationRequest, prelude::FromDer,
    x509::SubjectPublicKeyInfo,
};

/// SHA-256 of a certificate's DER.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint of a certificate in DER.
    pub fn of(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// A WireGuard public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WireGuardKey(pub [u8; 32]);

impl WireGuardKey {
    /// Parses base64 as `wg pubkey` prints it. None for another way to write a key, which would be two keys here and one to WireGuard.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = STANDARD.decode(text).ok()?.try_into().ok()?;
        is_canonical(&bytes).then_some(Self(bytes))
    }
}

impl fmt::Debug for WireGuardKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

/// A partner's tunnel slot: the even addresses are the gateway's, the odd ones the partner's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Slot {
    v4: Ipv4Addr,
    v6: Ipv6Addr,
}

impl Slot {
    /// The slot whose gateway addresses are these; `None` if one of them is odd.
    pub fn new(v4: Ipv4Addr, v6: Ipv6Addr) -> Option<Self> {
        (v4.to_bits() & 1 == 0 && v6.to_bits() & 1 == 0).then_some(Self { v4, v6 })
    }

    /// The gateway's ends, IPv4 first.
    pub fn gateway(&self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }

    /// The partner's ends, IPv4 first.
    pub fn partner(&self) -> [IpAddr; 2] {
        [Ipv4Addr::from_bits(self.v4.to_bits() | 1).into(), Ipv6Addr::from_bits(self.v6.to_bits() | 1).into()]
    }
}

/// The span in which a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// First instant.
    pub not_before: Timestamp,
    /// Last instant.
    pub not_after: Timestamp,
}

impl Validity {
    /// Whether `now` lies in it.
    pub fn contains(&self, now: Timestamp) -> bool {
        self.not_before <= now && now <= self.not_after
    }
}

/// What a partner may ask for itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Enrolment {
    /// The one-time token.
    pub token: Option<Token>,
    /// The issuing certificates, in DER, of the leaves that are accepted.
    pub issuers: BTreeSet<Vec<u8>>,
}

/// What is known of a one-time token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// As `liaison_crds::enrolment::digest` makes it.
    pub digest: String,
    /// Until when it can be used.
    pub not_after: Timestamp,
    /// Lower-case hex SHA-256 of the public key for which it was used.
    pub used_by: Option<String>,
}

/// Everything by which one partner is let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partner {
    /// Who.
    pub name: PartnerName,
    /// The only name under which it is served: SNI and Host.
    pub server_name: String,
    /// Its addresses.
    pub slot: Slot,
    /// Its accepted WireGuard keys, in the order of the spec; at least one.
    pub keys: Vec<WireGuardKey>,
    /// Those of them that are accepted together with their preshared key only.
    pub preshared: BTreeSet<WireGuardKey>,
    /// Its active leaves.
    pub leaves: BTreeMap<Fingerprint, Validity>,
    /// Those of them that another than Liaison's CA issued: they count though their chain leads to no root that is known here.
    pub elsewhere: BTreeSet<Fingerprint>,
    /// Whether it may ask for certificates itself.
    pub enrolment: Option<Enrolment>,
    /// From this instant on it is not served.
    pub authorized_until: Timestamp,
}

/// Why a partner is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    /// The object is being deleted.
    #[error("deleting")]
    Deleting,
    /// `spec.suspend`.
    #[error("suspended")]
    Suspended,
    /// `spec.revocation.revoked`.
    #[error("revoked")]
    Revoked,
    /// `status.authorizedUntil` is absent.
    #[error("not authorized")]
    NotAuthorized,
    /// `status.authorizedUntil` has passed.
    #[error("agreement ended")]
    Ended,
    /// `status.connection` is absent.
    #[error("no addresses")]
    NoAddresses,
    /// No WireGuard key is in spec, accepted in status, and not revoked.
    #[error("no accepted key")]
    NoKey,
    /// Name, addresses, keys or certificates cannot be read, or a certificate is not what is said of it.
    #[error("malformed")]
    Malformed,
    /// Another partner has the same address or key in its status; neither is served.
    #[error("address or key claimed twice")]
    ClaimedTwice,
}

/// What one object says, before the clock is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The shard whose it is, open or closed.
    pub gateway: String,
    /// By what it is let in there, or why it is not.
    pub partner: Result<Partner, Closed>,
}

/// Reads one object: spec AND status, without the keys that were revoked, by what it says or by what the gateway remembers.
pub fn candidate(object: &PartnerConnection, domain: &str, remembered: Floor) -> Candidate {
    Candidate { gateway: gateway::of(object.status.as_ref()).to_owned(), partner: partner(object, domain, remembered) }
}

fn partner(object: &PartnerConnection, domain: &str, remembered: Floor) -> Result<Partner, Closed> {
    let name: PartnerName = object.metadata.name.as_deref().and_then(|n| n.parse().ok()).ok_or(Closed::Malformed)?;
    if object.metadata.deletion_timestamp.is_some() {
        return Err(Closed::Deleting);
    }
    let spec = &object.spec;
    if spec.revocation.as_ref().is_some_and(|r| r.revoked) {
        return Err(Closed::Revoked);
    }
    if spec.suspend == Some(true) {
        return Err(Closed::Suspended);
    }
    let status = object.status.as_ref().ok_or(Closed::NotAuthorized)?;
    let authorized_until = status.authorized_until.as_ref().ok_or(Closed::NotAuthorized)?.0;
    let connection = status.connection.as_ref().ok_or(Closed::NoAddresses)?;
    let slot = slot(&connection.gateway_addresses.ipv4, &connection.gateway_addresses.ipv6)?;
    let partner_ends = [
        connection.partner_addresses.ipv4.parse::<IpAddr>().map_err(|_| Closed::Malformed)?,
        connection.partner_addresses.ipv6.parse::<IpAddr>().map_err(|_| Closed::Malformed)?,
    ];
    if partner_ends != slot.partner() {
        return Err(Closed::Malformed);
    }

    let floor = Floor::of(object).max(remembered);
    let (mut keys, mut preshared) = (Vec::new(), BTreeSet::new());
    let (named_keys, named_requests) = object.named_keys();
    for text in named_keys {
        let seen = status.wire_guard_keys_seen.iter().find(|seen| seen.public_key == *text);
        let revoked = floor.revokes(seen.map(|seen| seen.first_seen.0));
        if status.wire_guard_keys.contains(text) && !revoked {
            let key = WireGuardKey::parse(text).ok_or(Closed::Malformed)?;
            if !keys.contains(&key) {
                keys.push(key);
            }
            if seen.is_some_and(|seen| seen.preshared) {
                preshared.insert(key);
            }
        }
    }
    if keys.is_empty() {
        return Err(Closed::NoKey);
    }

    // A request that cannot be read grants nothing, and takes nothing from the other one.
    let requested: BTreeSet<String> = named_requests.into_iter().filter_map(|pem| public_key_sha256(pem)).collect();
    // What it asked for itself, it has as long as it may.
    let mut enrolment = spec.credentials.certificate.enrolment.as_ref().map(|asked| Enrolment {
        token: status.enrolment.as_ref().and_then(|token| {
            let in_force = asked.token_number == Some(token.token_number) && !floor.revokes(Some(token.issued.0));
            in_force.then(|| Token {
                digest: token.token_digest.clone(),
                not_after: token.not_after.0,
                used_by: token.used_by.clone(),
            })
        }),
        issuers: BTreeSet::new(),
    });
    let (mut leaves, mut elsewhere) = (BTreeMap::new(), BTreeSet::new());
    for issued in &status.certificates {
        let named = match issued.enrolled_by {
            Some(_) => enrolment.is_some(),
            None => requested.contains(&issued.public_key_sha256),
        };
        if !named {
            continue;
        }
        if floor.revokes(issued.key_first_seen.as_ref().map(|seen| seen.0)) {
            continue;
        }
        let validity = Validity { not_before: issued.not_before.0, not_after: issued.not_after.0 };
        let fingerprint = leaf(issued).ok_or(Closed::Malformed)?;
        leaves.insert(fingerprint, validity);
        if issued.issued_by.is_some() {
            elsewhere.insert(fingerprint);
        }
        if let Some(enrolment) = &mut enrolment {
            let chain = CertificateDer::pem_slice_iter(issued.chain.as_bytes()).skip(1).map_while(Result::ok);
            enrolment.issuers.extend(chain.map(|certificate| certificate.to_vec()));
        }
    }

    let server_name = format!("{name}.{domain}").to_ascii_lowercase();
    Ok(Partner { name, server_name, slot, keys, preshared, leaves, elsewhere, enrolment, authorized_until })
}

/// The leaf of a chain in status, if it is the certificate, and on the key, that status says it is.
fn leaf(issued: &IssuedCertificate) -> Option<Fingerprint> {
    let der = CertificateDer::from_pem_slice(issued.chain.as_bytes()).ok()?;
    let (_, certificate) = X509Certificate::from_der(&der).ok()?;
    let fingerprint = Fingerprint::of(&der);
    let key = key_sha256(&certificate.tbs_certificate.subject_pki);
    (fingerprint.to_string() == issued.sha256 && key == issued.public_key_sha256).then_some(fingerprint)
}

fn slot(v4: &str, v6: &str) -> Result<Slot, Closed> {
    let v4 = v4.parse().map_err(|_| Closed::Malformed)?;
    let v6 = v6.parse().map_err(|_| Closed::Malformed)?;
    Slot::new(v4, v6).ok_or(Closed::Malformed)
}

/// Lower-case hex SHA-256 of the SubjectPublicKeyInfo in a PKCS#10 request in PEM.
pub fn public_key_sha256(pem: &str) -> Option<String> {
    let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).ok()?;
    request_key_sha256(&der)
}

/// The same of a request in DER, and nothing after it.
pub fn request_key_sha256(der: &[u8]) -> Option<String> {
    let (rest, request) = X509CertificationRequest::from_der(der).ok()?;
    if !rest.is_empty() {
        return None;
    }
    Some(key_sha256(&request.certification_request_info.subject_pki))
}

fn key_sha256(key: &SubjectPublicKeyInfo<'_>) -> String {
    hex::encode(Sha256::digest(key.raw))
}

/// The partners of one shard that are open at one instant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    partners: BTreeMap<PartnerName, Arc<Partner>>,
    by_gateway_address: HashMap<IpAddr, Arc<Partner>>,
    closed: BTreeMap<PartnerName, Closed>,
}

impl Table {
    /// The table of a shard at `now`. Candidates that share an address or a key, in whatever shards, are all closed.
    pub fn build(candidates: &BTreeMap<PartnerName, Candidate>, shard: &GatewayName, now: Timestamp) -> Self {
        let mut table = Self::default();
        let mut open = Vec::new();
        let mut slots: HashMap<Ipv4Addr, u32> = HashMap::new();
        let mut slots_v6: HashMap<Ipv6Addr, u32> = HashMap::new();
        let mut keys: HashMap<WireGuardKey, u32> = HashMap::new();
        for (name, candidate) in candidates {
            let ours = candidate.gateway == shard.as_str();
            match &candidate.partner {
                Ok(partner) if partner.authorized_until <= now => {
                    if ours {
                        table.closed.insert(name.clone(), Closed::Ended);
                    }
                }
                Ok(partner) => {
                    *slots.entry(partner.slot.v4).or_default() += 1;
                    *slots_v6.entry(partner.slot.v6).or_default() += 1;
                    for key in &partner.keys {
                        *keys.entry(*key).or_default() += 1;
                    }
                    if ours {
                        open.push(partner);
                    }
                }
                Err(reason) if ours => {
                    table.closed.insert(name.clone(), *reason);
                }
                Err(_) => {}
            }
        }
        for partner in open {
            let twice = slots.get(&partner.slot.v4) != Some(&1)
                || slots_v6.get(&partner.slot.v6) != Some(&1)
                || partner.keys.iter().any(|k| keys.get(k) != Some(&1));
            if twice {
                table.closed.insert(partner.name.clone(), Closed::ClaimedTwice);
                continue;
            }
            let partner = Arc::new(partner.clone());
            for address in partner.slot.gateway() {
                table.by_gateway_address.insert(address, Arc::clone(&partner));
            }
            table.partners.insert(partner.name.clone(), partner);
        }
        table
    }

    /// Open partners by name.
    pub fn partners(&self) -> &BTreeMap<PartnerName, Arc<Partner>> {
        &self.partners
    }

    /// Closed partners of the shard, and why.
    pub fn closed(&self) -> &BTreeMap<PartnerName, Closed> {
        &self.closed
    }

    /// The open partner whose gateway address this is.
    pub fn at(&self, gateway_address: IpAddr) -> Option<&Arc<Partner>> {
        self.by_gateway_address.get(&gateway_address)
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
