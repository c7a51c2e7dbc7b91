//! Certificates that partners ask for themselves (EST, RFC 7030): the one-time token, and the gateway's
//! `CertificateSigningRequest`s, which are judged here, approved and signed, or denied.
//!
//! Judging is pure. What is issued stands in status before the request is answered, with the name of the request: killed in
//! between, the next visit answers with the same certificate. A token is claimed for one key by a Lease, so it brings no other
//! one, whoever races and whatever is restored.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use k8s_openapi::{
    ByteString,
    api::{
        certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition},
        core::v1::Secret,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{
    Api, ResourceExt,
    api::Patch,
    runtime::events::{Event, EventType},
};
use liaison_crds::{
    PartnerConnection,
    enrolment::{self, Grounds},
    partner_connection::{EnrolmentToken, IssuedCertificate},
    revocation::Floor,
};
use rustls::pki_types::{CertificateSigningRequestDer, pem::PemObject};
use serde_json::json;

use super::{
    Error,
    apply::Visit,
    dereference::World,
    plan,
    status::Outcome,
    validate::{Asked, Checked},
};
use crate::{
    apply, ca,
    claims::{self, Claim, Memory},
    context::Context,
    install,
};

/// How long a token can be used, in seconds: a week.
const TOKEN_SECONDS: i64 = 7 * 86_400;
/// Says of a token's Secret which number it is of, and when it was made.
const TOKEN: &str = "federation.csc-scc.gc.ca/token";
/// Key of the token in its Secret.
pub(super) const KEY: &str = "token";
/// Certificates of the partner's own asking that are accepted at a time.
const ENROLLED: usize = 2;

/// Why a request is denied: a stable word, and a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// The condition's reason.
    pub reason: &'static str,
    /// The condition's message.
    pub message: String,
}

fn deny(reason: &'static str, message: impl Into<String>) -> Verdict {
    Verdict::Deny(Denial { reason, message: message.into() })
}

/// What is to be done with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// A certificate is to be issued.
    Issue(Box<Asked>, Grounds),
    /// It has been issued: this chain.
    Publish(String),
    /// It is refused.
    Deny(Denial),
}

/// What requests are held against.
#[derive(Debug)]
pub struct Terms<'a> {
    /// Namespace of the connection.
    pub namespace: &'a str,
    /// The partner.
    pub partner: &'a str,
    /// User name of the only account that may ask.
    pub gateway: &'a str,
    /// The manifest, checked.
    pub checked: &'a Checked,
    /// The token.
    pub token: Option<&'a EnrolmentToken>,
    /// The certificates that are accepted now.
    pub certificates: &'a [IssuedCertificate],
    /// The time.
    pub now: Timestamp,
}

/// Judges a request that has not been answered yet.
pub fn judge(request: &CertificateSigningRequest, terms: &Terms<'_>) -> Verdict {
    let Terms { namespace, partner, gateway, checked, token, certificates, now } = terms;
    let name = request.name_any();
    if request.spec.username.as_deref() != Some(gateway) {
        return deny("NotTheGateway", format!("only {gateway} may ask for a partner's certificate"));
    }
    if let Some(issued) = certificates.iter().find(|held| held.enrolled_by.as_ref() == Some(&name)) {
        return Verdict::Publish(issued.chain.clone());
    }
    if checked.enrolment.is_none() || !checked.serving() {
        return deny("NotAuthorized", "the partner may not enrol: see its PartnerConnection");
    }
    let pem = String::from_utf8_lossy(&request.spec.request.0);
    let (read, der) = match (ca::read_request(&pem), CertificateSigningRequestDer::from_pem_slice(pem.as_bytes())) {
        (Ok(read), Ok(der)) => (read, der),
        (Err(problem), _) => return deny("RequestInvalid", format!("the request {problem}")),
        (_, Err(error)) => return deny("RequestInvalid", error.to_string()),
    };
    // The object's name is made from all of it and does not change: what was changed afterwards shows.
    let grounds =
        Grounds::of(request.annotations()).filter(|grounds| grounds.object_name(namespace, partner, &der) == name);
    let Some(grounds) = grounds else { return deny("NoGrounds", "the object's name, label and annotations disagree") };
    let key = &read.public_key_sha256;
    match &grounds {
        Grounds::Token(proof) => {
            let Some(token) = token.filter(|token| token.token_digest == enrolment::digest(proof)) else {
                return deny("TokenUnknown", "no such token");
            };
            if let Some(used) = &token.used_by {
                let issued =
                    certificates.iter().find(|held| held.enrolled_by.is_some() && held.public_key_sha256 == *used);
                return match issued {
                    Some(issued) if used == key => Verdict::Publish(issued.chain.clone()),
                    _ => deny("TokenUsed", "the token has been used"),
                };
            }
            if token.not_after.0 < *now {
                return deny("TokenExpired", format!("the token could be used until {}", token.not_after.0));
            }
            if !checked.accepted() {
                return deny("NotAuthorized", "the manifest is not accepted: see its PartnerConnection");
            }
        }
        Grounds::Leaf(fingerprint) => {
            if !certificates.iter().any(|held| held.sha256 == *fingerprint && held.not_after.0 > *now) {
                return deny("LeafUnknown", "the certificate by which it was asked for is not accepted (any more)");
            }
        }
    }
    let asked = Asked { lease: claims::request_lease(key), place: "the request's key".to_owned(), request: read };
    Verdict::Issue(Box::new(asked), grounds)
}

/// How old a key is that is enrolled: as old as the token or the certificate's key by which it was asked for, and so down to the token.
/// Whoever had one of those before a revocation may have asked for any key since, so what is revoked with it goes with all that it brought.
fn since(grounds: &Grounds, token: Option<&EnrolmentToken>, certificates: &[IssuedCertificate]) -> Option<Timestamp> {
    match grounds {
        Grounds::Token(_) => token.map(|token| token.issued.0),
        Grounds::Leaf(leaf) => {
            let asker = certificates.iter().find(|held| held.sha256 == *leaf);
            asker.and_then(|held| held.key_first_seen.as_ref()).map(|seen| seen.0)
        }
    }
}

/// The accepted certificates with a new one that the partner asked for: of those that it asked for, the newest ones and the
/// one by which it asked stay, so that nobody is cut by its own renewal.
pub fn with_enrolled(
    certificates: Vec<IssuedCertificate>,
    new: IssuedCertificate,
    grounds: &Grounds,
) -> Vec<IssuedCertificate> {
    let (mut all, mut enrolled): (Vec<_>, Vec<_>) =
        certificates.into_iter().partition(|held| held.enrolled_by.is_none());
    let asker = |held: &IssuedCertificate| matches!(grounds, Grounds::Leaf(leaf) if *leaf == held.sha256);
    enrolled.sort_by_key(|held| (!asker(held), std::cmp::Reverse(held.not_after.0)));
    enrolled.truncate(ENROLLED - 1);
    all.push(new);
    all.extend(enrolled);
    all
}

/// The requests of a partner that have not been answered, oldest first.
fn pending(requests: &[CertificateSigningRequest]) -> Vec<&CertificateSigningRequest> {
    let mut open: Vec<_> = requests
        .iter()
        .filter(|request| {
            let status = request.status.as_ref();
            let conditions = status.and_then(|status| status.conditions.as_ref());
            let over = |c: &CertificateSigningRequestCondition| matches!(c.type_.as_str(), "Denied" | "Failed");
            status.is_none_or(|status| status.certificate.is_none())
                && !conditions.is_some_and(|all| all.iter().any(over))
        })
        .collect();
    open.sort_by_key(|request| (request.metadata.creation_timestamp.as_ref().map(|at| at.0), request.name_any()));
    open
}

/// A request, what became of it, and whether that is a certificate issued just now.
pub(super) type Decided = (CertificateSigningRequest, Verdict, bool);

impl Visit<'_> {
    /// The token that the manifest asks for: the one there is, a new one, or none. The token itself is in a Secret until it
    /// is used, or can no longer be.
    pub(super) async fn token(
        &self,
        checked: &Checked,
        before: Option<&EnrolmentToken>,
        floor: Floor,
    ) -> Result<Option<EnrolmentToken>, Error> {
        let (secrets, name) = (self.system::<Secret>(), &self.names.enrolment_secret);
        let asked = checked.enrolment.as_ref().and_then(|enrolment| enrolment.token_number);
        let Some(number) = asked.filter(|_| !checked.revoked) else {
            // Nothing to look for where there never was one.
            if before.is_some() {
                apply::ensure_gone(&secrets, name, false).await?;
            }
            return Ok(None);
        };
        // One that was made before what a revocation is about goes with it.
        let kept = before.filter(|token| token.token_number == number && !floor.revokes(Some(token.issued.0)));
        if let Some(token) = kept {
            if token.used_by.is_some() || token.not_after.0 < self.now {
                apply::ensure_gone(&secrets, name, false).await?;
            }
            return Ok(Some(token.clone()));
        }
        if !checked.accepted() {
            return Ok(before.filter(|token| token.token_number == number).cloned());
        }
        let issued = floor.first_sight(self.now);
        let mark = format!("{number} {issued}");
        let made = |secret: &Secret| {
            let (of, at) = secret.annotations().get(TOKEN)?.split_once(' ')?;
            let at: Timestamp = at.parse().ok()?;
            (of == number.to_string() && !floor.revokes(Some(at))).then_some((install::text(secret, KEY)?, at))
        };
        let live = secrets.get_opt(name).await?;
        let found = live.as_ref().and_then(made);
        if found.is_none() && live.is_some() {
            apply::ensure_gone(&secrets, name, false).await?;
        }
        let (token, issued) = if let Some(found) = found {
            found
        } else {
            let token = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
            let mut secret = install::secret(name, "Opaque", [(KEY.to_owned(), install::bytes(&token))].into());
            secret.labels_mut().extend(self.names.labels("operator"));
            secret.annotations_mut().insert(TOKEN.to_owned(), mark);
            let (live, _) = apply::create_once(&secrets, &secret).await?;
            made(&live).ok_or_else(|| install::Error::Broken { name: name.clone(), key: KEY })?
        };
        let until = Timestamp::from_second(issued.as_second() + TOKEN_SECONDS).unwrap_or(issued);
        Ok(Some(EnrolmentToken {
            token_number: number,
            token_digest: enrolment::digest(&enrolment::proof(&token)),
            issued: Time(issued),
            not_after: Time(until),
            used_by: None,
        }))
    }

    /// Judges what is open, claims what it takes, and issues; `outcome` is what is granted afterwards.
    pub(super) async fn enrol(
        &self,
        world: &mut World,
        checked: &Checked,
        outcome: &mut Outcome,
    ) -> Result<Vec<Decided>, Error> {
        let settings = &self.ctx.settings;
        let gateway = format!("system:serviceaccount:{}:{}", settings.gateway_namespace, enrolment::GATEWAY_ACCOUNT);
        let mut decided = Vec::new();
        for request in pending(&world.requests).into_iter().cloned().collect::<Vec<_>>() {
            let terms = Terms {
                namespace: &settings.partners_namespace,
                partner: &self.names.partner,
                gateway: &gateway,
                checked,
                token: outcome.enrolment.as_ref(),
                certificates: &outcome.certificates,
                now: self.now,
            };
            let (verdict, issued) = match judge(&request, &terms) {
                Verdict::Issue(asked, grounds) => {
                    let verdict = self.issue(world, outcome, &request.name_any(), &asked, &grounds).await?;
                    let issued = matches!(verdict, Verdict::Publish(_));
                    (verdict, issued)
                }
                other => (other, false),
            };
            decided.push((request, verdict, issued));
        }
        Ok(decided)
    }

    async fn issue(
        &self,
        world: &mut World,
        outcome: &mut Outcome,
        name: &str,
        asked: &Asked,
        grounds: &Grounds,
    ) -> Result<Verdict, Error> {
        let partner = &self.names.partner;
        let key = &asked.request.public_key_sha256;
        let Some(since) = since(grounds, outcome.enrolment.as_ref(), &outcome.certificates) else {
            return Ok(deny("LeafUnknown", "it is not known since when that may be used by which it was asked for"));
        };
        let first_seen = match self.ctx.claims.claim(&asked.lease, partner, since).await? {
            Claim::Of(_) => return Ok(deny("KeyInUse", "the key is in use by another partner; make a new one")),
            Claim::Mine(lease) => {
                let memory = Memory::of(&lease);
                if memory.revoked {
                    return Ok(deny("KeyRevoked", "the key was revoked, and is never accepted again; make a new one"));
                }
                if !world.leases.iter().any(|held| held.name_any() == asked.lease) {
                    world.leases.push(*lease);
                }
                memory.first_seen.min(since)
            }
        };
        if let (Grounds::Token(_), Some(token)) = (grounds, outcome.enrolment.as_mut()) {
            let Some(lease) = self.ctx.claims.claim_token(&token.token_digest, partner, key, self.now).await? else {
                return Ok(deny("TokenUsed", "the token has been used"));
            };
            if !world.leases.iter().any(|held| held.name_any() == lease.name_any()) {
                world.leases.push(lease);
            }
            token.used_by = Some(key.clone());
        }
        let subject = plan::subject(partner, &self.ctx.settings.domain);
        let issued = self.ctx.authority().issue(&asked.request.key, &subject, self.now, rand::random())?;
        let new = IssuedCertificate {
            sha256: issued.sha256,
            public_key_sha256: key.clone(),
            key_first_seen: Some(Time(first_seen)),
            enrolled_by: Some(name.to_owned()),
            issued_by: None,
            chain: issued.chain.clone(),
            not_before: Time(issued.not_before),
            not_after: Time(issued.not_after),
        };
        outcome.certificates = with_enrolled(std::mem::take(&mut outcome.certificates), new, grounds);
        Ok(Verdict::Publish(issued.chain))
    }

    /// Answers what was decided, once what is issued stands in status.
    pub(super) async fn answer(&self, connection: &PartnerConnection, decided: &[Decided]) -> Result<(), Error> {
        for (request, verdict, _) in decided {
            let answered = match verdict {
                Verdict::Publish(chain) => publish(self.ctx, request, chain).await,
                Verdict::Deny(denial) => refuse(self.ctx, request, denial).await,
                Verdict::Issue(..) => continue,
            };
            match answered {
                Ok(()) => {}
                // Changed or gone meanwhile: what is there comes by the watch.
                Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => continue,
                Err(error) => return Err(error.into()),
            }
            self.tell(connection, request, verdict).await;
        }
        Ok(())
    }

    /// Everybody who looks at the connection sees that a certificate was asked for, and what became of it.
    async fn tell(&self, connection: &PartnerConnection, request: &CertificateSigningRequest, verdict: &Verdict) {
        let by = Grounds::of(request.annotations()).map_or("nothing", |grounds| match grounds {
            Grounds::Token(_) => "its token",
            Grounds::Leaf(_) => "a certificate that it has",
        });
        let name = request.name_any();
        let (type_, reason, note) = match verdict {
            Verdict::Deny(denial) => (
                EventType::Warning,
                "EnrolmentDenied",
                format!("{name}, by {by}: {}: {}", denial.reason, denial.message),
            ),
            _ => (EventType::Normal, "Enrolled", format!("{name}: a certificate was issued to the partner by {by}")),
        };
        tracing::info!(partner = self.names.partner, reason, note, "certificate request answered");
        let event =
            Event { type_, reason: reason.to_owned(), note: Some(note), action: "Enrol".to_owned(), secondary: None };
        if let Err(error) = self.ctx.recorder.publish(&event, &kube::Resource::object_ref(connection, &())).await {
            tracing::debug!(%error, "event not published");
        }
    }
}

fn approved(request: &CertificateSigningRequest) -> bool {
    let conditions = request.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|condition| condition.type_ == "Approved"))
}

fn condition(kind: &str, reason: &str, message: &str) -> serde_json::Value {
    json!({"type": kind, "status": "True", "reason": reason, "message": message})
}

async fn publish(ctx: &Context, request: &CertificateSigningRequest, chain: &str) -> Result<(), kube::Error> {
    let api: Api<CertificateSigningRequest> = Api::all(ctx.client.clone());
    let name = request.name_any();
    let mut version = request.metadata.resource_version.clone();
    if !approved(request) {
        let patch = json!({
            "metadata": {"resourceVersion": version},
            "status": {"conditions": [condition("Approved", "Checked", "the partner may have this certificate")]},
        });
        version = api.patch_approval(&name, &apply::merging(), &Patch::Merge(&patch)).await?.metadata.resource_version;
    }
    let patch = json!({
        "metadata": {"resourceVersion": version},
        "status": {"certificate": ByteString(chain.as_bytes().to_vec())},
    });
    api.patch_status(&name, &apply::merging(), &Patch::Merge(&patch)).await.map(drop)
}

/// Denied; or Failed, where somebody else has approved it.
async fn refuse(ctx: &Context, request: &CertificateSigningRequest, denial: &Denial) -> Result<(), kube::Error> {
    let api: Api<CertificateSigningRequest> = Api::all(ctx.client.clone());
    let was_approved = approved(request);
    let kind = if was_approved { "Failed" } else { "Denied" };
    let held = request.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let mut conditions = serde_json::to_value(held).map_err(kube::Error::SerdeError)?;
    if let Some(all) = conditions.as_array_mut() {
        all.push(condition(kind, denial.reason, &denial.message));
    }
    let patch = json!({
        "metadata": {"resourceVersion": request.metadata.resource_version},
        "status": {"conditions": conditions},
    });
    let (name, patch) = (request.name_any(), Patch::Merge(&patch));
    if was_approved {
        api.patch_status(&name, &apply::merging(), &patch).await.map(drop)
    } else {
        api.patch_approval(&name, &apply::merging(), &patch).await.map(drop)
    }
}

#[cfg(test)]
#[path = "enrolment_tests.rs"]
mod tests;
