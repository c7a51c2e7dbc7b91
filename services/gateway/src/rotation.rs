//! Which of a partner's WireGuard keys is in use, and this gateway's word of it in status. Pure.
//!
//! The address follows the key that data comes by; a handshake alone does not move it. An initiation that somebody recorded is
//! accepted by a gateway that has started since, and looks like a handshake; and a router that only keeps its tunnel alive must
//! not take the address from the one that works.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use liaison_crds::{
    PartnerConnection,
    partner_connection::{Acknowledgement, KeyInUse},
};

use crate::{authorise::Now, state::WireGuardKey, tunnel::PeerStats};

/// Bytes of a handshake's initiation, all that an outsider can make a peer's count grow by.
pub const INITIATION: u64 = 148;
/// How long a key must have been in use before it is told: not at each change of two routers that both work.
const HOLD: Duration = Duration::from_secs(5);
/// How long until a word that did not get through is written again.
const RETRY: Duration = Duration::from_secs(10);

/// What came from a partner's peers until the last look: bytes, and the session.
#[derive(Debug, Default)]
pub struct Received(BTreeMap<WireGuardKey, (u64, Option<u64>)>);

impl Received {
    /// The key by which data has come since the last look at this partner's peers; the one that shook hands last, if data came
    /// by more than one. Where sessions say it, another session does. Else bytes: keepalives count nothing, so what is not a number of
    /// whole initiations is data, or the answer to an initiation of ours, which nobody can have recorded.
    pub fn by<'a>(&mut self, peers: impl Iterator<Item = &'a PeerStats>) -> Option<WireGuardKey> {
        let mut now = BTreeMap::new();
        let mut found: Option<&PeerStats> = None;
        for peer in peers {
            let before = self.0.get(&peer.key).copied();
            now.insert(peer.key, (peer.rx_bytes, peer.session));
            let bytes = before.map(|(bytes, _)| bytes).filter(|before| *before <= peer.rx_bytes).unwrap_or(0);
            let data = match peer.session {
                Some(0) => false,
                Some(session) => Some(session) != before.and_then(|(_, session)| session),
                None => !(peer.rx_bytes - bytes).is_multiple_of(INITIATION),
            };
            let age = |peer: &PeerStats| peer.last_handshake.unwrap_or(Duration::MAX);
            if data && found.is_none_or(|other| age(peer) < age(other)) {
                found = Some(peer);
            }
        }
        self.0 = now;
        found.map(|peer| peer.key)
    }
}

/// The memory of what is to be written of one partner.
#[derive(Debug, Default)]
pub struct Told {
    written: Option<KeyInUse>,
    pending: Option<(WireGuardKey, Now)>,
    tried: Option<Instant>,
}

impl Told {
    /// Takes in what status has from the gateway of this name.
    pub fn observe(&mut self, object: &PartnerConnection, gateway: &str) {
        let mut gateways = object.status.iter().flat_map(|status| &status.gateways);
        self.written = gateways.find(|word| word.name == gateway).and_then(|word| word.key_in_use.clone());
    }

    /// The word to write, if one is due, while `key` is in use. `several`: the partner has more keys than one. With one there is
    /// no question, unless status has another answer.
    pub fn due(&mut self, key: WireGuardKey, several: bool, gateway: &str, now: Now) -> Option<Acknowledgement> {
        let text = STANDARD.encode(key.0);
        let said = self.written.as_ref().is_some_and(|written| written.public_key == text);
        if said || !(several || self.written.is_some()) {
            self.pending = None;
            return None;
        }
        let since = match self.pending {
            Some((pending, since)) if pending == key => since,
            _ => {
                self.tried = None;
                self.pending.insert((key, now)).1
            }
        };
        let ripe = now.mono.duration_since(since.mono) >= HOLD;
        if !ripe || self.tried.is_some_and(|tried| now.mono.duration_since(tried) < RETRY) {
            return None;
        }
        self.tried = Some(now.mono);
        let since = Time(Timestamp::from_second(since.wall.as_second()).unwrap_or(since.wall));
        let word = KeyInUse { public_key: text, since };
        Some(Acknowledgement { name: gateway.to_owned(), key_in_use: Some(word), ..Acknowledgement::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: WireGuardKey = WireGuardKey([1; 32]);
    const NEW: WireGuardKey = WireGuardKey([2; 32]);

    fn peer(key: WireGuardKey, age: u64, rx_bytes: u64) -> PeerStats {
        let last_handshake = Some(Duration::from_secs(age));
        PeerStats { key, last_handshake, rx_bytes, tx_bytes: 0, endpoint: None, session: None }
    }

    #[test]
    fn the_address_follows_data_and_no_recorded_handshake() {
        let mut received = Received::default();
        let mut by = |old: (u64, u64), new: (u64, u64)| {
            let peers = [peer(OLD, old.0, old.1), peer(NEW, new.0, new.1)];
            received.by(peers.iter())
        };
        assert_eq!(by((9, 0), (9, 0)), None);
        assert_eq!(by((9, 0), (0, 148)), None, "an initiation");
        assert_eq!(by((9, 0), (0, 3 * 148)), None, "some more");
        assert_eq!(by((9, 60), (1, 3 * 148)), Some(OLD), "data by the one that shook hands longer ago");
        assert_eq!(by((10, 60), (2, 3 * 148 + 60)), Some(NEW));
        assert_eq!(by((11, 60), (3, 3 * 148 + 60)), None, "nothing new");
        assert_eq!(by((12, 120), (4, 3 * 148 + 120)), Some(NEW), "both: the later handshake");
        assert_eq!(by((0, 120 + 148 + 60), (5, 3 * 148 + 180)), Some(OLD), "the partner went back");
        assert_eq!(by((1, 60), (9, 3 * 148 + 180)), Some(OLD), "a peer that was made anew counts from nothing");
    }

    #[test]
    fn where_sessions_say_it_bytes_do_not() {
        let mut received = Received::default();
        let mut by = |old: (u64, u64), new: (u64, u64)| {
            let of = |key, (session, rx)| PeerStats { session: Some(session), ..peer(key, 100 - session, rx) };
            let peers = [of(OLD, old), of(NEW, new)];
            received.by(peers.iter())
        };
        assert_eq!(by((0, 0), (0, 148)), None, "an initiation");
        assert_eq!(by((3, 60), (0, 148)), Some(OLD));
        assert_eq!(by((3, 600), (0, 148 + 32)), None, "no other session");
        assert_eq!(by((3, 900), (7, 148)), Some(NEW));
        assert_eq!(by((9, 900), (8, 148)), Some(OLD), "both: the later handshake");
        assert_eq!(by((9, 900), (0, 0)), None, "a peer that was made anew");
    }

    #[test]
    fn it_is_told_once_and_only_where_there_is_a_question() {
        let start = Now::read();
        let at = |seconds| Now { mono: start.mono + Duration::from_secs(seconds), wall: start.wall };
        let mut told = Told::default();
        assert_eq!(told.due(OLD, false, "g", at(0)), None);
        assert_eq!(told.due(OLD, false, "g", at(60)), None, "a partner with one key");
        assert_eq!(told.due(OLD, true, "g", at(60)), None);
        assert_eq!(told.due(NEW, true, "g", at(64)), None, "it changed before it was told");
        let word = told.due(NEW, true, "g", at(69)).unwrap().key_in_use.unwrap();
        assert_eq!(word.public_key, STANDARD.encode(NEW.0));
        assert_eq!(word.since.0.as_second(), start.wall.as_second());
        assert_eq!(told.due(NEW, true, "g", at(70)), None, "under way");
        assert!(told.due(NEW, true, "g", at(79)).is_some(), "lost");
        told.written = Some(word);
        assert_eq!(told.due(NEW, true, "g", at(90)), None);
        assert_eq!(told.due(OLD, false, "g", at(100)), None);
        assert!(told.due(OLD, false, "g", at(105)).is_some(), "what status says is wrong");
    }
}
