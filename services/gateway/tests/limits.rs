//! What one partner, or somebody who is none, cannot take from the others: bandwidth, connections held open, handshakes.
//! Needs root and /dev/net/tun.

// Clippy takes only functions marked #[test] for tests.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    io::Read as _,
    net::{TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::sleep,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use gotatun::{
    noise::{Tunn, index_table::IndexTable, rate_limiter::RateLimiter},
    x25519::{PublicKey, StaticSecret},
};
use support::{
    eventually,
    partner::{Partner, size},
    world::{World, world},
};

/// Not a test: the gateway's process, started by the others in its network namespace.
#[test]
#[ignore = "started by the other tests"]
fn gateway_process() {
    support::gateway::child();
}

#[test]
fn a_partner_has_its_bandwidth_and_takes_nobody_elses() {
    const RATE: u64 = 20_000;
    let World { a, b, gateway: _gateway, ca: _ca } = world(&[&format!("--max-bytes-per-second={RATE}")]);
    let started = Instant::now();
    // Five times what it may have, in three connections.
    let all = [a.download(&["--http1.1"]), a.download(&["--http2"]), a.download(&["--http2"])];
    let (_other, other) = b.download(&["--http2"]);
    sleep(Duration::from_secs(6));
    let total: u64 = all.iter().map(|(_, file)| size(file)).sum();
    let most = (started.elapsed().as_secs() + 2) * RATE;
    assert!((1..=most).contains(&total), "{total} of {most}");
    // The other has as much in one connection.
    assert!(size(&other) > total / 2, "{} beside {total}", size(&other));
    assert!(b.curl("/echo", &["-m", "20"]).status.success());
}

#[test]
fn slow_clients_are_given_up_and_nobody_else_waits() {
    let World { a, b, gateway, ca: _ca } = world(&["--header-seconds=2", "--stall-seconds=2"]);
    let refused =
        |reason| gateway.metric(&format!("liaison_gateway_refused_total{{partner=\"a\",reason=\"{reason}\"}}"));
    let (_other, other) = b.download(&["--http2"]);

    // Nothing is said after TCP's handshake.
    let mut silent = a.namespace.within(|| TcpStream::connect((a.addresses().0, 443)).unwrap());
    silent.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert_eq!(silent.read(&mut [0; 16]).unwrap_or(0), 0, "it was answered");
    eventually("it is counted", Duration::from_secs(5), || refused("timeout") == 1);

    // Half a header.
    a.openssl_fed("printf 'GET /echo HTTP/1.1\\r\\nHost: '; sleep 5", "-quiet");
    eventually("it is counted", Duration::from_secs(5), || refused("timeout") == 2);

    // An answer that nobody takes: its reader is stopped in the middle of it.
    for version in ["--http1.1", "--http2"] {
        let before = refused("timeout");
        let (reader, file) = a.download(&[version]);
        eventually("it runs", Duration::from_secs(10), || size(&file) > 20_000);
        support::run("kill", &["-STOP", &reader.0.id().to_string()]);
        eventually("it is given up", Duration::from_secs(60), || refused("timeout") == before + 1);
        let open = || gateway.metric("liaison_gateway_connections{partner=\"a\"}");
        eventually("nothing is held", Duration::from_secs(5), || open() == 0);
    }
    let before = size(&other);
    sleep(Duration::from_secs(1));
    assert!(size(&other) > before + 20_000, "b was disturbed");
    assert!(a.curl("/echo", &[]).status.success());
}

#[test]
fn a_body_that_comes_a_byte_a_second_is_ended_and_nobody_else_waits() {
    let World { a, b, gateway, ca: _ca } = world(&[]);
    let held = || gateway.metric("liaison_gateway_connections{partner=\"a\"}");
    eventually("nothing is held yet", Duration::from_secs(5), || held() == 0);
    // Ten minutes of it. InfoPol, which reads it all before it answers, is given the 30 s of every request.
    let slow = |version: &str| {
        a.sh(&format!(
            "for i in $(seq 600); do printf x; sleep 1; done | \
             curl -sS -m 60 --{version} --cacert root.pem --cert chain.pem --key key.pem --resolve $name:443:$gateway \
             -X POST -T . -o {version} -w '%{{http_code}} %{{size_upload}}' https://$name/echo"
        ))
    };
    std::thread::scope(|scope| {
        let all = ["http1.1", "http2"].map(|version| scope.spawn(move || (version, slow(version))));
        eventually("both are held", Duration::from_secs(10), || held() == 2);
        let mut answered = 0;
        while !all.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            assert!(b.curl("/echo", &["-d", "a body"]).status.success(), "b was disturbed");
            assert!(a.curl("/echo", &["-d", "a body"]).status.success(), "its other connections were");
            answered += 1;
            sleep(Duration::from_millis(500));
        }
        assert!(answered > 10, "{answered}");
        for one in all {
            let (version, output) = one.join().unwrap();
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            let (code, sent) = said.split_once(' ').unwrap();
            let why = String::from_utf8_lossy(&output.stderr);
            assert_eq!(code, "504", "{version}: {why}");
            // With what frames them.
            assert!((5..600).contains(&sent.parse::<u32>().unwrap()), "{version}: {sent} bytes were sent");
        }
    });
    eventually("nothing is held", Duration::from_secs(5), || held() == 0);
}

#[test]
fn as_many_connections_as_a_partner_may_have_and_no_more() {
    let World { a, b, gateway, ca: _ca } = world(&["--max-connections=4"]);
    let held: Vec<_> = (0..4).map(|_| a.download(&["--http1.1"])).collect();
    eventually("they run", Duration::from_secs(10), || held.iter().all(|(_, file)| size(file) > 1000));
    assert!(!a.curl("/echo", &["-m", "2"]).status.success());
    let refused = "liaison_gateway_refused_total{partner=\"a\",reason=\"too_many_connections\"}";
    assert_eq!(gateway.metric(refused), 1);
    assert!(b.curl("/echo", &[]).status.success());
    drop(held);
    eventually("there is room again", Duration::from_secs(10), || a.curl("/echo", &["-m", "2"]).status.success());
}

/// First messages of people whom the gateway does not know, with all that it takes to have them looked at.
fn initiations(gateway: &str, number: usize) -> Vec<Vec<u8>> {
    let public: [u8; 32] = STANDARD.decode(gateway).unwrap().try_into().unwrap();
    let public = PublicKey::from(public);
    let limiter = Arc::new(RateLimiter::new(&public, 100));
    let stranger = |_| {
        let secret = StaticSecret::from(rand::random::<[u8; 32]>());
        let index = IndexTable::from_os_rng();
        let mut tunnel = Tunn::new(secret, public, None, None, index, Arc::clone(&limiter));
        let packet = tunnel.format_handshake_initiation(true).unwrap();
        packet.into_bytes().to_vec()
    };
    (0..number).map(stranger).collect()
}

#[test]
fn a_flood_of_handshakes_keeps_no_partner_out() {
    let World { a, b, gateway, ca } = world(&[]);
    // Somebody with one address, who is held to a hundred a second by it, and with two hundred more, who is not.
    let stranger = Partner::new(&ca, "c", 3, Some(&gateway.namespace));
    let addresses: Vec<String> = (1..=200).map(|n| format!("198.51.100.{n}")).collect();
    for address in &addresses {
        support::run("ip", &["-n", &stranger.namespace.0, "addr", "add", &format!("{address}/32"), "dev", "up0"]);
    }
    support::run("ip", &["-n", &gateway.namespace.0, "route", "add", "198.51.100.0/24", "via", "192.0.2.14"]);
    let sockets: Vec<UdpSocket> = stranger.namespace.within(|| {
        let own = std::iter::repeat_n("192.0.2.14", 200);
        own.chain(addresses.iter().map(String::as_str)).map(|address| UdpSocket::bind((address, 0)).unwrap()).collect()
    });
    let packets = initiations(&gateway.public_key, 500);
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let (_other, other) = b.download(&["--http2"]);
    eventually("it runs", Duration::from_secs(10), || size(&other) > 20_000);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut packet = packets.iter().cycle();
            while !stop.load(Ordering::Relaxed) {
                for socket in &sockets {
                    if socket.send_to(packet.next().unwrap(), "192.0.2.13:51820").is_ok() {
                        sent.fetch_add(1, Ordering::Relaxed);
                    }
                }
                // Some ten thousand a second.
                sleep(Duration::from_millis(20));
            }
        });
        sleep(Duration::from_secs(1));
        for round in 0..5 {
            // It forgets its sessions, so this is a new handshake.
            a.configure(&gateway.public_key, support::gateway::PORT);
            eventually("a request", Duration::from_secs(10), || a.curl("/echo", &["-m", "5"]).status.success());
            let before = size(&other);
            sleep(Duration::from_millis(500));
            assert!(size(&other) > before + 10_000, "round {round}: b was disturbed");
        }
        stop.store(true, Ordering::Relaxed);
    });
    let sent = sent.into_inner();
    assert!(sent > 10_000, "only {sent}");
    assert!(gateway.http("readyz").is_some());
}
