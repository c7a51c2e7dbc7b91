//! The hub and the store take new roots and certificates while they run, and so does sync: process 1 of the PostgreSQL image
//! itself, and real TLS. Needs Debian's PostgreSQL.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use liaison_records::trust::{Server, digest};
use liaison_sync::{
    connect::Target,
    error::Side,
    tls::{Witness, meet},
};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

struct Root {
    pem: String,
    digest: String,
    name: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Root {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        // The name as it stands in the certificate: a sequence of one set of one sequence.
        let n = u8::try_from(name.len()).unwrap();
        let before = [0x30, 11 + n, 0x31, 9 + n, 0x30, 7 + n, 6, 3, 0x55, 4, 3, 0x0c, n];
        let name = [&before[..], name.as_bytes()].concat();
        assert!(certificate.der().windows(name.len()).any(|window| window == name));
        Self {
            pem: certificate.pem(),
            digest: digest(certificate.der()),
            name: digest(&name),
            issuer: Issuer::new(params, key),
        }
    }

    /// Chain and key of a leaf, and the leaf's SHA-256.
    fn leaf(&self, name: &str, usage: ExtendedKeyUsagePurpose) -> (String, String, String) {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem(), digest(certificate.der()))
    }
}

/// Whatever lies in a directory as a Secret lies in a pod.
fn mount(directory: &Path, (chain, key, _): &(String, String, String), roots: &[&Root]) {
    let roots: String = roots.iter().map(|root| root.pem.as_str()).collect();
    for (name, text) in [("tls.crt", chain), ("tls.key", key), ("ca.crt", &roots)] {
        fs::write(directory.join(name), text).unwrap();
    }
}

struct Database {
    directory: PathBuf,
    port: u16,
    process: Child,
}

impl Drop for Database {
    fn drop(&mut self) {
        // As Kubernetes does; it passes it on to PostgreSQL.
        let _ = Command::new("kill").args(["-TERM", &self.process.id().to_string()]).status();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

impl Database {
    fn start(directory: PathBuf) -> Self {
        let entry = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../images/postgres-entrypoint");
        // The checkout may be where only its owner may go.
        fs::copy(entry, directory.join("entrypoint")).unwrap();
        fs::write(directory.join("init/a.sql"), "CREATE ROLE liaison_sync LOGIN PASSWORD 'x';\nCREATE DATABASE hub;\n")
            .unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut versions: Vec<PathBuf> =
            fs::read_dir("/usr/lib/postgresql").unwrap().map(|e| e.unwrap().path()).collect();
        versions.sort();
        let path = format!("{}/bin:/usr/bin:/bin", versions.last().unwrap().display());
        let run =
            |arguments: &[&str]| assert!(Command::new(arguments[0]).args(&arguments[1..]).status().unwrap().success());
        let is_root = String::from_utf8(Command::new("id").arg("-u").output().unwrap().stdout).unwrap().trim() == "0";
        let mut command = if is_root {
            run(&["chown", "-R", "postgres:", directory.to_str().unwrap()]);
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--init-groups", "--", "bash"]);
            command
        } else {
            Command::new("bash")
        };
        command
            .arg(directory.join("entrypoint"))
            .args(["-c", &format!("port={port}"), "-c", "fsync=off"])
            .env("PATH", path)
            .env("PGDATA", directory.join("data"))
            .env("RUN_DIR", directory.join("run"))
            .env("TLS_DIR", directory.join("tls"))
            .env("INIT_DIR", directory.join("init"))
            .env("RELOAD_SECONDS", "1")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let process = command.spawn().unwrap();
        Self { directory, port, process }
    }
}

async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "{what} within a minute");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// OpenSSL adds the root to a chain that is a leaf alone.
fn leaf_of(server: Server) -> Server {
    match server {
        Server::Met { mut shows, accepts } => {
            shows.truncate(1);
            Server::Met { shows, accepts }
        }
        other => other,
    }
}

#[tokio::test]
async fn databases_and_sync_change_roots_and_certificates_without_a_restart() {
    let directory = std::env::temp_dir().join(format!("liaison-rotation-{}", std::process::id()));
    for part in ["tls", "client", "init", "run"] {
        fs::create_dir_all(directory.join(part)).unwrap();
    }
    let (one, two) = (Root::new("Root 1"), Root::new("Root 2"));
    let server = |root: &Root| root.leaf("hub", ExtendedKeyUsagePurpose::ServerAuth);
    let client = |root: &Root| root.leaf("liaison_sync", ExtendedKeyUsagePurpose::ClientAuth);
    let (first_server, first_client) = (server(&one), client(&one));
    let (tls, own) = (directory.join("tls"), directory.join("client"));
    mount(&tls, &first_server, &[&one]);
    mount(&own, &first_client, &[&one]);
    let database = Database::start(directory);
    let settings = |name: &str| {
        let file = |file: &str| Some(own.join(file).to_str().unwrap().to_owned());
        match name {
            "HUB_HOST" => Some("localhost".to_owned()),
            "HUB_PORT" => Some(database.port.to_string()),
            "HUB_DBNAME" => Some("hub".to_owned()),
            "HUB_USER" => Some("liaison_sync".to_owned()),
            "HUB_PASSWORD" => Some("x".to_owned()),
            "HUB_SSLROOTCERT" => file("ca.crt"),
            "HUB_SSLCERT" => file("tls.crt"),
            "HUB_SSLKEY" => file("tls.key"),
            _ => None,
        }
    };
    let target = Target::from_settings(Side::Hub, settings).unwrap();
    let found = async || leaf_of(meet(&target).await);
    let met = |shows: &str, roots: &[&Root]| Server::Met {
        shows: vec![shows.to_owned()],
        accepts: roots.iter().map(|root| root.name.clone()).collect(),
    };
    let first = met(&first_server.2, &[&one]);
    eventually("the database is up", async || (found().await == first).then_some(())).await;
    let since = "SELECT pg_postmaster_start_time()::text";
    let open = target.connect().await.unwrap();
    let started: String = open.query_one(since, &[]).await.unwrap().get(0);

    // Prepared: both hold the new root, and show what they showed.
    mount(&tls, &first_server, &[&one, &two]);
    mount(&own, &first_client, &[&one, &two]);
    let both = met(&first_server.2, &[&one, &two]);
    eventually("it accepts both roots", async || (found().await == both).then_some(())).await;
    let report = Witness::new([("hub", target.clone())]).report().await;
    assert_eq!(report.trusts["hub"], [one.digest.clone(), two.digest.clone()].into());
    assert_eq!(report.shows["hub"].first(), Some(&first_client.2));
    assert_eq!(leaf_of(report.servers["hub"].clone()), both);

    // Active: each changes at a time of its own.
    let (next_server, next_client) = (server(&two), client(&two));
    mount(&own, &next_client, &[&one, &two]);
    assert_eq!(found().await, both, "a client of the new root, a server of the old one");
    mount(&tls, &next_server, &[&one, &two]);
    let next = met(&next_server.2, &[&one, &two]);
    eventually("it shows the new certificate", async || (found().await == next).then_some(())).await;

    // Removed: who still comes with the old root is told so, and what cannot be used changes nothing.
    mount(&tls, &next_server, &[&two]);
    mount(&own, &next_client, &[&two]);
    let last = met(&next_server.2, &[&two]);
    eventually("it accepts the new root alone", async || (found().await == last).then_some(())).await;
    fs::write(own.join("tls.key"), "half a file").unwrap();
    assert_eq!(found().await, last, "kept");
    mount(&own, &first_client, &[&two]);
    assert!(matches!(found().await, Server::Away { .. }), "a client of the old root");
    mount(&own, &next_client, &[&two]);
    assert_eq!(found().await, last);
    // The connection of the first day was open all the while, to the same process.
    let now: String = open.query_one(since, &[]).await.unwrap().get(0);
    assert_eq!(now, started);
}
