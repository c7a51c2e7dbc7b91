//! What is seen in use of the authority's certificates: each process is asked on its health port, sync for the two databases
//! too, and what partners are told is read from status.
//!
//! Reads only. Who runs and does not answer is named as silent, and holds a rotation up.

use std::{net::IpAddr, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::Request,
};
use futures::{StreamExt, stream};
use http_body_util::{BodyExt, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, ResourceExt, api::ListParams, core::DeserializeGuard};
use liaison_crds::{PartnerConnection, gateway};
use liaison_records::trust::{self, Report, Server};
use tokio::{net::TcpStream, time::timeout};

use crate::{
    ca,
    rotation::{Holder, Leaf, Observed},
    settings::Settings,
};

/// How long a process may take to answer; sync calls two databases meanwhile.
const PATIENCE: Duration = Duration::from_secs(15);
/// Processes asked at a time.
const AT_ONCE: usize = 16;
/// Largest answer.
const LARGEST: usize = 1 << 20;
/// Objects a page.
const PAGE: u32 = 500;
/// The servers of which only sync can tell.
const DATABASES: [&str; 2] = ["hub", "store"];

/// Looks at everything.
pub async fn observe(client: &Client, settings: &Settings) -> Result<Observed, kube::Error> {
    let mut observed = Observed::default();
    let mut pods = Vec::new();
    for (namespace, app) in [
        (&settings.gateway_namespace, "gateway"),
        (&settings.system_namespace, "sync"),
        (&settings.partners_namespace, "infopol"),
    ] {
        // Jobs serve no health port, and end.
        let labels = format!("app.kubernetes.io/name={app},!batch.kubernetes.io/job-name");
        let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
        let mut params = ListParams::default().labels(&labels).limit(PAGE);
        loop {
            let page = api.list(&params).await?;
            pods.extend(page.items.into_iter().filter(runs).map(|pod| (app, pod)));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => break,
            }
        }
    }
    let answers: Vec<(&str, Pod, Result<Report, String>)> = stream::iter(pods)
        .map(|(app, pod)| async move {
            let said = ask(&pod).await;
            (app, pod, said)
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    for (app, pod, answer) in answers {
        let name = format!("{app}/{}", pod.name_any());
        // A pod of the version before there were shards does not say which it is of.
        let shard = || pod.labels().get(gateway::LABEL).map_or(gateway::FIRST, String::as_str);
        take_in(&mut observed, name, (app == "gateway").then(shard), answer);
    }
    for database in DATABASES {
        let seen = observed.holders.keys().any(|name| name.split('/').next() == Some(database));
        if !seen {
            let why = "no process of sync says how it finds it".to_owned();
            observed.holders.insert(database.to_owned(), Holder { silent: Some(why), ..Holder::default() });
        }
    }
    partners(client, settings, &mut observed).await?;
    Ok(observed)
}

fn runs(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    pod.metadata.deletion_timestamp.is_none() && phase == Some("Running")
}

/// A process's word, its word on the databases, and that of a process of a shard of the gateway's on its listeners.
fn take_in(observed: &mut Observed, name: String, shard: Option<&str>, answer: Result<Report, String>) {
    if let Some(shard) = shard {
        let said = answer.as_ref().map(|report| report.wireguard.clone()).map_err(Clone::clone);
        observed.listeners.entry(shard.to_owned()).or_default().insert(name.clone(), said);
    }
    let holder = match answer {
        Err(why) => Holder { silent: Some(why), ..Holder::default() },
        Ok(Report { trusts, shows, servers, .. }) => {
            for (server, found) in servers {
                let holder = match found {
                    Server::Plain => Holder::default(),
                    Server::Away { why } => Holder { silent: Some(why), ..Holder::default() },
                    Server::Met { shows, accepts } => {
                        Holder { shows: vec![shows], accepts: vec![accepts], ..Holder::default() }
                    }
                };
                observed.holders.insert(format!("{server}/{name}"), holder);
            }
            Holder { trusts: trusts.into_values().collect(), shows: shows.into_values().collect(), ..Holder::default() }
        }
    };
    observed.holders.insert(name, holder);
}

async fn ask(pod: &Pod) -> Result<Report, String> {
    let address = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()).and_then(|ip| ip.parse().ok());
    let address: IpAddr = address.ok_or("has no address yet")?;
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    let port = ports.into_iter().find(|port| port.name.as_deref() == Some("health")).map(|port| port.container_port);
    let port = port.and_then(|port| u16::try_from(port).ok()).ok_or("has no port named health")?;
    let body = timeout(PATIENCE, get(address, port)).await.map_err(|_| "does not answer in time".to_owned())?;
    serde_json::from_slice(&body?).map_err(|error| format!("answers what cannot be read: {error}"))
}

async fn get(address: IpAddr, port: u16) -> Result<Bytes, String> {
    let failed = |error: &dyn std::fmt::Display| format!("does not answer: {error}");
    let stream = TcpStream::connect((address, port)).await.map_err(|error| failed(&error))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
    let call = async {
        let request = Request::get(trust::PATH).header("host", "health").body(Body::empty());
        let answer = sender.send_request(request.map_err(|error| failed(&error))?).await.map_err(|e| failed(&e))?;
        if !answer.status().is_success() {
            return Err(format!("answers {} to {}", answer.status().as_u16(), trust::PATH));
        }
        let body = Limited::new(answer.into_body(), LARGEST).collect().await.map_err(|error| failed(&error))?;
        Ok(body.to_bytes())
    };
    let driving = tokio::spawn(connection);
    let said = call.await;
    driving.abort();
    said
}

async fn partners(client: &Client, settings: &Settings, observed: &mut Observed) -> Result<(), kube::Error> {
    let api: Api<DeserializeGuard<PartnerConnection>> = Api::namespaced(client.clone(), &settings.partners_namespace);
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let page = api.list(&params).await?;
        // One that cannot be read is served by nobody.
        for connection in page.items.into_iter().filter_map(|guard| guard.0.ok()) {
            let name = connection.name_any();
            let Some(status) = connection.status else { continue };
            if let Some(told) = &status.connection {
                let trusts = vec![ca::digests(&told.ca_bundle).into_iter().collect()];
                observed.holders.insert(format!("status/{name}"), Holder { trusts, ..Holder::default() });
            }
            // Of another CA: no root of ours is needed for it.
            let own = status.certificates.iter().filter(|held| held.issued_by.is_none());
            observed.leaves.extend(own.map(|held| Leaf {
                holder: format!("partner/{name}"),
                chain: ca::digests(&held.chain),
                not_after: held.not_after.0,
            }));
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_database_is_somebody_of_its_own_and_one_without_tls_is_waited_for_by_nobody() {
        let mut observed = Observed::default();
        let met = Server::Met { shows: vec!["leaf".to_owned()], accepts: BTreeSet::new() };
        let report = Report {
            servers: [("hub".to_owned(), met), ("store".to_owned(), Server::Plain)].into(),
            ..Report::default()
        };
        take_in(&mut observed, "sync/sync-0".to_owned(), None, Ok(report));
        take_in(&mut observed, "gateway/g".to_owned(), Some("gateway-a"), Err("does not answer".to_owned()));
        assert_eq!(observed.holders["store/sync/sync-0"], Holder::default());
        assert_eq!(observed.holders["hub/sync/sync-0"].accepts.len(), 1);
        assert!(observed.holders["gateway/g"].silent.is_some());
        assert!(observed.listeners["gateway-a"]["gateway/g"].is_err() && observed.listeners.len() == 1);
    }
}
