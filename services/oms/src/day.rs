//! `liaison-oms day`: a day of the population: each kind of event in a transaction of its own, as many as a 365th of the
//! published flows of a year.

use std::collections::BTreeMap;

use clap::Args;
use jiff::{ToSpan as _, civil::Date};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::{
    actions::{Action, act},
    connect::PgDate,
    error::Error,
    model::Model,
};

/// Which day.
#[derive(Debug, Clone, Args)]
pub struct DayArgs {
    /// The same seed and date on the same population give the same day.
    #[arg(long, default_value_t = 1)]
    pub seed: u32,
    /// The day; the one after the last when absent.
    #[arg(long)]
    pub date: Option<Date>,
    /// Print the summary as one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Day {
    /// The day.
    pub date: Date,
    /// Events by kind.
    pub events: BTreeMap<&'static str, usize>,
}

/// A kind of event: how often a year in a population of 22,000, and whom it can happen to.
struct Kind {
    name: &'static str,
    yearly: f64,
    who: &'static str,
}

const ACTIVE: f64 = 22_000.0;

fn kinds(model: &Model) -> Result<Vec<Kind>, Error> {
    let flow = |entry: &str, below: &[&str]| model.data.number(&format!("flow_per_year/{entry}"), below);
    let released =
        flow("releases_from_institutions_and_graduations", &["2016-17", "releases_from_institutions_total"])?;
    let ended = flow("warrant_expiry_total", &["count"])?;
    let suspended = flow("suspensions", &["count"])?;
    let cancelled = model.data.number("status/suspension_outcome", &["cancelled"])?;
    let revoked = model.data.number("status/suspension_outcome", &["revoked_breach"])?;
    let suspended_here =
        "o.status IN ('Suspended', 'LtsSuspended') AND o.at_large = 'Apprehended' AND o.custody = 'Community'";
    let due = "o.custody = 'Incarcerated' AND o.warrant <> 'Outstanding' AND o.release_type IS NULL AND EXISTS (SELECT \
               FROM oms.sentence s WHERE s.offender = o.id AND s.state = 'Serving' AND s.statutory_release_on < $3 + 400)";
    let over = "o.custody = 'Community' AND o.status = 'Released' AND EXISTS (SELECT FROM oms.sentence s \
                WHERE s.offender = o.id AND s.state = 'Serving' AND s.warrant_expires_on < $3 + 120)";
    Ok(vec![
        Kind { name: "release", yearly: released, who: due },
        Kind {
            name: "suspend",
            yearly: suspended,
            who: "o.custody = 'Community' AND o.status IN ('Released', 'SuspensionCancelled')",
        },
        Kind { name: "apprehend", yearly: suspended, who: "o.custody = 'Community' AND o.warrant = 'Outstanding'" },
        // No flows are published for what follows but the outcomes of suspensions.
        Kind {
            name: "abscond",
            yearly: 900.0,
            who: "o.custody = 'Community' AND o.warrant = 'Outstanding' AND o.at_large = 'NotAtLarge'",
        },
        Kind { name: "cancel", yearly: suspended * cancelled, who: suspended_here },
        Kind { name: "revoke", yearly: suspended * revoked, who: suspended_here },
        Kind { name: "move", yearly: 1500.0, who: "o.custody = 'Community' AND o.status = 'Released'" },
        Kind { name: "correct", yearly: 2500.0, who: "true" },
        Kind { name: "withdraw", yearly: 400.0, who: "EXISTS (SELECT FROM oms.incident i WHERE i.offender = o.id)" },
        Kind { name: "end", yearly: ended, who: over },
        Kind { name: "seal", yearly: 300.0, who: "o.custody = 'Archived' AND o.status = 'WarrantExpired'" },
    ])
}

/// Plays one day.
pub async fn day(hub: &mut PgConnection, args: &DayArgs) -> Result<Day, Error> {
    let model = Model::new(u64::from(args.seed))?;
    let date = match args.date {
        Some(date) => date,
        None => next_day(hub).await?,
    };
    let active: i64 = sqlx::query_scalar("SELECT count(*) FROM oms.offender WHERE custody <> 'Archived'")
        .fetch_one(&mut *hub)
        .await?;
    let mut rng = ChaCha8Rng::seed_from_u64(u64::from(args.seed));
    rng.set_stream(u64::from(crate::rows::days(date).unsigned_abs()));
    let mut events = BTreeMap::new();
    for kind in kinds(&model)? {
        #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "a count of a day")]
        let count = (kind.yearly / 365.0 * active as f64 / ACTIVE).ceil() as i64;
        let mut tx = hub.begin().await?;
        // A hash orders them: no two days or kinds choose alike, and nothing depends on the order on disk.
        let sql = format!(
            "SELECT o.id FROM oms.offender o WHERE ({}) AND o.sealed_on IS NULL AND $3::date IS NOT NULL ORDER BY md5(o.id || $1), o.id LIMIT $2",
            kind.who
        );
        let chosen: Vec<i64> = sqlx::query_scalar(AssertSqlSafe(sql))
            .bind(format!("{} {date} {}", args.seed, kind.name))
            .bind(count)
            .bind(PgDate(date))
            .fetch_all(&mut *tx)
            .await?;
        for offender in &chosen {
            let action = action(&model, kind.name, *offender, &mut rng, &mut tx).await?;
            act(&mut tx, &model.data, &action, date).await?;
        }
        tx.commit().await?;
        events.insert(kind.name, chosen.len());
    }
    sqlx::query("UPDATE oms.origin SET as_of = $1").bind(PgDate(date)).execute(&mut *hub).await?;
    Ok(Day { date, events })
}

/// The day after that of the extract, or after the last that was played.
pub async fn next_day(hub: &mut PgConnection) -> Result<Date, Error> {
    let last: Option<PgDate> = sqlx::query_scalar("SELECT as_of FROM oms.origin").fetch_optional(&mut *hub).await?;
    match last {
        Some(PgDate(date)) => Ok(date.checked_add(1.day())?),
        None => Err(Error::Config("--date must be given: this OMS was not generated".into())),
    }
}

async fn action(
    model: &Model,
    kind: &str,
    offender: i64,
    rng: &mut ChaCha8Rng,
    hub: &mut PgConnection,
) -> Result<Action, Error> {
    Ok(match kind {
        "release" => Action::Release { offender, municipality: Some(home(model, None, rng)) },
        "suspend" => Action::Suspend { offender },
        "apprehend" => Action::Apprehend { offender },
        "abscond" => Action::Abscond { offender },
        "cancel" => Action::Cancel { offender },
        "revoke" => Action::Revoke { offender },
        "move" => {
            let from: String = sqlx::query_scalar("SELECT jurisdiction FROM oms.offender WHERE id = $1")
                .bind(offender)
                .fetch_one(hub)
                .await?;
            Action::Move { offender, municipality: home(model, Some(&from), rng) }
        }
        "correct" => Action::Correct { offender, surname: None },
        "withdraw" => Action::Withdraw { offender },
        "seal" => Action::Seal { offender },
        _ => Action::End { offender },
    })
}

/// Where somebody goes to live: as the population in the community lives, but not in the province `other_than`.
fn home(model: &Model, other_than: Option<&str>, rng: &mut ChaCha8Rng) -> String {
    for _ in 0..100 {
        let region = model.community_region.at(rng.random()).copied().unwrap_or("Ontario");
        let jurisdiction =
            model.jurisdictions.get(region).and_then(|w| w.at(rng.random())).cloned().unwrap_or_default();
        let municipality = model.data.homes.get(&jurisdiction).and_then(|w| w.at(rng.random())).copied().unwrap_or(0);
        if other_than != Some(jurisdiction.as_str()) {
            return model.data.municipalities[municipality].csd_code.clone();
        }
    }
    // Ottawa, when chance is against every other place a hundred times.
    "3506008".to_owned()
}
