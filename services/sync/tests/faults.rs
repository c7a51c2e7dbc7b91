//! What may break around sync, one scenario a test, on real servers: nothing is lost or skipped, nothing is disclosed without the
//! ledger, other partners go on, the state is visible with a stable reason, and what is mended goes on without a hand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::{
    fmt::Write as _,
    process::{Command, Stdio},
    time::Duration,
};

use futures::FutureExt;
use liaison_records::names::PartnerName;
use liaison_sync::{
    compare::Budget,
    fault::{Faults, STEPS, Step},
    quote::ident,
    terms::Terms,
    worker::{Standing, Worker},
};
use support::{World, cluster::Cluster, file_sql, now, terms, url};

const ALL_GROUPS: &[&str] = &["identity", "aliases", "photograph", "sentence", "supervision"];
const VANCOUVER: &str = r#"{"anyOf":[{"municipalities":["5915022"]}]}"#;
const SASKATOON: &str = r#"{"anyOf":[{"municipalities":["4711066"]}]}"#;
const WEST: &str = r#"{"anyOf":[{"jurisdictions":["CA-BC","CA-SK"]}]}"#;

/// Rounds until `enough` holds of how the partners stand; none of the scenarios takes a minute, and a hang is a failure.
async fn rounds(
    worker: &mut Worker,
    mut enough: impl FnMut(&std::collections::BTreeMap<PartnerName, Standing>) -> bool,
) {
    let begun = std::time::Instant::now();
    loop {
        // An error is the hub's, and is the next round's business.
        let _ = worker.round(now()).await;
        worker.wait(Duration::from_millis(5)).await;
        let standings = worker.standings(now());
        if enough(&standings) {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(120), "it never came to it: {standings:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn up_to_date(standing: &Standing, since_millis: i64) -> bool {
    standing.trouble.is_none() && standing.complete && standing.exact_at_millis.is_some_and(|at| at > since_millis)
}

/// The hub's clock.
async fn hub_millis(world: &World) -> i64 {
    let sql = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint";
    world.hub.query_one(sql, &[]).await.unwrap().get(0)
}

async fn number(client: &tokio_postgres::Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

fn worker(world: &World, holder: &str, all: &[Terms]) -> Worker {
    let mut worker = world.worker(holder, Budget::default(), Faults::default());
    worker.set_terms(all.to_vec());
    worker
}

async fn checked(world: &World, all: &[Terms]) {
    for terms in all {
        world.check_i1(terms).await;
        world.check_i2(&terms.partner).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_hub_is_down_it_says_so_and_suspension_still_reaches_the_replica() {
    let mut server = Cluster::start("hubdown").await;
    let mut world = World::at("faulthub", &server.url(), &url(), "").await;
    let partner = world.partner("a");
    world.prepare(&partner).await;
    world.file(1, "5915022", 1).await;
    let mut terms = terms(&partner, ALL_GROUPS, VANCOUVER);
    let mut worker = worker(&world, "w", std::slice::from_ref(&terms));
    worker.converge(now()).await.unwrap();
    server.stop("-QUIT");
    let error = loop {
        if let Err(error) = worker.round(now()).await {
            break error;
        }
    };
    assert_eq!(error.reason(), "HubUnreachable", "{error}");
    terms.suspended = true;
    worker.set_terms(vec![terms.clone()]);
    let suspended = format!("SELECT suspended::int::bigint FROM {}.cursor", ident(&partner.share_schema()));
    while number(&world.store, &suspended).await == 0 {
        let _ = worker.round(now()).await;
        worker.wait(Duration::from_millis(20)).await;
    }
    assert_eq!(world.count(&partner, "subject").await, 1, "what was there is there");
    server.start_again().await;
    world.come_back().await;
    terms.suspended = false;
    worker.set_terms(vec![terms.clone()]);
    world.file(2, "5915022", 1).await;
    let since = hub_millis(&world).await;
    rounds(&mut worker, |all| up_to_date(&all[&partner], since)).await;
    checked(&world, &[terms]).await;
    world.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_down_and_one_restored_from_an_old_backup() {
    let mut server = Cluster::start("store").await;
    let mut world = World::at("faultstore", &url(), &server.url(), "").await;
    let partner = world.partner("a");
    world.prepare(&partner).await;
    for id in 1..=4 {
        world.file(id, "5915022", 1).await;
    }
    let terms = terms(&partner, ALL_GROUPS, VANCOUVER);
    let mut worker = worker(&world, "w", std::slice::from_ref(&terms));
    worker.converge(now()).await.unwrap();
    server.stop("-INT");
    server.back_up();
    world.execute("UPDATE oms.alias SET surname = 'While it was down'").await;
    let _ = worker.take_reports();
    rounds(&mut worker, |all| all[&partner].trouble.as_ref().is_some_and(|(reason, _)| *reason == "StoreUnreachable"))
        .await;
    assert!(worker.take_reports().iter().any(|r| r.result.is_err_and(|reason| reason == "StoreUnreachable")));
    server.start_again().await;
    world.come_back().await;
    let since = hub_millis(&world).await;
    rounds(&mut worker, |all| up_to_date(&all[&partner], since)).await;
    checked(&world, std::slice::from_ref(&terms)).await;
    // Restored: its cursor is behind the ledger.
    server.stop("-QUIT");
    server.restore();
    server.start_again().await;
    world.come_back().await;
    world.execute("UPDATE oms.sentence SET length_days = 77 WHERE id = 100").await;
    let since = hub_millis(&world).await;
    rounds(&mut worker, |all| up_to_date(&all[&partner], since)).await;
    checked(&world, &[terms]).await;
    let rebuilds = "SELECT count(*) FROM liaison.ledger_batch WHERE kind = 'rebuild'";
    assert_eq!(number(&world.hub, rebuilds).await, 1, "all of it crossed again, and the ledger says so");
    world.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_replica_that_hangs_for_the_whole_run_is_its_own_problem() {
    let mut world = World::new("faulthang").await;
    let mut all = Vec::new();
    for suffix in ["hung", "b", "c", "d"] {
        let partner = world.partner(suffix);
        world.prepare(&partner).await;
        all.push(terms(&partner, ALL_GROUPS, WEST));
    }
    world.file(1, "5915022", 1).await;
    let mut worker = worker(&world, "w", &all);
    worker.converge(now()).await.unwrap();
    let hung = all[0].partner.clone();
    let hand = world.store_target.connect().await.unwrap();
    let lock = format!("BEGIN; LOCK TABLE {}.cursor IN ACCESS EXCLUSIVE MODE", ident(&hung.share_schema()));
    hand.batch_execute(&lock).await.unwrap();
    for id in 2..=4 {
        world.file(id, "4711066", 1).await;
        let since = hub_millis(&world).await;
        rounds(&mut worker, |standings| {
            standings.iter().filter(|(partner, _)| **partner != hung).all(|(_, standing)| up_to_date(standing, since))
        })
        .await;
        checked(&world, &all[1..]).await;
    }
    rounds(&mut worker, |standings| {
        standings[&hung].trouble.as_ref().is_some_and(|(reason, _)| *reason == "StoreRefused")
    })
    .await;
    hand.batch_execute("ROLLBACK").await.unwrap();
    let since = hub_millis(&world).await;
    rounds(&mut worker, |standings| standings.values().all(|standing| up_to_date(standing, since))).await;
    checked(&world, &all).await;
    world.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_whose_disk_is_full_keeps_what_it_has_and_goes_on_when_there_is_room() {
    let server = Cluster::start_on_small_disk("full", 48).await;
    let admin = liaison_sync::connect::Target::from_url(liaison_sync::error::Side::Store, &server.url()).unwrap();
    let admin = admin.connect().await.unwrap();
    admin
        .batch_execute(&format!("CREATE TABLESPACE small LOCATION '{}'", server.small_disk().display()))
        .await
        .unwrap();
    let mut world = World::at("faultfull", &url(), &server.url(), "TABLESPACE small").await;
    let mut all = Vec::new();
    for (suffix, scope) in [("a", VANCOUVER), ("b", SASKATOON)] {
        let partner = world.partner(suffix);
        world.prepare(&partner).await;
        all.push(terms(&partner, ALL_GROUPS, scope));
    }
    world.file(1, "5915022", 1).await;
    world.file(2, "4711066", 1).await;
    let mut worker = worker(&world, "w", &all);
    worker.converge(now()).await.unwrap();
    // The disk fills up, but for what a page or two needs.
    let ballast = server.reach_small_disk().join("ballast");
    let block = vec![0_u8; 64 << 10];
    let mut file = std::fs::File::create(&ballast).unwrap();
    while std::io::Write::write_all(&mut file, &block).is_ok() {}
    let full = file.metadata().unwrap().len();
    file.set_len(full - (256 << 10)).unwrap();
    let a = all[0].partner.clone();
    let before = (world.count(&a, "record").await, world.cursor_text(&a).await);
    let mut sql = "BEGIN;".to_owned();
    for id in 10..40 {
        let picture = "SELECT string_agg(sha256(convert_to(i::text || 'p', 'UTF8')), '') AS b FROM generate_series";
        write!(
            sql,
            "{} INSERT INTO oms.image SELECT sha256(b), b FROM ({picture}({id} * 10000, {id} * 10000 + 4000) i) x;
             INSERT INTO oms.photograph SELECT {id} * 100, {id}, sha256(b), '2024-01-01' FROM ({picture}({id} * 10000, {id} * 10000 + 4000) i) x;",
            file_sql(id, "5915022", "Released", 0)
        )
        .unwrap();
    }
    world.execute(&format!("{sql} COMMIT")).await;
    rounds(&mut worker, |standings| standings[&a].trouble.as_ref().is_some_and(|(reason, _)| *reason == "StoreFull"))
        .await;
    assert!(
        worker.take_reports().iter().any(|r| r.partner == a && r.result.is_err_and(|reason| reason == "StoreFull"))
    );
    let standings = worker.standings(now());
    assert!(standings[&all[1].partner].trouble.is_none(), "{standings:?}");
    assert_eq!(before.0, world.count(&a, "record").await, "all of a batch or nothing");
    world.check_i2(&a).await;
    checked(&world, &all[1..]).await;
    // Room again: nobody need do anything else.
    drop(file);
    std::fs::remove_file(&ballast).unwrap();
    let since = hub_millis(&world).await;
    rounds(&mut worker, |standings| standings.values().all(|standing| up_to_date(standing, since))).await;
    checked(&world, &all).await;
    assert_eq!(world.count(&a, "photograph").await, 31);
    drop((worker, admin));
    world.drop().await;
}

/// What a child process is to do.
const CHILD: &str = "LIAISON_TEST_CHILD";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_killed_between_any_two_steps_loses_nothing() {
    if let Ok(order) = std::env::var(CHILD) {
        return child(&order).await;
    }
    let mut world = World::new("faultkill").await;
    let partner = world.partner("a");
    world.prepare(&partner).await;
    for id in 1..=4 {
        world.file(id, "5915022", 1).await;
    }
    for (round, step) in STEPS.into_iter().enumerate() {
        // Widened and narrowed by turns: what narrows is fenced first.
        let narrow = step == Step::Narrowing || round % 2 == 1;
        let before = terms(&partner, ALL_GROUPS, if narrow { WEST } else { VANCOUVER });
        worker(&world, "w", &[before]).converge(now()).await.unwrap();
        world.execute(&file_sql(10 + i64::try_from(round).unwrap(), "5915022", "Released", 1)).await;
        world.execute(&format!("UPDATE oms.alias SET surname = 'Round{round}'")).await;
        let scope = if narrow { VANCOUVER } else { WEST };
        let order = format!("{}|{step:?}|{scope}", world.name);
        let died = tokio::task::spawn_blocking(move || {
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "a_process_that_is_killed_between_any_two_steps_loses_nothing", "--nocapture"])
                .env(CHILD, order)
                .stdout(Stdio::null())
                .status()
                .unwrap()
        })
        .await
        .unwrap();
        let signal = std::os::unix::process::ExitStatusExt::signal(&died);
        assert_eq!(signal, Some(9), "{step:?}: {died}");
        world.check_i2(&partner).await;
        let fenced = format!("SELECT fenced::int::bigint FROM {}.cursor", ident(&partner.share_schema()));
        if narrow && matches!(step, Step::Narrowing | Step::Read | Step::Decided | Step::Ledgered | Step::Written) {
            assert_eq!(number(&world.store, &fenced).await, 1, "I7: narrowed in part, and read: {step:?}");
        }
        let after = terms(&partner, ALL_GROUPS, scope);
        worker(&world, "w", std::slice::from_ref(&after)).converge(now()).await.unwrap();
        checked(&world, &[after]).await;
    }
    let open = "SELECT count(*) FROM liaison.ledger_batch WHERE state IN ('prepared', 'disclosed')";
    assert_eq!(number(&world.hub, open).await, 0, "of every batch it is known whether it crossed");
    world.drop().await;
}

/// One batch, in the midst of which the process kills itself.
async fn child(order: &str) {
    let mut parts = order.split('|');
    let (name, step, scope) = (parts.next().unwrap(), parts.next().unwrap().to_owned(), parts.next().unwrap());
    let (hub, store) = support::targets(name);
    let faults = Faults::hooked(move |at, _| {
        let dies = format!("{at:?}") == step;
        async move {
            if dies {
                Command::new("kill").args(["-KILL", &std::process::id().to_string()]).status().unwrap();
                std::future::pending::<()>().await;
            }
            Ok(())
        }
        .boxed()
    });
    let context = liaison_sync::worker::Context::new(&hub, &store, "w", Budget::default(), faults);
    let mut worker = Worker::new(context);
    let partner: PartnerName = format!("{}-a", name.replace('_', "-")).parse().unwrap();
    worker.set_terms(vec![terms(&partner, ALL_GROUPS, scope)]);
    let _ = worker.converge(now()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_workers_that_both_believe_they_hold_a_lease_one_writes() {
    let mut world = World::new("faultboth").await;
    let partner = world.partner("a");
    world.prepare(&partner).await;
    world.file(1, "5915022", 1).await;
    let terms = terms(&partner, ALL_GROUPS, VANCOUVER);
    let mut first = worker(&world, "first", std::slice::from_ref(&terms));
    first.converge(now()).await.unwrap();
    let mut second = worker(&world, "second", std::slice::from_ref(&terms));
    assert_eq!(second.converge(now()).await.unwrap_err().1, "LeaseHeld", "it is not taken from one who renews it");
    // Its holder did not come to renew it: paused, swapped out, cut off.
    world.execute("UPDATE liaison.lease SET until = clock_timestamp() - interval '1 second'").await;
    second.converge(now()).await.unwrap();
    for round in 0..3 {
        world.execute(&format!("UPDATE oms.alias SET surname = 'Round{round}'")).await;
        // The first knows nothing of it.
        assert_eq!(first.converge(now()).await.unwrap_err().1, "LeaseHeld");
        second.converge(now()).await.unwrap();
        checked(&world, std::slice::from_ref(&terms)).await;
    }
    let batches = "SELECT count(*) FROM liaison.ledger_batch WHERE state <> 'landed'";
    assert_eq!(number(&world.hub, batches).await, 0);
    world.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_jumps_ends_an_agreement_early_but_never_late_and_no_lease() {
    let mut world = World::new("faultclock").await;
    let partner = world.partner("a");
    world.prepare(&partner).await;
    world.file(1, "5915022", 1).await;
    let terms = terms(&partner, ALL_GROUPS, VANCOUVER);
    let mut worker = worker(&world, "w", std::slice::from_ref(&terms));
    worker.converge(now()).await.unwrap();
    // Sync's own clock a century ahead: past the agreement's end, nothing crosses.
    let ahead = terms.authorized_until.unwrap() + jiff::SignedDuration::from_hours(1);
    world.file(2, "5915022", 1).await;
    worker.converge(ahead).await.unwrap();
    assert!(!worker.standings(ahead)[&partner].open);
    assert_eq!(world.count(&partner, "subject").await, 1, "nothing is disclosed once it has ended");
    let until = format!(
        "SELECT (authorized_until = '{}')::int::bigint FROM {}.cursor",
        terms.authorized_until.unwrap(),
        ident(&partner.share_schema())
    );
    assert_eq!(number(&world.store, &until).await, 1, "InfoPol goes by the instant, on its own clock");
    // Back, and before it began: an instant in the past is as good as any before the end.
    worker.converge("1990-01-01T00:00:00Z".parse().unwrap()).await.unwrap();
    checked(&world, std::slice::from_ref(&terms)).await;
    drop(worker);
    // The hub's clock was ahead by a day when a lease was taken, and has been put back: its holder is gone.
    world.execute("UPDATE liaison.lease SET until = clock_timestamp() + interval '1 day', holder = 'gone'").await;
    let mut next = self::worker(&world, "next", std::slice::from_ref(&terms));
    next.converge(now()).await.unwrap();
    // It was put back by an hour: the as-of row was of a later time, and is written all the same.
    let share = ident(&partner.share_schema());
    world.store.batch_execute(&format!("UPDATE {share}.cursor SET as_of = now() + interval '1 hour'")).await.unwrap();
    drop(next);
    let mut again = self::worker(&world, "next", std::slice::from_ref(&terms));
    let ahead = format!("SELECT count(*) FROM {share}.cursor WHERE as_of > now() + interval '1 minute'");
    again.converge(now()).await.unwrap();
    while number(&world.store, &ahead).await == 1 {
        let _ = again.round(now()).await;
        again.wait(Duration::from_millis(20)).await;
    }
    checked(&world, &[terms]).await;
    world.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_truncate_is_waited_out_and_what_it_empties_is_withdrawn() {
    let mut world = World::new("faulttrunc").await;
    let partner = world.partner("a");
    world.prepare(&partner).await;
    for id in 1..=5 {
        world.file(id, "5915022", 1).await;
    }
    let terms = terms(&partner, ALL_GROUPS, VANCOUVER);
    let mut worker = worker(&world, "w", std::slice::from_ref(&terms));
    worker.converge(now()).await.unwrap();
    let extract = world.hub_target.connect().await.unwrap();
    world.execute("UPDATE oms.alias SET surname = 'Before'").await;
    extract.batch_execute("BEGIN; TRUNCATE oms.sentence").await.unwrap();
    // The extract holds its lock: no cycle, no trouble, and the extract is not made to wait.
    for _ in 0..2 {
        let _ = worker.round(now()).await;
        worker.wait(Duration::from_millis(5)).await;
    }
    let standing = worker.standings(now())[&partner].clone();
    assert!(standing.complete && standing.trouble.is_none(), "{standing:?}");
    assert_eq!(world.count(&partner, "record WHERE tbl = 'sentence'").await, 5, "nothing was seen as empty");
    extract.batch_execute("COMMIT").await.unwrap();
    let since = hub_millis(&world).await;
    rounds(&mut worker, |all| up_to_date(&all[&partner], since)).await;
    assert_eq!(world.count(&partner, "record WHERE tbl = 'sentence'").await, 0);
    checked(&world, &[terms]).await;
    world.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_open_for_an_hour_costs_no_more_than_what_changes() {
    let mut world = World::new("faultopen").await;
    let partner = world.partner("a");
    world.prepare(&partner).await;
    for id in 1..=100 {
        world.file(id, "5915022", 1).await;
    }
    let terms = terms(&partner, ALL_GROUPS, VANCOUVER);
    let mut worker = worker(&world, "w", std::slice::from_ref(&terms));
    worker.converge(now()).await.unwrap();
    let open = world.hub_target.connect().await.unwrap();
    open.batch_execute(&format!("BEGIN; {}", file_sql(900, "5915022", "Released", 1))).await.unwrap();
    // What passes meanwhile: 100,000 change rows.
    for round in 0..10 {
        world
            .execute(&format!(
                "DO $$ BEGIN FOR i IN 1..100 LOOP UPDATE oms.sentence SET length_days = {round} * 1000 + i; END LOOP; END $$"
            ))
            .await;
        worker.converge(now()).await.unwrap();
    }
    assert!(number(&world.hub, "SELECT count(*) FROM liaison.change").await > 100_000);
    // The cursor bears what was open: nothing before it is read again. Counts are complete once a session has ended.
    drop(worker);
    let read = || async {
        let sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'liaison-sync' AND state IS NOT NULL \
                        AND datname = current_database()";
        while number(&world.hub, sessions).await > 1 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // What this session itself has counted is not to be told later.
        world.execute("SELECT pg_stat_force_next_flush()").await;
        let rows = "SELECT seq_tup_read + coalesce(idx_tup_fetch, 0) FROM pg_stat_user_tables WHERE relname = 'change'";
        number(&world.hub, rows).await
    };
    let before = read().await;
    let mut second = self::worker(&world, "w", std::slice::from_ref(&terms));
    second.converge(now()).await.unwrap();
    world.execute("UPDATE oms.sentence SET length_days = 1 WHERE id = 100").await;
    second.converge(now()).await.unwrap();
    drop(second);
    let after = read().await;
    println!("{} change rows read, of more than 100,000 since the transaction began", after - before);
    assert!(after - before < 1_000, "{} change rows read for one change", after - before);
    // It ends: what it did crosses.
    open.batch_execute("COMMIT").await.unwrap();
    self::worker(&world, "w", std::slice::from_ref(&terms)).converge(now()).await.unwrap();
    assert_eq!(world.count(&partner, "subject").await, 101);
    checked(&world, &[terms]).await;
    world.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_thousand_rows_changed_in_one_transaction() {
    let mut world = World::new("faultmany").await;
    let mut all = Vec::new();
    for (suffix, scope) in [("a", VANCOUVER), ("b", SASKATOON)] {
        let partner = world.partner(suffix);
        world.prepare(&partner).await;
        all.push(terms(&partner, ALL_GROUPS, scope));
    }
    // Few of the files are anybody's; what changes is mostly elsewhere, as it would be.
    world
        .execute(
            "INSERT INTO oms.offender SELECT id, lpad(id::text, 6, '0') || 'A', 'Tremblay', 'Marc', '1980-01-02', 'Community', 'Released',
                 'DayParole', 'NotAtLarge', 'NoWarrant', CASE WHEN id % 20 = 0 THEN 'CA-BC' WHEN id % 20 = 1 THEN 'CA-SK' ELSE 'CA-ON' END,
                 CASE WHEN id % 20 = 0 THEN '5915022' WHEN id % 20 = 1 THEN '4711066' ELSE '3520005' END
             FROM generate_series(1, 2000) id",
        )
        .await;
    for part in 0..5 {
        world
            .execute(&format!(
                "INSERT INTO oms.sentence SELECT id, 1 + id % 2000, 0 FROM generate_series({part} * 40000 + 1, {part} * 40000 + 40000) id"
            ))
            .await;
    }
    let mut worker = worker(&world, "w", &all);
    worker.converge(now()).await.unwrap();
    let mut sql = "BEGIN;".to_owned();
    for part in 0..5 {
        write!(
            sql,
            "UPDATE oms.sentence SET length_days = 1 WHERE id BETWEEN {part} * 40000 + 1 AND {part} * 40000 + 40000;"
        )
        .unwrap();
    }
    world.execute(&format!("{sql} COMMIT")).await;
    worker.converge(now()).await.unwrap();
    checked(&world, &all).await;
    let changed =
        format!("SELECT count(*) FROM {}.record WHERE body LIKE '%: 1}}'", ident(&all[0].partner.share_schema()));
    assert_eq!(number(&world.store, &changed).await, 10_000);
    // In one statement: one marker, and what is compared sends what differs.
    world.execute("UPDATE oms.sentence SET length_days = 2").await;
    worker.converge(now()).await.unwrap();
    checked(&world, &all).await;
    world.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_restored_from_yesterdays_backup_is_noticed_whether_or_not_anything_crossed_since() {
    let mut server = Cluster::start("hubold").await;
    let mut world = World::at("faultold", &server.url(), &url(), "").await;
    let mut all = Vec::new();
    for (suffix, scope) in [("a", VANCOUVER), ("b", SASKATOON)] {
        let partner = world.partner(suffix);
        world.prepare(&partner).await;
        all.push(terms(&partner, ALL_GROUPS, scope));
    }
    for id in 1..=4 {
        world.file(id, if id % 2 == 0 { "5915022" } else { "4711066" }, 1).await;
    }
    let mut worker = worker(&world, "w", &all);
    worker.converge(now()).await.unwrap();
    server.stop("-INT");
    server.back_up();
    server.start_again().await;
    world.come_back().await;
    // Of the day that will be lost, something crosses to a, and nothing to b; but b's replica is exact as of later.
    for day in 0..50 {
        world.execute(&format!("UPDATE oms.sentence SET length_days = {day} WHERE offender % 2 = 0")).await;
    }
    let since = hub_millis(&world).await;
    rounds(&mut worker, |all| all.values().all(|standing| up_to_date(standing, since))).await;
    drop(worker);
    let touch = format!(
        "UPDATE {}.cursor b SET snapshot = a.snapshot, as_of = a.as_of FROM {}.cursor a",
        ident(&all[1].partner.share_schema()),
        ident(&all[0].partner.share_schema())
    );
    world.store.batch_execute(&touch).await.unwrap();
    let mut worker = self::worker(&world, "w", &all);
    worker.converge(now()).await.unwrap();
    // The machine is put back to yesterday: the same identity, and transactions are numbered again from there. Sync goes on
    // with the leases that it believes it holds.
    server.stop("-QUIT");
    server.restore();
    server.start_again().await;
    world.come_back().await;
    for id in [1, 2] {
        world.execute(&format!("UPDATE oms.sentence SET length_days = 1000 WHERE offender = {id}")).await;
    }
    let since = hub_millis(&world).await;
    rounds(&mut worker, |all| all.values().all(|standing| up_to_date(standing, since))).await;
    checked(&world, &all).await;
    let rebuilt = "SELECT count(DISTINCT partner) FROM liaison.ledger_batch WHERE kind = 'rebuild'";
    assert_eq!(number(&world.hub, rebuilt).await, 1, "a's head is not of this ledger; b's is");
    drop(worker);
    world.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_that_fails_over_to_an_asynchronous_standby_is_compared_and_its_lost_ledger_noticed() {
    let mut server = Cluster::start("primary").await;
    let mut world = World::at("faultover", &server.url(), &url(), "").await;
    let mut all = Vec::new();
    for (suffix, scope) in [("a", VANCOUVER), ("b", SASKATOON)] {
        let partner = world.partner(suffix);
        world.prepare(&partner).await;
        all.push(terms(&partner, ALL_GROUPS, scope));
    }
    for id in 1..=4 {
        world.file(id, if id % 2 == 0 { "5915022" } else { "4711066" }, 1).await;
    }
    worker(&world, "w", &all).converge(now()).await.unwrap();
    let standby = server.standby("standby").await;
    // The standby has all of this, and nothing of what follows.
    let there = liaison_sync::connect::Target::from_url(liaison_sync::error::Side::Hub, &standby.url()).unwrap();
    let there = there.connect().await.unwrap();
    there.batch_execute("ALTER SYSTEM SET primary_conninfo = ''").await.unwrap();
    there.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    while number(&there, "SELECT count(*) FROM pg_stat_wal_receiver").await > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.execute("UPDATE oms.alias SET surname = 'Lost' WHERE offender % 2 = 0").await;
    worker(&world, "w", &all).converge(now()).await.unwrap();
    checked(&world, &all).await;
    server.stop("-QUIT");
    standby.promote();
    world.fail_over_hub(&standby.url()).await;
    world.execute("UPDATE oms.sentence SET length_days = 1001").await;
    let kept = "SELECT count(*) FROM oms.alias WHERE surname = 'Lost'";
    assert_eq!(number(&world.hub, kept).await, 0, "the standby never had it");
    worker(&world, "w", &all).converge(now()).await.unwrap();
    checked(&world, &all).await;
    let rebuilt = "SELECT count(DISTINCT partner) FROM liaison.ledger_batch WHERE kind = 'rebuild'";
    assert_eq!(number(&world.hub, rebuilt).await, 1, "a's last batch is not in this ledger; b's is");
    let identities = format!(
        "SELECT count(*) FROM {}.cursor WHERE hub_identity LIKE '%/00000002'",
        ident(&all[1].partner.share_schema())
    );
    assert_eq!(number(&world.store, &identities).await, 1, "the new timeline");
    drop(there);
    world.drop().await;
}
