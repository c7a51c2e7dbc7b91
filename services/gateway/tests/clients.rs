//! Clients that others wrote, unchanged: Go's own TLS, beside the curl, openssl and wireguard-go of the other tests.
//! Needs root, /dev/net/tun and Go.

// Clippy takes only functions marked #[test] for tests.
#![allow(clippy::unwrap_used)]

mod support;

use support::{
    run,
    world::{World, world},
};

/// Not a test: the gateway's process, started by the others in its network namespace.
#[test]
#[ignore = "started by the other tests"]
fn gateway_process() {
    support::gateway::child();
}

#[test]
fn a_go_program_gets_the_hybrid_group_and_no_session_back() {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients");
    let program = concat!(env!("CARGO_TARGET_TMPDIR"), "/go-client");
    run("env", &["CGO_ENABLED=0", "go", "build", "-C", source, "-o", program, "."]);
    let World { a, b: _b, gateway: _gateway, ca: _ca } = world(&[]);
    let (name, address) = (a.server_name(), a.addresses().0);
    let asked = a.sh(&format!("{program} {name} {address}"));
    let said = String::from_utf8_lossy(&asked.stdout);
    assert_eq!(said, "200 TLS 1.3 X25519MLKEM768 false\n".repeat(2), "{}", String::from_utf8_lossy(&asked.stderr));
    let old = a.sh(&format!("{program} {name} {address} 1.2"));
    assert!(!old.status.success() && String::from_utf8_lossy(&old.stderr).contains("protocol version"), "{old:?}");
}
