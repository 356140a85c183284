//! Retention: old rows go, by age or number, on whatever hub finds the time.
//!
//! Estimates, cycles and metadata stay: what was learnt of a battery outlives its rows.

use std::time::Duration;

use prometheus::IntCounter;
use rovi_common::{clock::now_us, error::ErrorChain, lifecycle::Lifecycle, telemetry::Metrics};
use serde::{Deserialize, Serialize};

use crate::store::{
    Pool, StoreError,
    retention::{self, Candidate, Rule},
};

/// Batteries looked at in one query.
const PAGE: i64 = 1000;
/// Rows removed in one transaction: some 10 ms of work.
const PIECE_ROWS: i64 = 2000;
/// Pieces of one battery in a row; then it is the next one's turn.
const MOST_PIECES: usize = 500;

/// The settings of retention.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetentionSettings {
    /// How long ago a row may have been received, for batteries without a rule of their own.
    /// Rows are kept for ever if it is not given.
    #[serde(with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Duration>,
    /// How many of the newest rows stay, for batteries without a rule of their own; all if not
    /// given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_rows: Option<i64>,
    /// How often rows that may go are looked for. Too low costs the database a look at every
    /// battery, too high lets tables grow beyond their rule meanwhile.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
}

impl Default for RetentionSettings {
    fn default() -> Self {
        Self {
            max_age: None,
            max_rows: None,
            interval: Duration::from_mins(1),
        }
    }
}

impl RetentionSettings {
    /// What usable settings are.
    pub(crate) const NEEDS: &str = "retention.interval must be 10 ms or more, retention.max_rows 1 \
                                    or more and retention.max_age more than 0 and at most 200 \
                                    years; leave out what is to have no bound";

    pub(crate) fn is_usable(&self) -> bool {
        self.interval >= Duration::from_millis(10) && self.rule().is_usable()
    }

    /// Returns the rule of batteries without one of their own.
    pub(crate) fn rule(&self) -> Rule {
        Rule {
            max_age: self.max_age,
            max_rows: self.max_rows,
        }
    }
}

/// Removes old rows.
#[derive(Debug)]
pub(crate) struct Retention {
    pool: Pool,
    settings: RetentionSettings,
    rows_removed: IntCounter,
}

impl Retention {
    pub(crate) fn new(pool: Pool, settings: RetentionSettings, metrics: &Metrics) -> Self {
        let help = "Rows that were removed by retention.";
        Self {
            pool,
            settings,
            rows_removed: metrics.counter("datahub_rows_gone_total", help),
        }
    }

    /// Starts removing, until the service stops.
    pub(crate) fn start(self, lifecycle: &Lifecycle) {
        let stop = lifecycle.stop_token();
        lifecycle.supervise("retention", async move {
            let work = async {
                loop {
                    if let Err(error) = self.look().await {
                        tracing::debug!("retention waits: {}", ErrorChain(&error));
                    }
                    tokio::time::sleep(self.settings.interval).await;
                }
            };
            stop.run_until_cancelled(work).await;
        });
    }

    async fn look(&self) -> Result<(), StoreError> {
        let mut after_id = i64::MIN;
        loop {
            let page = self.page(after_id).await?;
            let Some(last) = page.last() else {
                return Ok(());
            };
            after_id = last.id;
            for battery in page {
                let rule = battery.rule(self.settings.rule());
                if !rule.has_bound() {
                    continue;
                }
                let name = battery.name.clone();
                if let Err(error) = self.remove(battery, rule).await {
                    // One table that is locked is no reason to leave the others.
                    tracing::debug!("old rows of {name} stay for now: {}", ErrorChain(&error));
                }
            }
        }
    }

    async fn page(&self, after_id: i64) -> Result<Vec<Candidate>, StoreError> {
        let read = move |connection: &mut _| retention::candidates(connection, after_id, PAGE);
        self.pool.run(read).await
    }

    async fn remove(&self, mut battery: Candidate, rule: Rule) -> Result<(), StoreError> {
        let mut removed = 0;
        for _ in 0..MOST_PIECES {
            let now = now_us();
            let (gone, left) = self
                .pool
                .run(move |connection| {
                    let gone = retention::remove(connection, &battery, rule, (now, PIECE_ROWS))?;
                    let after_id = battery.id - 1;
                    let again = retention::candidates(connection, after_id, 1)?;
                    let again = again.into_iter().find(|again| again.id == battery.id);
                    Ok((gone, again))
                })
                .await?;
            removed += gone;
            self.rows_removed.inc_by(gone as u64);
            match left {
                Some(left) if gone > 0 => battery = left,
                _ => break,
            }
        }
        if removed > 0 {
            tracing::debug!("{removed} old rows were removed");
        }
        Ok(())
    }
}
