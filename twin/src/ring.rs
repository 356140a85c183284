//! Checkpoints of before, to go back to: few of them, whose distances grow with their age.
//!
//! Which there are stands in the estimator's newest checkpoint; each is kept in the same bucket
//! under a key of its own. One that is lost or was overwritten costs time, no data: an older one, or
//! the first row, serves as well.

use rovi_common::{
    name::{BatteryName, EstimatorName},
    subjects,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    filter::{Position, Progress},
    order::{Late, LateRow},
};

/// Checkpoints of before that are kept.
const MOST: usize = 24;
/// Rows between them, where a checkpoint is made anyway.
pub const ROWS_APART: i64 = 256;
/// Rows after which one is made for the ring alone.
pub const ROWS_AT_MOST: i64 = 4096;

/// Why an estimator went back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Rows came late.
    LateRows,
    /// Rows were corrected or deleted.
    CorrectedRows,
    /// The bus was wiped with estimates that were not stored yet.
    LostEstimates,
    /// No checkpoint tells what was said of such rows before, if anything was.
    UnknownPast,
}

/// Rows that are, or were, estimated anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Recomputation {
    /// Why.
    pub reason: Reason,
    /// The first row that is estimated anew.
    pub from_seq: i64,
    /// The newest row that there was then.
    pub to_seq: i64,
}

/// A checkpoint of before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    slot: u8,
    /// The generation that made it.
    pub generation: i64,
    /// The last row it has seen; it has seen all before and none behind.
    pub position: Position,
    segment: Option<i32>,
    largest_test_time: Option<f64>,
}

impl Kept {
    /// Returns its key in the bucket.
    pub fn key(&self, battery: &BatteryName, estimator: &EstimatorName) -> String {
        format!(
            "{}.{}",
            subjects::estimator_key(battery, estimator),
            self.slot
        )
    }

    fn precedes(&self, row: &LateRow) -> bool {
        row.follows(self.segment, self.largest_test_time, self.position.seq)
    }
}

/// The checkpoints of before, the oldest first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Ring {
    kept: Vec<Kept>,
}

impl Ring {
    /// Returns how many rows are behind the newest one.
    pub fn distance(&self, position: Position) -> i64 {
        position.seq - self.kept.last().map_or(0, |kept| kept.position.seq)
    }

    /// Makes room for a checkpoint; the caller writes it, then adds it.
    pub fn place_for(&mut self, generation: i64, progress: &Progress) -> Kept {
        if self.kept.len() >= MOST {
            self.thin_out(progress.position.seq);
        }
        let is_free = |slot: &u8| self.kept.iter().all(|kept| kept.slot != *slot);
        Kept {
            slot: (0..=u8::MAX).find(is_free).unwrap_or_default(),
            generation,
            position: progress.position,
            segment: progress.segment,
            largest_test_time: progress.largest_test_time,
        }
    }

    /// Adds a checkpoint that was written.
    pub fn add(&mut self, kept: Kept) {
        self.kept.push(kept);
    }

    /// Returns the newest checkpoint that has not seen row `before`, and after which all late rows
    /// that it has not seen can still be dealt with; and forgets those behind it.
    pub fn go_back(&mut self, before: Option<i64>, late: &Late) -> Option<Kept> {
        while let Some(kept) = self.kept.last() {
            let seq = kept.position.seq;
            let is_old_enough = before.is_none_or(|before| seq < before);
            if is_old_enough && late.after(seq).all(|row| kept.precedes(row)) {
                return Some(kept.clone());
            }
            self.kept.pop();
        }
        None
    }

    /// Returns the last row before which nobody goes back for the sake of a late row any more.
    pub fn floor(&self, progress: &Progress, horizon: f64) -> i64 {
        let oldest = progress.largest_test_time.map(|largest| largest - horizon);
        let is_old = |kept: &&Kept| {
            kept.segment < progress.segment
                || kept
                    .largest_test_time
                    .is_some_and(|time| Some(time) <= oldest)
        };
        let floor = self.kept.iter().rev().find(is_old);
        floor.map_or(0, |kept| kept.position.seq)
    }

    /// Forgets the newest one, which could not be read.
    pub fn forget_newest(&mut self) {
        self.kept.pop();
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.kept.clear();
    }

    /// Returns the keys in the bucket.
    pub fn keys(&self, battery: &BatteryName, estimator: &EstimatorName) -> Vec<String> {
        let keys = self.kept.iter().map(|kept| kept.key(battery, estimator));
        keys.collect()
    }

    /// Removes the one that is missed least: the gap it leaves is the smallest for its age.
    #[expect(
        clippy::cast_precision_loss,
        reason = "rows are counted far below 2^53"
    )]
    fn thin_out(&mut self, newest: i64) {
        let gap = |three: &[Kept]| match three {
            [before, _, after] => {
                let (before, after) = (before.position.seq, after.position.seq);
                (after - before) as f64 / (newest - before).max(1) as f64
            }
            _ => f64::INFINITY,
        };
        let gaps = self.kept.windows(3).map(gap).enumerate();
        let least = gaps.min_by(|a, b| a.1.total_cmp(&b.1));
        if let Some((before, _)) = least {
            self.kept.remove(before + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(seq: i64) -> Progress {
        let mut progress = Progress::at_start_of(1);
        progress.position.seq = seq;
        progress
    }

    fn ring(count: i64) -> Ring {
        let mut ring = Ring::default();
        for place in 1..=count {
            let kept = ring.place_for(1, &progress(place * 256));
            ring.add(kept);
        }
        ring
    }

    #[test]
    fn distances_grow_with_age_and_slots_are_used_again() {
        let ring = ring(10_000);
        assert_eq!(ring.kept.len(), MOST);
        let mut slots: Vec<u8> = ring.kept.iter().map(|kept| kept.slot).collect();
        slots.sort_unstable();
        slots.dedup();
        assert_eq!(slots.len(), MOST);
        let newest = 10_000 * 256;
        for pair in ring.kept.windows(2) {
            let age = newest - pair[1].position.seq;
            let gap = pair[1].position.seq - pair[0].position.seq;
            assert!(
                gap <= 2 * age.max(256),
                "a gap of {gap} at the age of {age}"
            );
        }
    }

    #[test]
    fn going_back_forgets_what_saw_the_row() {
        let mut ring = ring(20);
        let kept = ring.go_back(Some(1000), &Late::default()).unwrap();
        assert_eq!(kept.position.seq, 768);
        assert_eq!(ring.distance(kept.position), 0);
        assert!(ring.go_back(Some(256), &Late::default()).is_none());
    }
}
