//! A CA's revocation list, signed and read.

use std::time::Duration;

use jiff::Timestamp;
use rcgen::{Issuer, KeyPair, SerialNumber};
use x509_parser::{pem::parse_x509_pem, prelude::FromDer, revocation_list::CertificateRevocationList};

use super::{CaPair, Error, certificate::first, seconds};

/// A certificate on a revocation list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Revoked {
    /// Serial number, hex.
    pub serial: String,
    /// When it was revoked.
    pub at: Timestamp,
}

/// Signs a CA's revocation list (RFC 5280 5), which counts until `until`. Its number is the second of its making, so a later
/// one has a higher number.
pub fn sign_crl(ca: &CaPair, revoked: &[Revoked], now: Timestamp, until: Timestamp) -> Result<String, Error> {
    let issuer = Issuer::from_ca_cert_pem(&ca.certificate, KeyPair::from_pem(&ca.key.0)?)?;
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let after = |at: Timestamp| epoch + Duration::from_secs(u64::try_from(at.as_second()).unwrap_or_default());
    let unreadable = |serial: &str| Error::Unreadable(format!("'{serial}' is no serial number"));
    let mut certificates = Vec::new();
    for Revoked { serial, at } in revoked {
        certificates.push(rcgen::RevokedCertParams {
            serial_number: SerialNumber::from_slice(&hex::decode(serial).map_err(|_| unreadable(serial))?),
            revocation_time: after(*at),
            reason_code: None,
            invalidity_date: None,
        });
    }
    let params = rcgen::CertificateRevocationListParams {
        this_update: after(now),
        next_update: after(until),
        crl_number: SerialNumber::from(u64::try_from(now.as_second()).unwrap_or_default()),
        issuing_distribution_point: None,
        revoked_certs: certificates,
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    Ok(params.signed_by(&issuer)?.pem()?)
}

/// What a revocation list says: the serials, hex, and until when it counts.
pub fn read_crl(pem: &str) -> Option<(Vec<String>, Timestamp)> {
    let (_, block) = parse_x509_pem(pem.as_bytes()).ok()?;
    let (_, list) = CertificateRevocationList::from_der(&block.contents).ok()?;
    let serials = list.iter_revoked_certificates().map(|revoked| hex::encode(revoked.raw_serial())).collect();
    Some((serials, seconds(list.next_update()?.timestamp())))
}

/// Whether a CA's own key signed a revocation list.
pub fn signed_crl(ca: &CaPair, pem: &str) -> bool {
    let Ok((_, block)) = parse_x509_pem(pem.as_bytes()) else { return false };
    let Ok((_, list)) = CertificateRevocationList::from_der(&block.contents) else { return false };
    matches!(first(&ca.certificate, |issuer| list.verify_signature(issuer.public_key()).is_ok()), Ok(true))
}
