//! From a connection and its agreement to the one value that all later steps work from.
//!
//! Pure. Every refusal is the condition `Accepted=False` with its reason; nothing is newly provisioned then. Whether what is
//! there already stays open depends on the refusal ([`Refusal::closes`]).

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use liaison_crds::{
    PartnerConnection, SharingAgreement,
    acceptance::{self, Refusal},
    is_canonical,
    partner_connection::{CustodyKeys, Enrolment, IssuerRef, KeyCustody, PresharedKey},
};

use super::bundle;
use crate::{
    ca::{self, Request},
    claims,
};

/// A `notBefore` may be this many seconds ahead: people's clocks are.
const TOLERANCE: i64 = 300;
const FUTURE: &str =
    "`revocation.notBefore` must not lie in the future: it revokes every key first seen before it, new ones too";

/// A well-formed WireGuard key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// As in the manifest.
    pub text: String,
    /// The Lease that claims it.
    pub lease: String,
    /// Where it stands in the manifest.
    pub place: String,
}

/// A usable signing request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Its key.
    pub request: Request,
    /// The Lease that claims it.
    pub lease: String,
    /// Where it stands in the manifest.
    pub place: String,
}

/// What was found.
#[derive(Debug, Clone)]
pub struct Checked {
    /// Until when the agreement covers the partner; none if it does not.
    pub covered_until: Option<Timestamp>,
    /// When an agreement that is not in force yet begins.
    pub begins: Option<Timestamp>,
    /// Why the connection is not accepted.
    pub refusal: Option<Refusal>,
    /// Keys of the manifest that can be used, in its order.
    pub keys: Vec<Key>,
    /// Requests of the manifest that can be used, in its order.
    pub requests: Vec<Asked>,
    /// `spec.suspend`.
    pub suspended: bool,
    /// `spec.revocation.revoked`.
    pub revoked: bool,
    /// Whether keys that are accepted from now on have preshared keys.
    pub preshared: Option<PresharedKey>,
    /// The pairs of keys that Liaison has made.
    pub custody: Vec<CustodyKeys>,
    /// To whom secrets are encrypted.
    pub recipients: Vec<String>,
    /// Whether the partner may ask for certificates itself.
    pub enrolment: Option<Enrolment>,
    /// Who issues certificates instead of Liaison's own CA.
    pub issuer: Option<IssuerRef>,
    /// Whether an earlier visit gave it a place.
    pub provisioned: bool,
    /// The shard of the gateway that the manifest asks for.
    pub gateway: Option<String>,
    /// The replica store.
    pub store: String,
}

impl Checked {
    /// Whether everything asked may be provisioned.
    pub fn accepted(&self) -> bool {
        self.refusal.is_none()
    }

    /// Until when access is granted: accepted now, or given a place earlier and still covered.
    pub fn authorized_until(&self) -> Option<Timestamp> {
        self.covered_until.filter(|_| self.accepted() || self.provisioned)
    }

    /// Every usable key of the manifest: the Lease that claims it, and where it stands.
    pub fn named(&self) -> impl Iterator<Item = (&String, String)> {
        let keys = self.keys.iter().map(|key| (&key.lease, &key.place));
        let requests = self.requests.iter().map(|asked| (&asked.lease, &asked.place));
        keys.chain(requests).map(|(lease, place)| (lease, place.clone()))
    }

    /// Whether the read service is to run.
    pub fn serving(&self) -> bool {
        self.authorized_until().is_some() && !self.suspended && !self.revoked
    }
}

/// Checks it all.
pub fn validate(
    connection: &PartnerConnection,
    agreement: Option<&SharingAgreement>,
    default_store: &str,
    now: Timestamp,
) -> Checked {
    let spec = &connection.spec;
    let covered = acceptance::covers(agreement, connection, now);
    let begins = match &covered {
        Err(Refusal::AgreementNotYetInForce { from, .. }) => Some(*from),
        _ => None,
    };
    let mut refusal = acceptance::accepts(agreement, connection, now).err();
    let mut keys = Vec::new();
    let (named_keys, named_requests) = connection.named_keys();
    for (index, text) in named_keys.into_iter().enumerate() {
        match wire_guard_key(text) {
            Some(bytes) => keys.push(Key {
                text: text.clone(),
                lease: claims::wire_guard_lease(&bytes),
                place: format!("`credentials.wireGuard.publicKeys[{index}]`"),
            }),
            None => refusal = refusal.or(Some(Refusal::InvalidKey { index })),
        }
    }
    let mut requests = Vec::new();
    for (index, pem) in named_requests.into_iter().enumerate() {
        match ca::read_request(pem) {
            Ok(request) => {
                let lease = claims::request_lease(&request.public_key_sha256);
                let place = format!("the key of `credentials.certificate.signingRequests[{index}]`");
                requests.push(Asked { request, lease, place });
            }
            Err(problem) => refusal = refusal.or(Some(Refusal::InvalidSigningRequest { index, problem })),
        }
    }
    for (index, text) in spec.credentials.recipients.iter().enumerate() {
        if let Err(problem) = bundle::contents::recipient(text) {
            let place = format!("`credentials.recipients[{index}]` {problem}");
            refusal = refusal.or(Some(Refusal::InvalidSpec(place)));
        }
    }
    let dated = spec.revocation.as_ref().and_then(|revocation| revocation.not_before.as_ref());
    if dated.is_some_and(|at| at.0.as_second() > now.as_second() + TOLERANCE) {
        refusal = refusal.or_else(|| Some(Refusal::InvalidSpec(FUTURE.to_owned())));
    }
    Checked {
        covered_until: covered.ok().map(|accepted| accepted.authorized_until),
        begins,
        refusal,
        keys,
        requests,
        suspended: spec.suspend.unwrap_or(false),
        revoked: spec.revocation.as_ref().is_some_and(|revocation| revocation.revoked),
        preshared: spec.credentials.wire_guard.preshared_key,
        custody: match spec.credentials.key_custody {
            KeyCustody::Partner => Vec::new(),
            KeyCustody::Liaison => connection.status.as_ref().map(|status| status.custody.clone()).unwrap_or_default(),
        },
        recipients: spec.credentials.recipients.clone(),
        enrolment: spec.credentials.certificate.enrolment.clone(),
        issuer: spec.credentials.certificate.issuer_ref.clone(),
        provisioned: connection.status.as_ref().is_some_and(|status| status.connection.is_some()),
        gateway: spec.gateway.clone(),
        store: store_of(connection, default_store),
    }
}

/// The replica store: the manifest's, else the one in use, else the installation's default.
pub fn store_of(connection: &PartnerConnection, default_store: &str) -> String {
    let asked = connection.spec.replica.as_ref().map(|replica| &replica.store_name);
    let used = connection.status.as_ref().and_then(|status| status.store_name.as_ref());
    asked.or(used).map_or_else(|| default_store.to_owned(), Clone::clone)
}

/// The 32 bytes of a Curve25519 key; none for what is no key, for another way to write one, or a point of small order, with which there
/// is no secret.
fn wire_guard_key(text: &str) -> Option<[u8; 32]> {
    let bytes: [u8; 32] = STANDARD.decode(text).ok()?.try_into().ok()?;
    if !is_canonical(&bytes) {
        return None;
    }
    let probe = x25519_dalek::StaticSecret::from([7; 32]);
    probe.diffie_hellman(&x25519_dalek::PublicKey::from(bytes)).was_contributory().then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partner_connection::fixtures::{agreement, connection, now};

    fn reason(connection: &PartnerConnection) -> Option<&'static str> {
        validate(connection, Some(&agreement()), "shared", now()).refusal.map(|refusal| refusal.reason())
    }

    #[test]
    fn a_good_connection_is_accepted() {
        let checked = validate(&connection("vancouver-police"), Some(&agreement()), "shared", now());
        assert_eq!(checked.refusal, None);
        assert!(checked.serving() && checked.authorized_until().is_some());
        assert_eq!((checked.keys.len(), checked.requests.len()), (1, 1));
        assert_eq!(checked.store, "shared");
    }

    #[test]
    fn bad_keys_and_requests_are_refused_and_grant_nothing_new() {
        let mut c = connection("vancouver-police");
        c.spec.credentials.wire_guard.public_keys.push("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".into());
        assert_eq!(reason(&c), Some("InvalidKey"));
        let checked = validate(&c, Some(&agreement()), "shared", now());
        assert_eq!((checked.authorized_until(), checked.keys.len()), (None, 1));
        let mut c = connection("vancouver-police");
        c.spec.credentials.certificate.signing_requests[0] = "x".into();
        assert_eq!(reason(&c), Some("InvalidSigningRequest"));
    }

    #[test]
    fn a_share_outside_leaves_an_existing_connection_open_and_a_missing_agreement_closes_it() {
        let mut c = connection("vancouver-police");
        c.spec.share.field_groups = <liaison_records::codes::FieldGroup as liaison_records::codes::Code>::ALL.to_vec();
        assert_eq!(reason(&c), Some("ShareExceedsAgreement"));
        assert_eq!(validate(&c, Some(&agreement()), "shared", now()).authorized_until(), None);
        c.status = Some(crate::partner_connection::fixtures::provisioned());
        assert!(validate(&c, Some(&agreement()), "shared", now()).serving());
        assert_eq!(validate(&c, None, "shared", now()).authorized_until(), None);
    }

    #[test]
    fn suspended_or_revoked_does_not_serve() {
        let mut c = connection("vancouver-police");
        c.spec.suspend = Some(true);
        assert!(!validate(&c, Some(&agreement()), "shared", now()).serving());
        let mut c = connection("vancouver-police");
        c.spec.revocation = Some(liaison_crds::partner_connection::Revocation { revoked: true, not_before: None });
        assert!(!validate(&c, Some(&agreement()), "shared", now()).serving());
    }
}
