//! Whose certificate asks: the caller's leaf from the gateway's `Client-Cert` header (RFC 9440), and the names in
//! certificates. Pure.

use base64::{Engine, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Why a certificate was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCertificate {
    /// No header, several, or not one structured-field byte sequence.
    #[error("the Client-Cert header must be one byte sequence between colons")]
    Header,
    /// Not a DER certificate.
    #[error("not a certificate")]
    NotACertificate,
    /// Another party's.
    #[error("the certificate names another party")]
    OtherParty,
}

/// The SPIFFE ID of the gateway.
pub fn gateway_id(domain: &str) -> String {
    format!("spiffe://{domain}/gateway")
}

/// The SPIFFE ID of a partner.
pub fn partner_id(domain: &str, partner: &str) -> String {
    format!("spiffe://{domain}/partner/{partner}")
}

/// Reads a `Client-Cert` header value, checks that the certificate is `expected`'s, and returns its SHA-256 in
/// hexadecimal. That it chains to the CA and is in the active set, the gateway has checked.
pub fn leaf_of(header: &str, expected: &str) -> Result<String, InvalidCertificate> {
    let encoded =
        header.trim().strip_prefix(':').and_then(|rest| rest.strip_suffix(':')).ok_or(InvalidCertificate::Header)?;
    let der = STANDARD.decode(encoded).map_err(|_| InvalidCertificate::Header)?;
    require_id(&der, expected)?;
    Ok(hex::encode(Sha256::digest(&der)))
}

/// Checks that the only URI among a certificate's names is `expected`.
pub fn require_id(der: &[u8], expected: &str) -> Result<(), InvalidCertificate> {
    let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| InvalidCertificate::NotACertificate)?;
    if !rest.is_empty() {
        return Err(InvalidCertificate::NotACertificate);
    }
    let names = certificate.subject_alternative_name().map_err(|_| InvalidCertificate::NotACertificate)?;
    let uris: Vec<&str> = names
        .iter()
        .flat_map(|names| &names.value.general_names)
        .filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None })
        .collect();
    if uris == [expected] { Ok(()) } else { Err(InvalidCertificate::OtherParty) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(uris: &[&str]) -> Vec<u8> {
        let mut params = rcgen::CertificateParams::new(vec!["host.example".to_owned()]).unwrap();
        params.subject_alt_names.extend(uris.iter().map(|uri| rcgen::SanType::URI((*uri).try_into().unwrap())));
        let key = rcgen::KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn only_the_partners_own_certificate_counts() {
        let mine = partner_id("liaison.example.ca", "vancouver-police");
        let der = certificate(&[&mine]);
        let header = format!(":{}:", STANDARD.encode(&der));
        assert_eq!(leaf_of(&header, &mine), Ok(hex::encode(Sha256::digest(&der))));
        assert_eq!(
            leaf_of(&header, &partner_id("liaison.example.ca", "vancouver")),
            Err(InvalidCertificate::OtherParty)
        );
        let both = certificate(&[&mine, "spiffe://liaison.example.ca/partner/other"]);
        assert_eq!(require_id(&both, &mine), Err(InvalidCertificate::OtherParty));
        assert_eq!(require_id(&certificate(&[]), &mine), Err(InvalidCertificate::OtherParty));
    }

    #[test]
    fn what_is_not_one_byte_sequence_is_refused() {
        for header in ["", ":", "::::", "abc", ":a b:", ":YWJj:, :YWJj:"] {
            assert!(leaf_of(header, "spiffe://x/partner/y").is_err(), "{header}");
        }
        assert_eq!(leaf_of(":YWJj:", "spiffe://x/partner/y"), Err(InvalidCertificate::NotACertificate));
    }
}
