//! Statements that sync publishes are signed where they are, against a real API server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::large_futures)]

mod common;

use std::{sync::Arc, time::Duration};

use common::Stage;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, api::PostParams};
use liaison_operator::{install, signing};
use liaison_records::statement::{self, Id, Kind, LABEL};
use serde_json::json;

#[tokio::test]
async fn a_statement_is_signed_where_it_is_and_only_once() {
    let stage = Stage::new("signing").await;
    let installed = install::ensure(&stage.client, &stage.settings, Timestamp::now()).await.unwrap();
    let again = install::ensure(&stage.client, &stage.settings, Timestamp::now()).await.unwrap();
    assert_eq!(installed.signer.key_id, again.signer.key_id, "the key is kept");
    let (sender, receiver) = tokio::sync::watch::channel(Arc::clone(&installed.signer));
    let (client, namespace) = (stage.client.clone(), stage.settings.system_namespace.clone());
    let running = tokio::spawn(async move { signing::run(&client, &namespace, &receiver, Timestamp::now).await });
    let api: Api<ConfigMap> = stage.system();
    let id = Id { kind: Kind::Disposal, partner: "vancouver-police".into(), number: 1 };
    let text = statement::text(&id, "2026-11-22T00:00:00Z", serde_json::Map::new());
    let publish = async |name: &str, labelled: bool| {
        let labels = if labelled { json!({LABEL: "disposal"}) } else { json!({}) };
        let object: ConfigMap =
            serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}, "data": {"statement": text}}))
                .unwrap();
        api.create(&PostParams::default(), &object).await.unwrap();
    };
    publish("not-a-statement", false).await;
    publish("statement-disposal-victoria-police-1", true).await;
    publish(&id.object_name(), true).await;
    let answered = async |name: &str, key: &str| {
        for _ in 0..100 {
            let object = api.get(name).await.unwrap();
            if let Some(value) = object.data.as_ref().and_then(|data| data.get(key)) {
                return (value.clone(), object.clone());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{name} has no {key} within 10 s");
    };
    let (_, signed) = answered(&id.object_name(), "signature").await;
    let data = signed.data.as_ref().unwrap();
    assert_eq!(
        (&data["statement"], &data["keyId"], &data["chain"]),
        (&text, &installed.signer.key_id, &installed.signer.chain)
    );
    assert!(data["signedAt"].parse::<Timestamp>().is_ok());
    let (why, _) = answered("statement-disposal-victoria-police-1", "refused").await;
    assert!(why.contains("statement-disposal-vancouver-police-1"), "{why}");
    assert_eq!(api.get("not-a-statement").await.unwrap().data.unwrap().len(), 1, "without the label it is nobody's");

    // I9: what is answered is not written again, by another operator that takes over neither.
    assert!(!signing::sign(&api, &signed, &installed.signer, Timestamp::now()).await.unwrap());
    // One that is gone is not made again by a late signature.
    let mut gone = signed.clone();
    gone.metadata.name = Some("statement-disposal-vancouver-police-2".into());
    let id = Id { number: 2, ..id };
    gone.data =
        Some([("statement".to_owned(), statement::text(&id, "2026-11-22T00:00:00Z", serde_json::Map::new()))].into());
    assert!(!signing::sign(&api, &gone, &installed.signer, Timestamp::now()).await.unwrap());
    assert!(api.get_opt(&id.object_name()).await.unwrap().is_none());
    running.abort();
    drop(sender);

    // I10: the key is in its Secret and nowhere else; no workload of the installation names that Secret.
    let secret: Secret = stage.system().get(install::SIGNING).await.unwrap();
    let key = install::text(&secret, "tls.key").unwrap();
    assert!(!serde_json::to_string(&signed).unwrap().contains(key.lines().nth(1).unwrap()));
}
