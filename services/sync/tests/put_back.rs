//! A hub that was put back on its own timeline and has used up the transaction numbers that it lost: nothing in a position says
//! that it is another, and to a partner to which nothing crossed meanwhile the ledger does not either. The mark does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::time::Duration;

use liaison_records::names::PartnerName;
use liaison_sync::{
    compare::Budget,
    fault::{Fault, Faults},
    quote::ident,
    terms::Terms,
    worker::Worker,
};
use support::{World, now, terms};

const GROUPS: &[&str] = &["identity", "aliases", "sentence"];
const VANCOUVER: &str = r#"{"anyOf":[{"municipalities":["5915022"]}]}"#;
/// It changes, and nothing of it crosses: file 2 is nobody's.
const ELSEWHERE: &str = "UPDATE oms.offender SET surname = surname || 'x' WHERE id = 2";

/// A hub of which a backup was made, and one partner.
async fn stage(name: &str) -> (World, PartnerName, Terms) {
    let mut world = World::new(name).await;
    let partner = world.partner("a");
    world.prepare(&partner).await;
    world.file(1, "5915022", 1).await;
    world.file(2, "4711066", 1).await;
    let terms = Terms { freshness_seconds: 1, ..terms(&partner, GROUPS, VANCOUVER) };
    let mut worker = worker(&world, &terms, Faults::default());
    worker.converge(now()).await.unwrap();
    worker.shut_down().await;
    copy(&mut world, "hub", "backup").await;
    (world, partner, terms)
}

fn worker(world: &World, terms: &Terms, faults: Faults) -> Worker {
    let mut worker = world.worker("w", Budget::default(), faults).with_renewal(Duration::ZERO);
    worker.set_terms(vec![terms.clone()]);
    worker
}

async fn copy(world: &mut World, from: &str, to: &str) {
    world.leave_hub().await;
    world.copy_hub(from, to).await;
    world.return_to_hub().await;
}

async fn text(client: &tokio_postgres::Client, sql: &str) -> String {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

async fn position(world: &World, partner: &PartnerName) -> String {
    text(&world.store, &format!("SELECT snapshot::text FROM {}.cursor", ident(&partner.share_schema()))).await
}

/// Until the replica's position on the store has moved past what happened elsewhere.
async fn moved(world: &World, partner: &PartnerName, worker: &mut Worker) {
    let before = position(world, partner).await;
    world.execute(ELSEWHERE).await;
    while position(world, partner).await == before {
        worker.round(now()).await.unwrap();
        worker.wait(Duration::from_millis(20)).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The hub is put back, and what happens next bears the numbers of what it has forgotten.
async fn put_back(world: &mut World) {
    let lost = text(&world.hub, "SELECT max(xid::text::bigint)::text FROM liaison.change").await;
    copy(world, "backup", "hub").await;
    let first = text(&world.hub, "SELECT pg_current_xact_id()::text").await;
    world.execute("UPDATE oms.offender SET surname = 'Since' WHERE id = 1").await;
    world.execute(&format!("UPDATE liaison.change SET xid = '{lost}' WHERE xid > '{first}'::xid8")).await;
}

#[tokio::test]
async fn a_position_that_moved_without_a_batch_names_what_the_hub_must_have() {
    let (mut world, partner, terms) = stage("syncputback").await;
    let mut before = worker(&world, &terms, Faults::default());
    moved(&world, &partner, &mut before).await;
    drop(before);
    put_back(&mut world).await;
    // Whoever does not look for the mark passes over what happened since.
    let mut blind = worker(&world, &terms, Faults::default().seeded(Fault::MarkNotCompared));
    blind.converge(now()).await.unwrap();
    let share = ident(&partner.share_schema());
    let surname = format!("SELECT surname FROM {share}.subject");
    assert_eq!(text(&world.store, &surname).await, "Tremblay1", "else this test shows nothing");
    drop(blind);
    let mut after = worker(&world, &terms, Faults::default());
    after.converge(now()).await.unwrap();
    assert_eq!(text(&world.store, &surname).await, "Since");
    world.check_i1(&terms).await;
    world.check_i2(&partner).await;
    // Compared once: its position names a mark of this hub now.
    after.shut_down().await;
    let compared = "SELECT count(*)::text FROM liaison.ledger_batch WHERE kind = 'compare'";
    let count = text(&world.hub, compared).await;
    let mut again = worker(&world, &terms, Faults::default());
    again.converge(now()).await.unwrap();
    assert_eq!(text(&world.hub, compared).await, count);
    again.shut_down().await;
    world.drop().await;
}

#[tokio::test]
async fn a_worker_that_lives_on_notices_it_with_its_next_connection() {
    for written in [false, true] {
        let (mut world, partner, terms) = stage(if written { "syncputlive" } else { "syncputmem" }).await;
        let mut worker = worker(&world, &terms, Faults::default());
        worker.converge(now()).await.unwrap();
        if written {
            moved(&world, &partner, &mut worker).await;
        } else {
            // What it knows and has not written anywhere is not believed of another connection either.
            world.execute(ELSEWHERE).await;
            worker.converge(now()).await.unwrap();
        }
        put_back(&mut world).await;
        while worker.converge(now()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        world.check_i1(&terms).await;
        world.check_i2(&partner).await;
        worker.shut_down().await;
        world.drop().await;
    }
}

#[tokio::test]
async fn marks_are_left_only_where_changes_were_passed() {
    let (world, partner, terms) = stage("syncmarks").await;
    let mut worker = worker(&world, &terms, Faults::default());
    worker.converge(now()).await.unwrap();
    let marks = "SELECT count(*)::text FROM liaison.mark";
    let before = text(&world.hub, marks).await;
    let busy = async |worker: &mut Worker| {
        for _ in 0..100 {
            worker.round(now()).await.unwrap();
            worker.wait(Duration::from_millis(5)).await;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    busy(&mut worker).await;
    assert_eq!(text(&world.hub, marks).await, before, "nothing happened: nothing is left");
    moved(&world, &partner, &mut worker).await;
    busy(&mut worker).await;
    let count = |text: &str| text.parse::<i64>().unwrap();
    assert_eq!(
        count(&text(&world.hub, marks).await),
        count(&before) + 1,
        "one for what was passed, however often leases are renewed"
    );
    // A batch is a witness of its own.
    world.execute("UPDATE oms.offender SET surname = 'Crosses' WHERE id = 1").await;
    worker.converge(now()).await.unwrap();
    busy(&mut worker).await;
    assert_eq!(count(&text(&world.hub, marks).await), count(&before) + 1);
    let mark = format!("SELECT (mark IS NULL)::text FROM {}.cursor", ident(&partner.share_schema()));
    assert_eq!(text(&world.store, &mark).await, "true");
    world.execute("UPDATE liaison.mark SET at = at - interval '9 days'").await;
    worker.context().trim().await.unwrap();
    assert_eq!(text(&world.hub, marks).await, "0");
    worker.shut_down().await;
    world.drop().await;
}

/// The store was put back, or another took its place that lacked the last batches, while a worker held the lease: the replica
/// bears the lease, and not the last batch.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_put_back_under_its_worker_is_made_anew() {
    let mut world = World::new("underworker").await;
    let partner = world.partner("a");
    world.prepare(&partner).await;
    world.file(1, "5915022", 1).await;
    world.file(2, "5915022", 1).await;
    let terms = terms(&partner, &["identity", "sentence"], r#"{"anyOf":[{"municipalities":["5915022"]}]}"#);
    let mut worker = world.worker("w", Budget::default(), Faults::default());
    worker.set_terms(vec![terms.clone()]);
    worker.converge(now()).await.unwrap();
    let share = ident(&partner.share_schema());
    let tables = ["record", "subject", "cursor"];
    let each = |sql: &dyn Fn(&str) -> String| tables.map(sql).join(";");
    world.store.batch_execute(&each(&|t| format!("CREATE TABLE kept_{t} AS TABLE {share}.{t}"))).await.unwrap();
    // File 2 leaves.
    world.execute("UPDATE oms.offender SET municipality = '4711066' WHERE id = 2").await;
    worker.converge(now()).await.unwrap();
    let columns = "SELECT string_agg(quote_ident(column_name), ',') FROM information_schema.columns
                   WHERE table_schema = $1 AND table_name = $2 AND is_generated = 'NEVER'";
    for table in tables {
        let row = world.store.query_one(columns, &[&partner.share_schema(), &table]).await.unwrap();
        let columns: String = row.get(0);
        let back = format!(
            "DELETE FROM {share}.{table}; INSERT INTO {share}.{table} ({columns}) SELECT {columns} FROM kept_{table}"
        );
        world.store.batch_execute(&back).await.unwrap();
    }
    world.execute("UPDATE oms.sentence SET length_days = 7").await;
    let (_, reason, message) = worker.converge(now()).await.unwrap_err();
    assert_eq!(reason, "LeaseHeld", "what it would write on is not what it left: {message}");
    worker.converge(now()).await.unwrap();
    world.check_i1(&terms).await;
    world.check_i2(&partner).await;
    drop(worker);
    world.drop().await;
}

/// What left while a connection was closed is not shown when it is opened again: reads wait for the batch.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_closed_is_opened_behind_a_fence() {
    let mut world = World::new("reopened").await;
    let partner = world.partner("a");
    world.prepare(&partner).await;
    world.file(1, "5915022", 1).await;
    world.file(2, "5915022", 1).await;
    let mut terms = terms(&partner, &["identity", "sentence"], r#"{"anyOf":[{"municipalities":["5915022"]}]}"#);
    let mut worker = world.worker("w", Budget::default(), Faults::default());
    worker.set_terms(vec![terms.clone()]);
    worker.converge(now()).await.unwrap();
    let fenced = format!("SELECT fenced FROM {}.cursor", ident(&partner.share_schema()));
    let fenced = async || world.store.query_one(&fenced, &[]).await.unwrap().get::<_, bool>(0);
    terms.generation += 1;
    worker.set_terms(vec![terms.clone()]);
    worker.converge(now()).await.unwrap();
    assert!(!fenced().await, "one that is open stays so");
    terms.suspended = true;
    worker.set_terms(vec![terms.clone()]);
    worker.converge(now()).await.unwrap();
    world.execute("UPDATE oms.offender SET sealed_on = '2026-11-01' WHERE id = 2").await;
    terms.suspended = false;
    worker.set_terms(vec![terms.clone()]);
    assert!(worker.round(now()).await.unwrap(), "it is told");
    worker.wait(std::time::Duration::from_secs(10)).await;
    assert!(fenced().await, "file 2 is there yet");
    worker.converge(now()).await.unwrap();
    assert!(!fenced().await);
    world.check_i1(&terms).await;
    drop(worker);
    world.drop().await;
}
