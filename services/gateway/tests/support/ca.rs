//! A certificate authority as the operator's: root, issuing, leaves, and the CAs that follow them.

use std::sync::Arc;

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
    /// Which root that is.
    number: usize,
    root_issuer: Arc<Issuer<'static, KeyPair>>,
    issuing: String,
    /// The root, certified by the one before it.
    crossed: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A leaf with its key.
#[derive(Clone)]
pub struct Leaf {
    /// Leaf and issuing certificate in PEM, and what leads to the root before.
    pub chain: String,
    /// Private key in PEM.
    pub key: String,
    /// PKCS#10 request of the same key.
    pub request: String,
    /// Lower-case hex SHA-256 of the leaf's DER.
    pub sha256: String,
}

impl Leaf {
    /// As in a Secret, with these roots.
    pub fn trusting(&self, roots: &str) -> KeyMaterial {
        let bytes = |text: &str| text.as_bytes().to_vec();
        KeyMaterial { chain: bytes(&self.chain), key: bytes(&self.key), ca: bytes(roots) }
    }
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
        Self::rooted(1, None)
    }

    fn rooted(number: usize, before: Option<&Self>) -> Self {
        let name = format!("Liaison test root {number}");
        let key = KeyPair::generate().unwrap();
        let root = authority(&name).self_signed(&key).unwrap().pem();
        let crossed = before.map(|before| authority(&name).signed_by(&key, &*before.root_issuer).unwrap().pem());
        Self::issuing(root, number, Arc::new(Issuer::new(authority(&name), key)), crossed.unwrap_or_default())
    }

    fn issuing(root: String, number: usize, root_issuer: Arc<Issuer<'static, KeyPair>>, crossed: String) -> Self {
        let key = KeyPair::generate().unwrap();
        let issuing = authority("Liaison test issuing").signed_by(&key, &*root_issuer).unwrap().pem();
        let issuer = Issuer::new(authority("Liaison test issuing"), key);
        Self { root, number, root_issuer, issuing, crossed, issuer }
    }

    /// Another issuing CA under the same root.
    pub fn next_issuing(&self) -> Self {
        Self::issuing(self.root.clone(), self.number, Arc::clone(&self.root_issuer), self.crossed.clone())
    }

    /// Another root, which this one certifies, with an issuing CA under it.
    pub fn next_root(&self) -> Self {
        Self::rooted(self.number + 1, Some(self))
    }

    /// The same, when the root before is gone.
    pub fn alone(self) -> Self {
        Self { crossed: String::new(), ..self }
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
            chain: format!("{}{}{}", certificate.pem(), self.issuing, self.crossed),
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
        let chain = format!("{}{}{}", certificate.pem(), self.issuing, self.crossed);
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
        leaf.trusting(&self.root)
    }
}
