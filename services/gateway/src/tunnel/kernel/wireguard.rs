//! The kernel's WireGuard over generic netlink: what is asked of a link, and what it says of its peers.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use netlink_packet_generic::{
    GenlMessage,
    ctrl::{GenlCtrl, GenlCtrlCmd, nlas::GenlCtrlAttrs},
};
use netlink_packet_wireguard::{
    WireguardAddressFamily, WireguardAllowedIp, WireguardAllowedIpAttr, WireguardAttribute, WireguardCmd,
    WireguardDeviceFlags, WireguardMessage, WireguardPeer, WireguardPeerAttribute as Attribute, WireguardPeerFlags,
};
use netlink_sys::protocols::NETLINK_GENERIC;

use super::netlink::{Conversation, NetlinkError, Request};
use crate::{secrets::PresharedKey, state::WireGuardKey, tunnel::PeerStats};

/// Peers of one message: the list's length has 16 bits, and a peer with its addresses takes less than 250 bytes.
const MOST: usize = 200;
/// To the kernel, no key.
const NO_KEY: [u8; 32] = [0; 32];

/// What is to be done with one peer.
#[derive(Debug, Clone)]
pub struct Wanted {
    key: WireGuardKey,
    attributes: Vec<Attribute>,
}

impl Wanted {
    /// It is there, with these addresses and no others.
    pub fn there(key: WireGuardKey, preshared: Option<PresharedKey>, addresses: &[IpAddr]) -> Self {
        // All zeroes: none.
        let preshared = preshared.map_or(NO_KEY, |preshared| preshared.0);
        let flags = Attribute::Flags(WireguardPeerFlags::ReplaceAllowedIps);
        Self { key, attributes: vec![flags, Attribute::PresharedKey(preshared), allowed(addresses)] }
    }

    /// It has these addresses and no others, if it is there.
    pub fn holds(key: WireGuardKey, addresses: &[IpAddr]) -> Self {
        let flags = WireguardPeerFlags::ReplaceAllowedIps | WireguardPeerFlags::UpdateOnly;
        Self { key, attributes: vec![Attribute::Flags(flags), allowed(addresses)] }
    }

    /// It is gone, with its sessions.
    pub fn gone(key: WireGuardKey) -> Self {
        Self { key, attributes: vec![Attribute::Flags(WireguardPeerFlags::RemoveMe)] }
    }

    /// It is shaken hands with at this address. A keepalive is what the kernel sends at once, and for want of a session the initiation
    /// before it; [`Self::quiet`] then takes back that there is to be one each so many seconds.
    pub fn called(key: WireGuardKey, endpoint: std::net::SocketAddr) -> Self {
        let flags = Attribute::Flags(WireguardPeerFlags::UpdateOnly);
        Self { key, attributes: vec![flags, Attribute::Endpoint(endpoint), Attribute::PersistentKeepalive(25)] }
    }

    /// It is sent nothing of the kernel's own accord.
    pub fn quiet(key: WireGuardKey) -> Self {
        let flags = Attribute::Flags(WireguardPeerFlags::UpdateOnly);
        Self { key, attributes: vec![flags, Attribute::PersistentKeepalive(0)] }
    }

    fn peer(self) -> WireguardPeer {
        WireguardPeer([vec![Attribute::PublicKey(self.key.0)], self.attributes].concat())
    }
}

fn allowed(addresses: &[IpAddr]) -> Attribute {
    let one = |address: &IpAddr| {
        let (family, length) = match address {
            IpAddr::V4(_) => (WireguardAddressFamily::Ipv4, 32),
            IpAddr::V6(_) => (WireguardAddressFamily::Ipv6, 128),
        };
        WireguardAllowedIp(vec![
            WireguardAllowedIpAttr::Family(family),
            WireguardAllowedIpAttr::IpAddr(*address),
            WireguardAllowedIpAttr::Cidr(length),
        ])
    };
    Attribute::AllowedIps(addresses.iter().map(one).collect())
}

/// A peer as a link has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its counts.
    pub stats: PeerStats,
    /// The addresses that it holds.
    pub addresses: Vec<IpAddr>,
}

/// The links' conversation with the kernel.
pub struct WireGuard {
    conversation: Conversation,
    family: u16,
}

impl WireGuard {
    /// Finds the kernel's WireGuard; NotFound where there is none.
    pub fn open() -> Result<Self, NetlinkError> {
        let mut conversation = Conversation::open(NETLINK_GENERIC)?;
        let named = GenlCtrlAttrs::FamilyName("wireguard".to_owned());
        let question = GenlMessage::from_payload(GenlCtrl { cmd: GenlCtrlCmd::GetFamily, nlas: vec![named] });
        let answers: Vec<GenlMessage<GenlCtrl>> =
            conversation.ask(Request::new(question, NLM_F_REQUEST | NLM_F_ACK))?;
        let family = answers.iter().flat_map(|answer| &answer.payload.nlas).find_map(|part| match part {
            GenlCtrlAttrs::FamilyId(id) => Some(*id),
            _ => None,
        });
        let family = family.ok_or_else(|| NetlinkError::Refused(std::io::ErrorKind::NotFound.into()))?;
        Ok(Self { conversation, family })
    }

    fn request(&self, cmd: WireguardCmd, attributes: Vec<WireguardAttribute>, flags: u16) -> Request {
        let mut message = GenlMessage::from_payload(WireguardMessage { cmd, attributes });
        message.set_resolved_family_id(self.family);
        Request::new(message, NLM_F_REQUEST | flags)
    }

    fn set(&mut self, link: &str, attributes: Vec<WireguardAttribute>) -> Result<(), NetlinkError> {
        let attributes = [vec![WireguardAttribute::IfName(link.to_owned())], attributes].concat();
        let request = self.request(WireguardCmd::SetDevice, attributes, NLM_F_ACK);
        self.conversation.ask::<GenlMessage<WireguardMessage>>(request).map(drop)
    }

    /// Listens on this port, as soon as the link is up.
    pub fn listen(&mut self, link: &str, port: u16) -> Result<(), NetlinkError> {
        self.set(link, vec![WireguardAttribute::ListenPort(port)])
    }

    /// Has this key from now on. What sessions there are end.
    pub fn key(&mut self, link: &str, key: &[u8; 32]) -> Result<(), NetlinkError> {
        self.set(link, vec![WireguardAttribute::PrivateKey(*key)])
    }

    /// Has no key and no peers any more: it answers nobody.
    pub fn close(&mut self, link: &str) -> Result<(), NetlinkError> {
        let nobody = WireguardAttribute::Flags(WireguardDeviceFlags::ReplacePeers);
        self.set(link, vec![WireguardAttribute::PrivateKey(NO_KEY), nobody])
    }

    /// Changes these peers, in this order.
    pub fn change(&mut self, link: &str, wanted: Vec<Wanted>) -> Result<(), NetlinkError> {
        let peers: Vec<WireguardPeer> = wanted.into_iter().map(Wanted::peer).collect();
        for some in peers.chunks(MOST) {
            self.set(link, vec![WireguardAttribute::Peers(some.to_vec())])?;
        }
        Ok(())
    }

    /// All peers of a link.
    pub fn peers(&mut self, link: &str) -> Result<Vec<Found>, NetlinkError> {
        let named = vec![WireguardAttribute::IfName(link.to_owned())];
        let request = self.request(WireguardCmd::GetDevice, named, NLM_F_DUMP);
        let answers: Vec<GenlMessage<WireguardMessage>> = self.conversation.ask(request)?;
        let messages = answers.into_iter().map(|answer| answer.payload);
        Ok(found(messages, SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()))
    }
}

/// The peers of these messages, at this time since 1970. A peer whose addresses have no room in one goes on in the next.
fn found(messages: impl Iterator<Item = WireguardMessage>, now: Duration) -> Vec<Found> {
    let mut all: BTreeMap<WireGuardKey, Found> = BTreeMap::new();
    let lists = messages.flat_map(|message| message.attributes).filter_map(|attribute| match attribute {
        WireguardAttribute::Peers(peers) => Some(peers),
        _ => None,
    });
    for peer in lists.flatten() {
        let key = peer.0.iter().find_map(|attribute| match attribute {
            Attribute::PublicKey(key) => Some(WireGuardKey(*key)),
            _ => None,
        });
        let Some(key) = key else { continue };
        let stats = PeerStats { key, last_handshake: None, rx_bytes: 0, tx_bytes: 0, endpoint: None, session: Some(0) };
        let known = all.entry(key).or_insert(Found { stats, addresses: Vec::new() });
        for attribute in peer.0 {
            match attribute {
                Attribute::RxBytes(bytes) => known.stats.rx_bytes = bytes,
                Attribute::TxBytes(bytes) => known.stats.tx_bytes = bytes,
                Attribute::Endpoint(endpoint) => known.stats.endpoint = Some(endpoint),
                Attribute::LastHandshake(at) => {
                    let seconds = u64::try_from(at.seconds).unwrap_or(0);
                    let nanoseconds = u32::try_from(at.nano_seconds).unwrap_or(0);
                    let at = Duration::new(seconds, nanoseconds);
                    known.stats.last_handshake = (!at.is_zero()).then(|| now.saturating_sub(at));
                    known.stats.session = Some(u64::try_from(at.as_nanos()).unwrap_or(u64::MAX));
                }
                Attribute::AllowedIps(ips) => {
                    known.addresses.extend(ips.into_iter().flat_map(|ip| ip.0).filter_map(|part| match part {
                        WireguardAllowedIpAttr::IpAddr(address) => Some(address),
                        _ => None,
                    }));
                }
                _ => {}
            }
        }
    }
    all.into_values().collect()
}

#[cfg(test)]
#[path = "wireguard_tests.rs"]
mod tests;
