//! What the gateway is told at start.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use liaison_crds::{GatewayName, gateway::FIRST};

/// What ends the partners' WireGuard tunnels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Backend {
    /// The kernel, where it has WireGuard and nftables, else this process.
    Auto,
    /// The kernel, or the gateway does not start.
    Kernel,
    /// This process, over a TUN device.
    Userspace,
}

/// Ends the partners' WireGuard tunnels and mTLS, and passes their requests to their InfoPols.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "liaison-gateway", version)]
pub struct Config {
    /// DNS domain of the partners' server names, and SPIFFE trust domain.
    #[arg(long, env = "DOMAIN", default_value = "liaison.example.ca")]
    pub domain: String,
    /// Name of this gateway's shard in the partners' status, which are the partners it serves; the same for both of its processes, and
    /// after a restart.
    #[arg(long, env = "GATEWAY_NAME", default_value = FIRST)]
    pub name: GatewayName,
    /// Name of this pod, by which it holds the Lease.
    #[arg(long, env = "POD_NAME", default_value = "gateway")]
    pub pod_name: String,
    /// Lease in the gateway's namespace that one of the shard's two processes holds, and serves; absent: this one always does.
    #[arg(long, env = "LEASE")]
    pub lease: Option<String>,
    /// UDP port of WireGuard.
    #[arg(long, env = "WG_PORT", default_value_t = 51820)]
    pub wg_port: u16,
    /// UDP port of the second listener, which has a key while the gateway's own changes, and every second time afterwards.
    #[arg(long, env = "WG_SECOND_PORT", default_value_t = 51821)]
    pub wg_second_port: u16,
    /// Namespace of the gateway's Secrets.
    #[arg(long, env = "GATEWAY_NAMESPACE", default_value = "liaison-gateway")]
    pub gateway_namespace: String,
    /// Namespace of PartnerConnections and InfoPols.
    #[arg(long, env = "PARTNERS_NAMESPACE", default_value = "liaison-partners")]
    pub partners_namespace: String,
    /// URL of an InfoPol; `{name}` and `{namespace}` stand for the partner's name and the InfoPols' namespace.
    #[arg(long, env = "UPSTREAM", default_value = "https://infopol-{name}.{namespace}.svc:8443")]
    pub upstream: String,
    /// What ends the partners' WireGuard tunnels.
    #[arg(long, env = "WG_BACKEND", value_enum, default_value_t = Backend::Auto)]
    pub wg_backend: Backend,
    /// Name of the TUN device; with the kernel's WireGuard, of the first listener's link, and with `-2` behind it of the second's.
    #[arg(long, env = "TUN_NAME", default_value = "liaison0")]
    pub tun_name: String,
    /// Seconds without a word from the API after which nothing is served.
    #[arg(long, env = "STALENESS_LIMIT", default_value_t = 900)]
    pub staleness_limit: u64,
    /// Address of /healthz, /readyz and /metrics.
    #[arg(long, env = "HEALTH_ADDR", default_value = "0.0.0.0:8080")]
    pub health_addr: SocketAddr,
    /// Directory, gone with the node's uptime, in which it is kept where partners were heard from, for whoever serves next on this
    /// node; absent: nowhere.
    #[arg(long, env = "STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// Most HTTPS connections a partner.
    #[arg(long, env = "MAX_CONNECTIONS", default_value_t = 128)]
    pub max_connections: usize,
    /// Most bytes a second a partner, in all its connections and both ways together; 0: any number.
    #[arg(long, env = "MAX_BYTES_PER_SECOND", default_value_t = 1 << 24)]
    pub max_bytes_per_second: u32,
    /// Seconds in which a client must have sent its TLS handshake, and a request's header.
    #[arg(long, env = "HEADER_SECONDS", default_value_t = 10)]
    pub header_seconds: u64,
    /// Seconds after which a client that takes nothing of what is sent to it is given up.
    #[arg(long, env = "STALL_SECONDS", default_value_t = 60)]
    pub stall_seconds: u64,
    /// Largest request body, in bytes.
    #[arg(long, env = "MAX_BODY", default_value_t = 1 << 20)]
    pub max_body: usize,
    /// Seconds for which a request for a certificate is held until it is to come again.
    #[arg(long, env = "ENROLMENT_WAIT", default_value_t = 8)]
    pub enrolment_wait: u64,
}

impl Config {
    /// The staleness limit.
    pub fn staleness_limit(&self) -> Duration {
        Duration::from_secs(self.staleness_limit)
    }
}
