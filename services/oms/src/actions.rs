//! What can happen to one file, each a few statements in the caller's transaction: releases, suspensions, warrants, moves,
//! corrections, ends of sentences. Each checks that it fits the file, and says what would.

use clap::Subcommand;
use jiff::civil::Date;
use sqlx::{AssertSqlSafe, PgConnection, Row as _, postgres::PgRow};

use crate::{connect::PgDate, data::Data, error::Error};

/// One thing that happens to one file.
#[derive(Debug, Clone, Subcommand)]
pub enum Action {
    /// From an institution to the community, on statutory release.
    Release {
        /// The file.
        #[arg(long)]
        offender: i64,
        /// Where to: a census subdivision; the file's last home when absent.
        #[arg(long)]
        municipality: Option<String>,
    },
    /// A release is suspended and a warrant is out.
    Suspend {
        /// The file.
        #[arg(long)]
        offender: i64,
    },
    /// Somebody under an outstanding warrant is unlawfully at large.
    Abscond {
        /// The file.
        #[arg(long)]
        offender: i64,
    },
    /// The outstanding warrant is executed.
    Apprehend {
        /// The file.
        #[arg(long)]
        offender: i64,
    },
    /// A suspension is cancelled.
    Cancel {
        /// The file.
        #[arg(long)]
        offender: i64,
    },
    /// A suspended release is revoked; back to an institution.
    Revoke {
        /// The file.
        #[arg(long)]
        offender: i64,
    },
    /// Supervision moves to another municipality, perhaps of another province.
    Move {
        /// The file.
        #[arg(long)]
        offender: i64,
        /// The census subdivision.
        #[arg(long)]
        municipality: String,
    },
    /// The surname was written wrongly; the old writing becomes an alias.
    Correct {
        /// The file.
        #[arg(long)]
        offender: i64,
        /// The surname; a hyphen and a letter are changed when absent.
        #[arg(long)]
        surname: Option<String>,
    },
    /// The latest incident report was filed under the wrong person, and is taken out.
    Withdraw {
        /// The file.
        #[arg(long)]
        offender: i64,
    },
    /// The sentence ends; the file is archived.
    End {
        /// The file.
        #[arg(long)]
        offender: i64,
    },
    /// The record of an archived file is sealed: kept separate and apart (Criminal Records Act 6(2)).
    Seal {
        /// The file.
        #[arg(long)]
        offender: i64,
    },
    /// A record is no longer sealed: its suspension was revoked or has ceased to have effect (Criminal Records Act 7, 7.2).
    Unseal {
        /// The file.
        #[arg(long)]
        offender: i64,
    },
}

/// What a file is before an action.
struct Before {
    custody: String,
    status: String,
    release: Option<String>,
    warrant: String,
    surname: String,
    given: String,
    jurisdiction: String,
    municipality: String,
    municipality_name: String,
    sealed: bool,
}

impl Action {
    /// The name, as counted in a day's summary.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Release { .. } => "release",
            Self::Suspend { .. } => "suspend",
            Self::Abscond { .. } => "abscond",
            Self::Apprehend { .. } => "apprehend",
            Self::Cancel { .. } => "cancel",
            Self::Revoke { .. } => "revoke",
            Self::Move { .. } => "move",
            Self::Correct { .. } => "correct",
            Self::Withdraw { .. } => "withdraw",
            Self::End { .. } => "end",
            Self::Seal { .. } => "seal",
            Self::Unseal { .. } => "unseal",
        }
    }

    /// The file.
    pub fn offender(&self) -> i64 {
        match self {
            Self::Release { offender, .. }
            | Self::Suspend { offender }
            | Self::Abscond { offender }
            | Self::Apprehend { offender }
            | Self::Cancel { offender }
            | Self::Revoke { offender }
            | Self::Move { offender, .. }
            | Self::Correct { offender, .. }
            | Self::Withdraw { offender }
            | Self::End { offender }
            | Self::Seal { offender }
            | Self::Unseal { offender } => *offender,
        }
    }
}

/// Does it, in the transaction that the connection is in.
#[allow(clippy::too_many_lines, reason = "one arm for each action")]
pub async fn act(hub: &mut PgConnection, data: &Data, action: &Action, on: Date) -> Result<(), Error> {
    let offender = action.offender();
    let before = before(hub, offender).await?;
    let refuse = |message: &str| Err(Error::Action { offender, message: message.to_owned() });
    let in_community = before.custody == "Community";
    if before.sealed && !matches!(action, Action::Unseal { .. }) {
        return refuse("must be unsealed first; nothing else happens to a sealed file");
    }
    match action {
        Action::Release { municipality, .. } => {
            if before.custody != "Incarcerated" || before.warrant == "Outstanding" {
                return refuse("must be Incarcerated without an outstanding warrant to be released");
            }
            let home = match municipality {
                Some(code) => code.clone(),
                None => last_home(hub, offender, &before).await?,
            };
            release(hub, data, offender, &home, on).await
        }
        Action::Suspend { .. } => {
            if !in_community || !matches!(before.status.as_str(), "Released" | "SuspensionCancelled") {
                return refuse("must be on conditional release to be suspended");
            }
            suspend(hub, offender, before.release.as_deref().unwrap_or("StatutoryRelease"), on).await
        }
        Action::Abscond { .. } => {
            if before.warrant != "Outstanding" {
                return refuse("must have an outstanding warrant to be unlawfully at large");
            }
            run(hub, "UPDATE oms.offender SET at_large = 'UnlawfullyAtLarge' WHERE id = $1", offender, on).await
        }
        Action::Apprehend { .. } => {
            if before.warrant != "Outstanding" {
                return refuse("must have an outstanding warrant to be apprehended");
            }
            run(
                hub,
                "UPDATE oms.offender SET at_large = 'Apprehended', warrant = 'Executed' WHERE id = $1",
                offender,
                on,
            )
            .await?;
            run(hub, "UPDATE oms.warrant SET state = 'Executed', executed_on = $2 WHERE offender = $1 AND state = 'Outstanding'", offender, on).await
        }
        Action::Cancel { .. } => {
            if !in_community || !matches!(before.status.as_str(), "Suspended" | "LtsSuspended") {
                return refuse("must be suspended for the suspension to be cancelled");
            }
            for sql in [
                "UPDATE oms.warrant SET state = 'Withdrawn', withdrawn_on = $2 WHERE offender = $1 AND state = 'Outstanding'",
                "UPDATE oms.suspension SET outcome = 'Cancelled', resolved_on = $2 WHERE offender = $1 AND outcome = 'Pending'",
                "UPDATE oms.release SET state = 'Active' WHERE offender = $1 AND state = 'Suspended'",
                "UPDATE oms.offender SET status = 'SuspensionCancelled', at_large = 'NotAtLarge', \
                 warrant = CASE warrant WHEN 'Outstanding' THEN 'Withdrawn' ELSE warrant END WHERE id = $1",
            ] {
                run(hub, sql, offender, on).await?;
            }
            Ok(())
        }
        Action::Revoke { .. } => {
            if !in_community
                || !matches!(before.status.as_str(), "Suspended" | "LtsSuspended")
                || before.warrant == "Outstanding"
            {
                return refuse("must be suspended and apprehended for the release to be revoked");
            }
            revoke(hub, offender, on).await
        }
        Action::Move { municipality, .. } => {
            if !in_community {
                return refuse("must be in the community for supervision to move");
            }
            moved(hub, data, offender, &before, municipality, on).await
        }
        Action::Correct { surname, .. } => {
            let surname = surname.clone().unwrap_or_else(|| corrected(&before.surname));
            let sql = format!(
                "INSERT INTO oms.alias (id, offender, kind, surname, given) SELECT {}, $1, 'Spelling', $2, $3",
                next_id("alias")
            );
            sqlx::query(AssertSqlSafe(sql))
                .bind(offender)
                .bind(&before.surname)
                .bind(&before.given)
                .execute(&mut *hub)
                .await?;
            sqlx::query("UPDATE oms.offender SET surname = $2 WHERE id = $1")
                .bind(offender)
                .bind(surname)
                .execute(hub)
                .await?;
            Ok(())
        }
        Action::Withdraw { .. } => {
            let sql = "DELETE FROM oms.incident WHERE id = \
                       (SELECT id FROM oms.incident WHERE offender = $1 ORDER BY occurred_at DESC, id DESC LIMIT 1)";
            run(hub, sql, offender, on).await
        }
        Action::End { .. } => {
            if before.custody == "Archived" {
                return refuse("must be open; it is archived already");
            }
            end(hub, offender, on).await
        }
        Action::Seal { .. } => {
            if before.custody != "Archived" {
                return refuse(
                    "must be archived to be sealed: a record is suspended years after the sentence has ended",
                );
            }
            run(hub, "UPDATE oms.offender SET sealed_on = $2 WHERE id = $1", offender, on).await
        }
        Action::Unseal { .. } => {
            if !before.sealed {
                return refuse("must be sealed to be unsealed");
            }
            run(hub, "UPDATE oms.offender SET sealed_on = NULL WHERE id = $1", offender, on).await
        }
    }
}

async fn before(hub: &mut PgConnection, offender: i64) -> Result<Before, Error> {
    let row: Option<PgRow> =
        sqlx::query("SELECT * FROM oms.offender WHERE id = $1 FOR UPDATE").bind(offender).fetch_optional(hub).await?;
    let Some(row) = row else {
        return Err(Error::Action { offender, message: "there is no such file".to_owned() });
    };
    Ok(Before {
        custody: row.try_get("custody")?,
        status: row.try_get("status")?,
        release: row.try_get("release_type")?,
        warrant: row.try_get("warrant")?,
        surname: row.try_get("surname")?,
        given: row.try_get("given")?,
        jurisdiction: row.try_get("jurisdiction")?,
        municipality: row.try_get("municipality")?,
        municipality_name: row.try_get("municipality_name")?,
        sealed: row.try_get::<Option<PgDate>, _>("sealed_on")?.is_some(),
    })
}

/// Runs a statement with the file as `$1` and the day as `$2`, where it has one.
async fn run(hub: &mut PgConnection, sql: &'static str, offender: i64, on: Date) -> Result<(), Error> {
    let query = sqlx::query(sql).bind(offender);
    let query = if sql.contains("$2") { query.bind(PgDate(on)) } else { query };
    query.execute(hub).await?;
    Ok(())
}

/// A free id of a table, beyond those of all files.
fn next_id(table: &str) -> String {
    format!("(SELECT coalesce(max(id), 0) + 1 FROM oms.{table})")
}

/// Where somebody in an institution was to be released to: the last release, else where the institution is.
async fn last_home(hub: &mut PgConnection, offender: i64, before: &Before) -> Result<String, Error> {
    let last: Option<String> = sqlx::query_scalar(
        "SELECT municipality FROM oms.release WHERE offender = $1 ORDER BY started_on DESC, id DESC LIMIT 1",
    )
    .bind(offender)
    .fetch_optional(hub)
    .await?;
    Ok(last.unwrap_or_else(|| before.municipality.clone()))
}

fn place<'a>(data: &'a Data, offender: i64, code: &str) -> Result<&'a crate::data::Municipality, Error> {
    data.municipality(code).ok_or_else(|| Error::Action {
        offender,
        message: format!("municipality must be a census subdivision of data/municipalities.csv, not {code}"),
    })
}

async fn release(hub: &mut PgConnection, data: &Data, offender: i64, home: &str, on: Date) -> Result<(), Error> {
    let home = place(data, offender, home)?;
    sqlx::query(
        "UPDATE oms.offender SET custody = 'Community', status = 'Released', release_type = 'StatutoryRelease', \
         at_large = 'NotAtLarge', warrant = 'NoWarrant', jurisdiction = $2, municipality = $3, municipality_name = $4 WHERE id = $1",
    )
    .bind(offender)
    .bind(&home.jurisdiction)
    .bind(&home.csd_code)
    .bind(&home.name_en)
    .execute(&mut *hub)
    .await?;
    let sql = format!(
        "INSERT INTO oms.release (id, offender, kind, state, authority, started_on, ends_on, residency, municipality, municipality_name) \
         SELECT {}, $1, 'StatutoryRelease', 'Active', 'Statute', $2, \
         (SELECT max(warrant_expires_on) FROM oms.sentence WHERE offender = $1), false, $3, $4",
        next_id("release")
    );
    sqlx::query(AssertSqlSafe(sql))
        .bind(offender)
        .bind(PgDate(on))
        .bind(&home.csd_code)
        .bind(&home.name_en)
        .execute(&mut *hub)
        .await?;
    let sql = format!(
        "INSERT INTO oms.condition (id, offender, kind, topic, text_en, text_fr, release_kind, authority, imposed_on) \
         SELECT {}, $1, 'Standard', 'Report', 'Report to the parole supervisor as instructed', \
         'Se présenter au surveillant selon ses directives', 'StatutoryRelease', 'Statute', $2",
        next_id("condition")
    );
    sqlx::query(AssertSqlSafe(sql)).bind(offender).bind(PgDate(on)).execute(&mut *hub).await?;
    supervise(hub, offender, home, on).await?;
    movement(hub, offender, "Release", &home.name_en, on).await
}

/// Supervision from `on` by an officer of the nearest parole office.
async fn supervise(
    hub: &mut PgConnection,
    offender: i64,
    home: &crate::data::Municipality,
    on: Date,
) -> Result<(), Error> {
    run(hub, "UPDATE oms.supervision SET ended_on = $2 WHERE offender = $1 AND ended_on IS NULL", offender, on).await?;
    let sql = format!(
        "INSERT INTO oms.supervision (id, offender, kind, level, started_on, officer, officer_name, officer_telephone, office, \
         office_name, office_name_fr, residence_kind, municipality, municipality_name) \
         SELECT {}, $1, 'Community', 'B', $2, p.id, p.name, p.telephone, o.id, o.name_en, o.name_fr, 'Private', $3, $4 \
         FROM oms.office o JOIN oms.parole_officer p ON p.office = o.id \
         WHERE o.kind = 'ParoleOffice' \
         ORDER BY o.jurisdiction <> $5, abs(o.municipality::int - $3::int), (p.id + $1) % 17, p.id LIMIT 1",
        next_id("supervision")
    );
    sqlx::query(AssertSqlSafe(sql))
        .bind(offender)
        .bind(PgDate(on))
        .bind(&home.csd_code)
        .bind(&home.name_en)
        .bind(&home.jurisdiction)
        .execute(hub)
        .await?;
    Ok(())
}

async fn movement(hub: &mut PgConnection, offender: i64, kind: &str, to: &str, on: Date) -> Result<(), Error> {
    let sql = format!(
        "INSERT INTO oms.movement (id, offender, moved_at, kind, to_place, to_place_fr) \
         SELECT {}, $1, ($2::date + time '15:00') AT TIME ZONE 'UTC', $3, $4, $4",
        next_id("movement")
    );
    sqlx::query(AssertSqlSafe(sql)).bind(offender).bind(PgDate(on)).bind(kind).bind(to).execute(hub).await?;
    Ok(())
}

async fn suspend(hub: &mut PgConnection, offender: i64, release: &str, on: Date) -> Result<(), Error> {
    let long_term = release == "LongTermSupervision";
    let (status, section, warrant) = if long_term {
        ("LtsSuspended", "135.1", "LongTermSupervision")
    } else {
        ("Suspended", "135(1)", "Suspension")
    };
    sqlx::query("UPDATE oms.offender SET status = $2, warrant = 'Outstanding' WHERE id = $1")
        .bind(offender)
        .bind(status)
        .execute(&mut *hub)
        .await?;
    run(hub, "UPDATE oms.release SET state = 'Suspended' WHERE offender = $1 AND state = 'Active'", offender, on)
        .await?;
    let sql = format!(
        "INSERT INTO oms.suspension (id, offender, release_kind, suspended_on, reason, section, outcome) \
         SELECT {}, $1, $3, $2, 'Breach', $4, 'Pending'",
        next_id("suspension")
    );
    sqlx::query(AssertSqlSafe(sql))
        .bind(offender)
        .bind(PgDate(on))
        .bind(release)
        .bind(section)
        .execute(&mut *hub)
        .await?;
    let sql = format!(
        "INSERT INTO oms.warrant (id, offender, number, kind, state, section, issued_by, issued_on, extent) \
         SELECT n.id, $1, 'W' || extract(year FROM $2::date) || '-' || n.id, $3, 'Outstanding', $4, 'DesignatedPosition', $2, 'Canada' \
         FROM (SELECT {} AS id) n",
        next_id("warrant")
    );
    sqlx::query(AssertSqlSafe(sql)).bind(offender).bind(PgDate(on)).bind(warrant).bind(section).execute(hub).await?;
    Ok(())
}

async fn revoke(hub: &mut PgConnection, offender: i64, on: Date) -> Result<(), Error> {
    // Back to the institution of the last security decision.
    let institution: Option<PgRow> = sqlx::query(
        "SELECT i.* FROM oms.security_level s JOIN oms.institution i ON i.id = s.institution \
         WHERE s.offender = $1 ORDER BY s.decided_on DESC, s.id DESC LIMIT 1",
    )
    .bind(offender)
    .fetch_optional(&mut *hub)
    .await?;
    let Some(institution) = institution else {
        return Err(Error::Action {
            offender,
            message: "has no security level, so no institution to return to".into(),
        });
    };
    for sql in [
        "UPDATE oms.suspension SET outcome = 'Revoked', resolved_on = $2 WHERE offender = $1 AND outcome = 'Pending'",
        "UPDATE oms.release SET state = 'Revoked', ended_on = $2 WHERE offender = $1 AND state IN ('Active', 'Suspended')",
        "UPDATE oms.supervision SET ended_on = $2 WHERE offender = $1 AND ended_on IS NULL",
        "UPDATE oms.condition SET ends_on = $2 WHERE offender = $1 AND (ends_on IS NULL OR ends_on > $2)",
    ] {
        run(hub, sql, offender, on).await?;
    }
    sqlx::query(
        "UPDATE oms.offender SET custody = 'Incarcerated', status = 'Revoked', release_type = NULL, at_large = 'Apprehended', \
         jurisdiction = $2, municipality = $3, municipality_name = $4 WHERE id = $1",
    )
    .bind(offender)
    .bind(institution.try_get::<String, _>("jurisdiction")?)
    .bind(institution.try_get::<String, _>("municipality")?)
    .bind(institution.try_get::<String, _>("municipality_name")?)
    .execute(&mut *hub)
    .await?;
    movement(hub, offender, "Return", institution.try_get("name_en")?, on).await
}

async fn moved(
    hub: &mut PgConnection,
    data: &Data,
    offender: i64,
    before: &Before,
    municipality: &str,
    on: Date,
) -> Result<(), Error> {
    let home = place(data, offender, municipality)?;
    sqlx::query("UPDATE oms.offender SET jurisdiction = $2, municipality = $3, municipality_name = $4 WHERE id = $1")
        .bind(offender)
        .bind(&home.jurisdiction)
        .bind(&home.csd_code)
        .bind(&home.name_en)
        .execute(&mut *hub)
        .await?;
    supervise(hub, offender, home, on).await?;
    movement(hub, offender, "SupervisionTransfer", &home.name_en, on).await?;
    tracing::debug!(
        from = before.jurisdiction,
        to = home.jurisdiction,
        left = before.municipality_name,
        "supervision moved"
    );
    Ok(())
}

async fn end(hub: &mut PgConnection, offender: i64, on: Date) -> Result<(), Error> {
    for sql in [
        "UPDATE oms.sentence SET state = 'Expired', ended_on = $2 WHERE offender = $1 AND state = 'Serving'",
        "UPDATE oms.release SET state = 'Completed', ended_on = $2 WHERE offender = $1 AND state IN ('Active', 'Suspended')",
        "UPDATE oms.suspension SET outcome = 'Inoperative', resolved_on = $2 WHERE offender = $1 AND outcome = 'Pending'",
        "UPDATE oms.supervision SET ended_on = $2 WHERE offender = $1 AND ended_on IS NULL",
        "UPDATE oms.warrant SET state = 'Withdrawn', withdrawn_on = $2 WHERE offender = $1 AND state = 'Outstanding'",
        "UPDATE oms.offender SET custody = 'Archived', status = 'WarrantExpired', release_type = NULL, at_large = 'NotAtLarge', \
         warrant = CASE warrant WHEN 'Outstanding' THEN 'Withdrawn' ELSE warrant END WHERE id = $1",
    ] {
        run(hub, sql, offender, on).await?;
    }
    movement(hub, offender, "SentenceEnd", "", on).await
}

/// A plausible other writing of a surname: a hyphen for a space and the reverse, else the last letter doubled.
fn corrected(surname: &str) -> String {
    if surname.contains('-') {
        surname.replace('-', " ")
    } else if surname.contains(' ') {
        surname.replace(' ', "-")
    } else {
        surname.chars().last().map_or_else(String::new, |last| format!("{surname}{last}"))
    }
}
