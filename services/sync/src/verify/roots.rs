//! The two hashes. The hub's is made of the view `liaison.record`; the replica's of the bytes that it holds. Neither looks
//! at the ledger, at the change log, or at a hash that somebody stored.

use std::collections::{BTreeMap, BTreeSet};

use liaison_records::{
    names::PartnerName,
    set_hash::{SetHash, Tree, Unit, false_hash, search_row_hash},
};
use serde_json::Value;
use tokio_postgres::{Client, IsolationLevel, Row, Transaction};

use crate::{
    error::{Error, Of},
    hub::View,
    quote::ident,
    record::{Hash, Names},
    subject,
    terms::Grant,
};

/// Files read at once.
const CHUNK: usize = 1_000;

/// One side.
pub(crate) struct Hashed {
    pub(crate) tree: Tree,
    pub(crate) files: i64,
    pub(crate) records: i64,
    pub(crate) photographs: i64,
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// What the replica ought to be, at the snapshot of `view`. Gives way to an extract that waits for our locks: `HubBusy`.
pub(super) async fn hub(view: &mut View<'_>, grant: &Grant) -> Result<Hashed, Error> {
    let groups = grant.group_names();
    let granted: BTreeSet<String> = groups.into_iter().collect();
    let scope = if granted.is_empty() { Vec::new() } else { view.scope(&grant.scope).await? };
    let mut set = SetHash::default();
    let mut pictures: BTreeSet<Hash> = BTreeSet::new();
    let mut records = 0;
    for record in view.references(&granted).await? {
        records += 1;
        set.add(Unit::Reference(record.table.clone(), record.id), &mut [record.hash]);
    }
    for chunk in scope.chunks(CHUNK) {
        if view.in_the_way().await? {
            return Err(Error::HubBusy);
        }
        let mut files = view.files(chunk, &granted).await?;
        for file in chunk {
            let found = files.remove(file).unwrap_or_default();
            records += count(found.len());
            let mut items: Vec<Hash> = found.iter().map(|record| record.hash).collect();
            items.push(search_row_hash(&subject::row(*file, &found)?));
            pictures.extend(found.iter().filter_map(|record| record.photograph()));
            set.add(Unit::File(*file), &mut items);
        }
    }
    let pictures = view.pictures(&pictures).await?;
    let photographs = count(pictures.len());
    for picture in pictures {
        set.add(Unit::Picture(picture), &mut [picture]);
    }
    Ok(Hashed { tree: set.finish(), files: count(scope.len()), records, photographs })
}

/// The epoch that the cursor bears.
pub(super) async fn epoch(tx: &Transaction<'_>, partner: &PartnerName) -> Result<i64, Error> {
    let sql = format!("SELECT epoch FROM {}.cursor", ident(&partner.share_schema()));
    tx.query_one(&sql, &[]).await.store()?.try_get(0).store()
}

/// A snapshot of a replica, to hash it in.
pub(crate) async fn snapshot(store: &mut Client) -> Result<Transaction<'_>, Error> {
    store.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true).start().await.store()
}

/// What the replica is, at the snapshot of `tx`.
pub(crate) async fn replica(tx: &Transaction<'_>, partner: &PartnerName) -> Result<Hashed, Error> {
    let share = ident(&partner.share_schema());
    let mut set = SetHash::default();
    let (mut names, mut records) = (Names::default(), 0);
    let columns = "offender, grp, tbl, id, body, hash";
    for row in tx.query(&format!("SELECT {columns} FROM {share}.record WHERE offender IS NULL"), &[]).await.store()? {
        records += 1;
        let table = names.get(row.try_get(2).store()?);
        set.add(Unit::Reference(table, row.try_get(3).store()?), &mut [stored(&row)?]);
    }
    let rows = tx
        .query(
            &format!(
                "SELECT offender FROM {share}.subject
                 UNION SELECT offender FROM {share}.record WHERE offender IS NOT NULL ORDER BY 1"
            ),
            &[],
        )
        .await
        .store()?;
    let files: Vec<i64> = rows.iter().map(|row| row.try_get(0).store()).collect::<Result<_, _>>()?;
    let of_records = tx
        .prepare(&format!("SELECT {columns} FROM {share}.record WHERE offender = ANY ($1::bigint[])"))
        .await
        .store()?;
    let of_subjects =
        tx.prepare(&format!("{} WHERE offender = ANY ($1::bigint[])", search_rows(&share))).await.store()?;
    for chunk in files.chunks(CHUNK) {
        let mut found: BTreeMap<i64, Vec<Hash>> = chunk.iter().map(|file| (*file, Vec::new())).collect();
        for row in tx.query(&of_records, &[&chunk]).await.store()? {
            records += 1;
            found.entry(row.try_get(0).store()?).or_default().push(stored(&row)?);
        }
        for row in tx.query(&of_subjects, &[&chunk]).await.store()? {
            let json: Value = row.try_get(1).store()?;
            found.entry(row.try_get(0).store()?).or_default().push(search_row_hash(&json));
        }
        for (file, mut items) in found {
            set.add(Unit::File(file), &mut items);
        }
    }
    // The store hashes the pictures: their bytes are by far the most, and need not leave it.
    let sql = format!("SELECT sha256, sha256(jpeg) FROM {share}.photograph");
    let pictures = tx.query(&sql, &[]).await.store()?;
    for row in &pictures {
        set.add(Unit::Picture(hash(row.try_get(0).store()?)?), &mut [hash(row.try_get(1).store()?)?]);
    }
    let photographs = count(pictures.len());
    Ok(Hashed { tree: set.finish(), files: count(files.len()), records, photographs })
}

/// Number and columns of search rows, as [`subject::row`] writes them.
fn search_rows(share: &str) -> String {
    format!(
        "SELECT s.offender, to_jsonb(s) FROM (SELECT offender, fps, surname, given, names, sounds, birth_date, other_dates,
            custody, status, at_large, jurisdiction, municipality, encode(photograph, 'hex') AS photograph
         FROM {share}.subject) s"
    )
}

fn hash(bytes: &[u8]) -> Result<Hash, Error> {
    Hash::try_from(bytes).map_err(|_| Error::Corrupt("a hash in the replica is not 32 bytes".into()))
}

/// The hash that a stored row's bytes have; never a record's when the row says another. Columns: offender, grp, tbl, id,
/// body, hash.
pub(super) fn stored(row: &Row) -> Result<Hash, Error> {
    let (group, table): (&str, &str) = (row.try_get(1).store()?, row.try_get(2).store()?);
    let body: &str = row.try_get(4).store()?;
    let computed = subject::record_hash(group, table, row.try_get(3).store()?, row.try_get(0).store()?, body);
    let said: &[u8] = row.try_get(5).store()?;
    Ok(if said == computed { computed } else { false_hash(&computed, said) })
}
