use netlink_packet_core::{NLA_F_NESTED, NLM_F_ACK, NLM_F_CREATE, NLM_F_REQUEST, Nla as _};

use super::{
    super::{
        netlink::{aligned, length},
        nft::{FAMILY_INET, bytes, nested, number, text},
    },
    *,
};

/// Kind, flags, header and body of each message.
fn messages(request: &Request) -> Vec<(u16, u16, Vec<u8>, Vec<u8>)> {
    let mut rest = request.0.as_slice();
    let mut all = Vec::new();
    while !rest.is_empty() {
        let length = length(rest).unwrap();
        let half = |at: usize| u16::from_ne_bytes([rest[at], rest[at + 1]]);
        all.push((half(4), half(6), rest[16..20].to_vec(), rest[20..length].to_vec()));
        rest = &rest[aligned(length)..];
    }
    all
}

fn list(body: &[u8]) -> Vec<(u16, Vec<u8>)> {
    NlasIterator::new(body)
        .map(|part| {
            let part = part.unwrap();
            (part.kind(), part.value().to_vec())
        })
        .collect()
}

#[test]
fn a_pair_is_added_as_nft_adds_it() {
    let request = partners(&["100.72.0.3".parse().unwrap()], &[]).unwrap();
    let found = messages(&request);
    assert_eq!(found.iter().map(|m| m.0).collect::<Vec<_>>(), [0x10, 0x0a0c, 0x11]);
    assert_eq!((found[0].2.as_slice(), found[1].2.as_slice()), (&[0, 0, 0, 10][..], &[1, 0, 0, 0][..]));
    assert_eq!(found[1].1, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE);
    // As of `nft --debug=mnl add element inet liaison slots4 { 100.72.0.3 . 100.72.0.2 }`.
    let wanted: &[u8] = &[
        0x0c, 0, 1, 0, b'l', b'i', b'a', b'i', b's', b'o', b'n', 0, // table
        0x0b, 0, 2, 0, b's', b'l', b'o', b't', b's', b'4', 0, 0, // set
        0x18, 0, 3, 0x80, // elements
        0x14, 0, 1, 0x80, // element
        0x10, 0, 1, 0x80, // key
        0x0c, 0, 1, 0, 100, 72, 0, 3, 100, 72, 0, 2,
    ];
    assert_eq!(found[1].3, wanted);
}

#[test]
fn partners_change_in_one_transaction() {
    assert_eq!(partners(&[], &[]), None);
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let request = partners(&[ip("100.72.0.5"), ip("fd4c::5")], &[ip("100.72.0.3"), ip("fd4c::3")]).unwrap();
    let found = messages(&request);
    let kinds: Vec<u16> = found.iter().map(|m| m.0).collect();
    assert_eq!(kinds, [0x10, 0x0a0e, 0x0a0e, 0x0a0c, 0x0a0c, 0x11]);
    let acknowledged: Vec<bool> = found.iter().map(|m| m.1 & NLM_F_ACK != 0).collect();
    assert_eq!(acknowledged, [false, false, false, false, true, false]);
    let six = list(&found[4].3);
    assert_eq!(six[1].1, b"slots6\0");
    let key = list(&list(&list(&six[2].1)[0].1)[0].1)[0].1.clone();
    assert_eq!(key[..16], "fd4c::5".parse::<std::net::Ipv6Addr>().unwrap().octets());
    assert_eq!(key[16..], "fd4c::4".parse::<std::net::Ipv6Addr>().unwrap().octets());
}

#[test]
fn many_partners_are_several_messages_of_one_transaction() {
    let all: Vec<IpAddr> = (0..10_000_u32).map(|n| IpAddr::V4((0x6448_0001 + 2 * n).into())).collect();
    let found = messages(&partners(&all, &[]).unwrap());
    let elements: usize = found[1..found.len() - 1].iter().map(|m| list(&list(&m.3)[2].1).len()).sum();
    assert_eq!(elements, 10_000);
}

#[test]
fn each_chain_of_partners_ends_with_a_drop_that_is_counted() {
    let found = messages(&table(&["liaison0", "liaison0-2"]));
    let rules: Vec<Vec<(u16, Vec<u8>)>> = found.iter().filter(|m| m.0 == 0x0a06).map(|m| list(&m.3)).collect();
    let rules_of = |chain: &str| {
        let name = [chain.as_bytes(), &[0]].concat();
        rules.iter().filter(|rule| rule[1].1 == name).map(|rule| rule[2].1.clone()).collect::<Vec<_>>()
    };
    for way in [Way::In, Way::Out] {
        for (chain, dropped) in way.chains() {
            let all = rules_of(chain);
            assert_eq!(*all.last().unwrap(), bytes(&[count(dropped.counter()), verdict(Verdict::Drop)]), "{chain}");
        }
    }
    let chains = ["in", "from_partner", "to_service", "out", "to_partner", "from_service"];
    assert_eq!(chains.map(|chain| rules_of(chain).len()), [3, 3, 4, 2, 3, 4]);
    assert_eq!(verdict(Verdict::Drop).kind(), 1 | NLA_F_NESTED);
}

#[test]
fn what_was_counted_is_read() {
    let data = [DefaultNla::new(1, 240_u64.to_be_bytes().to_vec()), DefaultNla::new(2, 3_u64.to_be_bytes().to_vec())];
    let object = bytes(&[text(1, TABLE), text(2, "in_service"), number(3, 1), nested(4, &data)]);
    let payload = [&[FAMILY_INET, 0, 0, 0][..], &object].concat();
    let mut header = NetlinkHeader::default();
    header.message_type = 0x0a12;
    assert_eq!(Counted::deserialize(&header, &payload).unwrap(), Counted(Some((Dropped::InService, 3))));
    let other = bytes(&[text(1, TABLE), text(2, "another's"), number(3, 1), nested(4, &data)]);
    let payload = [&[FAMILY_INET, 0, 0, 0][..], &other].concat();
    assert_eq!(Counted::deserialize(&header, &payload).unwrap(), Counted(None));
    header.message_type = 0x0a00;
    assert_eq!(Counted::deserialize(&header, &payload).unwrap(), Counted(None));
    assert_eq!(messages(&counted())[0].0, 0x0a13);
}
