//! The hub's change log where it is read from the write-ahead log: before a snapshot's changes are asked for, `liaison.change`
//! is brought up to that snapshot. Who captures by triggers needs nothing of this.

use tokio_postgres::{
    Client, Row,
    types::{ToSql, Type},
};

use crate::{
    connect::{Lanes, Target},
    cursor::Snapshot,
    error::{Error, Of},
};

/// Messages that are read at once.
const MOST: i32 = 1_000_000;

/// A connection of its own: what it brings is committed while the snapshot that asked for it is held.
#[derive(Debug)]
pub struct Wal {
    lanes: Lanes,
}

impl Wal {
    /// Not connected yet.
    pub fn new(hub: &Target) -> Self {
        Self { lanes: Lanes::new(hub.clone(), 1) }
    }

    /// Asks once `liaison.change` has everything that `snapshot` shows, which was committed before `upto`.
    ///
    /// # Errors
    ///
    /// [`Error::CaptureLost`] when the slot was gone, or is ahead of what was committed. Then a later snapshot shows that
    /// everything may have changed; none taken before this may be followed, whoever took it.
    pub async fn ask(
        &self,
        upto: &str,
        snapshot: &Snapshot,
        sql: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<Row>, Error> {
        self.lanes
            .over("", async |hub| match drain(hub, upto).await? {
                Some(marked) if !snapshot.sees(marked) => Err(Error::CaptureLost),
                _ => hub.query_typed(sql, parameters).await.hub(),
            })
            .await
    }
}

/// Who marked last that everything may have changed.
async fn drain(hub: &Client, upto: &str) -> Result<Option<u64>, Error> {
    loop {
        let row = hub
            .query_typed("SELECT liaison.wal_drain($1::pg_lsn, $2)", &[(&upto, Type::TEXT), (&MOST, Type::INT4)])
            .await
            .hub()?;
        let state: &str = row.first().map(|row| row.try_get(0).hub()).transpose()?.unwrap_or("");
        match state {
            "lost" => {
                tracing::warn!("the slot that the hub's changes are read from is gone, or ahead: all is compared");
                // The one lock that it waits for is another's transaction: with ours it excludes nobody.
                hub.batch_execute("SELECT liaison.wal_renew()").await.hub().map_err(|error| match error {
                    Error::HubBusy => Error::CaptureWaits,
                    other => other,
                })?;
                hub.batch_execute("SELECT liaison.wal_everything()").await.hub()?;
                return Err(Error::CaptureLost);
            }
            // The slot is where it was read to, but for a hub that is not migrated yet: its drain leaves that to this.
            "complete" => {
                let sql = "SELECT liaison.wal_release(), (SELECT to_jsonb(p) ->> 'marked' FROM liaison.wal_position p)";
                let row = hub.query_typed(sql, &[]).await.hub()?;
                let marked: Option<&str> = row.first().map_or(Ok(None), |row| row.try_get(1)).hub()?;
                let corrupt = |_| Error::Corrupt("liaison.wal_position cannot be read".into());
                return marked.map(|xid| xid.parse().map_err(corrupt)).transpose();
            }
            _ => hub.batch_execute("SELECT liaison.wal_release()").await.hub()?,
        }
    }
}
