//! Killed at any moment, deleted, uninstalled: the same end state, and nothing left over (I7, I8).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    thread,
    time::{Duration, Instant},
};

use liaison_e2e::{PARTNERS, hub, kubectl, output, run, store, wait, wait_ready};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::Value;

/// What the seven leave outside their own objects: schemas, roles, claims. But not the claims of revoked keys, which stay for
/// good (another test has revoked some), and not slots in quarantine, which only their partner gets.
fn footprint() -> Vec<String> {
    let mut all = store(
        "SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname ~ '^(share|journal|next)_'
         UNION ALL SELECT 'role ' || rolname FROM pg_roles WHERE rolname LIKE 'reader_%' ORDER BY 1",
    );
    let claims =
        kubectl(&["-n", "liaison-system", "get", "leases", "-l", "federation.csc-scc.gc.ca/partner", "-o", "json"]);
    let claims: Value = serde_json::from_str(&claims).unwrap();
    let kept = |lease: &Value| {
        let annotations = &lease["metadata"]["annotations"];
        ["federation.csc-scc.gc.ca/revoked", "federation.csc-scc.gc.ca/released"]
            .iter()
            .any(|a| annotations[a].is_string())
    };
    let of = |lease: &Value| {
        format!("claim {} {}", text(&lease["spec"]["holderIdentity"]), text(&lease["metadata"]["name"]))
    };
    let claims = claims["items"].as_array().unwrap().iter();
    let mut claims: Vec<String> = claims.filter(|lease| !kept(lease)).map(of).collect();
    claims.sort();
    all.extend(claims);
    all
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("nobody")
}

fn of_partners(footprint: &[String]) -> Vec<String> {
    let ours = |line: &&String| PARTNERS.iter().any(|p| line.contains(p) || line.contains(&p.replace('-', "_")));
    footprint.iter().filter(ours).cloned().collect()
}

fn delete_all() {
    for partner in PARTNERS {
        kubectl(&[
            "-n",
            "liaison-partners",
            "patch",
            "pconn",
            partner,
            "--type=merge",
            "-p",
            r#"{"spec":{"deletionPolicy":"Delete"}}"#,
        ]);
    }
    kubectl(&["-n", "liaison-partners", "delete", "pconn", "--all", "--timeout=120s"]);
}

fn apply_all() {
    output("tests/demo/up", &["partners"], None);
}

fn kill_one(rng: &mut StdRng) {
    let (namespace, label) = [
        ("liaison-system", "app.kubernetes.io/name=operator"),
        ("liaison-system", "app.kubernetes.io/name=sync"),
        ("liaison-gateway", "app.kubernetes.io/name=gateway"),
    ][rng.random_range(0..3)];
    let _ = run(
        "kubectl",
        &["-n", namespace, "delete", "pod", "-l", label, "--grace-period=0", "--force", "--wait=false"],
        None,
    );
}

#[test]
fn t40_killed_at_ten_random_moments_of_onboarding_ends_the_same() {
    let before = footprint();
    delete_all();
    assert_eq!(of_partners(&footprint()), Vec::<String>::new(), "deleting leaves something");
    let seed = 20_040_519;
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    apply_all();
    for _ in 0..10 {
        thread::sleep(Duration::from_millis(rng.random_range(200..6000)));
        kill_one(&mut rng);
    }
    for partner in PARTNERS {
        wait_ready(partner);
    }
    assert_eq!(footprint(), before, "the end state differs");
}

#[test]
fn t41_deleting_the_namespace_ends_within_a_minute_and_leaves_nothing() {
    let started = Instant::now();
    let out = run("kubectl", &["delete", "namespace", "liaison-partners", "--timeout=60s"], None);
    assert!(
        out.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&out.stderr),
        kubectl(&["-n", "liaison-partners", "get", "pconn", "-o", "yaml"])
    );
    println!("deleted in {:?}", started.elapsed());
    let claims: Vec<String> = footprint().into_iter().filter(|line| line.starts_with("claim")).collect();
    assert_eq!(claims, Vec::<String>::new());
    // Retain: the rows stay within the agreement's bound, with a due date on the hub, and nobody can log in to them.
    let due = hub("SELECT count(*) FROM liaison.disposal WHERE cause = 'deletion' AND due IS NOT NULL");
    assert_ne!(due, ["0"], "no due date was kept");
    let open = store("SELECT rolname FROM pg_roles WHERE rolname LIKE 'reader_%' AND rolcanlogin");
    assert_eq!(open, Vec::<String>::new());
    output("tests/demo/up", &["install"], None);
    apply_all();
    for partner in PARTNERS {
        wait_ready(partner);
    }
}

#[test]
fn t42_uninstalling_and_installing_again_loses_no_partner() {
    let before = footprint();
    output("helm", &["-n", "liaison-system", "uninstall", "liaison", "--wait"], None);
    for partner in PARTNERS {
        assert!(liaison_e2e::get("liaison-partners", "partnerconnection", partner).is_some(), "{partner} is lost");
    }
    output("tests/demo/up", &["install"], None);
    for partner in PARTNERS {
        wait_ready(partner);
    }
    wait("the databases to answer", Duration::from_secs(120), || {
        run(
            "kubectl",
            &[
                "-n",
                "liaison-system",
                "exec",
                "store-0",
                "--",
                "psql",
                "-U",
                "postgres",
                "-d",
                "store",
                "-c",
                "SELECT 1",
            ],
            None,
        )
        .status
        .success()
    });
    assert_eq!(footprint(), before);
}
