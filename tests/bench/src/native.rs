//! PostgreSQL's native logical replication, as well as it can be set up for partners with scopes.
//!
//! A row filter sees its own row only, so the scope key stands on every published table, kept by triggers; the filter's column
//! must be in the replica identity, so that is a unique index on (municipality, key), which also serves the initial copy. A
//! subscription has tables by name, so each partner needs a database of its own; one publication and one subscription a
//! partner. Replicas have no CHECKs and no foreign keys, but the indexes that reading a file needs.

use std::{
    collections::BTreeSet,
    path::Path,
    time::{Duration, Instant},
};

use futures::{StreamExt as _, TryStreamExt as _};
use tokio_postgres::Client;

use crate::{
    cluster::Cluster,
    error::{Error, Result},
    scopes::{Set, TABLES, filter},
    usage::Usage,
};

/// Databases and subscriptions made at once.
const AT_ONCE: usize = 4;
const TEMPLATE: &str = "replica";

/// Both servers.
#[derive(Debug)]
pub struct Native {
    /// The source.
    pub publisher: Cluster,
    /// All replicas, a database for each partner.
    pub subscriber: Cluster,
}

/// Adds the scope key to the children, keeps it, and makes it the replica identity.
fn scope_keys() -> String {
    use std::fmt::Write as _;
    let mut sql = String::from(
        "ALTER TABLE oms.image ADD COLUMN municipality text NOT NULL DEFAULT '';
         UPDATE oms.image i SET municipality = o.municipality FROM oms.photograph p JOIN oms.offender o ON o.id = p.offender
             WHERE p.sha256 = i.sha256;
         VACUUM FULL oms.image;
         CREATE UNIQUE INDEX image_scope ON oms.image (municipality, sha256);
         ALTER TABLE oms.image REPLICA IDENTITY USING INDEX image_scope;
         CREATE UNIQUE INDEX offender_scope ON oms.offender (municipality, id);
         ALTER TABLE oms.offender REPLICA IDENTITY USING INDEX offender_scope;
         CREATE FUNCTION oms.inherit_scope() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             SELECT municipality INTO STRICT NEW.municipality FROM oms.offender WHERE id = NEW.offender; RETURN NEW; END $$;",
    );
    let mut moved = String::new();
    for table in TABLES.iter().filter(|t| **t != "offender") {
        let _ = write!(
            sql,
            "ALTER TABLE oms.{table} ADD COLUMN municipality text NOT NULL DEFAULT '';
             UPDATE oms.{table} c SET municipality = o.municipality FROM oms.offender o WHERE o.id = c.offender;
             VACUUM FULL oms.{table};
             CREATE UNIQUE INDEX {table}_scope ON oms.{table} (municipality, id);
             ALTER TABLE oms.{table} REPLICA IDENTITY USING INDEX {table}_scope;
             CREATE TRIGGER inherit_scope BEFORE INSERT ON oms.{table} FOR EACH ROW EXECUTE FUNCTION oms.inherit_scope();"
        );
        let _ = write!(moved, "UPDATE oms.{table} SET municipality = NEW.municipality WHERE offender = NEW.id; ");
    }
    let _ = write!(
        sql,
        "CREATE FUNCTION oms.pass_scope_on() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {moved}
             UPDATE oms.image SET municipality = NEW.municipality
                 WHERE sha256 IN (SELECT sha256 FROM oms.photograph WHERE offender = NEW.id);
             RETURN NULL; END $$;
         CREATE TRIGGER pass_scope_on AFTER UPDATE OF municipality ON oms.offender FOR EACH ROW
             WHEN (OLD.municipality IS DISTINCT FROM NEW.municipality) EXECUTE FUNCTION oms.pass_scope_on();"
    );
    sql
}

/// Each table of the publication, and its key.
pub fn published() -> impl Iterator<Item = (&'static str, &'static str)> {
    TABLES.into_iter().map(|table| (table, "id")).chain([("image", "sha256")])
}

fn slot(set: Set, p: usize) -> String {
    format!("{}p{p:04}", set.name())
}

fn tables(codes: &BTreeSet<usize>) -> String {
    let list: Vec<String> = published().map(|(table, _)| format!("oms.{table} WHERE ({})", filter(codes))).collect();
    list.join(", ")
}

impl Native {
    /// Starts both; the publisher is a copy of `template` with scope keys.
    pub async fn start(template: &Cluster, root: &Path) -> Result<Self> {
        let mut publisher = Cluster::copy_of(template, root, "publisher")?;
        let mut subscriber = Cluster::init(root, "subscriber")?;
        publisher.start().await?;
        subscriber.start().await?;
        let source = publisher.client("oms").await?;
        source.batch_execute("DROP SCHEMA liaison CASCADE").await?;
        for statement in split(&scope_keys()) {
            source.batch_execute(&statement).await?;
        }
        source.batch_execute("ANALYZE").await?;
        let admin = subscriber.client("postgres").await?;
        admin.batch_execute(&format!("CREATE DATABASE {TEMPLATE}")).await?;
        let replica = subscriber.client(TEMPLATE).await?;
        replica.batch_execute("CREATE SCHEMA oms").await?;
        for (table, key) in published() {
            let columns = source
                .query_one(
                    "SELECT string_agg(format('%I %s', attname, format_type(atttypid, atttypmod)), ', ' ORDER BY attnum)
                     FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped",
                    &[&format!("oms.{table}")],
                )
                .await?;
            let columns: String = columns.get(0);
            replica.batch_execute(&format!("CREATE TABLE oms.{table} ({columns}, PRIMARY KEY ({key}))")).await?;
            if !["offender", "image"].contains(&table) {
                replica.batch_execute(&format!("CREATE INDEX ON oms.{table} (offender)")).await?;
            }
        }
        replica.batch_execute("ALTER TABLE oms.image ALTER COLUMN jpeg SET STORAGE EXTERNAL").await?;
        Ok(Self { publisher, subscriber })
    }

    /// CPU-seconds of both servers so far.
    pub fn usage(&self) -> Result<Usage> {
        Ok(Usage { source: self.publisher.cpu()?, replicas: self.subscriber.cpu()?, between: 0.0 })
    }

    /// Proportional set size of both, in bytes.
    pub fn pss(&self) -> Result<u64> {
        Ok(self.publisher.pss()? + self.subscriber.pss()?)
    }

    /// Makes and fills every replica of a set.
    pub async fn seed(&self, set: Set) -> Result<()> {
        let admin = self.subscriber.client("postgres").await?;
        let source = self.publisher.client("oms").await?;
        let mut said = Instant::now();
        for p in 0..set.n {
            let name = slot(set, p);
            admin.batch_execute(&format!("CREATE DATABASE {name} TEMPLATE {TEMPLATE}")).await?;
            source.batch_execute(&format!("CREATE PUBLICATION {name} FOR TABLE {}", tables(&set.codes(p)))).await?;
            progress(&mut said, p, set.n, "databases made");
        }
        let clients: Vec<Client> =
            futures::stream::iter((0..set.n).map(|p| self.subscribe(set, p))).buffered(AT_ONCE).try_collect().await?;
        for (p, client) in clients.iter().enumerate() {
            let open = "SELECT count(*) FROM pg_subscription_rel WHERE srsubstate NOT IN ('s', 'r')";
            while client.query_one(open, &[]).await?.get::<_, i64>(0) > 0 {
                tokio::time::sleep(Duration::from_millis(200)).await;
                progress(&mut said, p, set.n, "replicas filled");
            }
        }
        self.wait(set, &BTreeSet::new()).await
    }

    async fn subscribe(&self, set: Set, p: usize) -> Result<Client> {
        let name = slot(set, p);
        let client = self.subscriber.client(&name).await?;
        // synchronous_commit is off by default in an apply worker, and safe: the slot only moves on once the commit is flushed.
        client
            .batch_execute(&format!(
                "CREATE SUBSCRIPTION {name} CONNECTION '{} dbname=oms' PUBLICATION {name} WITH (binary = true)",
                self.publisher.conninfo()
            ))
            .await?;
        Ok(client)
    }

    /// Lets a set's subscriptions run, or stops them, all but `dead`.
    pub async fn enable(&self, set: Set, on: bool, dead: &BTreeSet<usize>) -> Result<()> {
        let word = if on { "ENABLE" } else { "DISABLE" };
        let all: Vec<usize> = (0..set.n).filter(|p| !dead.contains(p)).collect();
        futures::stream::iter(all.into_iter().map(|p| async move {
            let client = self.subscriber.client(&slot(set, p)).await?;
            client.batch_execute(&format!("ALTER SUBSCRIPTION {} {word}", slot(set, p))).await?;
            Ok::<_, Error>(())
        }))
        .buffer_unordered(AT_ONCE)
        .try_collect::<Vec<()>>()
        .await?;
        if !on {
            // A stopped worker takes a moment to let its slot go.
            let source = self.publisher.client("oms").await?;
            let begun = Instant::now();
            while active(&source, set).await? > i64::try_from(dead.len()).unwrap_or(0)
                && begun.elapsed() < Duration::from_secs(60)
            {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        Ok(())
    }

    /// Waits until everybody but `dead` has, and has flushed, all that is committed now.
    pub async fn wait(&self, set: Set, dead: &BTreeSet<usize>) -> Result<()> {
        let source = self.publisher.client("oms").await?;
        let target: String = source.query_one("SELECT pg_current_wal_lsn()::text", &[]).await?.get(0);
        let dead: Vec<String> = dead.iter().map(|p| slot(set, *p)).collect();
        let sql = "SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE $1 AND slot_name <> ALL ($3)
                   AND confirmed_flush_lsn >= $2::text::pg_lsn";
        let mine = format!("{}p%", set.name());
        let wanted = i64::try_from(set.n - dead.len()).unwrap_or(0);
        let begun = Instant::now();
        let mut said = Instant::now();
        loop {
            let there: i64 = source.query_one(sql, &[&mine, &target, &dead]).await?.get(0);
            if there >= wanted {
                return Ok(());
            }
            if begun.elapsed() > Duration::from_secs(900) {
                return Err(Error::said(format!("{}: {there} of {wanted} replicas after 15 minutes", set.name())));
            }
            progress(&mut said, usize::try_from(there).unwrap_or(0), set.n, "replicas caught up");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Changes what a partner may have, as a DBA would.
    pub async fn allow(&self, set: Set, p: usize, codes: &BTreeSet<usize>) -> Result<()> {
        let source = self.publisher.client("oms").await?;
        source.batch_execute(&format!("ALTER PUBLICATION {} SET TABLE {}", slot(set, p), tables(codes))).await?;
        let replica = self.subscriber.client(&slot(set, p)).await?;
        replica.batch_execute(&format!("ALTER SUBSCRIPTION {} REFRESH PUBLICATION", slot(set, p))).await?;
        Ok(())
    }

    /// A connection to the replica of partner `p`.
    pub async fn replica(&self, set: Set, p: usize) -> Result<Client> {
        self.subscriber.client(&slot(set, p)).await
    }

    /// Bytes of write-ahead log that the slot of partner `p` keeps.
    pub async fn kept(&self, set: Set, p: usize) -> Result<f64> {
        let source = self.publisher.client("oms").await?;
        let sql = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::float8 FROM pg_replication_slots WHERE slot_name = $1";
        Ok(source.query_one(sql, &[&slot(set, p)]).await?.get(0))
    }

    /// The source's position, and the least that everybody but `dead` has flushed, in bytes.
    pub async fn positions(&self, source: &Client, set: Set, dead: &BTreeSet<usize>) -> Result<(i64, i64)> {
        let dead: Vec<String> = dead.iter().map(|p| slot(set, *p)).collect();
        let sql = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::int8,
                          coalesce(min(pg_wal_lsn_diff(confirmed_flush_lsn, '0/0')), 0)::int8
                   FROM pg_replication_slots WHERE slot_name LIKE $1 AND slot_name <> ALL ($2)";
        let row = source.query_one(sql, &[&format!("{}p%", set.name()), &dead]).await?;
        Ok((row.get(0), row.get(1)))
    }

    /// Removes a set.
    pub async fn forget(&self, set: Set) -> Result<()> {
        let (admin, source) = (self.subscriber.client("postgres").await?, self.publisher.client("oms").await?);
        let mut said = Instant::now();
        for p in 0..set.n {
            let name = slot(set, p);
            let replica = self.subscriber.client(&name).await?;
            replica.batch_execute(&format!("DROP SUBSCRIPTION {name}")).await?;
            drop(replica);
            source.batch_execute(&format!("DROP PUBLICATION {name}")).await?;
            admin.batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)")).await?;
            progress(&mut said, p, set.n, "replicas removed");
        }
        Ok(())
    }
}

async fn active(source: &Client, set: Set) -> Result<i64> {
    let sql = "SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE $1 AND active";
    Ok(source.query_one(sql, &[&format!("{}p%", set.name())]).await?.get(0))
}

/// VACUUM cannot stand in a batch: each statement by itself. Function bodies are kept whole.
fn split(sql: &str) -> Vec<String> {
    let mut statements = vec![String::new()];
    for (index, part) in sql.split("$$").enumerate() {
        if index % 2 == 1 {
            statements.last_mut().into_iter().for_each(|s| s.extend(["$$", part, "$$"]));
            continue;
        }
        for (number, piece) in part.split(';').enumerate() {
            if number > 0 {
                statements.push(String::new());
            }
            statements.last_mut().into_iter().for_each(|s| *s += piece);
        }
    }
    statements.retain(|s| !s.trim().is_empty());
    statements
}

fn progress(said: &mut Instant, done: usize, total: usize, what: &str) {
    if said.elapsed() > Duration::from_secs(5) {
        *said = Instant::now();
        eprintln!("    {done} of {total} {what}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn function_bodies_are_not_split() {
        assert_eq!(split("A; B $$ x; y; $$; C;"), ["A", " B $$ x; y; $$", " C"]);
    }
}
