//! One estimate computed anew from the rows of the table, by the same code as the service's.
//!
//! Rows are read twice: first to find those that came late, up to where no later one can have its
//! place before the estimate's row; then to be dealt with in the order of processing.

use std::sync::Arc;

use rovi_common::{
    frame::{EstimateFrame, RowFrame},
    registration::Registration,
    rows::Columns,
};
use rovi_python::{Python, ScriptFile};

use crate::{
    ahead::Ahead,
    documents::Documents,
    estimates::{Outbox, Sender},
    filter::Rules,
    inputs::Inputs,
    python::ScriptSource,
    runner::{Definition, Failure, Runner},
};

/// What a script needs besides its text.
#[derive(Debug)]
pub struct ScriptParts {
    /// What runs it.
    pub python: Arc<Python>,
    /// Its files.
    pub files: Vec<ScriptFile>,
    /// The battery's metadata.
    pub metadata: Option<serde_json::Value>,
}

/// The estimate after one row, on the way to be computed.
#[derive(Debug)]
pub struct Reproduction {
    seq: i64,
    ahead: Ahead,
    /// Place of the row: its segment and `test_time`.
    place: Option<(i32, f64)>,
    runner: Runner,
    outbox: Outbox,
}

impl Reproduction {
    /// Prepares to compute the estimate after row `seq` of an epoch, of which rows could be late by
    /// `horizon` seconds.
    ///
    /// # Errors
    /// [`Failure`]: the definition cannot be run.
    pub fn new(
        registration: &Registration,
        script: Option<ScriptParts>,
        (epoch, seq): (i64, i64),
        horizon: f64,
    ) -> Result<Self, Failure> {
        let (definition, _) =
            Definition::of(registration, &Documents::default()).map_err(Failure::Other)?;
        let definition = match (definition, script) {
            (Definition::Python(_), Some(parts)) => {
                Definition::Python(Arc::new(ScriptSource::prepared(registration, parts)?))
            }
            (definition, _) => definition,
        };
        let rules = Rules {
            valid_from: registration.valid_from,
            horizon,
        };
        let runner = definition.begin(rules, epoch);
        let sender = Sender {
            battery: registration.battery.clone(),
            estimator: registration.estimator.clone(),
            revision: registration.revision,
            generation: 0,
        };
        let outbox = match runner.native() {
            Some(_) => Outbox::with_health(sender, Arc::clone(runner.state_names())),
            None => Outbox::new(sender, Arc::clone(runner.state_names())),
        };
        Ok(Self {
            seq,
            ahead: Ahead::new(rules, epoch),
            place: None,
            runner,
            outbox,
        })
    }

    /// Looks for late rows among the next ones; tells whether all that matter are found.
    pub fn look(&mut self, frames: &[Arc<RowFrame>]) -> bool {
        self.ahead.look(frames);
        for frame in frames {
            let row = usize::try_from(self.seq - frame.first_seq).ok();
            let time = row.and_then(|row| Inputs::of(frame).test_time.read(row).ok());
            if let Some(time) = time.filter(|_| self.seq <= frame.last_seq()) {
                self.place = Some((frame.segment, time));
            }
        }
        self.place
            .is_some_and(|place| self.ahead.has_all_before(place))
    }

    /// Takes the next rows, from the first on; returns the columns of the estimate once it is made.
    ///
    /// # Errors
    /// [`Failure`], only of scripts.
    pub fn take(&mut self, frames: &[Arc<RowFrame>]) -> Result<Option<Columns>, Failure> {
        for frame in frames {
            self.ahead.take(&mut self.runner, frame, &mut self.outbox)?;
            for bytes in self.outbox.take().0 {
                let said = EstimateFrame::decode(&bytes)
                    .map_err(|error| Failure::Other(error.to_string()))?;
                if let Some(columns) = row_of(said, self.seq) {
                    return Ok(Some(columns));
                }
            }
        }
        Ok(None)
    }
}

fn row_of(mut said: EstimateFrame, seq: i64) -> Option<Columns> {
    let place = said.seq.iter().position(|known| *known == seq)?;
    let mut columns = said.columns.split_off(place);
    drop(columns.split_off(1));
    Some(columns)
}
