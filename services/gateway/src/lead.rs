//! Which of a shard's two processes serves its partners: the one that holds the shard's Lease.
//!
//! The other watches as well, and has everything but peers and addresses: it can serve in the instant in which it takes the Lease.
//! A holder that cannot reach the API goes on for the staleness limit (neither can it be known to be gone), and one that sees
//! another's name there stops at once. Packets go where the Service sends them: to the pod with the label [`ACTIVE_LABEL`].
//!
//! So for a while two may serve, and the one that was overtaken knows of no revocation that came since. Whoever took over gives no word of one
//! until it is [`Standing::Alone`]. The label is what it goes by: a process has it before it serves, and as long as it may.

use std::time::{Duration, Instant};

use k8s_openapi::api::{coordination::v1::Lease, core::v1::Pod};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
};
use liaison_crds::{
    ACTIVE_LABEL, gateway,
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
/// Longest time for one question to the API, and for giving the Lease back.
const LOOK: Duration = Duration::from_millis(1500);
/// How much longer than the staleness limit one that was overtaken may serve: it looks at the clock after each look at the Lease.
const MARGIN: Duration = Duration::from_secs(5);

/// What a process is in its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It does not serve.
    Aside,
    /// It serves, and another may still do so without knowing of it.
    Serves,
    /// It serves, and nobody else does.
    Alone,
}

impl Standing {
    /// Whether it serves.
    pub fn serves(self) -> bool {
        self != Self::Aside
    }
}

/// What a look at the Lease says of whose it is. `before`: whether it was this process's; `silent`: for how long no look has said.
fn holds(before: bool, looked: &Result<bool, String>, silent: Duration, limit: Duration) -> bool {
    match looked {
        Ok(held) => *held,
        Err(_) => before && silent < limit,
    }
}

/// One of a shard's two processes, as the API sees it.
struct Contender {
    leases: Api<Lease>,
    pods: Api<Pod>,
    lease: String,
    pod: String,
    shard: String,
    candidate: Candidate,
    /// Whether the pod has the label; none: not known.
    labelled: Option<bool>,
}

impl Contender {
    /// Looks at the Lease, and renews or takes it; whether this process has it. `serves`: whether it serves.
    async fn look(&mut self, serves: bool) -> Result<bool, String> {
        let failed = match timeout(LOOK, self.candidate.step()).await {
            Ok(Ok(held)) => return Ok(held),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "time-out".to_owned(),
        };
        if !serves {
            return Err(failed);
        }
        // Where nothing can be written nobody else can take it either.
        match timeout(LOOK, self.leases.get(&self.lease)).await {
            Ok(Ok(lease)) => Ok(lease.spec.and_then(|spec| spec.holder_identity).as_ref() == Some(&self.pod)),
            _ => Err(failed),
        }
    }

    /// Says of our own pod whether it serves, if that is not said yet. False if that could not be said.
    async fn label(&mut self, active: bool) -> bool {
        if self.labelled == Some(active) {
            return true;
        }
        // One that fails may have come through.
        self.labelled = None;
        let value = active.then_some("true");
        let patch = Patch::Merge(json!({"metadata": {"labels": {ACTIVE_LABEL: value}}}));
        match timeout(LOOK, self.pods.patch(&self.pod, &PatchParams::default(), &patch)).await {
            Ok(Ok(_)) => self.labelled = Some(active),
            Ok(Err(error)) => tracing::warn!(pod = self.pod, %error, "the pod was not labelled; trying again"),
            Err(_) => {}
        }
        self.labelled == Some(active)
    }

    /// The shard's other pods that have the label and may have a process.
    async fn others(&self) -> Result<Vec<String>, String> {
        let labels = format!("{ACTIVE_LABEL}=true,{}={}", gateway::LABEL, self.shard);
        let listed = timeout(LOOK, self.pods.list(&ListParams::default().labels(&labels))).await;
        let listed = listed.map_err(|_| "time-out".to_owned())?.map_err(|error| error.to_string())?;
        let over = |pod: &Pod| {
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            matches!(phase, Some("Succeeded" | "Failed"))
        };
        Ok(listed.into_iter().filter(|pod| !over(pod)).map(|pod| pod.name_any()).filter(|n| *n != self.pod).collect())
    }
}

/// Contends for the Lease `name` until `leave`, then gives it back. `standing` has what this process is; `serving` is told whether
/// it has peers, which may take longer.
pub async fn contend(
    client: Client,
    config: Config,
    name: String,
    standing: watch::Sender<Standing>,
    serving: watch::Receiver<bool>,
    leave: CancellationToken,
) {
    let leases: Api<Lease> = Api::namespaced(client.clone(), &config.gateway_namespace);
    let mut this = Contender {
        candidate: Candidate::new(leases.clone(), &name, &config.pod_name, PACE),
        leases,
        pods: Api::namespaced(client, &config.gateway_namespace),
        lease: name.clone(),
        pod: config.pod_name.clone(),
        shard: config.name.to_string(),
        labelled: None,
    };
    let limit = config.staleness_limit();
    let mut said = Instant::now();
    // Since when it has served, and each look has said so.
    let mut since: Option<Instant> = None;
    loop {
        let (began, before) = (Instant::now(), *standing.borrow());
        let looked = this.look(before.serves()).await;
        if let Err(error) = &looked {
            tracing::warn!(lease = name, error, "the Lease cannot be looked at; who serves goes on");
        } else {
            said = began;
        }
        let held = holds(before.serves(), &looked, said.elapsed(), limit);
        // Without the label no packet comes. And it counts only if nobody can have taken the Lease before it was there.
        let serves = held && (before.serves() || (this.label(true).await && began.elapsed() < PACE.duration));
        since = if serves && looked.is_ok() { since.or_else(|| Some(Instant::now())) } else { None };
        let now = match (serves, since) {
            (false, _) => Standing::Aside,
            (true, None) => Standing::Serves,
            (true, Some(_)) if before == Standing::Alone => Standing::Alone,
            (true, Some(since)) => match this.others().await {
                Ok(others) if others.is_empty() => Standing::Alone,
                // Whoever was overtaken has had no word since before that.
                Ok(_) | Err(_) if since.elapsed() >= limit + MARGIN => Standing::Alone,
                Ok(others) => {
                    if before == Standing::Aside {
                        tracing::warn!(
                            ?others,
                            "took over from one that may still serve: no revocation is acknowledged until it is known not to"
                        );
                    }
                    Standing::Serves
                }
                Err(error) => {
                    tracing::warn!(error, "it cannot be looked whether another serves; no revocation is acknowledged");
                    Standing::Serves
                }
            },
        };
        standing.send_if_modified(|before| std::mem::replace(before, now) != now);
        if !held && !*serving.borrow() {
            this.label(false).await;
        }
        if leave.run_until_cancelled(sleep(PACE.period)).await.is_none() {
            break;
        }
    }
    this.label(false).await;
    if timeout(LOOK, this.candidate.release()).await.is_err() {
        tracing::warn!(lease = name, "the Lease was not given back; the other waits for it to run out");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_cannot_look_goes_on_for_the_limit_and_whoever_sees_another_does_not() {
        let (limit, unreachable) = (Duration::from_secs(900), Err("unreachable".to_owned()));
        for before in [false, true] {
            assert!(holds(before, &Ok(true), Duration::ZERO, limit));
            assert!(!holds(before, &Ok(false), Duration::ZERO, limit));
            assert_eq!(holds(before, &unreachable, Duration::from_secs(899), limit), before);
            assert!(!holds(before, &unreachable, limit, limit));
        }
    }
}
