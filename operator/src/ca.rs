//! The certificate authority: root -> issuing -> leaf.
//!
//! Here is what is made; beside it what is read of a certificate, of a signing request, and of a revocation list.
//!
//! Pure: keys come from aws-lc's generator, time and serials are parameters. What is in a certificate comes from a
//! [`Subject`] of ours; of a partner's signing request only the public key is used. A leaf never outlives its issuer.

mod certificate;
mod request;
mod revocation_list;
mod signer;

use std::{fmt, time::Duration};

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use sha2::{Digest, Sha256};

pub use self::{
    certificate::{Foreign, Validity, blocks, digests, is_signed_by, read, read_foreign, serial, subject_digest},
    request::{Request, read_request, request_for},
    revocation_list::{Revoked, read_crl, sign_crl, signed_crl},
    signer::Signer,
};

/// Validity starts this long before issue, for clocks that are behind.
const BACKDATE: i64 = 300;
const DAY: i64 = 86_400;
/// Life of a partner's leaf and of the read services' certificates, in days.
pub const LEAF_DAYS: i64 = 30;
/// Life of the certificates of the installation's own servers and roles, in days.
pub const SERVER_DAYS: i64 = 365;
const ISSUING_DAYS: i64 = 5 * 365;
const ROOT_DAYS: i64 = 15 * 365;

/// The last line of a certificate in PEM.
const END: &str = "-----END CERTIFICATE-----";

/// A certificate could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// From the library.
    #[error("certificate: {0}")]
    Rcgen(#[from] rcgen::Error),
    /// Not what it should be.
    #[error("{0}")]
    Unreadable(String),
}

/// A private key in PEM, which is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyPem(pub String);

impl fmt::Debug for KeyPem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyPem(..)")
    }
}

/// What a certificate is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// Common name; of a database client the role.
    pub common_name: String,
    /// DNS names.
    pub dns: Vec<String>,
    /// URIs, such as `spiffe://liaison.example.ca/gateway`.
    pub uris: Vec<String>,
    /// TLS server authentication.
    pub server: bool,
    /// TLS client authentication.
    pub client: bool,
    /// Life in days.
    pub days: i64,
}

impl Subject {
    /// A digest that changes when the subject does: such a certificate is issued again.
    pub fn fingerprint(&self) -> String {
        let Self { common_name, dns, uris, server, client, days: _ } = self;
        let text = format!("{common_name}\0{}\0{}\0{server}\0{client}", dns.join("\n"), uris.join("\n"));
        hex::encode(&Sha256::digest(text)[..8])
    }
}

/// A certificate just issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// Leaf and issuing certificate in PEM.
    pub chain: String,
    /// Lower-case hex SHA-256 of the leaf's DER.
    pub sha256: String,
    /// Start of validity.
    pub not_before: Timestamp,
    /// End of validity.
    pub not_after: Timestamp,
}

/// A CA certificate with its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaPair {
    /// Certificate in PEM.
    pub certificate: String,
    /// Private key in PEM.
    pub key: KeyPem,
}

/// A name of its own for each CA: a server says by name which roots it accepts.
fn ca_name(kind: &str, number: u32, domain: &str) -> String {
    if number == 1 { format!("Liaison {kind} CA ({domain})") } else { format!("Liaison {kind} CA {number} ({domain})") }
}

/// Makes the root of this number.
pub fn make_root(domain: &str, number: u32, now: Timestamp, serial: [u8; 16]) -> Result<CaPair, Error> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384)?;
    let params = ca_params(&ca_name("Root", number, domain), None, now, now_plus(now, ROOT_DAYS), serial);
    let certificate = params.self_signed(&key)?.pem();
    Ok(CaPair { certificate, key: KeyPem(key.serialize_pem()) })
}

/// The new root as the old one certifies it: who holds only the old one can verify what is under the new one. It is a CA of
/// the same name and key, and ends with the old root at the latest.
pub fn cross_sign(
    old: &CaPair,
    new: &CaPair,
    domain: &str,
    number: u32,
    now: Timestamp,
    serial: [u8; 16],
) -> Result<String, Error> {
    let issuer = Issuer::from_ca_cert_pem(&old.certificate, KeyPair::from_pem(&old.key.0)?)?;
    let key = KeyPair::from_pem(&new.key.0)?;
    let until = read(&old.certificate)?.not_after.min(read(&new.certificate)?.not_after);
    let params = ca_params(&ca_name("Root", number, domain), None, now, until, serial);
    Ok(params.signed_by(&key, &issuer)?.pem())
}

/// Makes the issuing CA of this number under a root.
pub fn make_issuing(
    root: &CaPair,
    domain: &str,
    number: u32,
    now: Timestamp,
    serial: [u8; 16],
) -> Result<CaPair, Error> {
    let issuer = Issuer::from_ca_cert_pem(&root.certificate, KeyPair::from_pem(&root.key.0)?)?;
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384)?;
    let until = now_plus(now, ISSUING_DAYS).min(read(&root.certificate)?.not_after);
    let params = ca_params(&ca_name("Issuing", number, domain), Some(0), now, until, serial);
    let certificate = params.signed_by(&key, &issuer)?.pem();
    Ok(CaPair { certificate, key: KeyPem(key.serialize_pem()) })
}

/// The issuing CA, ready to sign.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    not_after: Timestamp,
    /// The issuing certificate in PEM.
    pub certificate: String,
    /// What follows a leaf: the issuing certificate, and its root as earlier roots certify it, while those are trusted.
    pub above: String,
    /// The root certificates in PEM: what others verify against.
    pub bundle: String,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

impl Authority {
    /// From the issuing pair, the cross certificates that its chains need, and the certificates of all trusted roots.
    pub fn load(issuing: &CaPair, crosses: &str, bundle: &str) -> Result<Self, Error> {
        let issuer = Issuer::from_ca_cert_pem(&issuing.certificate, KeyPair::from_pem(&issuing.key.0)?)?;
        let not_after = read(&issuing.certificate)?.not_after;
        let above = format!("{}{crosses}", issuing.certificate);
        Ok(Self { issuer, not_after, certificate: issuing.certificate.clone(), above, bundle: bundle.to_owned() })
    }

    /// Issues a leaf for a public key.
    pub fn issue(
        &self,
        key: &impl PublicKeyData,
        subject: &Subject,
        now: Timestamp,
        serial: [u8; 16],
    ) -> Result<Issued, Error> {
        let mut params = CertificateParams::default();
        let mut name = DistinguishedName::new();
        // A common name holds at most 64 characters (RFC 5280, ub-common-name).
        name.push(DnType::CommonName, subject.common_name.chars().take(64).collect::<String>());
        params.distinguished_name = name;
        for dns in &subject.dns {
            params.subject_alt_names.push(SanType::DnsName(dns.as_str().try_into()?));
        }
        for uri in &subject.uris {
            params.subject_alt_names.push(SanType::URI(uri.as_str().try_into()?));
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        if subject.server {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        if subject.client {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial_number(serial));
        let not_after = now_plus(now, subject.days).min(self.not_after);
        date(&mut params, now, not_after);
        let leaf = params.signed_by(key, &self.issuer)?;
        Ok(Issued {
            chain: format!("{}{}", leaf.pem(), self.above),
            sha256: hex::encode(Sha256::digest(leaf.der())),
            not_before: seconds(now.as_second() - BACKDATE),
            not_after: seconds(not_after.as_second()),
        })
    }

    /// Issues a leaf for a new P-256 key.
    pub fn issue_with_key(
        &self,
        subject: &Subject,
        now: Timestamp,
        serial: [u8; 16],
    ) -> Result<(Issued, KeyPem), Error> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let issued = self.issue(&key, subject, now, serial)?;
        Ok((issued, KeyPem(key.serialize_pem())))
    }

    /// Whether a chain is to be issued again: unreadable, of another issuer, or past two thirds of its life.
    pub fn is_due(&self, chain: &str, now: Timestamp) -> bool {
        !self.issued(chain) || read(chain).map_or(true, |leaf| now >= leaf.renewal())
    }

    /// Whether the other signs with the same certificate, and leads to the same roots.
    pub fn is_same(&self, other: &Self) -> bool {
        self.above == other.above && self.bundle == other.bundle
    }

    /// Whether a chain is of a leaf that this CA issued.
    fn issued(&self, chain: &str) -> bool {
        chain.contains(self.certificate.trim())
    }

    /// The same leaf with what follows it now: cross certificates come and go while it lives. None where nothing changes.
    pub fn rechain(&self, chain: &str) -> Option<String> {
        let leaf = chain.split_inclusive(END).next().filter(|leaf| leaf.ends_with(END))?;
        let now = format!("{leaf}\n{}", self.above);
        (self.issued(chain) && now != chain).then_some(now)
    }
}

/// A new P-256 key.
pub fn new_key() -> Result<KeyPem, Error> {
    Ok(KeyPem(KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?.serialize_pem()))
}

fn ca_params(name: &str, path: Option<u8>, now: Timestamp, until: Timestamp, serial: [u8; 16]) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut dn = DistinguishedName::new();
    dn.push(DnType::CommonName, name.chars().take(64).collect::<String>());
    params.distinguished_name = dn;
    params.is_ca = IsCa::Ca(path.map_or(BasicConstraints::Unconstrained, BasicConstraints::Constrained));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(serial_number(serial));
    date(&mut params, now, until);
    params
}

/// 126 random bits: a serial is positive (RFC 5280 4.1.2.2), and a leading zero byte would be dropped, so the two highest are 01.
fn serial_number(mut random: [u8; 16]) -> SerialNumber {
    random[0] = (random[0] & 0x7f) | 0x40;
    SerialNumber::from_slice(&random)
}

fn date(params: &mut CertificateParams, now: Timestamp, until: Timestamp) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let after = |second: i64| epoch + Duration::from_secs(u64::try_from(second).unwrap_or_default());
    params.not_before = after(now.as_second() - BACKDATE);
    params.not_after = after(until.as_second());
}

fn now_plus(now: Timestamp, days: i64) -> Timestamp {
    seconds(now.as_second() + days * DAY)
}

fn seconds(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use x509_parser::{certificate::X509Certificate, prelude::FromDer};

    use super::*;

    fn now() -> Timestamp {
        "2026-11-22T00:00:00Z".parse().unwrap()
    }

    fn authority() -> Authority {
        let root = make_root("liaison.example.ca", 1, now(), [1; 16]).unwrap();
        let issuing = make_issuing(&root, "liaison.example.ca", 1, now(), [2; 16]).unwrap();
        Authority::load(&issuing, "", &root.certificate).unwrap()
    }

    fn subject() -> Subject {
        Subject {
            common_name: "vancouver-police".into(),
            dns: vec![],
            uris: vec!["spiffe://liaison.example.ca/partner/vancouver-police".into()],
            server: false,
            client: true,
            days: LEAF_DAYS,
        }
    }

    pub(super) fn request(alg: &'static rcgen::SignatureAlgorithm, asks: &str) -> String {
        let key = KeyPair::generate_for(alg).unwrap();
        let params = CertificateParams::new(vec![asks.to_owned()]).unwrap();
        params.serialize_request(&key).unwrap().pem().unwrap()
    }

    #[test]
    fn only_the_key_of_a_request_is_used() {
        for alg in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384] {
            let request = read_request(&request(alg, "victoria-police.liaison.example.ca")).unwrap();
            let authority = authority();
            let issued = authority.issue(&request.key, &subject(), now(), [0xff; 16]).unwrap();
            let (_, pem) = x509_parser::pem::parse_x509_pem(issued.chain.as_bytes()).unwrap();
            let (_, leaf) = X509Certificate::from_der(&pem.contents).unwrap();
            assert_eq!(issued.sha256, hex::encode(Sha256::digest(&pem.contents)));
            assert_eq!(request.public_key_sha256, hex::encode(Sha256::digest(leaf.public_key().raw)));
            let san = format!("{:?}", leaf.subject_alternative_name().unwrap().unwrap().value.general_names);
            assert!(san.contains("partner/vancouver-police") && !san.contains("victoria"), "{san}");
            let eku = leaf.extended_key_usage().unwrap().unwrap().value;
            assert!(eku.client_auth && !eku.server_auth);
            assert_eq!(leaf.validity().not_before.timestamp(), now().as_second() - 300);
            assert_eq!(leaf.validity().not_after.timestamp(), now().as_second() + 30 * DAY);
            assert!(leaf.raw_serial().len() == 16 && !leaf.is_ca());
            let (_, pem) = x509_parser::pem::parse_x509_pem(authority.certificate.as_bytes()).unwrap();
            let (_, issuing) = X509Certificate::from_der(&pem.contents).unwrap();
            leaf.verify_signature(Some(issuing.public_key())).unwrap();
        }
    }

    #[test]
    fn a_statement_is_signed_with_the_key_of_the_chain_and_no_other() {
        let authority = authority();
        let statements = Subject { client: false, ..subject() };
        let (issued, key) = authority.issue_with_key(&statements, now(), [5; 16]).unwrap();
        let signer = Signer::load(&issued.chain, &key).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(issued.chain.as_bytes()).unwrap();
        let (_, leaf) = X509Certificate::from_der(&pem.contents).unwrap();
        assert!(
            leaf.key_usage().unwrap().unwrap().value.digital_signature()
                && leaf.extended_key_usage().unwrap().is_none()
        );
        assert_eq!(signer.key_id, hex::encode(Sha256::digest(leaf.public_key().raw)));
        // SEQUENCE of two INTEGERs.
        assert_eq!(signer.sign(b"a").unwrap()[0], 0x30);
        let (_, other) = authority.issue_with_key(&statements, now(), [6; 16]).unwrap();
        assert!(Signer::load(&issued.chain, &other).is_err());
        assert!(!format!("{signer:?}").contains("PRIVATE"));
    }

    #[test]
    fn a_leaf_never_outlives_its_issuer() {
        let authority = authority();
        let late = now_plus(now(), ISSUING_DAYS - 3);
        let (issued, key) = authority.issue_with_key(&subject(), late, [3; 16]).unwrap();
        assert_eq!(issued.not_after, authority.not_after);
        assert_eq!(format!("{key:?}"), "KeyPem(..)");
    }

    #[test]
    fn a_chain_is_due_at_two_thirds_of_its_life_or_under_another_issuer() {
        let authority = authority();
        let (issued, _) = authority.issue_with_key(&subject(), now(), [4; 16]).unwrap();
        assert!(!authority.is_due(&issued.chain, now_plus(now(), 19)));
        assert!(authority.is_due(&issued.chain, now_plus(now(), 20)));
        assert!(super::tests::authority().is_due(&issued.chain, now()));
        assert!(authority.is_due("garbage", now()));
    }
}
