//! When rows leave: as they were measured, or faster.

use std::{str::FromStr, time::Duration};

/// How fast rows leave.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Speedup {
    /// As fast as the hub acknowledges.
    Max,
    /// This many times as fast as they were measured.
    Times(f64),
}

impl FromStr for Speedup {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "max" {
            return Ok(Self::Max);
        }
        match text.parse::<f64>() {
            Ok(times) if times > 0.0 && times.is_finite() => Ok(Self::Times(times)),
            _ => Err("a number above 0, such as 100, or `max`".to_owned()),
        }
    }
}

/// Tells of each row in turn when it leaves, counted from the first one.
#[derive(Debug)]
pub struct Pace {
    times: f64,
    latest: Option<f64>,
    elapsed_s: f64,
}

impl Pace {
    /// Makes the pace for rows that leave `times` as fast as they were measured.
    pub fn new(times: f64) -> Self {
        Self {
            times,
            latest: None,
            elapsed_s: 0.0,
        }
    }

    /// Returns when the next row leaves, given its `test_time` in seconds.
    ///
    /// A row without time, or with an earlier one (another test begins), leaves with the row
    /// before it.
    pub fn leaves_after(&mut self, test_time: Option<f64>) -> Duration {
        if let Some(time) = test_time.filter(|time| time.is_finite()) {
            let passed = self.latest.map_or(0.0, |latest| time - latest);
            self.elapsed_s += passed.max(0.0) / self.times;
            self.latest = Some(time);
        }
        Duration::try_from_secs_f64(self.elapsed_s).unwrap_or(Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(times: f64, test_times: &[Option<f64>]) -> Vec<f64> {
        let mut pace = Pace::new(times);
        let leaves = test_times
            .iter()
            .map(|&time| pace.leaves_after(time).as_secs_f64());
        leaves.collect()
    }

    #[test]
    fn rows_leave_as_they_were_measured_divided_by_the_speedup() {
        let times = [Some(100.0), Some(101.0), Some(101.0), Some(131.0)];
        assert_eq!(seconds(1.0, &times), [0.0, 1.0, 1.0, 31.0]);
        assert_eq!(seconds(10.0, &times), [0.0, 0.1, 0.1, 3.1]);
    }

    #[test]
    fn a_new_test_or_a_missing_time_does_not_wait() {
        let times = [Some(50.0), Some(60.0), Some(0.0), Some(2.0)];
        assert_eq!(seconds(1.0, &times), [0.0, 10.0, 10.0, 12.0]);
        let times = [None, Some(5.0), None, Some(f64::NAN), Some(6.0)];
        assert_eq!(seconds(1.0, &times), [0.0, 0.0, 0.0, 0.0, 1.0]);
    }

    #[test]
    fn a_speedup_is_max_or_above_zero() {
        assert_eq!("max".parse(), Ok(Speedup::Max));
        assert_eq!("2.5".parse(), Ok(Speedup::Times(2.5)));
        for wrong in ["0", "-1", "inf", "nan", "fast"] {
            assert!(wrong.parse::<Speedup>().is_err(), "{wrong}");
        }
    }
}
