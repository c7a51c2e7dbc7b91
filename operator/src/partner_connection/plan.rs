//! What is to be granted: keys, certificates and connection data, from what was checked and what is granted already.
//!
//! Pure: time and serials are parameters.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use liaison_crds::partner_connection::{Connection, IssuedCertificate, PartnerConnectionStatus};

use super::validate::Checked;
use crate::{
    ca::{self, Authority, LEAF_DAYS, Subject},
    settings::Settings,
    slots::Pools,
};

/// The WireGuard keys that are accepted: those of the manifest, once accepted; those already accepted and still in the
/// manifest otherwise; none when revoked.
pub fn keys(checked: &Checked, status: Option<&PartnerConnectionStatus>) -> Vec<String> {
    if checked.revoked {
        return Vec::new();
    }
    let granted = |key: &str| status.is_some_and(|status| status.wire_guard_keys.iter().any(|granted| granted == key));
    let texts = checked.keys.iter().map(|key| &key.text);
    texts.filter(|key| checked.accepted() || granted(key)).cloned().collect()
}

/// The certificates that are accepted: for each request the newest, and its predecessor until that ends.
///
/// One is issued when there is none and the connection is accepted, and again at two thirds of its life while the partner
/// is authorized at all.
pub fn certificates(
    partner: &str,
    checked: &Checked,
    status: Option<&PartnerConnectionStatus>,
    authority: &Authority,
    domain: &str,
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
            .filter(|held| held.public_key_sha256 == *spki && held.not_after.0 > now)
            .cloned()
            .collect();
        held.sort_by_key(|held| std::cmp::Reverse(held.not_after.0));
        let issue = match held.first() {
            None => checked.accepted(),
            Some(newest) => checked.authorized_until().is_some() && authority.is_due(&newest.chain, now),
        };
        if issue {
            let subject = Subject {
                common_name: partner.to_owned(),
                uris: vec![format!("spiffe://{domain}/partner/{partner}")],
                client: true,
                days: LEAF_DAYS,
                ..Subject::default()
            };
            let issued = authority.issue(&asked.request.key, &subject, now, serial())?;
            held.insert(
                0,
                IssuedCertificate {
                    sha256: issued.sha256,
                    public_key_sha256: spki.clone(),
                    chain: issued.chain,
                    not_before: Time(issued.not_before),
                    not_after: Time(issued.not_after),
                },
            );
        }
        held.truncate(2);
        all.extend(held);
    }
    Ok(all)
}

/// How the partner connects, given its slot.
pub fn connection(
    partner: &str,
    slot: u32,
    pools: &Pools,
    settings: &Settings,
    gateway_key: &str,
    root: &str,
) -> Connection {
    let (gateway_addresses, partner_addresses) = pools.addresses(slot);
    Connection {
        endpoint: settings.endpoint.clone(),
        gateway_public_keys: vec![gateway_key.to_owned()],
        partner_addresses,
        gateway_addresses,
        server_name: format!("{partner}.{}", settings.domain),
        ca_bundle: root.to_owned(),
    }
}

/// When something will have to be done though nobody changes anything.
pub fn next_date(checked: &Checked, certificates: &[IssuedCertificate]) -> Option<Timestamp> {
    let renewals = certificates.iter().filter_map(|held| Some(ca::read(&held.chain).ok()?.renewal()));
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
    fn a_certificate_is_issued_once_and_renewed_beside_the_old_one() {
        let (authority, agreement) = (authority(), agreement());
        let mut c = fixture("vancouver-police");
        let at = |day: i64| Timestamp::from_second(now().as_second() + day * 86_400).unwrap();
        let issue = |c: &liaison_crds::PartnerConnection, day| {
            let checked = validate(c, Some(&agreement), "shared", at(day));
            certificates("vancouver-police", &checked, c.status.as_ref(), &authority, "x.ca", at(day), || [9; 16])
                .unwrap()
        };
        let first = issue(&c, 0);
        assert_eq!(first.len(), 1);
        c.status = Some(PartnerConnectionStatus { certificates: first.clone(), ..provisioned() });
        assert_eq!(issue(&c, 1), first);
        let second = issue(&c, 21);
        assert_eq!((second.len(), &second[1]), (2, &first[0]));
        c.status = Some(PartnerConnectionStatus { certificates: second.clone(), ..provisioned() });
        assert_eq!(issue(&c, 31), second[..1]);
        c.spec.revocation = Some(liaison_crds::partner_connection::Revocation { revoked: true });
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
        assert_eq!(keys(&checked, c.status.as_ref()), [old]);
        c.spec.credentials.wire_guard.public_keys = vec![new];
        let checked = validate(&c, Some(&agreement()), "shared", now());
        assert!(keys(&checked, c.status.as_ref()).is_empty());
    }
}
