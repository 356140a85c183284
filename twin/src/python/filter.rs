//! Hop 6 of 7 for scripts: rows of one battery in the order of `seq`, in batches to the script's process.
//!
//! Which rows count is decided as for native estimators. The script's process is started by the first row and kept;
//! once it failed nothing more is taken, and a new filter goes on from the last saved state.

use std::{collections::VecDeque, sync::Arc};

use rovi_common::frame::RowFrame;
use rovi_python::{
    Belief, Cancel, Outcome, ROWS_AT_ONCE, Saved, Session, SessionError, Start, Taken,
};
use serde::{Deserialize, Serialize};

use super::ScriptSource;
use crate::{
    estimates::Outbox,
    filter::{Innovation, Position, Progress, Rules},
    inputs::{Inputs, Skip},
    runner::Failure,
};

/// The most rows that are kept for an offline estimation.
const MAX_HISTORY_ROWS: usize = 1_000_000;

/// The state of a script in a checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PythonState {
    /// What the script's process saved: its estimator, pickled and compressed.
    #[serde(with = "serde_bytes")]
    pickled: Vec<u8>,
    latest_time: Option<f64>,
    is_new_segment: bool,
}

/// A row that was handed to the script.
#[derive(Debug, Clone, Copy)]
struct Given {
    epoch: i64,
    seq: i64,
    time: f64,
    voltage: f64,
}

/// One script on its way through the rows of a battery.
#[derive(Debug)]
pub struct PythonFilter {
    source: Arc<ScriptSource>,
    rules: Rules,
    progress: Progress,
    session: Option<Session>,
    cancel: Cancel,
    /// The state to begin with.
    pickled: Option<Vec<u8>>,
    state_names: Arc<[String]>,
    belief: Belief,
    latest_time: Option<f64>,
    /// The next row begins another segment.
    is_new_segment: bool,
    /// Rows that the script keeps for its offline estimation.
    kept: VecDeque<Given>,
    warning: Option<String>,
}

impl PythonFilter {
    /// Returns a filter before the first row of an epoch.
    pub fn new(source: Arc<ScriptSource>, rules: Rules, epoch: i64) -> Self {
        Self {
            source,
            rules,
            progress: Progress::at_start_of(epoch),
            session: None,
            cancel: Cancel::default(),
            pickled: None,
            state_names: Arc::default(),
            belief: Belief::default(),
            latest_time: None,
            is_new_segment: false,
            kept: VecDeque::new(),
            warning: None,
        }
    }

    /// Returns a filter that goes on from a checkpoint.
    pub fn restore(
        source: Arc<ScriptSource>,
        rules: Rules,
        (state, progress): (PythonState, Progress),
    ) -> Self {
        Self {
            pickled: Some(state.pickled),
            latest_time: state.latest_time,
            is_new_segment: state.is_new_segment,
            progress,
            ..Self::new(source, rules, 0)
        }
    }

    /// Starts the script's process where it does not run; blocks.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn start(&mut self) -> Result<(), Failure> {
        if self.session.is_some() {
            return Ok(());
        }
        let ready = self.source.ready()?;
        let start = Start {
            state: self.pickled.as_deref(),
            metadata: ready.metadata.as_ref(),
        };
        let cancel = Cancel::clone(&self.cancel);
        let session = Session::start(&ready.python, &ready.script, start, cancel)?;
        self.pickled = None;
        self.know(&session);
        self.session = Some(session);
        Ok(())
    }

    /// Takes the rows of a frame that were not dealt with before; estimates go into `outbox`. Blocks.
    ///
    /// # Errors
    /// [`Failure`]: the filter is of no use any more.
    pub fn take(&mut self, frame: &RowFrame, outbox: &mut Outbox) -> Result<(), Failure> {
        if frame.epoch > self.progress.position.epoch {
            self.start_over(frame.epoch);
        }
        let position = self.progress.position;
        if frame.epoch < position.epoch || frame.last_seq() <= position.seq {
            return Ok(());
        }
        self.enter(frame.segment);
        self.start()?;
        outbox.name_states(&self.state_names);
        let mut chosen = self.choose(frame, position.seq);
        while !chosen.is_empty() {
            self.take_some(frame, &mut chosen, outbox)?;
        }
        Ok(())
    }

    /// Takes a row that came late at its place in the order of time; the position stays. Blocks.
    ///
    /// # Errors
    /// [`Failure`]: the filter is of no use any more.
    pub fn insert(&mut self, frame: &RowFrame, outbox: &mut Outbox) -> Result<(), Failure> {
        self.enter(frame.segment);
        let (position, largest) = (self.progress.position, self.progress.largest_test_time);
        let first = self.progress.first_seq;
        self.start()?;
        outbox.name_states(&self.state_names);
        let mut chosen = self.choose(frame, 0);
        while !chosen.is_empty() {
            self.take_some(frame, &mut chosen, outbox)?;
        }
        self.progress.position = position;
        self.progress.largest_test_time = largest;
        self.progress.first_seq = first;
        Ok(())
    }

    fn enter(&mut self, segment: i32) {
        if self.progress.segment != Some(segment) {
            self.is_new_segment = self.progress.segment.is_some();
            self.progress.segment = Some(segment);
            self.progress.largest_test_time = None;
        }
    }

    /// Goes on behind rows that were dealt with before or deleted.
    pub fn pass_over(&mut self, seq: i64) {
        self.progress.position.seq = self.progress.position.seq.max(seq);
    }

    /// Finds the rows of a frame behind `after` that count; the others are dealt with by that.
    fn choose(&mut self, frame: &RowFrame, after: i64) -> VecDeque<(usize, Given)> {
        let inputs = Inputs::of(frame);
        let mut chosen = VecDeque::new();
        for (row, seq) in (frame.first_seq..=frame.last_seq()).enumerate() {
            if seq <= after {
                continue;
            }
            self.progress.begin_row(seq);
            match self.check(&inputs, row) {
                Ok((time, voltage)) => {
                    let epoch = frame.epoch;
                    let given = Given {
                        epoch,
                        seq,
                        time,
                        voltage,
                    };
                    chosen.push_back((row, given));
                }
                Err(skip) => self.skip(skip),
            }
        }
        chosen
    }

    fn check(&mut self, inputs: &Inputs<'_>, row: usize) -> Result<(f64, f64), Skip> {
        let time = inputs.test_time.read(row)?;
        self.progress.check_time(time, self.rules)?;
        inputs.current.read(row)?;
        Ok((time, inputs.voltage.read(row)?))
    }

    fn take_some(
        &mut self,
        frame: &RowFrame,
        chosen: &mut VecDeque<(usize, Given)>,
        outbox: &mut Outbox,
    ) -> Result<(), Failure> {
        let rows: Vec<usize> = chosen
            .iter()
            .take(ROWS_AT_ONCE)
            .map(|(row, _)| *row)
            .collect();
        let session = self.session.as_mut().ok_or_else(not_started)?;
        let mut taken = session.take(&frame.columns, &rows, self.is_new_segment)?;
        let done = taken.outcomes.len();
        if done == 0 {
            return Err(Failure::Other(
                "the script took none of its rows".to_owned(),
            ));
        }
        self.is_new_segment = false;
        let is_complete = taken.offline;
        let outcomes = std::mem::take(&mut taken.outcomes);
        for (outcome, (_, given)) in outcomes.into_iter().zip(chosen.drain(..done)) {
            self.apply(outcome, given, outbox);
        }
        self.note_refusal(taken);
        if self.kept.len() > MAX_HISTORY_ROWS {
            let text = format!("`required_time` is not reached within {MAX_HISTORY_ROWS} rows");
            return Err(Failure::Other(text));
        }
        if is_complete {
            self.estimate_offline(outbox)?;
        }
        Ok(())
    }

    /// Lets the script estimate on the rows it kept, and steps over these as if they came now.
    fn estimate_offline(&mut self, outbox: &mut Outbox) -> Result<(), Failure> {
        let mut session = self.session.take().ok_or_else(not_started)?;
        session.estimate_offline()?;
        self.know(&session);
        outbox.name_states(&self.state_names);
        while !self.kept.is_empty() {
            let count = self.kept.len().min(ROWS_AT_ONCE);
            let mut taken = session.replay(count)?;
            for outcome in std::mem::take(&mut taken.outcomes) {
                if let Some(given) = self.kept.pop_front() {
                    self.apply(outcome, given, outbox);
                }
            }
            self.note_refusal(taken);
        }
        self.session = Some(session);
        Ok(())
    }

    fn apply(&mut self, outcome: Outcome, given: Given, outbox: &mut Outbox) {
        match outcome {
            Outcome::Kept => self.kept.push_back(given),
            Outcome::Started => self.latest_time = Some(given.time),
            Outcome::Refused => {
                self.skip(Skip::Refused);
                self.progress.refused(format!("row {}", given.seq));
            }
            Outcome::Stepped { belief, predicted } => {
                self.belief = belief;
                self.latest_time = Some(given.time);
                self.progress.stepped();
                let innovation = predicted.map(|(expected, variance)| {
                    let voltage = given.voltage - expected;
                    let deviation = variance.sqrt();
                    (voltage, deviation)
                });
                self.progress.innovation = innovation.map(|(voltage, deviation)| Innovation {
                    voltage,
                    normalised: voltage / deviation,
                });
                let Belief { mean, covariance } = &self.belief;
                let place = (given.epoch, given.seq, given.time);
                outbox.push_belief(place, (mean, covariance), innovation);
            }
        }
    }

    fn note_refusal(&mut self, taken: Taken) {
        if let (Some(row), Some(text)) = (&mut self.progress.last_refusal, taken.refusal) {
            *row = format!("{row}: {text}");
        }
    }

    fn skip(&mut self, skip: Skip) {
        *self.progress.skipped.entry(skip).or_default() += 1;
    }

    fn know(&mut self, session: &Session) {
        self.state_names = session.state_names().into();
        self.belief.clone_from(session.belief());
    }

    /// Forgets everything: the battery's name began a new life.
    fn start_over(&mut self, epoch: i64) {
        let (source, rules, cancel) = (
            Arc::clone(&self.source),
            self.rules,
            Cancel::clone(&self.cancel),
        );
        *self = Self::new(source, rules, epoch);
        self.cancel = cancel;
    }

    /// Goes on behind rows that nobody holds any more; tells whether there were any.
    pub fn pass_over_gone(&mut self, epoch: i64, up_to: i64) -> bool {
        if epoch > self.progress.position.epoch {
            self.start_over(epoch);
        }
        self.progress.pass_over_gone(epoch, up_to)
    }

    /// Returns the state for a checkpoint, or nothing where the script cannot save one. Blocks.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn save(&mut self) -> Result<Option<(PythonState, Progress)>, Failure> {
        let pickled = match (&mut self.session, &self.pickled) {
            (Some(session), _) => match session.save()? {
                Saved::State(pickled) => pickled,
                Saved::None(why) => {
                    self.warning = Some(format!("after a restart it begins anew: {why}"));
                    return Ok(None);
                }
            },
            (None, Some(pickled)) => pickled.clone(),
            (None, None) => return Ok(None),
        };
        self.warning = None;
        let state = PythonState {
            pickled,
            latest_time: self.latest_time,
            is_new_segment: self.is_new_segment,
        };
        Ok(Some((state, self.progress.clone())))
    }

    /// Returns what is known besides the estimator's state.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Returns the last row dealt with.
    pub fn position(&self) -> Position {
        self.progress.position
    }

    /// Returns the names of the states; empty before the script has told them.
    pub fn state_names(&self) -> &Arc<[String]> {
        &self.state_names
    }

    /// Returns `test_time` of the last row used, in seconds.
    pub fn latest_time(&self) -> Option<f64> {
        self.latest_time
    }

    /// Returns mean and covariance, empty before there are any.
    pub fn belief(&self) -> (&[f64], &[f64]) {
        (&self.belief.mean, &self.belief.covariance)
    }

    /// Returns why the script's state is not saved, if so.
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    /// Returns what breaks off the filter's work from another thread.
    pub fn canceller(&self) -> Cancel {
        Cancel::clone(&self.cancel)
    }
}

fn not_started() -> Failure {
    Failure::Other("the script does not run".to_owned())
}

impl From<SessionError> for Failure {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::Raised { .. } => Self::Raised(error.to_string()),
            _ => Self::Other(error.to_string()),
        }
    }
}
