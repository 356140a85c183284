//! How fast the hub works on what it derives from rows while rows come in.

use std::{
    mem,
    time::{Duration, Instant},
};

use prometheus::IntCounter;

/// A rest is as many times longer than the piece of work before it as this goes into the rows that
/// are stored a second: too little holds up the rows that come, too much makes late what is derived
/// from those before.
const ROWS_PER_S: f64 = 700.0;
/// The shortest and the longest rest, in times of the work.
const RESTS: (f64, f64) = (1.0, 150.0);
/// The shortest rest where there was little to do, of which more comes meanwhile.
const LITTLE: f64 = 15.0;
/// No rest is longer: uploads may have ended.
const LONGEST: Duration = Duration::from_secs(2);

/// Lets a task rest between its pieces, longer while many rows are being stored.
#[derive(Debug)]
pub(crate) struct Pace {
    stored: IntCounter,
    seen: u64,
    since: Instant,
}

impl Pace {
    /// Watches the counter of stored rows.
    pub(crate) fn new(stored: IntCounter) -> Self {
        Self {
            seen: stored.get(),
            stored,
            since: Instant::now(),
        }
    }

    /// Rests after a piece of work that took so long, and was worth it or not.
    pub(crate) async fn rest(&mut self, took: Duration, is_worth_it: bool) {
        let shortest = if is_worth_it { RESTS.0 } else { LITTLE };
        let times = (self.rows_per_s() / ROWS_PER_S).clamp(shortest, RESTS.1);
        tokio::time::sleep(took.mul_f64(times).min(LONGEST)).await;
    }

    /// Returns how many rows were stored a second since it was last asked.
    #[expect(clippy::cast_precision_loss, reason = "row counts are far below 2^52")]
    fn rows_per_s(&mut self) -> f64 {
        let (stored, now) = (self.stored.get(), Instant::now());
        let rows = stored.saturating_sub(self.seen) as f64;
        let since = mem::replace(&mut self.since, now);
        self.seen = stored;
        rows / (now - since).as_secs_f64().max(1e-6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_tells_of_the_rows_stored_since_it_was_last_asked() {
        let stored = IntCounter::new("stored", "Rows stored.").unwrap();
        stored.inc_by(5);
        let mut pace = Pace::new(stored.clone());
        assert!(pace.rows_per_s() < f64::EPSILON);
        stored.inc_by(1_000_000_000);
        assert!(pace.rows_per_s() > 1e7);
        assert!(pace.rows_per_s() < f64::EPSILON);
    }
}
