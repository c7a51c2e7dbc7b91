//! Several shards of the gateway, against a real API server: which one a partner belongs to, and what it is told of it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::large_futures)]

mod common;

use std::sync::{Arc, atomic::Ordering};

use common::{Stage, connection, said};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use liaison_crds::{PartnerConnection, partner_connection::Connection};
use liaison_operator::{context::Context, install, metrics::Metrics};
use serde_json::{Value, json};

const SHARDS: &str = "gateway=g.example.ca:1,g.example.ca:2 gateway-a=a.example.ca:1,a.example.ca:2";

async fn told(stage: &Stage, name: &str) -> Option<Connection> {
    stage.get(name).await.unwrap().status?.connection
}

/// The shard, its endpoint, and its key if that is the one of its Secret.
async fn where_to(stage: &Stage, name: &str) -> (String, String) {
    let told = told(stage, name).await.unwrap();
    let shard = told.gateway.unwrap();
    let secrets: Api<Secret> = Api::namespaced(stage.client.clone(), &stage.settings.gateway_namespace);
    let secret = secrets.get(&format!("{shard}-wireguard")).await.unwrap();
    assert_eq!(told.gateway_public_keys, [install::text(&secret, "publicKey").unwrap()]);
    (shard, told.endpoint)
}

fn at(shard: &str, endpoint: &str) -> (String, String) {
    (shard.to_owned(), endpoint.to_owned())
}

async fn ask(stage: &Stage, object: &mut Value, shard: Option<&str>) {
    match shard {
        Some(shard) => object["spec"]["gateway"] = json!(shard),
        None => drop(object["spec"].as_object_mut().unwrap().remove("gateway")),
    }
    stage.apply(object).await;
    stage.settle(object["metadata"]["name"].as_str().unwrap()).await;
}

#[tokio::test]
async fn a_partner_is_told_of_its_shard_and_stays_there_until_its_manifest_says_another() {
    let stage = Stage::with_gateways("shards", SHARDS).await;
    stage.agree(&["p", "q"]).await;
    let mut p = connection("p");
    ask(&stage, &mut p, Some("gateway-a")).await;
    assert_eq!(where_to(&stage, "p").await, at("gateway-a", "a.example.ca:1"));
    ask(&stage, &mut p, None).await;
    assert_eq!(where_to(&stage, "p").await, at("gateway-a", "a.example.ca:1"), "asked no more, it stays");
    let before = told(&stage, "p").await.unwrap();
    ask(&stage, &mut p, Some("gateway")).await;
    assert_eq!(where_to(&stage, "p").await, at("gateway", "g.example.ca:1"));
    let after = told(&stage, "p").await.unwrap();
    assert_eq!(after.partner_addresses, before.partner_addresses, "its addresses are its own");

    // One that there is not closes nobody, and opens nobody.
    ask(&stage, &mut p, Some("gateway-x")).await;
    let accepted = said(&stage.get("p").await.unwrap(), "Accepted");
    assert_eq!((accepted.0.as_str(), accepted.1.as_str()), ("False", "GatewayNotFound"));
    assert!(accepted.2.contains("(gateway, gateway-a)") && accepted.2.contains("'gateway-x'"), "{}", accepted.2);
    assert_eq!(told(&stage, "p").await.unwrap(), after);
    assert!(stage.get("p").await.unwrap().status.unwrap().authorized_until.is_some());
    let mut q = connection("q");
    ask(&stage, &mut q, Some("gateway-x")).await;
    assert_eq!(said(&stage.get("q").await.unwrap(), "Ready").1, "GatewayNotFound");
    assert!(told(&stage, "q").await.is_none());
    ask(&stage, &mut q, None).await;
    assert_eq!(said(&stage.get("q").await.unwrap(), "Ready").0, "True");

    // A status of the version before has no word of it.
    ask(&stage, &mut p, None).await;
    let api: Api<PartnerConnection> = stage.partners();
    let strip = json!({"status": {"connection": {"gateway": null}}});
    api.patch_status("p", &PatchParams::default(), &Patch::Merge(&strip)).await.unwrap();
    assert_eq!(told(&stage, "p").await.unwrap().gateway, None);
    stage.settle("p").await;
    assert_eq!(where_to(&stage, "p").await, at("gateway", "g.example.ca:1"));
    let writes = stage.writes.count.load(Ordering::SeqCst);
    stage.reconcile("p").await.unwrap();
    assert_eq!(stage.writes.count.load(Ordering::SeqCst), writes);
}

#[tokio::test]
async fn more_shards_are_no_more_reads_or_writes_of_a_visit() {
    let mut costs = Vec::new();
    for (test, shards) in [("shards-one", "gateway=g.example.ca:1"), ("shards-two", SHARDS)] {
        let stage = Stage::with_gateways(test, shards).await;
        stage.agree(&["p"]).await;
        stage.apply(&connection("p")).await;
        stage.writes.count.store(0, Ordering::SeqCst);
        stage.writes.reads.store(0, Ordering::SeqCst);
        stage.reconcile("p").await.unwrap();
        costs.push([&stage.writes.reads, &stage.writes.count].map(|count| count.load(Ordering::SeqCst)));
    }
    assert_eq!(costs[0], costs[1]);
    assert_eq!(costs[0][1], 8);
}

#[tokio::test]
async fn a_shard_that_is_taken_away_moves_its_own_partners_and_no_word_of_it_is_waited_for() {
    let mut stage = Stage::with_gateways("shards-fewer", SHARDS).await;
    stage.agree(&["p", "q"]).await;
    let (mut p, mut q) = (connection("p"), connection("q"));
    ask(&stage, &mut p, Some("gateway-a")).await;
    ask(&stage, &mut q, Some("gateway")).await;
    ask(&stage, &mut p, None).await;
    let word = |shard: &str, fields: Value| {
        let mut word = fields;
        word["name"] = json!(shard);
        json!({"apiVersion": "federation.csc-scc.gc.ca/v1alpha1", "kind": "PartnerConnection",
            "metadata": {"name": "p"}, "status": {"gateways": [word]}})
    };
    let api: Api<PartnerConnection> = stage.partners();
    let key = p["spec"]["credentials"]["wireGuard"]["publicKeys"][0].clone();
    let used = word("gateway-a", json!({"keyInUse": {"publicKey": key, "since": Timestamp::now().to_string()}}));
    api.patch_status("p", &PatchParams::apply("liaison-gateway-key-gateway-a").force(), &Patch::Apply(&used))
        .await
        .unwrap();
    stage.settle("p").await;
    let stays = where_to(&stage, "q").await;

    stage.settings.gateways = "gateway=g.example.ca:1,g.example.ca:2".parse().unwrap();
    let installed = install::ensure(&stage.client, &stage.settings, Timestamp::now()).await.unwrap();
    let client = stage.ctx.client.clone();
    let ctx = Context::new(client, stage.settings.clone(), installed, Arc::new(Metrics::default()));
    stage.ctx = Arc::new(ctx.unwrap());
    stage.settle("p").await;
    stage.settle("q").await;
    assert_eq!(where_to(&stage, "p").await, at("gateway", "g.example.ca:1"));
    assert_eq!(where_to(&stage, "q").await, stays);
    assert_eq!(said(&stage.get("p").await.unwrap(), "Ready").0, "True");
    // Revoked, and done with, though the shard that is gone says nothing more.
    p["spec"]["revocation"] = json!({"revoked": true});
    stage.apply(&p).await;
    stage.settle("p").await;
    let live = stage.get("p").await.unwrap();
    assert_eq!(said(&live, "Ready").1, "Revoked");
    assert!(live.status.unwrap().wire_guard_keys.is_empty());
}
