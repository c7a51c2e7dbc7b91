//! `/healthz`, `/readyz` and `/metrics`, plain HTTP.
//!
//! Ready means: the API server answers and the definitions are there. A replica that waits for the lead is ready too.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{Router, extract::State, http::StatusCode, routing::get};

use crate::metrics::Metrics;

/// What the endpoints show.
#[derive(Debug, Clone)]
pub struct Health {
    /// Whether this replica is ready.
    pub ready: Arc<AtomicBool>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
}

/// Serves until the process ends.
pub async fn serve(address: SocketAddr, health: Health) -> std::io::Result<()> {
    let app = Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(|State(health): State<Health>| async move { health.metrics.encode() }))
        .with_state(health);
    axum::serve(tokio::net::TcpListener::bind(address).await?, app).await
}

async fn ready(State(health): State<Health>) -> StatusCode {
    if health.ready.load(Ordering::Relaxed) { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}
