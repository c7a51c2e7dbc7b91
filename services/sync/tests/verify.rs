//! Verification on a real PostgreSQL: equal roots whatever happens on the hub, and every kind of tampering with a replica
//! found, narrowed, mended and in the ledger.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures::FutureExt;
use liaison_records::names::PartnerName;
use liaison_sync::{
    compare::Budget,
    error::Error,
    fault::{Faults, STEPS, Step},
    quote::ident,
    subject,
    verify::{self, Ended, News, Outcome},
    worker::Worker,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use support::{World, file_sql, now, picture_sql, terms};

const ALL_GROUPS: &[&str] = &["identity", "aliases", "photograph", "sentence", "supervision"];
const VANCOUVER: &str = r#"{"anyOf":[{"municipalities":["5915022"]}]}"#;

/// Asks, and lets the worker work until there is a result; `None` when the worker met trouble first.
async fn attempt(world: &World, worker: &mut Worker, partner: &PartnerName, token: &str) -> Option<Ended> {
    verify::request(&world.hub, partner, token, false).await.unwrap();
    let started = Instant::now();
    loop {
        worker.round(now()).await.unwrap();
        while worker.busy() {
            worker.wait(Duration::from_secs(1)).await;
        }
        if let Some(ended) = verify::ended(&world.hub, partner, token).await.unwrap() {
            return Some(ended);
        }
        if worker.standings(now())[partner].trouble.is_some() {
            return None;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "the verification does not end");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// What the worker has to tell, up to a verification that ended so: the hub has its end a moment before.
async fn told(worker: &mut Worker, outcome: Outcome) -> Vec<News> {
    let mut news = Vec::new();
    for _ in 0..5_000 {
        news.extend(worker.take_news());
        if news.iter().any(|n| matches!(n, News::Verified(v) if v.outcome() == outcome)) {
            return news;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("no news of a verification that ended {outcome:?}: {news:?}");
}

async fn verified(world: &World, worker: &mut Worker, partner: &PartnerName, token: &str) -> Ended {
    attempt(world, worker, partner, token).await.expect("no trouble")
}

async fn last_kind(world: &World, partner: &PartnerName) -> String {
    let sql = "SELECT kind FROM liaison.ledger_batch WHERE partner = $1 ORDER BY batch DESC LIMIT 1";
    world.hub.query_one(sql, &[&partner.as_str()]).await.unwrap().get(0)
}

#[tokio::test]
async fn roots_are_equal_after_any_change_and_the_attestation_says_so() {
    let mut world = World::new("syncveq").await;
    let partner = world.partner("a");
    world.prepare(&partner).await;
    world.execute("INSERT INTO oms.office VALUES (1, 'Vancouver Parole')").await;
    for id in 1..=40 {
        world.file(id, if id % 3 == 0 { "4711066" } else { "5915022" }, 2).await;
    }
    let terms = terms(&partner, ALL_GROUPS, VANCOUVER);
    let mut worker = world.worker("w", Budget::default(), Faults::default());
    worker.set_terms(vec![terms.clone()]);
    let mut random = StdRng::seed_from_u64(4);
    let mut roots = std::collections::BTreeSet::new();
    for round in 0..15 {
        for _ in 0..random.random_range(0..6) {
            let (file, other) = (random.random_range(1..=45_i64), random.random_range(1..=45_i64));
            let sql = match random.random_range(0..8) {
                0 => format!(
                    "UPDATE oms.offender SET municipality = '5915022', jurisdiction = 'CA-BC' WHERE id = {file}"
                ),
                1 => format!(
                    "UPDATE oms.offender SET municipality = '4711066', jurisdiction = 'CA-SK' WHERE id = {file}"
                ),
                2 => format!("UPDATE oms.alias SET surname = 'Changed{round}' WHERE offender = {file}"),
                3 => format!(
                    "UPDATE oms.sentence SET offender = {other} WHERE offender = {file}
                        AND EXISTS (SELECT FROM oms.offender WHERE id = {other})"
                ),
                4 => format!("DELETE FROM oms.offender WHERE id = {file}"),
                5 => {
                    format!("DELETE FROM oms.offender WHERE id = {file}; {}", file_sql(file, "5915022", "Released", 2))
                }
                6 => format!(
                    "DELETE FROM oms.offender WHERE id = {file}; {} {}",
                    file_sql(file, "5915022", "Released", 1),
                    picture_sql(file * 100, file, &format!("shared {}", other % 5))
                ),
                _ => format!("UPDATE oms.office SET name_en = 'Office {round}'"),
            };
            world.execute(&sql).await;
        }
        let token = format!("round-{round}");
        let ended = verified(&world, &mut worker, &partner, &token).await;
        assert_eq!((ended.outcome, ended.mismatches), (Outcome::Equal, 0), "round {round}");
        world.check_i1(&terms).await;
        world.check_i2(&partner).await;
        assert_eq!(ended.files, world.count(&partner, "subject").await);
        assert_eq!(ended.records, world.count(&partner, "record").await);
        assert_eq!(ended.photographs, world.count(&partner, "photograph").await);
        // Asked again under the same name: the same result, and nothing more.
        assert_eq!(verified(&world, &mut worker, &partner, &token).await, ended);
        let sql =
            "SELECT statement FROM liaison.statement WHERE kind = 'attestation' AND partner = $1 ORDER BY number DESC";
        let statements = world.hub.query(sql, &[&partner.as_str()]).await.unwrap();
        assert_eq!(statements.len(), round + 1, "one attestation a verification");
        let text: String = statements[0].get(0);
        let statement: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(statement["root"].as_str(), ended.root.as_deref());
        assert_eq!(statement["partner"], partner.as_str());
        assert_eq!(statement["agreement"], "bc-2003");
        assert_eq!((statement["files"].as_i64(), statement["mismatches"].as_i64()), (Some(ended.files), Some(0)));
        assert_eq!(liaison_records::statement::canonical(&statement), text, "canonical");
        roots.insert(ended.root);
    }
    assert!(roots.len() > 10, "the root follows the changes");
    world.drop().await;
}

#[tokio::test]
async fn every_kind_of_tampering_is_found_narrowed_mended_and_ledgered() {
    let mut world = World::new("syncvtam").await;
    let partner = world.partner("a");
    world.prepare(&partner).await;
    world.execute("INSERT INTO oms.office VALUES (1, 'Vancouver Parole')").await;
    for id in 1..=12 {
        world.file(id, "5915022", 2).await;
    }
    world.file(50, "4711066", 1).await;
    let terms = terms(&partner, ALL_GROUPS, VANCOUVER);
    let mut worker = world.worker("w", Budget::default(), Faults::default());
    worker.set_terms(vec![terms.clone()]);
    assert_eq!(verified(&world, &mut worker, &partner, "first").await.outcome, Outcome::Equal);
    let share = ident(&partner.share_schema());
    let forged = r#"{"given": "X", "surname": "Forged"}"#;
    let forged_hash = hex::encode(subject::record_hash("aliases", "alias", 500, Some(5), forged));
    // What is done to the replica, and in how many units it shows.
    let tampering: Vec<(&str, String, i64)> = vec![
        ("body", "UPDATE {share}.record SET body = replace(body, 'Tremblay1', 'Tremblay9') WHERE tbl = 'offender' AND id = 1".into(), 1),
        ("hash", "UPDATE {share}.record SET hash = sha256('x') WHERE tbl = 'alias' AND id = 200".into(), 1),
        ("body and its hash", format!("UPDATE {{share}}.record SET body = '{forged}', hash = decode('{forged_hash}', 'hex') WHERE tbl = 'alias' AND id = 500"), 1),
        ("row missing", "DELETE FROM {share}.record WHERE tbl = 'sentence' AND id = 300".into(), 1),
        ("row extra", "INSERT INTO {share}.record SELECT offender, grp, tbl, 99999, body, hash, batch FROM {share}.record WHERE tbl = 'alias' AND id = 200".into(), 1),
        ("row under another file", "UPDATE {share}.record SET offender = 2 WHERE tbl = 'alias' AND id = 100".into(), 2),
        ("row under no file", "UPDATE {share}.record SET offender = NULL WHERE tbl = 'alias' AND id = 100".into(), 2),
        ("group", "UPDATE {share}.record SET grp = 'aliases' WHERE tbl = 'sentence' AND id = 100".into(), 1),
        ("reference record", "UPDATE {share}.record SET body = '{}' WHERE tbl = 'office'".into(), 1),
        ("reference record missing", "DELETE FROM {share}.record WHERE tbl = 'office'".into(), 1),
        ("search row", "UPDATE {share}.subject SET surname = 'Nobody' WHERE offender = 2".into(), 1),
        ("search keys", "UPDATE {share}.subject SET names = '{}' WHERE offender = 3".into(), 1),
        ("search row missing", "DELETE FROM {share}.subject WHERE offender = 4".into(), 1),
        ("file missing", "DELETE FROM {share}.record WHERE offender = 6; DELETE FROM {share}.subject WHERE offender = 6".into(), 1),
        ("file out of scope", "INSERT INTO {share}.record SELECT 50, grp, tbl, id + 1000, body, hash, batch FROM {share}.record WHERE offender = 7".into(), 1),
        ("search row out of scope", "INSERT INTO {share}.subject SELECT 50, fps, surname, given, names, sounds, birth_date, other_dates, custody, status, at_large, jurisdiction, municipality, photograph, batch FROM {share}.subject WHERE offender = 8".into(), 1),
        ("picture's bytes", "UPDATE {share}.photograph SET jpeg = 'x' WHERE sha256 = (SELECT sha256 FROM {share}.photograph ORDER BY 1 LIMIT 1)".into(), 1),
        ("picture missing", "DELETE FROM {share}.photograph WHERE sha256 = (SELECT sha256 FROM {share}.photograph ORDER BY 1 DESC LIMIT 1)".into(), 1),
        ("picture extra", "INSERT INTO {share}.photograph VALUES (sha256('zz'), 'zz')".into(), 1),
        ("everything at once", "DELETE FROM {share}.record WHERE id % 3 = 0; UPDATE {share}.photograph SET jpeg = 'y'; DELETE FROM {share}.subject WHERE offender > 5".into(), 0),
    ];
    for (what, sql, units) in tampering {
        world.store.batch_execute(&sql.replace("{share}", &share)).await.unwrap_or_else(|e| panic!("{what}: {e:?}"));
        let ended = verified(&world, &mut worker, &partner, what).await;
        assert_eq!(ended.outcome, Outcome::Repaired, "{what}");
        assert!(ended.mismatches == units || (units == 0 && ended.mismatches > 0), "{what}: {ended:?}");
        world.check_i1(&terms).await;
        world.check_i2(&partner).await;
        assert_eq!(last_kind(&world, &partner).await, "repair", "{what}");
        let news = told(&mut worker, Outcome::Repaired).await;
        assert!(news.iter().any(|n| matches!(n, News::Differed(..))), "{what}");
        let again = verified(&world, &mut worker, &partner, &format!("{what}, again")).await;
        assert_eq!((again.outcome, &again.root), (Outcome::Equal, &ended.root), "{what}");
        assert_eq!(told(&mut worker, Outcome::Equal).await.len(), 1, "{what}");
    }
    world.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_on_the_hub_do_not_disturb_a_verification() {
    let mut world = World::new("syncvcon").await;
    let partner = world.partner("a");
    world.prepare(&partner).await;
    for id in 1..=60 {
        world.file(id, "5915022", 2).await;
    }
    let terms = terms(&partner, ALL_GROUPS, VANCOUVER);
    let mut worker = world.worker("w", Budget::default(), Faults::default());
    worker.set_terms(vec![terms.clone()]);
    worker.converge(now()).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (stop, hub) = (stop.clone(), world.hub_target.connect().await.unwrap());
        async move {
            let mut written = 0_i64;
            while !stop.load(Ordering::Relaxed) {
                let file = written % 80 + 1;
                let place = if written % 3 == 0 { ("4711066", "CA-SK") } else { ("5915022", "CA-BC") };
                hub.batch_execute(&format!(
                    "UPDATE oms.offender SET municipality = '{}', jurisdiction = '{}' WHERE id = {file};
                     UPDATE oms.alias SET given = 'G{written}' WHERE offender = {};
                     DELETE FROM oms.offender WHERE id = {} - 17; {}",
                    place.0,
                    place.1,
                    (written * 7) % 60 + 1,
                    file,
                    if file > 40 { file_sql(file + 1000 + written, "5915022", "Released", 1) } else { String::new() },
                ))
                .await
                .unwrap();
                written += 1;
            }
            written
        }
    });
    for round in 0..12 {
        let ended = verified(&world, &mut worker, &partner, &format!("round-{round}")).await;
        assert_eq!((ended.outcome, ended.mismatches), (Outcome::Equal, 0), "round {round}");
    }
    stop.store(true, Ordering::Relaxed);
    assert!(writer.await.unwrap() > 12, "the hub was written to meanwhile");
    worker.converge(now()).await.unwrap();
    world.check_i1(&terms).await;
    world.check_i2(&partner).await;
    let kinds = "SELECT count(*) FROM liaison.ledger_batch WHERE kind = 'repair'";
    assert_eq!(world.hub.query_one(kinds, &[]).await.unwrap().get::<_, i64>(0), 0, "nothing had to be repaired");
    world.drop().await;
}

#[tokio::test]
async fn killed_at_any_step_a_verification_begins_again() {
    let mut world = World::new("syncvkill").await;
    let partner = world.partner("a");
    world.prepare(&partner).await;
    for id in 1..=8 {
        world.file(id, "5915022", 2).await;
    }
    let terms = terms(&partner, ALL_GROUPS, VANCOUVER);
    let share = ident(&partner.share_schema());
    let mut worker = world.worker("w", Budget::default(), Faults::default());
    worker.set_terms(vec![terms.clone()]);
    worker.converge(now()).await.unwrap();
    worker.shut_down().await;
    // Nothing is narrowed here.
    for step in STEPS.into_iter().filter(|step| *step != Step::Narrowing) {
        let armed = Arc::new(AtomicBool::new(true));
        let hook = armed.clone();
        let faults = Faults::hooked(move |at, _| {
            let stop = at == step && hook.swap(false, Ordering::Relaxed);
            async move { if stop { Err(Error::Stopped) } else { Ok(()) } }.boxed()
        });
        world
            .store
            .batch_execute(&format!(
                "UPDATE {share}.record SET body = '{{}}' WHERE tbl = 'alias' AND offender = 3;
                 DELETE FROM {share}.photograph WHERE sha256 = (SELECT sha256 FROM {share}.photograph ORDER BY 1 LIMIT 1);
                 INSERT INTO {share}.photograph VALUES (sha256('{step:?}'), '{step:?}')"
            ))
            .await
            .unwrap();
        let token = format!("{step:?}");
        let mut first = world.worker("w", Budget::default(), faults);
        first.set_terms(vec![terms.clone()]);
        let ended = attempt(&world, &mut first, &partner, &token).await;
        assert!(!armed.load(Ordering::Relaxed), "{step:?} was reached");
        drop(first);
        // A process that knows nothing of it goes on, if the first did not end it.
        let mut second = world.worker("w", Budget::default(), Faults::default());
        second.set_terms(vec![terms.clone()]);
        let ended = match ended {
            Some(ended) => ended,
            None => verified(&world, &mut second, &partner, &token).await,
        };
        assert_ne!(ended.outcome, Outcome::Failed, "{step:?}");
        assert_eq!(verified(&world, &mut second, &partner, &format!("{step:?} again")).await.outcome, Outcome::Equal);
        second.converge(now()).await.unwrap();
        world.check_i1(&terms).await;
        world.check_i2(&partner).await;
        second.shut_down().await;
    }
    world.drop().await;
}
