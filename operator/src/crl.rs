//! Revocation lists for third parties: a ConfigMap with one list an issuing CA. Liaison itself reads none: it accepts the
//! certificates that are in a status, and no list stands between a revocation and its effect.
//!
//! What was revoked is noted on the key's claim, which is never freed, before it leaves status; it is listed until it would
//! have ended by itself.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{ConfigMap, Secret},
};
use kube::{Api, Client, ResourceExt, api::ListParams};
use liaison_crds::{REVOKED_ANNOTATION, partner_connection::IssuedCertificate};
use serde::{Deserialize, Serialize};

use crate::{
    apply, authorities,
    ca::{self, CaPair, Revoked},
    install::{Error, own_labels},
    settings::Settings,
};

/// The ConfigMap, in the system namespace.
pub const NAME: &str = "liaison-crl";
/// The annotation of a revoked key's claim that lists the certificates on it.
pub const CERTIFICATES: &str = "federation.csc-scc.gc.ca/certificates";
/// A list counts for so many days, and is made again when half of them are over.
const DAYS: i64 = 8;
const DAY: i64 = 86_400;
/// Objects a page.
const PAGE: u32 = 500;

/// A certificate as a claim notes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Noted {
    serial: String,
    /// SHA-256 of the issuing CA's certificate.
    issuer: String,
    not_after: Timestamp,
}

/// What a claim notes of a key's certificates: those that would still be valid. None: there is none.
pub fn note<'a>(certificates: impl Iterator<Item = &'a IssuedCertificate>, now: Timestamp) -> Option<String> {
    let noted: Vec<Noted> = certificates
        // What another CA issued is on no list of ours.
        .filter(|held| held.not_after.0 > now && held.issued_by.is_none())
        .filter_map(|held| {
            let issuer = ca::digests(&held.chain).into_iter().nth(1)?;
            Some(Noted { serial: ca::serial(&held.chain)?, issuer, not_after: held.not_after.0 })
        })
        .collect();
    if noted.is_empty() { None } else { serde_json::to_string(&noted).ok() }
}

/// The revoked certificates that would still be valid, by the SHA-256 of their issuing CA's certificate.
pub fn revoked<'a>(leases: impl Iterator<Item = &'a Lease>, now: Timestamp) -> BTreeMap<String, BTreeSet<Revoked>> {
    let mut all: BTreeMap<String, BTreeSet<Revoked>> = BTreeMap::new();
    for lease in leases {
        let annotations = lease.annotations();
        let at = annotations.get(REVOKED_ANNOTATION).and_then(|at| at.parse().ok());
        let noted = annotations.get(CERTIFICATES).and_then(|text| serde_json::from_str::<Vec<Noted>>(text).ok());
        let (Some(at), Some(noted)) = (at, noted) else { continue };
        for Noted { serial, issuer, .. } in noted.into_iter().filter(|noted| noted.not_after > now) {
            all.entry(issuer).or_default().insert(Revoked { serial, at });
        }
    }
    all
}

/// The list to publish for a CA: the one that is there while it says the same and counts long enough.
pub fn list(
    ca: &CaPair,
    revoked: &BTreeSet<Revoked>,
    published: Option<&String>,
    now: Timestamp,
) -> Result<String, ca::Error> {
    if let Some((pem, (serials, until))) = published.and_then(|pem| Some((pem, ca::read_crl(pem)?))) {
        let said: BTreeSet<&str> = serials.iter().map(String::as_str).collect();
        let wanted: BTreeSet<&str> = revoked.iter().map(|revoked| revoked.serial.as_str()).collect();
        let fresh = until.as_second() - now.as_second() > DAYS * DAY / 2;
        // It is this CA's own: a CA that was made anew has the name of the old one.
        if said == wanted && fresh && ca::signed_crl(ca, pem) {
            return Ok(pem.clone());
        }
    }
    let until = Timestamp::from_second(now.as_second() + DAYS * DAY).unwrap_or(now);
    ca::sign_crl(ca, &revoked.iter().cloned().collect::<Vec<_>>(), now, until)
}

/// Publishes the lists of all issuing CAs; writes nothing while they stay as they are.
pub async fn publish(client: &Client, settings: &Settings, now: Timestamp) -> Result<(), Error> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &settings.system_namespace);
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &settings.system_namespace);
    let leases: Api<Lease> = Api::namespaced(client.clone(), &settings.system_namespace);
    let mut claims = Vec::new();
    let managed = format!("app.kubernetes.io/managed-by={}", apply::MANAGER);
    let mut params = ListParams::default().labels(&managed).limit(PAGE);
    loop {
        let page = leases.list(&params).await?;
        claims.extend(page.items.into_iter().filter(|lease| lease.annotations().contains_key(CERTIFICATES)));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => break,
        }
    }
    let revoked = revoked(claims.iter(), now);
    let published = maps.get_opt(NAME).await?.and_then(|map| map.data).unwrap_or_default();
    let all = authorities::load(&secrets).await?;
    let mut data = BTreeMap::new();
    for (name, pair) in all.issuing() {
        let key = format!("{name}.crl");
        let of = ca::digests(&pair.certificate).into_iter().next().unwrap_or_default();
        let empty = BTreeSet::new();
        let made = list(pair, revoked.get(&of).unwrap_or(&empty), published.get(&key), now)?;
        data.insert(key, made);
    }
    let mut map = ConfigMap { data: Some(data), ..ConfigMap::default() };
    map.metadata.name = Some(NAME.to_owned());
    map.metadata.labels = Some(own_labels().into());
    apply::ensure(&maps, map).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::partner_connection::fixtures::now;

    fn at(day: i64) -> Timestamp {
        Timestamp::from_second(now().as_second() + day * DAY).unwrap()
    }

    #[test]
    fn a_list_is_made_again_when_it_says_less_or_gets_old_and_only_then() {
        let root = ca::make_root("x.ca", 1, now(), [1; 16]).unwrap();
        let issuing = ca::make_issuing(&root, "x.ca", 1, now(), [2; 16]).unwrap();
        let other = ca::make_issuing(&root, "x.ca", 1, now(), [3; 16]).unwrap();
        let authority = ca::Authority::load(&issuing, "", &root.certificate).unwrap();
        let (issued, _) = authority.issue_with_key(&ca::Subject::default(), now(), [4; 16]).unwrap();
        let held = IssuedCertificate {
            sha256: issued.sha256,
            public_key_sha256: "k".to_owned(),
            key_first_seen: None,
            enrolled_by: None,
            issued_by: None,
            chain: issued.chain,
            not_before: Time(issued.not_before),
            not_after: Time(issued.not_after),
        };
        assert_eq!(note([&held].into_iter(), at(31)), None, "it has ended");
        let mut lease = Lease::default();
        lease.annotations_mut().insert(CERTIFICATES.to_owned(), note([&held].into_iter(), now()).unwrap());
        assert!(revoked([&lease].into_iter(), now()).is_empty(), "not revoked");
        lease.annotations_mut().insert(REVOKED_ANNOTATION.to_owned(), at(1).to_string());
        let found = revoked([&lease].into_iter(), at(2));
        let of = &found[&ca::digests(&issuing.certificate)[0]];
        assert_eq!(of.first().map(|revoked| (revoked.at, revoked.serial.len())), Some((at(1), 32)));
        assert!(revoked([&lease].into_iter(), at(31)).is_empty(), "it would have ended by now");

        let empty = list(&issuing, &BTreeSet::new(), None, now()).unwrap();
        assert_eq!(list(&issuing, &BTreeSet::new(), Some(&empty), at(3)).unwrap(), empty);
        let first = list(&issuing, of, Some(&empty), at(3)).unwrap();
        assert_eq!(ca::read_crl(&first).unwrap(), (vec![ca::serial(&held.chain).unwrap()], at(11)));
        assert_eq!(list(&issuing, of, Some(&first), at(6)).unwrap(), first);
        assert_ne!(list(&issuing, of, Some(&first), at(8)).unwrap(), first);
        assert_ne!(list(&other, of, Some(&first), at(6)).unwrap(), first, "of another key");
    }
}
