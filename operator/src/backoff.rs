//! Exponential backoff for each object: one that fails waits longer each time, the others do not.

use std::{collections::HashMap, sync::Mutex, time::Duration};

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_mins(2);

/// Failures in a row, by object name.
#[derive(Debug, Default)]
pub struct Backoff(Mutex<HashMap<String, u32>>);

impl Backoff {
    /// How long to wait after another failure of this object.
    pub fn failed(&self, name: &str) -> Duration {
        let Ok(mut counts) = self.0.lock() else { return LONGEST };
        let count = counts.entry(name.to_owned()).or_default();
        *count = count.saturating_add(1);
        FIRST.saturating_mul(1 << (*count - 1).min(16)).min(LONGEST)
    }

    /// Forgets the failures of this object.
    pub fn succeeded(&self, name: &str) {
        if let Ok(mut counts) = self.0.lock() {
            counts.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_a_bound_and_starts_again() {
        let backoff = Backoff::default();
        let waits: Vec<u64> = (0..9).map(|_| backoff.failed("a").as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 120, 120]);
        assert_eq!(backoff.failed("b").as_secs(), 1);
        backoff.succeeded("a");
        assert_eq!(backoff.failed("a").as_secs(), 1);
    }
}
