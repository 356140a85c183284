//! How fast the hub works on what it derives from rows while rows come in.

use std::time::{Duration, Instant};

use prometheus::IntCounter;

/// Rows a second from which uploads have the machine to themselves as far as possible.
const BUSY_ROWS_PER_S: f64 = 5_000.0;
/// How much longer than a piece of work the rest after it is: beside busy uploads, or where there
/// was little to do, of which more comes meanwhile; and otherwise. Too little holds up the rows
/// that come, too much makes late what is derived from those before.
const RESTS: (u32, u32) = (15, 1);

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
        let is_busy = self.is_busy();
        let factor = if is_busy || !is_worth_it {
            RESTS.0
        } else {
            RESTS.1
        };
        tokio::time::sleep(took * factor).await;
    }

    /// Tells whether many rows were stored since it was last asked.
    #[expect(clippy::cast_precision_loss, reason = "row counts are far below 2^52")]
    fn is_busy(&mut self) -> bool {
        let (stored, now) = (self.stored.get(), Instant::now());
        let rows = stored.saturating_sub(self.seen);
        let busy = BUSY_ROWS_PER_S * (now - self.since).as_secs_f64();
        (self.seen, self.since) = (stored, now);
        rows as f64 > busy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_busy_while_many_rows_are_stored_and_no_longer() {
        let stored = IntCounter::new("stored", "Rows stored.").unwrap();
        let mut pace = Pace::new(stored.clone());
        stored.inc_by(1_000_000_000);
        assert!(pace.is_busy());
        assert!(!pace.is_busy());
    }
}
