//! Taking a partner away: access first, then the data, claims last.
//!
//! Works from metadata alone, so an invalid spec does not stop it; makes nothing in the partners' namespace, which may be
//! going; and what is gone already is done. Every step is idempotent: killed after any, the next visit goes on.

use std::time::Duration;

use k8s_openapi::api::{
    apps::v1::Deployment,
    batch::v1::Job,
    core::v1::{ConfigMap, Secret, Service, ServiceAccount},
    networking::v1::NetworkPolicy,
};
use kube::{
    Api, Resource, ResourceExt,
    api::{DynamicObject, ObjectMeta, Patch, PatchParams},
    core::DeserializeGuard,
    discovery::ApiResource,
    runtime::controller::Action,
};
use liaison_crds::{FINALIZER, PartnerConnection, conditions, partner_connection::DeletionPolicy, revocation::Floor};
use serde_json::{Value, json};

use super::{
    Error,
    apply::{RETRY_SECONDS, failed_at},
    custody,
    dereference::pods_of,
    names::Names,
    status::{self, JobState, State},
    verification,
    workloads::{self, Task},
};
use crate::{
    apply,
    claims::{self, Memory},
    context::Context,
    pool, preshared,
};

/// One visit to a connection that is being deleted.
pub async fn cleanup(
    ctx: &Context,
    guard: &DeserializeGuard<PartnerConnection>,
    names: &Names,
) -> Result<Action, Error> {
    let meta = guard.meta();
    if !meta.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER) {
        return Ok(Action::await_change());
    }
    let (mut connection, policy) = match &guard.0 {
        Ok(connection) => (Some(connection.clone()), connection.spec.deletion_policy.unwrap_or(DeletionPolicy::Retain)),
        Err(_) => (None, DeletionPolicy::Retain),
    };
    if connection.as_ref().is_none_or(grants) {
        // While status still says which certificates there are.
        remember_revoked(ctx, names, connection.as_ref()).await?;
        connection =
            report(ctx, meta, connection, "Terminating", "access is cut; the read service is being removed").await?;
    }
    if !remove_access(ctx, names).await? {
        return Ok(soon());
    }
    if held(ctx, connection.as_ref(), meta).await? {
        // Access is cut; whoever removes the hold is heard by the watch.
        report(ctx, meta, connection, "LegalHold", HELD).await?;
        return Ok(Action::await_change());
    }
    match dispose(ctx, connection.as_ref(), policy, names).await? {
        None => {}
        Some(state) => {
            report(ctx, meta, connection, &state.reason, &state.message).await?;
            return Ok(soon());
        }
    }
    release(ctx, names, connection.as_ref()).await?;
    unfinalize(ctx, meta).await?;
    Ok(Action::await_change())
}

const HELD: &str =
    "access is cut; the replica is kept, since `spec.legalHold` is true: set it to false to have it disposed of";

/// Whether a legal hold refuses disposal, of an object whose spec does not fit the types too.
async fn held(ctx: &Context, connection: Option<&PartnerConnection>, meta: &ObjectMeta) -> Result<bool, Error> {
    if let Some(connection) = connection {
        return Ok(connection.spec.legal_hold == Some(true));
    }
    let live = raw(ctx).get_opt(meta.name.as_deref().unwrap_or_default()).await?;
    // Anything but false or nothing counts as a hold: what cannot be read is not permission.
    Ok(live.is_some_and(|live| match live.data.pointer("/spec/legalHold") {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(_) => true,
    }))
}

/// Whether status still grants anything.
fn grants(connection: &PartnerConnection) -> bool {
    connection.status.as_ref().is_some_and(|status| {
        status.authorized_until.is_some()
            || status.connection.is_some()
            || !status.wire_guard_keys.is_empty()
            || !status.certificates.is_empty()
    })
}

/// Disposes of the replica, if there ever was one; what is still to be waited for.
async fn dispose(
    ctx: &Context,
    connection: Option<&PartnerConnection>,
    policy: DeletionPolicy,
    names: &Names,
) -> Result<Option<State>, Error> {
    let jobs: Api<Job> = Api::namespaced(ctx.client.clone(), &ctx.settings.system_namespace);
    let secrets: Api<Secret> = Api::namespaced(ctx.client.clone(), &ctx.settings.system_namespace);
    // The verifier's Secret is made before the first seed Job and goes after the disposal, so it says whether there is
    // anything to dispose of.
    let live = jobs.get_opt(&names.dispose_job).await?;
    let used = live.is_some()
        || secrets.get_opt(&names.seed_secret).await?.is_some()
        || jobs.get_opt(&names.seed_job).await?.is_some();
    if !used {
        return Ok(None);
    }
    apply::ensure_gone(&jobs, &names.seed_job, false).await?;
    verification::stop(ctx, names).await?;
    // A seed that still runs would make again what the disposal drops.
    if !pods_of(ctx, &names.seed_job).await?.iter().all(is_over) {
        return Ok(Some(State::no("Terminating", "access is cut; the seed Job is being stopped")));
    }
    let store = connection.map_or_else(
        || ctx.settings.default_store.clone(),
        |connection| super::validate::store_of(connection, &ctx.settings.default_store),
    );
    let Some(live) = live else {
        let job = workloads::job(&Task::Dispose(policy), names, &ctx.settings, &store)?;
        apply::create_once(&jobs, &job).await?;
        return Ok(Some(State::no("Disposing", "access is cut; the replica is being disposed of")));
    };
    let pods = pods_of(ctx, &names.dispose_job).await?;
    Ok(match status::job_state(&live, &pods, "disposing of the replica") {
        JobState::Done(_) => None,
        JobState::Running(state) => Some(state),
        JobState::Failed(state) => {
            if ctx.now().as_second() >= failed_at(&live).map_or(0, jiff::Timestamp::as_second) + RETRY_SECONDS {
                apply::ensure_gone(&jobs, &names.dispose_job, false).await?;
            }
            Some(state)
        }
    })
}

/// Removes the read service; true when it is gone.
async fn remove_access(ctx: &Context, names: &Names) -> Result<bool, Error> {
    let (client, ns) = (&ctx.client, &ctx.settings.partners_namespace);
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), ns);
    if !reach(apply::ensure_gone(&deployments, &names.infopol, true).await)? {
        return Ok(false);
    }
    reach(apply::ensure_gone(&Api::<Service>::namespaced(client.clone(), ns), &names.infopol, false).await)?;
    reach(apply::ensure_gone(&Api::<NetworkPolicy>::namespaced(client.clone(), ns), &names.infopol, false).await)?;
    reach(apply::ensure_gone(&Api::<ServiceAccount>::namespaced(client.clone(), ns), &names.infopol, false).await)?;
    Ok(true)
}

/// Whether everything is revoked, and from when on a key is not. Of what does not fit the types: any word of it counts.
async fn revocation(ctx: &Context, connection: Option<&PartnerConnection>, name: &str) -> Result<(bool, Floor), Error> {
    if let Some(connection) = connection {
        let all = connection.spec.revocation.as_ref().is_some_and(|revocation| revocation.revoked);
        return Ok((all, Floor::of(connection)));
    }
    let live = raw(ctx).get_opt(name).await?;
    let said =
        |pointer| live.as_ref().and_then(|live| live.data.pointer(pointer)).is_some_and(|value| !value.is_null());
    Ok((said("/spec/revocation") || said("/status/gateways"), Floor::default()))
}

/// Notes which keys are revoked, with their certificates; they are never freed then.
async fn remember_revoked(ctx: &Context, names: &Names, connection: Option<&PartnerConnection>) -> Result<(), Error> {
    let (all, floor) = revocation(ctx, connection, &names.partner).await?;
    let status = connection.and_then(|connection| connection.status.as_ref());
    let certificates = status.map(|status| status.certificates.as_slice()).unwrap_or_default();
    for lease in ctx.claims.all_of(&names.partner).await? {
        let memory = Memory::of(&lease);
        let revoked = claims::is_key(&lease.name_any()) && (all || floor.revokes(Some(memory.first_seen)));
        if revoked && !memory.revoked {
            ctx.claims.revoke(&lease, certificates, ctx.now()).await?;
        }
    }
    Ok(())
}

/// Frees Secrets, then keys that were not revoked, then the slot, which goes into quarantine.
async fn release(ctx: &Context, names: &Names, connection: Option<&PartnerConnection>) -> Result<(), Error> {
    let partners: Api<Secret> = Api::namespaced(ctx.client.clone(), &ctx.settings.partners_namespace);
    let system: Api<Secret> = Api::namespaced(ctx.client.clone(), &ctx.settings.system_namespace);
    reach(apply::ensure_gone(&partners, &names.reader, false).await)?;
    reach(apply::ensure_gone(&partners, &names.infopol_tls, false).await)?;
    let bundles: Api<ConfigMap> = Api::namespaced(ctx.client.clone(), &ctx.settings.partners_namespace);
    reach(apply::ensure_gone(&bundles, &names.bundle, false).await)?;
    apply::ensure_gone(&system, &names.seed_secret, false).await?;
    apply::ensure_gone(&system, &names.enrolment_secret, false).await?;
    custody::forget_all(ctx, names).await?;
    remember_revoked(ctx, names, connection).await?;
    let mut held = ctx.claims.all_of(&names.partner).await?;
    held.sort_by_key(|lease| crate::slots::slot_of(&lease.name_any()).is_some());
    for lease in &held {
        let memory = Memory::of(lease);
        reach(preshared::forget(ctx, &lease.name_any()).await.map(|()| true))?;
        match claims::is_key(&lease.name_any()) {
            true if memory.revoked => {}
            true => ctx.claims.release(lease).await?,
            false => pool::release(&ctx.claims, lease, ctx.settings.slot_quarantine(), ctx.now()).await?,
        }
    }
    Ok(())
}

/// Cuts what status grants, and says where the deletion stands; written only when it differs.
async fn report(
    ctx: &Context,
    meta: &ObjectMeta,
    connection: Option<PartnerConnection>,
    reason: &str,
    message: &str,
) -> Result<Option<PartnerConnection>, Error> {
    let generation = meta.generation.unwrap_or(0);
    let old = connection.as_ref().and_then(|connection| connection.status.as_ref());
    let before = old.map(|status| status.conditions.as_slice()).unwrap_or_default();
    let going = State::no(reason, message);
    let conditions: Vec<Value> = [conditions::READY, conditions::ACCESS_READY]
        .into_iter()
        .map(|kind| status::condition(kind, &going, generation, before, ctx.now()))
        .map(|condition| serde_json::to_value(condition).unwrap_or_default())
        .collect();
    let mut part = json!({"observedGeneration": generation, "conditions": conditions});
    // Which store is needed until the end, to dispose of what is there.
    if let Some(store) = old.and_then(|status| status.store_name.as_ref()) {
        part["storeName"] = json!(store);
    }
    let api: Api<PartnerConnection> = Api::namespaced(ctx.client.clone(), &ctx.settings.partners_namespace);
    let name = meta.name.as_deref().unwrap_or_default();
    let written = match &connection {
        Some(connection) => status::write(&api, connection, &part).await.map(Some),
        None => raw(ctx)
            .patch_status(name, &apply::params(), &Patch::Apply(&status::patch(name, &part)))
            .await
            .map(|_| None),
    };
    match written {
        Err(error) if apply::is_gone(&error) => Ok(connection),
        other => Ok(other?),
    }
}

async fn unfinalize(ctx: &Context, meta: &ObjectMeta) -> Result<(), Error> {
    let left: Vec<&String> = meta.finalizers.iter().flatten().filter(|finalizer| *finalizer != FINALIZER).collect();
    let name = meta.name.as_deref().unwrap_or_default();
    // Without the resourceVersion of now: the status was just written. The uid keeps it to this object.
    let live = raw(ctx).get_opt(name).await?;
    let Some(live) = live.filter(|live| live.metadata.uid == meta.uid) else { return Ok(()) };
    let patch = json!({"metadata": {"finalizers": left, "resourceVersion": live.metadata.resource_version}});
    match raw(ctx).patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await {
        Ok(_) => Ok(()),
        Err(error) if apply::is_gone(&error) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The connection without its types: it may not fit them.
pub(super) fn raw(ctx: &Context) -> Api<DynamicObject> {
    Api::namespaced_with(
        ctx.client.clone(),
        &ctx.settings.partners_namespace,
        &ApiResource::erase::<PartnerConnection>(&()),
    )
}

/// What is beyond reach in the partners' namespace is gone, or goes with the namespace: its RoleBindings go before its
/// finalizers are done.
fn reach(result: Result<bool, kube::Error>) -> Result<bool, Error> {
    match result {
        Err(error) if apply::is_out_of_reach(&error) => Ok(true),
        other => Ok(other?),
    }
}

fn is_over(pod: &k8s_openapi::api::core::v1::Pod) -> bool {
    pod.status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .is_some_and(|phase| matches!(phase, "Succeeded" | "Failed"))
}

fn soon() -> Action {
    Action::requeue(Duration::from_secs(2))
}
