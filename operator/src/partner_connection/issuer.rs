//! Certificates from cert-manager, by `CertificateRequest`, when the manifest names an issuer: what is asked, when it is asked
//! again, and what is taken of the answer.
//!
//! The requests that are there are all the state. Each has a number; one that failed is followed by another after a wait that
//! doubles (cert-manager's own begins at an hour). What the issuer returns is looked at like anything from outside: the
//! partner's key, its one name, for clients, in its time.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams},
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use liaison_crds::{
    PARTNER_LABEL,
    partner_connection::{IssuedCertificate, IssuerRef},
};
use serde_json::{Value, json};

use super::{
    Error,
    apply::{Visit, owner},
    plan,
    status::State,
    validate::Checked,
};
use crate::{apply, ca, ca::LEAF_DAYS};

/// The label that says on which key a request is.
const KEY: &str = "federation.csc-scc.gc.ca/key";
/// The first wait after a failure, in seconds; it doubles.
const FIRST: i64 = 30;
/// The longest.
const LONGEST: i64 = 3600;
/// Why there is no certificate yet, in status.
pub const PENDING: &str = "IssuerPending";
/// Requests that are kept of each key: the newest say how often it failed.
const KEPT: usize = 8;

/// After how many seconds an issuer's answer is looked for again, when it has been waited for so long: soon at first. What cert-manager
/// has of it is not watched, since an installation may have no cert-manager.
pub fn look_again(waited: i64) -> i64 {
    (waited / 4).clamp(2, 20)
}

/// A request that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// Counted up a key.
    pub number: u32,
    /// The issuer that it names.
    pub issuer: String,
    /// What came of it.
    pub answer: Answer,
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Nothing yet; what is said of it.
    Pending(String),
    /// It is over, and brought nothing.
    Failed {
        /// When.
        at: Timestamp,
        /// Why.
        why: String,
    },
    /// A chain in PEM, leaf first.
    Issued {
        /// When it was asked for.
        at: Timestamp,
        /// The chain.
        chain: String,
    },
}

/// What to do for a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// There is a certificate, and no other is due.
    Have,
    /// Make the request of this number.
    Ask(u32),
    /// Wait for the issuer.
    Wait(String),
    /// It failed; the next request is made then.
    Again(Timestamp, String),
}

/// A certificate that may be accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// What is read from it.
    pub read: ca::Foreign,
    /// Leaf first, in PEM.
    pub chain: String,
}

/// What is wanted of an issuer.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// The issuer, as a request names it.
    pub issuer: &'a str,
    /// The key, by SHA-256.
    pub key: &'a str,
    /// The one name.
    pub name: &'a str,
}

/// Decides on one key from its requests.
pub fn next(made: &[Made], wanted: &Wanted<'_>, now: Timestamp) -> Next {
    let mut all: Vec<&Made> = made.iter().collect();
    all.sort_by_key(|made| std::cmp::Reverse(made.number));
    let number = all.first().map_or(1, |newest| newest.number + 1);
    // Another issuer's failures are none of this one's.
    let same = all.into_iter().take_while(|made| made.issuer == wanted.issuer);
    let (mut failures, mut last) = (0_u32, None);
    for made in same {
        match &made.answer {
            Answer::Pending(said) if failures == 0 => return Next::Wait(said.clone()),
            Answer::Pending(_) => break,
            Answer::Issued { at, chain } => match take(chain, wanted, now) {
                // An issuer may return what is old already, and is not asked for more at once.
                Ok(taken)
                    if failures == 0
                        && (now < taken.read.validity.renewal() || now.as_second() < at.as_second() + LONGEST) =>
                {
                    return Next::Have;
                }
                Ok(_) => break,
                Err(why) => {
                    failures += 1;
                    last = last.or(Some((*at, why)));
                }
            },
            Answer::Failed { at, why } => {
                failures += 1;
                last = last.or_else(|| Some((*at, why.clone())));
            }
        }
    }
    let Some((at, why)) = last else { return Next::Ask(number) };
    let wait = FIRST.saturating_mul(1 << (failures - 1).min(20)).min(LONGEST);
    let again = Timestamp::from_second(at.as_second() + wait).unwrap_or(now);
    if again <= now { Next::Ask(number) } else { Next::Again(again, why) }
}

/// The newest certificate that may be accepted, whatever came of later requests.
pub fn newest(made: &[Made], wanted: &Wanted<'_>, now: Timestamp) -> Option<Taken> {
    let mut all: Vec<&Made> = made.iter().filter(|made| made.issuer == wanted.issuer).collect();
    all.sort_by_key(|made| std::cmp::Reverse(made.number));
    all.into_iter().find_map(|made| match &made.answer {
        Answer::Issued { chain, .. } => take(chain, wanted, now).ok(),
        _ => None,
    })
}

/// Takes what an issuer returned, or says why not.
fn take(chain: &str, wanted: &Wanted<'_>, now: Timestamp) -> Result<Taken, String> {
    let read = ca::read_foreign(chain).map_err(|error| format!("the certificate cannot be read: {error}"))?;
    if read.public_key_sha256 != wanted.key {
        return Err("the certificate is of another key".to_owned());
    }
    if read.names != [wanted.name] {
        return Err(format!("the certificate must bear the name {} and no other", wanted.name));
    }
    if !read.for_clients {
        return Err("the certificate is not for TLS clients".to_owned());
    }
    if read.validity.not_after <= now {
        return Err("the certificate has ended".to_owned());
    }
    Ok(Taken { read, chain: chain.to_owned() })
}

/// Reads a `CertificateRequest`.
pub fn read(object: &DynamicObject) -> Option<Made> {
    let number = object.name_any().rsplit('-').next()?.parse().ok()?;
    let made = object.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |at| at.0);
    let text = |pointer: &str| object.data.pointer(pointer).and_then(Value::as_str);
    let issuer = IssuerRef {
        name: text("/spec/issuerRef/name")?.to_owned(),
        kind: text("/spec/issuerRef/kind").map(str::to_owned),
        group: text("/spec/issuerRef/group").map(str::to_owned),
    };
    let conditions = object.data.pointer("/status/conditions").and_then(Value::as_array);
    let said = |kind: &str, status: &str| {
        let of = |condition: &&Value| condition["type"] == kind && condition["status"] == status;
        conditions.into_iter().flatten().find(of)
    };
    let message = |condition: &Value| condition["message"].as_str().unwrap_or_default().to_owned();
    let over = said("Denied", "True")
        .or_else(|| said("InvalidRequest", "True"))
        .or_else(|| said("Ready", "False").filter(|ready| ready["reason"] == "Failed" || ready["reason"] == "Denied"));
    let answer = match (over, said("Ready", "True"), text("/status/certificate")) {
        (Some(over), ..) => {
            let at = text("/status/failureTime").or_else(|| over["lastTransitionTime"].as_str());
            Answer::Failed { at: at.and_then(|at| at.parse().ok()).unwrap_or(made), why: message(over) }
        }
        (None, Some(_), Some(encoded)) => match decode(encoded) {
            Some(chain) => Answer::Issued { at: made, chain },
            None => Answer::Failed { at: made, why: "what the issuer returned is no text".to_owned() },
        },
        _ => Answer::Pending(said("Ready", "False").map_or_else(|| "it has not been looked at".to_owned(), message)),
    };
    Some(Made { number, issuer: issuer.to_string(), answer })
}

fn decode(encoded: &str) -> Option<String> {
    use base64::Engine;
    let bytes = base64::engine::general_purpose::STANDARD.decode(encoded).ok()?;
    String::from_utf8(bytes).ok()
}

/// What cert-manager is asked.
pub fn api_resource() -> ApiResource {
    let kind = GroupVersionKind::gvk("cert-manager.io", "v1", "CertificateRequest");
    ApiResource::from_gvk_with_plural(&kind, "certificaterequests")
}

/// What came of asking elsewhere.
#[derive(Debug, Default)]
pub struct Elsewhere {
    /// The certificates, by key.
    pub certificates: BTreeMap<String, IssuedCertificate>,
    /// Why there is not one for each key.
    pub problem: Option<State>,
}

impl Visit<'_> {
    /// Asks the issuer that the manifest names for what is due. None: the manifest names none.
    pub(super) async fn elsewhere(
        &self,
        connection: &liaison_crds::PartnerConnection,
        checked: &Checked,
    ) -> Result<Option<Elsewhere>, Error> {
        let Some(issuer) = &checked.issuer else { return Ok(None) };
        let mut found = Elsewhere::default();
        if checked.revoked || checked.authorized_until().is_none() {
            return Ok(Some(found));
        }
        let (client, namespace) = (self.ctx.client.clone(), &self.ctx.settings.partners_namespace);
        let api: Api<DynamicObject> = Api::namespaced_with(client, namespace, &api_resource());
        let name = plan::spiffe(&self.names.partner, &self.ctx.settings.domain);
        let labels = format!("{PARTNER_LABEL}={}", self.names.partner);
        let list = match api.list(&ListParams::default().labels(&labels)).await {
            Ok(list) => list.items,
            Err(error) if apply::is_out_of_reach(&error) => {
                let message = "cert-manager.io/v1 CertificateRequest is not there, or the operator may not make one: \
                               install cert-manager, and set `certManager.enabled` of the chart";
                found.problem = Some(State::no("IssuerNotThere", message));
                return Ok(Some(found));
            }
            Err(error) => return Err(error.into()),
        };
        for asked in &checked.requests {
            let key = asked.request.public_key_sha256.as_str();
            // What another CA finds in a request it may well sign.
            if asked.request.names != [name.as_str()] {
                let place = &asked.place;
                let message = format!(
                    "{place}: with `issuerRef`, its request must ask for the name {name} and no other, as of \
                     `openssl req -new -addext subjectAltName=URI:{name}`"
                );
                found.problem = Some(State::no("InvalidSigningRequest", message));
                continue;
            }
            let label = key.get(..40).unwrap_or(key);
            let of_key = list.iter().filter(|object| object.labels().get(KEY).is_some_and(|of| of == label));
            let mut made: Vec<(Made, String)> =
                of_key.filter_map(|object| Some((read(object)?, object.name_any()))).collect();
            made.sort_by_key(|(made, _)| std::cmp::Reverse(made.number));
            let all: Vec<Made> = made.iter().map(|(made, _)| made.clone()).collect();
            let wanted = Wanted { issuer: &issuer.to_string(), key, name: &name };
            if let Some(Taken { read, chain }) = newest(&all, &wanted, self.now) {
                let held = IssuedCertificate {
                    sha256: read.sha256,
                    public_key_sha256: key.to_owned(),
                    key_first_seen: None,
                    enrolled_by: None,
                    issued_by: Some(issuer.to_string()),
                    chain,
                    not_before: Time(read.validity.not_before),
                    not_after: Time(read.validity.not_after),
                };
                found.certificates.insert(key.to_owned(), held);
            }
            match next(&all, &wanted, self.now) {
                Next::Have => {}
                Next::Ask(number) => {
                    let object_name = format!("{}-{}-{number}", self.names.partner, key.get(..10).unwrap_or(key));
                    let mut object =
                        DynamicObject::new(&object_name, &api_resource()).data(body(issuer, &asked.request.pem));
                    object.labels_mut().extend(self.names.labels("certificate"));
                    object.labels_mut().insert(KEY.to_owned(), label.to_owned());
                    object.metadata.owner_references = owner(connection).map(|owner| vec![owner]);
                    api.create(&kube::api::PostParams::default(), &object).await?;
                    for (_, old) in made.iter().skip(KEPT - 1) {
                        match api.delete(old, &DeleteParams::default()).await {
                            Ok(_) => {}
                            Err(error) if apply::is_gone(&error) => {}
                            Err(error) => return Err(error.into()),
                        }
                    }
                    found.problem = Some(State::no(PENDING, format!("{issuer} has been asked ({object_name})")));
                }
                Next::Wait(said) => {
                    found.problem = Some(State::no(PENDING, format!("{issuer} has not answered: {said}")));
                }
                Next::Again(at, why) => {
                    let message = format!("{issuer} refused: {why}; it is asked again at {at}");
                    found.problem = Some(State::no("IssuerRefused", message));
                }
            }
        }
        Ok(Some(found))
    }
}

fn body(issuer: &IssuerRef, request: &str) -> Value {
    use base64::Engine;
    json!({"spec": {
        "request": base64::engine::general_purpose::STANDARD.encode(request),
        "issuerRef": {"name": issuer.name, "kind": issuer.kind(), "group": issuer.group()},
        "duration": format!("{}h", LEAF_DAYS * 24),
        "usages": ["digital signature", "client auth"],
        "isCA": false,
    }})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partner_connection::fixtures::now;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(now().as_second() + seconds).unwrap()
    }

    fn failed(number: u32, second: i64) -> Made {
        let answer = Answer::Failed { at: at(second), why: "no".to_owned() };
        Made { number, issuer: "g/Issuer/a".to_owned(), answer }
    }

    #[test]
    fn an_answer_is_looked_for_soon_at_first_and_then_less_often() {
        let mut waited = 0;
        let mut looks = Vec::new();
        while waited < 60 {
            looks.push(look_again(waited));
            waited += look_again(waited);
        }
        assert_eq!(looks, [2, 2, 2, 2, 2, 2, 3, 3, 4, 5, 6, 8, 10, 12]);
        assert_eq!((look_again(86_400), look_again(-5)), (20, 2));
    }

    #[test]
    fn a_failure_is_followed_by_another_request_after_a_wait_that_doubles() {
        let wanted = Wanted { issuer: "g/Issuer/a", key: "k", name: "spiffe://x/partner/p" };
        assert_eq!(next(&[], &wanted, at(0)), Next::Ask(1));
        let one = [failed(1, 0)];
        assert_eq!(next(&one, &wanted, at(29)), Next::Again(at(30), "no".to_owned()));
        assert_eq!(next(&one, &wanted, at(30)), Next::Ask(2));
        let three = [failed(3, 100), failed(1, 0), failed(2, 30)];
        assert_eq!(next(&three, &wanted, at(219)), Next::Again(at(220), "no".to_owned()));
        assert_eq!(next(&three, &wanted, at(220)), Next::Ask(4));
        let many: Vec<Made> = (1..60).map(|n| failed(n, 0)).collect();
        assert_eq!(next(&many, &wanted, at(3599)), Next::Again(at(3600), "no".to_owned()));
        // Another issuer is asked at once.
        let other = Wanted { issuer: "g/Issuer/b", ..wanted };
        assert_eq!(next(&three, &other, at(101)), Next::Ask(4));
    }

    #[test]
    fn what_an_issuer_returns_is_taken_only_for_the_key_and_the_name_that_were_asked() {
        let root = ca::make_root("ministry", 1, now(), [1; 16]).unwrap();
        let issuing = ca::make_issuing(&root, "ministry", 1, now(), [2; 16]).unwrap();
        let authority = ca::Authority::load(&issuing, "", &root.certificate).unwrap();
        let name = "spiffe://x/partner/p";
        let issue = |uris: &[&str], client: bool| {
            let uris = uris.iter().map(|uri| (*uri).to_owned()).collect();
            let subject = ca::Subject { uris, client, server: !client, ..ca::Subject::default() };
            authority.issue_with_key(&subject, now(), [3; 16]).unwrap().0.chain
        };
        let judge = |chain: &str, key: Option<&str>, seconds: i64| {
            let own = ca::read_foreign(chain).unwrap().public_key_sha256;
            let wanted = Wanted { issuer: "g/Issuer/a", key: key.unwrap_or(&own), name };
            let answer = Answer::Issued { at: at(0), chain: chain.to_owned() };
            match next(&[Made { number: 1, issuer: "g/Issuer/a".to_owned(), answer }], &wanted, at(seconds)) {
                Next::Have => "have".to_owned(),
                Next::Ask(number) => format!("ask {number}"),
                Next::Again(_, why) => why,
                Next::Wait(said) => panic!("{said}"),
            }
        };
        let good = issue(&[name], true);
        assert_eq!(judge(&good, None, 1), "have");
        assert_eq!(judge(&good, None, 21 * 86_400), "ask 2", "it is old, and no failure");
        assert!(judge(&good, Some("another"), 1).contains("another key"));
        assert!(judge(&issue(&[name], false), None, 1).contains("not for TLS clients"));
        for uris in [&[][..], &["spiffe://x/gateway"], &[name, "spiffe://x/gateway"]] {
            assert!(judge(&issue(uris, true), None, 1).contains("must bear the name"), "{uris:?}");
        }
    }
}
