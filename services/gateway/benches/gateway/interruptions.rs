//! C and D: the gateway is killed, a partner's address or port changes. How long until a request is answered again.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    client::{Target, first_answer},
    relay::Relay,
    results::Results,
    support::{
        self, eventually,
        gateway::Gateway,
        partner::Partner,
        world::{World, world},
    },
};

fn killed(gateway: &mut Gateway, objects: &[Value], a: &Partner, target: &Target) -> f64 {
    let since = Instant::now();
    gateway.kill();
    gateway.start_again(&objects.iter().collect::<Vec<_>>());
    first_answer(a, target, since).as_secs_f64()
}

/// The process is killed and started again at once; beside it, a gateway that keeps nothing.
pub fn kills(results: &mut Results, times: usize, plain: usize) {
    let state = tempfile::TempDir::new().unwrap();
    let kept = format!("--state-dir={}", state.path().display());
    let mut all = Vec::new();
    for (arguments, times) in [(vec![kept.as_str()], times), (vec![], plain)] {
        let mut took = Vec::new();
        let World { a, b, mut gateway, ca: _ca } = world(&arguments);
        let objects = [a.granted(&gateway.public_key), b.granted(&gateway.public_key)];
        let target = Target::of(&a);
        // So that it has been kept where they are.
        sleep(Duration::from_secs(2));
        for round in 1..=times {
            let seconds = killed(&mut gateway, &objects, &a, &target);
            took.push(seconds);
            if round % 10 == 0 || arguments.is_empty() {
                println!("C: killed {round} of {times} times; the last took {seconds:.3} s");
            }
            // Some time passes, of no length in particular.
            sleep(Duration::from_millis(1500 + 37 * (round as u64 % 13)));
        }
        took.sort_by(f64::total_cmp);
        all.push(took);
    }
    let at =
        |took: &Vec<f64>, share: usize| took.get((took.len() * share / 100).min(took.len().saturating_sub(1))).copied();
    for (what, share) in [("middle", 50), ("p99", 99), ("most", 100)] {
        let Some(value) = at(&all[0], share) else { continue };
        let plain = at(&all[1], share).map(|value| (value, "a gateway that keeps nothing"));
        let name = format!("C the process is killed, until a request is answered, {what}");
        results.add(&name, value, "s", all[0].len(), plain);
    }
}

/// Its port changes; its address, as the gateway sees it; and its own, where it has no router before it.
pub fn roaming(results: &mut Results, times: usize) {
    let World { mut a, b, gateway, ca: _ca } = world(&[]);
    drop(b);
    let target = Target::of(&a);
    support::run("ip", &["-n", &gateway.namespace.0, "route", "add", "198.51.100.0/24", "dev", a.near_link()]);
    let rests = |a: &Partner| {
        eventually("a request", Duration::from_secs(20), || a.curl("/echo", &["-m", "2"]).status.success());
    };
    let mut ports = Vec::new();
    for round in 1..=times {
        let since = Instant::now();
        a.set_port(20_000 + u16::try_from(round).unwrap());
        ports.push(first_answer(&a, &target, since).as_secs_f64());
        rests(&a);
    }
    results.times("D a partner's port changes, until a request is answered", &ports);

    let mut own = Vec::new();
    for round in 1..=times.min(3) {
        let since = Instant::now();
        a.set_outer_address(&format!("198.51.100.{round}"));
        own.push(first_answer(&a, &target, since).as_secs_f64());
        println!("D: its own address changed {round} times; the last took {:.1} s", own.last().unwrap());
        rests(&a);
    }
    let name = "D the address of the partner's own interface changes (wireguard-go keeps the old one until its next handshake)";
    results.times(name, &own);

    for n in 1..=times {
        let address = format!("198.51.100.{}/32", 100 + n);
        support::run("ip", &["-n", &a.namespace.0, "addr", "add", &address, "dev", "up0"]);
    }
    let relay = Relay::start(&a.namespace, "127.0.0.1:40001", "198.51.100.101", "192.0.2.5:51820".parse().unwrap());
    a.endpoint = Some("127.0.0.1:40001".to_owned());
    a.configure(&gateway.public_key, support::gateway::PORT);
    rests(&a);
    let mut routers = Vec::new();
    for round in 2..=times {
        let since = Instant::now();
        relay.move_to(&a.namespace, &format!("198.51.100.{}", 100 + round));
        routers.push(first_answer(&a, &target, since).as_secs_f64());
        rests(&a);
    }
    results.times("D a partner's address changes at its router, until a request is answered", &routers);
}
