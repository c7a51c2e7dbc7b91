//! Which keys of a partner are revoked for good, from what spec says and what gateways have acknowledged.
//!
//! Pure: operator and gateway ask the same. A key's generation is when it was first seen; a certificate's is its key's, since
//! a new certificate on a key that others may have helps nobody. Whatever is not known to be new enough counts as revoked (I5).

use jiff::{SignedDuration, Timestamp};

use crate::PartnerConnection;

/// The earliest first sight that is not revoked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Floor(Option<Timestamp>);

impl Floor {
    /// Of an object: `notBefore`, and what gateways have acknowledged, which stays in force when spec no longer says it.
    pub fn of(connection: &PartnerConnection) -> Self {
        let asked = connection.spec.revocation.as_ref().and_then(|revocation| revocation.not_before.as_ref());
        let mut floor = Self(asked.map(|at| at.0));
        for gateway in connection.status.iter().flat_map(|status| &status.gateways) {
            floor = floor.max(Self(gateway.revoked_at.as_ref().map(|at| after(at.0))));
            // One that lay in the future has revoked what there was when it took effect, and not what came later.
            if let (Some(asked), Some(at)) = (&gateway.not_before, &gateway.not_before_at) {
                floor = floor.max(Self(Some(asked.0.min(after(at.0)))));
            }
        }
        floor
    }

    /// That of a revocation that takes effect at this instant.
    pub fn revoked_at(at: Timestamp) -> Self {
        Self(Some(after(at)))
    }

    /// That of a `notBefore` that takes effect at this instant.
    pub fn not_before(asked: Timestamp, at: Timestamp) -> Self {
        Self(Some(asked.min(after(at))))
    }

    /// Whether a key that was first seen then is revoked.
    pub fn revokes(self, first_seen: Option<Timestamp>) -> bool {
        self.0.is_some_and(|floor| first_seen.is_none_or(|seen| seen < floor))
    }

    /// What a key that is first seen now is noted with: clocks differ, and a new key must not fall to an old revocation.
    pub fn first_sight(self, now: Timestamp) -> Timestamp {
        self.0.map_or(now, |floor| floor.max(now))
    }
}

/// The next whole second: status holds no finer time, so a key of the same second counts as older.
fn after(at: Timestamp) -> Timestamp {
    let whole = Timestamp::from_second(at.as_second()).unwrap_or(at);
    whole.checked_add(SignedDuration::from_secs(1)).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn floor(revocation: &Value, gateways: &Value) -> Floor {
        let mut object: Value = serde_json::from_str(include_str!("../tests/good/partner-connection.json")).unwrap();
        object["spec"]["revocation"] = revocation.clone();
        object["status"] = json!({"observedGeneration": 1, "gateways": gateways});
        Floor::of(&serde_json::from_value(object).unwrap())
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn without_a_revocation_nothing_is_revoked() {
        let none = floor(&json!({"revoked": false}), &json!([{"name": "gateway"}]));
        assert!(!none.revokes(None) && !none.revokes(Some(at("1970-01-01T00:00:00Z"))));
        assert_eq!(none.first_sight(Timestamp::UNIX_EPOCH), Timestamp::UNIX_EPOCH);
    }

    #[test]
    fn not_before_revokes_what_is_older_and_what_is_unknown() {
        let floor = floor(&json!({"revoked": false, "notBefore": "2026-03-01T12:00:00Z"}), &json!([]));
        assert!(floor.revokes(None) && floor.revokes(Some(at("2026-03-01T11:59:59Z"))));
        assert!(!floor.revokes(Some(at("2026-03-01T12:00:00Z"))));
    }

    #[test]
    fn what_a_gateway_has_acknowledged_stays_in_force_whatever_spec_says_later() {
        let gateways = json!([{"name": "a", "revokedAt": "2026-03-01T12:00:00Z"}, {"name": "b", "revokedAt": "2026-03-01T12:00:05Z"}]);
        let floor_of = floor(&json!({"revoked": false}), &gateways);
        assert!(floor_of.revokes(Some(at("2026-03-01T12:00:05Z"))), "seen before it, or in the same second");
        assert!(!floor_of.revokes(Some(at("2026-03-01T12:00:06Z"))));
        let new = floor_of.first_sight(at("2026-03-01T12:00:01Z"));
        assert!(!floor_of.revokes(Some(new)), "a clock that is behind revokes no new key");

        let gateways =
            json!([{"name": "a", "notBefore": "2026-02-01T00:00:00Z", "notBeforeAt": "2026-03-01T00:00:00Z"}]);
        let moved = floor(&json!({"revoked": false, "notBefore": "2026-01-01T00:00:00Z"}), &gateways);
        assert!(moved.revokes(Some(at("2026-01-31T23:59:59Z"))) && !moved.revokes(Some(at("2026-02-01T00:00:00Z"))));
    }

    #[test]
    fn a_date_in_the_future_revokes_no_more_than_what_there_was() {
        let gateways =
            json!([{"name": "a", "notBefore": "2062-03-01T00:00:00Z", "notBeforeAt": "2026-03-01T00:00:00Z"}]);
        let standing = floor(&json!({"revoked": false, "notBefore": "2062-03-01T00:00:00Z"}), &gateways);
        assert!(standing.revokes(Some(at("2026-04-01T00:00:00Z"))));
        let corrected = floor(&json!({"revoked": false}), &gateways);
        assert!(
            corrected.revokes(Some(at("2026-03-01T00:00:00Z"))) && !corrected.revokes(Some(at("2026-03-01T00:00:01Z")))
        );
    }
}
