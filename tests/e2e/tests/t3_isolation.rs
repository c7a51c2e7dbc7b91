//! Who gets nothing: every crossing between partners, and every way round the gateway and the access log (I3, I4, I6).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs,
    os::unix::fs::FileExt as _,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use liaison_e2e::{Partner, condition, get, kubectl, output, run, store, wait, wait_ready};
use serde_json::json;

fn address(partner: &str, side: &str) -> String {
    let object = get("liaison-partners", "partnerconnection", partner).unwrap();
    object["status"]["connection"][side]["ipv4"].as_str().unwrap().to_owned()
}

/// Where `tests/demo/partner` keeps a partner's keys.
fn key_dir(partner: &str) -> String {
    output("tests/demo/partner", &["dir", partner], None).trim().to_owned()
}

#[test]
fn no_crossing_between_partners_gets_through() {
    let vancouver = Partner::up("vancouver-police");
    let victoria = Partner::up("victoria-police");
    let (a, b) = (vancouver.server_name(), victoria.server_name());
    let url = format!("https://{a}/api/terms");
    assert!(vancouver.curl(&["--fail", &url]).status.success(), "the honest request must work");

    let (dir_b, to_b) = (key_dir("victoria-police"), address("victoria-police", "gatewayAddresses"));
    let stolen = ["--cert".to_owned(), format!("{dir_b}/chain.pem"), "--key".to_owned(), format!("{dir_b}/tls.key")];
    let mut stolen: Vec<&str> = stolen.iter().map(String::as_str).collect();
    stolen.extend(["--fail", &url]);
    assert!(!vancouver.curl(&stolen).status.success(), "B's certificate through A's tunnel");
    assert!(
        !vancouver
            .curl(&[
                "--fail",
                "--resolve",
                &format!("{b}:443:{to_b}"),
                "--max-time",
                "5",
                &format!("https://{b}/api/terms")
            ])
            .status
            .success(),
        "A's tunnel to B's address"
    );
    assert!(
        !vancouver.curl(&["--fail", "-H", &format!("Host: {b}"), &url]).status.success(),
        "A's tunnel and certificate with B's Host"
    );
    let address_a = address("vancouver-police", "gatewayAddresses");
    assert!(
        !vancouver
            .curl(&["--fail", "--resolve", &format!("{b}:443:{address_a}"), &format!("https://{b}/api/terms")])
            .status
            .success(),
        "A's tunnel and certificate with B's SNI"
    );
    for (what, args) in [
        ("no certificate", vec!["bare", "vancouver-police", "--fail", "--max-time", "10", url.as_str()]),
        (
            "a certificate of another CA",
            vec!["foreign", "vancouver-police", "--fail", "--max-time", "10", url.as_str()],
        ),
    ] {
        assert!(!run("tests/demo/partner", &args, None).status.success(), "{what}");
    }
    let hairpin = address("victoria-police", "partnerAddresses");
    let out = vancouver.curl(&["--insecure", "--connect-timeout", "3", &format!("https://{hairpin}/")]);
    assert!(!out.status.success(), "A reaches B's own end of the tunnel");
}

/// What an HTTPS request from inside a pod of the cluster brings, with a key and chain or without: openssl in the pod of the
/// replica store, which is no gateway.
fn from_a_pod(address: &str, identity: Option<&str>) -> String {
    let script = format!(
        "set -e; cd $(mktemp -d -p /dev/shm); cat >id.pem; \
         {{ printf 'GET /api/terms HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n'; sleep 2; }} | \
         timeout 10 openssl s_client -quiet -connect {address} {} 2>&1 || true",
        if identity.is_some() { "-cert id.pem -cert_chain id.pem -key id.pem" } else { "" }
    );
    let pod = ["-n", "liaison-system", "exec", "-i", "store-0", "--", "bash", "-c", &script];
    output("kubectl", &pod, Some(identity.unwrap_or_default()))
}

#[test]
fn a_pod_cannot_call_infopol_directly() {
    let service = get("liaison-partners", "service", "infopol-vancouver-police").unwrap();
    let address = format!("{}:8443", service["spec"]["clusterIP"].as_str().unwrap());
    let dir = key_dir("vancouver-police");
    let file = |name: &str| std::fs::read_to_string(format!("{dir}/{name}")).unwrap();
    let own = file("chain.pem") + &file("tls.key");
    for (what, identity) in [("no certificate", None), ("the partner's own certificate", Some(own.as_str()))] {
        let said = from_a_pod(&address, identity);
        assert!(said.contains("alert"), "{what}: InfoPol did not refuse the connection itself:\n{said}");
        assert!(!said.contains("HTTP/1.1"), "{what}: InfoPol answered:\n{said}");
    }
}

#[test]
fn the_reader_role_reads_nothing_without_its_access_log_row() {
    let as_reader = |sql: &str| {
        run(
            "kubectl",
            &[
                "-n",
                "liaison-system",
                "exec",
                "-i",
                "store-0",
                "--",
                "psql",
                "-U",
                "postgres",
                "-d",
                "store",
                "-X",
                "-q",
                "-A",
                "-t",
                "-v",
                "ON_ERROR_STOP=1",
                "-f",
                "-",
            ],
            Some(&format!("SET SESSION AUTHORIZATION reader_vancouver_police;\n{sql}")),
        )
    };
    for sql in [
        "SELECT count(*) FROM share_vancouver_police.record",
        "SELECT count(*) FROM share_vancouver_police.subject",
        "SELECT count(*) FROM journal_vancouver_police.access_log",
        "INSERT INTO journal_vancouver_police.access_log DEFAULT VALUES",
        "SELECT * FROM journal_vancouver_police.read_file(1, 'x', '{\"file\": 1}')",
        "SELECT * FROM journal_victoria_police.terms()",
        "SELECT count(*) FROM share_victoria_police.record",
        "SET ROLE liaison_sync; SELECT 1",
    ] {
        let out = as_reader(sql);
        assert!(!out.status.success(), "the role could: {sql}\n{}", String::from_utf8_lossy(&out.stdout));
    }
    assert!(as_reader("SELECT * FROM journal_vancouver_police.terms()").status.success());
}

#[test]
fn revoking_ends_live_connections_and_only_new_keys_come_back() {
    let name = "victoria-police";
    let patch = |patch: &[&str]| {
        let mut all = vec!["-n", "liaison-partners", "patch", "pconn", name, "--type=merge"];
        all.extend_from_slice(patch);
        kubectl(&all);
    };
    let victoria = Partner::up(name);
    let url = format!("https://{}/api/terms", victoria.server_name());
    assert!(victoria.curl(&["--fail", &url]).status.success());
    patch(&["-p", r#"{"spec":{"revocation":{"revoked":true}}}"#]);
    let started = Instant::now();
    wait("the revoked partner to be refused", Duration::from_secs(20), || {
        !victoria.curl(&["--fail", "--max-time", "2", &url]).status.success()
    });
    eprintln!("refused {:?} after the patch", started.elapsed());
    wait("the gateway's word", Duration::from_secs(20), || {
        let object = get("liaison-partners", "partnerconnection", name).unwrap();
        object["status"]["gateways"][0]["revokedAt"].is_string()
    });
    wait_ready(name);

    // Taken back: the same keys are not taken again, and status says which and what to do.
    patch(&["-p", r#"{"spec":{"revocation":null}}"#]);
    wait("the refusal of revoked keys", Duration::from_secs(30), || {
        condition(name, "CredentialsReady").1 == "KeyRevoked"
    });
    assert!(!victoria.curl(&["--fail", "--max-time", "2", &url]).status.success());

    let keys = output("tests/demo/partner", &["rekey", name], None);
    patch(&["--patch-file", keys.trim()]);
    wait("new keys", Duration::from_secs(30), || condition(name, "CredentialsReady").1 == "Issued");
    wait_ready(name);
    drop(victoria);
    let victoria = Partner::up(name);
    wait("the partner to be served again", Duration::from_secs(60), || {
        victoria.curl(&["--fail", "--max-time", "5", &url]).status.success()
    });
}

#[test]
fn suspending_closes_and_reopening_catches_up() {
    let patch = |suspend: bool| {
        kubectl(&[
            "-n",
            "liaison-partners",
            "patch",
            "pconn",
            "victoria-police",
            "--type=merge",
            "-p",
            &json!({"spec": {"suspend": suspend}}).to_string(),
        ])
    };
    let victoria = Partner::up("victoria-police");
    let url = format!("https://{}/api/terms", victoria.server_name());
    patch(true);
    wait("the suspended partner to be refused", Duration::from_secs(20), || {
        !victoria.curl(&["--fail", "--max-time", "2", &url]).status.success()
    });
    wait_ready("victoria-police");
    assert_eq!(condition("victoria-police", "Ready").1, "Suspended");
    wait("the replica to know", Duration::from_secs(20), || {
        store("SELECT suspended FROM share_victoria_police.cursor") == ["t"]
    });
    patch(false);
    wait_ready("victoria-police");
    drop(victoria);
    let victoria = Partner::up("victoria-police");
    wait("the partner to be served again", Duration::from_secs(60), || {
        victoria.curl(&["--fail", "--max-time", "5", &url]).status.success()
    });
}

/// What a process has in its memory that it can write to, as a core dump would.
fn memory(pid: u32) -> Vec<u8> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let Ok(memory) = fs::File::open(format!("/proc/{pid}/mem")) else { return Vec::new() };
    let mut all = Vec::new();
    for line in maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|rights| rights.starts_with("rw"))) {
        let Some((from, to)) = line.split(' ').next().and_then(|range| range.split_once('-')) else { continue };
        let (Ok(from), Ok(to)) = (u64::from_str_radix(from, 16), u64::from_str_radix(to, 16)) else { continue };
        // A page at a time: what was never touched cannot be read.
        let mut page = vec![0; 4096];
        for at in (from..to).step_by(4096) {
            if memory.read_exact_at(&mut page, at).is_ok() {
                all.extend_from_slice(&page);
            }
        }
    }
    all
}

/// Processes of this machine, on which the cluster's run as well, by the name of their program.
fn processes(program: &str) -> Vec<u32> {
    let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    let is = |pid: &u32| {
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split('\0').next().is_some_and(|path| path.rsplit('/').next() == Some(program))
    };
    pids.filter(is).collect()
}

/// The forms in which a key may lie somewhere: as it stands in its file, and as bytes.
fn forms(partner: &str) -> Vec<Vec<u8>> {
    let dir = key_dir(partner);
    let wg = fs::read_to_string(format!("{dir}/wg.key")).unwrap().trim().to_owned();
    let pem = fs::read_to_string(format!("{dir}/tls.key")).unwrap();
    let body: Vec<&str> = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let der = run("openssl", &["pkey", "-in", &format!("{dir}/tls.key"), "-outform", "DER"], None).stdout;
    // The scalar of a P-256 key, after its version and the octet string's own header.
    let scalar = der.windows(2).position(|w| w == [0x04, 0x20]).map(|at| der[at + 2..at + 34].to_vec()).unwrap();
    let raw = STANDARD.decode(&wg).unwrap();
    vec![wg.into_bytes(), raw, body[0].as_bytes().to_vec(), scalar]
}

#[test]
fn a_partners_private_keys_are_nowhere_but_with_the_partner() {
    let vancouver = Partner::up("vancouver-police");
    assert!(vancouver.curl(&["--fail", &format!("https://{}/en", vancouver.server_name())]).status.success());
    let forms = forms("vancouver-police");
    let found = |bytes: &[u8]| forms.iter().any(|form| memchr::memmem::find(bytes, form).is_some());
    // That the search finds what is there: the partner's own WireGuard has its key.
    assert!(processes("wireguard-go").into_iter().any(|pid| found(&memory(pid))), "the search finds nothing at all");

    let mut seen = 0;
    for program in ["liaison-operator", "liaison-gateway", "liaison-sync", "liaison-infopol", "kube-apiserver", "etcd"]
    {
        let pids = processes(program);
        assert!(!pids.is_empty(), "{program} does not run on this machine");
        for pid in pids {
            let memory = memory(pid);
            seen += memory.len();
            assert!(!found(&memory), "{program} has a private key of a partner's in its memory");
        }
    }
    println!("{} MiB of memory searched", seen >> 20);
    // Every object of the API, of whatever kind, and every log.
    let kinds = kubectl(&["api-resources", "--verbs=list", "-o", "name"]);
    for kind in kinds.lines() {
        let objects = run("kubectl", &["get", kind, "--all-namespaces", "-o", "json"], None).stdout;
        let text = String::from_utf8_lossy(&objects);
        assert!(!found(&objects), "a {kind} has a private key of a partner's");
        // What is in a Secret is in base64.
        for word in text.split('"').filter(|word| word.len() >= 40 && !word.contains(' ')) {
            let inner = STANDARD.decode(word).unwrap_or_default();
            assert!(!found(&inner), "a {kind} has a private key of a partner's, in base64");
        }
    }
    for namespace in ["liaison-system", "liaison-gateway", "liaison-partners"] {
        for pod in kubectl(&["-n", namespace, "get", "pods", "-o", "name"]).lines() {
            let log = run("kubectl", &["-n", namespace, "logs", pod, "--all-containers"], None).stdout;
            assert!(!found(&log), "the log of {pod} has a private key of a partner's");
        }
    }
}
