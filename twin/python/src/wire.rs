//! What is said to `driver.py`, in msgpack.
//!
//! Not JSON: rows hold NaN, replies hold bytes, and every float has to arrive with the bits that left.

use rovi_common::rows::Columns;
use serde::{Deserialize, Serialize};

/// A request; `do` names the method of the driver.
#[derive(Debug, Serialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub(crate) enum Request<'a> {
    /// Runs the script and makes its estimator, or reads a saved one.
    Load {
        script: &'a str,
        required_time: f64,
        state: Option<&'a serde_bytes::Bytes>,
        metadata: Option<&'a serde_json::Value>,
    },
    /// Takes the rows `take` of the columns; `segment`: the first of them begins another test.
    Rows {
        columns: &'a Columns,
        take: &'a [usize],
        segment: bool,
    },
    /// Runs the offline estimation on the rows kept so far.
    Offline {},
    /// Steps over the next kept rows.
    Replay { count: usize },
    /// Returns the state.
    Save {},
}

/// A reply.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reply<T> {
    /// What was asked for.
    Ok(T),
    /// The traceback of what the script raised.
    Error(String),
}

/// The answer to [`Request::Load`] and [`Request::Offline`].
#[derive(Debug, Deserialize)]
pub(crate) struct Loaded {
    /// Names of the states; empty while the history is incomplete.
    pub(crate) states: Vec<String>,
    /// Mean and covariance as little-endian floats; empty before there is a belief.
    #[serde(with = "serde_bytes")]
    pub(crate) belief: Vec<u8>,
}

/// The answer to [`Request::Rows`] and [`Request::Replay`].
#[derive(Debug, Deserialize)]
pub(crate) struct Rows {
    /// One code for each row taken.
    #[serde(with = "serde_bytes")]
    pub(crate) outcomes: Vec<u8>,
    /// For each step mean, covariance, predicted voltage and its variance, as little-endian floats.
    #[serde(with = "serde_bytes", default)]
    pub(crate) values: Vec<u8>,
    /// The traceback of the last row that the estimator refused.
    #[serde(default)]
    pub(crate) refusal: Option<String>,
    /// The history is complete.
    #[serde(default)]
    pub(crate) offline: bool,
}

/// The answer to [`Request::Save`].
#[derive(Debug, Deserialize)]
pub(crate) struct State {
    #[serde(with = "serde_bytes", default)]
    pub(crate) state: Option<Vec<u8>>,
    /// Why there is none.
    #[serde(default)]
    pub(crate) why: Option<String>,
}

/// Reads little-endian floats.
pub(crate) fn floats(bytes: &[u8]) -> Vec<f64> {
    let (chunks, _rest) = bytes.as_chunks::<8>();
    chunks
        .iter()
        .map(|chunk| f64::from_le_bytes(*chunk))
        .collect()
}
