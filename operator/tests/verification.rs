//! Verifications and rebuilds of replicas: by turn and on demand, once each, a bounded number at a time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::large_futures)]

mod common;

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use common::{Stage, WHOLE, connection, said};
use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::{batch::v1::Job, events::v1::Event};
use kube::{
    Api, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use liaison_crds::{PartnerConnection, partner_connection::VerifiedReplica};
use serde_json::{Value, json};

static DAYS: AtomicI64 = AtomicI64::new(0);

/// The clock, some days on.
fn later() -> Timestamp {
    Timestamp::from_second(Timestamp::now().as_second() + DAYS.load(Ordering::SeqCst) * 86_400).unwrap()
}

fn says(reason: &str, root: &str, mismatches: i64) -> (bool, Value) {
    let report = json!({"reason": reason, "message": "3 files, 40 records", "files": 3, "records": 40, "photographs": 1,
        "mismatches": mismatches, "root": root.repeat(32), "asOf": "2026-11-25T01:02:03Z", "endedAt": "2026-11-25T01:02:09Z"});
    (true, report)
}

fn annotate<'a>(stage: &'a Stage, name: &'a str, what: &'a str, value: &'a str) -> BoxFuture<'a, ()> {
    Box::pin(async move {
        let api: Api<PartnerConnection> = stage.partners();
        let patch = json!({"metadata": {"annotations": {format!("federation.csc-scc.gc.ca/{what}"): value}}});
        api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    })
}

fn jobs(stage: &Stage) -> BoxFuture<'_, Vec<String>> {
    Box::pin(async move {
        let all: Api<Job> = stage.system();
        let params = ListParams::default().labels("app.kubernetes.io/component=verification");
        let mut names: Vec<String> = all.list(&params).await.unwrap().iter().map(ResourceExt::name_any).collect();
        names.sort();
        names
    })
}

fn replica<'a>(stage: &'a Stage, name: &'a str) -> BoxFuture<'a, VerifiedReplica> {
    Box::pin(async move { stage.get(name).await.unwrap().status.unwrap().replica.unwrap_or_default() })
}

fn writes_nothing<'a>(stage: &'a Stage, name: &'a str) -> BoxFuture<'a, ()> {
    Box::pin(async move {
        stage.writes.count.store(0, Ordering::SeqCst);
        for _ in 0..3 {
            stage.reconcile(name).await.unwrap();
        }
        assert_eq!(stage.writes.count.load(Ordering::SeqCst), 0, "a second reconcile writes nothing");
    })
}

#[tokio::test]
async fn a_replica_is_verified_in_its_turn_and_on_demand_once_each() {
    let mut stage = Stage::new("verify").await;
    Arc::get_mut(&mut stage.ctx).unwrap().clock = later;
    stage.agree(&["p"]).await;
    stage.apply(&connection("p")).await;
    stage.settle("p").await;
    assert_eq!(stage.held("p").await, WHOLE, "nothing is verified in the turn in which it was made");
    assert_eq!(stage.get("p").await.unwrap().status.unwrap().replica, None);

    // On demand.
    stage.job_says = Some(says("Verified", "ab", 0));
    annotate(&stage, "p", "verify", "a person's remark").await;
    stage.settle("p").await;
    let first = replica(&stage, "p").await;
    assert_eq!((first.root.as_deref(), first.files, first.records), (Some("ab".repeat(32).as_str()), 3, 40));
    assert_eq!(first.last_verified.as_ref().unwrap().0.to_string(), "2026-11-25T01:02:03Z");
    let text = serde_json::to_string(&stage.get("p").await.unwrap().status).unwrap();
    assert!(!text.contains("remark"), "what anybody may write is not repeated");
    assert_eq!(jobs(&stage).await.len(), 1);
    writes_nothing(&stage, "p").await;
    // The Job goes when its time has come; what it found stays, and it is not made again.
    let all: Api<Job> = stage.system();
    let job = all.get(&jobs(&stage).await[0]).await.unwrap();
    assert_eq!(job.spec.as_ref().unwrap().ttl_seconds_after_finished, Some(3600));
    let pod = serde_json::to_string(&job.spec.unwrap().template).unwrap();
    assert!(pod.contains("HUB_HOST") && !pod.contains("STORE_HOST"), "who only asks has no business in the store");
    all.delete(&job.metadata.name.unwrap(), &kube::api::DeleteParams::background()).await.unwrap();
    stage.settle("p").await;
    assert_eq!((jobs(&stage).await.len(), replica(&stage, "p").await), (0, first.clone()));

    // A new value asks again; what differed is told.
    stage.job_says = Some(says("Repaired", "cd", 2));
    annotate(&stage, "p", "verify", "again").await;
    stage.settle("p").await;
    let second = replica(&stage, "p").await;
    assert_eq!((second.root.as_deref(), second.mismatches), (Some("cd".repeat(32).as_str()), 2));
    let events: Api<Event> = stage.partners();
    let told = async |reason: &str| {
        let list = events.list(&ListParams::default()).await.unwrap();
        list.items.iter().filter(|event| event.reason.as_deref() == Some(reason)).count()
    };
    assert_eq!(told("RootMismatch").await, 1);
    let live = stage.get("p").await.unwrap();
    assert_eq!((said(&live, "Verified").0, said(&live, "Verified").1), ("False".into(), "RootMismatch".into()));
    assert_eq!(said(&live, "Ready").0, "True", "what serves goes on serving");

    // By turn: the next day, once, and only once the day after.
    stage.job_says = Some(says("Verified", "ef", 0));
    for day in 1..=2 {
        DAYS.store(day, Ordering::SeqCst);
        let before = jobs(&stage).await.len();
        let (one, two) = tokio::join!(Box::pin(stage.reconcile("p")), Box::pin(stage.reconcile("p")));
        assert!(one.is_ok() && two.is_ok());
        stage.settle("p").await;
        assert_eq!(jobs(&stage).await.len(), before + 1, "one Job on day {day}");
        writes_nothing(&stage, "p").await;
    }
    let third = replica(&stage, "p").await;
    assert_eq!((third.root.as_deref(), third.mismatches), (Some("ef".repeat(32).as_str()), 0));
    assert_eq!(third.observed_verify, second.observed_verify);
    assert_eq!(said(&stage.get("p").await.unwrap(), "Verified").0, "True", "a clean one ends it");

    // Anew.
    annotate(&stage, "p", "rebuild", "1").await;
    stage.settle("p").await;
    assert!(jobs(&stage).await.iter().any(|name| name.starts_with("rebuild-p-")));
    // What could not be shown keeps the last result, and is told.
    stage.job_says = Some((true, json!({"reason": "NotVerified", "message": "it could not be shown: HubUnreachable"})));
    annotate(&stage, "p", "verify", "third").await;
    stage.settle("p").await;
    assert_eq!(replica(&stage, "p").await.root, third.root);
    assert_eq!(told("NotVerified").await, 1);
    assert_eq!(said(&stage.get("p").await.unwrap(), "Ready").0, "True");
    writes_nothing(&stage, "p").await;

    // Deleted: what asks for it goes too.
    stage.job_says = None;
    stage.delete("p").await;
    stage.settle("p").await;
    assert_eq!(stage.held("p").await, ["Job dispose-P-"]);
}

#[tokio::test]
async fn so_many_at_a_time_and_no_more() {
    let mut stage = Stage::new("verifyfew").await;
    Arc::get_mut(&mut stage.ctx).unwrap().settings.verify_at_once = 2;
    let partners = ["a", "b", "c", "d"];
    stage.agree(&partners).await;
    for name in partners {
        stage.apply(&connection(name)).await;
        stage.settle(name).await;
        annotate(&stage, name, "verify", "1").await;
    }
    // Their Jobs do not end.
    stage.job_says = Some((false, json!({"reason": "NotVerified", "message": "waiting"})));
    let visits = partners.map(|name| Box::pin(stage.reconcile(name)));
    for visit in futures::future::join_all(visits).await {
        visit.unwrap();
    }
    stage.play().await;
    for name in partners {
        stage.settle(name).await;
    }
    assert_eq!(jobs(&stage).await.len(), 2);
    stage.job_says = Some(says("Verified", "ab", 0));
    for name in partners.iter().chain(&partners) {
        stage.settle(name).await;
    }
    assert_eq!(jobs(&stage).await.len(), 4, "the others have their turn when these have ended");
    for name in partners {
        assert!(replica(&stage, name).await.last_verified.is_some(), "{name}");
    }
}
