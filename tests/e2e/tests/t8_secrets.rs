//! What is in a Secret is in Secrets alone: no other object, event, status, log or metric says it (I10).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use base64::{Engine as _, engine::general_purpose::STANDARD};
use liaison_e2e::{kubectl, output, run};
use serde_json::Value;

const NAMESPACES: [&str; 3] = ["liaison-system", "liaison-gateway", "liaison-partners"];

/// How the names of entries end that are for all to see, and that of Helm's own.
const PUBLIC: [&str; 4] = [".crt", "publicKey", "PublicKey", "release"];

fn list(kind: &str, namespace: &str) -> Vec<Value> {
    let text = kubectl(&["-n", namespace, "get", kind, "-o", "json"]);
    let list: Value = serde_json::from_str(&text).unwrap();
    list["items"].as_array().unwrap().clone()
}

/// A value that nobody may say: where it stands, and the forms in which it could be said.
struct Canary {
    place: String,
    forms: Vec<Vec<u8>>,
}

/// What of a Secret's entry is secret. Certificates and names are for all to see.
fn canaries(place: &str, value: &[u8]) -> Vec<Canary> {
    let text = String::from_utf8_lossy(value);
    // Of a private key in PEM its first line of base64, which is its own; of a file of several lines each that is long.
    let mut public = false;
    let mut found = Vec::new();
    for line in text.lines() {
        public = if line.starts_with("-----BEGIN") { !line.contains("PRIVATE") } else { public };
        let words = line.split(|c: char| c.is_whitespace() || "=\"',:@".contains(c)).filter(|word| word.len() >= 24);
        let random =
            |word: &&str| word.chars().any(|c| c.is_ascii_digit()) && word.chars().any(|c| c.is_ascii_alphabetic());
        if !public && !line.starts_with("-----") {
            found.extend(words.filter(random).map(|word| word.as_bytes().to_vec()));
        }
    }
    if found.is_empty() && std::str::from_utf8(value).is_err() {
        found.push(value.to_vec());
    }
    let canary = |bytes: Vec<u8>| {
        let forms = vec![STANDARD.encode(&bytes).into_bytes(), bytes];
        Canary { place: place.to_owned(), forms }
    };
    found.into_iter().map(canary).collect()
}

/// The canaries of all Secrets, but for what is public by its name.
fn all_canaries() -> Vec<Canary> {
    let mut all = Vec::new();
    for namespace in NAMESPACES {
        for secret in list("secrets", namespace) {
            let name = secret["metadata"]["name"].as_str().unwrap();
            for (entry, value) in secret["data"].as_object().into_iter().flatten() {
                let value = STANDARD.decode(value.as_str().unwrap()).unwrap();
                if !PUBLIC.iter().any(|end| entry.ends_with(end)) {
                    all.extend(canaries(&format!("{namespace}/{name}/{entry}"), &value));
                }
            }
        }
    }
    all
}

#[test]
fn t80_what_is_in_a_secret_is_said_nowhere_else() {
    let all = all_canaries();
    let places: std::collections::BTreeSet<&str> = all.iter().map(|canary| canary.place.as_str()).collect();
    println!("{} values of {} entries: {places:#?}", all.len(), places.len());
    for kind in ["/gateway-wireguard/", "/gateway-tls/tls.key", "/gateway-client-tls/tls.key"] {
        assert!(places.iter().any(|place| place.contains(kind)), "{kind} is looked for");
    }
    let search = |what: &str, bytes: &[u8]| {
        for canary in &all {
            let said = canary.forms.iter().any(|form| memchr::memmem::find(bytes, form).is_some());
            assert!(!said, "{what} says what is in {}", canary.place);
        }
    };
    // Of every kind, events and statuses among them.
    for kind in kubectl(&["api-resources", "--verbs=list", "-o", "name"]).lines().filter(|kind| *kind != "secrets") {
        search(kind, &run("kubectl", &["get", kind, "--all-namespaces", "-o", "json"], None).stdout);
    }
    let (mut logs, mut metrics) = (0, 0);
    for namespace in NAMESPACES {
        for pod in list("pods", namespace) {
            let name = pod["metadata"]["name"].as_str().unwrap();
            for previous in ["--previous=false", "--previous"] {
                let log = run("kubectl", &["-n", namespace, "logs", name, "--all-containers", previous], None).stdout;
                logs += log.len();
                search(&format!("the log of {name}"), &log);
            }
            let ports = pod["spec"]["containers"]
                .as_array()
                .unwrap()
                .iter()
                .flat_map(|c| c["ports"].as_array().into_iter().flatten());
            if pod["status"]["phase"] == "Running" && ports.into_iter().any(|port| port["name"] == "health") {
                let path = format!("/api/v1/namespaces/{namespace}/pods/{name}:8080/proxy/metrics");
                let said = output("kubectl", &["get", "--raw", &path], None);
                assert!(said.contains("# TYPE "), "{name} has no metrics:\n{said}");
                metrics += 1;
                search(&format!("the metrics of {name}"), said.as_bytes());
            }
        }
    }
    assert!(logs > 0 && metrics > 4, "{logs} bytes of logs, metrics of {metrics} pods");
    println!("{} KiB of logs and the metrics of {metrics} pods searched", logs >> 10);
}
