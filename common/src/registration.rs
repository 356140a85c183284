//! Registrations of estimators: what twin and hub say to each other, and what the bucket
//! [`ESTIMATORS_BUCKET`](crate::subjects::ESTIMATORS_BUCKET) holds, in JSON.

use serde::{Deserialize, Serialize};

use crate::{
    files::FileRef,
    name::{BatteryName, EstimatorName},
};

/// The request on [`REGISTER`](crate::subjects::REGISTER).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Register {
    /// The battery, which the hub must know.
    pub battery: BatteryName,
    /// The name within the battery; one already there is replaced.
    #[serde(default)]
    pub estimator: EstimatorName,
    /// The estimator's document or script, already checked by the twin.
    pub definition: String,
    /// Rows with `test_time` below this, in seconds, are not used.
    #[serde(default)]
    pub valid_from: f64,
    /// Span of history in seconds that a script's offline estimation needs; 0 for none.
    #[serde(default)]
    pub required_time: f64,
    /// Companion files of a script; the twin has put them into the object store.
    #[serde(default)]
    pub files: Vec<FileRef>,
}

/// The request on [`DEREGISTER`](crate::subjects::DEREGISTER).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Deregister {
    /// The battery.
    pub battery: BatteryName,
    /// The estimator to remove.
    pub estimator: EstimatorName,
}

/// A registration as the hub keeps it; a removed one stays as a tombstone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Registration {
    /// The battery.
    pub battery: BatteryName,
    /// The estimator's name within the battery.
    pub estimator: EstimatorName,
    /// Raised by every change of any registration and never used again.
    pub revision: i64,
    /// The estimator's document or script; empty in a tombstone.
    pub definition: String,
    /// Rows with `test_time` below this, in seconds, are not used.
    pub valid_from: f64,
    /// Span of history in seconds that a script's offline estimation needs; 0 for none.
    #[serde(default)]
    pub required_time: f64,
    /// Companion files of a script, which the object store holds.
    #[serde(default)]
    pub files: Vec<FileRef>,
    /// Whether this is a tombstone.
    pub deleted: bool,
    /// When the hub committed it, in microseconds since 1970.
    pub changed: i64,
}

/// The hub's answer to both requests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Reply {
    /// The change is committed.
    Done(Box<Registration>),
    /// No such battery or estimator.
    NotFound {
        /// What was looked for.
        detail: String,
    },
    /// The request cannot be taken.
    Refused {
        /// Why.
        detail: String,
    },
    /// The database is away; asking again later may succeed.
    Unavailable {
        /// What the hub was told.
        detail: String,
    },
}
