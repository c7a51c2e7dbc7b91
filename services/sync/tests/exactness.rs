//! I1, I2, I5, I7 and I8 as a property: partners and scopes, transactions over many tables, scope edits, kills between any two
//! steps, lost leases, restored hubs and replicas, all drawn at random; after each step the databases are held against one plain
//! query on the hub, and against the ledger.
//!
//! `LIAISON_SEED` repeats a run, `LIAISON_STEPS` makes it longer. What was met is printed; none may be zero. With
//! `LIAISON_SOAK=FILE` it goes on in one world after another, and keeps its account in that file (`make soak`).
#![allow(clippy::format_push_string, clippy::format_collect)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod machine;
mod support;

use std::time::Instant;

use liaison_sync::fault::{FAULTS, Fault};
use machine::{Coverage, MUST_MEET, action::Action, oracle::Violation};

const SEED: u64 = 777;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |v| v.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}

fn add(sum: &mut Coverage, more: &Coverage) {
    for (what, times) in more {
        *sum.entry(what).or_default() += times;
    }
}

fn print(coverage: &Coverage) {
    for (what, times) in coverage {
        println!("{times:8}  {what}");
    }
}

/// Says how to see it again, in as few steps as a few replays could find.
async fn tell(seed: u64, violation: &Violation, actions: Vec<Action>, fault: Option<Fault>) -> String {
    let steps = actions.len();
    println!("seed {seed}, step {steps}: {}: {}; making it smaller", violation.invariant, violation.detail);
    let actions = machine::shrink("syncshrink", seed, actions, fault, 40).await;
    let list: String = actions.iter().map(|action| format!("  {action:?}\n")).collect();
    format!(
        "{}: {}\nLIAISON_SEED={seed}, at step {steps}; these {} steps suffice:\n{list}",
        violation.invariant,
        violation.detail,
        actions.len()
    )
}

/// Worlds one after another, each drawn from the seed that follows, until `steps` are done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_is_its_scope_whatever_happens() {
    let (first, steps) = (number("LIAISON_SEED", SEED), number("LIAISON_STEPS", 1_800));
    let soak = std::env::var("LIAISON_SOAK").ok();
    let each = if soak.is_some() { 20_000 } else { 600 };
    let started = Instant::now();
    let (mut coverage, mut done, mut cycles, mut compared, mut seed) = (Coverage::new(), 0, 0, 0, first);
    let mut failure = None;
    // A little longer, if something was not met yet: what is rare may not come by in a short run.
    let met_all = |coverage: &Coverage| MUST_MEET.iter().all(|what| coverage.contains_key(what));
    while failure.is_none() && (done < steps || (!met_all(&coverage) && done < 3 * steps && steps >= 1_000)) {
        let run = machine::run("syncprop", seed, if done < steps { each.min(steps - done) } else { each }, None).await;
        done += run.steps;
        cycles += run.cycles;
        compared += run.compared;
        add(&mut coverage, &run.coverage);
        let seconds = started.elapsed().as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a rate for a person")]
        let rate = done as f64 / seconds;
        println!(
            "seed {seed}: {done} of {steps} steps, {cycles} cycles, {compared} records, {seconds:.0} s, {rate:.0} steps/s"
        );
        if let Some((violation, actions)) = run.failed {
            failure = Some(tell(seed, &violation, actions, None).await);
        }
        seed += 1;
        if let Some(path) = &soak {
            let account =
                Account { first, last: seed - 1, done, steps, cycles, compared, seconds, failure: failure.as_deref() };
            std::fs::write(path, account.page(&coverage)).unwrap();
        }
    }
    println!("seeds {first} to {}: {done} steps, {cycles} cycles, {compared} records compared", seed - 1);
    print(&coverage);
    assert!(failure.is_none(), "{}", failure.unwrap());
    for what in MUST_MEET {
        assert!(steps < 1_000 || coverage.contains_key(what), "seed {first}: the run never met '{what}'");
    }
}

/// What a soak has done so far.
struct Account<'a> {
    first: u64,
    last: u64,
    done: u64,
    steps: u64,
    cycles: u64,
    compared: u64,
    seconds: f64,
    failure: Option<&'a str>,
}

impl Account<'_> {
    fn page(&self, coverage: &Coverage) -> String {
        let Self { first, last, done, steps, cycles, compared, seconds, failure } = self;
        let result = match failure {
            Some(failure) => format!("A violation was found:\n\n```\n{failure}```\n"),
            None if done >= steps => "No violation.".to_owned(),
            None => "No violation so far; the run has not done all of its steps.".to_owned(),
        };
        let rows: String = coverage.iter().map(|(what, times)| format!("| {what} | {times} |\n")).collect();
        format!(
            "# The soak\n\nWritten by `make soak SEED={first} STEPS={steps}` itself, after each world of up to 20,000 steps; it is the \
             property test\n(`services/sync/tests/exactness.rs`), only longer.\n\n\
             | | |\n|---|---|\n| steps done | {done} of {steps} |\n| seeds | {first} to {last}, one a world |\n| cycles checked in full | {cycles} |\n\
             | records compared with the hub's | {compared} |\n| seconds | {seconds:.0} |\n| written | {} |\n\n{result}\n\n\
             A step is one action: a transaction of up to four changes on the hub, a scope edit, a cycle that brings all partners up to date, a \
             kill,\na lease that is lost, a restore. A full check (I1 with the oracle's query, I2 with every ledger line, I5, I7) of all \
             partners follows each step\nthat brings them up to date, and a check of I2, I7 and of what has landed (I1 over the cursor's \
             range) each kill; a step that\nchanges the hub or the terms alone touches no replica, and is checked with the next cycle. \
             While a batch is under way another session looks\nwhether the ledger came first (I2) and whether reads are fenced (I7).\n\n\
             | met | times |\n|---|---|\n{rows}",
            jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC"),
        )
    }
}

/// Each mistake that can be seeded is found by the same machine, with the same seeds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_seeded_fault_is_found() {
    for fault in FAULTS {
        let (mut steps, mut found) = (0, None);
        for seed in SEED..SEED + 4 {
            let run = machine::run("syncfault", seed, 1_500, Some(fault)).await;
            steps += run.steps;
            found = run.failed;
            if found.is_some() {
                break;
            }
        }
        let (violation, _) = found.unwrap_or_else(|| panic!("{fault:?} was not found in {steps} steps"));
        println!("{fault:?}: found at step {steps} as {}: {}", violation.invariant, violation.detail);
    }
}
