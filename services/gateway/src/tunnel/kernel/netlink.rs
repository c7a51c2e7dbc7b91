//! A netlink socket: asks, and waits for the kernel's answer. The kernel answers before it lets go of the caller, so nothing here waits
//! for long.

use std::io;

use netlink_packet_core::{NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable};
use netlink_sys::{Socket, SocketAddr};

/// Bytes of the header of a netlink message.
const HEADER: usize = 16;

/// What the kernel did not do.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The socket.
    #[error("netlink: {0}")]
    Io(#[from] io::Error),
    /// The kernel refused.
    #[error("refused: {0}")]
    Refused(io::Error),
    /// The answer cannot be read.
    #[error("netlink answer: {0}")]
    Malformed(#[from] netlink_packet_core::DecodeError),
}

impl NetlinkError {
    /// Whether the kernel refused since there is no such thing: ENOENT, ENODEV.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Refused(error) if matches!(error.raw_os_error(), Some(2 | 19)))
    }
}

/// A request: one netlink message, or several that are one transaction, of which the last is acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request(pub Vec<u8>);

impl Request {
    /// One message.
    pub fn new<I: NetlinkSerializable>(payload: I, flags: u16) -> Self {
        let mut message = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::InnerMessage(payload));
        message.header.flags = flags;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        Self(bytes)
    }

    /// Gives each of its messages this number.
    fn numbered(mut self, number: u32) -> Vec<u8> {
        let mut at = 0;
        while let Some(length) = length(&self.0[at..]) {
            self.0[at + 8..at + 12].copy_from_slice(&number.to_ne_bytes());
            at += aligned(length);
            if at >= self.0.len() {
                break;
            }
        }
        self.0
    }
}

/// The length of the first message of these, with its header; none if it is not whole.
pub fn length(bytes: &[u8]) -> Option<usize> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    (HEADER..=bytes.len()).contains(&length).then_some(length)
}

/// Rounded up to where the next message starts.
pub const fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// A conversation with one part of the kernel.
pub struct Conversation {
    socket: Socket,
    number: u32,
}

impl Conversation {
    /// Opens it; `protocol` is one of `netlink_sys::protocols`.
    pub fn open(protocol: isize) -> Result<Self, NetlinkError> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // An answer that is not there when the question is out does not come any more.
        socket.set_non_blocking(true)?;
        Ok(Self { socket, number: 0 })
    }

    /// Asks, and collects what is answered until the acknowledgement or the end of the list.
    pub fn ask<I: NetlinkDeserializable>(&mut self, request: Request) -> Result<Vec<I>, NetlinkError> {
        self.number = self.number.wrapping_add(1);
        self.socket.send(&request.numbered(self.number), 0)?;
        let mut answers = Vec::new();
        loop {
            let (bytes, _) = self.socket.recv_from_full()?;
            let mut rest = bytes.as_slice();
            while let Some(length) = length(rest) {
                let message = NetlinkMessage::<I>::deserialize(&rest[..length])?;
                rest = rest.get(aligned(length)..).unwrap_or_default();
                // What is left of a request that failed halfway.
                if message.header.sequence_number != self.number {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        return Err(NetlinkError::Refused(error.to_io()));
                    }
                    NetlinkPayload::Done(done) if done.code != 0 => {
                        return Err(NetlinkError::Refused(io::Error::from_raw_os_error(-done.code)));
                    }
                    NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(answers),
                    _ => {}
                }
            }
        }
    }
}
