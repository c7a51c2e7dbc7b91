//! Clients that others wrote, unchanged: Go's own TLS and wg-quick, beside the curl, openssl and wireguard-go of the other tests.
//! Needs root, /dev/net/tun and Go.

// Clippy takes only functions marked #[test] for tests.
#![allow(clippy::unwrap_used)]

mod support;

use std::{path::PathBuf, time::Duration};

use support::{
    ca::Ca,
    eventually,
    gateway::Gateway,
    output,
    partner::{Partner, answer},
    run, unique,
    world::{World, infopol, refused, world},
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

/// The partner kit's file for wg-quick, filled in from the partner's status as it says.
fn kit(partner: &Partner, gateway: &Gateway) -> String {
    let status = partner.status(&gateway.public_key);
    let said = |path: &str| status["connection"].pointer(path).unwrap().as_str().unwrap().to_owned();
    let key = partner.write("wg.key", partner.private_key());
    let places = [
        ("/etc/liaison/wg.key", key.to_str().unwrap().to_owned()),
        ("<partner ipv4>", said("/partnerAddresses/ipv4")),
        ("<partner ipv6>", said("/partnerAddresses/ipv6")),
        ("<gateway public key>", said("/gatewayPublicKeys/0")),
        // There is no DNS here.
        ("<endpoint>", said("/endpoint").replace("gateway.example", &format!("192.0.2.{}", partner.slot * 4 + 1))),
        ("<gateway ipv4>", said("/gatewayAddresses/ipv4")),
        ("<gateway ipv6>", said("/gatewayAddresses/ipv6")),
    ];
    let mut text = include_str!("../../../docs/partner-kit/wg-quick.conf").to_owned();
    for (place, value) in places {
        assert!(text.contains(place), "{place} is not in the kit's file");
        text = text.replace(place, &value);
    }
    let open = text.lines().find(|line| !line.starts_with('#') && line.contains('<'));
    assert_eq!(open, None, "not filled in");
    text
}

/// wg-quick with a partner's file. Where the kernel has no WireGuard it takes wireguard-go, which goes with the device.
struct WgQuick<'a> {
    partner: &'a Partner,
    file: PathBuf,
}

impl WgQuick<'_> {
    fn does(&self, what: &str) -> std::process::Output {
        let mut command = self.partner.namespace.command("wg-quick");
        command.env("WG_QUICK_USERSPACE_IMPLEMENTATION", "wireguard-go");
        command.args([what, self.file.to_str().unwrap()]).output().unwrap()
    }

    #[track_caller]
    fn must(&self, what: &str) {
        let output = self.does(what);
        assert!(output.status.success(), "wg-quick {what}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for WgQuick<'_> {
    fn drop(&mut self) {
        self.does("down");
    }
}

#[test]
fn wg_quick_takes_the_partner_kits_file() {
    let ca = Ca::new();
    let mut gateway = Gateway::start(&ca, vec![infopol(&ca, "a", "a")], &[]);
    let a = Partner::new(&ca, "a", 1, Some(&gateway.namespace));
    gateway.list(&[&a.granted(&gateway.public_key)]);
    // The file's name is the device's, and wireguard-go's socket has it for all namespaces.
    let device = format!("lgq{}", unique());
    let wg_quick = WgQuick { partner: &a, file: a.write(&format!("{device}.conf"), &kit(&a, &gateway)) };
    let link = || output("ip", &["-n", &a.namespace.0, "link", "show", "dev", &device]);
    for time in ["first", "second"] {
        wg_quick.must("up");
        eventually("an answer", Duration::from_secs(10), || a.curl("/echo", &["-m", "2"]).status.success());
        for answered in [a.curl("/echo", &[]), a.curl_v6("/echo", &[])] {
            assert_eq!(answer(&answered)["called"], "infopol-a.liaison-partners.svc", "the {time} time");
        }
        let shown = String::from_utf8(link().stdout).unwrap();
        assert!(shown.contains("mtu 1380"), "{shown}");
        let routes = run("ip", &["-n", &a.namespace.0, "route", "show", "dev", &device]);
        assert!(
            routes.starts_with(&a.addresses().0) && routes.lines().count() == 1,
            "nothing else goes by it: {routes}"
        );
        wg_quick.must("down");
        assert!(!link().status.success(), "the device is there after the {time} time");
        refused(&a.curl("/echo", &["-m", "1"]), "without a tunnel");
    }
}
