//! What sync reads from the hub: one snapshot a cycle. Nothing here writes; leases and ledger stand in `hub_ledger`.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use liaison_records::{codes::Code, names::PartnerName, population::Axes};
use sha2::{Digest, Sha256};
use tokio_postgres::{
    Client, IsolationLevel, Row, Transaction,
    types::{ToSql, Type},
};

use crate::{
    cursor::{Point, Snapshot},
    error::{Error, Of},
    mark,
    quote::literal,
    record::{Hash, Key, Names, Record},
    route::Changes,
    terms::{Scope, unsealed},
    wal::Wal,
};

/// More distinct changed records than this in one cycle: comparing is cheaper, and memory stays bounded.
pub const MOST_CHANGES: usize = 300_000;
/// How many numbers go into one statement.
const CHUNK: usize = 10_000;
/// Files that are read in one statement, with all their records.
const FILES: usize = 1_000;

/// A connection for a snapshot, and where the changes of it come from that are not in the change log yet.
pub struct Reading<'a> {
    /// Nothing else uses it meanwhile.
    pub client: &'a mut Client,
    /// Whoever reads the log.
    pub wal: &'a Wal,
}

/// A snapshot of the hub, and the names met in it.
pub struct View<'a> {
    tx: Transaction<'a>,
    /// Where the log's changes come from, and up to where they are needed; `None` where triggers write them.
    behind: Option<(&'a Wal, String)>,
    names: Names,
    /// What it shows, and when.
    pub point: Point,
    /// System identifier and timeline.
    pub identity: String,
    /// Change rows of older transactions may be gone.
    pub horizon: u64,
}

/// System identifier and timeline of a server. The timeline is that of the write-ahead log: the control file's lags
/// behind a promotion.
pub const IDENTITY: &str = "(SELECT system_identifier::text FROM pg_control_system()) || '/' \
    || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)";

const NOW: &str = "pg_current_snapshot()::text AS snapshot, clock_timestamp()::text AS as_of, \
    (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS millis";

fn point(row: &Row) -> Result<Point, Error> {
    Ok(Point {
        snapshot: row.try_get::<_, &str>("snapshot").hub()?.parse()?,
        as_of: row.try_get("as_of").hub()?,
        millis: row.try_get("millis").hub()?,
    })
}

/// Up to where the write-ahead log has what the snapshot shows, and whether liaison.change has that too: whoever is visible
/// had its commit in the log before.
const LOG: &str =
    "pg_current_wal_insert_lsn()::text AS lsn, NOT liaison.wal_has(pg_current_wal_insert_lsn()) AS behind";

/// Asks whether anything changed since `since`, mostly in one statement and without a lock: when nothing did, what is exact at
/// `since` is exact at the returned point too.
pub async fn probe(client: &Client, wal: &Wal, since: &Snapshot) -> Result<(Point, bool), Error> {
    let (xmax, in_progress) = xids(since);
    // What is not visible at the point says nothing of it.
    let changed = |visible: &str| {
        format!(
            "EXISTS (SELECT FROM liaison.change WHERE xid >= $1::text::xid8 {visible})
                OR EXISTS (SELECT FROM liaison.change WHERE xid = ANY ($2::text[]::xid8[]) {visible}) AS changed"
        )
    };
    let now = changed("AND pg_visible_in_snapshot(xid, pg_current_snapshot())");
    let row = client.query_one(&format!("SELECT {NOW}, {LOG}, {now}"), &[&xmax, &in_progress]).await.hub()?;
    let point = point(&row)?;
    // A hub that was put back to an earlier state counts its transactions anew.
    if point.snapshot.xmax < since.xmax || row.try_get("changed").hub()? {
        return Ok((point, true));
    }
    if row.try_get::<_, Option<bool>>("behind").hub()? != Some(true) {
        return Ok((point, false));
    }
    let sql = format!("SELECT {}", changed("AND pg_visible_in_snapshot(xid, $3::text::pg_snapshot)"));
    let snapshot = point.snapshot.to_string();
    let parameters: &[(&(dyn ToSql + Sync), Type)] =
        &[(&xmax, Type::TEXT), (&in_progress, Type::TEXT_ARRAY), (&snapshot, Type::TEXT)];
    let rows = wal.ask(row.try_get("lsn").hub()?, &point.snapshot, &sql, parameters).await?;
    // Whoever does not say that nothing changed says that something did.
    let changed = rows.first().map_or(Ok(true), |row| row.try_get("changed").hub())?;
    Ok((point, changed))
}

fn xids(since: &Snapshot) -> (String, Vec<String>) {
    (since.xmax.to_string(), since.in_progress.iter().map(u64::to_string).collect())
}

impl<'a> View<'a> {
    /// Opens snapshot S. Its first statement locks the view's tables: TRUNCATE is not MVCC-safe, and a snapshot older than
    /// one sees the table empty. The wait for the locks is short, so that an extract is never made to wait for us long,
    /// nor chosen as the victim of a deadlock.
    pub async fn open(Reading { client, wal }: Reading<'a>) -> Result<Self, Error> {
        let tx = client
            .build_transaction()
            .isolation_level(IsolationLevel::RepeatableRead)
            .read_only(true)
            .start()
            .await
            .hub()?;
        tx.batch_execute(
            "SET LOCAL lock_timeout = '500ms';
             LOCK TABLE liaison.record, liaison.change, oms.image IN ACCESS SHARE MODE",
        )
        .await
        .hub()?;
        let row = tx
            .query_one(
                &format!(
                    "SELECT {NOW}, {LOG}, {IDENTITY} AS identity, (SELECT xid::text FROM liaison.change_horizon) AS horizon"
                ),
                &[],
            )
            .await
            .hub()?;
        let horizon = row.try_get::<_, &str>("horizon").hub()?;
        let horizon = horizon.parse().map_err(|_| Error::Corrupt("liaison.change_horizon cannot be read".into()))?;
        let behind = match row.try_get::<_, Option<bool>>("behind").hub()? {
            Some(true) => Some((wal, row.try_get("lsn").hub()?)),
            _ => None,
        };
        let identity = row.try_get("identity").hub()?;
        Ok(Self { point: point(&row)?, identity, horizon, names: Names::default(), behind, tx })
    }

    /// Those who know another hub than this.
    pub async fn strangers(&self, claims: &[mark::Claim]) -> Result<Vec<PartnerName>, Error> {
        mark::strangers(self.tx.client(), claims).await
    }

    /// Lets the snapshot go.
    pub async fn close(self) -> Result<(), Error> {
        self.tx.rollback().await.hub()
    }

    /// For each of these transaction numbers, which ascend, how many change rows there are from it on.
    pub async fn counts(&self, from: &[u64]) -> Result<Vec<i64>, Error> {
        let from: Vec<String> = from.iter().map(u64::to_string).collect();
        let rows = self
            .of_log(
                "SELECT coalesce(sum(rows) OVER (ORDER BY n DESC), 0)::bigint FROM (
                     SELECT n, (SELECT count(*) FROM liaison.change WHERE xid >= f::xid8 AND xid < coalesce(t, '18446744073709551615')::xid8)
                     FROM (SELECT n, f, lead(f) OVER (ORDER BY n) AS t FROM unnest($1) WITH ORDINALITY AS u (f, n)) g
                 ) c (n, rows) ORDER BY n",
                &[(&from, Type::TEXT_ARRAY)],
            )
            .await?;
        rows.iter().map(|row| row.try_get(0).hub()).collect()
    }

    /// Asks about the change log: in the snapshot itself, where the snapshot has all of it, else after it has been brought up to
    /// there, with what came later left to the statement.
    async fn of_log(&self, sql: &str, parameters: &[(&(dyn ToSql + Sync), Type)]) -> Result<Vec<Row>, Error> {
        match &self.behind {
            None => self.tx.query_typed(sql, parameters).await.hub(),
            Some((wal, lsn)) => wal.ask(lsn, &self.point.snapshot, sql, parameters).await,
        }
    }

    /// The changes that `since` does not have and S has: two index ranges, however long some transaction stays open.
    pub async fn changes(&mut self, since: &Snapshot) -> Result<Changes, Error> {
        let (xmax, in_progress) = xids(since);
        let limit = i64::try_from(MOST_CHANGES + 1).unwrap_or(i64::MAX);
        let visible = if self.behind.is_some() { "WHERE pg_visible_in_snapshot(xid, $4::pg_snapshot)" } else { "" };
        let sql = |each: &str| {
            format!(
                "SELECT {each} tbl, id, offender FROM (
                     SELECT xid, tbl, id, offender FROM liaison.change WHERE xid >= $1::xid8
                     UNION ALL
                     SELECT xid, tbl, id, offender FROM liaison.change WHERE xid = ANY ($2::xid8[])) c
                 {visible} LIMIT $3"
            )
        };
        let snapshot = self.point.snapshot.to_string();
        let mut parameters: Vec<(&(dyn ToSql + Sync), Type)> =
            vec![(&xmax, Type::TEXT), (&in_progress, Type::TEXT_ARRAY), (&limit, Type::INT8)];
        if self.behind.is_some() {
            parameters.push((&snapshot, Type::TEXT));
        }
        // A record that changed twice is mostly rare enough, and routing counts it once: telling them apart here costs more.
        let mut rows = self.of_log(&sql(""), &parameters).await?;
        if rows.len() > MOST_CHANGES {
            rows = self.of_log(&sql("DISTINCT"), &parameters).await?;
        }
        let overflow = rows.len() > MOST_CHANGES || self.trimmed(since).await?;
        let mut changes = Changes { overflow, ..Changes::default() };
        for row in &rows {
            let table: &str = row.try_get(0).hub()?;
            match row.try_get::<_, Option<i64>>(1).hub()? {
                Some(id) => changes.rows.push(((self.names.get(table), id), row.try_get(2).hub()?)),
                None => {
                    changes.everything.insert(table.to_owned());
                }
            }
        }
        Ok(changes)
    }

    /// Whether rows that `since` does not have were deleted after S, and so before the change log was asked.
    async fn trimmed(&self, since: &Snapshot) -> Result<bool, Error> {
        if self.behind.is_none() {
            return Ok(false);
        }
        let xmin = since.xmin.to_string();
        let rows = self.of_log("SELECT xid > $1::xid8 FROM liaison.change_horizon", &[(&xmin, Type::TEXT)]).await?;
        rows.first().map_or(Ok(false), |row| row.try_get(0).hub())
    }

    /// The axes of those of `files` that exist and are not sealed. A file with a code that is not in the lists has none either:
    /// it is shared with nobody (I5).
    pub async fn axes(&self, files: &[i64]) -> Result<HashMap<i64, Axes>, Error> {
        let mut found = HashMap::with_capacity(files.len());
        let sql = format!(
            "SELECT id, custody, status, release_type, at_large, warrant, jurisdiction, municipality
             FROM oms.offender o WHERE id = ANY ($1) AND {}",
            unsealed("o")
        );
        for chunk in files.chunks(CHUNK) {
            let rows = self.tx.query(&sql, &[&chunk]).await.hub()?;
            for row in &rows {
                if let Some(axes) = axes(row)? {
                    found.insert(row.try_get(0).hub()?, axes);
                }
            }
        }
        Ok(found)
    }

    /// Every file of a scope, ascending.
    pub async fn scope(&self, scope: &Scope) -> Result<Vec<i64>, Error> {
        let sql = format!("SELECT o.id FROM oms.offender o WHERE {} ORDER BY o.id", scope.to_sql("o"));
        let rows = self.tx.query(&sql, &[]).await.hub()?;
        rows.iter().map(|row| row.try_get(0).hub()).collect()
    }

    /// All records of `files` in `groups`, by file.
    pub async fn files(
        &mut self,
        files: &[i64],
        groups: &BTreeSet<String>,
    ) -> Result<HashMap<i64, Vec<Arc<Record>>>, Error> {
        let mut found: HashMap<i64, Vec<Arc<Record>>> = HashMap::with_capacity(files.len());
        if files.is_empty() || groups.is_empty() {
            return Ok(found);
        }
        // Groups as constants: the planner drops the branches of the view that are not asked for.
        let list: Vec<String> = groups.iter().map(|g| literal(g)).collect();
        self.of_files(files, &format!("grp IN ({})", list.join(", ")), &mut found).await?;
        Ok(found)
    }

    async fn of_files(
        &mut self,
        files: &[i64],
        which: &str,
        found: &mut HashMap<i64, Vec<Arc<Record>>>,
    ) -> Result<(), Error> {
        let sql = format!(
            "SELECT offender, grp, tbl, id, body::text FROM liaison.record WHERE {which} AND offender = ANY ($1)"
        );
        let statement = self.tx.prepare(&sql).await.hub()?;
        for chunk in files.chunks(FILES) {
            for row in self.tx.query(&statement, &[&chunk]).await.hub()? {
                let record = record(&row, &mut self.names)?;
                if let Some(file) = record.offender {
                    found.entry(file).or_default().push(Arc::new(record));
                }
            }
        }
        Ok(())
    }

    /// Fills in the records behind `keys`; what stays `None` has none.
    pub async fn keys(&mut self, keys: &mut HashMap<Key, Option<Arc<Record>>>) -> Result<(), Error> {
        let mut tables: BTreeMap<Arc<str>, Vec<i64>> = BTreeMap::new();
        for (table, id) in keys.keys() {
            if let Some(ids) = tables.get_mut(table) {
                ids.push(*id);
            } else {
                tables.insert(table.clone(), vec![*id]);
            }
        }
        for (table, mut ids) in tables {
            // Ascending, as the table's pages mostly are.
            ids.sort_unstable();
            let sql = format!(
                "SELECT offender, grp, tbl, id, body::text FROM liaison.record WHERE tbl = {} AND id = ANY ($1)",
                literal(&table)
            );
            // The view has a branch a table: planned once a table, not once a chunk.
            let statement = self.tx.prepare(&sql).await.hub()?;
            for chunk in ids.chunks(CHUNK) {
                for row in self.tx.query(&statement, &[&chunk]).await.hub()? {
                    let record = record(&row, &mut self.names)?;
                    keys.insert(record.key(), Some(Arc::new(record)));
                }
            }
        }
        Ok(())
    }

    /// All reference records in `groups`.
    pub async fn references(&mut self, groups: &BTreeSet<String>) -> Result<Vec<Arc<Record>>, Error> {
        if groups.is_empty() {
            return Ok(Vec::new());
        }
        let groups: Vec<String> = groups.iter().map(|g| literal(g)).collect();
        let sql = format!(
            "SELECT offender, grp, tbl, id, body::text FROM liaison.record WHERE grp IN ({}) AND offender IS NULL",
            groups.join(", ")
        );
        let rows = self.tx.query(&sql, &[]).await.hub()?;
        rows.iter().map(|row| record(row, &mut self.names).map(Arc::new)).collect()
    }

    /// Which of `wanted` the hub has.
    pub async fn pictures(&self, wanted: &BTreeSet<Hash>) -> Result<BTreeSet<Hash>, Error> {
        let mut found = BTreeSet::new();
        let wanted: Vec<&[u8]> = wanted.iter().map(<[u8; 32]>::as_slice).collect();
        for chunk in wanted.chunks(5_000) {
            let rows = self.tx.query("SELECT sha256 FROM oms.image WHERE sha256 = ANY ($1)", &[&chunk]).await.hub()?;
            for row in &rows {
                let name: &[u8] = row.try_get(0).hub()?;
                found.extend(Hash::try_from(name).ok());
            }
        }
        Ok(found)
    }

    /// Whether somebody waits for the locks that this snapshot holds: an extract that truncates.
    pub async fn in_the_way(&self) -> Result<bool, Error> {
        let row = self
            .tx
            .query_one(
                "SELECT EXISTS (SELECT FROM pg_locks l WHERE NOT l.granted AND l.mode = 'AccessExclusiveLock'
                    AND pg_backend_pid() = ANY (pg_blocking_pids(l.pid)))",
                &[],
            )
            .await
            .hub()?;
        row.try_get(0).hub()
    }

    /// The bytes of pictures, each checked against its name. A picture that the hub does not have, or under another's name, is left out.
    pub async fn images(&self, hashes: &[Hash]) -> Result<HashMap<Hash, Arc<Vec<u8>>>, Error> {
        let mut found = HashMap::with_capacity(hashes.len());
        for chunk in hashes.chunks(200) {
            let list: Vec<&[u8]> = chunk.iter().map(<[u8; 32]>::as_slice).collect();
            let rows =
                self.tx.query("SELECT sha256, jpeg FROM oms.image WHERE sha256 = ANY ($1)", &[&list]).await.hub()?;
            for row in &rows {
                let (name, jpeg): (&[u8], Vec<u8>) = (row.try_get(0).hub()?, row.try_get(1).hub()?);
                let hash: Hash = Sha256::digest(&jpeg).into();
                if name == hash {
                    found.insert(hash, Arc::new(jpeg));
                } else {
                    tracing::error!(
                        picture = hex::encode(name),
                        "a picture on the hub is not what its name says: left out"
                    );
                }
            }
        }
        Ok(found)
    }
}

fn record(row: &Row, names: &mut Names) -> Result<Record, Error> {
    let offender: Option<i64> = row.try_get(0).hub()?;
    let (group, table): (&str, &str) = (row.try_get(1).hub()?, row.try_get(2).hub()?);
    let (id, body): (i64, String) = (row.try_get(3).hub()?, row.try_get(4).hub()?);
    let hash = crate::subject::record_hash(group, table, id, offender, &body);
    Ok(Record { offender, group: names.get(group), table: names.get(table), id, body, hash })
}

fn axes(row: &Row) -> Result<Option<Axes>, Error> {
    fn code<C: Code>(row: &Row, column: &str) -> Result<Option<C>, Error> {
        Ok(row.try_get::<_, Option<&str>>(column).hub()?.and_then(C::parse))
    }
    let release: Option<&str> = row.try_get("release_type").hub()?;
    let release_type = code(row, "release_type")?;
    if release.is_some() && release_type.is_none() {
        return Ok(None);
    }
    let (Some(custody), Some(status), Some(at_large), Some(warrant), Some(jurisdiction)) = (
        code(row, "custody")?,
        code(row, "status")?,
        code(row, "at_large")?,
        code(row, "warrant")?,
        code(row, "jurisdiction")?,
    ) else {
        return Ok(None);
    };
    let municipality = row.try_get("municipality").hub()?;
    Ok(Some(Axes { custody, status, release_type, at_large, warrant, jurisdiction, municipality }))
}

/// The union of the groups of several grants.
pub fn union<'a>(groups: impl IntoIterator<Item = &'a [String]>) -> BTreeSet<String> {
    let all: HashSet<&String> = groups.into_iter().flatten().collect();
    all.into_iter().cloned().collect()
}
