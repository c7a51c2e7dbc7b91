//! The UDP socket of the WireGuard device, on which one packet that cannot be sent costs no other its place.
//!
//! What goes out is sent in batches, and the device drops the rest of a batch after a packet that the kernel refuses. Anybody
//! can bring that about: whoever claims to send from port 0 is to be answered there. So what is left is sent one by one. And what goes
//! to one partner together, as a segment does that was cut, the kernel is given as one.

use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    os::fd::AsRawFd,
};

use gotatun::{
    packet::Packet,
    udp::{
        UdpSend, UdpTransportFactory, UdpTransportFactoryParams,
        socket::{UdpSocket, UdpSocketFactory},
    },
};
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};
use tokio::io::Interest;

/// Most packets, and most bytes, that the kernel takes as one.
const MOST: usize = 64;
const MOST_BYTES: usize = 65_000;

type Addressed = (Packet, SocketAddr);

/// How many of the first packets may be given to the kernel as one: to one address, all of a size, the last perhaps shorter.
fn run(packets: &[Addressed]) -> usize {
    let Some(((first, to), rest)) = packets.split_first() else { return 0 };
    let size = first.len();
    let most = (MOST_BYTES / size.max(1)).clamp(1, MOST);
    let mut length = 1;
    for (packet, other) in rest.iter().take(most - 1) {
        if other != to || packet.len() > size {
            break;
        }
        length += 1;
        if packet.len() < size {
            break;
        }
    }
    length
}

/// Binds such sockets.
#[derive(Debug, Default)]
pub struct Factory(UdpSocketFactory);

/// The sending half.
#[derive(Clone)]
pub struct Sender(UdpSocket);

impl UdpTransportFactory for Factory {
    type Send = Sender;
    type Recv = UdpSocket;

    async fn bind(&mut self, params: &UdpTransportFactoryParams) -> io::Result<(Self::Send, Self::Recv)> {
        let (send, recv) = self.0.bind(params).await?;
        Ok((Sender(send), recv))
    }
}

impl Sender {
    /// Packets to anywhere.
    async fn plain(&self, buffer: &mut <UdpSocket as UdpSend>::SendManyBuf, packets: &mut Vec<Addressed>) {
        if !packets.is_empty() && self.0.send_many_to(buffer, packets).await.is_err() {
            // Some may have been sent; that one comes twice does no harm in WireGuard.
            for (packet, destination) in packets.drain(..) {
                let _ = self.0.send_to(packet, destination).await;
            }
        }
    }

    /// A [`run`]; all or nothing. A kernel or a device that cannot do that says so, and a path that is too narrow.
    async fn segment(&self, run: &[Addressed]) -> io::Result<()> {
        let Some((first, to)) = run.first() else { return Ok(()) };
        let size = u16::try_from(first.len()).map_err(io::Error::other)?;
        let slices: Vec<IoSlice<'_>> = run.iter().map(|(packet, _)| IoSlice::new(packet)).collect();
        let (socket, to) = (self.0.socket(), SockaddrStorage::from(*to));
        let sending = || {
            let size = [ControlMessage::UdpGsoSegments(&size)];
            sendmsg(socket.as_raw_fd(), &slices, &size, MsgFlags::MSG_DONTWAIT, Some(&to)).map_err(io::Error::from)
        };
        socket.async_io(Interest::WRITABLE, sending).await.map(drop)
    }
}

impl UdpSend for Sender {
    type SendManyBuf = <UdpSocket as UdpSend>::SendManyBuf;

    async fn send_to(&self, packet: Packet, destination: SocketAddr) -> io::Result<()> {
        self.0.send_to(packet, destination).await
    }

    fn max_number_of_packets_to_send(&self) -> usize {
        self.0.max_number_of_packets_to_send()
    }

    async fn send_many_to(&self, buffer: &mut Self::SendManyBuf, packets: &mut Vec<Addressed>) -> io::Result<()> {
        let (mut alone, mut together) = (Vec::new(), Vec::new());
        while !packets.is_empty() {
            let length = run(packets);
            if length == 1 {
                alone.extend(packets.drain(..1));
                continue;
            }
            self.plain(buffer, &mut alone).await;
            together.extend(packets.drain(..length));
            if self.segment(&together).await.is_err() {
                self.plain(buffer, &mut together).await;
            }
            together.clear();
        }
        self.plain(buffer, &mut alone).await;
        Ok(())
    }

    fn local_addr(&self) -> io::Result<Option<SocketAddr>> {
        UdpSend::local_addr(&self.0)
    }

    fn set_fwmark(&self, mark: u32) -> io::Result<()> {
        UdpSend::set_fwmark(&self.0, mark)
    }
}

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket as Plain, time::Duration};

    use super::*;

    async fn pair() -> (Sender, Plain, SocketAddr) {
        let there = Plain::bind("127.0.0.1:0").unwrap();
        there.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let params = UdpTransportFactoryParams { addr: Some([127, 0, 0, 1].into()), port: 0, fwmark: None };
        let (send, _recv) = Factory::default().bind(&params).await.unwrap();
        let at = there.local_addr().unwrap();
        (send, there, at)
    }

    #[tokio::test]
    async fn what_goes_together_comes_as_the_packets_that_it_was() {
        let (send, there, to) = pair().await;
        let (_, elsewhere, other) = pair().await;
        // Sizes, and whether to the other: a run that is cut short by a smaller one, one by the other's, and one too long.
        let sizes: Vec<(usize, bool)> = [(1400, false); 10]
            .into_iter()
            .chain([(900, false), (1400, false), (1400, true), (1200, false), (1300, false)])
            .chain([(1400, false); 60])
            .collect();
        let packet = |(number, (size, away)): (usize, &(usize, bool))| {
            let mut bytes = vec![u8::try_from(number).unwrap(); *size];
            bytes[0] = 4;
            (Packet::copy_from(&bytes[..]), if *away { other } else { to })
        };
        let mut packets: Vec<Addressed> = sizes.iter().enumerate().map(packet).collect();
        assert_eq!((run(&packets), run(&packets[11..]), run(&packets[13..]), run(&packets[15..])), (11, 1, 1, 46));
        send.send_many_to(&mut <Sender as UdpSend>::SendManyBuf::default(), &mut packets).await.unwrap();
        let mut buffer = [0; 2048];
        for (number, (size, away)) in sizes.iter().enumerate() {
            let received = if *away { &elsewhere } else { &there }.recv_from(&mut buffer).unwrap().0;
            assert_eq!((received, usize::from(buffer[1])), (*size, number));
        }
    }

    #[tokio::test]
    async fn a_packet_that_cannot_be_sent_costs_no_other_its_place() {
        let (send, there, good) = pair().await;
        let bad: SocketAddr = "127.0.0.1:0".parse().unwrap();
        assert!(send.send_to(Packet::copy_from(&b"x"[..]), bad).await.is_err());
        let all = [bad, bad, good, bad, good];
        let mut packets: Vec<_> = all.into_iter().map(|to| (Packet::copy_from(&b"packet"[..]), to)).collect();
        send.send_many_to(&mut <Sender as UdpSend>::SendManyBuf::default(), &mut packets).await.unwrap();
        let mut buffer = [0; 16];
        for _ in 0..2 {
            assert_eq!(there.recv_from(&mut buffer).unwrap().0, 6);
        }
    }
}
