//! The decision: do the three facts agree, now?
//!
//! Pure. Asked when a connection is accepted, again at each request, and again for every live connection whenever the
//! table changes or the clock moves (design section 5).

use std::{net::IpAddr, sync::Arc, time::Instant};

use jiff::Timestamp;

use crate::state::{Fingerprint, Partner, Table};

/// The table, and until when it counts.
#[derive(Debug, Clone)]
pub struct View {
    /// What is in force.
    pub table: Arc<Table>,
    /// The instant up to which what was heard from the API counts; `None` before the first list.
    pub heard_until: Option<Instant>,
}

/// One instant, on both clocks: agreements end on the wall clock, silence is measured on the other.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Wall clock.
    pub wall: Timestamp,
    /// Monotonic clock.
    pub mono: Instant,
}

impl Now {
    /// Reads both clocks.
    pub fn read() -> Self {
        Self { wall: Timestamp::now(), mono: Instant::now() }
    }
}

/// What is known of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Address on which it came in.
    pub local: IpAddr,
    /// Address from which it came.
    pub remote: IpAddr,
    /// How far it has come.
    pub stage: Stage<'a>,
}

/// How far a connection has come, and what is known there.
#[derive(Debug, Clone, Copy)]
pub enum Stage<'a> {
    /// TCP is open.
    Opened,
    /// The TLS handshake is done.
    Accepted {
        /// The leaf that the client proved to hold.
        leaf: Option<Fingerprint>,
        /// Server name that the client asked for.
        sni: Option<&'a str>,
    },
    /// The TLS handshake is done, on the port of enrolment, where a client may have no certificate yet.
    Enrolling {
        /// The leaf that the client proved to hold, if it has one.
        leaf: Option<Fingerprint>,
        /// Server name that the client asked for.
        sni: Option<&'a str>,
    },
    /// A request has come.
    Request {
        /// The leaf that the client proved to hold.
        leaf: Option<Fingerprint>,
        /// Server name that the client asked for.
        sni: Option<&'a str>,
        /// `Host` or `:authority`.
        host: Option<&'a str>,
    },
}

/// Why something was refused; the name is the metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Nothing was heard from the API for longer than the limit.
    Stale,
    /// No open partner has this gateway address.
    UnknownAddress,
    /// The source is not the address of the partner whose gateway address was called.
    WrongSource,
    /// The agreement has ended.
    Ended,
    /// No client certificate.
    NoCertificate,
    /// A client certificate that the CA did not issue, or that is not valid at this time.
    UntrustedCertificate,
    /// A certificate of the CA that is not in the partner's active set.
    UnknownCertificate,
    /// The certificate's time has passed or not come.
    CertificateExpired,
    /// SNI is not the partner's server name.
    WrongServerName,
    /// Host is not the partner's server name.
    WrongHost,
    /// The TLS handshake failed otherwise: version, group, garbage.
    Handshake,
    /// The client took too long.
    Timeout,
    /// The partner has as many connections as it may.
    TooManyConnections,
    /// The partner may not ask for certificates itself.
    NoEnrolment,
    /// No enrolment token, or another than the partner's, or one that can no longer be used.
    WrongToken,
    /// A request for a certificate that the operator denied.
    Denied,
    /// More requests for certificates than one partner may send.
    TooManyRequests,
    /// The request is larger than allowed, or of a kind that is not proxied.
    BadRequest,
}

impl Refusal {
    /// The label in metrics and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Stale => "stale",
            Self::UnknownAddress => "unknown_address",
            Self::WrongSource => "wrong_source",
            Self::Ended => "ended",
            Self::NoCertificate => "no_certificate",
            Self::UntrustedCertificate => "untrusted_certificate",
            Self::UnknownCertificate => "unknown_certificate",
            Self::CertificateExpired => "certificate_expired",
            Self::WrongServerName => "wrong_server_name",
            Self::WrongHost => "wrong_host",
            Self::Handshake => "handshake",
            Self::Timeout => "timeout",
            Self::TooManyConnections => "too_many_connections",
            Self::NoEnrolment => "no_enrolment",
            Self::WrongToken => "wrong_token",
            Self::Denied => "denied",
            Self::TooManyRequests => "too_many_requests",
            Self::BadRequest => "bad_request",
        }
    }
}

/// Decides. `Ok` names the partner for whom everything that is known so far agrees.
pub fn authorise<'v>(facts: &Facts<'_>, view: &'v View, now: Now) -> Result<&'v Arc<Partner>, Refusal> {
    if view.heard_until.is_none_or(|until| until <= now.mono) {
        return Err(Refusal::Stale);
    }
    let partner = view.table.at(facts.local).ok_or(Refusal::UnknownAddress)?;
    if !partner.slot.gateway().into_iter().zip(partner.slot.partner()).any(|p| p == (facts.local, facts.remote)) {
        return Err(Refusal::WrongSource);
    }
    if partner.authorized_until <= now.wall {
        return Err(Refusal::Ended);
    }
    let (leaf, sni, host) = match facts.stage {
        Stage::Opened => return Ok(partner),
        Stage::Accepted { leaf, sni } => (Some(leaf.ok_or(Refusal::NoCertificate)?), sni, None),
        Stage::Request { leaf, sni, host } => (Some(leaf.ok_or(Refusal::NoCertificate)?), sni, Some(host)),
        Stage::Enrolling { leaf, sni } => {
            partner.enrolment.as_ref().ok_or(Refusal::NoEnrolment)?;
            (leaf, sni, None)
        }
    };
    if let Some(leaf) = leaf {
        let validity = partner.leaves.get(&leaf).ok_or(Refusal::UnknownCertificate)?;
        if !validity.contains(now.wall) {
            return Err(Refusal::CertificateExpired);
        }
    }
    if !sni.is_some_and(|s| s.eq_ignore_ascii_case(&partner.server_name)) {
        return Err(Refusal::WrongServerName);
    }
    if let Some(host) = host
        && !host.is_some_and(|h| names(h, &partner.server_name))
    {
        return Err(Refusal::WrongHost);
    }
    Ok(partner)
}

/// Whether a `Host` value names the server, with or without the port.
pub(crate) fn names(host: &str, server_name: &str) -> bool {
    host.strip_suffix(":443").unwrap_or(host).eq_ignore_ascii_case(server_name)
}

#[cfg(test)]
#[path = "authorise_tests.rs"]
mod tests;
