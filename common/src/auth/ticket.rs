//! Tickets: for half a minute and one connection, in place of a token that a browser cannot send.
//!
//! `rovi-ticket.<what>.<signature>`, both in hexadecimal digits: who it is for, until when, and a
//! number used once. The key comes of the services' own token, so each service verifies alone.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use ring::hmac;
use serde::{Deserialize, Serialize};

use super::{
    record::JwtIdentity,
    role::Grant,
    secret::{NoRandomBytes, hex, random},
};
use crate::clock;

/// How long a ticket counts.
pub const TICKET_S: i64 = 30;
/// What every ticket begins with.
pub const PREFIX: &str = "rovi-ticket.";
/// Tickets that are remembered as used; each service has room for so many in half a minute.
const MAX_USED: usize = 100_000;

/// Who a ticket is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Bearer {
    /// The bearer of an API token, by its id; it must still count.
    Token(String),
    /// Somebody whom an issuer or a file named, with what they may do and until when.
    Named {
        name: String,
        grants: Vec<Grant>,
        expires: Option<i64>,
        #[serde(default)]
        jwt: Option<JwtIdentity>,
    },
}

/// Why a ticket is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotTaken {
    /// It is none of ours.
    Forged,
    /// It was taken before, or is too old.
    Spent,
}

#[derive(Debug, Serialize, Deserialize)]
struct Content {
    bearer: Bearer,
    until: i64,
    nonce: String,
}

/// Makes and takes tickets.
pub(super) struct Tickets {
    key: hmac::Key,
    used: Mutex<HashMap<String, i64>>,
}

impl std::fmt::Debug for Tickets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tickets")
    }
}

impl Tickets {
    /// Derives the key from the services' own token.
    pub(super) fn new(service_token: &str) -> Self {
        let own = hmac::Key::new(hmac::HMAC_SHA256, service_token.as_bytes());
        let derived = hmac::sign(&own, b"rovi tickets 1");
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref()),
            used: Mutex::default(),
        }
    }

    /// Makes a ticket.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub(super) fn make(&self, bearer: Bearer) -> Result<String, NoRandomBytes> {
        let content = Content {
            bearer,
            until: clock::now_us() + TICKET_S * 1_000_000,
            nonce: random::<16>()?,
        };
        let content = serde_json::to_vec(&content).unwrap_or_default();
        let signature = hmac::sign(&self.key, &content);
        Ok(format!(
            "{PREFIX}{}.{}",
            hex(&content),
            hex(signature.as_ref())
        ))
    }

    /// Takes a ticket, once.
    ///
    /// # Errors
    /// See [`NotTaken`].
    pub(super) fn take(&self, ticket: &str) -> Result<Bearer, NotTaken> {
        let content = self.read(ticket).ok_or(NotTaken::Forged)?;
        let now = clock::now_us();
        if content.until < now {
            return Err(NotTaken::Spent);
        }
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if used.len() >= MAX_USED {
            used.retain(|_, until| *until >= now);
        }
        let is_new = used.len() < MAX_USED && used.insert(content.nonce, content.until).is_none();
        is_new.then_some(content.bearer).ok_or(NotTaken::Spent)
    }

    /// Reads a ticket of ours.
    fn read(&self, ticket: &str) -> Option<Content> {
        let (content, signature) = ticket.strip_prefix(PREFIX)?.split_once('.')?;
        let (content, signature) = (unhex(content)?, unhex(signature)?);
        hmac::verify(&self.key, &content, &signature).ok()?;
        serde_json::from_slice(&content).ok()
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    let pairs = digits.chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    let digit = |c: u8| {
        char::from(c)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    let byte = |pair: &[u8]| match pair {
        [high, low] => Some(digit(*high)? * 16 + digit(*low)?),
        _ => None,
    };
    pairs.map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_counts_once_and_only_where_the_services_token_is_the_same() {
        let (hub, twin) = (Tickets::new("secret"), Tickets::new("secret"));
        let bearer = || Bearer::Token("1".to_owned());
        let ticket = hub.make(bearer()).unwrap();
        assert_eq!(Tickets::new("other").take(&ticket), Err(NotTaken::Forged));
        assert_eq!(twin.take(&ticket), Ok(bearer()));
        assert_eq!(twin.take(&ticket), Err(NotTaken::Spent));
        let mut forged = ticket;
        forged.replace_range(PREFIX.len()..PREFIX.len() + 2, "00");
        assert_eq!(hub.take(&forged), Err(NotTaken::Forged));
    }
}
