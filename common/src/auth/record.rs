//! What the hub tells every service of tokens and of batteries, over the bucket `rovi_access`.

use serde::{Deserialize, Serialize};

use sha2::{Digest as _, Sha256};

use super::{
    role::{Grant, Word},
    secret::{Digest, hex},
};
use crate::name::BatteryName;

/// A token as services know it: everything but the token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// Its id, which is no secret.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// The digest of the token.
    pub digest: Digest,
    /// What its bearer may do.
    pub grants: Vec<Grant>,
    /// Until when it counts, in microseconds since 1970.
    pub expires: Option<i64>,
    /// When it was revoked, in microseconds since 1970.
    pub revoked: Option<i64>,
    /// Raised by every change of any token and never used again.
    pub revision: i64,
}

/// To whom a battery belongs, by its name, also before it exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// The battery.
    pub battery: BatteryName,
    /// Its tenant, if it has one that its name does not tell.
    pub tenant: Option<Word>,
    /// Its tags.
    pub tags: Vec<Word>,
}

/// JWTs that do not count any more, whatever they say: one by its `jti`, or those that an issuer gave
/// somebody before a moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// What it is called here: made of `jti` or `subject`.
    pub id: String,
    /// `jti` of the one.
    pub jti: Option<String>,
    /// `sub` of those, where it is not one.
    pub subject: Option<String>,
    /// Those with an `iat` before this, in microseconds since 1970, or with none.
    pub issued_before: Option<i64>,
    /// Raised by every change and never used again.
    pub revision: i64,
}

/// What tells one JWT from others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JwtIdentity {
    /// `jti`, where it has one.
    pub jti: Option<String>,
    /// `sub`.
    pub subject: String,
    /// `iat` in microseconds since 1970, where it has one.
    pub issued: Option<i64>,
}

impl Revocation {
    /// What the revocation of a `jti` is called.
    pub fn id_of_jti(jti: &str) -> String {
        format!("jti-{}", hex(&Sha256::digest(jti)))
    }

    /// What the revocation of a subject's JWTs is called.
    pub fn id_of_subject(subject: &str) -> String {
        format!("sub-{}", hex(&Sha256::digest(subject)))
    }

    /// Whether it is about a JWT, whose identity leads here by one of the names above.
    pub fn covers(&self, jwt: &JwtIdentity) -> bool {
        let Some(before) = self.issued_before else {
            return true;
        };
        jwt.issued.is_none_or(|issued| issued < before)
    }
}

/// Stands in the bucket once all there is was written to it, which may take a while where the bus
/// lost it.
pub const WHOLE: &str = "whole";

/// Where a revocation stands in the bucket.
pub fn revocation_key(id: &str) -> String {
    format!("revoked.{id}")
}

/// Where a token stands in the bucket.
pub fn token_key(id: &str) -> String {
    format!("token.{id}")
}

/// Where a battery stands in the bucket.
pub fn placement_key(battery: &BatteryName) -> String {
    format!("battery.{battery}")
}
