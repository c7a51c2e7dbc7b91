//! The kernel's links, one a listener, with the packet filter: made at the start, gone at the end.

use std::process::Command;

use netlink_sys::protocols::NETLINK_NETFILTER;

use super::{
    KernelError,
    netlink::Conversation,
    rules::{self, Counted},
    wireguard::WireGuard,
};
use crate::tunnel::listeners::LISTENERS;

/// The links and the packet filter, without keys and peers. They go with this value.
pub struct Links {
    pub(super) names: [String; LISTENERS],
    pub(super) wireguard: WireGuard,
    pub(super) filter: Conversation,
}

impl Links {
    /// Makes them, and the filter before them. What a process before left under these names is removed.
    ///
    /// # Errors
    ///
    /// Where the kernel has no WireGuard or no nftables, or the process no NET_ADMIN. Nothing is left then.
    pub fn make(name: &str) -> Result<Self, KernelError> {
        let names = [name.to_owned(), format!("{name}-2")];
        let mut filter = Conversation::open(NETLINK_NETFILTER).map_err(KernelError::Filter)?;
        for name in &names {
            // There is none, most often.
            let _ = link(&["del", "dev", name]);
        }
        let [first, second] = names.each_ref().map(String::as_str);
        filter.ask::<Counted>(rules::table(&[first, second])).map_err(KernelError::Filter)?;
        let made = [first, second]
            .into_iter()
            .try_for_each(|name| link(&["add", "dev", name, "type", "wireguard"]))
            .and_then(|()| WireGuard::open().map_err(KernelError::WireGuard));
        match made {
            Ok(wireguard) => Ok(Self { names, wireguard, filter }),
            Err(error) => {
                unmake(&names, &mut filter);
                Err(error)
            }
        }
    }

    /// Has them listen on these UDP ports, as soon as they are up.
    pub fn listen(mut self, ports: [u16; LISTENERS]) -> Result<Self, KernelError> {
        let mut each = self.names.iter().zip(ports);
        each.try_for_each(|(name, port)| self.wireguard.listen(name, port)).map_err(KernelError::WireGuard)?;
        Ok(self)
    }

    /// Their names, a listener each.
    pub const fn names(&self) -> &[String; LISTENERS] {
        &self.names
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        unmake(&self.names, &mut self.filter);
    }
}

fn unmake(names: &[String], filter: &mut Conversation) {
    for name in names {
        let _ = link(&["del", "dev", name]);
    }
    let _ = filter.ask::<Counted>(rules::no_table());
}

fn link(arguments: &[&str]) -> Result<(), KernelError> {
    let output = Command::new("ip").arg("link").args(arguments).output().map_err(KernelError::Run)?;
    if output.status.success() {
        return Ok(());
    }
    Err(KernelError::Link(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}
