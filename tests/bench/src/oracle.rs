//! Whether replicas are what they should be: plain SQL on both sides, compared row by row.

use std::collections::{BTreeSet, HashMap};

use liaison_records::codes::Code as _;
use tokio_postgres::Client;

use crate::{
    error::Result,
    liaison::Liaison,
    native::{Native, published},
    scopes::{GROUPS, Set, municipality},
};

/// What is not as it should be, over all replicas of a set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amiss {
    /// Rows with other content than the source's.
    pub wrong: usize,
    /// Rows that are not there.
    pub missing: usize,
    /// Rows that must not be there.
    pub extra: usize,
    /// Photographs without their bytes.
    pub blank: usize,
}

/// What a photograph's bytes are worth: their own SHA-256 is their name.
const INTACT: &str = "intact";

/// The rows that each municipality's files should have in a replica: key and digest.
struct Expected(HashMap<String, Vec<(String, String)>>);

impl Expected {
    async fn read(source: &Client, queries: &[String]) -> Result<Self> {
        let mut found: HashMap<String, Vec<(String, String)>> = HashMap::new();
        for query in queries {
            for row in source.query(query, &[]).await? {
                found.entry(row.get(0)).or_default().push((row.get(1), row.get(2)));
            }
        }
        Ok(Self(found))
    }

    /// Counts what `held` (key and digest, NULL for a photograph without bytes) has amiss for these codes.
    fn compare(&self, codes: &BTreeSet<usize>, held: &[tokio_postgres::Row], amiss: &mut Amiss) {
        let mut expected: HashMap<&str, &str> = HashMap::new();
        for code in codes {
            let rows = self.0.get(&municipality(*code)).map_or(&[][..], Vec::as_slice);
            expected.extend(rows.iter().map(|(key, digest)| (key.as_str(), digest.as_str())));
        }
        for row in held {
            let (key, digest): (&str, Option<&str>) = (row.get(0), row.get(1));
            match (expected.remove(key), digest) {
                (None, _) => amiss.extra += 1,
                (Some(_), None) => amiss.blank += 1,
                (Some(right), Some(digest)) => amiss.wrong += usize::from(right != digest),
            }
        }
        amiss.missing += expected.len();
    }
}

/// What a photograph that is here looks like.
fn picture(alias: &str) -> String {
    format!(
        "CASE WHEN {alias}.jpeg IS NOT NULL THEN CASE WHEN sha256({alias}.jpeg) = {alias}.sha256 THEN '{INTACT}' ELSE 'broken' END END"
    )
}

/// Liaison's replicas of a set, each partner allowed `codes`.
pub async fn liaison(side: &Liaison, set: Set, codes: &[BTreeSet<usize>]) -> Result<Amiss> {
    let groups: Vec<String> = GROUPS.iter().map(|g| format!("'{}'", g.as_str())).collect();
    let expected = Expected::read(
        &side.hub.client("oms").await?,
        &[
            format!(
                "SELECT o.municipality, r.tbl || '/' || r.id, md5(r.body::text)
                 FROM liaison.record r JOIN oms.offender o ON o.id = r.offender WHERE r.grp IN ({})",
                groups.join(", ")
            ),
            format!(
                "SELECT o.municipality, 'image/' || encode(p.sha256, 'hex'), '{INTACT}'
                 FROM oms.photograph p JOIN oms.offender o ON o.id = p.offender"
            ),
        ],
    )
    .await?;
    let store = side.store.client(&set.name()).await?;
    let mut amiss = Amiss::default();
    for (p, codes) in codes.iter().enumerate() {
        let share = format!("\"{}\"", set.partner(p)?.share_schema());
        let held = store
            .query(
                &format!(
                    "SELECT tbl || '/' || id, md5(body) FROM {share}.record
                     UNION ALL SELECT 'image/' || encode(i.sha256, 'hex'), {} FROM {share}.photograph i",
                    picture("i")
                ),
                &[],
            )
            .await?;
        expected.compare(codes, &held, &mut amiss);
    }
    Ok(amiss)
}

/// The native replicas of a set.
pub async fn native(side: &Native, set: Set, codes: &[BTreeSet<usize>]) -> Result<Amiss> {
    let rows: Vec<String> = published()
        .map(|(table, _)| {
            if table == "image" {
                format!("'image/' || encode(t.sha256, 'hex'), {} FROM oms.image t", picture("t"))
            } else {
                format!("'{table}/' || t.id, md5((t.*)::text) FROM oms.{table} t")
            }
        })
        .collect();
    let queries: Vec<String> = rows.iter().map(|rest| format!("SELECT t.municipality, {rest}")).collect();
    let expected = Expected::read(&side.publisher.client("oms").await?, &queries).await?;
    let held: Vec<String> = rows.iter().map(|rest| format!("SELECT {rest}")).collect();
    let held = held.join(" UNION ALL ");
    let mut amiss = Amiss::default();
    for (p, codes) in codes.iter().enumerate() {
        let replica = side.replica(set, p).await?;
        expected.compare(codes, &replica.query(&held, &[]).await?, &mut amiss);
    }
    Ok(amiss)
}
