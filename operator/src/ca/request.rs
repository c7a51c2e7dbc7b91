//! Signing requests (PKCS#10): of a partner's only the public key is used.

use rcgen::{CertificateParams, DistinguishedName, KeyPair, SubjectPublicKeyInfo};
use sha2::{Digest, Sha256};
use x509_parser::{
    certification_request::X509CertificationRequest,
    extensions::ParsedExtension,
    oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384},
    pem::Pem,
    prelude::FromDer,
};

use super::{Error, KeyPem, certificate::name_text};

/// A partner's signing request: its public key, and nothing else of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Lower-case hex SHA-256 of the SubjectPublicKeyInfo.
    pub public_key_sha256: String,
    /// The key.
    pub key: SubjectPublicKeyInfo,
    /// The names that it asks for, beside its subject. Liaison's own CA ignores them; another may not.
    pub names: Vec<String>,
    /// The request itself, in PEM.
    pub pem: String,
}

/// A signing request for a key; it says nothing but the key.
pub fn request_for(key: &KeyPem) -> Result<String, Error> {
    let key = KeyPair::from_pem(&key.0)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    Ok(params.serialize_request(&key)?.pem()?)
}

/// Reads a signing request and checks that its sender has the private key. The error says what must hold.
pub fn read_request(pem: &str) -> Result<Request, String> {
    if pem.contains("PRIVATE KEY") {
        return Err("must not hold a private key; make a new key, this one is no longer secret".to_owned());
    }
    let mut blocks = Pem::iter_from_buffer(pem.as_bytes());
    let Some(Ok(block)) = blocks.next() else {
        return Err("must be a PKCS#10 request in PEM, as `openssl req -new` prints it".to_owned());
    };
    if blocks.next().is_some() {
        return Err("must hold one request only".to_owned());
    }
    if block.label != "CERTIFICATE REQUEST" {
        return Err(format!("must be a 'CERTIFICATE REQUEST' in PEM, not a '{}'", block.label));
    }
    let unreadable = "must be a PKCS#10 request in PEM; what stands between the PEM lines cannot be read as one";
    let (rest, request) = X509CertificationRequest::from_der(&block.contents).map_err(|_| unreadable.to_owned())?;
    if !rest.is_empty() {
        return Err(unreadable.to_owned());
    }
    let spki = &request.certification_request_info.subject_pki;
    let curve = spki.algorithm.parameters.as_ref().and_then(|any| any.as_oid().ok());
    let allowed = spki.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY
        && curve.is_some_and(|curve| curve == OID_EC_P256 || curve == OID_NIST_EC_P384);
    if !allowed {
        return Err(
            "must carry an ECDSA key on P-256 or P-384, as of `openssl ecparam -name prime256v1 -genkey`".to_owned()
        );
    }
    // The same key compressed would have another digest, and be another key to whoever remembers that one was revoked.
    if spki.subject_public_key.data.first() != Some(&0x04) {
        return Err("must carry its key uncompressed, as openssl does without `-conv_form`".to_owned());
    }
    request
        .verify_signature()
        .map_err(|_| "must be signed with the key that it carries; its signature does not verify".to_owned())?;
    let key = SubjectPublicKeyInfo::from_der(spki.raw).map_err(|_| unreadable.to_owned())?;
    let asked = request.requested_extensions().into_iter().flatten();
    let names = asked.flat_map(|extension| match extension {
        ParsedExtension::SubjectAlternativeName(names) => names.general_names.iter().map(name_text).collect(),
        _ => Vec::new(),
    });
    Ok(Request {
        public_key_sha256: hex::encode(Sha256::digest(spki.raw)),
        key,
        names: names.collect(),
        pem: pem.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::{super::tests::request, *};

    /// By `openssl ec -conv_form compressed` and `openssl req -new`.
    const COMPRESSED: &str = "-----BEGIN CERTIFICATE REQUEST-----\n\
        MIGlME4CAQAwDDEKMAgGA1UEAwwBYTA5MBMGByqGSM49AgEGCCqGSM49AwEHAyIA\n\
        AjesjFQE+7QrcvXYBUYcdyJPciExX7cF5ahiWRvU358UoAAwCgYIKoZIzj0EAwID\n\
        RwAwRAIgajwLet9GQ1wAXEJHGJodNn6Y6sSwVLIRRqWHZvYOtoACIB16NoJEbSGY\n\
        Cqjb0EvWT8eQwG4VFw3dxnvHI7s+Besb\n\
        -----END CERTIFICATE REQUEST-----\n";

    #[test]
    fn says_what_is_wrong_with_a_request() {
        let good = request(&rcgen::PKCS_ECDSA_P256_SHA256, "a");
        for (bad, says) in [
            ("hello".to_owned(), "as `openssl req -new` prints it"),
            (good.replace("CERTIFICATE REQUEST", "CERTIFICATE"), "not a 'CERTIFICATE'"),
            (format!("{good}{good}"), "one request only"),
            (format!("{good}-----BEGIN PRIVATE KEY-----"), "must not hold a private key"),
            (request(&rcgen::PKCS_ED25519, "a"), "P-256 or P-384"),
            (COMPRESSED.to_owned(), "uncompressed"),
            (
                "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n".to_owned(),
                "cannot be read",
            ),
        ] {
            let problem = read_request(&bad).unwrap_err();
            assert!(problem.contains(says), "{problem} / {says}");
        }
    }
}
