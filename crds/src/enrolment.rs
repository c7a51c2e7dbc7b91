//! What gateway and operator have to agree on when a partner asks for a certificate itself (EST, RFC 7030).
//!
//! The gateway makes a `CertificateSigningRequest` of it, which says on what grounds; the operator, which alone signs, checks
//! them again. Pure.
//!
//! Of a token, status has the SHA-256 of its SHA-256. Whoever presents the token is asked for nothing else; the gateway passes
//! on its SHA-256, which no gateway knows before the partner has shown the token, and which nobody can use at a gateway.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

/// The signer's name of partners' certificates.
pub const SIGNER: &str = "federation.csc-scc.gc.ca/partner";
/// Annotation: lower-case hex SHA-256 of the token that was presented.
pub const TOKEN_PROOF: &str = "federation.csc-scc.gc.ca/token-proof";
/// Annotation: lower-case hex SHA-256 of the leaf with which the client authenticated itself.
pub const LEAF: &str = "federation.csc-scc.gc.ca/leaf";
/// Label: the namespace of the connection on whose behalf it is asked; there may be several installations in a cluster.
pub const NAMESPACE_LABEL: &str = "federation.csc-scc.gc.ca/namespace";
/// Name of the gateway's ServiceAccount, the only one that may ask.
pub const GATEWAY_ACCOUNT: &str = "liaison-gateway";

/// Why a certificate is due to whom asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grounds {
    /// The one-time token, by its proof.
    Token(String),
    /// A leaf that is accepted, by its fingerprint.
    Leaf(String),
}

impl Grounds {
    /// As an annotation: key and value.
    pub fn annotation(&self) -> (&'static str, &str) {
        match self {
            Self::Token(proof) => (TOKEN_PROOF, proof),
            Self::Leaf(fingerprint) => (LEAF, fingerprint),
        }
    }

    /// From annotations; there must be one, and one only.
    pub fn of(annotations: &BTreeMap<String, String>) -> Option<Self> {
        match (annotations.get(TOKEN_PROOF), annotations.get(LEAF)) {
            (Some(proof), None) => Some(Self::Token(proof.clone())),
            (None, Some(fingerprint)) => Some(Self::Leaf(fingerprint.clone())),
            _ => None,
        }
    }

    /// Name of the object by which a partner asks for this, given the namespace of its connection, its name, and the request
    /// in DER: the same again is the same object.
    pub fn object_name(&self, namespace: &str, partner: &str, request: &[u8]) -> String {
        let (key, value) = self.annotation();
        let mut hash = Sha256::new();
        for part in [namespace, partner, key, value] {
            hash.update(part);
            hash.update([0]);
        }
        hash.update(request);
        format!("liaison-{}", short(&hash.finalize()))
    }
}

/// What is passed on of a token.
pub fn proof(token: &str) -> String {
    hex(&Sha256::digest(token))
}

/// What status has of a token, given its proof.
pub fn digest(proof: &str) -> String {
    hex(&Sha256::digest(proof))
}

/// Name of the Lease that claims a token for one key, given what status has of it.
pub fn token_lease(digest: &str) -> String {
    format!("token-{}", digest.get(..40).unwrap_or(digest))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(64), |text, byte| text + &format!("{byte:02x}"))
}

fn short(bytes: &[u8]) -> String {
    hex(bytes.get(..20).unwrap_or(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grounds_are_one_annotation_and_name_the_object() {
        let token = Grounds::Token(proof("secret"));
        let (key, value) = token.annotation();
        let mut all = BTreeMap::from([(key.to_owned(), value.to_owned())]);
        assert_eq!(Grounds::of(&all), Some(token.clone()));
        all.insert(LEAF.to_owned(), "x".to_owned());
        assert_eq!(Grounds::of(&all), None, "both");
        assert_eq!(Grounds::of(&BTreeMap::new()), None);
        let name = token.object_name("n", "a", b"request");
        assert_eq!((name.len(), token.object_name("n", "a", b"request")), (48, name.clone()));
        let others = [("n", "b", &b"request"[..]), ("n", "a", b"another"), ("m", "a", b"request")];
        for other in others.map(|(namespace, partner, request)| token.object_name(namespace, partner, request)) {
            assert_ne!(other, name);
        }
        assert_ne!(Grounds::Leaf(proof("secret")).object_name("n", "a", b"request"), name);
    }

    #[test]
    fn what_is_passed_on_cannot_be_had_from_what_is_public() {
        let proof = proof("secret");
        assert_ne!(digest(&proof), proof);
        assert_eq!(digest(&proof), super::hex(&Sha256::digest(&proof)));
        assert_eq!(token_lease(&digest(&proof)).len(), 46);
    }
}
