//! Twenty partners, each of whom tries everything against each of the others, and the gateway's and the cluster's addresses.
//! Needs root and /dev/net/tun.

// Clippy takes only functions marked #[test] for tests.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use liaison_gateway::tunnel::filter::ENROLMENT;
use serde_json::Value;
use support::{
    Namespace,
    ca::Ca,
    eventually,
    gateway::{Gateway, PORT},
    partner::{Partner, answer},
    run,
    world::infopol,
};

const PARTNERS: u8 = 20;
/// Long enough for an answer, were there one: the way is a millisecond long.
const WAIT: Duration = Duration::from_millis(300);
/// What partners look for at the gateway. It has /metrics itself at the first.
const PORTS: [u16; 10] = [8080, 22, 53, 80, 2379, 5432, 6443, 9090, 10250, PORT];
/// A service, the metadata service and a pod, behind the gateway, which would forward to them.
const CLUSTER: [&str; 3] = ["10.96.0.1", "169.254.169.254", "10.244.1.7"];
const CLUSTER_PORTS: [u16; 3] = [443, 8080, 10250];

/// Not a test: the gateway's process, started by the other in its network namespace.
#[test]
#[ignore = "started by the other test"]
fn gateway_process() {
    support::gateway::child();
}

fn reaches(from: &Namespace, address: &str, port: u16) -> bool {
    let address: IpAddr = address.parse().unwrap();
    from.within(|| TcpStream::connect_timeout(&SocketAddr::new(address, port), WAIT).is_ok())
}

/// A datagram needs no answer.
fn sends(from: &Namespace, address: &str, port: u16) {
    let address: IpAddr = address.parse().unwrap();
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let _ = from.within(|| UdpSocket::bind(any).unwrap().send_to(b"x", (address, port)));
}

/// What listens at every address of a namespace.
enum Ear {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

impl Ear {
    fn tcp(namespace: &Namespace, port: u16) -> Self {
        let listener = namespace.within(|| TcpListener::bind(("::", port)).unwrap());
        listener.set_nonblocking(true).unwrap();
        Self::Tcp(listener)
    }

    fn udp(namespace: &Namespace, port: u16) -> Self {
        let socket = namespace.within(|| UdpSocket::bind(("::", port)).unwrap());
        socket.set_nonblocking(true).unwrap();
        Self::Udp(socket)
    }

    /// Who has come since it was last asked.
    fn heard(&self) -> Option<SocketAddr> {
        let heard = match self {
            Self::Tcp(listener) => listener.accept().map(|(_, from)| from),
            Self::Udp(socket) => socket.recv_from(&mut [0; 16]).map(|(_, from)| from),
        };
        heard.inspect_err(|error| assert_eq!(error.kind(), ErrorKind::WouldBlock)).ok()
    }
}

/// Has something answer wherever partners scan: in the gateway's namespace, and in another that the gateway forwards to, as a node
/// does to its cluster.
fn cluster(gateway: &Namespace) -> (Namespace, Vec<Ear>) {
    let cluster = Namespace::new("c");
    let (name, ours) = (cluster.0.as_str(), gateway.0.as_str());
    let at = |namespace: &str, line: &str| {
        run("ip", &[&["-n", namespace][..], &line.split(' ').collect::<Vec<_>>()].concat())
    };
    run("ip", &["link", "add", "eth0", "netns", name, "type", "veth", "peer", "name", "cluster", "netns", ours]);
    at(ours, "addr add 203.0.113.1/30 dev cluster");
    at(ours, "link set cluster up");
    at(name, "addr add 203.0.113.2/30 dev eth0");
    at(name, "link set eth0 up");
    at(name, "route add default via 203.0.113.1");
    for address in CLUSTER {
        at(name, &format!("addr add {address}/32 dev eth0"));
        at(ours, &format!("route add {address}/32 via 203.0.113.2"));
    }
    gateway.within(|| {
        for switch in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            std::fs::write(format!("/proc/sys/net/{switch}"), "1").unwrap();
        }
    });
    // The gateway's own are health's TCP and WireGuard's UDP.
    let tcp = PORTS.into_iter().filter(|port| *port != 8080).map(|port| Ear::tcp(gateway, port));
    let udp = PORTS.into_iter().filter(|port| *port != PORT).map(|port| Ear::udp(gateway, port));
    let behind = CLUSTER_PORTS.into_iter().flat_map(|port| [Ear::tcp(&cluster, port), Ear::udp(&cluster, port)]);
    let ears = tcp.chain(udp).chain(behind).collect();
    (cluster, ears)
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
    tried("at its gateway address", reaches(&a.namespace, &others.0, 443));
    tried("where it enrols", reaches(&a.namespace, &others.0, ENROLMENT));
    tried("at its gateway address, IPv6", reaches(&a.namespace, &b.addresses_v6().0, 443));
    tried("itself, through the gateway", reaches(&a.namespace, &others.1, 443));
    tried("itself, through the gateway, IPv6", reaches(&a.namespace, &b.addresses_v6().1, 443));
    let mut spoofed = vec!["--interface", &others.1, "--connect-timeout", "0.3"];
    spoofed.extend(stolen);
    a.spoof(&others.1);
    let (answered, got) = curl(&b.server_name(), &others.0, &spoofed);
    a.unspoof(&others.1);
    tried("from its address, with its certificate", answered || got);
    through
}

/// Everything else that is not for partners: the gateway at the partner's own address, the cluster, and `other`, an address of the
/// gateway's network.
fn elsewhere(a: &Partner, other: &str) -> Vec<(String, u16)> {
    let (v4, v6) = (a.addresses().0, a.addresses_v6().0);
    // Health is there by IPv4 alone.
    let own = PORTS.iter().map(|port| (&v4, port)).chain(PORTS[1..].iter().map(|port| (&v6, port)));
    let own = own.map(|(address, port)| (address.clone(), *port));
    let cluster = CLUSTER.into_iter().flat_map(|address| CLUSTER_PORTS.map(|port| (address.to_owned(), port)));
    let other = PORTS[..3].iter().map(|port| (other.to_owned(), *port));
    own.chain(cluster).chain(other).collect()
}

/// Tries all that, by routes through the tunnel; what got through.
fn scans(a: &Partner, other: &str) -> Vec<String> {
    for address in CLUSTER.into_iter().chain([other]) {
        a.route_through(address);
    }
    let reached = elsewhere(a, other).into_iter().filter(|(address, port)| {
        sends(&a.namespace, address, *port);
        reaches(&a.namespace, address, *port)
    });
    reached.map(|(address, port)| format!("{} reached {address} port {port}", a.name)).collect()
}

#[test]
fn of_twenty_partners_none_reaches_another_nor_anything_else() {
    let ca = Ca::new();
    let names: Vec<String> = (0..PARTNERS).map(|n| format!("p{n}")).collect();
    let mut gateway = Gateway::start(&ca, names.iter().map(|name| infopol(&ca, name, name)).collect(), &[]);
    let (_cluster, ears) = cluster(&gateway.namespace);
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

    // All that is scanned is there: it is reached from the gateway's namespace, and the cluster by a partner too, beside its tunnel.
    let link = |slot: u8| format!("192.0.2.{}", slot * 4 + 1);
    let other = |a: &Partner| link(a.slot % PARTNERS + 1);
    for (address, port) in elsewhere(&partners[0], &other(&partners[0])) {
        sends(&gateway.namespace, &address, port);
        let what = format!("{address} port {port} is reached from the gateway");
        eventually(&what, Duration::from_secs(5), || reaches(&gateway.namespace, &address, port));
    }
    for address in CLUSTER {
        let (namespace, via) = (&partners[0].namespace, link(partners[0].slot));
        run("ip", &["-n", &namespace.0, "route", "add", address, "via", &via]);
        eventually("the gateway's namespace forwards", Duration::from_secs(5), || reaches(namespace, address, 8080));
        run("ip", &["-n", &namespace.0, "route", "del", address, "via", &via]);
    }
    for ear in &ears {
        eventually("it is heard", Duration::from_secs(5), || ear.heard().is_some());
        while ear.heard().is_some() {}
    }

    let partners = &partners;
    let through: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = partners
            .iter()
            .map(|a| {
                scope.spawn(move || {
                    let others = partners.iter().filter(|b| b.name != a.name);
                    let scanned = scans(a, &other(a)).into_iter();
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
    let heard: Vec<SocketAddr> = ears.iter().filter_map(Ear::heard).collect();
    assert!(heard.is_empty(), "{heard:?} were heard where nobody is to be");
    // It was the gateway that stood in the way, and nobody was disturbed by it.
    let refused = |reason: &str| {
        let series = |name: &String| format!("liaison_gateway_refused_total{{partner=\"{name}\",reason=\"{reason}\"}}");
        names.iter().map(|name| gateway.metric(&series(name))).sum::<u64>()
    };
    let crossings = u64::from(PARTNERS) * u64::from(PARTNERS - 1);
    assert_eq!(crossings, 380);
    assert_eq!([refused("unknown_certificate"), refused("wrong_server_name"), refused("wrong_host")], [crossings; 3]);
    let dropped = |reason: &str| {
        gateway.metric(&format!("liaison_gateway_packets_dropped_total{{direction=\"in\",reason=\"{reason}\"}}"))
    };
    // Of each place that was scanned a segment and a datagram: 12 in the cluster and beside it, 19 at the own address.
    assert!(dropped("address") >= 5 * crossings + u64::from(PARTNERS) * 12 * 2);
    assert!(dropped("service") >= u64::from(PARTNERS) * 19 * 2);
    assert!(partners.iter().all(own));
}
