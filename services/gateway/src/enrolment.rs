//! A partner's own request for a certificate: what it must say, who may send it, and how it goes to the operator. Pure.
//!
//! The protocol is EST (RFC 7030); its HTTP is [`crate::est`].

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::{
    ByteString,
    api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec},
};
use kube::core::ObjectMeta;
use liaison_crds::{
    PARTNER_LABEL,
    enrolment::{self, Grounds, NAMESPACE_LABEL, SIGNER},
};
use liaison_records::names::PartnerName;

use crate::{
    pkcs7::base64_lines,
    state::{Partner, request_key_sha256},
};

/// Largest body of a request, in bytes.
pub const MAX_BODY: usize = 16 * 1024;

/// Requests at once; after those, one each [`EVERY`].
const BURST: u32 = 20;
/// How often one more request may come.
const EVERY: Duration = Duration::from_secs(10);

/// What is asked for, on whose behalf and on what grounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Namespace of the partner's connection.
    pub namespace: String,
    /// The partner.
    pub partner: PartnerName,
    /// Why it may have a certificate.
    pub grounds: Grounds,
    /// The PKCS#10 request in DER.
    pub request: Vec<u8>,
}

impl Asked {
    /// Name of the object: the same for the same request.
    pub fn name(&self) -> String {
        self.grounds.object_name(&self.namespace, self.partner.as_str(), &self.request)
    }

    /// The object by which the operator is asked.
    pub fn object(&self) -> CertificateSigningRequest {
        let (annotation, value) = self.grounds.annotation();
        let lines = base64_lines(&self.request);
        let pem = format!("-----BEGIN CERTIFICATE REQUEST-----\n{lines}-----END CERTIFICATE REQUEST-----\n");
        CertificateSigningRequest {
            metadata: ObjectMeta {
                name: Some(self.name()),
                labels: Some(BTreeMap::from([
                    (PARTNER_LABEL.to_owned(), self.partner.to_string()),
                    (NAMESPACE_LABEL.to_owned(), self.namespace.clone()),
                ])),
                annotations: Some(BTreeMap::from([(annotation.to_owned(), value.to_owned())])),
                ..ObjectMeta::default()
            },
            spec: CertificateSigningRequestSpec {
                signer_name: SIGNER.to_owned(),
                request: ByteString(pem.into_bytes()),
                usages: Some(vec!["digital signature".to_owned(), "client auth".to_owned()]),
                ..CertificateSigningRequestSpec::default()
            },
            status: None,
        }
    }
}

/// How a request stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Not decided yet.
    Pending,
    /// The certificate, with its chain, in PEM.
    Issued(Vec<u8>),
    /// Denied, for this reason.
    Denied(String),
}

/// Reads how a request stands.
pub fn answer(object: &CertificateSigningRequest) -> Answer {
    let Some(status) = &object.status else { return Answer::Pending };
    let denied = |kind: &str| matches!(kind, "Denied" | "Failed");
    if let Some(condition) = status.conditions.iter().flatten().find(|condition| denied(&condition.type_)) {
        return Answer::Denied(condition.reason.clone().unwrap_or_default());
    }
    status.certificate.as_ref().map_or(Answer::Pending, |pem| Answer::Issued(pem.0.clone()))
}

/// Where requests go.
pub trait Certificates: Send + Sync + 'static {
    /// Asks, unless the same has been asked already, and says how it stands.
    fn ask<'a>(&'a self, asked: &'a Asked) -> BoxFuture<'a, Result<Answer, String>>;
}

/// Reads the body of a request: PKCS#10 in base64, with or without the lines that make it PEM.
pub fn request(body: &[u8]) -> Option<(Vec<u8>, String)> {
    let text = std::str::from_utf8(body).ok()?;
    let lines = text.lines().filter(|line| !line.starts_with("-----"));
    let text: String = lines.flat_map(|line| line.chars().filter(|letter| !letter.is_ascii_whitespace())).collect();
    let der = STANDARD.decode(text).ok()?;
    let key = request_key_sha256(&der)?;
    Some((der, key))
}

/// Why a token brings nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadToken {
    /// None was presented, or another than the partner's.
    Wrong,
    /// Its time is over.
    Expired,
    /// It was used for another key.
    Used,
}

/// Judges the token in an `Authorization` header: Basic (RFC 7617), with the partner's name as the user and the token as the
/// password. `key` is that of the request.
pub fn token(partner: &Partner, authorization: Option<&str>, key: &str, now: Timestamp) -> Result<Grounds, BadToken> {
    let known = partner.enrolment.as_ref().and_then(|enrolment| enrolment.token.as_ref()).ok_or(BadToken::Wrong)?;
    let (scheme, credentials) = authorization.and_then(|text| text.trim().split_once(' ')).ok_or(BadToken::Wrong)?;
    let credentials = STANDARD.decode(credentials.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let credentials = credentials.ok_or(BadToken::Wrong)?;
    let (user, secret) = credentials.split_once(':').ok_or(BadToken::Wrong)?;
    let proof = enrolment::proof(secret);
    // What is compared is public; how long that takes tells nothing of the token.
    if !scheme.eq_ignore_ascii_case("basic")
        || user != partner.name.as_str()
        || enrolment::digest(&proof) != known.digest
    {
        return Err(BadToken::Wrong);
    }
    match &known.used_by {
        Some(holder) if holder == key => {}
        Some(_) => return Err(BadToken::Used),
        None if known.not_after < now => return Err(BadToken::Expired),
        None => {}
    }
    Ok(Grounds::Token(proof))
}

/// How many requests each partner sent of late: each may become an object of the API.
#[derive(Debug, Default)]
pub struct Asking(Mutex<HashMap<PartnerName, (u32, Instant)>>);

impl Asking {
    /// Whether one more may come now.
    pub fn admit(&self, partner: &PartnerName, now: Instant) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A full bucket says nothing; partners come and go.
        all.retain(|_, (left, filled)| {
            while *left < BURST && now.duration_since(*filled) >= EVERY {
                *left += 1;
                *filled += EVERY;
            }
            *left < BURST
        });
        let (left, _) = all.entry(partner.clone()).or_insert((BURST, now));
        let admitted = *left > 0;
        *left = left.saturating_sub(1);
        admitted
    }
}

#[cfg(test)]
#[path = "enrolment_tests.rs"]
mod tests;
