//! The packet filter between WireGuard and TUN.
//!
//! WireGuard has already tied a packet's source to the peer (AllowedIPs are exactly its odd addresses). Here, before the
//! host's stack sees it, the destination must be that address with the last bit cleared, and only the services of the
//! gateway and harmless ICMP are let through; going out, the reverse. No table is needed: the pair says it all. A pod
//! inherits its node's `ip_forward`, so nothing may depend on routing.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use gotatun::{
    packet::{Ip, Packet, PacketBufPool},
    tun::{IpRecv, IpSend, MtuWatcher},
};
use tokio::sync::mpsc;

use super::{
    device::{Reader, Writer},
    listeners::Switch,
};
use crate::{addresses::MTU, metrics::Metrics};

/// TCP port of HTTPS on a gateway address.
pub const HTTPS: u16 = 443;
/// TCP port of enrolment (EST, RFC 7030) on a gateway address.
pub const ENROLMENT: u16 = 8443;
/// What is served on a gateway address.
pub(super) const SERVED: [u16; 2] = [HTTPS, ENROLMENT];

/// Why a packet was dropped; the name is the metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drop {
    /// Not a whole IPv4 or IPv6 header.
    Malformed,
    /// A fragment; TCP over the tunnel's MTU makes none.
    Fragment,
    /// Source and destination are not the two ends of one slot.
    Address,
    /// Not TCP to or from a port that is served, nor ICMP that is needed.
    Service,
    /// The host's stack did not take it, or the second listener.
    Device,
}

impl Drop {
    /// The label in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Fragment => "fragment",
            Self::Address => "address",
            Self::Service => "service",
            Self::Device => "device",
        }
    }
}

pub(super) const TCP: u8 = 6;
pub(super) const ICMP: u8 = 1;
pub(super) const ICMP6: u8 = 58;
/// Echo reply, unreachable (path MTU), echo request, time exceeded. No redirect, no router discovery.
pub(super) const ICMP_IN: [u8; 4] = [0, 3, 8, 11];
/// Unreachable, packet too big, time exceeded, echo request and reply.
pub(super) const ICMP6_IN: [u8; 5] = [1, 2, 3, 128, 129];

struct Parsed<'a> {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    payload: &'a [u8],
}

fn parse(bytes: &[u8]) -> Result<Parsed<'_>, Drop> {
    let byte = |i: usize| bytes.get(i).copied().ok_or(Drop::Malformed);
    match byte(0)? >> 4 {
        4 => {
            let header = usize::from(byte(0)? & 0x0f) * 4;
            if header < 20 {
                return Err(Drop::Malformed);
            }
            // More-fragments flag or an offset.
            if byte(6)? & 0x3f != 0 || byte(7)? != 0 {
                return Err(Drop::Fragment);
            }
            Ok(Parsed {
                source: address::<4>(bytes, 12)?.into(),
                destination: address::<4>(bytes, 16)?.into(),
                protocol: byte(9)?,
                payload: bytes.get(header..).ok_or(Drop::Malformed)?,
            })
        }
        6 => Ok(Parsed {
            source: address::<16>(bytes, 8)?.into(),
            destination: address::<16>(bytes, 24)?.into(),
            protocol: byte(6)?,
            payload: bytes.get(40..).ok_or(Drop::Malformed)?,
        }),
        _ => Err(Drop::Malformed),
    }
}

fn address<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], Drop> {
    bytes.get(at..at + N).and_then(|s| s.try_into().ok()).ok_or(Drop::Malformed)
}

/// The gateway's end of the slot in which an address is the partner's.
pub fn gateway_end(partner: IpAddr) -> IpAddr {
    match partner {
        IpAddr::V4(odd) => Ipv4Addr::from_bits(odd.to_bits() & !1).into(),
        IpAddr::V6(odd) => Ipv6Addr::from_bits(odd.to_bits() & !1).into(),
    }
}

/// Whether `odd` and `even` are the partner's and the gateway's end of one slot.
fn slot_of(odd: IpAddr, even: IpAddr) -> bool {
    odd != even && gateway_end(odd) == even
}

fn port(payload: &[u8], at: usize) -> Result<u16, Drop> {
    Ok(u16::from_be_bytes(address::<2>(payload, at)?))
}

/// Judges a packet that left a tunnel.
pub fn inward(bytes: &[u8]) -> Result<(), Drop> {
    let p = parse(bytes)?;
    if !slot_of(p.source, p.destination) {
        return Err(Drop::Address);
    }
    let wanted = match (p.protocol, p.source) {
        (TCP, _) => SERVED.contains(&port(p.payload, 2)?),
        (ICMP, IpAddr::V4(_)) => p.payload.first().is_some_and(|kind| ICMP_IN.contains(kind)),
        (ICMP6, IpAddr::V6(_)) => p.payload.first().is_some_and(|kind| ICMP6_IN.contains(kind)),
        _ => false,
    };
    if wanted { Ok(()) } else { Err(Drop::Service) }
}

/// Judges a packet that is about to enter a tunnel.
pub fn outward(bytes: &[u8]) -> Result<(), Drop> {
    let p = parse(bytes)?;
    if !slot_of(p.destination, p.source) {
        return Err(Drop::Address);
    }
    let wanted = match (p.protocol, p.source) {
        (TCP, _) => SERVED.contains(&port(p.payload, 0)?),
        (ICMP, IpAddr::V4(_)) | (ICMP6, IpAddr::V6(_)) => true,
        _ => false,
    };
    if wanted { Ok(()) } else { Err(Drop::Service) }
}

/// The source of a packet that [`inward`] let pass.
fn source(bytes: &[u8]) -> Option<IpAddr> {
    parse(bytes).ok().map(|p| p.source)
}

/// The destination of a packet that [`outward`] let pass.
fn destination(bytes: &[u8]) -> Option<IpAddr> {
    parse(bytes).ok().map(|p| p.destination)
}

/// What a listener's packets go to: the device, behind the filter.
#[derive(Clone)]
pub struct Incoming {
    device: Writer,
    metrics: Arc<Metrics>,
    switch: Arc<Switch>,
    listener: usize,
}

impl Incoming {
    /// For the first listener.
    pub fn new(device: Writer, metrics: Arc<Metrics>, switch: Arc<Switch>) -> Self {
        Self { device, metrics, switch, listener: 0 }
    }

    /// The same for the second.
    #[must_use]
    pub fn second(&self) -> Self {
        Self { listener: 1, ..self.clone() }
    }
}

impl IpSend for Incoming {
    async fn send(&mut self, packet: Packet<Ip>) -> io::Result<()> {
        let packet = packet.into_bytes();
        if let Err(drop) = inward(&packet) {
            self.metrics.dropped("in", drop.label());
            return Ok(());
        }
        if let Some(source) = source(&packet) {
            self.switch.came(source, self.listener);
        }
        let Ok(packet) = packet.try_into_ip() else {
            self.metrics.dropped("in", Drop::Malformed.label());
            return Ok(());
        };
        self.device.send(packet).await
    }
}

/// Where a listener takes packets from.
pub enum Outgoing {
    /// The first reads the device, and hands to the second what goes there.
    Device(Box<FromDevice>),
    /// The second.
    Queue(mpsc::Receiver<Packet<Ip>>),
}

/// What comes from the device, behind the filter.
pub struct FromDevice {
    device: Reader,
    metrics: Arc<Metrics>,
    switch: Arc<Switch>,
}

impl Outgoing {
    /// For the first listener.
    pub fn of_device(device: Reader, metrics: Arc<Metrics>, switch: Arc<Switch>) -> Self {
        Self::Device(Box::new(FromDevice { device, metrics, switch }))
    }

    /// For the second.
    pub fn of_second(switch: &Switch) -> Self {
        Self::Queue(switch.queue())
    }
}

impl FromDevice {
    /// What is read and goes by the first listener.
    async fn read<'a>(
        &'a mut self,
        pool: &mut PacketBufPool,
    ) -> io::Result<impl Iterator<Item = Packet<Ip>> + Send + 'a> {
        let (metrics, switch) = (&self.metrics, &self.switch);
        Ok(self.device.recv(pool).await?.filter_map(move |packet| {
            let packet = packet.into_bytes();
            if let Err(drop) = outward(&packet) {
                metrics.dropped("out", drop.label());
                return None;
            }
            let [first, second] = match destination(&packet) {
                Some(to) if !switch.first_alone() => switch.goes(to),
                _ => [true, false],
            };
            let copy = second.then(|| Packet::copy_from(&packet[..])).and_then(|copy| copy.try_into_ip().ok());
            if copy.is_some_and(|copy| !switch.hand(copy)) {
                metrics.dropped("out", Drop::Device.label());
            }
            first.then_some(packet)?.try_into_ip().ok()
        }))
    }
}

impl IpRecv for Outgoing {
    async fn recv<'a>(
        &'a mut self,
        pool: &mut PacketBufPool,
    ) -> io::Result<impl Iterator<Item = Packet<Ip>> + Send + 'a> {
        let (read, handed) = match self {
            Self::Device(device) => (Some(device.read(pool).await?), None),
            Self::Queue(queue) => match queue.recv().await {
                Some(packet) => (None, Some(packet)),
                // Another second listener has taken its place.
                None => std::future::pending().await,
            },
        };
        Ok(read.into_iter().flatten().chain(handed))
    }

    fn mtu(&self) -> MtuWatcher {
        MtuWatcher::new(MTU)
    }
}

#[cfg(test)]
#[path = "filter_tests.rs"]
mod tests;
