//! Parses arguments and calls the library.

use std::process::ExitCode;

use clap::Parser as _;
use liaison_gateway::{
    config::Config,
    privileges::{Opened, reduce},
    run,
    tunnel::filter::HTTPS,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let config = Config::parse();
    // gotatun logs partners' addresses, and one line a packet that it cannot deliver: only if it is asked for by name.
    let level = std::env::var("RUST_LOG").unwrap_or_else(|_| "info".to_owned());
    let filter = EnvFilter::new(format!("gotatun=off,{level}"));
    tracing_subscriber::fmt().json().with_env_filter(filter).with_writer(std::io::stderr).init();
    // Fails only if one is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();

    // Privileges are a thread's: they are used and given up while this is the only one.
    let opened = Opened::open(config.wg_backend, &config.tun_name, HTTPS);
    if let Err(error) = reduce() {
        tracing::error!(%error, "privileges could not be given up");
        return ExitCode::FAILURE;
    }
    let opened = match opened {
        Ok(opened) => opened,
        Err(error) => {
            tracing::error!(%error, "gateway ended");
            return ExitCode::FAILURE;
        }
    };
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(until_told(config, opened)),
        Err(error) => {
            tracing::error!(%error, "no runtime");
            ExitCode::FAILURE
        }
    }
}

async fn until_told(config: Config, opened: Opened) -> ExitCode {
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
    match run(config, opened, stop).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "gateway ended");
            ExitCode::FAILURE
        }
    }
}
