//! The two resources of `federation.csc-scc.gc.ca/v1alpha1` and their pure validation.
//!
//! Types, and what can be said of them without a cluster; and [`leader`] and [`gateway`], which operator and gateway have in common. `crds/yaml` is
//! generated from here and checked for drift.

pub mod acceptance;
pub mod enrolment;
pub mod gateway;
pub mod leader;
pub mod partner_connection;
pub mod revocation;
mod rules;
pub mod schema;
pub mod sharing_agreement;

pub use gateway::GatewayName;
pub use partner_connection::{PartnerConnection, PartnerConnectionSpec, PartnerConnectionStatus};
pub use sharing_agreement::{SharingAgreement, SharingAgreementSpec, SharingAgreementStatus};

/// The API group.
pub const GROUP: &str = "federation.csc-scc.gc.ca";

/// The finalizer on both kinds.
pub const FINALIZER: &str = "federation.csc-scc.gc.ca/cleanup";

/// The label that names the partner an object belongs to.
pub const PARTNER_LABEL: &str = "federation.csc-scc.gc.ca/partner";

/// The annotation of a key's claim that says when the key was revoked. Such a claim is never freed.
pub const REVOKED_ANNOTATION: &str = "federation.csc-scc.gc.ca/revoked";

/// The annotation of a tunnel slot's claim that says when its partner gave it up. It is freed some time after.
pub const RELEASED_ANNOTATION: &str = "federation.csc-scc.gc.ca/released";

/// The annotation of a connection that asks for a verification of its replica; any new value asks again.
pub const VERIFY_ANNOTATION: &str = "federation.csc-scc.gc.ca/verify";

/// The annotation that asks for a replica to be made anew, and verified; any new value asks again.
pub const REBUILD_ANNOTATION: &str = "federation.csc-scc.gc.ca/rebuild";

/// The annotation of a connection that says that its bundle was picked up; its value is the bundle's SHA-256 in hex.
pub const PICKED_UP_ANNOTATION: &str = "federation.csc-scc.gc.ca/picked-up";

/// The label of the gateway's pod that serves its shard's partners; its Service selects by it.
pub const ACTIVE_LABEL: &str = "federation.csc-scc.gc.ca/active";

/// The Secrets beside the gateway that hold preshared keys: a fixed few, so that RBAC can name them.
pub const PRESHARED_SECRETS: [&str; 4] = ["gateway-psk-0", "gateway-psk-1", "gateway-psk-2", "gateway-psk-3"];

/// Name of a WireGuard key's entry there, and of what claims it, given its 32 bytes.
pub fn preshared_entry(key: &[u8]) -> String {
    let digest = <sha2::Sha256 as sha2::Digest>::digest(key);
    digest.iter().take(20).fold(String::with_capacity(40), |text, byte| text + &format!("{byte:02x}"))
}

/// Whether a Curve25519 public key is written as `wg pubkey` prints it: below 2^255 - 19. WireGuard takes other numbers for the same key.
pub fn is_canonical(key: &[u8; 32]) -> bool {
    let [low, middle @ .., high] = key;
    *high < 0x7f || (*high == 0x7f && !(middle.iter().all(|byte| *byte == 0xff) && *low >= 0xed))
}

/// The Secret that has the entry of this name.
pub fn preshared_secret(entry: &str) -> Option<&'static str> {
    let digit = entry.chars().next()?.to_digit(16)?;
    PRESHARED_SECRETS.get(usize::try_from(digit).ok()? % PRESHARED_SECRETS.len()).copied()
}

/// Condition types. A meaning is API: it does not change.
pub mod conditions {
    /// All that Liaison provisions is there for this generation.
    pub const READY: &str = "Ready";
    /// The agreement covers what the manifest asks.
    pub const ACCEPTED: &str = "Accepted";
    /// Keys are claimed and certificates issued.
    pub const CREDENTIALS_READY: &str = "CredentialsReady";
    /// The replica has been made and filled.
    pub const REPLICA_READY: &str = "ReplicaReady";
    /// The partner's read service runs.
    pub const ACCESS_READY: &str = "AccessReady";
    /// Written by the gateway: the partner's tunnel is up.
    pub const CONNECTED: &str = "Connected";
    /// Written by sync: the replica is inside its freshness objective.
    pub const DATA_FRESH: &str = "DataFresh";
    /// The last verification found the replica to be its scope without repairing anything.
    pub const VERIFIED: &str = "Verified";
    /// Of an agreement: today lies between its dates.
    pub const IN_FORCE: &str = "InForce";
}

#[cfg(test)]
mod tests {
    use super::is_canonical;

    #[test]
    fn a_key_is_written_in_one_way() {
        let with = |low: u8, high: u8| {
            let mut key = [0xff; 32];
            (key[0], key[31]) = (low, high);
            key
        };
        assert!(is_canonical(&[9; 32]) && is_canonical(&with(0xec, 0x7f)) && is_canonical(&with(0xff, 0x7e)));
        // 2^255 - 19 is 0 again, and the highest bit says nothing.
        assert!(!is_canonical(&with(0xed, 0x7f)) && !is_canonical(&[0x89; 32]));
    }
}
