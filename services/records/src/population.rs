//! The scope language: `anyOf` of terms, each a set of keys with sets of values, all of which must hold.
//!
//! A missing key does not restrict its term. A term without a key, and a population without a term, are refused:
//! nothing means nothing, never everything. No predicate reads a clock. The same population can be asked of one file
//! ([`Population::covers`]), compared with another ([`Population::first_term_outside`]) and turned into SQL
//! ([`Population::to_sql`]), and the three agree.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::codes::{AtLarge, Code, Custody, Jurisdiction, ReleaseType, Status, WarrantState};

/// The axes of one offender file, on which scope is decided. All stand in `oms.offender`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Axes {
    /// Where the file stands.
    pub custody: Custody,
    /// State of the sentence or release.
    pub status: Status,
    /// Current kind of release, if there is one.
    pub release_type: Option<ReleaseType>,
    /// Whether the person is being sought.
    pub at_large: AtLarge,
    /// State of the latest warrant.
    pub warrant: WarrantState,
    /// Province or territory of the place.
    pub jurisdiction: Jurisdiction,
    /// Statistics Canada census subdivision of the place, seven digits. Place = municipality of supervision; for
    /// Incarcerated the institution's; for Archived the last one.
    pub municipality: String,
}

/// How many keys a term has.
pub const KEYS: usize = 7;

impl Axes {
    /// The value under each key, in the order of [`Term::keys`].
    pub fn values(&self) -> [Option<&str>; KEYS] {
        let Self { custody, status, release_type, at_large, warrant, jurisdiction, municipality } = self;
        [
            Some(custody.as_str()),
            Some(status.as_str()),
            release_type.map(Code::as_str),
            Some(at_large.as_str()),
            Some(warrant.as_str()),
            Some(jurisdiction.as_str()),
            Some(municipality),
        ]
    }
}

/// A set of offender files: the union of its terms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Population {
    /// Terms, at least one; a file that any of them covers is covered.
    #[schemars(length(min = 1, max = 32))]
    pub any_of: Vec<Term>,
}

/// A conjunction of keys; a missing key does not restrict. At least one key must be given, each with at least one value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Term {
    /// Where the file stands: Incarcerated, Community or Archived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 3))]
    pub custody: Option<Vec<Custody>>,
    /// States of the sentence or release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 12))]
    pub statuses: Option<Vec<Status>>,
    /// Kinds of release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 7))]
    pub release_types: Option<Vec<ReleaseType>>,
    /// Whether the person is being sought.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4))]
    pub at_large: Option<Vec<AtLarge>>,
    /// States of the latest warrant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4))]
    pub warrants: Option<Vec<WarrantState>>,
    /// Provinces and territories of the place, ISO 3166-2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 13))]
    pub jurisdictions: Option<Vec<Jurisdiction>>,
    /// Municipalities of the place: Statistics Canada census subdivision codes, seven digits each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), inner(regex(pattern = "^[0-9]{7}$"), length(max = 7)))]
    pub municipalities: Option<Vec<String>>,
}

/// What is wrong with a population.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPopulation {
    /// `anyOf` is missing or empty.
    #[error("population must have at least one term in `anyOf`; an empty population shares nothing")]
    NoTerm,
    /// A term without a key would mean everything.
    #[error("term {0} of `anyOf` must have at least one key; a term with no key is refused, it would mean everybody")]
    NoKey(usize),
    /// A key with an empty set.
    #[error("`{1}` in term {0} of `anyOf` must have at least one value")]
    NoValue(usize, &'static str),
    /// Not a census subdivision code.
    #[error(
        "'{1}' in term {0} of `anyOf` must be a Statistics Canada census subdivision code of seven digits, such as 5915022"
    )]
    BadMunicipality(usize, String),
}

impl Population {
    /// Checks what the types alone do not.
    pub fn validate(&self) -> Result<(), InvalidPopulation> {
        if self.any_of.is_empty() {
            return Err(InvalidPopulation::NoTerm);
        }
        for (index, term) in self.any_of.iter().enumerate() {
            let keys = term.keys();
            if keys.iter().all(|(_, values)| values.is_none()) {
                return Err(InvalidPopulation::NoKey(index));
            }
            if let Some((key, _)) = keys.iter().find(|(_, values)| values.as_ref().is_some_and(Vec::is_empty)) {
                return Err(InvalidPopulation::NoValue(index, key));
            }
            for code in term.municipalities.iter().flatten() {
                if code.len() != 7 || !code.bytes().all(|b| b.is_ascii_digit()) {
                    return Err(InvalidPopulation::BadMunicipality(index, code.clone()));
                }
            }
        }
        Ok(())
    }

    /// Whether the file with these axes is in the population.
    pub fn covers(&self, axes: &Axes) -> bool {
        self.any_of.iter().any(|term| term.covers(axes))
    }

    /// The index of the first term that is in no term of `outer`, key by key; `None` when all are inside.
    pub fn first_term_outside(&self, outer: &Self) -> Option<usize> {
        self.any_of.iter().position(|term| !outer.any_of.iter().any(|o| term.is_within(o)))
    }

    /// An SQL condition over a row of `oms.offender` under the alias `row`; literals only, nothing to bind.
    pub fn to_sql(&self, row: &str) -> String {
        if self.any_of.is_empty() {
            return "false".to_owned();
        }
        let terms: Vec<String> = self.any_of.iter().map(|term| term.to_sql(row)).collect();
        format!("({})", terms.join(" OR "))
    }
}

impl Term {
    /// Each key by its column in `oms.offender`, with the spelling of its values.
    pub fn keys(&self) -> [(&'static str, Option<Vec<&str>>); KEYS] {
        fn spell<C: Code>(values: Option<&Vec<C>>) -> Option<Vec<&'static str>> {
            values.map(|v| v.iter().map(|c| c.as_str()).collect())
        }
        let Self { custody, statuses, release_types, at_large, warrants, jurisdictions, municipalities } = self;
        [
            ("custody", spell(custody.as_ref())),
            ("status", spell(statuses.as_ref())),
            ("release_type", spell(release_types.as_ref())),
            ("at_large", spell(at_large.as_ref())),
            ("warrant", spell(warrants.as_ref())),
            ("jurisdiction", spell(jurisdictions.as_ref())),
            ("municipality", municipalities.as_ref().map(|v| v.iter().map(String::as_str).collect())),
        ]
    }

    fn covers(&self, axes: &Axes) -> bool {
        let keys = self.keys();
        keys.iter().any(|(_, values)| values.is_some())
            && keys.iter().zip(axes.values()).all(|((_, values), held)| {
                values.as_ref().is_none_or(|values| held.is_some_and(|held| values.contains(&held)))
            })
    }

    fn is_within(&self, outer: &Self) -> bool {
        self.keys().iter().zip(outer.keys()).all(|((_, inner), (_, outer))| match (inner, outer) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(inner), Some(outer)) => inner.iter().all(|value| outer.contains(value)),
        })
    }

    fn to_sql(&self, row: &str) -> String {
        let conditions: Vec<String> = self
            .keys()
            .into_iter()
            .filter_map(|(column, values)| {
                let list: Vec<String> = values?.iter().map(|v| format!("'{}'", v.replace('\'', "''"))).collect();
                Some(if list.is_empty() {
                    "false".to_owned()
                } else {
                    format!("{row}.{column} IN ({})", list.join(", "))
                })
            })
            .collect();
        if conditions.is_empty() { "false".to_owned() } else { format!("({})", conditions.join(" AND ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn population(json: &str) -> Population {
        serde_json::from_str(json).unwrap()
    }

    fn axes() -> Axes {
        Axes {
            custody: Custody::Community,
            status: Status::Released,
            release_type: Some(ReleaseType::DayParole),
            at_large: AtLarge::NotAtLarge,
            warrant: WarrantState::NoWarrant,
            jurisdiction: Jurisdiction::BritishColumbia,
            municipality: "5915022".into(),
        }
    }

    #[test]
    fn all_keys_of_a_term_must_hold() {
        let p = population(r#"{"anyOf":[{"municipalities":["5915022"],"statuses":["Released","Suspended"]}]}"#);
        assert!(p.covers(&axes()));
        assert!(!p.covers(&Axes { status: Status::Revoked, ..axes() }));
        assert!(!p.covers(&Axes { municipality: "5917034".into(), ..axes() }));
    }

    #[test]
    fn nothing_means_nothing() {
        assert_eq!(Population { any_of: vec![] }.validate(), Err(InvalidPopulation::NoTerm));
        let keyless = Population { any_of: vec![Term::default()] };
        assert_eq!(keyless.validate(), Err(InvalidPopulation::NoKey(0)));
        assert!(!keyless.covers(&axes()));
        assert_eq!(keyless.to_sql("o"), "(false)");
        assert_eq!(
            population(r#"{"anyOf":[{"custody":[]}]}"#).validate(),
            Err(InvalidPopulation::NoValue(0, "custody"))
        );
        assert!(serde_json::from_str::<Population>(r#"{"anyOf":[{"places":["x"]}]}"#).is_err());
    }

    #[test]
    fn a_share_must_lie_inside_its_agreement_term_by_term() {
        let agreement = population(r#"{"anyOf":[{"jurisdictions":["CA-BC"]},{"atLarge":["Escaped"]}]}"#);
        let inside = population(r#"{"anyOf":[{"jurisdictions":["CA-BC"],"statuses":["Released"]}]}"#);
        let outside = population(r#"{"anyOf":[{"jurisdictions":["CA-BC"]},{"statuses":["Released"]}]}"#);
        assert_eq!(inside.first_term_outside(&agreement), None);
        assert_eq!(outside.first_term_outside(&agreement), Some(1));
    }

    #[test]
    fn sql_quotes_its_literals() {
        let p =
            Population { any_of: vec![Term { municipalities: Some(vec!["x' OR '1'='1".into()]), ..Term::default() }] };
        assert_eq!(p.to_sql("o"), "((o.municipality IN ('x'' OR ''1''=''1')))");
    }
}
