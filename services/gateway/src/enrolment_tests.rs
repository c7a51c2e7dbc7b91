use std::collections::BTreeSet;

use serde_json::json;

use super::*;
use crate::state::{Enrolment, Slot, Token};

fn now() -> Timestamp {
    "2026-11-22T00:00:00Z".parse().unwrap()
}

fn partner(token: Option<Token>) -> Partner {
    Partner {
        name: "vancouver-police".parse().unwrap(),
        server_name: "vancouver-police.liaison.example.ca".into(),
        slot: Slot::new("100.72.0.4".parse().unwrap(), "fd4c:6961:6973::4".parse().unwrap()).unwrap(),
        keys: vec![],
        preshared: BTreeSet::new(),
        elsewhere: BTreeSet::new(),
        leaves: BTreeMap::new(),
        enrolment: Some(Enrolment { token, issuers: BTreeSet::new() }),
        authorized_until: "2099-01-01T00:00:00Z".parse().unwrap(),
    }
}

fn known(secret: &str) -> Token {
    Token {
        digest: enrolment::digest(&enrolment::proof(secret)),
        not_after: "2026-11-29T00:00:00Z".parse().unwrap(),
        used_by: None,
    }
}

fn basic(user: &str, secret: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{secret}")))
}

#[test]
fn a_token_counts_for_its_partner_until_it_ends_and_then_for_its_key() {
    let partner = |token| partner(Some(token));
    let good = basic("vancouver-police", "s3cret:with:colons");
    let fresh = known("s3cret:with:colons");
    let grounds = token(&partner(fresh.clone()), Some(&good), "key", now());
    assert_eq!(grounds, Ok(Grounds::Token(enrolment::proof("s3cret:with:colons"))));
    for wrong in [
        None,
        Some(basic("vancouver-police", "another")),
        Some(basic("victoria-police", "s3cret:with:colons")),
        Some(basic("", "s3cret:with:colons")),
        Some(good.replace("Basic", "Bearer")),
        Some("Basic".into()),
        Some("Basic !".into()),
        Some(format!("Basic {}", STANDARD.encode("no colon"))),
    ] {
        assert_eq!(token(&partner(fresh.clone()), wrong.as_deref(), "key", now()), Err(BadToken::Wrong), "{wrong:?}");
    }
    let late = "2026-11-30T00:00:00Z".parse().unwrap();
    assert_eq!(token(&partner(fresh.clone()), Some(&good), "key", late), Err(BadToken::Expired));
    let used = Token { used_by: Some("key".into()), ..fresh };
    assert!(token(&partner(used.clone()), Some(&good), "key", late).is_ok(), "who lost the answer asks again");
    assert_eq!(token(&partner(used), Some(&good), "another", now()), Err(BadToken::Used));
    assert_eq!(token(&super::tests::partner(None), Some(&good), "key", now()), Err(BadToken::Wrong));
}

#[test]
fn a_body_is_base64_or_pem_and_whole() {
    let key = rcgen::KeyPair::generate().unwrap();
    let made = rcgen::CertificateParams::default().serialize_request(&key).unwrap();
    let pem = made.pem().unwrap();
    let (der, spki) = request(pem.as_bytes()).unwrap();
    assert_eq!((der.as_slice(), Some(spki.clone())), (made.der().as_ref(), crate::state::public_key_sha256(&pem)));
    let bare = STANDARD.encode(&der);
    assert_eq!(request(bare.as_bytes()).unwrap(), (der.clone(), spki.clone()));
    assert_eq!(request(pem.replace('\n', "\r\n").as_bytes()).unwrap().0, der);
    let mut longer = der.clone();
    longer.push(0);
    for bad in [
        &b""[..],
        b"!",
        b"AAAA",
        &der,
        STANDARD.encode(&der[..der.len() - 1]).as_bytes(),
        STANDARD.encode(longer).as_bytes(),
    ] {
        assert_eq!(request(bad), None);
    }
}

#[test]
fn what_is_asked_becomes_an_object_that_says_it_all() {
    let asked = Asked {
        namespace: "liaison-partners".into(),
        partner: "vancouver-police".parse().unwrap(),
        grounds: Grounds::Leaf("ab".repeat(32)),
        request: vec![0x30, 0x00],
    };
    let object = serde_json::to_value(asked.object()).unwrap();
    assert_eq!(object["metadata"]["name"], json!(asked.name()));
    assert_eq!(
        object["metadata"]["labels"],
        json!({"federation.csc-scc.gc.ca/partner": "vancouver-police", "federation.csc-scc.gc.ca/namespace": "liaison-partners"})
    );
    assert_eq!(object["metadata"]["annotations"], json!({"federation.csc-scc.gc.ca/leaf": "ab".repeat(32)}));
    assert_eq!(object["spec"]["signerName"], json!("federation.csc-scc.gc.ca/partner"));
    assert_eq!(object["spec"]["usages"], json!(["digital signature", "client auth"]));
}

#[test]
fn an_object_is_read_as_denied_before_issued() {
    let with = |status: serde_json::Value| {
        answer(&serde_json::from_value(json!({"spec": {"request": "", "signerName": "x"}, "status": status})).unwrap())
    };
    let certificate = ByteString(b"pem".to_vec());
    assert_eq!(with(json!({})), Answer::Pending);
    assert_eq!(with(json!({"conditions": [{"type": "Approved", "status": "True"}]})), Answer::Pending);
    assert_eq!(with(json!({"certificate": certificate})), Answer::Issued(b"pem".to_vec()));
    let denied = json!({"certificate": certificate, "conditions": [{"type": "Denied", "status": "True", "reason": "TokenUsed"}]});
    assert_eq!(with(denied), Answer::Denied("TokenUsed".into()));
}

#[test]
fn a_partner_may_send_so_many_and_others_are_not_held_up() {
    let (asking, start) = (Asking::default(), Instant::now());
    let (a, b): (PartnerName, PartnerName) = ("a".parse().unwrap(), "b".parse().unwrap());
    assert_eq!((0..100).filter(|_| asking.admit(&a, start)).count(), BURST as usize);
    assert!(asking.admit(&b, start));
    assert!(!asking.admit(&a, start + EVERY.saturating_sub(Duration::from_millis(1))));
    assert!(asking.admit(&a, start + EVERY) && !asking.admit(&a, start + EVERY));
    let later = start + EVERY * 100;
    assert_eq!((0..100).filter(|_| asking.admit(&a, later)).count(), BURST as usize);
    assert_eq!(asking.0.lock().unwrap().len(), 1, "what is long past is forgotten");
}
