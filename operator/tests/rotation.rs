//! Rotation of the authority's CAs against a real API server; the processes that hold certificates are played, and answer over
//! HTTP as the real ones do.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::large_futures)]

mod common;

use std::{
    collections::BTreeSet,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
};

use axum::{Json, Router, http::StatusCode, routing::get};
use common::{ENDPOINTS, Stage, connection, said};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, ServiceAccount};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use liaison_operator::{
    ca, install,
    rotate::{self, Visited},
    rotation::{Step, Tier},
};
use liaison_records::trust::{PATH, Report, Server};
use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use serde_json::{Value, json};

const DAY: i64 = 86_400;

/// A pod that says what it holds, or nothing.
struct Process {
    says: Arc<Mutex<Option<Report>>>,
    secrets: Vec<(String, String)>,
    servers: Vec<(&'static str, String)>,
}

impl Process {
    async fn start(stage: &Stage, app: &str, secrets: &[(&str, &str)], servers: &[(&'static str, &str)]) -> Self {
        let labels = json!({"app.kubernetes.io/name": app});
        Self::start_pod(stage, (app, labels), secrets, servers).await
    }

    /// A process of a shard of the gateway.
    async fn start_shard(stage: &Stage, shard: &str) -> Self {
        let ns = stage.settings.gateway_namespace.as_str();
        let labels = json!({"app.kubernetes.io/name": "gateway", (liaison_crds::gateway::LABEL): shard});
        Self::start_pod(stage, (shard, labels), &[(ns, "gateway-tls"), (ns, "gateway-client-tls")], &[]).await
    }

    async fn start_pod(
        stage: &Stage,
        (name, labels): (&str, Value),
        secrets: &[(&str, &str)],
        servers: &[(&'static str, &str)],
    ) -> Self {
        let says: Arc<Mutex<Option<Report>>> = Arc::default();
        let said = says.clone();
        let answer = move || {
            let said = said.lock().unwrap().clone();
            async move { said.map(Json).ok_or(StatusCode::SERVICE_UNAVAILABLE) }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move { axum::serve(listener, Router::new().route(PATH, get(answer))).await });
        let namespace = secrets[0].0;
        let account: ServiceAccount = serde_json::from_value(json!({"metadata": {"name": "any"}})).unwrap();
        let accounts: Api<ServiceAccount> = Api::namespaced(stage.client.clone(), namespace);
        let _ = accounts.create(&PostParams::default(), &account).await;
        let pods: Api<Pod> = Api::namespaced(stage.client.clone(), namespace);
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": format!("{name}-0"), "labels": labels},
            "spec": {"serviceAccountName": "any", "automountServiceAccountToken": false, "containers": [
                {"name": "c", "image": "x", "ports": [{"name": "health", "containerPort": port}]},
            ]},
        }))
        .unwrap();
        pods.create(&PostParams::default(), &pod).await.unwrap();
        let status = json!({"status": {"phase": "Running", "podIP": "127.0.0.1"}});
        pods.patch_status(&format!("{name}-0"), &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
        let owned = |all: &[(&str, &str)]| all.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        let servers = servers.iter().map(|(name, secret)| (*name, (*secret).to_owned())).collect();
        Self { says, secrets: owned(secrets), servers }
    }

    /// Says of a shard by each of its keys the partners whose data comes by it, and by none those who have not been heard.
    fn listen(&self, all: &[(&str, &[&str])]) {
        let set = |partners: &[&str]| partners.iter().map(|partner| (*partner).to_owned()).collect();
        let said = all.iter().map(|(key, partners)| ((*key).to_owned(), set(partners))).collect();
        self.says.lock().unwrap().as_mut().unwrap().wireguard = said;
    }

    /// Takes the Secrets as they are now; of the servers that it knows only these.
    async fn take(&self, stage: &Stage, servers: &[&str]) {
        let mut report = self.says.lock().unwrap().clone().unwrap_or_default();
        for (namespace, name) in &self.secrets {
            let secret = get_secret(stage, namespace, name).await;
            report.trusts.insert(name.clone(), ca::digests(&text(&secret, "ca.crt")).into_iter().collect());
            report.shows.insert(name.clone(), ca::digests(&text(&secret, "tls.crt")));
        }
        for (server, name) in self.servers.iter().filter(|(server, _)| servers.contains(server)) {
            let secret = get_secret(stage, &stage.settings.system_namespace, name).await;
            let bundle = text(&secret, "ca.crt");
            let roots = bundle.split_inclusive("-----END CERTIFICATE-----\n");
            let accepts = roots.map(|root| ca::subject_digest(root).unwrap()).collect();
            let met = Server::Met { shows: ca::digests(&text(&secret, "tls.crt")), accepts };
            report.servers.insert((*server).to_owned(), met);
        }
        *self.says.lock().unwrap() = Some(report);
    }
}

async fn get_secret(stage: &Stage, namespace: &str, name: &str) -> Secret {
    Api::<Secret>::namespaced(stage.client.clone(), namespace).get(name).await.unwrap()
}

fn text(secret: &Secret, key: &str) -> String {
    install::text(secret, key).unwrap()
}

/// Days that have passed for the operator.
static DAYS: AtomicI64 = AtomicI64::new(0);

fn now() -> Timestamp {
    Timestamp::from_second(Timestamp::now().as_second() + DAYS.load(Ordering::SeqCst) * DAY).unwrap()
}

async fn visit(stage: &Stage, now: Timestamp) -> Visited {
    let visit = rotate::visit(&stage.ctx.client, &stage.settings, &stage.ctx.metrics, now);
    let visited = Box::pin(visit).await.unwrap();
    let installed = Box::pin(install::ensure(&stage.client, &stage.settings, now)).await.unwrap();
    stage.ctx.take(installed);
    visited
}

async fn map(stage: &Stage) -> ConfigMap {
    stage.system::<ConfigMap>().get(rotate::NAME).await.unwrap()
}

async fn status(stage: &Stage) -> Value {
    serde_json::from_str(&map(stage).await.data.unwrap()[rotate::STATUS]).unwrap()
}

async fn laggards(stage: &Stage) -> Vec<String> {
    let status = status(stage).await;
    let waiting = status["waiting"].as_array().unwrap().iter().flat_map(|step| step["laggards"].as_array().unwrap());
    waiting.map(|laggard| laggard["who"].as_str().unwrap().to_owned()).collect()
}

async fn annotate(stage: &Stage, key: &str, value: &str) {
    let patch = json!({"metadata": {"annotations": {key: value}}});
    let maps: Api<ConfigMap> = stage.system();
    maps.patch(rotate::NAME, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
}

/// Whether a server's chain is good to somebody who holds these roots, for rustls and for OpenSSL.
fn verifies(chain: &str, roots: &str, name: &str) -> bool {
    let all: Vec<_> = CertificateDer::pem_slice_iter(chain.as_bytes()).map(Result::unwrap).collect();
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(CertificateDer::pem_slice_iter(roots.as_bytes()).map(Result::unwrap));
    let verifier = WebPkiServerVerifier::builder(Arc::new(store)).build().unwrap();
    let server = ServerName::try_from(name).unwrap();
    let rustls = verifier.verify_server_cert(&all[0], &all[1..], &server, &[], UnixTime::now()).is_ok();
    let directory =
        std::env::temp_dir().join(format!("liaison-verify-{}-{}", std::process::id(), rand::random::<u64>()));
    std::fs::create_dir(&directory).unwrap();
    let write = |file: &str, text: &str| {
        std::fs::write(directory.join(file), text).unwrap();
        directory.join(file)
    };
    let (chain, roots) = (write("chain", chain), write("roots", roots));
    let openssl = Command::new("openssl")
        .args(["verify", "-purpose", "sslserver", "-no-CApath", "-no-CAstore", "-CAfile"])
        .arg(roots)
        .arg("-untrusted")
        .arg(&chain)
        .arg(&chain)
        .output()
        .unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
    assert_eq!(rustls, openssl.status.success(), "{}", String::from_utf8_lossy(&openssl.stderr));
    rustls
}

/// A partner that is served, and everybody who holds certificates.
struct World {
    stage: Stage,
    gateway: Process,
    infopol: Process,
    sync: Process,
}

impl World {
    async fn new() -> Self {
        let mut stage = Stage::new("rotation").await;
        Arc::get_mut(&mut stage.ctx).unwrap().clock = now;
        let settings = stage.settings.clone();
        let (system, gateway_ns, partners) = (
            settings.system_namespace.as_str(),
            settings.gateway_namespace.as_str(),
            settings.partners_namespace.as_str(),
        );
        stage.agree(&["p"]).await;
        stage.apply(&connection("p")).await;
        stage.settle("p").await;
        let gateway =
            Process::start(&stage, "gateway", &[(gateway_ns, "gateway-tls"), (gateway_ns, "gateway-client-tls")], &[])
                .await;
        let infopol =
            Process::start(&stage, "infopol", &[(partners, "infopol-p-tls"), (partners, "reader-p")], &[]).await;
        let sync =
            Process::start(&stage, "sync", &[(system, "sync-tls")], &[("hub", "hub-tls"), ("store", "store-tls")])
                .await;
        for process in [&gateway, &infopol, &sync] {
            process.take(&stage, &["hub", "store"]).await;
        }
        Self { stage, gateway, infopol, sync }
    }
}

/// One takes what is published for it.
async fn follow(world: (&Stage, &Process, &Process, &Process), who: &str) {
    let (stage, gateway, infopol, sync) = world;
    match who {
        "gateway/gateway-0" => gateway.take(stage, &[]).await,
        "infopol/infopol-0" => infopol.take(stage, &[]).await,
        "sync/sync-0" => sync.take(stage, &[]).await,
        "hub/sync/sync-0" => sync.take(stage, &["hub"]).await,
        "store/sync/sync-0" => sync.take(stage, &["store"]).await,
        _ => drop(stage.settle("p").await),
    }
}

#[tokio::test]
async fn a_root_is_replaced_step_by_step_as_it_is_seen_to_be_in_use() {
    let World { stage, gateway, infopol, sync } = World::new().await;
    let gateway_ns = stage.settings.gateway_namespace.as_str();
    assert!(visit(&stage, now()).await.taken.is_empty());
    let settled = status(&stage).await;
    assert_eq!(settled["conditions"][0]["status"], "True", "{settled}");
    let writes = stage.writes.count.load(Ordering::SeqCst);
    visit(&stage, now()).await;
    assert_eq!(stage.writes.count.load(Ordering::SeqCst), writes, "nothing to do, nothing written");

    let old_root = map(&stage).await.data.unwrap()[rotate::BUNDLE].clone();
    let old_chain = text(&get_secret(&stage, gateway_ns, "gateway-tls").await, "tls.crt");
    annotate(&stage, rotate::ROTATE_ROOT, "a reason").await;
    let visited = visit(&stage, now()).await;
    assert_eq!(visited.taken, [Step::Make(Tier::Root)]);
    let everybody =
        ["gateway/gateway-0", "hub/sync/sync-0", "infopol/infopol-0", "status/p", "store/sync/sync-0", "sync/sync-0"];
    assert_eq!(laggards(&stage).await, everybody);
    let shown = status(&stage).await;
    assert_eq!(
        (&shown["conditions"][0]["reason"], &shown["roots"][1]["phase"]),
        (&json!("WaitingForHolders"), &json!("Prepared")),
        "{shown}"
    );
    assert!(stage.ctx.metrics.encode().contains("liaison_operator_authority_laggards{tier=\"root\"} 6"));
    let secret = get_secret(&stage, gateway_ns, "gateway-tls").await;
    assert_eq!(text(&secret, "tls.crt"), old_chain, "distributed, and nothing issued");
    assert_eq!(ca::digests(&text(&secret, "ca.crt")).len(), 2);

    // One after the other holds it; nothing is signed before the last does.
    let mut left: BTreeSet<&str> = everybody.into();
    for who in
        ["gateway/gateway-0", "status/p", "sync/sync-0", "infopol/infopol-0", "hub/sync/sync-0", "store/sync/sync-0"]
    {
        follow((&stage, &gateway, &infopol, &sync), who).await;
        left.remove(who);
        let visited = visit(&stage, now()).await;
        assert_eq!(visited.taken.is_empty(), !left.is_empty(), "{who}: {visited:?}");
        if !left.is_empty() {
            assert_eq!(laggards(&stage).await, left.iter().copied().collect::<Vec<_>>());
        }
    }
    let bundle = map(&stage).await.data.unwrap()[rotate::BUNDLE].clone();
    let new_root = bundle.split_inclusive("-----END CERTIFICATE-----\n").next().unwrap();
    assert!(!old_root.contains(new_root) && bundle.contains(&old_root), "the active one first");
    let chain = text(&get_secret(&stage, gateway_ns, "gateway-tls").await, "tls.crt");
    assert_eq!(ca::digests(&chain).len(), 3, "leaf, issuing CA, the new root as the old one certifies it");
    for roots in [old_root.as_str(), new_root, &bundle] {
        assert!(verifies(&chain, roots, "p.liaison.example.ca"));
    }
    assert!(
        verifies(&old_chain, &bundle, "p.liaison.example.ca")
            && !verifies(&old_chain, new_root, "p.liaison.example.ca")
    );

    // The partner has its new certificate beside the old one, which holds the old CA until it ends.
    stage.settle("p").await;
    let held = stage.get("p").await.unwrap().status.unwrap();
    assert_eq!(held.certificates.len(), 2);
    assert_eq!(ca::digests(&held.certificates[0].chain).len(), 3);
    assert_eq!(held.connection.unwrap().ca_bundle, bundle);
    assert!(visit(&stage, now()).await.waiting);
    assert!(laggards(&stage).await.contains(&"gateway/gateway-0".to_owned()), "it shows the old certificate");
    for process in [&gateway, &infopol, &sync] {
        process.take(&stage, &["hub", "store"]).await;
    }
    let visited = visit(&stage, now()).await;
    assert!(visited.taken.is_empty() && visited.waiting);
    assert_eq!(laggards(&stage).await, ["partner/p"]);
    let waits = status(&stage).await;
    assert_eq!(waits["conditions"][0]["reason"], "WaitingForCertificatesToEnd", "{waits}");
    assert!(stage.ctx.metrics.encode().contains("liaison_operator_authority_laggards{tier=\"issuing\"} 0"));

    DAYS.store(21, Ordering::SeqCst);
    stage.settle("p").await;
    assert_eq!(
        stage.get("p").await.unwrap().status.unwrap().certificates.len(),
        3,
        "renewed, and the first still lives"
    );
    assert!(visit(&stage, now()).await.taken.is_empty());
    *gateway.says.lock().unwrap() = None;
    DAYS.store(31, Ordering::SeqCst);
    assert!(visit(&stage, now()).await.taken.is_empty(), "one that does not answer may still need it");
    assert_eq!(laggards(&stage).await, ["gateway/gateway-0"]);
    gateway.take(&stage, &[]).await;
    infopol.take(&stage, &[]).await;
    let visited = visit(&stage, now()).await;
    assert_eq!(visited.taken, [Step::Remove(Tier::Issuing, 1), Step::Remove(Tier::Root, 1)]);
    let data = map(&stage).await.data.unwrap();
    assert_eq!((data[rotate::BUNDLE].as_str(), &data[rotate::FORMER]), (new_root, &old_root));
    let secret = get_secret(&stage, gateway_ns, "gateway-tls").await;
    assert_eq!(text(&secret, "ca.crt"), new_root);
    let digests = |chain: &str| ca::digests(chain);
    assert_eq!(digests(&text(&secret, "tls.crt")), digests(&chain)[..2], "the same leaf, and no way to the old root");
    stage.settle("p").await;
    let held = stage.get("p").await.unwrap();
    assert_eq!(said(&held, "Ready").0, "True");
    assert_eq!(held.status.unwrap().connection.unwrap().ca_bundle, new_root);
    assert!(visit(&stage, now()).await.taken.is_empty());
    assert_eq!(status(&stage).await["conditions"][0]["status"], "True");
}

#[tokio::test]
async fn killed_after_any_write_a_rotation_goes_on_and_is_done_once() {
    let stage = Stage::new("rotation-killed").await;
    visit(&stage, Timestamp::now()).await;
    // Nobody runs: the databases, which somebody would have to tell of, are left out.
    annotate(&stage, rotate::WITHOUT, "hub, store").await;
    let numbers = async || {
        let secrets: Api<Secret> = stage.system();
        let all = secrets.list(&kube::api::ListParams::default()).await.unwrap();
        let names = all.iter().map(ResourceExt::name_any).filter(|name| name.starts_with("liaison-ca-"));
        names.collect::<Vec<_>>()
    };
    assert_eq!(numbers().await, ["liaison-ca-issuing", "liaison-ca-root"]);
    let mut kills = 0;
    for round in 0..12_u32 {
        annotate(&stage, rotate::ROTATE_ROOT, &round.to_string()).await;
        stage.writes.left.store(i64::from(round), Ordering::SeqCst);
        let mut tries = 0;
        while let Err(error) =
            Box::pin(rotate::visit(&stage.ctx.client, &stage.settings, &stage.ctx.metrics, Timestamp::now())).await
        {
            assert!(error.to_string().contains("killed") || format!("{error:?}").contains("killed"), "{error:?}");
            kills += 1;
            tries += 1;
            assert!(tries < 3);
        }
        stage.writes.left.store(-1, Ordering::SeqCst);
        visit(&stage, Timestamp::now()).await;
        let next = round + 2;
        assert_eq!(numbers().await, [format!("liaison-ca-issuing-{next}"), format!("liaison-ca-root-{next}")]);
        let former = ca::digests(&map(&stage).await.data.unwrap()[rotate::FORMER]).len();
        assert_eq!(former, usize::try_from(round + 1).unwrap());
    }
    assert!(kills >= 7, "{kills} of the rotation's own writes");
}

#[tokio::test]
async fn an_installation_of_before_is_taken_over_as_it_is() {
    let stage = Stage::new("rotation-before").await;
    let secrets: Api<Secret> = stage.system();
    let strip = json!({"metadata": {"labels": null, "annotations": null}});
    for name in ["liaison-ca-root", "liaison-ca-issuing"] {
        secrets.patch(name, &PatchParams::default(), &Patch::Merge(&strip)).await.unwrap();
    }
    let issued = secrets.get("hub-tls").await.unwrap();
    assert!(visit(&stage, Timestamp::now()).await.taken.is_empty());
    assert_eq!(secrets.get("hub-tls").await.unwrap().metadata.resource_version, issued.metadata.resource_version);
    let shown = status(&stage).await;
    assert_eq!((&shown["roots"][0]["phase"], &shown["issuing"][0]["phase"]), (&json!("Active"), &json!("Active")));
    // And rotates by its age.
    let later = Timestamp::from_second(Timestamp::now().as_second() + 1300 * DAY).unwrap();
    let visited = Box::pin(rotate::visit(&stage.client, &stage.settings, &stage.ctx.metrics, later)).await.unwrap();
    assert_eq!((visited.taken.as_slice(), visited.waiting), (&[Step::Make(Tier::Issuing)][..], true));
    assert_eq!(laggards(&stage).await, ["hub", "store"]);
}

#[tokio::test]
async fn the_gateways_own_key_changes_as_partners_come_over_to_the_new_one() {
    let stage = Stage::new("gateway-key").await;
    stage.agree(&["p"]).await;
    stage.apply(&connection("p")).await;
    stage.settle("p").await;
    let ns = stage.settings.gateway_namespace.as_str();
    let gateway = Process::start(&stage, "gateway", &[(ns, "gateway-tls"), (ns, "gateway-client-tls")], &[]).await;
    gateway.take(&stage, &[]).await;
    let say = |all: &[(&str, &[&str])]| gateway.listen(all);
    let told = async || {
        stage.settle("p").await;
        let live = stage.get("p").await.unwrap();
        assert_eq!(said(&live, "Ready").0, "True");
        live.status.unwrap().connection.unwrap()
    };
    let visited = async || {
        let waiting = visit(&stage, Timestamp::now()).await.waiting;
        let status: Value = serde_json::from_str(&map(&stage).await.data.unwrap()[rotate::GATEWAY]).unwrap();
        let who = status["gateway"]["laggards"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|one| one["who"].as_str().unwrap().to_owned());
        let who: Vec<String> = who.collect();
        assert_eq!(waiting, !who.is_empty());
        who
    };
    let entry = async |name: &str| install::text(&get_secret(&stage, ns, "gateway-wireguard").await, name);

    let first = entry("publicKey").await.unwrap();
    say(&[(&first, &["p"]), ("", &[])]);
    assert!(visited().await.is_empty());
    let rest = told().await;
    assert_eq!((rest.gateway_public_keys, rest.retiring_endpoint), (vec![first.clone()], None));

    // It is made, and told to nobody before the gateway listens with it.
    annotate(&stage, rotate::ROTATE_GATEWAY, "its node was stolen").await;
    assert_eq!(visited().await, ["gateway/gateway-0"]);
    let second = entry("secondPublicKey").await.unwrap();
    assert_eq!(told().await.gateway_public_keys, std::slice::from_ref(&first));
    say(&[(&first, &[]), (&second, &[]), ("", &["p"])]);
    assert_eq!(visited().await, ["partner/p"]);
    let both = told().await;
    assert_eq!(both.gateway_public_keys, [second.clone(), first.clone()]);
    assert_eq!(both.endpoint, ENDPOINTS[1]);
    assert_eq!(both.retiring_endpoint.as_deref(), Some(ENDPOINTS[0]));
    let metric = "liaison_operator_authority_laggards{tier=\"gateway\"}";
    assert!(stage.ctx.metrics.encode().contains(&format!("{metric} 1")));

    // The key before serves as long as somebody uses it, and as long as nobody can say.
    say(&[(&first, &["p"]), (&second, &[]), ("", &[])]);
    assert_eq!(visited().await, ["partner/p"]);
    say(&[(&first, &[]), (&second, &[])]);
    assert_eq!(visited().await, ["gateway"]);
    assert!(entry("privateKey").await.is_some());
    say(&[(&first, &[]), (&second, &["p"]), ("", &[])]);
    assert!(visited().await.is_empty());
    assert!(entry("privateKey").await.is_none() && entry("publicKey").await.is_none());
    let done = told().await;
    assert_eq!((done.gateway_public_keys, done.retiring_endpoint), (vec![second.clone()], None));
    assert!(stage.ctx.metrics.encode().contains(&format!("{metric} 0")));
    let writes = stage.writes.count.load(Ordering::SeqCst);
    assert!(visited().await.is_empty());
    assert_eq!(stage.writes.count.load(Ordering::SeqCst), writes, "nothing to do, nothing written");

    // The next one is the first listener's again; who will not come is named, and not waited for.
    annotate(&stage, rotate::ROTATE_GATEWAY, "a year has passed").await;
    assert_eq!(visited().await, ["gateway/gateway-0"]);
    let third = entry("publicKey").await.unwrap();
    say(&[(&third, &[]), (&second, &["p"]), ("", &[])]);
    assert_eq!(visited().await, ["partner/p"]);
    annotate(&stage, rotate::WITHOUT, "partner/p").await;
    assert!(visited().await.is_empty());
    let last = told().await;
    assert_eq!((last.gateway_public_keys, last.endpoint), (vec![third], ENDPOINTS[0].to_owned()));
}

#[tokio::test]
async fn each_shard_changes_its_own_key_and_waits_for_its_own_processes_and_partners() {
    let mut stage = Stage::with_gateways("shard-keys", "gateway=g:1,g:2 gateway-a=a:1,a:2 gateway-b=b:1").await;
    stage.agree(&["p", "q"]).await;
    for (name, shard) in [("p", "gateway"), ("q", "gateway-a")] {
        let mut object = connection(name);
        object["spec"]["gateway"] = json!(shard);
        stage.apply(&object).await;
        stage.settle(name).await;
    }
    let ns = stage.settings.gateway_namespace.clone();
    // One is of the version before, and does not say which shard it is of.
    let gateway =
        Process::start(&stage, "gateway", &[(ns.as_str(), "gateway-tls"), (ns.as_str(), "gateway-client-tls")], &[])
            .await;
    let other = Process::start_shard(&stage, "gateway-a").await;
    gateway.take(&stage, &[]).await;
    other.take(&stage, &[]).await;
    let entry = async |shard: &str, name: &str| {
        let secrets: Api<Secret> = Api::namespaced(stage.client.clone(), &ns);
        install::text(&secrets.get(&format!("{shard}-wireguard")).await.unwrap(), name)
    };
    let said = async |shard: &str| {
        let status: Value = serde_json::from_str(&map(&stage).await.data.unwrap()[rotate::GATEWAY]).unwrap();
        let laggards = status[shard]["laggards"].as_array().cloned().unwrap_or_default();
        let who = laggards.iter().map(|one| one["who"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
        (status[shard]["key"].as_str().unwrap().to_owned(), who.join(" "))
    };
    let told = async |name: &str| {
        stage.settle(name).await;
        stage.get(name).await.unwrap().status.unwrap().connection.unwrap()
    };
    let first = [entry("gateway", "publicKey").await.unwrap(), entry("gateway-a", "publicKey").await.unwrap()];
    gateway.listen(&[(&first[0], &["p"]), ("", &[])]);
    other.listen(&[(&first[1], &["q"]), ("", &[])]);
    visit(&stage, Timestamp::now()).await;
    annotate(&stage, rotate::ROTATE_GATEWAY, "both").await;
    assert!(visit(&stage, Timestamp::now()).await.waiting);
    assert_eq!(said("gateway").await, (first[0].clone(), "gateway/gateway-0".to_owned()));
    assert_eq!(said("gateway-a").await, (first[1].clone(), "gateway/gateway-a-0".to_owned()));
    let metric = "liaison_operator_authority_laggards{tier=\"gateway\"}";
    assert!(stage.ctx.metrics.encode().contains(&format!("{metric} 2")));

    // One goes on, whatever the other waits for.
    let second = entry("gateway-a", "secondPublicKey").await.unwrap();
    other.listen(&[(&first[1], &[]), (&second, &[]), ("", &["q"])]);
    visit(&stage, Timestamp::now()).await;
    assert_eq!(said("gateway").await, (first[0].clone(), "gateway/gateway-0".to_owned()));
    assert_eq!(said("gateway-a").await, (second.clone(), "partner/q".to_owned()));
    let both = told("q").await;
    assert_eq!((both.endpoint.as_str(), both.retiring_endpoint.as_deref()), ("a:2", Some("a:1")));
    assert_eq!(both.gateway_public_keys, [second.clone(), first[1].clone()]);
    other.listen(&[(&first[1], &[]), (&second, &["q"]), ("", &[])]);
    visit(&stage, Timestamp::now()).await;
    assert_eq!(said("gateway-a").await, (second.clone(), String::new()));
    assert!(entry("gateway-a", "privateKey").await.is_none() && entry("gateway", "secondPrivateKey").await.is_some());
    let rest = told("p").await;
    assert_eq!((rest.endpoint.as_str(), rest.gateway_public_keys), ("g:1", vec![first[0].clone()]));

    // That there is no second endpoint is said of the shard that has none, and holds no other up.
    let status: Value = serde_json::from_str(&map(&stage).await.data.unwrap()[rotate::GATEWAY]).unwrap();
    assert!(status["gateway-b"]["waits"].as_str().unwrap().contains("gateway.shards.gateway-b.secondEndpoint"));
    // A shard that comes later has a new key, and is asked for no other.
    let more = "gateway=g:1,g:2 gateway-a=a:1,a:2 gateway-c=c:1,c:2";
    stage.settings.gateways = more.parse().unwrap();
    visit(&stage, Timestamp::now()).await;
    let status: Value = serde_json::from_str(&map(&stage).await.data.unwrap()[rotate::GATEWAY]).unwrap();
    assert!(status["gateway-b"].is_null() && status["gateway-c"]["key"].is_string());
    assert!(status["gateway-c"]["waits"].is_null() && status["gateway-c"]["other"].is_null(), "{status}");
}
