//! The operator's metrics. Labels are closed sets and partner names; never a key, an address or a person.

use std::sync::{Mutex, atomic::AtomicI64};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::pool::Count;

/// Kind of object and how its reconcile ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Reconcile {
    /// Kind.
    pub kind: &'static str,
    /// `ok` or the reason of the error.
    pub result: &'static str,
}

/// A partner's condition.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Condition {
    /// Partner.
    pub partner: String,
    /// Condition type.
    pub condition: String,
}

/// A partner.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Partner {
    /// Partner.
    pub partner: String,
}

/// What becomes of tunnel slots.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Slots {
    /// `claimed`, `quarantined` or `free`.
    pub state: &'static str,
}

/// A tier of the authority.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfTier {
    /// `root` or `issuing`.
    pub tier: &'static str,
}

/// All of them.
#[derive(Debug)]
pub struct Metrics {
    /// Reconciles that ended.
    pub reconciles: Family<Reconcile, Counter>,
    /// 1 when the condition is True.
    pub conditions: Family<Condition, Gauge<i64, AtomicI64>>,
    /// Unix time at which the partner's last certificate ends.
    pub certificate_expiration: Family<Partner, Gauge<i64, AtomicI64>>,
    /// Unix time since when the partner's bundle waits to be picked up.
    pub bundle_waiting: Family<Partner, Gauge<i64, AtomicI64>>,
    /// Tunnel slots of the pool, as the leader last counted them.
    pub slots: Family<Slots, Gauge<i64, AtomicI64>>,
    /// Unix time at which the active CA of a tier ends.
    pub authority_expiration: Family<OfTier, Gauge<i64, AtomicI64>>,
    /// For how many a step of a tier's rotation waits without an end.
    pub authority_laggards: Family<OfTier, Gauge<i64, AtomicI64>>,
    /// 1 on the leader.
    pub leader: Gauge<i64, AtomicI64>,
    registry: Mutex<Registry>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let (reconciles, conditions, certificate_expiration, slots, leader) =
            (Family::default(), Family::default(), Family::default(), Family::default(), Gauge::default());
        registry.register("liaison_operator_reconciles", "Reconciles that ended", Family::clone(&reconciles));
        registry.register(
            "liaison_partner_condition",
            "1 when the condition is True, else 0",
            Family::clone(&conditions),
        );
        registry.register(
            "liaison_partner_certificate_expiration_timestamp_seconds",
            "When the last of the partner's certificates ends, Unix time",
            Family::clone(&certificate_expiration),
        );
        let bundle_waiting = Family::default();
        registry.register(
            "liaison_partner_bundle_made_timestamp_seconds",
            "When the bundle was made that the partner has not picked up, Unix time",
            Family::clone(&bundle_waiting),
        );
        registry.register("liaison_operator_tunnel_slots", "Tunnel slots of the pool", Family::clone(&slots));
        let (authority_expiration, authority_laggards) = (Family::default(), Family::default());
        registry.register(
            "liaison_operator_authority_expiration_timestamp_seconds",
            "When the CA that signs ends, Unix time",
            Family::clone(&authority_expiration),
        );
        registry.register(
            "liaison_operator_authority_laggards",
            "For how many a step of a CA's rotation waits until they change, or somebody looks",
            Family::clone(&authority_laggards),
        );
        registry.register("liaison_operator_leader", "1 on the replica that leads", Gauge::clone(&leader));
        Self {
            reconciles,
            conditions,
            certificate_expiration,
            bundle_waiting,
            slots,
            authority_expiration,
            authority_laggards,
            leader,
            registry: Mutex::new(registry),
        }
    }
}

impl Metrics {
    /// Says how full the pool is.
    pub fn count_slots(&self, count: Count) {
        for (state, slots) in [("claimed", count.claimed), ("quarantined", count.quarantined), ("free", count.free)] {
            self.slots.get_or_create(&Slots { state }).set(i64::from(slots));
        }
    }

    /// The text that Prometheus reads.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        if let Ok(registry) = self.registry.lock() {
            // Writing to a String does not fail.
            let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
        }
        text
    }
}
