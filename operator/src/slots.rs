//! Tunnel slots: number n is a /31 and a /127, the pool's base plus 2n; the even address is the gateway's, the odd the partner's.
//!
//! Pure arithmetic. A slot is claimed elsewhere, by creating the Lease `slot-<n>`.

use std::net::{Ipv4Addr, Ipv6Addr};

use liaison_crds::partner_connection::AddressPair;
use sha2::{Digest, Sha256};

/// The two pools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pools {
    v4: u32,
    v6: u128,
    slots: u32,
}

/// A pool that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "tunnel pool '{0}' must be a network such as 100.72.0.0/16 or fd4c:6961:6973::/112, with room for at least two slots"
)]
pub struct BadPool(String);

impl Pools {
    /// Reads `100.72.0.0/16` and `fd4c:6961:6973::/112`.
    pub fn parse(v4: &str, v6: &str) -> Result<Self, BadPool> {
        let bad = |text: &str| BadPool(text.to_owned());
        let (base4, len4) = v4.split_once('/').ok_or_else(|| bad(v4))?;
        let (base6, len6) = v6.split_once('/').ok_or_else(|| bad(v6))?;
        let base4: Ipv4Addr = base4.parse().map_err(|_| bad(v4))?;
        let base6: Ipv6Addr = base6.parse().map_err(|_| bad(v6))?;
        let len4: u32 = len4.parse().ok().filter(|len| (8..=29).contains(len)).ok_or_else(|| bad(v4))?;
        let len6: u32 = len6.parse().ok().filter(|len| (64..=125).contains(len)).ok_or_else(|| bad(v6))?;
        let (bits4, bits6) = (32 - len4, 128 - len6);
        let (base4, base6) = (u32::from(base4), u128::from(base6));
        if base4 & ((1 << bits4) - 1) != 0 {
            return Err(bad(v4));
        }
        if base6 & ((1 << bits6) - 1) != 0 {
            return Err(bad(v6));
        }
        Ok(Self { v4: base4, v6: base6, slots: 1 << (bits4.min(bits6) - 1) })
    }

    /// How many slots can be given: the first and the last hold addresses that some stacks treat specially.
    pub fn usable(&self) -> u32 {
        self.slots - 2
    }

    /// The addresses of a slot: the gateway's, then the partner's.
    pub fn addresses(&self, slot: u32) -> (AddressPair, AddressPair) {
        let pair = |odd: u32| AddressPair {
            ipv4: Ipv4Addr::from(self.v4 + 2 * slot + odd).to_string(),
            ipv6: Ipv6Addr::from(self.v6 + u128::from(2 * slot + odd)).to_string(),
        };
        (pair(0), pair(1))
    }

    /// The usable slot whose partner's end this IPv4 address is.
    pub fn slot_of(&self, partner: &str) -> Option<u32> {
        let offset = u32::from(partner.parse::<Ipv4Addr>().ok()?).checked_sub(self.v4)?;
        let slot = offset / 2;
        (offset % 2 == 1 && (1..=self.usable()).contains(&slot)).then_some(slot)
    }

    /// All usable slots in the order in which a partner tries them: first a hash of its name, then upwards, around.
    pub fn probe(&self, partner: &str) -> impl Iterator<Item = u32> + use<> {
        let digest = Sha256::digest(partner.as_bytes());
        let first = digest.iter().take(4).fold(0_u32, |sum, byte| (sum << 8) | u32::from(*byte));
        let usable = self.usable();
        (0..usable).map(move |step| 1 + (first % usable + step) % usable)
    }
}

/// Name of the Lease that claims a slot.
pub fn lease_name(slot: u32) -> String {
    format!("slot-{slot}")
}

/// The slot that a Lease of this name claims.
pub fn slot_of(lease: &str) -> Option<u32> {
    lease.strip_prefix("slot-")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_two_pairs() {
        let pools = Pools::parse("100.72.0.0/16", "fd4c:6961:6973::/112").unwrap();
        let (gateway, partner) = pools.addresses(129);
        assert_eq!((gateway.ipv4.as_str(), partner.ipv4.as_str()), ("100.72.1.2", "100.72.1.3"));
        assert_eq!((gateway.ipv6.as_str(), partner.ipv6.as_str()), ("fd4c:6961:6973::102", "fd4c:6961:6973::103"));
        assert_eq!(pools.usable(), 32766);
        assert_eq!(pools.slot_of(&partner.ipv4), Some(129));
        let outside = ["100.72.1.2", "100.72.0.1", "100.72.255.255", "100.71.0.3", "100.73.0.3", "fd4c::3", "x"];
        assert!(outside.iter().all(|address| pools.slot_of(address).is_none()));
    }

    #[test]
    fn probing_is_deterministic_and_reaches_every_slot_once() {
        let pools = Pools::parse("100.72.0.0/27", "fd4c::/112").unwrap();
        let mut slots: Vec<u32> = pools.probe("vancouver-police").collect();
        assert_eq!(slots, pools.probe("vancouver-police").collect::<Vec<_>>());
        slots.sort_unstable();
        assert_eq!(slots, (1..=14).collect::<Vec<_>>());
        assert_eq!(slot_of(&lease_name(7)), Some(7));
    }

    #[test]
    fn refuses_what_is_no_network() {
        for (v4, v6) in [
            ("100.72.0.1/16", "fd4c::/112"),
            ("100.72.0.0", "fd4c::/112"),
            ("100.72.0.0/31", "fd4c::/112"),
            ("100.72.0.0/16", "fd4c::1/112"),
        ] {
            assert!(Pools::parse(v4, v6).is_err(), "{v4} {v6}");
        }
    }
}
