//! What the source's own users do: many small transactions, about two row changes each, over a few connections. The same
//! statements, with the same parameters, on every server that is compared.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use futures::try_join;
use rand::{RngExt as _, SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;
use tokio::task::JoinSet;
use tokio_postgres::{Client, NoTls, Statement, types::ToSql};

use crate::{
    error::{Error, Result},
    scopes::{CODES, municipality},
};

/// Connections of the load; a file's transactions all go over the same.
const CONNECTIONS: usize = 8;
/// Of a hundred transactions so many move a file to another municipality,
const MOVES: u32 = 2;
/// issue a warrant,
const WARRANTS: u32 = 10;
/// or visit a file that was visited before.
const AGAIN: u32 = 10;

/// A file, and a row of it in each table that the load changes.
#[derive(Debug, Clone, Copy)]
struct File {
    id: i64,
    sentence: Option<i64>,
    condition: Option<i64>,
    mark: Option<i64>,
}

/// Every file.
#[derive(Debug)]
pub struct Files(Vec<File>);

/// One transaction: the file's own row, and one other.
#[derive(Debug, Clone)]
pub struct Transaction {
    file: i64,
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    Move(String),
    Warrant(i64),
    Condition(i64),
    Sentence(i64),
    Mark(i64, String),
    Alone,
}

/// A load, and what it touches.
#[derive(Debug)]
pub struct Load {
    /// In the order in which they are begun.
    pub transactions: Vec<Transaction>,
    /// Row changes.
    pub changes: usize,
    /// Distinct rows that they touch.
    pub distinct: usize,
}

impl Files {
    /// Reads them.
    pub async fn read(client: &Client) -> Result<Self> {
        let mut first: Vec<HashMap<i64, i64>> = Vec::new();
        for table in ["sentence", "condition", "mark"] {
            let rows = client.query(&format!("SELECT offender, min(id) FROM oms.{table} GROUP BY 1"), &[]).await?;
            first.push(rows.iter().map(|row| (row.get(0), row.get(1))).collect());
        }
        let rows = client.query("SELECT id FROM oms.offender ORDER BY id", &[]).await?;
        let child = |table: usize, id: i64| first.get(table).and_then(|rows| rows.get(&id)).copied();
        let file = |id: i64| File { id, sentence: child(0, id), condition: child(1, id), mark: child(2, id) };
        Ok(Self(rows.iter().map(|row| file(row.get(0))).collect()))
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Draws `count` transactions; another `seed`, another load.
    pub fn load(&self, seed: u64, count: usize) -> Load {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut order: Vec<&File> = self.0.iter().collect();
        order.shuffle(&mut rng);
        let mut load = Load { transactions: Vec::with_capacity(count), changes: 0, distinct: 0 };
        let mut touched: HashSet<(u8, i64)> = HashSet::new();
        let mut next = 0;
        for number in 0..count {
            let again = next > 0 && rng.random_range(0..100) < AGAIN;
            let index = if again { rng.random_range(0..next) } else { next };
            next += usize::from(!again);
            let Some(file) = order.get(index % order.len().max(1)) else { break };
            let what = what(file, &mut rng, seed, number);
            touched.insert((0, file.id));
            let other = match &what {
                What::Warrant(id) => Some((1, *id)),
                What::Condition(id) => Some((2, *id)),
                What::Sentence(id) => Some((3, *id)),
                What::Mark(id, _) => Some((4, *id)),
                What::Move(_) | What::Alone => None,
            };
            load.changes += 1 + usize::from(other.is_some());
            touched.extend(other);
            load.transactions.push(Transaction { file: file.id, what });
        }
        load.distinct = touched.len();
        load
    }
}

fn what(file: &File, rng: &mut ChaCha8Rng, seed: u64, number: usize) -> What {
    let kind = rng.random_range(0..100);
    if kind < MOVES {
        return What::Move(municipality(rng.random_range(0..CODES)));
    }
    if kind < MOVES + WARRANTS {
        // Above every number that the generator gives, and never the same twice.
        let number = i64::try_from(number).unwrap_or(0);
        return What::Warrant(i64::try_from(seed).unwrap_or(0) * 10_000_000_000 + 1_000_000_000 + number);
    }
    let mut choices = Vec::new();
    choices.extend(file.condition.map(What::Condition));
    choices.extend(file.sentence.map(What::Sentence));
    choices.extend(file.mark.map(|id| What::Mark(id, format!("seen again, note {seed}/{number}"))));
    if choices.is_empty() {
        return What::Alone;
    }
    let index = rng.random_range(0..choices.len());
    choices.swap_remove(index)
}

/// A connection, and its prepared statements.
struct Writer {
    client: Client,
    file: Statement,
    wanted: Statement,
    moved: Statement,
    warrant: Statement,
    condition: Statement,
    sentence: Statement,
    mark: Statement,
}

impl Writer {
    async fn open(url: &str) -> Result<Self> {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        tokio::spawn(connection);
        let heavier = "weight_kg = coalesce(weight_kg, 80) % 150 + 40";
        Ok(Self {
            file: client.prepare(&format!("UPDATE oms.offender SET {heavier} WHERE id = $1")).await?,
            wanted: client
                .prepare(&format!("UPDATE oms.offender SET {heavier}, warrant = 'Outstanding' WHERE id = $1"))
                .await?,
            moved: client.prepare("UPDATE oms.offender SET municipality = $2 WHERE id = $1").await?,
            warrant: client
                .prepare(
                    "INSERT INTO oms.warrant (id, offender, number, kind, state, section, issued_by, issued_on, extent)
                     VALUES ($1, $2, 'W-' || $1::bigint, 'Suspension', 'Outstanding', '135', 'ParoleBoard', '2026-11-02', 'Canada')",
                )
                .await?,
            condition: client
                .prepare("UPDATE oms.condition SET ends_on = coalesce(ends_on, '2027-01-01') + 1 WHERE id = $1")
                .await?,
            sentence: client
                .prepare(
                    "UPDATE oms.sentence SET warrant_expires_on = coalesce(warrant_expires_on, '2030-01-01') + 1 WHERE id = $1",
                )
                .await?,
            mark: client.prepare("UPDATE oms.mark SET detail = $2 WHERE id = $1").await?,
            client,
        })
    }

    /// One transaction in one round trip.
    async fn write(&self, transaction: &Transaction) -> Result<()> {
        let Self { client, file, wanted, moved, warrant, condition, sentence, mark } = self;
        let id = &transaction.file;
        let (first, second): (Step<'_>, Option<Step<'_>>) = match &transaction.what {
            What::Move(to) => ((moved, vec![id, to]), None),
            What::Alone => ((file, vec![id]), None),
            What::Warrant(key) => ((wanted, vec![id]), Some((warrant, vec![key, id]))),
            What::Condition(key) => ((file, vec![id]), Some((condition, vec![key]))),
            What::Sentence(key) => ((file, vec![id]), Some((sentence, vec![key]))),
            What::Mark(key, text) => ((file, vec![id]), Some((mark, vec![key, text]))),
        };
        let (begin, commit) = (client.batch_execute("BEGIN"), client.batch_execute("COMMIT"));
        let own = client.execute(first.0, &first.1);
        match &second {
            None => try_join!(begin, own, commit).map(drop)?,
            Some((statement, values)) => try_join!(begin, own, client.execute(*statement, values), commit).map(drop)?,
        }
        Ok(())
    }
}

/// A statement and its parameters.
type Step<'a> = (&'a Statement, Vec<&'a (dyn ToSql + Sync)>);

/// The transactions of each connection, each with its number.
fn shares(transactions: &[Transaction], connections: usize) -> Vec<Vec<(usize, Transaction)>> {
    let mut shares = vec![Vec::new(); connections];
    for (number, transaction) in transactions.iter().enumerate() {
        let lane = usize::try_from(transaction.file).unwrap_or(0) % connections;
        shares[lane].push((number, transaction.clone()));
    }
    shares
}

/// Commits them all as fast as the server takes them.
pub async fn flood(url: &str, transactions: &[Transaction]) -> Result<Duration> {
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for share in shares(transactions, CONNECTIONS) {
        let url = url.to_owned();
        tasks.spawn(async move {
            let writer = Writer::open(&url).await?;
            for (_, transaction) in &share {
                writer.write(transaction).await?;
            }
            Ok::<_, Error>(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(|e| Error::said(e.to_string()))??;
    }
    Ok(begun.elapsed())
}

/// Commits them at a fixed rate, whatever the server does (an open loop). The latencies are in seconds, each from the moment
/// at which the transaction was due, or at which its connection woke for it.
pub async fn steady(url: &str, transactions: &[Transaction], per_second: f64) -> Result<Vec<f64>> {
    let connections = CONNECTIONS * 2;
    let mut writers = Vec::new();
    for _ in 0..connections {
        writers.push(Writer::open(url).await?);
    }
    let begun = tokio::time::Instant::now();
    let mut tasks = JoinSet::new();
    for (writer, share) in writers.into_iter().zip(shares(transactions, connections)) {
        tasks.spawn(async move {
            let mut latencies = Vec::with_capacity(share.len());
            for (number, transaction) in &share {
                #[expect(clippy::cast_precision_loss, reason = "a number of transactions")]
                let due = begun + Duration::from_secs_f64(*number as f64 / per_second);
                let mut from = due;
                if tokio::time::Instant::now() < due {
                    tokio::time::sleep_until(due).await;
                    // The timer's own coarseness is not the server's.
                    from = tokio::time::Instant::now();
                }
                writer.write(transaction).await?;
                latencies.push(from.elapsed().as_secs_f64());
            }
            Ok::<_, Error>(latencies)
        });
    }
    let mut all = Vec::with_capacity(transactions.len());
    while let Some(ended) = tasks.join_next().await {
        all.extend(ended.map_err(|e| Error::said(e.to_string()))??);
    }
    Ok(all)
}
