//! The program itself, in a network namespace: what it may do once it is up. Needs root and /dev/net/tun.

// Clippy takes only functions marked #[test] for tests.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{fs, process::Stdio, time::Duration};

use support::{Namespace, Process, eventually, gateway::AS_IN_ITS_POD, output};

const NET_ADMIN: &str = "0000000000001000";

/// A line of every thread's status, by thread.
fn of_each_thread(pid: u32, key: &str) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    tasks
        .filter_map(|task| fs::read_to_string(task.unwrap().path().join("status")).ok())
        .map(|status| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
            line.trim_start_matches(':').trim().to_owned()
        })
        .collect()
}

/// As root with every capability, and as in its pod, where nothing can be taken from the bounding set.
#[test]
fn once_up_it_has_net_admin_and_nothing_else() {
    once_up(&["setpriv"], NET_ADMIN);
    once_up(&[&["setpriv"][..], &AS_IN_ITS_POD].concat(), "0000000000001400");
}

fn once_up(under: &[&str], bounding: &str) {
    let namespace = Namespace::new("c");
    let directory = tempfile::TempDir::new().unwrap();
    let kubeconfig = directory.path().join("kubeconfig");
    // Nobody answers there: it waits for its keys, with all its threads.
    let text = "{apiVersion: v1, kind: Config, current-context: x, users: [{name: x, user: {}}], \
                contexts: [{name: x, context: {cluster: x, user: x}}], \
                clusters: [{name: x, cluster: {server: 'https://127.0.0.1:1'}}]}";
    fs::write(&kubeconfig, text).unwrap();
    let gateway = Process(
        namespace
            .command(under[0])
            .args(&under[1..])
            .arg(env!("CARGO_BIN_EXE_liaison-gateway"))
            .env("KUBECONFIG", &kubeconfig)
            .env("HEALTH_ADDR", "127.0.0.1:8080")
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap(),
    );
    let pid = gateway.0.id();
    eventually("it answers", Duration::from_secs(20), || {
        namespace
            .command("curl")
            .args(["-s", "-m", "2", "http://127.0.0.1:8080/healthz"])
            .output()
            .unwrap()
            .status
            .success()
    });
    let link = output("ip", &["-n", &namespace.0, "link", "show", "liaison0"]);
    assert!(link.status.success(), "the device is there");
    let threads = of_each_thread(pid, "CapEff");
    assert!(threads.len() > 1, "the runtime runs");
    assert!(of_each_thread(pid, "CapBnd").iter().all(|set| set == bounding), "{:?}", of_each_thread(pid, "CapBnd"));
    for key in ["CapEff", "CapPrm"] {
        assert!(of_each_thread(pid, key).iter().all(|set| set == NET_ADMIN), "{key}: {:?}", of_each_thread(pid, key));
    }
    for key in ["CapInh", "CapAmb"] {
        assert!(of_each_thread(pid, key).iter().all(|set| set.trim_matches('0').is_empty()), "{key}");
    }
    assert!(of_each_thread(pid, "NoNewPrivs").iter().all(|set| set == "1"));
}
