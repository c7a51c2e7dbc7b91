//! The test API server (`tests/cluster/services up`), and what the gateway finds there.

use std::{path::Path, time::Duration};

use clap::Parser as _;
use k8s_openapi::{
    ByteString,
    api::core::v1::{Namespace as KubeNamespace, Secret},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, Config as KubeConfig, CustomResourceExt as _,
    api::{Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use liaison_crds::PartnerConnection;
use liaison_gateway::{config::Config, tls::KeyMaterial};

use super::{DOMAIN, ca::Ca, unique};

/// How the test API server is reached.
pub async fn config() -> KubeConfig {
    let path = std::env::var("TEST_KUBECONFIG")
        .expect("TEST_KUBECONFIG must name a kubeconfig: run `tests/cluster/services up` and `eval \"$(tests/cluster/services env)\"`");
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let kubeconfig = Kubeconfig::read_from(Path::new(&path)).unwrap();
    KubeConfig::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap()
}

/// A client of the test API server.
pub async fn client() -> Client {
    Client::try_from(config().await).unwrap()
}

/// Defines PartnerConnection as it is now.
pub async fn crd(client: &Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let name = PartnerConnection::crd_name();
    // What is there may be of another version, which drops the fields that it does not know.
    let params = PatchParams::apply("liaison-tests").force();
    let definition = liaison_crds::schema::partner_connection().unwrap();
    api.patch(name, &params, &Patch::Apply(definition)).await.unwrap();
    let established = kube::runtime::conditions::is_crd_established();
    let waiting = kube::runtime::wait::await_condition(api, name, established);
    tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap().unwrap();
}

/// Makes a Secret.
pub async fn secret(client: &Client, namespace: &str, name: &str, data: &[(&str, &[u8])]) {
    let data = data.iter().map(|(k, v)| ((*k).to_owned(), ByteString(v.to_vec()))).collect();
    let secret = Secret {
        metadata: kube::core::ObjectMeta { name: Some(name.to_owned()), ..Default::default() },
        data: Some(data),
        ..Default::default()
    };
    Api::namespaced(client.clone(), namespace).create(&PostParams::default(), &secret).await.unwrap();
}

/// Makes a Secret of key material.
pub async fn tls_secret(client: &Client, namespace: &str, name: &str, m: &KeyMaterial) {
    secret(client, namespace, name, &[("tls.crt", &m.chain), ("tls.key", &m.key), ("ca.crt", &m.ca)]).await;
}

/// The namespace's own Secrets.
pub async fn own_secrets(client: &kube::Client, namespace: &str, ca: &Ca, private: &str) {
    let server = ca.server(&[&format!("*.{DOMAIN}")], &format!("spiffe://{DOMAIN}/gateway"));
    tls_secret(client, namespace, "gateway-tls", &ca.material(&server)).await;
    let gateway_client = ca.client(&format!("spiffe://{DOMAIN}/gateway"));
    tls_secret(client, namespace, "gateway-client-tls", &ca.material(&gateway_client)).await;
    secret(client, namespace, "gateway-wireguard", &[("privateKey", private.trim().as_bytes())]).await;
}

/// What a gateway is told at start that finds everything in one namespace, and all InfoPols at one port of this machine. What is in
/// `more` is told beside that, or instead.
pub fn gateway(namespace: &str, infopol: u16, more: &[&str]) -> Config {
    Config::parse_from(arguments(namespace, infopol, more))
}

/// The same as arguments of the program, with its name.
pub fn arguments(namespace: &str, infopol: u16, more: &[&str]) -> Vec<String> {
    let port = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let usual = [
        "liaison-gateway".to_owned(),
        format!("--upstream=https://127.0.0.1:{infopol}"),
        format!("--partners-namespace={namespace}"),
        format!("--gateway-namespace={namespace}"),
        format!("--tun-name=lgt{}", unique()),
        format!("--wg-port={port}"),
        "--health-addr=127.0.0.1:0".to_owned(),
    ];
    let name = |argument: &str| argument.split('=').next().unwrap_or_default().to_owned();
    let usual = usual.into_iter().filter(|one| more.iter().all(|other| name(other) != name(one)));
    usual.chain(more.iter().map(ToString::to_string)).collect()
}

/// A namespace, where PartnerConnections are defined.
pub async fn make_namespace(client: &kube::Client, name: &str) {
    crd(client).await;
    let object = KubeNamespace {
        metadata: kube::core::ObjectMeta { name: Some(name.to_owned()), ..Default::default() },
        ..Default::default()
    };
    Api::all(client.clone()).create(&PostParams::default(), &object).await.unwrap();
}
