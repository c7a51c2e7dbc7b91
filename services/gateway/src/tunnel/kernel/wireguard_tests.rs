use netlink_packet_core::{NetlinkBuffer, NetlinkMessage};
use netlink_packet_wireguard::WireguardTimeSpec;

use super::*;

const KEY: WireGuardKey = WireGuardKey([7; 32]);

/// What the crate's decoder reads of a request.
fn read(wanted: Wanted) -> Vec<Attribute> {
    let named = WireguardAttribute::IfName("liaison0".to_owned());
    let attributes = vec![named.clone(), WireguardAttribute::Peers(vec![wanted.peer()])];
    let mut message = GenlMessage::from_payload(WireguardMessage { cmd: WireguardCmd::SetDevice, attributes });
    message.set_resolved_family_id(0x1f);
    let bytes = Request::new(message, NLM_F_REQUEST | NLM_F_ACK).0;
    let buffer = NetlinkBuffer::new_checked(&bytes).unwrap();
    assert_eq!((buffer.length() as usize, buffer.message_type(), buffer.flags()), (bytes.len(), 0x1f, 5));
    let message = NetlinkMessage::<GenlMessage<WireguardMessage>>::deserialize(&bytes).unwrap();
    let netlink_packet_core::NetlinkPayload::InnerMessage(read) = message.payload else { panic!("{message:?}") };
    assert_eq!((read.header.cmd, read.header.version, &read.payload.attributes[0]), (1, 1, &named));
    let WireguardAttribute::Peers(peers) = &read.payload.attributes[1] else { panic!("{read:?}") };
    assert_eq!((peers.len(), &peers[0].0[0]), (1, &Attribute::PublicKey(KEY.0)));
    peers[0].0[1..].to_vec()
}

#[test]
fn what_is_asked_is_read_as_it_was_meant() {
    let addresses: Vec<IpAddr> = ["100.72.0.3", "fd4c::3"].map(|text| text.parse().unwrap()).into();
    let replaced = Attribute::Flags(WireguardPeerFlags::ReplaceAllowedIps);
    let cidr = |family, address: &IpAddr, length| {
        WireguardAllowedIp(vec![
            WireguardAllowedIpAttr::Family(family),
            WireguardAllowedIpAttr::IpAddr(*address),
            WireguardAllowedIpAttr::Cidr(length),
        ])
    };
    let both = Attribute::AllowedIps(vec![
        cidr(WireguardAddressFamily::Ipv4, &addresses[0], 32),
        cidr(WireguardAddressFamily::Ipv6, &addresses[1], 128),
    ]);
    let shared = Attribute::PresharedKey([9; 32]);
    let there = read(Wanted::there(KEY, Some(PresharedKey([9; 32])), &addresses));
    assert_eq!(there, [replaced.clone(), shared, both.clone()]);
    let none = [replaced, Attribute::PresharedKey([0; 32]), Attribute::AllowedIps(vec![])];
    assert_eq!(read(Wanted::there(KEY, None, &[])), none);
    let flags = WireguardPeerFlags::ReplaceAllowedIps | WireguardPeerFlags::UpdateOnly;
    assert_eq!(read(Wanted::holds(KEY, &addresses)), [Attribute::Flags(flags), both]);
    assert_eq!(read(Wanted::gone(KEY)), [Attribute::Flags(WireguardPeerFlags::RemoveMe)]);
    let update = Attribute::Flags(WireguardPeerFlags::UpdateOnly);
    for text in ["192.0.2.7:51820", "[2001:db8::7]:51820"] {
        let endpoint = text.parse().unwrap();
        let called = [update.clone(), Attribute::Endpoint(endpoint), Attribute::PersistentKeepalive(25)];
        assert_eq!(read(Wanted::called(KEY, endpoint)), called);
    }
    assert_eq!(read(Wanted::quiet(KEY)), [update, Attribute::PersistentKeepalive(0)]);
}

#[test]
fn a_peer_goes_on_in_the_next_message() {
    let allowed = |text: &str| {
        Attribute::AllowedIps(vec![WireguardAllowedIp(vec![WireguardAllowedIpAttr::IpAddr(text.parse().unwrap())])])
    };
    let at = Attribute::LastHandshake(WireguardTimeSpec { seconds: 1_000, nano_seconds: 5 });
    let never = Attribute::LastHandshake(WireguardTimeSpec { seconds: 0, nano_seconds: 0 });
    let endpoint = "192.0.2.7:51820".parse().unwrap();
    let first = vec![
        Attribute::PublicKey(KEY.0),
        at,
        Attribute::RxBytes(1),
        Attribute::TxBytes(2),
        Attribute::Endpoint(endpoint),
        allowed("100.72.0.3"),
    ];
    let other = vec![Attribute::PublicKey([8; 32]), never];
    let lists = [vec![first], vec![vec![Attribute::PublicKey(KEY.0), allowed("fd4c::3")], other]];
    let messages = lists.map(|list| WireguardMessage {
        cmd: WireguardCmd::GetDevice,
        attributes: vec![WireguardAttribute::Peers(list.into_iter().map(WireguardPeer).collect())],
    });
    let all = found(messages.into_iter(), Duration::from_secs(1_003));
    assert_eq!(all.len(), 2);
    let stats = PeerStats {
        key: KEY,
        last_handshake: Some(Duration::new(2, 999_999_995)),
        rx_bytes: 1,
        tx_bytes: 2,
        endpoint: Some(endpoint),
        session: Some(1_000_000_000_005),
    };
    let addresses = ["100.72.0.3", "fd4c::3"].map(|text| text.parse().unwrap()).into();
    assert_eq!(all[0], Found { stats, addresses });
    assert_eq!((all[1].stats.last_handshake, all[1].stats.session), (None, Some(0)));
}
