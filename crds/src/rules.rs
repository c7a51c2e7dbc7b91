//! The CEL rules of both resources: what the types and bounds of the schema do not say.
//!
//! Data only, so that a test can go through it and ask a passing and a failing case of each. A message says what must hold.

/// One rule at one place of the schema.
pub(crate) struct Rule {
    /// Keys from the root of the schema to the node.
    pub(crate) path: &'static [&'static str],
    /// The CEL expression.
    pub(crate) cel: &'static str,
    /// What must hold, for the person whose manifest is refused.
    pub(crate) message: &'static str,
    /// Where the error is shown, if not at the node.
    pub(crate) field: Option<&'static str>,
}

const fn rule(path: &'static [&'static str], cel: &'static str, message: &'static str) -> Rule {
    Rule { path, cel, message, field: None }
}

const TERM_RULE: &str = "has(self.custody) || has(self.statuses) || has(self.releaseTypes) || has(self.atLarge) || \
                         has(self.warrants) || has(self.jurisdictions) || has(self.municipalities)";
const TERM_MESSAGE: &str = "must have at least one key; a term with no key would mean everybody, so it is refused";
const UNIQUE: &str = "self.all(x, self.exists_one(y, y == x))";
const IDENTITY: &str = "'identity' in self";
const IDENTITY_MESSAGE: &str = "must contain 'identity', which holds what scope is decided on";

/// Rules of `PartnerConnection`.
pub(crate) const PARTNER_CONNECTION: &[Rule] = &[
    Rule {
        path: &[],
        cel: "self.metadata.name.size() <= 40 && self.metadata.name.matches('^[a-z]([a-z0-9-]*[a-z0-9])?$')",
        message: "must be 1 to 40 lower-case letters, digits and inner hyphens, starting with a letter, without a dot: it becomes part of the partner's certificate, schemas and role",
        field: None,
    },
    rule(
        &["properties", "spec"],
        "has(self.replica) == has(oldSelf.replica) && (!has(self.replica) || self.replica.storeName == oldSelf.replica.storeName)",
        "`replica.storeName` must not change, be added or be removed; make a new PartnerConnection to use another store",
    ),
    rule(
        &["properties", "spec", "properties", "partner", "properties", "jurisdiction"],
        "self == oldSelf",
        "must not change; make a new PartnerConnection for another jurisdiction",
    ),
    rule(
        &["properties", "spec", "properties", "partner", "properties", "timeZone"],
        "self == 'UTC' || self.matches('^[A-Z][A-Za-z_]+(/[A-Z][A-Za-z_-]+)+$')",
        "must be an IANA time zone such as 'America/Vancouver'",
    ),
    rule(&["properties", "spec", "properties", "share", "properties", "fieldGroups"], IDENTITY, IDENTITY_MESSAGE),
    rule(
        &["properties", "spec", "properties", "share", "properties", "fieldGroups"],
        UNIQUE,
        "must not name a field group twice",
    ),
    rule(
        &["properties", "spec", "properties", "share", "properties", "population", "properties", "anyOf", "items"],
        TERM_RULE,
        TERM_MESSAGE,
    ),
    rule(
        &["properties", "spec", "properties", "revocation", "properties", "notBefore"],
        "self >= timestamp('2020-01-01T00:00:00Z') && self < timestamp('2100-01-01T00:00:00Z')",
        "must lie between 2020 and 2100: keys first seen before it are revoked for good",
    ),
    rule(
        &["properties", "spec", "properties", "credentials", "properties", "wireGuard", "properties", "publicKeys"],
        UNIQUE,
        "must not hold a key twice",
    ),
    rule(
        &["properties", "spec", "properties", "credentials", "properties", "recipients"],
        UNIQUE,
        "must not hold a recipient twice",
    ),
    rule(
        &["properties", "spec", "properties", "credentials"],
        "self.keyCustody == 'Liaison' || (has(self.wireGuard.publicKeys) && self.wireGuard.publicKeys.size() > 0)",
        "must hold `wireGuard.publicKeys`: with custody Partner its keys are the partner's own",
    ),
    rule(
        &["properties", "spec", "properties", "credentials"],
        "self.keyCustody == 'Liaison' || has(self.certificate.enrolment) || (has(self.certificate.signingRequests) && self.certificate.signingRequests.size() > 0)",
        "must hold `certificate.signingRequests`, or `certificate.enrolment`, by which the partner asks for a certificate itself",
    ),
    rule(
        &["properties", "spec", "properties", "credentials"],
        "self.keyCustody == 'Partner' ? !has(self.keyNumber) : (has(self.recipients) && self.recipients.size() > 0 && !has(self.wireGuard.publicKeys) && !has(self.certificate.signingRequests) && !has(self.certificate.enrolment))",
        "must hold, with custody Liaison, `recipients` and no key, request or enrolment of the partner's; and with custody Partner no `keyNumber`",
    ),
    rule(
        &["properties", "spec", "properties", "credentials", "properties", "certificate"],
        "!(has(self.enrolment) && has(self.issuerRef))",
        "must not hold both `enrolment` and `issuerRef`: what a partner asks for itself, Liaison's own CA issues",
    ),
    rule(
        &[
            "properties",
            "spec",
            "properties",
            "credentials",
            "properties",
            "certificate",
            "properties",
            "signingRequests",
        ],
        UNIQUE,
        "must not hold a request twice",
    ),
    rule(
        &[
            "properties",
            "spec",
            "properties",
            "credentials",
            "properties",
            "certificate",
            "properties",
            "signingRequests",
            "items",
        ],
        "self.contains('-----BEGIN CERTIFICATE REQUEST-----') && !self.contains('PRIVATE KEY')",
        "must be one PKCS#10 request in PEM ('-----BEGIN CERTIFICATE REQUEST-----'), and must not hold a private key",
    ),
];

/// Rules of `SharingAgreement`.
pub(crate) const SHARING_AGREEMENT: &[Rule] = &[
    rule(
        &["properties", "spec"],
        "self.effectiveDate <= self.expiryDate",
        "`effectiveDate` must not be after `expiryDate`",
    ),
    rule(&["properties", "spec", "properties", "parties"], UNIQUE, "must not name a party twice"),
    rule(&["properties", "spec", "properties", "purposes"], UNIQUE, "must not name a purpose twice"),
    rule(&["properties", "spec", "properties", "allows", "properties", "fieldGroups"], IDENTITY, IDENTITY_MESSAGE),
    rule(
        &["properties", "spec", "properties", "allows", "properties", "fieldGroups"],
        UNIQUE,
        "must not name a field group twice",
    ),
    rule(
        &["properties", "spec", "properties", "allows", "properties", "population", "properties", "anyOf", "items"],
        TERM_RULE,
        TERM_MESSAGE,
    ),
];

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
