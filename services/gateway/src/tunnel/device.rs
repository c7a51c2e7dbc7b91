//! The TUN device, many packets a system call.
//!
//! The kernel hands a connection's data over in segments of up to 64 KiB, which are cut into packets here; and what comes of one
//! connection is handed to it as one segment. Opened while the process has its privileges; its addresses are [`crate::addresses`]'s.

use std::{io, sync::Arc};

use bytes::BytesMut;
use gotatun::{
    packet::{Ip, Packet, PacketBufPool},
    tun::{IpRecv, IpSend, MtuWatcher},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tun_rs::{AsyncDevice, DeviceBuilder, GROTable, SyncDevice, VIRTIO_NET_HDR_LEN};

use super::filter::Drop;
use crate::{addresses::MTU, metrics::Metrics};

/// The largest segment, with what the kernel says of it.
const SEGMENT: usize = VIRTIO_NET_HDR_LEN + (1 << 16);
/// Packets that a segment is cut into at most: of 256 bytes and more each. Nobody's connection needs smaller ones, and one that has
/// them gets no further by segments.
const PACKETS: usize = 256;
/// Packets that are taken together for one segment, if they are there.
const BATCH: usize = 64;

/// Makes the device, not up yet.
///
/// # Errors
///
/// Without NET_ADMIN or `/dev/net/tun`.
pub fn open(name: &str) -> io::Result<SyncDevice> {
    let device = |offload| DeviceBuilder::new().name(name).offload(offload).inherit_enable_state().build_sync();
    // A kernel without segments takes packets.
    device(true).or_else(|_| device(false))
}

/// EBADF, ENODEV, EBADFD: the device itself is gone.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(9 | 19 | 77))
}

/// The writing end. It may be cloned.
#[derive(Clone)]
pub struct Writer(mpsc::Sender<Packet<Ip>>);

impl IpSend for Writer {
    /// Fails when the device is gone. A packet that the kernel refuses is dropped and counted, and is nobody else's problem.
    async fn send(&mut self, packet: Packet<Ip>) -> io::Result<()> {
        self.0.send(packet).await.map_err(|_| io::Error::from_raw_os_error(19))
    }
}

/// The reading end.
pub struct Reader {
    tun: Arc<AsyncDevice>,
    metrics: Arc<Metrics>,
    failed: CancellationToken,
    segment: Box<[u8]>,
    packets: Vec<Cut>,
    sizes: Vec<usize>,
}

/// A packet's buffer.
struct Cut(Packet<[u8]>);

impl AsRef<[u8]> for Cut {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl AsMut<[u8]> for Cut {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// Both ends; `failed` is cancelled when the device is gone. Within a runtime.
///
/// # Errors
///
/// The runtime's.
pub fn split(tun: SyncDevice, metrics: &Arc<Metrics>, failed: &CancellationToken) -> io::Result<(Reader, Writer)> {
    let tun = Arc::new(AsyncDevice::new(tun)?);
    let (sender, packets) = mpsc::channel(BATCH);
    tokio::spawn(write(Arc::clone(&tun), packets, Arc::clone(metrics), failed.clone()));
    let reader = Reader {
        tun,
        metrics: Arc::clone(metrics),
        failed: failed.clone(),
        segment: vec![0; SEGMENT].into(),
        packets: Vec::with_capacity(PACKETS),
        sizes: vec![0; PACKETS],
    };
    Ok((reader, Writer(sender)))
}

impl IpRecv for Reader {
    /// Fails when the device is gone.
    async fn recv<'a>(
        &'a mut self,
        pool: &mut PacketBufPool,
    ) -> io::Result<impl Iterator<Item = Packet<Ip>> + Send + 'a> {
        self.packets.resize_with(PACKETS, || Cut(pool.get()));
        let cut = loop {
            match self.tun.recv_multiple(&mut self.segment, &mut self.packets, &mut self.sizes, 0).await {
                Ok(cut) => break cut,
                Err(error) if error.raw_os_error().is_some() => {
                    self.failed.cancel();
                    return Err(error);
                }
                // A segment that cannot be cut.
                Err(_) => self.metrics.dropped("out", Drop::Device.label()),
            }
        };
        let sizes = self.sizes.iter().copied();
        Ok(self.packets.drain(..cut).zip(sizes).filter_map(|(Cut(mut packet), size)| {
            packet.truncate(size);
            packet.try_into_ip().ok()
        }))
    }

    fn mtu(&self) -> MtuWatcher {
        MtuWatcher::new(MTU)
    }
}

async fn write(
    tun: Arc<AsyncDevice>,
    mut packets: mpsc::Receiver<Packet<Ip>>,
    metrics: Arc<Metrics>,
    failed: CancellationToken,
) {
    let mut table = GROTable::default();
    let mut batch = Vec::with_capacity(BATCH);
    // Each may become the segment that others are put into.
    let mut buffers: Vec<BytesMut> = (0..BATCH).map(|_| BytesMut::with_capacity(2 * SEGMENT)).collect();
    while packets.recv_many(&mut batch, BATCH).await > 0 {
        let taken = &mut buffers[..batch.len()];
        for (buffer, packet) in taken.iter_mut().zip(batch.drain(..)) {
            buffer.clear();
            buffer.resize(VIRTIO_NET_HDR_LEN, 0);
            buffer.extend_from_slice(&packet.into_bytes());
        }
        match tun.send_multiple(&mut table, taken, VIRTIO_NET_HDR_LEN).await {
            Ok(_) => {}
            Err(error) if is_gone(&error) => return failed.cancel(),
            // What else was in the batch has been written.
            Err(_) => metrics.dropped("in", Drop::Device.label()),
        }
    }
}
