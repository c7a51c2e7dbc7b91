//! Certificates that partners ask for themselves, against a real API server: requests made as the gateway's account makes them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::large_futures)]

mod common;

use std::{
    process::Command,
    sync::{Arc, atomic::Ordering},
};

use common::{Stage, config, connection, said, start, terminate, until};
use jiff::Timestamp;
use k8s_openapi::{
    ByteString,
    api::{
        certificates::v1::CertificateSigningRequest,
        coordination::v1::Lease,
        core::v1::{ConfigMap, Secret},
        rbac::v1::{ClusterRole, ClusterRoleBinding},
    },
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    core::{DeserializeGuard, DynamicObject, GroupVersionKind},
    discovery::ApiResource,
};
use liaison_crds::{
    PARTNER_LABEL, PartnerConnection, REVOKED_ANNOTATION,
    enrolment::{Grounds, NAMESPACE_LABEL, SIGNER, digest, proof},
};
use liaison_operator::{context::Context, install, metrics::Metrics, partner_connection};
use serde_json::{Value, json};

/// The gateway's account, with what the chart gives it.
struct Gateway {
    client: Client,
    admin: Client,
    role: String,
    namespace: String,
}

impl Gateway {
    async fn new(stage: &Stage) -> Self {
        let namespace = &stage.settings.gateway_namespace;
        let role = format!("{namespace}-enrolment");
        let rules = json!([{"apiGroups": ["certificates.k8s.io"], "resources": ["certificatesigningrequests"], "verbs": ["create", "get"]}]);
        let object: ClusterRole = serde_json::from_value(json!({"metadata": {"name": role}, "rules": rules})).unwrap();
        Api::all(stage.client.clone()).create(&PostParams::default(), &object).await.unwrap();
        let binding: ClusterRoleBinding = serde_json::from_value(json!({
            "metadata": {"name": role},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": "liaison-gateway", "namespace": namespace}],
        }))
        .unwrap();
        Api::all(stage.client.clone()).create(&PostParams::default(), &binding).await.unwrap();
        let mut config = config().await;
        config.auth_info.impersonate = Some(format!("system:serviceaccount:{namespace}:liaison-gateway"));
        Self {
            client: Client::try_from(config).unwrap(),
            admin: stage.client.clone(),
            role,
            namespace: stage.settings.partners_namespace.clone(),
        }
    }

    async fn end(self, partner: &str) {
        let requests: Api<CertificateSigningRequest> = Api::all(self.admin.clone());
        let of = ListParams::default().labels(&format!("{PARTNER_LABEL}={partner}"));
        requests.delete_collection(&DeleteParams::default(), &of).await.unwrap();
        Api::<ClusterRoleBinding>::all(self.admin.clone()).delete(&self.role, &DeleteParams::default()).await.unwrap();
        Api::<ClusterRole>::all(self.admin).delete(&self.role, &DeleteParams::default()).await.unwrap();
    }

    fn requests(&self) -> Api<CertificateSigningRequest> {
        Api::all(self.client.clone())
    }

    /// Asks for a certificate for a new key; returns the object's name.
    async fn ask(&self, partner: &str, grounds: &Grounds) -> String {
        self.ask_for(partner, grounds, &request()).await
    }

    async fn ask_for(&self, partner: &str, grounds: &Grounds, pem: &str) -> String {
        let object = self.object(partner, grounds, pem);
        self.requests().create(&PostParams::default(), &object).await.unwrap().name_any()
    }

    fn object(&self, partner: &str, grounds: &Grounds, pem: &str) -> CertificateSigningRequest {
        let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
        let (annotation, value) = grounds.annotation();
        serde_json::from_value(json!({
            "metadata": {
                "name": grounds.object_name(&self.namespace, partner, &block.contents),
                "labels": {PARTNER_LABEL: partner, NAMESPACE_LABEL: self.namespace},
                "annotations": {annotation: value},
            },
            "spec": {
                "signerName": SIGNER, "request": ByteString(pem.as_bytes().to_vec()), "usages": ["digital signature", "client auth"],
            },
        }))
        .unwrap()
    }

    /// The chain that was published, or why it was denied.
    async fn answer(&self, name: &str) -> Result<String, String> {
        let status = self.requests().get(name).await.unwrap().status.unwrap_or_default();
        if let Some(chain) = status.certificate {
            let approved = status.conditions.unwrap().iter().any(|condition| condition.type_ == "Approved");
            assert!(approved, "signed without approval");
            return Ok(String::from_utf8(chain.0).unwrap());
        }
        let denied = status.conditions.into_iter().flatten().find(|c| matches!(c.type_.as_str(), "Denied" | "Failed"));
        Err(denied.and_then(|condition| condition.reason).unwrap_or_else(|| "no answer".to_owned()))
    }
}

fn request() -> String {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    // Whatever it asks for.
    let params = rcgen::CertificateParams::new(vec!["another-partner.liaison.example.ca".to_owned()]).unwrap();
    params.serialize_request(&key).unwrap().pem().unwrap()
}

/// A manifest without a request, with a token of this number.
fn enrolling(partner: &str, number: i32) -> Value {
    let mut object = connection(partner);
    object["spec"]["credentials"]["certificate"] = json!({"enrolment": {"tokenNumber": number}});
    object
}

async fn token(stage: &Stage, partner: &str) -> Option<String> {
    let secret: Option<Secret> = stage.system().get_opt(&format!("enrolment-{partner}")).await.unwrap();
    secret.and_then(|secret| install::text(&secret, "token"))
}

fn enrolled(live: &PartnerConnection) -> Vec<String> {
    let held = live.status.iter().flat_map(|status| &status.certificates);
    held.filter_map(|held| held.enrolled_by.clone()).collect()
}

#[tokio::test]
async fn a_partner_enrols_with_its_token_and_renews_with_its_certificate() {
    let stage = Stage::new("enrol").await;
    let gateway = Gateway::new(&stage).await;
    let p = format!("p{}", std::process::id());
    stage.agree(&[&p]).await;
    stage.apply(&enrolling(&p, 1)).await;
    stage.settle(&p).await;
    let live = stage.get(&p).await.unwrap();
    // Whoever onboards a partner need not wait for it.
    assert_eq!(
        (said(&live, "Ready").0, said(&live, "CredentialsReady").1),
        ("True".into(), "AwaitingEnrolment".into())
    );
    let secret = token(&stage, &p).await.unwrap();
    let known = live.status.as_ref().unwrap().enrolment.clone().unwrap();
    assert_eq!((known.token_digest, known.used_by), (digest(&proof(&secret)), None));
    assert!(!serde_json::to_string(&live).unwrap().contains(&secret), "I10");
    stage.writes.count.store(0, Ordering::SeqCst);
    stage.reconcile(&p).await.unwrap();
    assert_eq!(stage.writes.count.load(Ordering::SeqCst), 0, "I9");

    // What anybody else asks, or without the token, or with grounds of somebody else's.
    let by_token = Grounds::Token(proof(&secret));
    let requests: Api<CertificateSigningRequest> = Api::all(stage.client.clone());
    let stranger =
        requests.create(&PostParams::default(), &gateway.object(&p, &by_token, &request())).await.unwrap().name_any();
    let guessed = gateway.ask(&p, &Grounds::Token(proof("guessed"))).await;
    let leafless = gateway.ask(&p, &Grounds::Leaf("ab".repeat(32))).await;
    let invalid = gateway.ask_for(&p, &by_token, &weak()).await;
    stage.settle(&p).await;
    for (name, reason) in [
        (&stranger, "NotTheGateway"),
        (&guessed, "TokenUnknown"),
        (&leafless, "LeafUnknown"),
        (&invalid, "RequestInvalid"),
    ] {
        assert_eq!(gateway.answer(name).await, Err(reason.into()));
    }
    assert!(enrolled(&stage.get(&p).await.unwrap()).is_empty() && token(&stage, &p).await.is_some());

    // Two keys race with one token, before two operators: one gets a certificate.
    let both = [gateway.ask(&p, &by_token).await, gateway.ask(&p, &by_token).await];
    let other = another(&stage).await;
    let guard = || Arc::new(DeserializeGuard(Ok(live.clone())));
    let _ = tokio::join!(
        Box::pin(partner_connection::reconcile(guard(), stage.ctx.clone())),
        Box::pin(partner_connection::reconcile(guard(), other)),
    );
    stage.settle(&p).await;
    let answers = [gateway.answer(&both[0]).await, gateway.answer(&both[1]).await];
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1, "{answers:?}");
    assert!(answers.contains(&Err("TokenUsed".into())), "{answers:?}");
    let chain = answers.iter().flatten().next().unwrap().clone();
    let live = stage.get(&p).await.unwrap();
    let status = live.status.as_ref().unwrap();
    assert_eq!(
        (status.certificates.len(), &status.certificates[0].chain),
        (1, &chain),
        "what is out is what is accepted"
    );
    assert!(status.enrolment.as_ref().unwrap().used_by.is_some() && token(&stage, &p).await.is_none());
    assert_eq!((said(&live, "CredentialsReady").1.as_str(), said(&live, "Ready").0.as_str()), ("Issued", "True"));
    let (_, pem) = x509_parser::pem::parse_x509_pem(chain.as_bytes()).unwrap();
    let leaf = pem.parse_x509().unwrap();
    let names = format!("{:?} {}", leaf.subject_alternative_name().unwrap(), leaf.subject());
    assert!(names.contains(&format!("/partner/{p}")) && !names.contains("another-partner"), "{names}");
    assert_eq!(chain.matches("BEGIN CERTIFICATE").count(), 2);
    stage.writes.count.store(0, Ordering::SeqCst);
    stage.reconcile(&p).await.unwrap();
    assert_eq!(stage.writes.count.load(Ordering::SeqCst), 0, "I9");

    // Renewal by the leaf, twice by the same: the one in use stays.
    let first = status.certificates[0].sha256.clone();
    let mut last = String::new();
    for _ in 0..2 {
        last = gateway.ask(&p, &Grounds::Leaf(first.clone())).await;
        stage.settle(&p).await;
        assert!(gateway.answer(&last).await.is_ok());
    }
    let live = stage.get(&p).await.unwrap();
    assert_eq!(enrolled(&live)[0], last);
    let held: Vec<_> = live.status.as_ref().unwrap().certificates.iter().map(|held| &held.sha256).collect();
    assert!(held.len() == 2 && held.contains(&&first), "{held:?}");
    // The claim of the key that is no longer certified is free.
    let claims = stage.held(&p).await.iter().filter(|name| *name == "Lease csrkey-").count();
    assert_eq!(claims, 2);

    a_revocation_takes_it_all(&stage, &gateway, &p).await;

    // Deleted: nothing is left but what was revoked.
    stage.delete(&p).await;
    stage.settle(&p).await;
    let left = stage.held(&p).await;
    assert!(
        left.iter().all(|name| name.starts_with("Job ") || name == "Lease csrkey-" || name == "Lease wgkey-"),
        "{left:?}"
    );
    gateway.end(&p).await;
}

/// Certificates and token go; afterwards there is another token, and the keys stay revoked.
async fn a_revocation_takes_it_all(stage: &Stage, gateway: &Gateway, p: &str) {
    let mut object = enrolling(p, 2);
    stage.apply(&object).await;
    stage.settle(p).await;
    let second = token(stage, p).await.unwrap();
    object["spec"]["revocation"] = json!({"revoked": true});
    stage.apply(&object).await;
    let late = gateway.ask(p, &Grounds::Token(proof(&second))).await;
    stage.settle(p).await;
    let live = stage.get(p).await.unwrap();
    assert!(enrolled(&live).is_empty() && live.status.unwrap().enrolment.is_none() && token(stage, p).await.is_none());
    assert_eq!(gateway.answer(&late).await, Err("NotAuthorized".into()));
    object["spec"]["revocation"] = json!({"revoked": false});
    object["spec"]["credentials"]["wireGuard"] = connection(p)["spec"]["credentials"]["wireGuard"].clone();
    stage.apply(&object).await;
    stage.settle(p).await;
    let third = token(stage, p).await.unwrap();
    assert_ne!(second, third);
    let old = gateway.ask(p, &Grounds::Token(proof(&second))).await;
    stage.settle(p).await;
    assert_eq!(gateway.answer(&old).await, Err("TokenUnknown".into()));
}

#[tokio::test]
async fn i6_what_a_revoked_leaf_or_token_brought_goes_with_it_however_new() {
    let stage = Stage::new("enroldated").await;
    let gateway = Gateway::new(&stage).await;
    let p = format!("r{}", std::process::id());
    stage.agree(&[&p]).await;
    let mut object = enrolling(&p, 1);
    stage.apply(&object).await;
    stage.settle(&p).await;
    let first = gateway.ask(&p, &Grounds::Token(proof(&token(&stage, &p).await.unwrap()))).await;
    stage.settle(&p).await;
    assert!(gateway.answer(&first).await.is_ok());
    // As if that had been last year.
    let leases: Api<Lease> = stage.system();
    let of_p = ListParams::default().labels(&format!("{PARTNER_LABEL}={p}"));
    for lease in leases.list(&of_p).await.unwrap() {
        let older = json!({"spec": {"acquireTime": "2025-01-01T00:00:00.000000Z"}});
        leases.patch(&lease.name_any(), &PatchParams::default(), &Patch::Merge(&older)).await.unwrap();
    }
    stage.settle(&p).await;

    // A renewal, and a renewal of that.
    let held = async || stage.get(&p).await.unwrap().status.unwrap().certificates;
    for _ in 0..2 {
        let newest = held().await[0].sha256.clone();
        let name = gateway.ask(&p, &Grounds::Leaf(newest)).await;
        stage.settle(&p).await;
        assert!(gateway.answer(&name).await.is_ok());
    }
    let before = held().await;
    let seen = before.iter().map(|held| held.key_first_seen.as_ref().unwrap().0.to_string());
    assert_eq!(seen.collect::<Vec<_>>(), ["2025-01-01T00:00:00Z"; 2]);

    // Both are younger than the date. One more is asked for before the operator hears of it.
    let late = gateway.ask(&p, &Grounds::Leaf(before[0].sha256.clone())).await;
    object["spec"]["revocation"] = json!({"revoked": false, "notBefore": "2025-06-01T00:00:00Z"});
    object["spec"]["credentials"]["wireGuard"] = connection(&p)["spec"]["credentials"]["wireGuard"].clone();
    stage.apply(&object).await;
    stage.settle(&p).await;
    assert!(held().await.is_empty());
    assert_eq!(gateway.answer(&late).await, Err("LeafUnknown".into()));
    let claims = leases.list(&of_p).await.unwrap();
    let revoked = claims.iter().filter(|lease| lease.annotations().contains_key(REVOKED_ANNOTATION));
    let keys = before.iter().map(|held| liaison_operator::claims::request_lease(&held.public_key_sha256));
    let revoked: Vec<_> = revoked.map(ResourceExt::name_any).collect();
    assert!(keys.clone().all(|key| revoked.contains(&key)), "{revoked:?}");

    // A new token begins anew.
    object["spec"]["credentials"]["certificate"]["enrolment"]["tokenNumber"] = json!(2);
    stage.apply(&object).await;
    stage.settle(&p).await;
    let again = gateway.ask(&p, &Grounds::Token(proof(&token(&stage, &p).await.unwrap()))).await;
    stage.settle(&p).await;
    assert!(gateway.answer(&again).await.is_ok() && held().await.len() == 1);
    stage.delete(&p).await;
    stage.settle(&p).await;
    gateway.end(&p).await;
}

#[tokio::test]
async fn i8_killed_at_any_write_a_request_gets_one_certificate_and_a_key_of_anothers_none() {
    let stage = Stage::new("enrolkill").await;
    let gateway = Gateway::new(&stage).await;
    let (p, q) = (format!("k{}", std::process::id()), format!("l{}", std::process::id()));
    stage.agree(&[&p, &q]).await;
    let mut object = enrolling(&p, 1);
    stage.apply(&object).await;
    stage.apply(&enrolling(&q, 1)).await;
    stage.settle(&q).await;
    let mut taken = String::new();
    for kills in 0..7 {
        object["spec"]["credentials"]["certificate"]["enrolment"]["tokenNumber"] = json!(kills + 1);
        stage.apply(&object).await;
        stage.settle(&p).await;
        taken = request();
        let name = gateway.ask_for(&p, &Grounds::Token(proof(&token(&stage, &p).await.unwrap())), &taken).await;
        stage.writes.left.store(kills, Ordering::SeqCst);
        stage.settle(&p).await;
        stage.writes.left.store(-1, Ordering::SeqCst);
        let chain = gateway.answer(&name).await.unwrap();
        let live = stage.get(&p).await.unwrap();
        let status = live.status.as_ref().unwrap();
        let held: Vec<_> = status.certificates.iter().filter(|held| held.enrolled_by.as_ref() == Some(&name)).collect();
        assert_eq!((held.len(), &held[0].chain), (1, &chain), "killed after write {kills}");
        assert!(token(&stage, &p).await.is_none());
    }

    // Another partner may not have p's key, and its token is not spent on it.
    let by_token = Grounds::Token(proof(&token(&stage, &q).await.unwrap()));
    let refused = gateway.ask_for(&q, &by_token, &taken).await;
    stage.settle(&q).await;
    assert_eq!(gateway.answer(&refused).await, Err("KeyInUse".into()));
    let fine = gateway.ask(&q, &by_token).await;
    stage.settle(&q).await;
    assert!(gateway.answer(&fine).await.is_ok());

    // Taken out of the manifest, it is over; p's certificates go.
    let mut object = connection(&p);
    object["spec"]["credentials"]["wireGuard"] =
        stage.get(&p).await.map(|live| json!(live.spec.credentials.wire_guard)).unwrap();
    stage.apply(&object).await;
    stage.settle(&p).await;
    let live = stage.get(&p).await.unwrap();
    assert!(enrolled(&live).is_empty() && live.status.as_ref().unwrap().enrolment.is_none());
    assert_eq!(stage.held(&p).await.iter().filter(|name| name.starts_with("Lease token")).count(), 0);
    for partner in [&p, &q] {
        stage.delete(partner).await;
        stage.settle(partner).await;
        assert!(stage.get(partner).await.is_none());
    }
    let requests: Api<CertificateSigningRequest> = Api::all(stage.client.clone());
    let of = ListParams::default().labels(&format!("{PARTNER_LABEL}={q}"));
    requests.delete_collection(&DeleteParams::default(), &of).await.unwrap();
    gateway.end(&p).await;
}

/// What of all Secrets of a test nobody else may ever show: bodies of keys, tokens, passwords.
async fn canaries(stage: &Stage) -> Vec<String> {
    let settings = &stage.settings;
    let public = ["tls.crt", "ca.crt", "username", "publicKey", "host", "port", "dbname"];
    let mut all = Vec::new();
    for namespace in [&settings.system_namespace, &settings.gateway_namespace, &settings.partners_namespace] {
        let secrets: Api<Secret> = Api::namespaced(stage.client.clone(), namespace);
        for secret in secrets.list(&ListParams::default()).await.unwrap() {
            for (key, value) in secret.data.iter().flatten().filter(|(key, _)| !public.contains(&key.as_str())) {
                let text = String::from_utf8(value.0.clone()).unwrap();
                // Of a PEM, a line of its body.
                let canary = text.lines().nth(1).unwrap_or(text.trim());
                assert!(canary.len() >= 16 || key == "sync-password", "{} {key}", secret.name_any());
                all.extend((canary.len() >= 16).then(|| canary.to_owned()));
            }
        }
    }
    all
}

/// Everything of a test that people and programs other than the operator read, as the API server has it.
async fn readable(stage: &Stage, partner: &str) -> String {
    let settings = &stage.settings;
    let mut text = serde_json::to_string(&stage.get(partner).await).unwrap();
    for namespace in [&settings.system_namespace, &settings.gateway_namespace, &settings.partners_namespace] {
        let api = |kind: &str, group: &str, version: &str| {
            let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
            Api::<DynamicObject>::namespaced_with(stage.client.clone(), namespace, &kind)
        };
        for api in [
            api("Event", "events.k8s.io", "v1"),
            api("Lease", "coordination.k8s.io", "v1"),
            api("ConfigMap", "", "v1"),
            api("Job", "batch", "v1"),
            api("Deployment", "apps", "v1"),
        ] {
            text += &serde_json::to_string(&api.list(&ListParams::default()).await.unwrap().items).unwrap();
        }
    }
    let requests: Api<CertificateSigningRequest> = Api::all(stage.client.clone());
    let of = ListParams::default().labels(&format!("{PARTNER_LABEL}={partner}"));
    text + &serde_json::to_string(&requests.list(&of).await.unwrap().items).unwrap()
}

#[tokio::test]
async fn i10_the_program_answers_by_its_watch_and_shows_no_secret() {
    let stage = Stage::new("enrolwatch").await;
    let gateway = Gateway::new(&stage).await;
    let p = format!("w{}", std::process::id());
    // And a partner whose keys Liaison makes.
    let k = format!("k{}", std::process::id());
    stage.agree(&[&p, &k]).await;
    let log = std::env::temp_dir().join(format!("{p}.log"));
    let mut program = start(&stage, "operator-a", Some(&log));
    let mut object = enrolling(&p, 1);
    let identity = String::from_utf8(Command::new("age-keygen").output().unwrap().stdout).unwrap();
    let recipient = identity.lines().find_map(|line| line.strip_prefix("# public key: ")).unwrap();
    object["spec"]["credentials"]["recipients"] = json!([recipient]);
    object["spec"]["credentials"]["wireGuard"]["presharedKey"] = json!("Required");
    stage.apply(&object).await;
    let mut keyless = connection(&k);
    keyless["spec"]["credentials"] =
        json!({"keyCustody": "Liaison", "wireGuard": {}, "certificate": {}, "recipients": [recipient]});
    stage.apply(&keyless).await;
    until("keys", &stage, async || said(&stage.get(&k).await.unwrap(), "Ready").0 == "True").await;
    let bundles: Api<ConfigMap> = stage.partners();
    let bundle = format!("bundle-{p}");
    until("the bundle", &stage, async || bundles.get_opt(&bundle).await.unwrap().is_some()).await;
    until("Ready", &stage, async || said(&stage.get(&p).await.unwrap(), "Ready").0 == "True").await;
    let mut secret = canaries(&stage).await;
    let keys: Secret = stage.system().get(&format!("keys-{k}-1")).await.unwrap();
    assert!(secret.contains(&install::text(&keys, "wireguard").unwrap()));
    let spent = token(&stage, &p).await.unwrap();
    let name = gateway.ask(&p, &Grounds::Token(proof(&spent))).await;
    until("the certificate", &stage, async || gateway.answer(&name).await.is_ok()).await;
    // Who uses the token has opened the bundle.
    until("the ledger has it", &stage, async || bundles.get_opt(&bundle).await.unwrap().is_none()).await;
    secret.extend(canaries(&stage).await);
    terminate(&mut program);

    let log_text = std::fs::read_to_string(&log).unwrap();
    std::fs::remove_file(&log).unwrap();
    assert!(log_text.contains("certificate request answered"), "{log_text}");
    let shown = readable(&stage, &p).await + &serde_json::to_string(&stage.get(&k).await).unwrap();
    assert!(
        shown.contains("Enrolled") && shown.contains("BundleWaits") && shown.contains(&name),
        "events and requests"
    );
    assert!(secret.contains(&spent) && secret.len() > 20, "{}", secret.len());
    for canary in &secret {
        assert!(!log_text.contains(canary.as_str()) && !shown.contains(canary.as_str()), "a secret is shown");
    }
    for partner in [&p, &k] {
        stage.delete(partner).await;
        stage.settle(partner).await;
    }
    gateway.end(&p).await;
}

/// A request for a key of a kind that is not issued for.
fn weak() -> String {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap()
}

/// Another operator, which believes to lead too.
async fn another(stage: &Stage) -> Arc<Context> {
    let installed = install::ensure(&stage.client, &stage.settings, Timestamp::now()).await.unwrap();
    let metrics = Arc::new(Metrics::default());
    let settings = stage.settings.clone();
    Arc::new(Context::new(stage.client.clone(), settings, installed, metrics).unwrap())
}
