//! `/healthz`, `/readyz`, `/metrics`, and `/trust` for the operator, on a port of their own, which the packet filter keeps out of the tunnels.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{Json, Router, http::StatusCode, http::header::CONTENT_TYPE, routing::get};
use liaison_records::trust;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::gate::Gate;

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
pub async fn serve(address: SocketAddr, gate: Arc<Gate>, ready: Readiness, stop: CancellationToken) -> io::Result<()> {
    let metrics = Arc::clone(&gate.metrics);
    let app = Router::new()
        .route(trust::PATH, get(async move || Json(gate.trust())))
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
