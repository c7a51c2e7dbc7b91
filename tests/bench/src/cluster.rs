//! Private PostgreSQL servers in a temporary directory, on Unix sockets, ended by pid.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tokio_postgres::{Client, NoTls};

use crate::{
    error::{Error, Result},
    process, run,
};

/// The settings of every server of the benchmark, the same on both sides, as they are printed.
pub const SETTINGS: &[(&str, &str)] = &[
    ("fsync", "on"),
    ("synchronous_commit", "on"),
    ("full_page_writes", "on"),
    ("wal_level", "logical"),
    ("shared_buffers", "512MB"),
    ("max_wal_size", "4GB"),
    ("checkpoint_timeout", "1h"),
    ("autovacuum", "off"),
    ("jit", "off"),
    ("max_connections", "400"),
    ("max_wal_senders", "900"),
    ("max_replication_slots", "1600"),
    ("max_worker_processes", "1000"),
    ("max_logical_replication_workers", "900"),
    ("max_sync_workers_per_subscription", "2"),
    ("wal_retrieve_retry_interval", "500ms"),
    ("max_locks_per_transaction", "256"),
    ("wal_compression", "off"),
];

/// A server's data directory, and the server while it runs.
#[derive(Debug)]
pub struct Cluster {
    name: &'static str,
    root: PathBuf,
    server: Option<Child>,
}

/// The newest PostgreSQL of Debian's packages, 15 or later.
pub fn programs() -> Result<PathBuf> {
    let found = run("sh", &["-c", "ls -d /usr/lib/postgresql/*/bin | sort -t/ -k5 -n | tail -n 1"])?;
    let found = found.trim();
    if found.is_empty() {
        return Err(Error::said("PostgreSQL is not installed: apt-get install postgresql"));
    }
    Ok(found.into())
}

/// PostgreSQL refuses to run as root: then the user of Debian's package does. The server ends with the benchmark, however
/// that ends.
fn as_postgres() -> Result<Command> {
    let mut command = Command::new("setpriv");
    if run("id", &["-u"])?.trim() == "0" {
        command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]);
    }
    command.args(["--pdeathsig=QUIT", "--"]).current_dir("/");
    Ok(command)
}

fn done(mut command: Command) -> Result<()> {
    let out = command.output()?;
    if out.status.success() {
        Ok(())
    } else {
        Err(Error::said(format!("{command:?}: {}", String::from_utf8_lossy(&out.stderr))))
    }
}

impl Cluster {
    fn new(root: &Path, name: &'static str) -> Self {
        Self { name, root: root.join(name), server: None }
    }

    fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    /// An empty one.
    pub fn init(root: &Path, name: &'static str) -> Result<Self> {
        let cluster = Self::new(root, name);
        fs::create_dir_all(&cluster.root)?;
        if run("id", &["-u"])?.trim() == "0" {
            run("chown", &["postgres:", &cluster.root.to_string_lossy()])?;
        }
        let mut initdb = as_postgres()?;
        initdb.arg(programs()?.join("initdb")).arg("-D").arg(cluster.data());
        initdb.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"]);
        done(initdb)?;
        let mut settings = format!(
            "listen_addresses = ''\nunix_socket_directories = '{}'\nlog_min_messages = warning\n",
            cluster.root.display()
        );
        settings.extend(SETTINGS.iter().map(|(name, value)| format!("{name} = '{value}'\n")));
        let file = cluster.data().join("postgresql.conf");
        let had = fs::read_to_string(&file)?;
        fs::write(&file, had + &settings)?;
        Ok(cluster)
    }

    /// A copy of one that is stopped.
    pub fn copy_of(other: &Self, root: &Path, name: &'static str) -> Result<Self> {
        let cluster = Self::new(root, name);
        let (from, to) = (other.root.to_string_lossy().into_owned(), cluster.root.to_string_lossy().into_owned());
        run("cp", &["-a", "--reflink=auto", &from, &to])?;
        let file = cluster.data().join("postgresql.conf");
        fs::write(&file, fs::read_to_string(&file)?.replace(&from, &to))?;
        Ok(cluster)
    }

    /// Starts it, and waits until it answers.
    pub async fn start(&mut self) -> Result<()> {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.root.join("log"))?;
        let mut command = as_postgres()?;
        command.arg(programs()?.join("postgres")).arg("-D").arg(self.data());
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.server = Some(command.spawn()?);
        let begun = Instant::now();
        loop {
            match self.client("postgres").await {
                Ok(_) => return Ok(()),
                Err(error) if begun.elapsed() > Duration::from_secs(60) => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
            if let Some(server) = &mut self.server
                && server.try_wait()?.is_some()
            {
                let log = fs::read_to_string(self.root.join("log")).unwrap_or_default();
                return Err(Error::said(format!("{} does not start: {log}", self.name)));
            }
        }
    }

    /// Stops it; `SIGINT` is PostgreSQL's fast shutdown.
    pub fn stop(&mut self) -> Result<()> {
        if let Some(mut server) = self.server.take() {
            run("kill", &["-INT", &server.id().to_string()])?;
            server.wait()?;
        }
        Ok(())
    }

    /// Stops it and removes its files.
    pub fn remove(mut self) -> Result<()> {
        self.stop()?;
        fs::remove_dir_all(&self.root)?;
        Ok(())
    }

    /// How to reach a database.
    pub fn url(&self, user: &str, database: &str) -> String {
        format!("postgres://{user}@{}/{database}", self.root.to_string_lossy().replace('/', "%2F"))
    }

    /// The same for libpq, without a database.
    pub fn conninfo(&self) -> String {
        format!("host={} user=postgres", self.root.display())
    }

    /// A connection of the superuser.
    pub async fn client(&self, database: &str) -> Result<Client> {
        let (client, connection) = tokio_postgres::connect(&self.url("postgres", database), NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    fn pid(&self) -> Result<u32> {
        self.server.as_ref().map(Child::id).ok_or_else(|| Error::said(format!("{} does not run", self.name)))
    }

    /// CPU-seconds of all its processes so far.
    pub fn cpu(&self) -> Result<f64> {
        Ok(process::tree_cpu(self.pid()?)?)
    }

    /// Proportional set size of all its processes, in bytes.
    pub fn pss(&self) -> Result<u64> {
        Ok(process::tree_pss(self.pid()?)?)
    }

    /// Writes out what is dirty, so that no measure pays for what came before it.
    pub async fn settle(&self) -> Result<()> {
        self.client("postgres").await?.batch_execute("CHECKPOINT").await?;
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("{}: {error}", self.name);
        }
    }
}
