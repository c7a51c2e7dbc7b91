//! What a process says of the authority's certificates that it uses: the answer to `GET /trust` on its health port.
//!
//! The operator waits for these words before it signs with a new CA and before it takes an old one away, so each speaks of
//! what is loaded and in use now, not of what lies in a file. All of it is public.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Where it is answered.
pub const PATH: &str = "/trust";

/// What a process holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// For each of its uses the roots against which it verifies others, as [`digest`]s of their DER.
    #[serde(default)]
    pub trusts: BTreeMap<String, BTreeSet<String>>,
    /// For each of its uses the certificates that it shows, leaf first, as [`digest`]s of their DER.
    #[serde(default)]
    pub shows: BTreeMap<String, Vec<String>>,
    /// The servers that cannot speak for themselves, as it found them in a handshake of just now.
    #[serde(default)]
    pub servers: BTreeMap<String, Server>,
    /// Of the gateway: each of its own WireGuard public keys that it listens with, and the partners whose data comes by it. Under no
    /// key, where this process serves partners, those of whom nothing has been heard since there are two.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub wireguard: BTreeMap<String, BTreeSet<String>>,
}

/// A server as one of its clients finds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "camelCase")]
pub enum Server {
    /// It is called without TLS, which only tests do: nothing of the authority is in use there.
    Plain,
    /// It could not be called.
    Away {
        /// Why.
        why: String,
    },
    /// It was called.
    Met {
        /// The certificates that it showed, leaf first, as [`digest`]s of their DER.
        shows: Vec<String>,
        /// The CAs from which it takes client certificates, as [`digest`]s of the DER of their names; empty when it does not say.
        accepts: BTreeSet<String>,
    },
}

/// Lower-case hex SHA-256.
pub fn digest(der: &[u8]) -> String {
    hex::encode(Sha256::digest(der))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_as_it_was_written_and_may_grow() {
        let report = Report {
            trusts: [("tls".to_owned(), ["a".to_owned()].into())].into(),
            shows: [("tls".to_owned(), vec!["b".to_owned()])].into(),
            servers: [("hub".to_owned(), Server::Met { shows: vec![], accepts: BTreeSet::new() })].into(),
            wireguard: [("k".to_owned(), ["p".to_owned()].into())].into(),
        };
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
        let later = r#"{"trusts":{},"more":1,"servers":{"hub":{"state":"away","why":"x"},"store":{"state":"plain"}}}"#;
        let read: Report = serde_json::from_str(later).unwrap();
        assert_eq!(read.servers["hub"], Server::Away { why: "x".to_owned() });
        assert_eq!(read.servers["store"], Server::Plain);
    }
}
