//! Registrations of estimators: what twin and hub say to each other, and what the bucket
//! [`ESTIMATORS_BUCKET`](crate::subjects::ESTIMATORS_BUCKET) holds, in JSON.

use std::sync::Arc;

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

/// The request on [`CONTROL`](crate::subjects::CONTROL).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Control {
    /// The battery.
    pub battery: BatteryName,
    /// One of its estimators.
    pub estimator: EstimatorName,
    /// What is to be done with it.
    pub action: Action,
}

/// What can be done with a registered estimator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It becomes the battery's champion and runs on.
    Promote,
    /// It takes no rows until it is resumed.
    Pause,
    /// It goes on behind the last row it took.
    Resume,
    /// It starts anew, from the first row, under a new revision.
    Reset,
}

/// Which estimator of a battery is its champion, the one whose numbers count, from which row on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Champion {
    /// Raised by every change of any champion; the greatest of a battery is in force.
    pub era: i64,
    /// The estimator; nothing where none is registered that could be it.
    #[schema(value_type = Option<String>)]
    pub estimator: Option<EstimatorName>,
    /// The epoch of the first row that it is champion for.
    pub epoch: i64,
    /// The first row that it is champion for.
    pub from_seq: i64,
}

/// How an estimator stands besides what it was registered with.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Standing {
    /// Raised by every change, also by those under which the estimator runs on.
    pub version: i64,
    /// Whether it takes no rows.
    pub paused: bool,
    /// What the last change was: `registered`, `replaced`, `removed`, `promoted`, `paused`,
    /// `resumed` or `reset`.
    pub change: String,
    /// The battery's champion as of this change.
    pub champion: Option<Champion>,
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
    /// The estimator's document or script; empty in a tombstone. A fleet has few different ones.
    pub definition: Arc<str>,
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
    /// How it stands.
    #[serde(flatten)]
    pub standing: Standing,
}

impl Registration {
    /// Returns what orders the states of one registration; a hub of before says only the revision.
    pub fn version(&self) -> i64 {
        self.standing.version.max(self.revision)
    }

    /// Whether an estimator that runs under the one need not stop for the other.
    pub fn runs_like(&self, other: &Self) -> bool {
        (self.revision, self.standing.paused, self.deleted)
            == (other.revision, other.standing.paused, other.deleted)
    }
}

/// The hub's answer to these requests.
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
    /// The request does not fit how things stand.
    Conflict {
        /// Why not, and what to do.
        detail: String,
    },
    /// The database is away; asking again later may succeed.
    Unavailable {
        /// What the hub was told.
        detail: String,
    },
}
