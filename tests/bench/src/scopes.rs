//! The partners of a run and what each may have. Pure.
//!
//! Every file has one of a thousand municipalities, evenly. N partners share them out in N runs of neighbours: at fan-out 1
//! each file is in one scope, at fan-out 3 each partner has its own run and the two after it.

use std::collections::BTreeSet;

use liaison_records::{
    codes::{Code, Custody, FieldGroup},
    names::PartnerName,
    population::{Population, Term},
};
use liaison_sync::terms::{Grant, Scope, Terms};

use crate::error::{Error, Result};

/// Municipalities.
pub const CODES: usize = 1000;

/// What every partner is granted. No group with reference tables: a thousand copies of the staff list tell nothing.
pub const GROUPS: [FieldGroup; 5] =
    [FieldGroup::Identity, FieldGroup::Photograph, FieldGroup::Sentence, FieldGroup::Conditions, FieldGroup::Warrants];

/// The tables of those groups, as the hub names them. Pictures stand in `image`, beside.
pub const TABLES: [&str; 7] = ["offender", "caution", "mark", "photograph", "sentence", "condition", "warrant"];

/// A number of partners at a fan-out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Set {
    /// Partners.
    pub n: usize,
    /// Scopes that each file is in.
    pub fanout: usize,
}

/// How the census subdivision number `code` is written.
pub fn municipality(code: usize) -> String {
    format!("{}", 1_000_000 + code)
}

impl Set {
    /// A name for databases.
    pub fn name(&self) -> String {
        format!("b{}f{}", self.n, self.fanout)
    }

    /// The number of the run that `code` lies in.
    pub fn slice(&self, code: usize) -> usize {
        code * self.n / CODES
    }

    /// What partner `p` may have.
    pub fn codes(&self, p: usize) -> BTreeSet<usize> {
        (0..CODES).filter(|code| (p..p + self.fanout).any(|q| q % self.n == self.slice(*code))).collect()
    }

    /// A partner's name.
    pub fn partner(&self, p: usize) -> Result<PartnerName> {
        let name = format!("{}-p{p:04}", self.name());
        name.parse().map_err(|_| Error::said(format!("{name} is not a partner's name")))
    }

    /// What sync is told about partner `p` when it may have `codes`.
    pub fn terms(&self, p: usize, codes: &BTreeSet<usize>, generation: i64) -> Result<Terms> {
        let share = Term { municipalities: Some(codes.iter().map(|c| municipality(*c)).collect()), ..Term::default() };
        let everybody = Term { custody: Some(Custody::ALL.to_vec()), ..Term::default() };
        Ok(Terms {
            partner: self.partner(p)?,
            generation,
            name_en: format!("Partner {p}"),
            name_fr: format!("Partenaire {p}"),
            time_zone: "America/Toronto".to_owned(),
            authorized_until: Some(jiff::Timestamp::MAX),
            suspended: false,
            grant: Some(Grant {
                agreement: "bench".to_owned(),
                groups: GROUPS.into_iter().collect(),
                scope: Scope {
                    share: Population { any_of: vec![share] },
                    agreement: Population { any_of: vec![everybody] },
                },
                purposes: vec!["Supervision".to_owned()],
            }),
            freshness_seconds: 60,
        })
    }
}

/// The row filter that says the same of a published table.
pub fn filter(codes: &BTreeSet<usize>) -> String {
    let list: Vec<String> = codes.iter().map(|code| format!("'{}'", municipality(*code))).collect();
    format!("municipality IN ({})", list.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_in_as_many_scopes_as_the_fan_out_says() {
        for (n, fanout) in [(13, 1), (13, 3), (200, 3), (1000, 1), (1000, 3)] {
            let set = Set { n, fanout };
            let mut in_scopes = vec![0; CODES];
            for p in 0..n {
                let codes = set.codes(p);
                assert!(!codes.is_empty());
                for code in &codes {
                    in_scopes[*code] += 1;
                }
            }
            assert!(in_scopes.iter().all(|scopes| *scopes == fanout), "{set:?}");
        }
    }
}
