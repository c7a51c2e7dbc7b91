//! What the whole-system tests share: the cluster, the hub, a partner on the far side of its tunnel.
//!
//! Everything is done as a user does it: `kubectl`, `psql` in the hub's pod, `curl` in the partner's network namespace
//! (through `tests/demo/partner`). Touches the cluster that `KUBECONFIG` names.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    io::Write as _,
    path::PathBuf,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

/// The partners of `examples/canada`.
pub const PARTNERS: [&str; 7] = [
    "bc-corrections",
    "quebec-corrections",
    "saskatchewan-corrections",
    "yukon-corrections",
    "vancouver-police",
    "victoria-police",
    "saskatoon-police",
];

/// The root of the checkout.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Runs a program with an optional standard input, from the root of the checkout.
pub fn run(program: &str, args: &[&str], input: Option<&str>) -> Output {
    let mut child = Command::new(program)
        .args(args)
        .current_dir(root())
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("cannot start {program}: {e}; is `eval \"$(make env)\"` done?"));
    if let Some(input) = input {
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    }
    child.wait_with_output().unwrap()
}

/// Standard output of a program that must succeed.
pub fn output(program: &str, args: &[&str], input: Option<&str>) -> String {
    let out = run(program, args, input);
    assert!(
        out.status.success(),
        "{program} {} failed:\n{}{}",
        args.join(" "),
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8(out.stdout).unwrap()
}

/// `kubectl` that must succeed.
pub fn kubectl(args: &[&str]) -> String {
    output("kubectl", args, None)
}

/// One object as JSON; `None` when it is not there.
pub fn get(namespace: &str, kind: &str, name: &str) -> Option<Value> {
    let out = kubectl(&["-n", namespace, "get", kind, name, "-o", "json", "--ignore-not-found"]);
    (!out.trim().is_empty()).then(|| serde_json::from_str(&out).unwrap())
}

/// Applies a manifest; the error text when it was refused.
pub fn apply(manifest: &str) -> Result<String, String> {
    let out = run("kubectl", &["apply", "-f", "-"], Some(manifest));
    if out.status.success() {
        Ok(String::from_utf8(out.stdout).unwrap())
    } else {
        Err(String::from_utf8(out.stderr).unwrap())
    }
}

/// A status condition of a PartnerConnection: (status, reason, message); empty strings when it is not there.
pub fn condition(partner: &str, kind: &str) -> (String, String, String) {
    let object = get("liaison-partners", "partnerconnection", partner).unwrap_or_default();
    object["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|c| c["type"] == kind)
        .map(|c| {
            let text = |key: &str| c[key].as_str().unwrap_or_default().to_owned();
            (text("status"), text("reason"), text("message"))
        })
        .unwrap_or_default()
}

/// Waits until `done` says so; panics with `what` when it never does.
pub fn wait(what: &str, limit: Duration, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < limit, "waited {limit:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// Waits until a partner is Ready for its latest generation.
pub fn wait_ready(partner: &str) {
    let out = run(
        "kubectl",
        &["-n", "liaison-partners", "wait", &format!("pconn/{partner}"), "--for=condition=Ready", "--timeout=300s"],
        None,
    );
    assert!(
        out.status.success(),
        "{partner} did not become Ready: {}\n{}",
        String::from_utf8_lossy(&out.stderr),
        kubectl(&["-n", "liaison-partners", "describe", "pconn", partner])
    );
}

/// `psql` as the superuser in a database pod's own container; rows of tab-separated fields.
fn psql(pod: &str, database: &str, sql: &str) -> Vec<String> {
    output(
        "kubectl",
        &[
            "-n",
            "liaison-system",
            "exec",
            "-i",
            pod,
            "--",
            "psql",
            "-U",
            "postgres",
            "-d",
            database,
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-F",
            "\t",
            "-f",
            "-",
        ],
        Some(sql),
    )
    .lines()
    .map(str::to_owned)
    .collect()
}

/// SQL on the hub.
pub fn hub(sql: &str) -> Vec<String> {
    psql("hub-0", "hub", sql)
}

/// SQL on the replica store.
pub fn store(sql: &str) -> Vec<String> {
    psql("store-0", "store", sql)
}

/// Runs `liaison-oms` as a Job in the cluster, with the hub's own credentials; panics when it fails.
pub fn oms(args: &[&str]) -> String {
    output("tests/demo/oms", args, None)
}

/// A partner on its own side of the tunnel.
pub struct Partner {
    name: String,
    server_name: String,
}

impl Partner {
    /// Brings the partner's tunnel up from what its connection's status says.
    pub fn up(name: &str) -> Self {
        output("tests/demo/partner", &["up", name], None);
        let object = get("liaison-partners", "partnerconnection", name).unwrap();
        let server_name = object["status"]["connection"]["serverName"].as_str().unwrap().to_owned();
        Self { name: name.to_owned(), server_name }
    }

    /// `curl` in the partner's network namespace, with its own certificate; whatever happens.
    pub fn curl(&self, args: &[&str]) -> Output {
        let mut all = vec!["curl", &self.name, "--silent", "--show-error", "--max-time", "30"];
        all.extend_from_slice(args);
        run("tests/demo/partner", &all, None)
    }

    /// POSTs JSON to InfoPol as an officer; HTTP status and body.
    pub fn post(&self, path: &str, purpose: &str, body: &Value) -> (u16, Value) {
        let url = format!("https://{}{path}", self.server_name());
        let out = self.curl(&[
            "-H",
            "Content-Type: application/json",
            "-H",
            "Officer-Id: VPD-1234",
            "-H",
            &format!("Purpose: {purpose}"),
            "--data",
            &body.to_string(),
            "-w",
            "\n%{http_code}",
            &url,
        ]);
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.success(), "curl for {}: {}", self.name, String::from_utf8_lossy(&out.stderr));
        let (body, status) = text.rsplit_once('\n').unwrap();
        (status.parse().unwrap(), serde_json::from_str(body).unwrap_or(Value::String(body.to_owned())))
    }

    /// The server name from the connection's status.
    pub fn server_name(&self) -> String {
        self.server_name.clone()
    }
}

impl Drop for Partner {
    fn drop(&mut self) {
        let _ = run("tests/demo/partner", &["down", &self.name], None);
    }
}
