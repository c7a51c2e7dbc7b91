//! What the ledger answers about one person: everyone who received anything (Privacy Act 8-9), and who must be told of a
//! correction (12(2)(b)), with whether their replica has it already.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use liaison_records::names::PartnerName;
use serde::Serialize;
use tokio_postgres::{Client, Transaction, types::Type};

use crate::{
    error::{Error, Of},
    export::AT,
    quote::ident,
    subject::record_hash,
};

/// Notes which FPS numbers files had when their own records crossed, in the ledger's transaction: the account can be given when
/// the hub no longer has the file. `numbers`: FPS number and file.
pub async fn remember(tx: &Transaction<'_>, numbers: impl Iterator<Item = &(String, i64)>) -> Result<(), Error> {
    let (numbers, files): (Vec<&str>, Vec<i64>) = numbers.map(|(number, file)| (number.as_str(), *file)).unzip();
    if files.is_empty() {
        return Ok(());
    }
    tx.execute_typed(
        "INSERT INTO liaison.disclosed_number (fps, offender)
         SELECT DISTINCT n.fps, n.id FROM unnest($1, $2) AS n (fps, id)
         WHERE NOT EXISTS (SELECT FROM liaison.disclosed_number d WHERE d.fps = n.fps AND d.offender = n.id)
         ORDER BY n.fps ON CONFLICT DO NOTHING",
        &[(&numbers, Type::TEXT_ARRAY), (&files, Type::INT8_ARRAY)],
    )
    .await
    .hub()?;
    Ok(())
}

/// One disclosure, or withdrawal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Disclosure {
    /// Who received it.
    pub partner: String,
    /// Under which agreement.
    pub agreement: String,
    /// When.
    pub at: String,
    /// Field groups of which something crossed or was withdrawn.
    pub groups: Vec<String>,
    /// enter, stay or leave.
    pub kind: String,
    /// Batch of that partner.
    pub batch: i64,
    /// landed; prepared (not yet known) and disclosed (cannot be known) count as crossed.
    pub state: String,
    /// Number of the file.
    pub file: i64,
}

/// A person of the partner's who asked for the file, as far as the hub has the partner's access log: it is drained at disposal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Access {
    /// Whose log.
    pub partner: String,
    /// When.
    pub at: String,
    /// Who.
    pub officer: String,
    /// Why.
    pub purpose: String,
    /// file, photograph or shown.
    pub kind: String,
    /// allowed or denied.
    pub outcome: String,
}

/// The account of disclosures of one FPS number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Account {
    /// The number asked for.
    pub fps: String,
    /// The files that have it, or had it when something of them crossed.
    pub files: Vec<i64>,
    /// What crossed, oldest first.
    pub disclosures: Vec<Disclosure>,
    /// Who looked, as far as the hub has it.
    pub accesses: Vec<Access>,
}

/// The files that have an FPS number, or had it when something of them crossed.
pub async fn files(hub: &Client, fps: &str) -> Result<Vec<i64>, Error> {
    let rows = hub
        .query(
            "SELECT id FROM oms.offender WHERE fps = $1
             UNION SELECT offender FROM liaison.disclosed_number WHERE fps = $1 ORDER BY 1",
            &[&fps],
        )
        .await
        .hub()?;
    rows.iter().map(|row| row.try_get(0).hub()).collect()
}

/// Everyone who received anything about a number since an instant. Void batches, which never crossed, are left out.
pub async fn account(hub: &Client, fps: &str, since: Timestamp) -> Result<Account, Error> {
    let files = files(hub, fps).await?;
    let sql = format!(
        "SELECT e.partner, b.agreement, {}, e.groups, e.kind, b.batch, b.state, e.offender
         FROM liaison.ledger_entry e JOIN liaison.ledger_batch b ON b.partner = e.partner AND b.batch = e.batch
         WHERE e.offender = ANY ($1) AND b.state <> 'void' AND b.at >= $2::text::timestamptz
         ORDER BY b.at, e.partner, b.batch, e.seq",
        AT.replace("to_char(at", "to_char(b.at")
    );
    let since = since.to_string();
    let rows = hub.query(&sql, &[&files, &since]).await.hub()?;
    let disclosures = rows
        .iter()
        .map(|row| {
            Ok(Disclosure {
                partner: row.try_get(0).hub()?,
                agreement: row.try_get(1).hub()?,
                at: row.try_get(2).hub()?,
                groups: row.try_get(3).hub()?,
                kind: row.try_get(4).hub()?,
                batch: row.try_get(5).hub()?,
                state: row.try_get(6).hub()?,
                file: row.try_get(7).hub()?,
            })
        })
        .collect::<Result<_, Error>>()?;
    Ok(Account { fps: fps.to_owned(), accesses: accesses(hub, &files, &since).await?, files, disclosures })
}

async fn accesses(hub: &Client, files: &[i64], since: &str) -> Result<Vec<Access>, Error> {
    // A request for a file names it; the answer to a query lists what was shown, and who asked stands in the query's row.
    let sql = "SELECT l.partner, l.entry ->> 'at', l.entry ->> 'officer', l.entry ->> 'purpose', l.entry ->> 'kind',
            l.entry ->> 'outcome'
         FROM liaison.access_log l
         WHERE (l.entry ->> 'at')::timestamptz >= $2::text::timestamptz
           AND ((l.entry -> 'request' ->> 'file') = ANY (SELECT f::text FROM unnest($1::bigint[]) f)
             OR jsonb_path_exists(l.entry, '$.files[*] ? (@ == $f[*])', jsonb_build_object('f', to_jsonb($1::bigint[]))))
         ORDER BY (l.entry ->> 'at')::timestamptz, l.partner, l.id";
    let rows = hub.query(sql, &[&files, &since]).await.hub()?;
    rows.iter()
        .map(|row| {
            Ok(Access {
                partner: row.try_get(0).hub()?,
                at: row.try_get(1).hub()?,
                officer: row.try_get(2).hub()?,
                purpose: row.try_get(3).hub()?,
                kind: row.try_get(4).hub()?,
                outcome: row.try_get(5).hub()?,
            })
        })
        .collect()
}

/// How a partner's replica stands to the hub's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Standing {
    /// It has them as the hub has them.
    Current,
    /// It has an older state of some.
    Behind,
    /// It no longer has the file.
    Withdrawn,
    /// There is no replica any more.
    Disposed,
}

/// A partner who must be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Notice {
    /// Whom.
    pub partner: String,
    /// When something about the person last crossed to it.
    pub last_disclosed: String,
    /// How its replica stands.
    pub replica: Standing,
    /// The last batch that wrote one of the records there, if it has any.
    pub batch: Option<i64>,
    /// When that batch was committed.
    pub at: Option<String>,
    /// Records that differ: table and number.
    pub differing: Vec<(String, i64)>,
}

/// Which record was corrected; all of the person's where absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Table of the catalogue.
    pub table: String,
    /// Number.
    pub id: i64,
}

type Hashes = BTreeMap<(String, i64), Vec<u8>>;

/// Who must be told of a correction: everyone to whom something of the person's crossed since `since` (two years before the
/// request, by the Act), of the record's group where one is named.
pub async fn corrections(
    hub: &Client,
    store: &Client,
    fps: &str,
    record: Option<&Record>,
    since: Timestamp,
) -> Result<Vec<Notice>, Error> {
    let group = match record {
        None => None,
        Some(record) => {
            let table = liaison_records::catalogue::table(&record.table);
            let known = liaison_records::catalogue::TABLES.iter().map(|t| t.name).collect::<Vec<_>>().join(", ");
            let unknown = || Error::Config(format!("--table '{}' must be one of {known}", record.table));
            Some(liaison_records::codes::Code::as_str(table.ok_or_else(unknown)?.group))
        }
    };
    let files = files(hub, fps).await?;
    let sql = format!(
        "SELECT e.partner, {} FROM liaison.ledger_entry e
         JOIN liaison.ledger_batch b ON b.partner = e.partner AND b.batch = e.batch
         WHERE e.offender = ANY ($1) AND b.state <> 'void' AND e.kind <> 'leave' AND b.at >= $2::text::timestamptz
           AND ($3::text IS NULL OR $3 = ANY (e.groups))
         GROUP BY e.partner ORDER BY e.partner",
        AT.replace("to_char(at", "to_char(max(b.at)")
    );
    let mut notices = Vec::new();
    for row in hub.query(&sql, &[&files, &since.to_string(), &group]).await.hub()? {
        let (partner, last_disclosed): (String, String) = (row.try_get(0).hub()?, row.try_get(1).hub()?);
        let name: PartnerName =
            partner.parse().map_err(|_| Error::Corrupt("the ledger names no partner".to_owned()))?;
        let Some(replica) = held(store, &name, &files, record).await? else {
            let replica = Standing::Disposed;
            notices.push(Notice { partner, last_disclosed, replica, batch: None, at: None, differing: Vec::new() });
            continue;
        };
        let wanted = at_hub(hub, &files, &replica.groups, record).await?;
        let keys: BTreeSet<_> = replica.hashes.keys().chain(wanted.keys()).collect();
        // A replica that holds nothing of the person at all follows a scope that does not cover the person.
        let withdrawn = !replica.holds;
        let differing: Vec<(String, i64)> = keys
            .into_iter()
            .filter(|key| !withdrawn && replica.hashes.get(*key) != wanted.get(*key))
            .cloned()
            .collect();
        let standing = match (withdrawn, differing.is_empty()) {
            (true, _) => Standing::Withdrawn,
            (false, true) => Standing::Current,
            (false, false) => Standing::Behind,
        };
        let at = match replica.batch {
            Some(batch) => hub
                .query_opt(
                    &format!("SELECT {AT} FROM liaison.ledger_batch WHERE partner = $1 AND batch = $2"),
                    &[&partner, &batch],
                )
                .await
                .hub()?
                .map(|row| row.try_get(0).hub())
                .transpose()?,
            None => None,
        };
        notices.push(Notice { partner, last_disclosed, replica: standing, batch: replica.batch, at, differing });
    }
    Ok(notices)
}

/// What a replica has of a person.
struct Held {
    groups: Vec<String>,
    hashes: Hashes,
    batch: Option<i64>,
    holds: bool,
}

async fn held(
    store: &Client,
    partner: &PartnerName,
    files: &[i64],
    record: Option<&Record>,
) -> Result<Option<Held>, Error> {
    let share = ident(&partner.share_schema());
    let there = store.query_one("SELECT to_regclass($1) IS NOT NULL", &[&format!("{share}.cursor")]).await.store()?;
    if !there.try_get::<_, bool>(0).store()? {
        return Ok(None);
    }
    let groups: Vec<String> =
        store.query_one(&format!("SELECT groups FROM {share}.cursor"), &[]).await.store()?.try_get(0).store()?;
    let sql = format!("SELECT tbl, id, hash, batch FROM {share}.record WHERE offender = ANY ($1)");
    let rows = store.query(&sql, &[&files]).await.store()?;
    let mut found = Held { groups, hashes: BTreeMap::new(), batch: None, holds: !rows.is_empty() };
    for row in &rows {
        let key: (String, i64) = (row.try_get(0).store()?, row.try_get(1).store()?);
        if record.is_some_and(|r| (r.table.as_str(), r.id) != (key.0.as_str(), key.1)) {
            continue;
        }
        found.hashes.insert(key, row.try_get(2).store()?);
        found.batch = found.batch.max(Some(row.try_get(3).store()?));
    }
    Ok(Some(found))
}

async fn at_hub(hub: &Client, files: &[i64], groups: &[String], record: Option<&Record>) -> Result<Hashes, Error> {
    let rows = hub
        .query(
            "SELECT offender, grp, tbl, id, body::text FROM liaison.record WHERE offender = ANY ($1) AND grp = ANY ($2)",
            &[&files, &groups],
        )
        .await
        .hub()?;
    let mut hashes = BTreeMap::new();
    for row in &rows {
        let offender: Option<i64> = row.try_get(0).hub()?;
        let (group, table): (&str, &str) = (row.try_get(1).hub()?, row.try_get(2).hub()?);
        let (id, body): (i64, &str) = (row.try_get(3).hub()?, row.try_get(4).hub()?);
        if record.is_none_or(|r| (r.table.as_str(), r.id) == (table, id)) {
            hashes.insert((table.to_owned(), id), record_hash(group, table, id, offender, body).to_vec());
        }
    }
    Ok(hashes)
}
