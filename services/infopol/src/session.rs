//! Sessions of the pages: what an officer declared at sign-on, kept in this process's memory under an opaque number.
//!
//! The cookie holds the number and nothing else. A session ends after [`IDLE`] without a request, after [`LONGEST`] in
//! any case, and with the process. Time and randomness are parameters.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::request::OfficerId;

/// A session ends when it is not used for this long.
pub const IDLE: Duration = Duration::from_secs(20 * 60);
/// A session ends after a shift, used or not.
pub const LONGEST: Duration = Duration::from_secs(12 * 3600);
/// Most sessions held; beyond it the one that was idle longest goes.
pub const MOST: usize = 5_000;
/// The cookie's name: `__Host-` makes browsers insist on Secure, this host and Path=/.
pub const COOKIE: &str = "__Host-infopol";

/// What a session knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// What a form must carry to be believed.
    pub csrf: String,
    /// Officer and purpose, once signed on.
    pub signed_on: Option<(OfficerId, String)>,
}

#[derive(Debug)]
struct Held {
    session: Session,
    since: Instant,
    used: Instant,
}

/// All sessions of this process.
#[derive(Debug, Default)]
pub struct Sessions(Mutex<HashMap<String, Held>>);

/// 256 bits for a cookie or a form, in hexadecimal.
pub fn random_token() -> String {
    hex::encode(rand::random::<[u8; 32]>())
}

impl Sessions {
    fn table(&self) -> std::sync::MutexGuard<'_, HashMap<String, Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session of that number, if it has not ended; counts as a use.
    pub fn get(&self, id: &str, now: Instant) -> Option<Session> {
        let mut table = self.table();
        let held = table.get_mut(id)?;
        if now.duration_since(held.used) > IDLE || now.duration_since(held.since) > LONGEST {
            table.remove(id);
            return None;
        }
        held.used = now;
        Some(held.session.clone())
    }

    /// Puts a session under a new number; `replaces` ends at once, so that a number known before sign-on is worthless.
    pub fn put(&self, id: String, session: Session, replaces: Option<&str>, now: Instant) {
        let mut table = self.table();
        if let Some(old) = replaces {
            table.remove(old);
        }
        table.retain(|_, held| now.duration_since(held.used) <= IDLE && now.duration_since(held.since) <= LONGEST);
        if table.len() >= MOST {
            // Those who have not signed on go first.
            let oldest =
                table.iter().min_by_key(|(_, h)| (h.session.signed_on.is_some(), h.used)).map(|(id, _)| id.clone());
            if let Some(oldest) = oldest {
                table.remove(&oldest);
            }
        }
        table.insert(id, Held { session, since: now, used: now });
    }

    /// Ends a session.
    pub fn end(&self, id: &str) {
        self.table().remove(id);
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.table().len()
    }
}

/// The session number in a `Cookie` header.
pub fn id_in(cookies: &str) -> Option<&str> {
    cookies
        .split(';')
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == COOKIE)
        .map(|(_, value)| value)
        .filter(|value| value.len() == 64 && value.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// The `Set-Cookie` value that keeps a session number until the browser closes.
pub fn cookie(id: &str) -> String {
    format!("{COOKIE}={id}; Path=/; Secure; HttpOnly; SameSite=Strict")
}

/// The `Set-Cookie` value that forgets it.
pub fn no_cookie() -> String {
    format!("{COOKIE}=; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=0")
}

/// Compares a form's token with the session's, in a time that does not tell where they differ.
pub fn same_token(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |acc, (x, y)| acc | (x ^ y)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Session {
        Session { csrf: random_token(), signed_on: None }
    }

    #[test]
    fn ends_when_idle_and_after_a_shift() {
        let (sessions, start) = (Sessions::default(), Instant::now());
        sessions.put("a".into(), session(), None, start);
        assert!(sessions.get("a", start + IDLE).is_some());
        assert!(sessions.get("a", start + IDLE + IDLE + Duration::from_secs(1)).is_none(), "idle");
        sessions.put("b".into(), session(), None, start);
        let mut now = start;
        while now.duration_since(start) <= LONGEST {
            assert!(sessions.get("b", now).is_some());
            now += IDLE;
        }
        assert!(sessions.get("b", now).is_none(), "longest");
    }

    #[test]
    fn sign_on_changes_the_number() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        sessions.put("before".into(), session(), None, now);
        sessions.put("after".into(), session(), Some("before"), now);
        assert!(sessions.get("before", now).is_none() && sessions.get("after", now).is_some());
    }

    #[test]
    fn never_more_than_the_bound() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let officer = OfficerId::parse("1").unwrap();
        sessions.put("signed".into(), Session { signed_on: Some((officer, "x".into())), ..session() }, None, now);
        for n in 0..MOST + 10 {
            sessions.put(n.to_string(), session(), None, now);
        }
        assert_eq!(sessions.count(), MOST);
        assert!(sessions.get("signed", now).is_some(), "who has signed on stays");
    }

    #[test]
    fn reads_only_its_own_cookie() {
        let id = "a".repeat(64);
        assert_eq!(id_in(&format!("x=1; {COOKIE}={id}")), Some(id.as_str()));
        assert_eq!(id_in(&format!("{COOKIE}=short")), None);
        assert!(same_token("ab", "ab") && !same_token("ab", "ac") && !same_token("a", "ab"));
    }
}
