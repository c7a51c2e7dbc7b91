//! The process: its two listeners, the pool, and how it ends.
//!
//! Touches: the network, TLS_DIR, the replica store.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Json, Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use liaison_records::trust;
use sqlx::postgres::PgPoolOptions;
use tokio::{net::TcpListener, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    app::{App, router},
    client_cert,
    config::{Config, ConfigError, StoreConfig},
    metrics::Metrics,
    store::Store,
    tls::{Identity, TlsError, TlsListener},
};

/// How long open requests have when the process is told to end.
const GRACE: Duration = Duration::from_secs(8);
/// How often the terms are read for the metrics and for readiness.
const WATCH: Duration = Duration::from_secs(10);

/// Why the process could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Flags.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A listener.
    #[error("can not listen at {0}: {1}")]
    Listen(SocketAddr, io::Error),
}

/// A running InfoPol.
#[derive(Debug)]
pub struct Server {
    /// Where the gateway is answered.
    pub address: SocketAddr,
    /// Where health and metrics are answered.
    pub health: SocketAddr,
    done: tokio::task::JoinHandle<()>,
}

impl Server {
    /// Starts everything; it ends when `stop` is cancelled. The store need not be there yet.
    pub async fn start(config: &Config, stop: CancellationToken) -> Result<Self, ServerError> {
        let metrics = Metrics::new();
        let identity = Arc::new(Identity::load(&config.tls_dir, client_cert::gateway_id(&config.domain))?);
        let pool = PgPoolOptions::new()
            .max_connections(8)
            .acquire_timeout(Duration::from_secs(4))
            .idle_timeout(Duration::from_secs(300))
            .max_lifetime(Duration::from_secs(1800))
            .connect_lazy_with(config.store.options(&config.partner)?);
        let app = Arc::new(App::new(
            Store::new(pool, &config.partner),
            config.sealer()?,
            Arc::clone(&metrics),
            &config.partner,
            &config.domain,
        ));
        let (held, store) = (Arc::clone(&identity), config.store.clone());
        let listener = TlsListener::bind(config.listen, identity, metrics, stop.clone())
            .await
            .map_err(|e| ServerError::Listen(config.listen, e))?;
        let plain =
            TcpListener::bind(config.health_addr).await.map_err(|e| ServerError::Listen(config.health_addr, e))?;
        let address = axum::serve::Listener::local_addr(&listener).unwrap_or(config.listen);
        let health = plain.local_addr().unwrap_or(config.health_addr);
        tokio::spawn(watch(Arc::clone(&app), stop.clone()));
        let health_stop = stop.clone();
        let health_server = axum::serve(plain, health_router(Arc::clone(&app), held, store))
            .with_graceful_shutdown(async move { health_stop.cancelled().await });
        tokio::spawn(async move {
            if let Err(error) = health_server.await {
                tracing::error!(%error, "the health listener failed");
            }
        });
        let done = tokio::spawn(serve(listener, app, stop));
        tracing::info!(partner = %config.partner, %address, %health, "listening");
        Ok(Self { address, health, done })
    }

    /// Waits until it has ended.
    pub async fn ended(self) {
        // A panic of that task has been reported by the runtime.
        let _ = self.done.await;
    }
}

async fn serve(listener: TlsListener, app: Arc<App>, stop: CancellationToken) {
    let stopped = stop.clone();
    let server = axum::serve(listener, router(app)).with_graceful_shutdown(async move { stopped.cancelled().await });
    let bounded = async {
        stop.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        ended = server => if let Err(error) = ended { tracing::error!(%error, "the listener failed") },
        () = bounded => tracing::warn!("ended with requests still open"),
    }
}

/// Reads the terms now and then, so that metrics and readiness do not wait for an officer.
async fn watch(app: Arc<App>, stop: CancellationToken) {
    let mut was_up = None;
    loop {
        let terms = app.store.terms().await;
        app.metrics.store(terms.as_ref().ok().map(Option::as_ref));
        if was_up != Some(terms.is_ok()) {
            match &terms {
                Ok(_) => tracing::info!("the replica store answers"),
                Err(error) => tracing::error!(%error, "the replica store does not answer"),
            }
        }
        was_up = Some(terms.is_ok());
        let pause = if terms.is_ok() { WATCH } else { Duration::from_secs(1) };
        if timeout(pause, stop.cancelled()).await.is_ok() {
            return;
        }
    }
}

fn health_router(app: Arc<App>, identity: Arc<Identity>, store: StoreConfig) -> Router {
    // For the operator, which waits for it before it changes what others must trust.
    let said = async move || {
        let mut report = trust::Report::default();
        identity.said(&mut report);
        store.said(&mut report);
        Json(report)
    };
    Router::new()
        .route(trust::PATH, get(said))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(app)
}

/// Ready once the store has answered; it stays so when the store goes away, since officers are then told by a page.
async fn ready(State(app): State<Arc<App>>) -> (StatusCode, &'static str) {
    if app.metrics.store_was_up() {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the replica store has not answered yet\n")
    }
}

async fn metrics(State(app): State<Arc<App>>) -> impl IntoResponse {
    ([("content-type", "application/openmetrics-text; version=1.0.0; charset=utf-8")], app.metrics.render())
}
