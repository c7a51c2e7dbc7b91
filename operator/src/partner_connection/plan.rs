//! What is to be granted: keys, certificates and connection data, from what was checked and what is granted already.
//!
//! Pure: time and serials are parameters.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use liaison_crds::{
    GatewayName,
    partner_connection::{Connection, IssuedCertificate, PartnerConnectionStatus, SeenKey},
};

use super::validate::Checked;
use crate::{
    ca::{self, Authority, LEAF_DAYS, Subject},
    claims::{self, Memories, Memory},
    gateway_keys::Gateway,
    settings::Settings,
    slots::Pools,
};

/// The WireGuard keys that are accepted, and since when they are known: those of the manifest, once accepted; those already
/// accepted and still in the manifest otherwise; none when revoked, and none that ever was.
pub fn keys(checked: &Checked, status: Option<&PartnerConnectionStatus>, memories: &Memories) -> Vec<SeenKey> {
    if checked.revoked {
        return Vec::new();
    }
    let granted = |key: &str| status.is_some_and(|status| status.wire_guard_keys.iter().any(|granted| granted == key));
    let stated = |key: &str| {
        let mut all = status.into_iter().flat_map(|status| &status.wire_guard_keys_seen);
        all.find(|seen| seen.public_key == key)
    };
    let live = checked.keys.iter().filter(|key| checked.accepted() || granted(&key.text));
    live.filter_map(|key| {
        let stated = stated(&key.text);
        let first_seen = first_seen(memories.get(&key.lease), stated.map(|seen| seen.first_seen.0))?;
        // One that is accepted already stays as it is: its holder would be cut.
        let preshared = stated.map_or(checked.preshared.is_some() && !granted(&key.text), |seen| seen.preshared);
        Some(SeenKey { public_key: key.text.clone(), first_seen: Time(first_seen), preshared })
    })
    .collect()
}

/// When a key was first seen, by its claim or by what status says; none if it was revoked.
fn first_seen(memory: Option<&Memory>, stated: Option<Timestamp>) -> Option<Timestamp> {
    match memory {
        Some(memory) if memory.revoked => None,
        Some(memory) => Some(stated.map_or(memory.first_seen, |stated| stated.min(memory.first_seen))),
        // A claim that somebody has deleted takes nothing away; who knows nothing of it knows no time either.
        None => Some(stated.unwrap_or(Timestamp::UNIX_EPOCH)),
    }
}

/// What the manifest still names and was revoked.
pub fn revoked(checked: &Checked, memories: &Memories) -> Vec<String> {
    let was = |lease: &String| memories.get(lease).is_some_and(|memory| memory.revoked);
    checked.named().filter(|(lease, _)| was(lease)).map(|(_, what)| what).collect()
}

/// A partner's name in a certificate.
pub fn spiffe(partner: &str, domain: &str) -> String {
    format!("spiffe://{domain}/partner/{partner}")
}

/// Who issues a partner's certificates.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// Liaison's own CA.
    Own(&'a Authority),
    /// Another, which has issued these, by key.
    Elsewhere(&'a BTreeMap<String, IssuedCertificate>),
}

/// What a partner's certificate is for: to be known as this partner at its own gateway address.
pub fn subject(partner: &str, domain: &str) -> Subject {
    Subject {
        common_name: partner.to_owned(),
        uris: vec![spiffe(partner, domain)],
        client: true,
        days: LEAF_DAYS,
        ..Subject::default()
    }
}

/// Certificates of one request that may be accepted at a time.
const MOST: usize = 6;

/// The certificates that are accepted: for each request the newest, and its predecessors until they end.
///
/// One is issued when there is none and the connection is accepted, and again at two thirds of its life while the partner
/// is authorized at all.
pub fn certificates(
    subject: &Subject,
    checked: &Checked,
    status: Option<&PartnerConnectionStatus>,
    memories: &Memories,
    source: Source<'_>,
    now: Timestamp,
    mut serial: impl FnMut() -> [u8; 16],
) -> Result<Vec<IssuedCertificate>, ca::Error> {
    let mut all = Vec::new();
    if checked.revoked {
        return Ok(all);
    }
    for asked in &checked.requests {
        let spki = &asked.request.public_key_sha256;
        let mut held: Vec<IssuedCertificate> = status
            .iter()
            .flat_map(|status| &status.certificates)
            .filter(|held| held.enrolled_by.is_none() && held.public_key_sha256 == *spki && held.not_after.0 > now)
            .cloned()
            .collect();
        held.sort_by_key(|held| std::cmp::Reverse(held.not_after.0));
        let stated = held.iter().filter_map(|held| held.key_first_seen.as_ref()).map(|seen| seen.0).min();
        let Some(first_seen) = first_seen(memories.get(&asked.lease), stated) else { continue };
        let new = match source {
            Source::Own(authority) => {
                let issue = match held.first() {
                    None => checked.accepted(),
                    Some(newest) => checked.authorized_until().is_some() && authority.is_due(&newest.chain, now),
                };
                let issued =
                    if issue { Some(authority.issue(&asked.request.key, subject, now, serial())?) } else { None };
                issued.map(|issued| IssuedCertificate {
                    sha256: issued.sha256,
                    public_key_sha256: spki.clone(),
                    key_first_seen: None,
                    enrolled_by: None,
                    issued_by: None,
                    chain: issued.chain,
                    not_before: Time(issued.not_before),
                    not_after: Time(issued.not_after),
                })
            }
            Source::Elsewhere(issued) => {
                let there = |new: &&IssuedCertificate| held.iter().any(|held| held.sha256 == new.sha256);
                issued.get(spki).filter(|new| !there(new)).cloned()
            }
        };
        if let Some(new) = new {
            held.insert(0, new);
        }
        // Two of each issuing CA that may still be in use, and no more.
        held.truncate(MOST);
        for held in &mut held {
            if let Source::Own(authority) = source
                && let Some(chain) = authority.rechain(&held.chain)
            {
                held.chain = chain;
            }
            held.key_first_seen = Some(Time(first_seen));
        }
        all.extend(held);
    }
    all.extend(enrolled(checked, status, memories, now));
    Ok(all)
}

/// Those that the partner got by asking itself, while it may: it renews them, nobody else does.
fn enrolled(
    checked: &Checked,
    status: Option<&PartnerConnectionStatus>,
    memories: &Memories,
    now: Timestamp,
) -> Vec<IssuedCertificate> {
    let held = status.into_iter().flat_map(|status| &status.certificates);
    held.filter(|held| checked.enrolment.is_some() && held.enrolled_by.is_some() && held.not_after.0 > now)
        .filter_map(|held| {
            let lease = claims::request_lease(&held.public_key_sha256);
            let seen = first_seen(memories.get(&lease), held.key_first_seen.as_ref().map(|seen| seen.0))?;
            Some(IssuedCertificate { key_first_seen: Some(Time(seen)), ..held.clone() })
        })
        .collect()
}

/// How the partner connects, given its slot, and its shard with what partners are told of that.
pub fn connection(
    partner: &str,
    slot: u32,
    pools: &Pools,
    settings: &Settings,
    (shard, gateway): (&GatewayName, &Gateway),
    bundle: &str,
) -> Connection {
    let (gateway_addresses, partner_addresses) = pools.addresses(slot);
    let retiring = gateway.retiring.as_ref();
    Connection {
        gateway: Some(shard.to_string()),
        endpoint: gateway.endpoint.clone(),
        gateway_public_keys: [&gateway.key].into_iter().chain(retiring.map(|(key, _)| key)).cloned().collect(),
        retiring_endpoint: retiring.map(|(_, endpoint)| endpoint.clone()),
        partner_addresses,
        gateway_addresses,
        server_name: format!("{partner}.{}", settings.domain),
        ca_bundle: bundle.to_owned(),
    }
}

/// When something will have to be done though nobody changes anything.
pub fn next_date(checked: &Checked, certificates: &[IssuedCertificate]) -> Option<Timestamp> {
    let ours = certificates.iter().filter(|held| held.enrolled_by.is_none());
    let renewals = ours.filter_map(|held| Some(ca::read(&held.chain).ok()?.renewal()));
    let ends = certificates.iter().map(|held| held.not_after.0);
    renewals.chain(ends).chain(checked.covered_until).chain(checked.begins).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partner_connection::{
        fixtures::{agreement, authority, connection as fixture, now, provisioned},
        validate::validate,
    };

    #[test]
    fn a_preshared_key_comes_with_the_next_key_and_stays_with_it() {
        let mut c = fixture("vancouver-police");
        let old = c.spec.credentials.wire_guard.public_keys[0].clone();
        c.status = Some(PartnerConnectionStatus { wire_guard_keys: vec![old.clone()], ..provisioned() });
        c.spec.credentials.wire_guard.public_keys.push("ANN0WtCmwgRlYsYdHWp7ztCY5OqmHxEjtyEDx6pCWEE=".to_owned());
        c.spec.credentials.wire_guard.preshared_key = Some(liaison_crds::partner_connection::PresharedKey::Required);
        let granted = |c: &liaison_crds::PartnerConnection| {
            let checked = validate(c, Some(&agreement()), "shared", now());
            keys(&checked, c.status.as_ref(), &remembered(&checked, false))
        };
        let which = |keys: &[SeenKey]| keys.iter().map(|key| key.preshared).collect::<Vec<_>>();
        let first = granted(&c);
        assert_eq!(which(&first), [false, true]);
        // Whatever the manifest says later.
        c.spec.credentials.wire_guard.preshared_key = None;
        let texts = first.iter().map(|key| key.public_key.clone()).collect();
        c.status =
            Some(PartnerConnectionStatus { wire_guard_keys: texts, wire_guard_keys_seen: first, ..provisioned() });
        assert_eq!(which(&granted(&c)), [false, true]);
    }

    /// As if all the manifest's keys had been claimed on the first day.
    fn remembered(checked: &Checked, revoked: bool) -> Memories {
        let memory = Memory { first_seen: now(), revoked };
        checked.named().map(|(lease, _)| (lease.clone(), memory)).collect()
    }

    #[test]
    fn a_revoked_key_gets_nothing_and_the_manifest_is_told_which() {
        let c = fixture("vancouver-police");
        let checked = validate(&c, Some(&agreement()), "shared", now());
        let issue = |revoked| {
            let memories = remembered(&checked, revoked);
            let issued = certificates(
                &subject("p", "x.ca"),
                &checked,
                None,
                &memories,
                Source::Own(&authority()),
                now(),
                || [9; 16],
            );
            (keys(&checked, None, &memories).len(), issued.unwrap().len(), plan_revoked(&checked, &memories))
        };
        assert_eq!(issue(false), (1, 1, 0));
        assert_eq!(issue(true), (0, 0, 2));
    }

    fn plan_revoked(checked: &Checked, memories: &Memories) -> usize {
        revoked(checked, memories).len()
    }

    #[test]
    fn a_certificate_is_issued_once_and_renewed_beside_the_old_one() {
        let (authority, agreement) = (authority(), agreement());
        let mut c = fixture("vancouver-police");
        let at = |day: i64| Timestamp::from_second(now().as_second() + day * 86_400).unwrap();
        let issue = |c: &liaison_crds::PartnerConnection, day| {
            let checked = validate(c, Some(&agreement), "shared", at(day));
            let memories = remembered(&checked, false);
            let status = c.status.as_ref();
            let subject = subject("vancouver-police", "x.ca");
            certificates(&subject, &checked, status, &memories, Source::Own(&authority), at(day), || [9; 16]).unwrap()
        };
        let first = issue(&c, 0);
        assert_eq!(first.len(), 1);
        c.status = Some(PartnerConnectionStatus { certificates: first.clone(), ..provisioned() });
        assert_eq!(issue(&c, 1), first);
        let second = issue(&c, 21);
        assert_eq!((second.len(), &second[1]), (2, &first[0]));
        c.status = Some(PartnerConnectionStatus { certificates: second.clone(), ..provisioned() });
        assert_eq!(issue(&c, 31), second[..1]);
        c.spec.revocation = Some(liaison_crds::partner_connection::Revocation { revoked: true, not_before: None });
        assert!(issue(&c, 1).is_empty());
    }

    #[test]
    fn a_refused_edit_adds_no_key_and_a_removed_one_goes() {
        let mut c = fixture("vancouver-police");
        let old = c.spec.credentials.wire_guard.public_keys[0].clone();
        c.status = Some(PartnerConnectionStatus { wire_guard_keys: vec![old.clone()], ..provisioned() });
        let new = "ANN0WtCmwgRlYsYdHWp7ztCY5OqmHxEjtyEDx6pCWEE=".to_owned();
        c.spec.credentials.wire_guard.public_keys = vec![old.clone(), new.clone()];
        c.spec.credentials.certificate.signing_requests[0] = "x".into();
        let checked = validate(&c, Some(&agreement()), "shared", now());
        let texts = |checked: &Checked, revoked| -> Vec<String> {
            let keys = keys(checked, c.status.as_ref(), &remembered(checked, revoked));
            keys.into_iter().map(|key| key.public_key).collect()
        };
        assert_eq!(texts(&checked, false), [old]);
        assert!(texts(&checked, true).is_empty(), "revoked, though status grants it and spec names it");
        let mut c = c.clone();
        c.spec.credentials.wire_guard.public_keys = vec![new];
        let checked = validate(&c, Some(&agreement()), "shared", now());
        assert!(keys(&checked, c.status.as_ref(), &remembered(&checked, false)).is_empty());
    }
}
