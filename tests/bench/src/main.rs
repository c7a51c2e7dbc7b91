//! Parses arguments and calls the library.

use std::process::ExitCode;

use clap::Parser;
use liaison_bench::{connections, error::Result, fanout, figures, generate, render, scopes::Set, worker};

/// Liaison's benchmarks.
#[derive(Parser)]
enum Bench {
    /// Files a second of the synthetic OMS.
    Generate {
        /// Incarcerated files.
        #[arg(long, env = "INCARCERATED", default_value_t = 13_000)]
        incarcerated: u32,
        /// Files in the community.
        #[arg(long, env = "COMMUNITY", default_value_t = 9_000)]
        community: u32,
        /// Archived files.
        #[arg(long, env = "ARCHIVED", default_value_t = 125_000)]
        archived: u32,
    },
    /// Partners in number, beside PostgreSQL's native logical replication.
    Fanout(fanout::FanoutArgs),
    /// The operator with connections in number, against an API server alone.
    Connections(connections::ConnectionsArgs),
    /// One of the four that claim slots: what `connections` starts.
    #[command(hide = true)]
    Claim {
        /// The claims' namespace.
        namespace: String,
        /// Partners.
        n: usize,
        /// Which of the four.
        one: usize,
    },
    /// Figures of times that another program took: seconds on standard input, one a line.
    Times {
        /// What took so long.
        name: String,
    },
    /// The page from the results that are there.
    Render,
    /// sync's worker, driven by standard input: what `fanout` starts.
    #[command(hide = true)]
    Worker {
        /// URL of the hub.
        hub: String,
        /// URL of the replicas' database.
        store: String,
        /// Partners.
        n: usize,
        /// Scopes that each file is in.
        fanout: usize,
    },
}

async fn run(bench: Bench) -> Result<()> {
    match bench {
        Bench::Generate { incarcerated, community, archived } => generate::bench(incarcerated, community, archived),
        Bench::Fanout(args) => {
            let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
            // Whichever way it ends, what it started is stopped and its directory removed.
            tokio::select! {
                done = fanout::bench(&args) => done,
                _ = tokio::signal::ctrl_c() => Err(liaison_bench::error::Error::said("interrupted")),
                _ = terminate.recv() => Err(liaison_bench::error::Error::said("terminated")),
            }
        }
        Bench::Connections(args) => connections::bench(&args).await,
        Bench::Claim { namespace, n, one } => connections::claim(&namespace, n, one).await,
        Bench::Times { name } => figures::times(&name, &std::io::read_to_string(std::io::stdin())?),
        Bench::Render => render::page(),
        Bench::Worker { hub, store, n, fanout } => worker::run(&hub, &store, Set { n, fanout }).await,
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "error".into());
    // The one TLS provider; a second call finds it there.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match run(Bench::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
