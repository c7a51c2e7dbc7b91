//! What a partner is to have: the two resources, boiled down. Pure. Whatever is missing or in doubt means nothing.

use std::collections::BTreeSet;

use jiff::Timestamp;
use liaison_crds::{PartnerConnection, SharingAgreement};
use liaison_records::{
    codes::{AtLarge, Code, Custody, FieldGroup, Jurisdiction, ReleaseType, Status, WarrantState},
    names::PartnerName,
    population::{Axes, Population},
};
use serde::{Deserialize, Serialize};

/// The files that cross: those that the share and the agreement both cover. A sealed file is in none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// What the connection asks for.
    pub share: Population,
    /// What the agreement allows at most.
    pub agreement: Population,
}

impl Scope {
    /// Whether the file with these axes crosses. A sealed file has none ([`crate::hub::View::axes`]).
    pub fn covers(&self, axes: &Axes) -> bool {
        self.share.covers(axes) && self.agreement.covers(axes)
    }

    /// The same as an SQL condition over a row of `oms.offender`. A sealed file, and one with a code that is in no list (I5), is
    /// nobody's, as it is where the scope is decided by [`Scope::covers`].
    pub fn to_sql(&self, row: &str) -> String {
        format!(
            "({} AND {} AND {} AND {})",
            self.share.to_sql(row),
            self.agreement.to_sql(row),
            unsealed(row),
            known(row)
        )
    }

    /// Whether `self` certainly covers all that `other` covers. False when it cannot be told.
    pub fn contains(&self, other: &Self) -> bool {
        let inside = |inner: &Population, outer: &Population| inner.first_term_outside(outer).is_none();
        // (share AND agreement) is inside each of the two if either half is.
        let within = |outer: &Population| inside(&other.share, outer) || inside(&other.agreement, outer);
        within(&self.share) && within(&self.agreement)
    }
}

/// That a row of `oms.offender` is not of a sealed record (Criminal Records Act 6(2), 6.1).
pub(crate) fn unsealed(row: &str) -> String {
    format!("{row}.sealed_on IS NULL")
}

/// That every code of a row of `oms.offender` is one that we know.
fn known(row: &str) -> String {
    fn list<C: Code>() -> String {
        C::ALL.iter().map(|code| format!("'{}'", code.as_str())).collect::<Vec<_>>().join(", ")
    }
    format!(
        "{row}.custody IN ({}) AND {row}.status IN ({}) AND {row}.at_large IN ({}) AND {row}.warrant IN ({}) AND \
         {row}.jurisdiction IN ({}) AND ({row}.release_type IS NULL OR {row}.release_type IN ({}))",
        list::<Custody>(),
        list::<Status>(),
        list::<AtLarge>(),
        list::<WarrantState>(),
        list::<Jurisdiction>(),
        list::<ReleaseType>()
    )
}

/// What an agreement in force grants a partner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Name of the agreement.
    pub agreement: String,
    /// Field groups: share AND agreement. Empty without identity: a file is nothing without it.
    pub groups: BTreeSet<FieldGroup>,
    /// Which files.
    pub scope: Scope,
    /// Purposes for which a record may be looked at.
    pub purposes: Vec<String>,
}

impl Grant {
    /// The groups as records name them, sorted.
    pub fn group_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.groups.iter().map(|g| g.as_str().to_owned()).collect();
        names.sort();
        names
    }
}

/// What one partner is to have, and be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Who.
    pub partner: PartnerName,
    /// Generation of the PartnerConnection.
    pub generation: i64,
    /// Name in English.
    pub name_en: String,
    /// Name in French.
    pub name_fr: String,
    /// IANA time zone.
    pub time_zone: String,
    /// The instant the agreement ends; `None`: closed.
    pub authorized_until: Option<Timestamp>,
    /// Suspended, revoked or being deleted.
    pub suspended: bool,
    /// `None`: no agreement, or one that does not name this partner.
    pub grant: Option<Grant>,
    /// How old the replica may get, in seconds.
    pub freshness_seconds: u32,
}

impl Terms {
    /// Boils the two resources down. `None` when the object's name is not a partner's name.
    pub fn of(connection: &PartnerConnection, agreement: Option<&SharingAgreement>) -> Option<Self> {
        let partner: PartnerName = connection.metadata.name.as_deref()?.parse().ok()?;
        let spec = &connection.spec;
        let agreement = agreement.filter(|a| {
            a.metadata.name.as_deref() == Some(spec.agreement_ref.name.as_str())
                && a.metadata.deletion_timestamp.is_none()
                && a.spec.parties.iter().any(|party| party == partner.as_str())
        });
        let grant = agreement.map(|a| Grant {
            agreement: spec.agreement_ref.name.clone(),
            groups: effective_groups(&spec.share.field_groups, &a.spec.allows.field_groups),
            scope: Scope { share: spec.share.population.clone(), agreement: a.spec.allows.population.clone() },
            purposes: a.spec.purposes.iter().map(|p| p.as_str().to_owned()).collect(),
        });
        Some(Self {
            partner,
            generation: connection.metadata.generation.unwrap_or(0),
            name_en: spec.partner.name.en.clone(),
            name_fr: spec.partner.name.fr.clone(),
            time_zone: spec.partner.time_zone.clone(),
            authorized_until: grant
                .as_ref()
                .and(connection.status.as_ref())
                .and_then(|status| status.authorized_until.as_ref())
                .map(|time| time.0),
            suspended: spec.suspend.unwrap_or(false)
                || spec.revocation.as_ref().is_some_and(|r| r.revoked)
                || connection.metadata.deletion_timestamp.is_some(),
            grant,
            freshness_seconds: spec.share.freshness_objective_seconds.and_then(|s| u32::try_from(s).ok()).unwrap_or(60),
        })
    }

    /// Of a connection that cannot be read: closed.
    pub fn unreadable(partner: PartnerName, generation: i64) -> Self {
        let name = partner.to_string();
        Self {
            partner,
            generation,
            name_en: name.clone(),
            name_fr: name,
            time_zone: "UTC".to_owned(),
            authorized_until: None,
            suspended: true,
            grant: None,
            freshness_seconds: 60,
        }
    }

    /// What may cross now; `None` when closed: nothing is disclosed to a partner that may not read.
    pub fn open(&self, now: Timestamp) -> Option<&Grant> {
        let open = !self.suspended && self.authorized_until.is_some_and(|until| now < until);
        self.grant.as_ref().filter(|_| open)
    }
}

impl Terms {
    /// Whether something that `before` allowed is allowed no more: what was begun for that may not go on.
    pub fn takes_from(&self, before: &Self) -> bool {
        let Some(was) = before.grant.as_ref().filter(|_| !before.suspended) else { return false };
        let Some(is) = self.grant.as_ref().filter(|_| !self.suspended) else { return true };
        self.authorized_until < before.authorized_until
            || is.agreement != was.agreement
            || !is.groups.is_superset(&was.groups)
            || !is.scope.contains(&was.scope)
    }
}

fn effective_groups(share: &[FieldGroup], allowed: &[FieldGroup]) -> BTreeSet<FieldGroup> {
    let both: BTreeSet<FieldGroup> = share.iter().copied().filter(|g| allowed.contains(g)).collect();
    if both.contains(&FieldGroup::Identity) { both } else { BTreeSet::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn connection(patch: &serde_json::Value) -> PartnerConnection {
        let mut value = json!({
            "apiVersion": "federation.csc-scc.gc.ca/v1alpha1", "kind": "PartnerConnection",
            "metadata": {"name": "vancouver-police", "generation": 3},
            "spec": {
                "partner": {"type": "PoliceService", "jurisdiction": "CA-BC", "timeZone": "America/Vancouver",
                            "name": {"en": "Vancouver Police", "fr": "Police de Vancouver"}},
                "agreementRef": {"name": "bc-2003"},
                "share": {"fieldGroups": ["identity", "warrants", "incidents"],
                          "population": {"anyOf": [{"municipalities": ["5915022"]}]}},
                "credentials": {"keyCustody": "Partner", "wireGuard": {"publicKeys": ["x"]},
                                "certificate": {"signingRequests": ["x"]}}
            },
            "status": {"observedGeneration": 3, "authorizedUntil": "2030-01-01T08:00:00Z"}
        });
        merge(&mut value, patch);
        serde_json::from_value(value).unwrap()
    }

    fn agreement() -> SharingAgreement {
        serde_json::from_value(json!({
            "apiVersion": "federation.csc-scc.gc.ca/v1alpha1", "kind": "SharingAgreement",
            "metadata": {"name": "bc-2003"},
            "spec": {"reference": "R", "parties": ["vancouver-police"], "legalBasis": ["CCRA s.25(1)"],
                     "effectiveDate": "2003-01-01", "expiryDate": "2029-12-31", "purposes": ["Supervision"],
                     "allows": {"fieldGroups": ["identity", "warrants"],
                                "population": {"anyOf": [{"jurisdictions": ["CA-BC"]}]}},
                     "retention": {"disposalDays": 30}, "assessments": {"privacyImpact": "P", "threatRisk": "T"}}
        }))
        .unwrap()
    }

    fn merge(value: &mut serde_json::Value, patch: &serde_json::Value) {
        match (value, patch) {
            (serde_json::Value::Object(value), serde_json::Value::Object(patch)) => {
                for (key, patch) in patch {
                    merge(value.entry(key.clone()).or_insert(serde_json::Value::Null), patch);
                }
            }
            (value, patch) => *value = patch.clone(),
        }
    }

    fn now() -> Timestamp {
        "2026-11-22T00:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_share_gets_no_more_than_its_agreement() {
        let terms = Terms::of(&connection(&json!({})), Some(&agreement())).unwrap();
        let grant = terms.open(now()).unwrap();
        assert_eq!(grant.group_names(), ["identity", "warrants"]);
        assert_eq!(terms.freshness_seconds, 60);
    }

    #[test]
    fn closed_when_anything_is_missing() {
        let open = |patch: serde_json::Value, agreement: Option<&SharingAgreement>| {
            Terms::of(&connection(&patch), agreement).unwrap().open(now()).is_some()
        };
        let agreement = agreement();
        assert!(open(json!({}), Some(&agreement)));
        assert!(!open(json!({}), None), "no agreement");
        assert!(!open(json!({"spec": {"suspend": true}}), Some(&agreement)));
        assert!(!open(json!({"spec": {"revocation": {"revoked": true}}}), Some(&agreement)));
        assert!(!open(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}), Some(&agreement)));
        assert!(!open(json!({"status": null}), Some(&agreement)), "status grants");
        assert!(!open(json!({"status": {"authorizedUntil": "2026-11-22T00:00:00Z"}}), Some(&agreement)), "ended");
        assert!(!open(json!({"metadata": {"name": "other"}}), Some(&agreement)), "not a party");
        assert!(!open(json!({"spec": {"agreementRef": {"name": "another"}}}), Some(&agreement)));
        let mut ending = agreement.clone();
        ending.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
        assert!(!open(json!({}), Some(&ending)), "an agreement that is being deleted counts as ended");
    }

    #[test]
    fn what_takes_something_away_is_told_from_what_gives() {
        let agreement = agreement();
        let of = |patch: serde_json::Value| Terms::of(&connection(&patch), Some(&agreement)).unwrap();
        let takes = |patch: serde_json::Value| of(patch).takes_from(&of(json!({})));
        let population = |cities: serde_json::Value| json!({"spec": {"share": {"population": {"anyOf": cities}}}});
        assert!(!takes(json!({"metadata": {"generation": 4}})));
        assert!(!takes(json!({"status": {"authorizedUntil": "2031-01-01T08:00:00Z"}})), "later");
        assert!(takes(json!({"status": {"authorizedUntil": "2029-01-01T08:00:00Z"}})), "earlier");
        assert!(takes(json!({"status": null})), "never");
        assert!(takes(json!({"spec": {"suspend": true}})));
        assert!(takes(json!({"spec": {"agreementRef": {"name": "another"}}})));
        assert!(takes(json!({"spec": {"share": {"fieldGroups": ["identity"]}}})));
        assert!(takes(population(json!([{"municipalities": ["5917034"]}]))));
        assert!(!takes(population(json!([{"municipalities": ["5915022"]}, {"municipalities": ["5917034"]}]))));
        assert!(!of(json!({})).takes_from(&of(json!({"spec": {"suspend": true}}))), "what was closed allowed nothing");
    }

    #[test]
    fn no_group_without_identity() {
        let connection = connection(&json!({"spec": {"share": {"fieldGroups": ["warrants"]}}}));
        let terms = Terms::of(&connection, Some(&agreement())).unwrap();
        assert!(terms.grant.unwrap().groups.is_empty());
    }

    #[test]
    fn no_scope_has_a_sealed_file() {
        let all: Population = serde_json::from_value(json!({"anyOf": [{"custody": ["Archived"]}]})).unwrap();
        let sql = Scope { share: all.clone(), agreement: all }.to_sql("o");
        assert!(sql.contains(" AND o.sealed_on IS NULL AND "), "{sql}");
    }

    #[test]
    fn narrowing_is_told_from_widening() {
        let scope = |share: serde_json::Value, agreement: serde_json::Value| Scope {
            share: serde_json::from_value(json!({ "anyOf": share })).unwrap(),
            agreement: serde_json::from_value(json!({ "anyOf": agreement })).unwrap(),
        };
        let narrow = scope(json!([{"municipalities": ["5915022"]}]), json!([{"jurisdictions": ["CA-BC"]}]));
        let wide = scope(json!([{"municipalities": ["5915022", "5917034"]}]), json!([{"jurisdictions": ["CA-BC"]}]));
        assert!(wide.contains(&narrow) && !narrow.contains(&wide) && narrow.contains(&narrow));
    }
}
