//! Messages to nftables, byte by byte (`linux/netfilter/nf_tables.h`): a batch that is carried out as a whole or not at all, and what a
//! rule is made of. Knows nothing of what the rules are for. Pure.

use netlink_packet_core::{
    DefaultNla, Emitable as _, NLA_F_NESTED, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REQUEST,
};

use super::netlink::{Request, aligned, length};

/// IPv4 and IPv6 together.
pub const FAMILY_INET: u8 = 1;
/// NFNL_SUBSYS_NFTABLES.
const SUBSYSTEM: u16 = 10;
const BEGIN: u16 = 0x10;
const END: u16 = 0x11;
/// NFT_OBJECT_COUNTER.
const COUNTER: u32 = 1;

/// NFT_MSG_*.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    NewTable = 0,
    DelTable = 2,
    NewChain = 3,
    NewRule = 6,
    NewSet = 9,
    NewElements = 12,
    DelElements = 14,
    NewObject = 18,
    GetObjects = 19,
}

impl Kind {
    /// As a netlink message's type.
    pub const fn number(self) -> u16 {
        SUBSYSTEM << 8 | self as u16
    }
}

/// Where a chain looks at packets: hook and priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hook(pub u32, pub i32);

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict<'a> {
    Drop,
    Accept,
    Goto(&'a str),
}

/// What is known of a packet beside its bytes (NFT_META_*).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meta {
    InName = 6,
    OutName = 7,
    Family = 15,
    Protocol = 16,
}

/// From where a packet's bytes are counted (NFT_PAYLOAD_*).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    Network = 1,
    Transport = 2,
}

/// A set: its name, its number in the table, `nft`'s type of its keys, and their length in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Set {
    pub name: &'static str,
    pub number: u32,
    pub key: u32,
    pub length: u32,
}

const VERDICT: u32 = 0;
/// The first register of four bytes; an IPv6 address takes four of them.
const FIRST: u32 = 8;

/// The parts of one attribute, or of one message, as bytes.
pub fn bytes(parts: &[DefaultNla]) -> Vec<u8> {
    let mut bytes = vec![0; parts.buffer_len()];
    parts.emit(&mut bytes);
    bytes
}

pub fn text(kind: u16, text: &str) -> DefaultNla {
    DefaultNla::new(kind, [text.as_bytes(), &[0]].concat())
}

pub fn number(kind: u16, number: u32) -> DefaultNla {
    DefaultNla::new(kind, number.to_be_bytes().to_vec())
}

pub fn nested(kind: u16, parts: &[DefaultNla]) -> DefaultNla {
    DefaultNla::new(kind | NLA_F_NESTED, bytes(parts))
}

/// One transaction on one table.
pub struct Batch {
    table: &'static str,
    bytes: Vec<u8>,
}

impl Batch {
    pub fn new(table: &'static str) -> Self {
        let mut batch = Self { table, bytes: Vec::new() };
        batch.message(BEGIN, NLM_F_REQUEST, [0, 0, 0, 10], &[]);
        batch
    }

    fn message(&mut self, kind: u16, flags: u16, header: [u8; 4], parts: &[DefaultNla]) {
        let body = bytes(parts);
        let length = 16 + header.len() + body.len();
        self.bytes.extend(u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
        // Its number, which the socket fills in, and the sender's.
        self.bytes.extend([0; 8]);
        self.bytes.extend(header);
        self.bytes.extend(body);
        self.bytes.resize(aligned(self.bytes.len()), 0);
    }

    fn add(&mut self, kind: Kind, flags: u16, parts: &[DefaultNla]) {
        let parts = [&[text(1, self.table)], parts].concat();
        self.message(kind.number(), NLM_F_REQUEST | flags, [FAMILY_INET, 0, 0, 0], &parts);
    }

    /// The whole; what was added last is acknowledged, and with it all of it.
    pub fn done(mut self) -> Request {
        let (mut at, mut last) = (0, 0);
        while let Some(length) = self.bytes.get(at..).and_then(length) {
            last = at;
            at += aligned(length);
        }
        if let Some(flags) = self.bytes.get_mut(last + 6..last + 8) {
            let acknowledged = flags.iter_mut().zip(NLM_F_ACK.to_ne_bytes());
            acknowledged.for_each(|(flag, acknowledged)| *flag |= acknowledged);
        }
        self.message(END, NLM_F_REQUEST, [0, 0, 0, 10], &[]);
        Request(self.bytes)
    }

    pub fn new_table(&mut self) {
        self.add(Kind::NewTable, NLM_F_CREATE, &[]);
    }

    pub fn delete_table(&mut self) {
        self.add(Kind::DelTable, 0, &[]);
    }

    pub fn set(&mut self, set: Set) {
        let parts =
            [text(2, set.name), number(3, 0), number(4, set.key), number(5, set.length), number(10, set.number)];
        self.add(Kind::NewSet, NLM_F_CREATE, &parts);
    }

    /// Adds keys to a set, or takes them out. None may be taken out that is not in it.
    pub fn elements(&mut self, kind: Kind, set: Set, keys: impl IntoIterator<Item = Vec<u8>>) {
        // DATA_VALUE in KEY in an element of the list.
        let element = |key| nested(1, &[nested(1, &[DefaultNla::new(1, key)])]);
        let elements: Vec<DefaultNla> = keys.into_iter().map(element).collect();
        // An attribute's length has 16 bits.
        for some in elements.chunks(512) {
            self.add(kind, NLM_F_CREATE, &[text(2, set.name), nested(3, some)]);
        }
    }

    pub fn counter(&mut self, name: &str) {
        self.add(Kind::NewObject, NLM_F_CREATE, &[text(2, name), number(3, COUNTER), nested(4, &[])]);
    }

    /// A chain; with a hook one that packets come to by themselves, and that lets them pass at its end.
    pub fn chain(&mut self, name: &str, hook: Option<Hook>) {
        let mut parts = vec![text(3, name)];
        if let Some(Hook(hook, priority)) = hook {
            parts.push(nested(4, &[number(1, hook), number(2, priority.cast_unsigned())]));
            parts.push(number(5, Verdict::Accept.code()));
            parts.push(text(7, "filter"));
        }
        self.add(Kind::NewChain, NLM_F_CREATE, &parts);
    }

    /// A rule at the end of a chain.
    pub fn rule(&mut self, chain: &str, expressions: &[DefaultNla]) {
        self.add(Kind::NewRule, NLM_F_CREATE | NLM_F_APPEND, &[text(2, chain), nested(4, expressions)]);
    }
}

impl Verdict<'_> {
    const fn code(self) -> u32 {
        match self {
            Self::Drop => 0,
            Self::Accept => 1,
            Self::Goto(_) => (-4_i32).cast_unsigned(),
        }
    }
}

fn expression(name: &str, parts: &[DefaultNla]) -> DefaultNla {
    nested(1, &[text(1, name), nested(2, parts)])
}

/// Reads what is known of the packet.
pub fn meta(key: Meta) -> DefaultNla {
    expression("meta", &[number(1, FIRST), number(2, key as u32)])
}

/// Reads bytes of the packet, behind so many that were read before.
pub fn payload(before: u32, base: Base, offset: u32, length: u32) -> DefaultNla {
    expression(
        "payload",
        &[number(1, FIRST + before / 4), number(2, base as u32), number(3, offset), number(4, length)],
    )
}

/// Goes on if what was read is this.
pub fn is(value: &[u8]) -> DefaultNla {
    expression("cmp", &[number(1, FIRST), number(2, 0), nested(3, &[DefaultNla::new(1, value.to_vec())])])
}

/// Goes on if what was read is in the set.
pub fn is_in(set: Set) -> DefaultNla {
    expression("lookup", &[text(1, set.name), number(2, FIRST)])
}

/// Counts.
pub fn count(counter: &str) -> DefaultNla {
    expression("objref", &[number(1, COUNTER), text(2, counter)])
}

/// Ends the rule.
pub fn verdict(verdict: Verdict<'_>) -> DefaultNla {
    let mut parts = vec![number(1, verdict.code())];
    if let Verdict::Goto(chain) = verdict {
        parts.push(text(2, chain));
    }
    expression("immediate", &[number(1, VERDICT), nested(2, &[nested(2, &parts)])])
}

/// Asks for what a table's objects have counted.
pub fn counters(table: &str) -> Request {
    let mut batch = Batch { table: "", bytes: Vec::new() };
    let flags = NLM_F_REQUEST | NLM_F_DUMP;
    batch.message(Kind::GetObjects.number(), flags, [FAMILY_INET, 0, 0, 0], &[text(1, table)]);
    Request(batch.bytes)
}
