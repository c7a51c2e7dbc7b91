//! Metrics and health, over plain HTTP for the kubelet and Prometheus. Labels: the partner's name and a reason; no data.

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
};

use axum::{Json, Router, extract::State, http::StatusCode, routing::get};
use jiff::Timestamp;
use liaison_records::trust;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use tokio_util::sync::CancellationToken;

use crate::{
    error::Error,
    tls::Witness,
    verify::{News, Outcome},
    worker::{Report, Standing},
};

/// Label of a partner. Values are names of connections that this process was told of, and forgotten with them.
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

/// Label of a verification's end: `equal`, `repaired` or `failed`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Ending {
    outcome: &'static str,
}

type Seconds = Gauge<f64, AtomicU64>;

/// Everything that is measured. What has a partner label is a gauge or a counter: a histogram a partner would be a dozen
/// series each, so the one of batch durations is of all partners together.
#[derive(Debug)]
pub struct Metrics {
    lag: Family<OfPartner, Seconds>,
    behind: Family<OfPartner, Gauge>,
    files: Family<OfPartner, Gauge>,
    complete: Family<OfPartner, Gauge>,
    fenced: Family<OfPartner, Gauge>,
    ledger: Family<OfPartner, Gauge>,
    verified: Family<OfPartner, Seconds>,
    mismatches: Family<OfPartner, Counter>,
    batches: Family<OfPartner, Counter>,
    records: Family<OfPartner, Counter>,
    withdrawn: Family<OfPartner, Counter>,
    bytes: Family<OfPartner, Counter>,
    seconds: Family<OfPartner, Counter<f64, AtomicU64>>,
    failures: Family<Failure, Counter>,
    failed: Mutex<HashSet<Failure>>,
    verifications: Family<Ending, Counter>,
    durations: Histogram,
    partners: Gauge,
    held: Gauge,
    hub_up: Gauge,
    change_rows: Gauge,
    ledger_lost: Gauge,
    trimmed: Counter,
    beat: AtomicI64,
    ready: AtomicBool,
}

impl Default for Metrics {
    fn default() -> Self {
        // From a batch of a row to one of a part of a province.
        let durations = Histogram::new([0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0]);
        Self {
            lag: Family::default(),
            behind: Family::default(),
            files: Family::default(),
            complete: Family::default(),
            fenced: Family::default(),
            ledger: Family::default(),
            verified: Family::default(),
            mismatches: Family::default(),
            batches: Family::default(),
            records: Family::default(),
            withdrawn: Family::default(),
            bytes: Family::default(),
            seconds: Family::default(),
            failures: Family::default(),
            failed: Mutex::default(),
            verifications: Family::default(),
            durations,
            partners: Gauge::default(),
            held: Gauge::default(),
            hub_up: Gauge::default(),
            change_rows: Gauge::default(),
            ledger_lost: Gauge::default(),
            trimmed: Counter::default(),
            beat: AtomicI64::default(),
            ready: AtomicBool::default(),
        }
    }
}

impl Metrics {
    /// A registry that has them.
    pub fn registry(&self) -> Registry {
        let mut r = Registry::with_prefix("liaison_sync");
        r.register_with_unit("replica_lag", "How far a replica is behind the hub", Unit::Seconds, self.lag.clone());
        r.register("replica_lag_changes", "Rows of the change log that a replica has not passed", self.behind.clone());
        r.register("replica_files", "Files in a replica", self.files.clone());
        r.register("replica_complete", "1 when a replica has all of its scope", self.complete.clone());
        r.register("replica_fenced", "1 while reads of a replica are refused for a moment", self.fenced.clone());
        r.register("ledger_batches", "Length of a partner's ledger chain", self.ledger.clone());
        r.register_with_unit(
            "replica_verified_timestamp",
            "Snapshot at which a replica was last shown to be its scope, since 1970",
            Unit::Seconds,
            self.verified.clone(),
        );
        r.register("root_mismatches", "Files, reference records and pictures found to differ", self.mismatches.clone());
        r.register("verifications", "Verifications that ended", self.verifications.clone());
        r.register("batches", "Batches that landed", self.batches.clone());
        r.register("records", "Records that crossed", self.records.clone());
        r.register("withdrawn", "Records and whole files withdrawn", self.withdrawn.clone());
        r.register_with_unit("crossed", "Bodies and pictures that crossed", Unit::Bytes, self.bytes.clone());
        r.register_with_unit("replica_batch", "Time spent in a partner's batches", Unit::Seconds, self.seconds.clone());
        r.register_with_unit(
            "batch_duration",
            "Duration of a batch, any partner's",
            Unit::Seconds,
            self.durations.clone(),
        );
        r.register("failures", "Attempts that failed", self.failures.clone());
        r.register("partners", "Partners that this process was told of", self.partners.clone());
        r.register("leases_held", "Partners whose lease this process holds", self.held.clone());
        r.register("hub_up", "1 when the last probe of the hub succeeded", self.hub_up.clone());
        r.register(
            "change_log_rows",
            "Rows in the hub's change log, as PostgreSQL estimates",
            self.change_rows.clone(),
        );
        r.register(
            "ledger_lost",
            "Partners whose ledger on the hub lacks what a signed checkpoint had seen",
            self.ledger_lost.clone(),
        );
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
                    self.durations.observe(report.took.as_secs_f64());
                }
                self.records.get_or_create(&of).inc_by(written.records as u64);
                self.withdrawn.get_or_create(&of).inc_by(written.withdrawn as u64);
                self.bytes.get_or_create(&of).inc_by(written.bytes as u64);
                self.seconds.get_or_create(&of).inc_by(report.took.as_secs_f64());
            }
            Err(reason) => {
                let failure = Failure { partner: of.partner, reason };
                self.failures.get_or_create(&failure).inc();
                self.failed().insert(failure);
            }
        }
    }

    fn failed(&self) -> MutexGuard<'_, HashSet<Failure>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what came of a verification in.
    pub fn news(&self, news: &News) {
        let ended = |outcome| {
            self.verifications.get_or_create(&Ending { outcome }).inc();
        };
        match news {
            News::Verified(verified) => {
                self.verified_at(verified.partner.as_str(), verified.point.millis / 1000);
                ended(verified.outcome().as_str());
            }
            News::Differed(partner, found) => {
                let of = OfPartner { partner: partner.to_string() };
                self.mismatches.get_or_create(&of).inc_by(found.units);
            }
            News::GivenUp(..) => ended(Outcome::Failed.as_str()),
        }
    }

    /// When a replica was last shown to be its scope, in seconds since 1970.
    pub fn verified_at(&self, partner: &str, second: i64) {
        let of = OfPartner { partner: partner.to_owned() };
        self.verified.get_or_create(&of).set(f64::from(u32::try_from(second.max(0)).unwrap_or(u32::MAX)));
    }

    /// Takes a standing in. What only the lease's holder knows is not said by others.
    pub fn standing(&self, partner: &str, standing: &Standing, now: Timestamp) {
        let of = OfPartner { partner: partner.to_owned() };
        // There from the first, so that an increase from nothing is seen.
        drop(self.mismatches.get_or_create(&of));
        if !standing.held {
            self.unheld(&of);
            return;
        }
        self.files.get_or_create(&of).set(i64::try_from(standing.files).unwrap_or(i64::MAX));
        self.complete.get_or_create(&of).set(i64::from(standing.complete));
        self.fenced.get_or_create(&of).set(i64::from(standing.fenced));
        self.ledger.get_or_create(&of).set(standing.ledger);
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

    fn unheld(&self, of: &OfPartner) {
        self.lag.remove(of);
        self.verified.remove(of);
        for family in [&self.behind, &self.files, &self.complete, &self.fenced, &self.ledger] {
            family.remove(of);
        }
    }

    /// How many partners there are, and how many of them are ours.
    pub fn partners(&self, all: usize, held: usize) {
        self.partners.set(i64::try_from(all).unwrap_or(i64::MAX));
        self.held.set(i64::try_from(held).unwrap_or(i64::MAX));
    }

    /// How many rows of the change log a replica has not passed.
    pub fn behind(&self, partner: &str, changes: i64) {
        self.behind.get_or_create(&OfPartner { partner: partner.to_owned() }).set(changes);
    }

    /// A partner that is no more.
    pub fn forget(&self, partner: &str) {
        let of = OfPartner { partner: partner.to_owned() };
        self.unheld(&of);
        for family in [&self.mismatches, &self.batches, &self.records, &self.withdrawn, &self.bytes] {
            family.remove(&of);
        }
        self.seconds.remove(&of);
        self.failed().retain(|failure| {
            let keep = failure.partner != partner;
            if !keep {
                self.failures.remove(failure);
            }
            keep
        });
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

    /// Rows of the change log.
    pub fn change_log(&self, rows: i64) {
        self.change_rows.set(rows);
    }

    /// Partners whose ledger lacks what was seen of it.
    pub fn ledger_lost(&self, partners: usize) {
        self.ledger_lost.set(i64::try_from(partners).unwrap_or(i64::MAX));
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

/// Serves `/healthz`, `/readyz`, `/metrics`, and `/trust` for the operator, until `stop`.
pub async fn serve(
    address: SocketAddr,
    metrics: Arc<Metrics>,
    witness: Witness,
    stop: CancellationToken,
) -> Result<(), Error> {
    let registry = Arc::new(metrics.registry());
    let witness = Arc::new(witness);
    let app = Router::new()
        .route(
            trust::PATH,
            get(move || {
                let witness = Arc::clone(&witness);
                async move { Json(witness.report().await) }
            }),
        )
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
