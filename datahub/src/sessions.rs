//! Upload sessions that are of no use any more are forgotten, on whatever hub finds the time.
//!
//! A session ends when it was unused for [`SessionSettings::days`]; its line stays for a while, so
//! that whoever comes back to it is refused and stores nothing twice. What its name tells of its age
//! needs no line for that.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use prometheus::IntCounter;
use rovi_common::{error::ErrorChain, lifecycle::Lifecycle, telemetry::Metrics};
use serde::{Deserialize, Serialize};

use crate::{
    pace::Pace,
    store::{Pool, StoreError, derived, sessions},
    upload::open::OpenUploads,
};

/// Blocks of the table looked through at once: some 10,000 sessions, some 10 ms of work.
const PIECE_BLOCKS: i64 = 256;
/// How soon it is tried again while PostgreSQL is away.
const TRY_AGAIN: Duration = Duration::from_mins(1);

/// The settings of sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SessionSettings {
    /// Days after which an unused session ends. Too few end uploads whose clients were away, too
    /// many keep more lines.
    pub days: u32,
    /// Days after which an ended session is forgotten whose name does not tell its age, such as one
    /// made of `Idempotency-Key`. Too few let rows be stored twice that are sent again after so
    /// long, too many keep a line of 200 bytes for every body that ever had a key.
    pub memory_days: u32,
    /// How often sessions to forget are looked for. Too low costs the database a look at every
    /// session, too high leaves them lying.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
}

impl Default for SessionSettings {
    fn default() -> Self {
        Self {
            days: 7,
            memory_days: 365,
            interval: Duration::from_hours(1),
        }
    }
}

impl SessionSettings {
    /// What usable settings are.
    pub(crate) const NEEDS: &str = "sessions.days must be 1 or more, sessions.memory_days \
                                    sessions.days or more and at most 36500, and \
                                    sessions.interval 10 ms to 6 h";

    pub(crate) fn is_usable(&self) -> bool {
        // Open connections are looked after at every interval, long before their sessions end.
        let intervals = Duration::from_millis(10)..=Duration::from_hours(6);
        1 <= self.days
            && self.days <= self.memory_days
            && self.memory_days <= 36_500
            && intervals.contains(&self.interval)
    }
}

/// Keeps sessions in use, and forgets useless ones.
#[derive(Debug)]
pub(crate) struct SessionKeeper {
    pool: Pool,
    uploads: Arc<OpenUploads>,
    settings: SessionSettings,
    forgotten: IntCounter,
    rows_stored: IntCounter,
}

impl SessionKeeper {
    pub(crate) fn new(
        pool: Pool,
        uploads: Arc<OpenUploads>,
        settings: SessionSettings,
        (metrics, rows_stored): (&Metrics, IntCounter),
    ) -> Self {
        let help = "Upload sessions that were forgotten.";
        Self {
            pool,
            uploads,
            settings,
            forgotten: metrics.counter("datahub_sessions_forgotten_total", help),
            rows_stored,
        }
    }

    /// Starts the work, until the service stops.
    pub(crate) fn start(self, lifecycle: &Lifecycle) {
        let stop = lifecycle.stop_token();
        lifecycle.supervise("sessions", async move {
            stop.run_until_cancelled(self.work()).await;
        });
    }

    async fn work(&self) {
        let interval = self.settings.interval;
        let mut pace = Pace::new(self.rows_stored.clone());
        loop {
            let pause = match self.look(&mut pace).await {
                Ok(()) => interval,
                Err(error) => {
                    tracing::debug!("sessions stay for now: {}", ErrorChain(&error));
                    interval.min(TRY_AGAIN)
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn look(&self, pace: &mut Pace) -> Result<(), StoreError> {
        let settings = self.settings;
        let open = self.uploads.sessions();
        let blocks = self.pool.run(move |connection| {
            derived(connection, |connection| {
                Ok(sessions::keep(connection, &open, settings.days)?)
            })?;
            Ok(sessions::blocks(connection)?)
        });
        let blocks = blocks.await?;
        let mut first = 0;
        while first < blocks {
            let piece = first..first + PIECE_BLOCKS;
            first = piece.end;
            let began = Instant::now();
            let forget = move |connection: &mut _| {
                derived(connection, |connection| {
                    let forgotten = sessions::forget_useless(connection, &piece, &settings)?;
                    Ok(forgotten)
                })
            };
            self.forgotten.inc_by(self.pool.run(forget).await? as u64);
            pace.rest(began.elapsed(), true).await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_may_not_be_forgotten_before_they_end() {
        let settings = SessionSettings::default();
        assert!(settings.is_usable());
        for (days, memory_days) in [(0, 365), (7, 6), (7, 36_501)] {
            let settings = SessionSettings {
                days,
                memory_days,
                ..settings
            };
            assert!(!settings.is_usable(), "{settings:?}");
        }
    }
}
