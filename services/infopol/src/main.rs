//! Parses arguments and calls the library.

use std::process::ExitCode;

use clap::Parser;
use liaison_infopol::{config::Config, server::Server};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> ExitCode {
    let config = Config::parse();
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info")))
        .with_writer(std::io::stderr)
        .init();
    let stop = CancellationToken::new();
    let server = match Server::start(&config, stop.clone()).await {
        Ok(server) => server,
        Err(error) => {
            tracing::error!(%error, "could not start");
            return ExitCode::FAILURE;
        }
    };
    asked_to_end().await;
    stop.cancel();
    server.ended().await;
    ExitCode::SUCCESS
}

/// SIGTERM, as Kubernetes sends it, or Ctrl-C.
async fn asked_to_end() {
    let interrupted = tokio::signal::ctrl_c();
    match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        Ok(mut terminated) => {
            tokio::select! { _ = terminated.recv() => (), _ = interrupted => () }
        }
        Err(_) => drop(interrupted.await),
    }
}
