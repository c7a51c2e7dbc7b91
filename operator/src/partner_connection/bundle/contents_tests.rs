//! What goes into a bundle, and that it opens for its recipients only.

use std::io::Read as _;

use liaison_crds::partner_connection::EnrolmentToken;

use super::*;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::partner_connection::{
    fixtures::{now, provisioned},
    status,
};

fn token(used: bool) -> EnrolmentToken {
    EnrolmentToken {
        token_number: 1,
        token_digest: "d".repeat(64),
        issued: Time(now()),
        not_after: Time(Timestamp::from_second(now().as_second() + 60).unwrap()),
        used_by: used.then(|| "key".to_owned()),
    }
}

fn key(preshared: bool) -> SeenKey {
    SeenKey { public_key: STANDARD.encode([7; 32]), first_seen: Time(now()), preshared }
}

fn outcome(keys: &[SeenKey], token: Option<&EnrolmentToken>) -> Outcome {
    let no = || status::State::no("No", "");
    Outcome {
        accepted: no(),
        credentials: no(),
        replica: no(),
        access: no(),
        closed: None,
        authorized_until: None,
        store_name: None,
        connection: None,
        keys: keys.to_vec(),
        overlap_ends: None,
        certificates: vec![],
        enrolment: token.cloned(),
        custody: vec![],
        bundle: None,
        verified: None,
        later: None,
    }
}

#[test]
fn what_a_partner_is_to_have_is_each_preshared_key_and_a_token_that_is_of_use() {
    let entry = preshared_entry(&[7; 32]);
    let names = |keys: &[SeenKey], token: Option<&EnrolmentToken>, at| {
        items(&outcome(keys, token), at).iter().map(Item::name).collect::<Vec<_>>()
    };
    assert_eq!(
        names(&[key(true)], Some(&token(false)), now()),
        [format!("psk-{entry}"), format!("token-{}", "d".repeat(16))]
    );
    assert!(names(&[key(false)], Some(&token(true)), now()).is_empty());
    let late = Timestamp::from_second(now().as_second() + 60).unwrap();
    assert!(names(&[], Some(&token(false)), late).is_empty());
}

#[test]
fn the_letter_says_in_both_languages_what_lies_beside_it_and_no_secret() {
    let all = items(&outcome(&[key(true)], Some(&token(false))), now());
    let text = letter("vancouver-police", &provisioned().connection.unwrap(), &all);
    for item in &all {
        assert_eq!(text.matches(&format!("  {}\n", item.file())).count(), 2, "{text}");
    }
    assert!(text.contains("Secrets for vancouver-police") && text.contains("Secrets pour vancouver-police"));
    assert!(text.contains("PresharedKey, under") && text.contains("PresharedKey, sous"));
    assert!(text.contains(&STANDARD.encode([7; 32])) && text.contains("100.72.0.10"), "{text}");
}

#[test]
fn a_bundle_opens_for_each_recipient_and_nobody_else() {
    let identities: Vec<_> = (0..3).map(|_| age::x25519::Identity::generate()).collect();
    let recipients: Vec<String> = identities[..2].iter().map(|identity| identity.to_public().to_string()).collect();
    let files =
        [("letter.txt".to_owned(), "Bonjour".to_owned().into()), ("token".to_owned(), "canary".to_owned().into())];
    let sealed = seal(&recipients, &pack(&files, now()).unwrap()).unwrap();
    assert!(sealed.starts_with("-----BEGIN AGE ENCRYPTED FILE-----") && !sealed.contains("canary"));
    let open = |identity: &age::x25519::Identity| {
        let decryptor = age::Decryptor::new(age::armor::ArmoredReader::new(sealed.as_bytes())).unwrap();
        let mut bytes = Vec::new();
        decryptor.decrypt(std::iter::once(identity as &dyn age::Identity)).ok()?.read_to_end(&mut bytes).unwrap();
        Some(bytes)
    };
    for identity in &identities[..2] {
        let mut archive = tar::Archive::new(std::io::Cursor::new(open(identity).unwrap()));
        let found: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let mut text = String::new();
                entry.read_to_string(&mut text).unwrap();
                (entry.path().unwrap().to_string_lossy().into_owned(), entry.header().mode().unwrap(), text)
            })
            .collect();
        assert_eq!(found, [("letter.txt".into(), 0o600, "Bonjour".into()), ("token".into(), 0o600, "canary".into())]);
    }
    assert!(open(&identities[2]).is_none());
    // Refused in the manifest, where a person can put it right.
    let mut broken = recipients[0].clone();
    broken.replace_range(10..11, if &broken[10..11] == "q" { "p" } else { "q" });
    assert!(recipient(&broken).unwrap_err().contains("must be a public key of age"));
}
