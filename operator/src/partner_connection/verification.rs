//! When a replica is verified, and what came of it: one scheduler for all partners, whose Jobs are named after what they do,
//! so that making one twice makes one.
//!
//! Partner P's turns begin every `verifySeconds`, at an offset that is a function of its name: a thousand partners are spread
//! over the period, and nobody keeps a list. What has been worked off stands in `status.replica`, which changes only when a
//! Job has ended; the Job itself may be gone by then.

use jiff::Timestamp;
use k8s_openapi::{
    api::{batch::v1::Job, core::v1::Pod},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{
    Api, Resource, ResourceExt,
    api::ListParams,
    runtime::events::{Event, EventType},
};
use liaison_crds::{PartnerConnection, REBUILD_ANNOTATION, VERIFY_ANNOTATION, partner_connection::VerifiedReplica};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{
    Error,
    dereference::pods_of,
    names::Names,
    status::{self, JobState},
    workloads::{self, Task},
};
use crate::{apply, context::Context};

/// What a Job is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Due {
    /// The annotation asks for a rebuild; its digest.
    Rebuild(String),
    /// The annotation asks for a verification; its digest.
    Verify(String),
    /// It is the partner's turn.
    Turn(i64),
}

impl Due {
    /// The Job's name: one for each thing to do, for each connection.
    pub fn job(&self, names: &Names, uid: &str) -> String {
        let (verb, what) = match self {
            Self::Rebuild(token) => ("rebuild", format!("rebuild {token}")),
            Self::Verify(token) => ("verify", format!("verify {token}")),
            Self::Turn(turn) => ("verify", format!("turn {turn}")),
        };
        let digest = hex::encode(&Sha256::digest(format!("{uid} {what}"))[..4]);
        format!("{verb}-{}-{digest}", names.partner)
    }

    fn observed(&self, replica: &mut VerifiedReplica) {
        match self {
            Self::Rebuild(token) => replica.observed_rebuild = Some(token.clone()),
            Self::Verify(token) => replica.observed_verify = Some(token.clone()),
            Self::Turn(turn) => replica.observed_turn = *turn,
        }
    }
}

/// The number of the turn that has begun at `now`. Deterministic jitter: the offset is a function of the partner's name.
pub fn turn(partner: &str, period: i64, now: Timestamp) -> i64 {
    let digest = Sha256::digest(format!("liaison verification of {partner}"));
    let offset = i64::from(u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])) % period;
    (now.as_second() - offset).div_euclid(period)
}

/// What is to be done now, if anything. `period` in seconds; 0: on demand only.
pub fn due(connection: &PartnerConnection, period: i64, now: Timestamp) -> Option<Due> {
    let nothing = VerifiedReplica::default();
    let replica = connection.status.as_ref().and_then(|status| status.replica.as_ref()).unwrap_or(&nothing);
    let asked = |annotation: &str| {
        let value = connection.annotations().get(annotation).filter(|value| !value.is_empty())?;
        // Anybody may write anything there: its digest is what is kept.
        Some(hex::encode(&Sha256::digest(value)[..8]))
    };
    if let Some(token) = asked(REBUILD_ANNOTATION).filter(|token| replica.observed_rebuild.as_ref() != Some(token)) {
        return Some(Due::Rebuild(token));
    }
    if let Some(token) = asked(VERIFY_ANNOTATION).filter(|token| replica.observed_verify.as_ref() != Some(token)) {
        return Some(Due::Verify(token));
    }
    if period <= 0 {
        return None;
    }
    let partner = connection.name_any();
    let now = turn(&partner, period, now);
    // What was made in this turn has just been filled: it is verified in the next.
    let made = connection.metadata.creation_timestamp.as_ref().map_or(now, |at| turn(&partner, period, at.0));
    (now > made.max(replica.observed_turn)).then_some(Due::Turn(now))
}

/// What a verification said when it ended.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Said {
    reason: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    as_of: Option<Timestamp>,
    #[serde(default)]
    root: Option<String>,
    #[serde(default)]
    files: i64,
    #[serde(default)]
    records: i64,
    #[serde(default)]
    mismatches: i64,
}

/// What `status.replica` is after a Job has ended, and what is to be told of it.
fn taken(
    before: Option<&VerifiedReplica>,
    due: &Due,
    pods: &[Pod],
) -> (VerifiedReplica, Option<(&'static str, String)>) {
    let mut replica = before.cloned().unwrap_or_default();
    due.observed(&mut replica);
    let said: Option<Said> = status::last_message(pods).and_then(|text| serde_json::from_str(&text).ok());
    let Some(said) = said else {
        return (replica, Some(("NotVerified", "the verification ended without a word; see its Job's pod".to_owned())));
    };
    let (Some(as_of), Some(root)) = (said.as_of, said.root.filter(|root| root.len() == 64)) else {
        return (replica, Some(("NotVerified", status::sentence(&said.message))));
    };
    replica.last_verified = Some(Time(as_of));
    replica.root = Some(root);
    (replica.files, replica.records, replica.mismatches) =
        (said.files.max(0), said.records.max(0), said.mismatches.max(0));
    let told = (said.reason == "Repaired" || replica.mismatches > 0)
        .then(|| ("RootMismatch", status::sentence(&said.message)));
    (replica, told)
}

/// What the condition `Verified` says, from what the last verification that ended with two equal roots found: status, reason
/// and message. A mismatch stays until a verification finds none: that it was repaired does not say who wrote there.
pub fn shown(replica: Option<&VerifiedReplica>) -> (&'static str, &'static str, String) {
    let found = replica.and_then(|replica| Some((replica, replica.last_verified.as_ref()?.0)));
    match found {
        None => ("Unknown", "NotYetVerified", "the replica has not been verified yet".to_owned()),
        Some((replica, at)) if replica.mismatches > 0 => (
            "False",
            "RootMismatch",
            format!(
                "{} files, reference records or pictures were not what is shared, and were repaired by {at}; this stays until a \
                 verification finds none",
                replica.mismatches
            ),
        ),
        Some((_, at)) => ("True", "RootsEqual", format!("the replica was exactly what is shared at {at}")),
    }
}

/// Starts what is due, or takes in what came of it. Returns `status.replica` as it is to be.
pub async fn visit(
    ctx: &Context,
    names: &Names,
    connection: &PartnerConnection,
    store: &str,
    now: Timestamp,
) -> Result<Option<VerifiedReplica>, Error> {
    let before = connection.status.as_ref().and_then(|status| status.replica.clone());
    let Some(due) = due(connection, ctx.settings.verify_seconds, now) else { return Ok(before) };
    let name = due.job(names, connection.metadata.uid.as_deref().unwrap_or_default());
    let jobs: Api<Job> = Api::namespaced(ctx.client.clone(), &ctx.settings.system_namespace);
    let Some(job) = jobs.get_opt(&name).await? else {
        // One decides at a time: who counts and then makes must not be overtaken.
        let _one = ctx.verifying.lock().await;
        if running(&jobs).await? < ctx.settings.verify_at_once {
            let task = match due {
                Due::Rebuild(_) => Task::Rebuild(name),
                Due::Verify(_) | Due::Turn(_) => Task::Verify(name),
            };
            apply::create_once(&jobs, &workloads::job(&task, names, &ctx.settings, store)?).await?;
        }
        return Ok(before);
    };
    let pods = pods_of(ctx, &name).await?;
    if let JobState::Running(_) = status::job_state(&job, &pods, "verifying the replica") {
        return Ok(before);
    }
    let (replica, told) = taken(before.as_ref(), &due, &pods);
    if let Some((reason, note)) = told {
        let event = Event {
            type_: EventType::Warning,
            reason: reason.to_owned(),
            note: Some(note),
            action: "Verify".to_owned(),
            secondary: None,
        };
        if let Err(error) = ctx.recorder.publish(&event, &connection.object_ref(&())).await {
            tracing::debug!(%error, "event not published");
        }
    }
    Ok(Some(replica))
}

/// How many of these Jobs, of all partners, have not ended.
async fn running(jobs: &Api<Job>) -> Result<usize, kube::Error> {
    let list =
        jobs.list(&ListParams::default().labels(&format!("{}={}", workloads::COMPONENT, workloads::VERIFY))).await?;
    let over = |job: &Job| {
        let conditions = job.status.as_ref().and_then(|status| status.conditions.as_ref());
        conditions.is_some_and(|all| {
            all.iter().any(|c| matches!(c.type_.as_str(), "Complete" | "Failed") && c.status == "True")
        })
    };
    Ok(list.items.iter().filter(|job| !over(job)).count())
}

/// Removes the Jobs of a partner: what they ask for is no longer wanted.
pub async fn stop(ctx: &Context, names: &Names) -> Result<(), kube::Error> {
    let jobs: Api<Job> = Api::namespaced(ctx.client.clone(), &ctx.settings.system_namespace);
    let which =
        format!("{}={},{}={}", workloads::COMPONENT, workloads::VERIFY, liaison_crds::PARTNER_LABEL, names.partner);
    for job in jobs.list(&ListParams::default().labels(&which)).await? {
        apply::ensure_gone(&jobs, &job.name_any(), false).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partner_connection::fixtures::connection as fixture;

    const DAY: i64 = 86_400;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_thousand_partners_are_spread_over_the_day_and_keep_their_hour() {
        let mut hours = [0_u32; 24];
        for number in 0..1000 {
            let partner = format!("partner-{number}");
            let first = (0..DAY).step_by(60).find(|s| turn(&partner, DAY, at(20_000 * DAY + s)) == 20_000).unwrap();
            assert_eq!(turn(&partner, DAY, at(20_001 * DAY + first)), 20_001, "the same hour every day");
            hours[usize::try_from(first / 3600).unwrap()] += 1;
        }
        assert!(hours.iter().all(|n| (20..70).contains(n)), "{hours:?}");
    }

    #[test]
    fn what_is_due_follows_annotations_and_turns_and_is_done_once() {
        let mut connection = fixture("vancouver-police");
        let (start, now) = (at(20_000 * DAY), at(20_003 * DAY));
        connection.metadata.creation_timestamp = Some(Time(start));
        assert_eq!(due(&connection, DAY, start), None, "made in this turn");
        assert_eq!(due(&connection, 0, now), None, "off");
        let first = due(&connection, DAY, now).unwrap();
        assert!(matches!(first, Due::Turn(_)));
        let names = Names::new("vancouver-police", "u");
        assert_eq!(first.job(&names, "u"), first.job(&names, "u"));
        assert_ne!(first.job(&names, "u"), first.job(&names, "another"));
        let observe = |connection: &mut PartnerConnection, due: &Due| {
            let status = connection.status.get_or_insert_with(crate::partner_connection::fixtures::provisioned);
            due.observed(status.replica.get_or_insert_default());
        };
        observe(&mut connection, &first);
        assert_eq!(due(&connection, DAY, now), None);
        connection.annotations_mut().insert(VERIFY_ANNOTATION.into(), "please".into());
        connection.annotations_mut().insert(REBUILD_ANNOTATION.into(), "now".into());
        let second = due(&connection, DAY, now).unwrap();
        assert!(matches!(second, Due::Rebuild(_)) && second.job(&names, "u").starts_with("rebuild-vancouver-police-"));
        observe(&mut connection, &second);
        let third = due(&connection, DAY, now).unwrap();
        assert!(matches!(&third, Due::Verify(token) if !token.contains("please")));
        observe(&mut connection, &third);
        assert_eq!(due(&connection, DAY, now), None, "an annotation that stays asks once");
        assert!(matches!(due(&connection, DAY, at(20_004 * DAY)), Some(Due::Turn(_))), "the next day");
        connection.annotations_mut().insert(VERIFY_ANNOTATION.into(), "again".into());
        assert!(matches!(due(&connection, DAY, now), Some(Due::Verify(_))), "a new value asks again");
        let longest = Names::new(&"a".repeat(40), "u");
        assert!(second.job(&longest, "u").len() <= 63);
    }

    fn pod(message: &str) -> Pod {
        serde_json::from_value(serde_json::json!({"status": {"containerStatuses": [{
            "name": "sync", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": 0, "message": message}},
        }]}}))
        .unwrap()
    }

    #[test]
    fn what_a_job_said_is_taken_in_and_a_silent_one_keeps_the_last_result() {
        let root = "ab".repeat(32);
        let said = format!(
            r#"{{"reason":"Verified","message":"3 files, 40 records","asOf":"2026-11-25T01:02:03Z","root":"{root}","files":3,"records":40,"mismatches":0}}"#
        );
        let (replica, told) = taken(None, &Due::Turn(7), &[pod(&said)]);
        assert_eq!((replica.files, replica.records, replica.observed_turn), (3, 40, 7));
        assert_eq!((replica.root.as_deref(), told), (Some(root.as_str()), None));
        let repaired = said.replace("Verified", "Repaired").replace(r#""mismatches":0"#, r#""mismatches":2"#);
        let (mended, told) = taken(None, &Due::Turn(7), &[pod(&repaired)]);
        assert_eq!(told.unwrap().0, "RootMismatch");
        assert_eq!((shown(None).0, shown(None).1), ("Unknown", "NotYetVerified"));
        assert_eq!((shown(Some(&replica)).0, shown(Some(&replica)).1), ("True", "RootsEqual"));
        let (status, reason, message) = shown(Some(&mended));
        assert_eq!((status, reason), ("False", "RootMismatch"));
        assert!(message.starts_with("2 files") && message.contains("repaired by 2026-11-25T01:02:03Z"), "{message}");
        let (silent, _) =
            taken(Some(&mended), &Due::Turn(8), &[pod(r#"{"reason":"NotVerified","message":"no worker"}"#)]);
        assert_eq!(shown(Some(&silent)).1, "RootMismatch", "what could not be shown takes nothing back");
        let (clean, _) = taken(Some(&mended), &Due::Turn(9), &[pod(&said)]);
        assert_eq!(shown(Some(&clean)).0, "True");
        let (unknown, _) = taken(None, &Due::Turn(8), &[]);
        assert_eq!(shown(Some(&unknown)).0, "Unknown", "a turn that ended without a word shows nothing");
        let (after, told) =
            taken(Some(&replica), &Due::Turn(8), &[pod(r#"{"reason":"NotVerified","message":"no worker"}"#)]);
        assert_eq!((after.last_verified.clone(), after.observed_turn), (replica.last_verified.clone(), 8));
        assert_eq!(told, Some(("NotVerified", "no worker".to_owned())));
        let (after, told) = taken(Some(&replica), &Due::Turn(9), &[]);
        assert_eq!((after.root, told.unwrap().0), (replica.root, "NotVerified"));
    }
}
