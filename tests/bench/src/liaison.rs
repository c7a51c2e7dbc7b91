//! Liaison's side: a hub with its capture triggers, a store of replicas, and a worker process for each set of partners.

use std::{collections::BTreeSet, path::Path, process::Stdio};

use liaison_oms::capture::{Capture, capture_url};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use crate::{
    cluster::Cluster,
    error::{Error, Result},
    process,
    scopes::Set,
    usage::Usage,
    worker::{Answer, Order},
};

/// The role that sync has at both servers.
const SYNC: &str = "liaison_sync";

/// Both servers.
#[derive(Debug)]
pub struct Liaison {
    /// The source.
    pub hub: Cluster,
    /// All replicas, a database for each set.
    pub store: Cluster,
}

/// The worker process of one set.
#[derive(Debug)]
pub struct Sync {
    /// Its partners.
    pub set: Set,
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Liaison {
    /// Starts both; the hub is a copy of `template`.
    pub async fn start(template: &Cluster, root: &Path, capture: Capture) -> Result<Self> {
        let mut hub = Cluster::copy_of(template, root, "hub")?;
        let mut store = Cluster::init(root, "store")?;
        hub.start().await?;
        store.start().await?;
        capture_url(&hub.url("postgres", "oms"), capture).await.map_err(|e| Error::said(e.to_string()))?;
        hub.client("oms").await?.batch_execute(&format!("ALTER ROLE {SYNC} LOGIN")).await?;
        store.client("postgres").await?.batch_execute(&format!("CREATE ROLE {SYNC} LOGIN CREATEROLE")).await?;
        Ok(Self { hub, store })
    }

    /// CPU-seconds of both servers and of `sync` so far.
    pub fn usage(&self, sync: Option<&Sync>) -> Result<Usage> {
        let own = sync.and_then(|s| s.child.id()).map_or(Ok(0.0), process::cpu)?;
        Ok(Usage { source: self.hub.cpu()?, replicas: self.store.cpu()?, between: own })
    }

    /// Proportional set size of all of that, in bytes.
    pub fn pss(&self, sync: Option<&Sync>) -> Result<u64> {
        let own = sync.and_then(|s| s.child.id()).map_or(0, process::pss);
        Ok(self.hub.pss()? + self.store.pss()? + own)
    }

    /// A worker process for a set, whose database is made if need be. Nothing is seeded.
    pub async fn sync(&self, set: Set) -> Result<Sync> {
        let (admin, name) = (self.store.client("postgres").await?, set.name());
        if admin.query_opt("SELECT FROM pg_database WHERE datname = $1", &[&name]).await?.is_none() {
            admin.batch_execute(&format!("CREATE DATABASE {name} OWNER {SYNC}")).await?;
        }
        let mut child = Command::new(std::env::current_exe()?)
            // As in charts/liaison/templates/sync/deployment.yaml.
            .env("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
            .args(["worker", &self.hub.url(SYNC, "oms"), &self.store.url(SYNC, &name)])
            .args([set.n.to_string(), set.fanout.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let lost = || Error::said("the worker process has no pipes");
        let input = child.stdin.take().ok_or_else(lost)?;
        let output = BufReader::new(child.stdout.take().ok_or_else(lost)?).lines();
        Ok(Sync { set, child, input, output })
    }

    /// Removes a set with all that it left on the hub.
    pub async fn forget(&self, sync: Sync) -> Result<()> {
        let set = sync.set;
        sync.end().await?;
        let admin = self.store.client("postgres").await?;
        admin.batch_execute(&format!("DROP DATABASE {} WITH (FORCE)", set.name())).await?;
        for p in 0..set.n {
            admin.batch_execute(&format!("DROP ROLE \"{}\"", set.partner(p)?.reader_role())).await?;
        }
        let mine = format!("{}-p%", set.name());
        let hub = self.hub.client("oms").await?;
        for table in ["ledger_entry", "ledger_batch", "lease"] {
            hub.execute(&format!("DELETE FROM liaison.{table} WHERE partner LIKE $1"), &[&mine]).await?;
        }
        Ok(())
    }
}

impl Sync {
    /// Gives an order, and waits until it is done.
    pub async fn order(&mut self, order: &Order) -> Result<Answer> {
        let mut line = serde_json::to_string(order)?;
        line.push('\n');
        self.input.write_all(line.as_bytes()).await?;
        let answer = self.output.next_line().await?.ok_or_else(|| Error::said("the worker process is gone"))?;
        let answer: Answer = serde_json::from_str(&answer)?;
        match answer.error {
            Some(error) => Err(Error::said(format!("sync of {}: {error}", self.set.name()))),
            None => Ok(answer),
        }
    }

    /// Changes what some partners may have.
    pub async fn allow(&mut self, changed: Vec<(usize, BTreeSet<usize>)>) -> Result<()> {
        self.order(&Order::Terms(changed)).await.map(drop)
    }

    /// Ends it; it gives its leases back.
    pub async fn end(mut self) -> Result<()> {
        drop(self.input);
        self.child.wait().await?;
        Ok(())
    }
}
