//! What the listener, the proxy and the control loop share.

use std::{
    sync::{Arc, PoisonError, RwLock, Weak},
    time::Instant,
};

use liaison_records::trust::Report;
use rustls::ServerConfig;

use crate::{
    authorise::{Refusal, View},
    connections::Connections,
    enrolment::{Asking, Certificates},
    metrics::Metrics,
    pace::Paces,
    proxy::Limits,
    quiet::Quiet,
    state::{Fingerprint, Table},
    tls::{Elsewhere, Enrolling},
    upstream::Upstream,
};

/// The shared state of one gateway.
pub struct Gate {
    view: RwLock<View>,
    server_tls: RwLock<Option<Arc<ServerConfig>>>,
    enrolling: RwLock<Option<Enrolling>>,
    trust: RwLock<Report>,
    /// Live connections.
    pub connections: Arc<Connections>,
    /// Calls to InfoPols.
    pub upstream: Upstream,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Limits.
    pub limits: Limits,
    /// What each partner has carried of late.
    pub paces: Paces,
    /// What the log has said of late.
    pub quiet: Quiet,
    /// Namespace of the partners' connections.
    pub namespace: String,
    /// Where partners' own requests for certificates go.
    pub certificates: Arc<dyn Certificates>,
    /// How many of them there were of late.
    pub asking: Asking,
}

/// What the gate's own table says of leaves that another CA issued; it goes with the gate.
#[derive(Debug)]
struct OfGate(Weak<Gate>);

impl Elsewhere for OfGate {
    fn grants(&self, leaf: &[u8]) -> bool {
        let fingerprint = Fingerprint::of(leaf);
        let view = self.0.upgrade().map(|gate| gate.view());
        view.is_some_and(|view| view.table.partners().values().any(|p| p.elsewhere.contains(&fingerprint)))
    }
}

impl Gate {
    /// Knows which leaves of other CAs the table grants.
    pub fn elsewhere(self: &Arc<Self>) -> Arc<dyn Elsewhere> {
        Arc::new(OfGate(Arc::downgrade(self)))
    }

    /// Serves nobody yet.
    pub fn new(
        upstream: Upstream,
        metrics: Arc<Metrics>,
        limits: Limits,
        namespace: String,
        certificates: Arc<dyn Certificates>,
    ) -> Self {
        Self {
            view: RwLock::new(View { table: Arc::new(Table::default()), heard_until: None }),
            server_tls: RwLock::default(),
            enrolling: RwLock::default(),
            trust: RwLock::default(),
            connections: Arc::new(Connections::new(Arc::clone(&metrics))),
            upstream,
            metrics,
            paces: Paces::new(limits.rate),
            limits,
            quiet: Quiet::default(),
            namespace,
            certificates,
            asking: Asking::default(),
        }
    }

    /// What is in force.
    pub fn view(&self) -> View {
        self.view.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces what is in force.
    pub fn set_view(&self, view: View) {
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = view;
    }

    /// The TLS configuration for new connections.
    pub fn server_tls(&self) -> Option<Arc<ServerConfig>> {
        self.server_tls.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the TLS configuration for new connections.
    pub fn set_server_tls(&self, config: Arc<ServerConfig>) {
        *self.server_tls.write().unwrap_or_else(PoisonError::into_inner) = Some(config);
    }

    /// What partners enrol with.
    pub fn enrolling(&self) -> Option<Enrolling> {
        self.enrolling.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces what partners enrol with.
    pub fn set_enrolling(&self, enrolling: Enrolling) {
        *self.enrolling.write().unwrap_or_else(PoisonError::into_inner) = Some(enrolling);
    }

    /// The certificates that are in use.
    pub fn trust(&self) -> Report {
        self.trust.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says which certificates are in use from now on.
    pub fn set_trust(&self, change: impl FnOnce(&mut Report)) {
        change(&mut self.trust.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// Counts a refusal, and logs it unless there are many. `partner` is whose address was called, or empty.
    pub fn refuse(&self, partner: &str, refusal: Refusal) {
        self.metrics.refused(partner, refusal.label());
        if let Some(suppressed) = self.quiet.admit(partner, refusal.label(), Instant::now()) {
            tracing::warn!(partner, reason = refusal.label(), suppressed, "refused");
        }
    }

    /// Says what was not logged since, once it may be.
    pub fn tell_suppressed(&self, now: Instant) {
        for (partner, reason, suppressed) in self.quiet.due(now) {
            tracing::warn!(partner, reason, suppressed, "more of the same");
        }
    }
}
