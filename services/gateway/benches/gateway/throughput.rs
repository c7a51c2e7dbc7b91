//! E: what the tunnel alone carries, beside Debian's wireguard-go in its place, in turns. The other end is wireguard-go both
//! times; a plain TCP stream goes one way, then the other.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use liaison_gateway::{
    addresses::Addresses,
    metrics::Metrics,
    state::{Slot, WireGuardKey},
    tunnel::{Tunnel as _, device, userspace::Userspace},
};
use tokio_util::sync::CancellationToken;

use crate::{
    results::Results,
    support::{
        self, Namespace, Process,
        ca::Ca,
        eventually,
        gateway::{PORT, public_key},
        partner::Partner,
        unique,
    },
};

/// First argument of the process that is the gateway's tunnel and nothing else.
pub const TUNNEL: &str = "tunnel_process";

/// That process: a private key and a partner's public key, base64.
pub fn tunnel(arguments: &[String]) {
    let [private, partner] = arguments else { panic!("two keys") };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let tun = device::open("liaison0").unwrap();
        let key = WireGuardKey::parse(private).unwrap().0;
        let (metrics, failed) = (Arc::new(Metrics::default()), CancellationToken::new());
        let tunnel = Userspace::open(tun, [PORT, PORT + 1], [Some(key), None], metrics, failed.clone()).await.unwrap();
        let slot = Slot::new("100.72.9.2".parse().unwrap(), "fd4c:6961:6973::902".parse().unwrap()).unwrap();
        let addresses = Addresses::up(&["liaison0".to_owned()]).await.unwrap();
        addresses.add(&[slot]).await.unwrap();
        tunnel.add(WireGuardKey::parse(partner).unwrap(), None, slot.partner().to_vec()).await.unwrap();
        failed.cancelled().await;
    });
}

/// Our end of the tunnel, or wireguard-go's.
fn start(ours: bool, namespace: &Namespace, private: &str, partner: &str) -> Process {
    if ours {
        let mut command = namespace.command(std::env::current_exe().unwrap().to_str().unwrap());
        return Process(command.args([TUNNEL, private, partner]).stdout(Stdio::null()).spawn().unwrap());
    }
    let device = format!("wgs{}", unique());
    let mut command = namespace.command("wireguard-go");
    let process = command.args(["-f", &device]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let socket = std::path::PathBuf::from(format!("/var/run/wireguard/{device}.sock"));
    eventually("wireguard-go is up", Duration::from_secs(10), || socket.exists());
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), private).unwrap();
    let port = PORT.to_string();
    let status = namespace
        .command("wg")
        .args(["set", &device, "listen-port", &port, "private-key", file.path().to_str().unwrap()])
        .args(["peer", partner, "allowed-ips", "100.72.9.3/32"])
        .status();
    assert!(status.unwrap().success());
    for arguments in [
        format!("addr add 100.72.9.2/32 dev {device}"),
        format!("link set dev {device} mtu 1380 up"),
        format!("route add 100.72.9.3/32 dev {device} src 100.72.9.2"),
    ] {
        let mut all = vec!["-n", &namespace.0];
        all.extend(arguments.split(' '));
        support::run("ip", &all);
    }
    Process(process)
}

/// CPU-seconds that a process has used, in user space and in the kernel for it.
fn cpu(process: &Process) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.0.id())).unwrap();
    let rest = stat.rsplit_once(')').unwrap().1;
    let field = |index: usize| rest.split_whitespace().nth(index).unwrap().parse::<f64>().unwrap();
    (field(11) + field(12)) / 100.0
}

/// Carries bytes for a time; megabits a second, and CPU-seconds of our end a gigabyte.
fn carry(namespace: &Namespace, partner: &Partner, process: &Process, down: bool, time: Duration) -> (f64, f64) {
    let at: SocketAddr = ("100.72.9.2".parse::<IpAddr>().unwrap(), 443).into();
    let listener = namespace.within(|| {
        let mut listener = TcpListener::bind(at);
        let started = Instant::now();
        while listener.is_err() && started.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(50));
            listener = TcpListener::bind(at);
        }
        listener.unwrap()
    });
    let near = partner.namespace.within(|| {
        let started = Instant::now();
        loop {
            match TcpStream::connect_timeout(&at, Duration::from_secs(2)) {
                Ok(stream) => return stream,
                Err(error) => assert!(started.elapsed() < Duration::from_secs(30), "{error}"),
            }
        }
    });
    let far = listener.accept().unwrap().0;
    let (mut from, mut to) = if down { (far, near) } else { (near, far) };
    let sending = std::thread::spawn(move || {
        let block = vec![0_u8; 1 << 16];
        while from.write_all(&block).is_ok() {}
    });
    let mut block = vec![0_u8; 1 << 16];
    // Its first second is not counted: the window opens.
    let (mut total, mut counting) = (0_usize, None);
    let started = Instant::now();
    while started.elapsed() < time + Duration::from_secs(1) {
        let read = to.read(&mut block).unwrap();
        assert!(read > 0, "it ended");
        match counting {
            Some(_) => total += read,
            None if started.elapsed() > Duration::from_secs(1) => counting = Some((Instant::now(), cpu(process))),
            None => (),
        }
    }
    let (since, before) = counting.unwrap();
    let (seconds, used) = (since.elapsed().as_secs_f64(), cpu(process) - before);
    drop(to);
    sending.join().unwrap();
    (total as f64 * 8.0 / 1e6 / seconds, used / (total as f64 / 1e9))
}

/// So many rounds of each, of so many seconds each way.
pub fn measure(results: &mut Results, rounds: usize, seconds: usize) {
    let ca = Ca::new();
    let namespace = Namespace::new("g");
    let mut partner = Partner::new(&ca, "a", 1, Some(&namespace));
    let private = support::run("wg", &["genkey"]).trim().to_owned();
    let key = public_key(&private);
    let of_partner = public_key(partner.private_key());
    partner.connect_default(&key);
    let time = Duration::from_secs(seconds as u64);
    let mut all = [[(); 2]; 2].map(|ways| ways.map(|()| (Vec::new(), Vec::new())));
    for round in 1..=rounds {
        for (side, ours) in [(0, true), (1, false)] {
            let process = start(ours, &namespace, &private, &of_partner);
            partner.configure(&key, PORT);
            for (way, down) in [(0, true), (1, false)] {
                let (speed, cost) = carry(&namespace, &partner, &process, down, time);
                all[side][way].0.push(speed);
                all[side][way].1.push(cost);
                let whose = if ours { "Liaison" } else { "wireguard-go" };
                let which = if down { "to the partner" } else { "from the partner" };
                println!("E: round {round}, {whose}, {which}: {speed:.0} Mbit/s, {cost:.2} CPU-s/GB");
            }
        }
    }
    let middle = |values: &[f64]| {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    };
    for (way, which) in [(0, "to the partner"), (1, "from the partner")] {
        let (ours, theirs) = (&all[0][way], &all[1][way]);
        let peer = Some((middle(&theirs.0), "wireguard-go"));
        results.add(&format!("E the tunnel alone, {which}"), middle(&ours.0), "Mbit/s", rounds, peer);
        let peer = Some((middle(&theirs.1), "wireguard-go"));
        results.add(&format!("E CPU a gigabyte, {which}"), middle(&ours.1), "CPU-s", rounds, peer);
    }
}
