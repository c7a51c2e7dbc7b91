//! The commands of docs/ledger.md, as they stand there, by the program itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::{path::Path, process::Command};

use jiff::SignedDuration;
use liaison_sync::{
    checkpoint,
    compare::Budget,
    fault::Faults,
    retention::{self, Authority, Retention},
};
use support::{World, now, terms};

const PAGE: &str = include_str!("../../../docs/ledger.md");
/// The names that the page gives.
const PARTNER: &str = "vancouver-police";
const FILE: i64 = 123_456;

/// What stands in back quotes in the table under "Commands", in its order.
fn commands() -> Vec<&'static str> {
    let section = PAGE.split("\n## ").find(|part| part.starts_with("Commands")).expect("the section");
    section
        .lines()
        .filter(|line| line.starts_with("| "))
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .filter(|text| text.starts_with("ledger ") || text.starts_with("disposal "))
        .collect()
}

/// What a command must say, by its first two words.
fn says(command: &str) -> &'static str {
    match command.split(' ').take(2).collect::<Vec<_>>()[..] {
        ["ledger", "account"] => "123456A: file 123456, 1 disclosures",
        ["ledger", "corrections"] => "has it",
        ["ledger", "export"] => "1 batches, 1 entries, ",
        ["ledger", "verify"] => "whole",
        ["disposal", "list"] => "bc-2003",
        ["disposal", "hold"] => ": legal hold",
        ["disposal", "release"] => ": no legal hold",
        _ => panic!("docs/ledger.md has a command that this test does not know: {command}"),
    }
}

fn run(world: &World, directory: &Path, command: &str) -> String {
    let out = Command::new(env!("CARGO_BIN_EXE_liaison-sync"))
        .args(command.split(' '))
        .current_dir(directory)
        .env("HUB_URL", world.hub_url())
        .env("STORE_URL", world.store_url())
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{command}: {said}");
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commands_of_the_page_run_and_say_what_it_says() {
    let mut world = World::new("commands").await;
    let partner = world.partner("a");
    world.prepare(&partner).await;
    world.file(FILE, "5915022", 1).await;
    world.execute(&format!("INSERT INTO oms.sentence VALUES (17, {FILE}, 730)")).await;
    let terms = terms(&partner, &["identity", "sentence"], r#"{"anyOf":[{"municipalities":["5915022"]}]}"#);
    let mut worker = world.worker("w", Budget::default(), Faults::default());
    worker.set_terms(vec![terms]);
    worker.converge(now()).await.unwrap();
    worker.shut_down().await;
    let mut hub = world.hub_target.connect().await.unwrap();
    assert_eq!(checkpoint::if_due(&mut hub, 3600, 1000).await.unwrap(), Some(1));
    let authority = Authority {
        agreement: "bc-2003".into(),
        reference: "BC-2003".into(),
        legal_basis: vec!["CCRA s.25(1)".into()],
        ends: now() + SignedDuration::from_hours(24),
        days: 30,
    };
    let said = Retention { partner: partner.clone(), authority: Some(authority), hold: false };
    retention::note(&world.hub, "shared", &[said], now()).await.unwrap();
    let directory = std::env::temp_dir().join(&world.name);
    std::fs::create_dir_all(&directory).unwrap();
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let root = rcgen::CertificateParams::new(vec![]).unwrap().self_signed(&key).unwrap().pem();
    std::fs::write(directory.join("ca.pem"), root).unwrap();

    let commands = commands();
    assert_eq!(commands.len(), 10, "{commands:?}");
    for command in commands {
        // Roles are of the whole server: the partner of the page is another's.
        let command = command.replace(PARTNER, partner.as_str());
        let said = run(&world, &directory, &command);
        assert!(said.contains(says(&command)), "{command}: {said}");
        if ["account", "corrections", "verify", "list"].iter().any(|word| command.contains(word)) {
            let json = run(&world, &directory, &format!("{command} --output json"));
            serde_json::from_str::<serde_json::Value>(&json).unwrap_or_else(|e| panic!("{command}: {e}: {json}"));
        }
    }
    std::fs::remove_dir_all(&directory).unwrap();
    drop(hub);
    world.drop().await;
}
