//! Bundles of secrets against a real API server, opened with Debian's age.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::large_futures)]

mod common;

use std::{collections::BTreeMap, process::Command, sync::atomic::Ordering};

use common::{Stage, connection, said};
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{ConfigMap, Secret},
};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use liaison_crds::{PICKED_UP_ANNOTATION, PartnerConnection, preshared_entry, preshared_secret};
use liaison_operator::install;
use serde_json::json;
use sha2::{Digest, Sha256};

/// What Debian's age makes of a bundle: the files, by name.
fn open(sealed: &str, identity: &str) -> BTreeMap<String, String> {
    let directory = std::env::temp_dir().join(format!("bundle-{}-{:x}", std::process::id(), rand::random::<u32>()));
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("bundle.age"), sealed).unwrap();
    std::fs::write(directory.join("identity"), identity).unwrap();
    let script = "age -d -i identity bundle.age | tar -x && rm identity bundle.age";
    let output =
        Command::new("bash").args(["-euo", "pipefail", "-c", script]).current_dir(&directory).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let files = std::fs::read_dir(&directory).unwrap().map(|entry| {
        let entry = entry.unwrap();
        (entry.file_name().into_string().unwrap(), std::fs::read_to_string(entry.path()).unwrap())
    });
    let files = files.collect();
    std::fs::remove_dir_all(&directory).unwrap();
    files
}

async fn bundle(stage: &Stage, partner: &str) -> Option<String> {
    let object: Option<ConfigMap> = stage.partners().get_opt(&format!("bundle-{partner}")).await.unwrap();
    object.map(|object| object.data.unwrap()["bundle.age"].clone())
}

async fn pick_up(stage: &Stage, partner: &str, sealed: &str) {
    let sha256 = hex::encode(Sha256::digest(sealed));
    let patch = json!({"metadata": {"annotations": {PICKED_UP_ANNOTATION: sha256}}});
    let api: Api<PartnerConnection> = stage.partners();
    api.patch(partner, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
}

#[tokio::test]
async fn secrets_reach_a_partner_in_one_bundle_which_goes_once_the_ledger_has_it() {
    let stage = Stage::new("bundle").await;
    stage.agree(&["p"]).await;
    // age-keygen makes the partner's key; only its public half is in the manifest.
    let identity = String::from_utf8(Command::new("age-keygen").output().unwrap().stdout).unwrap();
    let recipient = identity.lines().find_map(|line| line.strip_prefix("# public key: ")).unwrap().to_owned();
    let mut object = connection("p");
    object["spec"]["credentials"]["recipients"] = json!([recipient]);
    object["spec"]["credentials"]["wireGuard"]["presharedKey"] = json!("Required");
    object["spec"]["credentials"]["certificate"]["enrolment"] = json!({"tokenNumber": 1});
    stage.apply(&object).await;
    stage.settle("p").await;
    let live = stage.get("p").await.unwrap();
    assert_eq!(said(&live, "Ready").0, "True");
    let waits = live.status.as_ref().unwrap().bundle.clone().unwrap();
    let sealed = bundle(&stage, "p").await.unwrap();
    assert_eq!((waits.sha256, waits.contents.len()), (Some(hex::encode(Sha256::digest(&sealed))), 2));
    stage.writes.count.store(0, Ordering::SeqCst);
    stage.reconcile("p").await.unwrap();
    assert_eq!(stage.writes.count.load(Ordering::SeqCst), 0, "I9");

    let files = open(&sealed, &identity);
    let secret: Secret = stage.system().get("enrolment-p").await.unwrap();
    let token = install::text(&secret, "token").unwrap();
    assert_eq!(files["token"], format!("user = \"p:{token}\"\n"));
    let key = live.spec.credentials.wire_guard.public_keys[0].clone();
    let entry = preshared_entry(&base64::Engine::decode(&base64::engine::general_purpose::STANDARD, &key).unwrap());
    let beside: Api<Secret> = Api::namespaced(stage.client.clone(), &stage.settings.gateway_namespace);
    let beside = beside.get(preshared_secret(&entry).unwrap()).await.unwrap();
    let shared = install::text(&beside, &entry).unwrap();
    assert_eq!(files[&format!("psk-{}", &entry[..8])].trim(), shared);
    assert!(files["letter.txt"].contains(&key) && files["letter.txt"].contains("Secrets pour p"));
    assert_eq!(files.len(), 3);
    // I10: what is in it stands in nothing that others read.
    let text = format!("{}{sealed}", serde_json::to_string(&live).unwrap());
    assert!(!text.contains(&token) && !text.contains(&shared));

    // Another bundle's digest is no pick-up; this one's is, killed at any write.
    pick_up(&stage, "p", "another").await;
    stage.settle("p").await;
    assert_eq!(bundle(&stage, "p").await.as_ref(), Some(&sealed));
    pick_up(&stage, "p", &sealed).await;
    stage.reconcile("p").await.unwrap();
    assert_eq!(bundle(&stage, "p").await.as_ref(), Some(&sealed), "it stays until the ledger has it");
    for kills in 0..3 {
        stage.writes.left.store(kills, Ordering::SeqCst);
        stage.settle("p").await;
    }
    stage.writes.left.store(-1, Ordering::SeqCst);
    stage.settle("p").await;
    let jobs: Api<Job> = stage.system();
    let job = jobs.get(&format!("handover-p-{}", &hex::encode(Sha256::digest(&sealed))[..8])).await.unwrap();
    let told = serde_json::to_string(&job).unwrap();
    assert!(told.contains(&hex::encode(Sha256::digest(&sealed))) && told.contains(&format!("psk-{entry}")), "{told}");
    assert!(!told.contains("STORE_HOST") && !told.contains(&token) && !told.contains(&shared));
    assert!(bundle(&stage, "p").await.is_none());
    assert!(
        stage.system::<Secret>().get_opt("enrolment-p").await.unwrap().is_none(),
        "the token is the partner's alone"
    );
    let left = stage.get("p").await.unwrap().status.unwrap().bundle.unwrap();
    assert_eq!((left.sha256, left.contents.len(), left.handed_over.len()), (None, 0, 2));

    // A new token alone is in the next; the key that was handed over is not handed over again.
    object["spec"]["credentials"]["certificate"]["enrolment"] = json!({"tokenNumber": 2});
    stage.apply(&object).await;
    stage.settle("p").await;
    let second = bundle(&stage, "p").await.unwrap();
    let files = open(&second, &identity);
    assert_eq!(files.keys().collect::<Vec<_>>(), ["letter.txt", "token"]);
    assert_ne!(files["token"], format!("user = \"p:{token}\"\n"));
    // Revoked before it was picked up: it goes, and nothing in it is of use.
    object["spec"]["revocation"] = json!({"revoked": true});
    stage.apply(&object).await;
    stage.settle("p").await;
    assert!(bundle(&stage, "p").await.is_none());
    // A recipient that is none is refused.
    object["spec"]["revocation"] = json!({"revoked": false});
    let bad = if recipient.ends_with('q') { "p" } else { "q" };
    object["spec"]["credentials"]["recipients"] = json!([format!("{}{bad}", &recipient[..61])]);
    stage.apply(&object).await;
    stage.settle("p").await;
    let (status, reason, message) = said(&stage.get("p").await.unwrap(), "Accepted");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "InvalidSpec"));
    assert!(message.contains("credentials.recipients[0]"), "{message}");
    stage.delete("p").await;
    stage.settle("p").await;
    assert!(bundle(&stage, "p").await.is_none());
}
