//! Metrics. Labels are partner names and fixed reasons only, so their number is bounded and none holds personal data.

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// Label of a partner.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByPartner {
    partner: String,
}

/// Label of a refusal. The partner is the one whose address was called; empty when it is none.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    partner: String,
    reason: &'static str,
}

/// Label of an answered request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByCode {
    partner: String,
    code: &'static str,
}

/// Label of a TLS handshake.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByGroup {
    partner: String,
    group: &'static str,
}

/// Label of what ends the tunnels.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByBackend {
    backend: &'static str,
}

/// Label of a dropped packet.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByDirection {
    direction: &'static str,
    reason: &'static str,
}

/// All metrics of the gateway.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    handshakes: Family<ByPartner, Counter>,
    last_handshake: Family<ByPartner, Gauge>,
    key_in_use: Family<ByPartner, Gauge>,
    rx_bytes: Family<ByPartner, Counter>,
    tx_bytes: Family<ByPartner, Counter>,
    connections: Family<ByPartner, Gauge>,
    cut: Family<ByPartner, Counter>,
    refused: Family<ByReason, Counter>,
    requests: Family<ByCode, Counter>,
    tls: Family<ByGroup, Counter>,
    dropped: Family<ByDirection, Counter>,
    backend: Family<ByBackend, Gauge>,
    open: Gauge,
    closed: Gauge,
    /// 1 where this process serves its shard's partners.
    pub active: Gauge,
    /// Unix seconds at which the API was last heard.
    pub heard: Gauge,
    /// Revocations that this gateway has not acknowledged in status yet.
    pub unacknowledged: Gauge,
    /// Failures to bring the data plane in line with the table.
    pub apply_errors: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("liaison_gateway");
        let handshakes = Family::default();
        let last_handshake = Family::default();
        let key_in_use = Family::default();
        let rx_bytes = Family::default();
        let tx_bytes = Family::default();
        let connections = Family::default();
        let cut = Family::default();
        let refused = Family::default();
        let requests = Family::default();
        let tls = Family::default();
        let dropped = Family::default();
        let backend = Family::default();
        let (open, closed, heard, active) = (Gauge::default(), Gauge::default(), Gauge::default(), Gauge::default());
        let (apply_errors, unacknowledged) = (Counter::default(), Gauge::default());
        registry.register("wireguard_handshakes", "WireGuard handshakes completed", handshakes.clone());
        registry.register(
            "wireguard_last_handshake_timestamp_seconds",
            "Unix time of the last WireGuard handshake",
            last_handshake.clone(),
        );
        registry.register(
            "wireguard_key_in_use",
            "Which of the manifest's WireGuard keys has the partner's address, counted from 1",
            key_in_use.clone(),
        );
        registry.register("wireguard_received_bytes", "Bytes received from the partner", rx_bytes.clone());
        registry.register("wireguard_sent_bytes", "Bytes sent to the partner", tx_bytes.clone());
        registry.register("connections", "Open HTTPS connections", connections.clone());
        registry.register("connections_cut", "Live connections ended by the gateway", cut.clone());
        registry.register("refused", "Connections and requests refused", refused.clone());
        registry.register("requests", "Requests answered, by class of status code", requests.clone());
        registry.register("tls_handshakes", "TLS handshakes of partners let in, by key exchange group", tls.clone());
        registry.register("packets_dropped", "Packets dropped between WireGuard and TUN", dropped.clone());
        registry.register("wireguard_backend", "1 for what ends the partners' tunnels", backend.clone());
        registry.register("active", "1 where this process serves its shard's partners", active.clone());
        registry.register("partners_open", "Partners that are served", open.clone());
        registry.register("partners_closed", "Partners that are not served", closed.clone());
        registry.register("api_heard_timestamp_seconds", "Unix time of the last word from the API", heard.clone());
        registry.register(
            "revocations_unacknowledged",
            "Partners with a revocation that is not acknowledged in status yet",
            unacknowledged.clone(),
        );
        registry.register("apply_errors", "Failures to change peers or addresses", apply_errors.clone());
        Self {
            registry,
            handshakes,
            last_handshake,
            key_in_use,
            rx_bytes,
            tx_bytes,
            connections,
            cut,
            refused,
            requests,
            tls,
            dropped,
            backend,
            open,
            closed,
            active,
            heard,
            unacknowledged,
            apply_errors,
        }
    }
}

impl Metrics {
    /// Counts a dropped packet.
    pub fn dropped(&self, direction: &'static str, reason: &'static str) {
        self.dropped.get_or_create(&ByDirection { direction, reason }).inc();
    }

    /// Says what ends the partners' tunnels.
    pub fn backend(&self, backend: &'static str) {
        self.backend.get_or_create(&ByBackend { backend }).set(1);
    }

    /// Counts dropped packets.
    pub fn dropped_more(&self, direction: &'static str, reason: &'static str, packets: u64) {
        self.dropped.get_or_create(&ByDirection { direction, reason }).inc_by(packets);
    }

    /// Counts a refusal.
    pub fn refused(&self, partner: &str, reason: &'static str) {
        self.refused.get_or_create(&ByReason { partner: partner.to_owned(), reason }).inc();
    }

    /// Counts an answer.
    pub fn answered(&self, partner: &str, status: u16) {
        let code = match status {
            100..200 => "1xx",
            200..300 => "2xx",
            300..400 => "3xx",
            400..500 => "4xx",
            _ => "5xx",
        };
        self.requests.get_or_create(&ByCode { partner: partner.to_owned(), code }).inc();
    }

    /// Counts a TLS handshake of a partner that was let in.
    pub fn handshake(&self, partner: &str, group: &'static str) {
        self.tls.get_or_create(&ByGroup { partner: partner.to_owned(), group }).inc();
    }

    /// Adds `by` (1 or -1) to a partner's open connections.
    pub fn connections(&self, partner: &str, by: i64) {
        self.connections.get_or_create(&ByPartner { partner: partner.to_owned() }).inc_by(by);
    }

    /// Counts a live connection that was cut.
    pub fn cut(&self, partner: &str) {
        self.cut.get_or_create(&ByPartner { partner: partner.to_owned() }).inc();
    }

    /// Adds what a partner's peers did since the last look.
    pub fn peer(&self, partner: &str, handshakes: u64, last_handshake: Option<i64>, rx: u64, tx: u64) {
        let label = ByPartner { partner: partner.to_owned() };
        self.handshakes.get_or_create(&label).inc_by(handshakes);
        if let Some(at) = last_handshake {
            self.last_handshake.get_or_create(&label).set(at);
        }
        self.rx_bytes.get_or_create(&label).inc_by(rx);
        self.tx_bytes.get_or_create(&label).inc_by(tx);
    }

    /// Sets which of a partner's keys has its address, counted from 0.
    pub fn key_in_use(&self, partner: &str, index: usize) {
        let number = i64::try_from(index + 1).unwrap_or(i64::MAX);
        self.key_in_use.get_or_create(&ByPartner { partner: partner.to_owned() }).set(number);
    }

    /// Sets how many partners are served and how many are not.
    pub fn partners(&self, open: usize, closed: usize) {
        self.open.set(i64::try_from(open).unwrap_or(i64::MAX));
        self.closed.set(i64::try_from(closed).unwrap_or(i64::MAX));
    }

    /// Drops the series of a partner whose object is gone.
    pub fn forget(&self, partner: &str) {
        let label = ByPartner { partner: partner.to_owned() };
        self.handshakes.remove(&label);
        self.last_handshake.remove(&label);
        self.key_in_use.remove(&label);
        self.rx_bytes.remove(&label);
        self.tx_bytes.remove(&label);
        self.connections.remove(&label);
        self.cut.remove(&label);
    }

    /// The text that Prometheus scrapes.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
