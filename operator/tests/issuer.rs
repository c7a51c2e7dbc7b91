//! Certificates from cert-manager: its own approver, issuer controller and CA signer, against a real API server.
//! Needs TEST_CERT_MANAGER (`tests/cluster/services env`).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::large_futures)]

mod common;

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use common::{Process, Stage, connection, said};
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::Secret, apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
    core::{ApiResource, DynamicObject, GroupVersionKind},
    runtime::{conditions::is_crd_established, wait::await_condition},
};
use liaison_crds::PartnerConnection;
use liaison_operator::{
    ca, crl, install, observe,
    partner_connection::{issuer, plan},
};
use serde_json::{Value, json};

fn program() -> PathBuf {
    let path = std::env::var("TEST_CERT_MANAGER").expect(
        "TEST_CERT_MANAGER must name a directory: tests/cluster/services up; eval \"$(tests/cluster/services env)\"",
    );
    PathBuf::from(path)
}

async fn definitions(stage: &Stage) {
    let crds: Api<CustomResourceDefinition> = Api::all(stage.client.clone());
    for file in ["cert-manager.io_issuers.yaml", "cert-manager.io_certificaterequests.yaml"] {
        let text = std::fs::read_to_string(program().join(file)).unwrap();
        let crd: CustomResourceDefinition = serde_saphyr::from_str(&text).unwrap();
        let name = crd.name_any();
        crds.patch(&name, &PatchParams::apply("liaison-tests").force(), &Patch::Apply(&crd)).await.unwrap();
        await_condition(crds.clone(), &name, is_crd_established()).await.unwrap();
    }
}

fn requests(stage: &Stage) -> Api<DynamicObject> {
    Api::namespaced_with(stage.client.clone(), &stage.settings.partners_namespace, &issuer::api_resource())
}

fn start(stage: &Stage) -> Process {
    let child = Command::new(program().join("certmanager"))
        .args(["--kubeconfig", &std::env::var("TEST_KUBECONFIG").unwrap()])
        .args(["--namespace", &stage.settings.partners_namespace])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    Process(child)
}

/// A CA of somebody else's, and cert-manager's issuer for it.
async fn ministry(stage: &Stage) -> String {
    let root = ca::make_root("ministry", 1, Timestamp::now(), rand::random()).unwrap();
    let secrets: Api<Secret> = stage.partners();
    let data = [("tls.crt", &root.certificate), ("tls.key", &root.key.0)];
    let data = data.into_iter().map(|(key, value)| (key.to_owned(), install::bytes(value))).collect();
    secrets.create(&PostParams::default(), &install::secret("ministry", "kubernetes.io/tls", data)).await.unwrap();
    let kind = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("cert-manager.io", "v1", "Issuer"), "issuers");
    let issuers: Api<DynamicObject> =
        Api::namespaced_with(stage.client.clone(), &stage.settings.partners_namespace, &kind);
    let object = DynamicObject::new("ministry", &kind).data(json!({"spec": {"ca": {"secretName": "ministry"}}}));
    issuers.create(&PostParams::default(), &object).await.unwrap();
    root.certificate
}

/// A connection whose request asks for these names.
fn asking(name: &str, uris: &[&str]) -> Value {
    let mut object = connection(name);
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.subject_alt_names = uris.iter().map(|uri| rcgen::SanType::URI((*uri).try_into().unwrap())).collect();
    let request = params.serialize_request(&key).unwrap().pem().unwrap();
    object["spec"]["credentials"]["certificate"] =
        json!({"signingRequests": [request], "issuerRef": {"name": "ministry"}});
    object
}

static SECONDS: AtomicI64 = AtomicI64::new(0);

fn now() -> Timestamp {
    Timestamp::from_second(Timestamp::now().as_second() + SECONDS.load(Ordering::SeqCst)).unwrap()
}

async fn until(stage: &Stage, name: &str, reason: &str) -> PartnerConnection {
    for _ in 0..200 {
        stage.settle(name).await;
        let object = stage.get(name).await.unwrap();
        if said(&object, "CredentialsReady").1 == reason {
            return object;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{name} is not {reason}: {:?}", said(&stage.get(name).await.unwrap(), "CredentialsReady"));
}

#[tokio::test]
async fn an_issuer_of_cert_manager_issues_and_what_it_refuses_is_asked_again() {
    let mut stage = Stage::new("issuer").await;
    std::sync::Arc::get_mut(&mut stage.ctx).unwrap().clock = now;
    definitions(&stage).await;
    stage.agree(&["p", "q"]).await;
    let own = plan::spiffe("p", &stage.settings.domain);

    // A request for somebody else's name is not even passed on.
    stage.apply(&asking("p", &[&plan::spiffe("q", &stage.settings.domain)])).await;
    let refused = until(&stage, "p", "InvalidSigningRequest").await;
    assert!(said(&refused, "CredentialsReady").2.contains(&own), "it says which");
    assert!(requests(&stage).list(&ListParams::default()).await.unwrap().items.is_empty());

    let good = asking("p", &[&own]);
    stage.apply(&good).await;
    let waiting = until(&stage, "p", "IssuerPending").await;
    assert_eq!(said(&waiting, "Ready").0, "False");
    let writes = stage.writes.count.load(Ordering::SeqCst);
    stage.reconcile("p").await.unwrap();
    assert_eq!(stage.writes.count.load(Ordering::SeqCst), writes, "asked once");

    // Nobody is there yet to answer. Then somebody is, who knows no such issuer; then the issuer comes.
    let controllers = start(&stage);
    for _ in 0..200 {
        if said(&until(&stage, "p", "IssuerPending").await, "CredentialsReady").2.contains("not found") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let root = ministry(&stage).await;
    let issued = until(&stage, "p", "Issued").await;
    let held = issued.status.clone().unwrap().certificates;
    assert_eq!((held.len(), held[0].issued_by.as_deref()), (1, Some("cert-manager.io/Issuer/ministry")));
    assert!(ca::is_signed_by(&held[0].chain, &root));
    assert_eq!(held[0].not_after.0.as_second() - held[0].not_before.0.as_second(), 30 * 86_400);
    stage.settle("p").await;
    assert_eq!(said(&stage.get("p").await.unwrap(), "Ready").0, "True");
    stage.writes.count.store(0, Ordering::SeqCst);
    stage.reconcile("p").await.unwrap();
    assert_eq!(stage.writes.count.load(Ordering::SeqCst), 0, "I9");
    // It is nobody's whom a rotation of Liaison's CA waits for, and on no list of its.
    let observed = observe::observe(&stage.client, &stage.settings).await.unwrap();
    assert!(observed.leaves.is_empty());
    assert_eq!(crl::note(held.iter(), now()), None);

    // At two thirds of its life the next is asked for, and both are accepted.
    SECONDS.store(21 * 86_400, Ordering::SeqCst);
    for _ in 0..200 {
        // cert-manager has a clock of its own: what it issues is old by this one, and does not settle.
        stage.reconcile("p").await.unwrap();
        if stage.get("p").await.unwrap().status.unwrap().certificates.len() > 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let after = stage.get("p").await.unwrap().status.unwrap().certificates;
    assert!(after.iter().any(|other| other.sha256 == held[0].sha256), "both are accepted");
    assert!(after.iter().all(|held| held.issued_by.is_some()));
    SECONDS.store(0, Ordering::SeqCst);
    drop(controllers);

    // One that is denied, which here a person does: again after half a minute, and not before.
    stage.apply(&asking("q", &[&plan::spiffe("q", &stage.settings.domain)])).await;
    until(&stage, "q", "IssuerPending").await;
    let of_q = ListParams::default().labels("federation.csc-scc.gc.ca/partner=q");
    let first = requests(&stage).list(&of_q).await.unwrap().items.remove(0).name_any();
    let time = now();
    let denied = json!({"status": {"conditions": [
        {"type": "Denied", "status": "True", "reason": "Person", "message": "not for you", "lastTransitionTime": time},
    ]}});
    requests(&stage).patch_status(&first, &PatchParams::default(), &Patch::Merge(&denied)).await.unwrap();
    let refused = until(&stage, "q", "IssuerRefused").await;
    assert!(said(&refused, "CredentialsReady").2.contains("not for you"));
    SECONDS.store(10, Ordering::SeqCst);
    until(&stage, "q", "IssuerRefused").await;
    SECONDS.store(60, Ordering::SeqCst);
    let _controllers = start(&stage);
    let issued = until(&stage, "q", "Issued").await;
    assert_eq!(issued.status.unwrap().certificates.len(), 1);
    assert_eq!(requests(&stage).list(&of_q).await.unwrap().items.len(), 2);

    // Back to Liaison's own CA: another certificate at once, beside the one that is in use.
    let mut object = good.clone();
    object["spec"]["credentials"]["certificate"].as_object_mut().unwrap().remove("issuerRef");
    stage.apply(&object).await;
    stage.settle("p").await;
    let both = stage.get("p").await.unwrap().status.unwrap().certificates;
    assert!(both[0].issued_by.is_none() && both.iter().any(|held| held.issued_by.is_some()));
}
