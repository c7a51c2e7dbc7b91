//! `/healthz`, `/readyz`, `/metrics` on a port of their own, which the packet filter keeps out of the tunnels.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{Router, http::StatusCode, http::header::CONTENT_TYPE, routing::get};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// What readiness looks at.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    /// Keys are there, the device is up, the listener listens.
    pub started: Arc<AtomicBool>,
    /// There is fresh word from the API.
    pub serving: Arc<AtomicBool>,
}

impl Readiness {
    fn is_ready(&self) -> bool {
        self.started.load(Ordering::Relaxed) && self.serving.load(Ordering::Relaxed)
    }
}

/// Serves until `stop`.
pub async fn serve(
    address: SocketAddr,
    metrics: Arc<Metrics>,
    ready: Readiness,
    stop: CancellationToken,
) -> io::Result<()> {
    let app = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route(
            "/readyz",
            get(async move || {
                if ready.is_ready() {
                    (StatusCode::OK, "ok\n")
                } else {
                    (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
                }
            }),
        )
        .route(
            "/metrics",
            get(async move || {
                ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], metrics.text())
            }),
        );
    let listener = TcpListener::bind(address).await?;
    axum::serve(listener, app).with_graceful_shutdown(stop.cancelled_owned()).await
}
