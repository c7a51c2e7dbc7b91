//! B: keys, preshared keys, leaves, the server's certificate and the CAs change one after the other under load.

use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    thread::sleep,
    time::{Duration, Instant},
};

use liaison_gateway::{state::public_key_sha256, tls::KeyMaterial};
use serde_json::{Value, json};

use crate::{
    client::{Seen, Target, load},
    results::Results,
    support::{
        self, DOMAIN, Process,
        ca::{Ca, Leaf},
        eventually,
        gateway::{Gateway, public_key},
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

/// How often each was changed.
#[derive(Debug, Default)]
struct Changed {
    keys: usize,
    shared: usize,
    leaves: usize,
    servers: usize,
    issuing: usize,
    roots: usize,
    /// The longest that an open connection stood still for a WireGuard key.
    pause: Duration,
}

/// A partner under load, and what is changed of it.
struct Rotation {
    a: Partner,
    gateway: Gateway,
    target: Target,
    ca: Arc<Ca>,
    keys: Keys,
    /// The leaf of the load; the partner's own is that of the open connection.
    leaf: Leaf,
    changed: Changed,
}

impl Rotation {
    /// Grants these keys, in this order, and these leaves.
    fn grant(&mut self, keys: &[&Keys], leaves: &[&Leaf]) {
        let object = object(&self.gateway.public_key, &self.a, keys, leaves);
        self.gateway.apply(&object);
    }

    /// Another WireGuard key, with or without a preshared key of its own.
    fn key(&mut self, shared: bool, open: &PathBuf) {
        let shared = shared.then(|| support::run("wg", &["genpsk"]).trim().to_owned());
        let (before, next) =
            (self.keys.clone(), Keys { private: support::run("wg", &["genkey"]).trim().to_owned(), shared });
        let entries: Vec<(String, String)> =
            [&before, &next].into_iter().filter_map(|keys| Some((keys.public(), keys.shared.clone()?))).collect();
        let entries: Vec<(&str, &str)> = entries.iter().map(|(key, shared)| (&**key, &**shared)).collect();
        self.gateway.preshared(&entries);
        let (leaf, own) = (self.leaf.clone(), self.a.leaf.clone());
        self.grant(&[&before, &next], &[&own, &leaf]);
        sleep(PAUSE);
        let received = size(open);
        let changed = Instant::now();
        self.a.set_keys(&self.gateway.public_key, &next.private, next.shared.as_deref());
        eventually("the open connection goes on", Duration::from_secs(20), || size(open) > received + 2_000);
        self.changed.pause = self.changed.pause.max(changed.elapsed());
        sleep(PAUSE);
        self.changed.shared += usize::from(next.shared.is_some());
        self.changed.keys += 1;
        self.keys = next;
        let keys = self.keys.clone();
        self.grant(&[&keys], &[&own, &leaf]);
    }

    /// Another leaf of a CA, for a partner with these roots: both are good until everybody has changed over.
    fn leaf(&mut self, ca: &Ca, roots: &str) {
        let next = ca.client(&format!("spiffe://{DOMAIN}/partner/a"));
        let (keys, own, before) = (self.keys.clone(), self.a.leaf.clone(), self.leaf.clone());
        self.grant(&[&keys], &[&own, &before, &next]);
        sleep(PAUSE);
        self.target.change_leaf(&next.trusting(roots));
        sleep(PAUSE);
        self.grant(&[&keys], &[&own, &next]);
        self.leaf = next;
        self.changed.leaves += 1;
    }

    /// Other certificates of the gateway and of InfoPol, by a CA, with these roots.
    fn servers(&mut self, ca: &Ca, roots: &str) {
        let identity = format!("spiffe://{DOMAIN}/gateway");
        let server = ca.server(&[&format!("*.{DOMAIN}")], &identity).trusting(roots);
        let infopols = ["a", "b"].map(|name| infopol(ca, name, roots));
        self.gateway.authority(infopols.into(), server, ca.client(&identity).trusting(roots));
        self.changed.servers += 1;
        sleep(PAUSE);
    }

    /// Another issuing CA: servers first, as the operator does it, then the partner.
    fn issuing(&mut self) {
        let next = Arc::new(self.ca.next_issuing());
        self.servers(&next, &next.root);
        self.leaf(&next, &next.root);
        self.ca = next;
        self.changed.issuing += 1;
    }

    /// Another root: everybody trusts both, then everybody is certified under the new one, then the old one goes. The partner, which is
    /// not waited for, has the old one alone until it comes for its new certificate.
    fn root(&mut self) {
        let before = Arc::clone(&self.ca);
        let next = before.next_root();
        let both = format!("{}{}", before.root, next.root);
        self.servers(&before, &both);
        self.servers(&next, &both);
        self.leaf(&next, &before.root);
        self.target.change_leaf(&self.leaf.trusting(&both));
        sleep(PAUSE);
        let next = Arc::new(next.alone());
        self.servers(&next, &next.root);
        self.leaf(&next, &next.root);
        self.ca = next;
        self.changed.roots += 1;
    }
}

fn infopol(ca: &Ca, name: &str, roots: &str) -> (String, KeyMaterial) {
    let host = format!("infopol-{name}.liaison-partners.svc");
    let leaf = ca.server(&[&host], &format!("spiffe://{DOMAIN}/infopol/{name}"));
    (host, leaf.trusting(roots))
}

/// The partner's object with these keys, in this order, and these leaves.
fn object(gateway: &str, a: &Partner, keys: &[&Keys], leaves: &[&Leaf]) -> Value {
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
    let World { a, b, gateway, ca } = world(&[]);
    let target = Target::of(&a);
    let seen = Arc::new(Seen::default());
    let keys = Keys { private: a.private_key().to_owned(), shared: None };
    let leaf = ca.client(&format!("spiffe://{DOMAIN}/partner/a"));
    let mut rotation = Rotation { a, gateway, target, ca: Arc::new(ca), keys, leaf, changed: Changed::default() };
    let (keys, own, leaf) = (rotation.keys.clone(), rotation.a.leaf.clone(), rotation.leaf.clone());
    rotation.grant(&[&keys], &[&own, &leaf]);
    rotation.target.change_leaf(&rotation.ca.material(&leaf));
    let (mut open, file): (Process, _) = rotation.a.download(&["--http2", "-m", "3600"]);
    eventually("the open connection runs", Duration::from_secs(10), || size(&file) > 20_000);

    let loaded = Arc::clone(&seen);
    let (namespace, for_load) = (rotation.a.namespace.inside(), rotation.target.clone());
    let loading = std::thread::spawn(move || load(&namespace, &for_load, CLIENTS, &loaded));
    let started = Instant::now();
    while seen.answered.load(Ordering::Relaxed) < requests as u64 || rotation.changed.roots < rounds {
        // Without a preshared key first, then each with one of its own.
        for shared in [rotation.changed.keys > 0, true] {
            rotation.key(shared, &file);
        }
        assert!(open.0.try_wait().unwrap().is_none(), "the open connection ended");
        let ca = Arc::clone(&rotation.ca);
        rotation.leaf(&ca, &ca.root);
        rotation.issuing();
        rotation.root();
        println!(
            "B: {} requests answered of at least {requests}, {} failed; {:?}",
            seen.answered.load(Ordering::Relaxed),
            seen.failed.lock().unwrap().len(),
            rotation.changed,
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
    let (count, changed) = (usize::try_from(answered).unwrap(), &rotation.changed);
    results.add("B rotation, requests answered", answered as f64, "requests", count, None);
    results.add("B rotation, requests failed", failed.len() as f64, "requests", count, None);
    results.add("B rotation, longest request", seen.longest.load(Ordering::Relaxed) as f64 / 1e6, "s", count, None);
    for (what, number, unit) in [
        ("WireGuard keys", changed.keys, "keys"),
        ("preshared keys", changed.shared, "keys"),
        ("leaves", changed.leaves, "certificates"),
        ("the servers' certificates", changed.servers, "times"),
        ("issuing CAs", changed.issuing, "certificates"),
        ("roots", changed.roots, "certificates"),
    ] {
        results.add(&format!("B rotation, {what} changed"), number as f64, unit, 1, None);
    }
    let longest = changed.pause.as_secs_f64();
    results.add("B rotation, an open connection's longest pause", longest, "s", changed.keys, None);
    results.add("B rotation, length", took.as_secs_f64(), "s", 1, None);
}
