//! The connection to the hub: libpq's settings under the prefix `HUB_`, verify-full TLS unless a test says otherwise.

use std::{path::PathBuf, str::FromStr as _};

use clap::Args;
use jiff::{ToSpan as _, civil::Date};
use sqlx::{
    ConnectOptions as _, Connection as _, Decode, Encode, PgConnection, Postgres, Type,
    encode::IsNull,
    error::BoxDynError,
    postgres::{PgArgumentBuffer, PgConnectOptions, PgSslMode, PgTypeInfo, PgValueFormat, PgValueRef, types::Oid},
};

use crate::error::Error;

/// How to reach the hub. `HUB_URL` wins over the rest.
#[derive(Clone, Args)]
pub struct HubArgs {
    /// `postgres://user@host:port/database`, plain: for tests.
    #[arg(long, global = true, env = "HUB_URL", hide_env_values = true)]
    pub hub_url: Option<String>,
    /// Host of the hub.
    #[arg(long, global = true, env = "HUB_HOST")]
    pub hub_host: Option<String>,
    /// Port of the hub.
    #[arg(long, global = true, env = "HUB_PORT", default_value_t = 5432)]
    pub hub_port: u16,
    /// Database of the hub.
    #[arg(long, global = true, env = "HUB_DBNAME", default_value = "hub")]
    pub hub_dbname: String,
    /// Role that owns the hub.
    #[arg(long, global = true, env = "HUB_USER", default_value = "liaison_oms")]
    pub hub_user: String,
    /// Its password.
    #[arg(long, global = true, env = "HUB_PASSWORD", hide_env_values = true)]
    pub hub_password: Option<String>,
    /// A file with its password.
    #[arg(long, global = true, env = "HUB_PASSWORD_FILE")]
    pub hub_password_file: Option<PathBuf>,
    /// The CA that signed the hub's certificate.
    #[arg(long, global = true, env = "HUB_SSLROOTCERT")]
    pub hub_sslrootcert: Option<PathBuf>,
    /// The client certificate; its CN is the role.
    #[arg(long, global = true, env = "HUB_SSLCERT")]
    pub hub_sslcert: Option<PathBuf>,
    /// The client certificate's key.
    #[arg(long, global = true, env = "HUB_SSLKEY")]
    pub hub_sslkey: Option<PathBuf>,
    /// verify-full; `disable` is for tests.
    #[arg(long, global = true, env = "HUB_SSLMODE", default_value = "verify-full")]
    pub hub_sslmode: String,
}

impl std::fmt::Debug for HubArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // It holds a password.
        f.debug_struct("HubArgs").field("host", &self.hub_host).finish_non_exhaustive()
    }
}

impl HubArgs {
    /// The driver's options.
    pub fn options(&self) -> Result<PgConnectOptions, Error> {
        if let Some(url) = &self.hub_url {
            return from_url(url);
        }
        let Some(host) = &self.hub_host else {
            return Err(Error::Config("HUB_HOST (or HUB_URL) must be set".into()));
        };
        let mut options = PgConnectOptions::new_without_pgpass()
            .host(host)
            .port(self.hub_port)
            .database(&self.hub_dbname)
            .username(&self.hub_user);
        if let Some(path) = &self.hub_password_file {
            let password = std::fs::read_to_string(path)
                .map_err(|e| Error::Config(format!("HUB_PASSWORD_FILE {}: {e}", path.display())))?;
            options = options.password(password.trim_end());
        } else if let Some(password) = &self.hub_password {
            options = options.password(password);
        }
        options = match self.hub_sslmode.as_str() {
            "disable" => options.ssl_mode(PgSslMode::Disable),
            "verify-full" => {
                let Some(root) = &self.hub_sslrootcert else {
                    return Err(Error::Config("HUB_SSLROOTCERT must be set with HUB_SSLMODE verify-full".into()));
                };
                let options = options.ssl_mode(PgSslMode::VerifyFull).ssl_root_cert(root);
                match (&self.hub_sslcert, &self.hub_sslkey) {
                    (Some(cert), Some(key)) => options.ssl_client_cert(cert).ssl_client_key(key),
                    (None, None) => options,
                    _ => return Err(Error::Config("HUB_SSLCERT and HUB_SSLKEY must be set together".into())),
                }
            }
            other => {
                return Err(Error::Config(format!(
                    "HUB_SSLMODE must be verify-full (or disable in tests), not {other}"
                )));
            }
        };
        Ok(quiet(options))
    }

    /// Opens a connection.
    pub async fn connect(&self) -> Result<PgConnection, Error> {
        Ok(PgConnection::connect_with(&self.options()?).await?)
    }
}

/// The options of a plain URL, for tests.
pub fn from_url(url: &str) -> Result<PgConnectOptions, Error> {
    Ok(quiet(PgConnectOptions::from_str(url)?.ssl_mode(PgSslMode::Disable)))
}

/// Statements are not logged: they hold personal data.
fn quiet(options: PgConnectOptions) -> PgConnectOptions {
    options.application_name("liaison-oms").disable_statement_logging()
}

/// A plain date as a statement's parameter.
#[derive(Debug, Clone, Copy)]
pub struct PgDate(pub Date);

impl Type<Postgres> for PgDate {
    fn type_info() -> PgTypeInfo {
        // `date`, in every PostgreSQL.
        PgTypeInfo::with_oid(Oid(1082))
    }
}

impl Encode<'_, Postgres> for PgDate {
    fn encode_by_ref(&self, buf: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        buf.extend_from_slice(&crate::rows::days(self.0).to_be_bytes());
        Ok(IsNull::No)
    }
}

impl Decode<'_, Postgres> for PgDate {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        let days = match value.format() {
            PgValueFormat::Binary => i32::from_be_bytes(value.as_bytes()?.try_into()?),
            PgValueFormat::Text => return Ok(Self(value.as_str()?.parse()?)),
        };
        Ok(Self(jiff::civil::date(2000, 1, 1).checked_add(days.days())?))
    }
}
