//! The gateway's benchmark, `make bench-gateway`: how long what must not take long takes, with clients that others wrote.
//!
//! Each measure replaces its own figures in `target/bench/gateway.json`; `liaison-bench render` puts them into the
//! documentation. `MEASURES` chooses among them. Needs root, /dev/net/tun, wireguard-go, and for A and H an API server. (F and G are the operator's.)

// A benchmark that cannot go on ends, and says where.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::cast_precision_loss)]

mod client;
mod interruptions;
mod outages;
mod relay;
mod results;
mod revocation;
mod rotation;
#[path = "../../tests/support/mod.rs"]
mod support;
mod throughput;

use results::Results;

/// A number from the environment.
fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    if arguments.first().is_some_and(|first| first == support::gateway::CHILD) {
        return support::gateway::child();
    }
    if arguments.first().is_some_and(|first| first == throughput::TUNNEL) {
        return throughput::tunnel(&arguments[1..]);
    }
    let measures = std::env::var("MEASURES").unwrap_or_else(|_| "A,B,C,D,E,H".to_owned());
    let mut results = Results::load();
    for measure in measures.split(',') {
        match measure.trim() {
            "A" => {
                revocation::measure(&mut results, number("N", 1000), number("LIVE", 100));
                revocation::measure(&mut results, number("MANY", 5000), 0);
            }
            "B" => rotation::measure(&mut results, number("REQUESTS", 10_000), number("ROUNDS", 10)),
            "C" => interruptions::kills(&mut results, number("KILLS", 100), number("PLAIN", 3)),
            "D" => interruptions::roaming(&mut results, number("MOVES", 20)),
            "E" => throughput::measure(&mut results, number("TURNS", 5), number("SECONDS", 5)),
            "H" => outages::measure(&mut results, number("OUTAGES", 10), number("AWAY", 600)),
            other => panic!("MEASURES: there is no {other}"),
        }
    }
}
