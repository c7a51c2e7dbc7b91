//! The property test (`exactness.rs`), only longer: worlds from one seed after another, several at a time, with an account that is
//! kept through interruptions (`make soak`; docs/soak.md).
//!
//! `LIAISON_SOAK=DIRECTORY` says where the worlds that are done are kept, and the page; without it a short soak shows that the account
//! goes on where it was stopped. `LIAISON_CODE` names what is tried: worlds of other code do not count.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod machine;
mod support;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Instant,
};

use machine::{MUST_MEET, run};
use serde::{Deserialize, Serialize};
use support::{cluster::Cluster, number, url};
use tokio::{
    signal::{
        ctrl_c,
        unix::{SignalKind, signal},
    },
    task::JoinSet,
};

/// One world, done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct World {
    seed: u64,
    steps: u64,
    cycles: u64,
    compared: u64,
    /// What it took. Whole, so that what is read again is what was kept.
    milliseconds: u64,
    coverage: BTreeMap<String, u64>,
}

/// What has been done of a soak.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Account {
    /// What was tried, as git names it.
    code: String,
    first: u64,
    worlds: Vec<World>,
    failure: Option<String>,
}

/// What is asked for.
struct Soak {
    directory: PathBuf,
    code: String,
    first: u64,
    steps: u64,
    /// Steps a world.
    each: u64,
    /// Worlds at a time.
    lanes: u64,
}

impl Account {
    /// What was kept of the same code and the same first seed; else a new one.
    fn load(soak: &Soak) -> Self {
        let kept = std::fs::read(soak.directory.join("worlds.json")).ok();
        let kept: Option<Self> = kept.map(|text| serde_json::from_slice(&text).expect("worlds.json is an account"));
        kept.filter(|kept| kept.code == soak.code && kept.first == soak.first && kept.failure.is_none())
            .unwrap_or_else(|| Self { code: soak.code.clone(), first: soak.first, ..Self::default() })
    }

    fn keep(&self, soak: &Soak) {
        let put = |name: &str, text: &str| {
            let beside = soak.directory.join(format!("{name}.new"));
            std::fs::write(&beside, text).unwrap();
            std::fs::rename(beside, soak.directory.join(name)).unwrap();
        };
        std::fs::create_dir_all(&soak.directory).unwrap();
        put("worlds.json", &serde_json::to_string(self).unwrap());
        put("soak.md", &self.page(soak));
    }

    fn done(&self) -> u64 {
        self.worlds.iter().map(|world| world.steps).sum()
    }

    fn coverage(&self) -> BTreeMap<&str, u64> {
        let mut sum = BTreeMap::new();
        for (what, times) in self.worlds.iter().flat_map(|world| &world.coverage) {
            *sum.entry(what.as_str()).or_default() += times;
        }
        sum
    }

    fn page(&self, soak: &Soak) -> String {
        let done = self.done();
        let result = match &self.failure {
            Some(failure) => format!("A violation was found:\n\n```\n{failure}```\n"),
            None if done >= soak.steps => "No violation.".to_owned(),
            None => "No violation so far; the run has not done all of its steps.".to_owned(),
        };
        let rows: Vec<String> = self.coverage().iter().map(|(what, times)| format!("| {what} | {times} |\n")).collect();
        let last = self.worlds.iter().map(|world| world.seed).max().unwrap_or(self.first);
        let sum = |of: fn(&World) -> u64| self.worlds.iter().map(of).sum::<u64>();
        format!(
            "# The soak\n\nWritten by `make soak SEED={} STEPS={}` itself, after each world of up to {} steps; it is the property test\n\
             (`services/sync/tests/exactness.rs`), only longer. It may be stopped, and goes on where it was.\n\n\
             | | |\n|---|---|\n| steps done | {done} of {} |\n| seeds | {} to {last}, one a world |\n| cycles checked in full | {} |\n\
             | records compared with the hub's | {} |\n| seconds of all worlds, {} at a time | {} |\n| code | {} |\n| written | {} |\n\n{result}\n\n\
             A step is one action: a transaction of up to four changes on the hub, a scope edit, a cycle that brings all partners up to date, a \
             kill,\na lease that is lost, a restore. A full check (I1 with the oracle's query, I2 with every ledger line, I5, I7) of all \
             partners follows each step\nthat brings them up to date, and a check of I2, I7 and of what has landed (I1 over the cursor's \
             range) each kill; a step that\nchanges the hub or the terms alone touches no replica, and is checked with the next cycle. \
             While a batch is under way another session looks\nwhether the ledger came first (I2) and whether reads are fenced (I7).\n\n\
             | met | times |\n|---|---|\n{}",
            self.first,
            soak.steps,
            soak.each,
            soak.steps,
            self.first,
            sum(|world| world.cycles),
            sum(|world| world.compared),
            soak.lanes,
            sum(|world| world.milliseconds) / 1000,
            self.code,
            jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC"),
            rows.concat(),
        )
    }
}

/// Somebody wants it to end.
async fn stopped() {
    let mut terminate = signal(SignalKind::terminate()).unwrap();
    tokio::select! { _ = terminate.recv() => (), _ = ctrl_c() => () }
}

/// Goes on until all steps are done, or something is violated.
async fn soak(soak: &Soak) -> Account {
    let mut account = Account::load(soak);
    let (started, before) = (Instant::now(), account.done());
    let mut seeds = (soak.first..).filter({
        let done: Vec<u64> = account.worlds.iter().map(|world| world.seed).collect();
        move |seed| !done.contains(seed)
    });
    let mut under_way = JoinSet::new();
    // A slot that is made waits for all transactions of its server: worlds on one server would wait for each other.
    let (mut servers, mut begun) = (Vec::new(), before);
    for _ in 0..soak.lanes {
        servers.push(Cluster::start("soak").await);
    }
    loop {
        while begun < soak.steps
            && account.failure.is_none()
            && let Some(server) = servers.pop()
        {
            let (seed, steps) = (seeds.next().expect("seeds"), soak.each.min(soak.steps - begun));
            begun += steps;
            under_way.spawn(async move {
                let at = Instant::now();
                let run = run::run(&server.url(), "syncsoak", seed, steps, None).await;
                (server, seed, at.elapsed().as_millis(), run)
            });
        }
        let ended = tokio::select! {
            ended = under_way.join_next() => ended,
            () = stopped() => {
                // So that their servers go.
                under_way.shutdown().await;
                panic!("stopped at {} steps; it goes on from there", account.done());
            }
        };
        let Some(ended) = ended else { break };
        let (server, seed, took, run) = ended.expect("a world");
        servers.push(server);
        let coverage = run.coverage.iter().map(|(what, times)| ((*what).to_owned(), *times)).collect();
        let (steps, cycles, compared) = (run.steps, run.cycles, run.compared);
        let milliseconds = u64::try_from(took).expect("a world's time");
        account.worlds.push(World { seed, steps, cycles, compared, milliseconds, coverage });
        if let Some((violation, actions)) = run.failed {
            account.failure = Some(run::tell(&url(), seed, &violation, actions).await);
        }
        account.keep(soak);
        let done = account.done();
        #[expect(clippy::cast_precision_loss, reason = "a rate for a person")]
        let rate = (done - before) as f64 / started.elapsed().as_secs_f64();
        println!("seed {seed}: {done} of {} steps, {rate:.0} steps/s", soak.steps);
    }
    account
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worlds_go_on_where_they_were_stopped() {
    if let Ok(directory) = std::env::var("LIAISON_SOAK") {
        let asked = Soak {
            directory: directory.into(),
            code: std::env::var("LIAISON_CODE").expect("LIAISON_CODE names what is tried"),
            first: number("LIAISON_SEED", 100_000),
            steps: number("LIAISON_STEPS", 1_000_000),
            each: 1_000,
            lanes: number("LIAISON_LANES", 2),
        };
        let account = soak(&asked).await;
        assert!(account.failure.is_none(), "{}", account.failure.unwrap());
        for what in MUST_MEET {
            assert!(account.coverage().contains_key(what), "the soak never met '{what}'");
        }
        return;
    }
    let directory = std::env::temp_dir().join(format!("liaison-soak-{}", std::process::id()));
    let mut asked = Soak { directory, code: "a".into(), first: 5, steps: 90, each: 30, lanes: 2 };
    let first = soak(&asked).await;
    assert_eq!((first.done(), first.worlds.len(), first.failure), (90, 3, None));
    asked.steps = 130;
    let second = soak(&asked).await;
    let mut seeds: Vec<u64> = second.worlds.iter().map(|world| world.seed).collect();
    seeds.sort_unstable();
    assert_eq!((second.done(), seeds), (130, vec![5, 6, 7, 8, 9]));
    assert_eq!(second.worlds[..3], first.worlds, "what was done is kept");
    let page = std::fs::read_to_string(Path::new(&asked.directory).join("soak.md")).unwrap();
    assert!(page.contains("| steps done | 130 of 130 |") && page.contains("No violation."), "{page}");
    // Of other code, nothing counts.
    "b".clone_into(&mut asked.code);
    assert_eq!(Account::load(&asked).done(), 0);
    std::fs::remove_dir_all(&asked.directory).unwrap();
}
