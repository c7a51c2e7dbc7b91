//! One shard of several: another's partners are refused, and one that moves is cut. Against wireguard-go and curl in network namespaces;
//! needs root and /dev/net/tun.

// Clippy takes only functions marked #[test] for tests.
#![allow(clippy::unwrap_used)]

mod support;

use std::{thread::sleep, time::Duration};

use liaison_records::trust::Report;
use serde_json::{Value, json};
use support::{
    eventually,
    partner::{Partner, size, still_coming},
    world::{World, refused, world},
};

/// Not a test: the gateway's process, started by the others in its network namespace.
#[test]
#[ignore = "started by the other tests"]
fn gateway_process() {
    support::gateway::child();
}

fn at(object: &Value, shard: &str) -> Value {
    let mut object = object.clone();
    object["status"]["connection"]["gateway"] = json!(shard);
    object
}

fn served(partner: &Partner) -> bool {
    partner.curl("/echo", &["-m", "2"]).status.success()
}

#[test]
fn another_shards_partner_is_refused_and_one_that_moves_is_cut() {
    // Whoever's status names no shard is the first's.
    let World { a, b, mut gateway, ca: _ca } = world(&[]);
    let open = a.granted(&gateway.public_key);
    let (_other, other) = b.download(&["--http2"]);
    let heard_of = |gateway: &support::gateway::Gateway| {
        let said: Report = serde_json::from_str(&gateway.http("trust").unwrap()).unwrap();
        said.wireguard.into_values().flatten().collect::<Vec<_>>()
    };
    eventually("it tells of both", Duration::from_secs(5), || heard_of(&gateway) == ["a", "b"]);

    let downloads = [a.download(&["--http1.1"]), a.download(&["--http2"])];
    eventually("the downloads run", Duration::from_secs(10), || downloads.iter().all(|(_, f)| size(f) > 20_000));
    let before = size(&other);
    gateway.apply(&at(&open, "gateway-east"));
    let took = still_coming(&downloads);
    assert!(took < Duration::from_millis(700), "bytes for {took:?}");
    assert!(size(&other) > before + 50_000, "b was disturbed");
    refused(&a.curl("/echo", &["-m", "1"]), "moved");
    a.configure(&gateway.public_key, support::gateway::PORT);
    sleep(Duration::from_millis(1500));
    assert_eq!(a.last_handshake(), 0, "a handshake with another shard");
    let addresses = gateway.show(&["addr", "show", "dev", "liaison0"]);
    assert!(!addresses.contains(&a.addresses().0) && addresses.contains(&b.addresses().0), "{addresses}");
    // It is neither open nor closed here, nobody is waited for on its account, and no figure of it is shown.
    let open_and_closed = ["open", "closed"].map(|kind| gateway.metric(&format!("liaison_gateway_partners_{kind}")));
    assert_eq!(open_and_closed, [1, 0]);
    assert_eq!(heard_of(&gateway), ["b"]);
    // What was counted of its requests stays.
    eventually("its series are gone", Duration::from_secs(5), || {
        let all = gateway.http("metrics").unwrap();
        let of_tunnels = all
            .lines()
            .filter(|line| ["wireguard", "connections"].iter().any(|what| line.contains(&format!("gateway_{what}"))));
        !of_tunnels.collect::<String>().contains("partner=\"a\"")
    });

    // It is revoked where it is, and every shard gives its word that it has no peer of it.
    let mut revoked = at(&open, "gateway-east");
    revoked["spec"]["revocation"] = json!({"revoked": true});
    revoked["metadata"]["generation"] = json!(5);
    gateway.apply(&revoked);
    eventually("it is acknowledged", Duration::from_secs(10), || !gateway.words().is_empty());
    let word = gateway.words().remove(0);
    assert_eq!(
        (&word["partner"], &word["word"]["name"], &word["word"]["generation"]),
        (&json!("a"), &json!("gateway"), &json!(5))
    );

    // Back, as if with keys that were claimed later.
    let mut back = at(&open, "gateway");
    back["status"]["gateways"] =
        json!([word["word"], {"name": "gateway-east", "revokedAt": word["word"]["revokedAt"]}]);
    back["status"]["wireGuardKeysSeen"][0]["firstSeen"] = json!("2199-01-01T00:00:00Z");
    back["status"]["certificates"][0]["keyFirstSeen"] = json!("2199-01-01T00:00:00Z");
    gateway.apply(&back);
    eventually("it is served again", Duration::from_secs(15), || served(&a));
}

#[test]
fn a_shard_serves_those_whose_status_names_it() {
    let ca = support::ca::Ca::new();
    let infopols = ["a", "b"].map(|name| support::world::infopol(&ca, name, name)).to_vec();
    let mut gateway = support::gateway::Gateway::start(&ca, infopols, &["--name=gateway-east"]);
    let mut a = Partner::new(&ca, "a", 1, Some(&gateway.namespace));
    let mut b = Partner::new(&ca, "b", 2, Some(&gateway.namespace));
    let (ours, theirs) = (at(&a.granted(&gateway.public_key), "gateway-east"), b.granted(&gateway.public_key));
    gateway.list(&[&ours, &theirs]);
    a.connect_default(&gateway.public_key);
    b.connect_default(&gateway.public_key);
    eventually("its own is served", Duration::from_secs(10), || served(&a));
    assert!(!served(&b), "one whose status names none is the first shard's");
    assert_eq!(b.last_handshake(), 0);
    gateway.apply(&at(&theirs, "gateway-east"));
    eventually("and once it names this one", Duration::from_secs(15), || served(&b));
}
