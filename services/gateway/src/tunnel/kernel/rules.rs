//! The packet filter of [`crate::tunnel::filter`] as a table of nftables, for packets that this process does not see: what is asked of
//! the kernel, and what it has counted. Pure.
//!
//! nftables compares no two registers, so that source and destination are the two ends of one slot is said by a set that has each
//! partner's pair. `nft list table inet liaison` shows it as:
//!
//! ```text
//! chain in { type filter hook prerouting priority -450; policy accept;
//!   iifname "liaison0" goto from_partner
//!   iifname "liaison0-2" goto from_partner
//!   tcp dport @served drop }
//! chain from_partner {
//!   ip saddr . ip daddr @slots4 goto to_service
//!   ip6 saddr . ip6 daddr @slots6 goto to_service
//!   counter name "in_address" drop }
//! chain to_service {
//!   tcp dport @served accept
//!   icmp type @icmp4 accept
//!   icmpv6 type @icmp6 accept
//!   counter name "in_service" drop }
//! chain out { type filter hook postrouting priority 300; policy accept; oifname ... goto to_partner }
//! ```
//!
//! and the reverse of it for what goes out. The first chain comes before fragments are put together: all but the first have no port and
//! are dropped. Its last rule is there because the gateway's sockets are bound to no one device: there are two.

use std::{collections::BTreeMap, net::IpAddr};

use netlink_packet_core::{DecodeError, DefaultNla, NetlinkDeserializable, NetlinkHeader, NlasIterator};

use super::{
    netlink::Request,
    nft::{Base, Batch, Hook, Kind, Meta, Set, Verdict, count, counters, is, is_in, meta, payload, verdict},
};
use crate::tunnel::filter::{Drop, ICMP, ICMP_IN, ICMP6, ICMP6_IN, SERVED, TCP, gateway_end};

/// The table's name.
pub const TABLE: &str = "liaison";

const BEFORE_DEFRAGMENTATION: Hook = Hook(0, -450);
const LAST: Hook = Hook(4, 300);

const IPV4: u8 = 2;
const IPV6: u8 = 10;

// The types of keys are those by which `nft` shows them; a pair's has six bits for each.
const SLOTS4: Set = Set { name: "slots4", number: 1, key: 7 << 6 | 7, length: 8 };
const SLOTS6: Set = Set { name: "slots6", number: 2, key: 8 << 6 | 8, length: 32 };
const PORTS: Set = Set { name: "served", number: 3, key: 13, length: 2 };
const KINDS4: Set = Set { name: "icmp4", number: 4, key: 14, length: 1 };
const KINDS6: Set = Set { name: "icmp6", number: 5, key: 29, length: 1 };

/// What the table counts of what it drops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dropped {
    /// From a partner, not to its own gateway address.
    InAddress,
    /// From a partner, to a port that is not served, or ICMP that is not needed.
    InService,
    /// To a partner, not from its own gateway address.
    OutAddress,
    /// To a partner, not from a port that is served.
    OutService,
}

impl Dropped {
    const ALL: [Self; 4] = [Self::InAddress, Self::InService, Self::OutAddress, Self::OutService];

    const fn counter(self) -> &'static str {
        match self {
            Self::InAddress => "in_address",
            Self::InService => "in_service",
            Self::OutAddress => "out_address",
            Self::OutService => "out_service",
        }
    }

    /// Direction and reason in metrics.
    pub const fn labels(self) -> (&'static str, &'static str) {
        match self {
            Self::InAddress => ("in", Drop::Address.label()),
            Self::InService => ("in", Drop::Service.label()),
            Self::OutAddress => ("out", Drop::Address.label()),
            Self::OutService => ("out", Drop::Service.label()),
        }
    }
}

/// Which way a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    In,
    Out,
}

impl Way {
    /// The chain at its hook.
    const fn base(self) -> (&'static str, Hook) {
        match self {
            Self::In => ("in", BEFORE_DEFRAGMENTATION),
            Self::Out => ("out", LAST),
        }
    }

    /// The chains that judge by address and by service, and what each counts.
    const fn chains(self) -> [(&'static str, Dropped); 2] {
        match self {
            Self::In => [("from_partner", Dropped::InAddress), ("to_service", Dropped::InService)],
            Self::Out => [("to_partner", Dropped::OutAddress), ("from_service", Dropped::OutService)],
        }
    }
}

fn name_of_device(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}

/// The partner's address, then the gateway's: whether it is a slot.
fn slot(way: Way, set: Set) -> [DefaultNla; 3] {
    let (source, length) = if set == SLOTS4 { (12, 4) } else { (8, 16) };
    let destination = source + length;
    let (partner, gateway) = if way == Way::In { (source, destination) } else { (destination, source) };
    [payload(0, Base::Network, partner, length), payload(length, Base::Network, gateway, length), is_in(set)]
}

/// TCP to the ports that are served, or from them.
fn served(way: Way) -> [DefaultNla; 4] {
    let port = if way == Way::In { 2 } else { 0 };
    [meta(Meta::Protocol), is(&[TCP]), payload(0, Base::Transport, port, 2), is_in(PORTS)]
}

/// Asks for the table anew, without partners, for these links. It is there as a whole or not at all.
pub fn table(links: &[&str]) -> Request {
    let mut batch = Batch::new(TABLE);
    // One that a process before left is not to be added to; to delete it, there must be one.
    batch.new_table();
    batch.delete_table();
    batch.new_table();
    for set in [SLOTS4, SLOTS6, PORTS, KINDS4, KINDS6] {
        batch.set(set);
    }
    batch.elements(Kind::NewElements, PORTS, SERVED.map(|port| port.to_be_bytes().to_vec()));
    batch.elements(Kind::NewElements, KINDS4, ICMP_IN.map(|kind| vec![kind]));
    batch.elements(Kind::NewElements, KINDS6, ICMP6_IN.map(|kind| vec![kind]));
    for dropped in Dropped::ALL {
        batch.counter(dropped.counter());
    }
    for way in [Way::In, Way::Out] {
        direction(&mut batch, way, links);
    }
    batch.rule(Way::In.base().0, &[&served(Way::In)[..], &[verdict(Verdict::Drop)]].concat());
    batch.done()
}

fn direction(batch: &mut Batch, way: Way, links: &[&str]) {
    let [(by_address, address), (by_service, service)] = way.chains();
    let (base, hook) = way.base();
    batch.chain(by_service, None);
    batch.chain(by_address, None);
    batch.chain(base, Some(hook));

    for (family, set) in [(IPV4, SLOTS4), (IPV6, SLOTS6)] {
        let family = [meta(Meta::Family), is(&[family])];
        let on = [verdict(Verdict::Goto(by_service))];
        batch.rule(by_address, &[&family[..], &slot(way, set), &on].concat());
    }
    batch.rule(by_address, &[count(address.counter()), verdict(Verdict::Drop)]);

    batch.rule(by_service, &[&served(way)[..], &[verdict(Verdict::Accept)]].concat());
    for (family, icmp, kinds) in [(IPV4, ICMP, KINDS4), (IPV6, ICMP6, KINDS6)] {
        let mut rule = vec![meta(Meta::Family), is(&[family]), meta(Meta::Protocol), is(&[icmp])];
        // What the gateway sends of it is the kernel's own.
        if way == Way::In {
            rule.extend([payload(0, Base::Transport, 0, 1), is_in(kinds)]);
        }
        rule.push(verdict(Verdict::Accept));
        batch.rule(by_service, &rule);
    }
    batch.rule(by_service, &[count(service.counter()), verdict(Verdict::Drop)]);

    let name = if way == Way::In { Meta::InName } else { Meta::OutName };
    for link in links {
        batch.rule(base, &[meta(name), is(&name_of_device(link)), verdict(Verdict::Goto(by_address))]);
    }
}

/// Asks for the table's end.
pub fn no_table() -> Request {
    let mut batch = Batch::new(TABLE);
    batch.delete_table();
    batch.done()
}

/// The set that has a partner's address, and the key under which it does.
fn pair(partner: IpAddr) -> (Set, Vec<u8>) {
    let bytes = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let set = if partner.is_ipv4() { SLOTS4 } else { SLOTS6 };
    (set, [bytes(partner), bytes(gateway_end(partner))].concat())
}

/// Asks that these partners' addresses be let through, and those no more, at once. None if there is nothing to ask.
pub fn partners(added: &[IpAddr], removed: &[IpAddr]) -> Option<Request> {
    if added.is_empty() && removed.is_empty() {
        return None;
    }
    let mut batch = Batch::new(TABLE);
    for (kind, addresses) in [(Kind::DelElements, removed), (Kind::NewElements, added)] {
        for set in [SLOTS4, SLOTS6] {
            let pairs = addresses.iter().map(|address| pair(*address)).filter(|(of, _)| *of == set);
            batch.elements(kind, set, pairs.map(|(_, key)| key));
        }
    }
    Some(batch.done())
}

/// Asks what it has counted: answered by a [`Counted`] each.
pub fn counted() -> Request {
    counters(TABLE)
}

/// What the kernel answers: packets dropped, or something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted(pub Option<(Dropped, u64)>);

fn parts(bytes: &[u8]) -> Result<BTreeMap<u16, Vec<u8>>, DecodeError> {
    NlasIterator::new(bytes).map(|part| part.map(|part| (part.kind(), part.value().to_vec()))).collect()
}

impl NetlinkDeserializable for Counted {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        if header.message_type != Kind::NewObject.number() {
            return Ok(Self(None));
        }
        // Behind the family's header.
        let mut object = parts(payload.get(4..).unwrap_or_default())?;
        let name = object.remove(&2).unwrap_or_default();
        let mut data = parts(&object.remove(&4).unwrap_or_default())?;
        let packets = data.remove(&2).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes);
        let is_named = |dropped: &Dropped| name.strip_suffix(&[0]) == Some(dropped.counter().as_bytes());
        Ok(Self(Dropped::ALL.into_iter().find(is_named).zip(packets)))
    }
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
