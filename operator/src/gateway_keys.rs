//! The gateway's own WireGuard key, and how it changes without a gap: made for the listener that has none, told to partners once
//! every gateway listens with it, and the one before taken away once nobody's data comes by that any more.
//!
//! Each shard has its own, and changes it on its own: what there is is the Secret `<shard>-wireguard`, a private and a public key for each
//! listener, and which of them partners are told. What to do next is pure; each step is one write of that Secret.

use std::collections::{BTreeMap, BTreeSet};

use base64::{Engine, engine::general_purpose::STANDARD};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, ResourceExt, api::PostParams};
use liaison_crds::GatewayName;
use serde::Serialize;

use crate::{
    apply,
    install::{Error, bytes, secret, text},
    observe, rotate,
    rotation::{Asked, Laggard, Observed},
    settings::Settings,
    shards::Endpoints,
};

/// Its entries for each listener.
const ENTRIES: [(&str, &str); 2] = [("privateKey", "publicKey"), ("secondPrivateKey", "secondPublicKey")];
/// Which listener partners are told, by its number; absent: the only one.
const ACTIVE: &str = "federation.csc-scc.gc.ca/active";
/// There while the other listener's key is not told yet.
const PREPARED: &str = "federation.csc-scc.gc.ca/prepared";
/// The last rotation that was asked for and is begun.
const WORKED_OFF: &str = "federation.csc-scc.gc.ca/rotated";
/// In a gateway's word: partners of whom it has heard nothing since it has two listeners. Only who serves partners says it.
const UNHEARD: &str = "";
/// Steps of one visit.
const STEPS: usize = 3;

/// The keys that there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// The public key of each listener that has one, base64.
    pub keys: [Option<String>; 2],
    /// The listener that partners are told.
    pub active: usize,
    /// Whether the other listener's key is not told yet.
    pub prepared: bool,
    /// The last request that is begun.
    pub asked: Option<String>,
}

/// What partners are told of each shard.
pub type Gateways = BTreeMap<GatewayName, Gateway>;

/// What a shard's partners are told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// The key to use.
    pub key: String,
    /// Where it is served: host:port.
    pub endpoint: String,
    /// A key that still serves, and where.
    pub retiring: Option<(String, String)>,
}

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Make a key for a listener.
    Make(usize),
    /// Tell partners that one.
    Activate(usize),
    /// Take the key of a listener away.
    Remove(usize),
}

/// What is to be done next, if anything is.
pub fn next(state: &State, asked: Option<&str>) -> Option<Step> {
    let other = 1 - state.active;
    match &state.keys {
        [Some(_), Some(_)] if state.prepared => Some(Step::Activate(other)),
        [Some(_), Some(_)] => Some(Step::Remove(other)),
        _ if asked.is_some() && state.asked.as_deref() != asked => Some(Step::Make(other)),
        _ => None,
    }
}

/// Who keeps a step of a shard's from being taken, as the shard's own processes tell it.
pub fn laggards(
    shard: &GatewayName,
    state: &State,
    step: Step,
    observed: &Observed,
    waits_for: impl Fn(&str) -> bool,
) -> Vec<Laggard> {
    let mut all = Vec::new();
    let mut add = |who: String, why: &str| {
        if waits_for(&who) {
            all.push(Laggard { who, why: why.to_owned(), until: None });
        }
    };
    let key = |listener: usize| state.keys[listener].as_deref().unwrap_or_default();
    let (mut serving, mut heard) = (false, BTreeMap::<&str, &str>::new());
    let said = observed.listeners.get(shard.as_str());
    for (gateway, said) in said.into_iter().flatten() {
        match (step, said) {
            (Step::Make(_), _) => {}
            (_, Err(why)) => add(gateway.clone(), why),
            (Step::Activate(listener), Ok(by)) => {
                if !by.contains_key(key(listener)) {
                    add(gateway.clone(), "does not listen with the new key yet");
                }
            }
            (Step::Remove(listener), Ok(by)) => {
                serving |= by.contains_key(UNHEARD);
                let of = |key: &str| by.get(key).into_iter().flatten();
                heard.extend(
                    of(UNHEARD).map(|partner| (partner.as_str(), "has not been heard since there are two keys")),
                );
                heard.extend(of(key(listener)).map(|partner| (partner.as_str(), "uses the key before")));
            }
        }
    }
    for (partner, why) in heard {
        add(format!("partner/{partner}"), why);
    }
    match step {
        Step::Activate(_) if said.is_none_or(Said::is_empty) => add(shard.to_string(), "no process of it runs"),
        Step::Remove(_) if !serving => add(shard.to_string(), "no process of it serves partners now"),
        Step::Make(_) | Step::Activate(_) | Step::Remove(_) => {}
    }
    all
}

/// What a shard's partners are told of a state.
pub fn told(shard: &GatewayName, state: &State, Endpoints { first, second }: &Endpoints) -> Result<Gateway, Error> {
    let endpoint = |listener: usize| match listener {
        0 => Ok(first.clone()),
        _ => second.clone().ok_or_else(|| Error::NoSecondEndpoint(shard.clone())),
    };
    let broken = || Error::Broken { name: shard.wireguard_secret(), key: "publicKey" };
    let other = 1 - state.active;
    // One that was made and is not told yet is nobody's business.
    let retiring = state.keys[other].clone().filter(|_| !state.prepared);
    Ok(Gateway {
        key: state.keys[state.active].clone().ok_or_else(broken)?,
        endpoint: endpoint(state.active)?,
        retiring: retiring.map(|key| Ok::<_, Error>((key, endpoint(other)?))).transpose()?,
    })
}

impl State {
    fn of(secret: &Secret) -> Self {
        let keys = ENTRIES.map(|(_, public)| text(secret, public).filter(|key| !key.is_empty()));
        let annotation = |name: &str| secret.annotations().get(name).cloned();
        let only = usize::from(keys[0].is_none());
        let active =
            annotation(ACTIVE).and_then(|text| text.parse::<usize>().ok()).filter(|listener| *listener < keys.len());
        let active = active.filter(|listener| keys[*listener].is_some()).unwrap_or(only);
        Self { keys, active, prepared: annotation(PREPARED).is_some(), asked: annotation(WORKED_OFF) }
    }
}

/// A shard's Secret, made if it is not there. Its first key is as new as any that was asked for before.
async fn live(client: &Client, settings: &Settings, shard: &GatewayName) -> Result<Secret, Error> {
    let api: Api<Secret> = Api::namespaced(client.clone(), &settings.gateway_namespace);
    let name = shard.wireguard_secret();
    if let Some(live) = api.get_opt(&name).await? {
        return Ok(live);
    }
    let mut made = secret(&name, "Opaque", BTreeMap::new());
    make(&mut made, 0);
    if let Some(asked) = rotate::asked_now(client, settings).await?.gateway {
        made.annotations_mut().insert(WORKED_OFF.to_owned(), asked);
    }
    Ok(apply::create_once(&api, &made).await?.0)
}

fn make(secret: &mut Secret, listener: usize) {
    let private = x25519_dalek::StaticSecret::random();
    let public = x25519_dalek::PublicKey::from(&private);
    let data = secret.data.get_or_insert_default();
    data.insert(ENTRIES[listener].0.to_owned(), bytes(&STANDARD.encode(private.as_bytes())));
    data.insert(ENTRIES[listener].1.to_owned(), bytes(&STANDARD.encode(public.as_bytes())));
}

/// What partners are told now of each shard; makes the first keys.
pub async fn ensure(client: &Client, settings: &Settings) -> Result<Gateways, Error> {
    let mut all = Gateways::new();
    for (shard, endpoints) in settings.gateways.all() {
        let state = State::of(&live(client, settings, shard).await?);
        all.insert(shard.clone(), told(shard, &state, endpoints)?);
    }
    Ok(all)
}

/// How a shard's own key stands, for people.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The public key that partners are told.
    key: Option<String>,
    /// The other, while there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    other: Option<String>,
    /// What is to be done next, and who is waited for.
    #[serde(skip_serializing_if = "Option::is_none")]
    waits: Option<String>,
    /// Who that is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub laggards: Vec<Laggard>,
}

/// Takes every step that may be taken, at every shard; how each stands afterwards.
pub async fn visit(
    client: &Client,
    settings: &Settings,
    asked: &Asked,
    observed: &mut Option<Observed>,
) -> Result<BTreeMap<GatewayName, Status>, Error> {
    let mut all = BTreeMap::new();
    let mut under_way: Vec<(&GatewayName, &Endpoints)> = settings.gateways.all().collect();
    for _ in 0..STEPS {
        let mut moved = Vec::new();
        for (shard, endpoints) in under_way {
            let (status, taken) = step(client, settings, (shard, endpoints), asked, observed).await?;
            all.insert(shard.clone(), status);
            if taken {
                moved.push((shard, endpoints));
            }
        }
        if moved.is_empty() {
            break;
        }
        // What was seen of them is older than what has been done.
        *observed = None;
        under_way = moved;
    }
    Ok(all)
}

/// The next step of one shard's, if there is one and nobody is waited for; how it stands, and whether a step was taken.
async fn step(
    client: &Client,
    settings: &Settings,
    (shard, endpoints): (&GatewayName, &Endpoints),
    asked: &Asked,
    observed: &mut Option<Observed>,
) -> Result<(Status, bool), Error> {
    let mut secret = live(client, settings, shard).await?;
    let state = State::of(&secret);
    let mut status = Status::of(&state);
    let Some(step) = next(&state, asked.gateway.as_deref()) else { return Ok((status, false)) };
    if endpoints.second.is_none() {
        let lacks =
            format!("a second endpoint, which the installation has none of (gateway.shards.{shard}.secondEndpoint)");
        status.waits = Some(lacks);
        return Ok((status, false));
    }
    if !matches!(step, Step::Make(_)) {
        let seen = match observed.take() {
            Some(seen) => seen,
            None => observe::observe(client, settings).await?,
        };
        status.laggards = laggards(shard, &state, step, observed.insert(seen), |who| asked.waits_for(who));
    }
    if !status.laggards.is_empty() {
        status.waits = Some(describe(step).to_owned());
        return Ok((status, false));
    }
    take(&mut secret, step, asked.gateway.as_deref());
    let api: Api<Secret> = Api::namespaced(client.clone(), &settings.gateway_namespace);
    let taken = api.replace(&shard.wireguard_secret(), &PostParams::default(), &secret).await?;
    tracing::info!(%shard, step = describe(step), "the gateway's own key");
    Ok((Status::of(&State::of(&taken)), true))
}

impl Status {
    fn of(state: &State) -> Self {
        let key = |listener: usize| state.keys[listener].clone();
        Self { key: key(state.active), other: key(1 - state.active), ..Self::default() }
    }
}

fn take(secret: &mut Secret, step: Step, asked: Option<&str>) {
    match step {
        Step::Make(listener) => {
            make(secret, listener);
            let annotations = secret.annotations_mut();
            annotations.insert(ACTIVE.to_owned(), (1 - listener).to_string());
            annotations.insert(PREPARED.to_owned(), "true".to_owned());
            annotations.insert(WORKED_OFF.to_owned(), asked.unwrap_or_default().to_owned());
        }
        Step::Activate(listener) => {
            let annotations = secret.annotations_mut();
            annotations.insert(ACTIVE.to_owned(), listener.to_string());
            annotations.remove(PREPARED);
        }
        Step::Remove(listener) => {
            let data = secret.data.get_or_insert_default();
            data.remove(ENTRIES[listener].0);
            data.remove(ENTRIES[listener].1);
        }
    }
}

fn describe(step: Step) -> &'static str {
    match step {
        Step::Make(_) => "make the gateway a new key",
        Step::Activate(_) => "tell partners the gateway's new key",
        Step::Remove(_) => "take the gateway's key before away",
    }
}

/// What a process of the gateway said of its listeners, or why it said nothing.
pub type Word = Result<BTreeMap<String, BTreeSet<String>>, String>;

/// That of each of a shard's, by name.
pub type Said = BTreeMap<String, Word>;

#[cfg(test)]
#[path = "gateway_keys_tests.rs"]
mod tests;
