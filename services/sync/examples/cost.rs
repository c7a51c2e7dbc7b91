//! What a catch-up costs, process by process: `HUB` and `STORE` are URLs, `POSTMASTER` a pid of the server that has both,
//! `LOAD` a command that changes the hub, `N` the number of partners, to which the files are dealt out by municipality.
//! `SETUP=1` makes the replicas first. For Linux.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{collections::BTreeMap, fs, time::Instant};

use jiff::Timestamp;
use liaison_records::{
    codes::{Code, FieldGroup},
    names::PartnerName,
};
use liaison_sync::{
    compare::Budget,
    connect::Target,
    error::Side,
    fault::Faults,
    seed,
    terms::{Grant, Scope, Terms},
    worker::{Context, Worker},
};

const VERIFIER: &str = "SCRAM-SHA-256$4096:c2FsdHNhbHRzYWx0c2FsdA==$3T/jZdRUOA0mXQjX0oJGlJJ9oZ6LRc0k1fW5qgTn1V0=:NTfPKSXsAu1n9Zs4UbkLWcw0Jb2E8sPfOwGbr7wP7JE=";

fn terms(number: usize) -> Terms {
    let partner: PartnerName = format!("cost-{number}").parse().unwrap();
    let share =
        serde_json::from_str(&format!(r#"{{"anyOf":[{{"municipalities":["{}"]}}]}}"#, 1_000_000 + number)).unwrap();
    let agreement = serde_json::from_str(r#"{"anyOf":[{"custody":["Community","Incarcerated","Archived"]}]}"#).unwrap();
    Terms {
        partner,
        generation: 1,
        name_en: "P".into(),
        name_fr: "P".into(),
        time_zone: "UTC".into(),
        authorized_until: Some("2090-01-01T00:00:00Z".parse().unwrap()),
        suspended: false,
        grant: Some(Grant {
            agreement: "a".into(),
            groups: FieldGroup::ALL
                .iter()
                .copied()
                .filter(|g| {
                    ["identity", "supervision", "aliases", "conditions", "sentence", "photograph"].contains(&g.as_str())
                })
                .collect(),
            scope: Scope { share, agreement },
            purposes: vec![],
        }),
        freshness_seconds: 600,
        disposal_days: 30,
    }
}

fn stat(pid: &str) -> Option<(String, [f64; 2], String)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let n = |i: usize| fields[i].parse::<f64>().unwrap() / 100.0;
    let title = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?.replace('\0', " ");
    Some((fields[1].to_owned(), [n(11) + n(12), n(13) + n(14)], title))
}

fn cpu(postmaster: &str) -> BTreeMap<String, f64> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let pid = entry.file_name().into_string().unwrap();
        if !pid.bytes().all(|b| b.is_ascii_digit()) {
            continue;
        }
        let Some((parent, [own, children], title)) = stat(&pid) else { continue };
        if pid == postmaster {
            all.insert("postmaster and exited".to_owned(), own + children);
        } else if parent == postmaster {
            let words: Vec<&str> = title.split_whitespace().take(4).collect();
            all.insert(format!("{} {pid}", words.join(" ")), own);
        }
    }
    let (_, [own, _], _) = stat("self").unwrap();
    all.insert("this process".to_owned(), own);
    all
}

fn say(what: &str, before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>, wall: f64) {
    let mut total = 0.0;
    for (name, now) in after {
        let spent = now - before.get(name).copied().unwrap_or(0.0);
        total += spent;
        if spent > 0.015 {
            println!("    {spent:7.2}  {name}");
        }
    }
    println!("{what}: {total:.2} CPU-s, {wall:.2} s");
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let env = |name: &str| std::env::var(name).unwrap_or_default();
    let hub = Target::from_url(Side::Hub, &env("HUB")).unwrap();
    let store = Target::from_url(Side::Store, &env("STORE")).unwrap();
    let count: usize = env("N").parse().unwrap();
    let all: Vec<Terms> = (0..count).map(terms).collect();
    if env("SETUP") == "1" {
        let started = Instant::now();
        let client = hub.connect().await.unwrap();
        client
            .batch_execute(&format!("UPDATE oms.offender SET municipality = (1000000 + id % {count})::text"))
            .await
            .unwrap();
        let mut client = store.connect().await.unwrap();
        for terms in &all {
            seed::prepare(&mut client, &terms.partner, VERIFIER).await.unwrap();
        }
        println!("prepared in {:.1} s", started.elapsed().as_secs_f64());
    }
    let started = Instant::now();
    let mut worker = Worker::new(Context::new(&hub, &store, "cost", Budget::default(), Faults::default()));
    worker.set_terms(all);
    worker.converge(Timestamp::now()).await.unwrap();
    println!("converged in {:.1} s", started.elapsed().as_secs_f64());
    worker.take_reports();
    let postmaster = env("POSTMASTER");
    for load in env("LOAD").split(';').filter(|l| !l.is_empty()) {
        let (before, started) = (cpu(&postmaster), Instant::now());
        let status = tokio::process::Command::new("bash").args(["-c", load]).status().await.unwrap();
        assert!(status.success());
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        let (loaded, wall) = (cpu(&postmaster), started.elapsed().as_secs_f64());
        say("load", &before, &loaded, wall);
        let started = Instant::now();
        worker.converge(Timestamp::now()).await.unwrap();
        let wall = started.elapsed().as_secs_f64();
        let (records, bytes) = worker
            .take_reports()
            .iter()
            .filter_map(|r| r.result.as_ref().ok())
            .fold((0, 0), |(r, b), w| (r + w.records, b + w.bytes));
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        say(&format!("catch-up of {records} records, {bytes} bytes"), &loaded, &cpu(&postmaster), wall);
    }
    worker.shut_down().await;
}
