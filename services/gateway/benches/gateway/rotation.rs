//! B: keys, preshared keys, leaves and the server's certificate change one after the other under load.

use std::{
    sync::{Arc, atomic::Ordering},
    thread::sleep,
    time::{Duration, Instant},
};

use liaison_gateway::state::public_key_sha256;
use serde_json::{Value, json};

use crate::{
    client::{Seen, Target, load},
    results::Results,
    support::{
        self, DOMAIN, eventually,
        gateway::public_key,
        partner::{Partner, size},
        world::{World, world},
    },
};

const CLIENTS: usize = 8;
/// Between two steps: longer than a client needs to notice.
const PAUSE: Duration = Duration::from_millis(1500);

/// A WireGuard key with its preshared key.
#[derive(Clone)]
struct Keys {
    private: String,
    shared: Option<String>,
}

impl Keys {
    fn public(&self) -> String {
        public_key(&self.private)
    }
}

/// The partner's object with these keys, in this order, and these leaves.
fn object(gateway: &str, a: &Partner, keys: &[&Keys], leaves: &[&support::ca::Leaf]) -> Value {
    let mut object = a.granted(gateway);
    let all: Vec<String> = keys.iter().map(|keys| keys.public()).collect();
    object["spec"]["credentials"]["wireGuard"]["publicKeys"] = json!(all);
    object["status"]["wireGuardKeys"] = json!(all);
    object["status"]["wireGuardKeysSeen"] = keys
        .iter()
        .map(|keys| json!({"publicKey": keys.public(), "firstSeen": "2020-01-01T00:00:00Z", "preshared": keys.shared.is_some()}))
        .collect();
    object["spec"]["credentials"]["certificate"]["signingRequests"] =
        leaves.iter().map(|leaf| json!(leaf.request)).collect();
    object["status"]["certificates"] = leaves
        .iter()
        .map(|leaf| {
            json!({
                "keyFirstSeen": "2020-01-01T00:00:00Z", "sha256": leaf.sha256,
                "publicKeySha256": public_key_sha256(&leaf.request).unwrap(), "chain": leaf.chain,
                "notBefore": "2020-01-01T00:00:00Z", "notAfter": "2200-01-01T00:00:00Z",
            })
        })
        .collect();
    object
}

/// Until so many requests were answered, in so many rounds at least.
pub fn measure(results: &mut Results, requests: usize, rounds: usize) {
    let World { mut a, b, mut gateway, ca } = world(&[]);
    let key = gateway.public_key.clone();
    let target = Target::of(&a);
    let seen = Arc::new(Seen::default());
    let mut current = Keys { private: a.private_key().to_owned(), shared: None };
    let mut leaves = [ca.client(&format!("spiffe://{DOMAIN}/partner/a"))];
    gateway.apply(&object(&key, &a, &[&current], &[&a.leaf, &leaves[0]]));
    target.change_leaf(&ca.material(&leaves[0]));
    let (mut open, file) = a.download(&["--http2", "-m", "3600"]);
    eventually("the open connection runs", Duration::from_secs(10), || size(&file) > 20_000);

    let loaded = Arc::clone(&seen);
    let (namespace, for_load) = (a.namespace.inside(), target.clone());
    let loading = std::thread::spawn(move || load(&namespace, &for_load, CLIENTS, &loaded));
    let (mut of_keys, mut of_shared, mut of_leaves, mut of_server) = (0_usize, 0_usize, 0_usize, 0_usize);
    let mut worst_open = Duration::ZERO;
    let started = Instant::now();
    while seen.answered.load(Ordering::Relaxed) < requests as u64 || of_server < rounds {
        // A WireGuard key: without a preshared key first, then each with one of its own.
        for shared in [of_keys > 0, true] {
            let shared = shared.then(|| support::run("wg", &["genpsk"]).trim().to_owned());
            let next = Keys { private: support::run("wg", &["genkey"]).trim().to_owned(), shared };
            let entries: Vec<(String, String)> =
                [&current, &next].into_iter().filter_map(|keys| Some((keys.public(), keys.shared.clone()?))).collect();
            let entries: Vec<(&str, &str)> = entries.iter().map(|(key, shared)| (&**key, &**shared)).collect();
            gateway.preshared(&entries);
            gateway.apply(&object(&key, &a, &[&current, &next], &[&a.leaf, &leaves[0]]));
            sleep(PAUSE);
            let before = size(&file);
            let changed = Instant::now();
            a.set_keys(&key, &next.private, next.shared.as_deref());
            eventually("the open connection goes on", Duration::from_secs(20), || size(&file) > before + 2_000);
            worst_open = worst_open.max(changed.elapsed());
            sleep(PAUSE);
            of_shared += usize::from(next.shared.is_some());
            of_keys += 1;
            current = next;
            gateway.apply(&object(&key, &a, &[&current], &[&a.leaf, &leaves[0]]));
        }
        assert!(open.0.try_wait().unwrap().is_none(), "the open connection ended");
        // The leaf: both are good until everybody has changed over.
        let next = ca.client(&format!("spiffe://{DOMAIN}/partner/a"));
        gateway.apply(&object(&key, &a, &[&current], &[&a.leaf, &leaves[0], &next]));
        sleep(PAUSE);
        target.change_leaf(&ca.material(&next));
        sleep(PAUSE);
        gateway.apply(&object(&key, &a, &[&current], &[&a.leaf, &next]));
        leaves[0] = next;
        of_leaves += 1;
        let server = ca.server(&[&format!("*.{DOMAIN}")], &format!("spiffe://{DOMAIN}/gateway"));
        gateway.server(ca.material(&server));
        of_server += 1;
        sleep(PAUSE);
        println!(
            "B: {} requests answered of at least {requests}, {of_keys} WireGuard keys, {of_shared} preshared keys, {of_leaves} leaves, \
             {of_server} server certificates; {} failed",
            seen.answered.load(Ordering::Relaxed),
            seen.failed.lock().unwrap().len(),
        );
    }
    let took = started.elapsed();
    seen.stop.store(true, Ordering::Relaxed);
    loading.join().unwrap();
    drop(b);
    let answered = seen.answered.load(Ordering::Relaxed);
    let failed = seen.failed.lock().unwrap();
    for error in failed.iter().take(5) {
        println!("B: failed: {error}");
    }
    let count = usize::try_from(answered).unwrap();
    results.add("B rotation, requests answered", answered as f64, "requests", count, None);
    results.add("B rotation, requests failed", failed.len() as f64, "requests", count, None);
    results.add("B rotation, longest request", seen.longest.load(Ordering::Relaxed) as f64 / 1e6, "s", count, None);
    results.add("B rotation, WireGuard keys changed", of_keys as f64, "keys", 1, None);
    results.add("B rotation, preshared keys changed", of_shared as f64, "keys", 1, None);
    results.add("B rotation, leaves changed", of_leaves as f64, "certificates", 1, None);
    results.add("B rotation, server certificates changed", of_server as f64, "certificates", 1, None);
    let longest = worst_open.as_secs_f64();
    results.add("B rotation, an open connection's longest pause", longest, "s", of_keys, None);
    results.add("B rotation, length", took.as_secs_f64(), "s", 1, None);
}
