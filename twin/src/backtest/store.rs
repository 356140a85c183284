//! Backtests in a bucket on the bus: a record each, beside it the definition of its candidate.

use std::sync::{Arc, OnceLock};

use async_nats::jetstream::{
    self,
    kv::{self, UpdateErrorKind},
};
use futures_util::TryStreamExt;
use rovi_common::{
    clock,
    name::BatteryName,
    streams::{self, BusSettings},
    subjects::BACKTESTS_BUCKET,
};
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use super::{Backtest, Candidate, State};
use crate::config::Settings;

/// A running backtest that was not heard of for so long ended with its twin, in microseconds.
const SILENCE_US: i64 = 15_000_000;
/// Behind the key of a record: that of its candidate.
const CANDIDATE: &str = "candidate";

/// Why the bucket was not read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// The bus is away or refuses.
    #[error("the bucket of backtests cannot be used: {0}")]
    Away(String),
    /// Somebody else wrote since.
    #[error("the backtest was changed meanwhile")]
    Conflict,
}

fn away(error: impl std::fmt::Display) -> StoreError {
    StoreError::Away(error.to_string())
}

/// All backtests.
#[derive(Debug)]
pub struct Backtests {
    jetstream: jetstream::Context,
    bus: BusSettings,
    most: usize,
    /// Bounds how many run in this twin at the same time.
    pub(crate) places: Arc<Semaphore>,
    bucket: OnceLock<kv::Store>,
}

impl Backtests {
    /// Returns the bucket, which need not be there yet.
    pub fn new(jetstream: jetstream::Context, settings: &Settings) -> Self {
        Self {
            jetstream,
            bus: settings.bus.clone(),
            most: settings.backtest.kept.get(),
            places: Arc::new(Semaphore::new(settings.backtest.jobs.get())),
            bucket: OnceLock::new(),
        }
    }

    /// Keeps a backtest that begins; the oldest that ended make place for it.
    pub(super) async fn begin(
        &self,
        backtest: &Backtest,
        candidate: &Candidate,
    ) -> Result<u64, StoreError> {
        self.make_place().await?;
        let bucket = self.bucket().await?;
        let key = key(&backtest.battery, &backtest.id);
        let definition = serde_json::to_vec(candidate).map_err(away)?;
        let kept = bucket.put(format!("{key}.{CANDIDATE}"), definition.into());
        kept.await.map_err(away)?;
        self.write(backtest, 0).await
    }

    /// Writes a record in place of `entry`; returns the new entry.
    pub(crate) async fn write(&self, backtest: &Backtest, entry: u64) -> Result<u64, StoreError> {
        let bucket = self.bucket().await?;
        let key = key(&backtest.battery, &backtest.id);
        let record = serde_json::to_vec(backtest).map_err(away)?;
        let written = bucket.update(key, record.into(), entry).await;
        written.map_err(|error| match error.kind() {
            UpdateErrorKind::WrongLastRevision => StoreError::Conflict,
            _ => away(error),
        })
    }

    /// Reads a record and its entry.
    pub(crate) async fn read(
        &self,
        battery: &BatteryName,
        id: &str,
    ) -> Result<Option<(Backtest, u64)>, StoreError> {
        let entry = self.bucket().await?.entry(key(battery, id)).await;
        let found = entry.map_err(away)?.and_then(|entry| {
            let record = serde_json::from_slice(&entry.value).ok()?;
            Some((silenced(record), entry.revision))
        });
        Ok(found)
    }

    /// Reads the definition of a candidate.
    pub(crate) async fn candidate(
        &self,
        battery: &BatteryName,
        id: &str,
    ) -> Result<Option<Candidate>, StoreError> {
        self.get(&format!("{}.{CANDIDATE}", key(battery, id))).await
    }

    /// Reads the backtests of a battery, or of all, the newest first.
    pub(crate) async fn list(
        &self,
        battery: Option<&BatteryName>,
    ) -> Result<Vec<Backtest>, StoreError> {
        let keys = self.bucket().await?.keys().await.map_err(away)?;
        let keys: Vec<String> = keys.try_collect().await.map_err(away)?;
        let mut found = Vec::new();
        for key in keys {
            let of = key.split('.').next().unwrap_or_default();
            let is_record = key.split('.').count() == 2;
            let is_wanted = battery.is_none_or(|battery| battery.as_str() == of);
            if is_record && is_wanted {
                let record: Option<Backtest> = self.get(&key).await?;
                found.extend(record.map(silenced));
            }
        }
        found.sort_by_key(|backtest| std::cmp::Reverse(backtest.started));
        Ok(found)
    }

    /// Forgets a backtest.
    pub(crate) async fn forget(&self, battery: &BatteryName, id: &str) -> Result<(), StoreError> {
        let bucket = self.bucket().await?;
        let key = key(battery, id);
        bucket.purge(&key).await.map_err(away)?;
        let candidate = format!("{key}.{CANDIDATE}");
        bucket.purge(candidate).await.map_err(away)
    }

    async fn make_place(&self) -> Result<(), StoreError> {
        let known = self.list(None).await?;
        let surplus = (known.len() + 1).saturating_sub(self.most);
        let ended = known.iter().rev();
        let ended = ended.filter(|backtest| backtest.state != State::Running);
        for backtest in ended.take(surplus) {
            self.forget(&backtest.battery, &backtest.id).await?;
        }
        Ok(())
    }

    async fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, StoreError> {
        let value = self.bucket().await?.get(key).await.map_err(away)?;
        Ok(value.and_then(|value| serde_json::from_slice(&value).ok()))
    }

    /// Opens the bucket; one that was wiped is made again, by whoever looks for it next.
    async fn bucket(&self) -> Result<kv::Store, StoreError> {
        if let Some(bucket) = self.bucket.get()
            && bucket.stream.get_info().await.is_ok()
        {
            return Ok(bucket.clone());
        }
        let made = streams::bucket(&self.jetstream, BACKTESTS_BUCKET, &self.bus).await;
        let made = made.map_err(away)?;
        let _known = self.bucket.set(made.clone());
        Ok(made)
    }
}

/// Says of a backtest whose twin is gone that it is lost.
fn silenced(mut backtest: Backtest) -> Backtest {
    let silence = clock::now_us().saturating_sub(backtest.updated);
    if backtest.state == State::Running && silence > SILENCE_US {
        backtest.state = State::Lost;
        let reason = "the twin that ran it is gone; start it again";
        backtest.error = Some(reason.to_owned());
    }
    backtest
}

fn key(battery: &BatteryName, id: &str) -> String {
    format!("{battery}.{id}")
}
