//! What Liaison signs: checkpoints of the ledger, attestations of a verification, disposal certificates, hand-overs of secrets. sync says them, the
//! operator, which alone holds the key, signs their text byte for byte.

use std::{fmt, fmt::Write as _, str::FromStr};

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// Longest text of a statement, in bytes: it travels in a ConfigMap.
pub const MAX_STATEMENT: usize = 900_000;

/// Label of the ConfigMaps in which statements travel; its value is the kind.
pub const LABEL: &str = "federation.csc-scc.gc.ca/statement";
/// Keys of such a ConfigMap: what sync writes, and what the operator adds.
pub mod keys {
    /// The text.
    pub const STATEMENT: &str = "statement";
    /// ECDSA P-256 with SHA-256 over the text's bytes: DER, in base64.
    pub const SIGNATURE: &str = "signature";
    /// The signing key's id.
    pub const KEY_ID: &str = "keyId";
    /// Signing and issuing certificate in PEM.
    pub const CHAIN: &str = "chain";
    /// When it was signed, RFC 3339.
    pub const SIGNED_AT: &str = "signedAt";
    /// Instead of a signature: why there is none.
    pub const REFUSED: &str = "refused";
}

/// What a statement is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The heads of all partners' chains.
    Checkpoint,
    /// Hub and replica have the same root.
    Attestation,
    /// A replica is gone.
    Disposal,
    /// A partner has picked up what was made for it.
    Handover,
}

/// Every kind.
pub const KINDS: [Kind; 4] = [Kind::Checkpoint, Kind::Attestation, Kind::Disposal, Kind::Handover];

/// A kind that is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a kind of statement; the kinds are checkpoint, attestation, disposal, handover")]
pub struct UnknownKind(String);

impl Kind {
    /// As the hub spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Checkpoint => "checkpoint",
            Self::Attestation => "attestation",
            Self::Disposal => "disposal",
            Self::Handover => "handover",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        KINDS.into_iter().find(|kind| kind.as_str() == s).ok_or_else(|| UnknownKind(s.to_owned()))
    }
}

/// Which statement: a kind, a partner ("" where it is of all), and a number counted for the two.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    /// What it is about.
    pub kind: Kind,
    /// Whom, or nobody in particular.
    pub partner: String,
    /// From 1, without gaps.
    pub number: i64,
}

impl Id {
    /// The name under which it is brought to the operator. A partner's name is at most 40 characters, so this is at most 72.
    pub fn object_name(&self) -> String {
        let Self { kind, partner, number } = self;
        let between = if partner.is_empty() { "" } else { "-" };
        format!("statement-{kind}{between}{partner}-{number}")
    }
}

/// The text that is signed: `fields`, and which statement it is and when it was made (RFC 3339), with sorted keys.
pub fn text(id: &Id, at: &str, mut fields: Map<String, Value>) -> String {
    fields.insert("kind".to_owned(), id.kind.as_str().into());
    fields.insert("partner".to_owned(), id.partner.as_str().into());
    fields.insert("number".to_owned(), id.number.into());
    fields.insert("at".to_owned(), at.into());
    canonical(&Value::Object(fields))
}

/// Which statement a text says that it is; `None` when it is not one.
pub fn read(text: &str) -> Option<(Id, Map<String, Value>)> {
    let Value::Object(fields) = serde_json::from_str(text).ok()? else { return None };
    let id = Id {
        kind: fields.get("kind")?.as_str()?.parse().ok()?,
        partner: fields.get("partner")?.as_str()?.to_owned(),
        number: fields.get("number")?.as_i64()?,
    };
    (canonical(&Value::Object(fields.clone())) == text).then_some((id, fields))
}

/// Compact JSON with sorted keys, whatever order the map is kept in.
pub fn canonical(value: &Value) -> String {
    let mut text = String::new();
    write(value, &mut text);
    text
}

fn write(value: &Value, text: &mut String) {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            text.push('{');
            for (index, key) in keys.into_iter().enumerate() {
                let comma = if index > 0 { "," } else { "" };
                // Printing a string as JSON cannot fail, and neither can writing to a String.
                let _ = write!(text, "{comma}{}:", Value::from(key.as_str()));
                write(&map[key], text);
            }
            text.push('}');
        }
        Value::Array(list) => {
            text.push('[');
            for (index, item) in list.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write(item, text);
            }
            text.push(']');
        }
        other => {
            let _ = write!(text, "{other}");
        }
    }
}

/// Lower-case hex SHA-256 of a public key's SubjectPublicKeyInfo: the id of a signing key.
pub fn key_id(spki: &[u8]) -> String {
    hex::encode(Sha256::digest(spki))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn id() -> Id {
        Id { kind: Kind::Disposal, partner: "vancouver-police".into(), number: 3 }
    }

    #[test]
    fn the_text_is_canonical_and_says_which_statement_it_is() {
        let Value::Object(fields) = json!({"b": [1, {"z": null, "a": "é\n"}], "a": true}) else { unreachable!() };
        let text = text(&id(), "2026-11-22T00:00:00Z", fields);
        assert_eq!(
            text,
            r#"{"a":true,"at":"2026-11-22T00:00:00Z","b":[1,{"a":"é\n","z":null}],"kind":"disposal","number":3,"partner":"vancouver-police"}"#
        );
        assert_eq!(read(&text).unwrap().0, id());
        assert_eq!(read(&text.replace(":3,", ": 3,")), None, "another spelling of the same is not what was signed");
        assert_eq!(read(&text.replace("disposal", "gift")), None);
    }

    #[test]
    fn names_are_names_of_objects() {
        assert_eq!(id().object_name(), "statement-disposal-vancouver-police-3");
        let of_all = Id { kind: Kind::Checkpoint, partner: String::new(), number: 1 };
        assert_eq!(of_all.object_name(), "statement-checkpoint-1");
        assert_eq!(
            "gift".parse::<Kind>().unwrap_err().to_string().split(';').next(),
            Some("'gift' is not a kind of statement")
        );
    }
}
