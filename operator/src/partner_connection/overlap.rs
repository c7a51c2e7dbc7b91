//! The end of a WireGuard key that a newer one has taken the place of.
//!
//! A partner with two keys may go back to the older one for a time; then the older one goes, though the manifest still names it.
//! Which is in use is the gateways' word, the last of them: a shard that serves the partner no more, or is no more, leaves its own. Pure.

use jiff::{SignedDuration, Timestamp};
use liaison_crds::PartnerConnectionStatus;

use super::validate::{Checked, Key};
use crate::claims::Memories;

/// What is known of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overlap {
    /// Keys whose time is over, in the manifest's order.
    pub over: Vec<Key>,
    /// When the next one's is.
    pub ends: Option<Timestamp>,
}

impl Overlap {
    /// Looks at every key of the manifest. `length`: for how long after a newer one came into use an older one is accepted.
    pub fn of(
        checked: &Checked,
        status: Option<&PartnerConnectionStatus>,
        memories: &Memories,
        length: SignedDuration,
        now: Timestamp,
    ) -> Self {
        let mut overlap = Self::default();
        let mut words: Vec<_> =
            status.iter().flat_map(|status| &status.gateways).filter_map(|word| word.key_in_use.as_ref()).collect();
        let last = words.iter().map(|word| word.since.0).max();
        words.retain(|word| Some(word.since.0) == last);
        // Of two that were seen at once the manifest's second is the newer.
        let seen = |place: usize, key: &Key| memories.get(&key.lease).map(|memory| (memory.first_seen, place));
        for (place, key) in checked.keys.iter().enumerate() {
            let Some(age) = seen(place, key) else { continue };
            if words.iter().any(|word| word.public_key == key.text) {
                continue;
            }
            let newer = words.iter().filter(|word| {
                let named = checked.keys.iter().enumerate().find(|(_, other)| other.text == word.public_key);
                let first_seen = named.and_then(|(place, other)| seen(place, other));
                // A word from before the key was claimed is about an earlier life of it.
                first_seen.is_some_and(|first_seen| first_seen > age && word.since.0 >= first_seen.0)
            });
            let Some(since) = newer.map(|word| word.since.0).max() else { continue };
            match since.checked_add(length) {
                Ok(end) if end <= now => overlap.over.push(key.clone()),
                Ok(end) => overlap.ends = Some(overlap.ends.map_or(end, |ends| ends.min(end))),
                Err(_) => {}
            }
        }
        overlap
    }

    /// Where the manifest still names what is over.
    pub fn places(&self) -> Vec<String> {
        self.over.iter().map(|key| key.place.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use liaison_crds::partner_connection::{Acknowledgement, KeyInUse};

    use super::*;
    use crate::{
        claims::Memory,
        partner_connection::{
            fixtures::{agreement, connection, now, provisioned},
            validate::validate,
        },
    };

    #[test]
    fn the_older_key_goes_once_the_newer_has_been_in_use_for_the_overlap() {
        let mut c = connection("vancouver-police");
        c.spec.credentials.wire_guard.public_keys.push("ANN0WtCmwgRlYsYdHWp7ztCY5OqmHxEjtyEDx6pCWEE=".to_owned());
        let checked = validate(&c, Some(&agreement()), "shared", now());
        let at = |hours: i64| now() + SignedDuration::from_hours(hours);
        let memories = |ages: [i64; 2]| -> Memories {
            let of = |(key, hours): (&Key, i64)| (key.lease.clone(), Memory { first_seen: at(hours), revoked: false });
            checked.keys.iter().zip(ages).map(of).collect()
        };
        let word = |name: &str, key: usize, hours: i64| Acknowledgement {
            name: name.to_owned(),
            key_in_use: Some(KeyInUse { public_key: checked.keys[key].text.clone(), since: Time(at(hours)) }),
            ..Acknowledgement::default()
        };
        let looked = |words: &[Acknowledgement], ages, hours| {
            let status = PartnerConnectionStatus { gateways: words.to_vec(), ..provisioned() };
            let overlap =
                Overlap::of(&checked, Some(&status), &memories(ages), SignedDuration::from_hours(72), at(hours));
            (overlap.places(), overlap.ends)
        };
        let none: Vec<String> = Vec::new();
        let first = vec!["`credentials.wireGuard.publicKeys[0]`".to_owned()];
        assert_eq!(looked(&[], [0, 10], 500), (none.clone(), None), "nobody says that it is in use");
        assert_eq!(looked(&[word("a", 0, 20)], [0, 10], 500), (none.clone(), None), "the older one is in use");
        assert_eq!(looked(&[word("a", 1, 20)], [0, 10], 91), (none.clone(), Some(at(92))));
        assert_eq!(looked(&[word("a", 1, 20)], [0, 10], 92), (first.clone(), None));
        assert_eq!(looked(&[word("a", 1, 20)], [0, 0], 92), (first.clone(), None), "claimed in one visit");
        let both = [word("a", 1, 20), word("b", 0, 21)];
        assert_eq!(looked(&both, [0, 10], 500), (none.clone(), None), "it went back, at another gateway");
        let moved = [word("a", 0, 20), word("b", 1, 40)];
        assert_eq!(looked(&moved, [0, 10], 112), (first.clone(), None), "what it left says no more");
        assert_eq!(looked(&[word("a", 1, 20), word("b", 1, 40)], [0, 10], 100), (none.clone(), Some(at(112))));
        let second = vec!["`credentials.wireGuard.publicKeys[1]`".to_owned()];
        assert_eq!(looked(&[word("a", 0, 20)], [10, 0], 92), (second, None), "the manifest's order does not matter");
        assert_eq!(looked(&[word("a", 1, 20)], [0, 30], 500), (none, None), "a word about an earlier life of the key");
    }
}
