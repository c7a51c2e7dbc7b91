//! The listening side: TLS 1.3 with the gateway's client certificate, and certificates taken anew when their files change.
//!
//! Touches: files of TLS_DIR, a listening socket.

use std::{
    collections::BTreeSet,
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use liaison_records::trust;
use rustls::{
    DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject},
    server::{
        NoServerSessionStorage, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use sha2::{Digest, Sha256};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

use crate::{client_cert, metrics::Metrics};

const HANDSHAKE: Duration = Duration::from_secs(5);
const CHECK_FILES: Duration = Duration::from_secs(5);
const MOST_CONNECTIONS: usize = 512;

/// Why the certificates could not be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing or unreadable.
    #[error("can not read {0}; it must be a PEM file: {1}")]
    File(PathBuf, String),
    /// The files do not fit together.
    #[error("tls.crt, tls.key and ca.crt do not make a server configuration: {0}")]
    Config(String),
}

/// The files of TLS_DIR, and the server configuration made of their present contents.
#[derive(Debug)]
pub struct Identity {
    directory: PathBuf,
    gateway: String,
    current: RwLock<Current>,
}

#[derive(Debug)]
struct Current {
    digest: [u8; 32],
    config: Arc<ServerConfig>,
    trusts: BTreeSet<String>,
    shows: Vec<String>,
}

impl Current {
    fn of(files: &[Vec<u8>; 3], gateway: &str) -> Result<Self, TlsError> {
        let config = Arc::new(configuration(files, gateway)?);
        let [certificate, _, ca] = files;
        Ok(Self {
            digest: digest(files),
            config,
            trusts: digests(ca).into_iter().collect(),
            shows: digests(certificate),
        })
    }
}

/// SHA-256 of each certificate of a PEM text.
pub fn digests(pem: &[u8]) -> Vec<String> {
    CertificateDer::pem_slice_iter(pem).filter_map(Result::ok).map(|der| trust::digest(&der)).collect()
}

impl Identity {
    /// Reads `tls.crt`, `tls.key` and `ca.crt`; only a client that is `gateway` (a SPIFFE ID) will be let in.
    pub fn load(directory: &Path, gateway: String) -> Result<Self, TlsError> {
        let current = Current::of(&read(directory)?, &gateway)?;
        Ok(Self { directory: directory.to_owned(), gateway, current: RwLock::new(current) })
    }

    /// What a connection that comes now is answered with.
    pub fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner).config)
    }

    /// Says what is in use now: the roots of its clients, and the chain that it shows.
    pub fn said(&self, report: &mut trust::Report) {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        report.trusts.insert("tls".to_owned(), current.trusts.clone());
        report.shows.insert("tls".to_owned(), current.shows.clone());
    }

    /// Takes new contents, if there are any; the old ones stay when the new ones are no good. True when taken.
    pub fn refresh(&self) -> Result<bool, TlsError> {
        let files = read(&self.directory)?;
        if self.current.read().unwrap_or_else(PoisonError::into_inner).digest == digest(&files) {
            return Ok(false);
        }
        let next = Current::of(&files, &self.gateway)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(true)
    }
}

fn read(directory: &Path) -> Result<[Vec<u8>; 3], TlsError> {
    let file = |name: &str| {
        let path = directory.join(name);
        fs::read(&path).map_err(|e| TlsError::File(path, e.to_string()))
    };
    Ok([file("tls.crt")?, file("tls.key")?, file("ca.crt")?])
}

fn digest(files: &[Vec<u8>; 3]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for file in files {
        hash.update((file.len() as u64).to_be_bytes());
        hash.update(file);
    }
    hash.finalize().into()
}

fn configuration([certificate, key, ca]: &[Vec<u8>; 3], gateway: &str) -> Result<ServerConfig, TlsError> {
    let bad = |e: &dyn std::fmt::Display| TlsError::Config(e.to_string());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(ca) {
        roots.add(root.map_err(|e| bad(&e))?).map_err(|e| bad(&e))?;
    }
    let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate).collect::<Result<_, _>>().map_err(|e| bad(&e))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| bad(&e))?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(|e| bad(&e))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| bad(&e))?
        .with_client_cert_verifier(Arc::new(GatewayOnly { inner: verifier, gateway: gateway.to_owned() }))
        .with_single_cert(chain, key)
        .map_err(|e| bad(&e))?;
    // A resumed session would skip the check of the client's certificate.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// A chain to the CA, as usual, and the gateway's name in it.
#[derive(Debug)]
struct GatewayOnly {
    inner: Arc<dyn ClientCertVerifier>,
    gateway: String,
}

impl ClientCertVerifier for GatewayOnly {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.inner.verify_client_cert(end_entity, intermediates, now)?;
        client_cert::require_id(end_entity, &self.gateway)
            .map_err(|_| rustls::Error::InvalidCertificate(rustls::CertificateError::ApplicationVerificationFailure))?;
        Ok(verified)
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

/// Connections whose handshake is done, for `axum::serve`. Handshakes run beside each other, so a slow one holds up
/// nobody.
#[derive(Debug)]
pub struct TlsListener {
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    local: SocketAddr,
}

impl TlsListener {
    /// Listens at `address` until `stop`, and looks every few seconds whether the certificates have changed.
    pub async fn bind(
        address: SocketAddr,
        identity: Arc<Identity>,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let local = listener.local_addr()?;
        let (done, ready) = mpsc::channel(64);
        tokio::spawn(watch_files(Arc::clone(&identity), stop.clone()));
        tokio::spawn(async move {
            let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
            while let Some((stream, from)) = next(&listener, &stop).await {
                let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
                let (acceptor, done, metrics) =
                    (TlsAcceptor::from(identity.current()), done.clone(), Arc::clone(&metrics));
                tokio::spawn(async move {
                    let _ = stream.set_nodelay(true);
                    match timeout(HANDSHAKE, acceptor.accept(stream)).await {
                        Ok(Ok(tls)) => drop(done.send((tls, from)).await),
                        Ok(Err(error)) => {
                            metrics.handshake_refused();
                            tracing::warn!(%error, "refused a connection that is not the gateway's");
                        }
                        Err(_) => metrics.handshake_refused(),
                    }
                    drop(place);
                });
            }
        });
        Ok(Self { ready, local })
    }
}

async fn next(listener: &TcpListener, stop: &CancellationToken) -> Option<(TcpStream, SocketAddr)> {
    loop {
        tokio::select! {
            () = stop.cancelled() => return None,
            accepted = listener.accept() => match accepted {
                Ok(connection) => return Some(connection),
                // Out of descriptors, or the peer went away: neither ends the service.
                Err(error) => {
                    tracing::warn!(%error, "could not accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
}

async fn watch_files(identity: Arc<Identity>, stop: CancellationToken) {
    while timeout(CHECK_FILES, stop.cancelled()).await.is_err() {
        match identity.refresh() {
            Ok(true) => tracing::info!("took a new server certificate"),
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "kept the old server certificate"),
        }
    }
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(connection) => connection,
            // Stopped: axum's graceful shutdown ends the loop that asks.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(self.local)
    }
}
