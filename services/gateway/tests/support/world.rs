//! A gateway and two partners, open and connected.

use std::{process::Output, time::Duration};

use liaison_gateway::tls::KeyMaterial;

use super::{DOMAIN, ca::Ca, eventually, gateway::Gateway, partner::Partner};

/// An InfoPol of this name that shows this identity.
pub fn infopol(ca: &Ca, name: &str, identity: &str) -> (String, KeyMaterial) {
    let host = format!("infopol-{name}.liaison-partners.svc");
    let leaf = ca.server(&[&host], &format!("spiffe://{DOMAIN}/infopol/{identity}"));
    (host, ca.material(&leaf))
}

/// A gateway and two partners.
pub struct World {
    /// Who issued all certificates.
    pub ca: Ca,
    /// One partner.
    pub a: Partner,
    /// The other.
    pub b: Partner,
    /// The gateway.
    pub gateway: Gateway,
}

/// A gateway and two partners, open and connected.
pub fn world(arguments: &[&str]) -> World {
    let ca = Ca::new();
    let mut gateway = Gateway::start(&ca, vec![infopol(&ca, "a", "a"), infopol(&ca, "b", "b")], arguments);
    let mut a = Partner::new(&ca, "a", 1, Some(&gateway.namespace));
    let mut b = Partner::new(&ca, "b", 2, Some(&gateway.namespace));
    gateway.list(&[&a.granted(&gateway.public_key), &b.granted(&gateway.public_key)]);
    a.connect_default(&gateway.public_key);
    b.connect_default(&gateway.public_key);
    for partner in [&a, &b] {
        eventually("a first request", Duration::from_secs(10), || partner.curl("/echo", &[]).status.success());
    }
    World { ca, a, b, gateway }
}

/// That a curl got nothing.
#[track_caller]
pub fn refused(output: &Output, reason: &str) {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!output.status.success(), "{reason}: {out}");
    assert!(!out.contains("infopol"), "{reason}: {out} {err}");
}
