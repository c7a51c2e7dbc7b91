//! The program itself: it takes the lead, onboards, hands the lead over, and ends when told to.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::large_futures)]

mod common;

use std::{
    process::{Child, Command},
    time::{Duration, Instant},
};

use common::{Stage, connection, said};
use k8s_openapi::api::{coordination::v1::Lease, core::v1::ConfigMap};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use liaison_operator::{crl, rotate};
use serde_json::json;

fn start(stage: &Stage, pod: &str) -> Child {
    let s = &stage.settings;
    Command::new(env!("CARGO_BIN_EXE_liaison-operator"))
        .arg("run")
        .env("KUBECONFIG", std::env::var("TEST_KUBECONFIG").unwrap())
        .env("ENDPOINT", &s.endpoint)
        .env("IMAGE_SYNC", &s.image_sync)
        .env("IMAGE_INFOPOL", &s.image_infopol)
        .env("SYSTEM_NAMESPACE", &s.system_namespace)
        .env("GATEWAY_NAMESPACE", &s.gateway_namespace)
        .env("PARTNERS_NAMESPACE", &s.partners_namespace)
        .env("POD_NAME", pod)
        .env("HEALTH_ADDR", "127.0.0.1:0")
        .spawn()
        .unwrap()
}

fn terminate(child: &mut Child) {
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    assert!(child.wait().unwrap().success(), "it ends well when told to");
}

async fn until(what: &str, stage: &Stage, mut check: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !check().await {
        assert!(start.elapsed() < Duration::from_secs(40), "{what} within 40 s");
        stage.play().await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn onboards_by_its_watches_and_hands_over_the_lead() {
    let stage = Stage::new("process").await;
    let leases: Api<Lease> = stage.system();
    let holder = async || {
        leases.get_opt("liaison-operator").await.unwrap().and_then(|l| l.spec?.holder_identity).unwrap_or_default()
    };
    let mut first = start(&stage, "operator-a");
    until("the lead is taken", &stage, async || holder().await == "operator-a").await;
    let mut second = start(&stage, "operator-b");

    // The agreement comes later than the connection: the change of one object is another's business.
    stage.apply(&connection("p")).await;
    until("the refusal", &stage, async || said(&stage.get("p").await.unwrap(), "Accepted").1 == "AgreementNotFound")
        .await;
    stage.agree(&["p"]).await;
    until("Ready", &stage, async || said(&stage.get("p").await.unwrap(), "Ready").0 == "True").await;

    // A rotation that is asked for is begun at once. Nobody says how the databases stand, so it is held there.
    let maps: Api<ConfigMap> = stage.system();
    until("the lists", &stage, async || maps.get_opt(crl::NAME).await.unwrap().is_some()).await;
    let asks = json!({"metadata": {"annotations": {rotate::ROTATE_ISSUING: "now"}}});
    maps.patch(rotate::NAME, &PatchParams::default(), &Patch::Merge(&asks)).await.unwrap();
    until("the rotation", &stage, async || {
        let map = maps.get(rotate::NAME).await.unwrap();
        map.data.unwrap()[rotate::STATUS].contains("WaitingForHolders")
    })
    .await;

    terminate(&mut first);
    // Released, so the next need not wait for the Lease to run out.
    let handed = Instant::now();
    until("the lead is handed over", &stage, async || holder().await == "operator-b").await;
    assert!(handed.elapsed() < Duration::from_secs(10));
    stage.delete("p").await;
    until("the deletion", &stage, async || stage.get("p").await.is_none()).await;
    terminate(&mut second);
}
