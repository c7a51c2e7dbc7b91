//! Step 6: what a batch writes to a replica, in one transaction whose statements are sent without waiting for one another.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use futures::{
    FutureExt,
    future::{BoxFuture, join_all, join5},
};
use tokio_postgres::{
    Client, Transaction,
    types::{ToSql, Type},
};

use crate::{
    delta::Delta,
    error::{Error, Of},
    record::{Hash, Names, PHOTOGRAPH, Place, Record},
    replica::{Advance, Share},
    subject::{self, Core, Part},
    terms::Grant,
};

/// Records and search rows that go into one statement.
const CHUNK: usize = 2_000;

/// What is to be written is looked up row by row: a planner that joins in another way reads the whole replica for a tenth of it.
const ROW_BY_ROW: &str =
    "SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off";

/// What the replica has under the keys of records that are to be written.
#[derive(Debug, Clone, Copy)]
enum Write<'a> {
    /// Was found to have all of them, each in its place.
    Known(&'a [Place]),
    /// Was found to have none, or loses it before.
    New,
    /// It is not known.
    Whatever,
}

type Statement<'a> = BoxFuture<'a, Result<u64, Error>>;

impl Share {
    /// Step 6: one transaction with everything. `images` has the pictures that the replica lacks. `before_commit` runs last.
    ///
    /// Each statement is on its way before the answer to the one before is here: the server works them off in order, and after
    /// one that fails refuses the rest. Nothing is committed before every answer has been looked at.
    pub async fn apply(
        &self,
        store: &mut Client,
        advance: &Advance<'_>,
        grant: &Grant,
        delta: &Delta,
        images: &HashMap<Hash, Arc<Vec<u8>>>,
        before_commit: impl Future<Output = Result<(), Error>>,
    ) -> Result<(), Error> {
        let tx = store.transaction().await.store()?;
        // First, and checked first: the epoch. It also keeps the cursor's row locked.
        let (ours, planned, touched, robbed, written) = join5(
            self.advance(tx.client(), advance, grant),
            tx.batch_execute(ROW_BY_ROW),
            self.pictures_of(&tx, delta),
            self.robbed(&tx, delta),
            join_all(self.writes(&tx, delta, images, advance.batch)),
        )
        .await;
        if ours? != 1 {
            return Err(Error::Fenced { partner: self.partner().clone(), epoch: advance.epoch });
        }
        planned.store()?;
        let (touched, robbed) = (touched?, robbed?);
        for outcome in written {
            outcome?;
        }
        let anew: Vec<i64> = delta.remake.iter().copied().chain(robbed).collect();
        let anew = self.searchable_records(&tx, &anew).await?;
        let (rows, pictures) = futures::join!(
            join_all(self.subjects(&tx, &anew.iter().collect::<Vec<_>>(), advance.batch)),
            self.drop_pictures(&tx, &touched, delta.only_groups.is_some())
        );
        for outcome in rows {
            outcome?;
        }
        pictures?;
        before_commit.await?;
        tx.commit().await.store()
    }

    /// Moves the cursor, if its epoch is still ours; returns how many rows that was.
    pub(crate) async fn advance(&self, store: &Client, advance: &Advance<'_>, grant: &Grant) -> Result<u64, Error> {
        let Advance { epoch, after, point, hub_identity, batch, head, mark, filled } = advance;
        let population = subject::scope_json(grant)?;
        // While a later part of the keys still awaits its turn, the data are as old as they were.
        let sql = format!(
            "UPDATE {}.cursor SET hub_identity = $1, snapshot = $2::text::pg_snapshot,
                as_of = CASE WHEN $6 = 9223372036854775807 THEN $3::text::timestamptz ELSE as_of END,
                batch = $4, head = $5, filled = $6, seeded = seeded OR $6 = 9223372036854775807,
                fenced = NOT (seeded OR $6 = 9223372036854775807), groups = $7, agreement = $8, population = $9,
                mark = $10 WHERE epoch = $11 AND batch = $12",
            self.schema()
        );
        let (snapshot, groups) = (point.snapshot.to_string(), grant.group_names());
        let mark = mark.as_ref().map(<[u8; 16]>::as_slice);
        store
            .execute_typed(
                &sql,
                &[
                    (hub_identity, Type::TEXT),
                    (&snapshot, Type::TEXT),
                    (&point.as_of, Type::TEXT),
                    (batch, Type::INT8),
                    (head, Type::BYTEA),
                    (filled, Type::INT8),
                    (&groups, Type::TEXT_ARRAY),
                    (&grant.agreement, Type::TEXT),
                    (&population, Type::JSONB),
                    (&mark, Type::BYTEA),
                    (epoch, Type::INT8),
                    (after, Type::INT8),
                ],
            )
            .await
            .map_err(|e| self.error(&e))
    }

    /// The statements that change rows, in their order; only those that have something to do.
    fn writes<'a>(
        &'a self,
        tx: &'a Transaction<'a>,
        delta: &'a Delta,
        images: &'a HashMap<Hash, Arc<Vec<u8>>>,
        batch: i64,
    ) -> Vec<Statement<'a>> {
        let mut statements: Vec<Statement<'a>> = Vec::new();
        if !delta.leave.is_empty() {
            statements.push(self.remove_files(tx, delta, "record").boxed());
            statements.push(self.remove_files(tx, delta, "subject").boxed());
        }
        if let Some(groups) = &delta.only_groups {
            statements.push(self.keep_groups(tx, groups).boxed());
        }
        if !delta.deletes.is_empty() {
            statements.push(self.remove_records(tx, delta).boxed());
        }
        let (mut known, mut places, mut new) = (Vec::new(), Vec::new(), Vec::new());
        for (key, record) in &delta.upserts {
            if let Some(place) = delta.updates(key) {
                known.push(record);
                places.push(place);
            } else {
                new.push(record);
            }
        }
        for (records, places) in known.chunks(CHUNK).zip(places.chunks(CHUNK)) {
            let (records, places) = (records.to_vec(), places.to_vec());
            let write = async move { self.write_records(tx, &records, batch, Write::Known(&places)).await };
            statements.push(write.boxed());
        }
        let new_to_it = if delta.looked_up() { Write::New } else { Write::Whatever };
        for records in new.chunks(CHUNK) {
            let records = records.to_vec();
            statements.push(async move { self.write_records(tx, &records, batch, new_to_it).await }.boxed());
        }
        statements.extend(self.subjects(tx, &delta.subjects.iter().collect::<Vec<_>>(), batch));
        if !delta.cores.is_empty() {
            statements.push(self.write_cores(tx, &delta.cores, batch).boxed());
        }
        if !delta.pictures.is_empty() {
            statements.push(self.remove_pictures(tx, delta).boxed());
        }
        let images: Vec<_> = images.iter().collect();
        for chunk in images.chunks(200) {
            statements.push(self.write_pictures(tx, chunk.to_vec()).boxed());
        }
        statements
    }

    async fn remove_files(&self, tx: &Transaction<'_>, delta: &Delta, table: &str) -> Result<u64, Error> {
        let files: Vec<i64> = delta.leave.iter().copied().collect();
        let sql = format!("DELETE FROM {}.{table} WHERE offender = ANY ($1)", self.schema());
        tx.execute_typed(&sql, &[(&files, Type::INT8_ARRAY)]).await.store()
    }

    async fn keep_groups(&self, tx: &Transaction<'_>, groups: &Vec<String>) -> Result<u64, Error> {
        let sql = format!("DELETE FROM {}.record WHERE grp <> ALL ($1)", self.schema());
        tx.execute_typed(&sql, &[(groups, Type::TEXT_ARRAY)]).await.store()
    }

    async fn remove_records(&self, tx: &Transaction<'_>, delta: &Delta) -> Result<u64, Error> {
        let (tables, ids): (Vec<&str>, Vec<i64>) = delta.deletes.keys().map(|(table, id)| (&**table, *id)).unzip();
        let sql = format!(
            "DELETE FROM {}.record r USING unnest($1, $2) AS k (tbl, id) WHERE r.tbl = k.tbl AND r.id = k.id",
            self.schema()
        );
        tx.execute_typed(&sql, &[(&tables, Type::TEXT_ARRAY), (&ids, Type::INT8_ARRAY)]).await.store()
    }

    async fn write_records(
        &self,
        tx: &Transaction<'_>,
        records: &[&Arc<Record>],
        batch: i64,
        how: Write<'_>,
    ) -> Result<u64, Error> {
        let schema = self.schema();
        let new = "unnest($1, $2, $3, $4, $5, $6) AS n (o, g, t, i, b, h)";
        let insert = format!(
            "INSERT INTO {schema}.record (offender, grp, tbl, id, body, hash, batch) SELECT o, g, t, i, b, h, $7 FROM {new}"
        );
        let sql = match how {
            // Whoever moved a row meanwhile (VACUUM FULL, say) left none of its key in its place, and the count below is not
            // met. The key is asked for in a way that the planner does not look for it by.
            Write::Known(_) => format!(
                "UPDATE {schema}.record r SET offender = n.o, grp = n.g, body = n.b, hash = n.h, batch = $7
                 FROM unnest($1, $2, $3, $4, $5, $6, $8) AS n (o, g, t, i, b, h, p)
                 WHERE r.ctid = n.p AND r.tbl || '' = n.t AND r.id + 0 = n.i"
            ),
            Write::New => insert,
            Write::Whatever => format!(
                "{insert} ON CONFLICT (tbl, id) DO UPDATE SET offender = EXCLUDED.offender, grp = EXCLUDED.grp,
                    body = EXCLUDED.body, hash = EXCLUDED.hash, batch = EXCLUDED.batch"
            ),
        };
        let offenders: Vec<Option<i64>> = records.iter().map(|r| r.offender).collect();
        let groups: Vec<&str> = records.iter().map(|r| &*r.group).collect();
        let tables: Vec<&str> = records.iter().map(|r| &*r.table).collect();
        let ids: Vec<i64> = records.iter().map(|r| r.id).collect();
        let bodies: Vec<&str> = records.iter().map(|r| r.body.as_str()).collect();
        let hashes: Vec<&[u8]> = records.iter().map(|r| r.hash.as_slice()).collect();
        let mut parameters: Vec<(&(dyn ToSql + Sync), Type)> = vec![
            (&offenders, Type::INT8_ARRAY),
            (&groups, Type::TEXT_ARRAY),
            (&tables, Type::TEXT_ARRAY),
            (&ids, Type::INT8_ARRAY),
            (&bodies, Type::TEXT_ARRAY),
            (&hashes, Type::BYTEA_ARRAY),
            (&batch, Type::INT8),
        ];
        if let Write::Known(places) = &how {
            parameters.push((places, Type::TID_ARRAY));
        }
        let written = tx.execute_typed(&sql, &parameters).await.map_err(|e| self.error(&e))?;
        if written != u64::try_from(records.len()).unwrap_or(u64::MAX) {
            return Err(Error::Corrupt(
                "the replica no longer has what it was found to have; looking again".to_owned(),
            ));
        }
        Ok(written)
    }

    /// Files that lose a record to another file in this batch, and whose search row the batch does not make anew: a
    /// comparison may meet the one file long before the other. Routed changes name both files.
    async fn robbed(&self, tx: &Transaction<'_>, delta: &Delta) -> Result<Vec<i64>, Error> {
        if !delta.robs {
            return Ok(Vec::new());
        }
        let moved: Vec<_> = delta.upserts.values().filter(|r| subject::feeds(&r.table)).collect();
        let tables: Vec<&str> = moved.iter().map(|r| &*r.table).collect();
        let ids: Vec<i64> = moved.iter().map(|r| r.id).collect();
        let files: Vec<Option<i64>> = moved.iter().map(|r| r.offender).collect();
        let sql = format!(
            "SELECT DISTINCT r.offender FROM unnest($1, $2, $3) AS n (tbl, id, offender)
             JOIN {}.record r ON r.tbl = n.tbl AND r.id = n.id WHERE r.offender <> n.offender",
            self.schema()
        );
        let parameters: &[(&(dyn ToSql + Sync), Type)] =
            &[(&tables, Type::TEXT_ARRAY), (&ids, Type::INT8_ARRAY), (&files, Type::INT8_ARRAY)];
        let rows = tx.query_typed(&sql, parameters).await.store()?;
        let robbed: Vec<i64> = rows.iter().map(|row| row.try_get(0).store()).collect::<Result<_, _>>()?;
        let left = |f: &i64| !delta.leave.contains(f) && !delta.subjects.contains_key(f) && !delta.remake.contains(f);
        Ok(robbed.into_iter().filter(left).collect())
    }

    /// The records that search rows are made of, as the replica itself has them.
    async fn searchable_records(
        &self,
        tx: &Transaction<'_>,
        files: &[i64],
    ) -> Result<BTreeMap<i64, Vec<Arc<Record>>>, Error> {
        let mut found: BTreeMap<i64, Vec<Arc<Record>>> = files.iter().map(|file| (*file, Vec::new())).collect();
        if files.is_empty() {
            return Ok(found);
        }
        let sql = format!(
            "SELECT offender, grp, tbl, id, body, hash FROM {}.record WHERE offender = ANY ($1) AND tbl = ANY ($2)",
            self.schema()
        );
        let feeds = subject::FEEDS.as_slice();
        let mut names = Names::default();
        for row in tx.query_typed(&sql, &[(&files, Type::INT8_ARRAY), (&feeds, Type::TEXT_ARRAY)]).await.store()? {
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

    /// The statements that make search rows anew.
    fn subjects<'a>(
        &'a self,
        tx: &'a Transaction<'a>,
        files: &[(&'a i64, &'a Vec<Arc<Record>>)],
        batch: i64,
    ) -> Vec<Statement<'a>> {
        files.chunks(CHUNK / 2).map(|chunk| self.write_subjects(tx, chunk.to_vec(), batch).boxed()).collect()
    }

    async fn write_subjects(
        &self,
        tx: &Transaction<'_>,
        files: Vec<(&i64, &Vec<Arc<Record>>)>,
        batch: i64,
    ) -> Result<u64, Error> {
        let sql = format!(
            "INSERT INTO {}.subject
                (offender, fps, surname, given, names, sounds, birth_date, other_dates, custody, status, at_large,
                 jurisdiction, municipality, photograph, batch)
             SELECT s.offender, s.fps, s.surname, s.given, s.names, s.sounds, s.birth_date, s.other_dates, s.custody,
                    s.status, s.at_large, s.jurisdiction, s.municipality, decode(s.photograph, 'hex'), $2
             FROM jsonb_to_recordset($1) AS s (offender bigint, fps text, surname text, given text, names text[],
                sounds text[], birth_date date, other_dates date[], custody text, status text, at_large text,
                jurisdiction text, municipality text, photograph text)
             ON CONFLICT (offender) DO UPDATE SET fps = EXCLUDED.fps, surname = EXCLUDED.surname, given = EXCLUDED.given,
                names = EXCLUDED.names, sounds = EXCLUDED.sounds, birth_date = EXCLUDED.birth_date,
                other_dates = EXCLUDED.other_dates, custody = EXCLUDED.custody, status = EXCLUDED.status,
                at_large = EXCLUDED.at_large, jurisdiction = EXCLUDED.jurisdiction,
                municipality = EXCLUDED.municipality, photograph = EXCLUDED.photograph, batch = EXCLUDED.batch",
            self.schema()
        );
        let mut rows = Vec::with_capacity(files.len());
        for (file, records) in files {
            rows.push(subject::row(*file, records)?);
        }
        let rows = serde_json::Value::Array(rows);
        tx.execute_typed(&sql, &[(&rows, Type::JSONB), (&batch, Type::INT8)]).await.store()
    }

    /// What search rows have from the files' own records, where no name changed.
    async fn write_cores(&self, tx: &Transaction<'_>, cores: &BTreeMap<i64, Core>, batch: i64) -> Result<u64, Error> {
        let sql = format!(
            "UPDATE {}.subject s SET fps = n.f, birth_date = n.b::date, custody = n.c, status = n.s, at_large = n.a,
                jurisdiction = n.j, municipality = n.m, batch = $9
             FROM unnest($1, $2, $3, $4, $5, $6, $7, $8) AS n (o, f, b, c, s, a, j, m) WHERE s.offender = n.o",
            self.schema()
        );
        let files: Vec<i64> = cores.keys().copied().collect();
        let column = |part: Part| -> Vec<&str> { cores.values().map(|core| core.part(part)).collect() };
        tx.execute_typed(
            &sql,
            &[
                (&files, Type::INT8_ARRAY),
                (&column(Part::Fps), Type::TEXT_ARRAY),
                (&column(Part::BirthDate), Type::TEXT_ARRAY),
                (&column(Part::Custody), Type::TEXT_ARRAY),
                (&column(Part::Status), Type::TEXT_ARRAY),
                (&column(Part::AtLarge), Type::TEXT_ARRAY),
                (&column(Part::Jurisdiction), Type::TEXT_ARRAY),
                (&column(Part::Municipality), Type::TEXT_ARRAY),
                (&batch, Type::INT8),
            ],
        )
        .await
        .store()
    }

    async fn remove_pictures(&self, tx: &Transaction<'_>, delta: &Delta) -> Result<u64, Error> {
        let names: Vec<&[u8]> = delta.pictures.iter().map(Hash::as_slice).collect();
        let sql = format!("DELETE FROM {}.photograph WHERE sha256 = ANY ($1)", self.schema());
        tx.execute_typed(&sql, &[(&names, Type::BYTEA_ARRAY)]).await.store()
    }

    async fn write_pictures(&self, tx: &Transaction<'_>, images: Vec<(&Hash, &Arc<Vec<u8>>)>) -> Result<u64, Error> {
        let sql = format!(
            "INSERT INTO {}.photograph (sha256, jpeg) SELECT * FROM unnest($1, $2) ON CONFLICT DO NOTHING",
            self.schema()
        );
        let names: Vec<&[u8]> = images.iter().map(|(hash, _)| hash.as_slice()).collect();
        let bytes: Vec<&[u8]> = images.iter().map(|(_, bytes)| bytes.as_slice()).collect();
        tx.execute_typed(&sql, &[(&names, Type::BYTEA_ARRAY), (&bytes, Type::BYTEA_ARRAY)]).await.store()
    }

    /// Pictures that records name which this batch replaces or removes: they may be nobody's afterwards.
    async fn pictures_of(&self, tx: &Transaction<'_>, delta: &Delta) -> Result<Vec<String>, Error> {
        let keys = delta.upserts.keys().chain(delta.deletes.keys());
        let ids: Vec<i64> = keys.filter(|(table, _)| &**table == PHOTOGRAPH).map(|(_, id)| *id).collect();
        let files: Vec<i64> = delta.leave.iter().copied().collect();
        if ids.is_empty() && files.is_empty() {
            return Ok(Vec::new());
        }
        let sql = format!(
            "SELECT picture FROM {0}.record WHERE tbl = 'photograph' AND id = ANY ($1) AND picture IS NOT NULL
             UNION SELECT picture FROM {0}.record WHERE offender = ANY ($2) AND picture IS NOT NULL",
            self.schema()
        );
        let rows = tx.query_typed(&sql, &[(&ids, Type::INT8_ARRAY), (&files, Type::INT8_ARRAY)]).await;
        rows.map_err(|e| self.error(&e))?.iter().map(|row| row.try_get(0).store()).collect()
    }

    async fn drop_pictures(&self, tx: &Transaction<'_>, touched: &Vec<String>, all: bool) -> Result<(), Error> {
        if touched.is_empty() && !all {
            return Ok(());
        }
        let sql = format!(
            "DELETE FROM {0}.photograph p WHERE ($2 OR p.sha256 = ANY (SELECT decode(h, 'hex') FROM unnest($1) h))
                AND NOT EXISTS (SELECT FROM {0}.record r WHERE r.picture = encode(p.sha256, 'hex'))",
            self.schema()
        );
        tx.execute_typed(&sql, &[(touched, Type::TEXT_ARRAY), (&all, Type::BOOL)]).await.store()?;
        Ok(())
    }
}
