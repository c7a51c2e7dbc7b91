//! What the integration tests share: a real API server, and tests that play its missing controllers.
//!
//! No controller runs there: this plays the Job controller and the kubelet (termination messages), the Deployment controller,
//! and the garbage collector. What it does is boxed: unoptimised, a test's own future would outgrow the stack of its thread.

#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::large_futures)]

use std::{
    process::{Child, Command},
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
    task::Poll,
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        batch::v1::Job,
        coordination::v1::Lease,
        core::v1::{Namespace, Pod, Secret, ServiceAccount},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, Config, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    client::ClientBuilder,
    config::{KubeConfigOptions, Kubeconfig},
    core::DeserializeGuard,
    runtime::{conditions::is_crd_established, reflector, wait::await_condition, watcher},
};
use liaison_crds::{PartnerConnection, SharingAgreement, schema};
use liaison_operator::{context::Context, install, metrics::Metrics, partner_connection, settings::Settings};
use serde_json::{Value, json};
use tower::{BoxError, Layer, Service};

/// Counts requests, and breaks after one that writes: the write has happened, and its sender does not hear of it.
#[derive(Clone, Default)]
pub struct Writes {
    pub count: Arc<AtomicUsize>,
    pub reads: Arc<AtomicUsize>,
    /// Writes left before the break; negative means never.
    pub left: Arc<AtomicI64>,
}

impl Writes {
    pub fn new() -> Self {
        let writes = Self::default();
        writes.left.store(-1, Ordering::SeqCst);
        writes
    }
}

impl<S> Layer<S> for Writes {
    type Service = Counting<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Counting { inner, writes: self.clone() }
    }
}

#[derive(Clone)]
pub struct Counting<S> {
    inner: S,
    writes: Writes,
}

impl<S, B> Service<axum::http::Request<B>> for Counting<S>
where
    S: Service<axum::http::Request<B>, Error = BoxError> + Send + 'static,
    S::Future: Send,
    S::Response: Send,
    B: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<S::Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: axum::http::Request<B>) -> Self::Future {
        // Events are told, not relied on: they are no part of the state that must converge.
        let write = request.method() != "GET" && !request.uri().path().contains("/events");
        let writes = self.writes.clone();
        if request.method() == "GET" {
            writes.reads.fetch_add(1, Ordering::SeqCst);
        }
        let sent = self.inner.call(request);
        Box::pin(async move {
            let answer = sent.await;
            if write {
                writes.count.fetch_add(1, Ordering::SeqCst);
                if writes.left.fetch_sub(1, Ordering::SeqCst) == 0 {
                    return Err("killed".into());
                }
            }
            answer
        })
    }
}

pub async fn config() -> Config {
    let path = std::env::var("TEST_KUBECONFIG").expect(
        "TEST_KUBECONFIG must name a kubeconfig: tests/cluster/services up; eval \"$(tests/cluster/services env)\"",
    );
    let kubeconfig = Kubeconfig::read_from(path).unwrap();
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap()
}

pub async fn counting_client(writes: &Writes) -> Client {
    ClientBuilder::try_from(config().await).unwrap().with_layer(writes).build()
}

/// Three namespaces of a test's own, with an installation in them.
pub struct Stage {
    pub client: Client,
    pub settings: Settings,
    pub writes: Writes,
    pub ctx: Arc<Context>,
    /// What Jobs say; by default that all went well.
    pub job_says: Option<(bool, Value)>,
}

/// The endpoints of the only shard of most stages.
pub const ENDPOINTS: [&str; 2] = ["gateway.example.ca:51820", "gateway.example.ca:51821"];

impl Stage {
    pub async fn new(test: &str) -> Self {
        Self::with_gateways(test, &format!("gateway={}", ENDPOINTS.join(","))).await
    }

    /// With these shards of the gateway.
    pub async fn with_gateways(test: &str, gateways: &str) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = Client::try_from(config().await).unwrap();
        let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
        for crd in [schema::partner_connection().unwrap(), schema::sharing_agreement().unwrap()] {
            let name = crd.name_any();
            crds.patch(&name, &PatchParams::apply("liaison-tests").force(), &Patch::Apply(&crd)).await.unwrap();
            await_condition(crds.clone(), &name, is_crd_established()).await.unwrap();
        }
        let unique = format!("{test}-{}", std::process::id());
        let settings = Settings {
            domain: "liaison.example.ca".into(),
            gateways: gateways.parse().unwrap(),
            pool_v4: "100.72.0.0/16".into(),
            pool_v6: "fd4c:6961:6973::/112".into(),
            slot_quarantine_days: 30,
            key_overlap_hours: 72,
            image_sync: "liaison/sync:t".into(),
            image_infopol: "liaison/infopol:t".into(),
            infopol_replicas: 1,
            image_pull_policy: "IfNotPresent".into(),
            image_pull_secrets: String::new(),
            default_store: "shared".into(),
            store_secret: "liaison-store".into(),
            hub_secret: "liaison-hub".into(),
            system_namespace: format!("{unique}-system"),
            gateway_namespace: format!("{unique}-gateway"),
            partners_namespace: format!("{unique}-partners"),
            pod_name: "operator-0".into(),
            health_addr: "127.0.0.1:0".parse().unwrap(),
            concurrency: 4,
            verify_seconds: 86_400,
            verify_at_once: 2,
        };
        let namespaces: Api<Namespace> = Api::all(client.clone());
        for name in [&settings.system_namespace, &settings.gateway_namespace, &settings.partners_namespace] {
            let object: Namespace = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
            namespaces.create(&PostParams::default(), &object).await.unwrap();
        }
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), &settings.system_namespace);
        let account: ServiceAccount = serde_json::from_value(json!({"metadata": {"name": "liaison-sync"}})).unwrap();
        accounts.create(&PostParams::default(), &account).await.unwrap();
        let writes = Writes::new();
        let counting = counting_client(&writes).await;
        let installed = install::ensure(&client, &settings, Timestamp::now()).await.unwrap();
        let ctx = Context::new(counting, settings.clone(), installed, Arc::new(Metrics::default()));
        let stage = Self { client, settings, writes, ctx: Arc::new(ctx.unwrap()), job_says: None };
        stage.store("liaison-store").await;
        stage
    }

    /// What the reconciles share, to be changed between two of them.
    pub fn context(&mut self) -> &mut Context {
        Arc::get_mut(&mut self.ctx).unwrap()
    }

    /// Tells the operator of all connections, as they are now.
    pub async fn told_of_connections(&mut self) {
        let (store, mut writer) = reflector::store::<DeserializeGuard<PartnerConnection>>();
        writer.apply_watcher_event(&watcher::Event::Init);
        for object in self.partners::<PartnerConnection>().list(&ListParams::default()).await.unwrap() {
            writer.apply_watcher_event(&watcher::Event::InitApply(DeserializeGuard(Ok(object))));
        }
        writer.apply_watcher_event(&watcher::Event::InitDone);
        self.context().connections = Some(store);
    }

    pub fn store<'a>(&'a self, name: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let store: Secret = serde_json::from_value(json!({
                "metadata": {"name": name},
                "stringData": {"host": format!("store.{}.svc", self.settings.system_namespace), "port": "5432", "dbname": "store", "sync-password": "x"},
            }))
            .unwrap();
            self.system().create(&PostParams::default(), &store).await.unwrap();
        })
    }

    pub fn system<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.settings.system_namespace)
    }

    pub fn partners<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.settings.partners_namespace)
    }

    pub async fn agree(&self, parties: &[&str]) {
        let object: SharingAgreement = serde_json::from_value(json!({
            "apiVersion": "federation.csc-scc.gc.ca/v1alpha1",
            "kind": "SharingAgreement",
            "metadata": {"name": "bc-2003"},
            "spec": {
                "reference": "BC-2003", "parties": parties, "legalBasis": ["CCRA s.25(1)"],
                "effectiveDate": "2020-01-01", "expiryDate": "2099-12-31", "purposes": ["Supervision"],
                "allows": {"fieldGroups": ["identity", "aliases"], "population": {"anyOf": [{"jurisdictions": ["CA-BC"]}]}},
                "retention": {"disposalDays": 30},
                "assessments": {"privacyImpact": "PIA", "threatRisk": "TRA"},
            },
        }))
        .unwrap();
        self.partners().create(&PostParams::default(), &object).await.unwrap();
    }

    pub fn apply<'a>(&'a self, object: &'a Value) -> BoxFuture<'a, PartnerConnection> {
        Box::pin(async move {
            let name = object["metadata"]["name"].as_str().unwrap();
            let api: Api<PartnerConnection> = self.partners();
            api.patch(name, &PatchParams::apply("kubectl").force(), &Patch::Apply(object)).await.unwrap()
        })
    }

    pub fn get<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Option<PartnerConnection>> {
        Box::pin(async move { self.partners().get_opt(name).await.unwrap() })
    }

    /// One reconcile, by the operator whose writes are counted.
    pub fn reconcile<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), partner_connection::Error>> {
        Box::pin(async move {
            let Some(object) = self.get(name).await else { return Ok(()) };
            let guard = Arc::new(DeserializeGuard(Ok(object)));
            Box::pin(partner_connection::reconcile(guard, self.ctx.clone())).await.map(|_| ())
        })
    }

    /// Reconciles and plays the controllers until a reconcile writes nothing; how many it took.
    pub fn settle<'a>(&'a self, name: &'a str) -> BoxFuture<'a, usize> {
        Box::pin(async move {
            for round in 1..30 {
                let before = self.writes.count.load(Ordering::SeqCst);
                if let Err(error) = self.reconcile(name).await {
                    assert!(error.to_string().contains("killed") || error.reason() == "conflict", "{error:?}");
                    continue;
                }
                let played = self.play().await;
                if self.writes.count.load(Ordering::SeqCst) == before && !played {
                    return round;
                }
            }
            panic!("{name} does not settle: {:#?}", self.get(name).await.map(|c| c.status));
        })
    }

    /// Plays the controllers once; whether there was anything to do.
    pub fn play(&self) -> BoxFuture<'_, bool> {
        Box::pin(async move {
            let mut played = false;
            let jobs: Api<Job> = self.system();
            for job in jobs.list(&ListParams::default()).await.unwrap() {
                played |= self.play_job(&jobs, &job).await;
            }
            let held: Vec<String> =
                jobs.list(&ListParams::default()).await.unwrap().iter().map(ResourceExt::name_any).collect();
            let pods: Api<Pod> = self.system();
            for pod in pods.list(&ListParams::default()).await.unwrap() {
                let of_job = pod.labels().get("batch.kubernetes.io/job-name");
                if of_job.is_some_and(|job| !held.contains(job)) {
                    pods.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await.unwrap();
                    played = true;
                }
            }
            let deployments: Api<Deployment> = self.partners();
            for deployment in deployments.list(&ListParams::default()).await.unwrap() {
                let name = deployment.name_any();
                if deployment.metadata.deletion_timestamp.is_some() {
                    let patch = json!({"metadata": {"finalizers": null}});
                    deployments.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
                    played = true;
                    continue;
                }
                let replicas = deployment.spec.as_ref().unwrap().replicas.unwrap_or(1);
                let status = deployment.status.unwrap_or_default();
                if status.observed_generation != deployment.metadata.generation
                    || status.available_replicas.unwrap_or(0) != replicas
                {
                    let patch = json!({"status": {
                        "observedGeneration": deployment.metadata.generation, "replicas": replicas, "updatedReplicas": replicas,
                        "availableReplicas": replicas, "readyReplicas": replicas,
                    }});
                    deployments.patch_status(&name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
                    played = true;
                }
            }
            played
        })
    }

    async fn play_job(&self, jobs: &Api<Job>, job: &Job) -> bool {
        let name = job.name_any();
        if job.metadata.deletion_timestamp.is_some() {
            let patch = json!({"metadata": {"finalizers": null}});
            jobs.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
            return true;
        }
        let over = |kind: &str| {
            let conditions = job.status.as_ref().and_then(|status| status.conditions.as_ref());
            conditions.is_some_and(|all| all.iter().any(|c| c.type_ == kind && c.status == "True"))
        };
        if over("Complete") || over("Failed") {
            return false;
        }
        let (well, says) = self.job_says.clone().unwrap_or_else(|| {
            let reason = if name.starts_with("seed-") { "Seeded" } else { "Disposed" };
            (true, json!({"reason": reason, "files": 3, "records": 40}))
        });
        let pods: Api<Pod> = self.system();
        let pod = format!("{name}-0");
        let first = pods.get_opt(&pod).await.unwrap().is_none();
        if first {
            let object: Pod = serde_json::from_value(json!({
                "metadata": {"name": pod, "labels": {"batch.kubernetes.io/job-name": name}},
                "spec": {"serviceAccountName": "liaison-sync", "containers": [{"name": "sync", "image": "x"}]},
            }))
            .unwrap();
            pods.create(&PostParams::default(), &object).await.unwrap();
        }
        let ended = json!({"terminated": {"exitCode": i32::from(!well), "message": says.to_string(), "finishedAt": "2026-01-01T00:00:00Z"}});
        let phase = if well { "Succeeded" } else { "Running" };
        let status = json!({"status": {"phase": phase, "containerStatuses": [{
            "name": "sync", "image": "x", "imageID": "", "ready": false, "restartCount": 0, "state": ended,
        }]}});
        pods.patch_status(&pod, &PatchParams::default(), &Patch::Strategic(&status)).await.unwrap();
        let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap();
        if job.status.as_ref().is_none_or(|status| status.start_time.is_none()) {
            let start = json!({"status": {"startTime": now}});
            jobs.patch_status(&name, &PatchParams::default(), &Patch::Merge(&start)).await.unwrap();
        }
        if !well {
            return first;
        }
        let condition = |kind: &str| json!({"type": kind, "status": "True", "reason": "CompletionsReached", "lastTransitionTime": now, "lastProbeTime": now});
        let done = json!({"status": {
            "succeeded": 1, "completionTime": now, "ready": 0, "uncountedTerminatedPods": {},
            "conditions": [condition("SuccessCriteriaMet"), condition("Complete")],
        }});
        jobs.patch_status(&name, &PatchParams::default(), &Patch::Merge(&done)).await.unwrap();
        true
    }

    /// Everything that bears the partner's label, by kind and name; an orphan is one that is there when it should not be. A slot
    /// in quarantine is no orphan.
    pub fn held<'a>(&'a self, partner: &'a str) -> BoxFuture<'a, Vec<String>> {
        Box::pin(async move {
            async fn names<K>(api: Api<K>, kind: &str, partner: &str) -> Vec<String>
            where
                K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
            {
                let params = ListParams::default().labels(&format!("federation.csc-scc.gc.ca/partner={partner}"));
                api.list(&params)
                    .await
                    .unwrap()
                    .iter()
                    .filter(|object| !object.annotations().contains_key(liaison_crds::RELEASED_ANNOTATION))
                    .map(|object| {
                        let name = object.name_any().replace(&format!("-{partner}"), "-P");
                        // Claims and Jobs are named by number, key or uid.
                        let stem = ["slot-", "wgkey-", "csrkey-", "token-", "seed-P-", "dispose-P-", "handover-P-"]
                            .into_iter()
                            .find(|stem| name.starts_with(stem));
                        format!("{kind} {}", stem.unwrap_or(&name))
                    })
                    .collect()
            }
            let mut all = names::<Lease>(self.system(), "Lease", partner).await;
            all.extend(names::<Job>(self.system(), "Job", partner).await);
            all.extend(names::<Secret>(self.system(), "Secret", partner).await);
            all.extend(names::<Secret>(self.partners(), "Secret", partner).await);
            all.extend(names::<Deployment>(self.partners(), "Deployment", partner).await);
            all.extend(names::<k8s_openapi::api::core::v1::Service>(self.partners(), "Service", partner).await);
            all.extend(names::<ServiceAccount>(self.partners(), "ServiceAccount", partner).await);
            all.extend(
                names::<k8s_openapi::api::networking::v1::NetworkPolicy>(self.partners(), "NetworkPolicy", partner)
                    .await,
            );
            all.sort();
            all
        })
    }

    pub fn delete<'a>(&'a self, name: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            self.partners::<PartnerConnection>().delete(name, &DeleteParams::default()).await.unwrap();
        })
    }
}

/// What a partner holds when it is fully there.
pub const WHOLE: [&str; 11] = [
    "Deployment infopol-P",
    "Job seed-P-",
    "Lease csrkey-",
    "Lease slot-",
    "Lease wgkey-",
    "NetworkPolicy infopol-P",
    "Secret infopol-P-tls",
    "Secret reader-P",
    "Secret seed-P",
    "Service infopol-P",
    "ServiceAccount infopol-P",
];

/// A process that ends with its test, however that ends.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The program, leading or waiting to; its log in this file, with as much as it says of itself.
pub fn start(stage: &Stage, pod: &str, log: Option<&std::path::Path>) -> Process {
    let s = &stage.settings;
    let mut command = Command::new(env!("CARGO_BIN_EXE_liaison-operator"));
    if let Some(log) = log {
        command.env("RUST_LOG", "info,liaison_operator=trace").stderr(std::fs::File::create(log).unwrap());
    }
    let child = command
        .arg("run")
        .env("KUBECONFIG", std::env::var("TEST_KUBECONFIG").unwrap())
        .env("GATEWAYS", s.gateways.to_string())
        .env("IMAGE_SYNC", &s.image_sync)
        .env("IMAGE_INFOPOL", &s.image_infopol)
        .env("SYSTEM_NAMESPACE", &s.system_namespace)
        .env("GATEWAY_NAMESPACE", &s.gateway_namespace)
        .env("PARTNERS_NAMESPACE", &s.partners_namespace)
        .env("POD_NAME", pod)
        .env("HEALTH_ADDR", "127.0.0.1:0")
        .spawn()
        .unwrap();
    Process(child)
}

/// Ends it as Kubernetes does.
pub fn terminate(process: &mut Process) {
    let id = process.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    assert!(process.0.wait().unwrap().success(), "it ends well when told to");
}

/// Plays the controllers until something holds.
pub async fn until(what: &str, stage: &Stage, mut check: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !check().await {
        assert!(start.elapsed() < Duration::from_secs(40), "{what} within 40 s");
        stage.play().await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// A connection with keys of its own.
pub fn connection(name: &str) -> Value {
    let secret = x25519_dalek::StaticSecret::random();
    let key = base64::Engine::encode(
        &base64::engine::general_purpose::STANDARD,
        x25519_dalek::PublicKey::from(&secret).as_bytes(),
    );
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let csr = rcgen::CertificateParams::default().serialize_request(&pair).unwrap().pem().unwrap();
    json!({
        "apiVersion": "federation.csc-scc.gc.ca/v1alpha1",
        "kind": "PartnerConnection",
        "metadata": {"name": name},
        "spec": {
            "partner": {
                "type": "PoliceService", "jurisdiction": "CA-BC", "timeZone": "America/Vancouver",
                "name": {"en": "A Police Service", "fr": "Un service de police"},
            },
            "agreementRef": {"name": "bc-2003"},
            "share": {"fieldGroups": ["identity"], "population": {"anyOf": [{"jurisdictions": ["CA-BC"]}]}},
            "credentials": {
                "keyCustody": "Partner",
                "wireGuard": {"publicKeys": [key]},
                "certificate": {"signingRequests": [csr]},
            },
            "deletionPolicy": "Delete",
        },
    })
}

/// Status, reason and message of a condition.
pub fn said(connection: &PartnerConnection, kind: &str) -> (String, String, String) {
    let conditions = connection.status.iter().flat_map(|status| &status.conditions);
    let found = conditions.into_iter().find(|condition| condition.type_ == kind);
    found.map(|c| (c.status.clone(), c.reason.clone(), c.message.clone())).unwrap_or_default()
}
