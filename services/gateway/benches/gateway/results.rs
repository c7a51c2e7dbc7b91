//! Figures, and the file that holds them: `target/bench/gateway.json`, one object a measure.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// One figure.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Figure {
    /// What, beginning with its measure's letter.
    pub name: String,
    /// How much.
    pub value: f64,
    /// Of what.
    pub unit: String,
    /// How many times it was taken.
    pub count: usize,
    /// The same of what it is compared with, in the same run.
    pub peer: Option<f64>,
    /// What that is.
    pub peer_name: Option<String>,
}

/// All of them.
pub struct Results {
    path: PathBuf,
    all: Vec<Figure>,
}

impl Results {
    /// Those of earlier runs.
    pub fn load() -> Self {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/bench/gateway.json");
        let all = std::fs::read_to_string(&path).ok().and_then(|text| serde_json::from_str(&text).ok());
        Self { path, all: all.unwrap_or_default() }
    }

    /// Adds a figure, or replaces the one of the same name, and writes them all.
    pub fn add(&mut self, name: &str, value: f64, unit: &str, count: usize, peer: Option<(f64, &str)>) {
        let (peer, peer_name) = (peer.map(|(value, _)| value), peer.map(|(_, name)| name.to_owned()));
        let beside = peer_name.as_ref().map(|name| format!(" (beside {} of {name})", peer.unwrap_or_default()));
        println!("{name}: {value:.3} {unit}{}", beside.unwrap_or_default());
        let figure = Figure { name: name.to_owned(), value, unit: unit.to_owned(), count, peer, peer_name };
        self.all.retain(|old| old.name != name);
        self.all.push(figure);
        self.all.sort_by(|a, b| a.name.cmp(&b.name));
        std::fs::create_dir_all(self.path.parent().unwrap()).unwrap();
        std::fs::write(&self.path, format!("{}\n", serde_json::to_string_pretty(&self.all).unwrap())).unwrap();
    }

    /// Middle, 99th percentile and most of some times.
    pub fn times(&mut self, name: &str, seconds: &[f64]) {
        let mut sorted = seconds.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |share: usize| sorted[(sorted.len() * share / 100).min(sorted.len() - 1)];
        for (what, value) in [("middle", at(50)), ("p99", at(99)), ("most", at(100))] {
            self.add(&format!("{name}, {what}"), value, "s", sorted.len(), None);
        }
    }
}
