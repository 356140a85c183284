//! API tokens as their owners hold them: `rovi_<id>_<secret>`, both in hexadecimal digits.
//!
//! The secret has 256 random bits, so that a plain SHA-256 of the token keeps it: there is nothing
//! to guess that a slow hash would make dearer. Only the digest is stored.

use std::fmt;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;

/// What every token begins with, for scanners of leaked secrets.
pub const PREFIX: &str = "rovi_";
const ID_BYTES: usize = 8;
const SECRET_BYTES: usize = 32;

/// The system gives no random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random bytes")]
pub struct NoRandomBytes;

/// The SHA-256 of a token.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(String);

impl Digest {
    /// Digests a token.
    pub fn of(token: &str) -> Self {
        Self(hex(&Sha256::digest(token)))
    }

    /// Takes a digest that was stored, in hexadecimal digits.
    pub fn stored(text: String) -> Self {
        Self(text)
    }

    /// Returns the digest in hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the digest of a token; takes the same time whatever differs.
    pub fn is_of(&self, token: &str) -> bool {
        let other = Self::of(token);
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl PartialEq for Digest {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl Eq for Digest {}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(…)")
    }
}

/// A token as its bearer holds it; it never shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Takes a token over.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// Returns the token, for showing it to a service only.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Makes a token; returns its id and the token, which is to be shown once.
///
/// # Errors
/// The system gives no random bytes.
pub fn new_token() -> Result<(String, String), NoRandomBytes> {
    let id = random::<ID_BYTES>()?;
    let secret = random::<SECRET_BYTES>()?;
    let token = format!("{PREFIX}{id}_{secret}");
    Ok((id, token))
}

/// Returns the id of a token, if it has the form of one.
pub fn id_of(token: &str) -> Option<&str> {
    let (id, secret) = token.strip_prefix(PREFIX)?.split_once('_')?;
    let is_hex = |text: &str, bytes: usize| {
        text.len() == 2 * bytes && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
    };
    (is_hex(id, ID_BYTES) && is_hex(secret, SECRET_BYTES)).then_some(id)
}

/// Returns the headers by which a client shows a token.
pub fn headers(token: Option<&str>) -> HeaderMap {
    let value = token.and_then(|token| HeaderValue::from_str(&format!("Bearer {token}")).ok());
    let shown = value.map(|mut value| {
        value.set_sensitive(true);
        (AUTHORIZATION, value)
    });
    shown.into_iter().collect()
}

/// Returns random bytes in hexadecimal digits.
///
/// # Errors
/// The system gives no random bytes.
pub fn random<const BYTES: usize>() -> Result<String, NoRandomBytes> {
    let mut bytes = [0; BYTES];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_unspecified| NoRandomBytes)?;
    Ok(hex(&bytes))
}

/// Writes bytes in hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _always_works = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_by_its_id_and_its_digest() {
        let (id, token) = new_token().unwrap();
        assert_eq!(id_of(&token), Some(id.as_str()));
        assert!(Digest::of(&token).is_of(&token));
        let (_, other) = new_token().unwrap();
        assert!(!Digest::of(&token).is_of(&other));
        assert_ne!(token, other);
    }

    #[test]
    fn what_has_not_the_form_of_a_token_is_none() {
        let (_, token) = new_token().unwrap();
        for text in [
            "",
            "rovi_",
            "rovi_ab_cd",
            token.trim_start_matches('r'),
            &token.to_uppercase(),
        ] {
            assert_eq!(id_of(text), None, "{text}");
        }
    }

    #[test]
    fn a_digest_never_shows() {
        assert_eq!(format!("{:?}", Digest::of("x")), "Digest(…)");
    }
}
