//! Twenty partners, each of whom tries everything against each of the others, and the gateway's and the cluster's addresses.
//! Needs root and /dev/net/tun.

// Clippy takes only functions marked #[test] for tests.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use liaison_gateway::tunnel::filter::ENROLMENT;
use serde_json::Value;
use support::{
    ca::Ca,
    eventually,
    gateway::Gateway,
    partner::{Partner, answer},
    world::infopol,
};

const PARTNERS: u8 = 20;
/// Long enough for an answer, were there one: the way is a millisecond long.
const WAIT: Duration = Duration::from_millis(300);

/// Not a test: the gateway's process, started by the other in its network namespace.
#[test]
#[ignore = "started by the other test"]
fn gateway_process() {
    support::gateway::child();
}

fn reaches(from: &Partner, address: &str, port: u16) -> bool {
    let address: IpAddr = address.parse().unwrap();
    from.namespace.within(|| TcpStream::connect_timeout(&SocketAddr::new(address, port), WAIT).is_ok())
}

/// Everything that one can try to reach another; what got through.
fn crossings(a: &Partner, b: &Partner) -> Vec<String> {
    let mut through = Vec::new();
    let mut tried = |how: &str, got: bool| {
        if got {
            through.push(format!("{} reached {}: {how}", a.name, b.name));
        }
    };
    let other = format!("infopol-{}.", b.name);
    let curl = |name: &str, address: &str, arguments: &[&str]| {
        let output = a.curl_as(name, address, "/echo", arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.success(), text.contains(&other))
    };
    let (own, others) = (a.addresses(), b.addresses());
    let stolen = [b.file("chain.pem"), b.file("key.pem")];
    let stolen = ["--cert", &stolen[0], "--key", &stolen[1]];

    let (answered, got) = curl(&a.server_name(), &own.0, &stolen);
    tried("with its certificate, through the own tunnel", answered || got);
    let (answered, got) = curl(&b.server_name(), &own.0, &[]);
    tried("by its name, at the own address", answered || got);
    let (_, got) = curl(&a.server_name(), &own.0, &["-H", &format!("Host: {}", b.server_name())]);
    tried("by its name in a request", got);
    tried("at its gateway address", reaches(a, &others.0, 443));
    tried("where it enrols", reaches(a, &others.0, ENROLMENT));
    tried("at its gateway address, IPv6", reaches(a, &b.addresses_v6().0, 443));
    tried("itself, through the gateway", reaches(a, &others.1, 443));
    tried("itself, through the gateway, IPv6", reaches(a, &b.addresses_v6().1, 443));
    let mut spoofed = vec!["--interface", &others.1, "--connect-timeout", "0.3"];
    spoofed.extend(stolen);
    a.spoof(&others.1);
    let (answered, got) = curl(&b.server_name(), &others.0, &spoofed);
    a.unspoof(&others.1);
    tried("from its address, with its certificate", answered || got);
    through
}

/// Everything else that is not for partners; what got through.
fn scans(a: &Partner, gateway: &str) -> Vec<String> {
    let (own, own_v6) = (a.addresses().0, a.addresses_v6().0);
    let mut tried: Vec<(String, u16)> = Vec::new();
    for port in [22, 53, 80, 2379, 5432, 6443, 8080, 9090, 10250, 51820] {
        tried.push((own.clone(), port));
    }
    tried.extend([(own_v6.clone(), 8080), (own_v6, 22)]);
    // By a route through the tunnel: a service, the metadata service, a pod, and an address of the gateway's own network.
    for address in ["10.96.0.1", "169.254.169.254", "10.244.1.7", gateway] {
        a.route_through(address);
        tried.extend([443, 8080, 10250].map(|port| (address.to_owned(), port)));
    }
    let reached = tried.into_iter().filter(|(address, port)| reaches(a, address, *port));
    reached.map(|(address, port)| format!("{} reached {address} port {port}", a.name)).collect()
}

#[test]
fn of_twenty_partners_none_reaches_another_nor_anything_else() {
    let ca = Ca::new();
    let names: Vec<String> = (0..PARTNERS).map(|n| format!("p{n}")).collect();
    let mut gateway = Gateway::start(&ca, names.iter().map(|name| infopol(&ca, name, name)).collect(), &[]);
    let mut partners: Vec<Partner> =
        (1..).zip(&names).map(|(slot, name)| Partner::new(&ca, name, slot, Some(&gateway.namespace))).collect();
    let objects: Vec<Value> = partners.iter().map(|partner| partner.granted(&gateway.public_key)).collect();
    gateway.list(&objects.iter().collect::<Vec<_>>());
    for partner in &mut partners {
        partner.connect_default(&gateway.public_key);
    }
    // Each is itself a server at its own address, so that there is something to reach.
    let listeners: Vec<TcpListener> =
        partners.iter().map(|partner| partner.namespace.within(|| TcpListener::bind("[::]:443").unwrap())).collect();
    let own = |partner: &Partner| {
        let output = partner.curl("/echo", &["-m", "3"]);
        output.status.success() && answer(&output)["called"] == format!("infopol-{}.liaison-partners.svc", partner.name)
    };
    for partner in &partners {
        eventually("its own", Duration::from_secs(20), || own(partner));
    }

    let partners = &partners;
    let through: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = partners
            .iter()
            .map(|a| {
                scope.spawn(move || {
                    let others = partners.iter().filter(|b| b.name != a.name);
                    let elsewhere = format!("192.0.2.{}", (a.slot % PARTNERS + 1) * 4 + 1);
                    let scanned = scans(a, &elsewhere).into_iter();
                    scanned.chain(others.flat_map(|b| crossings(a, b))).collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(through.is_empty(), "{through:#?}");
    for listener in &listeners {
        listener.set_nonblocking(true).unwrap();
        assert_eq!(listener.accept().map(drop).map_err(|error| error.kind()), Err(ErrorKind::WouldBlock));
    }
    // It was the gateway that stood in the way, and nobody was disturbed by it.
    let refused = |reason: &str| {
        let series = |name: &String| format!("liaison_gateway_refused_total{{partner=\"{name}\",reason=\"{reason}\"}}");
        names.iter().map(|name| gateway.metric(&series(name))).sum::<u64>()
    };
    let crossings = u64::from(PARTNERS) * u64::from(PARTNERS - 1);
    assert_eq!(crossings, 380);
    assert_eq!([refused("unknown_certificate"), refused("wrong_server_name"), refused("wrong_host")], [crossings; 3]);
    assert!(
        gateway.metric("liaison_gateway_packets_dropped_total{direction=\"in\",reason=\"address\"}") >= 5 * crossings
    );
    assert!(partners.iter().all(own));
}
