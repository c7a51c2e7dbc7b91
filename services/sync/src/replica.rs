//! What sync reads from and writes to one partner's share schema. Every write checks the epoch first, in its transaction.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fmt::Write as _,
};

use futures::future::join_all;
use liaison_records::{
    codes::{Code, FieldGroup},
    names::PartnerName,
};
use tokio_postgres::{
    Client, Row,
    error::SqlState,
    types::{ToSql, Type},
};

use crate::{
    cursor::{Cursor, Point},
    delta::{Looked, Seen, Stored},
    error::{Error, Of},
    hub::IDENTITY,
    mark::Mark,
    quote::ident,
    record::{Hash, Names},
    subject::{Core, PARTS},
    terms::{Grant, Terms},
};

/// The groups of which search rows hold something and that `grant` does not give: every search row that has one is made anew.
pub(crate) fn searchable_without(grant: &Grant) -> Vec<&'static str> {
    let searchable = [FieldGroup::Aliases, FieldGroup::Photograph];
    searchable.iter().filter(|group| !grant.groups.contains(group)).map(|group| group.as_str()).collect()
}

/// The share schema of a partner.
#[derive(Debug, Clone)]
pub struct Share {
    partner: PartnerName,
    schema: String,
    /// Where pictures are that need not cross again: the replica beside which this one is made.
    pictures: Option<String>,
}

/// Where a cursor is while nobody else writes it: a store that is put back, or is another's copy, may bear our lease, and not our last batch.
#[derive(Debug, Clone, Copy)]
pub struct Stand {
    /// Our lease.
    pub epoch: i64,
    /// The last batch that landed.
    pub batch: i64,
}

/// What the cursor is to say after a transaction.
#[derive(Debug)]
pub struct Advance<'a> {
    /// The lease.
    pub epoch: i64,
    /// The batch that it bears before.
    pub after: i64,
    /// The snapshot that the replica follows from now on.
    pub point: &'a Point,
    /// The hub that it is of.
    pub hub_identity: &'a str,
    /// Batch and ledger head.
    pub batch: i64,
    /// Ledger head with it.
    pub head: &'a [u8],
    /// What the hub has since the point's snapshot was opened, if there is no batch of it.
    pub mark: Option<Mark>,
    /// Exact up to here.
    pub filled: i64,
}

const CURSOR: &str = "hub_identity, snapshot::text AS snapshot, (extract(epoch FROM as_of) * 1000)::bigint AS millis, \
    batch, head, mark, epoch, filled, seeded, groups, agreement, population, fenced";

impl Share {
    /// Of `partner`.
    pub fn new(partner: &PartnerName) -> Self {
        Self { partner: partner.clone(), schema: ident(&partner.share_schema()), pictures: None }
    }

    /// The one that is made anew beside it.
    pub fn beside(partner: &PartnerName) -> Self {
        let pictures = Some(ident(&partner.share_schema()));
        Self { partner: partner.clone(), schema: ident(&partner.next_schema()), pictures }
    }

    /// The quoted schema.
    pub(crate) fn schema(&self) -> &str {
        &self.schema
    }

    /// Whose it is.
    pub(crate) fn partner(&self) -> &PartnerName {
        &self.partner
    }

    /// No such table, or a column that an earlier version did not have: the seed Job makes both.
    pub(crate) fn error(&self, error: &tokio_postgres::Error) -> Error {
        const MISSING: [SqlState; 3] =
            [SqlState::UNDEFINED_TABLE, SqlState::INVALID_SCHEMA_NAME, SqlState::UNDEFINED_COLUMN];
        match error.code() {
            Some(code) if MISSING.contains(code) => Error::NotSeeded(self.partner.clone()),
            _ => Error::postgres(crate::error::Side::Store, error),
        }
    }

    /// The cursor row.
    pub async fn cursor(&self, store: &Client) -> Result<Cursor, Error> {
        let sql = format!("SELECT {CURSOR} FROM {}.cursor", self.schema);
        let row = store.query_opt(&sql, &[]).await.map_err(|e| self.error(&e))?;
        cursor(&row.ok_or_else(|| Error::NotSeeded(self.partner.clone()))?)
    }

    /// Writes our epoch into the cursor, and only then reads it: an older holder's transaction either ended before, and we
    /// see what it did, or fails. `Ok(Err(epoch))`: the cursor bears this later epoch.
    pub async fn take_epoch(&self, store: &Client, epoch: i64) -> Result<Result<Cursor, i64>, Error> {
        let sql = format!("UPDATE {}.cursor SET epoch = $1 WHERE epoch < $1", self.schema);
        let taken = store.execute(&sql, &[&epoch]).await.map_err(|e| self.error(&e))?;
        let cursor = self.cursor(store).await?;
        Ok(if taken == 1 { Ok(cursor) } else { Err(cursor.epoch) })
    }

    /// The files that the replica has a search row for: those it holds.
    pub async fn held(&self, store: &Client) -> Result<Vec<i64>, Error> {
        let rows = store.query(&format!("SELECT offender FROM {}.subject", self.schema), &[]).await.store()?;
        rows.iter().map(|row| row.try_get(0).store()).collect()
    }

    /// The files of which the replica has any record: what a comparison starts from.
    pub async fn present(&self, store: &Client) -> Result<BTreeSet<i64>, Error> {
        let sql = format!(
            "SELECT offender FROM {0}.subject UNION SELECT offender FROM {0}.record WHERE offender IS NOT NULL",
            self.schema
        );
        let rows = store.query(&sql, &[]).await.store()?;
        rows.iter().map(|row| row.try_get(0).store()).collect()
    }

    /// What the replica has under `keys`.
    pub async fn seen(&self, store: &Client, keys: &[(&str, i64)]) -> Result<Seen, Error> {
        // Laterally: a planner that hashes the keys reads the whole replica for a tenth of it.
        let sql = format!(
            "SELECT k.tbl, k.id, r.offender, r.hash, r.ctid FROM unnest($1, $2) AS k (tbl, id)
             CROSS JOIN LATERAL (SELECT offender, hash, ctid FROM {}.record WHERE tbl = k.tbl AND id = k.id OFFSET 0) r",
            self.schema
        );
        let ask = async |chunk: &[(&str, i64)]| {
            let (tables, ids): (Vec<&str>, Vec<i64>) = chunk.iter().copied().unzip();
            store.query_typed(&sql, &[(&tables, Type::TEXT_ARRAY), (&ids, Type::INT8_ARRAY)]).await.store()
        };
        let (mut seen, mut names) = (Seen::with_capacity(keys.len()), Names::default());
        for rows in join_all(keys.chunks(10_000).map(ask)).await {
            for row in rows? {
                insert_seen(&mut seen, &row, &mut names)?;
            }
        }
        Ok(seen)
    }

    /// What the search rows of `files` have from the files' own records.
    async fn cores(&self, store: &Client, files: &[i64]) -> Result<HashMap<i64, Core>, Error> {
        let mut found = HashMap::with_capacity(files.len());
        if files.is_empty() {
            return Ok(found);
        }
        let sql = format!(
            "SELECT offender, fps, surname, given, birth_date::text, custody, status, at_large, jurisdiction, municipality
             FROM {}.subject WHERE offender = ANY ($1)",
            self.schema
        );
        for row in store.query_typed(&sql, &[(&files, Type::INT8_ARRAY)]).await.store()? {
            let mut values = [""; PARTS];
            for (column, value) in (1..).zip(&mut values) {
                *value = row.try_get::<_, Option<&str>>(column).store()?.unwrap_or_default();
            }
            // Whose cannot be told apart is made anew.
            if let Some(core) = Core::new(values) {
                found.insert(row.try_get(0).store()?, core);
            }
        }
        Ok(found)
    }

    /// What the replica has under `keys`, and in the search rows of `files`: one round trip.
    pub async fn look(&self, store: &Client, keys: &[(&str, i64)], files: &[i64]) -> Result<Looked, Error> {
        let (seen, cores) = futures::join!(self.seen(store, keys), self.cores(store, files));
        Ok(Looked { seen: seen?, cores: cores? })
    }

    /// What the replica has of `files`, by file.
    pub async fn seen_files(&self, store: &Client, files: &[i64]) -> Result<HashMap<i64, Seen>, Error> {
        let sql = format!(
            "SELECT tbl, id, offender, hash, ctid FROM {}.record WHERE offender = ANY ($1::bigint[])",
            self.schema
        );
        let mut names = Names::default();
        let mut found: HashMap<i64, Seen> = HashMap::new();
        for row in store.query(&sql, &[&files]).await.store()? {
            if let Some(file) = row.try_get::<_, Option<i64>>(2).store()? {
                insert_seen(found.entry(file).or_default(), &row, &mut names)?;
            }
        }
        Ok(found)
    }

    /// What the replica has of reference records.
    pub async fn seen_references(&self, store: &Client) -> Result<Seen, Error> {
        let sql = format!("SELECT tbl, id, offender, hash, ctid FROM {}.record WHERE offender IS NULL", self.schema);
        let (mut seen, mut names) = (Seen::new(), Names::default());
        for row in store.query(&sql, &[]).await.store()? {
            insert_seen(&mut seen, &row, &mut names)?;
        }
        Ok(seen)
    }

    /// Which of `files` have a search row.
    pub async fn searchable(&self, store: &Client, files: &[i64]) -> Result<HashSet<i64>, Error> {
        let sql = format!("SELECT offender FROM {}.subject WHERE offender = ANY ($1::bigint[])", self.schema);
        let rows = store.query(&sql, &[&files]).await.store()?;
        rows.iter().map(|row| row.try_get(0).store()).collect()
    }

    /// Which pictures of `wanted` the replica lacks.
    pub async fn lacking(&self, store: &Client, wanted: &BTreeSet<Hash>) -> Result<BTreeSet<Hash>, Error> {
        if wanted.is_empty() {
            return Ok(BTreeSet::new());
        }
        let list: Vec<&[u8]> = wanted.iter().map(<[u8; 32]>::as_slice).collect();
        let mut sql = format!("SELECT sha256 FROM {}.photograph WHERE sha256 = ANY ($1::bytea[])", self.schema);
        if let Some(pictures) = &self.pictures {
            write!(
                sql,
                " UNION ALL SELECT sha256 FROM {pictures}.photograph
                  WHERE sha256 = ANY ($1::bytea[]) AND sha256(jpeg) = sha256"
            )
            .map_err(|_| Error::Corrupt("a statement could not be written".to_owned()))?;
        }
        let rows = store.query(&sql, &[&list]).await.store()?;
        let mut lacking = wanted.clone();
        for row in &rows {
            let sha256: &[u8] = row.try_get(0).store()?;
            if let Ok(hash) = Hash::try_from(sha256) {
                lacking.remove(&hash);
            }
        }
        Ok(lacking)
    }

    /// Counts for a report: files and records.
    pub async fn counts(&self, store: &Client) -> Result<(i64, i64), Error> {
        let sql = format!("SELECT (SELECT count(*) FROM {0}.subject), (SELECT count(*) FROM {0}.record)", self.schema);
        let row = store.query_one(&sql, &[]).await.map_err(|e| self.error(&e))?;
        Ok((row.try_get(0).store()?, row.try_get(1).store()?))
    }

    /// What one UPDATE of the cursor under our epoch says: no row is another's epoch.
    fn ours(&self, rows: u64, epoch: i64) -> Result<(), Error> {
        if rows == 1 { Ok(()) } else { Err(Error::Fenced { partner: self.partner.clone(), epoch }) }
    }

    /// Takes the replica away from what was begun under this lease, and refuses reads, since `terms` allow less than it may go on
    /// to write: the epoch is raised, so that none of it lands any more. The next lease begins beyond it.
    pub async fn cut(&self, store: &mut Client, epoch: i64, terms: &Terms) -> Result<(), Error> {
        let withdrawn = terms.grant.as_ref().map_or_else(Vec::new, searchable_without);
        let sql = format!(
            "UPDATE {}.cursor SET epoch = epoch + 1, fenced = fenced OR snapshot IS NOT NULL,
                seeded = seeded AND NOT groups && $1 WHERE epoch = $2 RETURNING epoch, batch",
            self.schema
        );
        let tx = store.transaction().await.store()?;
        let row = tx.query_opt(&sql, &[&withdrawn, &epoch]).await.map_err(|e| self.error(&e))?;
        let row = row.ok_or_else(|| Error::Fenced { partner: self.partner.clone(), epoch })?;
        let at = Stand { epoch: row.try_get(0).store()?, batch: row.try_get(1).store()? };
        self.write_terms(tx.client(), at, terms).await?;
        tx.commit().await.store()
    }

    /// Writes what the partner's people are told and may do, and whether they may at all. No record changes. One that was closed is
    /// opened behind a fence: what has left since is still there. Returns whether there is one.
    pub async fn write_terms(&self, store: &Client, at: Stand, terms: &Terms) -> Result<bool, Error> {
        let Terms { partner: _, generation, name_en, name_fr, time_zone, authorized_until, suspended, grant, .. } =
            terms;
        let until = authorized_until.filter(|_| grant.is_some()).map(|until| until.to_string());
        let purposes = grant.as_ref().map_or_else(Vec::new, |g| g.purposes.clone());
        let sql = format!(
            "UPDATE {}.cursor SET generation = $1, partner_en = $2, partner_fr = $3, time_zone = $4,
                authorized_until = $5::text::timestamptz, suspended = $6, purposes = $7,
                fenced = fenced OR snapshot IS NOT NULL AND NOT $6 AND coalesce($5::text::timestamptz > now(), false)
                    AND (suspended OR coalesce(authorized_until <= now(), true))
             WHERE epoch = $8 AND batch = $9 RETURNING fenced",
            self.schema
        );
        let told = store
            .query_typed(
                &sql,
                &[
                    (generation, Type::INT8),
                    (name_en, Type::TEXT),
                    (name_fr, Type::TEXT),
                    (time_zone, Type::TEXT),
                    (&until, Type::TEXT),
                    (suspended, Type::BOOL),
                    (&purposes, Type::TEXT_ARRAY),
                    (&at.epoch, Type::INT8),
                    (&at.batch, Type::INT8),
                ],
            )
            .await
            .map_err(|e| self.error(&e))?;
        self.ours(told.len() as u64, at.epoch)?;
        told.first().map_or(Ok(false), |row| row.try_get(0).store())
    }

    /// Refuses reads until the batch that narrows the scope has landed; with `whole`, until the replica is complete.
    pub async fn fence(&self, store: &Client, at: Stand, whole: bool) -> Result<(), Error> {
        let sql = format!(
            "UPDATE {}.cursor SET fenced = true, seeded = seeded AND NOT $1 WHERE epoch = $2 AND batch = $3",
            self.schema
        );
        let parameters: &[(&(dyn ToSql + Sync), Type)] =
            &[(&whole, Type::BOOL), (&at.epoch, Type::INT8), (&at.batch, Type::INT8)];
        let fenced = store.execute_typed(&sql, parameters).await;
        self.ours(fenced.map_err(|e| self.error(&e))?, at.epoch)
    }

    /// The replica is exact at `point`, and nothing changed for it: the as-of row, the only write when nothing changes. The
    /// position itself moves as far as a mark of the hub goes.
    pub async fn touch(
        &self,
        store: &Client,
        at: Stand,
        point: &Point,
        marked: Option<&(Point, Mark)>,
    ) -> Result<(), Error> {
        let sql = format!(
            "UPDATE {}.cursor SET as_of = $1::text::timestamptz, snapshot = coalesce($2::text::pg_snapshot, snapshot),
                mark = coalesce($3, mark) WHERE epoch = $4 AND batch = $5",
            self.schema
        );
        let snapshot = marked.map(|(point, _)| point.snapshot.to_string());
        let mark = marked.map(|(_, mark)| mark.as_slice());
        let parameters: &[(&(dyn ToSql + Sync), Type)] = &[
            (&point.as_of, Type::TEXT),
            (&snapshot, Type::TEXT),
            (&mark, Type::BYTEA),
            (&at.epoch, Type::INT8),
            (&at.batch, Type::INT8),
        ];
        let touched = store.execute_typed(&sql, parameters).await.map_err(|e| self.error(&e))?;
        self.ours(touched, at.epoch)
    }

    /// Only the cursor moves: there was nothing to write.
    pub async fn apply_nothing(&self, store: &Client, advance: &Advance<'_>, grant: &Grant) -> Result<(), Error> {
        let moved = self.advance(store, advance, grant).await?;
        self.ours(moved, advance.epoch)
    }
}

fn insert_seen(seen: &mut Seen, row: &Row, names: &mut Names) -> Result<(), Error> {
    let (table, id): (&str, i64) = (row.try_get(0).store()?, row.try_get(1).store()?);
    let hash: &[u8] = row.try_get(3).store()?;
    let hash = Hash::try_from(hash).map_err(|_| Error::Corrupt("a hash in the replica is not 32 bytes".into()))?;
    let stored = Stored { offender: row.try_get(2).store()?, hash, place: row.try_get(4).store()? };
    seen.insert((names.get(table), id), stored);
    Ok(())
}

fn cursor(row: &Row) -> Result<Cursor, Error> {
    let snapshot: Option<&str> = row.try_get("snapshot").store()?;
    Ok(Cursor {
        hub_identity: row.try_get("hub_identity").store()?,
        snapshot: snapshot.map(str::parse).transpose()?,
        as_of_millis: row.try_get("millis").store()?,
        batch: row.try_get("batch").store()?,
        head: row.try_get("head").store()?,
        mark: row.try_get("mark").store()?,
        epoch: row.try_get("epoch").store()?,
        filled: row.try_get("filled").store()?,
        seeded: row.try_get("seeded").store()?,
        groups: row.try_get("groups").store()?,
        agreement: row.try_get("agreement").store()?,
        population: row.try_get("population").store()?,
        fenced: row.try_get("fenced").store()?,
    })
}

/// The store's own identity, for the ledger.
pub async fn identity(store: &Client) -> Result<String, Error> {
    store.query_one(&format!("SELECT {IDENTITY}"), &[]).await.store()?.try_get(0).store()
}
