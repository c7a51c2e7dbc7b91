//! A sealed record (Criminal Records Act) leaves every replica at once and is as if it had never been there; unsealed, it comes
//! back whole. On a real PostgreSQL.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::time::{Duration, Instant};

use liaison_records::names::PartnerName;
use liaison_sync::{
    account,
    compare::Budget,
    fault::Faults,
    quote::ident,
    terms::Terms,
    verify::{self, Outcome},
    worker::Worker,
};
use support::{World, ended, now, terms};
use tokio_postgres::SimpleQueryMessage;

const GROUPS: &[&str] = &["identity", "aliases", "photograph", "sentence", "supervision"];
const VANCOUVER: &str = r#"{"anyOf":[{"municipalities":["5915022"]}]}"#;
/// Whatever it asks for.
const EVERYBODY: &str = r#"{"anyOf":[{"custody":["Community","Incarcerated","Archived"]},{"statuses":["Released"]}]}"#;

/// Files 1 to 6 in the replicas of two partners.
async fn shared(name: &str, budget: Budget) -> (World, Worker, Vec<Terms>) {
    let mut world = World::new(name).await;
    for id in 1..=6 {
        world.file(id, "5915022", 2).await;
    }
    let mut all = Vec::new();
    for (suffix, share) in [("a", VANCOUVER), ("b", EVERYBODY)] {
        let partner = world.partner(suffix);
        world.prepare(&partner).await;
        all.push(terms(&partner, GROUPS, share));
    }
    let mut worker = world.worker("w", budget, Faults::default());
    worker.set_terms(all.clone());
    worker.converge(now()).await.unwrap();
    (world, worker, all)
}

/// Every row of a replica that names a file, whatever the batch that wrote it.
async fn rows(world: &World, partner: &PartnerName, file: i64) -> Vec<String> {
    let share = ident(&partner.share_schema());
    let sql = format!(
        "SELECT (to_jsonb(r) - 'batch')::text FROM {share}.record r WHERE offender = {file}
         UNION ALL SELECT (to_jsonb(s) - 'batch')::text FROM {share}.subject s WHERE offender = {file}
         UNION ALL SELECT encode(p.sha256, 'hex') FROM {share}.photograph p
            WHERE p.sha256 = sha256(convert_to('picture {file}', 'UTF8'))
         ORDER BY 1"
    );
    let messages = world.store.simple_query(&sql).await.unwrap();
    messages
        .iter()
        .filter_map(|m| if let SimpleQueryMessage::Row(row) = m { row.get(0).map(str::to_owned) } else { None })
        .collect()
}

async fn seal(world: &World, file: i64, date: &str) {
    world.execute(&format!("UPDATE oms.offender SET sealed_on = {date} WHERE id = {file}")).await;
}

#[tokio::test]
async fn a_sealed_file_leaves_every_replica_in_the_next_batch_and_comes_back_whole() {
    let (world, mut worker, all) = shared("sealed", Budget::default()).await;
    let before = rows(&world, &all[0].partner, 2).await;
    assert_eq!(before.len(), 8, "six records, a search row, a picture");
    // A date to come seals as well: no scope reads a clock.
    seal(&world, 2, "'2090-01-01'").await;
    worker.converge(now()).await.unwrap();
    for terms in &all {
        assert_eq!(rows(&world, &terms.partner, 2).await, Vec::<String>::new(), "{}", terms.partner);
        assert_eq!(world.count(&terms.partner, "subject").await, 5);
        world.check_i1(terms).await;
        world.check_i2(&terms.partner).await;
    }
    // Nothing of it that changes, or comes to be of it, crosses.
    world
        .execute(
            "UPDATE oms.alias SET surname = 'Other' WHERE offender = 2; UPDATE oms.sentence SET offender = 2 WHERE id = 300;
             UPDATE oms.offender SET status = 'Revoked', at_large = 'Escaped' WHERE id = 2",
        )
        .await;
    worker.converge(now()).await.unwrap();
    let entries = "SELECT kind FROM liaison.ledger_entry WHERE offender = 2 AND partner = $1 ORDER BY batch";
    for terms in &all {
        assert_eq!(rows(&world, &terms.partner, 2).await, Vec::<String>::new());
        world.check_i1(terms).await;
        // The ledger says what it says of any file that leaves a scope, and no more.
        let kinds: Vec<String> =
            world.hub.query(entries, &[&terms.partner.as_str()]).await.unwrap().iter().map(|row| row.get(0)).collect();
        assert_eq!(kinds, ["enter", "leave"]);
    }
    // A reload of everything, a scope that changes, a replica that is seeded: each compares, none brings it back.
    world
        .execute(
            "BEGIN; CREATE TEMP TABLE o ON COMMIT DROP AS TABLE oms.offender; CREATE TEMP TABLE a ON COMMIT DROP AS TABLE oms.alias;
             CREATE TEMP TABLE p ON COMMIT DROP AS TABLE oms.photograph; CREATE TEMP TABLE s ON COMMIT DROP AS TABLE oms.sentence;
             TRUNCATE oms.offender CASCADE; INSERT INTO oms.offender TABLE o; INSERT INTO oms.alias TABLE a;
             INSERT INTO oms.photograph TABLE p; INSERT INTO oms.sentence TABLE s; COMMIT",
        )
        .await;
    let mut wider = all[0].clone();
    wider.grant.as_mut().unwrap().scope.share = support::population(EVERYBODY);
    wider.generation += 1;
    worker.set_terms(vec![wider.clone(), all[1].clone()]);
    worker.converge(now()).await.unwrap();
    for terms in [&wider, &all[1]] {
        assert_eq!(rows(&world, &terms.partner, 2).await, Vec::<String>::new());
        world.check_i1(terms).await;
        // Neither side of a verification has it.
        let found = ended(&world, &mut worker, &terms.partner, "after", false).await;
        assert_eq!((found.outcome, found.files), (Outcome::Equal, 5), "{}", terms.partner);
    }
    // Unsealed, in the state in which it was: whole.
    world
        .execute(
            "UPDATE oms.alias SET surname = 'Alias' || id WHERE offender = 2; UPDATE oms.sentence SET offender = 3 WHERE id = 300;
             UPDATE oms.offender SET status = 'Released', at_large = 'NotAtLarge' WHERE id = 2",
        )
        .await;
    seal(&world, 2, "NULL").await;
    worker.converge(now()).await.unwrap();
    for terms in [&wider, &all[1]] {
        assert_eq!(rows(&world, &terms.partner, 2).await, before, "{}", terms.partner);
        world.check_i1(terms).await;
        world.check_i2(&terms.partner).await;
    }
    worker.shut_down().await;
    world.drop().await;
}

#[tokio::test]
async fn what_crossed_of_a_sealed_file_is_still_accounted_for() {
    let (world, mut worker, all) = shared("sealed_account", Budget::default()).await;
    let hub = world.hub_target.connect().await.unwrap();
    let store = world.store_target.connect().await.unwrap();
    // Its first number, and the one that it had when it was sealed.
    world.execute("UPDATE oms.offender SET fps = '700007C' WHERE id = 2").await;
    worker.converge(now()).await.unwrap();
    seal(&world, 2, "'2026-11-01'").await;
    worker.converge(now()).await.unwrap();
    for fps in ["000002A", "700007C"] {
        let account = account::account(&hub, fps, jiff::Timestamp::UNIX_EPOCH).await.unwrap();
        assert_eq!(account.files, [2], "{fps}");
        for terms in &all {
            let of = account.disclosures.iter().filter(|d| d.partner == terms.partner.as_str());
            assert_eq!(of.map(|d| d.kind.as_str()).collect::<Vec<_>>(), ["enter", "stay", "leave"], "{fps}");
        }
    }
    // Whom the seal must be passed on to, beyond what Liaison itself took back.
    let told = account::corrections(&hub, &store, "700007C", None, jiff::Timestamp::UNIX_EPOCH).await.unwrap();
    assert_eq!(told.len(), 2);
    assert!(told.iter().all(|notice| notice.replica == account::Standing::Withdrawn), "{told:?}");
    worker.shut_down().await;
    world.drop().await;
}

#[tokio::test]
async fn a_sealed_file_does_not_wait_for_a_replica_that_is_being_made_anew() {
    let small = Budget { chunk: 1, bytes: 1, ..Budget::default() };
    let (world, mut worker, all) = shared("sealed_anew", small).await;
    let partner = &all[0].partner;
    let next = format!("SELECT to_regnamespace('{}') IS NOT NULL", ident(&partner.next_schema()));
    let under_way = async || world.store.query_one(&next, &[]).await.unwrap().get::<_, bool>(0);
    verify::request(&world.hub, partner, "anew", true).await.unwrap();
    let started = Instant::now();
    while !under_way().await {
        worker.round(now()).await.unwrap();
        worker.wait(Duration::from_secs(1)).await;
        assert!(started.elapsed() < Duration::from_secs(60), "it does not begin");
    }
    while worker.busy() {
        worker.wait(Duration::from_secs(1)).await;
    }
    // One that is there already beside, and one that is not yet.
    seal(&world, 1, "'2026-11-01'").await;
    seal(&world, 6, "'2026-11-01'").await;
    worker.round(now()).await.unwrap();
    while worker.busy() {
        worker.wait(Duration::from_secs(1)).await;
    }
    assert!(under_way().await, "what is read is still the old one");
    let fenced = format!("SELECT fenced FROM {}.cursor", ident(&partner.share_schema()));
    assert!(!world.store.query_one(&fenced, &[]).await.unwrap().get::<_, bool>(0));
    for file in [1, 6] {
        assert_eq!(rows(&world, partner, file).await, Vec::<String>::new(), "{file}");
    }
    assert_eq!(world.count(partner, "subject").await, 4, "the others are read on");
    // Whoever gives up the new one goes on with the old one: it lacks a file that is unsealed, and gets it.
    worker.shut_down().await;
    let store = world.store_target.connect().await.unwrap();
    seal(&world, 6, "NULL").await;
    store.batch_execute(&format!("DROP SCHEMA {} CASCADE", ident(&partner.next_schema()))).await.unwrap();
    world.execute("DELETE FROM liaison.verification").await;
    let mut worker = world.worker("w", small, Faults::default());
    worker.set_terms(all.clone());
    worker.converge(now()).await.unwrap();
    for terms in &all {
        world.check_i1(terms).await;
        world.check_i2(&terms.partner).await;
        assert_eq!(world.count(&terms.partner, "subject").await, 5);
    }
    drop(store);
    worker.shut_down().await;
    world.drop().await;
}
