//! I1, I2, I5, I7 and I8 as a property: partners and scopes, transactions over many tables, scope edits, kills between any two
//! steps, lost leases, restored hubs and replicas, all drawn at random; after each step the databases are held against one plain
//! query on the hub, and against the ledger.
//!
//! `LIAISON_SEED` repeats a run, `LIAISON_STEPS` makes it longer. What was met is printed; none may be zero. Millions of steps are
//! `make soak`'s (`soak.rs`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod machine;
mod support;

use std::time::Instant;

use liaison_sync::fault::FAULTS;
use machine::{Coverage, MUST_MEET, run};
use support::{number, url};

const SEED: u64 = 777;

fn print(coverage: &Coverage) {
    for (what, times) in coverage {
        println!("{times:8}  {what}");
    }
}

/// Worlds one after another, each drawn from the seed that follows, until `steps` are done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_is_its_scope_whatever_happens() {
    let (first, steps) = (number("LIAISON_SEED", SEED), number("LIAISON_STEPS", 1_800));
    let started = Instant::now();
    let (mut coverage, mut done, mut seed) = (Coverage::new(), 0, first);
    // A little longer, if something was not met yet: what is rare may not come by in a short run.
    let met_all = |coverage: &Coverage| MUST_MEET.iter().all(|what| coverage.contains_key(what));
    while done < steps || (!met_all(&coverage) && done < 3 * steps && steps >= 1_000) {
        let world =
            run::run(&url(), "syncprop", seed, if done < steps { 600.min(steps - done) } else { 600 }, None).await;
        done += world.steps;
        run::add(&mut coverage, &world.coverage);
        println!("seed {seed}: {done} of {steps} steps, {:.0} s", started.elapsed().as_secs_f64());
        if let Some((violation, actions)) = world.failed {
            panic!("{}", run::tell(&url(), seed, &violation, actions).await);
        }
        seed += 1;
    }
    println!("seeds {first} to {}: {done} steps", seed - 1);
    print(&coverage);
    for what in MUST_MEET {
        assert!(steps < 1_000 || coverage.contains_key(what), "seed {first}: the run never met '{what}'");
    }
}

/// Each mistake that can be seeded is found by the same machine, with the same seeds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_seeded_fault_is_found() {
    for fault in FAULTS {
        let (mut steps, mut found) = (0, None);
        for seed in SEED..SEED + 4 {
            let world = run::run(&url(), "syncfault", seed, 1_500, Some(fault)).await;
            steps += world.steps;
            found = world.failed;
            if found.is_some() {
                break;
            }
        }
        let (violation, _) = found.unwrap_or_else(|| panic!("{fault:?} was not found in {steps} steps"));
        println!("{fault:?}: found at step {steps} as {}: {}", violation.invariant, violation.detail);
    }
}
