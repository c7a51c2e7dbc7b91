//! Tunnel addresses: never two partners', kept through deletion and restore, and a full pool says so.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::large_futures)]

mod common;

use std::collections::BTreeSet;

use common::{Stage, connection, said};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams},
};
use liaison_crds::PartnerConnection;
use liaison_operator::{
    claims::{Claim, Claims},
    pool,
    slots::{Pools, lease_name, slot_of},
};
use serde_json::{Value, json};

/// A pool with room for two.
fn tiny(stage: &mut Stage) {
    stage.context().pools = Pools::parse("100.72.0.0/29", "fd4c:6961:6973::/112").unwrap();
}

async fn address(stage: &Stage, name: &str) -> Option<String> {
    let connection = stage.get(name).await?.status?.connection?;
    Some(connection.partner_addresses.ipv4)
}

async fn sweep(stage: &Stage, days: i64) -> pool::Count {
    let now = Timestamp::now() + SignedDuration::from_hours(24 * days);
    let quarantine = stage.settings.slot_quarantine();
    pool::sweep(&stage.ctx.claims, &stage.ctx.pools, quarantine, now).await.unwrap()
}

async fn slots(stage: &Stage) -> Vec<String> {
    let leases = stage.system::<Lease>().list(&ListParams::default()).await.unwrap();
    leases.iter().map(ResourceExt::name_any).filter(|name| slot_of(name).is_some()).collect()
}

/// Without the finalizer's doing: as if the object had been lost.
async fn lose(stage: &Stage, name: &str) {
    let api = stage.partners::<PartnerConnection>();
    let patch = json!({"metadata": {"finalizers": null}});
    api.patch(name, &kube::api::PatchParams::default(), &kube::api::Patch::Merge(&patch)).await.unwrap();
    stage.delete(name).await;
}

#[tokio::test]
async fn a_freed_address_is_kept_for_its_partner_and_a_full_pool_says_so() {
    let mut stage = Stage::new("quarantine").await;
    tiny(&mut stage);
    stage.agree(&["p", "q", "r"]).await;
    for name in ["p", "q"] {
        stage.apply(&connection(name)).await;
        stage.settle(name).await;
    }
    let (of_p, of_q) = (address(&stage, "p").await.unwrap(), address(&stage, "q").await.unwrap());
    assert_ne!(of_p, of_q);
    assert_eq!(sweep(&stage, 0).await, pool::Count { claimed: 2, quarantined: 0, free: 0 });
    let full = async |stage: &Stage, quarantined: &str| {
        stage.settle("r").await;
        let (status, reason, message) = said(&stage.get("r").await.unwrap(), "CredentialsReady");
        assert_eq!((status.as_str(), reason.as_str()), ("False", "PoolFull"));
        assert!(message.contains(quarantined) && message.contains("enlarge"), "{message}");
        assert_eq!(address(stage, "r").await, None);
    };
    stage.apply(&connection("r")).await;
    full(&stage, "of 2 in the pool 0 are in quarantine").await;

    // p goes: its address is nobody's, until p comes back or the quarantine is over.
    stage.delete("p").await;
    stage.settle("p").await;
    assert!(stage.get("p").await.is_none());
    full(&stage, "of 2 in the pool 1 are in quarantine").await;
    let count = sweep(&stage, 29).await;
    assert_eq!(count, pool::Count { claimed: 1, quarantined: 1, free: 0 });
    stage.ctx.metrics.count_slots(count);
    assert!(stage.ctx.metrics.encode().contains("liaison_operator_tunnel_slots{state=\"quarantined\"} 1"));
    stage.apply(&connection("p")).await;
    stage.settle("p").await;
    assert_eq!(address(&stage, "p").await, Some(of_p.clone()));
    assert_eq!(sweep(&stage, 365).await, pool::Count { claimed: 2, quarantined: 0, free: 0 }, "p is back for good");

    stage.delete("p").await;
    stage.settle("p").await;
    full(&stage, "of 2 in the pool 1 are in quarantine").await;
    assert_eq!(sweep(&stage, 31).await, pool::Count { claimed: 1, quarantined: 0, free: 1 });
    stage.settle("r").await;
    assert_eq!(address(&stage, "r").await, Some(of_p));
    assert_eq!(address(&stage, "q").await, Some(of_q), "nobody else noticed");

    // An installation that wants none has none.
    stage.context().settings.slot_quarantine_days = 0;
    stage.delete("r").await;
    stage.settle("r").await;
    assert_eq!(sweep(&stage, 0).await, pool::Count { claimed: 1, quarantined: 0, free: 1 });
}

#[tokio::test]
async fn an_address_survives_the_loss_of_claims_and_of_status_and_of_the_object() {
    let mut stage = Stage::new("restore").await;
    tiny(&mut stage);
    stage.agree(&["p", "q", "r"]).await;
    for name in ["p", "q"] {
        stage.apply(&connection(name)).await;
        stage.settle(name).await;
    }
    let (of_p, of_q) = (address(&stage, "p").await.unwrap(), address(&stage, "q").await.unwrap());

    // Claims are lost, and a new partner is looked at first: what the status of the others says is theirs.
    stage.told_of_connections().await;
    for name in slots(&stage).await {
        stage.system::<Lease>().delete(&name, &DeleteParams::default()).await.unwrap();
    }
    stage.apply(&connection("r")).await;
    stage.settle("r").await;
    assert_eq!(said(&stage.get("r").await.unwrap(), "CredentialsReady").1, "PoolFull");
    for name in ["q", "p"] {
        stage.settle(name).await;
    }
    assert_eq!((address(&stage, "p").await, address(&stage, "q").await), (Some(of_p.clone()), Some(of_q.clone())));
    assert_eq!(slots(&stage).await.len(), 2);

    // Everything is lost but the manifests, and they are applied in another order, one with its address.
    stage.context().connections = None;
    for name in ["p", "q", "r"] {
        lose(&stage, name).await;
    }
    for name in slots(&stage).await {
        stage.system::<Lease>().delete(&name, &DeleteParams::default()).await.unwrap();
    }
    let pinned = |name: &str, address: &str| -> Value {
        let mut object = connection(name);
        object["spec"]["tunnelAddress"] = json!(address);
        object
    };
    stage.apply(&pinned("q", &of_p)).await;
    stage.settle("q").await;
    assert_eq!(address(&stage, "q").await, Some(of_p.clone()), "the manifest wins");

    // Another's address, or none of a partner: said, and nothing else is given; who has one keeps it.
    let wrong = async |stage: &Stage, name: &str, address: &str| {
        stage.apply(&pinned(name, address)).await;
        stage.settle(name).await;
        let (status, reason, message) = said(&stage.get(name).await.unwrap(), "CredentialsReady");
        assert!(status == "False" && message.contains(address), "{message}");
        reason
    };
    assert_eq!(wrong(&stage, "p", &of_p).await, "AddressInUse");
    assert_eq!(address(&stage, "p").await, None);
    assert_eq!(wrong(&stage, "q", "10.0.0.1").await, "AddressOutsidePool");
    assert_eq!(wrong(&stage, "q", "100.72.0.2").await, "AddressOutsidePool");
    assert_eq!(address(&stage, "q").await, Some(of_p.clone()));
    assert_eq!(said(&stage.get("q").await.unwrap(), "AccessReady").0, "True", "it is served all the same");

    // It moves when the manifest names another, and what it had goes into quarantine.
    stage.apply(&pinned("q", &of_q)).await;
    stage.settle("q").await;
    assert_eq!(address(&stage, "q").await, Some(of_q.clone()));
    assert_eq!(sweep(&stage, 0).await, pool::Count { claimed: 1, quarantined: 1, free: 0 });
    stage.settle("p").await;
    assert_eq!(said(&stage.get("p").await.unwrap(), "CredentialsReady").1, "AddressInUse", "q had it until now");
    sweep(&stage, 31).await;
    stage.settle("p").await;
    assert_eq!(address(&stage, "p").await, Some(of_p));
}

/// `LIAISON_CLAIMS` for another number.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn slots_claimed_from_four_places_at_once_are_never_given_twice() {
    let stage = Stage::new("claims").await;
    let number: usize = std::env::var("LIAISON_CLAIMS").ok().map_or(400, |text| text.parse().unwrap());
    // Hardly larger than what is claimed, so that they meet.
    let bits = (2 * number + 4).next_power_of_two().trailing_zeros();
    let pools = Pools::parse(&format!("100.64.0.0/{}", 32 - bits), "fd4c:6961:6973::/112").unwrap();
    assert!(usize::try_from(pools.usable()).unwrap() >= number);
    let started = std::time::Instant::now();
    let mut tasks = Vec::new();
    for one in 0..4 {
        let client = kube::Client::try_from(common::config().await).unwrap();
        let claims = Claims::new(Api::namespaced(client, &stage.settings.system_namespace));
        tasks.push(tokio::spawn(async move {
            let mut got = Vec::new();
            // Two of the four ask for the same partners, as an old and a new leader might.
            for n in (one / 2..number).step_by(2) {
                let partner = format!("p{n}");
                for slot in pools.probe(&partner) {
                    let claimed = claims.claim(&lease_name(slot), &partner, Timestamp::now()).await.unwrap();
                    if let Claim::Mine(_) = claimed {
                        got.push((partner, slot));
                        break;
                    }
                }
            }
            got
        }));
    }
    let mut all = BTreeSet::new();
    for task in tasks {
        all.extend(task.await.unwrap());
    }
    println!("{number} partners claimed by four, in {:?}", started.elapsed());
    let partners: BTreeSet<&String> = all.iter().map(|(partner, _)| partner).collect();
    let slots: BTreeSet<u32> = all.iter().map(|(_, slot)| *slot).collect();
    assert_eq!((partners.len(), slots.len(), all.len()), (number, number, number));
}
