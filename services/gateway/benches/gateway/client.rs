//! A partner's HTTPS client, on a thread of its own in the partner's network namespace.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, body::Bytes, client::conn::http1::SendRequest};
use hyper_util::rt::TokioIo;
use liaison_gateway::tls::{KeyMaterial, client_config};
use rustls::{ClientConfig, client::Resumption};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

use crate::support::{Inside, partner::Partner};

/// How long one request may take before it has failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whom it calls, and as whom.
#[derive(Clone)]
pub struct Target {
    address: SocketAddr,
    name: String,
    tls: Arc<Mutex<(u64, Arc<ClientConfig>)>>,
}

impl Target {
    /// A partner's own gateway address, with the partner's leaf.
    pub fn of(partner: &Partner) -> Self {
        let root = std::fs::read(partner.file("root.pem")).unwrap();
        let material = KeyMaterial {
            chain: partner.leaf.chain.clone().into_bytes(),
            key: partner.leaf.key.clone().into_bytes(),
            ca: root,
        };
        let address = (partner.addresses().0.parse::<IpAddr>().unwrap(), 443).into();
        Self::new(address, partner.server_name(), &material)
    }

    /// Any.
    pub fn new(address: SocketAddr, name: String, material: &KeyMaterial) -> Self {
        let config = Arc::new(client_config(material).unwrap());
        Self { address, name, tls: Arc::new(Mutex::new((0, config))) }
    }

    /// Another leaf for connections from now on.
    pub fn change_leaf(&self, material: &KeyMaterial) {
        let mut tls = self.tls.lock().unwrap();
        *tls = (tls.0 + 1, Arc::new(client_config(material).unwrap()));
    }

    fn leaf(&self) -> (u64, Arc<ClientConfig>) {
        self.tls.lock().unwrap().clone()
    }
}

struct Connection {
    leaf: u64,
    left: u32,
    sender: SendRequest<Empty<Bytes>>,
}

async fn connect(target: &Target, uses: u32) -> Result<Connection, String> {
    let (leaf, config) = target.leaf();
    let stream = TcpStream::connect(target.address).await.map_err(|e| format!("connect: {e}"))?;
    stream.set_nodelay(true).map_err(|e| e.to_string())?;
    let name = target.name.clone().try_into().unwrap();
    let stream = TlsConnector::from(config).connect(name, stream).await.map_err(|e| format!("TLS: {e}"))?;
    let (sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    tokio::spawn(connection);
    Ok(Connection { leaf, left: uses, sender })
}

async fn ask(target: &Target, connection: &mut Connection) -> Result<(), String> {
    let request = Request::get("/echo").header("host", &target.name).body(Empty::new()).unwrap();
    let response = connection.sender.send_request(request).await.map_err(|e| format!("request: {e}"))?;
    let status = response.status();
    response.into_body().collect().await.map_err(|e| format!("body: {e}"))?;
    if status.is_success() { Ok(()) } else { Err(status.to_string()) }
}

/// What some clients have seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// Requests that were answered.
    pub answered: AtomicU64,
    /// Whatever else happened to one.
    pub failed: Mutex<Vec<String>>,
    /// The longest that one took, connecting included, in microseconds.
    pub longest: AtomicU64,
    /// Ends them.
    pub stop: AtomicBool,
}

/// One request after the other, several clients side by side, until they are stopped. Each opens a new connection every
/// fiftieth request, and when the leaf was changed. Runs in the partner's namespace; returns at the end.
pub fn load(namespace: &Inside, target: &Target, clients: usize, seen: &Arc<Seen>) {
    namespace.within(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let one = |_| {
                let (target, seen) = (target.clone(), Arc::clone(seen));
                async move {
                    let mut connection: Option<Connection> = None;
                    while !seen.stop.load(Ordering::Relaxed) {
                        let current = target.leaf().0;
                        let mut held = connection.take().filter(|c| c.left > 0 && c.leaf == current);
                        let started = Instant::now();
                        let asking = async {
                            let mut connection = match held.take() {
                                Some(connection) => connection,
                                None => connect(&target, 50).await?,
                            };
                            ask(&target, &mut connection).await?;
                            connection.left -= 1;
                            Ok::<_, String>(connection)
                        };
                        match timeout(PATIENCE, asking).await {
                            Ok(Ok(done)) => {
                                connection = Some(done);
                                seen.answered.fetch_add(1, Ordering::Relaxed);
                                let took = u64::try_from(started.elapsed().as_micros()).unwrap();
                                seen.longest.fetch_max(took, Ordering::Relaxed);
                            }
                            Ok(Err(error)) => seen.failed.lock().unwrap().push(error),
                            Err(_) => seen.failed.lock().unwrap().push("no answer".to_owned()),
                        }
                    }
                }
            };
            futures::future::join_all((0..clients).map(one)).await;
        });
    });
}

/// Tries until a request on a connection of its own is answered; how long that took. Each try gives up soon, as one does who
/// asks again.
pub fn first_answer(partner: &Partner, target: &Target, since: Instant) -> Duration {
    partner.namespace.within(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            loop {
                let asking = async {
                    let mut connection = connect(target, 1).await?;
                    ask(target, &mut connection).await
                };
                if matches!(timeout(Duration::from_millis(300), asking).await, Ok(Ok(()))) {
                    return since.elapsed();
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
                assert!(since.elapsed() < Duration::from_secs(120), "no answer for two minutes");
            }
        })
    })
}

/// Asks for an answer that does not end, by HTTP/2, and calls `note` for each piece of it.
pub async fn stream(target: &Target, path: &str, note: impl Fn()) -> Result<(), String> {
    let mut config = (*target.leaf().1).clone();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(target.address).await.map_err(|e| format!("connect: {e}"))?;
    let name = target.name.clone().try_into().unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|e| format!("TLS: {e}"))?;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(hyper_util::rt::TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(|e| e.to_string())?;
    tokio::spawn(connection);
    let uri = format!("https://{}{path}", target.name);
    let request = Request::get(uri).body(Empty::<Bytes>::new()).unwrap();
    let response = sender.send_request(request).await.map_err(|e| format!("request: {e}"))?;
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        frame.map_err(|e| format!("body: {e}"))?;
        note();
    }
    Err("it ended".to_owned())
}

/// When something that is tried again and again was last answered, and when it need not be tried any more.
#[derive(Default)]
pub struct Trial {
    last: Mutex<Option<Instant>>,
    until: Mutex<Option<Instant>>,
}

impl Trial {
    /// It was answered.
    pub fn answered(&self) {
        *self.last.lock().unwrap() = Some(Instant::now());
    }

    /// When it was last.
    pub fn last(&self) -> Option<Instant> {
        *self.last.lock().unwrap()
    }

    /// It goes on for so long.
    pub fn end_after(&self, window: Duration) {
        *self.until.lock().unwrap() = Some(Instant::now() + window);
    }

    /// Whether it goes on.
    pub fn goes_on(&self) -> bool {
        self.until.lock().unwrap().is_none_or(|until| Instant::now() < until)
    }
}

/// Opens connections and asks on each as long as the trial goes on, by a client that would resume a session. How many were
/// tried, and how many of those answered were resumed.
pub fn attempts(inside: &Inside, target: &Target, trial: &Trial) -> (usize, usize) {
    inside.within(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut config = (*target.leaf().1).clone();
            config.resumption = Resumption::in_memory_sessions(8);
            let config = Arc::new(config);
            let (mut tried, mut resumed) = (0, 0);
            while trial.goes_on() {
                tried += 1;
                let asking = async {
                    let stream = TcpStream::connect(target.address).await.map_err(|e| e.to_string())?;
                    let name = target.name.clone().try_into().unwrap();
                    let stream = TlsConnector::from(Arc::clone(&config)).connect(name, stream);
                    let stream = stream.await.map_err(|e| e.to_string())?;
                    let again = stream.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
                    let (sender, connection) =
                        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
                    tokio::spawn(connection);
                    ask(target, &mut Connection { leaf: 0, left: 1, sender }).await?;
                    Ok::<_, String>(again)
                };
                if let Ok(Ok(again)) = timeout(Duration::from_millis(200), asking).await {
                    trial.answered();
                    resumed += usize::from(again);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            (tried, resumed)
        })
    })
}
