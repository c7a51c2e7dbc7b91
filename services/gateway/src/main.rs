//! Parses arguments and calls the library.

use std::process::ExitCode;

use clap::Parser as _;
use liaison_gateway::{config::Config, run};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> ExitCode {
    let config = Config::parse();
    // gotatun logs partners' addresses, and one line a packet that it cannot deliver: only if it is asked for by name.
    let level = std::env::var("RUST_LOG").unwrap_or_else(|_| "info".to_owned());
    let filter = EnvFilter::new(format!("gotatun=off,{level}"));
    tracing_subscriber::fmt().json().with_env_filter(filter).with_writer(std::io::stderr).init();
    // Fails only if one is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();

    let stop = CancellationToken::new();
    let ended = async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok::<(), std::io::Error>(())
    };
    let stopping = stop.clone();
    tokio::spawn(async move {
        if let Err(error) = ended.await {
            tracing::error!(%error, "signals");
        }
        stopping.cancel();
    });
    match run(config, stop).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "gateway ended");
            ExitCode::FAILURE
        }
    }
}
