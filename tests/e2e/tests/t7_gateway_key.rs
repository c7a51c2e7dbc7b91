//! The gateway's own WireGuard key changes while partners are served: who has not come over is served where it was, whoever comes over
//! is served at once, and the key before goes when nobody uses it any more (issue 5, point 3). Leaves the gateway on its other listener.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{JoinHandle, sleep},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use liaison_e2e::{Partner, get, kubectl, run, wait};
use serde_json::Value;

/// Of the two, one comes over later than the other.
const SOON: &str = "vancouver-police";
const LATE: &str = "victoria-police";
/// The operator looks at a rotation that waits every thirty seconds.
const LIMIT: Duration = Duration::from_secs(150);

fn told(partner: &str) -> Value {
    get("liaison-partners", "partnerconnection", partner).unwrap()["status"]["connection"].clone()
}

fn keys(partner: &str) -> Vec<String> {
    serde_json::from_value(told(partner)["gatewayPublicKeys"].clone()).unwrap()
}

fn annotate(what: &str) {
    let what = format!("federation.csc-scc.gc.ca/{what}");
    kubectl(&["-n", "liaison-system", "annotate", "--overwrite", "configmap", "liaison-authority", &what]);
}

/// Asks again and again, a new connection each time, in a tunnel that is up.
struct Asking {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    thread: JoinHandle<Vec<String>>,
}

impl Asking {
    fn begin(partner: &'static str, url: String) -> Self {
        let (stop, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&answered));
        let thread = std::thread::spawn(move || {
            let mut failed = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let out =
                    run("tests/demo/partner", &["curl", partner, "-sS", "--fail", "--max-time", "10", &url], None);
                if out.status.success() {
                    count.fetch_add(1, Ordering::Relaxed);
                } else {
                    failed.push(String::from_utf8_lossy(&out.stderr).into_owned());
                }
                sleep(Duration::from_millis(200));
            }
            failed
        });
        Self { stop, answered, thread }
    }

    fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        let failed = self.thread.join().unwrap();
        assert!(failed.is_empty(), "requests failed: {failed:?}");
        self.answered.load(Ordering::Relaxed)
    }
}

#[test]
fn t70_the_gateways_own_key_changes_and_nobody_notices_who_has_not_come_over() {
    let (soon, late) = (Partner::up(SOON), Partner::up(LATE));
    let url = |partner: &Partner| format!("https://{}/api/terms", partner.server_name());
    let served = |partner: &Partner| partner.curl(&["--fail", &url(partner)]).status.success();
    assert!(served(&soon) && served(&late));
    let before = told(SOON);
    let old = keys(SOON);
    assert_eq!(old.len(), 1, "{before}");

    // Others are not up, and would be waited for.
    let all = kubectl(&["-n", "liaison-partners", "get", "pconn", "-o", "jsonpath={.items[*].metadata.name}"]);
    let others: Vec<String> = all
        .split_whitespace()
        .filter(|name| ![SOON, LATE].contains(name))
        .map(|name| format!("partner/{name}"))
        .collect();
    annotate(&format!("rotate-without={}", others.join(",")));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let asking = Asking::begin(LATE, url(&late));
    annotate(&format!("rotate-gateway=t7-{now}"));
    wait("the partners to be told another key", LIMIT, || keys(SOON).len() == 2 && keys(LATE).len() == 2);
    let both = told(SOON);
    assert_eq!(keys(SOON)[1..], old[..], "{both}");
    assert_eq!(both["retiringEndpoint"], before["endpoint"], "{both}");
    assert_ne!(both["endpoint"], before["endpoint"], "{both}");
    assert!(served(&soon), "who has not come over is served");

    // One comes over, by the two lines that it is told, and the other is waited for.
    let soon = {
        drop(soon);
        Partner::up(SOON)
    };
    wait("the first to be served where it came over", Duration::from_secs(20), || served(&soon));
    sleep(Duration::from_secs(40));
    assert_eq!(keys(LATE).len(), 2, "the key before went while a partner used it");
    assert!(asking.end() > 20, "who has not come over asked all the time");
    let late = {
        drop(late);
        Partner::up(LATE)
    };
    wait("the other to be served where it came over", Duration::from_secs(20), || served(&late));
    wait("the key before to go", LIMIT, || keys(SOON).len() == 1 && keys(LATE).len() == 1);
    assert_ne!(keys(SOON), old);
    assert!(told(LATE)["retiringEndpoint"].is_null());
    assert!(served(&soon) && served(&late));
    annotate("rotate-without-");
}
