//! A: from the write of a revocation to the API until nothing of the partner gets through, with the operator not there.
//!
//! The gateway's program watches a real API server. Partners that are live have a WireGuard device of their own in this process,
//! with its TUN device in a network namespace; of others the handshakes alone are tried.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::sleep,
    time::{Duration, Instant},
};

use futures::{StreamExt as _, stream};
use gotatun::{
    device::{Device, DeviceBuilder, Peer},
    noise::{Tunn, index_table::IndexTable, rate_limiter::RateLimiter},
    udp::socket::UdpSocketFactory,
    x25519::{PublicKey, StaticSecret},
};
use k8s_openapi::api::core::v1::Namespace as KubeNamespace;
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use liaison_crds::PartnerConnection;
use liaison_gateway::{metrics::Metrics, state::public_key_sha256, tunnel::device as tun};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::{
    client::{self as calls, Target, Trial},
    results::Results,
    support::{
        self, DOMAIN, Inside, Namespace, Process,
        ca::{Ca, Leaf},
        cluster::{arguments, client, make_namespace, own_secrets},
        eventually,
        gateway::public_key,
        infopol, unique,
    },
};

/// How long after a write it is looked whether something still gets through.
const WINDOW: Duration = Duration::from_millis(1500);
const HEALTH: &str = "127.0.0.1:28080";

struct Live {
    name: String,
    slot: u16,
    private: String,
    leaf: Leaf,
}

impl Live {
    fn gateway_address(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(Ipv4Addr::new(100, 73, 0, 0).to_bits() + 2 * u32::from(self.slot))
    }

    fn address(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.gateway_address().to_bits() + 1)
    }
}

fn object(namespace: &str, gateway: &str, partner: &Live) -> Value {
    let key = public_key(&partner.private);
    let six = |odd: u16| format!("fd4c:6961:6973::73:{:x}", 2 * partner.slot + odd);
    json!({
        "apiVersion": "federation.csc-scc.gc.ca/v1alpha1",
        "kind": "PartnerConnection",
        "metadata": {"name": partner.name, "namespace": namespace},
        "spec": {
            "partner": {"type": "PoliceService", "jurisdiction": "CA-BC", "name": {"en": "A", "fr": "A"}, "timeZone": "America/Vancouver"},
            "agreementRef": {"name": "bc-2003"},
            "share": {"fieldGroups": ["identity"], "population": {"anyOf": [{"municipalities": ["5915022"]}]}},
            "credentials": {
                "keyCustody": "Partner",
                "wireGuard": {"publicKeys": [key]},
                "certificate": {"signingRequests": [partner.leaf.request]},
            },
        },
        "status": {
            "observedGeneration": 1,
            "conditions": [],
            "authorizedUntil": "2200-01-01T00:00:00Z",
            "connection": {
                "endpoint": "gateway.example:51820", "gatewayPublicKeys": [gateway],
                "partnerAddresses": {"ipv4": partner.address(), "ipv6": six(1)},
                "gatewayAddresses": {"ipv4": partner.gateway_address(), "ipv6": six(0)},
                "serverName": format!("{}.{DOMAIN}", partner.name), "caBundle": "",
            },
            "wireGuardKeys": [key],
            "wireGuardKeysSeen": [{"publicKey": key, "firstSeen": "2020-01-01T00:00:00Z"}],
            "certificates": [{
                "keyFirstSeen": "2020-01-01T00:00:00Z", "sha256": partner.leaf.sha256,
                "publicKeySha256": public_key_sha256(&partner.leaf.request).unwrap(), "chain": partner.leaf.chain,
                "notBefore": "2020-01-01T00:00:00Z", "notAfter": "2200-01-01T00:00:00Z",
            }],
        },
    })
}

/// The API: a namespace with the Secrets and all partners.
async fn install(client: &Client, namespace: &str, ca: &Ca, private: &str, partners: &[Live]) {
    make_namespace(client, namespace).await;
    own_secrets(client, namespace, ca, private).await;
    let objects: Api<PartnerConnection> = Api::namespaced(client.clone(), namespace);
    let gateway = public_key(private);
    let make = |partner| {
        let (objects, full) = (objects.clone(), object(namespace, &gateway, partner));
        async move {
            let typed: PartnerConnection = serde_json::from_value(full.clone()).unwrap();
            objects.create(&PostParams::default(), &typed).await.unwrap();
            let name = full["metadata"]["name"].as_str().unwrap();
            let status = Patch::Merge(json!({"status": full["status"]}));
            objects.patch_status(name, &PatchParams::default(), &status).await.unwrap();
        }
    };
    stream::iter(partners).map(make).buffer_unordered(16).collect::<Vec<()>>().await;
}

type Wg = Device<(UdpSocketFactory, tun::Writer, tun::Reader)>;

/// A partner's WireGuard device.
async fn device(namespace: &Namespace, partner: &Live, gateway: PublicKey, at: SocketAddr) -> Wg {
    let name = format!("p{}", partner.slot);
    let device = namespace.within(|| tun::open(&name).unwrap());
    let (own, other) = (partner.address(), partner.gateway_address());
    for arguments in [
        format!("addr add {own}/32 dev {name}"),
        format!("link set dev {name} mtu 1380 up"),
        format!("route add {other}/32 dev {name} src {own}"),
    ] {
        let mut all = vec!["-n", &namespace.0];
        all.extend(arguments.split(' '));
        support::run("ip", &all);
    }
    let (reader, writer) = tun::split(device, &Arc::new(Metrics::default()), &CancellationToken::new()).unwrap();
    let mut peer = Peer::new(gateway).with_endpoint(at).with_allowed_ip(std::net::IpAddr::from(other).into());
    peer.keepalive = Some(25);
    DeviceBuilder::new()
        .with_default_udp()
        .with_ip_pair(writer, reader)
        .with_private_key(StaticSecret::from(bytes(&partner.private)))
        .with_peer(peer)
        .build()
        .await
        .unwrap()
}

fn bytes(key: &str) -> [u8; 32] {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    STANDARD.decode(key.trim()).unwrap().try_into().unwrap()
}

/// Tries handshakes with a partner's key, some forty a second, as long as the trial goes on.
fn handshakes(private: &str, gateway: PublicKey, at: SocketAddr, from: Ipv4Addr, trial: &Trial) {
    let socket = UdpSocket::bind((from, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let limiter = Arc::new(RateLimiter::new(&gateway, 100));
    while trial.goes_on() {
        let secret = StaticSecret::from(bytes(private));
        let mut tunnel = Tunn::new(secret, gateway, None, None, IndexTable::from_os_rng(), Arc::clone(&limiter));
        let packet = tunnel.format_handshake_initiation(true).unwrap().into_bytes();
        socket.send_to(&packet, at).unwrap();
        let mut answer = [0; 256];
        if let Ok((92, _)) = socket.recv_from(&mut answer) {
            trial.answered();
            sleep(Duration::from_millis(20));
        }
    }
}

/// What is known of one live HTTP/2 answer.
#[derive(Default)]
struct Answer {
    /// Microseconds since the start at which its last byte came.
    last: AtomicU64,
    ended: AtomicBool,
}

/// Holds live answers open, all on one thread in the partners' namespace.
fn hold(inside: &Inside, targets: Vec<Target>, answers: &[Answer], start: Instant, stop: &AtomicBool) {
    inside.within(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let one = |(target, answer): (Target, usize)| async move {
                let note = || {
                    let now = u64::try_from(start.elapsed().as_micros()).unwrap();
                    answers[answer].last.store(now, Ordering::Relaxed);
                };
                let _ = calls::stream(&target, "/stream?ms=20", note).await;
                answers[answer].ended.store(true, Ordering::Relaxed);
            };
            let all = targets.into_iter().enumerate().map(|(index, target)| (target, index)).map(one);
            let all = futures::future::join_all(all);
            let stopped = async {
                while !stop.load(Ordering::Relaxed) {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            tokio::select! { _ = all => (), () = stopped => () }
        });
    });
}

/// The partners, the first `live` with leaves of their own.
fn partners(ca: &Ca, number: usize, live: usize) -> Vec<Live> {
    let shared = ca.client(&format!("spiffe://{DOMAIN}/partner/nobody"));
    let one = |n: usize| {
        let name = format!("p{n}");
        let leaf = if n < live {
            ca.client(&format!("spiffe://{DOMAIN}/partner/{name}"))
        } else {
            let (chain, request, sha256) = (shared.chain.clone(), shared.request.clone(), shared.sha256.clone());
            Leaf { chain, key: String::new(), request, sha256 }
        };
        let secret: [u8; 32] = rand::random();
        let private = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, secret);
        Live { name, slot: u16::try_from(n + 1).unwrap(), private, leaf }
    };
    (0..number).map(one).collect()
}

/// InfoPols of the live ones; their port.
fn infopols(runtime: &Runtime, ca: &Ca, namespace: &str, live: &[Live]) -> u16 {
    let one = |partner: &Live| {
        let host = format!("infopol-{}.{namespace}.svc", partner.name);
        let leaf = ca.server(&[&host], &format!("spiffe://{DOMAIN}/infopol/{}", partner.name));
        (host, ca.material(&leaf))
    };
    runtime.block_on(infopol::start(0, live.iter().map(one).collect()))
}

/// The gateway's program.
fn start(infopol: u16, namespace: &str, port: u16) -> Process {
    let program = std::env::current_exe().unwrap();
    let beside = program.ancestors().map(|dir| dir.join("liaison-gateway")).find(|path| path.is_file());
    let program = std::env::var_os("GATEWAY").map(Into::into).or(beside).expect("liaison-gateway is not built");
    let arguments = arguments(namespace, infopol, &[&format!("--wg-port={port}"), &format!("--health-addr={HEALTH}")]);
    let mut command = Command::new(program);
    command.args(&arguments[1..]).env("KUBECONFIG", std::env::var("TEST_KUBECONFIG").unwrap());
    Process(command.env("RUST_LOG", "warn,gotatun=off").stdout(Stdio::null()).spawn().unwrap())
}

/// What the trials gave, in seconds and numbers.
#[derive(Default)]
struct Samples {
    writes: Vec<f64>,
    bytes: Vec<f64>,
    tls: Vec<f64>,
    wire_guard: Vec<f64>,
    tried: usize,
    resumed: usize,
    others: usize,
}

/// What a trial needs.
struct Stage<'a> {
    revoke: &'a dyn Fn(&str) -> Instant,
    clients: &'a Namespace,
    gateway: PublicKey,
    at: SocketAddr,
    answers: &'a [Answer],
    start: Instant,
}

impl Stage<'_> {
    /// Revokes a live partner, and another of which handshakes alone are tried.
    fn trial(&self, round: usize, live: &Live, target: &Target, tried: Option<&Live>, samples: &mut Samples) {
        let after = |last: Option<Instant>, since: Instant| {
            last.expect("it got through before the write").saturating_duration_since(since).as_secs_f64()
        };
        let from = Ipv4Addr::new(127, 0, 1, u8::try_from(round % 250 + 1).unwrap());
        let (asking, shaking) = (Trial::default(), Trial::default());
        std::thread::scope(|scope| {
            if let Some(partner) = tried {
                let (gateway, at, shaking) = (self.gateway, self.at, &shaking);
                scope.spawn(move || handshakes(&partner.private, gateway, at, from, shaking));
            }
            let (inside, trial) = (self.clients.inside(), &asking);
            let counts = scope.spawn(move || calls::attempts(&inside, target, trial));
            eventually("both get through", Duration::from_secs(30), || {
                asking.last().is_some() && (tried.is_none() || shaking.last().is_some())
            });
            let since = (self.revoke)(&live.name);
            samples.writes.push(since.elapsed().as_secs_f64());
            let since_tried = tried.map(|partner| (self.revoke)(&partner.name));
            asking.end_after(WINDOW);
            shaking.end_after(WINDOW);
            let (all, again) = counts.join().unwrap();
            samples.tried += all;
            samples.resumed += again;
            samples.tls.push(after(asking.last(), since));
            samples.wire_guard.extend(since_tried.map(|since| after(shaking.last(), since)));
            let last = self.start + Duration::from_micros(self.answers[round].last.load(Ordering::Relaxed));
            samples.bytes.push(after(Some(last), since));
        });
        let now = self.start.elapsed();
        let disturbed = self.answers[round + 1..].iter().filter(|answer| {
            let silent = now.saturating_sub(Duration::from_micros(answer.last.load(Ordering::Relaxed)));
            answer.ended.load(Ordering::Relaxed) || silent > Duration::from_secs(1)
        });
        samples.others += disturbed.count();
    }
}

impl Samples {
    fn report(&self, results: &mut Results, live: usize) {
        results.times("A revocation, the API write itself", &self.writes);
        results.times("A revocation, from the API write to the last byte of a live HTTP/2 answer", &self.bytes);
        results.times("A revocation, from the API write to the last request on a new TLS connection", &self.tls);
        if !self.wire_guard.is_empty() {
            results.times("A revocation, from the API write to the last WireGuard handshake", &self.wire_guard);
        }
        let tried = self.tried as f64;
        results.add("A revocation, TLS connections tried meanwhile", tried, "connections", live, None);
        results.add("A revocation, of them resumed", self.resumed as f64, "connections", live, None);
        results.add("A revocation, other partners' answers disturbed", self.others as f64, "answers", live, None);
    }
}

/// `number` partners, of which `live` have a connection and as many again are tried with handshakes alone. With none live the gateway's
/// memory is what is measured.
pub fn measure(results: &mut Results, number: usize, live: usize) {
    println!("A: {number} partners, {live} live");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let client = runtime.block_on(client());
    let namespace = format!("bench-gateway-{}", unique());
    let ca = Ca::new();
    let private = support::run("wg", &["genkey"]).trim().to_owned();
    let gateway = PublicKey::from(bytes(&public_key(&private)));
    let partners = partners(&ca, number, live);
    runtime.block_on(install(&client, &namespace, &ca, &private, &partners));
    let port = 40_000 + u16::try_from(std::process::id() % 20_000).unwrap();
    // One is asked for, even if nobody calls.
    let infopol = infopols(&runtime, &ca, &namespace, &partners[..live.max(1)]);
    let mut process = start(infopol, &namespace, port);
    let open = format!("liaison_gateway_partners_open {number}\n");
    eventually("all partners are open", Duration::from_secs(300), || {
        assert!(process.0.try_wait().unwrap().is_none(), "the gateway ended");
        let metrics = support::output("curl", &["-s", "-m", "2", &format!("http://{HEALTH}/metrics")]);
        String::from_utf8_lossy(&metrics.stdout).contains(&open)
    });

    let clients = Namespace::new("c");
    let at: SocketAddr = ([127, 0, 0, 1], port).into();
    let (mut devices, mut targets) = (Vec::new(), Vec::new());
    for partner in &partners[..live] {
        devices.push(runtime.block_on(device(&clients, partner, gateway, at)));
        let address = (partner.gateway_address(), 443).into();
        targets.push(Target::new(address, format!("{}.{DOMAIN}", partner.name), &ca.material(&partner.leaf)));
        // The gateway answers a hundred handshakes a second from one address.
        sleep(Duration::from_millis(15));
    }
    let objects: Api<PartnerConnection> = Api::namespaced(client.clone(), &namespace);
    let revoke = |name: &str| {
        let patch = Patch::Merge(json!({"spec": {"revocation": {"revoked": true}}}));
        let since = Instant::now();
        runtime.block_on(objects.patch(name, &PatchParams::default(), &patch)).unwrap();
        since
    };
    let answers: Vec<Answer> = (0..live).map(|_| Answer::default()).collect();
    let (stop, start, mut samples) = (AtomicBool::new(false), Instant::now(), Samples::default());
    std::thread::scope(|scope| {
        let (inside, held) = (clients.inside(), targets.clone());
        scope.spawn(|| {
            let inside = inside;
            hold(&inside, held, &answers, start, &stop);
        });
        eventually("all answers run", Duration::from_secs(60), || {
            answers.iter().all(|answer| answer.last.load(Ordering::Relaxed) > 0)
        });
        sleep(Duration::from_secs(1));
        let stage = Stage { revoke: &revoke, clients: &clients, gateway, at, answers: &answers, start };
        for round in 0..live {
            let tried = (number >= 2 * live).then(|| &partners[live + round]);
            stage.trial(round, &partners[round], &targets[round], tried, &mut samples);
            if (round + 1) % 10 == 0 {
                println!("A: {} of {live} revoked; others disturbed: {}", round + 1, samples.others);
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    let rss = support::run("ps", &["-o", "rss=", "-p", &process.0.id().to_string()]);
    if live > 0 {
        samples.report(results, live);
    }
    let rss: f64 = rss.trim().parse().unwrap();
    let name = format!("A memory of the gateway with {number} partners, {live} of them live");
    results.add(&name, rss / 1024.0, "MiB", 1, None);
    runtime.block_on(async {
        for device in devices {
            device.stop().await;
        }
        let _ = objects.delete_collection(&DeleteParams::default(), &ListParams::default()).await;
        let _ = Api::<KubeNamespace>::all(client.clone()).delete(&namespace, &DeleteParams::default()).await;
    });
}
