//! The summary of each battery's cycles, kept up to date beside the way of the rows.
//!
//! A task on every hub follows the committed rows by `seq`; `fold` tells cycles apart, `integral`
//! sums one up, `store::cycles` keeps both.

pub(crate) mod fold;
pub(crate) mod integral;
pub(crate) mod throughput;

use std::time::{Duration, Instant};

use prometheus::IntCounter;
use rovi_common::{error::ErrorChain, lifecycle::Lifecycle, telemetry::Metrics};
use serde::{Deserialize, Serialize};

use crate::{
    pace::Pace,
    store::{Pool, StoreError, cycles},
};

/// Batteries looked at in one query.
const PAGE: i64 = 1000;
/// Pieces of one battery in a row; then it is the next one's turn.
const MOST_PIECES: usize = 256;
/// Rows from which a piece was worth its time.
const MANY_ROWS: usize = 200;

/// The settings of the summary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CycleSettings {
    /// How often new rows are looked for. Too low costs the database a look at every battery, too
    /// high makes the summary late.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
}

impl Default for CycleSettings {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(2),
        }
    }
}

impl CycleSettings {
    /// What usable settings are.
    pub(crate) const NEEDS: &str = "cycles.interval must be 10 ms or more";

    pub(crate) fn is_usable(&self) -> bool {
        self.interval >= Duration::from_millis(10)
    }
}

/// Keeps the cycles of all batteries.
#[derive(Debug)]
pub(crate) struct Cycles {
    pool: Pool,
    settings: CycleSettings,
    rows: IntCounter,
    pace: Pace,
}

impl Cycles {
    pub(crate) fn new(
        pool: Pool,
        settings: CycleSettings,
        metrics: &Metrics,
        stored: IntCounter,
    ) -> Self {
        let help = "Rows that were added to the summary of their cycle.";
        Self {
            pool,
            settings,
            rows: metrics.counter("datahub_cycle_rows_total", help),
            pace: Pace::new(stored),
        }
    }

    /// Starts following the rows, until the service stops.
    pub(crate) fn start(mut self, lifecycle: &Lifecycle) {
        let stop = lifecycle.stop_token();
        lifecycle.supervise("cycles", async move {
            let work = async {
                loop {
                    if let Err(error) = self.look().await {
                        tracing::debug!("the cycles wait: {}", ErrorChain(&error));
                    }
                    tokio::time::sleep(self.settings.interval).await;
                }
            };
            stop.run_until_cancelled(work).await;
        });
    }

    async fn look(&mut self) -> Result<(), StoreError> {
        let mut after_id = i64::MIN;
        loop {
            let read = move |connection: &mut _| cycles::behind(connection, after_id, PAGE);
            let page = self.pool.run(read).await?;
            let Some(last) = page.last() else {
                return Ok(());
            };
            after_id = last.id;
            for battery in page {
                let name = battery.name.clone();
                if let Err(error) = self.advance(battery.name).await {
                    // One table that is locked is no reason to leave the others.
                    tracing::debug!("the cycles of {name} wait: {}", ErrorChain(&error));
                }
            }
        }
    }

    async fn advance(&mut self, battery: String) -> Result<(), StoreError> {
        for _ in 0..MOST_PIECES {
            let name = battery.clone();
            let begun = Instant::now();
            let advance = move |connection: &mut _| cycles::advance(connection, &name);
            let done = self.pool.run(advance).await?;
            let is_worth_it = done.is_some_and(|done| done.rows >= MANY_ROWS);
            self.pace.rest(begun.elapsed(), is_worth_it).await;
            let Some(done) = done else {
                return Ok(());
            };
            self.rows.inc_by(done.rows as u64);
            if !done.more {
                return Ok(());
            }
        }
        Ok(())
    }
}
