//! A certificate authority as the operator's: root, issuing, leaves.

use liaison_gateway::tls::KeyMaterial;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, SubjectPublicKeyInfo,
};
use rustls_pki_types::{CertificateSigningRequestDer, pem::PemObject};
use sha2::{Digest, Sha256};
use x509_parser::{certification_request::X509CertificationRequest, prelude::FromDer};

/// Root and issuing certificate.
pub struct Ca {
    /// The root in PEM: what everybody trusts.
    pub root: String,
    issuing: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A leaf with its key.
pub struct Leaf {
    /// Leaf and issuing certificate in PEM.
    pub chain: String,
    /// Private key in PEM.
    pub key: String,
    /// PKCS#10 request of the same key.
    pub request: String,
    /// Lower-case hex SHA-256 of the leaf's DER.
    pub sha256: String,
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

impl Ca {
    /// A new one.
    pub fn new() -> Self {
        let root_key = KeyPair::generate().unwrap();
        let root = authority("Liaison test root").self_signed(&root_key).unwrap();
        let root_issuer = Issuer::new(authority("Liaison test root"), root_key);
        let key = KeyPair::generate().unwrap();
        let issuing = authority("Liaison test issuing").signed_by(&key, &root_issuer).unwrap();
        Self { root: root.pem(), issuing: issuing.pem(), issuer: Issuer::new(authority("Liaison test issuing"), key) }
    }

    /// A leaf with these names.
    pub fn leaf(&self, dns: &[&str], uri: &str, usage: ExtendedKeyUsagePurpose) -> Leaf {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(dns.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Leaf {
            chain: format!("{}{}", certificate.pem(), self.issuing),
            key: key.serialize_pem(),
            request: CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap(),
            sha256: hex::encode(Sha256::digest(certificate.der())),
        }
    }

    /// A client's leaf for the key of somebody's PKCS#10 request: chain and fingerprint.
    pub fn sign(&self, request: &str, uri: &str) -> (String, String) {
        let der = CertificateSigningRequestDer::from_pem_slice(request.as_bytes()).unwrap();
        let (_, parsed) = X509CertificationRequest::from_der(&der).unwrap();
        let key = SubjectPublicKeyInfo::from_der(parsed.certification_request_info.subject_pki.raw).unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let chain = format!("{}{}", certificate.pem(), self.issuing);
        (chain, hex::encode(Sha256::digest(certificate.der())))
    }

    /// A server's leaf.
    pub fn server(&self, dns: &[&str], uri: &str) -> Leaf {
        self.leaf(dns, uri, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A client's leaf.
    pub fn client(&self, uri: &str) -> Leaf {
        self.leaf(&[], uri, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// As in a Secret.
    pub fn material(&self, leaf: &Leaf) -> KeyMaterial {
        KeyMaterial {
            chain: leaf.chain.clone().into_bytes(),
            key: leaf.key.clone().into_bytes(),
            ca: self.root.clone().into_bytes(),
        }
    }
}
