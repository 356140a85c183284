//! What the hub tells every service of tokens and of batteries, over the bucket `rovi_access`.

use serde::{Deserialize, Serialize};

use super::{
    role::{Grant, Word},
    secret::Digest,
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

/// Where a token stands in the bucket.
pub fn token_key(id: &str) -> String {
    format!("token.{id}")
}

/// Where a battery stands in the bucket.
pub fn placement_key(battery: &BatteryName) -> String {
    format!("battery.{battery}")
}
