//! Hop 6 of 7, the part without a bus: rows of one battery in the order of `seq`, into steps of one
//! estimator.
//!
//! The same rows give the same state and estimates to the last bit, however they were cut into
//! frames and however often the filter was saved and restored in between.

use std::{collections::BTreeMap, sync::Arc};

use rovi_common::frame::RowFrame;
use rovi_estimation::{
    Document, Estimator, Found, Gathering, Observation, RestoreError, Snapshot, Step, StepError,
};
use serde::{Deserialize, Serialize};

use crate::{
    estimates::Outbox,
    inputs::{Inputs, Skip},
};

/// The last row that an estimator has dealt with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// The life of the battery's name.
    pub epoch: i64,
    /// The row; 0 before the first.
    pub seq: i64,
}

/// How a range of rows stands to a [`Position`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Continuity {
    /// All of it was dealt with before.
    Old,
    /// It continues, perhaps after rows that were dealt with before.
    Next,
    /// Rows are missing before it.
    Gap,
    /// It belongs to a later life of the battery's name.
    NewEpoch,
}

impl Position {
    /// Compares the rows `first..=last` of `epoch` with this position.
    pub fn continuity(self, epoch: i64, first: i64, last: i64) -> Continuity {
        if epoch > self.epoch {
            Continuity::NewEpoch
        } else if epoch < self.epoch || last <= self.seq {
            Continuity::Old
        } else if first <= self.seq + 1 {
            Continuity::Next
        } else {
            Continuity::Gap
        }
    }
}

/// What the newest step showed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Innovation {
    /// Measured less predicted voltage, V.
    pub voltage: f64,
    /// The same in standard deviations of the prediction.
    pub normalised: f64,
}

/// Refused rows without a step between them from which on an estimator does not do its work.
const MANY_REFUSED: u64 = 10;

/// What a filter knows besides the estimator's own state; part of each checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// The last row dealt with.
    pub position: Position,
    /// The segment of that row.
    pub segment: Option<i32>,
    /// The largest `test_time` of the segment so far, in seconds.
    pub largest_test_time: Option<f64>,
    /// Rows dealt with in this epoch.
    pub rows: u64,
    /// Steps made of them.
    pub steps: u64,
    /// Rows without a step, by reason.
    pub skipped: BTreeMap<Skip, u64>,
    /// The newest step's innovation.
    pub innovation: Option<Innovation>,
    /// The time from the document's initial inputs to the first row, in seconds.
    pub first_step: Option<f64>,
    /// Why the newest row that the estimator refused was refused.
    pub last_refusal: Option<String>,
    /// Rows that the estimator refused since it made a step.
    #[serde(default)]
    pub refused_since_step: u64,
    /// What was found in the first rows, where the document asks for it.
    #[serde(default)]
    pub found: Option<Arc<Found>>,
    /// The first row dealt with in this epoch.
    #[serde(default)]
    pub first_seq: Option<i64>,
}

impl Progress {
    pub(crate) fn at_start_of(epoch: i64) -> Self {
        Self {
            position: Position { epoch, seq: 0 },
            segment: None,
            largest_test_time: None,
            rows: 0,
            steps: 0,
            skipped: BTreeMap::new(),
            innovation: None,
            first_step: None,
            last_refusal: None,
            refused_since_step: 0,
            found: None,
            first_seq: None,
        }
    }

    /// Notes that the estimator refused a row, and why.
    pub(crate) fn refused(&mut self, reason: String) {
        self.last_refusal = Some(reason);
        self.refused_since_step += 1;
    }

    /// Counts a step.
    pub(crate) fn stepped(&mut self) {
        self.steps += 1;
        self.refused_since_step = 0;
    }

    /// Tells whether the estimator refuses row after row.
    pub(crate) fn refuses_all(&self) -> bool {
        self.refused_since_step >= MANY_REFUSED
    }

    /// Counts a row that is about to be dealt with.
    pub(crate) fn begin_row(&mut self, seq: i64) {
        self.position.seq = seq;
        self.rows += 1;
        self.first_seq.get_or_insert(seq);
    }

    /// Tells why a row with this `test_time` makes no step; else remembers it.
    pub(crate) fn check_time(&mut self, time: f64, rules: Rules) -> Result<(), Skip> {
        if let Some(largest) = self.largest_test_time
            && time < largest
        {
            let is_within = largest - time <= rules.horizon;
            return Err(if is_within {
                Skip::Late
            } else {
                Skip::LateBeyondHorizon
            });
        }
        self.largest_test_time = Some(time);
        if time < rules.valid_from {
            return Err(Skip::BeforeValidFrom);
        }
        Ok(())
    }

    /// Goes on behind rows of `epoch` that nobody holds any more; tells whether there were any.
    pub(crate) fn pass_over_gone(&mut self, epoch: i64, up_to: i64) -> bool {
        match u64::try_from(up_to - self.position.seq) {
            Ok(gone @ 1..) if epoch == self.position.epoch => {
                self.position.seq = up_to;
                *self.skipped.entry(Skip::Gone).or_default() += gone;
                true
            }
            _ => false,
        }
    }
}

/// What stays the same for all rows of a registration.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Rows with `test_time` below this, in seconds, are not used.
    pub valid_from: f64,
    /// How far a row may be late and still count as [`Skip::Late`], in seconds.
    pub horizon: f64,
}

/// One estimator on its way through the rows of a battery.
#[derive(Debug)]
pub struct Filter {
    document: Arc<Document>,
    rules: Rules,
    every: i64,
    estimator: Estimator,
    progress: Progress,
    gathering: Option<Gathering>,
}

impl Filter {
    /// Returns a filter before the first row of an epoch.
    pub fn new(document: impl Into<Arc<Document>>, rules: Rules, epoch: i64) -> Self {
        let document = document.into();
        Self {
            every: i64::from(document.every()).max(1),
            estimator: Estimator::new(&document),
            progress: Progress::at_start_of(epoch),
            gathering: Gathering::wanted_by(&document, 0.0),
            document,
            rules,
        }
    }

    /// Returns a filter that goes on from a checkpoint, bit for bit.
    ///
    /// # Errors
    /// The snapshot does not belong to the document.
    pub fn restore(
        document: impl Into<Arc<Document>>,
        rules: Rules,
        (snapshot, progress): (&Snapshot, Progress),
    ) -> Result<Self, RestoreError> {
        let document = document.into();
        let initialised = progress
            .found
            .as_ref()
            .and_then(|found| document.with_found(found).ok());
        let begun = initialised.as_ref().unwrap_or(&document);
        Ok(Self {
            every: i64::from(document.every()).max(1),
            estimator: Estimator::restore(begun, snapshot)?,
            gathering: None,
            progress,
            document,
            rules,
        })
    }

    /// Returns the exact state, for a checkpoint.
    pub fn save(&self) -> (Snapshot, Progress) {
        (self.estimator.snapshot(), self.progress.clone())
    }

    /// Returns the estimator.
    pub fn estimator(&self) -> &Estimator {
        &self.estimator
    }

    /// Returns what is known besides the estimator's state.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Returns the rows gathered so far, while the estimator waits for what they tell.
    ///
    /// They are in no checkpoint: until it starts, none is worth writing, and whoever goes on reads
    /// the rows again, which gives the same bits.
    pub fn gathered(&self) -> Option<usize> {
        self.gathering
            .as_ref()
            .map(|gathering| gathering.rows().len())
    }

    /// Returns the last row dealt with.
    pub fn position(&self) -> Position {
        self.progress.position
    }

    /// Forgets everything: the battery's name began a new life.
    pub fn start_over(&mut self, epoch: i64) {
        self.estimator = Estimator::new(&self.document);
        self.gathering = Gathering::wanted_by(&self.document, 0.0);
        self.progress = Progress::at_start_of(epoch);
    }

    /// Goes on behind rows that nobody holds any more; tells whether there were any.
    pub fn pass_over_gone(&mut self, epoch: i64, up_to: i64) -> bool {
        if epoch > self.progress.position.epoch {
            self.start_over(epoch);
        }
        self.progress.pass_over_gone(epoch, up_to)
    }

    /// Takes the rows of a frame that were not dealt with before; estimates go into `outbox`.
    ///
    /// A frame of a new epoch starts over. The caller sees to it that no rows are missing between
    /// the position and the frame; a frame of before is dropped.
    pub fn take(&mut self, frame: &RowFrame, outbox: &mut Outbox) {
        if frame.epoch > self.progress.position.epoch {
            self.start_over(frame.epoch);
        }
        let position = self.progress.position;
        if frame.epoch < position.epoch || frame.last_seq() <= position.seq {
            return;
        }
        self.enter(frame.segment);
        let inputs = Inputs::of(frame);
        for (row, seq) in (frame.first_seq..=frame.last_seq()).enumerate() {
            if seq > position.seq {
                self.deal_with(&inputs, row, (frame.epoch, seq), outbox);
            }
        }
    }

    /// Takes a row that came late at its place in the order of time; the position stays.
    pub fn insert(&mut self, frame: &RowFrame, outbox: &mut Outbox) {
        self.enter(frame.segment);
        let (position, largest) = (self.progress.position, self.progress.largest_test_time);
        let first = self.progress.first_seq;
        let inputs = Inputs::of(frame);
        self.deal_with(&inputs, 0, (frame.epoch, frame.first_seq), outbox);
        self.progress.position = position;
        self.progress.largest_test_time = largest;
        self.progress.first_seq = first;
    }

    fn enter(&mut self, segment: i32) {
        if self.progress.segment != Some(segment) {
            self.progress.segment = Some(segment);
            self.progress.largest_test_time = None;
            self.estimator.begin_segment();
        }
    }

    fn deal_with(
        &mut self,
        inputs: &Inputs<'_>,
        row: usize,
        (epoch, seq): (i64, i64),
        outbox: &mut Outbox,
    ) {
        self.progress.begin_row(seq);
        match self.take_row(inputs, row) {
            Ok(Some((time, step))) => {
                self.progress.stepped();
                if seq % self.every == 0 || outbox.is_tap() {
                    outbox.push((epoch, seq, time), &self.estimator, &step);
                }
            }
            Ok(None) => {}
            Err(skip) => *self.progress.skipped.entry(skip).or_default() += 1,
        }
    }

    /// Goes on behind rows that were dealt with before or deleted.
    pub fn pass_over(&mut self, seq: i64) {
        self.progress.position.seq = self.progress.position.seq.max(seq);
    }

    fn take_row(&mut self, inputs: &Inputs<'_>, row: usize) -> Result<Option<(f64, Step)>, Skip> {
        let time = inputs.test_time.read(row)?;
        self.progress.check_time(time, self.rules)?;
        let observation = Observation {
            time,
            current: inputs.current.read(row)?,
            voltage: inputs.voltage.read(row)?,
            temperature: inputs.temperature.and_then(|column| column.number(row)),
        };
        if let Some(gathering) = &mut self.gathering {
            if gathering.take(observation) {
                self.initialise();
            }
            return Ok(None);
        }
        let is_first = self.estimator.latest_time().is_none();
        match self.estimator.observe(&observation) {
            Ok(Some(step)) => {
                self.progress.innovation = Some(Innovation {
                    voltage: step.innovation,
                    normalised: step.innovation / step.predicted_variance.sqrt(),
                });
                Ok(Some((time, step)))
            }
            Ok(None) => {
                if is_first {
                    let initial = self.document.initial_inputs();
                    self.progress.first_step = initial.map(|initial| time - initial.time);
                }
                Ok(None)
            }
            Err(error) => {
                let seq = self.progress.position.seq;
                self.progress.refused(format!("row {seq}: {error}"));
                Err(refusal(&error))
            }
        }
    }

    /// Looks into the rows gathered, and starts the estimator with the last of them.
    fn initialise(&mut self) {
        let gathered = self.gathering.take().unwrap_or_default();
        let rows = gathered.rows();
        match self.document.initialised(rows) {
            Ok((document, found)) => {
                self.estimator = Estimator::new(&document);
                self.progress.found = Some(Arc::new(found));
            }
            Err(error) => self.progress.last_refusal = Some(format!("initialise: {error}")),
        }
        if let Some(last) = rows.last() {
            // A first row only starts; it was checked when it was read.
            let _starts = self.estimator.observe(last);
        }
    }
}

fn refusal(error: &StepError) -> Skip {
    match error {
        StepError::Diverged { .. } => Skip::Diverged,
        StepError::TimeWentBack { .. } => Skip::TimeWentBack,
        StepError::ZeroTimeStep { .. } => Skip::ZeroTimeStep,
        _ => Skip::Refused,
    }
}

#[cfg(test)]
mod tests {
    use rovi_common::{
        frame::{EstimateFrame, FRAME_VERSION},
        name::EstimatorName,
        rows::{Column, Columns},
    };

    use super::*;
    use crate::estimates::Sender;

    const DOCUMENT: &str = include_str!("../../tests/golden/joint_held_current.json");

    fn document() -> Document {
        Document::from_json(DOCUMENT).unwrap().0
    }

    fn filter() -> Filter {
        let rules = Rules {
            valid_from: 0.0,
            horizon: 3600.0,
        };
        Filter::new(document(), rules, 1)
    }

    fn outbox() -> Outbox {
        let sender = Sender {
            battery: "b7".parse().unwrap(),
            estimator: EstimatorName::default(),
            revision: 1,
            generation: 1,
        };
        Outbox::with_health(sender, document().state_names().into())
    }

    fn frame(first_seq: i64, times: &[f64]) -> RowFrame {
        let column = |value: fn(f64) -> f64| {
            Column::Float(times.iter().map(|&time| Some(value(time))).collect())
        };
        let columns = vec![
            ("test_time".to_owned(), column(|time| time)),
            (
                "current".to_owned(),
                column(|time| -1.0 - (0.1 * time).sin()),
            ),
            ("voltage".to_owned(), column(|time| 3.7 - 1e-4 * time)),
        ];
        RowFrame {
            v: FRAME_VERSION,
            battery: "b7".parse().unwrap(),
            epoch: 1,
            segment: 1,
            first_seq,
            received: vec![0; times.len()],
            columns: Columns::new(columns).unwrap(),
        }
    }

    fn estimated_rows(outbox: &mut Outbox) -> Vec<i64> {
        let frames = outbox.take().0;
        let decoded = frames
            .iter()
            .map(|bytes| EstimateFrame::decode(bytes).unwrap());
        decoded.flat_map(|frame| frame.seq).collect()
    }

    #[test]
    fn how_rows_are_cut_and_how_often_they_come_shows_nowhere() {
        let times: Vec<f64> = (1..=600).map(f64::from).collect();
        let (mut whole, mut whole_out) = (filter(), outbox());
        whole.take(&frame(1, &times), &mut whole_out);
        let (mut cut, mut cut_out) = (filter(), outbox());
        for first in (0..600).step_by(7) {
            let until = (first + 11).min(600);
            let first_seq = i64::try_from(first + 1).unwrap();
            cut.take(&frame(first_seq, &times[first..until]), &mut cut_out);
            let bytes = rmp_serde::to_vec_named(&cut.save()).unwrap();
            let (snapshot, progress) = rmp_serde::from_slice(&bytes).unwrap();
            let rules = cut.rules;
            cut = Filter::restore(document(), rules, (&snapshot, progress)).unwrap();
        }
        assert_eq!(cut.save(), whole.save());
        assert_eq!(estimated_rows(&mut cut_out), estimated_rows(&mut whole_out));
    }

    /// The document with an `initialise` of 100 s.
    fn gathering() -> Filter {
        let wanted = r#"{"initialise": {"r0": true, "required_time": 100},"#;
        let text = DOCUMENT.replacen('{', wanted, 1);
        let document = Document::from_json(&text).unwrap().0;
        Filter::new(document, filter().rules, 1)
    }

    #[test]
    fn a_start_from_the_first_rows_is_the_same_after_any_restart() {
        let times: Vec<f64> = (1..=300).map(f64::from).collect();
        let (mut whole, mut whole_out) = (gathering(), outbox());
        whole.take(&frame(1, &times), &mut whole_out);
        assert!(whole.gathered().is_none() && whole.progress().found.is_some());
        assert_eq!(
            estimated_rows(&mut whole_out),
            (102..=300).collect::<Vec<i64>>()
        );

        // While it gathers there is no checkpoint: what was gathered is read again.
        let (mut lost, mut out) = (gathering(), outbox());
        lost.take(&frame(1, &times[..60]), &mut out);
        assert_eq!(lost.gathered(), Some(60));
        let mut again = gathering();
        again.take(&frame(1, &times[..150]), &mut out);
        // From the start on, a checkpoint holds what was found.
        let bytes = rmp_serde::to_vec_named(&again.save()).unwrap();
        let (snapshot, progress) = rmp_serde::from_slice(&bytes).unwrap();
        let document = Arc::clone(&again.document);
        let mut resumed = Filter::restore(document, again.rules, (&snapshot, progress)).unwrap();
        resumed.take(&frame(151, &times[150..]), &mut out);
        assert_eq!(resumed.save(), whole.save());
    }

    #[test]
    fn a_late_row_is_counted_by_how_late_it_is() {
        let mut filter = filter();
        filter.take(
            &frame(1, &[5000.0, 5001.0, 4999.0, 5001.0, 1.0]),
            &mut outbox(),
        );
        let expected = BTreeMap::from([(Skip::Late, 1), (Skip::LateBeyondHorizon, 1)]);
        assert_eq!(filter.progress().skipped, expected);
        assert_eq!(filter.progress().steps, 2);
        assert_eq!(filter.position().seq, 5);
    }

    #[test]
    fn estimates_are_chosen_by_seq_not_by_frame() {
        let text = DOCUMENT.replacen('{', "{\"every\": 4,", 1);
        let document = Document::from_json(&text).unwrap().0;
        let rules = filter().rules;
        let (mut filter, mut outbox) = (Filter::new(document, rules, 1), outbox());
        let times: Vec<f64> = (1..=10).map(f64::from).collect();
        filter.take(&frame(1, &times[..3]), &mut outbox);
        filter.take(&frame(4, &times[3..]), &mut outbox);
        assert_eq!(estimated_rows(&mut outbox), [4, 8]);
    }

    #[test]
    fn rows_that_are_gone_are_passed_over_once() {
        let mut filter = filter();
        assert!(filter.pass_over_gone(1, 40));
        assert!(!filter.pass_over_gone(1, 40));
        filter.take(&frame(41, &[1.0, 2.0]), &mut outbox());
        assert_eq!(
            filter.progress().skipped,
            BTreeMap::from([(Skip::Gone, 40)])
        );
        assert_eq!(filter.progress().steps, 1);
    }

    #[test]
    fn the_order_of_rows_is_epoch_and_seq() {
        let position = Position { epoch: 2, seq: 10 };
        assert_eq!(position.continuity(2, 1, 10), Continuity::Old);
        assert_eq!(position.continuity(1, 11, 20), Continuity::Old);
        assert_eq!(position.continuity(2, 5, 11), Continuity::Next);
        assert_eq!(position.continuity(2, 12, 13), Continuity::Gap);
        assert_eq!(position.continuity(3, 1, 1), Continuity::NewEpoch);
    }
}
