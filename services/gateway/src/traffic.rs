//! What the peers did since the last look. Pure but for the metrics it adds to.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use liaison_records::names::PartnerName;

use crate::{authorise::Now, metrics::Metrics, state::WireGuardKey, tunnel::PeerStats};

/// Two looks at one handshake differ by less than this.
const SAME: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, Copy)]
struct Last {
    handshake: Option<Instant>,
    rx: u64,
    tx: u64,
}

/// The memory between two looks.
#[derive(Debug, Default)]
pub struct Traffic {
    peers: BTreeMap<WireGuardKey, Last>,
}

impl Traffic {
    /// Adds what is new to the metrics; returns the partners that have shaken hands, and how long ago.
    pub fn look(
        &mut self,
        peers: &[PeerStats],
        owner: &BTreeMap<WireGuardKey, &PartnerName>,
        now: Now,
        metrics: &Metrics,
    ) -> BTreeMap<PartnerName, Duration> {
        let mut seen: BTreeMap<PartnerName, Duration> = BTreeMap::new();
        let mut next = BTreeMap::new();
        for peer in peers {
            let Some(partner) = owner.get(&peer.key) else { continue };
            let last = self.peers.get(&peer.key).copied().unwrap_or(Last { handshake: None, rx: 0, tx: 0 });
            let at = peer.last_handshake.and_then(|age| now.mono.checked_sub(age));
            let new = at.filter(|at| last.handshake.is_none_or(|before| *at > before + SAME));
            let wall = new.map(|_| now.wall.as_second() - seconds(peer.last_handshake.unwrap_or_default()));
            metrics.peer(
                partner.as_str(),
                u64::from(new.is_some()),
                wall,
                peer.rx_bytes.saturating_sub(last.rx),
                peer.tx_bytes.saturating_sub(last.tx),
            );
            // A peer whose session has expired reports none: the last one is remembered.
            let handshake = new.or(last.handshake);
            next.insert(peer.key, Last { handshake, rx: peer.rx_bytes, tx: peer.tx_bytes });
            if let Some(at) = handshake {
                let age = now.mono.saturating_duration_since(at);
                seen.entry((*partner).clone()).and_modify(|least| *least = age.min(*least)).or_insert(age);
            }
        }
        self.peers = next;
        seen
    }
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_a_handshake_once_and_knows_the_latest() {
        let name: PartnerName = "a".parse().unwrap();
        let (one, two) = (WireGuardKey([1; 32]), WireGuardKey([2; 32]));
        let owner = BTreeMap::from([(one, &name), (two, &name)]);
        let metrics = Metrics::default();
        let start = Now::read();
        let at = |s| Now { mono: start.mono + Duration::from_secs(s), wall: start.wall };
        let peer = |key, age: Option<u64>| PeerStats {
            key,
            last_handshake: age.map(Duration::from_secs),
            rx_bytes: 10,
            tx_bytes: 20,
            endpoint: None,
            session: None,
        };
        let mut traffic = Traffic::default();
        assert!(traffic.look(&[peer(one, None), peer(two, None)], &owner, at(100), &metrics).is_empty());
        let seen = traffic.look(&[peer(one, Some(2)), peer(two, None)], &owner, at(110), &metrics);
        assert_eq!(seen[&name], Duration::from_secs(2));
        traffic.look(&[peer(one, Some(7)), peer(two, None)], &owner, at(115), &metrics);
        let seen = traffic.look(&[peer(one, Some(12)), peer(two, Some(1))], &owner, at(120), &metrics);
        assert_eq!(seen[&name], Duration::from_secs(1));
        let text = metrics.text();
        assert!(text.contains("liaison_gateway_wireguard_handshakes_total{partner=\"a\"} 2"), "{text}");
        assert!(text.contains("liaison_gateway_wireguard_received_bytes_total{partner=\"a\"} 20"), "{text}");
    }
}
