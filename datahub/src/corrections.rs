//! The bucket `rovi_corrections`, which is made from `hub.corrections` and nothing else: it tells
//! twins which stored rows were changed since they went out.
//!
//! A hub that dies between commit and bucket leaves it to the others or to its next start; a bucket
//! that was wiped is written anew.

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_nats::jetstream::kv;
use futures_util::TryStreamExt;
use rovi_common::{
    corrections::Corrections as Told, error::ErrorChain, lifecycle::Lifecycle, name::BatteryName,
    streams, subjects,
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};

use crate::{
    bus::{Bus, BusError, BusLife},
    store::{
        Pool, StoreError,
        corrections::{self, Standing},
    },
};

/// How often corrections by other hubs are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How often what the bucket says is compared, whatever this hub knows of it.
const COMPARE_EVERY: Duration = Duration::from_mins(5);
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Why the bucket was not brought up to date.
#[derive(Debug, thiserror::Error)]
enum TellError {
    #[error(transparent)]
    Bus(BusError),
    #[error("the corrections cannot be read")]
    Store(#[from] StoreError),
}

/// Keeps the bucket.
#[derive(Debug)]
pub struct Corrections {
    bus: Arc<Bus>,
    pool: Pool,
    wake: Notify,
}

/// What this hub saw in the bucket of one life of the bus.
struct Seen {
    life: BusLife,
    since: Instant,
    /// Whether what the bucket says of other batteries was looked at.
    is_mended: bool,
    revisions: HashMap<i64, Standing>,
}

impl Corrections {
    /// Makes the task; nothing is told until [`Corrections::start`].
    pub fn new(bus: Arc<Bus>, pool: Pool) -> Arc<Self> {
        Arc::new(Self {
            bus,
            pool,
            wake: Notify::new(),
        })
    }

    /// Starts keeping the bucket, until the service stops.
    pub fn start(self: &Arc<Self>, lifecycle: &Lifecycle) {
        let (keeper, stop) = (Arc::clone(self), lifecycle.stop_token());
        lifecycle.supervise("corrections", async move {
            stop.run_until_cancelled(keeper.keep()).await;
        });
    }

    /// Asks for a look now.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    async fn keep(&self) {
        let mut seen: Option<Seen> = None;
        while let Some(life) = self.bus.ready().await {
            let is_fresh = |seen: &Seen| seen.life == life && seen.since.elapsed() < COMPARE_EVERY;
            let mut known = seen.take().filter(is_fresh).unwrap_or_else(|| Seen {
                life,
                since: Instant::now(),
                is_mended: false,
                revisions: HashMap::new(),
            });
            match self.look(&mut known).await {
                Ok(()) => {
                    seen = Some(known);
                    let _woken_or_not = timeout(LOOK_EVERY, self.wake.notified()).await;
                }
                Err(error) => {
                    tracing::warn!("corrections are told later: {}", ErrorChain(&error));
                    self.bus.doubt();
                    sleep(RETRY_AFTER).await;
                }
            }
        }
    }

    /// Tells what was not told yet.
    async fn look(&self, seen: &mut Seen) -> Result<(), TellError> {
        let listed = self
            .pool
            .run(|conn| Ok(corrections::revisions(conn)?))
            .await?;
        let untold: Vec<&Standing> = listed
            .iter()
            .filter(|one| seen.revisions.get(&one.id) != Some(one))
            .collect();
        if untold.is_empty() && seen.is_mended {
            return Ok(());
        }
        let name = subjects::CORRECTIONS_BUCKET;
        let bucket = streams::bucket(self.bus.jetstream(), name, self.bus.settings()).await;
        let bucket = bucket.map_err(refused("open the bucket of corrections"))?;
        if !seen.is_mended {
            self.mend(&bucket).await?;
            seen.is_mended = true;
        }
        for one in untold {
            if let Ok(battery) = one.name.parse::<BatteryName>() {
                self.tell(&bucket, &battery).await?;
            }
            seen.revisions.insert(one.id, one.clone());
        }
        Ok(())
    }

    /// Looks at what the bucket says of batteries that the table has no corrections of: the table
    /// may be one of before, or the battery gone.
    async fn mend(&self, bucket: &kv::Store) -> Result<(), TellError> {
        let what = "list the corrections";
        let keys = bucket.keys().await.map_err(refused(what))?;
        let keys: Vec<String> = keys.try_collect().await.map_err(refused(what))?;
        for battery in keys.iter().filter_map(|key| key.parse().ok()) {
            self.tell(bucket, &battery).await?;
        }
        Ok(())
    }

    async fn tell(&self, bucket: &kv::Store, battery: &BatteryName) -> Result<(), TellError> {
        // The bucket is read before the table: so the table can only be newer.
        let entry = bucket.entry(battery.as_str()).await;
        let entry = entry.map_err(refused("tell a battery's corrections"))?;
        let place = entry.as_ref().map_or(0, |entry| entry.revision);
        let told: Option<Told> = entry.and_then(|entry| serde_json::from_slice(&entry.value).ok());
        let name = battery.clone();
        let known = told.clone();
        let wanted = self
            .pool
            .run(move |conn| corrections::to_tell(conn, &name, known.as_ref()))
            .await?;
        let Some(wanted) = wanted.filter(|wanted| Some(wanted) != told.as_ref()) else {
            return Ok(());
        };
        let value = serde_json::to_vec(&wanted).unwrap_or_default();
        let updated = bucket.update(battery.as_str(), value.into(), place).await;
        updated.map_err(refused("take a battery's corrections"))?;
        Ok(())
    }
}

fn refused<E: Into<async_nats::Error>>(what: &'static str) -> impl FnOnce(E) -> TellError {
    move |error| TellError::Bus(BusError::request(what)(error))
}
