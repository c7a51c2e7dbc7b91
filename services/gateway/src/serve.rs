//! The listener: TCP, TLS, HTTP, and the facts at each step.

use std::{
    error::Error as StdError,
    future::Future,
    io,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use hyper::{body::Incoming, rt::Executor, server::conn, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

use crate::{
    authorise::{Facts, Now, Refusal, Stage, authorise},
    connections::{Door, Registered},
    est,
    gate::Gate,
    proxy,
    state::{Fingerprint, Partner},
    stream::CutStream,
    tls,
};

/// An accepted connection, as its requests see it.
pub struct Accepted {
    /// The partner for whom the facts agreed.
    pub partner: Arc<Partner>,
    /// Address on which it came in.
    pub local: IpAddr,
    /// Address from which it came.
    pub remote: IpAddr,
    /// The client's leaf.
    pub leaf: Fingerprint,
    /// The same in DER.
    pub leaf_der: Vec<u8>,
    /// Server name that the client asked for.
    pub sni: Option<String>,
    /// Ends the connection at once.
    pub cut: CancellationToken,
    /// Ends it after the requests under way.
    pub last: CancellationToken,
}

/// Connections that may wait to be accepted.
pub const BACKLOG: u32 = 1024;

/// Accepts until `stop`; every connection is served in its own task.
pub async fn accept(gate: Arc<Gate>, listener: TcpListener, door: Door, stop: CancellationToken) {
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, remote)) => {
                let gate = Arc::clone(&gate);
                let stop = stop.clone();
                tokio::spawn(Box::pin(connection(gate, stream, remote.ip().to_canonical(), door, stop)));
            }
            Err(error) => {
                // Out of file descriptors, or the client has gone already: neither ends the listener.
                if let Some(suppressed) = gate.quiet.admit("", "accept", Instant::now()) {
                    tracing::warn!(%error, suppressed, "accept");
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(gate: Arc<Gate>, stream: TcpStream, remote: IpAddr, door: Door, stop: CancellationToken) {
    let Ok(local) = stream.local_addr().map(|a| a.ip().to_canonical()) else { return };
    let cut = CancellationToken::new();
    // Whatever is spawned for this connection ends with it.
    let _ends = cut.clone().drop_guard();
    let opened = {
        let view = gate.view();
        authorise(&Facts { local, remote, stage: Stage::Opened }, &view, Now::read()).cloned()
    };
    let stream = CutStream::new(stream, cut.clone());
    let partner = match opened {
        Ok(partner) => partner,
        Err(refusal) => return gate.refuse("", refusal),
    };
    let name = partner.name.as_str();
    let registered = match gate.connections.register(&partner.name, local, remote, gate.limits.connections, cut.clone())
    {
        Ok(registered) => registered,
        Err(refusal) => return gate.refuse(name, refusal),
    };
    // From here on the client is told by a TLS alert what was wrong.
    let stream = stream.of_partner(gate.paces.of(&partner.name, Instant::now()), gate.limits.stall);
    let serving = Box::pin(async {
        if door == Door::Enrolment {
            if let Err(refusal) = est::serve(&gate, &registered, local, remote, stream).await {
                gate.refuse(name, refusal);
            }
            return;
        }
        match handshake(&gate, &registered, local, remote, stream, cut.clone(), stop).await {
            Ok((stream, accepted)) => serve(Arc::clone(&gate), stream, Arc::new(accepted)).await,
            Err(refusal) => gate.refuse(name, refusal),
        }
    });
    // When it is cut, the stream is dropped here and now: no byte follows.
    cut.run_until_cancelled(serving).await;
}

async fn handshake(
    gate: &Gate,
    registered: &Registered,
    local: IpAddr,
    remote: IpAddr,
    stream: CutStream,
    cut: CancellationToken,
    stop: CancellationToken,
) -> Result<(TlsStream<CutStream>, Accepted), Refusal> {
    let config = gate.server_tls().ok_or(Refusal::Stale)?;
    let stream = secure(gate, config, stream).await?;
    let (_, session) = stream.get_ref();
    let group = session.negotiated_key_exchange_group().map(rustls::crypto::SupportedKxGroup::name);
    let sni = session.server_name().map(str::to_owned);
    let leaf_der = session.peer_certificates().and_then(<[_]>::first).ok_or(Refusal::NoCertificate)?.to_vec();
    let leaf = Fingerprint::of(&leaf_der);
    registered.accepted(Some(leaf), sni.clone(), Door::Https);
    // After it is in the index: a change of the table is seen either here or by the recheck.
    let facts = Facts { local, remote, stage: Stage::Accepted { leaf: Some(leaf), sni: sni.as_deref() } };
    let view = gate.view();
    let partner = Arc::clone(authorise(&facts, &view, Now::read())?);
    gate.metrics.handshake(partner.name.as_str(), tls::group_label(group));
    let last = stop.child_token();
    Ok((stream, Accepted { partner, local, remote, leaf, leaf_der, sni, cut, last }))
}

/// The TLS handshake.
pub(crate) async fn secure(
    gate: &Gate,
    config: Arc<ServerConfig>,
    stream: CutStream,
) -> Result<TlsStream<CutStream>, Refusal> {
    timeout(gate.limits.header, TlsAcceptor::from(config).accept(stream))
        .await
        .map_err(|_| Refusal::Timeout)?
        .map_err(|error| classify(&error))
}

/// Names the reason of a failed handshake.
fn classify(error: &io::Error) -> Refusal {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::NoCertificatesPresented) => Refusal::NoCertificate,
        Some(rustls::Error::InvalidCertificate(_)) => Refusal::UntrustedCertificate,
        _ => Refusal::Handshake,
    }
}

async fn serve(gate: Arc<Gate>, stream: TlsStream<CutStream>, accepted: Arc<Accepted>) {
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let limits = gate.limits;
    let service = {
        let (gate, accepted) = (Arc::clone(&gate), Arc::clone(&accepted));
        service_fn(move |request: hyper::Request<Incoming>| {
            let (gate, accepted) = (Arc::clone(&gate), Arc::clone(&accepted));
            async move { Ok::<_, std::convert::Infallible>(proxy::answer(gate, accepted, request).await) }
        })
    };
    let io = TokioIo::new(stream);
    let name = accepted.partner.name.clone();
    // How a connection ends is the client's business, but for one that was too slow; what was refused has been counted.
    let result = if http2 {
        let connection = conn::http2::Builder::new(CutExecutor(accepted.cut.clone()))
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.streams)
            .max_header_list_size(32 * 1024)
            .keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(20))
            .serve_connection(io, service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            result = connection.as_mut() => Some(result),
            () = accepted.last.cancelled() => None,
        };
        if let Some(result) = ended {
            result
        } else {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    } else {
        let connection = conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header)
            .max_buf_size(64 * 1024)
            .serve_connection(io, service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            result = connection.as_mut() => Some(result),
            () = accepted.last.cancelled() => None,
        };
        if let Some(result) = ended {
            result
        } else {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if result.is_err_and(|error| is_timeout(&error)) {
        gate.refuse(name.as_str(), Refusal::Timeout);
    }
}

/// Whether a client sent no header in time, or took nothing of what was sent to it.
fn is_timeout(error: &hyper::Error) -> bool {
    let mut source: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(inner) = source {
        let stalled = inner.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::TimedOut);
        if stalled || inner.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_timeout) {
            return true;
        }
        source = inner.source();
    }
    false
}

/// Runs the tasks of an HTTP/2 connection until it is cut or ends.
#[derive(Clone)]
struct CutExecutor(CancellationToken);

impl<F> Executor<F> for CutExecutor
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, task: F) {
        let cut = self.0.clone();
        tokio::spawn(async move {
            cut.run_until_cancelled(task).await;
        });
    }
}
