//! Capture from the write-ahead log: it writes the change log that triggers write, and nobody misses what comes after a snapshot.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::{collections::BTreeSet, time::Duration};

use liaison_sync::{
    compare::Budget,
    cursor::Snapshot,
    error::Error,
    fault::Faults,
    hub::{Reading, View, probe},
    wal::Wal,
};
use support::{World, cluster::Cluster, now, terms};
use tokio::task::JoinHandle;

const ALL_GROUPS: &[&str] = &["identity", "aliases", "photograph", "sentence", "supervision"];
const VANCOUVER: &str = r#"{"anyOf":[{"municipalities":["5915022"]}]}"#;

async fn log(world: &World) -> BTreeSet<(String, String, Option<i64>, Option<i64>)> {
    let rows = world.hub.query("SELECT xid::text, tbl, id, offender FROM liaison.change", &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect()
}

async fn end(world: &World) -> String {
    world.hub.query_one("SELECT pg_current_wal_insert_lsn()::text", &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_says_what_the_triggers_say() {
    let world = World::new("walsame").await;
    world.capture_from_the_log(true).await;
    // Both for a moment, as in a change from one to the other.
    world.execute("SELECT liaison.capture(rel::regclass, name, offender_column) FROM liaison.captured").await;
    world.execute("TRUNCATE liaison.change").await;
    for id in 1..=20 {
        world.file(id, "5915022", 3).await;
    }
    world
        .execute(
            "BEGIN; UPDATE oms.sentence SET length_days = id WHERE offender % 2 = 0; SAVEPOINT s;
             UPDATE oms.alias SET surname = 'never'; ROLLBACK TO s; SAVEPOINT t;
             UPDATE oms.alias SET surname = repeat('long ', 2000) WHERE offender = 3; COMMIT",
        )
        .await;
    world.execute("INSERT INTO oms.office VALUES (7, 'Office 7'); UPDATE oms.office SET name_en = 'Seven'").await;
    world.execute("BEGIN; UPDATE oms.offender SET status = 'Suspended'; ROLLBACK").await;
    // A new number: its old one comes from a trigger either way.
    world.execute("UPDATE oms.sentence SET id = id + 100000 WHERE offender = 4").await;
    let by_triggers = log(&world).await;
    world.execute("TRUNCATE liaison.change").await;
    let mut reached = 0;
    // A few messages at once, whole transactions each time.
    loop {
        let state: String = world
            .hub
            .query_one("SELECT liaison.wal_drain($1::text::pg_lsn, 7)", &[&end(&world).await])
            .await
            .unwrap()
            .get(0);
        world.execute("SELECT liaison.wal_release()").await;
        reached += 1;
        if state == "complete" {
            break;
        }
    }
    assert!(reached > 20, "{reached} calls");
    let by_log = log(&world).await;
    let renamed = |rows: &BTreeSet<_>| {
        let old = |row: &&(String, String, Option<i64>, Option<i64>)| {
            row.1 == "sentence" && row.3 == Some(4) && row.2.is_some_and(|id| id < 100_000)
        };
        rows.iter().filter(old).count()
    };
    assert!(renamed(&by_triggers) > renamed(&by_log), "the log names no old numbers");
    let missing: Vec<_> = by_triggers.difference(&by_log).filter(|row| row.3 != Some(4)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert!(by_log.is_subset(&by_triggers), "{:?}", by_log.difference(&by_triggers).collect::<Vec<_>>());
    world.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_committed_after_a_snapshot_waits_for_the_next() {
    let world = World::new("wallater").await;
    world.capture_from_the_log(true).await;
    world.file(1, "5915022", 1).await;
    let wal = Wal::new(&world.hub_target);
    let mut client = world.hub_target.connect().await.unwrap();
    let since: Snapshot = {
        let view = View::open(Reading { client: &mut client, wal: &wal }).await.unwrap();
        let since = view.point.snapshot.clone();
        view.close().await.unwrap();
        since
    };
    assert!(!probe(&client, &wal, &since).await.unwrap().1, "nothing came after it");
    let open = world.hub_target.connect().await.unwrap();
    open.batch_execute("BEGIN; UPDATE oms.alias SET surname = 'Open'").await.unwrap();
    world.execute("UPDATE oms.sentence SET length_days = 2").await;
    assert!(probe(&client, &wal, &since).await.unwrap().1);
    let mut view = View::open(Reading { client: &mut client, wal: &wal }).await.unwrap();
    let point = view.point.snapshot.clone();
    // Visible to whoever reads the log from here on, and not in the snapshot.
    open.batch_execute("COMMIT").await.unwrap();
    world.execute("UPDATE oms.photograph SET taken_on = '2026-01-02'").await;
    let tables = |changes: liaison_sync::route::Changes| -> BTreeSet<String> {
        changes.rows.iter().map(|((table, _), _)| table.to_string()).collect()
    };
    assert_eq!(tables(view.changes(&since).await.unwrap()), BTreeSet::from(["sentence".to_owned()]));
    view.close().await.unwrap();
    let mut view = View::open(Reading { client: &mut client, wal: &wal }).await.unwrap();
    let next = tables(view.changes(&point).await.unwrap());
    assert_eq!(next, BTreeSet::from(["alias".to_owned(), "photograph".to_owned()]));
    view.close().await.unwrap();
    drop((client, wal, open));
    world.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_is_lost_is_noticed_before_anything_is_called_exact() {
    let mut world = World::new("wallost").await;
    world.capture_from_the_log(true).await;
    let partner = world.partner("a");
    world.prepare(&partner).await;
    world.file(1, "5915022", 1).await;
    let terms = terms(&partner, ALL_GROUPS, VANCOUVER);
    let mut worker = world.worker("w", Budget::default(), Faults::default());
    worker.set_terms(vec![terms.clone()]);
    worker.converge(now()).await.unwrap();
    for lose in [
        "SELECT pg_drop_replication_slot(liaison.wal_slot())",
        "SELECT pg_replication_slot_advance(liaison.wal_slot(), pg_current_wal_flush_lsn())",
    ] {
        world.execute("UPDATE oms.sentence SET length_days = length_days + 1").await;
        world.execute(lose).await;
        let before = worker.standings(now())[&partner].exact_at_millis;
        let (_, reason, message) = worker.converge(now()).await.unwrap_err();
        assert_eq!(reason, "CaptureLost", "{message}");
        assert_eq!(worker.standings(now())[&partner].exact_at_millis, before, "nothing is exact as of later");
        worker.converge(now()).await.unwrap();
        world.check_i1(&terms).await;
    }
    // A new one waits for what is open, which is said.
    let open = world.hub_target.connect().await.unwrap();
    open.batch_execute("BEGIN; UPDATE oms.sentence SET length_days = length_days + 1").await.unwrap();
    world.execute("SELECT pg_drop_replication_slot(liaison.wal_slot())").await;
    let (_, reason, message) = worker.converge(now()).await.unwrap_err();
    assert_eq!(reason, "CaptureWaits", "{message}");
    open.batch_execute("COMMIT").await.unwrap();
    while let Err((_, reason, message)) = worker.converge(now()).await {
        assert!(["CaptureWaits", "CaptureLost"].contains(&reason), "{reason}: {message}");
    }
    world.check_i1(&terms).await;
    drop((worker, open));
    world.drop().await;
}

/// A new slot waits for the transactions that are open, and reads what they do meanwhile: DDL as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_is_renewed_while_tables_are_made() {
    let world = World::new("walddl").await;
    world.capture_from_the_log(true).await;
    let [renewing, first, second] = [(); 3].map(|()| world.hub_target.connect());
    let (renewing, first, second) = tokio::try_join!(renewing, first, second).unwrap();
    let pid: i32 = renewing.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let waits_for = async |client: &tokio_postgres::Client| {
        let xid: String = client.query_one("SELECT pg_current_xact_id()::text", &[]).await.unwrap().get(0);
        let sql = "SELECT count(*) FROM pg_locks WHERE pid = $1 AND NOT granted AND transactionid::text = $2";
        while world.hub.query_one(sql, &[&pid, &xid]).await.unwrap().get::<_, i64>(0) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    world.execute("SELECT pg_drop_replication_slot(liaison.wal_slot())").await;
    first.batch_execute("BEGIN; SELECT pg_current_xact_id()").await.unwrap();
    let renewed = tokio::spawn(async move { renewing.batch_execute("SELECT liaison.wal_renew()").await });
    waits_for(&first).await;
    second.batch_execute("BEGIN; SELECT pg_current_xact_id()").await.unwrap();
    first.batch_execute("COMMIT").await.unwrap();
    waits_for(&second).await;
    second.batch_execute("CREATE TABLE oms.made_meanwhile (id bigint); COMMIT").await.unwrap();
    renewed.await.unwrap().unwrap();
    drop((first, second));
    world.drop().await;
}

/// A slot moves with what is read from it, also when the transaction that reads is not committed: what it had read is in no log then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_read_and_not_committed_is_compared() {
    let mut world = World::new("walkilled").await;
    world.capture_from_the_log(true).await;
    let partner = world.partner("a");
    world.prepare(&partner).await;
    world.file(1, "5915022", 1).await;
    let terms = terms(&partner, ALL_GROUPS, VANCOUVER);
    let mut worker = world.worker("w", Budget::default(), Faults::default());
    worker.set_terms(vec![terms.clone()]);
    worker.converge(now()).await.unwrap();
    // Nothing waits for a transaction that is open: there is a slot, and it has what that will have done.
    let open = world.hub_target.connect().await.unwrap();
    open.batch_execute("BEGIN; UPDATE oms.alias SET surname = 'Open'").await.unwrap();
    for killed in [true, false] {
        world.execute("UPDATE oms.sentence SET length_days = length_days + 1").await;
        read_and_do_not_commit(&world, killed).await;
        let before = worker.standings(now())[&partner].exact_at_millis;
        let (_, reason, message) = worker.converge(now()).await.unwrap_err();
        assert_eq!(reason, "CaptureLost", "{message}");
        assert_eq!(worker.standings(now())[&partner].exact_at_millis, before, "nothing is exact as of later");
        worker.converge(now()).await.unwrap();
        world.check_i1(&terms).await;
    }
    open.batch_execute("COMMIT").await.unwrap();
    worker.converge(now()).await.unwrap();
    world.check_i1(&terms).await;
    drop((worker, open));
    world.drop().await;
}

/// Reads the log to its end, and the transaction is not committed.
async fn read_and_do_not_commit(world: &World, killed: bool) {
    let reader = world.hub_target.connect().await.unwrap();
    reader.batch_execute("BEGIN").await.unwrap();
    let read = "SELECT pg_backend_pid(), liaison.wal_drain(pg_current_wal_flush_lsn(), 1000000)";
    let row = reader.query_one(read, &[]).await.unwrap();
    assert_eq!(row.get::<_, &str>(1), "complete");
    if killed {
        world.execute(&format!("SELECT pg_terminate_backend({})", row.get::<_, i32>(0))).await;
    } else {
        reader.batch_execute("ROLLBACK").await.unwrap();
    }
}

/// Whoever holds a snapshot from before the loss was noticed by another may not follow it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_from_before_a_loss_is_not_followed() {
    let world = World::new("walmarked").await;
    world.capture_from_the_log(true).await;
    world.file(1, "5915022", 1).await;
    let [ours, others] = [(); 2].map(|()| Wal::new(&world.hub_target));
    let mut client = world.hub_target.connect().await.unwrap();
    let since = probe(&client, &ours, &"1:1:".parse().unwrap()).await.unwrap().0.snapshot;
    world.execute("UPDATE oms.sentence SET length_days = 2").await;
    let mut view = View::open(Reading { client: &mut client, wal: &ours }).await.unwrap();
    read_and_do_not_commit(&world, true).await;
    let lost = others.ask(&end(&world).await, &since, "SELECT", &[]).await.map(drop);
    assert!(matches!(lost, Err(Error::CaptureLost)), "{lost:?}");
    let changes = view.changes(&since).await.map(drop);
    assert!(matches!(changes, Err(Error::CaptureLost)), "{changes:?}");
    view.close().await.unwrap();
    let mut view = View::open(Reading { client: &mut client, wal: &ours }).await.unwrap();
    assert!(view.changes(&since).await.unwrap().everything.contains("sentence"));
    view.close().await.unwrap();
    drop((client, ours, others));
    world.drop().await;
}

/// A change whose commit is in the log, and is not seen by anybody while it waits for a standby: its number, and its end.
async fn commit_that_waits(world: &World) -> (String, JoinHandle<Result<(), tokio_postgres::Error>>) {
    let [committing, before] = [(); 2].map(|()| world.hub_target.connect());
    let (committing, before) = tokio::try_join!(committing, before).unwrap();
    world.execute("SET synchronous_commit = local").await;
    world.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'").await;
    world.execute("SELECT pg_reload_conf()").await;
    let waiting = async |number: i64| {
        let sql = "SELECT count(*) = $1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        let all = async {
            while !world.hub.query_one(sql, &[&number]).await.unwrap().get::<_, bool>(0) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), all).await.expect("a commit that waits");
    };
    // The setting is there when a commit waits.
    let first = tokio::spawn(async move {
        while before.batch_execute("BEGIN; SELECT pg_current_xact_id(); COMMIT").await.is_ok() {}
    });
    waiting(1).await;
    committing.batch_execute("BEGIN; UPDATE oms.sentence SET length_days = 9").await.unwrap();
    let xid = committing.query_one("SELECT pg_current_xact_id()::text", &[]).await.unwrap().get(0);
    let committed = tokio::spawn(async move { committing.batch_execute("COMMIT").await });
    waiting(2).await;
    first.abort();
    (xid, committed)
}

/// No commit waits any more.
async fn no_standby(world: &World) {
    world.execute("ALTER SYSTEM RESET synchronous_standby_names").await;
    world.execute("SELECT pg_reload_conf()").await;
}

/// A commit is in the log before anybody sees it, and for long where it waits for a standby. It is written down under its own number,
/// though nothing that was finished has one as high.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_is_read_before_it_is_seen_has_its_number() {
    let cluster = Cluster::start("walnumber").await;
    let world = World::at("walnumber", &cluster.url(), &cluster.url(), "").await;
    world.capture_from_the_log(true).await;
    world.file(1, "5915022", 1).await;
    let (xid, committed) = commit_that_waits(&world).await;
    let highest = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint <= $1::text::bigint";
    assert!(world.hub.query_one(highest, &[&xid]).await.unwrap().get::<_, bool>(0), "it is above what is finished");
    world.execute("SELECT liaison.wal_drain(pg_current_wal_flush_lsn(), 1000000)").await;
    let rows = log(&world).await;
    assert!(rows.iter().any(|(number, table, ..)| *number == xid && table == "sentence"), "{xid}: {rows:?}");
    no_standby(&world).await;
    committed.await.unwrap().unwrap();
    world.drop().await;
}

/// If it was read there by somebody who did not commit, everything is compared again once it is seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_is_lost_before_it_is_seen_is_compared_when_it_is() {
    let cluster = Cluster::start("walstandby").await;
    let world = World::at("walstandby", &cluster.url(), &cluster.url(), "").await;
    world.capture_from_the_log(true).await;
    world.file(1, "5915022", 1).await;
    let (xid, committed) = commit_that_waits(&world).await;
    read_and_do_not_commit(&world, true).await;
    // Two workers notice it; the second makes no other slot.
    for _ in 0..2 {
        world.execute("SELECT liaison.wal_renew()").await;
        world.execute("SELECT liaison.wal_everything()").await;
    }
    let marked = "SELECT count(*) FROM liaison.change WHERE xid::text = $1 AND tbl = 'sentence' AND id IS NULL";
    assert!(world.hub.query_one(marked, &[&xid]).await.unwrap().get::<_, i64>(0) > 0);
    no_standby(&world).await;
    committed.await.unwrap().unwrap();
    world.drop().await;
}

/// A nightly reload in one transaction is one line a table, whatever else is read with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_transaction_is_one_line_a_table() {
    let world = World::new("wallarge").await;
    world.capture_from_the_log(true).await;
    world.execute("INSERT INTO oms.office SELECT n, 'Office' FROM generate_series(1, 10) n").await;
    world
        .execute("BEGIN; INSERT INTO oms.office SELECT n, 'Office' FROM generate_series(1001, 250000) n; COMMIT")
        .await;
    let wal = Wal::new(&world.hub_target);
    wal.ask(&end(&world).await, &"1:1:".parse().unwrap(), "SELECT", &[]).await.unwrap();
    let offices = "SELECT count(id), count(*) - count(id) FROM liaison.change WHERE tbl = 'office'";
    let row = world.hub.query_one(offices, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (10, 1));
    let left = "SELECT s.confirmed_flush_lsn = l.position FROM pg_replication_slots s, liaison.wal_position l
                WHERE s.slot_name = liaison.wal_slot()";
    assert!(world.hub.query_one(left, &[]).await.unwrap().get::<_, bool>(0), "the slot is where the log is");
    drop(wal);
    world.drop().await;
}
