//! An API server that is away for a while: what lies between it and a gateway refuses, or says nothing any more. A partner is revoked
//! meanwhile.

use std::{
    net::{SocketAddr, TcpListener},
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Namespace as KubeNamespace;
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use liaison_crds::PartnerConnection;
use liaison_gateway::{kubernetes, privileges::Opened, run_with, tunnel::filter::HTTPS};
use serde_json::json;
use tokio::{runtime::Runtime, task::JoinHandle, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    DOMAIN, Namespace, Process,
    ca::Ca,
    cluster::{client, config, gateway, make_namespace, own_secrets},
    eventually,
    gateway::public_key,
    infopol,
    partner::{Partner, size},
    run, unique,
};

/// How the API server is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Away {
    /// Its machine is there: connections end, and new ones are refused.
    Refusing,
    /// Its machine is not: packets get no answer.
    Silent,
}

/// What a gateway reaches the API server by.
pub struct Line {
    namespace: Namespace,
    address: SocketAddr,
    server: SocketAddr,
    runtime: Runtime,
    open: Option<JoinHandle<()>>,
}

impl Line {
    /// To the API server of `config`, which leads by it from then on. `slot` says which /30 of 192.0.2.0/24 is between this process and
    /// the line's other end.
    pub fn new(slot: u8, config: &mut kube::Config) -> Self {
        let server = config.cluster_url.authority().unwrap().as_str().parse().unwrap();
        let (namespace, here) = (Namespace::new("l"), format!("lgl{}", unique()));
        let (near, far) = (format!("192.0.2.{}/30", slot * 4 + 1), format!("192.0.2.{}", slot * 4 + 2));
        run("ip", &["link", "add", &here, "type", "veth", "peer", "name", "line0", "netns", &namespace.0]);
        run("ip", &["addr", "add", &near, "dev", &here]);
        run("ip", &["link", "set", &here, "up"]);
        run("ip", &["-n", &namespace.0, "addr", "add", &format!("{far}/30"), "dev", "line0"]);
        run("ip", &["-n", &namespace.0, "link", "set", "line0", "up"]);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let address = SocketAddr::new(far.parse().unwrap(), 6443);
        let mut line = Self { namespace, address, server, runtime, open: None };
        line.listen();
        config.cluster_url = format!("https://{}", line.address).parse().unwrap();
        config.tls_server_name = Some("localhost".to_owned());
        line
    }

    fn listen(&mut self) {
        let listener = self.namespace.within(|| TcpListener::bind(self.address).unwrap());
        listener.set_nonblocking(true).unwrap();
        let server = self.server;
        self.open = Some(self.runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let mut connections = JoinSet::new();
            while let Ok((mut one, _)) = listener.accept().await {
                connections.spawn(async move {
                    if let Ok(mut other) = tokio::net::TcpStream::connect(server).await {
                        let _ = tokio::io::copy_bidirectional(&mut one, &mut other).await;
                    }
                });
            }
        }));
    }

    fn link(&self, state: &str) {
        run("ip", &["-n", &self.namespace.0, "link", "set", "line0", state]);
    }

    /// Has it away.
    pub fn cut(&mut self, away: Away) {
        match away {
            Away::Refusing => {
                let open = self.open.take().unwrap();
                open.abort();
                let _ = self.runtime.block_on(open);
            }
            Away::Silent => self.link("down"),
        }
    }

    /// Has it back.
    pub fn mend(&mut self) {
        if self.open.is_none() { self.listen() } else { self.link("up") }
    }
}

/// A gateway that reaches the API server by a line, and partners.
pub struct Stage {
    runtime: Runtime,
    client: Client,
    namespace: String,
    ca: Ca,
    key: String,
    wg_port: u16,
    line: Line,
    stop: CancellationToken,
    gateway: Option<tokio::task::JoinHandle<Result<(), liaison_gateway::Error>>>,
    slot: u8,
}

impl Stage {
    /// For as many outages. It takes a slot of 192.0.2.0/24 for each and one more, from `slot` on.
    pub fn new(slot: u8, outages: u8) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (client, mut config) = (runtime.block_on(client()), runtime.block_on(config()));
        let line = Line::new(slot, &mut config);
        let (namespace, ca, private) = (format!("gateway-test-{}", unique()), Ca::new(), run("wg", &["genkey"]));
        runtime.block_on(async {
            make_namespace(&client, &namespace).await;
            own_secrets(&client, &namespace, &ca, &private).await;
        });
        let infopols = (slot + 1..=slot + outages).map(|slot| {
            let host = format!("infopol-p{slot}.{namespace}.svc");
            let leaf = ca.server(&[&host], &format!("spiffe://{DOMAIN}/infopol/p{slot}"));
            (host, ca.material(&leaf))
        });
        let infopol = runtime.block_on(infopol::start(0, infopols.collect()));
        let arguments = gateway(&namespace, infopol, &[]);
        let wg_port = arguments.wg_port;
        let opened = Opened::open(arguments.wg_backend, &arguments.tun_name, HTTPS).unwrap();
        let stop = CancellationToken::new();
        let running = stop.clone();
        // A client belongs to the runtime that it was made in.
        let gateway = runtime.spawn(async { run_with(arguments, kubernetes::client(config)?, opened, running).await });
        let (key, gateway) = (public_key(&private), Some(gateway));
        Self { runtime, client, namespace, ca, key, wg_port, line, stop, gateway, slot }
    }

    fn objects(&self) -> Api<PartnerConnection> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Another partner, with a download that goes on for as long as `length` and more.
    fn partner(&mut self, length: Duration) -> (Partner, Process, std::path::PathBuf) {
        self.slot += 1;
        let name = format!("p{}", self.slot);
        let mut partner = Partner::new(&self.ca, &name, self.slot, None::<&Namespace>);
        let objects = self.objects();
        self.runtime.block_on(async {
            let object = serde_json::from_value(partner.object(&self.namespace)).unwrap();
            objects.create(&PostParams::default(), &object).await.unwrap();
            let status = json!({"status": partner.status(&self.key)});
            objects.patch_status(&name, &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
        });
        partner.connect(&self.key, self.wg_port);
        let served = || partner.curl("/echo", &["-m", "2"]).status.success();
        eventually("the partner is served", Duration::from_secs(30), served);
        let seconds = (length.as_secs() + 120).to_string();
        let (download, file) = partner.download(&["--http2", "-m", &seconds]);
        (partner, download, file)
    }

    /// The API server is away for so long; in the middle of it a partner is revoked that downloads all the time. For how long from the
    /// API server's return on bytes still come.
    pub fn outage(&mut self, away: Away, length: Duration) -> Duration {
        let (partner, _download, file) = self.partner(length);
        let flows = |when: &str| {
            let before = size(&file);
            eventually(when, Duration::from_secs(5), || size(&file) > before);
        };
        flows("the download runs");
        self.line.cut(away);
        std::thread::sleep(length / 2);
        flows("it goes on without the API server");
        let objects = self.objects();
        self.runtime.block_on(async {
            let revoke = Patch::Merge(json!({"spec": {"revocation": {"revoked": true}}}));
            objects.patch(&partner.name, &PatchParams::default(), &revoke).await.unwrap();
        });
        std::thread::sleep(length / 2);
        flows("and nobody could know of the revocation");
        let back = Instant::now();
        self.line.mend();
        let mut last = (size(&file), Instant::now());
        while last.1.elapsed() < Duration::from_millis(1500) {
            assert!(back.elapsed() < Duration::from_secs(120), "the revocation does not apply");
            std::thread::sleep(Duration::from_millis(5));
            if size(&file) != last.0 {
                last = (size(&file), Instant::now());
            }
        }
        assert!(!partner.curl("/echo", &["-m", "1"]).status.success());
        eventually("it is acknowledged", Duration::from_secs(30), || {
            let object = self.runtime.block_on(objects.get(&partner.name)).unwrap();
            object.status.is_some_and(|status| status.gateways.iter().any(|word| word.revoked_at.is_some()))
        });
        last.1.saturating_duration_since(back)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(gateway) = self.gateway.take() {
            let _ = self.runtime.block_on(gateway);
        }
        let namespaces: Api<KubeNamespace> = Api::all(self.client.clone());
        let _ = self.runtime.block_on(namespaces.delete(&self.namespace, &DeleteParams::default()));
    }
}
