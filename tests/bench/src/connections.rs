//! Many connections at once: the operator's own program against an API server and its etcd, and nothing else. Deployments and Jobs
//! are rendered and never run.
//!
//! The connections are there before the program starts. From its start to the last connection that has its certificate and its
//! addresses is the time; what was written is what the API server counted of it, by resource and verb, until it writes no more.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        authentication::v1::TokenRequest,
        core::v1::{Namespace, Secret, ServiceAccount},
        rbac::v1::ClusterRoleBinding,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams, PostParams},
    config::Kubeconfig,
    runtime::{WatchStreamExt, conditions::is_crd_established, wait::await_condition, watcher},
};
use liaison_crds::{PartnerConnection, SharingAgreement, schema};
use liaison_operator::{
    claims::{Claim, Claims},
    slots,
};
use serde_json::{Value, json};

use crate::{
    error::{Error, Result},
    figures, process,
};

/// An agreement has at most so many parties.
const PARTIES: usize = 64;
/// Requests of ours at a time.
const AT_ONCE: usize = 16;
/// The program is done when it has written nothing for this long.
const QUIET: Duration = Duration::from_secs(5);
/// Longest time for one connection, on average, before it is given up.
const EACH: Duration = Duration::from_millis(200);

/// What is asked for.
#[derive(Debug, clap::Args)]
pub struct ConnectionsArgs {
    /// Numbers of connections, one after the other.
    #[arg(long, env = "CONNECTIONS", value_delimiter = ',', default_values_t = [1_000, 10_000])]
    pub connections: Vec<usize>,
    /// Claims of tunnel slots by four processes.
    #[arg(long, env = "CLAIMS", default_value_t = 10_000)]
    pub claims: usize,
}

impl From<kube::Error> for Error {
    fn from(error: kube::Error) -> Self {
        Self::said(format!("Kubernetes: {error}"))
    }
}

/// The namespaces of one run, and the program's settings for them.
struct Place {
    client: Client,
    unique: String,
    /// What the program reaches the API server by.
    kubeconfig: tempfile::NamedTempFile,
}

impl Place {
    async fn new(unique: String) -> Result<Self> {
        let client = Client::try_default().await?;
        let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
        let of_schema = |error| Error::said(format!("CRD: {error}"));
        for crd in [schema::partner_connection().map_err(of_schema)?, schema::sharing_agreement().map_err(of_schema)?] {
            let name = crd.name_any();
            crds.patch(&name, &PatchParams::apply("liaison-bench").force(), &Patch::Apply(&crd)).await?;
            let there = await_condition(crds.clone(), &name, is_crd_established()).await;
            there.map_err(|error| Error::said(format!("CRD: {error}")))?;
        }
        let kubeconfig = tempfile::NamedTempFile::new()?;
        let place = Self { client, unique, kubeconfig };
        let namespaces: Api<Namespace> = Api::all(place.client.clone());
        for of in ["system", "gateway", "partners"] {
            let object: Namespace = serde_json::from_value(json!({"metadata": {"name": place.namespace(of)}}))?;
            namespaces.create(&PostParams::default(), &object).await?;
        }
        let account: ServiceAccount = serde_json::from_value(json!({"metadata": {"name": "liaison-sync"}}))?;
        place.api::<ServiceAccount>("system").create(&PostParams::default(), &account).await?;
        place.admit().await?;
        let store: Secret = serde_json::from_value(json!({
            "metadata": {"name": "liaison-store"},
            "stringData": {"host": "store.example.ca", "port": "5432", "dbname": "store", "sync-password": "x"},
        }))?;
        place.api::<Secret>("system").create(&PostParams::default(), &store).await?;
        Ok(place)
    }

    /// A token for the program, as it has one in a cluster: a client's certificate is verified again with each request.
    async fn admit(&self) -> Result<()> {
        let (name, namespace) = (self.namespace("operator"), self.namespace("system"));
        let account = serde_json::from_value(json!({"metadata": {"name": name}}))?;
        let accounts = self.api::<ServiceAccount>("system");
        accounts.create(&PostParams::default(), &account).await?;
        let binding: ClusterRoleBinding = serde_json::from_value(json!({
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
        }))?;
        Api::all(self.client.clone()).create(&PostParams::default(), &binding).await?;
        let asked: TokenRequest = serde_json::from_value(json!({"metadata": {}, "spec": {"audiences": []}}))?;
        let token = accounts.create_token_request(&name, &PostParams::default(), &asked).await?;
        let token = token.status.map(|status| status.token).unwrap_or_default();
        let of_config = |error| Error::said(format!("kubeconfig: {error}"));
        let mut config = serde_json::to_value(Kubeconfig::read().map_err(of_config)?)?;
        for user in config["users"].as_array_mut().into_iter().flatten() {
            user["user"] = json!({"token": token});
        }
        fs::write(self.kubeconfig.path(), config.to_string())?;
        Ok(())
    }

    fn namespace(&self, of: &str) -> String {
        format!("{}-{of}", self.unique)
    }

    fn api<K>(&self, of: &str) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace(of))
    }

    /// Agreements, and connections under them that nobody has looked at.
    async fn apply(&self, n: usize) -> Result<()> {
        let (agreements, connections) =
            (self.api::<SharingAgreement>("partners"), self.api::<PartnerConnection>("partners"));
        let create = PostParams::default();
        for number in 0..n.div_ceil(PARTIES) {
            let parties: Vec<String> = (number * PARTIES..n.min((number + 1) * PARTIES)).map(name).collect();
            agreements.create(&create, &serde_json::from_value(agreement(number, &parties))?).await?;
        }
        stream::iter(0..n)
            .map(|i| {
                let connections = connections.clone();
                async move {
                    let object = serde_json::from_value(connection(i)?)?;
                    connections.create(&PostParams::default(), &object).await?;
                    Result::Ok(())
                }
            })
            .buffer_unordered(AT_ONCE)
            .try_collect::<Vec<()>>()
            .await?;
        Ok(())
    }

    fn operator(&self) -> Result<Operator> {
        let child = Command::new(beside("liaison-operator")?)
            .arg("run")
            .env("KUBECONFIG", self.kubeconfig.path())
            .env("RUST_LOG", "warn")
            .env("GATEWAYS", "gateway=gateway.example.ca:51820")
            .env("POOL_V4", "100.64.0.0/10")
            .env("IMAGE_SYNC", "liaison/sync:1")
            .env("IMAGE_INFOPOL", "liaison/infopol:1")
            .env("SYSTEM_NAMESPACE", self.namespace("system"))
            .env("GATEWAY_NAMESPACE", self.namespace("gateway"))
            .env("PARTNERS_NAMESPACE", self.namespace("partners"))
            .env("POD_NAME", "operator-0")
            .env("HEALTH_ADDR", "127.0.0.1:0")
            .stdin(Stdio::null())
            .spawn()?;
        Ok(Operator(child))
    }

    /// Waits until `n` connections have their certificate and addresses.
    async fn all_have(&self, n: usize, started: Instant) -> Result<()> {
        let objects = watcher(self.api::<PartnerConnection>("partners"), watcher::Config::default());
        let mut objects = std::pin::pin!(objects.default_backoff().touched_objects());
        let mut have = BTreeSet::new();
        let most = EACH * u32::try_from(n).unwrap_or(u32::MAX) + Duration::from_secs(60);
        while have.len() < n {
            let object = tokio::time::timeout(most.saturating_sub(started.elapsed()), objects.next()).await;
            let late = || Error::said(format!("{} of {n} connections have credentials after {most:?}", have.len()));
            let Some(object) = object.map_err(|_| late())? else { break };
            let object = object.map_err(|error| Error::said(format!("watch: {error}")))?;
            if object
                .status
                .as_ref()
                .is_some_and(|status| status.connection.is_some() && !status.certificates.is_empty())
            {
                have.insert(object.name_any());
            }
        }
        Ok(())
    }

    /// Requests that write, by resource and verb, as the API server counts them.
    async fn writes(&self) -> Result<BTreeMap<String, f64>> {
        let request = hyper::Request::get("/metrics").body(Vec::new());
        let request = request.map_err(|error| Error::said(format!("request: {error}")))?;
        let text = self.client.request_text(request).await?;
        let mut all = BTreeMap::new();
        for line in text.lines().filter(|line| line.starts_with("apiserver_request_total{")) {
            let label = |name: &str| {
                let (_, rest) = line.split_once(&format!("{name}=\""))?;
                rest.split_once('"').map(|(value, _)| value.to_owned())
            };
            let (Some(verb), Some(resource)) = (label("verb"), label("resource")) else { continue };
            if !["POST", "PUT", "PATCH", "APPLY", "DELETE", "DELETECOLLECTION"].contains(&verb.as_str()) {
                continue;
            }
            let part = label("subresource").filter(|part| !part.is_empty());
            let part = part.map_or_else(String::new, |part| format!("/{part}"));
            let count: f64 = line.rsplit_once(' ').and_then(|(_, count)| count.parse().ok()).unwrap_or(0.0);
            *all.entry(format!("{} {resource}{part}", verb.to_lowercase())).or_default() += count;
        }
        Ok(all)
    }

    /// The same, once nothing changes any more but the leader's Lease.
    async fn settled(&self) -> Result<BTreeMap<String, f64>> {
        let lease = |(what, _): &(&String, &f64)| what.as_str() != "put leases";
        let (mut last, mut since) = (self.writes().await?, Instant::now());
        while since.elapsed() < QUIET {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let now = self.writes().await?;
            if !now.iter().filter(lease).eq(last.iter().filter(lease)) {
                since = Instant::now();
            }
            last = now;
        }
        Ok(last)
    }
}

/// The program; it ends with the run.
struct Operator(Child);

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A program that was built with this one.
fn beside(program: &str) -> Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name(program))
}

fn name(i: usize) -> String {
    format!("partner-{i:05}")
}

fn agreement(number: usize, parties: &[String]) -> Value {
    json!({
        "apiVersion": "federation.csc-scc.gc.ca/v1alpha1", "kind": "SharingAgreement",
        "metadata": {"name": format!("agreement-{number:03}")},
        "spec": {
            "reference": format!("A-{number:03}"), "parties": parties, "legalBasis": ["CCRA s.25(1)"],
            "effectiveDate": "2020-01-01", "expiryDate": "2099-12-31", "purposes": ["Supervision"],
            "allows": {"fieldGroups": ["identity", "aliases"], "population": {"anyOf": [{"jurisdictions": ["CA-BC"]}]}},
            "retention": {"disposalDays": 30},
            "assessments": {"privacyImpact": "PIA", "threatRisk": "TRA"},
        },
    })
}

fn connection(i: usize) -> Result<Value> {
    let bad = |error: rcgen::Error| Error::said(format!("request: {error}"));
    let private = x25519_dalek::StaticSecret::random();
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(bad)?;
    let request = rcgen::CertificateParams::default().serialize_request(&pair).and_then(|r| r.pem()).map_err(bad)?;
    Ok(json!({
        "apiVersion": "federation.csc-scc.gc.ca/v1alpha1", "kind": "PartnerConnection",
        "metadata": {"name": name(i)},
        "spec": {
            "partner": {
                "type": "PoliceService", "jurisdiction": "CA-BC", "timeZone": "America/Vancouver",
                "name": {"en": "A Police Service", "fr": "Un service de police"},
            },
            "agreementRef": {"name": format!("agreement-{:03}", i / PARTIES)},
            "share": {"fieldGroups": ["identity"], "population": {"anyOf": [{"jurisdictions": ["CA-BC"]}]}},
            "credentials": {
                "keyCustody": "Partner",
                "wireGuard": {"publicKeys": [STANDARD.encode(x25519_dalek::PublicKey::from(&private).as_bytes())]},
                "certificate": {"signingRequests": [request]},
            },
            "deletionPolicy": "Delete",
        },
    }))
}

/// Peak resident memory of a process in MiB.
fn peak(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: f64 = line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse().ok()).unwrap_or(0.0);
    kib / 1024.0
}

#[expect(clippy::cast_precision_loss, reason = "a count for a table")]
fn float(n: usize) -> f64 {
    n as f64
}

async fn of(n: usize, unique: &str) -> Result<f64> {
    let place = Place::new(format!("{unique}-{n}")).await?;
    println!("applying {n} connections");
    place.apply(n).await?;
    let before = place.writes().await?;
    let started = Instant::now();
    let operator = place.operator()?;
    place.all_have(n, started).await?;
    let seconds = started.elapsed().as_secs_f64();
    let after = place.settled().await?;
    let pid = operator.0.id();
    let (memory, cpu) = (peak(pid), process::cpu(pid)?);
    drop(operator);
    let of = |what: &str| format!("F {n} connections, {what}");
    let mut new = vec![
        (of("until all have credentials and addresses"), seconds, "s", n),
        (of("most memory of the operator"), memory, "MiB", 1),
        (of("CPU of the operator for all it does"), cpu, "CPU-s", 1),
    ];
    let mut writes = 0.0;
    for (what, count) in &after {
        let each = (count - before.get(what).unwrap_or(&0.0)) / float(n);
        writes += each;
        if each >= 0.01 {
            new.push((of(&format!("API writes each: {what}")), each, "writes", n));
        }
    }
    new.push((of("API writes each, all"), writes, "writes", n));
    figures::add(&new)?;
    Ok(seconds / float(n))
}

/// Claims slots as one of four; prints what it got.
pub async fn claim(namespace: &str, n: usize, one: usize) -> Result<()> {
    let claims = Arc::new(Claims::new(Api::namespaced(Client::try_default().await?, namespace)));
    let pools = pools(n)?;
    // Two of the four ask for the same partners, as an old and a new leader might.
    let got: Vec<Option<(String, u32)>> = stream::iter((one / 2..n).step_by(2))
        .map(|i| {
            let claims = claims.clone();
            async move {
                for slot in pools.probe(&name(i)) {
                    let lease = slots::lease_name(slot);
                    if let Claim::Mine(_) = claims.claim(&lease, &name(i), Timestamp::now()).await? {
                        return Result::Ok(Some((name(i), slot)));
                    }
                }
                Ok(None)
            }
        })
        .buffer_unordered(4)
        .try_collect()
        .await?;
    for (partner, slot) in got.into_iter().flatten() {
        println!("{partner} {slot}");
    }
    Ok(())
}

/// Hardly larger than what is claimed, so that the four meet.
fn pools(n: usize) -> Result<slots::Pools> {
    let bits = (2 * n + 4).next_power_of_two().trailing_zeros();
    slots::Pools::parse(&format!("100.64.0.0/{}", 32 - bits), "fd4c:6961:6973::/104")
        .map_err(|error| Error::said(format!("pool: {error}")))
}

async fn claimed(n: usize, unique: &str) -> Result<()> {
    let place = Place::new(format!("{unique}-claims")).await?;
    let started = Instant::now();
    let mut four = Vec::new();
    for one in 0..4 {
        let args = ["claim".to_owned(), place.namespace("system"), n.to_string(), one.to_string()];
        four.push(Command::new(std::env::current_exe()?).args(args).stdout(Stdio::piped()).spawn()?);
    }
    let mut all = BTreeSet::new();
    for child in four {
        let out =
            tokio::task::spawn_blocking(move || child.wait_with_output()).await.map_err(std::io::Error::other)??;
        if !out.status.success() {
            return Err(Error::said("a process that claims failed"));
        }
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        all.extend(text.lines().filter_map(|line| line.split_once(' ').map(|(p, s)| (p.to_owned(), s.to_owned()))));
    }
    let seconds = started.elapsed().as_secs_f64();
    let partners: BTreeSet<&String> = all.iter().map(|(partner, _)| partner).collect();
    let slots: BTreeSet<&String> = all.iter().map(|(_, slot)| slot).collect();
    figures::add(&[
        ("G claims by four processes: partners that have a slot".to_owned(), float(partners.len()), "partners", n),
        ("G claims by four processes: slots that two have".to_owned(), float(all.len() - slots.len()), "slots", n),
        (
            "G claims by four processes: partners that have two".to_owned(),
            float(all.len() - partners.len()),
            "partners",
            n,
        ),
        ("G claims by four processes: length".to_owned(), seconds, "s", 1),
    ])
}

/// The whole benchmark.
pub async fn bench(args: &ConnectionsArgs) -> Result<()> {
    let unique = format!("bench-{}", std::process::id());
    if args.claims > 0 {
        claimed(args.claims, &unique).await?;
    }
    let mut first: Option<(usize, f64)> = None;
    for n in &args.connections {
        let each = of(*n, &unique).await?;
        match first {
            None => first = Some((*n, each)),
            Some((less, before)) => {
                figures::add(&[(
                    format!("F {n} connections, time of each in times that of {less}"),
                    each / before,
                    "times",
                    1,
                )])?;
            }
        }
    }
    Ok(())
}
