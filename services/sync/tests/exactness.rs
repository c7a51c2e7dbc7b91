//! I1 and I2 as a property: random partners and scopes, random transactions over many tables, scope edits, kills between
//! any two steps and lost leases; after each cycle one plain query on the hub is the oracle.
//!
//! `LIAISON_SYNC_SEED` repeats a run, `LIAISON_SYNC_ROUNDS` makes it longer. The coverage is printed; none may be zero.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use futures::FutureExt;
use liaison_records::codes::FieldGroup;
use liaison_sync::{
    compare::Budget,
    error::Error,
    fault::{Faults, STEPS, Step},
    terms::Terms,
    worker::Worker,
};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use support::{World, file_sql, now, picture_sql, terms};

const PLACES: [&str; 4] = ["5915022", "5917034", "4711066", "4706027"];
const STATUSES: [&str; 3] = ["Released", "Suspended", "Revoked"];
const POPULATIONS: [&str; 7] = [
    r#"{"anyOf":[{"municipalities":["5915022"]}]}"#,
    r#"{"anyOf":[{"municipalities":["5915022","5917034"]}]}"#,
    r#"{"anyOf":[{"jurisdictions":["CA-SK"],"statuses":["Released","Suspended"]}]}"#,
    r#"{"anyOf":[{"jurisdictions":["CA-BC"],"statuses":["Suspended"]},{"municipalities":["4706027"]}]}"#,
    r#"{"anyOf":[{"jurisdictions":["CA-BC","CA-SK"]}]}"#,
    r#"{"anyOf":[{"statuses":["Revoked"]}]}"#,
    r#"{"anyOf":[{"atLarge":["Escaped"]}]}"#,
];
const GROUPS: [&[&str]; 4] = [
    &["identity"],
    &["identity", "aliases", "photograph", "sentence", "supervision"],
    &["identity", "photograph"],
    &["identity", "aliases", "sentence", "supervision"],
];
const RELOAD: &str = "
    CREATE TEMP TABLE o ON COMMIT DROP AS TABLE oms.offender; CREATE TEMP TABLE a ON COMMIT DROP AS TABLE oms.alias;
    CREATE TEMP TABLE p ON COMMIT DROP AS TABLE oms.photograph; CREATE TEMP TABLE s ON COMMIT DROP AS TABLE oms.sentence;
    CREATE TEMP TABLE f ON COMMIT DROP AS TABLE oms.office;
    TRUNCATE oms.offender, oms.alias, oms.photograph, oms.sentence, oms.office;
    INSERT INTO oms.offender TABLE o; INSERT INTO oms.alias TABLE a; INSERT INTO oms.photograph TABLE p;
    INSERT INTO oms.sentence TABLE s; INSERT INTO oms.office TABLE f;";

/// What a run goes on for, up to three times its rounds, until it has met it all.
const MUST_MEET: [&str; 13] = [
    "enter and leave in one transaction",
    "cascade",
    "key reuse",
    "photograph",
    "TRUNCATE and reload",
    "narrowing",
    "widening",
    "suspension",
    "killed between 5 and 6",
    "killed before the replica's commit",
    "killed in step 1",
    "record moves to another file",
    "commit after a cycle that began later",
];

struct Run {
    rng: StdRng,
    world: World,
    terms: Vec<Terms>,
    coverage: BTreeMap<&'static str, u32>,
    open: Option<tokio_postgres::Client>,
}

impl Run {
    fn met(&mut self, what: &'static str) {
        *self.coverage.entry(what).or_default() += 1;
    }

    fn file(&mut self) -> i64 {
        self.rng.random_range(1..=40)
    }

    /// One statement, or a few that belong together.
    fn operation(&mut self) -> String {
        let (file, other) = (self.file(), self.file());
        let place = *PLACES.choose(&mut self.rng).unwrap();
        let status = *STATUSES.choose(&mut self.rng).unwrap();
        let key = file * 100 + self.rng.random_range(0..3i64);
        match self.rng.random_range(0..16) {
            0..=3 => {
                self.met("insert");
                let children = self.rng.random_range(0..3);
                format!("DELETE FROM oms.offender WHERE id = {file}; {}", file_sql(file, place, status, children))
            }
            4..=5 => {
                self.met("move");
                let province = if place.starts_with("59") { "CA-BC" } else { "CA-SK" };
                format!(
                    "UPDATE oms.offender SET municipality = '{place}', jurisdiction = '{province}' WHERE id = {file};"
                )
            }
            6 => {
                self.met("change of status");
                format!("UPDATE oms.offender SET status = '{status}' WHERE id IN ({file}, {other});")
            }
            7 => {
                self.met("enter and leave in one transaction");
                format!(
                    "UPDATE oms.offender SET at_large = 'Escaped', municipality = '5915022' WHERE id = {file};
                     UPDATE oms.alias SET surname = surname || 'x' WHERE offender = {file};
                     UPDATE oms.offender SET at_large = 'NotAtLarge', municipality = '{place}' WHERE id = {file};"
                )
            }
            8 => {
                self.met("cascade");
                format!("DELETE FROM oms.offender WHERE id = {file};")
            }
            9 => {
                self.met("alias");
                format!("UPDATE oms.alias SET surname = 'Gagnon{}' WHERE id = {key};", self.rng.random_range(0..100))
            }
            10 => {
                self.met("record moves to another file");
                format!(
                    "UPDATE oms.alias SET offender = {other} WHERE id = {key} AND EXISTS (SELECT FROM oms.offender WHERE id = {other});
                     UPDATE oms.photograph SET offender = {other} WHERE id = {key} AND EXISTS (SELECT FROM oms.offender WHERE id = {other});"
                )
            }
            11 => {
                self.met("key reuse");
                format!(
                    "DELETE FROM oms.sentence WHERE id = {key};
                     INSERT INTO oms.sentence SELECT {key}, id, 7 FROM oms.offender WHERE id = {other};"
                )
            }
            12 => {
                self.met("photograph");
                let picture = format!("picture {}", self.rng.random_range(0..12));
                let sql = picture_sql(file * 100, file, &picture);
                format!("DO $$ BEGIN IF EXISTS (SELECT FROM oms.offender WHERE id = {file}) THEN {sql} END IF; END $$;")
            }
            13 => {
                self.met("reference record");
                let office = self.rng.random_range(1..5);
                let name = self.rng.random_range(0..9);
                format!(
                    "INSERT INTO oms.office VALUES ({office}, 'Office {name}')
                     ON CONFLICT (id) DO UPDATE SET name_en = EXCLUDED.name_en;"
                )
            }
            14 => {
                self.met("delete of children");
                format!(
                    "DELETE FROM oms.alias WHERE offender = {file}; DELETE FROM oms.photograph WHERE offender = {file};
                     DELETE FROM oms.office WHERE id = {};",
                    self.rng.random_range(1..5)
                )
            }
            _ => {
                self.met("savepoint rolled back");
                format!("SAVEPOINT s; DELETE FROM oms.offender WHERE id = {file}; ROLLBACK TO s;")
            }
        }
    }

    fn transaction(&mut self) -> String {
        let mut sql = "BEGIN; SET LOCAL client_min_messages = error;".to_owned();
        // TRUNCATE would wait for a transaction that is open.
        if self.rng.random_range(0..8) == 0 && self.open.is_none() {
            self.met("TRUNCATE and reload");
            sql.push_str(RELOAD);
        }
        for _ in 0..self.rng.random_range(1..6) {
            let operation = self.operation();
            let _ = write!(sql, "{operation}");
        }
        sql.push_str(if self.rng.random_range(0..10) == 0 { "ROLLBACK" } else { "COMMIT" });
        sql
    }

    fn edit_terms(&mut self) {
        let index = self.rng.random_range(0..self.terms.len());
        let (before, mut after) = (self.terms[index].clone(), self.terms[index].clone());
        after.generation += 1;
        if self.rng.random_range(0..5) == 0 {
            after.suspended = !after.suspended;
            self.met("suspension");
        } else {
            let grant = after.grant.as_mut().unwrap();
            grant.scope.share = support::population(POPULATIONS.choose(&mut self.rng).unwrap());
            grant.groups = groups(GROUPS.choose(&mut self.rng).unwrap());
            if self.rng.random_range(0..4) == 0 {
                grant.scope.share = support::population(POPULATIONS[4]);
                grant.groups = groups(GROUPS[1]);
            }
            let old = before.grant.as_ref().unwrap();
            let narrower = !grant.scope.contains(&old.scope) || !old.groups.is_subset(&grant.groups);
            self.met(if narrower { "narrowing" } else { "widening" });
        }
        self.terms[index] = after;
    }

    async fn check(&mut self) {
        for terms in self.terms.clone() {
            self.world.check_i2(&terms.partner).await;
            if !terms.suspended {
                self.world.check_i1(&terms).await;
            }
        }
    }
}

fn groups(names: &[&str]) -> std::collections::BTreeSet<FieldGroup> {
    use liaison_records::codes::Code;
    names.iter().map(|name| FieldGroup::parse(name).unwrap()).collect()
}

/// Stops the n-th batch that comes by `step`.
fn kill(step: Step, after: u32, killed: &Arc<AtomicU32>) -> Faults {
    let (left, killed) = (Arc::new(AtomicU32::new(after)), killed.clone());
    Faults::hooked(move |at, _| {
        let (left, killed) = (left.clone(), killed.clone());
        async move {
            if at == step && left.fetch_sub(1, Ordering::SeqCst) == 0 {
                killed.fetch_add(1, Ordering::SeqCst);
                return Err(Error::Stopped);
            }
            Ok(())
        }
        .boxed()
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[allow(clippy::too_many_lines, reason = "one long story")]
async fn a_replica_is_its_scope_whatever_happens() {
    let number = |name: &str, default: u64| std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default);
    let seed = number("LIAISON_SYNC_SEED", 20_261_122);
    let rounds = number("LIAISON_SYNC_ROUNDS", 50);
    let mut world = World::new("syncprop").await;
    let mut rng = StdRng::seed_from_u64(seed);
    let mut all = Vec::new();
    for suffix in ["a", "b", "c", "d"] {
        let partner = world.partner(suffix);
        world.prepare(&partner).await;
        all.push(terms(&partner, GROUPS.choose(&mut rng).unwrap(), POPULATIONS.choose(&mut rng).unwrap()));
    }
    let mut run = Run { rng, world, terms: all, coverage: BTreeMap::new(), open: None };
    for id in 1..=25 {
        let place = *PLACES.choose(&mut run.rng).unwrap();
        run.world.file(id, place, 2).await;
    }
    let mut worker: Option<Worker> = None;
    for round in 0..3 * rounds {
        if round >= rounds && MUST_MEET.iter().all(|what| run.coverage.contains_key(what)) {
            break;
        }
        for _ in 0..run.rng.random_range(0..5) {
            let sql = run.transaction();
            run.world.execute(&sql).await;
        }
        if run.rng.random_range(0..4) == 0 {
            run.edit_terms();
        }
        // A transaction that stays open over cycles, with changes that become visible late.
        if run.rng.random_range(0..6) == 0 {
            if let Some(client) = run.open.take() {
                client.batch_execute("COMMIT").await.unwrap();
                run.met("commit after a cycle that began later");
            } else {
                let client = run.world.hub_target.connect().await.unwrap();
                client
                    .batch_execute(&format!(
                        "BEGIN; {}",
                        file_sql(50 + i64::try_from(round).unwrap(), "5915022", "Suspended", 1)
                    ))
                    .await
                    .unwrap();
                run.open = Some(client);
            }
        }
        let small = run.rng.random_range(0..3) == 0;
        let budget = if small { Budget { chunk: 4, bytes: 1, ..Budget::default() } } else { Budget::default() };
        if run.rng.random_range(0..2) == 0 {
            // Step 1 is come by in any case; those that need a batch are tried more often, with something to do.
            let late = [Step::Ledgered, Step::Written, Step::Landed, Step::Decided, Step::Narrowing];
            let step =
                if run.rng.random_range(0..3) == 0 { STEPS.choose(&mut run.rng) } else { late.choose(&mut run.rng) };
            let step = *step.unwrap();
            let sql = run.transaction();
            run.world.execute(&sql).await;
            let killed = Arc::new(AtomicU32::new(0));
            let mut doomed = run.world.worker("w", budget, kill(step, run.rng.random_range(0..2), &killed));
            doomed.set_terms(run.terms.clone());
            let ended = doomed.converge(now()).await;
            if killed.load(Ordering::SeqCst) > 0 {
                assert_eq!(ended.unwrap_err().1, "Stopped", "seed {seed} round {round} {step:?}");
                run.met(match step {
                    Step::Leased | Step::Fenced | Step::Settled => "killed in step 1",
                    Step::Read => "killed after 4",
                    Step::Decided => "killed before 5",
                    Step::Ledgered => "killed between 5 and 6",
                    Step::Written => "killed before the replica's commit",
                    Step::Landed => "killed after 6",
                    Step::Narrowing => "killed behind the fence",
                });
            }
            for terms in run.terms.clone() {
                run.world.check_i2(&terms.partner).await;
            }
            // As killed: its tasks end where they are, its leases are taken from it.
            drop(doomed);
            worker = None;
            if run.rng.random_range(0..2) == 0 {
                let sql = run.transaction();
                run.world.execute(&sql).await;
            }
        } else if run.rng.random_range(0..6) == 0 {
            worker = None;
            run.met("lease taken by another");
        }
        let mut fresh = worker.take().unwrap_or_else(|| run.world.worker("w", budget, Faults::default()));
        fresh.set_terms(run.terms.clone());
        if let Err((partner, reason, message)) = fresh.converge(now()).await {
            panic!("seed {seed} round {round}: {partner} {reason} {message}");
        }
        worker = Some(fresh);
        if run.rng.random_range(0..8) == 0 {
            let trimmed = worker.as_ref().unwrap().trim().await.unwrap();
            if trimmed > 0 {
                run.met("change log trimmed");
            }
        }
        run.check().await;
    }
    drop(worker);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let Run { world, coverage, open, .. } = run;
    drop(open);
    for (what, times) in &coverage {
        println!("{times:5}  {what}");
    }
    for what in MUST_MEET {
        assert!(rounds < 50 || coverage.contains_key(what), "seed {seed}: the run never met '{what}'");
    }
    world.drop().await;
}
