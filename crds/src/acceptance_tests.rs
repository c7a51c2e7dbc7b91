//! One case for each refusal, on small YAML.

use super::*;

const AGREEMENT: &str = "
apiVersion: federation.csc-scc.gc.ca/v1alpha1
kind: SharingAgreement
metadata: {name: bc-2003}
spec:
  reference: BC-2003
  parties: [vancouver-police]
  legalBasis: [CCRA s.25(1)]
  effectiveDate: '2026-01-01'
  expiryDate: '2026-12-31'
  purposes: [Supervision]
  allows:
    fieldGroups: [identity, aliases]
    population: {anyOf: [{jurisdictions: [CA-BC]}]}
  retention: {disposalDays: 30}
  assessments: {privacyImpact: PIA-1, threatRisk: TRA-1}
";

const CONNECTION: &str = "
apiVersion: federation.csc-scc.gc.ca/v1alpha1
kind: PartnerConnection
metadata: {name: vancouver-police}
spec:
  partner:
    type: PoliceService
    jurisdiction: CA-BC
    name: {en: Vancouver Police Department, fr: Service de police de Vancouver}
    timeZone: America/Vancouver
  agreementRef: {name: bc-2003}
  share:
    fieldGroups: [identity]
    population: {anyOf: [{jurisdictions: [CA-BC], statuses: [Released]}]}
  credentials:
    keyCustody: Partner
    wireGuard: {publicKeys: [ANN0WtCmwgRlYsYdHWp7ztCY5OqmHxEjtyEDx6pCWEE=]}
    certificate: {signingRequests: [x]}
";

fn agreement() -> SharingAgreement {
    serde_saphyr::from_str(AGREEMENT).unwrap()
}

fn connection() -> PartnerConnection {
    serde_saphyr::from_str(CONNECTION).unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn reason(agreement: Option<&SharingAgreement>, connection: &PartnerConnection, now: &str) -> (&'static str, bool) {
    let refusal = accepts(agreement, connection, at(now)).unwrap_err();
    (refusal.reason(), refusal.closes())
}

#[test]
fn an_agreement_ends_with_its_last_day_in_the_partners_time_zone() {
    let accepted = accepts(Some(&agreement()), &connection(), at("2027-01-01T07:59:59Z")).unwrap();
    assert_eq!(accepted.authorized_until, at("2027-01-01T08:00:00Z"));
    assert_eq!(reason(Some(&agreement()), &connection(), "2027-01-01T08:00:00Z"), ("AgreementExpired", true));
    assert_eq!(reason(Some(&agreement()), &connection(), "2026-01-01T07:59:59Z"), ("AgreementNotYetInForce", true));
    assert!(accepts(Some(&agreement()), &connection(), at("2026-01-01T08:00:00Z")).is_ok());
    assert!(in_force(&agreement(), "America/Vancouver", at("2026-06-01T00:00:00Z")).unwrap());
}

#[test]
fn a_missing_or_deleted_agreement_or_one_of_others_closes() {
    let now = "2026-06-01T00:00:00Z";
    assert_eq!(reason(None, &connection(), now), ("AgreementNotFound", true));
    let mut deleted = agreement();
    deleted.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(now)));
    assert_eq!(reason(Some(&deleted), &connection(), now), ("AgreementDeleted", true));
    assert!(!in_force(&deleted, "America/Vancouver", at(now)).unwrap());
    let mut others = agreement();
    others.spec.parties = vec!["victoria-police".into()];
    assert_eq!(reason(Some(&others), &connection(), now), ("NotAParty", true));
    let mut broken = agreement();
    broken.spec.expiry_date = "2026-02-30".into();
    assert_eq!(reason(Some(&broken), &connection(), now), ("AgreementInvalid", true));
    let mut nowhere = connection();
    nowhere.spec.partner.time_zone = "America/Nowhere".into();
    assert_eq!(reason(Some(&agreement()), &nowhere, now), ("AgreementInvalid", true));
}

#[test]
fn a_share_outside_its_agreement_is_named_and_does_not_close() {
    let now = "2026-06-01T00:00:00Z";
    let mut wide = connection();
    wide.spec.share.field_groups.push(FieldGroup::Incidents);
    let refusal = accepts(Some(&agreement()), &wide, at(now)).unwrap_err();
    assert!(refusal.to_string().contains("'incidents'"), "{refusal}");
    assert_eq!(reason(Some(&agreement()), &wide, now), ("ShareExceedsAgreement", false));
    let scope = EffectiveScope::of(&agreement(), &wide);
    assert_eq!(scope.groups, [FieldGroup::Identity]);

    let mut far = connection();
    far.spec.share.population =
        serde_json::from_str(r#"{"anyOf":[{"jurisdictions":["CA-BC"]},{"jurisdictions":["CA-ON"]}]}"#).unwrap();
    let refusal = accepts(Some(&agreement()), &far, at(now)).unwrap_err();
    assert!(refusal.to_string().contains("term 1") && refusal.to_string().contains("CA-ON"), "{refusal}");
    assert!(!refusal.closes());
}

#[test]
fn nothing_means_nothing() {
    let now = "2026-06-01T00:00:00Z";
    let mut none = connection();
    none.spec.share.population.any_of.clear();
    assert_eq!(reason(Some(&agreement()), &none, now), ("InvalidSpec", false));
    let mut everybody = agreement();
    everybody.spec.allows.population = serde_json::from_str(r#"{"anyOf":[{}]}"#).unwrap();
    assert_eq!(reason(Some(&everybody), &connection(), now), ("AgreementInvalid", true));
}

#[test]
fn a_name_that_cannot_be_an_identity_is_refused() {
    let mut dotted = connection();
    dotted.metadata.name = Some("a.b".into());
    assert_eq!(reason(Some(&agreement()), &dotted, "2026-06-01T00:00:00Z"), ("InvalidName", true));
}

#[test]
fn open_is_what_status_grants_and_spec_does_not_take_away() {
    let now = at("2026-06-01T00:00:00Z");
    let mut c = connection();
    assert!(!is_open(&c, now));
    c.status = Some(
        serde_json::from_str(r#"{"observedGeneration":1,"conditions":[],"authorizedUntil":"2026-06-01T00:00:01Z"}"#)
            .unwrap(),
    );
    assert!(is_open(&c, now));
    assert!(!is_open(&c, at("2026-06-01T00:00:01Z")));
    c.spec.suspend = Some(true);
    assert!(!is_open(&c, now));
    c.spec.suspend = None;
    c.spec.revocation = Some(crate::partner_connection::Revocation { revoked: true, not_before: None });
    assert!(!is_open(&c, now));
}
