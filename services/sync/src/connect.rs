//! Connections to the hub and to a replica store: settings from the environment, verify-full TLS, a few sticky lanes.

use std::{
    collections::hash_map::DefaultHasher,
    fmt,
    hash::{Hash, Hasher},
    sync::{
        Arc, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Mutex, MutexGuard},
    time::timeout,
};
use tokio_postgres::{Client, Config, NoTls, config::SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::{
    error::{Error, Of, Side},
    tls::{Files, Held, Tls},
};

/// How to reach one of the two databases. Not printable: it holds a password.
#[derive(Clone)]
pub struct Target {
    side: Side,
    config: Config,
    tls: Option<Arc<Tls>>,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("side", &self.side).finish_non_exhaustive()
    }
}

impl Target {
    /// Reads `HUB_*` or `STORE_*`: libpq's names (HOST, PORT, DBNAME, USER, PASSWORD or PASSWORD_FILE, SSLMODE,
    /// SSLROOTCERT, SSLCERT, SSLKEY), or URL, which wins.
    pub fn from_env(side: Side) -> Result<Self, Error> {
        Self::from_settings(side, |name| std::env::var(name).ok())
    }

    /// The same from whatever has them.
    pub fn from_settings(side: Side, settings: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let prefix = match side {
            Side::Hub => "HUB",
            Side::Store => "STORE",
        };
        let get = |name: &str| settings(&format!("{prefix}_{name}")).filter(|v| !v.is_empty());
        let need = |name: &str| {
            get(name).ok_or_else(|| Error::Config(format!("{prefix}_{name} (or {prefix}_URL) must be set")))
        };
        if let Some(url) = get("URL") {
            return Self::from_url(side, &url);
        }
        let mut config = Config::new();
        config.host(need("HOST")?).dbname(need("DBNAME")?).user(need("USER")?);
        if let Some(port) = get("PORT") {
            config.port(port.parse().map_err(|_| Error::Config(format!("{prefix}_PORT must be a port number")))?);
        }
        if let Some(path) = get("PASSWORD_FILE") {
            let password = std::fs::read_to_string(&path)
                .map_err(|e| Error::Config(format!("{prefix}_PASSWORD_FILE cannot be read: {e}")))?;
            config.password(password.trim_end());
        } else if let Some(password) = get("PASSWORD") {
            config.password(password);
        }
        let mode = get("SSLMODE").unwrap_or_else(|| "verify-full".to_owned());
        let tls = match mode.as_str() {
            "disable" => None,
            "verify-full" => {
                let client = match (get("SSLCERT"), get("SSLKEY")) {
                    (Some(certificate), Some(key)) => Some((certificate.into(), key.into())),
                    (None, None) => None,
                    _ => return Err(Error::Config("SSLCERT and SSLKEY must be set together".into())),
                };
                Some(Tls::load(Files { roots: need("SSLROOTCERT")?.into(), client })?)
            }
            other => {
                return Err(Error::Config(format!(
                    "{prefix}_SSLMODE must be verify-full, or disable for tests, not '{other}'"
                )));
            }
        };
        Ok(Self::new(side, config, tls))
    }

    /// A plain connection by URL, for tests.
    pub fn from_url(side: Side, url: &str) -> Result<Self, Error> {
        let config =
            url.parse().map_err(|_| Error::Config("the database URL must be postgres://user@host:port/db".into()))?;
        Ok(Self::new(side, config, None))
    }

    fn new(side: Side, mut config: Config, tls: Option<Tls>) -> Self {
        config
            .ssl_mode(if tls.is_some() { SslMode::Require } else { SslMode::Disable })
            .application_name("liaison-sync")
            .connect_timeout(Duration::from_secs(5))
            .tcp_user_timeout(Duration::from_secs(30))
            .keepalives_idle(Duration::from_secs(15));
        Self { side, config, tls: tls.map(Arc::new) }
    }

    /// Which database.
    pub fn side(&self) -> Side {
        self.side
    }

    /// The certificates for a connection that is opened now; none where it is plain.
    pub fn tls(&self) -> Option<Held> {
        Some(self.tls.as_ref()?.current())
    }

    /// Opens a connection, with the certificates as their files are now. What the ledger and a replica need is set here,
    /// whatever the server's defaults are.
    pub async fn connect(&self) -> Result<Client, Error> {
        self.connect_with(self.tls().map(|held| (*held.config).clone())).await
    }

    /// The same with TLS of the caller's.
    pub(crate) async fn connect_with(&self, tls: Option<rustls::ClientConfig>) -> Result<Client, Error> {
        let client = match tls {
            None => {
                let (client, connection) =
                    self.config.connect(NoTls).await.map_err(|e| Error::postgres(self.side, &e))?;
                tokio::spawn(connection);
                client
            }
            Some(tls) => {
                let connect = MakeRustlsConnect::new(tls);
                let (client, connection) =
                    self.config.connect(connect).await.map_err(|e| Error::postgres(self.side, &e))?;
                tokio::spawn(connection);
                client
            }
        };
        // No compiling of queries that run for milliseconds. On a store, a batch's few keys, each there once, meet a replica's
        // indexes, whatever is known of its size.
        let set = "SET synchronous_commit = on; SET lock_timeout = '10s'; SET TimeZone = 'UTC'; SET jit = off; \
                   SET DateStyle = 'ISO, YMD'; SET search_path = pg_catalog; \
                   SET idle_in_transaction_session_timeout = '10min'; SET client_min_messages = warning";
        match self.side {
            Side::Hub => client.batch_execute(set).await.hub()?,
            Side::Store => {
                let set =
                    format!("{set}; SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_memoize = off");
                client.batch_execute(&set).await.store()?;
            }
        }
        Ok(client)
    }
}

/// Works over a lane of each of two for `key`.
pub(crate) async fn over_both<T>(
    one: &Lanes,
    other: &Lanes,
    key: &str,
    work: impl AsyncFnOnce(&mut Client, &mut Client) -> Result<T, Error>,
) -> Result<T, Error> {
    let (mut one, mut other) = (one.lane(key).await?, other.lane(key).await?);
    let done = work(one.client()?, other.client()?).await?;
    one.keep();
    other.keep();
    Ok(done)
}

/// Bounds in time what is asked of a database.
pub(crate) async fn within<T>(
    bound: Duration,
    side: Side,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    timeout(bound, work).await.unwrap_or(Err(Error::Timeout { side, seconds: bound.as_secs() }))
}

/// The longest that a connection may take to be open, TLS and settings with it.
const OPENING: Duration = Duration::from_secs(10);

/// A few warm connections; a key always takes the same one, so that what a backend has cached stays of use.
#[derive(Debug)]
pub struct Lanes {
    target: Target,
    opened: AtomicU64,
    server: std::sync::Mutex<(String, u64)>,
    each: Vec<Mutex<Option<Client>>>,
}

/// One connection, held alone until dropped. It is given up then, unless whoever worked over it says that all went well
/// ([`Lane::keep`]): after a failure, and after work that was dropped half-way, what it still does is unknown.
#[derive(Debug)]
pub struct Lane<'a> {
    client: MutexGuard<'a, Option<Client>>,
    used: bool,
}

impl Lanes {
    /// `count` lanes, none of them open yet.
    pub fn new(target: Target, count: usize) -> Self {
        let server = std::sync::Mutex::default();
        Self { target, opened: AtomicU64::new(0), server, each: (0..count.max(1)).map(|_| Mutex::new(None)).collect() }
    }

    /// How they connect.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// How many connections were opened so far. Of a single lane, while it is held: the number of the one that it has.
    pub fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    /// Which server it is that the last connection was opened to, counted from 0: one that was restarted is another. Its data may be of
    /// an earlier day.
    pub fn server(&self) -> u64 {
        self.server.lock().unwrap_or_else(PoisonError::into_inner).1
    }

    async fn open(&self) -> Result<Client, Error> {
        let client = within(OPENING, self.target.side(), self.target.connect()).await?;
        let since = client.query_one("SELECT pg_postmaster_start_time()::text", &[]).await;
        let since = since.map_err(|e| Error::postgres(self.target.side(), &e))?;
        let since = since.try_get(0).map_err(|e| Error::postgres(self.target.side(), &e))?;
        let mut server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        if server.0 != since {
            let first = server.0.is_empty();
            *server = (since, server.1 + u64::from(!first));
        }
        Ok(client)
    }

    /// Waits for the lane of `key`, and opens it if it is not open.
    pub async fn lane(&self, key: &str) -> Result<Lane<'_>, Error> {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let index = usize::try_from(hasher.finish() % self.each.len() as u64).unwrap_or(0);
        let mut guard = self.each[index].lock().await;
        if guard.as_ref().is_none_or(Client::is_closed) {
            *guard = Some(self.open().await?);
            self.opened.fetch_add(1, Ordering::Relaxed);
        }
        Ok(Lane { client: guard, used: false })
    }

    /// Works over the lane of `key`.
    pub async fn over<T>(
        &self,
        key: &str,
        work: impl AsyncFnOnce(&mut Client) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut lane = self.lane(key).await?;
        let done = work(lane.client()?).await?;
        lane.keep();
        Ok(done)
    }
}

impl Lane<'_> {
    /// The connection.
    pub fn client(&mut self) -> Result<&mut Client, Error> {
        self.used = true;
        self.client.as_mut().ok_or_else(|| Error::Corrupt("a lane has no connection".to_owned()))
    }

    /// All that was begun over it has ended well.
    pub fn keep(&mut self) {
        self.used = false;
    }
}

impl Drop for Lane<'_> {
    fn drop(&mut self) {
        if self.used {
            *self.client = None;
        }
    }
}
