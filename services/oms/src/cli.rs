//! The command line of `liaison-oms`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use jiff::civil::Date;
use sqlx::Connection as _;

use crate::{
    actions::{Action, act},
    capture::{Capture, capture_by, captured_by},
    connect::HubArgs,
    data::Data,
    day::{DayArgs, day, next_day},
    error::Error,
    generate::{GenerateArgs, generate},
    migrate::migrate,
    reload::reload,
};

/// The hub and the synthetic OMS.
#[derive(Debug, Parser)]
#[command(version, name = "liaison-oms")]
struct Cli {
    #[command(flatten)]
    hub: HubArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Bring the hub's schema, its view and its rights up to date.
    Migrate,
    /// Say who writes the change log, or set it: each writer by triggers, or sync from the write-ahead log.
    Capture {
        /// What it is to be; only said when absent.
        by: Option<Capture>,
    },
    /// Fill OMS with a synthetic population.
    Generate(GenerateArgs),
    /// Play a day.
    Day(DayArgs),
    /// Do one thing to one file.
    Act {
        /// The day; the one after the last when absent.
        #[arg(long, global = true)]
        date: Option<Date>,
        #[command(subcommand)]
        action: Action,
    },
    /// The nightly extract: throw everything away and load the same again, in one transaction.
    Reload {
        /// Print the figures as one JSON object.
        #[arg(long)]
        json: bool,
    },
}

/// Runs the program; 0 when it did what it was asked.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .json()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "liaison_oms=info,warn".into()),
        )
        .with_writer(std::io::stderr)
        .init();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "no runtime");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = run(cli) => outcome.map(|()| ExitCode::SUCCESS),
            // What was begun is rolled back by the server when the connection goes.
            () = stopped() => Ok(ExitCode::from(143)),
        }
    });
    runtime.shutdown_background();
    outcome.unwrap_or_else(|error| {
        tracing::error!("{error}");
        ExitCode::FAILURE
    })
}

async fn stopped() {
    let Ok(mut terminate) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

#[expect(clippy::print_stdout, reason = "the program's answer")]
async fn run(cli: Cli) -> Result<(), Error> {
    let mut hub = cli.hub.connect().await?;
    match cli.command {
        Command::Migrate => {
            migrate(&mut hub).await?;
            println!("the hub is up to date");
        }
        Command::Capture { by } => {
            if let Some(by) = by {
                capture_by(&mut hub, by).await?;
            }
            match captured_by(&mut hub).await? {
                Capture::Triggers => println!("changes are captured by triggers"),
                Capture::Wal => println!("changes are captured from the write-ahead log"),
            }
        }
        Command::Generate(args) => {
            let done = generate(&mut hub, &args).await?;
            if args.json {
                println!("{}", json(&done)?);
            } else if done.already_there {
                println!("this population is there already; --replace makes it anew");
            } else {
                println!(
                    "{} files, {} records and {} photographs ({} MB) in {:.1} s: {:.0} files a second",
                    done.files,
                    done.records,
                    done.images,
                    done.bytes / 1_000_000,
                    done.seconds,
                    done.files_per_second
                );
            }
        }
        Command::Day(args) => {
            let done = day(&mut hub, &args).await?;
            if args.json {
                println!("{}", json(&done)?);
            } else {
                let kinds: Vec<String> = done.events.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
                println!("{}: {}", done.date, kinds.join(", "));
            }
        }
        Command::Act { date, action } => {
            let on = match date {
                Some(date) => date,
                None => next_day(&mut hub).await?,
            };
            let mut tx = hub.begin().await?;
            act(&mut tx, &Data::load()?, &action, on).await?;
            tx.commit().await?;
            println!("{}: {} {}", on, action.name(), action.offender());
        }
        Command::Reload { json: as_json } => {
            let done = reload(&mut hub).await?;
            if as_json {
                println!("{}", json(&done)?);
            } else {
                println!("{} records loaded again in {:.1} s", done.records, done.seconds);
            }
        }
    }
    hub.close().await?;
    Ok(())
}

fn json(value: &impl serde::Serialize) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|e| Error::Config(e.to_string()))
}
