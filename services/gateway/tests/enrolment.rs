//! Enrolment as a partner does it, with curl and openssl alone: through its tunnel, against the gateway and a real API server.
//! The test plays the operator. Needs TEST_KUBECONFIG (`tests/cluster/services up`), root and /dev/net/tun.

// Clippy takes only functions marked #[test] for tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::{
    process::Output,
    sync::{Arc, Mutex},
    time::Duration,
};

use k8s_openapi::{
    ByteString,
    api::{certificates::v1::CertificateSigningRequest, core::v1::Namespace as KubeNamespace},
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use liaison_crds::{
    PARTNER_LABEL, PartnerConnection,
    enrolment::{LEAF, TOKEN_PROOF, digest, proof},
};
use liaison_gateway::{
    Error, config::Config, privileges::Opened, run_with, state::public_key_sha256, tunnel::filter::HTTPS,
};
use serde_json::{Value, json};
use support::{
    DOMAIN, Namespace,
    ca::Ca,
    cluster::{client, gateway, make_namespace, own_secrets},
    eventually,
    gateway::public_key,
    infopol, output,
    partner::Partner,
    run, unique,
};
use tokio::{runtime::Runtime, task::JoinHandle};
use tokio_util::sync::CancellationToken;

const TOKEN: &str = "a-token-of-the-tests";

/// Everything that the gateways of this process have logged.
static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Log;

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LOG.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What the played operator does with requests.
#[derive(Clone)]
enum Mood {
    Signs,
    Sleeps,
    Denies(&'static str),
}

/// A gateway in this process and network namespace, where the API server is, with partners in namespaces of their own.
struct World {
    runtime: Runtime,
    client: Client,
    namespace: String,
    objects: Api<PartnerConnection>,
    requests: Api<CertificateSigningRequest>,
    ca: Arc<Ca>,
    public_key: String,
    mood: Arc<Mutex<Mood>>,
    config: Config,
    running: Option<(CancellationToken, JoinHandle<Result<(), Error>>)>,
}

impl World {
    /// Of these partners, the first of which has this slot.
    fn new(upstreams: &[&str], first: u16) -> Self {
        let logging = tracing_subscriber::fmt().with_env_filter("debug,gotatun=off,h2=off").with_writer(|| Log);
        // The tests of a process share it.
        let _ = logging.with_ansi(false).try_init();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let client = runtime.block_on(client());
        let namespace = format!("enrolment-test-{}", unique());
        let ca = Arc::new(Ca::new());
        let private = run("wg", &["genkey"]);
        let infopols = upstreams.iter().map(|name| {
            let host = format!("infopol-{name}.{namespace}.svc");
            let leaf = ca.server(&[&host], &format!("spiffe://{DOMAIN}/infopol/{name}"));
            (host, ca.material(&leaf))
        });
        let port = runtime.block_on(infopol::start(0, infopols.collect()));
        runtime.block_on(async {
            make_namespace(&client, &namespace).await;
            own_secrets(&client, &namespace, &ca, &private).await;
        });
        // The same after each start, and of no other test's.
        let own = u16::try_from(std::process::id() % 20000).unwrap() + first;
        let (wg_port, health) =
            (format!("--wg-port={}", 40000 + own), format!("--health-addr=0.0.0.0:{}", 10000 + own));
        let config = gateway(&namespace, port, &[&wg_port, &health, "--enrolment-wait=2"]);
        let mut this = Self {
            objects: Api::namespaced(client.clone(), &namespace),
            requests: Api::all(client.clone()),
            public_key: public_key(&private),
            mood: Arc::new(Mutex::new(Mood::Signs)),
            running: None,
            runtime,
            client,
            namespace,
            ca,
            config,
        };
        this.start();
        this
    }

    fn start(&mut self) {
        let stop = CancellationToken::new();
        let opened = Opened::open(self.config.wg_backend, &self.config.tun_name, HTTPS).unwrap();
        let running = run_with(self.config.clone(), self.client.clone(), opened, stop.clone());
        self.running = Some((stop, self.runtime.spawn(running)));
    }

    fn stop(&mut self) {
        let (stop, running) = self.running.take().unwrap();
        stop.cancel();
        self.runtime.block_on(running).unwrap().unwrap();
        let link = ["link", "show", "dev", &self.config.tun_name];
        eventually("the device is gone", Duration::from_secs(10), || !output("ip", &link).status.success());
    }

    /// A partner with a tunnel and no certificate, who has a token; and its operator.
    fn partner(&self, name: &str, slot: u8) -> Partner {
        let mut partner = Partner::new(&self.ca, name, slot, None::<&Namespace>);
        let mut object = partner.object(&self.namespace);
        object["spec"]["credentials"]["certificate"] = json!({"enrolment": {"tokenNumber": 1}});
        let mut status = partner.status(&self.public_key);
        status["certificates"] = json!([]);
        status["enrolment"] = json!({
            "tokenNumber": 1, "tokenDigest": digest(&proof(&format!("{TOKEN}-{name}"))),
            "issued": "2026-01-01T00:00:00Z", "notAfter": "2200-01-01T00:00:00Z",
        });
        self.runtime.block_on(async {
            let object = serde_json::from_value(object).unwrap();
            self.objects.create(&PostParams::default(), &object).await.unwrap();
        });
        self.status(name, &json!(status));
        partner.connect(&self.public_key, self.config.wg_port);
        partner.write("token", &format!("{TOKEN}-{name}"));
        let operator = Operator {
            name: name.to_owned(),
            objects: self.objects.clone(),
            requests: self.requests.clone(),
            ca: Arc::clone(&self.ca),
            mood: Arc::clone(&self.mood),
        };
        self.runtime.spawn(operator.run());
        eventually("the enrolment service answers", Duration::from_secs(15), || {
            partner.sh("est cacerts -m 2 -o cacerts.b64").status.success()
        });
        partner
    }

    fn status(&self, name: &str, status: &Value) {
        let patch = json!({"status": status});
        self.runtime.block_on(self.objects.patch_status(name, &PatchParams::default(), &Patch::Merge(&patch))).unwrap();
    }

    fn spec(&self, name: &str, spec: &Value) {
        let patch = json!({"spec": spec});
        self.runtime.block_on(self.objects.patch(name, &PatchParams::default(), &Patch::Merge(&patch))).unwrap();
    }

    fn asked(&self, name: &str) -> Vec<CertificateSigningRequest> {
        self.runtime.block_on(self.requests.list(&of(name))).unwrap().items
    }

    fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    fn end(mut self, partners: &[&str]) {
        self.stop();
        self.runtime.block_on(async {
            for name in partners {
                let _ = self.requests.delete_collection(&DeleteParams::default(), &of(name)).await;
                let _ = self.objects.delete(name, &DeleteParams::default()).await;
            }
            let namespaces: Api<KubeNamespace> = Api::all(self.client.clone());
            let _ = namespaces.delete(&self.namespace, &DeleteParams::default()).await;
        });
    }
}

fn of(name: &str) -> ListParams {
    ListParams::default().labels(&format!("{PARTNER_LABEL}={name}"))
}

/// Does what the operator does with requests, short of checking them.
struct Operator {
    name: String,
    objects: Api<PartnerConnection>,
    requests: Api<CertificateSigningRequest>,
    ca: Arc<Ca>,
    mood: Arc<Mutex<Mood>>,
}

impl Operator {
    async fn run(self) {
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let Ok(all) = self.requests.list(&of(&self.name)).await else { continue };
            for request in all
                .items
                .into_iter()
                .filter(|r| r.status.as_ref().is_none_or(|s| s.certificate.is_none() && s.conditions.is_none()))
            {
                let mood = self.mood.lock().unwrap().clone();
                match mood {
                    Mood::Sleeps => {}
                    Mood::Signs => self.sign(&request).await,
                    Mood::Denies(reason) => self.condition(&request.name_any(), "Denied", reason).await,
                }
            }
        }
    }

    async fn condition(&self, name: &str, kind: &str, reason: &str) {
        let patch =
            json!({"status": {"conditions": [{"type": kind, "status": "True", "reason": reason, "message": ""}]}});
        self.requests.patch_approval(name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    }

    async fn sign(&self, request: &CertificateSigningRequest) {
        let pem = String::from_utf8(request.spec.request.0.clone()).unwrap();
        let (chain, sha256) = self.ca.sign(&pem, &format!("spiffe://{DOMAIN}/partner/{}", self.name));
        let object = self.objects.get(&self.name).await.unwrap();
        let mut status = serde_json::to_value(object.status.unwrap()).unwrap();
        let key = public_key_sha256(&pem).unwrap();
        let mut all = status["certificates"].as_array().cloned().unwrap_or_default();
        all.push(json!({
            "sha256": sha256, "publicKeySha256": key, "keyFirstSeen": "2026-01-01T00:00:00Z", "chain": chain,
            "enrolledBy": request.name_any(), "notBefore": "2020-01-01T00:00:00Z", "notAfter": "2200-01-01T00:00:00Z",
        }));
        status["certificates"] = json!(all);
        if request.annotations().contains_key(TOKEN_PROOF) {
            status["enrolment"]["usedBy"] = json!(key);
        }
        let patch = json!({"status": status});
        self.objects.patch_status(&self.name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
        self.condition(&request.name_any(), "Approved", "Checked").await;
        let patch = json!({"status": {"certificate": ByteString(chain.into_bytes())}});
        self.requests.patch_status(&request.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    }
}

/// Makes a key and a request: `NAME.key`, `NAME.b64`.
fn key(name: &str, curve: &str) -> String {
    format!(
        "openssl ecparam -name {curve} -genkey -noout -out {name}.key\n\
         openssl req -new -key {name}.key -subj /CN=whatever -outform DER | openssl base64 -out {name}.b64\n"
    )
}

/// Sends `NAME.b64` with the token of the file `token`; prints the status, leaves the answer in `NAME.answer`.
fn enroll(name: &str, user: &str) -> String {
    format!(
        "est simpleenroll -u {user}:$(cat token) -H 'Content-Type: application/pkcs10' --data-binary @{name}.b64 \
         -D {name}.head -o {name}.answer -w '%{{http_code}}\n'\n"
    )
}

/// Makes `NAME.pem`, the chain, of `NAME.answer`.
fn unpack(name: &str) -> String {
    format!(
        "openssl base64 -d -in {name}.answer | openssl pkcs7 -inform DER -print_certs -out {name}.leaf\n\
         est cacerts | openssl base64 -d | openssl pkcs7 -inform DER -print_certs -out cacerts.pem\n\
         cat {name}.leaf cacerts.pem > {name}.pem\n"
    )
}

#[track_caller]
fn text(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    out.trim().to_owned()
}

#[test]
fn curl_and_openssl_are_enough_and_a_token_is_good_for_one_key() {
    let (a, b) = (format!("a{}", unique()), format!("b{}", unique()));
    let mut world = World::new(&[&a, &b], 41);
    let (pa, pb) = (world.partner(&a, 41), world.partner(&b, 42));

    // Six send the same at once, while nobody answers: they are told to come again, and it is one request.
    world.set(Mood::Sleeps);
    text(&pa.sh(&(key("one", "prime256v1") + &key("two", "prime256v1") + &key("three", "secp384r1"))));
    let threads: Vec<_> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..6).map(|_| scope.spawn(|| text(&pa.sh(&enroll("one", &a))))).collect();
        all.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(threads, ["202"; 6]);
    assert!(text(&pa.sh("cat one.head")).to_lowercase().contains("retry-after: 10"));
    let asked = world.asked(&a);
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].annotations()[TOKEN_PROOF], proof(&format!("{TOKEN}-{a}")));
    assert!(!serde_json::to_string(&asked).unwrap().contains(TOKEN), "the token itself is in no object (I10)");

    // The gateway is another process by the time the operator is back: the same request gets its answer.
    world.stop();
    world.set(Mood::Signs);
    world.start();
    pa.configure(&world.public_key, world.config.wg_port);
    pb.configure(&world.public_key, world.config.wg_port);
    eventually("it answers again", Duration::from_secs(15), || pa.sh("est cacerts -m 2 -o /dev/null").status.success());
    assert_eq!(text(&pa.sh(&enroll("one", &a))), "200");
    text(&pa.sh(&unpack("one")));
    let verified = pa.sh("openssl verify -purpose sslclient -CAfile root.pem -untrusted cacerts.pem one.leaf");
    assert!(text(&verified).contains("one.leaf: OK"));
    let same = "openssl pkey -in one.key -pubout | cmp - <(openssl x509 -in one.leaf -pubkey -noout)";
    text(&pa.sh(&format!("bash -c '{same}'")));
    let echo = |p: &Partner, name: &str| {
        let (chain, key) = (p.file(&format!("{name}.pem")), p.file(&format!("{name}.key")));
        p.curl_anonymous("/echo", &["--cert", &chain, "--key", &key]).status.success()
    };
    assert!(echo(&pa, "one"), "who has the certificate can use it at once");

    // The token is used: the same again gets the same, another key nothing.
    text(&pa.sh("cp one.answer first.answer"));
    assert_eq!(text(&pa.sh(&enroll("one", &a))), "200");
    text(&pa.sh("cmp one.answer first.answer"));
    assert_eq!(text(&pa.sh(&enroll("two", &a))), "403");
    assert!(text(&pa.sh("cat two.answer")).contains("Le jeton a été utilisé"));
    assert_eq!(world.asked(&a).len(), 1, "nothing was asked for it");

    // A stolen token over another tunnel: under the thief's name or the owner's.
    text(&pb.sh(&format!("{}printf %s {TOKEN}-{a} > token\n", key("thief", "prime256v1"))));
    assert_eq!((text(&pb.sh(&enroll("thief", &a))), text(&pb.sh(&enroll("thief", &b)))), ("401".into(), "401".into()));
    assert!(text(&pb.sh("cat thief.head")).to_lowercase().contains("www-authenticate: basic"));
    assert!(world.asked(&b).is_empty());

    // Renewal by the certificate in use, for a key of another curve; both serve.
    let renew = |name: &str, with: &str| {
        format!(
            "est simplereenroll --cert {with}.pem --key {with}.key -H 'Content-Type: application/pkcs10' \
             --data-binary @{name}.b64 -o {name}.answer -w '%{{http_code}}\n'\n"
        )
    };
    assert_eq!(text(&pa.sh(&renew("three", "one"))), "200");
    text(&pa.sh(&unpack("three")));
    assert!(echo(&pa, "one") && echo(&pa, "three"));
    let by = world.asked(&a).into_iter().filter_map(|request| request.annotations().get(LEAF).cloned());
    let of_one = "openssl x509 -in one.leaf -outform DER | sha256sum | cut -d' ' -f1";
    assert_eq!(by.collect::<Vec<_>>(), [text(&pa.sh(of_one))]);

    // Without a certificate it is no renewal, and with another partner's there is no connection.
    let anonymous = renew("two", "one").replace("--cert one.pem --key one.key", "");
    assert_eq!(text(&pa.sh(&anonymous)), "403");
    for file in ["one.pem", "one.key"] {
        std::fs::copy(pa.file(file), pb.file(file)).unwrap();
    }
    assert!(!pb.sh(&renew("thief", "one")).status.success());
    assert!(world.asked(&b).is_empty());

    // What the operator denies is told.
    world.set(Mood::Denies("KeyRevoked"));
    assert_eq!(text(&pa.sh(&renew("two", "one"))), "403");
    assert!(text(&pa.sh("cat two.answer")).contains("Make a new key"));

    // I10: neither the token nor what travelled for it is in a log, at any level that is ours.
    let log = String::from_utf8_lossy(&LOG.lock().unwrap()).into_owned();
    let sent = text(&pa.sh(&format!("printf %s '{a}:{TOKEN}-{a}' | openssl base64 -A")));
    assert!(log.contains("enrolment answered") && log.contains(&a));
    assert!(!log.contains(TOKEN) && !log.contains(&sent));

    // The manifest takes it away: the service, and what was got by it.
    world.spec(&a, &json!({"credentials": {"certificate": {"enrolment": null, "signingRequests": [pa.leaf.request]}}}));
    eventually("it is closed", Duration::from_secs(10), || !pa.sh("est cacerts -m 2").status.success());
    assert!(!echo(&pa, "one") && !echo(&pa, "three"));
    // Revoked: not even a connection.
    world.spec(&b, &json!({"revocation": {"revoked": true}}));
    eventually("it is closed", Duration::from_secs(10), || !pb.sh("est cacerts -m 1").status.success());
    world.end(&[&a, &b]);
}

/// The commands of the partner kit's section on enrolment, as they stand there, for this partner.
fn kit(text: &str, partner: &Partner) -> Vec<String> {
    let section = text.split_once("\n## 9. ").unwrap().1.split("\n## ").next().unwrap();
    let blocks = section.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap());
    let placed = blocks.map(|block| {
        block
            .replace("cd /etc/liaison", "cd .")
            .replace("vancouver-police.liaison.example.ca", &partner.server_name())
            .replace("100.72.0.0", &partner.addresses().0)
            .replace("systemctl reload nginx", "echo reloaded")
    });
    placed.collect()
}

#[test]
fn the_commands_of_the_partner_kit_do_what_it_says() {
    let a = format!("d{}", unique());
    let world = World::new(&[&a], 44);
    let pa = world.partner(&a, 44);
    pa.write("token", &format!("user = \"{a}:{TOKEN}-{a}\"\n"));
    std::fs::copy(pa.file("root.pem"), pa.file("ca.pem")).unwrap();
    let bash = |script: &str| {
        pa.write("script", script);
        text(&pa.sh("bash -eu script"))
    };
    let (english, french) = (
        kit(include_str!("../../../docs/partner-kit/README.md"), &pa),
        kit(include_str!("../../../docs/partner-kit/README.fr.md"), &pa),
    );
    assert_eq!((english.len(), french.len()), (3, 3));
    bash(&format!("{}{}", english[0], english[1]));
    let echo = || {
        let identity = [pa.file("chain.pem"), pa.file("tls.key")];
        pa.curl_anonymous("/echo", &["--cert", &identity[0], "--key", &identity[1]]).status.success()
    };
    assert!(echo() && !std::path::Path::new(&pa.file("token")).exists());
    let first = std::fs::read(pa.file("chain.pem")).unwrap();
    assert!(bash(&format!("{}{}", french[0], french[2])).ends_with("reloaded"));
    assert!(echo() && std::fs::read(pa.file("chain.pem")).unwrap() != first);
    // What is refused ends the job with the reason, and leaves what there is.
    world.set(Mood::Denies("KeyRevoked"));
    pa.write("script", &format!("{}{}", english[0], english[2]));
    let refused = pa.sh("bash -eu script");
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stdout).contains("Make a new key"));
    assert!(echo());
    world.end(&[&a]);
}

#[test]
fn nothing_else_is_served_there() {
    let a = format!("c{}", unique());
    let world = World::new(&[&a], 43);
    let pa = world.partner(&a, 43);
    text(&pa.sh(&key("one", "prime256v1")));
    let code =
        |path: &str, arguments: &str| text(&pa.sh(&format!("est {path} -o body -w '%{{http_code}}' {arguments}")));
    let token = format!("-u {a}:{TOKEN}-{a}");
    let kind = "-H Content-Type:application/pkcs10";
    let post = |body: &str| format!("{token} {kind} --data-binary {body}");

    assert_eq!(code("csrattrs", ""), "204");
    for path in ["x", "simpleenrol", "../../echo", "../../api/terms", "cacerts/x", "fullcmc"] {
        assert_eq!(code(path, "--path-as-is"), "404", "{path}");
    }
    assert_eq!(code("cacerts", "-X POST -d x"), "404");
    assert_eq!(code("simpleenroll", "-X PUT -d x"), "404");
    assert!(std::fs::read_to_string(pa.file("body")).unwrap().contains("Seuls"));
    assert_eq!(code("cacerts", "-H 'Host: another.liaison.example.ca'"), "421");

    assert_eq!(code("simpleenroll", &format!("{kind} --data-binary @one.b64")), "401", "no token");
    assert_eq!(code("simpleenroll", &post("@one.b64").replace(TOKEN, "another")), "401");
    assert_eq!(code("simpleenroll", &post("@one.b64").replace(kind, "")), "415");
    assert_eq!(code("simpleenroll", &post("garbage")), "400");
    text(&pa.sh("head -c 20000 /dev/zero | tr '\\0' A > big"));
    let broken = "openssl base64 -d -in one.b64 -out one.der; head -c 8 /dev/zero | dd of=one.der conv=notrunc bs=1 \
                  seek=$(($(stat -c %s one.der) - 8)) 2>/dev/null; openssl base64 -in one.der -out broken.b64";
    text(&pa.sh(broken));
    assert_eq!(code("simpleenroll", &post("@broken.b64")), "400", "not signed with its key");
    assert_eq!(code("simpleenroll", &post("@big")), "413");
    assert_eq!(code("simpleenroll", &(post("@big") + " -H Transfer-Encoding:chunked")), "413");
    assert!(world.asked(&a).is_empty());

    // TLS as strict as on the other port, and no certificate that is not the partner's.
    assert!(!pa.sh("est cacerts --tls-max 1.2").status.success());
    let unknown = world.ca.client(&format!("spiffe://{DOMAIN}/partner/{a}"));
    pa.write("unknown.pem", &unknown.chain);
    pa.write("unknown.key", &unknown.key);
    assert!(!pa.sh("est cacerts --cert unknown.pem --key unknown.key").status.success());
    // The health port is not reached through the tunnel.
    let health = format!("http://{}:{}/healthz", pa.addresses().0, world.config.health_addr.port());
    assert_eq!(run("curl", &["-sS", "-m", "5", &health]), "ok\n", "it is there");
    assert!(!pa.sh(&format!("curl -sS -m 1 {health}")).status.success());

    // One that asks without end is held back.
    let codes = text(&pa.sh(&format!(
        "for i in $(seq 20); do {}; done",
        "est simpleenroll -X POST -d x -o /dev/null -w '%{http_code} '"
    )));
    assert!(codes.ends_with("429"), "{codes}");
    world.end(&[&a]);
}
