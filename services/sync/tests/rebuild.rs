//! A replica made anew beside the one that is read: who reads keeps reading, what may not be shown is not, and nothing is
//! left behind wherever it is killed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use futures::FutureExt;
use liaison_records::names::PartnerName;
use liaison_sync::{
    compare::Budget,
    dispose::{Policy, dispose},
    error::Error,
    fault::{Faults, STEPS, Step},
    quote::ident,
    seed,
    verify::{self, Outcome},
};
use support::{VERIFIER, World, ended, now, picture_sql, terms};

const ALL_GROUPS: &[&str] = &["identity", "aliases", "photograph", "sentence", "supervision"];
const VANCOUVER: &str = r#"{"anyOf":[{"municipalities":["5915022"]}]}"#;

async fn value<T: for<'a> tokio_postgres::types::FromSql<'a>>(client: &tokio_postgres::Client, sql: &str) -> T {
    client.query_one(sql, &[]).await.unwrap_or_else(|e| panic!("{sql}: {e:?}")).get(0)
}

/// Schemas of a partner beside those that are to be there.
async fn left(world: &World, partner: &PartnerName) -> i64 {
    let sql = format!(
        "SELECT count(*) FROM pg_namespace WHERE nspname IN ('{}', '{}')",
        partner.next_schema(),
        partner.old_schema()
    );
    value(&world.store, &sql).await
}

async fn oid(world: &World, share: &str) -> u32 {
    value(&world.store, &format!("SELECT '{share}.record'::regclass::oid")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_keeps_reading_through_the_swap() {
    let mut world = World::new("syncbread").await;
    let partner = world.partner("a");
    world.prepare(&partner).await;
    for id in 1..=30 {
        world.file(id, "5915022", 2).await;
        world.execute(&picture_sql(id * 100, id, &format!("{id} {}", "large picture".repeat(400)))).await;
    }
    let terms = terms(&partner, ALL_GROUPS, VANCOUVER);
    let small = Budget { chunk: 4, bytes: 1, ..Budget::default() };
    let mut worker = world.worker("w", small, Faults::default());
    worker.set_terms(vec![terms.clone()]);
    worker.converge(now()).await.unwrap();
    let share = ident(&partner.share_schema());
    let before = oid(&world, &share).await;
    worker.take_reports();
    let stop = Arc::new(AtomicBool::new(false));
    let reader = tokio::spawn({
        let (stop, client) = (stop.clone(), world.store_target.connect().await.unwrap());
        let (share, journal) = (share.clone(), ident(&partner.journal_schema()));
        async move {
            let sql = format!(
                "SELECT (SELECT count(*) FROM {share}.subject), (SELECT count(*) FROM {share}.record WHERE offender = $1),
                        (SELECT count(*) FROM {share}.photograph), {journal}.obstacle()"
            );
            let prepared = client.prepare(&sql).await.unwrap();
            let mut reads = 0_u32;
            while !stop.load(Ordering::Relaxed) {
                let row = client.query_one(&prepared, &[&7_i64]).await.expect("a read during the swap");
                let counts: (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
                assert_eq!((counts, row.get::<_, Option<&str>>(3)), ((30, 6, 30), None), "read {reads}");
                reads += 1;
            }
            reads
        }
    });
    let done = ended(&world, &mut worker, &partner, "anew", true).await;
    stop.store(true, Ordering::Relaxed);
    assert!(reader.await.unwrap() > 10);
    assert_eq!((done.outcome, done.files), (Outcome::Equal, 30));
    assert_ne!(oid(&world, &share).await, before, "other tables under the same name");
    assert_eq!(left(&world, &partner).await, 0);
    world.check_i1(&terms).await;
    world.check_i2(&partner).await;
    let rebuilt: i64 = value(&world.hub, "SELECT count(*) FROM liaison.ledger_batch WHERE kind = 'rebuild'").await;
    assert!(rebuilt > 3, "in steps, each in the ledger");
    let crossed: usize = worker.take_reports().iter().filter_map(|r| r.result.ok()).map(|w| w.bytes).sum();
    assert!(crossed > 0 && crossed < 30 * 4_000, "the pictures did not cross again: {crossed} bytes");
    // And it goes on as if nothing had been.
    world.file(90, "5915022", 1).await;
    worker.converge(now()).await.unwrap();
    world.check_i1(&terms).await;
    world.drop().await;
}

#[tokio::test]
async fn what_is_corrupt_is_hidden_and_made_anew() {
    let mut world = World::new("syncbcor").await;
    let partner = world.partner("a");
    world.prepare(&partner).await;
    world
        .execute(
            "INSERT INTO oms.offender SELECT i, lpad(i::text, 6, '0') || 'A', 'Roy' || i, 'Luc', '1980-01-02', 'Community',
                'Released', 'DayParole', 'NotAtLarge', 'NoWarrant', 'CA-BC', '5915022' FROM generate_series(1, 2300) i",
        )
        .await;
    let terms = terms(&partner, ALL_GROUPS, VANCOUVER);
    let mut worker = world.worker("w", Budget::default(), Faults::default());
    worker.set_terms(vec![terms.clone()]);
    worker.converge(now()).await.unwrap();
    let share = ident(&partner.share_schema());
    let before = oid(&world, &share).await;
    world.store.batch_execute(&format!("UPDATE {share}.record SET body = '{{}}'")).await.unwrap();
    let done = ended(&world, &mut worker, &partner, "t", false).await;
    assert_eq!((done.outcome, done.mismatches), (Outcome::Repaired, 2300));
    assert_ne!(oid(&world, &share).await, before);
    assert_eq!(left(&world, &partner).await, 0);
    let fenced: bool = value(&world.store, &format!("SELECT fenced FROM {share}.cursor")).await;
    assert!(!fenced);
    world.check_i1(&terms).await;
    world.check_i2(&partner).await;
    world.drop().await;
}

#[tokio::test]
async fn a_restored_replica_is_not_shown_and_killed_anywhere_it_converges() {
    let mut world = World::new("syncbres").await;
    let partner = world.partner("a");
    world.prepare(&partner).await;
    for id in 1..=9 {
        world.file(id, "5915022", 1).await;
    }
    let terms = terms(&partner, ALL_GROUPS, VANCOUVER);
    let share = ident(&partner.share_schema());
    let small = Budget { chunk: 4, bytes: 1, ..Budget::default() };
    let mut kills = 0;
    // Nothing is narrowed here.
    for step in STEPS.into_iter().filter(|step| *step != Step::Narrowing) {
        for occurrence in 1..=6 {
            // Yesterday's replica comes back: it has a file that has left since.
            let mut worker = world.worker("w", small, Faults::default());
            worker.set_terms(vec![terms.clone()]);
            world
                .execute("UPDATE oms.offender SET municipality = '5915022', jurisdiction = 'CA-BC' WHERE id = 5")
                .await;
            worker.converge(now()).await.unwrap();
            let tables = ["record", "subject", "photograph", "cursor"];
            let copy: String = tables
                .map(|t| format!("DROP TABLE IF EXISTS old_{t}; CREATE TABLE old_{t} AS TABLE {share}.{t};"))
                .concat();
            world.store.batch_execute(&copy).await.unwrap();
            world
                .execute("UPDATE oms.offender SET municipality = '4711066', jurisdiction = 'CA-SK' WHERE id = 5")
                .await;
            worker.converge(now()).await.unwrap();
            worker.shut_down().await;
            let restore: String = tables
                .map(|t| {
                    // A generated column is not restored, but made.
                    let columns = if t == "record" { "offender, grp, tbl, id, body, hash, batch" } else { "*" };
                    let into = if t == "record" { format!("{t} ({columns})") } else { t.to_owned() };
                    format!("DELETE FROM {share}.{t}; INSERT INTO {share}.{into} SELECT {columns} FROM old_{t};")
                })
                .concat();
            world.store.batch_execute(&restore).await.unwrap();

            let met = Arc::new(AtomicU32::new(0));
            let hook = met.clone();
            let faults = Faults::hooked(move |at, _| {
                let stop = at == step && hook.fetch_add(1, Ordering::Relaxed) + 1 == occurrence;
                async move { if stop { Err(Error::Stopped) } else { Ok(()) } }.boxed()
            });
            let mut killed = world.worker("w", small, faults);
            killed.set_terms(vec![terms.clone()]);
            let result = killed.converge(now()).await;
            drop(killed);
            let reached = result.is_err();
            if reached && step > Step::Fenced {
                // What is of yesterday is not shown: fenced, or made anew already.
                let shown: bool = value(
                    &world.store,
                    &format!("SELECT NOT fenced AND EXISTS (SELECT FROM {share}.subject WHERE offender = 5) FROM {share}.cursor"),
                )
                .await;
                assert!(!shown || step == Step::Settled, "{step:?} {occurrence}");
            }
            let mut next = world.worker("w", small, Faults::default());
            next.set_terms(vec![terms.clone()]);
            next.converge(now()).await.unwrap();
            world.check_i1(&terms).await;
            world.check_i2(&partner).await;
            assert_eq!(left(&world, &partner).await, 0, "{step:?} {occurrence}");
            let fenced: bool = value(&world.store, &format!("SELECT fenced FROM {share}.cursor")).await;
            assert!(!fenced, "{step:?} {occurrence}");
            next.shut_down().await;
            if !reached {
                break;
            }
            kills += 1;
        }
    }
    assert!(kills >= 12, "killed {kills} times");
    // Killed in the middle, and then disposed of: nothing stays.
    world.store.batch_execute(&format!("UPDATE {share}.cursor SET batch = batch - 1, head = 'x'")).await.unwrap();
    let faults =
        Faults::hooked(|at, _| async move { if at == Step::Ledgered { Err(Error::Stopped) } else { Ok(()) } }.boxed());
    let mut killed = world.worker("w", small, faults);
    killed.set_terms(vec![terms.clone()]);
    killed.converge(now()).await.unwrap_err();
    drop(killed);
    assert_eq!(left(&world, &partner).await, 1);
    dispose(&world.hub_target, &world.store_target, &partner, &Policy::Delete, "d").await.unwrap();
    assert_eq!(left(&world, &partner).await, 0);
    world.drop().await;
}

#[tokio::test]
async fn what_is_asked_for_is_made_anew_once_wherever_it_is_killed() {
    let mut world = World::new("syncbonce").await;
    let partner = world.partner("a");
    world.prepare(&partner).await;
    for id in 1..=9 {
        world.file(id, "5915022", 1).await;
    }
    let terms = terms(&partner, ALL_GROUPS, VANCOUVER);
    let share = ident(&partner.share_schema());
    let small = Budget { chunk: 4, bytes: 1, ..Budget::default() };
    let mut worker = world.worker("w", small, Faults::default());
    worker.set_terms(vec![terms.clone()]);
    worker.converge(now()).await.unwrap();
    worker.shut_down().await;
    let crossed = "SELECT count(*) FROM liaison.ledger_entry JOIN liaison.ledger_batch b USING (partner, batch)
                   WHERE b.kind = 'rebuild' AND b.state <> 'void' AND offender = 7";
    let (mut before_swap, mut after_swap) = (0, 0);
    for step in [Step::Ledgered, Step::Written, Step::Landed, Step::Read] {
        for occurrence in 1.. {
            let (before, had) = (oid(&world, &share).await, value::<i64>(&world.hub, crossed).await);
            let token = format!("{step:?} {occurrence}");
            verify::request(&world.hub, &partner, &token, true).await.unwrap();
            let met = Arc::new(AtomicU32::new(0));
            let hook = met.clone();
            let faults = Faults::hooked(move |at, _| {
                let stop = at == step && hook.fetch_add(1, Ordering::Relaxed) + 1 == occurrence;
                async move { if stop { Err(Error::Stopped) } else { Ok(()) } }.boxed()
            });
            // Killed there: nothing of what the process knew is left.
            let mut killed = world.worker("w", small, faults);
            killed.set_terms(vec![terms.clone()]);
            while met.load(Ordering::Relaxed) < occurrence
                && verify::ended(&world.hub, &partner, &token).await.unwrap().is_none()
            {
                killed.round(now()).await.unwrap();
                killed.wait(std::time::Duration::from_millis(20)).await;
            }
            let reached = met.load(Ordering::Relaxed) >= occurrence;
            drop(killed);
            let between = oid(&world, &share).await;
            let mut next = world.worker("w", small, Faults::default());
            next.set_terms(vec![terms.clone()]);
            let done = ended(&world, &mut next, &partner, &token, true).await;
            assert_eq!(done.outcome, Outcome::Equal, "{token}");
            let after = oid(&world, &share).await;
            assert_ne!(before, after, "{token}: made anew");
            assert!(between == before || between == after, "{token}: made anew twice");
            assert_eq!(value::<i64>(&world.hub, crossed).await, had + 1, "{token}: every file crossed once");
            world.check_i1(&terms).await;
            assert_eq!(left(&world, &partner).await, 0, "{token}");
            next.shut_down().await;
            if !reached {
                break;
            }
            *(if between == before { &mut before_swap } else { &mut after_swap }) += 1;
        }
    }
    assert!(before_swap >= 5 && after_swap >= 2, "killed {before_swap} times before the swap, {after_swap} after it");
    world.drop().await;
}

#[tokio::test]
async fn a_new_release_fences_nobody_and_crosses_nothing() {
    let mut world = World::new("syncbrel").await;
    let partner = world.partner("a");
    world.prepare(&partner).await;
    for id in 1..=6 {
        world.file(id, "5915022", 2).await;
    }
    let terms = terms(&partner, ALL_GROUPS, VANCOUVER);
    let mut worker = world.worker("w", Budget::default(), Faults::default());
    worker.set_terms(vec![terms.clone()]);
    worker.converge(now()).await.unwrap();
    worker.shut_down().await;
    let share = ident(&partner.share_schema());
    let state = format!("SELECT (to_jsonb(c) - 'epoch' - 'snapshot' - 'as_of')::text FROM {share}.cursor c");
    let written = format!("SELECT string_agg(xmin::text, ',' ORDER BY tbl, id) FROM {share}.record");
    let ledger = "SELECT count(*) FROM liaison.ledger_batch";
    let before: (String, String, i64) =
        (value(&world.store, &state).await, value(&world.store, &written).await, value(&world.hub, ledger).await);
    // Whoever fences anybody for a moment is caught by the table itself.
    world
        .store
        .batch_execute(&format!(
            "CREATE FUNCTION never() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'fenced'; END $$;
             CREATE TRIGGER never BEFORE UPDATE ON {share}.cursor FOR EACH ROW WHEN (NEW.fenced) EXECUTE FUNCTION never()"
        ))
        .await
        .unwrap();
    let mut client = world.store_target.connect().await.unwrap();
    seed::prepare(&mut client, &partner, VERIFIER).await.unwrap();
    let mut worker = world.worker("the next release", Budget::default(), Faults::default());
    worker.set_terms(vec![terms.clone()]);
    worker.converge(now()).await.unwrap();
    let after: (String, String, i64) =
        (value(&world.store, &state).await, value(&world.store, &written).await, value(&world.hub, ledger).await);
    assert_eq!(before, after);
    world.check_i1(&terms).await;
    world.drop().await;
}
