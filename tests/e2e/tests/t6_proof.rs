//! That a replica is what it ought to be is shown, and what is not is mended and said; a replica is made anew while it is read;
//! one that is gone leaves a certificate that anybody can verify (issue 4, points 3 to 5). Leaves everything as it was.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use liaison_e2e::{Partner, condition, get, hub, kubectl, output, root, run, store, wait, wait_ready};
use serde_json::{Value, json};

/// The one that is looked into.
const PARTNER: &str = "vancouver-police";
const SHARE: &str = "share_vancouver_police";
/// The one that goes, and comes again.
const LEAVER: &str = "victoria-police";
const LIMIT: Duration = Duration::from_secs(90);

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Asks by annotation, and waits until what came of it stands in status.
fn ask(what: &str) -> Value {
    let replica = || get("liaison-partners", "partnerconnection", PARTNER).unwrap()["status"]["replica"].clone();
    let key = if what == "rebuild" { "observedRebuild" } else { "observedVerify" };
    let before = replica()[key].clone();
    let annotation = format!("federation.csc-scc.gc.ca/{what}=t6-{}-{}", seconds(), std::process::id());
    kubectl(&["-n", "liaison-partners", "annotate", "--overwrite", "pconn", PARTNER, &annotation]);
    wait(&format!("the {what} to end"), LIMIT, || replica()[key] != before);
    replica()
}

fn number(rows: &[String]) -> i64 {
    rows.first().and_then(|row| row.parse().ok()).unwrap_or_else(|| panic!("one number, not {rows:?}"))
}

fn wait_signed(kind: &str, partner: &str, more_than: i64) {
    wait(&format!("a signed {kind}"), LIMIT, || {
        number(&hub(&format!(
            "SELECT count(*) FROM liaison.statement WHERE kind = '{kind}' AND partner = '{partner}' AND signature IS NOT NULL"
        ))) > more_than
    });
}

fn signed(kind: &str, partner: &str) -> i64 {
    number(&hub(&format!(
        "SELECT count(*) FROM liaison.statement WHERE kind = '{kind}' AND partner = '{partner}' AND signature IS NOT NULL"
    )))
}

fn search(partner: &Partner) -> (u16, Value) {
    partner.post("/api/search", "Apprehension", &json!({"bornFrom": "1900-01-01", "pageSize": 1}))
}

/// `liaison-sync` in the cluster, with the rights of the process that syncs.
fn sync(args: &[&str]) -> String {
    let mut all = vec!["-n", "liaison-system", "exec", "deploy/liaison-sync", "--", "liaison-sync"];
    all.extend_from_slice(args);
    kubectl(&all)
}

#[test]
fn t60_a_verification_on_demand_is_attested_and_what_was_spoiled_is_mended_and_said() {
    let attested = signed("attestation", PARTNER);
    let clean = ask("verify");
    assert_eq!(clean["mismatches"].as_i64().unwrap_or_default(), 0, "{clean}");
    assert_eq!(condition(PARTNER, "Verified").0, "True");
    wait_signed("attestation", PARTNER, attested);
    let said = hub(&format!(
        "SELECT statement FROM liaison.statement WHERE kind = 'attestation' AND partner = '{PARTNER}' ORDER BY number DESC LIMIT 1"
    ));
    let said: Value = serde_json::from_str(&said[0]).unwrap();
    assert_eq!((&said["root"], &said["records"], &said["mismatches"]), (&clean["root"], &clean["records"], &json!(0)));

    // Somebody writes to the store: one body changed, one record gone.
    let spoiled = "(SELECT offender FROM {s}.subject ORDER BY 1 LIMIT 1)".replace("{s}", SHARE);
    let digest = format!(
        "SELECT md5(string_agg(tbl || id || body, ',' ORDER BY tbl, id)) FROM {SHARE}.record WHERE offender = {spoiled}"
    );
    let file = number(&store(&format!("SELECT {spoiled}")));
    let before = store(&digest);
    store(&format!(
        "UPDATE {SHARE}.record SET body = replace(body, '\"surname\"', '\"surmane\"') WHERE tbl = 'offender' AND offender = {file};
         DELETE FROM {SHARE}.record WHERE (tbl, id) IN
            (SELECT tbl, id FROM {SHARE}.record WHERE offender = {file} AND tbl <> 'offender' ORDER BY 1, 2 LIMIT 1)"
    ));
    assert_ne!(store(&digest), before);
    let mended = ask("verify");
    assert_eq!(store(&digest), before, "as it was");
    assert_eq!(mended["mismatches"].as_i64(), Some(1), "one file: {mended}");
    wait("the condition", LIMIT, || condition(PARTNER, "Verified").1 == "RootMismatch");
    let repair = hub(&format!(
        "SELECT offender FROM liaison.ledger_entry JOIN liaison.ledger_batch b USING (partner, batch)
         WHERE b.partner = '{PARTNER}' AND b.kind = 'repair' AND b.state <> 'void' ORDER BY batch DESC LIMIT 1"
    ));
    assert_eq!(number(&repair), file, "the ledger names the file that crossed again");
    wait("the event", LIMIT, || {
        let events = kubectl(&["-n", "liaison-partners", "get", "events", "-o", "json"]);
        let events: Value = serde_json::from_str(&events).unwrap();
        events["items"].as_array().unwrap().iter().any(|event| {
            let of = event["involvedObject"]["name"].as_str().or(event["regarding"]["name"].as_str());
            event["reason"] == "RootMismatch" && of == Some(PARTNER)
        })
    });
    let scraped =
        kubectl(&["get", "--raw", &format!("/api/v1/namespaces/liaison-system/pods/{}:8080/proxy/metrics", pod())]);
    let counted = scraped
        .lines()
        .find(|line| line.starts_with(&format!("liaison_sync_root_mismatches_total{{partner=\"{PARTNER}\"}}")));
    assert!(counted.is_some_and(|line| !line.ends_with(" 0")), "{counted:?}");
    // A clean one turns the condition back.
    assert_eq!(ask("verify")["mismatches"].as_i64().unwrap_or_default(), 0);
    wait("the condition", LIMIT, || condition(PARTNER, "Verified").0 == "True");
}

/// The process that syncs.
fn pod() -> String {
    kubectl(&[
        "-n",
        "liaison-system",
        "get",
        "pods",
        "-l",
        "app.kubernetes.io/name=sync",
        "--field-selector=status.phase=Running",
        "-o",
        "jsonpath={.items[?(@.metadata.ownerReferences[0].kind=='ReplicaSet')].metadata.name}",
    ])
}

#[test]
fn t61_a_replica_is_made_anew_while_officers_read_it() {
    let vancouver = Partner::up(PARTNER);
    let (status, before) = search(&vancouver);
    assert_eq!(status, 200, "{before}");
    let oid = || store(&format!("SELECT '{SHARE}.record'::regclass::oid"));
    let (first, asked) = (oid(), std::sync::atomic::AtomicBool::new(true));
    let reads = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0;
            while asked.load(std::sync::atomic::Ordering::Relaxed) {
                let (status, body) = search(&vancouver);
                assert_eq!((status, &body["total"]), (200, &before["total"]), "after {reads} reads: {body}");
                reads += 1;
            }
            reads
        });
        let done = std::panic::catch_unwind(|| ask("rebuild"));
        asked.store(false, std::sync::atomic::Ordering::Relaxed);
        let reads = reader.join().unwrap();
        let done = done.unwrap();
        assert_eq!(done["mismatches"].as_i64().unwrap_or_default(), 0, "{done}");
        reads
    });
    assert!(reads > 3, "{reads} reads meanwhile");
    assert_ne!(oid(), first, "other tables under the same name");
    assert_eq!(store("SELECT count(*) FROM pg_namespace WHERE nspname ~ '^(next|old)_'"), ["0"]);
    assert_eq!(condition(PARTNER, "Verified").0, "True");
}

#[test]
fn t62_what_is_gone_leaves_a_certificate_that_verifies_offline() {
    let before = signed("disposal", LEAVER);
    let held = number(&store("SELECT count(*) FROM share_victoria_police.subject"));
    kubectl(&[
        "-n",
        "liaison-partners",
        "patch",
        "pconn",
        LEAVER,
        "--type=merge",
        "-p",
        r#"{"spec":{"deletionPolicy":"Delete"}}"#,
    ]);
    kubectl(&["-n", "liaison-partners", "delete", "pconn", LEAVER, "--timeout=120s"]);
    assert_eq!(store("SELECT count(*) FROM pg_namespace WHERE nspname LIKE '%victoria_police'"), ["0"]);
    wait_signed("disposal", LEAVER, before);
    let said = hub(&format!(
        "SELECT statement FROM liaison.statement WHERE kind = 'disposal' AND partner = '{LEAVER}' ORDER BY number DESC LIMIT 1"
    ));
    let said: Value = serde_json::from_str(&said[0]).unwrap();
    assert_eq!(said["files"], json!(held), "{said}");

    // The commands of docs/ledger.md: the export is taken away, and verified where there is neither hub nor key.
    let directory = std::env::temp_dir().join(format!("liaison-t6-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let (file, root_file) = (directory.join("victoria-police.jsonl"), directory.join("ca.pem"));
    // The root file system of the pod is read-only.
    let there = format!("/dev/shm/t6-{}.jsonl", std::process::id());
    sync(&["ledger", "export", "--partner", LEAVER, "--to", &there]);
    let line = kubectl(&["-n", "liaison-system", "exec", "deploy/liaison-sync", "--", "cat", &there]);
    fs::write(&file, line).unwrap();
    kubectl(&["-n", "liaison-system", "exec", "deploy/liaison-sync", "--", "rm", &there]);
    let connection = get("liaison-partners", "partnerconnection", PARTNER).unwrap();
    fs::write(&root_file, connection["status"]["connection"]["caBundle"].as_str().unwrap()).unwrap();
    let program = target().join("liaison-sync");
    let verify = |file: &std::path::Path| {
        let (file, root_file) = (file.to_str().unwrap(), root_file.to_str().unwrap());
        run(program.to_str().unwrap(), &["ledger", "verify", file, "--partner", LEAVER, "--root", root_file], None)
    };
    let out = verify(&file);
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success() && text.contains("whole") && !text.contains(" 0 signed"), "{text}");
    // A certificate that says one file less is found out.
    let forged = directory.join("forged.jsonl");
    let text = fs::read_to_string(&file).unwrap();
    let other = text.replace(&format!("\\\"files\\\":{held},"), &format!("\\\"files\\\":{},", held - 1));
    assert_ne!(text, other);
    fs::write(&forged, other).unwrap();
    let out = verify(&forged);
    assert!(!out.status.success() && String::from_utf8_lossy(&out.stdout).contains("NOT WHOLE"));
    fs::remove_dir_all(&directory).unwrap();

    output("tests/demo/up", &["partners"], None);
    wait_ready(LEAVER);
    wait("the replica to be whole again", LIMIT, || {
        number(&store("SELECT count(*) FROM share_victoria_police.subject")) == held
    });
}

/// Where this test's own build has its programs.
fn target() -> std::path::PathBuf {
    let own = std::env::current_exe().unwrap();
    let debug = own.parent().and_then(std::path::Path::parent).unwrap().to_owned();
    if !debug.join("liaison-sync").exists() {
        output(
            "cargo",
            &[
                "build",
                "--locked",
                "--workspace",
                "--bins",
                "--manifest-path",
                root().join("Cargo.toml").to_str().unwrap(),
            ],
            None,
        );
    }
    debug
}
