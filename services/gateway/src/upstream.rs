//! Calls to the partners' InfoPols, over mutual TLS.
//!
//! One client, with its own pool of connections, a partner: a connection is never shared between two. The server must
//! bear both its DNS name and the partner's SPIFFE ID.

use std::{
    collections::HashMap,
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError, RwLock},
    task::{Context, Poll},
    time::Duration,
};

use futures::future::BoxFuture;
use http_body_util::Limited;
use hyper::{
    Request, Response, Uri,
    body::Incoming,
    rt::{Read, ReadBufCursor, Write},
};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{Connected, Connection},
    },
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use liaison_records::names::PartnerName;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::tls::has_uri;

/// How long a connection to an InfoPol may take, TLS included.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an idle connection is kept.
const IDLE: Duration = Duration::from_mins(1);

/// A request's body on its way up.
pub type RequestBody = Limited<Incoming>;

/// Where InfoPols are, and who they must be.
#[derive(Debug, Clone)]
pub struct Target {
    /// URL with `{name}` and `{namespace}`.
    pub template: String,
    /// Namespace of the InfoPols.
    pub namespace: String,
    /// SPIFFE trust domain.
    pub domain: String,
}

/// The clients of all partners.
pub struct Upstream {
    target: Target,
    tls: RwLock<Option<Arc<ClientConfig>>>,
    clients: Mutex<HashMap<PartnerName, Client<Connector, RequestBody>>>,
}

/// Why an InfoPol did not answer.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The template does not make a URL.
    #[error("upstream url: {0}")]
    Url(String),
    /// No client certificate yet.
    #[error("no client certificate yet")]
    NotReady,
    /// The call failed.
    #[error("call: {0}")]
    Call(#[from] hyper_util::client::legacy::Error),
}

impl Upstream {
    /// No connection is made before `set_tls`.
    pub fn new(target: Target) -> Self {
        Self { target, tls: RwLock::default(), clients: Mutex::default() }
    }

    /// Takes a new certificate; connections made with the old one end when their request does.
    pub fn set_tls(&self, config: Arc<ClientConfig>) {
        *self.tls.write().unwrap_or_else(PoisonError::into_inner) = Some(config);
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Drops the connections of a partner.
    pub fn forget(&self, partner: &PartnerName) {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).remove(partner);
    }

    /// The URL of a partner's InfoPol with this path and query.
    pub fn uri(&self, partner: &PartnerName, path: &str) -> Result<Uri, UpstreamError> {
        let base =
            self.target.template.replace("{name}", partner.as_str()).replace("{namespace}", &self.target.namespace);
        let url = format!("{}{path}", base.trim_end_matches('/'));
        url.parse().map_err(|_| UpstreamError::Url(base))
    }

    /// Sends a request to a partner's InfoPol.
    pub async fn call(
        &self,
        partner: &PartnerName,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let client = self.client(partner)?;
        Ok(client.request(request).await?)
    }

    fn client(&self, partner: &PartnerName) -> Result<Client<Connector, RequestBody>, UpstreamError> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(partner) {
            return Ok(client.clone());
        }
        let tls = self.tls.read().unwrap_or_else(PoisonError::into_inner).clone().ok_or(UpstreamError::NotReady)?;
        let host = format!("infopol-{partner}.{}.svc", self.target.namespace);
        let connector = Connector {
            tls,
            server_name: ServerName::try_from(host.clone()).map_err(|_| UpstreamError::Url(host))?,
            spiffe: Arc::from(format!("spiffe://{}/infopol/{partner}", self.target.domain)),
        };
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(8)
            .build(connector);
        clients.insert(partner.clone(), client.clone());
        Ok(client)
    }
}

/// Opens connections to one InfoPol.
#[derive(Clone)]
struct Connector {
    tls: Arc<ClientConfig>,
    server_name: ServerName<'static>,
    spiffe: Arc<str>,
}

impl Connector {
    async fn connect(self, uri: Uri) -> io::Result<UpstreamIo> {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = uri.port_u16().unwrap_or(443);
        let opening = async {
            let tcp = TcpStream::connect((host, port)).await?;
            tcp.set_nodelay(true)?;
            TlsConnector::from(self.tls).connect(self.server_name, tcp).await
        };
        let stream = timeout(CONNECT, opening).await.map_err(|_| io::ErrorKind::TimedOut)??;
        let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        if leaf.is_some_and(|leaf| has_uri(leaf, &self.spiffe)) {
            Ok(UpstreamIo(TokioIo::new(stream)))
        } else {
            Err(io::Error::new(io::ErrorKind::PermissionDenied, "the server is not this partner's infopol"))
        }
    }
}

impl tower::Service<Uri> for Connector {
    type Response = UpstreamIo;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<UpstreamIo>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

/// A TLS connection, in the form that hyper's client wants.
struct UpstreamIo(TokioIo<TlsStream<TcpStream>>);

impl Connection for UpstreamIo {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for UpstreamIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl Write for UpstreamIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }
}
