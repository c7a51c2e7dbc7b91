//! The gateway against a real API server: what is granted in status is served, what spec takes away is cut; and of two processes
//! one serves, and the other as soon as that one does not. While it is away, what was granted is served.
//! Needs TEST_KUBECONFIG (`tests/cluster/services up`), root and /dev/net/tun.

// Clippy takes only functions marked #[test] for tests.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{path::Path, time::Duration};

use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{Namespace as KubeNamespace, Pod, ServiceAccount},
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use liaison_crds::{ACTIVE_LABEL, PartnerConnection, gateway::LABEL};
use liaison_gateway::{
    kubernetes,
    lead::{self, PACE, Standing},
    privileges::Opened,
    run_with,
    tunnel::filter::HTTPS,
};
use serde_json::json;
use support::{
    DOMAIN, Namespace,
    ca::Ca,
    cluster::{client, config, gateway, make_namespace, own_secrets},
    eventually,
    gateway::public_key,
    infopol,
    outage::{Away, Line, Stage},
    partner::{Partner, size},
    run, unique,
};
use tokio::{runtime::Runtime, sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

fn connected(object: &PartnerConnection) -> Option<(String, String)> {
    let conditions = &object.status.as_ref()?.conditions;
    conditions.iter().find(|c| c.type_ == "Connected").map(|c| (c.status.clone(), c.reason.clone()))
}

#[test]
fn status_opens_and_spec_cuts() {
    // The gateway runs in this process and network namespace, where the API server is; the partner in one of its own.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let client = runtime.block_on(client());
    let namespace = format!("gateway-test-{}", unique());
    let namespaces: Api<KubeNamespace> = Api::all(client.clone());
    let objects: Api<PartnerConnection> = Api::namespaced(client.clone(), &namespace);
    let ca = Ca::new();
    let mut partner = Partner::new(&ca, "a", 40, None::<&Namespace>);
    let private = run("wg", &["genkey"]);
    let key = public_key(&private);

    runtime.block_on(make_namespace(&client, &namespace));
    let infopol_host = format!("infopol-a.{namespace}.svc");
    let infopol = ca.server(&[&infopol_host], &format!("spiffe://{DOMAIN}/infopol/a"));
    let port = runtime.block_on(infopol::start(0, vec![(infopol_host, ca.material(&infopol))]));
    let stop = CancellationToken::new();
    let config = gateway(&namespace, port, &[]);
    let (tun, wg_port) = (config.tun_name.clone(), config.wg_port);
    let opened = Opened::open(config.wg_backend, &config.tun_name, HTTPS).unwrap();
    // It starts before its Secrets are there, and waits.
    let running = runtime.spawn(run_with(config, client.clone(), opened, stop.clone()));
    runtime.block_on(async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        own_secrets(&client, &namespace, &ca, &private).await;
        let object = serde_json::from_value(partner.object(&namespace)).unwrap();
        objects.create(&PostParams::default(), &object).await.unwrap();
    });
    let link = || String::from_utf8_lossy(&support::output("ip", &["addr", "show", "dev", &tun]).stdout).into_owned();
    eventually("the device is up", Duration::from_secs(15), || link().contains("UP"));
    assert!(!link().contains(&partner.addresses().0), "nothing is granted yet");
    partner.connect(&key, wg_port);

    let status = json!({"status": partner.status(&key)});
    runtime.block_on(objects.patch_status("a", &PatchParams::default(), &Patch::Merge(&status))).unwrap();
    eventually("it is served", Duration::from_secs(15), || partner.curl("/echo", &["-m", "2"]).status.success());
    let written = || connected(&runtime.block_on(objects.get("a")).unwrap());
    eventually("Connected is written", Duration::from_secs(10), || {
        written() == Some(("True".to_owned(), "HandshakeRecent".to_owned()))
    });
    let version = |o: PartnerConnection| o.metadata.resource_version;
    let before = version(runtime.block_on(objects.get("a")).unwrap());

    let (_download, file) = partner.download(&["--http2"]);
    eventually("the download runs", Duration::from_secs(10), || size(&file) > 20_000);
    assert_eq!(version(runtime.block_on(objects.get("a")).unwrap()), before, "nothing changed: no write");
    let revoke = json!({"spec": {"revocation": {"revoked": true}}});
    runtime.block_on(objects.patch("a", &PatchParams::default(), &Patch::Merge(&revoke))).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let stopped = size(&file);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(size(&file), stopped, "bytes after the revocation");
    assert!(!partner.curl("/echo", &["-m", "1"]).status.success());
    assert!(!link().contains(&partner.addresses().0));
    let word = || runtime.block_on(objects.get("a")).unwrap().status.unwrap().gateways.into_iter().next();
    eventually("it is acknowledged", Duration::from_secs(10), || word().is_some_and(|word| word.revoked_at.is_some()));
    let (first, object) = (word().unwrap(), runtime.block_on(objects.get("a")).unwrap());
    assert_eq!((first.name.as_str(), first.generation), ("gateway", object.metadata.generation));
    assert_eq!(connected(&object), Some(("True".to_owned(), "HandshakeRecent".to_owned())), "the other word stays");
    // Taken back: the status of this test still grants the keys, and they stay revoked.
    let back = json!({"spec": {"revocation": {"revoked": false}}});
    runtime.block_on(objects.patch("a", &PatchParams::default(), &Patch::Merge(&back))).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    assert!(!link().contains(&partner.addresses().0));
    assert_eq!(word(), Some(first), "said once");

    stop.cancel();
    runtime.block_on(running).unwrap().unwrap();
    eventually("the device goes with the gateway", Duration::from_secs(10), || link().is_empty());
    runtime.block_on(async {
        let _ = objects.delete("a", &DeleteParams::default()).await;
        let _ = namespaces.delete(&namespace, &DeleteParams::default()).await;
    });
}

/// One of a shard's two processes, here a runtime of its own that can be killed.
struct Side {
    runtime: tokio::runtime::Runtime,
    stop: CancellationToken,
    pod: String,
    tun: String,
    port: u16,
}

impl Side {
    fn start(namespace: &str, pod: &str, infopol: u16, state: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (pod_name, state) = (format!("--pod-name={pod}"), format!("--state-dir={}", state.display()));
        let config = gateway(namespace, infopol, &[&pod_name, &state, "--lease=gateway"]);
        let (tun, port) = (config.tun_name.clone(), config.wg_port);
        let opened = Opened::open(config.wg_backend, &config.tun_name, HTTPS).unwrap();
        let stop = CancellationToken::new();
        let running = stop.clone();
        // A client belongs to the runtime that it was made in.
        runtime.spawn(async move { run_with(config, client().await, opened, running).await });
        Self { runtime, stop, pod: pod.to_owned(), tun, port }
    }

    /// Whether it has the gateway's address for a partner.
    fn serves(&self, partner: &Partner) -> bool {
        let link = support::output("ip", &["addr", "show", "dev", &self.tun]);
        String::from_utf8_lossy(&link.stdout).contains(&format!(" {}/", partner.addresses().0))
    }

    /// Ends it without a word, as by `kill -9`.
    fn kill(self) {
        self.runtime.shutdown_timeout(Duration::from_millis(100));
    }
}

/// The shard's two pods, `one` and `two`.
async fn make_pods(client: &Client, namespace: &str) {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let account = serde_json::from_value(json!({"metadata": {"name": "default"}})).unwrap();
    accounts.create(&PostParams::default(), &account).await.unwrap();
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    for name in ["one", "two"] {
        let pod = json!({
            "metadata": {"name": name, "labels": {LABEL: "gateway"}},
            "spec": {"containers": [{"name": "c", "image": "none"}]},
        });
        pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    }
}

/// Names of the pods that say that they serve.
async fn labelled(pods: &Api<Pod>) -> String {
    let label = ListParams::default().labels(&format!("{ACTIVE_LABEL}=true"));
    let active = pods.list(&label).await.unwrap().items;
    active.into_iter().filter_map(|pod| pod.metadata.name).collect::<Vec<_>>().join(" ")
}

#[test]
fn of_two_processes_one_serves_and_the_other_takes_over_from_where_it_was() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let client = runtime.block_on(client());
    let namespace = format!("gateway-test-{}", unique());
    let objects: Api<PartnerConnection> = Api::namespaced(client.clone(), &namespace);
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let ca = Ca::new();
    let mut partner = Partner::new(&ca, "a", 41, None::<&Namespace>);
    let private = run("wg", &["genkey"]);
    let key = public_key(&private);
    runtime.block_on(async {
        make_namespace(&client, &namespace).await;
        own_secrets(&client, &namespace, &ca, &private).await;
        make_pods(&client, &namespace).await;
        let object = serde_json::from_value(partner.object(&namespace)).unwrap();
        objects.create(&PostParams::default(), &object).await.unwrap();
        let status = json!({"status": partner.status(&key)});
        objects.patch_status("a", &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
    });
    let infopol_host = format!("infopol-a.{namespace}.svc");
    let infopol = ca.server(&[&infopol_host], &format!("spiffe://{DOMAIN}/infopol/a"));
    let infopol = runtime.block_on(infopol::start(0, vec![(infopol_host, ca.material(&infopol))]));
    let active = || runtime.block_on(labelled(&pods));
    let state = tempfile::TempDir::new().unwrap();
    let start = |pod: &str| Side::start(&namespace, pod, infopol, state.path());

    let one = start("one");
    eventually("the first serves", Duration::from_secs(20), || one.serves(&partner));
    partner.connect(&key, one.port);
    eventually("the partner is in", Duration::from_secs(15), || partner.curl("/echo", &["-m", "2"]).status.success());
    let two = start("two");
    std::thread::sleep(2 * PACE.duration);
    assert!(one.serves(&partner) && !two.serves(&partner) && active() == one.pod, "{}", active());
    let kept = state.path().join("endpoints.json");
    eventually("it is kept where the partner is", Duration::from_secs(10), || {
        std::fs::read_to_string(&kept).is_ok_and(|text| text.contains(&public_key(partner.private_key())))
    });

    // The first dies. The partner does nothing about it: the second finds it where it was.
    one.kill();
    eventually("the second serves", Duration::from_secs(20), || two.serves(&partner));
    eventually("and is found", Duration::from_secs(10), || partner.curl("/echo", &["-m", "1"]).status.success());
    eventually("its pod is what packets go to", Duration::from_secs(5), || active().contains(&two.pod));

    // What was killed comes back, and waits; what ends in order gives the Lease back at once.
    let one = start("one");
    eventually("one pod is left with the label", Duration::from_secs(10), || active() == two.pod);
    assert!(!one.serves(&partner));
    two.stop.cancel();
    eventually("the first serves again", Duration::from_secs(20), || {
        one.serves(&partner) && active().contains(&one.pod)
    });
    eventually("and is found", Duration::from_secs(10), || partner.curl("/echo", &["-m", "1"]).status.success());
    two.kill();
    one.kill();
    let _ = runtime.block_on(Api::<KubeNamespace>::all(client).delete(&namespace, &DeleteParams::default()));
}

/// One of two that contend for the Lease; the test plays its data plane.
struct Contending {
    standing: watch::Receiver<Standing>,
    serving: watch::Sender<bool>,
    leave: CancellationToken,
    ended: JoinHandle<()>,
}

impl Contending {
    fn start(runtime: &Runtime, kube: kube::Config, namespace: &str, pod: &str, limit: u64) -> Self {
        let (pod, limit) = (format!("--pod-name={pod}"), format!("--staleness-limit={limit}"));
        let config = gateway(namespace, 1, &[&pod, &limit]);
        let (standing_tx, standing) = watch::channel(Standing::Aside);
        let (serving, served) = watch::channel(false);
        let leave = CancellationToken::new();
        let leaving = leave.clone();
        let ended = runtime.spawn(async move {
            let client = kubernetes::client(kube).unwrap();
            lead::contend(client, config, "gateway".to_owned(), standing_tx, served, leaving).await;
        });
        Self { standing, serving, leave, ended }
    }

    fn is(&self, standing: Standing) -> bool {
        *self.standing.borrow() == standing
    }

    fn end(self, runtime: &Runtime) {
        self.serving.send_replace(false);
        self.leave.cancel();
        runtime.block_on(self.ended).unwrap();
    }
}

#[test]
fn whoever_took_over_is_alone_when_the_other_has_seen_it_or_cannot_serve_any_more() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (client, kube) = runtime.block_on(async { (client().await, config().await) });
    let namespace = format!("gateway-test-{}", unique());
    runtime.block_on(async {
        make_namespace(&client, &namespace).await;
        make_pods(&client, &namespace).await;
    });
    let (pods, leases): (Api<Pod>, Api<Lease>) =
        (Api::namespaced(client.clone(), &namespace), Api::namespaced(client.clone(), &namespace));
    let active = || runtime.block_on(labelled(&pods));
    let look = Duration::from_secs(30);
    // As many looks of whoever holds the Lease.
    let looks = |number: usize| {
        let mut seen = std::collections::BTreeSet::new();
        eventually("the Lease is renewed", look, || {
            seen.insert(runtime.block_on(leases.get("gateway")).unwrap().metadata.resource_version);
            seen.len() > number
        });
    };
    let mut far = kube.clone();
    let mut line = Line::new(52, &mut far);

    let one = Contending::start(&runtime, far.clone(), &namespace, "one", 900);
    eventually("the first is alone", look, || one.is(Standing::Alone));
    one.serving.send_replace(true);
    let two = Contending::start(&runtime, kube.clone(), &namespace, "two", 900);
    looks(3);
    assert!(two.is(Standing::Aside) && active() == "one");

    // The first hears nothing any more, and goes on: the other serves too, and knows that.
    line.cut(Away::Refusing);
    eventually("the other serves", look, || two.is(Standing::Serves));
    two.serving.send_replace(true);
    looks(5);
    assert!(two.is(Standing::Serves) && one.standing.borrow().serves() && active() == "one two");
    // It hears, and ends; and says so only when it has ended.
    line.mend();
    eventually("the first stands aside", look, || one.is(Standing::Aside));
    looks(3);
    assert!(two.is(Standing::Serves) && active() == "one two");
    one.serving.send_replace(false);
    eventually("the other is alone", look, || two.is(Standing::Alone));
    assert_eq!(active(), "two");
    // What is given back leaves nobody behind.
    two.end(&runtime);
    eventually("the first is alone again", look, || one.is(Standing::Alone));
    one.end(&runtime);

    // One that hears nothing for the limit stands aside by itself, and only then is the other alone.
    let one = Contending::start(&runtime, far, &namespace, "one", 3);
    eventually("the first is alone", look, || one.is(Standing::Alone));
    one.serving.send_replace(true);
    let two = Contending::start(&runtime, kube, &namespace, "two", 3);
    line.cut(Away::Refusing);
    eventually("the other serves", look, || two.is(Standing::Serves));
    eventually("the other is alone", look, || two.is(Standing::Alone));
    assert!(one.is(Standing::Aside) && active() == "one two");
    two.end(&runtime);
    line.mend();
    one.end(&runtime);
    let _ = runtime.block_on(Api::<KubeNamespace>::all(client).delete(&namespace, &DeleteParams::default()));
}

/// Long enough that nobody asks all the time without being told to.
const OUTAGE: Duration = Duration::from_secs(12);

#[test]
fn an_api_server_that_refuses_takes_nothing_away_and_what_was_revoked_meanwhile_goes_when_it_is_back() {
    Stage::new(44, 1).outage(Away::Refusing, OUTAGE);
}

#[test]
fn an_api_server_that_does_not_answer_takes_nothing_away_and_what_was_revoked_meanwhile_goes_when_it_is_back() {
    Stage::new(48, 1).outage(Away::Silent, OUTAGE);
}
