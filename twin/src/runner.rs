//! The one seam between native estimators and scripts: what `run.rs` drives.

use std::sync::Arc;

use rovi_common::{frame::RowFrame, registration::Registration};
use rovi_estimation::{Document, Snapshot};
use rovi_python::is_script;
use serde::{Deserialize, Serialize};

use crate::{
    documents::Documents,
    estimates::Outbox,
    filter::{Filter, Position, Progress, Rules},
    fleet::Shared,
    python::{PythonFilter, PythonState, ScriptSource},
};

/// What a registration defines.
#[derive(Debug, Clone)]
pub enum Definition {
    /// A native document.
    Native(Arc<Document>),
    /// A Python script.
    Python(Arc<ScriptSource>),
}

/// The exact state of an estimator, in a checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Saved {
    /// Of a native estimator.
    Native(Box<Snapshot>),
    /// Of a script.
    Python(PythonState),
}

/// Why an estimator cannot go on from where it is; it is started again from its last checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The script raised an error, perhaps because of the state that it was given.
    #[error("{0}")]
    Raised(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// An estimator on its way through the rows of a battery.
#[derive(Debug)]
pub enum Runner {
    /// A native one.
    Native(Box<Filter>),
    /// A script.
    Python(Box<PythonFilter>),
}

impl Definition {
    /// Reads a registration; also returns what is odd about it, a sentence each.
    ///
    /// # Errors
    /// Why it cannot be run.
    pub fn of(
        registration: &Registration,
        documents: &Documents,
    ) -> Result<(Self, Vec<String>), String> {
        if is_script(&registration.definition) {
            let source = ScriptSource::of(registration);
            return Ok((Self::Python(Arc::new(source)), Vec::new()));
        }
        let (document, warnings) = documents.read(&registration.definition)?;
        Ok((Self::Native(document), warnings))
    }

    /// Returns the names of the states, as far as they are known before the first row.
    pub fn state_names(&self) -> Arc<[String]> {
        match self {
            Self::Native(document) => Arc::clone(document.shared_state_names()),
            Self::Python(_) => Arc::default(),
        }
    }

    /// Makes what a script needs besides its text; a native document needs nothing.
    ///
    /// # Errors
    /// Bus or hub are away, or the files cannot be used.
    pub async fn prepare(&self, shared: &Shared) -> Result<(), Failure> {
        match self {
            Self::Native(_) => Ok(()),
            Self::Python(source) => source.prepare(shared).await,
        }
    }

    /// Begins with the first row of an epoch.
    pub fn begin(&self, rules: Rules, epoch: i64) -> Runner {
        match self {
            Self::Native(document) => {
                Runner::Native(Box::new(Filter::new(Arc::clone(document), rules, epoch)))
            }
            Self::Python(source) => Runner::Python(Box::new(PythonFilter::new(
                Arc::clone(source),
                rules,
                epoch,
            ))),
        }
    }

    /// Goes on from a checkpoint.
    ///
    /// # Errors
    /// The state belongs to another definition.
    pub fn restore(
        &self,
        rules: Rules,
        (saved, progress): (Saved, Progress),
    ) -> Result<Runner, String> {
        match (self, saved) {
            (Self::Native(document), Saved::Native(snapshot)) => {
                Filter::restore(Arc::clone(document), rules, (&snapshot, progress))
                    .map(|filter| Runner::Native(Box::new(filter)))
                    .map_err(|error| error.to_string())
            }
            (Self::Python(source), Saved::Python(state)) => {
                let source = Arc::clone(source);
                let filter = PythonFilter::restore(source, rules, (state, progress));
                Ok(Runner::Python(Box::new(filter)))
            }
            _ => Err("it is of an estimator of another kind".to_owned()),
        }
    }
}

impl Runner {
    /// Whether so many rows are soon done, so that no other task waits.
    pub fn is_quick(&self, rows: usize) -> bool {
        /// More rows than this go to a thread that may be blocked.
        const ROWS_ON_ASYNC_THREADS: usize = 32;
        match self {
            Self::Native(_) => rows <= ROWS_ON_ASYNC_THREADS,
            Self::Python(_) => false,
        }
    }

    /// Takes the rows of a frame that were not dealt with before; estimates go into `outbox`.
    ///
    /// # Errors
    /// [`Failure`], only of scripts.
    pub fn take(&mut self, frame: &RowFrame, outbox: &mut Outbox) -> Result<(), Failure> {
        match self {
            Self::Native(filter) => {
                filter.take(frame, outbox);
                Ok(())
            }
            Self::Python(filter) => filter.take(frame, outbox),
        }
    }

    /// Takes a row that came late at its place in the order of time; the position stays.
    ///
    /// # Errors
    /// [`Failure`], only of scripts.
    pub fn insert(&mut self, frame: &RowFrame, outbox: &mut Outbox) -> Result<(), Failure> {
        match self {
            Self::Native(filter) => {
                filter.insert(frame, outbox);
                Ok(())
            }
            Self::Python(filter) => filter.insert(frame, outbox),
        }
    }

    /// Goes on behind rows that were dealt with before or deleted.
    pub fn pass_over(&mut self, seq: i64) {
        match self {
            Self::Native(filter) => filter.pass_over(seq),
            Self::Python(filter) => filter.pass_over(seq),
        }
    }

    /// Returns the state for a checkpoint, or nothing where the estimator begins anew after a restart. Blocks
    /// where it is a script's.
    ///
    /// # Errors
    /// [`Failure`], only of scripts.
    pub fn save(&mut self) -> Result<Option<(Saved, Progress)>, Failure> {
        match self {
            // The rows gathered are read again after a restart.
            Self::Native(filter) if filter.gathered().is_some() => Ok(None),
            Self::Native(filter) => {
                let (snapshot, progress) = filter.save();
                Ok(Some((Saved::Native(Box::new(snapshot)), progress)))
            }
            Self::Python(filter) => Ok(filter
                .save()?
                .map(|(state, progress)| (Saved::Python(state), progress))),
        }
    }

    /// Returns a native estimator.
    pub fn native(&self) -> Option<&Filter> {
        match self {
            Self::Native(filter) => Some(filter),
            Self::Python(_) => None,
        }
    }

    /// Goes on behind rows that nobody holds any more; tells whether there were any.
    pub fn pass_over_gone(&mut self, epoch: i64, up_to: i64) -> bool {
        match self {
            Self::Native(filter) => filter.pass_over_gone(epoch, up_to),
            Self::Python(filter) => filter.pass_over_gone(epoch, up_to),
        }
    }

    /// Returns what is known besides the estimator's state.
    pub fn progress(&self) -> &Progress {
        match self {
            Self::Native(filter) => filter.progress(),
            Self::Python(filter) => filter.progress(),
        }
    }

    /// Returns the last row dealt with.
    pub fn position(&self) -> Position {
        self.progress().position
    }

    /// Returns the names of the states; empty before a script has told them.
    pub fn state_names(&self) -> &Arc<[String]> {
        match self {
            Self::Native(filter) => filter.estimator().state_names(),
            Self::Python(filter) => filter.state_names(),
        }
    }

    /// Returns `test_time` of the last row used, in seconds.
    pub fn latest_time(&self) -> Option<f64> {
        match self {
            Self::Native(filter) => filter.estimator().latest_time(),
            Self::Python(filter) => filter.latest_time(),
        }
    }

    /// Returns mean and covariance of the states.
    pub fn belief(&self) -> (&[f64], &[f64]) {
        match self {
            Self::Native(filter) => (filter.estimator().mean(), filter.estimator().covariance()),
            Self::Python(filter) => filter.belief(),
        }
    }

    /// Returns what is odd about how the estimator runs.
    pub fn warning(&self) -> Option<&str> {
        match self {
            Self::Native(_) => None,
            Self::Python(filter) => filter.warning(),
        }
    }

    /// Starts what runs outside of the service. Blocks where it is a script.
    ///
    /// # Errors
    /// [`Failure`], only of scripts.
    pub fn start(&mut self) -> Result<(), Failure> {
        match self {
            Self::Native(_) => Ok(()),
            Self::Python(filter) => filter.start(),
        }
    }

    /// Returns what breaks off a script's work from another thread.
    pub fn canceller(&self) -> Option<rovi_python::Cancel> {
        match self {
            Self::Native(_) => None,
            Self::Python(filter) => Some(filter.canceller()),
        }
    }
}
