//! Where partners were last heard from, kept for the process that comes after this one.
//!
//! A partner notices after fifteen seconds that the gateway has forgotten its session. A gateway that knows where its partners
//! were shakes hands with them itself, so they need not notice. What is kept is no more than that: which key, at which address.
//! It is used once, for a peer that has not been heard yet; where a partner that roams is now is said by its own packets alone.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use crate::state::WireGuardKey;

/// At most once in this time is it written.
const PERIOD: Duration = Duration::from_secs(1);
/// Name of the file.
const FILE: &str = "endpoints.json";

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Kept {
    endpoints: BTreeMap<String, SocketAddr>,
}

/// What the process before left, and what this one leaves.
#[derive(Debug, Default)]
pub struct Checkpoint {
    directory: Option<PathBuf>,
    before: BTreeMap<WireGuardKey, SocketAddr>,
    written: BTreeMap<WireGuardKey, SocketAddr>,
    at: Option<Instant>,
}

impl Checkpoint {
    /// Reads what there is in a directory; what cannot be read is nothing. Without a directory nothing is kept.
    pub fn load(directory: Option<&Path>) -> Self {
        let text = directory.and_then(|directory| std::fs::read(directory.join(FILE)).ok());
        let kept: Kept = text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        let before = kept.endpoints.iter().filter_map(|(key, at)| Some((WireGuardKey::parse(key)?, *at)));
        let before: BTreeMap<_, _> = before.collect();
        Self { directory: directory.map(Path::to_owned), written: before.clone(), before, at: None }
    }

    /// Where a key was heard by the process before, once.
    pub fn take(&mut self, key: WireGuardKey) -> Option<SocketAddr> {
        self.before.remove(&key)
    }

    /// Keeps where the keys that hold an address are now, if it differs from what was kept. `holders`: each with the address
    /// from which it was heard, if it was; one that has not been heard yet stays where it was, since this process may be
    /// killed as well.
    pub async fn keep(&mut self, holders: &[(WireGuardKey, Option<SocketAddr>)], now: Instant) -> io::Result<()> {
        let Some(directory) = &self.directory else { return Ok(()) };
        let current: BTreeMap<WireGuardKey, SocketAddr> = holders
            .iter()
            .filter_map(|(key, heard)| Some((*key, heard.or_else(|| self.written.get(key).copied())?)))
            .collect();
        if current == self.written || self.at.is_some_and(|at| now.duration_since(at) < PERIOD) {
            return Ok(());
        }
        self.at = Some(now);
        let endpoints = current.iter().map(|(key, at)| (STANDARD.encode(key.0), *at)).collect();
        let text = serde_json::to_vec(&Kept { endpoints })?;
        // Whole or not at all: it may be killed in the middle of it.
        let (file, new) = (directory.join(FILE), directory.join(format!("{FILE}.new")));
        tokio::fs::write(&new, text).await?;
        tokio::fs::rename(new, file).await?;
        self.written = current;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_next_process_knows_and_so_does_the_one_after_it() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = Some(directory.path());
        let (one, two) = (WireGuardKey([1; 32]), WireGuardKey([2; 32]));
        let at: SocketAddr = "192.0.2.1:51820".parse().unwrap();
        let start = Instant::now();
        let later = |seconds| start + Duration::from_secs(seconds);

        let mut first = Checkpoint::load(path);
        assert_eq!(first.take(one), None);
        first.keep(&[(one, Some(at)), (two, None)], start).await.unwrap();

        // Killed before anybody was heard again.
        for _ in 0..2 {
            let mut next = Checkpoint::load(path);
            assert_eq!((next.take(one), next.take(two)), (Some(at), None));
            assert_eq!(next.take(one), None, "once");
            next.keep(&[(one, None), (two, None)], later(2)).await.unwrap();
        }

        // It has moved; and is gone.
        let moved = "[2001:db8::1]:7".parse().unwrap();
        first.keep(&[(one, Some(moved))], start).await.unwrap();
        assert_eq!(Checkpoint::load(path).take(one), Some(at), "not twice in a second");
        first.keep(&[(one, Some(moved))], later(3)).await.unwrap();
        assert_eq!(Checkpoint::load(path).take(one), Some(moved));
        first.keep(&[], later(6)).await.unwrap();
        assert_eq!(Checkpoint::load(path).take(one), None);

        std::fs::write(directory.path().join(FILE), "no JSON").unwrap();
        assert_eq!(Checkpoint::load(path).take(one), None);
        assert!(Checkpoint::load(None).keep(&[(one, Some(at))], start).await.is_ok());
    }
}
