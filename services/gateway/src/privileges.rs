//! What needs privileges, and giving them up.
//!
//! Linux counts capabilities a thread, so both happen before there is a second one: the tunnel's device and port 443 are opened,
//! then everything but NET_ADMIN goes, and every thread made afterwards has that alone. NET_ADMIN stays, since each new
//! partner brings addresses and routes for the device, which `ip` sets.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use rustix::{
    io::Errno,
    thread::{
        CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set, clear_ambient_capability_set,
        remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
    },
};
use tokio::net::TcpSocket;
use tun_rs::SyncDevice;

use crate::{
    config::Backend,
    tunnel::{
        device,
        filter::ENROLMENT,
        kernel::{KernelError, Links},
    },
};

/// What could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The TUN device.
    #[error("TUN device {0}: {1} (the pod needs NET_ADMIN and /dev/net/tun)")]
    Tun(String, io::Error),
    /// The kernel's WireGuard, which was asked for by name.
    #[error("{0}; without WireGuard and nftables in the node's kernel, set the backend to userspace or auto")]
    Kernel(#[from] KernelError),
    /// The port on it.
    #[error("port {0}: {1} (the pod needs NET_BIND_SERVICE)")]
    Port(u16, io::Error),
}

/// What the tunnel's packets come by.
pub enum Device {
    /// The TUN device.
    Tun(SyncDevice),
    /// The kernel's own links.
    Kernel(Box<Links>),
}

/// What only a privileged process can open. Made before the runtime is.
pub struct Opened {
    /// The device; it goes with the process.
    pub device: Device,
    /// A socket bound to the port, on the TUN device and nothing else; with the kernel's links on all there is, since there are two, and
    /// their packet filter keeps it to them. It does not listen yet.
    pub socket: TcpSocket,
    /// The same for enrolment.
    pub enrolment: TcpSocket,
}

impl Opened {
    /// Makes the device, and takes the port, and that of enrolment, on it.
    pub fn open(backend: Backend, name: &str, port: u16) -> Result<Self, OpenError> {
        let device = make(backend, name)?;
        let on = matches!(device, Device::Tun(_)).then_some(name);
        Ok(Self { device, socket: take(on, port)?, enrolment: take(on, ENROLMENT)? })
    }
}

fn make(backend: Backend, name: &str) -> Result<Device, OpenError> {
    let kernel = || Links::make(name).map(|links| Device::Kernel(Box::new(links)));
    match backend {
        Backend::Kernel => return Ok(kernel()?),
        Backend::Userspace => {}
        Backend::Auto => match kernel() {
            Ok(device) => return Ok(device),
            Err(error) => tracing::info!(%error, "not the kernel's WireGuard, but this process's own"),
        },
    }
    let tun = device::open(name).map_err(|error| OpenError::Tun(name.to_owned(), error))?;
    Ok(Device::Tun(tun))
}

fn take(device: Option<&str>, port: u16) -> Result<TcpSocket, OpenError> {
    let any: [SocketAddr; 2] = [(Ipv6Addr::UNSPECIFIED, port).into(), (Ipv4Addr::UNSPECIFIED, port).into()];
    // [::] takes both families; where there is no IPv6, IPv4 alone.
    let [both, four] = any.map(|address| bind(device, address));
    both.or(four).map_err(|error| OpenError::Port(port, error))
}

fn bind(device: Option<&str>, address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv6() { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
    socket.set_reuseaddr(true)?;
    if let Some(device) = device {
        socket.bind_device(Some(device.as_bytes()))?;
    }
    socket.bind(address)?;
    Ok(socket)
}

/// Gives up every capability but NET_ADMIN, and the way back to any (also by running a program): for this thread, and all
/// that it makes.
pub fn reduce() -> io::Result<()> {
    set_no_new_privs(true)?;
    for capability in CapabilitySet::all().iter().filter(|capability| *capability != CapabilitySet::NET_ADMIN) {
        match capability_is_in_bounding_set(capability) {
            // A kernel that does not know it has nothing to give up.
            Ok(false) | Err(Errno::INVAL) => continue,
            Ok(true) => {}
            Err(error) => return Err(error.into()),
        }
        match remove_capability_from_bounding_set(capability) {
            // That takes SETPCAP, which a container does not have. What is not permitted below, no_new_privs keeps away.
            Ok(()) | Err(Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
    }
    clear_ambient_capability_set()?;
    let kept = capabilities(None)?.permitted & CapabilitySet::NET_ADMIN;
    set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() })?;
    Ok(())
}
