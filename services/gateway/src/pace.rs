//! How fast the connections of one partner may carry bytes, all together.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use liaison_records::names::PartnerName;

/// A bucket that fills at the limit's rate up to one second's worth. What is carried is taken out afterwards, so it may be in
/// debt; until that is paid off nothing is carried. Pure.
#[derive(Debug)]
pub struct Bucket {
    rate: f64,
    level: f64,
    at: Instant,
}

impl Bucket {
    /// A full one; `rate` in bytes a second, more than 0.
    pub fn new(rate: u32, now: Instant) -> Self {
        Self { rate: f64::from(rate), level: f64::from(rate), at: now }
    }

    /// How long until something may be carried; `None`: it may now.
    pub fn wait(&mut self, now: Instant) -> Option<Duration> {
        let elapsed = now.saturating_duration_since(self.at);
        self.level = elapsed.as_secs_f64().mul_add(self.rate, self.level).min(self.rate);
        self.at = now;
        // A little later than to the byte, so that it is worth the waking.
        (self.level <= 0.0).then(|| Duration::from_secs_f64(-self.level / self.rate) + Duration::from_millis(5))
    }

    /// Takes out what was carried.
    pub fn carried(&mut self, bytes: usize) {
        self.level -= f64::from(u32::try_from(bytes).unwrap_or(u32::MAX));
    }
}

/// A bucket that several connections share.
#[derive(Debug, Clone)]
pub struct Shared(Arc<Mutex<Bucket>>);

impl Shared {
    /// The bucket.
    pub fn lock(&self) -> MutexGuard<'_, Bucket> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The partners' buckets.
#[derive(Debug)]
pub struct Paces {
    rate: u32,
    partners: Mutex<HashMap<PartnerName, Shared>>,
}

impl Paces {
    /// With a limit in bytes a second; 0: none.
    pub fn new(rate: u32) -> Self {
        Self { rate, partners: Mutex::default() }
    }

    /// A partner's bucket. It outlives the connections, so that a new one brings no new second's worth.
    pub fn of(&self, partner: &PartnerName, now: Instant) -> Option<Shared> {
        let mut all = self.partners.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || Shared(Arc::new(Mutex::new(Bucket::new(self.rate, now))));
        (self.rate > 0).then(|| all.entry(partner.clone()).or_insert_with(fresh).clone())
    }

    /// Drops the bucket of a partner that is gone.
    pub fn forget(&self, partner: &PartnerName) {
        self.partners.lock().unwrap_or_else(PoisonError::into_inner).remove(partner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_at_once_and_then_the_rate() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut bucket = Bucket::new(1000, start);
        assert_eq!(bucket.wait(start), None);
        bucket.carried(1500);
        let wait = bucket.wait(start).unwrap();
        assert!((500..520).contains(&wait.as_millis()), "{wait:?}");
        assert!(bucket.wait(at(400)).is_some());
        assert_eq!(bucket.wait(at(501)), None);
        bucket.carried(1001);
        assert!(bucket.wait(at(1400)).is_some());
        // A long silence saves up no more than a second's worth.
        assert_eq!(bucket.wait(at(60_000)), None);
        bucket.carried(2000);
        assert!(bucket.wait(at(60_900)).is_some());
        assert_eq!(bucket.wait(at(61_001)), None);
    }

    #[test]
    fn a_partner_has_one_bucket_whatever_it_opens() {
        let now = Instant::now();
        let (a, b): (PartnerName, PartnerName) = ("a".parse().unwrap(), "b".parse().unwrap());
        let paces = Paces::new(1000);
        paces.of(&a, now).unwrap().lock().carried(5000);
        assert!(paces.of(&a, now).unwrap().lock().wait(now).is_some());
        assert_eq!(paces.of(&b, now).unwrap().lock().wait(now), None);
        assert!(Paces::new(0).of(&a, now).is_none());
    }
}
