//! What the gateway has seen revoked, and its word in status that nothing gets through any more. Pure.
//!
//! A revocation that was seen stays in force here when spec no longer says it: the keys that it met stay refused, by this
//! memory until the word is in status, and by status from then on. A word that status has lost, as after a restore of the cluster, is
//! said again.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use liaison_crds::{PartnerConnection, partner_connection::Acknowledgement, revocation::Floor};
use liaison_records::names::PartnerName;

use crate::authorise::Now;

/// How long until a word that did not get through is written again.
const RETRY: Duration = Duration::from_secs(10);

/// A revocation that status may not hold yet.
#[derive(Debug, Default, PartialEq)]
enum Word {
    #[default]
    Given,
    Owed,
    /// Written with this time; not read back yet.
    Said(Time),
}

#[derive(Debug, Default)]
struct Entry {
    generation: Option<i64>,
    /// What spec says now.
    revoked: bool,
    /// That everything is revoked.
    word: Word,
    /// The generation that asked for this word.
    asked: Option<i64>,
    /// A `notBefore` that is not in status yet.
    owed_not_before: Option<Timestamp>,
    /// What this process has seen revoked.
    floor: Floor,
    /// What status has from this gateway.
    written: Acknowledgement,
    tried: Option<Instant>,
}

/// The memory of one gateway, by partner.
#[derive(Debug)]
pub struct Acknowledgements {
    name: String,
    partners: BTreeMap<PartnerName, Entry>,
}

impl Acknowledgements {
    /// Of the gateway of this name, which is the same after a restart.
    pub fn new(name: String) -> Self {
        Self { name, partners: BTreeMap::new() }
    }

    /// Takes an object in; returns what this gateway remembers to have revoked.
    pub fn observe(&mut self, partner: &PartnerName, object: &PartnerConnection, now: Timestamp) -> Floor {
        let first = !self.partners.contains_key(partner);
        let entry = self.partners.entry(partner.clone()).or_default();
        let mut gateways = object.status.iter().flat_map(|status| &status.gateways);
        let now_written = gateways.find(|word| word.name == self.name).cloned().unwrap_or_default();
        let lost = std::mem::replace(&mut entry.written, now_written);
        if let Some(at) = lost.revoked_at.filter(|at| entry.written.revoked_at.as_ref() < Some(at)) {
            entry.word = Word::Said(at);
        }
        if lost.not_before.is_some() && entry.written.not_before.is_none() {
            entry.owed_not_before = lost.not_before.map(|at| at.0);
        }
        entry.generation = object.metadata.generation;
        let asked = object.spec.revocation.clone().unwrap_or_default();

        // The shard's other process may have given it, or a later one: said again, it would meet the keys that came since.
        let given =
            entry.written.revoked_at.is_some() && entry.asked.is_some() && entry.written.generation >= entry.asked;
        let read_back = matches!(&entry.word, Word::Said(at) if entry.written.revoked_at.as_ref() == Some(at));
        if given || read_back {
            entry.word = Word::Given;
        }
        // After a restart it may be the one that was acknowledged before; that word stands while nobody touches spec.
        let known = first && entry.written.revoked_at.is_some() && entry.written.generation == entry.generation;
        if asked.revoked && !entry.revoked && !known {
            entry.word = Word::Owed;
            entry.asked = entry.generation;
            entry.floor = entry.floor.max(Floor::revoked_at(now));
        }
        entry.revoked = asked.revoked;

        if let Some(at) = asked.not_before.map(|at| at.0).filter(|at| Some(*at) != entry.owed_not_before) {
            let said = match (&entry.written.not_before, &entry.written.not_before_at) {
                (Some(asked), Some(at)) => Floor::not_before(asked.0, at.0),
                _ => Floor::default(),
            };
            let new = Floor::not_before(at, now);
            if entry.written.not_before != Some(Time(at)) && new > said {
                entry.owed_not_before = Some(at);
                entry.floor = entry.floor.max(new);
            }
        }
        if entry.written.not_before == entry.owed_not_before.map(Time) {
            entry.owed_not_before = None;
        }
        entry.floor
    }

    /// Drops what is known of a partner whose object is gone.
    pub fn forget(&mut self, partner: &PartnerName) {
        self.partners.remove(partner);
    }

    /// Partners of whom a word is owed.
    pub fn owed(&self) -> Vec<PartnerName> {
        let owed = self.partners.iter().filter(|(_, e)| e.word != Word::Given || e.owed_not_before.is_some());
        owed.map(|(name, _)| name.clone()).collect()
    }

    /// The word to write, now that nothing that was revoked gets through; none if one was tried just now.
    pub fn due(&mut self, partner: &PartnerName, now: Now) -> Option<Acknowledgement> {
        let entry = self.partners.get_mut(partner)?;
        if entry.tried.is_some_and(|tried| now.mono.duration_since(tried) < RETRY) {
            return None;
        }
        entry.tried = Some(now.mono);
        // To the second, as status holds it; and never back, whatever a clock says.
        let at = Time(Timestamp::from_second(now.wall.as_second()).unwrap_or(now.wall));
        // The key in use has a field manager of its own.
        let mut word = Acknowledgement { name: self.name.clone(), key_in_use: None, ..entry.written.clone() };
        if entry.word == Word::Owed {
            entry.word = Word::Said(word.revoked_at.clone().map_or_else(|| at.clone(), |said| said.max(at.clone())));
        }
        if let Word::Said(at) = &entry.word {
            word.revoked_at = Some(at.clone());
            word.generation = entry.generation;
        }
        if let Some(asked) = entry.owed_not_before {
            word.not_before_at = Some(at).max(word.not_before_at);
            word.not_before = Some(Time(asked));
        }
        Some(word)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    struct Api {
        gateway: Acknowledgements,
        object: Value,
        start: Now,
    }

    impl Api {
        fn new() -> Self {
            let object =
                serde_json::from_str(include_str!("../../../crds/tests/good/partner-connection.json")).unwrap();
            let mut this = Self { gateway: Acknowledgements::new("g".into()), object, start: Now::read() };
            this.object["status"] = json!({"observedGeneration": 1});
            this.spec(&json!({"revoked": false}));
            this
        }

        fn spec(&mut self, revocation: &Value) {
            self.object["spec"]["revocation"] = revocation.clone();
            let generation = self.object["metadata"]["generation"].as_i64().unwrap_or(0);
            self.object["metadata"]["generation"] = json!(generation + 1);
        }

        fn at(&self, second: u64) -> Now {
            let wall = Timestamp::from_second(1_800_000_000 + i64::try_from(second).unwrap()).unwrap();
            Now { wall, mono: self.start.mono + Duration::from_secs(second) }
        }

        fn observe(&mut self, second: u64) -> Floor {
            let now = self.at(second).wall;
            self.gateway.observe(&partner(), &serde_json::from_value(self.object.clone()).unwrap(), now)
        }

        fn due(&mut self, second: u64) -> Option<Value> {
            let now = self.at(second);
            self.gateway.due(&partner(), now).map(|word| serde_json::to_value(word).unwrap())
        }

        fn write(&mut self, word: Option<Value>) {
            self.object["status"]["gateways"] = json!([word.unwrap()]);
        }
    }

    fn partner() -> PartnerName {
        "a".parse().unwrap()
    }

    #[test]
    fn one_word_a_revocation_until_it_is_read_back() {
        let mut api = Api::new();
        assert_eq!(api.observe(0), Floor::default());
        assert!(api.gateway.owed().is_empty());
        api.spec(&json!({"revoked": true}));
        let floor = api.observe(10);
        assert!(floor.revokes(Some(api.at(10).wall)) && !floor.revokes(Some(api.at(11).wall)));
        assert_eq!(api.gateway.owed(), [partner()]);
        let word = api.due(11);
        assert_eq!(word, Some(json!({"name": "g", "generation": 2, "revokedAt": "2027-01-15T08:00:11Z"})));
        assert_eq!(api.due(12), None, "under way");
        assert_eq!(api.due(21), word, "it was lost: the same again");
        api.write(word.clone());
        api.observe(22);
        assert!(api.gateway.owed().is_empty());
        // Another edit while it is revoked is no other revocation; ending it and doing it again is.
        api.spec(&json!({"revoked": true}));
        api.observe(30);
        assert!(api.gateway.owed().is_empty());
        api.spec(&json!({"revoked": false}));
        assert_eq!(api.observe(40), floor, "remembered");
        assert!(api.gateway.owed().is_empty());
        api.spec(&json!({"revoked": true}));
        api.observe(50);
        assert_eq!(api.due(51).unwrap()["revokedAt"], "2027-01-15T08:00:51Z");
    }

    #[test]
    fn a_revocation_that_was_taken_back_before_the_word_got_through_is_told_and_remembered() {
        let mut api = Api::new();
        api.spec(&json!({"revoked": true}));
        let floor = api.observe(10);
        api.spec(&json!({"revoked": false}));
        assert_eq!(api.observe(11), floor);
        assert_eq!(api.gateway.owed(), [partner()]);
        assert_eq!(api.due(12).unwrap()["revokedAt"], "2027-01-15T08:00:12Z");
    }

    #[test]
    fn after_a_restart_a_word_stands_unless_spec_was_touched() {
        let mut api = Api::new();
        api.spec(&json!({"revoked": true}));
        api.observe(10);
        let word = api.due(10);
        api.write(word);
        api.gateway = Acknowledgements::new("g".into());
        api.observe(20);
        assert!(api.gateway.owed().is_empty());
        api.gateway = Acknowledgements::new("g".into());
        api.spec(&json!({"revoked": true}));
        api.observe(30);
        assert_eq!(api.gateway.owed(), [partner()], "it may have been another one in between");
    }

    #[test]
    fn of_two_processes_one_gives_the_word_and_the_other_never_again() {
        let mut api = Api::new();
        api.observe(0);
        let active = std::mem::replace(&mut api.gateway, Acknowledgements::new("g".into()));
        api.observe(1);
        api.spec(&json!({"revoked": true}));
        // The one that stands by sees it, and says nothing.
        api.observe(10);
        let standby = std::mem::replace(&mut api.gateway, active);
        api.observe(10);
        let word = api.due(11);
        api.write(word.clone());
        // The partner comes back with other keys; then the standby serves.
        api.spec(&json!({"revoked": false}));
        api.gateway = standby;
        let floor = api.observe(100);
        assert!(!floor.revokes(Some(api.at(100).wall)));
        assert!(api.gateway.owed().is_empty(), "a word of now would revoke the other keys too");
        // Another revocation is told, by whichever serves.
        api.spec(&json!({"revoked": true}));
        api.observe(200);
        assert_eq!(api.due(201).unwrap()["revokedAt"], "2027-01-15T08:03:21Z");
    }

    #[test]
    fn what_status_has_lost_is_said_again_and_holds_meanwhile() {
        let mut api = Api::new();
        let date = "2026-06-01T00:00:00Z";
        api.spec(&json!({"revoked": true, "notBefore": date}));
        let floor = api.observe(10);
        let word = api.due(11);
        api.write(word.clone());
        api.observe(12);
        assert!(api.gateway.owed().is_empty());
        // The cluster is put back to the day before.
        api.object["metadata"]["generation"] = json!(1);
        api.object["spec"]["revocation"] = json!({"revoked": false});
        api.object["status"]["gateways"] = json!([]);
        assert_eq!(api.observe(100), floor);
        assert_eq!(api.gateway.owed(), [partner()]);
        let again = api.due(101).unwrap();
        assert_eq!((&again["revokedAt"], &again["notBefore"]), (&word.as_ref().unwrap()["revokedAt"], &json!(date)));
        api.write(Some(again));
        assert_eq!(api.observe(102), floor);
        assert!(api.gateway.owed().is_empty());
    }

    #[test]
    fn a_date_is_acknowledged_once_and_one_that_is_moved_back_changes_nothing() {
        let mut api = Api::new();
        let date = "2026-06-01T00:00:00Z";
        api.spec(&json!({"revoked": false, "notBefore": date}));
        let floor = api.observe(10);
        assert!(floor.revokes("2026-05-31T23:59:59Z".parse().ok()) && !floor.revokes(date.parse().ok()));
        let word = api.due(11);
        assert_eq!(word, Some(json!({"name": "g", "notBefore": date, "notBeforeAt": "2027-01-15T08:00:11Z"})));
        api.write(word);
        api.observe(12);
        assert!(api.gateway.owed().is_empty());
        api.spec(&json!({"revoked": false, "notBefore": "2026-05-01T00:00:00Z"}));
        assert_eq!(api.observe(20), floor);
        assert!(api.gateway.owed().is_empty());
        api.spec(&json!({"revoked": false, "notBefore": "2062-01-01T00:00:00Z"}));
        api.observe(30);
        let word = api.due(31);
        api.write(word);
        api.observe(32);
        assert!(api.gateway.owed().is_empty(), "one in the future is said once too");
    }
}
