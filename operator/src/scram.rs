//! The SCRAM-SHA-256 verifier that PostgreSQL stores for a role (RFC 5802, RFC 7677).
//!
//! Pure. A verifier lets nobody log in, so the seed Job and the store never see the reader's password.

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// Iterations: PostgreSQL's own default, RFC 7677's minimum. The passwords are 32 random bytes, so no more is needed.
pub const ITERATIONS: u32 = 4096;

/// `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`, as `pg_authid.rolpassword` holds it.
///
/// The password must be ASCII, for which SASLprep is the identity.
pub fn verifier(password: &str, salt: &[u8; 16]) -> String {
    let salted = pbkdf2(password.as_bytes(), salt);
    let stored = Sha256::digest(mac(&salted, b"Client Key"));
    let server = mac(&salted, b"Server Key");
    format!(
        "SCRAM-SHA-256${ITERATIONS}:{}${}:{}",
        STANDARD.encode(salt),
        STANDARD.encode(stored),
        STANDARD.encode(server)
    )
}

/// `Hi()` of RFC 5802: one block of PBKDF2.
fn pbkdf2(password: &[u8], salt: &[u8; 16]) -> [u8; 32] {
    let mut first = salt.to_vec();
    first.extend_from_slice(&1_u32.to_be_bytes());
    let mut block = mac(password, &first);
    let mut sum = block;
    for _ in 1..ITERATIONS {
        block = mac(password, &block);
        sum.iter_mut().zip(block).for_each(|(sum, byte)| *sum ^= byte);
    }
    sum
}

fn mac(key: &[u8], text: &[u8]) -> [u8; 32] {
    // HMAC takes a key of any length; the error type exists for ciphers that do not.
    match Hmac::<Sha256>::new_from_slice(key) {
        Ok(mut hmac) => {
            hmac.update(text);
            hmac.finalize().into_bytes().into()
        }
        Err(_) => [0; 32],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_7677() {
        let salt: [u8; 16] = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap().try_into().unwrap();
        let salted = pbkdf2(b"pencil", &salt);
        let client_key = mac(&salted, b"Client Key");
        let stored: [u8; 32] = Sha256::digest(client_key).into();
        let auth = b"n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let signature = mac(&stored, auth);
        let proof: Vec<u8> = client_key.iter().zip(signature).map(|(a, b)| a ^ b).collect();
        assert_eq!(STANDARD.encode(proof), "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=");
        assert_eq!(
            STANDARD.encode(mac(&mac(&salted, b"Server Key"), auth)),
            "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
        );
    }
}
