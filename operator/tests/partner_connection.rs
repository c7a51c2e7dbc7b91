//! Onboarding, refusals, suspension, revocation and deletion against a real API server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::large_futures)]

mod common;

use std::sync::atomic::Ordering;

use common::{Stage, WHOLE, connection, said};
use k8s_openapi::api::{
    apps::v1::Deployment,
    batch::v1::Job,
    coordination::v1::Lease,
    core::v1::{Namespace, Secret},
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
    runtime::watcher,
};
use liaison_crds::{PartnerConnection, SharingAgreement};
use liaison_operator::{claims::Memory, install, partner_connection::names::Names};
use serde_json::json;

#[tokio::test]
async fn a_new_connection_takes_one_visit_of_eight_writes_until_its_job_speaks() {
    let stage = Stage::new("eight").await;
    stage.agree(&["p"]).await;
    stage.apply(&connection("p")).await;
    stage.writes.count.store(0, Ordering::SeqCst);
    stage.reconcile("p").await.unwrap();
    // Its finalizer, three claims, its status, two Secrets, the Job.
    assert_eq!(stage.writes.count.load(Ordering::SeqCst), 8);
    let live = stage.get("p").await.unwrap();
    let status = live.status.as_ref().unwrap();
    assert!(status.connection.is_some() && !status.certificates.is_empty());
    assert_eq!((said(&live, "Ready").1, said(&live, "CredentialsReady").0), ("Running".into(), "True".into()));
    stage.reconcile("p").await.unwrap();
    assert_eq!(stage.writes.count.load(Ordering::SeqCst), 8);
}

#[tokio::test]
async fn who_waits_for_credentials_comes_before_the_replicas_of_those_who_have_them() {
    let mut stage = Stage::new("crowd").await;
    stage.agree(&["p", "q"]).await;
    for name in ["p", "q"] {
        stage.apply(&connection(name)).await;
    }
    stage.told_of_connections().await;
    stage.writes.count.store(0, Ordering::SeqCst);
    let jobs = async |stage: &Stage| stage.system::<Job>().list(&ListParams::default()).await.unwrap().items.len();
    // The finalizer, three claims and the status; then the rest, whoever is still waiting.
    for (writes, filling) in [(5, 0), (8, 1), (8, 1)] {
        stage.reconcile("p").await.unwrap();
        let live = stage.get("p").await.unwrap();
        assert_eq!((said(&live, "CredentialsReady").0, said(&live, "Ready").1), ("True".into(), "Running".into()));
        assert_eq!((stage.writes.count.load(Ordering::SeqCst), jobs(&stage).await), (writes, filling));
    }
    assert!(stage.ctx.take_left().is_empty(), "somebody waits");
    // The operator has not been told yet that the other does not wait any more; once it has, whoever was left is looked at again.
    stage.reconcile("q").await.unwrap();
    for object in ["p", "q"] {
        assert!(stage.get(object).await.unwrap().status.is_some_and(|status| status.connection.is_some()));
    }
    assert_eq!(jobs(&stage).await, 1);
    stage.told_of_connections().await;
    assert_eq!(stage.ctx.take_left().into_iter().collect::<Vec<_>>(), ["p", "q"]);
    assert!(stage.ctx.take_left().is_empty());
    stage.reconcile("q").await.unwrap();
    assert_eq!((stage.writes.count.load(Ordering::SeqCst), jobs(&stage).await), (16, 2));
}

#[tokio::test]
async fn a_watch_of_claims_saves_their_list_and_one_that_is_silent_hides_no_claim_that_a_status_relies_on() {
    let stage = Stage::new("watched").await;
    stage.agree(&["p"]).await;
    let told_of_none =
        || stage.ctx.claims.follow(futures::stream::iter([Ok(watcher::Event::Init), Ok(watcher::Event::InitDone)]));
    told_of_none().await;
    let mut object = connection("p");
    stage.apply(&object).await;
    stage.writes.count.store(0, Ordering::SeqCst);
    stage.writes.reads.store(0, Ordering::SeqCst);
    stage.reconcile("p").await.unwrap();
    // Its agreement and the store's Secret; no claim is looked for.
    let counted = [&stage.writes.reads, &stage.writes.count].map(|count| count.load(Ordering::SeqCst));
    assert_eq!(counted, [2, 8]);
    stage.settle("p").await;

    // Another operator takes over, and its watch tells of none of the claims: revoked for good all the same.
    told_of_none().await;
    object["spec"]["revocation"] = json!({"revoked": true});
    stage.apply(&object).await;
    stage.settle("p").await;
    let all = stage.ctx.claims.all_of("p").await.unwrap();
    let revoked = all.iter().filter(|lease| Memory::of(lease).revoked).count();
    assert_eq!((all.len(), revoked), (3, 2));
}

#[tokio::test]
async fn a_manifest_becomes_ready_and_a_second_reconcile_writes_nothing() {
    let stage = Stage::new("happy").await;
    stage.agree(&["victoria-police"]).await;
    stage.apply(&connection("victoria-police")).await;
    stage.settle("victoria-police").await;
    let live = stage.get("victoria-police").await.unwrap();
    for kind in ["Ready", "Accepted", "CredentialsReady", "ReplicaReady", "AccessReady"] {
        assert_eq!(said(&live, kind).0, "True", "{kind}: {:?}", said(&live, kind));
    }
    assert_eq!(said(&live, "ReplicaReady").2, "3 files, 40 records");
    assert_eq!(said(&live, "Verified").0, "Unknown");
    for kind in ["Connected", "DataFresh"] {
        assert_eq!(said(&live, kind).0, "Unknown", "{kind} is not the operator's");
    }
    let status = live.status.clone().unwrap();
    assert_eq!(Some(status.observed_generation), live.metadata.generation);
    let connect = status.connection.unwrap();
    assert_eq!(connect.server_name, "victoria-police.liaison.example.ca");
    assert_eq!(status.wire_guard_keys, live.spec.credentials.wire_guard.public_keys);
    assert_eq!(status.certificates.len(), 1);
    assert!(status.certificates[0].chain.matches("BEGIN CERTIFICATE").count() == 2);
    assert!(connect.ca_bundle.contains("BEGIN CERTIFICATE") && status.authorized_until.is_some());
    assert_eq!(stage.held("victoria-police").await, WHOLE);

    // No private key, password or verifier in anything that people read (I10).
    let text = serde_json::to_string(&live).unwrap();
    assert!(!text.contains("PRIVATE KEY") && !text.contains("SCRAM"));
    let reader: Secret = stage.partners().get("reader-victoria-police").await.unwrap();
    assert!(!text.contains(&install::text(&reader, "password").unwrap()));
    let seed: Secret = stage.system().get("seed-victoria-police").await.unwrap();
    assert!(install::text(&seed, "verifier").unwrap().starts_with("SCRAM-SHA-256$4096:"));

    // I9: nothing changed, nothing is written.
    stage.writes.count.store(0, Ordering::SeqCst);
    for _ in 0..3 {
        stage.reconcile("victoria-police").await.unwrap();
    }
    assert_eq!(stage.writes.count.load(Ordering::SeqCst), 0);

    // Drift is put right.
    let service: Api<k8s_openapi::api::core::v1::Service> = stage.partners();
    service.delete("infopol-victoria-police", &DeleteParams::default()).await.unwrap();
    stage.settle("victoria-police").await;
    assert_eq!(stage.held("victoria-police").await, WHOLE);

    // Another's condition survives the operator's writes.
    let gateway = json!({"apiVersion": "federation.csc-scc.gc.ca/v1alpha1", "kind": "PartnerConnection", "metadata": {"name": "victoria-police"},
        "status": {"observedGeneration": live.metadata.generation, "conditions": [{"type": "Connected", "status": "True", "reason": "Up", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    let api: Api<PartnerConnection> = stage.partners();
    api.patch_status("victoria-police", &PatchParams::apply("liaison-gateway").force(), &Patch::Apply(&gateway))
        .await
        .unwrap();

    // Suspended: the read service stops, nothing else goes, and that is Ready.
    patch(&stage, "victoria-police", &json!({"spec": {"suspend": true}})).await;
    stage.settle("victoria-police").await;
    let live = stage.get("victoria-police").await.unwrap();
    assert_eq!((said(&live, "Ready").0, said(&live, "Ready").1), ("True".into(), "Suspended".into()));
    assert_eq!(said(&live, "Connected").0, "True");
    let deployment: Deployment = stage.partners().get("infopol-victoria-police").await.unwrap();
    assert_eq!(deployment.spec.unwrap().replicas, Some(0));

    // Revoked: keys and certificates are no longer granted.
    patch(&stage, "victoria-police", &json!({"spec": {"suspend": false, "revocation": {"revoked": true}}})).await;
    stage.settle("victoria-police").await;
    let live = stage.get("victoria-police").await.unwrap();
    let status = live.status.clone().unwrap();
    assert!(status.wire_guard_keys.is_empty() && status.certificates.is_empty());
    assert_eq!((said(&live, "Ready").0, said(&live, "Ready").1), ("True".into(), "Revoked".into()));
}

fn keys_of(object: &PartnerConnection) -> (usize, usize) {
    let status = object.status.as_ref().unwrap();
    assert_eq!(status.wire_guard_keys.len(), status.wire_guard_keys_seen.len());
    assert!(status.certificates.iter().all(|issued| issued.key_first_seen.is_some()));
    (status.wire_guard_keys.len(), status.certificates.len())
}

#[tokio::test]
async fn a_revoked_key_is_never_accepted_again_whoever_names_it() {
    let stage = Stage::new("burnt").await;
    stage.agree(&["p", "q"]).await;
    let first = connection("p");
    stage.apply(&first).await;
    stage.settle("p").await;
    assert_eq!(keys_of(&stage.get("p").await.unwrap()), (1, 1));

    // Revoked and given new keys in one edit; then taken back with the old ones.
    let second = connection("p");
    let mut object = second.clone();
    object["spec"]["revocation"] = json!({"revoked": true});
    stage.apply(&object).await;
    stage.settle("p").await;
    assert_eq!(keys_of(&stage.get("p").await.unwrap()), (0, 0));
    let mut object = first.clone();
    object["spec"]["revocation"] = json!({"revoked": false});
    stage.apply(&object).await;
    stage.settle("p").await;
    let live = stage.get("p").await.unwrap();
    assert_eq!((keys_of(&live), said(&live, "Accepted").0.as_str()), ((0, 0), "True"));
    let (status, reason, message) = said(&live, "CredentialsReady");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "KeyRevoked"));
    assert!(message.contains("publicKeys[0]") && message.contains("signingRequests[0]"), "{message}");
    // I9: refusing writes nothing.
    stage.writes.count.store(0, Ordering::SeqCst);
    stage.reconcile("p").await.unwrap();
    assert_eq!(stage.writes.count.load(Ordering::SeqCst), 0);

    // The new ones, which waited in the manifest of the revocation, are new. The old beside them stay revoked.
    let mut object = second.clone();
    let both = |path: &str| json!([first.pointer(path).unwrap()[0], second.pointer(path).unwrap()[0]]);
    object["spec"]["revocation"] = json!({"revoked": false});
    object["spec"]["credentials"]["wireGuard"]["publicKeys"] = both("/spec/credentials/wireGuard/publicKeys");
    stage.apply(&object).await;
    stage.settle("p").await;
    let live = stage.get("p").await.unwrap();
    assert_eq!(keys_of(&live), (1, 1));
    assert_eq!(
        live.status.as_ref().unwrap().wire_guard_keys[0],
        second["spec"]["credentials"]["wireGuard"]["publicKeys"][0]
    );
    assert_eq!(said(&live, "Ready").0, "True");
    assert!(said(&live, "CredentialsReady").2.contains("to be removed from the manifest: `credentials.wireGuard"));

    // Beyond the manifest: another partner may not have it, and the partner itself not under a new object.
    let mut other = connection("q");
    other["spec"]["credentials"]["wireGuard"] = first["spec"]["credentials"]["wireGuard"].clone();
    stage.apply(&other).await;
    stage.settle("q").await;
    assert_eq!(said(&stage.get("q").await.unwrap(), "Accepted").1, "KeyInUse");
    stage.delete("p").await;
    stage.settle("p").await;
    assert!(stage.get("p").await.is_none());
    assert_eq!(stage.held("p").await, ["Job dispose-P-", "Lease csrkey-", "Lease wgkey-"], "only what was revoked");
    stage.apply(&first).await;
    stage.settle("p").await;
    let live = stage.get("p").await.unwrap();
    assert_eq!((keys_of(&live), said(&live, "CredentialsReady").1.as_str()), ((0, 0), "KeyRevoked"));
}

#[tokio::test]
async fn each_new_key_gets_a_preshared_key_of_its_own_which_goes_with_it() {
    let stage = Stage::new("shared").await;
    stage.agree(&["p"]).await;
    let first = connection("p");
    stage.apply(&first).await;
    stage.settle("p").await;
    let secrets: Api<Secret> = Api::namespaced(stage.client.clone(), &stage.settings.gateway_namespace);
    let shared = async || -> Vec<(String, Vec<u8>)> {
        let mut all = Vec::new();
        for name in liaison_crds::PRESHARED_SECRETS {
            let secret = secrets.get_opt(name).await.unwrap();
            all.extend(
                secret.and_then(|secret| secret.data).into_iter().flatten().map(|(name, value)| (name, value.0)),
            );
        }
        all
    };
    assert!(shared().await.is_empty());

    // A second key, with preshared keys from now on: the first stays as it is.
    let mut object = first.clone();
    let key = |object: &serde_json::Value| object["spec"]["credentials"]["wireGuard"]["publicKeys"][0].clone();
    let second = connection("p");
    object["spec"]["credentials"]["wireGuard"] =
        json!({"publicKeys": [key(&first), key(&second)], "presharedKey": "Required"});
    stage.apply(&object).await;
    stage.settle("p").await;
    let live = stage.get("p").await.unwrap();
    assert_eq!(keys_of(&live), (2, 1));
    let seen = live.status.as_ref().unwrap().wire_guard_keys_seen.iter();
    assert_eq!(seen.map(|key| key.preshared).collect::<Vec<_>>(), [false, true]);
    let held = shared().await;
    let bytes =
        base64::Engine::decode(&base64::engine::general_purpose::STANDARD, key(&second).as_str().unwrap()).unwrap();
    assert_eq!((held.len(), held[0].0.as_str()), (1, liaison_crds::preshared_entry(&bytes).as_str()));
    let value = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, &held[0].1).unwrap();
    assert_eq!(value.len(), 32);
    let text = serde_json::to_string(&live).unwrap();
    assert!(!text.contains(std::str::from_utf8(&held[0].1).unwrap()), "in nothing that people read (I10)");

    // I9, and it stays the same one.
    stage.writes.count.store(0, Ordering::SeqCst);
    stage.reconcile("p").await.unwrap();
    assert_eq!((stage.writes.count.load(Ordering::SeqCst), shared().await), (0, held));

    // It goes with its key: out of the manifest, or with the connection.
    object["spec"]["credentials"]["wireGuard"] = json!({"publicKeys": [key(&first)], "presharedKey": "Required"});
    stage.apply(&object).await;
    stage.settle("p").await;
    assert!(shared().await.is_empty());
    object["spec"]["credentials"]["wireGuard"] = json!({"publicKeys": [key(&second)], "presharedKey": "Required"});
    stage.apply(&object).await;
    stage.settle("p").await;
    assert_eq!(shared().await.len(), 1);
    stage.delete("p").await;
    stage.settle("p").await;
    assert!(stage.get("p").await.is_none() && shared().await.is_empty());
}

#[tokio::test]
async fn deleting_what_is_revoked_remembers_it_though_nobody_had_looked_in_between() {
    let stage = Stage::new("gone").await;
    stage.agree(&["p"]).await;
    stage.apply(&connection("p")).await;
    stage.settle("p").await;
    patch(&stage, "p", &json!({"spec": {"revocation": {"revoked": true}}})).await;
    stage.delete("p").await;
    stage.settle("p").await;
    assert!(stage.get("p").await.is_none());
    assert_eq!(stage.held("p").await, ["Job dispose-P-", "Lease csrkey-", "Lease wgkey-"]);
}

#[tokio::test]
async fn a_date_revokes_older_keys_and_so_does_what_a_gateway_has_acknowledged() {
    let stage = Stage::new("dated").await;
    stage.agree(&["p", "q"]).await;
    let first = connection("p");
    stage.apply(&first).await;
    stage.settle("p").await;
    // As if it had been claimed last year.
    let leases: Api<Lease> = stage.system();
    let of_p = ListParams::default().labels("federation.csc-scc.gc.ca/partner=p");
    for lease in leases.list(&of_p).await.unwrap() {
        let older = json!({"spec": {"acquireTime": "2025-01-01T00:00:00.000000Z"}});
        leases.patch(&lease.name_any(), &PatchParams::default(), &Patch::Merge(&older)).await.unwrap();
    }
    let second = connection("p");
    let mut object = first.clone();
    for path in ["/spec/credentials/wireGuard/publicKeys", "/spec/credentials/certificate/signingRequests"] {
        *object.pointer_mut(path).unwrap() = json!([first.pointer(path).unwrap()[0], second.pointer(path).unwrap()[0]]);
    }
    stage.apply(&object).await;
    stage.settle("p").await;
    let live = stage.get("p").await.unwrap();
    assert_eq!(keys_of(&live), (2, 2));
    assert_eq!(live.status.unwrap().wire_guard_keys_seen[0].first_seen.0.to_string(), "2025-01-01T00:00:00Z");

    // The future is refused: it would revoke the new keys too, so nothing is granted or noted.
    object["spec"]["revocation"] = json!({"revoked": false, "notBefore": "2099-01-01T00:00:00Z"});
    let mut future = connection("q");
    future["spec"]["revocation"] = object["spec"]["revocation"].clone();
    stage.apply(&future).await;
    stage.settle("q").await;
    let live = stage.get("q").await.unwrap();
    assert_eq!((said(&live, "Accepted").1.as_str(), stage.held("q").await.len()), ("InvalidSpec", 0));
    assert!(said(&live, "Accepted").2.contains("must not lie in the future"));

    object["spec"]["revocation"]["notBefore"] = json!("2025-06-01T00:00:00Z");
    stage.apply(&object).await;
    stage.settle("p").await;
    let live = stage.get("p").await.unwrap();
    assert_eq!((keys_of(&live), said(&live, "Ready").0.as_str()), ((1, 1), "True"));
    let status = live.status.unwrap();
    assert_eq!(status.wire_guard_keys[0], second["spec"]["credentials"]["wireGuard"]["publicKeys"][0]);

    // Revoked and taken back while the operator was away: the gateway's word is enough.
    let word = json!({"apiVersion": "federation.csc-scc.gc.ca/v1alpha1", "kind": "PartnerConnection", "metadata": {"name": "p"},
        "status": {"gateways": [{"name": "gateway", "generation": 9, "revokedAt": jiff::Timestamp::now().to_string()}]}});
    let api: Api<PartnerConnection> = stage.partners();
    api.patch_status("p", &PatchParams::apply("liaison-gateway-gateway").force(), &Patch::Apply(&word)).await.unwrap();
    stage.settle("p").await;
    let live = stage.get("p").await.unwrap();
    assert_eq!((keys_of(&live), said(&live, "CredentialsReady").1.as_str()), ((0, 0), "KeyRevoked"));
    assert_eq!(live.status.unwrap().gateways.len(), 1, "the operator leaves the gateway's word");
    let third = connection("p");
    stage.apply(&third).await;
    stage.settle("p").await;
    assert_eq!(keys_of(&stage.get("p").await.unwrap()), (1, 1));
}

async fn patch(stage: &Stage, name: &str, patch: &serde_json::Value) {
    let api: Api<PartnerConnection> = stage.partners();
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
}

#[tokio::test]
async fn every_refusal_says_what_must_change_and_makes_nothing() {
    let stage = Stage::new("refuse").await;
    stage.agree(&["a", "b", "c", "d", "e"]).await;
    let mut missing = connection("a");
    missing["spec"]["agreementRef"]["name"] = json!("none");
    let mut groups = connection("b");
    groups["spec"]["share"]["fieldGroups"] = json!(["identity", "incidents"]);
    let mut terms = connection("c");
    terms["spec"]["share"]["population"] = json!({"anyOf": [{"jurisdictions": ["CA-BC"]}, {"custody": ["Archived"]}]});
    let mut csr = connection("d");
    csr["spec"]["credentials"]["certificate"]["signingRequests"] =
        json!(["-----BEGIN CERTIFICATE REQUEST-----\nMA==\n-----END CERTIFICATE REQUEST-----\n"]);
    let mut key = connection("e");
    key["spec"]["credentials"]["wireGuard"]["publicKeys"] = json!(["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="]);
    let cases = [
        (missing, "AgreementNotFound", "must exist"),
        (groups, "ShareExceedsAgreement", "'incidents'"),
        (terms, "ShareExceedsAgreement", "term 1"),
        (csr, "InvalidSigningRequest", "must be a PKCS#10 request"),
        (key, "InvalidKey", "must be a Curve25519 public key"),
        (connection("f"), "NotAParty", "must name 'f'"),
    ];
    for (object, reason, says) in cases {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        stage.apply(&object).await;
        stage.settle(&name).await;
        let live = stage.get(&name).await.unwrap();
        let (status, found, message) = said(&live, "Accepted");
        assert_eq!((status.as_str(), found.as_str()), ("False", reason), "{message}");
        assert!(message.contains(says), "{message}");
        assert_eq!((said(&live, "Ready").0, said(&live, "Ready").1), ("False".into(), reason.to_owned()));
        assert_eq!(stage.held(&name).await, Vec::<String>::new(), "{reason} made something");
        let status = live.status.unwrap();
        assert!(status.authorized_until.is_none() && status.connection.is_none() && status.certificates.is_empty());
        // Nothing was made, so there is nothing to dispose of.
        stage.delete(&name).await;
        stage.settle(&name).await;
        assert!(stage.get(&name).await.is_none());
    }
    for (effective, expiry, reason) in
        [("2099-01-01", "2099-12-31", "AgreementNotYetInForce"), ("2020-01-01", "2020-12-31", "AgreementExpired")]
    {
        let api: Api<SharingAgreement> = stage.partners();
        let dates = json!({"spec": {"effectiveDate": effective, "expiryDate": expiry}});
        api.patch("bc-2003", &PatchParams::default(), &Patch::Merge(&dates)).await.unwrap();
        stage.apply(&connection("a")).await;
        stage.settle("a").await;
        assert_eq!(said(&stage.get("a").await.unwrap(), "Accepted").1, reason);
        assert_eq!(stage.held("a").await, Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_key_belongs_to_the_first_who_claims_it() {
    let stage = Stage::new("twokeys").await;
    stage.agree(&["first", "second"]).await;
    let mut second = connection("second");
    let first = connection("first");
    second["spec"]["credentials"]["wireGuard"] = first["spec"]["credentials"]["wireGuard"].clone();
    stage.apply(&first).await;
    stage.settle("first").await;
    stage.apply(&second).await;
    stage.settle("second").await;
    let live = stage.get("second").await.unwrap();
    assert_eq!(said(&live, "Accepted").1, "KeyInUse");
    assert!(said(&live, "Accepted").2.contains("partner 'first'"));
    assert_eq!(stage.held("second").await, Vec::<String>::new());
    stage.delete("first").await;
    stage.settle("first").await;
    stage.settle("second").await;
    assert_eq!(said(&stage.get("second").await.unwrap(), "Ready").0, "True");
}

#[tokio::test]
async fn an_edit_that_is_not_accepted_shrinks_and_an_ended_agreement_closes() {
    let stage = Stage::new("shrink").await;
    stage.agree(&["p"]).await;
    let mut object = connection("p");
    stage.apply(&object).await;
    stage.settle("p").await;
    let before = stage.get("p").await.unwrap().status.unwrap();
    object["spec"]["share"]["fieldGroups"] = json!(["identity", "incidents"]);
    let stolen = connection("x")["spec"]["credentials"]["wireGuard"]["publicKeys"][0].clone();
    let own = object["spec"]["credentials"]["wireGuard"]["publicKeys"][0].clone();
    object["spec"]["credentials"]["wireGuard"]["publicKeys"] = json!([own, stolen]);
    stage.apply(&object).await;
    stage.settle("p").await;
    let live = stage.get("p").await.unwrap();
    assert_eq!(
        (said(&live, "Accepted").1, said(&live, "AccessReady").0),
        ("ShareExceedsAgreement".into(), "True".into())
    );
    let after = live.status.unwrap();
    assert_eq!(
        (after.authorized_until, after.wire_guard_keys, after.certificates),
        (before.authorized_until, before.wire_guard_keys, before.certificates)
    );

    // Ended: closed at once, with the read service stopped; the data stay for the agreement's bound.
    stage.partners::<SharingAgreement>().delete("bc-2003", &DeleteParams::default()).await.unwrap();
    stage.settle("p").await;
    let live = stage.get("p").await.unwrap();
    assert_eq!((said(&live, "Ready").0, said(&live, "Accepted").1), ("False".into(), "AgreementNotFound".into()));
    assert!(live.status.unwrap().authorized_until.is_none());
    let deployment: Deployment = stage.partners().get("infopol-p").await.unwrap();
    assert_eq!(deployment.spec.unwrap().replicas, Some(0));
    // And open again when an agreement covers it.
    stage.agree(&["p"]).await;
    object["spec"]["share"]["fieldGroups"] = json!(["identity"]);
    stage.apply(&object).await;
    stage.settle("p").await;
    assert_eq!(said(&stage.get("p").await.unwrap(), "Ready").0, "True");
}

#[tokio::test]
async fn an_unreachable_store_shows_with_what_to_do_and_is_tried_again() {
    let mut stage = Stage::new("store").await;
    stage.agree(&["p", "q"]).await;
    stage.job_says = Some((
        false,
        json!({"reason": "StoreUnreachable", "message": "store.example:5432 does not answer; see its Service"}),
    ));
    stage.apply(&connection("p")).await;
    stage.settle("p").await;
    let live = stage.get("p").await.unwrap();
    assert_eq!(
        said(&live, "ReplicaReady"),
        ("False".into(), "StoreUnreachable".into(), "store.example:5432 does not answer; see its Service".into())
    );
    assert_eq!(said(&live, "Ready").1, "StoreUnreachable");
    // Deleting says so too, and waits.
    stage.delete("p").await;
    for _ in 0..4 {
        stage.reconcile("p").await.unwrap();
        stage.play().await;
    }
    let live = stage.get("p").await.unwrap();
    assert_eq!(said(&live, "Ready").1, "StoreUnreachable");
    assert!(live.status.unwrap().connection.is_none(), "access is cut first");
    stage.job_says = None;
    stage.settle("p").await;
    assert!(stage.get("p").await.is_none());

    let mut elsewhere = connection("q");
    elsewhere["spec"]["replica"] = json!({"storeName": "west"});
    stage.apply(&elsewhere).await;
    stage.settle("q").await;
    let (_, reason, message) = said(&stage.get("q").await.unwrap(), "ReplicaReady");
    assert_eq!(reason, "StoreNotFound");
    assert!(message.contains("liaison-store-west"), "{message}");
    stage.store("liaison-store-west").await;
    stage.settle("q").await;
    assert_eq!(said(&stage.get("q").await.unwrap(), "Ready").0, "True");
}

#[tokio::test]
async fn deleting_works_in_a_terminating_namespace_and_leaves_no_claim() {
    let stage = Stage::new("delete").await;
    stage.agree(&["p"]).await;
    stage.apply(&connection("p")).await;
    stage.settle("p").await;
    let namespaces: Api<Namespace> = Api::all(stage.client.clone());
    namespaces.delete(&stage.settings.partners_namespace, &DeleteParams::default()).await.unwrap();
    stage.delete("p").await;
    stage.reconcile("p").await.unwrap();
    let cut = stage.get("p").await.unwrap().status.unwrap();
    assert!(cut.wire_guard_keys.is_empty() && cut.certificates.is_empty() && cut.authorized_until.is_none());
    stage.settle("p").await;
    assert!(stage.get("p").await.is_none());
    // The record of the disposal stays an hour.
    assert_eq!(stage.held("p").await, ["Job dispose-P-"]);
}

#[tokio::test]
async fn killed_at_any_write_it_converges_to_the_same() {
    let stage = Stage::new("killed").await;
    let names: Vec<String> = (0..40).map(|n| format!("k{n}")).collect();
    stage.agree(&names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let mut kills = 0;
    for name in &names {
        stage.apply(&connection(name)).await;
        stage.writes.left.store(kills, Ordering::SeqCst);
        stage.settle(name).await;
        let onboarding_killed = stage.writes.left.swap(-1, Ordering::SeqCst) < 0;
        let live = stage.get(name).await.unwrap();
        assert_eq!(said(&live, "Ready").0, "True", "killed after write {kills}: {:?}", said(&live, "Ready"));
        assert_eq!(stage.held(name).await, WHOLE, "killed after write {kills}");
        assert_eq!(live.status.unwrap().certificates.len(), 1);
        stage.delete(name).await;
        stage.writes.left.store(kills, Ordering::SeqCst);
        stage.settle(name).await;
        let deletion_killed = stage.writes.left.swap(-1, Ordering::SeqCst) < 0;
        assert!(stage.get(name).await.is_none(), "killed after write {kills}");
        assert_eq!(stage.held(name).await, ["Job dispose-P-"], "killed after write {kills}");
        kills += 1;
        if !onboarding_killed && !deletion_killed {
            // Neither makes that many writes.
            assert!(kills > 10, "only {kills} writes");
            return;
        }
    }
    panic!("more than 40 writes to onboard a partner");
}

#[tokio::test]
async fn slots_are_never_shared_whoever_races() {
    let stage = Stage::new("race").await;
    let names: Vec<String> = (0..8).map(|n| format!("r{n}")).collect();
    stage.agree(&names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    for name in &names {
        stage.apply(&connection(name)).await;
    }
    // Two operators at once: the Leases' names are the lock.
    let all = names.iter().chain(&names).map(|name| stage.reconcile(name));
    futures::future::join_all(all).await;
    for name in &names {
        stage.settle(name).await;
    }
    let leases: Api<Lease> = stage.system();
    let slots: Vec<String> = leases
        .list(&ListParams::default())
        .await
        .unwrap()
        .iter()
        .map(ResourceExt::name_any)
        .filter(|name| name.starts_with("slot-"))
        .collect();
    let mut addresses = Vec::new();
    for name in &names {
        let live = stage.get(name).await.unwrap();
        addresses.push(live.status.unwrap().connection.unwrap().partner_addresses.ipv4);
        assert!(stage.held(name).await.len() >= WHOLE.len());
    }
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), names.len());
    assert!(slots.len() >= names.len());
}

#[tokio::test]
async fn a_new_object_of_the_same_name_adopts() {
    let stage = Stage::new("adopt").await;
    stage.agree(&["p"]).await;
    let object = connection("p");
    stage.apply(&object).await;
    stage.settle("p").await;
    let before = stage.get("p").await.unwrap();
    // As after a restore: the object is another, its claims and Secrets are there.
    patch(&stage, "p", &json!({"metadata": {"finalizers": null}})).await;
    stage.delete("p").await;
    stage.apply(&object).await;
    stage.settle("p").await;
    let after = stage.get("p").await.unwrap();
    assert_ne!(before.uid(), after.uid());
    assert_eq!(said(&after, "Ready").0, "True");
    let address = |c: &PartnerConnection| c.status.clone().unwrap().connection.unwrap().partner_addresses;
    assert_eq!(address(&before), address(&after));
    let names = Names::new("p", &after.uid().unwrap());
    stage
        .system::<k8s_openapi::api::batch::v1::Job>()
        .get(&names.seed_job)
        .await
        .expect("adoption seeds again, which verifies");
}

#[tokio::test]
async fn an_upgrade_seeds_again_and_stays_ready() {
    let mut stage = Stage::new("upgrade").await;
    stage.agree(&["p"]).await;
    let object = stage.apply(&connection("p")).await;
    stage.settle("p").await;
    let job = async |stage: &Stage| -> k8s_openapi::api::batch::v1::Job {
        stage.system().get(&Names::new("p", &object.uid().unwrap()).seed_job).await.unwrap()
    };
    let before = job(&stage).await;
    std::sync::Arc::get_mut(&mut stage.ctx).unwrap().settings.image_sync = "liaison/sync:next".into();
    for _ in 0..10 {
        stage.reconcile("p").await.unwrap();
        assert_eq!(said(&stage.get("p").await.unwrap(), "Ready").0, "True");
        stage.play().await;
    }
    let after = job(&stage).await;
    assert_ne!(before.uid(), after.uid());
    assert_eq!(after.spec.unwrap().template.spec.unwrap().containers[0].image.as_deref(), Some("liaison/sync:next"));
    stage.writes.count.store(0, Ordering::SeqCst);
    stage.reconcile("p").await.unwrap();
    assert_eq!(stage.writes.count.load(Ordering::SeqCst), 0, "once is enough");
}

#[tokio::test]
async fn i7_a_legal_hold_cuts_access_and_waits_with_a_condition_that_says_so() {
    let stage = Stage::new("hold").await;
    stage.agree(&["p"]).await;
    let mut object = connection("p");
    object["spec"]["legalHold"] = json!(true);
    stage.apply(&object).await;
    stage.settle("p").await;
    assert_eq!(said(&stage.get("p").await.unwrap(), "Ready").0, "True", "a hold changes nothing while it is shared");
    stage.delete("p").await;
    stage.settle("p").await;
    let live = stage.get("p").await.expect("the finalizer waits");
    let (status, reason, message) = said(&live, "Ready");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "LegalHold"));
    assert!(message.contains("spec.legalHold"), "{message}");
    let cut = live.status.unwrap();
    assert!(cut.wire_guard_keys.is_empty() && cut.certificates.is_empty() && cut.authorized_until.is_none());
    let held = stage.held("p").await;
    assert!(!held.iter().any(|what| what.contains("dispose") || what == "Deployment infopol-P"), "{held:?}");
    // I9: waiting writes nothing.
    stage.writes.count.store(0, Ordering::SeqCst);
    stage.reconcile("p").await.unwrap();
    assert_eq!(stage.writes.count.load(Ordering::SeqCst), 0);
    patch(&stage, "p", &json!({"spec": {"legalHold": false}})).await;
    stage.settle("p").await;
    assert!(stage.get("p").await.is_none());
    assert_eq!(stage.held("p").await, ["Job dispose-P-"]);
}
