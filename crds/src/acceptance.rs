//! Whether an agreement covers a connection, until when, and what is left of the share if it covers only part.
//!
//! Pure: operator, gateway and sync ask the same functions, each on its own clock. Unknown is refused (invariant I5).

use jiff::{Timestamp, civil::Date, tz::TimeZone};
use liaison_records::{
    codes::{Code, FieldGroup},
    names::PartnerName,
    population::Population,
};

use crate::{PartnerConnection, SharingAgreement};

/// What an agreement that covers a connection grants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The partner, by its name.
    pub partner: PartnerName,
    /// The instant at which the agreement ends.
    pub authorized_until: Timestamp,
}

/// Why a connection is not accepted. [`Refusal::reason`] is stable; the text says what must change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The object's name cannot be a partner's.
    #[error("{0}")]
    InvalidName(String),
    /// The manifest says something that no agreement could allow.
    #[error("{0}")]
    InvalidSpec(String),
    /// There is no such agreement.
    #[error("SharingAgreement '{0}' must exist in the same namespace; apply it, or correct `agreementRef.name`")]
    AgreementNotFound(String),
    /// The agreement is being deleted, which ends it at once.
    #[error("SharingAgreement '{0}' has been deleted, which ended it; name another in `agreementRef.name`")]
    AgreementDeleted(String),
    /// The agreement itself cannot be read.
    #[error("SharingAgreement '{name}' must be corrected: {problem}")]
    AgreementInvalid {
        /// Its name.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// Its first day is still to come.
    #[error("SharingAgreement '{name}' is not in force before {first_day}; nothing is shared until then")]
    AgreementNotYetInForce {
        /// Its name.
        name: String,
        /// Its first day.
        first_day: String,
        /// The instant at which that day begins in the partner's time zone.
        from: Timestamp,
    },
    /// Its last day is over.
    #[error("SharingAgreement '{name}' ended after {last_day}; extend it, or name another in `agreementRef.name`")]
    AgreementExpired {
        /// Its name.
        name: String,
        /// Its last day.
        last_day: String,
    },
    /// The agreement covers others.
    #[error(
        "SharingAgreement '{agreement}' must name '{partner}' in `parties`; it does not, so it does not cover this partner"
    )]
    NotAParty {
        /// The agreement.
        agreement: String,
        /// The partner.
        partner: String,
    },
    /// The share asks for a field group that the agreement does not allow.
    #[error(
        "`share.fieldGroups` must not contain '{group}': SharingAgreement '{agreement}' does not allow it. Shared until then is only what both allow"
    )]
    GroupExceedsAgreement {
        /// The agreement.
        agreement: String,
        /// The first group outside it.
        group: &'static str,
    },
    /// The share asks for offender files that the agreement does not allow.
    #[error(
        "term {term} of `share.population.anyOf` ({spelled}) must lie inside a term of SharingAgreement '{agreement}', key by key. Shared until then are only files that both cover"
    )]
    TermExceedsAgreement {
        /// The agreement.
        agreement: String,
        /// Index of the first term outside it, from 0.
        term: usize,
        /// The term as JSON.
        spelled: String,
    },
    /// Another partner holds the key.
    #[error("{what} is in use by partner '{holder}'; every partner must have keys of its own")]
    KeyInUse {
        /// Which key.
        what: String,
        /// Whose it is.
        holder: String,
    },
    /// The installation has no shard of the gateway of this name.
    #[error("`gateway` must be one of this installation's ({known}), or absent; '{gateway}' is none of them")]
    GatewayNotFound {
        /// What was asked for.
        gateway: String,
        /// Those that there are.
        known: String,
    },
    /// A WireGuard public key that is none.
    #[error(
        "`credentials.wireGuard.publicKeys[{index}]` must be a Curve25519 public key in base64, as `wg pubkey` prints it"
    )]
    InvalidKey {
        /// Which one, from 0.
        index: usize,
    },
    /// A signing request that cannot be used.
    #[error("`credentials.certificate.signingRequests[{index}]` {problem}")]
    InvalidSigningRequest {
        /// Which one, from 0.
        index: usize,
        /// What must hold.
        problem: String,
    },
}

impl Refusal {
    /// The reason of the condition `Accepted`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::InvalidName(_) => "InvalidName",
            Self::InvalidSpec(_) => "InvalidSpec",
            Self::AgreementNotFound(_) => "AgreementNotFound",
            Self::AgreementDeleted(_) => "AgreementDeleted",
            Self::AgreementInvalid { .. } => "AgreementInvalid",
            Self::AgreementNotYetInForce { .. } => "AgreementNotYetInForce",
            Self::AgreementExpired { .. } => "AgreementExpired",
            Self::NotAParty { .. } => "NotAParty",
            Self::GroupExceedsAgreement { .. } | Self::TermExceedsAgreement { .. } => "ShareExceedsAgreement",
            Self::KeyInUse { .. } => "KeyInUse",
            Self::GatewayNotFound { .. } => "GatewayNotFound",
            Self::InvalidKey { .. } => "InvalidKey",
            Self::InvalidSigningRequest { .. } => "InvalidSigningRequest",
        }
    }

    /// Whether it closes an existing connection. Only the lack of an agreement in force does; a share outside its
    /// agreement, or a bad new key, leaves what was there, at most shrunk to the intersection.
    pub fn closes(&self) -> bool {
        match self {
            Self::InvalidName(_)
            | Self::AgreementNotFound(_)
            | Self::AgreementDeleted(_)
            | Self::AgreementInvalid { .. }
            | Self::AgreementNotYetInForce { .. }
            | Self::AgreementExpired { .. }
            | Self::NotAParty { .. } => true,
            Self::InvalidSpec(_)
            | Self::GroupExceedsAgreement { .. }
            | Self::TermExceedsAgreement { .. }
            | Self::KeyInUse { .. }
            | Self::GatewayNotFound { .. }
            | Self::InvalidKey { .. }
            | Self::InvalidSigningRequest { .. } => false,
        }
    }
}

/// An agreement's days that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadDate {
    /// Not a day of the calendar.
    #[error("'{0}' must be a day of the calendar, YYYY-MM-DD")]
    Date(String),
    /// Not a time zone that this process knows.
    #[error("'{0}' must be an IANA time zone such as 'America/Vancouver'")]
    TimeZone(String),
}

/// The instant at which an agreement ends: the end of its last day in the partner's time zone.
pub fn authorized_until(expiry_date: &str, time_zone: &str) -> Result<Timestamp, BadDate> {
    let last = day(expiry_date)?;
    let next = last.tomorrow().map_err(|_| BadDate::Date(expiry_date.to_owned()))?;
    begins(next, expiry_date, time_zone)
}

/// The instant at which an agreement begins: the start of its first day in the partner's time zone.
pub fn authorized_from(effective_date: &str, time_zone: &str) -> Result<Timestamp, BadDate> {
    begins(day(effective_date)?, effective_date, time_zone)
}

/// Whether an agreement is in force at an instant, for a partner in that time zone. Being deleted ends it at once.
pub fn in_force(agreement: &SharingAgreement, time_zone: &str, now: Timestamp) -> Result<bool, BadDate> {
    let from = authorized_from(&agreement.spec.effective_date, time_zone)?;
    let until = authorized_until(&agreement.spec.expiry_date, time_zone)?;
    Ok(agreement.metadata.deletion_timestamp.is_none() && from <= now && now < until)
}

/// Until when the agreement covers the connection, whatever is asked under it.
///
/// What it refuses closes the connection ([`Refusal::closes`]). `agreement` is the one that `agreementRef` names, if it
/// exists.
pub fn covers(
    agreement: Option<&SharingAgreement>,
    connection: &PartnerConnection,
    now: Timestamp,
) -> Result<Accepted, Refusal> {
    let own_name = connection.metadata.name.clone().unwrap_or_default();
    let partner: PartnerName =
        own_name.parse().map_err(|error| Refusal::InvalidName(format!("metadata.name: {error}")))?;
    let spec = &connection.spec;
    let name = spec.agreement_ref.name.clone();
    let Some(agreement) = agreement else { return Err(Refusal::AgreementNotFound(name)) };
    if agreement.metadata.deletion_timestamp.is_some() {
        return Err(Refusal::AgreementDeleted(name));
    }
    let terms = &agreement.spec;
    let unreadable = |error: BadDate| match error {
        BadDate::Date(_) => Refusal::AgreementInvalid { name: name.clone(), problem: error.to_string() },
        // The zone stands in the connection; without it nobody can say when the agreement ends.
        BadDate::TimeZone(_) => Refusal::AgreementInvalid {
            name: name.clone(),
            problem: format!("its days cannot be placed, `partner.timeZone` {error}"),
        },
    };
    let from = authorized_from(&terms.effective_date, &spec.partner.time_zone).map_err(unreadable)?;
    let until = authorized_until(&terms.expiry_date, &spec.partner.time_zone).map_err(unreadable)?;
    if now < from {
        return Err(Refusal::AgreementNotYetInForce { name, first_day: terms.effective_date.clone(), from });
    }
    if now >= until {
        return Err(Refusal::AgreementExpired { name, last_day: terms.expiry_date.clone() });
    }
    if !terms.parties.contains(&own_name) {
        return Err(Refusal::NotAParty { agreement: name, partner: own_name });
    }
    if let Err(problem) = terms.allows.population.validate() {
        return Err(Refusal::AgreementInvalid { name, problem: format!("`allows.population`: {problem}") });
    }
    Ok(Accepted { partner, authorized_until: until })
}

/// Whether the agreement covers the connection and the whole of its share.
pub fn accepts(
    agreement: Option<&SharingAgreement>,
    connection: &PartnerConnection,
    now: Timestamp,
) -> Result<Accepted, Refusal> {
    let accepted = covers(agreement, connection, now)?;
    let share = &connection.spec.share;
    share.population.validate().map_err(|problem| Refusal::InvalidSpec(format!("`share.population`: {problem}")))?;
    if !share.field_groups.contains(&FieldGroup::Identity) {
        return Err(Refusal::InvalidSpec("`share.fieldGroups` must contain 'identity'".to_owned()));
    }
    // `covers` refused a missing one already.
    let Some(agreement) = agreement else {
        return Err(Refusal::AgreementNotFound(connection.spec.agreement_ref.name.clone()));
    };
    let allows = &agreement.spec.allows;
    let name = || connection.spec.agreement_ref.name.clone();
    if let Some(group) = share.field_groups.iter().find(|group| !allows.field_groups.contains(group)) {
        return Err(Refusal::GroupExceedsAgreement { agreement: name(), group: group.as_str() });
    }
    if let Some(term) = share.population.first_term_outside(&allows.population) {
        let spelled = share.population.any_of.get(term).and_then(|term| serde_json::to_string(term).ok());
        return Err(Refusal::TermExceedsAgreement { agreement: name(), term, spelled: spelled.unwrap_or_default() });
    }
    Ok(accepted)
}

/// What a partner may hold: groups that both name, and files that both populations cover, a file at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EffectiveScope {
    /// Field groups that share and agreement both name, in the order of the code list.
    pub groups: Vec<FieldGroup>,
    /// The population of the share.
    pub share: Population,
    /// The population of the agreement.
    pub agreement: Population,
}

impl EffectiveScope {
    /// Share AND agreement.
    pub fn of(agreement: &SharingAgreement, connection: &PartnerConnection) -> Self {
        let (share, allows) = (&connection.spec.share, &agreement.spec.allows);
        let groups = FieldGroup::ALL
            .iter()
            .copied()
            .filter(|group| share.field_groups.contains(group) && allows.field_groups.contains(group))
            .collect();
        Self { groups, share: share.population.clone(), agreement: allows.population.clone() }
    }
}

/// Whether the connection may serve anything at this instant: granted by status, not taken away by spec.
///
/// `authorizedUntil` is enforced on the caller's own clock, so an agreement ends on time with the operator down.
pub fn is_open(connection: &PartnerConnection, now: Timestamp) -> bool {
    let spec = &connection.spec;
    let authorized = connection.status.as_ref().and_then(|status| status.authorized_until.as_ref());
    connection.metadata.deletion_timestamp.is_none()
        && !spec.suspend.unwrap_or(false)
        && !spec.revocation.as_ref().is_some_and(|revocation| revocation.revoked)
        && authorized.is_some_and(|until| now < until.0)
}

fn day(text: &str) -> Result<Date, BadDate> {
    text.parse().map_err(|_| BadDate::Date(text.to_owned()))
}

fn begins(day: Date, text: &str, time_zone: &str) -> Result<Timestamp, BadDate> {
    let zone = TimeZone::get(time_zone).map_err(|_| BadDate::TimeZone(time_zone.to_owned()))?;
    let start = day.to_zoned(zone).map_err(|_| BadDate::Date(text.to_owned()))?;
    Ok(start.timestamp())
}

#[cfg(test)]
#[path = "acceptance_tests.rs"]
mod tests;
