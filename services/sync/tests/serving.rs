//! `serve` against a real API server and PostgreSQL: from a manifest to a replica, DataFresh, suspension, and silence.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use liaison_crds::{PartnerConnection, SharingAgreement};
use liaison_sync::{
    desired,
    quote::ident,
    serve::{Settings, serve},
    telemetry::Metrics,
};
use serde_json::{Value, json};
use support::World;
use tokio_util::sync::CancellationToken;

fn connection(name: &str) -> PartnerConnection {
    serde_json::from_value(json!({
        "apiVersion": "federation.csc-scc.gc.ca/v1alpha1", "kind": "PartnerConnection", "metadata": {"name": name},
        "spec": {
            "partner": {"type": "PoliceService", "jurisdiction": "CA-BC", "timeZone": "America/Vancouver",
                        "name": {"en": "Vancouver Police Department", "fr": "Service de police de Vancouver"}},
            "agreementRef": {"name": "bc-2003"},
            "share": {"fieldGroups": ["identity", "aliases", "photograph"],
                      "population": {"anyOf": [{"municipalities": ["5915022"]}]}, "freshnessObjectiveSeconds": 10},
            "credentials": {"keyCustody": "Partner",
                "wireGuard": {"publicKeys": ["ANN0WtCmwgRlYsYdHWp7ztCY5OqmHxEjtyEDx6pCWEE="]},
                "certificate": {"signingRequests":
                    ["-----BEGIN CERTIFICATE REQUEST-----\nMA==\n-----END CERTIFICATE REQUEST-----\n"]}},
        }
    }))
    .unwrap()
}

fn agreement(party: &str) -> SharingAgreement {
    serde_json::from_value(json!({
        "apiVersion": "federation.csc-scc.gc.ca/v1alpha1", "kind": "SharingAgreement", "metadata": {"name": "bc-2003"},
        "spec": {"reference": "BC-2003", "parties": [party], "legalBasis": ["CCRA s.25(1)"],
            "effectiveDate": "2020-01-01", "expiryDate": "2099-12-31", "purposes": ["Supervision"],
            "allows": {"fieldGroups": ["identity", "aliases"], "population": {"anyOf": [{"jurisdictions": ["CA-BC"]}]}},
            "retention": {"disposalDays": 30}, "assessments": {"privacyImpact": "PIA", "threatRisk": "TRA"}}
    }))
    .unwrap()
}

async fn eventually<F: AsyncFnMut() -> bool>(what: &str, mut holds: F) {
    for _ in 0..200 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("not within 20 s: {what}");
}

fn fresh(connection: &PartnerConnection) -> Option<&str> {
    let conditions = &connection.status.as_ref()?.conditions;
    conditions.iter().find(|c| c.type_ == "DataFresh").map(|c| c.status.as_str())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_becomes_a_replica_that_follows_and_closes() {
    let client = support::kubernetes::client().await;
    let mut world = World::new("syncserve").await;
    let partner = world.partner("v");
    for id in 1..=6 {
        world.file(id, if id == 6 { "4711066" } else { "5915022" }, 1).await;
    }
    let namespace = world.name.replace('_', "-");
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let object: Namespace = serde_json::from_value(json!({"metadata": {"name": &namespace}})).unwrap();
    namespaces.create(&PostParams::default(), &object).await.unwrap();
    let connections: Api<PartnerConnection> = Api::namespaced(client.clone(), &namespace);
    let agreements: Api<SharingAgreement> = Api::namespaced(client.clone(), &namespace);
    agreements.create(&PostParams::default(), &agreement(partner.as_str())).await.unwrap();
    connections.create(&PostParams::default(), &connection(partner.as_str())).await.unwrap();
    let metrics = Arc::new(Metrics::default());
    let stop = CancellationToken::new();
    let settings = Settings {
        hub: world.hub_target.clone(),
        store: world.store_target.clone(),
        store_name: "shared".into(),
        namespace: namespace.clone(),
        system_namespace: namespace.clone(),
        holder: "sync-0".into(),
    };
    let server = tokio::spawn(serve(settings, client.clone(), metrics, stop.clone()));
    world.prepare(&partner).await;
    // Not authorized in status: nothing crosses.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(world.count(&partner, "record").await, 0, "status grants");
    let authorize = |until: Value| json!({"status": {"observedGeneration": 1, "authorizedUntil": until}});
    let status = Patch::Merge(authorize(json!("2099-01-01T08:00:00Z")));
    connections.patch_status(partner.as_str(), &PatchParams::default(), &status).await.unwrap();
    eventually("filled", async || world.count(&partner, "subject").await == 5).await;
    let terms = desired::terms_of(&client, &namespace, &partner).await.unwrap().unwrap();
    assert_eq!(terms.grant.as_ref().unwrap().group_names(), ["aliases", "identity"], "share AND agreement");
    eventually("DataFresh", async || fresh(&connections.get(partner.as_str()).await.unwrap()) == Some("True")).await;
    world.check_i1(&terms).await;
    world.check_i2(&partner).await;
    let version = connections.get(partner.as_str()).await.unwrap().resource_version();
    let written = Timestamp::now();
    world.execute("UPDATE oms.offender SET municipality = '5915022', jurisdiction = 'CA-BC' WHERE id = 6; DELETE FROM oms.offender WHERE id = 1").await;
    let ident = ident(&partner.share_schema());
    let files = format!("SELECT array_agg(offender ORDER BY offender) FROM {ident}.subject");
    eventually("followed", async || {
        world.store.query_one(&files, &[]).await.unwrap().get::<_, Vec<i64>>(0) == [2, 3, 4, 5, 6]
    })
    .await;
    assert!(Timestamp::now().duration_since(written).unsigned_abs() < Duration::from_secs(5), "about a second");
    world.check_i1(&terms).await;
    // I9: nothing that happened since is worth a write of status.
    assert_eq!(connections.get(partner.as_str()).await.unwrap().resource_version(), version);
    let suspend = Patch::Merge(json!({"spec": {"suspend": true}}));
    connections.patch(partner.as_str(), &PatchParams::default(), &suspend).await.unwrap();
    let closed = format!("SELECT suspended FROM {ident}.cursor");
    eventually("suspended", async || world.store.query_one(&closed, &[]).await.unwrap().get::<_, bool>(0)).await;
    world.file(9, "5915022", 1).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(world.count(&partner, "subject").await, 5, "nothing crosses while suspended");
    let resume = Patch::Merge(json!({"spec": {"suspend": false}}));
    connections.patch(partner.as_str(), &PatchParams::default(), &resume).await.unwrap();
    eventually("resumed", async || world.count(&partner, "subject").await == 6).await;
    // The agreement goes: nothing is authorized, at once.
    agreements.delete("bc-2003", &DeleteParams::default()).await.unwrap();
    let until = format!("SELECT authorized_until IS NULL FROM {ident}.cursor");
    eventually("closed", async || world.store.query_one(&until, &[]).await.unwrap().get::<_, bool>(0)).await;
    stop.cancel();
    server.await.unwrap().unwrap();
    let free: bool = world.hub.query_one("SELECT until < now() FROM liaison.lease", &[]).await.unwrap().get(0);
    assert!(free, "leases are given back");
    let _ = namespaces.delete(&namespace, &DeleteParams::default()).await;
    world.drop().await;
}
