//! One reconcile of a SharingAgreement: whether it is in force, and a finalizer while connections refer to it.
//!
//! A deleted agreement counts as ended at once, for everybody who reads its deletion timestamp; the object waits until no
//! connection names it, so that what was legal when remains to be seen.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::{
    Api, Resource, ResourceExt,
    api::{ListParams, Patch, PatchParams},
    core::DeserializeGuard,
    runtime::controller::Action,
};
use liaison_crds::{
    FINALIZER, PartnerConnection, SharingAgreement,
    acceptance::{BadDate, authorized_from, authorized_until},
    conditions::IN_FORCE,
};
use serde_json::{Value, json};

use crate::{
    apply,
    context::Context,
    metrics,
    partner_connection::{
        Error,
        status::{State, condition},
    },
};

/// Where an agreement without a connection is placed: the time zone of Canada farthest behind.
const FARTHEST: &str = "America/Vancouver";

/// The field of a connection by which it can be asked for.
const NAMED_BY: &str = "spec.agreementRef.name";

/// Reconciles one agreement, as the API server has it now.
pub async fn reconcile(object: Arc<DeserializeGuard<SharingAgreement>>, ctx: Arc<Context>) -> Result<Action, Error> {
    let name = object.meta().name.clone().unwrap_or_default();
    let result = visit(&name, &ctx).await;
    let label = result.as_ref().map_or_else(Error::reason, |_| "ok");
    ctx.metrics.reconciles.get_or_create(&metrics::Reconcile { kind: "SharingAgreement", result: label }).inc();
    if result.is_ok() {
        ctx.backoff.succeeded(&format!("agreement/{name}"));
    }
    result
}

/// What to do after a failure.
pub fn on_error(object: &DeserializeGuard<SharingAgreement>, error: &Error, ctx: &Context) -> Action {
    let name = object.meta().name.clone().unwrap_or_default();
    let wait = ctx.backoff.failed(&format!("agreement/{name}"));
    tracing::warn!(agreement = name, reason = error.reason(), %error, wait_seconds = wait.as_secs(), "reconcile failed");
    Action::requeue(wait)
}

async fn visit(name: &str, ctx: &Context) -> Result<Action, Error> {
    let namespace = &ctx.settings.partners_namespace;
    let api: Api<DeserializeGuard<SharingAgreement>> = Api::namespaced(ctx.client.clone(), namespace);
    let Some(guard) = api.get_opt(name).await? else { return Ok(Action::await_change()) };
    let Ok(agreement) = guard.0 else {
        tracing::warn!(agreement = name, "the agreement cannot be read; connections under it are closed");
        return Ok(Action::requeue(Duration::from_mins(10)));
    };
    let typed: Api<SharingAgreement> = Api::namespaced(ctx.client.clone(), namespace);
    let connections: Api<DeserializeGuard<PartnerConnection>> = Api::namespaced(ctx.client.clone(), namespace);
    let has = agreement.finalizers().iter().any(|finalizer| finalizer == FINALIZER);
    let going = agreement.metadata.deletion_timestamp.is_some();
    // Before one goes, all are looked at: a connection that cannot be read may name any agreement.
    let which = if going { ListParams::default() } else { ListParams::default().fields(&format!("{NAMED_BY}={name}")) };
    let all = connections.list(&which).await?;
    let users: Vec<&PartnerConnection> = all
        .items
        .iter()
        .filter_map(|guard| guard.0.as_ref().ok())
        .filter(|connection| connection.spec.agreement_ref.name == name)
        .collect();
    let in_use = !users.is_empty() || all.items.iter().any(|guard| guard.0.is_err());
    let agreement = match (has, in_use, going) {
        (false, true, false) => finalizers(&typed, &agreement, true).await?,
        (true, false, true) => {
            finalizers(&typed, &agreement, false).await?;
            return Ok(Action::await_change());
        }
        (false, _, true) => return Ok(Action::await_change()),
        _ => agreement,
    };
    let zones: Vec<&str> = users.iter().map(|connection| connection.spec.partner.time_zone.as_str()).collect();
    let now = ctx.now();
    let (state, next) = in_force(&agreement, &zones, users.len(), now);
    let generation = agreement.metadata.generation.unwrap_or(0);
    let old = agreement.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let wanted = condition(IN_FORCE, &state, generation, old, now);
    let seen = agreement.status.as_ref().is_some_and(|status| status.observed_generation == generation);
    if !(seen && old.contains(&wanted)) {
        let patch: Value = json!({
            "apiVersion": SharingAgreement::api_version(&()),
            "kind": SharingAgreement::kind(&()),
            "metadata": {"name": name},
            "status": {"observedGeneration": generation, "conditions": [wanted]},
        });
        typed.patch_status(name, &apply::params(), &Patch::Apply(&patch)).await?;
    }
    let wait = next.map_or(600, |at| (at.as_second() - now.as_second()).clamp(1, 600));
    Ok(Action::requeue(Duration::from_secs(u64::try_from(wait).unwrap_or(600))))
}

/// Whether it is in force somewhere, and when that may change.
fn in_force(agreement: &SharingAgreement, zones: &[&str], users: usize, now: Timestamp) -> (State, Option<Timestamp>) {
    let spec = &agreement.spec;
    if agreement.metadata.deletion_timestamp.is_some() {
        let message = format!("deleted, which ended it; it stays until {users} connections no longer name it");
        return (State::no("Deleted", message), None);
    }
    let zones = if zones.is_empty() { &[FARTHEST][..] } else { zones };
    let bounds: Result<Vec<(Timestamp, Timestamp)>, BadDate> = zones
        .iter()
        .map(|zone| Ok((authorized_from(&spec.effective_date, zone)?, authorized_until(&spec.expiry_date, zone)?)))
        .collect();
    let bounds = match bounds {
        Ok(bounds) => bounds,
        Err(error) => return (State::no("Invalid", error.to_string()), None),
    };
    let next = bounds.iter().flat_map(|(from, until)| [*from, *until]).filter(|at| *at > now).min();
    if bounds.iter().any(|(from, until)| *from <= now && now < *until) {
        return (State::yes("InForce", format!("in force until the end of {}", spec.expiry_date)), next);
    }
    if bounds.iter().all(|(from, _)| now < *from) {
        return (State::no("NotYetInForce", format!("in force from {}", spec.effective_date)), next);
    }
    (State::no("Expired", format!("ended after {}", spec.expiry_date)), next)
}

async fn finalizers(
    api: &Api<SharingAgreement>,
    agreement: &SharingAgreement,
    ours: bool,
) -> Result<SharingAgreement, Error> {
    let mut all: Vec<&str> = agreement.finalizers().iter().map(String::as_str).filter(|f| *f != FINALIZER).collect();
    if ours {
        all.push(FINALIZER);
    }
    let patch = json!({"metadata": {"finalizers": all, "resourceVersion": agreement.metadata.resource_version}});
    match api.patch(&agreement.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await {
        Err(error) if !ours && apply::is_gone(&error) => Ok(agreement.clone()),
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partner_connection::fixtures::agreement;

    #[test]
    fn in_force_while_it_is_anywhere() {
        let agreement = agreement();
        let at = |text: &str| -> Timestamp { text.parse().unwrap() };
        let zones = ["America/St_Johns", "America/Vancouver"];
        let state = |now: &str| in_force(&agreement, &zones, 2, at(now)).0;
        assert_eq!(state("2026-01-01T03:00:00Z").reason, "NotYetInForce");
        assert!(state("2026-01-01T03:30:00Z").holds);
        assert!(state("2100-01-01T07:59:59Z").holds);
        assert_eq!(state("2100-01-01T08:00:00Z").reason, "Expired");
        assert_eq!(in_force(&agreement, &zones, 2, at("2026-01-01T03:00:00Z")).1, Some(at("2026-01-01T03:30:00Z")));
    }
}
