//! Whether a statement was signed by Liaison's operator: the signature under the chain's key, and the chain up to a root. Pure.

use rustls_pki_types::{CertificateDer, UnixTime, pem::PemObject};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert, aws_lc_rs::ECDSA_P256_SHA256};

/// Why a signature does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSignature {
    /// Not PEM, or no certificate in it.
    #[error("its chain cannot be read")]
    Chain,
    /// The key id is another key's.
    #[error("its key id is not that of the certificate beside it")]
    KeyId,
    /// The signature is not over this text, or not by this key.
    #[error("its signature is not over this text by this key: text or signature was changed")]
    Signature,
    /// The chain does not lead to the root.
    #[error("its certificate does not lead to the given root: {0}")]
    Root(String),
}

/// Checks `signature` (DER) over `text` with the first certificate of `chain`, and that this is the key that `key_id` names.
pub fn check(text: &str, signature: &[u8], key_id: &str, chain: &str) -> Result<(), BadSignature> {
    let certificates = certificates(chain)?;
    let leaf = certificates.first().ok_or(BadSignature::Chain)?;
    let leaf = EndEntityCert::try_from(leaf).map_err(|_| BadSignature::Chain)?;
    if liaison_records::statement::key_id(&leaf.subject_public_key_info()) != key_id {
        return Err(BadSignature::KeyId);
    }
    leaf.verify_signature(ECDSA_P256_SHA256, text.as_bytes(), signature).map_err(|_| BadSignature::Signature)
}

/// Checks that `chain` led to one of the certificates of `root` when the statement was signed, at `seconds` since 1970.
pub fn check_root(chain: &str, root: &str, seconds: u64) -> Result<(), BadSignature> {
    let (chain, roots) = (certificates(chain)?, certificates(root)?);
    let (leaf, between) = chain.split_first().ok_or(BadSignature::Chain)?;
    let leaf = EndEntityCert::try_from(leaf).map_err(|_| BadSignature::Chain)?;
    let unusable = |e: webpki::Error| BadSignature::Root(e.to_string());
    let anchors = roots.iter().map(anchor_from_trusted_cert).collect::<Result<Vec<_>, _>>().map_err(unusable)?;
    let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
    // The certificate has no extended key usage: it is of no use in TLS, and so demands none.
    leaf.verify_for_usage(webpki::ALL_VERIFICATION_ALGS, &anchors, between, time, KeyUsage::client_auth(), None, None)
        .map_err(unusable)?;
    Ok(())
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, BadSignature> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().map_err(|_| BadSignature::Chain)
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, SigningKey};

    use super::*;

    fn authority(name: &str) -> (String, Issuer<'static, KeyPair>) {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let pem = params.self_signed(&key).unwrap().pem();
        (pem.clone(), Issuer::from_ca_cert_pem(&pem, key).unwrap())
    }

    #[test]
    fn text_signature_key_and_root_are_all_checked() {
        let (root, issuer) = authority("one");
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let chain = params.signed_by(&key, &issuer).unwrap().pem();
        let id = liaison_records::statement::key_id(&rcgen::PublicKeyData::subject_public_key_info(&key));
        let signature = key.sign(b"said").unwrap();
        assert_eq!(check("said", &signature, &id, &chain), Ok(()));
        assert_eq!(check("sayd", &signature, &id, &chain), Err(BadSignature::Signature));
        let mut changed = signature.clone();
        *changed.last_mut().unwrap() ^= 1;
        assert_eq!(check("said", &changed, &id, &chain), Err(BadSignature::Signature));
        assert_eq!(check("said", &signature, "00", &chain), Err(BadSignature::KeyId));
        assert_eq!(check("said", &signature, &id, "no certificate"), Err(BadSignature::Chain));
        assert_eq!(check_root(&chain, &root, 1_800_000_000), Ok(()));
        assert!(matches!(check_root(&chain, &authority("another").0, 1_800_000_000), Err(BadSignature::Root(_))));
        assert!(matches!(check_root(&chain, &root, 100_000), Err(BadSignature::Root(_))), "before it was valid");
    }
}
