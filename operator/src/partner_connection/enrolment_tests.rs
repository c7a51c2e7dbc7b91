//! Requests on small objects.

use liaison_crds::partner_connection::Enrolment;

use super::*;
use crate::partner_connection::{
    fixtures::{agreement, connection, now},
    validate::validate,
};

const GATEWAY: &str = "system:serviceaccount:liaison-gateway:liaison-gateway";
const NAMESPACE: &str = "liaison-partners";
const PARTNER: &str = "vancouver-police";

fn request(key: &rcgen::KeyPair) -> String {
    rcgen::CertificateParams::default().serialize_request(key).unwrap().pem().unwrap()
}

fn key() -> rcgen::KeyPair {
    rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap()
}

fn object(pem: &str, grounds: &Grounds) -> CertificateSigningRequest {
    let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).unwrap();
    let (annotation, value) = grounds.annotation();
    serde_json::from_value(json!({
        "metadata": {"name": grounds.object_name(NAMESPACE, PARTNER, &der), "annotations": {annotation: value}},
        "spec": {"signerName": enrolment::SIGNER, "username": GATEWAY, "request": ByteString(pem.as_bytes().to_vec())},
    }))
    .unwrap()
}

fn checked() -> Checked {
    let mut c = connection(PARTNER);
    c.spec.credentials.certificate.enrolment = Some(Enrolment { token_number: Some(1) });
    validate(&c, Some(&agreement()), "shared", now())
}

fn token(secret: &str) -> EnrolmentToken {
    EnrolmentToken {
        token_number: 1,
        token_digest: enrolment::digest(&enrolment::proof(secret)),
        issued: Time(now()),
        not_after: Time(later(TOKEN_SECONDS)),
        used_by: None,
    }
}

fn later(seconds: i64) -> Timestamp {
    Timestamp::from_second(now().as_second() + seconds).unwrap()
}

fn held(fingerprint: &str, by: Option<&str>, until: i64) -> IssuedCertificate {
    IssuedCertificate {
        sha256: fingerprint.into(),
        public_key_sha256: format!("key of {fingerprint}"),
        key_first_seen: None,
        enrolled_by: by.map(Into::into),
        issued_by: None,
        chain: format!("chain of {fingerprint}"),
        not_before: Time(now()),
        not_after: Time(later(until)),
    }
}

fn verdict(
    object: &CertificateSigningRequest,
    token: Option<&EnrolmentToken>,
    certificates: &[IssuedCertificate],
    checked: &Checked,
    at: Timestamp,
) -> Verdict {
    judge(
        object,
        &Terms { namespace: NAMESPACE, partner: PARTNER, gateway: GATEWAY, checked, token, certificates, now: at },
    )
}

fn denied(verdict: &Verdict) -> &'static str {
    let Verdict::Deny(denial) = verdict else { panic!("{verdict:?}") };
    denial.reason
}

#[test]
fn a_token_brings_one_key_a_certificate() {
    let (key, other) = (key(), key());
    let grounds = Grounds::Token(enrolment::proof("secret"));
    let asked = object(&request(&key), &grounds);
    let (checked, mut token) = (checked(), token("secret"));
    let Verdict::Issue(found, by) = verdict(&asked, Some(&token), &[], &checked, now()) else { panic!() };
    let spki = ca::read_request(&request(&key)).unwrap().public_key_sha256;
    assert_eq!((&by, &found.request.public_key_sha256), (&grounds, &spki));

    let wrong = object(&request(&key), &Grounds::Token(enrolment::proof("Secret")));
    assert_eq!(denied(&verdict(&wrong, Some(&token), &[], &checked, now())), "TokenUnknown");
    assert_eq!(denied(&verdict(&asked, None, &[], &checked, now())), "TokenUnknown");
    assert_eq!(denied(&verdict(&asked, Some(&token), &[], &checked, later(TOKEN_SECONDS + 1))), "TokenExpired");

    // Used: the same key is answered with what it got, however often and late it asks; another is not.
    token.used_by = Some(spki.clone());
    let mut issued = held("f", Some("liaison-of-an-earlier-request"), 86_400);
    issued.public_key_sha256 = spki;
    let again = object(&request(&key), &grounds);
    let late = verdict(&again, Some(&token), &[issued.clone()], &checked, later(TOKEN_SECONDS + 1));
    assert_eq!(late, Verdict::Publish("chain of f".into()));
    let another = object(&request(&other), &grounds);
    assert_eq!(denied(&verdict(&another, Some(&token), &[issued], &checked, now())), "TokenUsed");
    assert_eq!(denied(&verdict(&again, Some(&token), &[], &checked, now())), "TokenUsed", "its certificate is gone");

    // Killed after status was written: the request finds its certificate by its own name.
    let mine = held("g", Some(&asked.name_any()), 86_400);
    assert_eq!(verdict(&asked, Some(&token), &[mine], &checked, now()), Verdict::Publish("chain of g".into()));
}

#[test]
fn an_accepted_leaf_brings_the_next() {
    let (pem, checked) = (request(&key()), checked());
    let asked = object(&pem, &Grounds::Leaf("f".into()));
    assert!(matches!(verdict(&asked, None, &[held("f", None, 60)], &checked, now()), Verdict::Issue(..)));
    assert_eq!(denied(&verdict(&asked, None, &[held("f", None, 60)], &checked, later(60))), "LeafUnknown");
    assert_eq!(denied(&verdict(&asked, None, &[held("g", None, 60)], &checked, now())), "LeafUnknown");
}

#[test]
fn what_is_not_the_gateways_or_not_whole_or_not_allowed_is_denied() {
    let pem = request(&key());
    let (good, token) = (object(&pem, &Grounds::Token(enrolment::proof("s"))), token("s"));
    let judge = |object: &CertificateSigningRequest, checked: &Checked| {
        denied(&verdict(object, Some(&token), &[held("f", None, 60)], checked, now()))
    };
    let mut object = good.clone();
    object.spec.username = Some("system:serviceaccount:liaison-partners:liaison-gateway".into());
    assert_eq!(judge(&object, &checked()), "NotTheGateway");
    // Grounds that were changed or added afterwards, and a request moved to another partner.
    let mut object = good.clone();
    object.metadata.annotations = Some([(enrolment::LEAF.to_owned(), "f".to_owned())].into());
    assert_eq!(judge(&object, &checked()), "NoGrounds");
    let mut object = good.clone();
    object.annotations_mut().insert(enrolment::LEAF.to_owned(), "f".to_owned());
    assert_eq!(judge(&object, &checked()), "NoGrounds");
    let terms = Terms {
        namespace: NAMESPACE,
        partner: "victoria-police",
        gateway: GATEWAY,
        checked: &checked(),
        token: Some(&token),
        certificates: &[],
        now: now(),
    };
    assert_eq!(denied(&super::judge(&good, &terms)), "NoGrounds");
    let mut object = good.clone();
    object.spec.request = ByteString(b"garbage".to_vec());
    assert_eq!(judge(&object, &checked()), "RequestInvalid");

    assert_eq!(judge(&good, &Checked { enrolment: None, ..checked() }), "NotAuthorized");
    assert_eq!(judge(&good, &Checked { revoked: true, ..checked() }), "NotAuthorized");
    assert_eq!(judge(&good, &Checked { suspended: true, ..checked() }), "NotAuthorized");
}

#[test]
fn an_enrolled_key_is_as_old_as_what_it_was_asked_for_by() {
    let mut leaf = held("f", Some("1"), 60);
    leaf.key_first_seen = Some(Time(later(-86_400)));
    let by = |grounds: &Grounds, token: Option<&EnrolmentToken>| since(grounds, token, std::slice::from_ref(&leaf));
    assert_eq!(by(&Grounds::Leaf("f".into()), None), Some(later(-86_400)));
    assert_eq!(by(&Grounds::Leaf("g".into()), None), None);
    assert_eq!(by(&Grounds::Token("t".into()), Some(&token("t"))), Some(now()));
}

#[test]
fn a_renewal_cuts_neither_who_asked_nor_the_manifests_own() {
    let all = vec![held("manifest", None, 10), held("old", Some("1"), 20), held("newer", Some("2"), 30)];
    let by_old = with_enrolled(all.clone(), held("new", Some("3"), 40), &Grounds::Leaf("old".into()));
    let names = |all: &[IssuedCertificate]| all.iter().map(|held| held.sha256.clone()).collect::<Vec<_>>();
    assert_eq!(names(&by_old), ["manifest", "new", "old"]);
    let by_token = with_enrolled(all, held("new", Some("3"), 40), &Grounds::Token("t".into()));
    assert_eq!(names(&by_token), ["manifest", "new", "newer"]);
}

#[test]
fn answered_requests_are_not_looked_at_again() {
    let open = object(&request(&key()), &Grounds::Leaf("f".into()));
    let with = |status: serde_json::Value| {
        let mut object = open.clone();
        object.status = serde_json::from_value(status).unwrap();
        object
    };
    let condition = |kind: &str| json!({"conditions": [{"type": kind, "status": "True"}]});
    let all = [
        open.clone(),
        with(condition("Denied")),
        with(condition("Failed")),
        with(json!({"certificate": ByteString(b"x".to_vec())})),
        with(condition("Approved")),
    ];
    assert_eq!(pending(&all).len(), 2, "the open one, and one that is approved and not signed yet");
}
