//! Checkpoints: the exact state of an estimator, kept on the bus by compare-and-set; large ones stand beside the bucket
//! (`checkpoint/large.rs`).
//!
//! A lost checkpoint costs time, no data: the state is estimated again from the rows.

mod large;

use std::{
    sync::{Arc, RwLock},
    time::Duration,
};

use async_nats::jetstream::{
    self,
    kv::{self, Operation, UpdateErrorKind},
};
use bytes::Bytes;
use rovi_common::{
    fault::{self, InjectedFault},
    msgpack,
    streams::{self, BusSettings},
    subjects,
};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::{
    filter::Progress,
    order::Late,
    ring::{Recomputation, Ring},
    runner::Saved,
};
use large::{Large, POINTER_VERSION, Pointer};

pub use large::MAX_ENTRY_BYTES;

/// How often large checkpoints are swept, and how old one is that no write is about to point to.
const SWEEP: Duration = Duration::from_hours(1);
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
    /// The entry that the next write replaces.
    pub entry: Entry,
}

/// An entry of the bucket, for the next write to follow.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Entry {
    /// 0 where there is none.
    revision: u64,
    /// The object that it points to, where the checkpoint is large.
    object: Option<String>,
}

/// The bucket of checkpoints.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    large: Large,
    bucket: Arc<RwLock<Option<kv::Store>>>,
    /// Held by who opens the bucket: thousands of estimators begin at once.
    opening: Arc<tokio::sync::Mutex<()>>,
}

impl Checkpoints {
    /// Returns the bucket, which need not be there yet.
    pub fn new(jetstream: jetstream::Context, bus: BusSettings) -> Self {
        Self {
            large: Large { jetstream, bus },
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
                entry: Entry::default(),
            });
        };
        let (checkpoint, object) = match (entry.operation, pointer(&entry.value)) {
            (Operation::Delete | Operation::Purge, _) => (None, None),
            (Operation::Put, None) => (decode(key, &entry.value), None),
            (Operation::Put, Some(pointer)) => {
                (self.read_large(key, &pointer).await?, Some(pointer.object))
            }
        };
        let revision = entry.revision;
        let entry = Entry { revision, object };
        Ok(Found { checkpoint, entry })
    }

    async fn read_large(
        &self,
        key: &str,
        pointer: &Pointer,
    ) -> Result<Option<Checkpoint>, CheckpointError> {
        let content = self.large.get(pointer).await?;
        if content.is_none() {
            let object = &pointer.object;
            tracing::warn!("checkpoint {key}: {object} is lost, the rows are read again");
        }
        Ok(content.and_then(|content| decode(key, &content)))
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
        entry: &Entry,
    ) -> Result<Entry, CheckpointError> {
        let bytes = encode(checkpoint)?;
        let (value, object) = if bytes.len() <= MAX_ENTRY_BYTES {
            (bytes, None)
        } else {
            let pointer = self.large.put(key, &bytes).await?;
            (encode(&pointer)?, Some(pointer.object))
        };
        let written = self.update(key, value, entry.revision).await;
        let unused = match &written {
            Ok(_) => &entry.object,
            Err(CheckpointError::Conflict) => &object,
            // The entry may have been written and point to it.
            Err(CheckpointError::Away(_)) => &None,
        };
        if let Some(unused) = unused {
            self.large.remove(unused).await;
        }
        Ok(Entry {
            revision: written?,
            object,
        })
    }

    async fn update(&self, key: &str, value: Bytes, entry: u64) -> Result<u64, CheckpointError> {
        let mut is_second = false;
        loop {
            let bucket = self.bucket().await?;
            fault::point("twin.before_checkpoint").map_err(lost)?;
            let error = match bucket.update(key, value.clone(), entry).await {
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
        let bytes = encode(checkpoint)?;
        if bytes.len() <= MAX_ENTRY_BYTES {
            // An object that the entry may have pointed to is swept.
            return self.put_entry(key, bytes).await;
        }
        let before = self.object_of(key).await?;
        let pointer = self.large.put(key, &bytes).await?;
        self.put_entry(key, encode(&pointer)?).await?;
        if let Some(before) = before {
            self.large.remove(&before).await;
        }
        Ok(())
    }

    async fn put_entry(&self, key: &str, value: Bytes) -> Result<(), CheckpointError> {
        let put = self.bucket().await?.put(key, value).await;
        put.map(drop).map_err(|error| self.away(&error))
    }

    /// Returns the object that an entry points to, if it does.
    async fn object_of(&self, key: &str) -> Result<Option<String>, CheckpointError> {
        let entry = self.bucket().await?.entry(key).await;
        let entry = entry.map_err(|error| self.away(&error))?;
        let pointer = entry.and_then(|entry| pointer(&entry.value));
        Ok(pointer.map(|pointer| pointer.object))
    }

    /// Removes a checkpoint of before.
    ///
    /// # Errors
    /// [`CheckpointError::Away`]; one that stays is not used.
    pub async fn forget(&self, key: &str) -> Result<(), CheckpointError> {
        let object = self.object_of(key).await?;
        let removed = self.bucket().await?.purge(key).await;
        removed.map_err(|error| self.away(&error))?;
        if let Some(object) = object {
            self.large.remove(&object).await;
        }
        Ok(())
    }

    /// Removes a checkpoint unless it was changed since `entry`.
    ///
    /// # Errors
    /// See [`CheckpointError`]; one that stays is not used, since revisions never come again.
    pub async fn remove(&self, key: &str, entry: &Entry) -> Result<(), CheckpointError> {
        let bucket = self.bucket().await?;
        let removed = bucket
            .delete_expect_revision(key, Some(entry.revision))
            .await;
        removed.map_err(|error| self.away(&error))?;
        if let Some(object) = &entry.object {
            self.large.remove(object).await;
        }
        Ok(())
    }

    /// Removes what no entry points to among the large checkpoints older than `age`, and what was never written to its
    /// end; returns how many these were.
    ///
    /// # Errors
    /// [`CheckpointError::Away`].
    pub async fn sweep(&self, age: Duration) -> Result<usize, CheckpointError> {
        let mut count = self.large.remove_unfinished(age).await?;
        for (key, object) in self.large.older_than(age).await? {
            let entry = self.bucket().await?.entry(&key).await;
            let entry = entry.map_err(|error| self.away(&error))?;
            let pointer = entry.and_then(|entry| pointer(&entry.value));
            if pointer.is_none_or(|pointer| pointer.object != object) {
                self.large.remove(&object).await;
                count += 1;
            }
        }
        Ok(count)
    }

    /// Sweeps at once and then every hour, until the service stops.
    pub async fn keep_swept(self, stop: CancellationToken) {
        let swept = async {
            let mut tick = tokio::time::interval(SWEEP);
            loop {
                tick.tick().await;
                let swept = self.sweep(SWEEP).await;
                tell(&swept);
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = swept => {}
        }
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
        let opened = streams::bucket(&self.large.jetstream, name, &self.large.bus).await;
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

fn tell(swept: &Result<usize, CheckpointError>) {
    match swept {
        Ok(0) => {}
        Ok(count) => tracing::info!("{count} large checkpoints that nothing points to are removed"),
        Err(error) => tracing::info!("large checkpoints are swept later: {error}"),
    }
}

fn encode(value: &impl Serialize) -> Result<Bytes, CheckpointError> {
    let bytes = rmp_serde::to_vec_named(value);
    let bytes = bytes.map_err(|error| CheckpointError::Away(error.to_string()))?;
    Ok(bytes.into())
}

/// Reads an entry as a pointer, if it is one.
fn pointer(bytes: &[u8]) -> Option<Pointer> {
    let pointer: Pointer = msgpack::from_slice(bytes).ok()?;
    (pointer.v == POINTER_VERSION).then_some(pointer)
}

/// Reads a checkpoint; one of another version, or a damaged one, is as good as none.
fn decode(key: &str, bytes: &[u8]) -> Option<Checkpoint> {
    match msgpack::from_slice::<Checkpoint>(bytes) {
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
