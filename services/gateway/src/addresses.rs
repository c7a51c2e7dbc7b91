//! The addresses and routes of the tunnel's device, or of its two links, by `ip -batch`.
//!
//! Each slot brings the gateway's two addresses and a route to the partner's two; never a local route for the whole pool,
//! which would make the partners' addresses ours. Everything is `replace` and idempotent, and goes with the device. Of two links the
//! first has the addresses, since an address is the host's whatever it came by, and a route names one of them.

use std::{
    fmt::Write as _,
    net::IpAddr,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{io::AsyncWriteExt, process::Command};

use crate::{state::Slot, tunnel::filter::gateway_end};

/// MTU of the tunnel: leaves room for WireGuard over IPv6 on a path of 1460.
pub const MTU: u16 = 1380;

/// What `ip` did not do.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// `ip` could not be run.
    #[error("cannot run ip (iproute2 must be installed): {0}")]
    Run(#[from] std::io::Error),
    /// `ip` refused.
    #[error("ip: {0}")]
    Refused(String),
}

/// The addresses of a device, or of two links.
#[derive(Debug, Clone)]
pub struct Addresses {
    devices: Vec<String>,
    /// By which of them the routes of new partners go.
    by: Arc<AtomicUsize>,
    ipv6: bool,
}

impl Addresses {
    /// Brings the devices up, of which there is at least one. Where IPv6 is off for the first, only IPv4 is configured.
    pub async fn up(devices: &[String]) -> Result<Self, AddressError> {
        let first = devices.first().map_or("", String::as_str);
        let switch = format!("/proc/sys/net/ipv6/conf/{first}/disable_ipv6");
        let ipv6 = tokio::fs::read_to_string(switch).await.is_ok_and(|text| text.trim() == "0");
        if !ipv6 {
            tracing::warn!(device = first, "IPv6 is off on the tunnel device; partners are served over IPv4 only");
        }
        for device in devices {
            if ipv6 {
                // No link-local address and no router solicitation on this link; older kernels lack the switch.
                let _ = batch(&format!("link set dev {device} addrgenmode none\n")).await;
            }
            batch(&format!("link set dev {device} mtu {MTU} txqueuelen 500 up\n")).await?;
        }
        Ok(Self { devices: devices.to_vec(), by: Arc::default(), ipv6 })
    }

    fn device(&self, number: usize) -> &str {
        self.devices.get(number).or(self.devices.first()).map_or("", String::as_str)
    }

    /// Has the routes of new partners go by this device.
    pub fn go_by(&self, number: usize) {
        self.by.store(number, Ordering::Relaxed);
    }

    /// Adds the addresses and routes of these slots.
    pub async fn add(&self, slots: &[Slot]) -> Result<(), AddressError> {
        let mut text = String::new();
        let (first, by) = (self.device(0), self.by.load(Ordering::Relaxed));
        for slot in slots {
            for (ours, theirs) in self.ends(slot) {
                let nodad = if ours.is_ipv4() { "" } else { " nodad" };
                let _ = writeln!(text, "addr replace {ours}/{} dev {first}{nodad}", prefix(ours));
                self.write_route(&mut text, ours, theirs, by);
            }
        }
        batch(&text).await
    }

    /// Has the routes to these partners' addresses go by these devices.
    pub async fn route(&self, partners: &[(IpAddr, usize)]) -> Result<(), AddressError> {
        let mut text = String::new();
        for (theirs, number) in partners.iter().filter(|(theirs, _)| self.ipv6 || theirs.is_ipv4()) {
            self.write_route(&mut text, gateway_end(*theirs), *theirs, *number);
        }
        batch(&text).await
    }

    fn write_route(&self, text: &mut String, ours: IpAddr, theirs: IpAddr, number: usize) {
        let _ = writeln!(text, "route replace {theirs}/{} dev {} src {ours}", prefix(theirs), self.device(number));
    }

    /// Removes the addresses and routes of a slot; what is already gone is no error.
    pub async fn remove(&self, slot: &Slot) -> Result<(), AddressError> {
        let mut text = String::new();
        let first = self.device(0);
        for (ours, theirs) in self.ends(slot) {
            // By whichever device it goes.
            let _ = writeln!(text, "route del {theirs}/{}", prefix(theirs));
            let _ = writeln!(text, "addr del {ours}/{} dev {first}", prefix(ours));
        }
        match batch(&text).await {
            Err(AddressError::Refused(_)) => Ok(()),
            other => other,
        }
    }

    fn ends(&self, slot: &Slot) -> impl Iterator<Item = (IpAddr, IpAddr)> {
        let ipv6 = self.ipv6;
        slot.gateway().into_iter().zip(slot.partner()).filter(move |(ours, _)| ipv6 || ours.is_ipv4())
    }
}

const fn prefix(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

async fn batch(commands: &str) -> Result<(), AddressError> {
    if commands.is_empty() {
        return Ok(());
    }
    let mut child = Command::new("ip")
        .args(["-force", "-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(commands.as_bytes()).await?;
    }
    let output = child.wait_with_output().await?;
    if output.status.success() {
        Ok(())
    } else {
        Err(AddressError::Refused(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }
}
