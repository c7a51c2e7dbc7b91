use std::{collections::BTreeMap, time::Duration};

use super::*;
use crate::state::{Candidate, Enrolment, Slot, Validity, WireGuardKey};

const NOW: &str = "2026-01-15T12:00:00Z";

fn partner(name: &str, slot: u32, leaf: &[u8]) -> Partner {
    let v4 = format!("100.72.0.{}", 2 * slot).parse().unwrap();
    let v6 = format!("fd4c::{:x}", 2 * slot).parse().unwrap();
    let validity = Validity {
        not_before: "2026-01-01T00:00:00Z".parse().unwrap(),
        not_after: "2026-01-31T00:00:00Z".parse().unwrap(),
    };
    Partner {
        name: name.parse().unwrap(),
        server_name: format!("{name}.liaison.example.ca"),
        slot: Slot::new(v4, v6).unwrap(),
        keys: vec![WireGuardKey([u8::try_from(slot).unwrap(); 32])],
        preshared: std::collections::BTreeSet::new(),
        elsewhere: std::collections::BTreeSet::new(),
        leaves: BTreeMap::from([(Fingerprint::of(leaf), validity)]),
        // The second partner may not.
        enrolment: (slot == 1).then(Enrolment::default),
        authorized_until: "2026-06-01T00:00:00Z".parse().unwrap(),
    }
}

fn now() -> Now {
    Now { wall: NOW.parse().unwrap(), mono: Instant::now() }
}

fn view() -> View {
    let partners = [partner("a", 1, b"leaf a"), partner("b", 2, b"leaf b")];
    let candidate = |partner| Candidate { gateway: "gateway".into(), partner: Ok(partner) };
    let candidates = partners.into_iter().map(|p| (p.name.clone(), candidate(p))).collect();
    let table = Arc::new(Table::build(&candidates, &"gateway".parse().unwrap(), NOW.parse().unwrap()));
    View { table, heard_until: Some(Instant::now() + Duration::from_mins(15)) }
}

/// A request of partner a where everything agrees.
fn good() -> Facts<'static> {
    Facts {
        local: "100.72.0.2".parse().unwrap(),
        remote: "100.72.0.3".parse().unwrap(),
        stage: Stage::Request {
            leaf: Some(Fingerprint::of(b"leaf a")),
            sni: Some("a.liaison.example.ca"),
            host: Some("a.liaison.example.ca"),
        },
    }
}

fn refusal(facts: Facts<'_>) -> Option<Refusal> {
    authorise(&facts, &view(), now()).err()
}

fn request<'a>(leaf: Option<&[u8]>, sni: Option<&'a str>, host: Option<&'a str>) -> Facts<'a> {
    Facts { stage: Stage::Request { leaf: leaf.map(Fingerprint::of), sni, host }, ..good() }
}

#[test]
fn lets_in_what_agrees() {
    let name = Some("a.liaison.example.ca");
    assert_eq!(authorise(&good(), &view(), now()).unwrap().name.as_str(), "a");
    let six = Facts { local: "fd4c::2".parse().unwrap(), remote: "fd4c::3".parse().unwrap(), ..good() };
    assert_eq!(refusal(six), None);
    assert_eq!(refusal(request(Some(b"leaf a"), name, Some("A.Liaison.example.ca:443"))), None);
    let stage = Stage::Accepted { leaf: Some(Fingerprint::of(b"leaf a")), sni: name };
    assert_eq!(refusal(Facts { stage, ..good() }), None);
    assert_eq!(refusal(Facts { stage: Stage::Opened, ..good() }), None);
}

#[test]
fn each_fact_alone_refuses() {
    let name = Some("a.liaison.example.ca");
    let local = |a: &str| Facts { local: a.parse().unwrap(), ..good() };
    let remote = |a: &str| Facts { remote: a.parse().unwrap(), ..good() };
    assert_eq!(refusal(local("100.72.0.6")), Some(Refusal::UnknownAddress));
    assert_eq!(refusal(local("10.244.0.17")), Some(Refusal::UnknownAddress));
    assert_eq!(refusal(local("100.72.0.4")), Some(Refusal::WrongSource), "a's tunnel to b's address");
    assert_eq!(refusal(remote("100.72.0.5")), Some(Refusal::WrongSource), "b's tunnel to a's address");
    assert_eq!(refusal(remote("100.72.0.2")), Some(Refusal::WrongSource), "the gateway itself");
    assert_eq!(refusal(remote("fd4c::3")), Some(Refusal::WrongSource), "the other family");
    assert_eq!(refusal(request(None, name, name)), Some(Refusal::NoCertificate));
    assert_eq!(refusal(request(Some(b"leaf b"), name, name)), Some(Refusal::UnknownCertificate), "b's certificate");
    assert_eq!(refusal(request(Some(b"leaf x"), name, name)), Some(Refusal::UnknownCertificate));
    let other = Some("b.liaison.example.ca");
    assert_eq!(refusal(request(Some(b"leaf a"), other, name)), Some(Refusal::WrongServerName));
    assert_eq!(refusal(request(Some(b"leaf a"), None, name)), Some(Refusal::WrongServerName));
    for host in [other, None, Some("a.liaison.example.ca:8443"), Some("a.liaison.example.ca."), Some("")] {
        assert_eq!(refusal(request(Some(b"leaf a"), name, host)), Some(Refusal::WrongHost), "{host:?}");
    }
}

#[test]
fn who_enrols_needs_no_leaf_but_no_wrong_one_and_all_else() {
    let name = Some("a.liaison.example.ca");
    let stage = |leaf: Option<&[u8]>, sni| Stage::Enrolling { leaf: leaf.map(Fingerprint::of), sni };
    let refusal = |stage| refusal(Facts { stage, ..good() });
    assert_eq!(refusal(stage(None, name)), None);
    assert_eq!(refusal(stage(Some(b"leaf a"), name)), None);
    assert_eq!(refusal(stage(Some(b"leaf b"), name)), Some(Refusal::UnknownCertificate));
    assert_eq!(refusal(stage(None, None)), Some(Refusal::WrongServerName));
    assert_eq!(refusal(stage(None, Some("b.liaison.example.ca"))), Some(Refusal::WrongServerName));
    let b = Facts {
        local: "100.72.0.4".parse().unwrap(),
        remote: "100.72.0.5".parse().unwrap(),
        stage: stage(Some(b"leaf b"), Some("b.liaison.example.ca")),
    };
    assert_eq!(super::tests::refusal(b), Some(Refusal::NoEnrolment));
    let stolen = Facts { local: "100.72.0.2".parse().unwrap(), ..b };
    assert_eq!(super::tests::refusal(stolen), Some(Refusal::WrongSource));
}

#[test]
fn time_alone_refuses() {
    let view = view();
    let at =
        |wall: &str, seconds| Now { wall: wall.parse().unwrap(), mono: Instant::now() + Duration::from_secs(seconds) };
    let refusal = |now| authorise(&good(), &view, now).err();
    assert_eq!(refusal(at("2026-06-01T00:00:00Z", 0)), Some(Refusal::Ended));
    assert_eq!(refusal(at("2026-01-31T00:00:01Z", 0)), Some(Refusal::CertificateExpired));
    assert_eq!(refusal(at("2025-12-31T23:59:59Z", 0)), Some(Refusal::CertificateExpired));
    assert_eq!(refusal(at(NOW, 899)), None);
    assert_eq!(refusal(at(NOW, 901)), Some(Refusal::Stale));
    let unheard = View { heard_until: None, ..view.clone() };
    assert_eq!(authorise(&good(), &unheard, now()).err(), Some(Refusal::Stale));
}
