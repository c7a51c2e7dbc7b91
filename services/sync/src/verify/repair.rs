//! What must cross again, or go: the difference between the hub and what the replica's own bytes are, for the units that a
//! verification named. Hashes that the replica stored count for nothing here either.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use liaison_records::set_hash::{Unit, false_hash};
use tokio_postgres::Client;

use super::roots;
use crate::{
    delta::{Delta, Seen, Stored},
    error::{Error, Of},
    hub::View,
    partner::Held,
    quote::ident,
    record::{Hash, Names},
    terms::Grant,
};

/// The difference, and the pictures that must be written. The replica must be at the snapshot of `view`.
pub(super) async fn decide(
    held: &Held,
    view: &mut View<'_>,
    store: &Client,
    grant: &Grant,
    suspects: &BTreeSet<Unit>,
) -> Result<(Delta, HashMap<Hash, Arc<Vec<u8>>>), Error> {
    let share = ident(&held.partner.share_schema());
    let granted: BTreeSet<String> = grant.group_names().into_iter().collect();
    let mut delta = Delta::default();
    let mut files: BTreeSet<i64> = BTreeSet::new();
    let mut references = false;
    for unit in suspects {
        match unit {
            Unit::Reference(..) => references = true,
            Unit::File(file) => {
                files.insert(*file);
            }
            Unit::Picture(picture) => {
                delta.pictures.insert(*picture);
            }
        }
    }
    // Whoever shows a picture gets it again: the ledger names the file.
    let names: Vec<String> = delta.pictures.iter().map(hex::encode).collect();
    let sql = format!("SELECT id, offender FROM {share}.record WHERE picture = ANY ($1::text[])");
    let mut again: HashSet<i64> = HashSet::new();
    for row in store.query(&sql, &[&names]).await.store()? {
        again.insert(row.try_get(0).store()?);
        files.extend(row.try_get::<_, Option<i64>>(1).store()?);
    }
    if references {
        let seen = seen(store, &format!("SELECT {COLUMNS} FROM {share}.record WHERE offender IS NULL"), &[]).await?;
        let seen = seen.into_values().next().unwrap_or_default();
        delta.references(&view.references(&granted).await?, &seen);
    }
    let inside: HashSet<i64> =
        if granted.is_empty() { HashSet::new() } else { view.scope(&grant.scope).await?.into_iter().collect() };
    let files: Vec<i64> = files.into_iter().collect();
    for chunk in files.chunks(500) {
        let sql = format!("SELECT {COLUMNS} FROM {share}.record WHERE offender = ANY ($1::bigint[])");
        let mut has = seen(store, &sql, chunk).await?;
        let searchable = held.share.searchable(store, chunk).await?;
        let mut records = view.files(chunk, &granted).await?;
        for file in chunk {
            let mut seen = has.remove(&Some(*file)).unwrap_or_default();
            if !inside.contains(file) {
                if !seen.is_empty() || searchable.contains(file) {
                    delta.leave.insert(*file);
                }
                continue;
            }
            for ((table, id), stored) in &mut seen {
                if &**table == crate::record::PHOTOGRAPH && again.contains(id) {
                    stored.hash = false_hash(&stored.hash, b"its picture crosses again");
                }
            }
            let records = records.remove(file).unwrap_or_default();
            delta.compare(*file, &records, &seen, searchable.contains(file), true);
        }
    }
    let mut wanted = held.share.lacking(store, &delta.photographs()).await?;
    wanted.extend(delta.photographs().intersection(&delta.pictures));
    let images = view.images(&wanted.into_iter().collect::<Vec<_>>()).await?;
    Ok((delta, images))
}

const COLUMNS: &str = "offender, grp, tbl, id, body, hash, ctid";

/// What the replica has, by file, with the hashes that its bytes have.
async fn seen(store: &Client, sql: &str, files: &[i64]) -> Result<HashMap<Option<i64>, Seen>, Error> {
    let mut names = Names::default();
    let mut found: HashMap<Option<i64>, Seen> = HashMap::new();
    let rows = if sql.contains("$1") { store.query(sql, &[&files]).await } else { store.query(sql, &[]).await };
    for row in rows.store()? {
        let offender: Option<i64> = row.try_get(0).store()?;
        let key = (names.get(row.try_get(2).store()?), row.try_get(3).store()?);
        let stored = Stored { offender, hash: roots::stored(&row)?, place: row.try_get(6).store()? };
        found.entry(offender).or_default().insert(key, stored);
    }
    Ok(found)
}
