//! Conditions from small YAML.

use super::*;

fn outcome() -> Outcome {
    let yes = || State::yes("Fine", "fine");
    Outcome {
        accepted: yes(),
        credentials: yes(),
        replica: yes(),
        access: yes(),
        closed: None,
        authorized_until: None,
        store_name: None,
        connection: None,
        keys: vec![],
        overlap_ends: None,
        certificates: vec![],
        enrolment: None,
        custody: vec![],
        bundle: None,
        verified: None,
        later: None,
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

#[test]
fn ready_is_the_first_thing_that_is_not() {
    assert!(outcome().ready().holds);
    let mut o = outcome();
    o.replica = State::no("StoreUnreachable", "store x does not answer");
    o.access = State::no("WaitingForReplica", "");
    assert_eq!(o.ready().reason, "StoreUnreachable");
    let closed = Outcome { closed: Some("Suspended"), access: State::yes("Suspended", "suspended"), ..o };
    assert_eq!((closed.ready().holds, closed.ready().reason.as_str()), (true, "Suspended"));
}

#[test]
fn a_condition_keeps_its_time_until_its_status_changes() {
    let before = condition(READY, &State::no("A", "a"), 1, &[], at(10));
    let same = condition(READY, &State::no("B", "b"), 2, std::slice::from_ref(&before), at(20));
    assert_eq!((same.last_transition_time.0, same.reason.as_str()), (at(10), "B"));
    let other = condition(READY, &State::yes("C", "c"), 2, &[same], at(30));
    assert_eq!(other.last_transition_time.0, at(30));
}

#[test]
fn the_same_outcome_is_the_same_status_whatever_others_wrote() {
    let first = outcome().to_json(3, None, at(10));
    let mut status: PartnerConnectionStatus = serde_json::from_value(first.clone()).unwrap();
    status.conditions.reverse();
    status.conditions.push(condition("Connected", &State::yes("Up", ""), 3, &[], at(11)));
    assert_eq!(outcome().to_json(3, Some(&status), at(99)), first);
    assert_eq!(own(&status), first);
}

#[test]
fn a_mismatch_is_a_condition_of_its_own_and_no_part_of_ready() {
    let replica =
        |mismatches| VerifiedReplica { last_verified: Some(Time(at(5))), mismatches, ..VerifiedReplica::default() };
    let said = |verified, before: Option<&PartnerConnectionStatus>, second| {
        let json = Outcome { verified, ..outcome() }.to_json(3, before, at(second));
        serde_json::from_value::<PartnerConnectionStatus>(json).unwrap()
    };
    let of = |status: &PartnerConnectionStatus, kind: &str| {
        status.conditions.iter().find(|condition| condition.type_ == kind).unwrap().clone()
    };
    let first = said(None, None, 10);
    assert_eq!((of(&first, VERIFIED).status, of(&first, READY).status), ("Unknown".into(), "True".into()));
    let found = said(Some(replica(2)), Some(&first), 20);
    assert_eq!((of(&found, VERIFIED).reason, of(&found, READY).status), ("RootMismatch".into(), "True".into()));
    let again = said(Some(replica(1)), Some(&found), 30);
    assert_eq!(of(&again, VERIFIED).last_transition_time.0, at(20), "since when");
    let clean = said(Some(replica(0)), Some(&again), 40);
    assert_eq!((of(&clean, VERIFIED).status, of(&clean, VERIFIED).last_transition_time.0), ("True".into(), at(40)));
}

fn pod(message: &str) -> Pod {
    serde_json::from_value(json!({"status": {"containerStatuses": [{
        "name": "sync", "image": "", "imageID": "", "ready": false, "restartCount": 1,
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"exitCode": 1, "message": message}},
    }]}}))
    .unwrap()
}

fn job(kind: &str) -> Job {
    serde_json::from_value(json!({"status": {"conditions": [{"type": kind, "status": "True"}]}})).unwrap()
}

#[test]
fn a_job_speaks_through_its_termination_message() {
    let done = job_state(&job("Complete"), &[pod(r#"{"reason":"Seeded","files":3,"records":40}"#)], "seeding");
    assert_eq!(done, JobState::Done(State::yes("Seeded", "3 files, 40 records")));
    let retrying = pod(r#"{"reason":"StoreUnreachable","message":"store.x does not answer; see its service"}"#);
    let JobState::Running(state) = job_state(&Job::default(), &[retrying], "seeding") else { panic!() };
    assert_eq!((state.reason.as_str(), state.holds), ("StoreUnreachable", false));
    let mut ended = pod(r#"{"reason":"Seeded","files":3,"records":40}"#);
    let container = &mut ended.status.as_mut().unwrap().container_statuses.as_mut().unwrap()[0];
    container.state = None;
    container.last_state.as_mut().unwrap().terminated.as_mut().unwrap().exit_code = 0;
    let JobState::Running(state) = job_state(&Job::default(), &[ended], "seeding") else { panic!() };
    assert_eq!(state.reason, "Running", "the pod has ended well, the Job is not complete yet");
    let JobState::Failed(state) = job_state(&job("Failed"), &[pod("not json")], "seeding") else { panic!() };
    assert_eq!(state.reason, "JobFailed");
    let JobState::Running(state) = job_state(&Job::default(), &[pod("x")], "seeding") else { panic!() };
    assert!(state.message.contains("CrashLoopBackOff"));
    let JobState::Running(state) = job_state(&Job::default(), &[pod(r#"{"reason":"no word","message":"a\nb"}"#)], "s")
    else {
        panic!()
    };
    assert_eq!((state.reason.as_str(), state.message.as_str()), ("Retrying", "a b"));
}

#[test]
fn access_follows_the_deployment_of_this_generation() {
    let deployment = |observed: i64, available: i32| -> Deployment {
        serde_json::from_value(json!({"metadata": {"generation": 2}, "status": {
            "observedGeneration": observed, "replicas": available, "updatedReplicas": available, "availableReplicas": available,
        }}))
        .unwrap()
    };
    assert!(access_state(Some(&deployment(2, 1)), 1, "Suspended", "").holds);
    assert!(!access_state(Some(&deployment(1, 1)), 1, "Suspended", "").holds);
    assert!(!access_state(Some(&deployment(2, 1)), 0, "Suspended", "").holds);
    assert_eq!(access_state(Some(&deployment(2, 0)), 0, "Suspended", "x"), State::yes("Suspended", "x"));
    assert!(!access_state(None, 1, "Suspended", "").holds);
}
