//! How the process is told what to do: flags, each with an environment variable.

use std::{net::SocketAddr, path::PathBuf};

use clap::Parser;
use liaison_records::{names::PartnerName, trust};
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use crate::{
    session::{SealError, Sealer},
    tls,
};

/// InfoPol: the read service of one partner.
#[derive(Debug, Clone, Parser)]
#[command(name = "liaison-infopol", version, about)]
pub struct Config {
    /// Name of the partner, as of its PartnerConnection.
    #[arg(long, env = "PARTNER")]
    pub partner: PartnerName,
    /// Domain of the installation, also its SPIFFE trust domain.
    #[arg(long, env = "DOMAIN", default_value = "liaison.example.ca")]
    pub domain: String,
    /// Directory with tls.crt, tls.key and ca.crt; read again when they change.
    #[arg(long, env = "TLS_DIR", default_value = "/tls")]
    pub tls_dir: PathBuf,
    /// Where the gateway is answered, over TLS.
    #[arg(long, env = "LISTEN", default_value = "0.0.0.0:8443")]
    pub listen: SocketAddr,
    /// Where /healthz, /readyz and /metrics are answered, in clear.
    #[arg(long, env = "HEALTH_ADDR", default_value = "0.0.0.0:8080")]
    pub health_addr: SocketAddr,
    /// File with the secret that the key of sessions is derived from, the same for all replicas of this partner's InfoPol. Not
    /// given: a key of this process's own, whose sessions no other replica knows and no restart outlives.
    #[arg(long, env = "SESSION_SECRET_FILE")]
    pub session_secret_file: Option<PathBuf>,
    /// The replica store.
    #[command(flatten)]
    pub store: StoreConfig,
}

/// How the replica store is reached; the names are libpq's.
#[derive(Debug, Clone, clap::Args)]
#[allow(clippy::struct_field_names, reason = "the fields name the flags")]
pub struct StoreConfig {
    /// A whole URL, which wins over everything below; for tests.
    #[arg(long, env = "STORE_URL", hide_env_values = true)]
    store_url: Option<String>,
    /// Host name, as in the server's certificate.
    #[arg(long, env = "STORE_HOST", default_value = "store.liaison-system.svc")]
    store_host: String,
    /// Port.
    #[arg(long, env = "STORE_PORT", default_value_t = 5432)]
    store_port: u16,
    /// Database.
    #[arg(long, env = "STORE_DBNAME", default_value = "store")]
    store_dbname: String,
    /// Role; the partner's reader role unless given.
    #[arg(long, env = "STORE_USER")]
    store_user: Option<String>,
    /// Password.
    #[arg(long, env = "STORE_PASSWORD", hide_env_values = true)]
    store_password: Option<String>,
    /// File with the password.
    #[arg(long, env = "STORE_PASSWORD_FILE")]
    store_password_file: Option<PathBuf>,
    /// `verify-full`; `disable` only for tests.
    #[arg(long, env = "STORE_SSLMODE", default_value = "verify-full")]
    store_sslmode: String,
    /// The CA of the server's certificate.
    #[arg(long, env = "STORE_SSLROOTCERT")]
    store_sslrootcert: Option<PathBuf>,
    /// The client certificate; its CN is the role.
    #[arg(long, env = "STORE_SSLCERT")]
    store_sslcert: Option<PathBuf>,
    /// The key of the client certificate.
    #[arg(long, env = "STORE_SSLKEY")]
    store_sslkey: Option<PathBuf>,
}

/// What is wrong with the flags.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// `STORE_URL` is no PostgreSQL URL.
    #[error("STORE_URL must be a PostgreSQL URL")]
    Url,
    /// Another TLS mode than the two.
    #[error("STORE_SSLMODE must be 'verify-full', or 'disable' in tests")]
    SslMode,
    /// The password file can not be read.
    #[error("can not read STORE_PASSWORD_FILE: {0}")]
    Password(std::io::Error),
    /// The secret of sessions can not be read.
    #[error("can not read SESSION_SECRET_FILE: {0}")]
    Session(std::io::Error),
    /// The secret of sessions is of no use.
    #[error("SESSION_SECRET_FILE: {0}")]
    Seal(#[from] SealError),
}

impl Config {
    /// What seals sessions.
    pub fn sealer(&self) -> Result<Sealer, ConfigError> {
        match &self.session_secret_file {
            Some(file) => {
                let secret = std::fs::read(file).map_err(ConfigError::Session)?;
                Ok(Sealer::derived(secret.trim_ascii(), &self.partner)?)
            }
            None => Ok(Sealer::alone()?),
        }
    }
}

impl StoreConfig {
    /// How to connect. Every session is bounded in time; the rest the database enforces.
    pub fn options(&self, partner: &PartnerName) -> Result<PgConnectOptions, ConfigError> {
        let options = match &self.store_url {
            Some(url) => url.parse::<PgConnectOptions>().map_err(|_| ConfigError::Url)?,
            None => self.parts(partner)?,
        };
        Ok(options.application_name("infopol").options([
            ("statement_timeout", "10000"),
            ("lock_timeout", "5000"),
            ("idle_in_transaction_session_timeout", "10000"),
        ]))
    }

    /// Says which certificates a connection that is made now uses: they are read from their files each time.
    pub fn said(&self, report: &mut trust::Report) {
        let digests = |path: &PathBuf| tls::digests(&std::fs::read(path).unwrap_or_default());
        if let Some(root) = &self.store_sslrootcert {
            report.trusts.insert("store".to_owned(), digests(root).into_iter().collect());
        }
        if let Some(certificate) = &self.store_sslcert {
            report.shows.insert("store".to_owned(), digests(certificate));
        }
    }

    fn parts(&self, partner: &PartnerName) -> Result<PgConnectOptions, ConfigError> {
        let mode = match self.store_sslmode.as_str() {
            "verify-full" => PgSslMode::VerifyFull,
            "disable" => PgSslMode::Disable,
            _ => return Err(ConfigError::SslMode),
        };
        let mut options = PgConnectOptions::new_without_pgpass()
            .host(&self.store_host)
            .port(self.store_port)
            .database(&self.store_dbname)
            .username(self.store_user.as_deref().unwrap_or(&partner.reader_role()))
            .ssl_mode(mode);
        let password = match &self.store_password_file {
            Some(file) => Some(std::fs::read_to_string(file).map_err(ConfigError::Password)?.trim_end().to_owned()),
            None => self.store_password.clone(),
        };
        if let Some(password) = password {
            options = options.password(&password);
        }
        // The paths are read at each connection, so a renewed certificate is taken without a restart.
        if let Some(root) = &self.store_sslrootcert {
            options = options.ssl_root_cert(root);
        }
        if let (Some(certificate), Some(key)) = (&self.store_sslcert, &self.store_sslkey) {
            options = options.ssl_client_cert(certificate).ssl_client_key(key);
        }
        Ok(options)
    }
}
