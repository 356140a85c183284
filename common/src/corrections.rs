//! Corrections of stored rows: what the bucket [`CORRECTIONS_BUCKET`](crate::subjects::CORRECTIONS_BUCKET)
//! says of a battery, in JSON.
//!
//! The table is the truth; this is the news that parts of it changed. Frames on the stream of rows
//! are never changed: whoever reads them there takes the ranges told here from the hub instead.

use serde::{Deserialize, Serialize};

use crate::name::BatteryName;

/// The version that this build writes.
pub const CORRECTIONS_VERSION: u32 = 1;
/// Ranges told one by one; older ones are told as one that holds them all.
pub const MAX_RANGES: usize = 1000;

/// Rows from `first` to `last` that were changed or deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CorrectedRange {
    /// `seq` of the first row.
    pub first: i64,
    /// `seq` of the last row.
    pub last: i64,
    /// Which correction of the battery it was.
    pub revision: i64,
}

/// Which rows of a battery's present epoch were ever changed after they were stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Corrections {
    /// [`CORRECTIONS_VERSION`].
    pub v: u32,
    /// The battery.
    pub battery: BatteryName,
    /// The life of its name.
    pub epoch: i64,
    /// The newest correction; never used again for this battery.
    pub revision: i64,
    /// In the order of `revision`.
    pub ranges: Vec<CorrectedRange>,
}

impl Corrections {
    /// Returns what is known of a battery of which nothing was ever told.
    pub fn none(battery: BatteryName) -> Self {
        Self {
            v: CORRECTIONS_VERSION,
            battery,
            epoch: 0,
            revision: 0,
            ranges: Vec::new(),
        }
    }

    /// Tells whether some of these rows may differ from what the stream of rows has.
    pub fn touch(&self, epoch: i64, first: i64, last: i64) -> bool {
        let meets = |range: &CorrectedRange| range.first <= last && first <= range.last;
        self.epoch == epoch && self.ranges.iter().any(meets)
    }

    /// Returns the ranges that were changed after a revision.
    pub fn since(&self, revision: i64) -> impl Iterator<Item = &CorrectedRange> {
        let newer = move |range: &&CorrectedRange| range.revision > revision;
        self.ranges.iter().filter(newer)
    }

    /// Tells whether this is newer than what is known.
    pub fn supersedes(&self, known: &Self) -> bool {
        (self.epoch, self.revision) > (known.epoch, known.revision)
    }

    /// Joins all but the newest ranges to one, so that their number is bounded.
    pub fn bound(&mut self) {
        let Some(surplus) = self.ranges.len().checked_sub(MAX_RANGES).filter(|n| *n > 0) else {
            return;
        };
        let old: Vec<CorrectedRange> = self.ranges.drain(..=surplus).collect();
        let joined = old.into_iter().reduce(|a, b| CorrectedRange {
            first: a.first.min(b.first),
            last: a.last.max(b.last),
            revision: a.revision.max(b.revision),
        });
        self.ranges.splice(0..0, joined);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn corrections(ranges: &[(i64, i64)]) -> Corrections {
        let ranges = ranges.iter().zip(1..);
        let ranges = ranges.map(|(&(first, last), revision)| CorrectedRange {
            first,
            last,
            revision,
        });
        Corrections {
            epoch: 2,
            ranges: ranges.collect(),
            ..Corrections::none("b7".parse().unwrap())
        }
    }

    #[test]
    fn rows_of_another_epoch_are_not_touched() {
        let told = corrections(&[(5, 7)]);
        assert!(told.touch(2, 1, 5) && told.touch(2, 7, 9) && told.touch(2, 6, 6));
        assert!(!told.touch(2, 8, 9) && !told.touch(2, 1, 4) && !told.touch(1, 5, 7));
    }

    #[test]
    fn however_many_there_are_every_range_stays_touched() {
        let all: Vec<(i64, i64)> = (1..=3000).map(|n| (n * 10, n * 10 + 1)).collect();
        let mut told = corrections(&all);
        told.bound();
        assert_eq!(told.ranges.len(), MAX_RANGES);
        assert!(all.iter().all(|&(first, last)| told.touch(2, first, last)));
        assert_eq!(told.since(2990).count(), 10);
        assert_eq!(told.since(0).map(|range| range.first).min(), Some(10));
    }
}
