//! What the operator is told when it starts: flags, each with an environment variable that the chart sets.

use std::net::SocketAddr;

use clap::{Args, Parser, Subcommand};
use jiff::SignedDuration;

use crate::shards::Shards;

/// The operator of Liaison.
#[derive(Debug, Parser)]
#[command(name = "liaison-operator", version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run until told to stop.
    Run(Box<Settings>),
    /// Print the CustomResourceDefinitions as YAML.
    Crds,
}

/// Settings of `run`.
#[derive(Debug, Clone, Args)]
pub struct Settings {
    /// Domain of server names, and the SPIFFE trust domain.
    #[arg(long, env, default_value = "liaison.example.ca")]
    pub domain: String,
    /// The gateway's shards, separated by spaces, and where partners reach each: `<name>=<host>:<port>`, UDP, and after a comma the same
    /// for its second listener, by which its own key changes; without that it cannot.
    #[arg(long, env)]
    pub gateways: Shards,
    /// Tunnel addresses, IPv4.
    #[arg(long, env, default_value = "100.72.0.0/16")]
    pub pool_v4: String,
    /// Tunnel addresses, IPv6.
    #[arg(long, env, default_value = "fd4c:6961:6973::/112")]
    pub pool_v6: String,
    /// For how many days a tunnel slot that was given up is kept for the partner that had it; 0: not at all.
    #[arg(long, env, default_value_t = 30)]
    pub slot_quarantine_days: u16,
    /// For how many hours a partner may go back to its older WireGuard key once the newer one is in use.
    #[arg(long, env, default_value_t = 72)]
    pub key_overlap_hours: u16,
    /// Image of the Jobs.
    #[arg(long, env)]
    pub image_sync: String,
    /// Image of the partners' read services.
    #[arg(long, env)]
    pub image_infopol: String,
    /// Replicas of each partner's read service.
    #[arg(long, env, default_value_t = 1)]
    pub infopol_replicas: u16,
    /// Pull policy of both.
    #[arg(long, env, default_value = "IfNotPresent")]
    pub image_pull_policy: String,
    /// Names of pull Secrets, separated by commas.
    #[arg(long, env, default_value = "")]
    pub image_pull_secrets: String,
    /// Name of the replica store that is used when a manifest names none.
    #[arg(long, env, default_value = "shared")]
    pub default_store: String,
    /// Secret that says where the default store is; another store's is `<this>-<store name>`.
    #[arg(long, env, default_value = "liaison-store")]
    pub store_secret: String,
    /// Secret that says where the hub is.
    #[arg(long, env, default_value = "liaison-hub")]
    pub hub_secret: String,
    /// Namespace of the operator, its claims and Jobs.
    #[arg(long, env, default_value = "liaison-system")]
    pub system_namespace: String,
    /// Namespace of the gateway.
    #[arg(long, env, default_value = "liaison-gateway")]
    pub gateway_namespace: String,
    /// Namespace of the two resources and the partners' read services.
    #[arg(long, env, default_value = "liaison-partners")]
    pub partners_namespace: String,
    /// Name of this pod, by which it holds the leader's Lease.
    #[arg(long, env)]
    pub pod_name: String,
    /// Where /healthz, /readyz and /metrics are served.
    #[arg(long, env, default_value = "0.0.0.0:8080")]
    pub health_addr: SocketAddr,
    /// Reconciles at a time: each waits for the API server most of its time.
    #[arg(long, env, default_value_t = 32)]
    pub concurrency: u16,
    /// How often each replica is verified, in seconds; 0: on demand only.
    #[arg(long, env, default_value_t = 86_400)]
    pub verify_seconds: i64,
    /// Verifications and rebuilds at a time, of all partners.
    #[arg(long, env, default_value_t = 2)]
    pub verify_at_once: usize,
}

impl Settings {
    /// How long a slot that was given up is kept.
    pub fn slot_quarantine(&self) -> SignedDuration {
        SignedDuration::from_hours(24 * i64::from(self.slot_quarantine_days))
    }

    /// How long an older key is accepted once a newer one is in use.
    pub fn key_overlap(&self) -> SignedDuration {
        SignedDuration::from_hours(i64::from(self.key_overlap_hours))
    }

    /// The Secret that says where a store is.
    pub fn store_secret_of(&self, store: &str) -> String {
        if store == self.default_store { self.store_secret.clone() } else { format!("{}-{store}", self.store_secret) }
    }
}
