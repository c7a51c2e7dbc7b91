//! sync's worker in a process of its own, so that its CPU-seconds are its own. It is driven line by line on its standard
//! input, answers each line with one of JSON, and ends with its input.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::StreamExt as _;
use jiff::Timestamp;
use liaison_sync::{
    compare::Budget,
    connect::Target,
    error::Side,
    fault::Faults,
    seed,
    terms::Terms,
    worker::{Context, Worker},
};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::{
    error::{Error, Result},
    scopes::Set,
};

/// What the worker process is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Order {
    /// Make and fill every replica, a few at a time, as the Jobs do.
    Seed,
    /// Take every lease and catch up.
    Converge,
    /// Rounds once a second, as `liaison-sync serve` makes them, until the next order.
    Serve,
    /// Stop the rounds and say how the replicas stand.
    Standing,
    /// The number of a partner, and the codes that it may have from now on.
    Terms(Vec<(usize, BTreeSet<usize>)>),
    /// Trim the change log.
    Trim,
}

/// What it answers.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Answer {
    /// Why not.
    pub error: Option<String>,
    /// Replicas that are complete.
    pub complete: usize,
    /// The instant up to which each replica is exact, in milliseconds since 1970; the oldest first.
    pub exact_at: Vec<i64>,
    /// Rows trimmed.
    pub trimmed: u64,
}

/// A reader's password that nobody knows.
const VERIFIER: &str = "SCRAM-SHA-256$4096:c2FsdHNhbHRzYWx0c2FsdA==$3T/jZdRUOA0mXQjX0oJGlJJ9oZ6LRc0k1fW5qgTn1V0=:NTfPKSXsAu1n9Zs4UbkLWcw0Jb2E8sPfOwGbr7wP7JE=";
/// Seed Jobs that run at once.
const JOBS: usize = 2;
/// How often `serve` looks.
const PROBE: Duration = Duration::from_secs(1);

struct Process {
    hub: Target,
    store: Target,
    terms: Vec<Terms>,
    set: Set,
    worker: Worker,
}

/// Runs until standard input ends.
pub async fn run(hub: &str, store: &str, set: Set) -> Result<()> {
    let said = |e: liaison_sync::error::Error| Error::said(e.to_string());
    let hub = Target::from_url(Side::Hub, hub).map_err(said)?;
    let store = Target::from_url(Side::Store, store).map_err(said)?;
    let terms = (0..set.n).map(|p| set.terms(p, &set.codes(p), 1)).collect::<Result<Vec<_>>>()?;
    let context = Context::new(&hub, &store, &format!("worker-{}", set.name()), Budget::default(), Faults::default());
    let mut worker = Worker::new(context);
    worker.set_terms(terms.clone());
    let mut process = Process { hub, store, terms, set, worker };
    let (sender, mut lines) = unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines() {
            if line.is_ok_and(|line| sender.send(line).is_ok()) {
                continue;
            }
            break;
        }
    });
    let mut waiting: Option<String> = None;
    loop {
        let line = match waiting.take() {
            Some(line) => line,
            None => match lines.recv().await {
                Some(line) => line,
                None => break,
            },
        };
        let answer = match serde_json::from_str(&line)? {
            Order::Serve => {
                println!("{}", serde_json::to_string(&Answer::default())?);
                match process.serve(&mut lines).await {
                    Some(next) => waiting = Some(next),
                    None => break,
                }
                continue;
            }
            order => process.obey(order).await,
        };
        println!(
            "{}",
            serde_json::to_string(
                &answer.unwrap_or_else(|e| Answer { error: Some(e.to_string()), ..Answer::default() })
            )?
        );
    }
    process.worker.shut_down().await;
    Ok(())
}

impl Process {
    async fn obey(&mut self, order: Order) -> Result<Answer> {
        match order {
            Order::Seed => self.seed().await?,
            Order::Converge => {
                let converged = self.worker.converge(Timestamp::now()).await;
                converged
                    .map_err(|(partner, reason, message)| Error::said(format!("{partner}: {reason}: {message}")))?;
            }
            Order::Serve | Order::Standing => {}
            Order::Terms(changed) => {
                for (p, codes) in changed {
                    if let Some(terms) = self.terms.get_mut(p) {
                        *terms = self.set.terms(p, &codes, terms.generation + 1)?;
                    }
                }
                self.worker.set_terms(self.terms.clone());
            }
            Order::Trim => {
                let trimmed = self.worker.context().trim().await.map_err(|e| Error::said(e.to_string()))?;
                return Ok(Answer { trimmed, ..self.standing() });
            }
        }
        Ok(self.standing())
    }

    fn standing(&mut self) -> Answer {
        let _ = self.worker.take_reports();
        let standings = self.worker.standings(Timestamp::now());
        let mut exact_at: Vec<i64> = standings.values().map(|s| s.exact_at_millis.unwrap_or(0)).collect();
        exact_at.sort_unstable();
        Answer { complete: standings.values().filter(|s| s.complete).count(), exact_at, ..Answer::default() }
    }

    async fn seed(&mut self) -> Result<()> {
        let (hub, store) = (Arc::new(self.hub.clone()), Arc::new(self.store.clone()));
        let total = self.terms.len();
        let mut said = Instant::now();
        let mut jobs = futures::stream::iter(self.terms.clone())
            .map(|terms| {
                let (hub, store) = (hub.clone(), store.clone());
                tokio::spawn(async move {
                    let holder = format!("seed-{}", terms.partner);
                    seed::seed(&hub, &store, &terms, VERIFIER, &holder, Budget::default(), Faults::default()).await
                })
            })
            .buffer_unordered(JOBS);
        let mut done = 0;
        while let Some(seeded) = jobs.next().await {
            seeded.map_err(|e| Error::said(e.to_string()))?.map_err(|e| Error::said(e.to_string()))?;
            done += 1;
            if said.elapsed() > Duration::from_secs(5) {
                said = Instant::now();
                eprintln!("    {done} of {total} replicas seeded");
            }
        }
        Ok(())
    }

    /// Rounds until a line comes, which is returned; `None` when the input ends.
    async fn serve(&mut self, lines: &mut UnboundedReceiver<String>) -> Option<String> {
        loop {
            let begun = Instant::now();
            let started = match self.worker.round(Timestamp::now()).await {
                Ok(started) => started,
                Err(error) => {
                    eprintln!("    no cycle: {error}");
                    false
                }
            };
            let _ = self.worker.take_reports();
            // As `serve` does: what was just started mostly ends soon, and what follows it does not wait for the next probe.
            tokio::time::sleep(if started { Duration::from_millis(20) } else { Duration::ZERO }).await;
            loop {
                let left = PROBE.saturating_sub(begun.elapsed());
                if left.is_zero() {
                    break;
                }
                if self.worker.busy() {
                    tokio::select! {
                        line = lines.recv() => return line,
                        () = self.worker.wait(left) => if started { break },
                    }
                } else {
                    tokio::select! {
                        line = lines.recv() => return line,
                        () = tokio::time::sleep(left) => {}
                    }
                }
            }
            if !lines.is_empty() {
                return lines.recv().await;
            }
        }
    }
}
