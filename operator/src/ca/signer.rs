//! The key that signs statements.

use std::fmt;

use rcgen::{KeyPair, PublicKeyData, SigningKey};

use super::{Error, KeyPem, certificate};

/// The key that signs statements, with its certificate.
pub struct Signer {
    key: KeyPair,
    /// Signing and issuing certificate in PEM.
    pub chain: String,
    /// Lower-case hex SHA-256 of the key's SubjectPublicKeyInfo.
    pub key_id: String,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

impl Signer {
    /// From a chain and the key of its first certificate.
    pub fn load(chain: &str, key: &KeyPem) -> Result<Self, Error> {
        let key = KeyPair::from_pem(&key.0)?;
        let spki = key.subject_public_key_info();
        if !certificate::first(chain, |leaf| leaf.public_key().raw == spki)? {
            return Err(Error::Unreadable("the signing certificate is not of the key beside it".to_owned()));
        }
        Ok(Self { key, chain: chain.to_owned(), key_id: liaison_records::statement::key_id(&spki) })
    }

    /// Signs bytes: ECDSA P-256 with SHA-256, in DER.
    pub fn sign(&self, bytes: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(self.key.sign(bytes)?)
    }
}
