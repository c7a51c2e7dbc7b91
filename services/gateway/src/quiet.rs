//! How often the log may say one thing: a flood of refusals must not fill a disk. The metrics count every one.
//!
//! A bucket a partner and reason: the first few lines at once, then one each [`EVERY`], which says how many were not
//! written. Pure: time is a parameter.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Lines that are written at once.
pub const BURST: u32 = 5;
/// After those, one line each.
pub const EVERY: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: u32,
    filled: Instant,
    suppressed: u64,
}

impl Bucket {
    fn fill(&mut self, now: Instant) {
        while self.tokens < BURST && now.duration_since(self.filled) >= EVERY {
            self.tokens += 1;
            self.filled += EVERY;
        }
        if self.tokens == BURST {
            self.filled = now;
        }
    }
}

/// What the log has said of late. Partner and reason are from bounded sets.
#[derive(Debug, Default)]
pub struct Quiet(Mutex<HashMap<(String, &'static str), Bucket>>);

impl Quiet {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(String, &'static str), Bucket>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a line may be written now: how many were not since the last one.
    pub fn admit(&self, partner: &str, reason: &'static str, now: Instant) -> Option<u64> {
        let mut buckets = self.lock();
        let bucket =
            buckets.entry((partner.to_owned(), reason)).or_insert(Bucket { tokens: BURST, filled: now, suppressed: 0 });
        bucket.fill(now);
        if bucket.tokens == 0 {
            bucket.suppressed += 1;
            return None;
        }
        bucket.tokens -= 1;
        Some(std::mem::take(&mut bucket.suppressed))
    }

    /// What was not written and may be said by now: partner, reason, how many. Forgets what is long past.
    pub fn due(&self, now: Instant) -> Vec<(String, &'static str, u64)> {
        let mut due = Vec::new();
        self.lock().retain(|(partner, reason), bucket| {
            bucket.fill(now);
            if bucket.suppressed > 0 && bucket.tokens > 0 {
                bucket.tokens -= 1;
                due.push((partner.clone(), *reason, std::mem::take(&mut bucket.suppressed)));
            }
            bucket.tokens < BURST
        });
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_a_few_lines_that_account_for_all_of_it() {
        let (quiet, start) = (Quiet::default(), Instant::now());
        let (mut lines, mut accounted) = (0_u64, 0_u64);
        for n in 0..60_000_u64 {
            let now = start + Duration::from_millis(n);
            let said = quiet.admit("a", "wrong_source", now).into_iter();
            for suppressed in said.chain(quiet.due(now).into_iter().map(|(_, _, count)| count - 1)) {
                lines += 1;
                accounted += 1 + suppressed;
            }
        }
        let last = quiet.due(start + Duration::from_secs(70));
        assert_eq!(last.len(), 1);
        assert_eq!(accounted + last[0].2, 60_000);
        assert_eq!(lines, u64::from(BURST) + 5, "five at once, then one each ten seconds of a minute");
    }

    #[test]
    fn partners_and_reasons_do_not_silence_each_other() {
        let (quiet, now) = (Quiet::default(), Instant::now());
        for _ in 0..100 {
            quiet.admit("a", "timeout", now);
        }
        assert_eq!(quiet.admit("a", "timeout", now), None);
        assert_eq!(quiet.admit("b", "timeout", now), Some(0));
        assert_eq!(quiet.admit("a", "stale", now), Some(0));
    }

    #[test]
    fn what_is_long_past_is_forgotten() {
        let (quiet, start) = (Quiet::default(), Instant::now());
        for _ in 0..BURST + 2 {
            quiet.admit("a", "timeout", start);
        }
        assert_eq!(quiet.due(start), []);
        assert_eq!(quiet.due(start + EVERY), [("a".to_owned(), "timeout", 2)]);
        assert_eq!(quiet.due(start + EVERY * 2), [], "it is said once");
        quiet.due(start + EVERY * (BURST + 2));
        assert!(quiet.lock().is_empty());
    }
}
