//! Revocation lists for third parties, against a real API server, read by OpenSSL.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::large_futures)]

mod common;

use std::{process::Command, sync::atomic::Ordering};

use common::{Stage, connection};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use liaison_operator::{crl, install};
use serde_json::json;

async fn publish(stage: &Stage) -> String {
    Box::pin(crl::publish(&stage.ctx.client, &stage.settings, Timestamp::now())).await.unwrap();
    let map: ConfigMap = stage.system().get(crl::NAME).await.unwrap();
    map.data.unwrap()["liaison-ca-issuing.crl"].clone()
}

/// What OpenSSL says of a chain under a root and with a revocation list.
fn verify(chain: &str, root: &str, list: &str) -> String {
    let directory = std::env::temp_dir().join(format!("liaison-crl-{}-{}", std::process::id(), rand::random::<u64>()));
    std::fs::create_dir(&directory).unwrap();
    let write = |file: &str, text: &str| {
        std::fs::write(directory.join(file), text).unwrap();
        directory.join(file)
    };
    let (chain, root, list) = (write("chain", chain), write("root", root), write("list", list));
    let mut command = Command::new("openssl");
    command.args(["verify", "-crl_check", "-no-CApath", "-no-CAstore", "-CAfile"]).arg(root);
    let output = command.arg("-CRLfile").arg(list).arg("-untrusted").arg(&chain).arg(&chain).output().unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test]
async fn what_is_revoked_is_listed_until_it_would_have_ended_and_nothing_else() {
    let stage = Stage::new("crl").await;
    stage.agree(&["p", "q", "r"]).await;
    let root: Secret = stage.system().get("liaison-ca-root").await.unwrap();
    let root = install::text(&root, "tls.crt").unwrap();
    let mut chains = Vec::new();
    for name in ["p", "q", "r"] {
        stage.apply(&connection(name)).await;
        stage.settle(name).await;
        chains.push(stage.get(name).await.unwrap().status.unwrap().certificates[0].chain.clone());
    }
    let list = publish(&stage).await;
    assert!(
        chains.iter().all(|chain| verify(chain, &root, &list).contains(": OK")),
        "{}",
        verify(&chains[0], &root, &list)
    );
    let writes = stage.writes.count.load(Ordering::SeqCst);
    assert_eq!(publish(&stage).await, list);
    assert_eq!(stage.writes.count.load(Ordering::SeqCst), writes, "nothing changed, nothing written");

    // One by its manifest; one that is deleted before anybody has looked; a deletion alone revokes nothing.
    let revoke = json!({"spec": {"revocation": {"revoked": true}}});
    for name in ["p", "q"] {
        let api = stage.partners::<liaison_crds::PartnerConnection>();
        let patch = kube::api::Patch::Merge(&revoke);
        api.patch(name, &kube::api::PatchParams::default(), &patch).await.unwrap();
    }
    stage.settle("p").await;
    for name in ["q", "r"] {
        stage.delete(name).await;
        stage.settle(name).await;
        assert!(stage.get(name).await.is_none());
    }
    let list = publish(&stage).await;
    for (chain, said) in chains.iter().zip(["certificate revoked", "certificate revoked", ": OK"]) {
        assert!(verify(chain, &root, &list).contains(said), "{said}: {}", verify(chain, &root, &list));
    }
    assert_eq!(publish(&stage).await, list);
}
