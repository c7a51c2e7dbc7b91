use serde_json::{Value, json};

use super::*;

fn key(n: u8) -> String {
    STANDARD.encode([n; 32])
}

/// A request, and a certificate on its key.
struct Asked {
    request: String,
    key: String,
    chain: String,
    sha256: String,
}

fn csr() -> Asked {
    let pair = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::default().serialize_request(&pair).unwrap().pem().unwrap();
    let key = public_key_sha256(&request).unwrap();
    let leaf = rcgen::CertificateParams::default().self_signed(&pair).unwrap();
    Asked { request, key, chain: leaf.pem(), sha256: Fingerprint::of(leaf.der()).to_string() }
}

fn fingerprints(partner: &Partner) -> Vec<String> {
    partner.leaves.keys().map(ToString::to_string).collect()
}

fn object(name: &str, slot: u32, keys: &[String], csr: &Asked) -> Value {
    json!({
        "apiVersion": "federation.csc-scc.gc.ca/v1alpha1",
        "kind": "PartnerConnection",
        "metadata": {"name": name, "namespace": "liaison-partners"},
        "spec": {
            "partner": {"type": "PoliceService", "jurisdiction": "CA-BC", "name": {"en": "A", "fr": "A"}, "timeZone": "America/Vancouver"},
            "agreementRef": {"name": "bc-2003"},
            "share": {"fieldGroups": ["identity"], "population": {"anyOf": [{"municipalities": ["5915022"]}]}},
            "credentials": {
                "keyCustody": "Partner",
                "wireGuard": {"publicKeys": keys},
                "certificate": {"signingRequests": [csr.request]},
            },
        },
        "status": {
            "observedGeneration": 1,
            "authorizedUntil": "2030-01-01T08:00:00Z",
            "connection": {
                "endpoint": "gateway.example:51820",
                "gatewayPublicKeys": [key(99)],
                "partnerAddresses": {"ipv4": format!("100.72.0.{}", 2 * slot + 1), "ipv6": format!("fd4c:6961:6973::{:x}", 2 * slot + 1)},
                "gatewayAddresses": {"ipv4": format!("100.72.0.{}", 2 * slot), "ipv6": format!("fd4c:6961:6973::{:x}", 2 * slot)},
                "serverName": format!("{name}.liaison.example.ca"),
                "caBundle": "",
            },
            "wireGuardKeys": keys,
            "certificates": [{
                "sha256": csr.sha256, "publicKeySha256": csr.key, "chain": csr.chain,
                "notBefore": "2026-01-01T00:00:00Z", "notAfter": "2026-01-31T00:00:00Z",
            }],
        },
    })
}

fn whole(object: &Value) -> Candidate {
    let object: PartnerConnection = serde_json::from_value(object.clone()).unwrap();
    candidate(&object, "liaison.example.ca", Floor::default())
}

fn read(object: &Value) -> Result<Partner, Closed> {
    whole(object).partner
}

#[test]
fn status_and_spec_together_open() {
    let csr = csr();
    let partner = read(&object("a", 2, &[key(1), key(2)], &csr)).unwrap();
    assert_eq!(partner.server_name, "a.liaison.example.ca");
    assert_eq!(partner.keys, [WireGuardKey([1; 32]), WireGuardKey([2; 32])]);
    assert_eq!(partner.slot.partner().map(|a| a.to_string()), ["100.72.0.5", "fd4c:6961:6973::5"]);
    assert_eq!(fingerprints(&partner), [csr.sha256]);
}

#[test]
fn spec_takes_away() {
    let csr = csr();
    let good = object("a", 2, &[key(1)], &csr);
    let with = |path: &str, value: Value| {
        let mut changed = good.clone();
        let (parent, last) = path.rsplit_once('/').unwrap();
        changed.pointer_mut(parent).unwrap()[last] = value;
        read(&changed)
    };
    assert_eq!(with("/spec/suspend", json!(true)), Err(Closed::Suspended));
    assert_eq!(with("/spec/revocation", json!({"revoked": true})), Err(Closed::Revoked));
    assert_eq!(with("/metadata/deletionTimestamp", json!("2026-01-01T00:00:00Z")), Err(Closed::Deleting));
    assert_eq!(with("/spec/credentials/wireGuard", json!({"publicKeys": [key(7)]})), Err(Closed::NoKey));
    let other = with("/spec/credentials/certificate", json!({"signingRequests": [self::csr().request]})).unwrap();
    assert!(other.leaves.is_empty(), "a request that is gone takes its certificate with it");
    let unreadable =
        with("/spec/credentials/certificate", json!({"signingRequests": ["garbage", csr.request]})).unwrap();
    assert_eq!(unreadable.leaves.len(), 1);
}

#[test]
fn what_was_enrolled_is_there_while_the_manifest_lets_it() {
    let csr = csr();
    let mut object = object("a", 2, &[key(1)], &csr);
    object["status"]["certificates"][0]["enrolledBy"] = json!("liaison-1");
    object["status"]["enrolment"] = json!({
        "tokenNumber": 2, "tokenDigest": "d", "issued": "2026-01-01T00:00:00Z", "notAfter": "2026-01-08T00:00:00Z",
    });
    // That a request of the manifest has the same key lends it nothing.
    let without = read(&object).unwrap();
    assert!(without.leaves.is_empty() && without.enrolment.is_none());
    let token = |object: &Value| read(object).unwrap().enrolment.unwrap().token.map(|token| token.digest);
    object["spec"]["credentials"]["certificate"] = json!({"enrolment": {}});
    assert_eq!((read(&object).unwrap().leaves.len(), token(&object)), (1, None), "renewal alone");
    object["spec"]["credentials"]["certificate"] = json!({"enrolment": {"tokenNumber": 1}});
    assert_eq!(token(&object), None, "another number");
    object["spec"]["credentials"]["certificate"] = json!({"enrolment": {"tokenNumber": 2}});
    assert_eq!(token(&object), Some("d".into()));
    // A token that is older than a revocation is revoked with the keys.
    object["spec"]["revocation"] = json!({"revoked": false, "notBefore": "2026-01-02T00:00:00Z"});
    object["status"]["wireGuardKeysSeen"] = json!([{"publicKey": key(1), "firstSeen": "2026-01-03T00:00:00Z"}]);
    object["status"]["certificates"][0]["keyFirstSeen"] = json!("2026-01-03T00:00:00Z");
    assert_eq!((read(&object).unwrap().leaves.len(), token(&object)), (1, None));
}

#[test]
fn keys_that_liaison_made_are_those_of_status_while_the_manifest_leaves_them_to_it() {
    let (csr, newer) = (csr(), csr());
    let mut object = object("a", 2, &[key(1), key(2)], &csr);
    object["spec"]["credentials"] =
        json!({"keyCustody": "Liaison", "wireGuard": {}, "certificate": {}, "recipients": ["age1"], "keyNumber": 2});
    object["status"]["custody"] = json!([
        {"number": 2, "publicKey": key(2), "signingRequest": newer.request},
        {"number": 1, "publicKey": key(1), "signingRequest": csr.request},
    ]);
    let open = read(&object).unwrap();
    assert_eq!((open.keys.len(), open.leaves.len()), (2, 1));
    // A number that is taken back takes its pair away; and so does custody.
    object["spec"]["credentials"]["keyNumber"] = json!(1);
    assert_eq!(read(&object).unwrap().keys, [WireGuardKey([1; 32])]);
    object["spec"]["credentials"]["keyCustody"] = json!("Partner");
    assert_eq!(read(&object), Err(Closed::NoKey));
}

#[test]
fn status_grants() {
    let csr = csr();
    let good = object("a", 2, &[key(1)], &csr);
    let without = |path: &str| {
        let mut changed = good.clone();
        let (parent, last) = path.rsplit_once('/').unwrap();
        changed.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(last);
        read(&changed)
    };
    assert_eq!(without("/status"), Err(Closed::NotAuthorized));
    assert_eq!(without("/status/authorizedUntil"), Err(Closed::NotAuthorized));
    assert_eq!(without("/status/connection"), Err(Closed::NoAddresses));
    assert_eq!(without("/status/wireGuardKeys"), Err(Closed::NoKey));
    assert!(without("/status/certificates").unwrap().leaves.is_empty());
    // A certificate that is another than its fingerprint says, or on another key than the request's, or none.
    let other = self::csr();
    for (path, value) in [
        ("/status/certificates/0/chain", other.chain.as_str()),
        ("/status/certificates/0/chain", ""),
        ("/status/certificates/0/sha256", &other.sha256),
        ("/status/connection/gatewayAddresses/ipv4", "100.72.0.5"),
        ("/status/connection/partnerAddresses/ipv4", "100.72.0.9"),
        ("/status/connection/partnerAddresses/ipv6", "nothing"),
        ("/status/certificates/0/sha256", "ab"),
    ] {
        let mut changed = good.clone();
        *changed.pointer_mut(path).unwrap() = json!(value);
        assert_eq!(read(&changed), Err(Closed::Malformed), "{path}");
    }
    let mut swapped = good.clone();
    for (field, value) in [("sha256", other.sha256), ("chain", other.chain)] {
        swapped["status"]["certificates"][0][field] = json!(value);
    }
    assert_eq!(read(&swapped), Err(Closed::Malformed), "whole, and on a key that the manifest does not name");
}

fn table_of(shard: &str, objects: &[Value], now: &str) -> Table {
    let candidates =
        objects.iter().map(|o| (o["metadata"]["name"].as_str().unwrap().parse().unwrap(), whole(o))).collect();
    Table::build(&candidates, &shard.parse().unwrap(), now.parse().unwrap())
}

fn table(objects: &[Value], now: &str) -> Table {
    table_of("gateway", objects, now)
}

#[test]
fn a_shard_grants_its_own_partners_and_knows_of_the_others_what_is_claimed_twice() {
    let now = "2026-01-02T00:00:00Z";
    let shard = |mut object: Value, name: &str| {
        object["status"]["connection"]["gateway"] = json!(name);
        object
    };
    let a = object("a", 2, &[key(1)], &csr());
    let b = shard(object("b", 3, &[key(2)], &csr()), "gateway");
    let c = shard(object("c", 4, &[key(3)], &csr()), "gateway-east");
    let mut d = c.clone();
    (d["metadata"]["name"], d["spec"]["suspend"]) = (json!("d"), json!(true));
    let all = [a.clone(), b.clone(), c.clone(), d];
    let names = |t: &Table| t.partners().keys().map(ToString::to_string).collect::<Vec<_>>();
    let first = table_of("gateway", &all, now);
    assert_eq!((names(&first), first.closed().len()), (vec!["a".to_owned(), "b".to_owned()], 0));
    assert!(first.at("100.72.0.8".parse().unwrap()).is_none());
    let east = table_of("gateway-east", &all, now);
    assert_eq!((names(&east), east.closed().len()), (vec!["c".to_owned()], 1));
    assert_eq!(table_of("gateway-west", &all, now), Table::default());
    // Status is wrong, and each shard sees it.
    let same_key = shard(object("e", 9, &[key(1)], &csr()), "gateway-east");
    assert_eq!(names(&table_of("gateway", &[a.clone(), b, same_key.clone()], now)), ["b"]);
    assert_eq!(names(&table_of("gateway-east", &[a, c, same_key], now)), ["c"]);
}

#[test]
fn an_agreement_ends_on_the_gateways_own_clock() {
    let good = object("a", 2, &[key(1)], &csr());
    assert_eq!(table(std::slice::from_ref(&good), "2030-01-01T07:59:59.999Z").partners().len(), 1);
    let ended = table(&[good], "2030-01-01T08:00:00Z");
    assert!(ended.partners().is_empty() && ended.at("100.72.0.4".parse().unwrap()).is_none());
    assert_eq!(ended.closed().values().collect::<Vec<_>>(), [&Closed::Ended]);
}

#[test]
fn what_two_claim_neither_gets() {
    let now = "2026-01-02T00:00:00Z";
    let a = object("a", 2, &[key(1)], &csr());
    let same_slot = object("b", 2, &[key(2)], &csr());
    let same_key = object("c", 3, &[key(1)], &csr());
    let fine = object("d", 4, &[key(4)], &csr());
    let names = |t: &Table| t.partners().keys().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(&table(&[a.clone(), same_slot.clone(), fine.clone()], now)), ["d"]);
    assert_eq!(names(&table(&[a.clone(), same_key, fine.clone()], now)), ["d"]);
    // One that is closed claims nothing.
    let mut suspended = same_slot;
    suspended["spec"]["suspend"] = json!(true);
    assert_eq!(names(&table(&[a, suspended, fine], now)), ["a", "d"]);
}

#[test]
fn a_date_takes_away_the_keys_and_leaves_that_are_older_and_leaves_the_others() {
    let (old, new) = (csr(), csr());
    let mut object = object("a", 2, &[key(1), key(2)], &old);
    object["spec"]["credentials"]["certificate"]["signingRequests"] = json!([old.request, new.request]);
    let leaf = object["status"]["certificates"][0].clone();
    let mut second = leaf.clone();
    for (field, value) in [("sha256", &new.sha256), ("publicKeySha256", &new.key), ("chain", &new.chain)] {
        second[field] = json!(value);
    }
    object["status"]["certificates"] = json!([leaf, second]);
    let all = read(&object).unwrap();
    assert_eq!((all.keys.len(), all.leaves.len()), (2, 2), "nobody revoked anything: no time is needed");

    object["status"]["wireGuardKeysSeen"] = json!([
        {"publicKey": key(1), "firstSeen": "2026-01-01T00:00:00Z"}, {"publicKey": key(2), "firstSeen": "2026-02-01T00:00:00Z"},
    ]);
    object["status"]["certificates"][0]["keyFirstSeen"] = json!("2026-01-01T00:00:00Z");
    object["status"]["certificates"][1]["keyFirstSeen"] = json!("2026-02-01T00:00:00Z");
    let assert_newer_only = |object: &Value| {
        let left = read(object).unwrap();
        assert_eq!(left.keys, [WireGuardKey([2; 32])]);
        assert_eq!(fingerprints(&left).join(" "), new.sha256);
    };
    let mut dated = object.clone();
    dated["spec"]["revocation"] = json!({"revoked": false, "notBefore": "2026-01-15T00:00:00Z"});
    assert_newer_only(&dated);
    // A certificate that was renewed since on the old key is as old as its key.
    dated["status"]["certificates"][0]["notBefore"] = json!("2026-01-20T00:00:00Z");
    assert_newer_only(&dated);
    // What was acknowledged, or is remembered, holds without spec.
    let mut acknowledged = object.clone();
    acknowledged["status"]["gateways"] = json!([{"name": "other", "revokedAt": "2026-01-15T00:00:00Z"}]);
    assert_newer_only(&acknowledged);
    let typed: PartnerConnection = serde_json::from_value(object.clone()).unwrap();
    let remembered = Floor::revoked_at("2026-01-15T00:00:00Z".parse().unwrap());
    assert_eq!(candidate(&typed, "liaison.example.ca", remembered).partner.unwrap().keys, [WireGuardKey([2; 32])]);
    // Unknown is refused.
    dated["status"]["wireGuardKeysSeen"] = json!([]);
    assert_eq!(read(&dated), Err(Closed::NoKey));
}
