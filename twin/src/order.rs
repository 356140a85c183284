//! Rows that come late, and their place in the order of processing: `(segment, test_time, seq)`.
//!
//! Rows arrive in the order of `seq`. Those whose `test_time` never falls make up the order of a
//! segment; the few that lie below an earlier one are *late* and are put between them. So nothing is
//! sorted and nothing waits: a late row whose place is still ahead is kept until the others come
//! there, and one whose place is behind makes the estimator go back (`rewind.rs`).

use std::{ops::Range, sync::Arc};

use rovi_common::frame::RowFrame;
use serde::{Deserialize, Serialize};

use crate::{
    estimates::Outbox,
    filter::{Progress, Rules},
    inputs::Inputs,
    runner::{Failure, Runner},
};

/// Late rows that are known at once; one more is counted and left out.
const MOST_ROWS: usize = 1024;
/// Bytes of their frames.
const MOST_BYTES: usize = 256 << 10;

/// A row that came late.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LateRow {
    /// The row alone.
    frame: RowFrame,
    time: f64,
    bytes: usize,
    /// Whether it was dealt with at its place.
    is_done: bool,
}

/// A place in the order of processing.
type Place = (i32, f64, i64);

impl LateRow {
    fn new(frame: &RowFrame, row: usize, time: f64) -> Self {
        let frame = part(frame, row..row + 1);
        Self {
            bytes: frame.encode().len(),
            frame,
            time,
            is_done: false,
        }
    }

    /// Returns the number of the row.
    pub fn seq(&self) -> i64 {
        self.frame.first_seq
    }

    /// Tells whether the row comes after everything that a state has seen, which had seen all rows up
    /// to `seq`, of them `segment` and `largest` `test_time` last.
    pub fn follows(&self, segment: Option<i32>, largest: Option<f64>, seq: i64) -> bool {
        match (segment, largest) {
            (Some(segment), Some(largest)) => is_before((segment, largest, seq), self.place()),
            (Some(segment), None) => segment <= self.frame.segment,
            (None, _) => true,
        }
    }

    fn place(&self) -> Place {
        (self.frame.segment, self.time, self.frame.first_seq)
    }
}

/// The late rows that an estimator knows of, by their place.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Late {
    rows: Vec<LateRow>,
}

impl Late {
    /// Returns the rows of frames that are late within the horizon and not known yet; what a row
    /// lacks to make a step makes it none of them.
    pub fn find(
        &self,
        progress: &Progress,
        frames: &[Arc<RowFrame>],
        rules: Rules,
    ) -> Vec<LateRow> {
        let (mut segment, mut largest) = (progress.segment, progress.largest_test_time);
        let mut found = Vec::new();
        for frame in frames {
            let is_new_epoch = frame.epoch > progress.position.epoch;
            if segment != Some(frame.segment) || is_new_epoch {
                (segment, largest) = (Some(frame.segment), None);
            }
            let inputs = Inputs::of(frame);
            for (row, seq) in (frame.first_seq..=frame.last_seq()).enumerate() {
                let is_old = seq <= progress.position.seq && !is_new_epoch;
                let Ok(time) = inputs.test_time.read(row) else {
                    continue;
                };
                if is_old || self.knows(seq) {
                    continue;
                }
                match largest {
                    Some(largest) if time < largest => {
                        let counts = largest - time <= rules.horizon && time >= rules.valid_from;
                        let is_whole =
                            inputs.current.read(row).is_ok() && inputs.voltage.read(row).is_ok();
                        if counts && is_whole {
                            found.push(LateRow::new(frame, row, time));
                        }
                    }
                    _ => largest = Some(time),
                }
            }
        }
        found
    }

    /// Tells whether the place of a row is still ahead.
    pub fn is_ahead(&self, row: &LateRow, progress: &Progress) -> bool {
        let done = self.rows.iter().filter(|known| known.is_done);
        row.follows(
            progress.segment,
            progress.largest_test_time,
            progress.position.seq,
        ) && done
            .into_iter()
            .all(|known| is_before(known.place(), row.place()))
    }

    /// Adds rows as far as there is room, to be dealt with at their place.
    pub fn add(&mut self, rows: Vec<LateRow>) {
        for row in rows {
            let bytes: usize = self.rows.iter().map(|row| row.bytes).sum();
            if self.rows.len() < MOST_ROWS && bytes + row.bytes <= MOST_BYTES {
                let place = row.place();
                let at = self
                    .rows
                    .partition_point(|known| is_before(known.place(), place));
                self.rows.insert(at, row);
            }
        }
    }

    /// Returns what is to be known by a state that has seen every row up to `seq` and none behind.
    #[must_use]
    pub fn before(&self, seq: i64) -> Self {
        let mut rows = self.rows.clone();
        for row in &mut rows {
            row.is_done = row.seq() <= seq;
        }
        Self { rows }
    }

    /// Returns what a state at `seq` needs to go on.
    #[must_use]
    pub fn needed_after(&self, seq: i64) -> Self {
        let rows = self.rows.iter().filter(|row| row.seq() > seq);
        Self {
            rows: rows.cloned().collect(),
        }
    }

    /// Forgets rows for which the condition does not hold.
    pub fn retain(&mut self, condition: impl Fn(i64) -> bool) {
        self.rows.retain(|row| condition(row.seq()));
    }

    /// Tells whether a state at `seq` has seen every row up to there and none behind.
    pub fn is_settled_at(&self, seq: i64) -> bool {
        self.rows.iter().all(|row| row.seq() <= seq)
    }

    /// Returns the rows behind `seq`.
    pub fn after(&self, seq: i64) -> impl Iterator<Item = &LateRow> {
        self.rows.iter().filter(move |row| row.seq() > seq)
    }

    /// Tells whether a row is known to be late.
    pub fn knows(&self, seq: i64) -> bool {
        self.rows.iter().any(|row| row.seq() == seq)
    }

    /// Takes the rows of a frame, and late ones at their places between them.
    ///
    /// # Errors
    /// [`Failure`], only of scripts.
    pub fn take(
        &mut self,
        runner: &mut Runner,
        frame: &RowFrame,
        outbox: &mut Outbox,
    ) -> Result<(), Failure> {
        let position = runner.position();
        let waits = self
            .rows
            .iter()
            .any(|row| !row.is_done || row.seq() > position.seq);
        if !waits || frame.epoch != position.epoch {
            return runner.take(frame, outbox);
        }
        self.insert_before((frame.segment, f64::NEG_INFINITY, 0), runner, outbox)?;
        let inputs = Inputs::of(frame);
        let progress = runner.progress();
        let is_same_segment = progress.segment == Some(frame.segment);
        let mut largest = progress.largest_test_time.filter(|_| is_same_segment);
        let mut from = 0;
        for (row, seq) in (frame.first_seq..=frame.last_seq()).enumerate() {
            if seq <= position.seq {
                from = row + 1;
                continue;
            }
            if self.knows(seq) {
                take_part(runner, frame, from..row, outbox)?;
                self.insert_own(seq, runner, outbox)?;
                runner.pass_over(seq);
                from = row + 1;
                continue;
            }
            let Ok(time) = inputs.test_time.read(row) else {
                continue;
            };
            if largest.is_none_or(|largest| time >= largest) {
                let place = (frame.segment, time, seq);
                if self.next_before(place).is_some() {
                    take_part(runner, frame, from..row, outbox)?;
                    from = row;
                    self.insert_before(place, runner, outbox)?;
                }
                largest = Some(time);
            }
        }
        take_part(runner, frame, from..frame.received.len(), outbox)
    }

    fn next_before(&mut self, place: Place) -> Option<&mut LateRow> {
        let waits = |row: &&mut LateRow| !row.is_done;
        let next = self.rows.iter_mut().find(waits)?;
        is_before(next.place(), place).then_some(next)
    }

    fn insert_before(
        &mut self,
        place: Place,
        runner: &mut Runner,
        outbox: &mut Outbox,
    ) -> Result<(), Failure> {
        while let Some(next) = self.next_before(place) {
            runner.insert(&next.frame, outbox)?;
            next.is_done = true;
        }
        Ok(())
    }

    /// Deals with a row at its own number, where no row came that it would have been put before.
    fn insert_own(
        &mut self,
        seq: i64,
        runner: &mut Runner,
        outbox: &mut Outbox,
    ) -> Result<(), Failure> {
        let own = self
            .rows
            .iter()
            .find(|row| row.seq() == seq && !row.is_done);
        match own.map(LateRow::place) {
            Some((segment, time, seq)) => {
                self.insert_before((segment, time, seq + 1), runner, outbox)
            }
            None => Ok(()),
        }
    }
}

fn is_before(a: Place, b: Place) -> bool {
    a.0.cmp(&b.0)
        .then(a.1.total_cmp(&b.1))
        .then(a.2.cmp(&b.2))
        .is_lt()
}

fn take_part(
    runner: &mut Runner,
    frame: &RowFrame,
    rows: Range<usize>,
    outbox: &mut Outbox,
) -> Result<(), Failure> {
    if rows.is_empty() {
        return Ok(());
    }
    if rows.len() == frame.received.len() {
        return runner.take(frame, outbox);
    }
    runner.take(&part(frame, rows), outbox)
}

/// Returns a part of a frame's rows.
fn part(frame: &RowFrame, rows: Range<usize>) -> RowFrame {
    let received = frame
        .received
        .get(rows.clone())
        .unwrap_or_default()
        .to_vec();
    let mut columns = frame.columns.clone().split_off(rows.start);
    drop(columns.split_off(rows.len()));
    RowFrame {
        v: frame.v,
        battery: frame.battery.clone(),
        epoch: frame.epoch,
        segment: frame.segment,
        first_seq: frame.first_seq + i64::try_from(rows.start).unwrap_or_default(),
        received,
        columns,
    }
}

#[cfg(test)]
mod tests {
    use rovi_common::{
        frame::{EstimateFrame, FRAME_VERSION},
        name::EstimatorName,
        rows::{Column, Columns},
    };
    use rovi_estimation::Document;

    use super::*;
    use crate::{estimates::Sender, filter::Filter};

    const DOCUMENT: &str = include_str!("../../tests/golden/joint_held_current.json");
    const RULES: Rules = Rules {
        valid_from: 0.0,
        horizon: 150.0,
    };

    fn frame(segment: i32, first_seq: i64, times: &[f64]) -> RowFrame {
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
            segment,
            first_seq,
            received: vec![0; times.len()],
            columns: Columns::new(columns).unwrap(),
        }
    }

    fn document() -> Document {
        Document::from_json(DOCUMENT).unwrap().0
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

    /// What is estimated at each `test_time`, as bits of the first state's mean.
    type Estimates = std::collections::BTreeMap<u64, u64>;

    fn estimates(outbox: &mut Outbox) -> Estimates {
        let frames = outbox.take().0;
        let frames = frames
            .iter()
            .map(|bytes| EstimateFrame::decode(bytes).unwrap());
        let bits = |frame: EstimateFrame| {
            let (_, first) = frame.columns.iter().next().unwrap();
            let means: Vec<u64> = (0..frame.seq.len())
                .map(|row| first.number(row).unwrap().to_bits())
                .collect();
            let times = frame.test_time.into_iter().map(f64::to_bits);
            times.zip(means).collect::<Vec<_>>()
        };
        frames.flat_map(bits).collect()
    }

    /// Runs an estimator over rows in the order of `seq`, going back to the start where it must.
    fn run(frames: &[RowFrame], together: usize) -> (Runner, Estimates, usize) {
        let frames: Vec<Arc<RowFrame>> = frames.iter().cloned().map(Arc::new).collect();
        let fresh = || Runner::Native(Box::new(Filter::new(document(), RULES, 1)));
        let (mut runner, mut late, mut outbox) = (fresh(), Late::default(), outbox());
        let mut said = Estimates::new();
        let (mut chunk, mut times_back) = (0, 0);
        while let Some(frames) = frames.chunks(together).nth(chunk) {
            let found = late.find(runner.progress(), frames, RULES);
            let is_ahead = found
                .iter()
                .all(|row| late.is_ahead(row, runner.progress()));
            late.add(found);
            if !is_ahead {
                late = late.before(0);
                (runner, chunk, times_back) = (fresh(), 0, times_back + 1);
                continue;
            }
            for frame in frames {
                late.take(&mut runner, frame, &mut outbox).unwrap();
            }
            said.extend(estimates(&mut outbox));
            chunk += 1;
        }
        (runner, said, times_back)
    }

    fn frames_of(times: &[f64], size: usize) -> Vec<RowFrame> {
        let first = |chunk: usize| i64::try_from(chunk * size + 1).unwrap();
        let chunks = times.chunks(size).enumerate();
        chunks
            .map(|(chunk, times)| frame(1, first(chunk), times))
            .collect()
    }

    fn state(runner: &Runner) -> (Vec<u64>, Vec<u64>) {
        let bits = |numbers: &[f64]| numbers.iter().map(|number| number.to_bits()).collect();
        let (mean, covariance) = runner.belief();
        (bits(mean), bits(covariance))
    }

    #[test]
    fn rows_in_any_order_within_the_horizon_give_the_bits_of_rows_in_order() {
        let sorted: Vec<f64> = (1..=400).map(f64::from).collect();
        let (expected, all, _) = run(&frames_of(&sorted, 16), 1);
        // Rows swapped over distances up to 45 s, again and again, in frames of any size.
        for (seed, size, together) in [(1_usize, 7, 1), (2, 16, 4), (3, 1, 16), (4, 64, 16)] {
            let mut times = sorted.clone();
            for place in (0..350).step_by(5 + seed) {
                let other = place + 1 + (place * 7 + seed * 13) % 45;
                let moved = times.remove(place);
                times.insert(other, moved);
            }
            assert_ne!(times, sorted);
            let (runner, said, times_back) = run(&frames_of(&times, size), together);
            assert_eq!(state(&runner), state(&expected), "seed {seed}");
            assert_eq!(said, all, "seed {seed}");
            assert_eq!(runner.progress().rows, 400);
            assert_eq!(runner.progress().steps, 399);
            assert!(times_back > 0 || together > 1, "seed {seed}");
        }
    }

    #[test]
    fn a_late_row_whose_place_is_ahead_needs_no_way_back() {
        let mut times: Vec<f64> = (1..=64).map(f64::from).collect();
        times.swap(40, 44);
        let (_, _, times_back) = run(&frames_of(&times, 64), 1);
        assert_eq!(times_back, 0);
    }

    #[test]
    fn rows_beyond_the_horizon_and_rows_without_values_are_none_of_them() {
        let mut frame = frame(1, 1, &[100.0, 300.0, 120.0, 160.0, 170.0]);
        let voltage = Column::Float(vec![Some(3.6), Some(3.6), Some(3.6), None, Some(3.6)]);
        let columns = frame.columns.into_vec().into_iter();
        let columns = columns.map(|(name, column)| match name.as_str() {
            "voltage" => (name, voltage.clone()),
            _ => (name, column),
        });
        frame.columns = Columns::new(columns.collect()).unwrap();
        let progress = Progress::at_start_of(1);
        let found = Late::default().find(&progress, &[Arc::new(frame)], RULES);
        assert_eq!(found.iter().map(LateRow::seq).collect::<Vec<_>>(), [5]);
    }

    #[test]
    fn more_late_rows_than_there_is_room_for_are_left_out() {
        let mut times = vec![5000.0];
        times.extend((0..2000_u32).map(|n| 4960.0 + f64::from(n) * 0.01));
        let frame = Arc::new(frame(1, 1, &times));
        let mut late = Late::default();
        late.add(late.find(&Progress::at_start_of(1), &[frame], RULES));
        assert_eq!(late.after(0).count(), MOST_ROWS);
    }
}
