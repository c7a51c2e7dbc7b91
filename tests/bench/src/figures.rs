//! Figures, and the file that holds them: `target/bench/NAME.json`, one object a measure. A later run replaces the measures
//! that it made anew and leaves the others.

use std::fs;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::{Error, Result};

/// A figure that was taken several times.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// The least.
    pub minimum: f64,
    /// The middle one.
    pub median: f64,
    /// The most.
    pub maximum: f64,
    /// Of what.
    pub unit: String,
}

impl Figure {
    /// `None` of no values.
    pub fn of(values: &[f64], unit: &str) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (minimum, maximum) = (*sorted.first()?, *sorted.last()?);
        Some(Self { minimum, median: median(&sorted), maximum, unit: unit.to_owned() })
    }
}

/// Of values in ascending order; 0 of none.
pub fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    match sorted {
        [] => 0.0,
        _ if sorted.len() % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// The value below which the share `of` lies; 0 of none. `values` is sorted by it.
pub fn quantile(values: &mut [f64], of: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index"
    )]
    let index = ((values.len() as f64) * of) as usize;
    values.get(index.min(values.len().saturating_sub(1))).copied().unwrap_or(0.0)
}

/// What was compared, of one number of partners at one fan-out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measure {
    /// Which, beginning with its letter.
    pub name: String,
    /// Partners.
    pub n: usize,
    /// Scopes that each file is in.
    pub fanout: usize,
    /// Ours.
    pub liaison: Option<Figure>,
    /// PostgreSQL's native logical replication.
    pub native: Option<Figure>,
    /// How many times better Liaison is, by the medians; `None` where one side has no figure or is 0.
    pub ratio: Option<f64>,
    /// The native figure is not measured: linear from 50 and 200 partners.
    pub extrapolated: bool,
    /// The native figure is the lowest rate that was tried and did not hold, so it is less, and the ratio more.
    #[serde(default)]
    pub native_is_less: bool,
}

/// Whether more is better.
pub fn more_is_better(unit: &str) -> bool {
    unit == "tx/s" || unit == "files/s"
}

impl Measure {
    /// Works out the ratio.
    pub fn new(name: &str, n: usize, fanout: usize, liaison: Option<Figure>, native: Option<Figure>) -> Self {
        let mut measure = Self {
            name: name.to_owned(),
            n,
            fanout,
            liaison,
            native,
            ratio: None,
            extrapolated: false,
            native_is_less: false,
        };
        measure.compare();
        measure
    }

    /// The native side held no rate: `native` is the lowest that was tried.
    #[must_use]
    pub fn native_held_none(mut self) -> Self {
        self.native_is_less = true;
        self
    }

    fn compare(&mut self) {
        self.ratio = match (&self.liaison, &self.native) {
            (Some(ours), Some(theirs)) if ours.median > 0.0 && theirs.median > 0.0 => {
                let ratio = theirs.median / ours.median;
                Some(if more_is_better(&ours.unit) { 1.0 / ratio } else { ratio })
            }
            _ => None,
        };
    }
}

/// Where a benchmark's results stand.
pub fn path(name: &str) -> String {
    format!("target/bench/{name}.json")
}

/// What earlier runs left; nothing if there is none.
pub fn load<T: for<'a> Deserialize<'a>>(name: &str) -> Result<Vec<T>> {
    match fs::read_to_string(path(name)) {
        Ok(text) => Ok(serde_json::from_str(&text)?),
        Err(_) => Ok(Vec::new()),
    }
}

/// Writes results.
pub fn store<T: Serialize>(name: &str, all: &[T]) -> Result<()> {
    fs::create_dir_all("target/bench")?;
    fs::write(path(name), format!("{}\n", serde_json::to_string_pretty(all)?))?;
    Ok(())
}

/// Adds figures to those of `make bench-gateway`, or replaces those of the same name: name, value, unit, how often it was taken.
pub fn add(new: &[(String, f64, &str, usize)]) -> Result<()> {
    let mut all: Vec<Value> = load("gateway")?;
    for (name, value, unit, count) in new {
        println!("{name}: {value:.3} {unit}");
        all.retain(|old| old["name"] != **name);
        all.push(json!({"name": name, "value": value, "unit": unit, "count": count, "peer": null, "peer_name": null}));
    }
    all.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    store("gateway", &all)
}

/// Adds the middle, the 99th percentile and the most of so many times, which stand in `text`, in seconds, one a line.
pub fn times(name: &str, text: &str) -> Result<()> {
    let seconds: std::result::Result<Vec<f64>, _> = text.split_whitespace().map(str::parse).collect();
    let mut seconds = seconds.map_err(|error| Error::said(format!("not a number of seconds: {error}")))?;
    let count = seconds.len();
    let new = [("middle", 0.5), ("p99", 0.99), ("most", 1.0)]
        .map(|(what, of)| (format!("{name}, {what}"), quantile(&mut seconds, of), "s", count));
    add(&new)
}

/// Merges `new` into what is there, by name, n and fan-out; one side's absence leaves the earlier figure of that side.
pub fn merge(all: &mut Vec<Measure>, new: Measure) {
    let same = all.iter_mut().find(|m| m.name == new.name && m.n == new.n && m.fanout == new.fanout);
    match same {
        Some(old) => {
            old.liaison = new.liaison.or_else(|| old.liaison.take());
            if new.native.is_some() {
                old.native = new.native;
                old.extrapolated = new.extrapolated;
                old.native_is_less = new.native_is_less;
            }
            old.compare();
        }
        None => all.push(new),
    }
    all.sort_by(|a, b| (&a.name, a.fanout, a.n).cmp(&(&b.name, b.fanout, b.n)));
}

/// Fills in what the native side has not: linear in the number of partners from 50 and 200. A rate is extrapolated by its
/// inverse, the time that a transaction takes; one that did not hold at 200 holds at no more partners either. Correctness is
/// not extrapolated.
#[expect(clippy::cast_precision_loss, reason = "numbers of partners")]
pub fn extrapolate(all: &mut [Measure]) {
    let known: Vec<Measure> = all.iter().filter(|m| !m.extrapolated).cloned().collect();
    for measure in all.iter_mut().filter(|m| m.n > 200 && !m.name.starts_with('D') && !m.name.starts_with('E')) {
        if measure.native.is_some() && !measure.extrapolated {
            continue;
        }
        let at = |n: usize| {
            let found = known.iter().find(|m| m.name == measure.name && m.fanout == measure.fanout && m.n == n);
            found.and_then(|m| Some((m.native.clone()?, m.native_is_less)))
        };
        let (low, high) = match (at(50), at(200)) {
            (_, Some((high, true))) => {
                (measure.native, measure.native_is_less, measure.extrapolated) = (Some(high), true, true);
                measure.compare();
                continue;
            }
            (Some((low, _)), Some((high, _))) => (low, high),
            _ => continue,
        };
        let rate = more_is_better(&low.unit);
        let line = |low: f64, high: f64| {
            let (low, high) = if rate { (1.0 / low, 1.0 / high) } else { (low, high) };
            let there = high + (high - low) / 150.0 * (measure.n as f64 - 200.0);
            if rate { 1.0 / there } else { there }
        };
        // The lines through the ends may cross where the spread at 50 is the wider one.
        let ends = [low.minimum, low.median, low.maximum].into_iter().zip([high.minimum, high.median, high.maximum]);
        let ends: Vec<f64> = ends.map(|(low, high)| line(low, high)).collect();
        measure.native = Figure::of(&ends, &low.unit);
        (measure.extrapolated, measure.native_is_less) = (true, false);
        measure.compare();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(value: f64, wanted: f64) -> bool {
        (value - wanted).abs() < 1e-9
    }

    fn figure(values: &[f64], unit: &str) -> Option<Figure> {
        Figure::of(values, unit)
    }

    #[test]
    fn medians() {
        assert!(near(figure(&[3.0, 1.0, 2.0], "s").unwrap().median, 2.0));
        assert!(near(figure(&[4.0, 1.0, 2.0, 3.0], "s").unwrap().median, 2.5));
        assert_eq!(figure(&[], "s"), None);
        assert!(near(quantile(&mut [1.0, 2.0, 3.0, 4.0], 0.99), 4.0));
    }

    #[test]
    fn a_short_run_replaces_only_what_it_made() {
        let mut all = Vec::new();
        merge(&mut all, Measure::new("A", 13, 1, figure(&[2.0], "CPU-s"), figure(&[8.0], "CPU-s")));
        merge(&mut all, Measure::new("A", 50, 1, figure(&[2.0], "CPU-s"), None));
        merge(&mut all, Measure::new("A", 13, 1, figure(&[1.0], "CPU-s"), None));
        assert_eq!(all.len(), 2);
        assert!(all[0].ratio.is_some_and(|ratio| near(ratio, 8.0)));
    }

    #[test]
    fn the_native_side_is_linear_in_partners() {
        let mut all = vec![
            Measure::new("A", 50, 1, figure(&[1.0], "CPU-s"), figure(&[30.0], "CPU-s")),
            Measure::new("A", 200, 1, figure(&[1.0], "CPU-s"), figure(&[105.0], "CPU-s")),
            Measure::new("A", 1000, 1, figure(&[5.0], "CPU-s"), None),
            Measure::new("B", 50, 1, figure(&[1.0], "tx/s"), figure(&[100.0], "tx/s")),
            Measure::new("B", 200, 1, figure(&[1.0], "tx/s"), figure(&[25.0], "tx/s")),
            Measure::new("B", 1000, 1, figure(&[50.0], "tx/s"), None),
        ];
        extrapolate(&mut all);
        assert!(near(all[2].native.as_ref().unwrap().median, 505.0));
        assert!(all[2].ratio.is_some_and(|ratio| near(ratio, 101.0)) && all[2].extrapolated);
        assert!(near(all[5].native.as_ref().unwrap().median, 5.0));
        assert!(near(all[5].ratio.unwrap(), 10.0));
    }

    #[test]
    fn what_held_at_no_rate_is_less_than_the_lowest() {
        let held_none = Measure::new("B", 200, 1, figure(&[64.0], "tx/s"), figure(&[0.5], "tx/s")).native_held_none();
        let mut all = vec![Measure::new("B", 1000, 1, figure(&[40.0], "tx/s"), None)];
        merge(&mut all, held_none);
        extrapolate(&mut all);
        assert!(all.iter().all(|m| m.native_is_less && near(m.native.as_ref().unwrap().median, 0.5)));
        assert!(all.iter().map(|m| (m.n, m.ratio.unwrap())).all(|(n, r)| near(r, if n == 200 { 128.0 } else { 80.0 })));
        merge(&mut all, Measure::new("B", 200, 1, None, figure(&[2.0], "tx/s")));
        assert!(!all.iter().find(|m| m.n == 200).unwrap().native_is_less);
    }
}
