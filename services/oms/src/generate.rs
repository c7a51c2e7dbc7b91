//! `liaison-oms generate`: fills OMS with the synthetic population, in one transaction of few big COPY statements.

use std::time::{Duration, Instant};

use clap::Args;
use futures::StreamExt as _;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::civil::Date;
use liaison_records::{catalogue::TABLES, codes::Custody};
use serde::Serialize;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

use crate::{bulk, error::Error, file::Maker, model::Model, reference::reference, rows::Rows};

/// What to generate.
#[derive(Debug, Clone, Args)]
pub struct GenerateArgs {
    /// The same seed, counts and date give the same population.
    #[arg(long, default_value_t = 1)]
    pub seed: u32,
    /// Files of people in an institution.
    #[arg(long, default_value_t = 13_000)]
    pub active_incarcerated: u32,
    /// Files of people in the community.
    #[arg(long, default_value_t = 9_000)]
    pub community: u32,
    /// Closed files.
    #[arg(long, default_value_t = 125_000)]
    pub archived: u32,
    /// The date of the extract; no clock is read.
    #[arg(long, default_value = "2026-11-01")]
    pub as_of: Date,
    /// Throw away what OMS holds.
    #[arg(long)]
    pub replace: bool,
    /// Print the figures as one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// What was done.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Generated {
    /// Offender files written; 0 when they were there already.
    pub files: u64,
    /// Rows of all tables, images not counted.
    pub records: u64,
    /// Photographs.
    pub images: u64,
    /// Bytes sent by COPY.
    pub bytes: u64,
    /// Wall time in seconds.
    pub seconds: f64,
    /// Files a second.
    pub files_per_second: f64,
    /// Whether the same population was there already and was left alone.
    pub already_there: bool,
}

/// Files in one COPY of a table: bounds what is held in memory (about 20 MB of photographs a chunk).
const CHUNK: i64 = 1000;
/// Chunks made ahead of the one that is being sent.
const AHEAD: usize = 3;

impl GenerateArgs {
    fn total(&self) -> i64 {
        i64::from(self.active_incarcerated) + i64::from(self.community) + i64::from(self.archived)
    }

    /// Files are numbered: in institutions first, then in the community, then archived.
    fn custody(&self, id: i64) -> Custody {
        if id <= i64::from(self.active_incarcerated) {
            Custody::Incarcerated
        } else if id <= i64::from(self.active_incarcerated) + i64::from(self.community) {
            Custody::Community
        } else {
            Custody::Archived
        }
    }

    fn chunk(&self, model: &Model, first: i64) -> Result<Rows, Error> {
        let maker = Maker { model, seed: u64::from(self.seed), as_of: self.as_of };
        let mut rows = Rows::default();
        for id in first..(first + CHUNK).min(self.total() + 1) {
            maker.file(id, self.custody(id), &mut rows)?;
        }
        Ok(rows)
    }
}

/// Fills OMS, or finds that the same population is there. All or nothing: one transaction.
pub async fn generate(hub: &mut PgConnection, args: &GenerateArgs) -> Result<Generated, Error> {
    let begun = Instant::now();
    let files: i64 = sqlx::query_scalar("SELECT count(*) FROM (SELECT FROM oms.offender LIMIT 1000000) o")
        .fetch_one(&mut *hub)
        .await?;
    if files > 0 && !args.replace {
        let same: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM oms.origin WHERE seed = $1 AND incarcerated = $2 AND community = $3 AND archived = $4)",
        )
        .bind(i64::from(args.seed))
        .bind(to_i32(args.active_incarcerated))
        .bind(to_i32(args.community))
        .bind(to_i32(args.archived))
        .fetch_one(&mut *hub)
        .await?;
        if same {
            return Ok(Generated {
                files: 0,
                records: 0,
                images: 0,
                bytes: 0,
                seconds: begun.elapsed().as_secs_f64(),
                files_per_second: 0.0,
                already_there: true,
            });
        }
        return Err(Error::NotEmpty(files));
    }
    let model = std::sync::Arc::new(Model::new(u64::from(args.seed))?);
    let mut done = Generated {
        files: 0,
        records: 0,
        images: 0,
        bytes: 0,
        seconds: 0.0,
        files_per_second: 0.0,
        already_there: false,
    };
    let progress = Progress::new(args.total().unsigned_abs());
    let mut tx = hub.begin().await?;
    // TRUNCATE first, also when OMS is empty: the change log then says "everything" once a table, not once a row.
    tx.execute(AssertSqlSafe(format!("TRUNCATE {}, oms.image, oms.origin", all_tables()))).await?;
    let keys = bulk::put_aside(&mut tx).await?;
    let mut references = Rows::default();
    reference(&model, u64::from(args.seed), &mut references);
    send(&mut tx, references, &mut done).await?;
    let starts: Vec<i64> = (1..=args.total()).step_by(usize::try_from(CHUNK).unwrap_or(1000)).collect();
    let mut chunks = futures::stream::iter(starts)
        .map(|first| {
            let (args, model) = (args.clone(), model.clone());
            tokio::task::spawn_blocking(move || args.chunk(&model, first))
        })
        .buffered(AHEAD);
    while let Some(rows) = chunks.next().await {
        let rows = rows.map_err(|e| Error::Worker(e.to_string()))??;
        send(&mut tx, rows, &mut done).await?;
        progress.at(done.files);
    }
    bulk::restore(&mut tx, keys).await?;
    sqlx::query(
        "INSERT INTO oms.origin (seed, incarcerated, community, archived, as_of) VALUES ($1, $2, $3, $4, $5::date)",
    )
    .bind(i64::from(args.seed))
    .bind(to_i32(args.active_incarcerated))
    .bind(to_i32(args.community))
    .bind(to_i32(args.archived))
    .bind(crate::connect::PgDate(args.as_of))
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    progress.finish();
    // The planner knows nothing yet of what came in.
    hub.execute(AssertSqlSafe(format!("ANALYZE {}", all_tables()))).await?;
    done.seconds = begun.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    {
        done.files_per_second = done.files as f64 / done.seconds;
    }
    Ok(done)
}

async fn send(hub: &mut PgConnection, rows: Rows, done: &mut Generated) -> Result<(), Error> {
    done.files += rows.files;
    for (sql, bytes, count) in rows.copies() {
        done.bytes += bytes.len() as u64;
        if sql.starts_with("COPY oms.image ") {
            done.images += count;
        } else {
            done.records += count;
        }
        let mut copy = hub.copy_in_raw(&sql).await?;
        // PostgreSQL takes messages of up to a gigabyte; smaller ones keep both ends busy.
        for part in bytes.chunks(256 * 1024) {
            copy.send(part).await?;
        }
        copy.finish().await?;
    }
    Ok(())
}

/// Every table of the catalogue, for TRUNCATE and ANALYZE.
pub(crate) fn all_tables() -> String {
    TABLES.iter().map(|t| format!("oms.{}", t.name)).collect::<Vec<_>>().join(", ")
}

fn to_i32(n: u32) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

/// A bar on a terminal, a line every few seconds elsewhere.
struct Progress {
    bar: ProgressBar,
    last: std::cell::Cell<Instant>,
    begun: Instant,
    total: u64,
}

impl Progress {
    fn new(total: u64) -> Self {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} files, {per_sec}, {eta} left") {
            bar.set_style(style);
        }
        Self { bar, last: std::cell::Cell::new(Instant::now()), begun: Instant::now(), total }
    }

    fn at(&self, files: u64) {
        self.bar.set_position(files);
        if self.bar.is_hidden() && self.last.get().elapsed() > Duration::from_secs(3) {
            self.last.set(Instant::now());
            let seconds = self.begun.elapsed().as_secs().max(1);
            tracing::info!(files, of = self.total, per_second = files / seconds, "generating");
        }
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
