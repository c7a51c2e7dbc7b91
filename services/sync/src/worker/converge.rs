//! Until all is exact: for Jobs and tests.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use liaison_records::names::PartnerName;

use super::{Worker, cycle::Pace};
use crate::{cursor::Point, partner::Held};

impl Worker {
    /// Rounds until every partner that may have records has all of them as of a snapshot taken after this call, or one has
    /// failed. For Jobs and tests.
    pub async fn converge(&mut self, now: Timestamp) -> Result<(), (PartnerName, &'static str, String)> {
        self.last = None;
        let mut fresh: HashSet<PartnerName> = HashSet::new();
        for state in self.partners.values_mut() {
            state.not_before = Instant::now();
            state.trouble = None;
        }
        // Only what a snapshot of this call showed counts, not what an earlier one did.
        let before: HashMap<PartnerName, Option<Point>> = self
            .partners
            .iter()
            .map(|(partner, state)| (partner.clone(), state.held.as_ref().and_then(|h| h.exact_at.clone())))
            .collect();
        loop {
            self.pace = Pace::default();
            match self.round(now).await {
                Ok(true) => {}
                Ok(false) => tokio::time::sleep(Duration::from_millis(5)).await,
                Err(error) => {
                    if let Some(partner) = self.partners.keys().next().cloned() {
                        return Err((partner, error.reason(), error.to_string()));
                    }
                }
            }
            while self.busy() {
                self.wait(Duration::from_secs(1)).await;
            }
            for (partner, standing) in self.standings(now) {
                if let Some((reason, message)) = standing.trouble {
                    return Err((partner, reason, message));
                }
                let held =
                    self.partners.get(&partner).filter(|s| !s.compare || s.terms.open(now).is_none()).and_then(|s| {
                        // A batch that was under way when the terms changed is exact, and follows the old ones.
                        let follows = |h: &Held| s.terms.open(now).is_none_or(|grant| h.follows(grant));
                        s.held.as_ref().filter(|h| h.told.as_ref() == Some(&s.terms) && follows(h))
                    });
                let Some(held) = held else { continue };
                let earlier = before.get(&partner).and_then(Option::as_ref);
                let later = held.exact_at.as_ref().is_some_and(|point| Some(point) != earlier);
                if !standing.open || (standing.complete && !standing.rebuilding && later) {
                    fresh.insert(partner);
                }
            }
            if fresh.len() == self.partners.len() {
                return Ok(());
            }
        }
    }
}
