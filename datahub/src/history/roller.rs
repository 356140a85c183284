//! Makes the rollups of batteries whose history is reduced, behind the requests that miss them.
//!
//! Nothing happens for a battery until somebody asks for a reduction: taking rows in costs no
//! more than before. Only where rows of which times are, [`times`] tells of every battery that has
//! many, before anybody asks: a range of a long history would otherwise read all of it.

use std::{collections::HashMap, time::Duration};

use prometheus::IntCounter;
use rovi_common::{error::ErrorChain, lifecycle::Lifecycle, name::BatteryName};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    pace::Pace,
    store::{
        Pool, StoreError, rollups,
        source::{Of, Source, SourceError},
        times,
    },
};

/// Batteries that wait; a request that finds no room leaves it to the next.
const QUEUE: usize = 256;
/// Units that are made in one go, between which others get the connection.
const UNITS_AT_ONCE: i64 = 8;
/// Units of one battery in a row; then it is the next one's turn.
const MOST_UNITS: usize = 256;
/// How often batteries with many new rows are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Takes notice of batteries whose rollups are missing.
#[derive(Debug, Clone)]
pub struct Roller {
    wanted: mpsc::Sender<BatteryName>,
}

impl Roller {
    /// Starts the task that makes rollups; `stored` counts the rows that come meanwhile.
    pub fn start(pool: &Pool, stored: &IntCounter, lifecycle: &Lifecycle) -> Self {
        let (wanted, mut inbox) = mpsc::channel::<BatteryName>(QUEUE);
        let (own, stop) = (pool.clone(), lifecycle.stop_token());
        lifecycle.supervise("roller", async move {
            while let Some(Some(battery)) = stop.run_until_cancelled(inbox.recv()).await {
                if let Err(error) = roll(&own, &stop, &battery).await {
                    tracing::warn!(%battery, "rollups are not made: {}", ErrorChain(&error));
                }
            }
        });
        follow_times(pool.clone(), Pace::new(stored.clone()), lifecycle);
        Self { wanted }
    }

    /// Asks for a battery's rollups.
    pub(crate) fn want(&self, battery: &BatteryName) {
        // A full queue is no fault: the next reduction asks again.
        drop(self.wanted.try_send(battery.clone()));
    }
}

/// Keeps up with the times of batteries that have many rows, until the service stops.
fn follow_times(pool: Pool, mut pace: Pace, lifecycle: &Lifecycle) {
    let stop = lifecycle.stop_token();
    lifecycle.supervise("times", async move {
        let mut complete = HashMap::new();
        let work = async {
            loop {
                if let Err(error) = look_at_times(&pool, &mut pace, &mut complete).await {
                    tracing::debug!("the times of rows wait: {}", ErrorChain(&error));
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        stop.run_until_cancelled(work).await;
    });
}

/// Makes what is missing; `complete` tells after how many corrections of a battery nothing was.
async fn look_at_times(
    pool: &Pool,
    pace: &mut Pace,
    complete: &mut HashMap<i64, i64>,
) -> Result<(), StoreError> {
    for history in pool.run(times::behind).await? {
        let is_complete = complete.get(&history.id) == Some(&history.corrections);
        if is_complete && !history.is_behind {
            continue;
        }
        let Ok(battery) = history.name.parse::<BatteryName>() else {
            continue;
        };
        let mut from = 0;
        for _ in 0..MOST_UNITS {
            let begun = Instant::now();
            let name = battery.clone();
            match pool
                .run(move |connection| times::advance(connection, &name, from))
                .await
            {
                Ok(Some(next)) => from = next,
                Ok(None) => {
                    complete.insert(history.id, history.corrections);
                    break;
                }
                Err(error @ StoreError::Away(_)) => return Err(error),
                // One table that is locked is no reason to leave the others.
                Err(error) => {
                    tracing::debug!(%battery, "its times wait: {}", ErrorChain(&error));
                    break;
                }
            }
            pace.rest(begun.elapsed(), true).await;
        }
    }
    Ok(())
}

/// Makes all that is missing of one battery.
async fn roll(
    pool: &Pool,
    stop: &CancellationToken,
    battery: &BatteryName,
) -> Result<(), StoreError> {
    loop {
        let name = battery.clone();
        let made = pool.run(move |connection| {
            let source = match Source::open(connection, &name, &Of::Rows) {
                Ok(source) => source,
                Err(SourceError::NoBattery(_) | SourceError::NoTable(_)) => return Ok(0),
                Err(SourceError::Store(error)) => return Err(error),
            };
            let missing = rollups::missing(connection, &source.line, (1, 0), UNITS_AT_ONCE)?;
            for unit in &missing {
                rollups::make(connection, &source, *unit)?;
            }
            Ok(missing.len())
        });
        if made.await? == 0 || stop.is_cancelled() {
            return Ok(());
        }
    }
}
