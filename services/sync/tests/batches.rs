//! Batches on a real PostgreSQL, one scenario a test: leases, crash points, what crosses and what does not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use futures::FutureExt;
use liaison_sync::{
    compare::Budget,
    dispose::{Policy, dispose},
    error::Error,
    fault::{Faults, STEPS, Step},
    quote::ident,
    seed::{self, Seeded},
};
use support::{VERIFIER, World, file_sql, now, picture_sql, terms};

const ALL_GROUPS: &[&str] = &["identity", "aliases", "photograph", "sentence", "supervision"];
const VANCOUVER: &str = r#"{"anyOf":[{"municipalities":["5915022"]}]}"#;
const WEST: &str = r#"{"anyOf":[{"jurisdictions":["CA-BC","CA-SK"]}]}"#;

#[tokio::test]
async fn seeding_twice_is_seeding_once_and_disposing_twice_is_disposing_once() {
    let world = World::new("syncseed").await;
    let partner = world.partner("a");
    for id in 1..=30 {
        world.file(id, if id % 3 == 0 { "4711066" } else { "5915022" }, 2).await;
    }
    world.execute("INSERT INTO oms.office VALUES (1, 'Vancouver Parole')").await;
    let terms = terms(&partner, ALL_GROUPS, VANCOUVER);
    let small = Budget { chunk: 3, bytes: 1, ..Budget::default() };
    let seed = || seed::seed(&world.hub_target, &world.store_target, &terms, VERIFIER, "job", small, Faults::default());
    let first = seed().await.unwrap();
    assert_eq!(first, Seeded { files: 20, records: 20 * 6 + 1 });
    world.check_i1(&terms).await;
    world.check_i2(&partner).await;
    let batches = "SELECT count(*) FROM liaison.ledger_batch";
    let before: i64 = world.hub.query_one(batches, &[]).await.unwrap().get(0);
    assert!(before > 3, "filled in parts, each a batch");
    assert_eq!(seed().await.unwrap(), first);
    let after: i64 = world.hub.query_one(batches, &[]).await.unwrap().get(0);
    assert_eq!(before, after, "nothing crossed the second time");
    // A schema or role that is not ours is left alone.
    world.store.batch_execute("CREATE SCHEMA share_syncnotours").await.unwrap();
    let mut client = world.store_target.connect().await.unwrap();
    let error = seed::prepare(&mut client, &"syncnotours".parse().unwrap(), VERIFIER).await.unwrap_err();
    assert!(matches!(error, Error::NotOurs { .. }), "{error}");
    assert_eq!(error.reason(), "NotOurs");
    drop(client);
    // Retained: closed, the role disabled, due; then dropped. The journal is on the hub.
    let journal = ident(&partner.journal_schema());
    world
        .store
        .batch_execute(&format!(
            "INSERT INTO {journal}.access_log (xid, at, officer, purpose, kind, request, language, outcome)
             VALUES (pg_current_xact_id(), now(), 'o', 'Supervision', 'file', '{{}}', 'en', 'allowed')"
        ))
        .await
        .unwrap();
    let retain =
        Policy::Retain { due: "2026-01-01T00:00:00Z".parse().unwrap(), agreement: "bc".into(), store: "shared".into() };
    for _ in 0..2 {
        dispose(&world.hub_target, &world.store_target, &partner, &retain, "job").await.unwrap();
    }
    let login = "SELECT rolcanlogin FROM pg_roles WHERE rolname = $1";
    assert!(!world.store.query_one(login, &[&partner.reader_role()]).await.unwrap().get::<_, bool>(0));
    let hub = world.hub_target.connect().await.unwrap();
    let due = liaison_sync::retention::Due { partner: partner.clone(), deleted: true };
    assert_eq!(liaison_sync::retention::due(&hub, "shared").await.unwrap(), vec![due]);
    for _ in 0..2 {
        let done = dispose(&world.hub_target, &world.store_target, &partner, &Policy::Delete, "job").await.unwrap();
        assert!(done.gone);
    }
    assert!(liaison_sync::retention::due(&hub, "shared").await.unwrap().is_empty());
    assert!(world.store.query_opt(login, &[&partner.reader_role()]).await.unwrap().is_none());
    let rows: i64 = world.hub.query_one("SELECT count(*) FROM liaison.access_log", &[]).await.unwrap().get(0);
    assert_eq!(rows, 1);
    world.drop().await;
}

#[tokio::test]
async fn when_nothing_changes_only_the_as_of_row_is_written() {
    let mut world = World::new("syncidle").await;
    let partner = world.partner("a");
    world.prepare(&partner).await;
    for id in 1..=5 {
        world.file(id, "5915022", 1).await;
    }
    let mut terms = terms(&partner, ALL_GROUPS, VANCOUVER);
    terms.freshness_seconds = 2;
    let mut worker = world.worker("w", Budget::default(), Faults::default());
    worker.set_terms(vec![terms.clone()]);
    worker.converge(now()).await.unwrap();
    let share = ident(&partner.share_schema());
    let writes = || async {
        let rows = world
            .store
            .query(
                "SELECT relname::text, pg_stat_get_xact_tuples_inserted(0), xmin::text FROM pg_class WHERE false",
                &[],
            )
            .await
            .unwrap();
        drop(rows);
        let sql = format!(
            "SELECT (SELECT string_agg(xmin::text, ',' ORDER BY tbl, id) FROM {share}.record)
                 || (SELECT string_agg(xmin::text, ',' ORDER BY offender) FROM {share}.subject),
                 (SELECT xmin::text FROM {share}.cursor)"
        );
        let row = world.store.query_one(&sql, &[]).await.unwrap();
        (row.get::<_, String>(0), row.get::<_, String>(1))
    };
    let (records, cursor) = writes().await;
    for _ in 0..20 {
        worker.round(now()).await.unwrap();
        while worker.busy() {
            worker.wait(std::time::Duration::from_secs(1)).await;
        }
    }
    assert_eq!(writes().await, (records.clone(), cursor.clone()), "I9: not even the as-of row before it is due");
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    for _ in 0..5 {
        worker.round(now()).await.unwrap();
        while worker.busy() {
            worker.wait(std::time::Duration::from_secs(1)).await;
        }
    }
    let (records_later, cursor_later) = writes().await;
    assert_eq!(records, records_later);
    assert_ne!(cursor, cursor_later, "once per half freshness objective");
    // A reload that changes nothing sends nothing.
    let batches = "SELECT count(*) FROM liaison.ledger_batch";
    let before: i64 = world.hub.query_one(batches, &[]).await.unwrap().get(0);
    world
        .execute(
            "BEGIN; CREATE TEMP TABLE o ON COMMIT DROP AS TABLE oms.offender; CREATE TEMP TABLE a ON COMMIT DROP AS TABLE oms.alias;
             CREATE TEMP TABLE p ON COMMIT DROP AS TABLE oms.photograph; CREATE TEMP TABLE s ON COMMIT DROP AS TABLE oms.sentence;
             TRUNCATE oms.offender CASCADE; INSERT INTO oms.offender TABLE o; INSERT INTO oms.alias TABLE a;
             INSERT INTO oms.photograph TABLE p; INSERT INTO oms.sentence TABLE s; COMMIT",
        )
        .await;
    worker.converge(now()).await.unwrap();
    assert_eq!(before, world.hub.query_one(batches, &[]).await.unwrap().get::<_, i64>(0));
    assert_eq!(writes().await.0, records);
    world.check_i1(&terms).await;
    world.drop().await;
}

#[tokio::test]
async fn killed_at_every_step_it_converges_and_the_ledger_came_first() {
    let mut world = World::new("synckill").await;
    let partner = world.partner("a");
    world.prepare(&partner).await;
    for id in 1..=8 {
        world.file(id, "5915022", 1).await;
    }
    let mut terms = terms(&partner, ALL_GROUPS, WEST);
    for (round, step) in STEPS.into_iter().cycle().take(18).enumerate() {
        let round = i64::try_from(round).unwrap();
        // Odd rounds change the scope, so that comparing batches are killed as well.
        if round % 2 == 1 || step == Step::Narrowing {
            terms.generation += 1;
            let scope = if terms.generation % 2 == 0 { VANCOUVER } else { WEST };
            terms.grant.as_mut().unwrap().scope.share = support::population(scope);
        }
        world.execute(&file_sql(100 + round, if round % 3 == 0 { "4711066" } else { "5915022" }, "Released", 1)).await;
        world.execute(&format!("UPDATE oms.sentence SET length_days = {round} WHERE offender % 2 = 0")).await;
        let faults =
            Faults::hooked(move |at, _| async move { if at == step { Err(Error::Stopped) } else { Ok(()) } }.boxed());
        let mut worker = world.worker("w", Budget::default(), faults);
        worker.set_terms(vec![terms.clone()]);
        let stopped = worker.converge(now()).await;
        if step != Step::Narrowing {
            assert_eq!(stopped.unwrap_err().1, "Stopped", "{step:?}");
        }
        world.check_i2(&partner).await;
        drop(worker);
        let mut worker = world.worker("w", Budget::default(), Faults::default());
        worker.set_terms(vec![terms.clone()]);
        worker.converge(now()).await.unwrap();
        world.check_i1(&terms).await;
        world.check_i2(&partner).await;
    }
    let states = "SELECT state, count(*) FROM liaison.ledger_batch GROUP BY 1";
    let rows = world.hub.query(states, &[]).await.unwrap();
    let states: Vec<&str> = rows.iter().map(|r| r.get(0)).collect();
    assert!(states.contains(&"landed") && states.contains(&"void"), "{states:?}");
    assert!(!states.contains(&"prepared") && !states.contains(&"disclosed"), "{states:?}");
    world.drop().await;
}

/// The first fence did not ask for new search rows, since the aliases stayed; the second narrowing takes them away.
#[tokio::test]
async fn a_narrowing_behind_the_fence_of_one_that_was_killed_takes_its_names_away_as_well() {
    let mut world = World::new("syncnarrow").await;
    let partner = world.partner("a");
    world.prepare(&partner).await;
    for id in 1..=4 {
        world.file(id, if id == 4 { "4711066" } else { "5915022" }, 2).await;
    }
    let with = |groups, scope, generation| liaison_sync::terms::Terms { generation, ..terms(&partner, groups, scope) };
    let mut worker = world.worker("w", Budget::default(), Faults::default());
    worker.set_terms(vec![with(ALL_GROUPS, WEST, 1)]);
    worker.converge(now()).await.unwrap();
    worker.shut_down().await;
    let faults =
        Faults::hooked(|at, _| async move { if at == Step::Ledgered { Err(Error::Stopped) } else { Ok(()) } }.boxed());
    let mut worker = world.worker("w", Budget::default(), faults);
    worker.set_terms(vec![with(ALL_GROUPS, VANCOUVER, 2)]);
    assert_eq!(worker.converge(now()).await.unwrap_err().1, "Stopped");
    drop(worker);
    let fenced = format!("SELECT fenced AND seeded FROM {}.cursor", ident(&partner.share_schema()));
    assert!(world.store.query_one(&fenced, &[]).await.unwrap().get::<_, bool>(0), "left as it was killed");
    // Of many batches the first takes the aliases themselves: what the later ones compare does not show that there were any.
    let last = with(&["identity", "sentence"], VANCOUVER, 3);
    let mut worker = world.worker("w", Budget { chunk: 1, bytes: 1, ..Budget::default() }, Faults::default());
    worker.set_terms(vec![last.clone()]);
    worker.converge(now()).await.unwrap();
    world.check_i1(&last).await;
    world.check_i2(&partner).await;
    worker.shut_down().await;
    world.drop().await;
}

/// Records are written in the place where they were found. Whoever moves them meanwhile makes the batch fail, and nothing is lost.
#[tokio::test]
async fn a_record_that_was_moved_between_look_and_write_is_looked_for_again() {
    let mut world = World::new("syncplace").await;
    let partner = world.partner("a");
    world.prepare(&partner).await;
    for id in 1..=30 {
        world.file(id, "5915022", 2).await;
    }
    let terms = terms(&partner, ALL_GROUPS, VANCOUVER);
    let mut worker = world.worker("w", Budget::default(), Faults::default());
    worker.set_terms(vec![terms.clone()]);
    worker.converge(now()).await.unwrap();
    drop(worker);
    let record = format!("{}.record", ident(&partner.share_schema()));
    // Behind their old versions: without those they are elsewhere, and another's row may be in the place of one.
    let spread = format!("UPDATE {record} SET batch = batch");
    world.store.batch_execute(&format!("{spread}; {spread}")).await.unwrap();
    let places = async || -> Vec<String> {
        let sql = format!("SELECT ctid::text FROM {record} ORDER BY tbl, id");
        world.store.query(&sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
    };
    let before = places().await;
    world
        .execute("UPDATE oms.sentence SET length_days = length_days + 1; UPDATE oms.alias SET surname = 'Moved'")
        .await;
    let (target, compact) = (world.store_target.clone(), format!("VACUUM FULL {record}"));
    let faults = Faults::hooked(move |at, _| {
        let (target, compact) = (target.clone(), compact.clone());
        async move {
            if at == Step::Ledgered {
                target.connect().await?.batch_execute(&compact).await.unwrap();
            }
            Ok(())
        }
        .boxed()
    });
    let mut worker = world.worker("w", Budget::default(), faults);
    worker.set_terms(vec![terms.clone()]);
    let (_, reason, message) = worker.converge(now()).await.unwrap_err();
    assert_eq!(reason, "Corrupt", "{message}");
    assert_ne!(places().await, before, "they were moved");
    world.check_i2(&partner).await;
    // The next batch looks where they are now; nothing moves them any more, since there is nothing to compact.
    worker.converge(now()).await.unwrap();
    world.check_i1(&terms).await;
    world.check_i2(&partner).await;
    drop(worker);
    world.drop().await;
}

#[tokio::test]
async fn of_two_holders_only_the_later_can_write_on_either_side() {
    for step in [Step::Decided, Step::Ledgered] {
        let mut world = World::new("synctwo").await;
        let partner = world.partner("a");
        world.prepare(&partner).await;
        world.file(1, "5915022", 1).await;
        let terms = terms(&partner, ALL_GROUPS, VANCOUVER);
        let armed = Arc::new(AtomicBool::new(false));
        let reached = Arc::new(tokio::sync::Notify::new());
        let go_on = Arc::new(tokio::sync::Notify::new());
        let faults = {
            let (armed, reached, go_on) = (armed.clone(), reached.clone(), go_on.clone());
            Faults::hooked(move |at, _| {
                let (armed, reached, go_on) = (armed.clone(), reached.clone(), go_on.clone());
                async move {
                    if at == step && armed.swap(false, Ordering::SeqCst) {
                        reached.notify_one();
                        go_on.notified().await;
                    }
                    Ok(())
                }
                .boxed()
            })
        };
        let mut old = world.worker("w", Budget::default(), faults);
        old.set_terms(vec![terms.clone()]);
        old.converge(now()).await.unwrap();
        world.execute("UPDATE oms.alias SET surname = 'Changed'").await;
        armed.store(true, Ordering::SeqCst);
        let old = tokio::spawn(async move {
            let result = old.converge(now()).await;
            (old, result)
        });
        reached.notified().await;
        // The same holder name: the lease is taken at once, as after an expiry.
        let mut new = world.worker("w", Budget::default(), Faults::default());
        new.set_terms(vec![terms.clone()]);
        new.converge(now()).await.unwrap();
        world.check_i1(&terms).await;
        let before = world.cursor_text(&partner).await;
        go_on.notify_one();
        let (_, result) = old.await.unwrap();
        assert_eq!(result.unwrap_err().1, "LeaseHeld", "the older holder is fenced at {step:?}");
        assert_eq!(before, world.cursor_text(&partner).await, "and wrote nothing");
        world.check_i2(&partner).await;
        world.drop().await;
    }
}

#[tokio::test]
async fn suspension_closes_at_once_and_nothing_crosses_meanwhile() {
    let mut world = World::new("syncsusp").await;
    let partner = world.partner("a");
    world.prepare(&partner).await;
    world.file(1, "5915022", 1).await;
    let mut terms = terms(&partner, ALL_GROUPS, VANCOUVER);
    let mut worker = world.worker("w", Budget::default(), Faults::default());
    worker.set_terms(vec![terms.clone()]);
    worker.converge(now()).await.unwrap();
    terms.suspended = true;
    worker.set_terms(vec![terms.clone()]);
    world.file(2, "5915022", 1).await;
    worker.converge(now()).await.unwrap();
    let closed = format!("SELECT suspended FROM {}.cursor", ident(&partner.share_schema()));
    assert!(world.store.query_one(&closed, &[]).await.unwrap().get::<_, bool>(0));
    assert_eq!(world.count(&partner, "subject").await, 1);
    terms.suspended = false;
    worker.set_terms(vec![terms.clone()]);
    worker.converge(now()).await.unwrap();
    world.check_i1(&terms).await;
    // An agreement that is gone closes too: nothing is authorized.
    worker.set_terms(vec![liaison_sync::terms::Terms { grant: None, authorized_until: None, ..terms.clone() }]);
    worker.converge(now()).await.unwrap();
    let until = format!("SELECT authorized_until IS NULL FROM {}.cursor", ident(&partner.share_schema()));
    assert!(world.store.query_one(&until, &[]).await.unwrap().get::<_, bool>(0));
    world.drop().await;
}

#[tokio::test]
async fn a_restored_hub_or_replica_is_rebuilt_and_another_timeline_is_compared() {
    let mut world = World::new("syncrest").await;
    let partner = world.partner("a");
    world.prepare(&partner).await;
    for id in 1..=4 {
        world.file(id, "5915022", 1).await;
    }
    let terms = terms(&partner, ALL_GROUPS, VANCOUVER);
    let share = ident(&partner.share_schema());
    let sync = |world: &World, holder: &str| {
        let mut worker = world.worker(holder, Budget::default(), Faults::default());
        worker.set_terms(vec![terms.clone()]);
        worker
    };
    sync(&world, "w").converge(now()).await.unwrap();
    world.execute(&picture_sql(100, 1, "another")).await;
    sync(&world, "w").converge(now()).await.unwrap();
    // The hub is restored: it has forgotten the last batch, and its epochs are older.
    world
        .execute(
            "DELETE FROM liaison.ledger_entry WHERE batch = 2; DELETE FROM liaison.ledger_batch WHERE batch = 2;
             UPDATE liaison.lease SET epoch = 1",
        )
        .await;
    sync(&world, "w").converge(now()).await.unwrap();
    world.check_i1(&terms).await;
    world.check_i2(&partner).await;
    let kinds = "SELECT kind FROM liaison.ledger_batch ORDER BY batch DESC LIMIT 1";
    assert_eq!(world.hub.query_one(kinds, &[]).await.unwrap().get::<_, &str>(0), "rebuild");
    // The replica is restored from a backup: its cursor is behind.
    world.store.batch_execute(&format!("CREATE TABLE old AS TABLE {share}.cursor")).await.unwrap();
    world.execute("UPDATE oms.alias SET surname = 'Later'").await;
    sync(&world, "w").converge(now()).await.unwrap();
    world
        .store
        .batch_execute(&format!(
            "UPDATE {share}.cursor c SET snapshot = o.snapshot, batch = o.batch, head = o.head FROM old o"
        ))
        .await
        .unwrap();
    sync(&world, "w").converge(now()).await.unwrap();
    world.check_i1(&terms).await;
    world.check_i2(&partner).await;
    // Another timeline of the hub: what the replica has is compared, and only differences cross.
    world.store.batch_execute(&format!("UPDATE {share}.cursor SET hub_identity = '1/00000009'")).await.unwrap();
    world.execute("UPDATE oms.alias SET surname = 'Last' WHERE id = 100; TRUNCATE liaison.change").await;
    sync(&world, "w").converge(now()).await.unwrap();
    world.check_i1(&terms).await;
    world.check_i2(&partner).await;
    world.drop().await;
}

#[tokio::test]
async fn a_ledger_that_was_put_back_under_a_lease_that_stayed_is_not_added_to() {
    let mut world = World::new("syncback").await;
    let partner = world.partner("a");
    world.prepare(&partner).await;
    world.file(1, "5915022", 1).await;
    let terms = terms(&partner, ALL_GROUPS, VANCOUVER);
    let mut worker = world.worker("w", Budget::default(), Faults::default());
    worker.set_terms(vec![terms.clone()]);
    worker.converge(now()).await.unwrap();
    world.execute("UPDATE oms.alias SET surname = 'Forgotten'").await;
    worker.converge(now()).await.unwrap();
    let ends = "SELECT encode(head, 'hex'), batch FROM liaison.ledger_batch ORDER BY batch DESC LIMIT 1";
    let forgotten: (String, i64) = {
        let row = world.hub.query_one(ends, &[]).await.unwrap();
        (row.get(0), row.get(1))
    };
    // The lease was taken before the backup, and so has the same epoch after it.
    world
        .execute(&format!(
            "DELETE FROM liaison.ledger_entry WHERE batch = {0}; DELETE FROM liaison.ledger_batch WHERE batch = {0}",
            forgotten.1
        ))
        .await;
    world.execute("UPDATE oms.alias SET surname = 'After'").await;
    let error = worker.converge(now()).await.unwrap_err();
    assert_eq!(error.1, "LedgerPutBack", "{}", error.2);
    let follow = "SELECT count(*) FROM liaison.ledger_batch WHERE encode(previous, 'hex') = $1";
    let broken: i64 = world.hub.query_one(follow, &[&forgotten.0]).await.unwrap().get(0);
    assert_eq!(broken, 0, "no batch follows one that the ledger does not have");
    // It looks again, and finds a cursor that is ahead: the replica is made anew.
    worker.converge(now()).await.unwrap();
    world.check_i1(&terms).await;
    world.check_i2(&partner).await;
    let kind = "SELECT kind FROM liaison.ledger_batch ORDER BY batch DESC LIMIT 1";
    assert_eq!(world.hub.query_one(kind, &[]).await.unwrap().get::<_, &str>(0), "rebuild");
    world.drop().await;
}

#[tokio::test]
async fn a_dead_store_or_hub_says_so() {
    let world = World::new("syncdead").await;
    let partner = world.partner("a");
    let terms = terms(&partner, ALL_GROUPS, VANCOUVER);
    let nowhere = |side| liaison_sync::connect::Target::from_url(side, "postgres://nobody@127.0.0.1:1/none").unwrap();
    let seed = |hub: &liaison_sync::connect::Target, store: &liaison_sync::connect::Target| {
        let (hub, store, terms) = (hub.clone(), store.clone(), terms.clone());
        async move { seed::seed(&hub, &store, &terms, VERIFIER, "j", Budget::default(), Faults::default()).await }
    };
    let error = seed(&world.hub_target, &nowhere(liaison_sync::error::Side::Store)).await.unwrap_err();
    assert_eq!(error.reason(), "StoreUnreachable", "{error}");
    let error = seed(&nowhere(liaison_sync::error::Side::Hub), &world.store_target).await.unwrap_err();
    assert_eq!(error.reason(), "HubUnreachable", "{error}");
    let mut worker = world.worker("w", Budget::default(), Faults::default());
    let unknown = terms.clone();
    worker.set_terms(vec![liaison_sync::terms::Terms { partner: world.partner("b"), ..unknown }]);
    assert_eq!(worker.converge(now()).await.unwrap_err().1, "NotSeeded");
    let mut world = world;
    world.prepare(&partner).await;
    world.drop().await;
}

#[tokio::test]
async fn a_record_that_moves_to_a_file_compared_earlier_leaves_no_trace_in_the_other() {
    let mut world = World::new("syncmove").await;
    let partner = world.partner("a");
    world.prepare(&partner).await;
    for id in 1..=8 {
        world.file(id, "5915022", 1).await;
    }
    let terms = terms(&partner, ALL_GROUPS, VANCOUVER);
    // Each file is a batch of its own when it differs.
    let mut worker = world.worker("w", Budget { chunk: 1, bytes: 1, ..Budget::default() }, Faults::default());
    worker.set_terms(vec![terms.clone()]);
    worker.converge(now()).await.unwrap();
    world
        .execute(
            "BEGIN; UPDATE oms.alias SET offender = 1 WHERE id = 800; UPDATE oms.photograph SET offender = 2 WHERE id = 700;
             INSERT INTO liaison.change (tbl) VALUES ('alias'); COMMIT",
        )
        .await;
    worker.converge(now()).await.unwrap();
    world.check_i1(&terms).await;
    world.check_i2(&partner).await;
    world.drop().await;
}

/// What was begun for a wider scope may hang for minutes. The narrowed one does not wait for it, nor for the hub, and it never lands.
#[tokio::test]
async fn a_narrowing_waits_for_nothing_that_is_under_way() {
    let mut world = World::new("synccut").await;
    let partner = world.partner("a");
    world.prepare(&partner).await;
    world.file(1, "5915022", 1).await;
    world.file(2, "4711066", 1).await;
    let (hang, reached) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let faults = Faults::hooked({
        let (hang, reached) = (hang.clone(), reached.clone());
        move |step, _| {
            let hangs = step == Step::Ledgered && hang.load(Ordering::SeqCst);
            reached.fetch_or(hangs, Ordering::SeqCst);
            async move { if hangs { std::future::pending().await } else { Ok(()) } }.boxed()
        }
    });
    let wide = terms(&partner, ALL_GROUPS, WEST);
    let mut worker = world.worker("w", Budget::default(), faults);
    worker.set_terms(vec![wide.clone()]);
    worker.converge(now()).await.unwrap();
    assert_eq!(world.count(&partner, "subject").await, 2);

    world.file(3, "4711066", 1).await;
    hang.store(true, Ordering::SeqCst);
    while !reached.load(Ordering::SeqCst) {
        worker.round(now()).await.unwrap();
        worker.wait(std::time::Duration::from_millis(5)).await;
    }
    let cursor = format!("SELECT epoch, fenced, suspended FROM {}.cursor", ident(&partner.share_schema()));
    let stands = async |world: &World| {
        let row = world.store.query_one(&cursor, &[]).await.unwrap();
        (row.get::<_, i64>(0), row.get::<_, bool>(1), row.get::<_, bool>(2))
    };
    let (epoch, fenced, _) = stands(&world).await;
    assert!(!fenced);
    let narrow = terms(&partner, ALL_GROUPS, VANCOUVER);
    worker.set_terms(vec![narrow.clone()]);
    // The first thing that happens, in the same round.
    worker.round(now()).await.unwrap();
    worker.wait(std::time::Duration::from_secs(10)).await;
    while !stands(&world).await.1 {
        worker.wait(std::time::Duration::from_secs(1)).await;
    }
    assert!(stands(&world).await.0 > epoch, "nothing lands any more of what was begun");
    hang.store(false, Ordering::SeqCst);
    worker.converge(now()).await.unwrap();
    world.check_i1(&narrow).await;
    world.check_i2(&partner).await;
    assert!(!stands(&world).await.1);
    worker.shut_down().await;
    world.drop().await;
}

/// A comparison may take longer than a lease lasts.
#[tokio::test]
async fn the_lease_of_a_partner_is_renewed_also_while_a_task_has_it() {
    let mut world = World::new("syncbusylease").await;
    let partner = world.partner("a");
    world.prepare(&partner).await;
    world.file(1, "5915022", 1).await;
    let hangs = Faults::hooked(|step, _| {
        async move { if step == Step::Ledgered { std::future::pending().await } else { Ok(()) } }.boxed()
    });
    let mut worker = world.worker("w", Budget::default(), hangs).with_renewal(std::time::Duration::ZERO);
    worker.set_terms(vec![terms(&partner, ALL_GROUPS, VANCOUVER)]);
    let recorded = "SELECT count(*) FROM liaison.ledger_batch";
    while world.hub.query_one(recorded, &[]).await.unwrap().get::<_, i64>(0) == 0 {
        worker.round(now()).await.unwrap();
        worker.wait(std::time::Duration::from_millis(5)).await;
    }
    world.execute("UPDATE liaison.lease SET until = until - interval '20 seconds'").await;
    worker.round(now()).await.unwrap();
    let left = "SELECT until > clock_timestamp() + interval '15 seconds' FROM liaison.lease";
    assert!(world.hub.query_one(left, &[]).await.unwrap().get::<_, bool>(0));
    drop(worker);
    world.drop().await;
}

/// Who may not read, for months perhaps, keeps no change on the hub.
#[tokio::test]
async fn a_closed_partner_holds_back_nothing_of_the_change_log() {
    let mut world = World::new("synclogclosed").await;
    let mut all = Vec::new();
    for suffix in ["a", "b"] {
        let partner = world.partner(suffix);
        world.prepare(&partner).await;
        all.push(terms(&partner, ALL_GROUPS, VANCOUVER));
    }
    world.file(1, "5915022", 1).await;
    let mut worker = world.worker("w", Budget::default(), Faults::default()).with_renewal(std::time::Duration::ZERO);
    worker.set_terms(all.clone());
    worker.converge(now()).await.unwrap();
    all[1].suspended = true;
    worker.set_terms(all.clone());
    worker.converge(now()).await.unwrap();
    world.execute("UPDATE oms.offender SET surname = 'Meanwhile' WHERE id = 1").await;
    worker.converge(now()).await.unwrap();
    worker.round(now()).await.unwrap();
    let keeps = "SELECT array_agg(position IS NOT NULL ORDER BY partner) FROM liaison.lease";
    assert_eq!(world.hub.query_one(keeps, &[]).await.unwrap().get::<_, Vec<bool>>(0), [true, false]);
    all[1].suspended = false;
    worker.set_terms(all.clone());
    worker.converge(now()).await.unwrap();
    for terms in &all {
        world.check_i1(terms).await;
    }
    worker.shut_down().await;
    world.drop().await;
}

/// DataFresh turns True only after a minute of it: a task under way, such as the as-of row, must not look like a replica that
/// is being filled.
#[tokio::test]
async fn a_replica_stands_as_it_stood_while_a_task_has_it() {
    let mut world = World::new("syncstanding").await;
    let partner = world.partner("a");
    world.file(1, "5915022", 1).await;
    world.prepare(&partner).await;
    let mut terms = terms(&partner, ALL_GROUPS, VANCOUVER);
    terms.freshness_seconds = 1;
    let mut worker = world.worker("w", Budget::default(), Faults::default());
    worker.set_terms(vec![terms]);
    worker.converge(now()).await.unwrap();
    let mut touched = false;
    for _ in 0..200 {
        worker.round(now()).await.unwrap();
        touched |= worker.busy();
        let standing = worker.standings(now()).remove(&partner).unwrap();
        assert!(standing.complete && standing.exact_at_millis.is_some(), "{standing:?}");
        while worker.busy() {
            worker.wait(std::time::Duration::from_secs(1)).await;
        }
        if touched {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(touched, "the as-of row was never due");
    worker.shut_down().await;
    world.drop().await;
}

#[tokio::test]
async fn workers_share_the_partners_and_take_over_from_one_that_is_gone() {
    let mut world = World::new("syncshare").await;
    world.file(1, "5915022", 1).await;
    let mut all = Vec::new();
    for suffix in ["a", "b", "c", "d", "e"] {
        let partner = world.partner(suffix);
        world.prepare(&partner).await;
        all.push(terms(&partner, ALL_GROUPS, VANCOUVER));
    }
    let worker = |world: &World, holder: &str| {
        let mut worker = world
            .worker(holder, Budget::default(), Faults::default())
            .sharing("store")
            .with_renewal(std::time::Duration::from_millis(50));
        worker.set_terms(all.clone());
        worker
    };
    let held = async |world: &World, holder: &str| -> i64 {
        let sql = "SELECT count(*) FROM liaison.lease WHERE holder = $1 AND until > clock_timestamp()";
        world.hub.query_one(sql, &[&holder]).await.unwrap().get(0)
    };
    let mut first = worker(&world, "first");
    let mut second: Option<liaison_sync::worker::Worker> = None;
    let expect = async |first: &mut liaison_sync::worker::Worker,
                        second: &mut Option<liaison_sync::worker::Worker>,
                        one: i64,
                        other: i64| {
        for _ in 0..2_000 {
            first.round(now()).await.unwrap();
            if let Some(second) = second {
                second.round(now()).await.unwrap();
                second.wait(std::time::Duration::from_millis(2)).await;
            }
            first.wait(std::time::Duration::from_millis(2)).await;
            if held(&world, "first").await == one && held(&world, "second").await == other {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        panic!("first {}, second {}", held(&world, "first").await, held(&world, "second").await);
    };
    expect(&mut first, &mut second, 5, 0).await;
    second = Some(worker(&world, "second"));
    expect(&mut first, &mut second, 3, 2).await;
    let spoken = |worker: &mut liaison_sync::worker::Worker| {
        worker.standings(now()).values().filter(|s| s.trouble.as_ref().is_none_or(|t| t.0 != "LeaseHeld")).count()
    };
    // The lease is on the hub a moment before its task has ended.
    for _ in 0..200 {
        let of_both = (spoken(&mut first), second.as_mut().map(spoken));
        if of_both == (3, Some(2)) {
            break;
        }
        if let Some(second) = &mut second {
            second.wait(std::time::Duration::from_millis(20)).await;
            second.round(now()).await.unwrap();
        }
    }
    assert_eq!((spoken(&mut first), second.as_mut().map(spoken)), (3, Some(2)), "one worker speaks of each partner");
    // Killed: nothing is given back. Its leases, and it, are forgotten when their time has run out.
    drop(second.take());
    world
        .execute(
            "UPDATE liaison.lease SET until = clock_timestamp() - interval '1 s' WHERE holder = 'second';
             UPDATE liaison.worker SET seen = seen - interval '1 min' WHERE holder = 'second';
             UPDATE oms.alias SET surname = 'Changed'",
        )
        .await;
    expect(&mut first, &mut second, 5, 0).await;
    // One that stops gives all back at once.
    second = Some(worker(&world, "second"));
    expect(&mut first, &mut second, 3, 2).await;
    second.take().unwrap().shut_down().await;
    expect(&mut first, &mut second, 5, 0).await;
    first.converge(now()).await.unwrap();
    for terms in &all {
        world.check_i1(terms).await;
        world.check_i2(&terms.partner).await;
    }
    world.drop().await;
}
