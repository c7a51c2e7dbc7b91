//! Every rule has a case that passes and one that fails, evaluated as the API server does.

use kube::core::cel::Validator;
use serde_json::Value;

use super::*;
use crate::schema;

/// A manifest that every rule passes; the API server gets the same (`tests/api_server.rs`).
pub(crate) fn connection() -> Value {
    serde_json::from_str(include_str!("../tests/good/partner-connection.json")).unwrap()
}

fn agreement() -> Value {
    serde_json::from_str(include_str!("../tests/good/sharing-agreement.json")).unwrap()
}

/// Pointer, and the value that breaks exactly one rule.
const CONNECTION_FAILURES: &[(&str, &str)] = &[
    ("/metadata/name", r#""a.b""#),
    ("/spec/replica/storeName", r#""other""#),
    ("/spec/partner/jurisdiction", r#""CA-AB""#),
    ("/spec/partner/timeZone", r#""Pacific Time""#),
    ("/spec/share/fieldGroups", r#"["aliases"]"#),
    ("/spec/share/fieldGroups", r#"["identity","aliases","aliases"]"#),
    ("/spec/share/population/anyOf", r#"[{"custody":["Community"]},{}]"#),
    ("/spec/revocation/notBefore", r#""2206-01-01T00:00:00Z""#),
    ("/spec/credentials/wireGuard/publicKeys", r#"["a","a"]"#),
    ("/spec/credentials/recipients", r#"["a","a"]"#),
    ("/spec/credentials/wireGuard", r"{}"),
    ("/spec/credentials/certificate", r"{}"),
    ("/spec/credentials/keyCustody", r#""Liaison""#),
    ("/spec/credentials/certificate", r#"{"enrolment":{},"issuerRef":{"name":"a"}}"#),
    (
        "/spec/credentials/certificate/signingRequests",
        r#"["-----BEGIN CERTIFICATE REQUEST-----","-----BEGIN CERTIFICATE REQUEST-----"]"#,
    ),
    ("/spec/credentials/certificate/signingRequests/0", r#""-----BEGIN PRIVATE KEY-----""#),
];

const AGREEMENT_FAILURES: &[(&str, &str)] = &[
    ("/spec/expiryDate", r#""2025-12-31""#),
    ("/spec/parties", r#"["a","a"]"#),
    ("/spec/purposes", r#"["Supervision","Supervision"]"#),
    ("/spec/allows/fieldGroups", r#"["aliases"]"#),
    ("/spec/allows/fieldGroups", r#"["identity","identity"]"#),
    ("/spec/allows/population/anyOf", r"[{}]"),
];

fn each_rule_passes_and_fails(
    crd: &k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    good: &Value,
    rules: &[Rule],
    failures: &[(&str, &str)],
) {
    let crd = serde_json::to_value(crd).unwrap();
    let schema = crd.pointer("/spec/versions/0/schema/openAPIV3Schema").unwrap();
    let validator = Validator::new();
    validator.validate(schema, good, Some(good)).unwrap();
    assert_eq!(rules.len(), failures.len());
    for (rule, (pointer, value)) in rules.iter().zip(failures) {
        let mut bad = good.clone();
        *bad.pointer_mut(pointer).unwrap() = serde_json::from_str(value).unwrap();
        let errors = validator.validate(schema, &bad, Some(good)).unwrap_err().to_string();
        assert!(errors.contains(rule.message), "{pointer}: {errors}");
        assert!(rule.message.contains("must"), "{}", rule.message);
    }
}

#[test]
fn rules_of_partner_connection() {
    let crd = schema::partner_connection().unwrap();
    each_rule_passes_and_fails(&crd, &connection(), PARTNER_CONNECTION, CONNECTION_FAILURES);
}

#[test]
fn rules_of_sharing_agreement() {
    let crd = schema::sharing_agreement().unwrap();
    each_rule_passes_and_fails(&crd, &agreement(), SHARING_AGREEMENT, AGREEMENT_FAILURES);
}

#[test]
fn a_store_is_neither_added_nor_removed() {
    let crd = serde_json::to_value(schema::partner_connection().unwrap()).unwrap();
    let schema = crd.pointer("/spec/versions/0/schema/openAPIV3Schema").unwrap();
    let mut without = connection();
    without["spec"].as_object_mut().unwrap().remove("replica");
    for (new, old) in [(&without, &connection()), (&connection(), &without)] {
        assert!(Validator::new().validate(schema, new, Some(old)).is_err());
    }
    Validator::new().validate(schema, &without, Some(&without)).unwrap();
}
