//! Metrics and health, over plain HTTP for the kubelet and Prometheus. Labels: the partner's name and a reason; no data.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use jiff::Timestamp;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};
use std::sync::atomic::AtomicU64;
use tokio_util::sync::CancellationToken;

use crate::{
    error::Error,
    worker::{Report, Standing},
};

/// Label of a partner.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfPartner {
    partner: String,
}

/// Labels of a failure.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Failure {
    partner: String,
    reason: &'static str,
}

/// Everything that is measured.
#[derive(Debug, Default)]
pub struct Metrics {
    lag: Family<OfPartner, Gauge<f64, AtomicU64>>,
    files: Family<OfPartner, Gauge>,
    batches: Family<OfPartner, Counter>,
    records: Family<OfPartner, Counter>,
    withdrawn: Family<OfPartner, Counter>,
    bytes: Family<OfPartner, Counter>,
    seconds: Family<OfPartner, Counter<f64, AtomicU64>>,
    failures: Family<Failure, Counter>,
    hub_up: Gauge,
    trimmed: Counter,
    beat: AtomicI64,
    ready: AtomicBool,
}

impl Metrics {
    /// A registry that has them.
    pub fn registry(&self) -> Registry {
        let mut r = Registry::with_prefix("liaison_sync");
        r.register_with_unit("replica_lag", "How far a replica is behind the hub", Unit::Seconds, self.lag.clone());
        r.register("replica_files", "Files in a replica", self.files.clone());
        r.register("batches", "Batches that landed", self.batches.clone());
        r.register("records", "Records that crossed", self.records.clone());
        r.register("withdrawn", "Records and whole files withdrawn", self.withdrawn.clone());
        r.register_with_unit("crossed", "Bodies and pictures that crossed", Unit::Bytes, self.bytes.clone());
        r.register_with_unit("batch_duration", "Time spent in batches", Unit::Seconds, self.seconds.clone());
        r.register("failures", "Attempts that failed", self.failures.clone());
        r.register("hub_up", "1 when the last probe of the hub succeeded", self.hub_up.clone());
        r.register("change_rows_trimmed", "Change rows deleted on the hub", self.trimmed.clone());
        r
    }

    /// Takes a report in.
    pub fn report(&self, report: &Report) {
        let of = OfPartner { partner: report.partner.to_string() };
        match report.result {
            Ok(written) => {
                if written.batch.is_some() {
                    self.batches.get_or_create(&of).inc();
                }
                self.records.get_or_create(&of).inc_by(written.records as u64);
                self.withdrawn.get_or_create(&of).inc_by(written.withdrawn as u64);
                self.bytes.get_or_create(&of).inc_by(written.bytes as u64);
                self.seconds.get_or_create(&of).inc_by(report.took.as_secs_f64());
            }
            Err(reason) => {
                self.failures.get_or_create(&Failure { partner: of.partner, reason }).inc();
            }
        }
    }

    /// Takes a standing in.
    pub fn standing(&self, partner: &str, standing: &Standing, now: Timestamp) {
        let of = OfPartner { partner: partner.to_owned() };
        self.files.get_or_create(&of).set(i64::try_from(standing.files).unwrap_or(i64::MAX));
        match standing.exact_at_millis.filter(|_| standing.open) {
            Some(at) => {
                let millis = u32::try_from(now.as_millisecond().saturating_sub(at).max(0)).unwrap_or(u32::MAX);
                self.lag.get_or_create(&of).set(f64::from(millis) / 1000.0);
            }
            None => {
                self.lag.remove(&of);
            }
        }
    }

    /// A partner that is no more.
    pub fn forget(&self, partner: &str) {
        let of = OfPartner { partner: partner.to_owned() };
        self.lag.remove(&of);
        self.files.remove(&of);
    }

    /// Whether the hub answered.
    pub fn hub(&self, up: bool) {
        self.hub_up.set(i64::from(up));
        self.ready.store(up, Ordering::Relaxed);
    }

    /// Rows trimmed.
    pub fn trimmed(&self, rows: u64) {
        self.trimmed.inc_by(rows);
    }

    /// The loop is alive.
    pub fn beat(&self, now: Timestamp) {
        self.beat.store(now.as_second(), Ordering::Relaxed);
    }

    fn alive(&self) -> bool {
        let beat = self.beat.load(Ordering::Relaxed);
        beat == 0 || Timestamp::now().as_second() - beat < 180
    }
}

/// Serves `/healthz`, `/readyz` and `/metrics` until `stop`.
pub async fn serve(address: SocketAddr, metrics: Arc<Metrics>, stop: CancellationToken) -> Result<(), Error> {
    let registry = Arc::new(metrics.registry());
    let app = Router::new()
        .route(
            "/healthz",
            get(|State((metrics, _)): State<(Arc<Metrics>, Arc<Registry>)>| async move {
                if metrics.alive() { (StatusCode::OK, "ok\n") } else { (StatusCode::SERVICE_UNAVAILABLE, "stuck\n") }
            }),
        )
        .route(
            "/readyz",
            get(|State((metrics, _)): State<(Arc<Metrics>, Arc<Registry>)>| async move {
                if metrics.ready.load(Ordering::Relaxed) {
                    (StatusCode::OK, "ok\n")
                } else {
                    (StatusCode::SERVICE_UNAVAILABLE, "the hub has not answered, or the watches have not listed\n")
                }
            }),
        )
        .route(
            "/metrics",
            get(|State((_, registry)): State<(Arc<Metrics>, Arc<Registry>)>| async move {
                let mut text = String::new();
                match encode(&mut text, &registry) {
                    Ok(()) => (
                        StatusCode::OK,
                        [("content-type", "application/openmetrics-text; version=1.0.0; charset=utf-8")],
                        text,
                    ),
                    Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, [("content-type", "text/plain")], String::new()),
                }
            }),
        )
        .with_state((metrics, registry));
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .map_err(|e| Error::Config(format!("HEALTH_ADDR {address} cannot be used: {e}")))?;
    axum::serve(listener, app)
        .with_graceful_shutdown(async move { stop.cancelled().await })
        .await
        .map_err(|e| Error::Config(format!("the health server failed: {e}")))
}
