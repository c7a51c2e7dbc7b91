//! Worlds from a seed to their end: a run, and what is made of one that failed.

use rand::{SeedableRng, rngs::StdRng};

use super::{Coverage, Machine, action::Action, oracle::Violation};
use liaison_sync::fault::Fault;

/// How a run ended.
pub struct Run {
    pub steps: u64,
    pub cycles: u64,
    pub compared: u64,
    pub coverage: Coverage,
    pub failed: Option<(Violation, Vec<Action>)>,
}

/// A run of so many steps over one world drawn from `seed`, on a server.
pub async fn run(server: &str, name: &str, seed: u64, steps: u64, fault: Option<Fault>) -> Run {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut machine = Machine::new(server, name, &mut rng, fault).await;
    let mut actions = Vec::new();
    let mut failed = None;
    while failed.is_none() && (actions.len() as u64) < steps {
        let action = Action::draw(&mut rng, machine.partners());
        actions.push(action.clone());
        failed = machine.step(&action).await.err();
    }
    let (taken, cycles, compared) = (actions.len() as u64, machine.cycles, machine.compared());
    let coverage = std::mem::take(&mut machine.coverage);
    machine.drop().await;
    Run { steps: taken, cycles, compared, coverage, failed: failed.map(|violation| (violation, actions)) }
}

/// Whether these actions, on the world of `seed`, violate anything.
async fn replay(server: &str, seed: u64, actions: &[Action]) -> Option<Violation> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut machine = Machine::new(server, "syncshrink", &mut rng, None).await;
    let mut failed = None;
    for action in actions {
        if let Err(violation) = machine.step(action).await {
            failed = Some(violation);
            break;
        }
    }
    machine.drop().await;
    failed
}

/// Leaves out what is not needed for the failure, in at most `attempts` replays.
async fn shrink(server: &str, seed: u64, mut actions: Vec<Action>, mut attempts: usize) -> Vec<Action> {
    // What was long ago matters least: the tail alone is tried first.
    for tail in [30, 120, 500] {
        if actions.len() > tail && attempts > 0 {
            attempts -= 1;
            let part = actions[actions.len() - tail..].to_vec();
            if replay(server, seed, &part).await.is_some() {
                actions = part;
                break;
            }
        }
    }
    let mut size = actions.len() / 2;
    while size > 0 && attempts > 0 && actions.len() < 1000 {
        let mut from = 0;
        while from < actions.len() && attempts > 0 {
            attempts -= 1;
            let mut part = actions.clone();
            part.drain(from..(from + size).min(actions.len()));
            if replay(server, seed, &part).await.is_some() { actions = part } else { from += size }
        }
        size /= 2;
    }
    actions
}

/// Sums what was met.
pub fn add(sum: &mut Coverage, more: &Coverage) {
    for (what, times) in more {
        *sum.entry(what).or_default() += times;
    }
}

/// Says how to see a violation again, in as few steps as a few replays could find.
pub async fn tell(server: &str, seed: u64, violation: &Violation, actions: Vec<Action>) -> String {
    let steps = actions.len();
    println!("seed {seed}, step {steps}: {}: {}; making it smaller", violation.invariant, violation.detail);
    println!("the last steps: {:#?}", &actions[steps.saturating_sub(4)..]);
    let actions = shrink(server, seed, actions, 40).await;
    let list: Vec<String> = actions.iter().map(|action| format!("  {action:?}\n")).collect();
    format!(
        "{}: {}\nLIAISON_SEED={seed}, at step {steps}; these {} steps suffice:\n{}",
        violation.invariant,
        violation.detail,
        actions.len(),
        list.concat()
    )
}
