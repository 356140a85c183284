//! One cycle, row by row: charge and energy by the trapezoid rule.
//!
//! The definitions are those of battery-data-toolkit's `CapacityPerCycle` and
//! `CycleTimesSummarizer` (battdat.postprocess.integral and .timing), summed in the same order, so
//! that results agree to the last bit:
//!
//! - a cycle's integrals run from its first row to the first row of the next cycle;
//! - a battery that was charged at the begin, which it was if it went further below that charge
//!   than above it, discharged as far as its lowest charge, and charged from there to the end; any
//!   other the other way round;
//! - fewer than three rows have no capacity.

use serde::{Deserialize, Serialize};

const SECONDS_PER_HOUR: f64 = 3600.0;
/// Fewest rows of which a capacity is known.
const FEWEST_ROWS: u64 = 3;

/// What cycles need of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sample {
    /// Place in the battery's table.
    pub(crate) seq: i64,
    /// The test.
    pub(crate) segment: i32,
    /// `cycle_number`.
    pub(crate) cycle: Option<i64>,
    /// Time (s), current (A, positive when charging) and voltage (V), where all are finite.
    pub(crate) point: Option<Point>,
    /// °C.
    pub(crate) temperature: Option<f64>,
}

/// A measurement.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Point {
    pub(crate) time: f64,
    pub(crate) current: f64,
    pub(crate) voltage: f64,
}

/// An integral over time, and how far it went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Integral {
    sum: f64,
    range: Option<(f64, f64)>,
}

impl Integral {
    fn add(&mut self, seconds: f64, begin: f64, end: f64) {
        self.sum += seconds * (begin + end) / 2.0;
        widen(&mut self.range, self.sum);
    }
}

/// A cycle as far as its rows are known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cycle {
    pub(crate) segment: i32,
    pub(crate) number: Option<i64>,
    pub(crate) first_seq: i64,
    pub(crate) last_seq: i64,
    /// Rows that have time, current and voltage.
    pub(crate) rows: u64,
    /// Whether the next cycle began.
    pub(crate) is_complete: bool,
    /// Whether a row came late, so that it must be computed anew.
    pub(crate) is_stale: bool,
    /// s; set by the next cycle where its number follows.
    next_start: Option<f64>,
    times: Option<(f64, f64)>,
    voltages: Option<(f64, f64)>,
    temperatures: Option<(f64, f64)>,
    last: Option<Point>,
    /// Points of the integrals.
    points: u64,
    charge: Integral,
    energy: Integral,
}

/// Charge (A·h) and energy (W·h) that went in and out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Capacity {
    pub(crate) charged: f64,
    pub(crate) discharged: f64,
    pub(crate) energy_in: f64,
    pub(crate) energy_out: f64,
}

impl Cycle {
    /// Begins with a row.
    pub(crate) fn begin(sample: &Sample) -> Self {
        let mut cycle = Self {
            segment: sample.segment,
            number: sample.cycle,
            first_seq: sample.seq,
            last_seq: sample.seq,
            rows: 0,
            is_complete: false,
            is_stale: false,
            next_start: None,
            times: None,
            voltages: None,
            temperatures: None,
            last: None,
            points: 0,
            charge: Integral::default(),
            energy: Integral::default(),
        };
        cycle.add(sample);
        cycle
    }

    /// Takes the next row in the order of time.
    pub(crate) fn add(&mut self, sample: &Sample) {
        self.first_seq = self.first_seq.min(sample.seq);
        self.last_seq = self.last_seq.max(sample.seq);
        if let Some(temperature) = sample.temperature {
            widen(&mut self.temperatures, temperature);
        }
        if let Some(point) = sample.point {
            self.rows += 1;
            widen(&mut self.times, point.time);
            widen(&mut self.voltages, point.voltage);
            self.integrate(point);
        }
    }

    /// Tells whether a row belongs before one that was taken.
    pub(crate) fn is_late(&self, sample: &Sample) -> bool {
        match (sample.point, self.times) {
            (Some(point), Some((_, latest))) => point.time < latest,
            _ => false,
        }
    }

    /// Ends with the first row of the next cycle of the segment, or because the segment ends.
    pub(crate) fn end(&mut self, next: Option<&Sample>) {
        self.is_complete = true;
        let Some((next, point)) = next.and_then(|next| Some((next, next.point?))) else {
            return;
        };
        self.integrate(point);
        let follows = self
            .number
            .is_some_and(|number| next.cycle.is_some() && next.cycle == number.checked_add(1));
        self.next_start = follows.then_some(point.time);
    }

    fn integrate(&mut self, point: Point) {
        self.points += 1;
        if let Some(last) = self.last {
            let seconds = point.time - last.time;
            self.charge.add(seconds, last.current, point.current);
            let power = |point: Point| point.current * point.voltage;
            self.energy.add(seconds, power(last), power(point));
        }
        self.last = Some(point);
    }

    /// Returns `test_time` of the first row, s.
    pub(crate) fn start(&self) -> Option<f64> {
        self.times.map(|(start, _)| start)
    }

    /// Returns the time up to the next cycle or to the last row, s.
    pub(crate) fn duration(&self) -> Option<f64> {
        let (start, last) = self.times?;
        Some(self.next_start.unwrap_or(last) - start)
    }

    /// Returns the lowest and the highest voltage, V.
    pub(crate) fn voltages(&self) -> Option<(f64, f64)> {
        self.voltages
    }

    /// Returns the lowest and the highest temperature, °C.
    pub(crate) fn temperatures(&self) -> Option<(f64, f64)> {
        self.temperatures
    }

    /// Returns what went in and out; none where there are too few rows.
    pub(crate) fn capacity(&self) -> Option<Capacity> {
        let (lowest, highest) = self.charge.range?;
        let (least, most) = self.energy.range?;
        if self.points < FEWEST_ROWS {
            return None;
        }
        let (charge, energy) = (self.charge.sum, self.energy.sum);
        let (charged, discharged, energy_in, energy_out) = if -lowest > highest {
            (charge - lowest, -lowest, energy - least, -least)
        } else {
            (highest, highest - charge, most, most - energy)
        };
        let capacity = Capacity {
            charged: charged / SECONDS_PER_HOUR,
            discharged: discharged / SECONDS_PER_HOUR,
            energy_in: energy_in / SECONDS_PER_HOUR,
            energy_out: energy_out / SECONDS_PER_HOUR,
        };
        Some(capacity)
    }
}

fn widen(range: &mut Option<(f64, f64)>, value: f64) {
    let (low, high) = range.unwrap_or((value, value));
    *range = Some((low.min(value), high.max(value)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(seq: i32, time: f64, current: f64) -> Sample {
        Sample {
            seq: seq.into(),
            segment: 1,
            cycle: Some(3),
            point: Some(Point {
                time,
                current,
                voltage: 4.0,
            }),
            temperature: Some(20.0 + time / 3600.0),
        }
    }

    fn cycle(points: &[(f64, f64)]) -> Cycle {
        let mut samples = (1..)
            .zip(points)
            .map(|(seq, &(time, i))| sample(seq, time, i));
        let mut cycle = Cycle::begin(&samples.next().unwrap());
        samples.for_each(|sample| cycle.add(&sample));
        cycle
    }

    fn close(found: f64, expected: f64) -> bool {
        (found - expected).abs() < 1e-12
    }

    #[test]
    fn a_battery_that_was_charged_discharges_first() {
        // An hour at -2 A, then half an hour at +3 A.
        let cycle = cycle(&[(0.0, -2.0), (3600.0, -2.0), (3600.0, 3.0), (5400.0, 3.0)]);
        let capacity = cycle.capacity().unwrap();
        assert!(close(capacity.discharged, 2.0) && close(capacity.charged, 1.5));
        assert!(close(capacity.energy_out, 8.0) && close(capacity.energy_in, 6.0));
        assert_eq!(cycle.duration(), Some(5400.0));
        assert_eq!(cycle.temperatures(), Some((20.0, 21.5)));
    }

    #[test]
    fn a_battery_that_was_empty_is_charged_first() {
        let cycle = cycle(&[(0.0, 2.0), (3600.0, 2.0), (3600.0, -1.0), (7200.0, -1.0)]);
        let capacity = cycle.capacity().unwrap();
        assert!(close(capacity.charged, 2.0) && close(capacity.discharged, 1.0));
    }

    #[test]
    fn the_next_cycle_s_first_row_ends_the_integrals_and_the_duration() {
        let mut cycle = cycle(&[(0.0, -1.0), (1800.0, -1.0)]);
        assert_eq!(cycle.capacity(), None, "two rows are too few");
        let mut next = sample(9, 3600.0, -1.0);
        next.cycle = Some(4);
        let mut without_number = cycle.clone();
        cycle.end(Some(&next));
        assert!(close(cycle.capacity().unwrap().discharged, 1.0));
        assert_eq!(
            (cycle.duration(), cycle.rows, cycle.last_seq),
            (Some(3600.0), 2, 2)
        );
        next.cycle = Some(7);
        without_number.end(Some(&next));
        assert_eq!(without_number.duration(), Some(1800.0));
    }

    #[test]
    fn rows_without_measurements_change_no_integral() {
        let mut with = cycle(&[(0.0, -1.0), (1800.0, -1.0)]);
        let mut gap = sample(3, 0.0, 0.0);
        gap.point = None;
        with.add(&gap);
        with.add(&sample(4, 3600.0, -1.0));
        assert!(close(with.capacity().unwrap().discharged, 1.0));
        assert_eq!((with.rows, with.last_seq), (3, 4));
    }
}
