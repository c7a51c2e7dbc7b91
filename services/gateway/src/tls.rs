//! TLS configurations, made from the Secrets' PEM. No I/O.
//!
//! TLS 1.3 with client certificates only. Resumption is off on both sides of it (no session storage, no ticket): a
//! resumed handshake does not show the certificate to the verifier again.

use std::sync::Arc;

use liaison_records::trust::{self, Report};
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, NamedGroup, RootCertStore, ServerConfig, SignatureScheme,
    client::{Resumption, danger::HandshakeSignatureValid},
    crypto::{CryptoProvider, aws_lc_rs},
    server::{
        NoServerSessionStorage, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject};
use x509_parser::{extensions::GeneralName, prelude::FromDer};

/// A key with its chain and the CA bundle of the other side, in PEM, as in a `kubernetes.io/tls` Secret with `ca.crt`.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyMaterial {
    /// Leaf and intermediates.
    pub chain: Vec<u8>,
    /// Private key.
    pub key: Vec<u8>,
    /// Against what the other side is verified.
    pub ca: Vec<u8>,
}

// Holds a private key: cannot be logged.
impl std::fmt::Debug for KeyMaterial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyMaterial")
    }
}

/// Why key material cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Not PEM.
    #[error("{0} is not PEM")]
    Pem(&'static str),
    /// Refused by rustls.
    #[error("key material: {0}")]
    Rustls(#[from] rustls::Error),
    /// No client verifier can be made of the CA bundle.
    #[error("ca.crt: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// aws-lc-rs with AES-GCM only; hybrid post-quantum groups, and classical ones; the client's own order chooses among them.
fn provider() -> Arc<CryptoProvider> {
    use aws_lc_rs::{cipher_suite, kx_group};
    Arc::new(CryptoProvider {
        cipher_suites: vec![cipher_suite::TLS13_AES_256_GCM_SHA384, cipher_suite::TLS13_AES_128_GCM_SHA256],
        kx_groups: vec![
            kx_group::X25519MLKEM768,
            kx_group::SECP256R1MLKEM768,
            kx_group::X25519,
            kx_group::SECP256R1,
            kx_group::SECP384R1,
        ],
        ..aws_lc_rs::default_provider()
    })
}

/// The metric's label of a negotiated key exchange group.
pub const fn group_label(group: Option<NamedGroup>) -> &'static str {
    match group {
        Some(NamedGroup::X25519MLKEM768) => "x25519mlkem768",
        Some(NamedGroup::secp256r1MLKEM768) => "secp256r1mlkem768",
        Some(NamedGroup::X25519) => "x25519",
        Some(NamedGroup::secp256r1) => "secp256r1",
        Some(NamedGroup::secp384r1) => "secp384r1",
        _ => "other",
    }
}

struct Parsed {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: Arc<RootCertStore>,
}

fn parse(material: &KeyMaterial) -> Result<Parsed, TlsError> {
    let certificates = |pem: &[u8], what| {
        let list: Vec<_> =
            CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|_| TlsError::Pem(what))?;
        if list.is_empty() { Err(TlsError::Pem(what)) } else { Ok(list) }
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&material.ca, "ca.crt")? {
        roots.add(certificate)?;
    }
    Ok(Parsed {
        chain: certificates(&material.chain, "tls.crt")?,
        key: PrivateKeyDer::from_pem_slice(&material.key).map_err(|_| TlsError::Pem("tls.key"))?,
        roots: Arc::new(roots),
    })
}

/// Knows the leaves that count though they are of no CA of Liaison's.
pub trait Elsewhere: std::fmt::Debug + Send + Sync {
    /// Whether a status grants this leaf, in DER, as one that another CA issued.
    fn grants(&self, leaf: &[u8]) -> bool;
}

/// A chain to Liaison's roots, or a leaf that a status grants by its fingerprint. Whose it is, and whether its time has come or
/// passed, is looked at afterwards, as for every leaf.
#[derive(Debug)]
struct Granted {
    inner: Arc<dyn ClientCertVerifier>,
    elsewhere: Arc<dyn Elsewhere>,
}

impl ClientCertVerifier for Granted {
    // No names of CAs: a client of another CA would not find its own there, and show nothing.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        match self.inner.verify_client_cert(end_entity, intermediates, now) {
            Err(rustls::Error::InvalidCertificate(_)) if self.elsewhere.grants(end_entity) => {
                Ok(ClientCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// What partners enrol with.
#[derive(Debug, Clone)]
pub struct Enrolling {
    /// The port's configuration: a client certificate is asked for and verified, and may be lacking.
    pub config: Arc<ServerConfig>,
    /// The roots, and the issuing certificates of the gateway's own chain, in DER.
    pub authorities: Vec<CertificateDer<'static>>,
}

/// What partners enrol with, from the server's material.
pub fn enrolling(material: &KeyMaterial) -> Result<Enrolling, TlsError> {
    let list = |pem: &[u8]| CertificateDer::pem_slice_iter(pem).map_while(Result::ok).collect::<Vec<_>>();
    let mut authorities = list(&material.ca);
    authorities.extend(list(&material.chain).into_iter().skip(1));
    let mut config = server(material, None)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Enrolling { config: Arc::new(config), authorities })
}

/// What is said of key material that is in use.
pub fn said(report: &mut Report, used_as: &str, material: &KeyMaterial) {
    let digests = |pem: &[u8]| -> Vec<String> {
        CertificateDer::pem_slice_iter(pem).filter_map(Result::ok).map(|der| trust::digest(&der)).collect()
    };
    report.trusts.insert(used_as.to_owned(), digests(&material.ca).into_iter().collect());
    report.shows.insert(used_as.to_owned(), digests(&material.chain));
}

/// The configuration by which partners are served.
pub fn server_config(material: &KeyMaterial, elsewhere: Arc<dyn Elsewhere>) -> Result<ServerConfig, TlsError> {
    server(material, Some(elsewhere))
}

/// `elsewhere`: a certificate is demanded, and may be one of these; none: it may be lacking.
fn server(material: &KeyMaterial, elsewhere: Option<Arc<dyn Elsewhere>>) -> Result<ServerConfig, TlsError> {
    let Parsed { chain, key, roots } = parse(material)?;
    let provider = provider();
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider));
    let verifier: Arc<dyn ClientCertVerifier> = match elsewhere {
        Some(elsewhere) => Arc::new(Granted { inner: verifier.build()?, elsewhere }),
        None => verifier.allow_unauthenticated().build()?,
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// The configuration by which InfoPols are called.
pub fn client_config(material: &KeyMaterial) -> Result<ClientConfig, TlsError> {
    let Parsed { chain, key, roots } = parse(material)?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Whether a certificate has this URI among its subject alternative names.
pub fn has_uri(certificate: &CertificateDer<'_>, uri: &str) -> bool {
    let Ok((_, parsed)) = x509_parser::certificate::X509Certificate::from_der(certificate) else { return false };
    let Ok(Some(names)) = parsed.subject_alternative_name() else { return false };
    names.value.general_names.iter().any(|name| matches!(name, GeneralName::URI(found) if *found == uri))
}
