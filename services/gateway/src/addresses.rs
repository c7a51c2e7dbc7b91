//! The TUN device's addresses and routes, by `ip -batch`.
//!
//! Each slot brings the gateway's two addresses and a route to the partner's two; never a local route for the whole pool,
//! which would make the partners' addresses ours. Everything is `replace` and idempotent; the device and all of it go
//! with the process.

use std::{fmt::Write as _, net::IpAddr, process::Stdio};

use tokio::{io::AsyncWriteExt, process::Command};

use crate::state::Slot;

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

/// The addresses of one TUN device.
#[derive(Debug, Clone)]
pub struct Addresses {
    device: String,
    ipv6: bool,
}

impl Addresses {
    /// Brings the device up. Where IPv6 is off for it, only IPv4 is configured.
    pub async fn up(device: &str) -> Result<Self, AddressError> {
        let switch = format!("/proc/sys/net/ipv6/conf/{device}/disable_ipv6");
        let ipv6 = tokio::fs::read_to_string(switch).await.is_ok_and(|text| text.trim() == "0");
        if ipv6 {
            // No link-local address and no router solicitation on this link; older kernels lack the switch.
            let _ = batch(&format!("link set dev {device} addrgenmode none\n")).await;
        } else {
            tracing::warn!(device, "IPv6 is off on the tunnel device; partners are served over IPv4 only");
        }
        batch(&format!("link set dev {device} mtu {MTU} txqueuelen 500 up\n")).await?;
        Ok(Self { device: device.to_owned(), ipv6 })
    }

    /// Adds the addresses and routes of these slots.
    pub async fn add(&self, slots: &[Slot]) -> Result<(), AddressError> {
        let mut text = String::new();
        for slot in slots {
            for (ours, theirs) in self.ends(slot) {
                let (prefix, nodad) = if ours.is_ipv4() { (32, "") } else { (128, " nodad") };
                let device = &self.device;
                let _ = writeln!(text, "addr replace {ours}/{prefix} dev {device}{nodad}");
                let _ = writeln!(text, "route replace {theirs}/{prefix} dev {device} src {ours}");
            }
        }
        batch(&text).await
    }

    /// Removes the addresses and routes of a slot; what is already gone is no error.
    pub async fn remove(&self, slot: &Slot) -> Result<(), AddressError> {
        let mut text = String::new();
        for (ours, theirs) in self.ends(slot) {
            let prefix = if ours.is_ipv4() { 32 } else { 128 };
            let device = &self.device;
            let _ = writeln!(text, "route del {theirs}/{prefix} dev {device}");
            let _ = writeln!(text, "addr del {ours}/{prefix} dev {device}");
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
