//! A database pulled from under a running installation: who can still be served is, who cannot is told why, nothing is half
//! made, and all comes back by itself (I7, I8).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs,
    time::{Duration, Instant},
};

use liaison_e2e::{Partner, apply, condition, hub, kubectl, output, root, run, store, wait, wait_ready};
use serde_json::json;

const NEWCOMER: &str = "outage-police";

/// A good manifest of a partner that comes while a database is away, with its agreement.
fn newcomer() -> String {
    let bad = fs::read_to_string(root().join("tests/e2e/bad/outside-groups.yaml")).unwrap();
    bad.replace("bad-outside-groups", NEWCOMER).replace("[identity, warrants]", "[identity]")
}

fn forget_newcomer() {
    let _ = run("kubectl", &["delete", "-f", "-", "--ignore-not-found", "--timeout=120s"], Some(&newcomer()));
}

/// Stops a database, and starts it again however the test ends.
struct Outage(&'static str);

impl Outage {
    fn of(database: &'static str) -> Self {
        scale(database, 0);
        wait(&format!("{database} to be gone"), Duration::from_secs(120), || {
            kubectl(&["-n", "liaison-system", "get", "pods", "-o", "name"])
                .lines()
                .all(|pod| pod != format!("pod/{database}-0"))
        });
        Self(database)
    }
}

impl Drop for Outage {
    fn drop(&mut self) {
        scale(self.0, 1);
        let _ = run(
            "kubectl",
            &["-n", "liaison-system", "rollout", "status", &format!("statefulset/{}", self.0), "--timeout=180s"],
            None,
        );
    }
}

fn scale(database: &str, replicas: u8) {
    kubectl(&["-n", "liaison-system", "scale", &format!("statefulset/{database}"), &format!("--replicas={replicas}")]);
}

fn search(partner: &Partner) -> (u16, serde_json::Value) {
    partner.post("/api/search", "Apprehension", &json!({"bornFrom": "1900-01-01", "pageSize": 1}))
}

/// A partner that was applied meanwhile says which database is away and what to look at, and has no replica.
fn newcomer_waits(reason: &str, text: &str) {
    apply(&newcomer()).unwrap();
    wait(&format!("{NEWCOMER} to say {reason}"), Duration::from_secs(120), || {
        let (status, got, message) = condition(NEWCOMER, "ReplicaReady");
        status == "False" && got == reason && message.contains(text) && message.contains("check its address")
    });
    assert_eq!(condition(NEWCOMER, "Ready").0, "False");
    assert_eq!(condition(NEWCOMER, "Accepted").0, "True", "nothing is wrong with the manifest");
}

#[test]
fn t50_with_the_hub_away_officers_still_search_and_a_newcomer_waits() {
    forget_newcomer();
    let vancouver = Partner::up("vancouver-police");
    let (status, before) = search(&vancouver);
    assert_eq!(status, 200, "{before}");
    let outage = Outage::of("hub");
    newcomer_waits("HubUnreachable", "the hub cannot be reached");
    let (status, during) = search(&vancouver);
    assert_eq!((status, &during["total"]), (200, &before["total"]), "{during}");
    wait("DataFresh to turn False", Duration::from_secs(240), || {
        condition("vancouver-police", "DataFresh").0 == "False"
    });
    let (status, later) = search(&vancouver);
    assert_eq!(status, 200);
    assert!(later["dataAsOf"].is_string(), "an answer without \"data as of\": {later}");
    assert_eq!(condition("vancouver-police", "Ready").0, "True", "the hub is not the partner's business");
    drop(outage);
    wait_ready(NEWCOMER);
    wait("DataFresh to come back", Duration::from_secs(240), || condition("vancouver-police", "DataFresh").0 == "True");
    forget_newcomer();
    assert_eq!(store("SELECT count(*) FROM pg_namespace WHERE nspname LIKE '%outage_police'"), ["0"]);
}

#[test]
fn t51_with_the_store_away_nobody_is_answered_wrongly_and_a_newcomer_waits() {
    forget_newcomer();
    let vancouver = Partner::up("vancouver-police");
    let outage = Outage::of("store");
    newcomer_waits("StoreUnreachable", "the replica store cannot be reached");
    let (status, body) = search(&vancouver);
    assert_eq!(status, 503, "{body}");
    assert!(body["title"].is_string() && body["titleFr"].is_string(), "in both languages: {body}");
    drop(outage);
    wait_ready(NEWCOMER);
    wait("the officer to be answered again", Duration::from_secs(120), || search(&vancouver).0 == 200);
    let unsettled = hub("SELECT count(*) FROM liaison.ledger_batch b WHERE state = 'prepared' AND EXISTS
        (SELECT FROM liaison.ledger_batch n WHERE n.partner = b.partner AND n.batch > b.batch)");
    assert_eq!(unsettled, ["0"], "a batch that nobody settled");
    forget_newcomer();
    assert_eq!(store("SELECT count(*) FROM pg_namespace WHERE nspname LIKE '%outage_police'"), ["0"]);
}

/// The gateway's pod that serves, as far as it says so itself.
fn active() -> Vec<String> {
    let label = "app.kubernetes.io/name=gateway,federation.csc-scc.gc.ca/active=true";
    let names = kubectl(&["-n", "liaison-gateway", "get", "pods", "-l", label, "-o", "name"]);
    names.lines().map(str::to_owned).collect()
}

/// Whether the partner gets an answer within a second.
fn served(partner: &Partner) -> bool {
    let url = format!("https://{}/api/openapi.json", partner.server_name());
    partner.curl(&["--max-time", "1", "--fail", &url]).status.success()
}

/// How many ways of UDP by a Service the node remembers that lead to a pod.
fn tracked(pod: &str) -> usize {
    output("conntrack", &["-L", "-p", "udp", "--reply-src", pod], None).lines().count()
}

#[test]
fn t52_the_gateway_that_serves_is_gone_and_the_other_serves_where_it_left_off() {
    let vancouver = Partner::up("vancouver-police");
    assert_eq!(search(&vancouver).0, 200);
    // `make bench-takeover` asks for more.
    let times = std::env::var("KILLS").map_or(2, |kills| kills.parse().expect("KILLS is a number"));
    for round in 0..times {
        wait("one gateway to serve, and another to stand by", Duration::from_secs(120), || {
            let ready = [
                "-n",
                "liaison-gateway",
                "get",
                "deployment",
                "liaison-gateway",
                "-o",
                "jsonpath={.status.readyReplicas}",
            ];
            active().len() == 1 && kubectl(&ready) == "2"
        });
        let before = active();
        let address = kubectl(&["-n", "liaison-gateway", "get", &before[0], "-o", "jsonpath={.status.podIP}"]);
        assert!(served(&vancouver));
        // None where the gateway called first, as it does after a takeover: then the partner answers to where that came from.
        let ways = tracked(&address);
        assert!(round > 0 || ways > 0, "packets go by the Service to the pod that serves");
        let started = Instant::now();
        kubectl(&["-n", "liaison-gateway", "delete", &before[0], "--grace-period=0", "--force", "--wait=false"]);
        // The one that was deleted may answer for a moment yet.
        while !(active().iter().any(|pod| !before.contains(pod)) && served(&vancouver)) {
            assert!(started.elapsed() < Duration::from_secs(60), "nobody serves");
        }
        println!("served again {:.2} s after the pod was deleted", started.elapsed().as_secs_f64());
        // A partner's packets come from one port for ever: what the node remembers of it would send them to nobody.
        wait("the node to forget the pod that is gone", Duration::from_secs(30), || tracked(&address) == 0);
    }
}
