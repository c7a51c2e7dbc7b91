//! Which of a shard's two processes serves its partners: the one that holds the shard's Lease.
//!
//! The other watches as well, and has everything but peers and addresses: it can serve in the instant in which it takes the Lease.
//! The Lease is no fence: both know the same of every revocation, and whoever has had no word from the API within the staleness
//! limit serves nobody. So a holder that cannot reach the API goes on (neither can it be known to be gone), and one that sees another's
//! name there stops at once. Packets go where the Service sends them: to the pod with the label [`ACTIVE_LABEL`].

use std::time::Duration;

use k8s_openapi::api::{coordination::v1::Lease, core::v1::Pod};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use liaison_crds::{
    ACTIVE_LABEL,
    leader::{Candidate, Pace},
};
use serde_json::json;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::config::Config;

/// Partners notice a silence of a few seconds.
pub const PACE: Pace = Pace { duration: Duration::from_secs(2), period: Duration::from_millis(500) };
/// Longest time for one look at the Lease, and for giving it back.
const LOOK: Duration = Duration::from_millis(1500);

/// What a look at the Lease says of who serves. `before`: whether it was this process.
fn serves(before: bool, looked: &Result<bool, String>) -> bool {
    match looked {
        Ok(held) => *held,
        Err(_) => before,
    }
}

/// Contends for the Lease `name` until `leave`, then gives it back. `active` has whether this process serves.
pub async fn contend(
    client: Client,
    config: Config,
    name: String,
    active: watch::Sender<bool>,
    leave: CancellationToken,
) {
    let leases: Api<Lease> = Api::namespaced(client.clone(), &config.gateway_namespace);
    let pods: Api<Pod> = Api::namespaced(client, &config.gateway_namespace);
    let mut candidate = Candidate::new(leases, &name, &config.pod_name, PACE);
    let mut labelled = None;
    loop {
        let looked = match timeout(LOOK, candidate.step()).await {
            Ok(Ok(held)) => Ok(held),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("time-out".to_owned()),
        };
        if let Err(error) = &looked {
            tracing::warn!(lease = name, error, "the Lease cannot be looked at; who serves goes on");
        }
        let now = serves(*active.borrow(), &looked);
        active.send_if_modified(|before| std::mem::replace(before, now) != now);
        // After it serves, and before it no longer does: packets that come meanwhile find somebody.
        if labelled != Some(now) {
            labelled = label(&pods, &config.pod_name, now).await.then_some(now);
        }
        if leave.run_until_cancelled(sleep(PACE.period)).await.is_none() {
            break;
        }
    }
    if timeout(LOOK, candidate.release()).await.is_err() {
        tracing::warn!(lease = name, "the Lease was not given back; the other waits for it to run out");
    }
}

/// Says of our own pod whether it serves. False if that could not be said.
async fn label(pods: &Api<Pod>, name: &str, active: bool) -> bool {
    let value = active.then_some("true");
    let patch = Patch::Merge(json!({"metadata": {"labels": {ACTIVE_LABEL: value}}}));
    match timeout(LOOK, pods.patch(name, &PatchParams::default(), &patch)).await {
        Ok(Ok(_)) => true,
        Ok(Err(error)) => {
            tracing::warn!(pod = name, %error, "the pod was not labelled; trying again");
            false
        }
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_cannot_look_goes_on_and_whoever_sees_another_does_not() {
        for before in [false, true] {
            assert!(serves(before, &Ok(true)));
            assert!(!serves(before, &Ok(false)));
            assert_eq!(serves(before, &Err("unreachable".into())), before);
        }
    }
}
