//! Makes the rollups of batteries whose history is reduced, behind the requests that miss them.
//!
//! Nothing happens for a battery until somebody asks for a reduction: taking rows in costs no
//! more than before.

use rovi_common::{error::ErrorChain, lifecycle::Lifecycle, name::BatteryName};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::store::{
    Pool, StoreError, rollups,
    source::{Of, Source, SourceError},
};

/// Batteries that wait; a request that finds no room leaves it to the next.
const QUEUE: usize = 256;
/// Units that are made in one go, between which others get the connection.
const UNITS_AT_ONCE: i64 = 8;

/// Takes notice of batteries whose rollups are missing.
#[derive(Debug, Clone)]
pub struct Roller {
    wanted: mpsc::Sender<BatteryName>,
}

impl Roller {
    /// Starts the task that makes rollups.
    pub fn start(pool: &Pool, lifecycle: &Lifecycle) -> Self {
        let (wanted, mut inbox) = mpsc::channel::<BatteryName>(QUEUE);
        let (pool, stop) = (pool.clone(), lifecycle.stop_token());
        lifecycle.supervise("roller", async move {
            while let Some(Some(battery)) = stop.run_until_cancelled(inbox.recv()).await {
                if let Err(error) = roll(&pool, &stop, &battery).await {
                    tracing::warn!(%battery, "rollups are not made: {}", ErrorChain(&error));
                }
            }
        });
        Self { wanted }
    }

    /// Asks for a battery's rollups.
    pub(crate) fn want(&self, battery: &BatteryName) {
        // A full queue is no fault: the next reduction asks again.
        drop(self.wanted.try_send(battery.clone()));
    }
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
            let missing = rollups::missing(connection, &source, UNITS_AT_ONCE)?;
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
