//! Rows of a battery in the order of `seq`, into cycles.

use serde::{Deserialize, Serialize};

use super::integral::{Cycle, Sample};

/// Where a battery's cycles stand between two pieces of rows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Going {
    /// The cycle that is going on.
    pub(crate) cycle: Option<Cycle>,
    /// The greatest `cycle_number` of its segment so far.
    highest: Option<i64>,
}

/// What rows make of cycles.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Folded {
    /// Cycles that ended.
    pub(crate) ended: Vec<Cycle>,
    /// Late rows of cycles that ended before: segment, number, `seq`.
    pub(crate) late: Vec<(i32, i64, i64)>,
}

impl Going {
    /// Takes rows; `is_known` tells whether a number was met in a segment before.
    ///
    /// # Errors
    /// Those of `is_known`.
    pub(crate) fn take<E>(
        &mut self,
        samples: &[Sample],
        mut is_known: impl FnMut(i32, i64) -> Result<bool, E>,
    ) -> Result<Folded, E> {
        let mut folded = Folded::default();
        for sample in samples {
            self.take_one(sample, &mut folded, &mut is_known)?;
        }
        Ok(folded)
    }

    fn take_one<E>(
        &mut self,
        sample: &Sample,
        folded: &mut Folded,
        is_known: &mut impl FnMut(i32, i64) -> Result<bool, E>,
    ) -> Result<(), E> {
        let Some(cycle) = &mut self.cycle else {
            self.begin(sample);
            return Ok(());
        };
        if cycle.segment != sample.segment {
            cycle.end(None);
            folded.ended.extend(self.cycle.take());
            self.highest = None;
            self.begin(sample);
            return Ok(());
        }
        let Some(number) = sample.cycle.filter(|number| cycle.number != Some(*number)) else {
            // Where cycles are numbered, a row without a number is of none.
            if cycle.number == sample.cycle {
                if cycle.is_late(sample) {
                    cycle.is_stale = true;
                    cycle.last_seq = sample.seq;
                } else {
                    cycle.add(sample);
                }
            }
            return Ok(());
        };
        let is_new = self.highest.is_none_or(|highest| number > highest);
        let ended_here =
            |ended: &Cycle| (ended.segment, ended.number) == (sample.segment, Some(number));
        if !is_new && (folded.ended.iter().any(ended_here) || is_known(sample.segment, number)?) {
            folded.late.push((sample.segment, number, sample.seq));
            return Ok(());
        }
        cycle.end(Some(sample));
        folded.ended.extend(self.cycle.take());
        self.begin(sample);
        Ok(())
    }

    fn begin(&mut self, sample: &Sample) {
        self.highest = self.highest.max(sample.cycle);
        self.cycle = Some(Cycle::begin(sample));
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::cycles::integral::Point;

    fn sample(seq: i64, segment: i32, cycle: Option<i64>, time: f64) -> Sample {
        Sample {
            seq,
            segment,
            cycle,
            point: Some(Point {
                time,
                current: 1.0,
                voltage: 4.0,
            }),
            temperature: None,
        }
    }

    fn fold(going: &mut Going, samples: &[Sample]) -> Folded {
        let known: Result<Folded, Infallible> = going.take(samples, |_, _| Ok(false));
        known.unwrap()
    }

    fn numbers(folded: &Folded) -> Vec<(i32, Option<i64>, u64)> {
        let ended = folded.ended.iter();
        ended
            .map(|cycle| (cycle.segment, cycle.number, cycle.rows))
            .collect()
    }

    #[test]
    fn a_cycle_is_what_has_one_number_in_one_segment() {
        let rows = [
            sample(1, 1, Some(0), 0.0),
            sample(2, 1, Some(0), 1.0),
            sample(3, 1, None, 1.5),
            sample(4, 1, Some(1), 2.0),
            sample(5, 2, Some(1), 0.0),
            sample(6, 2, Some(2), 1.0),
        ];
        let mut going = Going::default();
        let folded = fold(&mut going, &rows);
        assert_eq!(
            numbers(&folded),
            [(1, Some(0), 2), (1, Some(1), 1), (2, Some(1), 1)]
        );
        assert_eq!(going.cycle.unwrap().first_seq, 6);
    }

    #[test]
    fn without_numbers_a_segment_is_one_cycle() {
        let rows = [
            sample(1, 1, None, 0.0),
            sample(2, 1, None, 1.0),
            sample(3, 2, None, 0.0),
        ];
        let mut going = Going::default();
        assert_eq!(numbers(&fold(&mut going, &rows)), [(1, None, 2)]);
    }

    #[test]
    fn how_rows_are_cut_shows_nowhere() {
        let rows: Vec<Sample> = (0..100_u8)
            .map(|n| sample(n.into(), 1, Some(i64::from(n / 7)), f64::from(n) * 0.1))
            .collect();
        let mut whole = Going::default();
        let all = fold(&mut whole, &rows);
        let (mut cut, mut pieces) = (Going::default(), Vec::new());
        for piece in rows.chunks(3) {
            pieces.extend(fold(&mut cut, piece).ended);
            cut = rmp_serde::from_slice(&rmp_serde::to_vec(&cut).unwrap()).unwrap();
        }
        assert_eq!((cut, pieces), (whole, all.ended));
    }

    #[test]
    fn late_rows_are_told_and_do_not_begin_a_cycle() {
        let mut going = Going::default();
        let rows = [
            sample(1, 1, Some(1), 0.0),
            sample(2, 1, Some(2), 10.0),
            sample(3, 1, Some(1), 5.0),
            sample(4, 1, Some(2), 9.0),
        ];
        let folded = fold(&mut going, &rows);
        assert_eq!(folded.late, [(1, 1, 3)]);
        let cycle = going.cycle.unwrap();
        assert!(cycle.is_stale && cycle.number == Some(2) && cycle.last_seq == 4);
    }
}
