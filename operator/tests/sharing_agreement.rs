//! Agreements against a real API server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::large_futures)]

mod common;

use std::sync::{Arc, atomic::Ordering};

use common::{Stage, connection, said};
use kube::{Api, api::DeleteParams, core::DeserializeGuard};
use liaison_crds::SharingAgreement;
use liaison_operator::sharing_agreement;

#[tokio::test]
async fn in_use_it_waits_when_deleted_and_counts_as_ended_at_once() {
    let stage = Stage::new("agreement").await;
    stage.agree(&["p"]).await;
    stage.apply(&connection("p")).await;
    stage.settle("p").await;
    let api: Api<SharingAgreement> = stage.partners();
    let reconcile = async || {
        let object = api.get("bc-2003").await.unwrap();
        sharing_agreement::reconcile(Arc::new(DeserializeGuard(Ok(object))), stage.ctx.clone()).await.unwrap();
    };
    reconcile().await;
    let live = api.get("bc-2003").await.unwrap();
    let status = live.status.unwrap();
    assert_eq!((status.conditions[0].type_.as_str(), status.conditions[0].status.as_str()), ("InForce", "True"));
    assert_eq!(Some(status.observed_generation), live.metadata.generation);
    stage.writes.count.store(0, Ordering::SeqCst);
    reconcile().await;
    assert_eq!(stage.writes.count.load(Ordering::SeqCst), 0);

    api.delete("bc-2003", &DeleteParams::default()).await.unwrap();
    reconcile().await;
    let live = api.get("bc-2003").await.expect("it waits while a connection names it");
    assert_eq!(live.status.unwrap().conditions[0].reason, "Deleted");
    stage.settle("p").await;
    let closed = stage.get("p").await.unwrap();
    assert_eq!(said(&closed, "Accepted").1, "AgreementDeleted");
    assert!(closed.status.unwrap().authorized_until.is_none());
    stage.delete("p").await;
    stage.settle("p").await;
    reconcile().await;
    assert!(api.get_opt("bc-2003").await.unwrap().is_none());
}
