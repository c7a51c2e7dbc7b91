//! An InfoPol that tells what it was asked, over mutual TLS. One process plays those of all partners, each with its own
//! certificate, chosen by SNI.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::Stream;
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{
    Request, Response,
    body::{Bytes, Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use liaison_gateway::tls::KeyMaterial;
use rustls::{
    RootCertStore, ServerConfig,
    server::{ResolvesServerCertUsingSni, WebPkiClientVerifier},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::{Map, json};
use tokio::{net::TcpListener, sync::watch, time::Interval};
use tokio_rustls::TlsAcceptor;

/// Serves until the runtime ends; returns the port.
pub async fn start(port: u16, certificates: Vec<(String, KeyMaterial)>) -> u16 {
    start_with(port, watch::channel(tls(&certificates)).1).await
}

/// What it serves new connections with.
pub fn tls(certificates: &[(String, KeyMaterial)]) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    let mut resolver = ResolvesServerCertUsingSni::new();
    for (name, material) in certificates {
        for root in CertificateDer::pem_slice_iter(&material.ca) {
            roots.add(root.unwrap()).unwrap();
        }
        let chain = CertificateDer::pem_slice_iter(&material.chain).collect::<Result<Vec<_>, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_slice(&material.key).unwrap();
        resolver.add(name, CertifiedKey::from_der(chain, key, &provider).unwrap()).unwrap();
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(resolver));
    Arc::new(config)
}

/// The same as `start`, with what it serves with as it is at the time.
pub async fn start_with(port: u16, tls: watch::Receiver<Arc<ServerConfig>>) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = TlsAcceptor::from(tls.borrow().clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let called = stream.get_ref().1.server_name().unwrap_or_default().to_owned();
                let service = service_fn(move |request| answer(called.clone(), request));
                let _ =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    port
}

type Body = BoxBody<Bytes, Infallible>;

async fn answer(called: String, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    if request.uri().path() == "/stream" {
        let pause = request.uri().query().and_then(|query| query.strip_prefix("ms=")?.parse().ok()).unwrap_or(5);
        let endless = Endless(tokio::time::interval(Duration::from_millis(pause)));
        return Ok(Response::new(BodyExt::boxed(StreamBody::new(endless))));
    }
    let mut headers = Map::new();
    for (name, value) in request.headers() {
        headers.insert(name.to_string(), json!(value.to_str().unwrap_or_default()));
    }
    let path = request.uri().to_string();
    let body = request.into_body().collect().await.map(|b| b.to_bytes().len()).unwrap_or_default();
    let text = json!({"called": called, "headers": headers, "path": path, "body": body}).to_string();
    let mut response = Response::new(Full::new(Bytes::from(text)).boxed());
    response.headers_mut().insert("x-answered-by", "infopol".parse().unwrap());
    Ok(response)
}

struct Endless(Interval);

impl Stream for Endless {
    type Item = Result<Frame<Bytes>, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_tick(cx).map(|_| Some(Ok(Frame::data(Bytes::from_static(&[b'.'; 512])))))
    }
}
