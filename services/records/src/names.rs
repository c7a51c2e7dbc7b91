//! A partner's name, the identity that everything of that partner is named after.
//!
//! A name is a Kubernetes object name of at most 40 characters without a dot; it stands in certificates, schema and
//! role names, the ledger. PostgreSQL identifiers are derived by replacing `-` with `_`, which is injective because a
//! Kubernetes name has no `_`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Longest partner name, in characters: `journal_` and `next_share_` before it stay inside PostgreSQL's 63 bytes.
pub const MAX_PARTNER_NAME: usize = 40;

/// The name of a partner: lower-case letters, digits and inner hyphens, starting with a letter, 1 to 40 characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PartnerName(String);

/// Why a partner name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "partner name '{0}' must be 1 to {MAX_PARTNER_NAME} lower-case letters, digits and inner hyphens, starting with a letter"
)]
pub struct InvalidPartnerName(String);

impl PartnerName {
    /// The name as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn ident(&self) -> String {
        self.0.replace('-', "_")
    }

    /// The schema of the replica proper, which can be rebuilt at any time.
    pub fn share_schema(&self) -> String {
        format!("share_{}", self.ident())
    }

    /// Where a replica is made anew, beside the one that is read.
    pub fn next_schema(&self) -> String {
        format!("next_{}", self.ident())
    }

    /// What a replica that was made anew took the place of, for the moment until it is dropped.
    pub fn old_schema(&self) -> String {
        format!("old_{}", self.ident())
    }

    /// The schema of the access log, which is never rebuilt.
    pub fn journal_schema(&self) -> String {
        format!("journal_{}", self.ident())
    }

    /// The PostgreSQL role that the partner's InfoPol logs in as.
    pub fn reader_role(&self) -> String {
        format!("reader_{}", self.ident())
    }
}

impl FromStr for PartnerName {
    type Err = InvalidPartnerName;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let bytes = s.as_bytes();
        let ok = !bytes.is_empty()
            && bytes.len() <= MAX_PARTNER_NAME
            && bytes[0].is_ascii_lowercase()
            && bytes[bytes.len() - 1] != b'-'
            && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-');
        if ok { Ok(Self(s.to_owned())) } else { Err(InvalidPartnerName(s.to_owned())) }
    }
}

impl TryFrom<String> for PartnerName {
    type Error = InvalidPartnerName;

    fn try_from(s: String) -> Result<Self, Self::Error> {
        s.parse()
    }
}

impl From<PartnerName> for String {
    fn from(name: PartnerName) -> Self {
        name.0
    }
}

impl fmt::Display for PartnerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derives_identifiers() {
        let name: PartnerName = "vancouver-police".parse().unwrap();
        assert_eq!(name.share_schema(), "share_vancouver_police");
        assert_eq!(name.reader_role(), "reader_vancouver_police");
    }

    #[test]
    fn refuses_what_is_not_a_name() {
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "1a", &"a".repeat(41)] {
            assert!(bad.parse::<PartnerName>().is_err(), "{bad}");
        }
    }
}
