//! One script at work: rows in, beliefs out, its state saved and read again.
//!
//! Requests to `driver.py` are maps with the key `do`: `load`, `rows`, `offline`, `replay`, `save`; replies are
//! `{"ok": …}` or `{"error": traceback}`. A script with `required_time` first keeps rows until they span that time;
//! then [`Taken::offline`] asks for [`Session::estimate_offline`], after which the kept rows are stepped over by
//! [`Session::replay`] as if they came now.

use std::time::Duration;

use rovi_common::{msgpack, rows::Columns};
use serde::de::DeserializeOwned;

use crate::{
    process::{Cancel, Process, ProcessError},
    python::Python,
    script::Script,
    settings::{Limits, Unavailable},
    wire::{Loaded, Reply, Request, Rows, State, floats},
};

/// The most bytes of a saved state, compressed.
pub const MAX_STATE_BYTES: usize = 16 << 20;
/// The most rows of one request, so that time limits hold for few rows.
pub const ROWS_AT_ONCE: usize = 64;

/// What a session begins with.
#[derive(Debug, Clone, Copy, Default)]
pub struct Start<'a> {
    /// A state that [`Session::save`] returned for the same script.
    pub state: Option<&'a [u8]>,
    /// The battery's metadata, for offline estimation.
    pub metadata: Option<&'a serde_json::Value>,
}

/// Why a script gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// No script can be run here.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The script raised an error outside of a step.
    #[error("the script fails {what}:\n{traceback}")]
    Raised {
        /// When.
        what: &'static str,
        /// What Python says.
        traceback: String,
    },
    /// Its process failed.
    #[error(transparent)]
    Process(ProcessError),
}

impl From<ProcessError> for SessionError {
    fn from(error: ProcessError) -> Self {
        match error {
            ProcessError::NotConfined(missing) => {
                Self::Unavailable(Unavailable::Sandbox { missing })
            }
            other => Self::Process(other),
        }
    }
}

/// A mean and its covariance.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Belief {
    /// Shape `[n]`; empty before there is a belief.
    pub mean: Vec<f64>,
    /// Shape `[n, n]`, row-major.
    pub covariance: Vec<f64>,
}

/// What became of a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It only starts the estimator, or a segment.
    Started,
    /// It made a step.
    Stepped {
        /// The belief after it.
        belief: Belief,
        /// The voltage expected before it and its variance, in V and V², where the estimator tells.
        predicted: Option<(f64, f64)>,
    },
    /// The estimator raised an error.
    Refused,
    /// It is kept for the offline estimation.
    Kept,
}

/// What became of several rows.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Taken {
    /// One for each row dealt with; fewer than asked for where `offline` is set.
    pub outcomes: Vec<Outcome>,
    /// The traceback of the last row that was refused.
    pub refusal: Option<String>,
    /// The history is complete: [`Session::estimate_offline`] is next.
    pub offline: bool,
}

/// A saved state, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Saved {
    /// To be handed to [`Start::state`].
    State(Vec<u8>),
    /// Why the estimator has to begin anew after a restart.
    None(String),
}

/// One script in its process. After an error other than [`SessionError::Raised`] it is of no use any more.
#[derive(Debug)]
pub struct Session {
    process: Process,
    limits: Limits,
    states: Vec<String>,
    belief: Belief,
}

impl Session {
    /// Starts a script's process and makes its estimator.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub fn start(
        python: &Python,
        script: &Script,
        start: Start<'_>,
        cancel: Cancel,
    ) -> Result<Self, SessionError> {
        let mut session = Self {
            process: python.start(script, cancel)?,
            limits: python.settings().limits.clone(),
            states: Vec::new(),
            belief: Belief::default(),
        };
        let request = Request::Load {
            script: script.definition(),
            required_time: script.required_time(),
            state: start.state.map(serde_bytes::Bytes::new),
            metadata: start.metadata,
        };
        let limit = ("to load", session.limits.start_timeout);
        let loaded = session.ask(&request, limit)?;
        session.know(loaded)?;
        Ok(session)
    }

    /// Returns the names of the states; empty while a history is incomplete.
    pub fn state_names(&self) -> &[String] {
        &self.states
    }

    /// Returns the belief after the last row.
    pub fn belief(&self) -> &Belief {
        &self.belief
    }

    /// Returns the end of what the script printed.
    pub fn printed(&self) -> String {
        self.process.printed()
    }

    /// Returns the number of the script's process.
    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// Takes the rows `take` of `columns`, at most [`ROWS_AT_ONCE`] of them, each with `test_time`, `current` and
    /// `voltage`; `segment`: the first of them begins another test.
    ///
    /// # Errors
    /// See [`SessionError`]; an error raised by a step only refuses its row.
    pub fn take(
        &mut self,
        columns: &Columns,
        take: &[usize],
        segment: bool,
    ) -> Result<Taken, SessionError> {
        let request = Request::Rows {
            columns,
            take,
            segment,
        };
        self.rows(&request, take.len())
    }

    /// Runs the offline estimation on the kept rows.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub fn estimate_offline(&mut self) -> Result<(), SessionError> {
        let limit = ("for the offline estimation", self.limits.offline_timeout);
        let loaded = self.ask(&Request::Offline {}, limit)?;
        self.know(loaded)
    }

    /// Steps over the next kept rows; the last call has to end with the last of them.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub fn replay(&mut self, count: usize) -> Result<Taken, SessionError> {
        self.rows(&Request::Replay { count }, count)
    }

    /// Returns the state after the last row.
    ///
    /// # Errors
    /// See [`SessionError`]; an estimator that cannot be pickled is no error.
    pub fn save(&mut self) -> Result<Saved, SessionError> {
        let limit = ("to save its state", self.limits.batch_timeout);
        let State { state, why } = self.ask(&Request::Save {}, limit)?;
        Ok(match state {
            Some(state) if state.len() > MAX_STATE_BYTES => Saved::None(format!(
                "its state has {} bytes, at most {MAX_STATE_BYTES} are kept",
                state.len()
            )),
            Some(state) => Saved::State(state),
            None => Saved::None(why.unwrap_or_default()),
        })
    }

    fn rows(&mut self, request: &Request<'_>, most: usize) -> Result<Taken, SessionError> {
        let limit = ("for a batch of rows", self.limits.batch_timeout);
        let rows: Rows = self.ask(request, limit)?;
        if rows.outcomes.len() > most || (rows.outcomes.len() < most && !rows.offline) {
            return Err(garbled("other rows than were sent"));
        }
        let states = self.states.len();
        let values = floats(&rows.values);
        let mut steps = values.chunks_exact(states + states * states + 2);
        let mut outcomes = Vec::with_capacity(rows.outcomes.len());
        for kind in rows.outcomes {
            outcomes.push(match kind {
                0 => Outcome::Started,
                1 => {
                    let step = steps.next().ok_or_else(|| garbled("too few numbers"))?;
                    stepped(step, states)
                }
                2 => Outcome::Refused,
                3 => Outcome::Kept,
                _ => return Err(garbled("an unknown outcome")),
            });
        }
        let last = outcomes.iter().rev().find_map(|outcome| match outcome {
            Outcome::Stepped { belief, .. } => Some(belief),
            _ => None,
        });
        if let Some(belief) = last {
            self.belief.clone_from(belief);
        }
        Ok(Taken {
            outcomes,
            refusal: rows.refusal,
            offline: rows.offline,
        })
    }

    fn know(&mut self, loaded: Loaded) -> Result<(), SessionError> {
        let values = floats(&loaded.belief);
        let states = loaded.states.len();
        if !values.is_empty() && values.len() != states + states * states {
            return Err(garbled("a belief of another size than its states"));
        }
        let (mean, covariance) = values.split_at(states.min(values.len()));
        self.belief = Belief {
            mean: mean.to_vec(),
            covariance: covariance.to_vec(),
        };
        self.states = loaded.states;
        Ok(())
    }

    fn ask<T: DeserializeOwned>(
        &mut self,
        request: &Request<'_>,
        limit: (&'static str, Duration),
    ) -> Result<T, SessionError> {
        let request =
            rmp_serde::to_vec_named(request).map_err(|error| garbled(&error.to_string()))?;
        let reply = self.process.exchange(&request, limit)?;
        match msgpack::from_slice(&reply) {
            Ok(Reply::Ok(answer)) => Ok(answer),
            Ok(Reply::Error(traceback)) => Err(SessionError::Raised {
                what: limit.0,
                traceback,
            }),
            Err(error) => Err(garbled(&error.to_string())),
        }
    }
}

fn stepped(values: &[f64], states: usize) -> Outcome {
    let (mean, rest) = values.split_at(states);
    let (covariance, predicted) = rest.split_at(states * states);
    let predicted = match predicted {
        [voltage, variance] if !voltage.is_nan() => Some((*voltage, *variance)),
        _ => None,
    };
    Outcome::Stepped {
        belief: Belief {
            mean: mean.to_vec(),
            covariance: covariance.to_vec(),
        },
        predicted,
    }
}

fn garbled(what: &str) -> SessionError {
    SessionError::Process(ProcessError::Garbled(what.to_owned()))
}
