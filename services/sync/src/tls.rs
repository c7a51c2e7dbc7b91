//! TLS to the two databases from files that change while the process runs, and what is seen of the other side.
//!
//! The files are looked at whenever a connection is opened; contents that cannot be used leave what was there. The databases
//! cannot speak for themselves, so [`Witness`] calls them and says which chain they show and which CAs they accept.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use liaison_records::trust::{self, Report, Server};
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        ResolvesClientCert, Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};

use crate::{connect::Target, error::Error};

/// Where the certificates are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The roots of the server's certificate.
    pub roots: PathBuf,
    /// The client's certificate with its chain, and its key.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// What was made of their contents.
#[derive(Clone)]
pub struct Held {
    contents: Vec<Vec<u8>>,
    /// For new connections.
    pub config: Arc<ClientConfig>,
    roots: Arc<RootCertStore>,
    /// Roots, by SHA-256.
    pub trusts: BTreeSet<String>,
    /// The client's chain, by SHA-256.
    pub shows: Vec<String>,
}

/// The files, and what was made of them last.
pub struct Tls {
    files: Files,
    held: Mutex<Held>,
}

// Holds a private key.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the files, which must be usable at the first time.
    pub fn load(files: Files) -> Result<Self, Error> {
        let held = held(read(&files)?)?;
        Ok(Self { files, held: Mutex::new(held) })
    }

    /// As the files are now; as they were, if they cannot be used now.
    pub fn current(&self) -> Held {
        let mut current = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        match read(&self.files) {
            Ok(contents) if contents == current.contents => {}
            Ok(contents) => match held(contents) {
                Ok(next) => {
                    tracing::info!(files = ?self.files, "took new certificates");
                    *current = next;
                }
                Err(error) => tracing::error!(files = ?self.files, "kept the old certificates: {error}"),
            },
            Err(error) => tracing::error!(files = ?self.files, "kept the old certificates: {error}"),
        }
        current.clone()
    }
}

fn read(files: &Files) -> Result<Vec<Vec<u8>>, Error> {
    let paths = [Some(&files.roots), files.client.as_ref().map(|c| &c.0), files.client.as_ref().map(|c| &c.1)];
    let read = |path: &PathBuf| {
        std::fs::read(path).map_err(|e| Error::Config(format!("{} cannot be used: {e}", path.display())))
    };
    paths.into_iter().flatten().map(read).collect()
}

fn held(contents: Vec<Vec<u8>>) -> Result<Held, Error> {
    let bad = |what: &str, e: &dyn fmt::Display| Error::Config(format!("{what} cannot be used: {e}"));
    let certificates = |pem: &[u8], what: &str| {
        let all = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().map_err(|e| bad(what, &e))?;
        if all.is_empty() { Err(bad(what, &"it has no certificate")) } else { Ok(all) }
    };
    let digests = |all: &[CertificateDer<'_>]| all.iter().map(|der| trust::digest(der)).collect::<Vec<_>>();
    let (roots_pem, client) = contents.split_first().ok_or_else(|| bad("SSLROOTCERT", &"there is none"))?;
    let trusted = certificates(roots_pem, "SSLROOTCERT")?;
    let trusts = digests(&trusted).into_iter().collect();
    let mut roots = RootCertStore::empty();
    for root in trusted {
        roots.add(root).map_err(|e| bad("SSLROOTCERT", &e))?;
    }
    let roots = Arc::new(roots);
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| bad("TLS", &e))?
        .with_root_certificates(Arc::clone(&roots));
    let mut shows = Vec::new();
    let mut config = match client {
        [chain, key] => {
            let chain = certificates(chain, "SSLCERT")?;
            shows = digests(&chain);
            let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| bad("SSLKEY", &e))?;
            builder.with_client_auth_cert(chain, key).map_err(|e| bad("SSLCERT", &e))?
        }
        _ => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    Ok(Held { contents, config: Arc::new(config), roots, trusts, shows })
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// What was seen in a handshake.
#[derive(Debug, Default)]
struct Seen {
    shows: Vec<String>,
    accepts: BTreeSet<String>,
}

/// Verifies as ever, and remembers.
#[derive(Debug)]
struct Watching<T: ?Sized> {
    seen: Arc<Mutex<Seen>>,
    inner: Arc<T>,
}

impl ServerCertVerifier for Watching<WebPkiServerVerifier> {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain = std::iter::once(end_entity).chain(intermediates).map(|der| trust::digest(der)).collect();
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).shows = chain;
        self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp, now)
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

impl ResolvesClientCert for Watching<dyn ResolvesClientCert> {
    fn resolve(&self, root_hint_subjects: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let names = root_hint_subjects.iter().map(|name| trust::digest(name)).collect();
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).accepts = names;
        self.inner.resolve(root_hint_subjects, schemes)
    }

    fn has_certs(&self) -> bool {
        self.inner.has_certs()
    }
}

/// Calls a database, and says what was seen of it.
pub async fn meet(target: &Target) -> Server {
    let Some(held) = target.tls() else { return Server::Plain };
    let seen = Arc::new(Mutex::new(Seen::default()));
    let verifier = match WebPkiServerVerifier::builder_with_provider(Arc::clone(&held.roots), provider()).build() {
        Ok(inner) => Watching { seen: Arc::clone(&seen), inner },
        Err(error) => return Server::Away { why: error.to_string() },
    };
    let mut config = (*held.config).clone();
    config.client_auth_cert_resolver =
        Arc::new(Watching { seen: Arc::clone(&seen), inner: Arc::clone(&config.client_auth_cert_resolver) });
    config.dangerous().set_certificate_verifier(Arc::new(verifier));
    // The whole way, log-in included: it shows that our own certificate is taken.
    match target.connect_with(Some(config)).await {
        Ok(client) => drop(client),
        Err(error) => return Server::Away { why: error.to_string() },
    }
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    let Seen { shows, accepts } = std::mem::take(&mut *seen);
    Server::Met { shows, accepts }
}

/// How long a word on the databases stands, so that whoever asks often does not make us call often.
const STANDS: Duration = Duration::from_secs(5);

/// What `/trust` answers.
#[derive(Debug, Default)]
pub struct Witness {
    targets: BTreeMap<&'static str, Target>,
    last: tokio::sync::Mutex<Option<(Instant, Report)>>,
}

impl Witness {
    /// Of these databases, by name.
    pub fn new(targets: impl IntoIterator<Item = (&'static str, Target)>) -> Self {
        Self { targets: targets.into_iter().collect(), last: tokio::sync::Mutex::default() }
    }

    /// What is in use now.
    pub async fn report(&self) -> Report {
        let mut last = self.last.lock().await;
        if let Some((at, report)) = &*last
            && at.elapsed() < STANDS
        {
            return report.clone();
        }
        let mut report = Report::default();
        for (name, target) in &self.targets {
            report.servers.insert((*name).to_owned(), meet(target).await);
            if let Some(held) = target.tls() {
                report.trusts.insert((*name).to_owned(), held.trusts);
                report.shows.insert((*name).to_owned(), held.shows);
            }
        }
        *last = Some((Instant::now(), report.clone()));
        report
    }
}
