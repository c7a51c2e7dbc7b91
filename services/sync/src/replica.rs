//! What sync reads from and writes to one partner's share schema. Every write checks the epoch first, in its transaction.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt::Write as _,
    sync::Arc,
};

use liaison_records::names::PartnerName;
use tokio_postgres::{Client, Row, Transaction, error::SqlState};

use crate::{
    cursor::{Cursor, Point},
    delta::{Delta, Seen},
    error::{Error, Of},
    hub::IDENTITY,
    quote::ident,
    record::{Hash, Key, Names, Record},
    subject,
    terms::{Grant, Terms},
};

/// The share schema of a partner.
#[derive(Debug, Clone)]
pub struct Share {
    partner: PartnerName,
    schema: String,
    /// Where pictures are that need not cross again: the replica beside which this one is made.
    pictures: Option<String>,
}

/// What the cursor is to say after a transaction.
#[derive(Debug)]
pub struct Advance<'a> {
    /// The lease.
    pub epoch: i64,
    /// The snapshot that the replica follows from now on.
    pub point: &'a Point,
    /// The hub that it is of.
    pub hub_identity: &'a str,
    /// Batch and ledger head.
    pub batch: i64,
    /// Ledger head with it.
    pub head: &'a [u8],
    /// Exact up to here.
    pub filled: i64,
}

const CURSOR: &str = "hub_identity, snapshot::text AS snapshot, (extract(epoch FROM as_of) * 1000)::bigint AS millis, \
    batch, head, epoch, filled, seeded, groups, agreement, population, fenced";

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

    fn error(&self, error: &tokio_postgres::Error) -> Error {
        match error.code() {
            Some(code) if *code == SqlState::UNDEFINED_TABLE || *code == SqlState::INVALID_SCHEMA_NAME => {
                Error::NotSeeded(self.partner.clone())
            }
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
    pub async fn seen(&self, store: &Client, keys: &BTreeSet<Key>) -> Result<Seen, Error> {
        let mut seen = Seen::new();
        let mut names = Names::default();
        let sql = format!(
            "SELECT r.tbl, r.id, r.offender, r.hash FROM unnest($1::text[], $2::bigint[]) AS k (tbl, id)
             JOIN {}.record r ON r.tbl = k.tbl AND r.id = k.id",
            self.schema
        );
        let keys: Vec<&Key> = keys.iter().collect();
        for chunk in keys.chunks(10_000) {
            let tables: Vec<&str> = chunk.iter().map(|(table, _)| &**table).collect();
            let ids: Vec<i64> = chunk.iter().map(|(_, id)| *id).collect();
            for row in store.query(&sql, &[&tables, &ids]).await.store()? {
                insert_seen(&mut seen, &row, &mut names)?;
            }
        }
        Ok(seen)
    }

    /// What the replica has of `files`, by file.
    pub async fn seen_files(&self, store: &Client, files: &[i64]) -> Result<HashMap<i64, Seen>, Error> {
        let sql =
            format!("SELECT tbl, id, offender, hash FROM {}.record WHERE offender = ANY ($1::bigint[])", self.schema);
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
        let sql = format!("SELECT tbl, id, offender, hash FROM {}.record WHERE offender IS NULL", self.schema);
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

    /// Begins a write: checks the epoch, and keeps the cursor's row locked until the end of the transaction.
    async fn begin<'a>(&self, store: &'a mut Client, epoch: i64) -> Result<Transaction<'a>, Error> {
        let tx = store.transaction().await.store()?;
        let sql = format!("SELECT FROM {}.cursor WHERE epoch = $1 FOR UPDATE", self.schema);
        if tx.query_opt(&sql, &[&epoch]).await.map_err(|e| self.error(&e))?.is_none() {
            return Err(Error::Fenced { partner: self.partner.clone(), epoch });
        }
        Ok(tx)
    }

    /// Writes what the partner's people are told and may do, and whether they may at all. No record changes.
    pub async fn write_terms(&self, store: &mut Client, epoch: i64, terms: &Terms) -> Result<(), Error> {
        let tx = self.begin(store, epoch).await?;
        let Terms { partner: _, generation, name_en, name_fr, time_zone, authorized_until, suspended, grant, .. } =
            terms;
        let until = authorized_until.filter(|_| grant.is_some()).map(|until| until.to_string());
        let purposes = grant.as_ref().map_or_else(Vec::new, |g| g.purposes.clone());
        let sql = format!(
            "UPDATE {}.cursor SET generation = $1, partner_en = $2, partner_fr = $3, time_zone = $4,
                authorized_until = $5::text::timestamptz, suspended = $6, purposes = $7",
            self.schema
        );
        tx.execute(&sql, &[generation, name_en, name_fr, time_zone, &until, suspended, &purposes]).await.store()?;
        tx.commit().await.store()
    }

    /// Refuses reads until the batch that narrows the scope has landed; with `whole`, until the replica is complete.
    pub async fn fence(&self, store: &mut Client, epoch: i64, whole: bool) -> Result<(), Error> {
        let tx = self.begin(store, epoch).await?;
        let sql = format!("UPDATE {}.cursor SET fenced = true, seeded = seeded AND NOT $1", self.schema);
        tx.execute(&sql, &[&whole]).await.store()?;
        tx.commit().await.store()
    }

    /// The replica is exact at `point`, and nothing changed for it: the as-of row, the only write when nothing changes.
    pub async fn touch(&self, store: &mut Client, epoch: i64, point: &Point) -> Result<(), Error> {
        let tx = self.begin(store, epoch).await?;
        let sql = format!(
            "UPDATE {}.cursor SET snapshot = $1::text::pg_snapshot, as_of = $2::text::timestamptz",
            self.schema
        );
        tx.execute(&sql, &[&point.snapshot.to_string(), &point.as_of]).await.store()?;
        tx.commit().await.store()
    }

    /// Step 6: one transaction with everything. `images` has the pictures that the replica lacks. `before_commit` runs last.
    pub async fn apply(
        &self,
        store: &mut Client,
        advance: &Advance<'_>,
        grant: &Grant,
        delta: &Delta,
        images: &HashMap<Hash, Arc<Vec<u8>>>,
        before_commit: impl Future<Output = Result<(), Error>>,
    ) -> Result<(), Error> {
        let tx = self.begin(store, advance.epoch).await?;
        let touched = self.pictures_of(&tx, delta).await?;
        let robbed = self.robbed(&tx, delta).await?;
        self.withdraw(&tx, delta).await?;
        self.write_records(&tx, delta, advance.batch).await?;
        self.write_subjects(&tx, delta.subjects.iter(), advance.batch).await?;
        let robbed = self.searchable_records(&tx, &robbed).await?;
        self.write_subjects(&tx, robbed.iter(), advance.batch).await?;
        self.write_pictures(&tx, images).await?;
        self.drop_pictures(&tx, &touched, delta.only_groups.is_some()).await?;
        self.advance(&tx, advance, grant).await?;
        before_commit.await?;
        tx.commit().await.store()
    }

    /// Only the cursor moves: there was nothing to write.
    pub async fn apply_nothing(&self, store: &mut Client, advance: &Advance<'_>, grant: &Grant) -> Result<(), Error> {
        let tx = self.begin(store, advance.epoch).await?;
        self.advance(&tx, advance, grant).await?;
        tx.commit().await.store()
    }

    async fn advance(&self, tx: &Transaction<'_>, advance: &Advance<'_>, grant: &Grant) -> Result<(), Error> {
        let Advance { epoch: _, point, hub_identity, batch, head, filled } = advance;
        let population = subject::scope_json(grant)?;
        // While a later part of the keys still awaits its turn, the data are as old as they were.
        let sql = format!(
            "UPDATE {}.cursor SET hub_identity = $1, snapshot = $2::text::pg_snapshot,
                as_of = CASE WHEN $6 = 9223372036854775807 THEN $3::text::timestamptz ELSE as_of END,
                batch = $4, head = $5, filled = $6, seeded = seeded OR $6 = 9223372036854775807,
                fenced = NOT (seeded OR $6 = 9223372036854775807), groups = $7, agreement = $8, population = $9",
            self.schema
        );
        tx.execute(
            &sql,
            &[
                hub_identity,
                &point.snapshot.to_string(),
                &point.as_of,
                batch,
                head,
                filled,
                &grant.group_names(),
                &grant.agreement,
                &population,
            ],
        )
        .await
        .store()?;
        Ok(())
    }

    /// Pictures that records name which this batch replaces or removes: they may be nobody's afterwards.
    async fn pictures_of(&self, tx: &Transaction<'_>, delta: &Delta) -> Result<Vec<String>, Error> {
        let ids: Vec<i64> = delta
            .upserts
            .keys()
            .chain(delta.deletes.keys())
            .filter(|(table, _)| &**table == crate::record::PHOTOGRAPH)
            .map(|(_, id)| *id)
            .collect();
        let files: Vec<i64> = delta.leave.iter().copied().collect();
        if ids.is_empty() && files.is_empty() {
            return Ok(Vec::new());
        }
        let sql = format!(
            "SELECT DISTINCT body::jsonb ->> 'sha256' FROM {}.record
             WHERE tbl = 'photograph' AND (id = ANY ($1::bigint[]) OR offender = ANY ($2::bigint[]))
               AND body::jsonb ->> 'sha256' IS NOT NULL",
            self.schema
        );
        let rows = tx.query(&sql, &[&ids, &files]).await.store()?;
        rows.iter().map(|row| row.try_get(0).store()).collect()
    }

    async fn withdraw(&self, tx: &Transaction<'_>, delta: &Delta) -> Result<(), Error> {
        let schema = &self.schema;
        if !delta.leave.is_empty() {
            let files: Vec<i64> = delta.leave.iter().copied().collect();
            for table in ["record", "subject"] {
                let sql = format!("DELETE FROM {schema}.{table} WHERE offender = ANY ($1::bigint[])");
                tx.execute(&sql, &[&files]).await.store()?;
            }
        }
        if !delta.pictures.is_empty() {
            let names: Vec<&[u8]> = delta.pictures.iter().map(<[u8; 32]>::as_slice).collect();
            tx.execute(&format!("DELETE FROM {schema}.photograph WHERE sha256 = ANY ($1::bytea[])"), &[&names])
                .await
                .store()?;
        }
        if let Some(groups) = &delta.only_groups {
            tx.execute(&format!("DELETE FROM {schema}.record WHERE grp <> ALL ($1::text[])"), &[groups])
                .await
                .store()?;
        }
        if !delta.deletes.is_empty() {
            let tables: Vec<&str> = delta.deletes.keys().map(|(table, _)| &**table).collect();
            let ids: Vec<i64> = delta.deletes.keys().map(|(_, id)| *id).collect();
            let sql = format!(
                "DELETE FROM {schema}.record r USING unnest($1::text[], $2::bigint[]) AS k (tbl, id)
                 WHERE r.tbl = k.tbl AND r.id = k.id"
            );
            tx.execute(&sql, &[&tables, &ids]).await.store()?;
        }
        Ok(())
    }

    async fn write_records(&self, tx: &Transaction<'_>, delta: &Delta, batch: i64) -> Result<(), Error> {
        if delta.upserts.is_empty() {
            return Ok(());
        }
        let statement = tx
            .prepare(&format!(
                "INSERT INTO {}.record AS r (offender, grp, tbl, id, body, hash, batch)
                 SELECT o, g, t, i, b, h, $7
                 FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::bytea[])
                    AS n (o, g, t, i, b, h)
                 ON CONFLICT (tbl, id) DO UPDATE SET offender = EXCLUDED.offender, grp = EXCLUDED.grp,
                    body = EXCLUDED.body, hash = EXCLUDED.hash, batch = EXCLUDED.batch",
                self.schema
            ))
            .await
            .store()?;
        let records: Vec<_> = delta.upserts.values().collect();
        for chunk in records.chunks(2_000) {
            let offenders: Vec<Option<i64>> = chunk.iter().map(|r| r.offender).collect();
            let groups: Vec<&str> = chunk.iter().map(|r| &*r.group).collect();
            let tables: Vec<&str> = chunk.iter().map(|r| &*r.table).collect();
            let ids: Vec<i64> = chunk.iter().map(|r| r.id).collect();
            let bodies: Vec<&str> = chunk.iter().map(|r| r.body.as_str()).collect();
            let hashes: Vec<&[u8]> = chunk.iter().map(|r| r.hash.as_slice()).collect();
            tx.execute(&statement, &[&offenders, &groups, &tables, &ids, &bodies, &hashes, &batch]).await.store()?;
        }
        Ok(())
    }

    /// Files that lose a record to another file in this batch, and whose search row the batch does not make anew: a
    /// comparison may meet the one file long before the other.
    async fn robbed(&self, tx: &Transaction<'_>, delta: &Delta) -> Result<Vec<i64>, Error> {
        let moved: Vec<_> = delta.upserts.values().filter(|r| subject::feeds(&r.table)).collect();
        let tables: Vec<&str> = moved.iter().map(|r| &*r.table).collect();
        let ids: Vec<i64> = moved.iter().map(|r| r.id).collect();
        let files: Vec<Option<i64>> = moved.iter().map(|r| r.offender).collect();
        let sql = format!(
            "SELECT DISTINCT r.offender FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS n (tbl, id, offender)
             JOIN {}.record r ON r.tbl = n.tbl AND r.id = n.id WHERE r.offender <> n.offender",
            self.schema
        );
        let rows = tx.query(&sql, &[&tables, &ids, &files]).await.store()?;
        let robbed: Vec<i64> = rows.iter().map(|row| row.try_get(0).store()).collect::<Result<_, _>>()?;
        Ok(robbed.into_iter().filter(|f| !delta.leave.contains(f) && !delta.subjects.contains_key(f)).collect())
    }

    /// The records that search rows are made of, as the replica itself has them.
    async fn searchable_records(
        &self,
        tx: &Transaction<'_>,
        files: &[i64],
    ) -> Result<BTreeMap<i64, Vec<Arc<Record>>>, Error> {
        let mut found: BTreeMap<i64, Vec<Arc<Record>>> = BTreeMap::new();
        if files.is_empty() {
            return Ok(found);
        }
        let sql = format!(
            "SELECT offender, grp, tbl, id, body, hash FROM {}.record
             WHERE offender = ANY ($1::bigint[]) AND tbl = ANY ($2::text[])",
            self.schema
        );
        let mut names = Names::default();
        for row in tx.query(&sql, &[&files, &subject::FEEDS.as_slice()]).await.store()? {
            let (file, hash): (i64, &[u8]) = (row.try_get(0).store()?, row.try_get(5).store()?);
            let record = Record {
                offender: Some(file),
                group: names.get(row.try_get(1).store()?),
                table: names.get(row.try_get(2).store()?),
                id: row.try_get(3).store()?,
                body: row.try_get(4).store()?,
                hash: Hash::try_from(hash).unwrap_or_default(),
            };
            found.entry(file).or_default().push(Arc::new(record));
        }
        Ok(found)
    }

    async fn write_subjects<'a>(
        &self,
        tx: &Transaction<'_>,
        files: impl Iterator<Item = (&'a i64, &'a Vec<Arc<Record>>)>,
        batch: i64,
    ) -> Result<(), Error> {
        let sql = format!(
            "INSERT INTO {}.subject
             SELECT s.offender, s.fps, s.surname, s.given, s.names, s.sounds, s.birth_date, s.other_dates, s.custody,
                    s.status, s.at_large, s.jurisdiction, s.municipality, decode(s.photograph, 'hex'), $2
             FROM jsonb_to_recordset($1::jsonb) AS s (offender bigint, fps text, surname text, given text, names text[],
                sounds text[], birth_date date, other_dates date[], custody text, status text, at_large text,
                jurisdiction text, municipality text, photograph text)
             ON CONFLICT (offender) DO UPDATE SET fps = EXCLUDED.fps, surname = EXCLUDED.surname, given = EXCLUDED.given,
                names = EXCLUDED.names, sounds = EXCLUDED.sounds, birth_date = EXCLUDED.birth_date,
                other_dates = EXCLUDED.other_dates, custody = EXCLUDED.custody, status = EXCLUDED.status,
                at_large = EXCLUDED.at_large, jurisdiction = EXCLUDED.jurisdiction,
                municipality = EXCLUDED.municipality, photograph = EXCLUDED.photograph, batch = EXCLUDED.batch",
            self.schema
        );
        let files: Vec<_> = files.collect();
        for chunk in files.chunks(1_000) {
            let mut rows = Vec::with_capacity(chunk.len());
            for (file, records) in chunk {
                rows.push(subject::row(**file, records)?);
            }
            tx.execute(&sql, &[&serde_json::Value::Array(rows), &batch]).await.store()?;
        }
        Ok(())
    }

    async fn write_pictures(&self, tx: &Transaction<'_>, images: &HashMap<Hash, Arc<Vec<u8>>>) -> Result<(), Error> {
        let sql = format!(
            "INSERT INTO {}.photograph SELECT * FROM unnest($1::bytea[], $2::bytea[]) ON CONFLICT DO NOTHING",
            self.schema
        );
        let images: Vec<_> = images.iter().collect();
        for chunk in images.chunks(200) {
            let names: Vec<&[u8]> = chunk.iter().map(|(hash, _)| hash.as_slice()).collect();
            let bytes: Vec<&[u8]> = chunk.iter().map(|(_, bytes)| bytes.as_slice()).collect();
            tx.execute(&sql, &[&names, &bytes]).await.store()?;
        }
        Ok(())
    }

    async fn drop_pictures(&self, tx: &Transaction<'_>, touched: &[String], all: bool) -> Result<(), Error> {
        if touched.is_empty() && !all {
            return Ok(());
        }
        let which = if all { "" } else { "p.sha256 = ANY (SELECT decode(h, 'hex') FROM unnest($1::text[]) h) AND" };
        let sql = format!(
            "DELETE FROM {0}.photograph p WHERE {which} NOT EXISTS (
                SELECT FROM {0}.record r
                WHERE r.tbl = 'photograph' AND r.body::jsonb ->> 'sha256' = encode(p.sha256, 'hex'))",
            self.schema
        );
        if all {
            tx.execute(&sql, &[]).await.store()?
        } else {
            tx.execute(&sql, &[&touched]).await.store()?
        };
        Ok(())
    }
}

fn insert_seen(seen: &mut Seen, row: &Row, names: &mut Names) -> Result<(), Error> {
    let (table, id): (&str, i64) = (row.try_get(0).store()?, row.try_get(1).store()?);
    let hash: &[u8] = row.try_get(3).store()?;
    let hash = Hash::try_from(hash).map_err(|_| Error::Corrupt("a hash in the replica is not 32 bytes".into()))?;
    seen.insert((names.get(table), id), (row.try_get(2).store()?, hash));
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
