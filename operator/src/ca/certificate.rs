//! What is read of a certificate: of ours, and of what another CA issued.

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use x509_parser::{
    certificate::X509Certificate,
    error::X509Error,
    extensions::GeneralName,
    pem::{Pem, parse_x509_pem},
    prelude::FromDer,
};

use super::{Error, seconds};

/// What is read from a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// Start.
    pub not_before: Timestamp,
    /// End.
    pub not_after: Timestamp,
}

impl Validity {
    /// Two thirds of the life.
    pub fn renewal(&self) -> Timestamp {
        let (from, until) = (self.not_before.as_second(), self.not_after.as_second());
        seconds(from + (until - from) / 3 * 2)
    }
}

/// What is in each block of a PEM text, in its order. What is no PEM is left out.
pub fn blocks(pem: &str) -> Vec<Vec<u8>> {
    Pem::iter_from_buffer(pem.as_bytes()).filter_map(Result::ok).map(|block| block.contents).collect()
}

/// Lower-case hex SHA-256 of each certificate of a PEM text, in its order. What is no PEM is left out.
pub fn digests(pem: &str) -> Vec<String> {
    blocks(pem).iter().map(|der| liaison_records::trust::digest(der)).collect()
}

/// What is to be known of the first certificate of a PEM text.
pub(super) fn first<T>(pem: &str, of: impl FnOnce(&X509Certificate<'_>) -> T) -> Result<T, Error> {
    let (_, pem) = parse_x509_pem(pem.as_bytes()).map_err(|error| Error::Unreadable(error.to_string()))?;
    let (_, certificate) =
        X509Certificate::from_der(&pem.contents).map_err(|error| Error::Unreadable(error.to_string()))?;
    Ok(of(&certificate))
}

/// Lower-case hex SHA-256 of the subject's DER of the first certificate of a PEM text.
pub fn subject_digest(pem: &str) -> Result<String, Error> {
    first(pem, |certificate| liaison_records::trust::digest(certificate.subject().as_raw()))
}

/// Whether the first certificate of a PEM text was signed by that of the other.
pub fn is_signed_by(pem: &str, issuer: &str) -> bool {
    let verified = first(issuer, |issuer| {
        first(pem, |certificate| certificate.verify_signature(Some(issuer.public_key())).is_ok())
    });
    matches!(verified, Ok(Ok(true)))
}

/// Reads the first certificate of a PEM text.
pub fn read(pem: &str) -> Result<Validity, Error> {
    first(pem, validity)
}

fn validity(certificate: &X509Certificate<'_>) -> Validity {
    let validity = certificate.validity();
    Validity {
        not_before: seconds(validity.not_before.timestamp()),
        not_after: seconds(validity.not_after.timestamp()),
    }
}

/// The serial number of the first certificate of a PEM text, hex.
pub fn serial(pem: &str) -> Option<String> {
    first(pem, |certificate| hex::encode(certificate.raw_serial())).ok()
}

/// What another CA issued, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreign {
    /// Lower-case hex SHA-256 of the leaf's DER.
    pub sha256: String,
    /// Lower-case hex SHA-256 of the SubjectPublicKeyInfo.
    pub public_key_sha256: String,
    /// Its names, beside its subject.
    pub names: Vec<String>,
    /// Whether it may be used as a TLS client's, and is no CA.
    pub for_clients: bool,
    /// Its life.
    pub validity: Validity,
}

/// Reads the first certificate of a chain of another CA.
pub fn read_foreign(chain: &str) -> Result<Foreign, Error> {
    let sha256 = digests(chain).into_iter().next().unwrap_or_default();
    first(chain, |leaf| foreign(sha256, leaf))?.map_err(|error| Error::Unreadable(error.to_string()))
}

fn foreign(sha256: String, leaf: &X509Certificate<'_>) -> Result<Foreign, X509Error> {
    let names = leaf.subject_alternative_name()?;
    let usage = leaf.extended_key_usage()?;
    Ok(Foreign {
        sha256,
        public_key_sha256: hex::encode(Sha256::digest(leaf.public_key().raw)),
        names: names.iter().flat_map(|names| names.value.general_names.iter().map(name_text)).collect(),
        for_clients: !leaf.is_ca() && usage.is_none_or(|usage| usage.value.client_auth),
        validity: validity(leaf),
    })
}

/// A URI as it is, and anything else so that it cannot be taken for one.
pub(super) fn name_text(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::URI(uri) => (*uri).to_owned(),
        other => format!("{other}"),
    }
}
