//! A running InfoPol with certificates of a CA of its own, and a client that speaks to it as the gateway does.

use std::{fmt::Write as _, fs, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use axum::body::{Body, Bytes, to_bytes};
use base64::{Engine, engine::general_purpose::STANDARD};
use clap::Parser;
use hyper::{Request, StatusCode, client::conn::http1, header::HeaderMap};
use hyper_util::rt::TokioIo;
use liaison_infopol::{config::Config, server::Server};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::Replica;

pub const DOMAIN: &str = "liaison.example.ca";

type Ca = CertifiedIssuer<'static, KeyPair>;

/// A CA.
pub fn ca() -> Ca {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A leaf with a DNS name and a URI: PEM certificate, PEM key, DER certificate.
pub fn leaf(ca: &Ca, dns: &str, uri: &str) -> (String, String, Vec<u8>) {
    let mut params = CertificateParams::new(vec![dns.to_owned()]).unwrap();
    params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, ca).unwrap();
    (certificate.pem(), key.serialize_pem(), certificate.der().to_vec())
}

/// An InfoPol that serves a replica.
pub struct Service {
    pub address: SocketAddr,
    pub health: SocketAddr,
    pub ca: Ca,
    pub host: String,
    /// The `Client-Cert` header of the partner's own leaf, and that leaf's SHA-256.
    pub client_cert: String,
    pub leaf_hash: String,
    pub directory: TempDir,
    gateway: (String, String),
    stop: CancellationToken,
    server: Server,
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8(self.body.to_vec()).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

fn write_identity(directory: &Path, ca: &Ca, host: &str, partner: &str) {
    let (certificate, key, _) = leaf(ca, host, &format!("spiffe://{DOMAIN}/infopol/{partner}"));
    fs::write(directory.join("tls.crt"), certificate).unwrap();
    fs::write(directory.join("tls.key"), key).unwrap();
    fs::write(directory.join("ca.crt"), ca.pem()).unwrap();
}

impl Service {
    pub async fn start(replica: &Replica) -> Self {
        Self::start_with(replica, &replica.reader_url()).await
    }

    pub async fn start_with(replica: &Replica, store_url: &str) -> Self {
        Self::start_sharing(replica, store_url, None).await
    }

    /// With the secret that the replicas of one InfoPol share.
    pub async fn start_sharing(replica: &Replica, store_url: &str, secret: Option<&str>) -> Self {
        let (ca, directory) = (ca(), TempDir::new().unwrap());
        let partner = replica.partner.as_str();
        let host = format!("infopol-{partner}.liaison-partners.svc");
        write_identity(directory.path(), &ca, &host, partner);
        let (certificate, key, _) = leaf(&ca, "gateway", &format!("spiffe://{DOMAIN}/gateway"));
        let (_, _, der) = leaf(&ca, "client", &format!("spiffe://{DOMAIN}/partner/{partner}"));
        let mut config = Config::parse_from([
            "liaison-infopol",
            "--partner",
            partner,
            "--domain",
            DOMAIN,
            "--listen",
            "127.0.0.1:0",
            "--health-addr",
            "127.0.0.1:0",
            "--store-url",
            store_url,
            "--tls-dir",
            directory.path().to_str().unwrap(),
        ]);
        if let Some(secret) = secret {
            let file = directory.path().join("session");
            fs::write(&file, secret).unwrap();
            config.session_secret_file = Some(file);
        }
        let stop = CancellationToken::new();
        let server = Server::start(&config, stop.clone()).await.unwrap();
        Self {
            address: server.address,
            health: server.health,
            ca,
            host,
            client_cert: format!(":{}:", STANDARD.encode(&der)),
            leaf_hash: {
                use sha2::Digest;
                hex::encode(sha2::Sha256::digest(&der))
            },
            directory,
            gateway: (certificate, key),
            stop,
            server,
        }
    }

    /// Puts a new server certificate where the old one was.
    pub fn renew(&self, partner: &str) {
        write_identity(self.directory.path(), &self.ca, &self.host, partner);
    }

    pub async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(Duration::from_secs(10), self.server.ended()).await.unwrap();
    }

    /// A TLS connection with this client identity, or with none.
    pub async fn connect(
        &self,
        identity: Option<(&str, &str)>,
    ) -> Result<tokio_rustls::client::TlsStream<TcpStream>, String> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.ca.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(rustls::DEFAULT_VERSIONS)
            .unwrap()
            .with_root_certificates(roots);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => builder
                .with_client_auth_cert(
                    vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                    PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
                )
                .unwrap(),
        };
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from(self.host.clone()).unwrap();
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|e| e.to_string())
    }

    /// One request over a connection of its own, exactly as given.
    pub async fn send_as(&self, identity: Option<(&str, &str)>, request: Request<Body>) -> Result<Answer, String> {
        let stream = self.connect(identity).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
        let driver = tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
        let (parts, body) = response.into_parts();
        let body = to_bytes(Body::new(body), usize::MAX).await.map_err(|e| e.to_string())?;
        driver.abort();
        Ok(Answer { status: parts.status, headers: parts.headers, body })
    }

    /// As the gateway sends it on for this partner.
    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "vancouver-police.liaison.example.ca")
            .header("client-cert", &self.client_cert)
            .header("traceparent", TRACE);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body.into()).unwrap();
        self.send_as(Some((&self.gateway.0, &self.gateway.1)), request).await.unwrap()
    }

    /// The same without any of the headers that `send` adds.
    pub async fn send_bare(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::builder().method(method).uri(path).header("host", "x");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).unwrap();
        self.send_as(Some((&self.gateway.0, &self.gateway.1)), request).await.unwrap()
    }

    /// An API call of an officer with a permitted purpose.
    pub async fn api(&self, path: &str, body: &Value) -> Answer {
        self.api_for(path, "Apprehension", body).await
    }

    pub async fn api_for(&self, path: &str, purpose: &str, body: &Value) -> Answer {
        let headers = [("content-type", "application/json"), ("officer-id", OFFICER), ("purpose", purpose)];
        self.send("POST", path, &headers, body.to_string()).await
    }
}

pub const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
pub const OFFICER: &str = "VPD-1234";

/// What a browser keeps: the cookie and the token of the last page.
pub struct Browser<'a> {
    pub service: &'a Service,
    pub cookie: String,
    pub token: String,
}

impl<'a> Browser<'a> {
    pub fn new(service: &'a Service) -> Self {
        Self { service, cookie: String::new(), token: String::new() }
    }

    fn keep(&mut self, answer: &Answer) {
        if let Some(cookie) = answer.headers.get("set-cookie") {
            cookie.to_str().unwrap().split(';').next().unwrap().clone_into(&mut self.cookie);
        }
        let text = String::from_utf8_lossy(&answer.body);
        if let Some((_, rest)) = text.split_once("name=\"token\" value=\"") {
            rest.split('"').next().unwrap().clone_into(&mut self.token);
        }
    }

    pub async fn get(&mut self, path: &str) -> Answer {
        let answer = self.service.send("GET", path, &[("cookie", &self.cookie), ("sec-fetch-site", "none")], "").await;
        self.keep(&answer);
        answer
    }

    pub async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let mut form = format!("token={}", self.token);
        for (name, value) in fields {
            write!(form, "&{name}=").unwrap();
            for byte in value.bytes() {
                write!(form, "%{byte:02X}").unwrap();
            }
        }
        let headers = [
            ("cookie", self.cookie.as_str()),
            ("content-type", "application/x-www-form-urlencoded"),
            ("sec-fetch-site", "same-origin"),
        ];
        let answer = self.service.send("POST", path, &headers, form).await;
        self.keep(&answer);
        answer
    }

    pub async fn sign_on(&mut self, lang: &str) {
        self.get(&format!("/{lang}")).await;
        let answer = self.post(&format!("/{lang}/sign-on"), &[("officer", OFFICER), ("purpose", "Apprehension")]).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.text());
        let answer = self.get(&format!("/{lang}/search")).await;
        assert_eq!(answer.status, StatusCode::OK);
    }
}
