//! Bundles of secrets against a real API server, opened with Debian's age.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::large_futures)]

mod common;

use std::{
    collections::BTreeMap,
    process::{Command, Output},
    sync::atomic::Ordering,
};

use common::{Stage, connection, said};
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{ConfigMap, Secret},
};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use liaison_crds::{PICKED_UP_ANNOTATION, PartnerConnection, preshared_entry, preshared_secret};
use liaison_operator::install;
use serde_json::json;
use sha2::{Digest, Sha256};

/// What Debian's age makes of a bundle: the files, by name.
fn open(sealed: &str, identity: &str) -> BTreeMap<String, Vec<u8>> {
    let directory = std::env::temp_dir().join(format!("bundle-{}-{:x}", std::process::id(), rand::random::<u32>()));
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("bundle.age"), sealed).unwrap();
    std::fs::write(directory.join("identity"), identity).unwrap();
    let script = "age -d -i identity bundle.age | tar -x && rm identity bundle.age";
    let output =
        Command::new("bash").args(["-euo", "pipefail", "-c", script]).current_dir(&directory).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let files = std::fs::read_dir(&directory).unwrap().map(|entry| {
        let entry = entry.unwrap();
        (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())
    });
    let files = files.collect();
    std::fs::remove_dir_all(&directory).unwrap();
    files
}

/// What other programs make of the files, in a directory of their own.
fn attempt(files: &BTreeMap<String, Vec<u8>>, more: &[(&str, &str)], script: &str) -> Output {
    let directory = std::env::temp_dir().join(format!("custody-{}-{:x}", std::process::id(), rand::random::<u32>()));
    std::fs::create_dir(&directory).unwrap();
    for (name, bytes) in files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())) {
        std::fs::write(directory.join(name), bytes).unwrap();
    }
    for (name, text) in more {
        std::fs::write(directory.join(name), text).unwrap();
    }
    let output =
        Command::new("bash").args(["-euo", "pipefail", "-c", script]).current_dir(&directory).output().unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
    output
}

fn tried(files: &BTreeMap<String, Vec<u8>>, more: &[(&str, &str)], script: &str) -> String {
    let output = attempt(files, more, script);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stdout).unwrap()
}

fn refused(files: &BTreeMap<String, Vec<u8>>, more: &[(&str, &str)], script: &str) {
    let output = attempt(files, more, script);
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// The commands by which a letter tells its reader to verify the bundle.
fn commands(letter: &str) -> String {
    let english = letter.split("--------").next().unwrap();
    let is = |line: &&str| ["openssl ", "sha256sum -c"].iter().any(|program| line.starts_with(program));
    english.lines().map(str::trim).filter(is).collect::<Vec<_>>().join("\n")
}

fn text(files: &BTreeMap<String, Vec<u8>>, name: &str) -> String {
    String::from_utf8(files[name].clone()).unwrap()
}

async fn bundle(stage: &Stage, partner: &str) -> Option<String> {
    let object: Option<ConfigMap> = stage.partners().get_opt(&format!("bundle-{partner}")).await.unwrap();
    object.map(|object| object.data.unwrap()["bundle.age"].clone())
}

async fn pick_up(stage: &Stage, partner: &str, sealed: &str) {
    let sha256 = hex::encode(Sha256::digest(sealed));
    let patch = json!({"metadata": {"annotations": {PICKED_UP_ANNOTATION: sha256}}});
    let api: Api<PartnerConnection> = stage.partners();
    api.patch(partner, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
}

#[tokio::test]
async fn secrets_reach_a_partner_in_one_bundle_which_goes_once_the_ledger_has_it() {
    let stage = Stage::new("bundle").await;
    stage.agree(&["p"]).await;
    // age-keygen makes the partner's key; only its public half is in the manifest.
    let identity = String::from_utf8(Command::new("age-keygen").output().unwrap().stdout).unwrap();
    let recipient = identity.lines().find_map(|line| line.strip_prefix("# public key: ")).unwrap().to_owned();
    let mut object = connection("p");
    object["spec"]["credentials"]["recipients"] = json!([recipient]);
    object["spec"]["credentials"]["wireGuard"]["presharedKey"] = json!("Required");
    object["spec"]["credentials"]["certificate"]["enrolment"] = json!({"tokenNumber": 1});
    stage.apply(&object).await;
    stage.settle("p").await;
    let live = stage.get("p").await.unwrap();
    assert_eq!(said(&live, "Ready").0, "True");
    let waits = live.status.as_ref().unwrap().bundle.clone().unwrap();
    let sealed = bundle(&stage, "p").await.unwrap();
    assert_eq!((waits.sha256, waits.contents.len()), (Some(hex::encode(Sha256::digest(&sealed))), 2));
    stage.writes.count.store(0, Ordering::SeqCst);
    stage.reconcile("p").await.unwrap();
    assert_eq!(stage.writes.count.load(Ordering::SeqCst), 0, "I9");

    let files = open(&sealed, &identity);
    let secret: Secret = stage.system().get("enrolment-p").await.unwrap();
    let token = install::text(&secret, "token").unwrap();
    assert_eq!(text(&files, "token"), format!("user = \"p:{token}\"\n"));
    let key = live.spec.credentials.wire_guard.public_keys[0].clone();
    let entry = preshared_entry(&base64::Engine::decode(&base64::engine::general_purpose::STANDARD, &key).unwrap());
    let beside: Api<Secret> = Api::namespaced(stage.client.clone(), &stage.settings.gateway_namespace);
    let beside = beside.get(preshared_secret(&entry).unwrap()).await.unwrap();
    let shared = install::text(&beside, &entry).unwrap();
    assert_eq!(text(&files, &format!("psk-{}", &entry[..8])).trim(), shared);
    let letter = text(&files, "letter.txt");
    assert!(letter.contains(&key) && letter.contains("Secrets pour p"));
    assert_eq!(files.len(), 6);
    // Whose it is: by the root that the partner had before, as the letter tells it.
    let root = &live.status.as_ref().unwrap().connection.as_ref().unwrap().ca_bundle;
    assert_eq!(tried(&files, &[("CSC-ROOT.pem", root)], &commands(&letter)).matches(": OK\n").count(), 4);
    let mut forged = files.clone();
    forged.insert("token".into(), b"another".to_vec());
    refused(&forged, &[("CSC-ROOT.pem", root)], &commands(&letter));
    let stranger = Stage::new("bundle-stranger").await;
    let theirs = stranger.ctx.authority().bundle.clone();
    refused(&files, &[("CSC-ROOT.pem", &theirs)], &commands(&letter));
    // I10: what is in it stands in nothing that others read.
    let public = format!("{}{sealed}", serde_json::to_string(&live).unwrap());
    assert!(!public.contains(&token) && !public.contains(&shared));

    // Another bundle's digest is no pick-up; this one's is, killed at any write.
    pick_up(&stage, "p", "another").await;
    stage.settle("p").await;
    assert_eq!(bundle(&stage, "p").await.as_ref(), Some(&sealed));
    pick_up(&stage, "p", &sealed).await;
    stage.reconcile("p").await.unwrap();
    assert_eq!(bundle(&stage, "p").await.as_ref(), Some(&sealed), "it stays until the ledger has it");
    for kills in 0..3 {
        stage.writes.left.store(kills, Ordering::SeqCst);
        stage.settle("p").await;
    }
    stage.writes.left.store(-1, Ordering::SeqCst);
    stage.settle("p").await;
    let jobs: Api<Job> = stage.system();
    let job = jobs.get(&format!("handover-p-{}", &hex::encode(Sha256::digest(&sealed))[..8])).await.unwrap();
    let told = serde_json::to_string(&job).unwrap();
    assert!(told.contains(&hex::encode(Sha256::digest(&sealed))) && told.contains(&format!("psk-{entry}")), "{told}");
    assert!(!told.contains("STORE_HOST") && !told.contains(&token) && !told.contains(&shared));
    assert!(bundle(&stage, "p").await.is_none());
    assert!(
        stage.system::<Secret>().get_opt("enrolment-p").await.unwrap().is_none(),
        "the token is the partner's alone"
    );
    let left = stage.get("p").await.unwrap().status.unwrap().bundle.unwrap();
    assert_eq!((left.sha256, left.contents.len(), left.handed_over.len()), (None, 0, 2));

    // A new token alone is in the next; the key that was handed over is not handed over again.
    object["spec"]["credentials"]["certificate"]["enrolment"] = json!({"tokenNumber": 2});
    stage.apply(&object).await;
    stage.settle("p").await;
    let second = bundle(&stage, "p").await.unwrap();
    let files = open(&second, &identity);
    assert_eq!(
        files.keys().collect::<Vec<_>>(),
        ["letter.txt", "manifest.pem", "manifest.sig", "manifest.txt", "token"]
    );
    assert_ne!(text(&files, "token"), format!("user = \"p:{token}\"\n"));
    // Revoked before it was picked up: it goes, and nothing in it is of use.
    object["spec"]["revocation"] = json!({"revoked": true});
    stage.apply(&object).await;
    stage.settle("p").await;
    assert!(bundle(&stage, "p").await.is_none());
    // A recipient that is none is refused.
    object["spec"]["revocation"] = json!({"revoked": false});
    let bad = if recipient.ends_with('q') { "p" } else { "q" };
    object["spec"]["credentials"]["recipients"] = json!([format!("{}{bad}", &recipient[..61])]);
    stage.apply(&object).await;
    stage.settle("p").await;
    let (status, reason, message) = said(&stage.get("p").await.unwrap(), "Accepted");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "InvalidSpec"));
    assert!(message.contains("credentials.recipients[0]"), "{message}");
    stage.delete("p").await;
    stage.settle("p").await;
    assert!(bundle(&stage, "p").await.is_none());
}

#[tokio::test]
async fn a_partner_that_cannot_make_keys_gets_them_in_its_bundle_and_they_are_its_alone() {
    let stage = Stage::new("custody").await;
    stage.agree(&["p"]).await;
    let identity = String::from_utf8(Command::new("age-keygen").output().unwrap().stdout).unwrap();
    let recipient = identity.lines().find_map(|line| line.strip_prefix("# public key: ")).unwrap();
    let mut object = connection("p");
    object["spec"]["credentials"] = json!({
        "keyCustody": "Liaison", "wireGuard": {"presharedKey": "Required"}, "certificate": {}, "recipients": [recipient],
    });
    stage.apply(&object).await;
    stage.settle("p").await;
    let live = stage.get("p").await.unwrap();
    assert_eq!((said(&live, "Ready").0, said(&live, "CredentialsReady").1), ("True".into(), "Issued".into()));
    let status = live.status.as_ref().unwrap();
    assert_eq!((status.custody.len(), status.certificates.len()), (1, 1));
    assert_eq!(status.wire_guard_keys, [status.custody[0].public_key.clone()]);
    stage.writes.count.store(0, Ordering::SeqCst);
    stage.reconcile("p").await.unwrap();
    assert_eq!(stage.writes.count.load(Ordering::SeqCst), 0, "I9");

    let sealed = bundle(&stage, "p").await.unwrap();
    let files = open(&sealed, &identity);
    assert_eq!(
        files.keys().collect::<Vec<_>>(),
        [
            "ca.pem",
            "chain-1.pem",
            "client-1.p12",
            "client-1.password",
            "letter.txt",
            "liaison-1.conf",
            "manifest.pem",
            "manifest.sig",
            "manifest.txt",
            "tls-1.key"
        ]
    );
    let script = "wg-quick strip ./liaison-1.conf | sed -n 's/^PrivateKey = //p' | wg pubkey
        openssl x509 -in chain-1.pem -pubkey -noout | cmp - <(openssl pkey -in tls-1.key -pubout)
        openssl verify -purpose sslclient -CAfile ca.pem -untrusted chain-1.pem chain-1.pem >&2
        pass=$(cat client-1.password)
        openssl pkcs12 -in client-1.p12 -passin file:client-1.password -nodes -out all.pem
        openssl pkey -in all.pem | cmp - <(openssl pkey -in tls-1.key)
        grep -c 'BEGIN CERTIFICATE' all.pem
        openssl pkcs12 -in client-1.p12 -passin file:client-1.password -noout -info 2>&1 | grep -c 'PBES2, PBKDF2, AES-256-CBC'
        ! openssl pkcs12 -in client-1.p12 -passin pass:another -noout 2>/dev/null
        keytool -J-Duser.language=en -list -v -storetype PKCS12 -keystore client-1.p12 -storepass $pass |
          sed -n 's/^\\(Entry type\\|Certificate chain length\\|Alias name\\): //p'
        keytool -importkeystore -noprompt -srckeystore client-1.p12 -srcstoretype PKCS12 -srcstorepass $pass \
          -destkeystore other.jks -deststoretype JKS -deststorepass another-1 2>&1 | grep -c '^Entry for alias .* successfully imported'";
    let name = &status.connection.as_ref().unwrap().server_name;
    assert_eq!(
        tried(&files, &[], script),
        format!("{}\n2\n2\n{name}\nPrivateKeyEntry\n2\n1\n", status.wire_guard_keys[0])
    );
    let root = &status.connection.as_ref().unwrap().ca_bundle;
    tried(&files, &[("CSC-ROOT.pem", root)], &commands(&text(&files, "letter.txt")));
    let conf = text(&files, "liaison-1.conf");
    let connect = status.connection.as_ref().unwrap();
    assert!(conf.contains(&format!("Endpoint = {}", connect.endpoint)) && conf.contains("PresharedKey = "));
    assert!(conf.contains(&format!("AllowedIPs = {}/32", connect.gateway_addresses.ipv4)));
    // I10: no private half in anything that people read.
    let secret: Secret = stage.system().get("keys-p-1").await.unwrap();
    let private = install::text(&secret, "wireguard").unwrap();
    assert!(conf.contains(&private));
    let public = format!("{}{sealed}", serde_json::to_string(&live).unwrap());
    assert!(!public.contains(&private) && !public.contains(text(&files, "tls-1.key").lines().nth(1).unwrap()));

    pick_up(&stage, "p", &sealed).await;
    stage.settle("p").await;
    let gone =
        async |number: i32| stage.system::<Secret>().get_opt(&format!("keys-p-{number}")).await.unwrap().is_none();
    assert!(gone(1).await && bundle(&stage, "p").await.is_none(), "the partner alone has them");

    // Another number: a new pair beside it, killed at any write; the one before the last goes.
    for (number, kills) in [(2, 0), (3, 1), (4, 2), (5, 3)] {
        object["spec"]["credentials"]["keyNumber"] = json!(number);
        stage.apply(&object).await;
        stage.writes.left.store(kills, Ordering::SeqCst);
        stage.settle("p").await;
        stage.writes.left.store(-1, Ordering::SeqCst);
        let status = stage.get("p").await.unwrap().status.unwrap();
        let numbers: Vec<i32> = status.custody.iter().map(|pair| pair.number).collect();
        assert_eq!((numbers, status.wire_guard_keys.len()), (vec![number, number - 1], 2));
        let files = open(&bundle(&stage, "p").await.unwrap(), &identity);
        assert!(files.contains_key(&format!("liaison-{number}.conf")) && !files.contains_key("liaison-1.conf"));
        assert!(gone(number - 2).await || number == 2, "{number}");
    }
    // What was revoked is over; another number is another pair.
    object["spec"]["revocation"] = json!({"revoked": true});
    stage.apply(&object).await;
    stage.settle("p").await;
    assert!(bundle(&stage, "p").await.is_none());
    object["spec"]["revocation"] = json!({"revoked": false});
    stage.apply(&object).await;
    stage.settle("p").await;
    assert_eq!(said(&stage.get("p").await.unwrap(), "CredentialsReady").1, "KeyRevoked");
    object["spec"]["credentials"]["keyNumber"] = json!(6);
    stage.apply(&object).await;
    stage.settle("p").await;
    assert_eq!(stage.get("p").await.unwrap().status.unwrap().wire_guard_keys.len(), 1);
    stage.delete("p").await;
    stage.settle("p").await;
    assert!(gone(6).await && gone(5).await && bundle(&stage, "p").await.is_none());
}
