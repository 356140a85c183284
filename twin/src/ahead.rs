//! A history that is read from its first row on: late rows are found before an estimator comes to
//! their place, so that it never has to go back.

use std::sync::Arc;

use rovi_common::frame::RowFrame;

use crate::{
    estimates::Outbox,
    filter::{Progress, Rules},
    inputs::Inputs,
    order::{Late, LateRow},
    runner::{Failure, Runner},
};

/// The late rows of a history, found ahead of an estimator.
#[derive(Debug)]
pub(crate) struct Ahead {
    rules: Rules,
    /// How far was looked.
    scan: Progress,
    found: Vec<LateRow>,
    /// Those whose place is near.
    late: Late,
}

impl Ahead {
    /// Stands before the first row of an epoch.
    pub(crate) fn new(rules: Rules, epoch: i64) -> Self {
        Self {
            rules,
            scan: Progress::at_start_of(epoch),
            found: Vec::new(),
            late: Late::default(),
        }
    }

    /// Looks for late rows among the next ones.
    pub(crate) fn look(&mut self, frames: &[Arc<RowFrame>]) {
        let found = self.late.find(&self.scan, frames, self.rules);
        self.found.extend(found);
        for frame in frames {
            if self.scan.segment != Some(frame.segment) {
                (self.scan.segment, self.scan.largest_test_time) = (Some(frame.segment), None);
            }
            self.scan.position.seq = frame.last_seq();
            let times = [self.scan.largest_test_time, largest_of(frame)];
            self.scan.largest_test_time = times.into_iter().flatten().max_by(f64::total_cmp);
        }
    }

    /// Tells whether all rows are found whose place is before this one, a segment and `test_time`.
    pub(crate) fn has_all_before(&self, (segment, time): (i32, f64)) -> bool {
        let largest = self.scan.largest_test_time;
        self.scan.segment > Some(segment)
            || largest.is_some_and(|largest| largest - time > self.rules.horizon)
    }

    /// Has an estimator deal with the next rows, and with late ones at their places between them.
    ///
    /// # Errors
    /// [`Failure`], only of scripts.
    pub(crate) fn take(
        &mut self,
        runner: &mut Runner,
        frame: &RowFrame,
        outbox: &mut Outbox,
    ) -> Result<(), Failure> {
        // Late rows whose place is not far are enough: so few are known at once.
        let end = largest_of(frame);
        let is_near = |row: &LateRow| !row.follows(Some(frame.segment), end, i64::MAX);
        let (near, far) = std::mem::take(&mut self.found)
            .into_iter()
            .partition(is_near);
        self.found = far;
        self.late.add(near);
        self.late.take(runner, frame, outbox)?;
        let position = runner.position().seq;
        self.late.retain(|seq| seq > position);
        Ok(())
    }
}

/// Returns the largest `test_time` of a frame.
pub(crate) fn largest_of(frame: &RowFrame) -> Option<f64> {
    let inputs = Inputs::of(frame);
    let times = (0..frame.received.len()).filter_map(|row| inputs.test_time.read(row).ok());
    times.max_by(f64::total_cmp)
}
