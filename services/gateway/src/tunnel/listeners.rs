//! The gateway's two listeners, and by which of them each partner's packets go. Pure but for its queue.
//!
//! The gateway's own WireGuard key changes without a gap: a second listener with the new key is opened on a port of its own, partners
//! come over to it one by one, and the first is closed. Meanwhile a partner is a peer of both. What it sends says where it is: its data
//! is authenticated by that listener, and cannot be a recording, so what goes to it goes by the same listener from then on. A handshake
//! alone may be a recording, and a partner that only receives sends nothing else: what goes to it goes by both, until it is heard.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicU8, Ordering},
    },
};

use gotatun::packet::{Ip, Packet};
use tokio::sync::mpsc;

/// How many there may be.
pub const LISTENERS: usize = 2;
/// Packets that may wait for the second listener; WireGuard may lose what is more.
const QUEUE: usize = 1024;

/// No listener's number.
const BOTH: u8 = u8::MAX;

/// By which listener packets go.
#[derive(Debug, Default)]
pub struct Switch {
    /// The number of the only listener that is open, or [`BOTH`].
    only: AtomicU8,
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    /// For whom nothing was heard since there are two.
    before: usize,
    /// By which listener each partner's address was heard last.
    by: HashMap<IpAddr, usize>,
    /// By which listener each partner's address shook hands last.
    shook: HashMap<IpAddr, usize>,
    /// What goes by the second listener.
    queue: Option<mpsc::Sender<Packet<Ip>>>,
}

impl Switch {
    /// Takes note of which listeners are open.
    pub fn open(&self, open: [bool; LISTENERS]) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let before = self.only.load(Ordering::Relaxed);
        let now = match open {
            [true, true] => BOTH,
            [false, true] => 1,
            _ => 0,
        };
        if now == BOTH && before != BOTH {
            state.before = usize::from(before);
        }
        if now != BOTH {
            state.by.clear();
            state.shook.clear();
        }
        self.only.store(now, Ordering::Relaxed);
    }

    /// Data has come from `source` by a listener.
    pub fn came(&self, source: IpAddr, listener: usize) {
        if self.only.load(Ordering::Relaxed) != BOTH {
            return;
        }
        let known = self.state.read().unwrap_or_else(PoisonError::into_inner).by.get(&source).copied();
        if known != Some(listener) {
            self.state.write().unwrap_or_else(PoisonError::into_inner).by.insert(source, listener);
        }
    }

    /// By which listener each partner's address shook hands last, while there are two.
    pub fn shook(&self, latest: HashMap<IpAddr, usize>) {
        if self.only.load(Ordering::Relaxed) == BOTH {
            self.state.write().unwrap_or_else(PoisonError::into_inner).shook = latest;
        }
    }

    /// By which listeners a packet to `destination` goes: the one by which it was heard last, and the one by which it shook hands
    /// since, if that is the other.
    pub fn goes(&self, destination: IpAddr) -> [bool; LISTENERS] {
        let by = |listener: usize| [listener == 0, listener == 1];
        match self.only.load(Ordering::Relaxed) {
            BOTH => {
                let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
                let heard = state.by.get(&destination).copied().unwrap_or(state.before);
                let shook = state.shook.get(&destination).copied().unwrap_or(heard);
                if heard == shook { by(heard) } else { [true; LISTENERS] }
            }
            only => by(usize::from(only)),
        }
    }

    /// By which listener data has come from one of a partner's addresses; none if nothing has come since there are two.
    pub fn by(&self, addresses: &[IpAddr]) -> Option<usize> {
        match self.only.load(Ordering::Relaxed) {
            BOTH => {
                let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
                // Of two families that differ, one has not been used since the partner came over.
                let mut heard = addresses.iter().filter_map(|address| state.by.get(address).copied());
                let first = heard.next()?;
                Some(heard.find(|other| *other != state.before).unwrap_or(first))
            }
            only => Some(usize::from(only)),
        }
    }

    /// Whether both listeners are open.
    pub fn is_both(&self) -> bool {
        self.only.load(Ordering::Relaxed) == BOTH
    }

    /// Whether no packet goes by the second listener.
    pub fn first_alone(&self) -> bool {
        self.only.load(Ordering::Relaxed) == 0
    }

    /// What will go by the second listener, from now on.
    pub fn queue(&self) -> mpsc::Receiver<Packet<Ip>> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        self.state.write().unwrap_or_else(PoisonError::into_inner).queue = Some(sender);
        receiver
    }

    /// Hands a packet to the second listener. False if that has no room for it.
    pub fn hand(&self, packet: Packet<Ip>) -> bool {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.queue.as_ref().is_some_and(|queue| queue.try_send(packet).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    const FIRST: [bool; LISTENERS] = [true, false];
    const SECOND: [bool; LISTENERS] = [false, true];

    #[test]
    fn packets_go_where_data_came_from() {
        let (a, b) = (ip("100.72.0.3"), ip("100.72.0.5"));
        let switch = Switch::default();
        switch.came(a, 1);
        assert_eq!((switch.goes(a), switch.by(&[a])), (FIRST, Some(0)), "there is one");
        assert!(switch.first_alone());

        switch.open([true, true]);
        assert_eq!((switch.goes(a), switch.by(&[a])), (FIRST, None), "not heard since there are two: where it was");
        switch.came(a, 1);
        assert_eq!((switch.goes(a), switch.by(&[a]), switch.goes(b), switch.by(&[b])), (SECOND, Some(1), FIRST, None));
        switch.came(a, 0);
        assert_eq!((switch.goes(a), switch.by(&[a])), (FIRST, Some(0)), "it went back");

        switch.open([false, true]);
        assert_eq!((switch.goes(a), switch.goes(b), switch.by(&[b])), (SECOND, SECOND, Some(1)));
        switch.open([true, true]);
        assert_eq!((switch.goes(a), switch.by(&[a])), (SECOND, None), "the next rotation, the other way");
        switch.came(a, 0);
        assert_eq!((switch.goes(a), switch.goes(b)), (FIRST, SECOND));
    }

    #[test]
    fn packets_go_by_both_to_whom_shook_hands_and_is_not_heard() {
        let (a, b) = (ip("100.72.0.3"), ip("100.72.0.5"));
        let switch = Switch::default();
        switch.shook([(a, 1)].into());
        assert_eq!(switch.goes(a), FIRST, "there is one");
        switch.open([true, true]);
        assert_eq!(switch.goes(a), FIRST, "and what was before is forgotten");

        switch.shook([(a, 1), (b, 0)].into());
        assert_eq!((switch.goes(a), switch.by(&[a]), switch.goes(b)), ([true; LISTENERS], None, FIRST));
        switch.came(a, 0);
        assert_eq!(switch.goes(a), [true; LISTENERS], "somebody played a handshake back: it is served where it is");
        switch.came(a, 1);
        assert_eq!((switch.goes(a), switch.by(&[a])), (SECOND, Some(1)), "it is there");

        switch.open([false, true]);
        switch.open([true, true]);
        assert_eq!(switch.goes(a), SECOND);
    }

    #[test]
    fn a_partner_has_come_over_when_one_of_its_addresses_has() {
        let (four, six) = (ip("100.72.0.3"), ip("fd4c::3"));
        let switch = Switch::default();
        switch.open([true, true]);
        switch.came(four, 0);
        switch.came(six, 0);
        assert_eq!(switch.by(&[four, six]), Some(0));
        switch.came(four, 1);
        assert_eq!((switch.by(&[four, six]), switch.by(&[six, four])), (Some(1), Some(1)));
    }
}
