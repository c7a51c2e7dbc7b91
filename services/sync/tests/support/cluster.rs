//! A PostgreSQL server of a test's own, for what cannot be done to one that others use: stopping it, putting its data back,
//! promoting its standby, filling its disk. It is stopped and removed when the test ends, however it ends.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

static COUNT: AtomicU32 = AtomicU32::new(0);

pub struct Cluster {
    dir: PathBuf,
    port: u16,
    server: Option<Child>,
    small: Option<u32>,
}

/// The newest PostgreSQL of Debian's packages, or what is in the path.
fn program(name: &str) -> PathBuf {
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.filter_map(|e| Some(e.ok()?.path())).collect())
        .unwrap_or_default();
    let version = |path: &PathBuf| path.file_name().and_then(|n| n.to_str()?.parse::<u32>().ok());
    versions.sort_by_key(version);
    versions.pop().map_or_else(|| PathBuf::from(name), |version| version.join("bin").join(name))
}

fn root() -> bool {
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

/// PostgreSQL refuses to run as root: then the user of Debian's package does.
fn as_postgres(program: &Path) -> Command {
    let mut command = if root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--init-groups", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn run(command: &mut Command) {
    let status = command.status().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(status.success(), "{command:?}: {status}");
}

fn own(path: &Path) {
    if root() {
        run(Command::new("chown").arg("postgres:").arg(path));
    }
}

impl Cluster {
    /// A new server.
    pub async fn start(name: &str) -> Self {
        let mut cluster = Self::empty(name);
        run(as_postgres(&program("initdb"))
            .args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "-D"])
            .arg(cluster.data()));
        cluster.start_again().await;
        cluster
    }

    /// A new server, for which `DIR/small` is a disk of so many megabytes that only it sees.
    pub async fn start_on_small_disk(name: &str, megabytes: u32) -> Self {
        let mut cluster = Self::empty(name);
        run(as_postgres(&program("initdb"))
            .args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "-D"])
            .arg(cluster.data()));
        std::fs::create_dir(cluster.dir.join("small")).unwrap();
        own(&cluster.dir.join("small"));
        cluster.small = Some(megabytes);
        cluster.start_again().await;
        cluster
    }

    fn empty(name: &str) -> Self {
        let count = COUNT.fetch_add(1, Ordering::SeqCst);
        let dir = std::env::temp_dir().join(format!("liaison-{name}-{}-{count}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        own(&dir);
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self { dir, port, server: None, small: None }
    }

    fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// The URL of its first database.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// The small disk, as it is to the server.
    pub fn small_disk(&self) -> PathBuf {
        self.dir.join("small")
    }

    /// The small disk, as it can be reached from here.
    pub fn reach_small_disk(&self) -> PathBuf {
        let disk = self.small_disk();
        PathBuf::from(format!("/proc/{}/root{}", self.server.as_ref().unwrap().id(), disk.display()))
    }

    pub async fn start_again(&mut self) {
        assert!(self.server.is_none());
        let mut command = as_postgres(&program("postgres"));
        if let Some(megabytes) = self.small {
            // A mount of its own: nobody else sees it, and it goes with the server.
            let mount = format!(
                "mount -t tmpfs -o size={megabytes}m,uid={} tmpfs '{}' && exec \"$@\"",
                if root() { "$(id -u postgres)" } else { "0" },
                self.small_disk().display()
            );
            let mut inner = Command::new("unshare");
            if root() {
                inner.args(["--mount", "sh", "-c", &mount, "sh", "setpriv"]);
                inner.args(["--reuid=postgres", "--regid=postgres", "--init-groups", "--"]).arg(program("postgres"));
            } else {
                let user = std::fs::metadata("/proc/self").unwrap().uid();
                inner.args(["--user", "--map-root-user", "--mount", "sh", "-c", &mount, "sh", "unshare", "--user"]);
                inner.arg(format!("--map-user={user}")).arg(program("postgres"));
            }
            inner.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command = inner;
        }
        command.arg("-D").arg(self.data());
        for setting in [
            &format!("port={}", self.port),
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "fsync=off",
            "full_page_writes=off",
            "shared_buffers=32MB",
            "max_connections=60",
            "wal_level=logical",
            "wal_keep_size=64MB",
        ] {
            command.args(["-c", setting]);
        }
        self.server = Some(command.spawn().unwrap());
        for attempt in 0.. {
            if tokio_postgres::connect(&self.url(), tokio_postgres::NoTls).await.is_ok() {
                return;
            }
            assert!(attempt < 600, "PostgreSQL in {} does not answer", self.dir.display());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Stops it, as `kill -9` of its machine would, or in good order.
    pub fn stop(&mut self, signal: &str) {
        let mut server = self.server.take().unwrap();
        run(Command::new("kill").args([signal, &server.id().to_string()]));
        server.wait().unwrap();
    }

    /// A copy of the data of a server that is stopped.
    pub fn back_up(&self) {
        assert!(self.server.is_none());
        run(Command::new("cp").arg("-a").arg(self.data()).arg(self.dir.join("backup")));
    }

    /// Puts the copy back.
    pub fn restore(&self) {
        assert!(self.server.is_none());
        std::fs::remove_dir_all(self.data()).unwrap();
        run(Command::new("cp").arg("-a").arg(self.dir.join("backup")).arg(self.data()));
    }

    /// An asynchronous standby.
    pub async fn standby(&self, name: &str) -> Self {
        let mut standby = Self::empty(name);
        run(as_postgres(&program("pg_basebackup"))
            .args(["-R", "-X", "stream", "-c", "fast", "--no-sync", "-d", &self.url(), "-D"])
            .arg(standby.data()));
        standby.start_again().await;
        standby
    }

    /// The standby becomes a primary.
    pub fn promote(&self) {
        run(as_postgres(&program("pg_ctl")).args(["promote", "-w", "-s", "-D"]).arg(self.data()));
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = Command::new("kill").args(["-QUIT", &server.id().to_string()]).status();
            let _ = server.wait();
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
