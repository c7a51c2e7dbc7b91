//! One reconcile of a PartnerConnection: dereference -> validate -> plan -> apply -> status, or cleanup.

pub mod apply;
pub mod bundle;
pub mod cleanup;
pub mod custody;
pub mod dereference;
pub mod enrolment;
#[cfg(test)]
pub mod fixtures;
pub mod issuer;
pub mod names;
pub mod overlap;
pub mod plan;
pub mod status;
pub mod validate;
pub mod verification;
pub mod workloads;

use std::{sync::Arc, time::Duration};

use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams},
    core::DeserializeGuard,
    runtime::{
        controller::Action,
        events::{Event, EventType},
    },
};
use liaison_crds::{FINALIZER, PartnerConnection, conditions};
use serde_json::json;

use self::{apply::Visit, names::Names, status::State};
use crate::{context::Context, metrics};

/// A reconcile failed; it is tried again after a wait that grows.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// From the API server.
    #[error(transparent)]
    Kube(#[from] kube::Error),
    /// From the CA.
    #[error(transparent)]
    Ca(#[from] crate::ca::Error),
    /// From Secrets.
    #[error(transparent)]
    Install(#[from] crate::install::Error),
    /// A manifest of ours that does not fit its type.
    #[error("an object of the operator's own is malformed: {0}")]
    Json(#[from] serde_json::Error),
    /// A bundle could not be packed or encrypted.
    #[error("bundle: {0}")]
    Bundle(#[from] bundle::contents::Error),
    /// A name that cannot be a partner's got past validation.
    #[error("'{0}' is no partner name")]
    Name(String),
}

impl Error {
    /// A stable reason, for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Kube(kube::Error::Api(status)) if status.is_conflict() => "conflict",
            Self::Kube(kube::Error::Api(_)) => "api",
            Self::Kube(_) => "client",
            Self::Ca(_) => "ca",
            Self::Install(_) => "secrets",
            Self::Json(_) => "manifest",
            Self::Bundle(_) => "bundle",
            Self::Name(_) => "name",
        }
    }
}

/// Reconciles one connection, as the API server has it now, whatever of it the watch has told.
pub async fn reconcile(object: Arc<DeserializeGuard<PartnerConnection>>, ctx: Arc<Context>) -> Result<Action, Error> {
    let name = object.meta().name.clone().unwrap_or_default();
    // On the heap: a visit's state is large, and what polls it may have a small stack.
    let result = Box::pin(visit(&object, &ctx)).await;
    let label = result.as_ref().map_or_else(Error::reason, |_| "ok");
    ctx.metrics.reconciles.get_or_create(&metrics::Reconcile { kind: "PartnerConnection", result: label }).inc();
    if result.is_ok() {
        ctx.backoff.succeeded(&name);
    }
    result
}

/// What to do after a failure.
pub fn on_error(object: &DeserializeGuard<PartnerConnection>, error: &Error, ctx: &Context) -> Action {
    let name = object.meta().name.clone().unwrap_or_default();
    let wait = ctx.backoff.failed(&name);
    tracing::warn!(partner = name, reason = error.reason(), %error, wait_seconds = wait.as_secs(), "reconcile failed");
    Action::requeue(wait)
}

async fn visit(told: &DeserializeGuard<PartnerConnection>, ctx: &Context) -> Result<Action, Error> {
    let name = told.meta().name.as_deref().unwrap_or_default();
    let names = |uid: &Option<String>| Names::new(name, uid.as_deref().unwrap_or_default());
    let connection = if let Some(connection) = first(told, ctx).await? {
        connection
    } else {
        let api: Api<DeserializeGuard<PartnerConnection>> =
            Api::namespaced(ctx.client.clone(), &ctx.settings.partners_namespace);
        let Some(guard) = api.get_opt(name).await? else { return Ok(Action::await_change()) };
        if guard.meta().deletion_timestamp.is_some() {
            return Box::pin(cleanup::cleanup(ctx, &guard, &names(&guard.meta().uid))).await;
        }
        match guard.0 {
            Ok(connection) if is_final(&connection) => connection,
            Ok(connection) => finalize(ctx, &connection).await?,
            Err(invalid) => return refuse_unreadable(ctx, &invalid).await,
        }
    };
    let names = names(&connection.metadata.uid);
    let now = ctx.now();
    let world = dereference::dereference(ctx, &connection, &names).await?;
    let store = &ctx.settings.default_store;
    let mut checked = validate::validate(&connection, world.agreement.as_ref(), store, now);
    if let Some(pairs) = Box::pin(custody::ensure(ctx, &names, &connection, &checked)).await? {
        let mut seen = connection.clone();
        seen.status.iter_mut().for_each(|status| status.custody.clone_from(&pairs));
        checked = validate::validate(&seen, world.agreement.as_ref(), store, now);
    }
    let next = checked.clone();
    let before = connection.status.clone();
    let (connection, outcome) = Box::pin(Visit { ctx, names: &names, now }.run(connection, world, checked)).await?;
    let typed: Api<PartnerConnection> = Api::namespaced(ctx.client.clone(), &ctx.settings.partners_namespace);
    let part = outcome.to_json(connection.metadata.generation.unwrap_or(0), before.as_ref(), now);
    let connection = ctx.wrote(&connection, status::write(&typed, &connection, &part).await?);
    publish(ctx, before.as_ref(), &connection).await;
    measure(ctx, &connection);
    // A Job that is under way is watched; of what else is awaited not all is.
    let pending = !ready(&connection) || outcome.access.reason.starts_with("InfoPol");
    let routine = match (outcome.later, waits_for_issuer(&connection, now)) {
        (Some(seconds), _) => i64::try_from(seconds).unwrap_or(600),
        (None, Some(seconds)) => seconds,
        (None, None) if pending && outcome.replica.reason != status::JOB_RUNNING => 20,
        (None, None) => 600,
    };
    let dates = plan::next_date(&next, &outcome.certificates).into_iter().chain(outcome.overlap_ends);
    let date = dates.min().map_or(routine, |at| (at.as_second() - now.as_second()).max(1));
    Ok(Action::requeue(Duration::from_secs(u64::try_from(date.min(routine)).unwrap_or(600))))
}

/// When to look again for the first certificate of another issuer's, if that is what is waited for.
fn waits_for_issuer(connection: &PartnerConnection, now: jiff::Timestamp) -> Option<i64> {
    let mut all = connection.status.iter().flat_map(|status| &status.conditions);
    let waits = all.find(|said| said.type_ == conditions::CREDENTIALS_READY && said.reason == issuer::PENDING)?;
    Some(issuer::look_again(now.as_second() - waits.last_transition_time.0.as_second()))
}

fn ready(connection: &PartnerConnection) -> bool {
    let all = connection.status.iter().flat_map(|status| &status.conditions);
    all.into_iter().any(|condition| condition.type_ == conditions::READY && condition.status == "True")
}

/// A connection at which no visit has been yet, with its finalizer. It is not read again: the write fails if it is not any more what
/// the watch has told.
async fn first(told: &DeserializeGuard<PartnerConnection>, ctx: &Context) -> Result<Option<PartnerConnection>, Error> {
    let Ok(connection) = &told.0 else { return Ok(None) };
    if is_final(connection) || connection.metadata.deletion_timestamp.is_some() {
        return Ok(None);
    }
    match finalize(ctx, connection).await {
        Ok(connection) => Ok(Some(connection)),
        Err(Error::Kube(kube::Error::Api(status))) if status.is_conflict() || status.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_final(connection: &PartnerConnection) -> bool {
    connection.finalizers().iter().any(|finalizer| finalizer == FINALIZER)
}

async fn finalize(ctx: &Context, connection: &PartnerConnection) -> Result<PartnerConnection, Error> {
    let mut finalizers = connection.finalizers().to_vec();
    finalizers.push(FINALIZER.to_owned());
    let patch =
        json!({"metadata": {"finalizers": finalizers, "resourceVersion": connection.metadata.resource_version}});
    let api: Api<PartnerConnection> = Api::namespaced(ctx.client.clone(), &ctx.settings.partners_namespace);
    Ok(ctx.wrote(connection, api.patch(&connection.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await?))
}

/// An object that does not fit the types grants nothing: only what says so is left in its status.
async fn refuse_unreadable(
    ctx: &Context,
    invalid: &kube::core::error_boundary::InvalidObject,
) -> Result<Action, Error> {
    let generation = invalid.metadata.generation.unwrap_or(0);
    let state = State::no("InvalidSpec", format!("the manifest cannot be read: {}", invalid.error));
    let name = invalid.metadata.name.as_deref().unwrap_or_default();
    let raw = cleanup::raw(ctx);
    let live = raw.get(name).await?;
    let before: Vec<k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition> =
        serde_json::from_value(live.data["status"]["conditions"].clone()).unwrap_or_default();
    let said = before.iter().any(|c| {
        c.type_ == conditions::ACCEPTED && c.message == state.message && c.observed_generation == Some(generation)
    });
    if !said {
        let all = [conditions::READY, conditions::ACCEPTED]
            .map(|kind| status::condition(kind, &state, generation, &before, ctx.now()));
        let part = json!({"observedGeneration": generation, "conditions": all});
        raw.patch_status(name, &crate::apply::params(), &Patch::Apply(&status::patch(name, &part))).await?;
    }
    Ok(Action::requeue(Duration::from_mins(10)))
}

/// One event for each change of `Ready`, but none to say that a new connection is under way. Events expire and may be refused; all that
/// they say is in status too.
async fn publish(
    ctx: &Context,
    before: Option<&liaison_crds::PartnerConnectionStatus>,
    connection: &PartnerConnection,
) {
    fn of(status: Option<&liaison_crds::PartnerConnectionStatus>) -> Option<(String, String, String)> {
        let found = status?.conditions.iter().find(|condition| condition.type_ == conditions::READY)?;
        Some((found.status.clone(), found.reason.clone(), found.message.clone()))
    }
    let (old, new) = (of(before), of(connection.status.as_ref()));
    let Some((status, reason, message)) = new else { return };
    if old.as_ref().is_some_and(|(old_status, old_reason, _)| *old_status == status && *old_reason == reason) {
        return;
    }
    let trouble = status != "True"
        && !matches!(
            reason.as_str(),
            status::JOB_RUNNING | "WaitingForReplica" | "InfoPolStarting" | "InfoPolStopping"
        );
    if old.is_none() && status != "True" && !trouble {
        return;
    }
    let event = Event {
        type_: if trouble { EventType::Warning } else { EventType::Normal },
        reason,
        note: Some(message.chars().take(900).collect()),
        action: "Reconcile".to_owned(),
        secondary: None,
    };
    if let Err(error) = ctx.recorder.publish(&event, &connection.object_ref(&())).await {
        tracing::debug!(%error, "event not published");
    }
}

fn measure(ctx: &Context, connection: &PartnerConnection) {
    let Some(status) = &connection.status else { return };
    let partner = connection.name_any();
    for condition in &status.conditions {
        let label = metrics::Condition { partner: partner.clone(), condition: condition.type_.clone() };
        ctx.metrics.conditions.get_or_create(&label).set(i64::from(condition.status == "True"));
    }
    let label = metrics::Partner { partner: partner.clone() };
    if let Some(made) = status.bundle.as_ref().and_then(|bundle| bundle.made.as_ref()) {
        ctx.metrics.bundle_waiting.get_or_create(&label).set(made.0.as_second());
    } else {
        ctx.metrics.bundle_waiting.remove(&label);
    }
    // The last one: those before it end while it serves.
    if let Some(last) = status.certificates.iter().map(|held| held.not_after.0.as_second()).max() {
        ctx.metrics.certificate_expiration.get_or_create(&metrics::Partner { partner }).set(last);
    }
}
