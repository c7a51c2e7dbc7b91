//! By when a replica must be gone, and what holds it back: one row a partner on the hub, kept from the first day on, so that a
//! disposal needs neither the manifest nor the operator.

use jiff::{SignedDuration, Timestamp};
use liaison_crds::{PartnerConnection, SharingAgreement, acceptance::authorized_until};
use liaison_records::names::PartnerName;
use tokio_postgres::Client;

use crate::error::{Error, Of};

/// What the two resources say about a partner's replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// Whose.
    pub partner: PartnerName,
    /// What allows the copy; `None`: the agreement is missing, being deleted, or does not name the partner.
    pub authority: Option<Authority>,
    /// spec.legalHold.
    pub hold: bool,
}

/// An agreement, as far as the copy's end is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// Its name.
    pub agreement: String,
    /// Its reference.
    pub reference: String,
    /// Its legal basis.
    pub legal_basis: Vec<String>,
    /// The instant it ends.
    pub ends: Timestamp,
    /// Days that the copy may stay after it.
    pub days: i32,
}

impl Authority {
    /// When the copy must be gone.
    pub fn due(&self) -> Timestamp {
        after(self.ends, self.days)
    }
}

/// `days` after an instant.
pub fn after(from: Timestamp, days: i32) -> Timestamp {
    from.saturating_add(SignedDuration::from_hours(24 * i64::from(days))).unwrap_or(from)
}

impl Retention {
    /// Boils the two resources down; pure. A date that cannot be read authorizes nothing.
    pub fn of(partner: &PartnerName, connection: &PartnerConnection, agreement: Option<&SharingAgreement>) -> Self {
        let spec = &connection.spec;
        let agreement = agreement.filter(|a| {
            a.metadata.name.as_deref() == Some(spec.agreement_ref.name.as_str())
                && a.metadata.deletion_timestamp.is_none()
                && a.spec.parties.iter().any(|party| party == partner.as_str())
        });
        let authority = agreement.and_then(|a| {
            Some(Authority {
                agreement: spec.agreement_ref.name.clone(),
                reference: a.spec.reference.clone(),
                legal_basis: a.spec.legal_basis.clone(),
                ends: authorized_until(&a.spec.expiry_date, &spec.partner.time_zone).ok()?,
                days: a.spec.retention.disposal_days,
            })
        });
        Self { partner: partner.clone(), authority, hold: spec.legal_hold.unwrap_or(false) }
    }
}

/// Writes down what the resources say; nothing is written where it stands already. A renewed agreement lifts the date; one
/// that is gone starts its bound now. A replica that was kept after a deletion keeps its date: seeding it again lifts it.
pub async fn note(hub: &Client, store: &str, said: &[Retention], now: Timestamp) -> Result<(), Error> {
    for Retention { partner, authority, hold } in said {
        match authority {
            Some(authority) => {
                hub.execute(
                    "INSERT INTO liaison.disposal AS d
                        (partner, agreement, store, due, cause, reference, legal_basis, bound_days, manifest_hold)
                     VALUES ($1, $2, $3, $4::text::timestamptz, 'agreement', $5, $6, $7, $8)
                     ON CONFLICT (partner) DO UPDATE SET agreement = EXCLUDED.agreement, store = EXCLUDED.store,
                        due = EXCLUDED.due, reference = EXCLUDED.reference, legal_basis = EXCLUDED.legal_basis,
                        bound_days = EXCLUDED.bound_days, manifest_hold = EXCLUDED.manifest_hold,
                        disposed = CASE WHEN EXCLUDED.due > $9::text::timestamptz THEN NULL ELSE d.disposed END
                     WHERE d.cause = 'agreement' AND (d.agreement, d.store, d.due, d.reference, d.legal_basis, d.bound_days,
                            d.manifest_hold) IS DISTINCT FROM (EXCLUDED.agreement, EXCLUDED.store, EXCLUDED.due,
                            EXCLUDED.reference, EXCLUDED.legal_basis, EXCLUDED.bound_days, EXCLUDED.manifest_hold)",
                    &[
                        &partner.as_str(),
                        &authority.agreement,
                        &store,
                        &authority.due().to_string(),
                        &authority.reference,
                        &authority.legal_basis,
                        &authority.days,
                        hold,
                        &now.to_string(),
                    ],
                )
                .await
                .hub()?;
            }
            None => {
                hub.execute(
                    "UPDATE liaison.disposal d SET manifest_hold = $2,
                        due = least(d.due, $3::text::timestamptz + make_interval(days => d.bound_days))
                     WHERE partner = $1 AND disposed IS NULL AND (manifest_hold <> $2 OR (cause = 'agreement'
                        AND due > $3::text::timestamptz + make_interval(days => d.bound_days)))",
                    &[&partner.as_str(), hold, &now.to_string()],
                )
                .await
                .hub()?;
            }
        }
    }
    Ok(())
}

/// The days that a replica may stay, as they were last written down.
pub async fn bound_days(hub: &Client, partner: &PartnerName) -> Result<i32, Error> {
    let row = hub
        .query_opt("SELECT bound_days FROM liaison.disposal WHERE partner = $1", &[&partner.as_str()])
        .await
        .hub()?;
    row.map_or(Ok(0), |row| row.try_get(0).hub())
}

/// Writes down what spec.legalHold says, where there is anything to hold.
pub async fn note_hold(hub: &Client, partner: &PartnerName, hold: bool) -> Result<(), Error> {
    hub.execute(
        "UPDATE liaison.disposal SET manifest_hold = $2 WHERE partner = $1 AND manifest_hold <> $2",
        &[&partner.as_str(), &hold],
    )
    .await
    .hub()?;
    Ok(())
}

/// Sets or lifts the hub's own legal hold, which lasts with no manifest left.
pub async fn set_hold(hub: &Client, partner: &PartnerName, hold: bool) -> Result<(), Error> {
    let changed = hub
        .execute("UPDATE liaison.disposal SET hold = $2 WHERE partner = $1", &[&partner.as_str(), &hold])
        .await
        .hub()?;
    if changed == 0 {
        return Err(Error::Config(format!(
            "partner '{partner}' has no row in liaison.disposal: it never had a replica; see `liaison-sync disposal list`"
        )));
    }
    Ok(())
}

/// Whether a legal hold stands.
pub async fn is_held(hub: &Client, partner: &PartnerName) -> Result<bool, Error> {
    let row = hub
        .query_opt("SELECT hold OR manifest_hold FROM liaison.disposal WHERE partner = $1", &[&partner.as_str()])
        .await
        .hub()?;
    row.map_or(Ok(false), |row| row.try_get(0).hub())
}

/// A replica whose time has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// Whose.
    pub partner: PartnerName,
    /// The connection was deleted; else the agreement ended.
    pub deleted: bool,
}

/// The replicas in `store` that must be gone by now, but for those under a legal hold.
pub async fn due(hub: &Client, store: &str) -> Result<Vec<Due>, Error> {
    let rows = hub
        .query(
            "SELECT partner, cause = 'deletion' FROM liaison.disposal
             WHERE disposed IS NULL AND due <= clock_timestamp() AND NOT (hold OR manifest_hold) AND store = $1
             ORDER BY due, partner",
            &[&store],
        )
        .await
        .hub()?;
    rows.iter()
        .map(|row| {
            let name: String = row.try_get(0).hub()?;
            let partner = name.parse().map_err(|_| Error::Corrupt("liaison.disposal names no partner".to_owned()))?;
            Ok(Due { partner, deleted: row.try_get(1).hub()? })
        })
        .collect()
}

/// A row of the list that people read.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Listed {
    /// Whose.
    pub partner: String,
    /// Under which agreement.
    pub agreement: String,
    /// Where it stands.
    pub store: String,
    /// agreement or deletion.
    pub cause: String,
    /// By when it must be gone.
    pub due: Option<String>,
    /// Whether a legal hold stands, and whose: hub, manifest.
    pub hold: Vec<String>,
    /// When it was disposed of.
    pub disposed: Option<String>,
}

/// All replicas that there are or were, and by when they must be gone.
pub async fn list(hub: &Client) -> Result<Vec<Listed>, Error> {
    let instant = "to_char(x AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')";
    let sql = format!(
        "SELECT partner, agreement, store, cause, {}, array_remove(ARRAY[CASE WHEN hold THEN 'hub' END,
            CASE WHEN manifest_hold THEN 'manifest' END], NULL), {} FROM liaison.disposal ORDER BY partner",
        instant.replace('x', "due"),
        instant.replace('x', "disposed")
    );
    let rows = hub.query(&sql, &[]).await.hub()?;
    rows.iter()
        .map(|row| {
            Ok(Listed {
                partner: row.try_get(0).hub()?,
                agreement: row.try_get(1).hub()?,
                store: row.try_get(2).hub()?,
                cause: row.try_get(3).hub()?,
                due: row.try_get(4).hub()?,
                hold: row.try_get(5).hub()?,
                disposed: row.try_get(6).hub()?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_is_the_agreements_end_and_its_bound() {
        let authority = Authority {
            agreement: "bc-2003".into(),
            reference: "BC-2003".into(),
            legal_basis: vec![],
            ends: "2031-04-01T07:00:00Z".parse().unwrap(),
            days: 30,
        };
        assert_eq!(authority.due().to_string(), "2031-05-01T07:00:00Z");
        assert_eq!(after(authority.ends, 0), authority.ends);
    }
}
