//! The definitions and their rules, once against a real API server (TEST_KUBECONFIG; see tests/cluster/services).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use k8s_openapi::{
    api::core::v1::Namespace, apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, Config, Resource,
    api::{DynamicObject, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    discovery::ApiResource,
    runtime::{conditions::is_crd_established, wait::await_condition},
};
use liaison_crds::{PartnerConnection, SharingAgreement, schema};
use serde_json::{Value, json};

async fn client() -> Client {
    let path = std::env::var("TEST_KUBECONFIG").expect(
        "TEST_KUBECONFIG must name a kubeconfig: tests/cluster/services up; eval \"$(tests/cluster/services env)\"",
    );
    let config = Kubeconfig::read_from(path).unwrap();
    Client::try_from(Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await.unwrap()).unwrap()
}

async fn install(client: &Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for crd in [schema::partner_connection().unwrap(), schema::sharing_agreement().unwrap()] {
        let name = crd.metadata.name.clone().unwrap();
        api.patch(&name, &PatchParams::apply("liaison-tests").force(), &Patch::Apply(&crd)).await.unwrap();
        await_condition(api.clone(), &name, is_crd_established()).await.unwrap();
    }
}

/// A manifest that every rule passes; the unit tests have the same.
fn connection() -> Value {
    serde_json::from_str(include_str!("good/partner-connection.json")).unwrap()
}

fn agreement() -> Value {
    serde_json::from_str(include_str!("good/sharing-agreement.json")).unwrap()
}

/// Pointer, value, and what the refusal must say. A pointer whose last part is missing adds it.
const BAD_CONNECTIONS: &[(&str, &str, &str)] = &[
    ("/metadata/name", r#""a.b""#, "must be 1 to 40 lower-case letters"),
    ("/metadata/name", r#""aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa""#, "must be 1 to 40 lower-case letters"),
    ("/spec/partner/jurisdiction", r#""CA-AB""#, "must not change"),
    ("/spec/partner/jurisdiction", r#""US-WA""#, "Unsupported value"),
    ("/spec/partner/type", r#""Newspaper""#, "Unsupported value"),
    ("/spec/partner/timeZone", r#""PST""#, "must be an IANA time zone"),
    ("/spec/replica/storeName", r#""other""#, "must not change"),
    ("/spec/share/fieldGroups", r#"["identity","victims"]"#, "Unsupported value"),
    ("/spec/share/fieldGroups", r#"["aliases"]"#, "must contain 'identity'"),
    ("/spec/share/fieldGroups", r#"["identity","identity"]"#, "must not name a field group twice"),
    ("/spec/share/fieldGroups", r"[]", "at least 1 item"),
    ("/spec/share/population", r"{}", "spec.share.population"),
    ("/spec/share/population/anyOf", r"[]", "at least 1 item"),
    ("/spec/share/population/anyOf", r"[{}]", "must have at least one key"),
    ("/spec/share/population/anyOf", r#"[{"statuses":[]}]"#, "at least 1 item"),
    ("/spec/share/population/anyOf", r#"[{"statuses":["Gone"]}]"#, "Unsupported value"),
    ("/spec/share/population/anyOf", r#"[{"places":["x"]}]"#, "field not declared in schema"),
    ("/spec/share/population/anyOf", r#"[{"municipalities":["Vancouv"]}]"#, "should"),
    ("/spec/credentials/keyCustody", r#""Liaison""#, "must hold, with custody Liaison, `recipients` and no key"),
    ("/spec/credentials/keyCustody", r#""Nobody""#, "Unsupported value"),
    ("/spec/credentials/keyNumber", "1", "with custody Partner no `keyNumber`"),
    ("/spec/credentials/wireGuard/publicKeys", r#"["not a key"]"#, "should"),
    (
        "/spec/credentials/wireGuard/publicKeys",
        r#"["ANN0WtCmwgRlYsYdHWp7ztCY5OqmHxEjtyEDx6pCWEE=","ANN0WtCmwgRlYsYdHWp7ztCY5OqmHxEjtyEDx6pCWEE="]"#,
        "must not hold a key twice",
    ),
    ("/spec/credentials/wireGuard/presharedKey", r#""Perhaps""#, "Unsupported value"),
    (
        "/spec/credentials/certificate",
        r#"{"signingRequests":[]}"#,
        "must hold `certificate.signingRequests`, or `certificate.enrolment`",
    ),
    ("/spec/credentials/recipients", r#"["AGE-SECRET-KEY-1"]"#, "should"),
    ("/spec/credentials/certificate", r#"{"enrolment":{},"issuerRef":{"name":"a"}}"#, "must not hold both `enrolment`"),
    ("/spec/credentials/certificate/issuerRef", r#"{"name":"A"}"#, "should match"),
    ("/spec/credentials/certificate/enrolment", r#"{"tokenNumber":0}"#, "greater than or equal to 1"),
    ("/spec/credentials/certificate/enrolment", r#"{"token":"x"}"#, "field not declared in schema"),
    ("/spec/credentials/certificate/signingRequests", r#"["hello"]"#, "must be one PKCS#10 request"),
    (
        "/spec/credentials/certificate/signingRequests",
        r#"["-----BEGIN CERTIFICATE REQUEST-----\n-----BEGIN PRIVATE KEY-----"]"#,
        "must not hold a private key",
    ),
    ("/spec/revocation/notBefore", r#""yesterday""#, "date-time"),
    ("/spec/revocation/notBefore", r#""1970-01-01T00:00:00Z""#, "must lie between 2020 and 2100"),
    ("/spec/revocation/notbefore", r#""2026-01-01T00:00:00Z""#, "field not declared in schema"),
    ("/spec/legalHold", r#""yes""#, "expected boolean"),
    ("/spec/receive", r"{}", "field not declared in schema"),
    ("/spec/share/retrieval", r"{}", "field not declared in schema"),
];

const BAD_AGREEMENTS: &[(&str, &str, &str)] = &[
    ("/spec/expiryDate", r#""2025-12-31""#, "must not be after"),
    ("/spec/expiryDate", r#""tomorrow""#, "should"),
    ("/spec/parties", r#"["a","a"]"#, "must not name a party twice"),
    ("/spec/purposes", r#"["Curiosity"]"#, "Unsupported value"),
    ("/spec/purposes", r#"["Supervision","Supervision"]"#, "must not name a purpose twice"),
    ("/spec/allows/fieldGroups", r#"["aliases"]"#, "must contain 'identity'"),
    ("/spec/allows/population/anyOf", r"[{}]", "must have at least one key"),
    ("/spec/allows/population/anyOf", r"[]", "at least 1 item"),
    ("/spec/retention/disposalDays", r"-1", "should be greater than or equal to 0"),
];

async fn refuses<K: Resource<DynamicType = ()>>(
    client: &Client,
    namespace: &str,
    good: &Value,
    cases: &[(&str, &str, &str)],
) {
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &ApiResource::erase::<K>(&()));
    // As kubectl does: an unknown field is an error.
    let strict = PatchParams::apply("liaison-tests").force().validation_strict();
    let apply = |object: Value| {
        let (api, strict) = (api.clone(), strict.clone());
        async move { api.patch(object["metadata"]["name"].as_str().unwrap(), &strict, &Patch::Apply(&object)).await }
    };
    let made = apply(good.clone()).await.unwrap();
    assert_eq!(made.data["status"]["observedGeneration"], -1, "a new object is in progress at once");
    let mut wrong = Vec::new();
    for (pointer, value, says) in cases {
        let mut bad = good.clone();
        let (parent, last) = pointer.rsplit_once('/').unwrap();
        bad.pointer_mut(parent).unwrap()[last] = serde_json::from_str(value).unwrap();
        let error = apply(bad).await.err().unwrap_or_else(|| panic!("{pointer} = {value} was taken")).to_string();
        if !error.contains(says) {
            wrong.push(format!("{pointer} = {value}: {error}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(apply(good.clone()).await.unwrap().metadata.generation, Some(1));
}

#[tokio::test]
async fn the_api_server_takes_the_good_and_refuses_the_bad() {
    let client = client().await;
    install(&client).await;
    let namespace = format!("crds-{}", std::process::id());
    let api: Api<Namespace> = Api::all(client.clone());
    let object: Namespace = serde_json::from_value(json!({"metadata": {"name": namespace}})).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap();
    refuses::<SharingAgreement>(&client, &namespace, &agreement(), BAD_AGREEMENTS).await;
    refuses::<PartnerConnection>(&client, &namespace, &connection(), BAD_CONNECTIONS).await;

    // The first status is there before anybody has looked, and reads as the types say.
    let typed: Api<PartnerConnection> = Api::namespaced(client.clone(), &namespace);
    let status = typed.get("vancouver-police").await.unwrap().status.unwrap();
    let first: Vec<(&str, &str)> = status.conditions.iter().map(|c| (c.type_.as_str(), c.status.as_str())).collect();
    assert_eq!(first, [("Connected", "Unknown"), ("DataFresh", "Unknown")]);
}
