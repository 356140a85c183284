//! A writer of a fleet rests between its groups.
//!
//! Where thousands of batteries send a row now and then, nearly each row is a statement for a table
//! of its own, and as a frame, a message of the bus and an acknowledgement; the writer is never idle,
//! since it takes whatever is there. Resting for some time as long as it wrote, it finds several
//! rows of each battery, for hardly more than the price of one: a fleet of few batteries, whose
//! groups are small and quick, notices nothing of it, and one that takes a large part of the
//! machine waits up to `group_wait`.
//!
//! It does not rest where it wrote few tables, or many rows of each, when nothing comes, when
//! somebody waits for a battery's rows before doing anything else, and when the hub stops.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::thread::Writer;
use crate::batch::Batch;

/// How many times as long as it wrote a writer rests: all four then write for two thirds of a core.
const TIMES: u32 = 5;
/// Parked batteries and other waits notice nothing of shorter rests.
const LONGEST: Duration = Duration::from_millis(200);
/// How often it looks whether there is a reason to rest no longer.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Tables of the smallest group that is one of a fleet.
const FEW_TABLES: usize = 8;
/// Rows of one table in a group from which on more of them make a row no cheaper.
const MANY_ROWS: usize = 8;

/// What a group was like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    tables: usize,
    rows: usize,
}

impl Shape {
    /// Looks at a group in which the batches of a battery stand together.
    pub(super) fn of(group: &[Batch]) -> Self {
        Self {
            tables: group
                .chunk_by(|a, b| a.battery_id() == b.battery_id())
                .count(),
            rows: group.iter().map(|batch| batch.decoded.sent).sum(),
        }
    }

    /// Tells whether rows would be cheaper if more of them came together.
    fn is_of_a_fleet(self) -> bool {
        self.tables >= FEW_TABLES && self.rows < self.tables * MANY_ROWS
    }
}

impl Writer {
    /// Rests after a group that took so long to write, if that is worth it.
    pub(super) fn rest(&mut self, shape: Shape, took: Duration) {
        let patience = self.wiring.group_wait;
        if !shape.is_of_a_fleet() || patience.is_zero() {
            return;
        }
        let end = Instant::now() + took.saturating_mul(TIMES).min(LONGEST);
        while !self.wiring.closing.is_cancelled() && !self.is_full() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || self.waiting.is_due(patience) {
                return;
            }
            thread::sleep(left.min(LOOK_EVERY));
            if self.take_in() == 0 {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_tables_with_few_rows_each_are_a_fleet() {
        let is_fleet = |tables, rows| Shape { tables, rows }.is_of_a_fleet();
        assert!(is_fleet(200, 200) && is_fleet(200, 700));
        assert!(!is_fleet(1, 1) && !is_fleet(2, 3), "few batteries");
        assert!(!is_fleet(200, 100_000), "many rows of each");
        assert!(!is_fleet(0, 0));
    }
}
