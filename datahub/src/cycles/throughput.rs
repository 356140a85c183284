//! Charge and energy through a battery over any stretch of time: what went in and what went out.

use super::integral::{Point, Sample};

const SECONDS_PER_HOUR: f64 = 3600.0;

/// The sums, by the trapezoid rule within each segment; where the current changes its sign, each
/// side counts for its own. Rows that came late are left out.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Throughput {
    last: Option<(i32, Point)>,
    charge: Sides,
    energy: Sides,
}

/// Integrals of the positive and of the negative part.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Sides {
    positive: f64,
    negative: f64,
}

impl Sides {
    /// Adds what a straight line from `begin` to `end` encloses with zero.
    fn add(&mut self, seconds: f64, begin: f64, end: f64) {
        if begin * end >= 0.0 {
            self.put(seconds * (begin + end) / 2.0);
            return;
        }
        let until_zero = seconds * begin / (begin - end);
        self.put(until_zero * begin / 2.0);
        self.put((seconds - until_zero) * end / 2.0);
    }

    fn put(&mut self, area: f64) {
        if area > 0.0 {
            self.positive += area;
        } else {
            self.negative -= area;
        }
    }
}

impl Throughput {
    /// Takes the next row.
    pub(crate) fn add(&mut self, sample: &Sample) {
        let Some(point) = sample.point else {
            return;
        };
        if let Some((segment, last)) = self.last
            && segment == sample.segment
        {
            let seconds = point.time - last.time;
            if seconds < 0.0 {
                return;
            }
            self.charge.add(seconds, last.current, point.current);
            let power = |point: Point| point.current * point.voltage;
            self.energy.add(seconds, power(last), power(point));
        }
        self.last = Some((sample.segment, point));
    }

    /// Returns charge in and out, A·h, and energy in and out, W·h; none without a row.
    pub(crate) fn sums(&self) -> Option<[f64; 4]> {
        self.last?;
        let sums = [self.charge, self.energy].map(|sides| [sides.positive, sides.negative]);
        let [[charge_in, charge_out], [energy_in, energy_out]] = sums;
        Some([charge_in, charge_out, energy_in, energy_out].map(|sum| sum / SECONDS_PER_HOUR))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(points: &[(i32, f64, f64)]) -> Option<[f64; 4]> {
        let mut throughput = Throughput::default();
        for (seq, &(segment, time, current)) in (1..).zip(points) {
            throughput.add(&Sample {
                seq,
                segment,
                cycle: None,
                point: Some(Point {
                    time,
                    current,
                    voltage: 2.0,
                }),
                temperature: None,
            });
        }
        throughput.sums()
    }

    #[test]
    fn a_ramp_through_zero_counts_on_both_sides() {
        assert_eq!(
            sums(&[(1, 0.0, -1.0), (1, 7200.0, 1.0)]),
            Some([0.5, 0.5, 1.0, 1.0])
        );
    }

    #[test]
    fn nothing_flows_between_two_tests_or_backwards() {
        let points = [
            (1, 0.0, 1.0),
            (1, 3600.0, 1.0),
            (1, 1800.0, 9.0),
            (2, 9000.0, 1.0),
        ];
        assert_eq!(sums(&points), Some([1.0, 0.0, 2.0, 0.0]));
        assert_eq!(sums(&[]), None);
    }
}
