//! The operator's part of status: conditions and what is granted. Built purely, written only when it differs.
//!
//! Status grants, so it is written before anything that relies on the grant. `Connected` and `DataFresh` are the gateway's
//! and sync's: they are not in what is applied here, and so stay.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        batch::v1::Job,
        core::v1::{ContainerState, Pod},
    },
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
};
use kube::{Api, Resource, api::Patch};
use liaison_crds::{
    PartnerConnection, PartnerConnectionStatus,
    conditions::{ACCEPTED, ACCESS_READY, CREDENTIALS_READY, READY, REPLICA_READY, VERIFIED},
    partner_connection::{
        Acknowledgement, Connection, CustodyKeys, EnrolmentToken, IssuedCertificate, SecretBundle, SeenKey,
        VerifiedReplica,
    },
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::verification;
use crate::apply;

/// The conditions that are the operator's.
pub const OWN: [&str; 6] = [READY, ACCEPTED, CREDENTIALS_READY, REPLICA_READY, ACCESS_READY, VERIFIED];

/// One aspect: whether it holds, why in a word, and in a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Whether it holds.
    pub holds: bool,
    /// Why, in a word.
    pub reason: String,
    /// Why, in a sentence.
    pub message: String,
}

impl State {
    /// Holds.
    pub fn yes(reason: &str, message: impl Into<String>) -> Self {
        Self { holds: true, reason: reason.to_owned(), message: message.into() }
    }

    /// Does not hold.
    pub fn no(reason: &str, message: impl Into<String>) -> Self {
        Self { holds: false, reason: reason.to_owned(), message: message.into() }
    }
}

/// What a visit found and grants.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// `Accepted`.
    pub accepted: State,
    /// `CredentialsReady`.
    pub credentials: State,
    /// `ReplicaReady`.
    pub replica: State,
    /// `AccessReady`.
    pub access: State,
    /// Why access is closed on purpose, if it is: `Suspended` or `Revoked`.
    pub closed: Option<&'static str>,
    /// `authorizedUntil`.
    pub authorized_until: Option<Timestamp>,
    /// `storeName`.
    pub store_name: Option<String>,
    /// `connection`.
    pub connection: Option<Connection>,
    /// `wireGuardKeys`, and `wireGuardKeysSeen`.
    pub keys: Vec<SeenKey>,
    /// When a key that has been replaced goes; not in status.
    pub overlap_ends: Option<Timestamp>,
    /// `certificates`.
    pub certificates: Vec<IssuedCertificate>,
    /// `enrolment`.
    pub enrolment: Option<EnrolmentToken>,
    /// `custody`.
    pub custody: Vec<CustodyKeys>,
    /// `bundle`.
    pub bundle: Option<SecretBundle>,
    /// `replica`.
    pub verified: Option<VerifiedReplica>,
    /// In how many seconds the replica is begun at the latest, if that is left to a visit of its own since others wait for credentials;
    /// not in status.
    pub later: Option<usize>,
}

impl Outcome {
    /// All that Liaison provisions is there for this generation. On purpose closed is ready: nothing is left to do.
    fn ready(&self) -> State {
        if let (Some(reason), true, true) = (self.closed, self.accepted.holds, self.access.holds) {
            return State::yes(reason, self.access.message.clone());
        }
        let parts = [&self.accepted, &self.credentials, &self.replica, &self.access];
        parts
            .into_iter()
            .find(|part| !part.holds)
            .cloned()
            .unwrap_or_else(|| State::yes("Ready", "everything is provisioned"))
    }

    /// The operator's part of status, as it is applied.
    pub fn to_json(&self, generation: i64, before: Option<&PartnerConnectionStatus>, now: Timestamp) -> Value {
        let ready = self.ready();
        let parts = [
            (READY, &ready),
            (ACCEPTED, &self.accepted),
            (CREDENTIALS_READY, &self.credentials),
            (REPLICA_READY, &self.replica),
            (ACCESS_READY, &self.access),
        ];
        let old = before.map(|status| status.conditions.as_slice()).unwrap_or_default();
        let mut conditions: Vec<Condition> =
            parts.into_iter().map(|(kind, state)| condition(kind, state, generation, old, now)).collect();
        // Not part of Ready: everything may be provisioned, and serve, when somebody has written to the store.
        let (status, reason, message) = verification::shown(self.verified.as_ref());
        conditions.push(stated(VERIFIED, status, reason, message, generation, old, now));
        own(&PartnerConnectionStatus {
            observed_generation: generation,
            conditions,
            authorized_until: self.authorized_until.map(Time),
            store_name: self.store_name.clone(),
            connection: self.connection.clone(),
            wire_guard_keys: self.keys.iter().map(|key| key.public_key.clone()).collect(),
            wire_guard_keys_seen: self.keys.clone(),
            certificates: self.certificates.clone(),
            enrolment: self.enrolment.clone(),
            custody: self.custody.clone(),
            bundle: self.bundle.clone(),
            replica: self.verified.clone(),
            gateways: vec![],
        })
    }
}

/// A condition; its time moves only when its status does.
pub fn condition(kind: &str, state: &State, generation: i64, old: &[Condition], now: Timestamp) -> Condition {
    let status = if state.holds { "True" } else { "False" };
    stated(kind, status, &state.reason, state.message.clone(), generation, old, now)
}

fn stated(
    kind: &str,
    status: &str,
    reason: &str,
    message: String,
    generation: i64,
    old: &[Condition],
    now: Timestamp,
) -> Condition {
    let before = old.iter().find(|condition| condition.type_ == kind && condition.status == status);
    Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        observed_generation: Some(generation),
        last_transition_time: before.map_or(Time(now), |condition| condition.last_transition_time.clone()),
    }
}

/// The operator's part of a status, with conditions in a fixed order.
fn own(status: &PartnerConnectionStatus) -> Value {
    let mut value = serde_json::to_value(status).unwrap_or_default();
    let by_type: BTreeMap<&str, &Condition> =
        status.conditions.iter().map(|condition| (condition.type_.as_str(), condition)).collect();
    let conditions: Vec<&&Condition> = OWN.iter().filter_map(|kind| by_type.get(kind)).collect();
    value["conditions"] = serde_json::to_value(conditions).unwrap_or_default();
    if let Some(fields) = value.as_object_mut() {
        // The gateways' own.
        fields.remove("gateways");
    }
    value
}

/// Whether no visit has come to its end yet: the API server itself says -1.
pub fn is_new(connection: &PartnerConnection) -> bool {
    connection.status.as_ref().is_none_or(|status| status.observed_generation < 0)
}

/// Writes what is granted and taken away if it differs, and leaves conditions and `observedGeneration` as they were: the
/// visit is not over. Where nothing has been said yet, all of it is said as it will be if nothing fails, which saves a write to
/// each new connection. `guarded`: only if nobody has changed the object since it was read.
pub async fn write_grants(
    api: &Api<PartnerConnection>,
    connection: &PartnerConnection,
    outcome: &Outcome,
    now: Timestamp,
    guarded: bool,
) -> Result<PartnerConnection, kube::Error> {
    let before = connection.status.as_ref();
    let observed = before.filter(|_| !is_new(connection)).map(|status| status.observed_generation);
    let after = outcome.to_json(observed.or(connection.metadata.generation).unwrap_or(0), before, now);
    let mut part = before.filter(|_| observed.is_some()).map_or_else(|| after.clone(), own);
    let granted = [
        "authorizedUntil",
        "storeName",
        "connection",
        "wireGuardKeys",
        "wireGuardKeysSeen",
        "certificates",
        "enrolment",
        "custody",
    ];
    for field in granted {
        match (after.get(field), part.as_object_mut()) {
            (Some(value), Some(part)) => part.insert(field.to_owned(), value.clone()),
            (None, Some(part)) => part.remove(field),
            (_, None) => None,
        };
    }
    if !guarded {
        return write(api, connection, &part).await;
    }
    let name = connection.metadata.name.as_deref().unwrap_or_default();
    let mut body = patch(name, &part);
    body["metadata"]["resourceVersion"] = json!(connection.metadata.resource_version);
    api.patch_status(name, &apply::params(), &Patch::Apply(&body)).await
}

/// Writes the operator's part if it differs; returns the object as it is afterwards.
pub async fn write(
    api: &Api<PartnerConnection>,
    connection: &PartnerConnection,
    part: &Value,
) -> Result<PartnerConnection, kube::Error> {
    if connection.status.as_ref().map(own).as_ref() == Some(part) {
        return Ok(connection.clone());
    }
    let name = connection.metadata.name.as_deref().unwrap_or_default();
    api.patch_status(name, &apply::params(), &Patch::Apply(&patch(name, part))).await
}

/// Whether a write of the operator's own, and nothing else, lies between what was read and what was answered to the write.
pub fn only_ours(read: &PartnerConnection, answer: &PartnerConnection) -> bool {
    fn of_others(object: &PartnerConnection) -> (Vec<&Condition>, Vec<&Acknowledgement>) {
        let conditions = object.status.iter().flat_map(|status| &status.conditions);
        let gateways = object.status.iter().flat_map(|status| &status.gateways);
        (conditions.filter(|condition| !OWN.contains(&condition.type_.as_str())).collect(), gateways.collect())
    }
    let (was, is) = (&read.metadata, &answer.metadata);
    was.resource_version != is.resource_version
        && was.generation == is.generation
        && was.deletion_timestamp == is.deletion_timestamp
        && was.annotations == is.annotations
        && of_others(read) == of_others(answer)
}

/// The body of a status patch.
pub fn patch(name: &str, part: &Value) -> Value {
    json!({
        "apiVersion": PartnerConnection::api_version(&()),
        "kind": PartnerConnection::kind(&()),
        "metadata": {"name": name},
        "status": part,
    })
}

/// What a Job of sync said when it ended.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Said {
    reason: String,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    files: Option<u64>,
    #[serde(default)]
    records: Option<u64>,
}

/// How a Job stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobState {
    /// It has not succeeded yet; what it said last, or what its pod waits for.
    Running(State),
    /// It gave up.
    Failed(State),
    /// It succeeded.
    Done(State),
}

/// Reads a Job and its pods.
pub fn job_state(job: &Job, pods: &[Pod], doing: &str) -> JobState {
    let status = job.status.as_ref();
    let is = |kind: &str| {
        status
            .and_then(|status| status.conditions.as_ref())
            .is_some_and(|all| all.iter().any(|condition| condition.type_ == kind && condition.status == "True"))
    };
    let last = pods.iter().filter_map(last_words).max_by_key(|(at, ..)| *at);
    let failing = last.as_ref().is_some_and(|(_, exit, _)| *exit != 0);
    let said: Option<Said> = last.and_then(|(.., said)| serde_json::from_str(&said).ok());
    let state = |holds: bool, fallback: &str, message: &str| match &said {
        Some(said) => {
            let counts = match (said.files, said.records) {
                (Some(files), Some(records)) => Some(format!("{files} files, {records} records")),
                _ => None,
            };
            let message = said.message.clone().or(counts).unwrap_or_else(|| message.to_owned());
            State { holds, reason: word(&said.reason, fallback), message: sentence(&message) }
        }
        None => State { holds, reason: fallback.to_owned(), message: message.to_owned() },
    };
    if is("Complete") {
        return JobState::Done(state(true, "Done", &format!("{doing} done")));
    }
    if is("Failed") {
        return JobState::Failed(state(false, "JobFailed", "the Job failed and will be started again"));
    }
    if said.is_some() && failing {
        return JobState::Running(state(false, "Retrying", "the Job failed and is being tried again"));
    }
    let waiting = pods.iter().find_map(waiting_for);
    JobState::Running(waiting.unwrap_or_else(|| job_under_way(doing)))
}

/// The reason of a condition that waits for a Job, which a watch tells of.
pub const JOB_RUNNING: &str = "Running";

/// A Job has said nothing yet.
pub fn job_under_way(doing: &str) -> State {
    State::no(JOB_RUNNING, format!("{doing} is under way"))
}

/// When a pod's container last ended, how, and what it said.
fn last_words(pod: &Pod) -> Option<(Option<Timestamp>, i32, String)> {
    let container = pod.status.as_ref()?.container_statuses.as_ref()?.first()?;
    let ended = [container.state.as_ref(), container.last_state.as_ref()]
        .into_iter()
        .flatten()
        .find_map(|state: &ContainerState| state.terminated.as_ref())?;
    let at = ended.finished_at.as_ref().map(|at| at.0);
    Some((at, ended.exit_code, ended.message.as_deref()?.trim().to_owned()))
}

/// The last termination message of a Job's pods.
pub fn last_message(pods: &[Pod]) -> Option<String> {
    pods.iter().filter_map(last_words).max_by_key(|(at, ..)| *at).map(|(.., said)| said)
}

fn waiting_for(pod: &Pod) -> Option<State> {
    let status = pod.status.as_ref()?;
    let container =
        status.container_statuses.iter().flatten().find_map(|container| container.state.as_ref()?.waiting.as_ref());
    if let Some(reason) = container.and_then(|waiting| waiting.reason.as_deref())
        && !matches!(reason, "ContainerCreating" | "PodInitializing")
    {
        return Some(State::no("PodWaiting", format!("the Job's pod is waiting: {reason}")));
    }
    let unscheduled = status.conditions.iter().flatten().find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
    Some(State::no(
        "PodWaiting",
        sentence(unscheduled.message.as_deref().unwrap_or("the Job's pod cannot be scheduled")),
    ))
}

/// A reason that came from elsewhere, if it is one word in CamelCase.
fn word(text: &str, fallback: &str) -> String {
    let good = text.len() <= 64
        && text.starts_with(|c: char| c.is_ascii_uppercase())
        && text.chars().all(|c| c.is_ascii_alphanumeric());
    if good { text.to_owned() } else { fallback.to_owned() }
}

/// A message that came from elsewhere, in bounds.
pub(super) fn sentence(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(1000).collect()
}

/// How the read service stands.
pub fn access_state(deployment: Option<&Deployment>, replicas: i32, closed: &'static str, why: &str) -> State {
    let Some(deployment) = deployment else {
        return if replicas == 0 {
            State::yes(closed, why)
        } else {
            State::no("InfoPolStarting", "the partner's InfoPol is being started")
        };
    };
    let status = deployment.status.clone().unwrap_or_default();
    let seen = status.observed_generation >= deployment.metadata.generation;
    if replicas == 0 {
        return if seen && status.replicas.unwrap_or(0) == 0 {
            State::yes(closed, why)
        } else {
            State::no("InfoPolStopping", "the partner's InfoPol is being stopped")
        };
    }
    if seen && status.updated_replicas.unwrap_or(0) >= replicas && status.available_replicas.unwrap_or(0) >= replicas {
        return State::yes("Serving", "the partner's InfoPol is serving");
    }
    let stuck = status.conditions.iter().flatten().find(|c| {
        (c.type_ == "Progressing" && c.status == "False") || (c.type_ == "ReplicaFailure" && c.status == "True")
    });
    match stuck {
        Some(condition) => State::no(
            "InfoPolStuck",
            format!(
                "the partner's InfoPol does not become available: {}; see the events of its pods",
                sentence(condition.message.as_deref().unwrap_or_default())
            ),
        ),
        None => State::no("InfoPolStarting", "the partner's InfoPol is being started"),
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
