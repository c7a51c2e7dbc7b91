//! The real API server of TEST_KUBECONFIG, and a namespace of one test's own.

use k8s_openapi::{
    api::core::v1::Namespace, apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, Config, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    runtime::{conditions::is_crd_established, wait::await_condition},
};
use liaison_crds::schema;
use serde_json::json;

/// A client; the two CRDs are there.
pub async fn client() -> Client {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let path = std::env::var("TEST_KUBECONFIG").expect(
        "TEST_KUBECONFIG is not set: run `tests/cluster/services up`, then `eval \"$(tests/cluster/services env)\"`",
    );
    let config = Kubeconfig::read_from(path).unwrap();
    let client =
        Client::try_from(Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await.unwrap()).unwrap();
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    for crd in [schema::partner_connection().unwrap(), schema::sharing_agreement().unwrap()] {
        let name = crd.name_any();
        crds.patch(&name, &PatchParams::apply("liaison-tests").force(), &Patch::Apply(&crd)).await.unwrap();
        await_condition(crds.clone(), &name, is_crd_established()).await.unwrap();
    }
    client
}

/// A client and a new namespace.
pub async fn namespace(name: &str) -> (Client, String) {
    let client = client().await;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let object: Namespace = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
    namespaces.create(&PostParams::default(), &object).await.unwrap();
    (client, name.to_owned())
}

/// Removes it, without waiting.
pub async fn forget(client: &Client, namespace: &str) {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let _ = namespaces.delete(namespace, &DeleteParams::default()).await;
}
