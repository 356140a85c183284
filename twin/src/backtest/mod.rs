//! Candidates over stored history: a definition that was sent along, or a registered estimator,
//! runs over a battery's rows at full speed beside the champion, and both are compared.
//!
//! `job` starts and ends a backtest, `engine` runs it, `read` has the rows, `store` keeps what is
//! known of it on the bus, where every twin finds it. A backtest ends with the twin that runs it; its
//! record then says so. It writes no estimates and touches no estimator that is registered.

mod engine;
mod figures;
mod job;
mod lane;
mod read;
mod store;

use rovi_common::{
    name::{BatteryName, EstimatorName},
    registration::Register,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use self::{
    engine::Comparison,
    figures::{Consistency, Side, VoltageError},
    store::Backtests,
};
pub(crate) use self::{
    job::{Asked, start},
    store::StoreError,
};

/// How a backtest stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Rows are being read.
    Running,
    /// The comparison is there.
    Done,
    /// It cannot be done; `error` says why.
    Failed,
    /// Somebody ended it.
    Cancelled,
    /// The twin that ran it is gone: it has to be started again.
    Lost,
}

impl State {
    /// The name in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Lost => "lost",
        }
    }
}

/// A backtest, as far as it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Backtest {
    /// Its name.
    pub id: String,
    /// Whose rows are read.
    #[schema(value_type = String)]
    pub battery: BatteryName,
    /// How it stands.
    pub state: State,
    /// The registered estimator that is the candidate, or the name that a definition was sent with.
    #[schema(value_type = Option<String>)]
    pub candidate: Option<EstimatorName>,
    /// The revision of the registered candidate; 0 of a definition that was sent along.
    pub revision: i64,
    /// The estimator that was champion at the start.
    #[schema(value_type = Option<String>)]
    pub champion: Option<EstimatorName>,
    /// The epoch of the rows.
    pub epoch: i64,
    /// The first and the last row.
    pub seq: [i64; 2],
    /// Rows read and stepped over.
    pub rows_done: u64,
    /// Rows to be read.
    pub rows_total: u64,
    /// Rows a second so far.
    pub rows_per_s: f64,
    /// When it began, in microseconds since 1970.
    pub started: i64,
    /// When it was last heard of, in microseconds since 1970.
    pub updated: i64,
    /// The instance of the twin that runs it.
    pub by: String,
    /// Why it failed, was lost or ended.
    pub error: Option<String>,
    /// What was found.
    pub result: Option<Comparison>,
}

/// What a backtest keeps besides, so that its candidate can be registered.
pub(crate) type Candidate = Register;
