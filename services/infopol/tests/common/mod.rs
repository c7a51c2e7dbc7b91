//! What the tests share: a replica on the real PostgreSQL, filled with synthetic files, and an InfoPol over real TLS.
//!
//! Touches: one database and two roles of its own on the server that TEST_DATABASE_URL names, a temporary directory,
//! loopback ports.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod files;
pub mod https;

use std::{
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use liaison_records::names::PartnerName;
use sqlx::{AssertSqlSafe, ConnectOptions, Executor, PgConnection, PgPool, postgres::PgConnectOptions};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A replica of one partner, as `liaison-sync seed` makes it: schemas owned by a role that is no superuser.
pub struct Replica {
    pub partner: PartnerName,
    pub database: String,
    /// As the superuser.
    pub admin: PgPool,
    server: PgConnectOptions,
}

/// The server of the tests, as its superuser.
fn server() -> PgConnectOptions {
    let url = std::env::var("TEST_DATABASE_URL")
        .expect("TEST_DATABASE_URL must name a PostgreSQL superuser: eval \"$(tests/cluster/services env)\" after `tests/cluster/services up`");
    url.parse().expect("TEST_DATABASE_URL must be a PostgreSQL URL")
}

pub fn unique(stem: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    format!("{stem}-{:x}-{:x}", now & 0xffff_ffff_ffff, COUNT.fetch_add(1, Ordering::Relaxed) + std::process::id() * 64)
}

/// The SQL that makes the schemas of a partner, as sync fills it in.
fn schema_sql(partner: &PartnerName) -> String {
    let quote = |name: String| format!("\"{name}\"");
    let (share, journal) = (quote(partner.share_schema()), quote(partner.journal_schema()));
    format!(
        "CREATE SCHEMA {share}; {} {}",
        include_str!("../../../sync/sql/share.sql"),
        include_str!("../../../sync/sql/journal.sql")
    )
    .replace("{share}", &share)
    .replace("{journal}", &journal)
    .replace("{reader}", &quote(partner.reader_role()))
}

impl Replica {
    /// An open replica of a partner of its own, with no file in it.
    pub async fn create() -> Self {
        let partner: PartnerName = unique("t").parse().unwrap();
        let database = unique("infopol").replace('-', "_");
        let mut first = server().connect().await.expect("the PostgreSQL of TEST_DATABASE_URL must answer");
        let owner = format!("owner_{database}");
        run(&mut first, &format!("CREATE ROLE {owner} CREATEROLE LOGIN")).await;
        run(&mut first, &format!("CREATE DATABASE {database} OWNER {owner}")).await;
        run(&mut first, &format!("REVOKE ALL ON DATABASE {database} FROM PUBLIC")).await;
        let admin = PgPool::connect_lazy_with(server().database(&database));
        let replica = Self { partner: partner.clone(), database, admin, server: server() };
        replica.add_partner(&partner, &owner).await;
        replica
    }

    /// Another partner in the same store.
    pub async fn add_partner(&self, partner: &PartnerName, owner: &str) {
        let mut connection = self.admin.acquire().await.unwrap();
        let reader = partner.reader_role();
        run(
            &mut connection,
            &format!("CREATE ROLE \"{reader}\" LOGIN; GRANT CONNECT ON DATABASE {} TO \"{reader}\"", self.database),
        )
        .await;
        let sql = schema_sql(partner);
        // Twice: the Job that makes them may be run again at any time.
        let again = sql.replacen("CREATE SCHEMA \"share", "CREATE SCHEMA IF NOT EXISTS \"share", 1);
        run(&mut connection, &format!("SET ROLE {owner}; BEGIN; {sql}; COMMIT; BEGIN; {again}; COMMIT; RESET ROLE"))
            .await;
        drop(connection);
        self.exec_of(
            partner,
            "UPDATE {share}.cursor SET hub_identity = 'test', as_of = now(), batch = 1, generation = 3, seeded = true, \
             agreement = 'bc-2003', purposes = '{Apprehension,Supervision}', time_zone = 'America/Vancouver', \
             groups = '{identity,aliases,photograph,sentence,release,conditions,supervision,warrants,riskAssessments}', \
             partner_en = 'Vancouver Police Department', partner_fr = 'Service de police de Vancouver', \
             authorized_until = now() + interval '1 year', suspended = false, fenced = false",
        )
        .await;
    }

    /// Brings the schemas up to date, as the Job of a new version does.
    pub async fn prepare(&self) {
        let sql = schema_sql(&self.partner).replacen("CREATE SCHEMA \"share", "CREATE SCHEMA IF NOT EXISTS \"share", 1);
        self.exec(&format!("SET ROLE {}; BEGIN; {sql}; COMMIT; RESET ROLE", self.owner())).await;
    }

    /// The role that owns the schemas.
    pub fn owner(&self) -> String {
        format!("owner_{}", self.database)
    }

    /// Runs SQL as the superuser, with this partner's schemas in place of `{share}` and `{journal}`.
    pub async fn exec(&self, sql: &str) {
        self.exec_of(&self.partner, sql).await;
    }

    async fn exec_of(&self, partner: &PartnerName, sql: &str) {
        let mut connection = self.admin.acquire().await.unwrap();
        run(&mut connection, &fill(sql, partner)).await;
    }

    /// The first column of a query's rows, as text.
    pub async fn rows(&self, sql: &str) -> Vec<String> {
        let sql = fill(sql, &self.partner);
        sqlx::query_scalar(AssertSqlSafe(format!("SELECT t::text FROM ({sql}) AS t(t)")))
            .fetch_all(&self.admin)
            .await
            .unwrap()
    }

    /// A URL of this database for the reader role.
    pub fn reader_url(&self) -> String {
        format!(
            "postgres://{}@{}:{}/{}?sslmode=disable",
            self.partner.reader_role(),
            self.server.get_host(),
            self.server.get_port(),
            self.database
        )
    }

    /// What `psql` prints, errors too, when the reader role gives it this script; `{share}` and `{journal}` are filled in.
    pub fn psql(&self, script: &str) -> String {
        self.psql_at(&self.reader_url(), script)
    }

    /// The same as the superuser.
    pub fn admin_psql(&self, script: &str) -> String {
        let url = std::env::var("TEST_DATABASE_URL").unwrap();
        let (server, _) = url.rsplit_once('/').expect("TEST_DATABASE_URL names a database");
        self.psql_at(&format!("{server}/{}", self.database), script)
    }

    fn psql_at(&self, url: &str, script: &str) -> String {
        use std::io::Write as _;
        let mut child = Command::new("psql")
            .args(["-X", "-q", "-A", "-t", "-d", url])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("psql must be installed (Debian: postgresql-client)");
        child.stdin.take().unwrap().write_all(fill(script, &self.partner).as_bytes()).unwrap();
        let out = child.wait_with_output().unwrap();
        format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr)).trim().to_owned()
    }

    /// Removes everything again.
    pub async fn remove(self) {
        self.admin.close().await;
        let mut connection = server().connect().await.unwrap();
        run(&mut connection, &format!("DROP DATABASE {} WITH (FORCE)", self.database)).await;
        let reader = self.partner.reader_role();
        run(&mut connection, &format!("DROP ROLE \"{reader}\"; DROP ROLE {}", self.owner())).await;
    }
}

fn fill(sql: &str, partner: &PartnerName) -> String {
    sql.replace("{share}", &partner.share_schema()).replace("{journal}", &partner.journal_schema())
}

/// One string at a time is one transaction, unless it says otherwise.
async fn run(connection: &mut PgConnection, sql: &str) {
    let done = connection.execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))).await;
    done.unwrap_or_else(|e| panic!("{e}\n{sql}"));
}
