//! The gateway in a network namespace of its own: this test binary, run again by `ip netns exec`, serving on what it reads
//! from its standard input instead of the API.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{ChildStdin, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::Parser as _;
use futures::future::BoxFuture;
use liaison_crds::preshared_entry;
use liaison_gateway::{
    config::Config,
    enrolment::{Answer, Asked, Certificates},
    feeds::{Change, Feeds, StatusWrite, Word},
    lead::Standing,
    privileges::{Opened, reduce},
    secrets::{PresharedKey, Secrets, WireGuardPrivateKey},
    serve,
    tls::KeyMaterial,
    tunnel::filter::HTTPS,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{Namespace, Process, ca::Ca, eventually, infopol, run};

/// UDP port of the gateway.
pub const PORT: u16 = 51820;
/// Name of the test that is the child process.
pub const CHILD: &str = "gateway_process";

/// What a line of the child's that holds an acknowledgement begins with; the test harness prints lines too.
const WORD: &str = "WORD ";

/// Arguments of util-linux's setpriv: the capabilities that the chart gives the gateway's container.
pub const AS_IN_ITS_POD: [&str; 2] = ["--bounding-set", "-all,+net_admin,+net_bind_service"];

/// A line on the child's standard input.
#[derive(Serialize, Deserialize)]
enum Line {
    Start {
        arguments: Vec<String>,
        infopols: Vec<(String, Material)>,
        server: Material,
        client: Material,
        keys: [Option<String>; 2],
    },
    List(Vec<Value>),
    Apply(Value),
    Delete(String),
    Server(Material),
    Authority {
        infopols: Vec<(String, Material)>,
        server: Material,
        client: Material,
    },
    Keys([Option<String>; 2]),
    Preshared(Vec<(String, String)>),
}

#[derive(Serialize, Deserialize)]
struct Material {
    chain: String,
    key: String,
    ca: String,
}

impl From<KeyMaterial> for Material {
    fn from(m: KeyMaterial) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { chain: text(m.chain), key: text(m.key), ca: text(m.ca) }
    }
}

impl From<Material> for KeyMaterial {
    fn from(m: Material) -> Self {
        Self { chain: m.chain.into_bytes(), key: m.key.into_bytes(), ca: m.ca.into_bytes() }
    }
}

/// A running gateway.
pub struct Gateway {
    start: String,
    stdin: ChildStdin,
    process: Process,
    words: Arc<Mutex<Vec<Value>>>,
    /// Its network namespace.
    pub namespace: Namespace,
    /// Its WireGuard public key.
    pub public_key: String,
}

impl Gateway {
    /// Starts one, with InfoPols of these names and certificates. `arguments` are the program's own.
    pub fn start(ca: &Ca, infopols: Vec<(String, KeyMaterial)>, arguments: &[&str]) -> Self {
        let namespace = Namespace::new("g");
        let words = Arc::new(Mutex::new(Vec::new()));
        let (process, stdin) = spawn(&namespace, &words);
        let private = run("wg", &["genkey"]);
        let public_key = public_key(&private);
        let server = ca.server(&[&format!("*.{}", super::DOMAIN)], &format!("spiffe://{}/gateway", super::DOMAIN));
        let client = ca.client(&format!("spiffe://{}/gateway", super::DOMAIN));
        let start = Line::Start {
            arguments: arguments.iter().map(ToString::to_string).collect(),
            infopols: infopols.into_iter().map(|(name, m)| (name, m.into())).collect(),
            server: ca.material(&server).into(),
            client: ca.material(&client).into(),
            keys: [Some(private.trim().to_owned()), None],
        };
        let start = serde_json::to_string(&start).unwrap();
        let mut this = Self { start, stdin, process, words, namespace, public_key };
        writeln!(this.stdin, "{}", this.start).unwrap();
        eventually("the gateway is up", Duration::from_secs(20), || {
            assert!(this.process.0.try_wait().unwrap().is_none(), "the gateway ended");
            this.http("readyz").is_some() && this.show(&["link", "show", "liaison0"]).contains("UP")
        });
        this
    }

    /// Kills it.
    pub fn kill(&mut self) {
        self.process.0.kill().unwrap();
        self.process.0.wait().unwrap();
    }

    /// Starts it again after it was killed, as it was at first, and tells it what there is.
    pub fn start_again(&mut self, objects: &[&Value]) {
        (self.process, self.stdin) = spawn(&self.namespace, &self.words);
        writeln!(self.stdin, "{}", self.start).unwrap();
        self.list(objects);
    }

    /// All objects there are.
    pub fn list(&mut self, objects: &[&Value]) {
        self.say(&Line::List(objects.iter().map(|o| (*o).clone()).collect()));
    }

    /// One object changed.
    pub fn apply(&mut self, object: &Value) {
        self.say(&Line::Apply(object.clone()));
    }

    /// One object is gone.
    pub fn delete(&mut self, name: &str) {
        self.say(&Line::Delete(name.to_owned()));
    }

    /// A new server certificate.
    pub fn server(&mut self, material: KeyMaterial) {
        self.say(&Line::Server(material.into()));
    }

    /// All that it and its InfoPols have of a CA: certificates, and what they trust.
    pub fn authority(&mut self, infopols: Vec<(String, KeyMaterial)>, server: KeyMaterial, client: KeyMaterial) {
        let infopols = infopols.into_iter().map(|(name, m)| (name, m.into())).collect();
        self.say(&Line::Authority { infopols, server: server.into(), client: client.into() });
    }

    /// Its first listener's private key.
    pub fn own_key(&self) -> String {
        let start: Value = serde_json::from_str(&self.start).unwrap();
        start["Start"]["keys"][0].as_str().unwrap().to_owned()
    }

    /// Its own private keys from now on, one for each listener.
    pub fn keys(&mut self, keys: [Option<&str>; 2]) {
        let keys = keys.map(|key| key.map(|key| key.trim().to_owned()));
        let mut start: Value = serde_json::from_str(&self.start).unwrap();
        start["Start"]["keys"] = json!(keys);
        self.start = start.to_string();
        self.say(&Line::Keys(keys));
    }

    /// All preshared keys that there are from now on, each with the WireGuard key that it belongs to.
    pub fn preshared(&mut self, all: &[(&str, &str)]) {
        let all = all.iter().map(|(public, shared)| ((*public).to_owned(), shared.trim().to_owned()));
        self.say(&Line::Preshared(all.collect()));
    }

    fn say(&mut self, line: &Line) {
        writeln!(self.stdin, "{}", serde_json::to_string(line).unwrap()).unwrap();
    }

    /// The acknowledgements that it has written, each with its partner.
    pub fn words(&self) -> Vec<Value> {
        self.words.lock().unwrap().clone()
    }

    /// `ip` in its namespace.
    pub fn show(&self, arguments: &[&str]) -> String {
        let mut all = vec!["-n", &self.namespace.0];
        all.extend_from_slice(arguments);
        String::from_utf8_lossy(&super::output("ip", &all).stdout).into_owned()
    }

    /// What it says on its health port; `None` if nothing.
    pub fn http(&self, path: &str) -> Option<String> {
        let url = format!("http://127.0.0.1:8080/{path}");
        let output = self.namespace.command("curl").args(["-s", "-m", "2", &url]).output().unwrap();
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The value of a metric, 0 if it is not there.
    pub fn metric(&self, series: &str) -> u64 {
        let text = self.http("metrics").unwrap();
        text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok()).unwrap_or_default()
    }
}

fn spawn(namespace: &Namespace, words: &Arc<Mutex<Vec<Value>>>) -> (Process, ChildStdin) {
    let mut process = Process(
        namespace
            .command("setpriv")
            .args(AS_IN_ITS_POD)
            .arg(std::env::current_exe().unwrap())
            .args([CHILD, "--ignored", "--exact", "--nocapture"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let stdin = process.0.stdin.take().unwrap();
    let stdout = BufReader::new(process.0.stdout.take().unwrap());
    let all = Arc::clone(words);
    std::thread::spawn(move || {
        for line in stdout.lines().map_while(Result::ok) {
            if let Some(word) = line.strip_prefix(WORD) {
                all.lock().unwrap().push(serde_json::from_str(word).unwrap());
            }
        }
    });
    (process, stdin)
}

/// Whether the gateway is to have the kernel's WireGuard, which the environment says as it does to the program.
pub fn kernel() -> bool {
    std::env::var("WG_BACKEND").is_ok_and(|backend| backend == "kernel")
}

/// The public key of a private one.
pub fn public_key(private: &str) -> String {
    let secret: [u8; 32] = STANDARD.decode(private.trim()).unwrap().try_into().unwrap();
    let public = x25519_dalek::PublicKey::from(&x25519_dalek::StaticSecret::from(secret));
    STANDARD.encode(public.as_bytes())
}

fn private_keys(texts: [Option<String>; 2]) -> [Option<WireGuardPrivateKey>; 2] {
    texts.map(|text| text.map(|text| WireGuardPrivateKey(STANDARD.decode(text).unwrap().try_into().unwrap())))
}

/// Answers no request for a certificate.
pub struct Nobody;

impl Certificates for Nobody {
    fn ask<'a>(&'a self, _: &'a Asked) -> BoxFuture<'a, Result<Answer, String>> {
        Box::pin(std::future::ready(Ok(Answer::Pending)))
    }
}

/// The child: serves until its standard input ends, with the privileges that the program keeps.
pub fn child() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info,gotatun=off".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    let mut first = String::new();
    std::io::stdin().read_line(&mut first).unwrap();
    let Line::Start { arguments, infopols, server, client, keys } = serde_json::from_str(&first).unwrap() else {
        return;
    };
    let mut config = Config::parse_from(std::iter::once("liaison-gateway".to_owned()).chain(arguments));
    let opened = Opened::open(config.wg_backend, &config.tun_name, HTTPS).unwrap();
    reduce().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let (line_tx, mut lines) = mpsc::channel::<Line>(8);
        std::thread::spawn(move || {
            for line in std::io::stdin().lines() {
                let _ = line_tx.blocking_send(serde_json::from_str(&line.unwrap()).unwrap());
            }
        });
        let all = |infopols: Vec<(String, Material)>| -> Vec<(String, KeyMaterial)> {
            infopols.into_iter().map(|(name, m)| (name, m.into())).collect()
        };
        let (infopol_tx, infopol_tls) = watch::channel(infopol::tls(&all(infopols)));
        let port = infopol::start_with(0, infopol_tls).await;
        config.upstream = format!("https://127.0.0.1:{port}");
        let secrets = Secrets {
            server: Some(server.into()),
            client: Some(client.into()),
            wireguard: private_keys(keys),
            preshared: Default::default(),
        };
        let (change_tx, changes) = mpsc::channel(8);
        let (secret_tx, secrets) = watch::channel(secrets);
        let (words, mut written) = mpsc::channel::<StatusWrite>(8);
        tokio::spawn(async move {
            while let Some(StatusWrite { partner, word }) = written.recv().await {
                match word {
                    Word::Connected(condition) => eprintln!("condition {partner} {}", condition.reason),
                    Word::Revoked(word) | Word::InUse(word) => {
                        println!("{WORD}{}", json!({"partner": partner.as_str(), "word": word}));
                    }
                }
            }
        });
        let stop = CancellationToken::new();
        let serving = tokio::spawn(serve(
            config,
            Feeds {
                changes,
                secrets,
                words,
                certificates: Arc::new(Nobody),
                standing: watch::channel(Standing::Alone).1,
                serving: watch::channel(false).0,
            },
            opened,
            stop.clone(),
        ));
        while let Some(line) = lines.recv().await {
            let named = |o: Value| {
                let name = o["metadata"]["name"].as_str().unwrap().to_owned();
                (name, serde_json::from_value(o).map(Box::new).map_err(|e| e.to_string()))
            };
            let change = match line {
                Line::Start { .. } => continue,
                Line::List(objects) => Change::Listed(objects.into_iter().map(named).collect()),
                Line::Apply(object) => {
                    let (name, observed) = named(object);
                    Change::Applied(name, observed)
                }
                Line::Delete(name) => Change::Deleted(name),
                Line::Server(material) => {
                    secret_tx.send_modify(|all| all.server = Some(material.into()));
                    continue;
                }
                Line::Authority { infopols, server, client } => {
                    infopol_tx.send_replace(infopol::tls(&all(infopols)));
                    secret_tx.send_modify(|all| (all.server, all.client) = (Some(server.into()), Some(client.into())));
                    continue;
                }
                Line::Keys(keys) => {
                    secret_tx.send_modify(|all| all.wireguard = private_keys(keys));
                    continue;
                }
                Line::Preshared(entries) => {
                    let bytes = |text: &str| STANDARD.decode(text).unwrap();
                    let entry = |(public, shared): (String, String)| {
                        (preshared_entry(&bytes(&public)), PresharedKey(bytes(&shared).try_into().unwrap()))
                    };
                    // Which of the Secrets has it is the operator's business.
                    secret_tx.send_modify(|all| all.preshared[1] = entries.into_iter().map(entry).collect());
                    continue;
                }
            };
            change_tx.send(change).await.unwrap();
        }
        stop.cancel();
        serving.await.unwrap().unwrap();
    });
}
