//! The bucket `rovi_estimators`, which is made from `hub.estimators` and nothing else.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use async_nats::jetstream::kv::{self, UpdateErrorKind};
use futures_util::{StreamExt, TryStreamExt, stream};
use rovi_common::{
    error::ErrorChain,
    name::{BatteryName, EstimatorName},
    registration::Registration,
    streams, subjects,
};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    bus::{Bus, BusError, BusLife},
    store::{Pool, StoreError, registrations},
};

/// How soon a failed attempt is made again.
pub(super) const RETRY_AFTER: Duration = Duration::from_millis(500);
/// How often registrations that are new in the table are looked for: those of a hub that died
/// between commit and bucket.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How often every key of the bucket is compared.
const COMPARE_EVERY: Duration = Duration::from_mins(10);
const KEYS_AT_ONCE: usize = 4;
/// Several hubs may write a key at once; each sees the others' value and tries again.
const MAX_ATTEMPTS: usize = 10;

/// Why the bucket was not brought up to date.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProjectionError {
    /// The bus is away or refuses.
    #[error(transparent)]
    Bus(BusError),
    /// The object store of files is away or refuses.
    #[error(transparent)]
    Files(#[from] rovi_common::files::FilesError),
    /// The table cannot be read.
    #[error("the registrations cannot be read")]
    Store(#[source] StoreError),
    /// Others write the key all the time.
    #[error("key {0} of the bucket is written by others again and again")]
    Contended(String),
}

/// Keeps the bucket.
#[derive(Debug)]
pub(super) struct Projection {
    bus: Arc<Bus>,
    pool: Pool,
}

/// What this hub saw in the bucket of one life of the bus.
struct Compared {
    life: BusLife,
    since: Instant,
    versions: HashMap<String, i64>,
}

impl Projection {
    pub(super) fn new(bus: Arc<Bus>, pool: Pool) -> Self {
        Self { bus, pool }
    }

    /// Brings the bucket up to date at the start, on each new life of the bus, and now and then.
    pub(super) async fn keep(&self) {
        let mut states = self.bus.watch();
        let mut compared: Option<Compared> = None;
        while let Some(life) = self.bus.ready().await {
            states.mark_unchanged();
            let is_fresh =
                |known: &Compared| known.life == life && known.since.elapsed() < COMPARE_EVERY;
            let known = compared.take().filter(is_fresh);
            match self.compare(life, known).await {
                Ok(done) => {
                    compared = Some(done);
                    // A changed life of the bus is looked at once; else it is time to look again.
                    let _changed_or_not = timeout(LOOK_EVERY, states.changed()).await;
                }
                Err(error) => {
                    tracing::warn!(
                        "the bucket of estimators waits to be mended: {}",
                        ErrorChain(&error)
                    );
                    self.bus.doubt();
                    sleep(RETRY_AFTER).await;
                }
            }
        }
    }

    /// Puts one registration into the bucket after its commit; failing that, [`Self::keep`] does.
    pub(super) async fn tell(&self, battery: &BatteryName, estimator: &EstimatorName) {
        let told = async {
            let bucket = self.bucket().await?;
            self.project(&bucket, battery, estimator).await
        };
        if let Err(error) = told.await {
            tracing::warn!(
                battery.id = %battery,
                "twins will hear of estimator {estimator} of {battery} later: {}",
                ErrorChain(&error)
            );
        }
    }

    async fn bucket(&self) -> Result<kv::Store, ProjectionError> {
        let (bus, name) = (&self.bus, subjects::ESTIMATORS_BUCKET);
        streams::bucket(bus.jetstream(), name, bus.settings())
            .await
            .map_err(refused("open the bucket of estimators"))
    }

    /// Compares the keys that are not known to be right; all of them where nothing is known.
    async fn compare(
        &self,
        life: BusLife,
        known: Option<Compared>,
    ) -> Result<Compared, ProjectionError> {
        let is_first = known.is_none();
        let mut compared = known.unwrap_or_else(|| Compared {
            life,
            since: Instant::now(),
            versions: HashMap::new(),
        });
        let listed = self.pool.run(registrations::list).await;
        let listed = listed.map_err(ProjectionError::Store)?;
        let mut keys = HashSet::with_capacity(listed.len());
        for one in listed {
            let key = format!("{}.{}", one.battery, one.estimator);
            if compared.versions.get(&key) != Some(&one.version) {
                keys.insert(key);
            }
        }
        if keys.is_empty() && !is_first {
            return Ok(compared);
        }
        let bucket = self.bucket().await?;
        if is_first {
            super::files::mend(&self.bus, &self.pool).await?;
            // Keys of batteries that are gone stand in the bucket alone.
            keys.extend(keys_of(&bucket).await?);
        }
        let work = keys.into_iter().map(|key| self.project_key(&bucket, key));
        let mut projected = stream::iter(work).buffer_unordered(KEYS_AT_ONCE);
        while let Some((key, version)) = projected.try_next().await? {
            compared.versions.insert(key, version);
        }
        Ok(compared)
    }

    async fn project_key(
        &self,
        bucket: &kv::Store,
        key: String,
    ) -> Result<(String, i64), ProjectionError> {
        let version = match subjects::parse_estimator_key(&key) {
            Some((battery, estimator)) => self.project(bucket, &battery, &estimator).await?,
            None => 0,
        };
        Ok((key, version))
    }

    /// Makes one key say what the table says, by compare-and-set, and returns its version.
    ///
    /// The key is read before the table: so the table can only be newer, or a restored one.
    async fn project(
        &self,
        bucket: &kv::Store,
        battery: &BatteryName,
        estimator: &EstimatorName,
    ) -> Result<i64, ProjectionError> {
        let key = subjects::estimator_key(battery, estimator);
        for _ in 0..MAX_ATTEMPTS {
            let entry = bucket.entry(key.as_str()).await;
            let entry = entry.map_err(refused("tell what the bucket of estimators holds"))?;
            let place = entry.as_ref().map_or(0, |entry| entry.revision);
            let known: Option<Registration> =
                entry.and_then(|entry| serde_json::from_slice(&entry.value).ok());
            let known_version = known.as_ref().map_or(0, Registration::version);
            let Some(next) = self.successor(battery, estimator, known).await? else {
                return Ok(known_version);
            };
            // A twin that reads a registration finds its files.
            super::files::put(&self.bus, &self.pool, &next.files).await?;
            let value = serde_json::to_vec(&next).unwrap_or_default();
            match bucket.update(key.as_str(), value.into(), place).await {
                Ok(_) => return Ok(next.version()),
                Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => {}
                Err(error) => return Err(refused("take a registration")(error)),
            }
        }
        Err(ProjectionError::Contended(key))
    }

    async fn successor(
        &self,
        battery: &BatteryName,
        estimator: &EstimatorName,
        known: Option<Registration>,
    ) -> Result<Option<Registration>, ProjectionError> {
        let (battery, estimator) = (battery.clone(), estimator.clone());
        let read = move |conn: &mut _| {
            registrations::successor(conn, &battery, &estimator, known.as_ref())
        };
        self.pool.run(read).await.map_err(ProjectionError::Store)
    }
}

async fn keys_of(bucket: &kv::Store) -> Result<Vec<String>, ProjectionError> {
    let keys = bucket
        .keys()
        .await
        .map_err(refused("list the estimators"))?;
    keys.try_collect()
        .await
        .map_err(refused("list the estimators"))
}

fn refused<E: Into<async_nats::Error>>(what: &'static str) -> impl FnOnce(E) -> ProjectionError {
    move |error| ProjectionError::Bus(BusError::request(what)(error))
}
