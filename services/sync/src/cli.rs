//! The command line: `serve`, and the Jobs `seed`, `verify` and `dispose`, which report by a termination message.

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::{Parser, Subcommand, ValueEnum};
use jiff::Timestamp;
use kube::Client;
use liaison_crds::partner_connection::DeletionPolicy;
use liaison_records::names::PartnerName;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    commands,
    compare::Budget,
    connect::Target,
    desired,
    dispose::{Policy, dispose},
    error::{Error, Side},
    fault::Faults,
    handover, progress,
    retention::{self, Retention},
    seed::fill,
    serve::{Settings, serve},
    telemetry::{self, Metrics},
    tls::Witness,
    verify::{self, Ended, Outcome},
    witness::{self, Known},
    worker::Context,
};

/// Keeps each partner's replica equal to what its agreement allows.
#[derive(Debug, Parser)]
#[command(name = "liaison-sync", version)]
pub struct Cli {
    /// Namespace of the two resources.
    #[arg(long, env = "PARTNERS_NAMESPACE", default_value = "liaison-partners", global = true)]
    namespace: String,
    /// Namespace in which statements are signed.
    #[arg(long, env = "SYSTEM_NAMESPACE", default_value = "liaison-system", global = true)]
    system_namespace: String,
    /// Name of this process, for leases.
    #[arg(long, env = "POD_NAME", global = true)]
    holder: Option<String>,
    /// Name of the replica store that STORE_* leads to.
    #[arg(long, env = "DEFAULT_STORE", default_value = "shared", global = true)]
    store: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The steady state: all partners, until told to stop.
    Serve {
        /// Where /healthz, /readyz and /metrics are served.
        #[arg(long, env = "HEALTH_ADDR", default_value = "0.0.0.0:8080")]
        health: std::net::SocketAddr,
    },
    /// Makes a partner's schemas and role, and fills its replica.
    Seed {
        /// Name of the PartnerConnection.
        #[arg(long, env = "PARTNER")]
        partner: PartnerName,
        /// SCRAM-SHA-256 verifier of the reader's password.
        #[arg(long, env = "READER_VERIFIER", hide_env_values = true)]
        verifier: String,
        /// File that takes the report.
        #[arg(long, env = "TERMINATION_LOG", default_value = "/dev/termination-log")]
        termination_log: PathBuf,
    },
    /// Asks the worker that serves a partner to show that its replica is its scope, and waits for the result.
    Verify {
        /// Name of the PartnerConnection.
        #[arg(long, env = "PARTNER")]
        partner: PartnerName,
        /// Names this request: asking twice is asking once. The Job's name.
        #[arg(long, env = "REQUEST")]
        request: String,
        /// How long to wait, in seconds.
        #[arg(long, env = "PATIENCE_SECONDS", default_value_t = 3000)]
        patience: u64,
        /// File that takes the report.
        #[arg(long, env = "TERMINATION_LOG", default_value = "/dev/termination-log")]
        termination_log: PathBuf,
    },
    /// Like verify, after the replica has been made anew beside the one that is read and swapped in.
    Rebuild {
        /// Name of the PartnerConnection.
        #[arg(long, env = "PARTNER")]
        partner: PartnerName,
        /// Names this request: asking twice is asking once. The Job's name.
        #[arg(long, env = "REQUEST")]
        request: String,
        /// How long to wait, in seconds.
        #[arg(long, env = "PATIENCE_SECONDS", default_value_t = 10_000)]
        patience: u64,
        /// File that takes the report.
        #[arg(long, env = "TERMINATION_LOG", default_value = "/dev/termination-log")]
        termination_log: PathBuf,
    },
    /// The ledger: the account of disclosures, corrections, export and verification.
    #[command(subcommand)]
    Ledger(commands::Ledger),
    /// By when replicas must be gone, and legal holds.
    #[command(subcommand)]
    Disposal(commands::Disposal),
    /// Notes in the ledger that a partner has picked up a bundle of secrets.
    Handover {
        /// Name of the PartnerConnection.
        #[arg(long, env = "PARTNER")]
        partner: PartnerName,
        /// Lower-case hex SHA-256 of the bundle.
        #[arg(long, env = "BUNDLE")]
        bundle: String,
        /// Names of what was in it, separated by commas; no secret is in a name.
        #[arg(long, env = "CONTENTS", value_delimiter = ',')]
        contents: Vec<String>,
        /// File that takes the report.
        #[arg(long, env = "TERMINATION_LOG", default_value = "/dev/termination-log")]
        termination_log: PathBuf,
    },
    /// Closes a partner's replica, and drops it or notes by when it must be gone.
    Dispose {
        /// Name of the PartnerConnection.
        #[arg(long, env = "PARTNER")]
        partner: PartnerName,
        /// Delete or retain; absent: what the connection says, and retain when there is none.
        #[arg(long, env = "DELETION_POLICY", ignore_case = true)]
        policy: Option<Chosen>,
        /// File that takes the report.
        #[arg(long, env = "TERMINATION_LOG", default_value = "/dev/termination-log")]
        termination_log: PathBuf,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Chosen {
    Delete,
    Retain,
}

/// Runs the command line.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,kube=warn"));
    tracing_subscriber::fmt().json().with_env_filter(filter).with_writer(std::io::stderr).init();
    // One provider for everybody who asks for the default.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!("no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(command(cli))
}

async fn command(cli: Cli) -> ExitCode {
    let holder = cli.holder.unwrap_or_else(|| format!("liaison-sync-{:016x}", rand::random::<u64>()));
    let (log, result) = match cli.command {
        Command::Serve { health } => {
            (None, run_serve(health, cli.namespace, cli.system_namespace, cli.store, holder).await)
        }
        Command::Ledger(command) => return commands::finish(command.run(&cli.system_namespace).await),
        Command::Disposal(command) => return commands::finish(command.run().await),
        Command::Seed { partner, verifier, termination_log } => {
            (Some(termination_log), run_seed(&partner, &verifier, &cli.namespace, &cli.system_namespace, &holder).await)
        }
        Command::Verify { partner, request, patience, termination_log } => {
            (Some(termination_log), run_verify(&partner, &request, false, patience).await)
        }
        Command::Rebuild { partner, request, patience, termination_log } => {
            (Some(termination_log), run_verify(&partner, &request, true, patience).await)
        }
        Command::Handover { partner, bundle, contents, termination_log } => {
            (Some(termination_log), run_handover(&partner, &bundle, &contents).await)
        }
        Command::Dispose { partner, policy, termination_log } => {
            (Some(termination_log), run_dispose(&partner, policy, &cli.namespace, cli.store, &holder).await)
        }
    };
    let (report, code) = match result {
        Ok(report) => (report, ExitCode::SUCCESS),
        Err(error) => {
            tracing::error!(reason = error.reason(), "{error}");
            (json!({"reason": error.reason(), "message": error.to_string()}), ExitCode::FAILURE)
        }
    };
    if let Some(path) = log {
        // The kubelet keeps 4 KiB.
        let text: String = report.to_string().chars().take(3_000).collect();
        if let Err(error) = std::fs::write(&path, text) {
            tracing::warn!("the report could not be written to {}: {error}", path.display());
        }
    }
    code
}

async fn kubernetes() -> Result<Client, Error> {
    Client::try_default().await.map_err(|e| Error::Kubernetes(e.to_string()))
}

async fn run_serve(
    health: std::net::SocketAddr,
    namespace: String,
    system_namespace: String,
    store_name: String,
    holder: String,
) -> Result<Value, Error> {
    let (hub, store) = (Target::from_env(Side::Hub)?, Target::from_env(Side::Store)?);
    let client = kubernetes().await?;
    let stop = CancellationToken::new();
    let metrics = Arc::new(Metrics::default());
    let witness = Witness::new([("hub", hub.clone()), ("store", store.clone())]);
    let server = tokio::spawn(telemetry::serve(health, metrics.clone(), witness, stop.clone()));
    tokio::spawn(signals(stop.clone()));
    let settings = Settings { hub, store, store_name, namespace, system_namespace, holder };
    let result = serve(settings, client, metrics, stop.clone()).await;
    stop.cancel();
    if let Ok(Err(error)) = server.await {
        tracing::warn!("{error}");
    }
    result.map(|()| json!({"reason": "Stopped"}))
}

async fn signals(stop: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    if let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
    }
}

async fn run_seed(
    partner: &PartnerName,
    verifier: &str,
    namespace: &str,
    system_namespace: &str,
    holder: &str,
) -> Result<Value, Error> {
    let (hub, store) = (Target::from_env(Side::Hub)?, Target::from_env(Side::Store)?);
    let client = kubernetes().await?;
    let terms = wait_until_authorized(&client, namespace, partner).await?;
    let known = Known::default();
    known.set(witness::load(&client, system_namespace).await?);
    let context = Context::new(&hub, &store, holder, Budget::default(), Faults::default()).witnessed(&known);
    let seeding = fill(context, &terms, verifier);
    let seeded = tokio::select! {
        seeded = seeding => seeded?,
        () = progress::report(&client, namespace, &hub, &store, &terms) => {
            return Err(Error::Corrupt("reporting ended before the work".to_owned()));
        }
    };
    tracing::info!(%partner, files = seeded.files, records = seeded.records, "seeded");
    Ok(json!({"reason": "Seeded", "files": seeded.files, "records": seeded.records}))
}

/// The operator authorizes in status what it has accepted; a Job that is quicker waits for it a while.
async fn wait_until_authorized(
    client: &Client,
    namespace: &str,
    partner: &PartnerName,
) -> Result<crate::terms::Terms, Error> {
    let refused = |message: String| Error::Job { reason: "NotAuthorized", message };
    for _ in 0..30 {
        let terms = desired::terms_of(client, namespace, partner).await?;
        let terms = terms.ok_or_else(|| refused(format!("there is no PartnerConnection {partner} in {namespace}")))?;
        if terms.suspended || terms.authorized_until.is_some() {
            return Ok(terms);
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    Err(refused(format!("status.authorizedUntil of {partner} is not set: no agreement in force authorizes it")))
}

/// The worker that holds the lease does it; this process only asks, and tells what came of it.
async fn run_verify(partner: &PartnerName, request: &str, anew: bool, patience: u64) -> Result<Value, Error> {
    let patience = Duration::from_secs(patience);
    let hub = Target::from_env(Side::Hub)?.connect().await?;
    verify::request(&hub, partner, request, anew).await?;
    let started = Instant::now();
    let ended = loop {
        if let Some(ended) = verify::ended(&hub, partner, request).await? {
            break ended;
        }
        if started.elapsed() > patience {
            return Err(Error::Job {
                reason: "NotVerified",
                message: format!(
                    "no worker ended the verification within {} s; see DataFresh and the logs of liaison-sync",
                    patience.as_secs()
                ),
            });
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    };
    let Ended { outcome, reason, ended_at, as_of, root, files, records, photographs, mismatches } = ended;
    let said = match outcome {
        Outcome::Equal => "Verified",
        Outcome::Repaired => "Repaired",
        // Not a failure of the Job, which has its answer.
        Outcome::Failed => "NotVerified",
    };
    let message = match outcome {
        Outcome::Equal => format!("{files} files, {records} records"),
        Outcome::Repaired => format!("{mismatches} of {files} files and pictures differed, and were repaired"),
        Outcome::Failed => format!("it could not be shown: {}", reason.unwrap_or_default()),
    };
    Ok(json!({"reason": said, "message": message, "files": files, "records": records, "photographs": photographs,
              "mismatches": mismatches, "root": root, "asOf": as_of, "endedAt": ended_at}))
}

async fn run_handover(partner: &PartnerName, bundle: &str, contents: &[String]) -> Result<Value, Error> {
    let mut hub = Target::from_env(Side::Hub)?.connect().await?;
    let number = handover::note(&mut hub, partner, bundle, contents).await?;
    tracing::info!(%partner, number, bundle, "a bundle was picked up");
    Ok(json!({"reason": "HandedOver", "message": format!("statement {number} of the partner's hand-overs")}))
}

async fn run_dispose(
    partner: &PartnerName,
    chosen: Option<Chosen>,
    namespace: &str,
    store_name: String,
    holder: &str,
) -> Result<Value, Error> {
    let (hub, store) = (Target::from_env(Side::Hub)?, Target::from_env(Side::Store)?);
    let found = desired::connection(&kubernetes().await?, namespace, partner).await?;
    let client = hub.connect().await?;
    let now = Timestamp::now();
    if let Some((connection, agreement)) = &found {
        // The certificate names the authority, and the Job is what the operator started because nothing holds any more.
        let said = Retention::of(partner, connection, agreement.as_ref());
        retention::note(&client, &store_name, std::slice::from_ref(&said), now).await?;
        retention::note_hold(&client, partner, said.hold).await?;
    }
    let says_delete = found.as_ref().is_some_and(|(c, _)| c.spec.deletion_policy == Some(DeletionPolicy::Delete));
    let policy = if chosen == Some(Chosen::Delete) || (chosen.is_none() && says_delete) {
        Policy::Delete
    } else {
        let days = match found.as_ref().and_then(|(_, agreement)| agreement.as_ref()) {
            Some(agreement) => agreement.spec.retention.disposal_days,
            None => retention::bound_days(&client, partner).await?,
        };
        let agreement = found.as_ref().map_or_else(String::new, |(c, _)| c.spec.agreement_ref.name.clone());
        Policy::Retain { due: retention::after(now, days), agreement, store: store_name }
    };
    drop(client);
    let disposed = dispose(&hub, &store, partner, &policy, holder).await?;
    tracing::info!(%partner, drained = disposed.drained, gone = disposed.gone, "disposed");
    let due = match &policy {
        Policy::Delete | Policy::Empty => None,
        Policy::Retain { due, .. } => Some(due.to_string()),
    };
    let reason = if disposed.gone { "Disposed" } else { "Retained" };
    Ok(json!({"reason": reason, "accessLogRows": disposed.drained, "due": due, "certificate": disposed.certificate}))
}
