//! Sessions of the pages: what an officer declared at sign-on, sealed into the cookie itself.
//!
//! Nothing is kept here, so any replica of a partner's InfoPol answers any request, and a restart costs an officer
//! nothing. The key is derived from a secret that only this partner's InfoPol has; a cookie that it did not seal, or sealed
//! for another partner, is no session. A session ends after [`IDLE`] without a request and after [`LONGEST`] in any case.
//! Signing off takes the cookie from the browser; a copy would live on until then, and is worth what anybody has who can
//! reach the sign-on page: it needs the partner's tunnel and certificate, where an identifier may be asserted anyway.
//!
//! Time is a parameter.

use aws_lc_rs::{
    aead::{AES_256_GCM_SIV, Aad, Nonce, RandomizedNonceKey},
    hkdf::{HKDF_SHA256, Salt},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use liaison_records::names::PartnerName;
use serde::{Deserialize, Serialize};

use crate::request::OfficerId;

/// A session ends when it is not used for this long, in seconds.
pub const IDLE: i64 = 20 * 60;
/// A session ends after a shift, used or not, in seconds.
pub const LONGEST: i64 = 12 * 3600;
/// The cookie's name: `__Host-` makes browsers insist on Secure, this host and Path=/.
pub const COOKIE: &str = "__Host-infopol";
/// Shortest secret that a key is derived from, in bytes.
pub const SHORTEST_SECRET: usize = 32;

/// Longest cookie that is looked at, in bytes.
const LONGEST_COOKIE: usize = 1024;
const NONCE: usize = 12;

/// What a session knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// What a form must carry to be believed.
    pub csrf: String,
    /// Officer and purpose, once signed on.
    pub signed_on: Option<(OfficerId, String)>,
    /// When it began and was last used, in seconds since 1970.
    since: i64,
    used: i64,
}

impl Session {
    /// One that begins now, with a token of its own.
    pub fn begin(signed_on: Option<(OfficerId, String)>, now: Timestamp) -> Self {
        Self { csrf: random_token(), signed_on, since: now.as_second(), used: now.as_second() }
    }

    /// Whether it is over. Replicas' clocks may differ a little: a use in the future is a use.
    fn is_over(&self, now: Timestamp) -> bool {
        now.as_second() - self.used > IDLE || now.as_second() - self.since > LONGEST
    }
}

/// 256 bits for a form, in hexadecimal.
fn random_token() -> String {
    hex::encode(rand::random::<[u8; 32]>())
}

/// What is sealed: short names, since it goes with every request.
#[derive(Serialize, Deserialize)]
struct Sealed {
    c: String,
    o: Option<(String, String)>,
    s: i64,
    u: i64,
}

/// No key could be made, or nothing sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The secret is no secret.
    #[error("the secret must have {SHORTEST_SECRET} bytes at least")]
    Short,
    /// The cryptographic library failed.
    #[error("the session could not be sealed")]
    Failed,
}

/// Seals sessions into cookies and opens them.
#[derive(Debug)]
pub struct Sealer(RandomizedNonceKey);

impl Sealer {
    /// With a key derived (HKDF, RFC 5869) from a secret that all replicas of `partner`'s InfoPol have.
    pub fn derived(secret: &[u8], partner: &PartnerName) -> Result<Self, SealError> {
        if secret.len() < SHORTEST_SECRET {
            return Err(SealError::Short);
        }
        let mut key = [0; 32];
        let info = [partner.as_str().as_bytes()];
        let extracted = Salt::new(HKDF_SHA256, b"liaison infopol session 1").extract(secret);
        let expanded = extracted.expand(&info, HKDF_SHA256).and_then(|okm| okm.fill(&mut key));
        expanded.map_err(|_| SealError::Failed)?;
        Self::with(&key)
    }

    /// With a key that nobody else has: sessions of this process alone, which end with it.
    pub fn alone() -> Result<Self, SealError> {
        Self::with(&rand::random())
    }

    fn with(key: &[u8; 32]) -> Result<Self, SealError> {
        RandomizedNonceKey::new(&AES_256_GCM_SIV, key).map(Self).map_err(|_| SealError::Failed)
    }

    /// The `Set-Cookie` value that keeps a session until the browser closes; used now.
    pub fn cookie(&self, session: &Session, now: Timestamp) -> Result<String, SealError> {
        let Session { csrf, signed_on, since, used: _ } = session;
        let signed_on = signed_on.as_ref().map(|(officer, purpose)| (officer.as_str().to_owned(), purpose.clone()));
        let sealed = Sealed { c: csrf.clone(), o: signed_on, s: *since, u: now.as_second() };
        let mut text = serde_json::to_vec(&sealed).map_err(|_| SealError::Failed)?;
        let nonce = self.0.seal_in_place_append_tag(Aad::from(COOKIE), &mut text).map_err(|_| SealError::Failed)?;
        let value = URL_SAFE_NO_PAD.encode([nonce.as_ref().as_slice(), &text].concat());
        Ok(format!("{COOKIE}={value}; Path=/; Secure; HttpOnly; SameSite=Strict"))
    }

    /// The session in a `Cookie` header, if there is one that is not over.
    pub fn session_in(&self, cookies: &str, now: Timestamp) -> Option<Session> {
        let pairs = cookies.split(';').filter_map(|pair| pair.trim().split_once('='));
        let mut ours = pairs.filter(|(name, value)| *name == COOKIE && value.len() <= LONGEST_COOKIE);
        ours.find_map(|(_, value)| self.open(value)).filter(|session| !session.is_over(now))
    }

    fn open(&self, value: &str) -> Option<Session> {
        let mut bytes = URL_SAFE_NO_PAD.decode(value).ok()?;
        let (nonce, text) = bytes.split_at_mut_checked(NONCE)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let text = self.0.open_in_place(nonce, Aad::from(COOKIE), text).ok()?;
        let Sealed { c, o, s, u } = serde_json::from_slice(text).ok()?;
        let signed_on = match o {
            None => None,
            Some((officer, purpose)) => Some((OfficerId::parse(&officer).ok()?, purpose)),
        };
        Some(Session { csrf: c, signed_on, since: s, used: u })
    }
}

/// Compares a form's token with the session's, in a time that does not tell where they differ.
pub fn same_token(a: &str, b: &str) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(a.as_bytes(), b.as_bytes()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = &[7; SHORTEST_SECRET];

    fn sealer(secret: &[u8], partner: &str) -> Sealer {
        Sealer::derived(secret, &partner.parse().unwrap()).unwrap()
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn signed_on() -> Session {
        let officer = OfficerId::parse("VPD-1234").unwrap();
        Session::begin(Some((officer, "Apprehension".to_owned())), at(0))
    }

    /// What the browser sends back.
    fn sent(sealer: &Sealer, session: &Session, now: Timestamp) -> String {
        sealer.cookie(session, now).unwrap().split(';').next().unwrap().to_owned()
    }

    #[test]
    fn ends_when_idle_and_after_a_shift() {
        let sealer = sealer(SECRET, "vancouver-police");
        let cookie = sent(&sealer, &signed_on(), at(0));
        assert!(sealer.session_in(&cookie, at(IDLE)).is_some());
        assert!(sealer.session_in(&cookie, at(IDLE + 1)).is_none(), "idle");
        assert!(sealer.session_in(&cookie, at(-30)).is_some(), "another replica's clock is late");
        let mut now = 0;
        let mut cookie = cookie;
        while now <= LONGEST {
            let session = sealer.session_in(&cookie, at(now)).unwrap();
            cookie = sent(&sealer, &session, at(now));
            now += IDLE;
        }
        assert!(sealer.session_in(&cookie, at(now)).is_none(), "longest");
    }

    #[test]
    fn every_replica_of_a_partner_opens_it_and_nobody_else() {
        let (one, session) = (sealer(SECRET, "vancouver-police"), signed_on());
        let cookie = sent(&one, &session, at(0));
        assert_eq!(sealer(SECRET, "vancouver-police").session_in(&cookie, at(1)), Some(session.clone()));
        assert!(sealer(SECRET, "victoria-police").session_in(&cookie, at(1)).is_none(), "another partner's");
        assert!(sealer(&[8; SHORTEST_SECRET], "vancouver-police").session_in(&cookie, at(1)).is_none());
        assert!(Sealer::alone().unwrap().session_in(&cookie, at(1)).is_none());
        assert_ne!(cookie, sent(&one, &session, at(0)), "never twice the same");
        assert!(!cookie.contains("VPD-1234"));
        let short = Sealer::derived(&SECRET[1..], &"p".parse().unwrap());
        assert_eq!(short.err(), Some(SealError::Short));
    }

    #[test]
    fn a_cookie_that_was_touched_is_no_session() {
        let sealer = sealer(SECRET, "vancouver-police");
        let cookie = sent(&sealer, &signed_on(), at(0));
        let value = cookie.split_once('=').unwrap().1;
        let bytes = URL_SAFE_NO_PAD.decode(value).unwrap();
        for at_byte in 0..bytes.len() {
            let mut touched = bytes.clone();
            touched[at_byte] ^= 1;
            let touched = format!("{COOKIE}={}", URL_SAFE_NO_PAD.encode(touched));
            assert!(sealer.session_in(&touched, at(0)).is_none(), "byte {at_byte}");
        }
        for odd in ["", "x", &value[..20], &"A".repeat(2_000)] {
            assert!(sealer.session_in(&format!("{COOKIE}={odd}"), at(0)).is_none());
        }
        assert!(sealer.session_in(&format!("x={value}"), at(0)).is_none(), "another's cookie");
        let among = format!("x=1; {COOKIE}=forged; {cookie}");
        assert!(sealer.session_in(&among, at(0)).is_some());
        assert!(same_token("ab", "ab") && !same_token("ab", "ac") && !same_token("a", "ab"));
    }
}
