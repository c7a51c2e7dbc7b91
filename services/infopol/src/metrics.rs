//! Counters of this process, in the Prometheus conventions. No officer, offender, name or number is ever a label.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{
        counter::Counter,
        family::{Family, MetricConstructor},
        gauge::Gauge,
        histogram::Histogram,
        info::Info,
    },
    registry::{Registry, Unit},
};

use crate::store::Terms;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReadLabels {
    kind: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone)]
struct Seconds;

impl MetricConstructor<Histogram> for Seconds {
    fn new_metric(&self) -> Histogram {
        Histogram::new([0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0])
    }
}

/// What this process counts.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    durations: Family<RouteLabels, Histogram, Seconds>,
    reads: Family<ReadLabels, Counter>,
    refused_handshakes: Counter,
    refused_callers: Counter,
    data_as_of: Gauge<f64, AtomicU64>,
    authorized_until: Gauge<f64, AtomicU64>,
    store_up: Gauge<i64, AtomicI64>,
    store_was_up: AtomicBool,
}

impl Metrics {
    /// All counters at nought.
    pub fn new() -> Arc<Self> {
        let mut registry = Registry::with_prefix("infopol");
        let requests = Family::<RequestLabels, Counter>::default();
        let durations = Family::<RouteLabels, Histogram, Seconds>::new_with_constructor(Seconds);
        let reads = Family::<ReadLabels, Counter>::default();
        let (refused_handshakes, refused_callers) = (Counter::default(), Counter::default());
        let (data_as_of, authorized_until) = (Gauge::<f64, AtomicU64>::default(), Gauge::<f64, AtomicU64>::default());
        let store_up = Gauge::<i64, AtomicI64>::default();
        registry.register("http_requests", "Requests answered, by route template and status", requests.clone());
        registry.register_with_unit(
            "http_request_duration",
            "Time to answer a request",
            Unit::Seconds,
            durations.clone(),
        );
        registry.register("reads", "Logged reads, by kind and outcome", reads.clone());
        registry.register(
            "handshakes_refused",
            "Connections refused: no certificate of the gateway",
            refused_handshakes.clone(),
        );
        registry.register(
            "callers_refused",
            "Requests refused: the Client-Cert header names no certificate of this partner",
            refused_callers.clone(),
        );
        registry.register("data_as_of_timestamp_seconds", "Time of the hub that the replica shows", data_as_of.clone());
        registry.register(
            "authorized_until_timestamp_seconds",
            "When the agreement ends; 0 when there are no terms",
            authorized_until.clone(),
        );
        registry.register("store_up", "1 when the replica store answered last time", store_up.clone());
        registry.register(
            "build",
            "Version of this program",
            Info::new(vec![("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]),
        );
        Arc::new(Self {
            registry,
            requests,
            durations,
            reads,
            refused_handshakes,
            refused_callers,
            data_as_of,
            authorized_until,
            store_up,
            store_was_up: AtomicBool::new(false),
        })
    }

    /// Counts an answered request. `route` is the template, never the path as asked.
    pub fn answered(&self, route: &str, code: u16, seconds: f64) {
        self.requests.get_or_create(&RequestLabels { route: route.to_owned(), code }).inc();
        self.durations.get_or_create(&RouteLabels { route: route.to_owned() }).observe(seconds);
    }

    /// Counts a read that was tried.
    pub fn read(&self, kind: &'static str, outcome: &'static str) {
        self.reads.get_or_create(&ReadLabels { kind, outcome }).inc();
    }

    /// Counts a connection that was not the gateway's.
    pub fn handshake_refused(&self) {
        self.refused_handshakes.inc();
    }

    /// Counts a request whose certificate was not this partner's.
    pub fn caller_refused(&self) {
        self.refused_callers.inc();
    }

    /// Takes down what the store answered; `None` when it did not.
    pub fn store(&self, answer: Option<Option<&Terms>>) {
        self.store_up.set(i64::from(answer.is_some()));
        self.store_was_up.fetch_or(answer.is_some(), Ordering::Relaxed);
        if let Some(terms) = answer {
            #[allow(clippy::cast_precision_loss)]
            let seconds = |t: Option<jiff::Timestamp>| t.map_or(0.0, |t| t.as_millisecond() as f64 / 1000.0);
            self.data_as_of.set(seconds(terms.and_then(|t| t.as_of)));
            self.authorized_until.set(seconds(terms.and_then(|t| t.authorized_until)));
        }
    }

    /// Whether the store has ever answered.
    pub fn store_was_up(&self) -> bool {
        self.store_was_up.load(Ordering::Relaxed)
    }

    /// Everything in the OpenMetrics text format.
    pub fn render(&self) -> String {
        let mut out = String::new();
        // Writing into a String can not fail.
        let _ = text::encode(&mut out, &self.registry);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_conventions() {
        let metrics = Metrics::new();
        metrics.answered("/api/search", 200, 0.01);
        metrics.read("search", "allowed");
        metrics.store(None);
        let text = metrics.render();
        for line in [
            "infopol_http_requests_total{route=\"/api/search\",code=\"200\"} 1",
            "infopol_http_request_duration_seconds_bucket{le=\"0.01\",route=\"/api/search\"} 1",
            "infopol_reads_total{kind=\"search\",outcome=\"allowed\"} 1",
            "infopol_handshakes_refused_total 0",
            "infopol_store_up 0",
            "infopol_build_info{version=",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
