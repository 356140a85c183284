//! When rows are due.

use std::time::Duration;

use tokio::time::Instant;

/// A row each so often, counted from a fixed moment: pauses do not move what is due after them.
#[derive(Debug, Clone, Copy)]
pub struct Beat {
    first: Instant,
    period: Duration,
}

impl Beat {
    /// Makes the beat whose row 0 is due at `first`.
    pub fn new(first: Instant, period: Duration) -> Self {
        Self { first, period }
    }

    /// Returns when a row is due.
    pub fn due(&self, row: u64) -> Instant {
        let after = self.period.as_secs_f64() * float(row);
        self.first + Duration::from_secs_f64(after)
    }

    /// Returns how many rows were due until `now`.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "seconds of a process divided by a period above 0"
    )]
    pub fn rows_due(&self, now: Instant) -> u64 {
        match now.checked_duration_since(self.first) {
            None => 0,
            Some(passed) => (passed.as_secs_f64() / self.period.as_secs_f64()) as u64 + 1,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "row numbers are far below 2^52")]
fn float(row: u64) -> f64 {
    row as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_pause_missed_is_due_after_it() {
        let first = Instant::now();
        let beat = Beat::new(first, Duration::from_millis(100));
        let after = |ms| beat.rows_due(first + Duration::from_millis(ms));
        assert_eq!(
            [after(0), after(50), after(150), after(5050)],
            [1, 1, 2, 51]
        );
    }

    #[test]
    fn a_thousand_hours_later_the_beat_is_where_it_was() {
        let first = Instant::now();
        let beat = Beat::new(first, Duration::from_millis(250));
        let late = 1000 * 3600 * 4;
        assert_eq!(beat.due(late), first + Duration::from_hours(1000));
    }

    #[test]
    fn nothing_is_due_before_the_first_row() {
        let first = Instant::now() + Duration::from_secs(5);
        let beat = Beat::new(first, Duration::from_secs(1));
        assert_eq!(beat.rows_due(Instant::now()), 0);
    }
}
