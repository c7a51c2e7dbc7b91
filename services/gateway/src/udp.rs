//! The UDP socket of the WireGuard device, on which one packet that cannot be sent costs no other its place.
//!
//! What goes out is sent in batches, and the device drops the rest of a batch after a packet that the kernel refuses. Anybody
//! can bring that about: whoever claims to send from port 0 is to be answered there. So what is left is sent one by one.

use std::{io, net::SocketAddr};

use gotatun::{
    packet::Packet,
    udp::{
        UdpSend, UdpTransportFactory, UdpTransportFactoryParams,
        socket::{UdpSocket, UdpSocketFactory},
    },
};

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

impl UdpSend for Sender {
    type SendManyBuf = <UdpSocket as UdpSend>::SendManyBuf;

    async fn send_to(&self, packet: Packet, destination: SocketAddr) -> io::Result<()> {
        self.0.send_to(packet, destination).await
    }

    fn max_number_of_packets_to_send(&self) -> usize {
        self.0.max_number_of_packets_to_send()
    }

    async fn send_many_to(
        &self,
        buffer: &mut Self::SendManyBuf,
        packets: &mut Vec<(Packet, SocketAddr)>,
    ) -> io::Result<()> {
        if self.0.send_many_to(buffer, packets).await.is_err() {
            // Some may have been sent; that one comes twice does no harm in WireGuard.
            for (packet, destination) in packets.drain(..) {
                let _ = self.0.send_to(packet, destination).await;
            }
        }
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

    #[tokio::test]
    async fn a_packet_that_cannot_be_sent_costs_no_other_its_place() {
        let there = Plain::bind("127.0.0.1:0").unwrap();
        there.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let good = there.local_addr().unwrap();
        let params = UdpTransportFactoryParams { addr: Some([127, 0, 0, 1].into()), port: 0, fwmark: None };
        let (send, _recv) = Factory::default().bind(&params).await.unwrap();
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
