//! The program itself: it takes the lead, onboards, hands the lead over, and ends when told to.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::large_futures)]

mod common;

use std::time::{Duration, Instant};

use common::{Stage, connection, said, start, terminate, until};
use k8s_openapi::api::{coordination::v1::Lease, core::v1::ConfigMap};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use liaison_operator::{crl, rotate};
use serde_json::json;

#[tokio::test]
async fn onboards_by_its_watches_and_hands_over_the_lead() {
    let stage = Stage::new("process").await;
    let leases: Api<Lease> = stage.system();
    let holder = async || {
        leases.get_opt("liaison-operator").await.unwrap().and_then(|l| l.spec?.holder_identity).unwrap_or_default()
    };
    let mut first = start(&stage, "operator-a", None);
    until("the lead is taken", &stage, async || holder().await == "operator-a").await;
    let mut second = start(&stage, "operator-b", None);

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
