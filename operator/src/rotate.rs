//! Rotation against the API server: takes the steps that nobody is waited for, and says how it stands.
//!
//! What people see and ask is the ConfigMap `liaison-authority` in the system namespace: the bundle, how each CA stands, who
//! is waited for. Two annotations ask for a rotation (any new value asks again), a third names who is not waited for.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client, ResourceExt};
use liaison_crds::GatewayName;
use serde::{Deserialize, Serialize};

use crate::{
    apply,
    authorities::{self, Authorities},
    gateway_keys,
    install::{Error, own_labels},
    metrics::{self, Metrics},
    observe,
    rotation::{self, Asked, Laggard, Phase, Step, Tier},
    settings::Settings,
};

/// The ConfigMap.
pub const NAME: &str = "liaison-authority";
/// Asks for a new root, and with it a new issuing CA.
pub const ROTATE_ROOT: &str = "federation.csc-scc.gc.ca/rotate-root";
/// Asks for a new issuing CA.
pub const ROTATE_ISSUING: &str = "federation.csc-scc.gc.ca/rotate-issuing";
/// Asks for new WireGuard keys of the gateway's own, one for every shard.
pub const ROTATE_GATEWAY: &str = "federation.csc-scc.gc.ca/rotate-gateway";
/// Names who is not waited for, separated by commas.
pub const WITHOUT: &str = "federation.csc-scc.gc.ca/rotate-without";
/// All trusted roots in PEM: for whoever verifies Liaison's certificates outside of it.
pub const BUNDLE: &str = "ca.crt";
/// Roots that are trusted no more, in PEM: old signatures of the ledger are verified with them, connections never.
pub const FORMER: &str = "former.crt";
/// How each CA stands, in JSON.
pub const STATUS: &str = "status.json";
/// How the gateway's own keys stand, in JSON, by shard.
pub const GATEWAY: &str = "gateway.json";
/// Laggards that are named; there may be one a partner.
const NAMED: usize = 50;
/// Steps of one visit. A rotation takes fewer; what is left is for the next.
const STEPS: usize = 12;

/// What a visit came to.
#[derive(Debug)]
pub struct Visited {
    /// The steps that were taken.
    pub taken: Vec<Step>,
    /// Whether a step waits for somebody.
    pub waiting: bool,
}

/// Takes every step that may be taken, and publishes how it stands.
pub async fn visit(client: &Client, settings: &Settings, metrics: &Metrics, now: Timestamp) -> Result<Visited, Error> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &settings.system_namespace);
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &settings.system_namespace);
    let published = maps.get_opt(NAME).await?;
    let asked = published.as_ref().map(asked).unwrap_or_default();
    let mut former = published.as_ref().and_then(|map| map.data.as_ref()?.get(FORMER)).cloned().unwrap_or_default();
    let mut observed = None;
    let mut taken = Vec::new();
    let (all, waiting) = loop {
        let all = authorities::load(&secrets).await?;
        let mut waiting = Vec::new();
        let mut possible = None;
        for step in rotation::next(&all.state, &asked, now) {
            let laggards = if rotation::waits(&all.state, step, now) {
                // One look a visit: what was seen to hold a root is never taken back by a step.
                let seen = match observed.take() {
                    Some(seen) => seen,
                    None => observe::observe(client, settings).await?,
                };
                rotation::laggards(&all.state, step, &asked, observed.insert(seen), now)
            } else {
                Vec::new()
            };
            if laggards.is_empty() {
                possible = Some(step);
                break;
            }
            waiting.push((step, laggards));
        }
        let Some(step) = possible.filter(|_| taken.len() < STEPS) else { break (all, waiting) };
        if let Step::Remove(Tier::Root, number) = step
            && let Some(certificate) = all.certificate(Tier::Root, number)
            && !former.contains(certificate.trim())
        {
            // Said before it is gone.
            former.push_str(certificate);
            publish(&maps, published.as_ref(), &all, &former, &waiting, None, now).await?;
        }
        all.take(&secrets, step, &asked, &settings.domain, now).await?;
        tracing::info!(step = %describe(step), "the authority's CAs");
        taken.push(step);
    };
    let mut gateway = gateway_keys::visit(client, settings, &asked, &mut observed).await?;
    let late = gateway.values().map(|shard| shard.laggards.len()).sum::<usize>();
    for shard in gateway.values_mut() {
        shard.laggards.truncate(NAMED);
    }
    publish(&maps, published.as_ref(), &all, &former, &waiting, Some(&gateway), now).await?;
    measure(metrics, &all, &waiting);
    let label = metrics::OfTier { tier: "gateway" };
    metrics.authority_laggards.get_or_create(&label).set(i64::try_from(late).unwrap_or(i64::MAX));
    Ok(Visited { taken, waiting: !waiting.is_empty() || late > 0 })
}

/// What people ask now.
pub async fn asked_now(client: &Client, settings: &Settings) -> Result<Asked, kube::Error> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &settings.system_namespace);
    Ok(maps.get_opt(NAME).await?.as_ref().map(asked).unwrap_or_default())
}

fn asked(map: &ConfigMap) -> Asked {
    let get = |key: &str| map.annotations().get(key).filter(|value| !value.is_empty());
    let digest = |key: &str| get(key).map(|value| liaison_records::trust::digest(value.as_bytes()));
    let names = get(WITHOUT).map(String::as_str).unwrap_or_default().split(',');
    Asked {
        root: digest(ROTATE_ROOT),
        issuing: digest(ROTATE_ISSUING),
        gateway: digest(ROTATE_GATEWAY),
        without: names.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect(),
    }
}

fn describe(step: Step) -> String {
    match step {
        Step::Make(tier) => format!("make a new {} CA", tier.as_str()),
        Step::Activate(tier, number) => format!("let {} CA {number} sign", tier.as_str()),
        Step::Remove(tier, number) => format!("remove {} CA {number}", tier.as_str()),
    }
}

/// How the authority stands.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    conditions: Vec<Condition>,
    #[serde(default, skip_deserializing)]
    roots: Vec<Standing>,
    #[serde(default, skip_deserializing)]
    issuing: Vec<Standing>,
    #[serde(default, skip_deserializing)]
    waiting: Vec<Waiting>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    reason: String,
    message: String,
    last_transition_time: Timestamp,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Standing {
    number: u32,
    phase: Phase,
    not_after: Timestamp,
    sha256: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Waiting {
    step: String,
    laggards: Vec<Laggard>,
    /// How many are not named.
    others: usize,
}

/// The condition `Settled`: no rotation is under way. What a rotation waits for is in its message.
fn condition(
    all: &Authorities,
    waiting: &[(Step, Vec<Laggard>)],
    before: Option<&Condition>,
    now: Timestamp,
) -> Condition {
    let settled = Tier::ALL.iter().all(|tier| all.state.of(*tier).len() == 1);
    let stuck = waiting.iter().flat_map(|(_, laggards)| laggards).filter(|laggard| laggard.until.is_none()).count();
    let (reason, message) = match waiting.first() {
        _ if settled => ("Settled", "one root, one issuing CA".to_owned()),
        None => ("Rotating", "the next step is due".to_owned()),
        Some((step, laggards)) => {
            let who: Vec<&str> = laggards.iter().take(5).map(|laggard| laggard.who.as_str()).collect();
            let more = if laggards.len() > who.len() { " and others" } else { "" };
            let reason = if stuck > 0 { "WaitingForHolders" } else { "WaitingForCertificatesToEnd" };
            (reason, format!("to {} waits for {}{more}", describe(*step), who.join(", ")))
        }
    };
    let status = if settled { "True" } else { "False" };
    let since = before.filter(|before| before.status == status).map_or(now, |before| before.last_transition_time);
    Condition {
        kind: "Settled".to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        last_transition_time: since,
    }
}

async fn publish(
    maps: &Api<ConfigMap>,
    before: Option<&ConfigMap>,
    all: &Authorities,
    former: &str,
    waiting: &[(Step, Vec<Laggard>)],
    gateway: Option<&BTreeMap<GatewayName, gateway_keys::Status>>,
    now: Timestamp,
) -> Result<(), Error> {
    let old = before.and_then(|map| serde_json::from_str::<Status>(map.data.as_ref()?.get(STATUS)?).ok());
    let old = old.as_ref().and_then(|status| status.conditions.iter().find(|condition| condition.kind == "Settled"));
    let standing = |tier: Tier| {
        let cas = all.state.of(tier).iter().map(|ca| Standing {
            number: ca.number,
            phase: all.state.phase(tier, ca),
            not_after: ca.validity.not_after,
            sha256: ca.certificate.clone(),
        });
        cas.collect()
    };
    let waits = waiting.iter().map(|(step, laggards)| Waiting {
        step: describe(*step),
        laggards: laggards.iter().take(NAMED).cloned().collect(),
        others: laggards.len().saturating_sub(NAMED),
    });
    let status = Status {
        conditions: vec![condition(all, waiting, old, now)],
        roots: standing(Tier::Root),
        issuing: standing(Tier::Issuing),
        waiting: waits.collect(),
    };
    let text = serde_json::to_string_pretty(&status).map_err(kube::Error::SerdeError)?;
    let mut data = vec![(BUNDLE.to_owned(), all.bundle()), (STATUS.to_owned(), text)];
    match gateway {
        Some(gateway) => {
            let text = serde_json::to_string_pretty(gateway).map_err(kube::Error::SerdeError)?;
            data.push((GATEWAY.to_owned(), text));
        }
        // Before it is looked at, what was said of it last.
        None => {
            data.extend(before.and_then(|map| Some((GATEWAY.to_owned(), map.data.as_ref()?.get(GATEWAY)?.clone()))));
        }
    }
    if !former.is_empty() {
        data.push((FORMER.to_owned(), former.to_owned()));
    }
    let mut map = ConfigMap { data: Some(data.into_iter().collect()), ..ConfigMap::default() };
    map.metadata.name = Some(NAME.to_owned());
    map.metadata.labels = Some(own_labels().into());
    apply::ensure(maps, map).await?;
    Ok(())
}

fn measure(metrics: &Metrics, all: &Authorities, waiting: &[(Step, Vec<Laggard>)]) {
    for tier in Tier::ALL {
        if let Some(active) = all.state.active(tier) {
            let label = metrics::OfTier { tier: tier.as_str() };
            metrics.authority_expiration.get_or_create(&label).set(active.validity.not_after.as_second());
        }
        let of_tier = |step: &Step| match step {
            Step::Make(of) | Step::Activate(of, _) | Step::Remove(of, _) => *of == tier,
        };
        let stuck: BTreeSet<&str> = waiting
            .iter()
            .filter(|(step, _)| of_tier(step))
            .flat_map(|(_, laggards)| laggards)
            .filter(|laggard| laggard.until.is_none())
            .map(|laggard| laggard.who.as_str())
            .collect();
        let label = metrics::OfTier { tier: tier.as_str() };
        metrics.authority_laggards.get_or_create(&label).set(i64::try_from(stuck.len()).unwrap_or(i64::MAX));
    }
}
