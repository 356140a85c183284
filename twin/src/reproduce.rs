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
    documents::Documents,
    estimates::{Outbox, Sender},
    filter::{Progress, Rules},
    inputs::Inputs,
    order::{Late, LateRow},
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
    rules: Rules,
    scan: Progress,
    /// Place of the row: its segment and `test_time`.
    place: Option<(i32, f64)>,
    found: Vec<LateRow>,
    late: Late,
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
            Some(_) => Outbox::with_health(sender, runner.state_names()),
            None => Outbox::new(sender, runner.state_names()),
        };
        Ok(Self {
            seq,
            rules,
            scan: Progress::at_start_of(epoch),
            place: None,
            found: Vec::new(),
            late: Late::default(),
            runner,
            outbox,
        })
    }

    /// Looks for late rows among the next ones; tells whether all that matter are found.
    pub fn look(&mut self, frames: &[Arc<RowFrame>]) -> bool {
        self.found
            .extend(self.late.find(&self.scan, frames, self.rules));
        for frame in frames {
            self.pass(frame);
        }
        let Some((segment, time)) = self.place else {
            return false;
        };
        let largest = self.scan.largest_test_time;
        self.scan.segment > Some(segment)
            || largest.is_some_and(|largest| largest - time > self.rules.horizon)
    }

    fn pass(&mut self, frame: &RowFrame) {
        if self.scan.segment != Some(frame.segment) {
            (self.scan.segment, self.scan.largest_test_time) = (Some(frame.segment), None);
        }
        let inputs = Inputs::of(frame);
        for (row, seq) in (frame.first_seq..=frame.last_seq()).enumerate() {
            self.scan.position.seq = seq;
            let Ok(time) = inputs.test_time.read(row) else {
                continue;
            };
            if seq == self.seq {
                self.place = Some((frame.segment, time));
            }
            let largest = self.scan.largest_test_time.get_or_insert(time);
            *largest = largest.max(time);
        }
    }

    /// Takes the next rows, from the first on; returns the columns of the estimate once it is made.
    ///
    /// # Errors
    /// [`Failure`], only of scripts.
    pub fn take(&mut self, frames: &[Arc<RowFrame>]) -> Result<Option<Columns>, Failure> {
        for frame in frames {
            // Late rows whose place is not far are enough: so few are known at once.
            let end = largest_of(frame);
            let is_near = |row: &LateRow| !row.follows(Some(frame.segment), end, i64::MAX);
            let (near, far) = std::mem::take(&mut self.found)
                .into_iter()
                .partition(is_near);
            self.found = far;
            self.late.add(near);
            self.late.take(&mut self.runner, frame, &mut self.outbox)?;
            let position = self.runner.position().seq;
            self.late.retain(|seq| seq > position);
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

/// Returns the largest `test_time` of a frame.
fn largest_of(frame: &RowFrame) -> Option<f64> {
    let inputs = Inputs::of(frame);
    let times = (0..frame.received.len()).filter_map(|row| inputs.test_time.read(row).ok());
    times.max_by(f64::total_cmp)
}

fn row_of(mut said: EstimateFrame, seq: i64) -> Option<Columns> {
    let place = said.seq.iter().position(|known| *known == seq)?;
    let mut columns = said.columns.split_off(place);
    drop(columns.split_off(1));
    Some(columns)
}
