use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;

const TCP_HEADER: usize = 20;

fn v4(source: &str, destination: &str, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; 20];
    packet[0] = 0x45;
    packet[9] = protocol;
    packet[12..16].copy_from_slice(&source.parse::<Ipv4Addr>().unwrap().octets());
    packet[16..20].copy_from_slice(&destination.parse::<Ipv4Addr>().unwrap().octets());
    packet.extend_from_slice(payload);
    packet
}

fn v6(source: &str, destination: &str, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; 40];
    packet[0] = 0x60;
    packet[6] = next;
    packet[8..24].copy_from_slice(&source.parse::<Ipv6Addr>().unwrap().octets());
    packet[24..40].copy_from_slice(&destination.parse::<Ipv6Addr>().unwrap().octets());
    packet.extend_from_slice(payload);
    packet
}

fn tcp(from: u16, to: u16) -> [u8; TCP_HEADER] {
    let mut header = [0; TCP_HEADER];
    header[..2].copy_from_slice(&from.to_be_bytes());
    header[2..4].copy_from_slice(&to.to_be_bytes());
    header
}

#[test]
fn enrolment_between_the_ends_of_a_slot_passes() {
    assert_eq!(inward(&v4("100.72.0.5", "100.72.0.4", TCP, &tcp(40000, ENROLMENT))), Ok(()));
    assert_eq!(outward(&v4("100.72.0.4", "100.72.0.5", TCP, &tcp(ENROLMENT, 40000))), Ok(()));
    assert_eq!(inward(&v4("100.72.0.5", "100.72.0.6", TCP, &tcp(40000, ENROLMENT))), Err(Drop::Address));
}

#[test]
fn https_between_the_ends_of_a_slot_passes() {
    let (call, reply) = (tcp(40000, 443), tcp(443, 40000));
    assert_eq!(inward(&v4("100.72.0.5", "100.72.0.4", TCP, &call)), Ok(()));
    assert_eq!(outward(&v4("100.72.0.4", "100.72.0.5", TCP, &reply)), Ok(()));
    assert_eq!(inward(&v6("fd4c:6961:6973::5", "fd4c:6961:6973::4", TCP, &call)), Ok(()));
    assert_eq!(outward(&v6("fd4c:6961:6973::4", "fd4c:6961:6973::5", TCP, &reply)), Ok(()));
}

#[test]
fn only_the_own_slot_is_reached() {
    let call = tcp(40000, 443);
    for destination in ["100.72.0.6", "100.72.0.5", "100.72.0.2", "10.96.0.1", "169.254.169.254", "127.0.0.1"] {
        assert_eq!(inward(&v4("100.72.0.5", destination, TCP, &call)), Err(Drop::Address), "{destination}");
    }
    // A gateway's own address as source, or the other direction's pair.
    assert_eq!(inward(&v4("100.72.0.4", "100.72.0.4", TCP, &call)), Err(Drop::Address));
    assert_eq!(inward(&v4("100.72.0.4", "100.72.0.5", TCP, &call)), Err(Drop::Address));
    assert_eq!(inward(&v6("fd4c:6961:6973::5", "fd4c:6961:6973::6", TCP, &call)), Err(Drop::Address));
    assert_eq!(inward(&v6("fd4c:6961:6973::5", "ff02::1", ICMP6, &[128; 8])), Err(Drop::Address));
    let reply = tcp(443, 40000);
    assert_eq!(outward(&v4("100.72.0.4", "100.72.0.7", TCP, &reply)), Err(Drop::Address));
    assert_eq!(outward(&v4("10.244.0.9", "100.72.0.5", TCP, &reply)), Err(Drop::Address));
    assert_eq!(outward(&v6("fe80::1", "ff02::2", ICMP6, &[133; 8])), Err(Drop::Address));
}

#[test]
fn only_https_and_needed_icmp() {
    for (protocol, payload) in [(TCP, tcp(40000, 8080)), (TCP, tcp(443, 22)), (17, tcp(1, 443)), (47, tcp(1, 443))] {
        assert_eq!(inward(&v4("100.72.0.5", "100.72.0.4", protocol, &payload)), Err(Drop::Service));
    }
    assert_eq!(outward(&v4("100.72.0.4", "100.72.0.5", TCP, &tcp(8080, 40000))), Err(Drop::Service));
    assert_eq!(inward(&v4("100.72.0.5", "100.72.0.4", ICMP, &[8, 0, 0, 0])), Ok(()));
    assert_eq!(inward(&v4("100.72.0.5", "100.72.0.4", ICMP, &[5, 0, 0, 0])), Err(Drop::Service), "redirect");
    assert_eq!(inward(&v6("fd4c::5", "fd4c::4", ICMP6, &[2, 0, 0, 0])), Ok(()), "packet too big");
    assert_eq!(inward(&v6("fd4c::5", "fd4c::4", ICMP6, &[134, 0, 0, 0])), Err(Drop::Service), "router advertisement");
    assert_eq!(inward(&v6("fd4c::5", "fd4c::4", ICMP, &[8, 0, 0, 0])), Err(Drop::Service), "ICMP of the other family");
    // An extension header hides the port.
    assert_eq!(inward(&v6("fd4c::5", "fd4c::4", 0, &tcp(40000, 443))), Err(Drop::Service));
}

#[test]
fn fragments_and_garbage_are_dropped() {
    let mut first = v4("100.72.0.5", "100.72.0.4", TCP, &tcp(40000, 443));
    first[6] = 0x20;
    assert_eq!(inward(&first), Err(Drop::Fragment));
    first[6] = 0;
    first[7] = 1;
    assert_eq!(inward(&first), Err(Drop::Fragment));
    first[6] = 0x40;
    first[7] = 0;
    assert_eq!(inward(&first), Ok(()), "don't-fragment is no fragment");
    first[0] = 0x41;
    assert_eq!(inward(&first), Err(Drop::Malformed), "header shorter than a header");
    assert_eq!(inward(&[]), Err(Drop::Malformed));
    assert_eq!(inward(&[0x00; 60]), Err(Drop::Malformed));
    for length in 1..43 {
        let whole = v6("fd4c::5", "fd4c::4", TCP, &tcp(40000, 443));
        assert!(inward(&whole[..length]).is_err(), "{length}");
    }
}
