//! Checkpoints: the exact state of an estimator, kept on the bus by compare-and-set.
//!
//! A lost checkpoint costs time, no data: the state is estimated again from the rows.

use std::sync::{Arc, RwLock};

use async_nats::jetstream::{
    self,
    kv::{self, Operation, UpdateErrorKind},
};
use bytes::Bytes;
use rovi_common::{
    fault::{self, InjectedFault},
    streams::{self, BusSettings},
    subjects,
};
use serde::{Deserialize, Serialize};

use crate::{
    filter::Progress,
    order::Late,
    ring::{Recomputation, Ring},
    runner::Saved,
};

/// The version that this build writes.
pub const CHECKPOINT_VERSION: u32 = 1;

/// The exact state of an estimator after a row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// [`CHECKPOINT_VERSION`].
    pub v: u32,
    /// The revision of the registration.
    pub revision: i64,
    /// Raised whenever rows already estimated are estimated anew.
    pub generation: i64,
    /// The run of the twin that wrote it; empty in those of versions before.
    #[serde(default)]
    pub by: String,
    /// Where in the stream of rows the estimator stood.
    pub origin: Origin,
    /// The newest correction of rows that the state knows of.
    #[serde(default)]
    pub corrections: i64,
    /// Late rows that are dealt with out of their turn.
    #[serde(default)]
    pub late: Late,
    /// Checkpoints of before.
    #[serde(default)]
    pub ring: Ring,
    /// Rows that are, or were, estimated anew.
    #[serde(default)]
    pub recomputation: Option<Recomputation>,
    /// The row, and what is known besides the estimator's own state.
    pub progress: Progress,
    /// The estimator's own state.
    pub snapshot: Saved,
}

/// A place in the stream of rows: all rows of the battery up to it were dealt with.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Origin {
    /// The life of the bus.
    pub bus_epoch: Arc<str>,
    /// The message; 0 is before the first.
    pub stream_sequence: u64,
}

impl Origin {
    /// Moves on to a message; never back within one life of the bus.
    pub fn advance(&mut self, to: &Self) {
        if self.bus_epoch != to.bus_epoch || self.stream_sequence < to.stream_sequence {
            self.clone_from(to);
        }
    }
}

/// Why a checkpoint was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The bus does not answer or the bucket is missing; trying again may help.
    #[error("the bucket of checkpoints cannot be used: {0}")]
    Away(String),
    /// Somebody else wrote since.
    #[error("the checkpoint was changed by another twin")]
    Conflict,
}

/// A checkpoint as found, and what the next write has to follow.
#[derive(Debug)]
pub struct Found {
    /// The checkpoint, if one is there that this build can read.
    pub checkpoint: Option<Checkpoint>,
    /// The entry that the next write replaces; 0 where there is none.
    pub entry: u64,
}

/// The bucket of checkpoints.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    jetstream: jetstream::Context,
    bus: BusSettings,
    bucket: Arc<RwLock<Option<kv::Store>>>,
    /// Held by who opens the bucket: thousands of estimators begin at once.
    opening: Arc<tokio::sync::Mutex<()>>,
}

impl Checkpoints {
    /// Returns the bucket, which need not be there yet.
    pub fn new(jetstream: jetstream::Context, bus: BusSettings) -> Self {
        Self {
            jetstream,
            bus,
            bucket: Arc::default(),
            opening: Arc::default(),
        }
    }

    /// Reads the checkpoint under `key`.
    ///
    /// # Errors
    /// [`CheckpointError::Away`].
    pub async fn read(&self, key: &str) -> Result<Found, CheckpointError> {
        let entry = self.bucket().await?.entry(key).await;
        let entry = entry.map_err(|error| self.away(&error))?;
        let Some(entry) = entry else {
            return Ok(Found {
                checkpoint: None,
                entry: 0,
            });
        };
        let checkpoint = match entry.operation {
            Operation::Put => decode(key, &entry.value),
            Operation::Delete | Operation::Purge => None,
        };
        Ok(Found {
            checkpoint,
            entry: entry.revision,
        })
    }

    /// Writes a checkpoint in place of `entry` and returns the new entry.
    ///
    /// # Errors
    /// See [`CheckpointError`]; after [`CheckpointError::Away`] it may have been written all the
    /// same.
    pub async fn write(
        &self,
        key: &str,
        checkpoint: &Checkpoint,
        entry: u64,
    ) -> Result<u64, CheckpointError> {
        let bytes = rmp_serde::to_vec_named(checkpoint)
            .map_err(|error| CheckpointError::Away(error.to_string()))?;
        let bytes = Bytes::from(bytes);
        let mut is_second = false;
        loop {
            let bucket = self.bucket().await?;
            fault::point("twin.before_checkpoint").map_err(lost)?;
            let error = match bucket.update(key, bytes.clone(), entry).await {
                Ok(entry) => {
                    fault::point("twin.after_checkpoint").map_err(lost)?;
                    return Ok(entry);
                }
                Err(error) => error,
            };
            match error.kind() {
                UpdateErrorKind::WrongLastRevision => return Err(CheckpointError::Conflict),
                // The bucket may have been wiped: the second time it is made again.
                UpdateErrorKind::Other if !is_second => is_second = true,
                _ => return Err(self.away(&error)),
            }
            self.forget_bucket();
        }
    }

    /// Writes a checkpoint of before, whatever is there.
    ///
    /// # Errors
    /// [`CheckpointError::Away`].
    pub async fn put(&self, key: &str, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        let bytes = rmp_serde::to_vec_named(checkpoint)
            .map_err(|error| CheckpointError::Away(error.to_string()))?;
        let put = self.bucket().await?.put(key, bytes.into()).await;
        put.map(drop).map_err(|error| self.away(&error))
    }

    /// Removes a checkpoint of before.
    ///
    /// # Errors
    /// [`CheckpointError::Away`]; one that stays is not used.
    pub async fn forget(&self, key: &str) -> Result<(), CheckpointError> {
        let removed = self.bucket().await?.purge(key).await;
        removed.map_err(|error| self.away(&error))
    }

    /// Removes a checkpoint unless it was changed since `entry`.
    ///
    /// # Errors
    /// See [`CheckpointError`]; one that stays is not used, since revisions never come again.
    pub async fn remove(&self, key: &str, entry: u64) -> Result<(), CheckpointError> {
        let bucket = self.bucket().await?;
        let removed = bucket.delete_expect_revision(key, Some(entry)).await;
        removed.map_err(|error| self.away(&error))
    }

    async fn bucket(&self) -> Result<kv::Store, CheckpointError> {
        if let Some(bucket) = self.known_bucket() {
            return Ok(bucket);
        }
        let _turn = self.opening.lock().await;
        if let Some(bucket) = self.known_bucket() {
            return Ok(bucket);
        }
        let name = subjects::CHECKPOINTS_BUCKET;
        let opened = streams::bucket(&self.jetstream, name, &self.bus).await;
        let opened = opened.map_err(|error| CheckpointError::Away(error.to_string()))?;
        if let Ok(mut bucket) = self.bucket.write() {
            *bucket = Some(opened.clone());
        }
        Ok(opened)
    }

    fn known_bucket(&self) -> Option<kv::Store> {
        self.bucket.read().ok().and_then(|bucket| bucket.clone())
    }

    fn away(&self, error: &dyn std::error::Error) -> CheckpointError {
        self.forget_bucket();
        CheckpointError::Away(error.to_string())
    }

    /// Forgets the bucket, so that it is made again where it was wiped.
    fn forget_bucket(&self) {
        if let Ok(mut bucket) = self.bucket.write() {
            *bucket = None;
        }
    }
}

/// The request or its answer is lost, as tests have it.
fn lost(fault: InjectedFault) -> CheckpointError {
    CheckpointError::Away(fault.to_string())
}

/// Reads a checkpoint; one of another version, or a damaged one, is as good as none.
fn decode(key: &str, bytes: &[u8]) -> Option<Checkpoint> {
    match rmp_serde::from_slice::<Checkpoint>(bytes) {
        Ok(checkpoint) if checkpoint.v == CHECKPOINT_VERSION => Some(checkpoint),
        Ok(checkpoint) => {
            let version = checkpoint.v;
            tracing::warn!("checkpoint {key} has version {version}; the rows are read again");
            None
        }
        Err(error) => {
            tracing::warn!("checkpoint {key} cannot be read, the rows are read again: {error}");
            None
        }
    }
}
