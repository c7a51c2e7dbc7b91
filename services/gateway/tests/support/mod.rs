//! What the tests play: a CA, partners with Debian's wireguard-go and curl in network namespaces of their own, and an
//! InfoPol. Everything made here is removed by guards. Needs root, iproute2, wireguard-tools, wireguard-go, curl.
// Each test binary uses its own part; and clippy takes only functions marked #[test] for tests.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod ca;
pub mod cluster;
pub mod gateway;
pub mod infopol;
pub mod outage;
pub mod partner;
pub mod world;

use std::{
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

/// The domain in all tests.
pub const DOMAIN: &str = "liaison.example.ca";

/// A few letters that no other test run uses at this time.
pub fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{:x}{:x}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Runs a program to its end; panics with what it said if it failed.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = output(program, arguments);
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a program to its end.
pub fn output(program: &str, arguments: &[&str]) -> Output {
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{program} cannot be run ({error}); install it"))
}

/// How many times as long as on a machine of its own everything may take: `LIAISON_PATIENCE`, where the machine is emulated.
pub fn patience() -> u32 {
    std::env::var("LIAISON_PATIENCE").map_or(1, |times| times.parse().unwrap())
}

/// Sleeps as long as what is looked at afterwards needs at most.
pub fn pause(time: Duration) {
    std::thread::sleep(time * patience());
}

/// Waits until `condition` holds; panics with `what` after `limit`.
pub fn eventually(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let (start, limit) = (Instant::now(), limit * patience());
    while !condition() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(25));
    }
}

/// A network namespace, deleted when dropped.
pub struct Namespace(pub String);

impl Namespace {
    /// A new one with its loopback up.
    pub fn new(role: &str) -> Self {
        let name = format!("lg{}{role}", unique());
        run("ip", &["netns", "add", &name]);
        let this = Self(name);
        run("ip", &["-n", &this.0, "link", "set", "lo", "up"]);
        this
    }

    /// Does something on a thread of its own in it: a socket that is opened there stays there.
    pub fn within<T: Send>(&self, what: impl FnOnce() -> T + Send) -> T {
        self.inside().within(what)
    }

    /// The way into it.
    pub fn inside(&self) -> Inside {
        Inside(std::fs::File::open(format!("/var/run/netns/{}", self.0)).unwrap())
    }

    /// A command that runs in it.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0, program]);
        command
    }
}

/// The way into a network namespace.
pub struct Inside(std::fs::File);

impl Inside {
    /// Does something on a thread of its own in it.
    pub fn within<T: Send>(&self, what: impl FnOnce() -> T + Send) -> T {
        use std::os::fd::AsFd as _;

        use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                what()
            });
            thread.join().unwrap()
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = output("ip", &["netns", "delete", &self.0]);
    }
}

/// A child process, ended when dropped.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
