//! A steady load on a source with its replicas following: latencies of the source, and how far the replicas lag.

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, Instant},
};

use jiff::Timestamp;

use crate::{
    cluster::Cluster,
    error::{Error, Result},
    figures::{median, quantile},
    liaison::Sync,
    load::{Files, steady},
    native::Native,
    scopes::Set,
    worker::Order,
};

/// Who follows the source.
pub enum Follower<'a> {
    /// Nobody.
    None,
    /// Liaison's worker.
    Liaison(&'a mut Sync),
    /// The subscriptions of a set, which are enabled.
    Native(&'a Native, Set),
}

/// What was seen.
#[derive(Debug, Default)]
pub struct Live {
    /// The 99th percentile of the source's latencies, in seconds.
    pub p99: f64,
    /// Seconds by which the replica furthest behind was behind, once a second.
    pub lags: Vec<f64>,
    /// How long the load lasted, in seconds.
    pub seconds: f64,
}

/// A rate counts as sustained if the lag stays below a minute for so long, should it go on growing as it grew.
const SUSTAINED: f64 = 300.0;
const MOST_LAG: f64 = 60.0;

impl Live {
    /// The middle lag, in seconds.
    pub fn lag(&self) -> f64 {
        let mut lags = self.lags.clone();
        lags.sort_by(f64::total_cmp);
        median(&lags)
    }

    /// Whether the lag stays under a minute.
    pub fn sustained(&self) -> bool {
        let (early, late) = self.lags.split_at(self.lags.len() / 2);
        let floor = |lags: &[f64]| lags.iter().copied().fold(f64::MAX, f64::min);
        let (Some(last), false) = (self.lags.last(), early.is_empty()) else { return true };
        // A lag goes up and down within a cycle: its floor shows whether it grows.
        let growth = ((floor(late) - floor(early)) / (self.seconds / 2.0)).max(0.0);
        last + growth * (SUSTAINED - self.seconds).max(0.0) < MOST_LAG
    }
}

/// Runs `per_second` transactions a second for `seconds`.
pub async fn live(
    source: &Cluster,
    files: &Files,
    seed: u64,
    per_second: f64,
    seconds: f64,
    mut follower: Follower<'_>,
    dead: &BTreeSet<usize>,
) -> Result<Live> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of transactions")]
    let count = (per_second * seconds).ceil() as usize;
    let load = files.load(seed, count.max(1));
    let url = source.url("postgres", "oms");
    let watch = source.client("oms").await?;
    if let Follower::Liaison(sync) = &mut follower {
        sync.order(&Order::Serve).await?;
    }
    let begun = Instant::now();
    let task = tokio::spawn(async move { steady(&url, &load.transactions, per_second).await });
    let mut watched = Live::default();
    let mut positions: Vec<(Instant, i64)> = Vec::new();
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    tick.tick().await;
    loop {
        tick.tick().await;
        let ended = task.is_finished();
        match &mut follower {
            Follower::None => {}
            Follower::Liaison(sync) => {
                let standing = sync.order(&Order::Standing).await?;
                let oldest = standing.exact_at.get(dead.len()).copied().unwrap_or(0);
                #[expect(clippy::cast_precision_loss, reason = "milliseconds")]
                watched.lags.push(((Timestamp::now().as_millisecond() - oldest) as f64 / 1000.0).max(0.0));
                if !ended {
                    sync.order(&Order::Serve).await?;
                }
            }
            Follower::Native(native, set) => {
                let (current, flushed) = native.positions(&watch, *set, dead).await?;
                positions.push((Instant::now(), current));
                let behind = positions.iter().rev().find(|(_, then)| *then <= flushed);
                let since = behind.map_or(begun, |(when, _)| *when);
                watched.lags.push(if flushed >= current { 0.0 } else { since.elapsed().as_secs_f64() });
            }
        }
        if ended {
            break;
        }
    }
    watched.seconds = begun.elapsed().as_secs_f64();
    let mut latencies = task.await.map_err(|e| Error::said(e.to_string()))??;
    watched.p99 = quantile(&mut latencies, 0.99);
    Ok(watched)
}

/// Latencies of the source alone, by rate.
#[derive(Debug, Default)]
pub struct Alone(HashMap<usize, f64>);

/// The rates that are tried: each the square root of two times the one before.
pub fn rate(rung: usize) -> f64 {
    0.625 * 2f64.powf(f64::from(u32::try_from(rung).unwrap_or(0)) / 2.0)
}

/// How long a rate is held: long enough that a 99th percentile means something. Of the lowest it is the slowest of about forty.
pub fn hold(rung: usize) -> f64 {
    (300.0 / rate(rung)).clamp(8.0, 60.0)
}

impl Alone {
    /// The 99th percentile of the source alone at a rate: the middle one of three.
    pub async fn p99(&mut self, source: &Cluster, files: &Files, seeds: [u64; 3], rung: usize) -> Result<f64> {
        if let Some(known) = self.0.get(&rung) {
            return Ok(*known);
        }
        let mut all = Vec::new();
        for seed in seeds {
            all.push(live(source, files, seed, rate(rung), hold(rung), Follower::None, &BTreeSet::new()).await?.p99);
        }
        let middle = quantile(&mut all, 0.5);
        self.0.insert(rung, middle);
        Ok(middle)
    }
}

/// A search for the highest rung that holds.
#[derive(Debug, Default)]
pub struct Search {
    /// The highest that held.
    pub held: Option<usize>,
    /// The lowest that did not.
    pub broke: Option<usize>,
}

impl Search {
    /// Which rung is tried next; `None` when two neighbours differ, or none is left below.
    pub fn next(&self, start: usize) -> Option<usize> {
        match (self.held, self.broke) {
            (None, None) => Some(start),
            (Some(held), None) => Some(held + 2),
            (None, Some(broke)) => broke.checked_sub(2).or(broke.checked_sub(1)),
            (Some(held), Some(broke)) if broke > held + 1 => Some(usize::midpoint(held, broke)),
            (Some(_), Some(_)) => None,
        }
    }

    /// What trying a rung has shown.
    pub fn note(&mut self, rung: usize, holds: bool) {
        *(if holds { &mut self.held } else { &mut self.broke }) = Some(rung);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_search_ends_between_two_neighbours() {
        for limit in 0..26 {
            let mut search = Search::default();
            while let Some(rung) = search.next(14) {
                search.note(rung, rung <= limit);
            }
            assert_eq!(search.held, Some(limit));
        }
    }

    #[test]
    fn a_lag_that_grows_is_not_sustained() {
        let live = |lags: Vec<f64>| Live { p99: 0.0, lags, seconds: 10.0 };
        assert!(live(vec![1.0, 2.0, 1.0, 2.0]).sustained());
        assert!(!live(vec![1.0, 2.0, 3.0, 4.0]).sustained());
        assert!(!live(vec![70.0, 70.0, 70.0, 70.0]).sustained());
    }
}
