//! Checkpoints that are too large for an entry of the bucket: the bytes in an object store, a pointer in the entry.
//!
//! Every write makes an object of its own, and only the compare-and-set of the entry makes it count. So a twin that has
//! lost its battery cannot touch what the new owner's entry points to. The object before goes once it is replaced; what
//! a crash leaves between the two is swept.

use std::{io::ErrorKind, time::Duration};

use async_nats::jetstream::{
    self, ErrorCode,
    context::GetStreamErrorKind,
    object_store::{InfoErrorKind, ObjectInfo, ObjectStore},
    stream,
};
use base64::{Engine, engine::general_purpose::URL_SAFE};
use futures_util::TryStreamExt;
use rovi_common::{
    clock, heartbeat,
    streams::{self, BusSettings},
    subjects::CHECKPOINTS_STORE,
};
use serde::{Deserialize, Serialize};
use tokio::{io::AsyncReadExt, time::timeout};

use super::CheckpointError;

/// The most bytes of an entry of the bucket.
pub const MAX_ENTRY_BYTES: usize = 512 * 1024;
/// How long it may take to read an object.
const READ_WITHIN: Duration = Duration::from_secs(30);
/// The version of an entry that is a pointer.
pub(super) const POINTER_VERSION: u32 = 2;

/// What the entry holds in place of a large checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pointer {
    /// [`POINTER_VERSION`].
    pub(super) v: u32,
    /// The name of the object.
    pub(super) object: String,
    /// Its length in bytes.
    pub(super) bytes: usize,
}

/// The object store of large checkpoints.
#[derive(Debug, Clone)]
pub(super) struct Large {
    pub(super) jetstream: jetstream::Context,
    pub(super) bus: BusSettings,
}

impl Large {
    /// Puts a checkpoint into an object of its own.
    pub(super) async fn put(&self, key: &str, content: &[u8]) -> Result<Pointer, CheckpointError> {
        let store = self.store().await?;
        let object = format!("{key}/{}", heartbeat::new_instance());
        let mut reader = content;
        store
            .put(object.as_str(), &mut reader)
            .await
            .map_err(away)?;
        Ok(Pointer {
            v: POINTER_VERSION,
            object,
            bytes: content.len(),
        })
    }

    /// Reads a checkpoint; nothing where the object is lost.
    pub(super) async fn get(&self, pointer: &Pointer) -> Result<Option<Vec<u8>>, CheckpointError> {
        let store = self.store().await?;
        if info(&store, &pointer.object).await?.is_none() {
            return Ok(None);
        }
        let object = store.get(&pointer.object).await.map_err(away)?;
        let mut content = Vec::with_capacity(pointer.bytes);
        let most = u64::try_from(pointer.bytes).unwrap_or(u64::MAX);
        let mut object = object.take(most + 1);
        // An object that is removed meanwhile never ends.
        match timeout(READ_WITHIN, object.read_to_end(&mut content)).await {
            Ok(Ok(_)) => Ok((content.len() == pointer.bytes).then_some(content)),
            Ok(Err(error)) if error.kind() == ErrorKind::InvalidData => Ok(None),
            Ok(Err(error)) => Err(away(error)),
            Err(late) => Err(away(late)),
        }
    }

    /// Removes an object that no entry points to. One that stays is swept later.
    pub(super) async fn remove(&self, object: &str) {
        if let Err(error) = self.try_remove(object).await {
            tracing::info!("the object {object} stays in {CHECKPOINTS_STORE} for now: {error}");
        }
    }

    async fn try_remove(&self, object: &str) -> Result<(), CheckpointError> {
        let Some(stream) = self.stream().await? else {
            return Ok(());
        };
        let Some(info) = info(&self.store().await?, object).await? else {
            return Ok(());
        };
        // The store's own deletion leaves a message for each name, and names never come again.
        let entry = format!("$O.{CHECKPOINTS_STORE}.M.{}", URL_SAFE.encode(object));
        let chunks = format!("$O.{CHECKPOINTS_STORE}.C.{}", info.nuid);
        // An object is listed, and so swept, until all of it is gone.
        for subject in [chunks, entry] {
            stream.purge().filter(subject).await.map_err(away)?;
        }
        Ok(())
    }

    /// Lists the objects that are older than `age`, with the key of their estimator.
    pub(super) async fn older_than(
        &self,
        age: Duration,
    ) -> Result<Vec<(String, String)>, CheckpointError> {
        if self.stream().await?.is_none() {
            return Ok(Vec::new());
        }
        let is_old = |info: &ObjectInfo| {
            let modified = info.modified.map(|at| at.unix_timestamp_nanos() / 1000);
            modified.is_some_and(|at| at <= microseconds_before_now(age))
        };
        let listed = self.store().await?.list().await.map_err(away)?;
        let all: Vec<ObjectInfo> = listed.try_collect().await.map_err(away)?;
        let old = all.into_iter().filter(is_old);
        Ok(old
            .filter_map(|info| {
                let (key, _) = info.name.split_once('/')?;
                Some((key.to_owned(), info.name))
            })
            .collect())
    }

    /// Removes the parts of objects that were begun longer than `age` ago and never completed.
    pub(super) async fn remove_unfinished(&self, age: Duration) -> Result<usize, CheckpointError> {
        let Some(stream) = self.stream().await? else {
            return Ok(0);
        };
        // What is begun behind this list is too young, whatever it lacks.
        let listed = self.store().await?.list().await.map_err(away)?;
        let complete: Vec<ObjectInfo> = listed.try_collect().await.map_err(away)?;
        let all = format!("$O.{CHECKPOINTS_STORE}.C.>");
        let found = stream.info_with_subjects(all).await.map_err(away)?;
        let subjects: Vec<(String, usize)> = found.try_collect().await.map_err(away)?;
        let mut count = 0;
        for (subject, _) in subjects {
            let belongs = |info: &ObjectInfo| subject.ends_with(&info.nuid);
            if complete.iter().any(belongs) {
                continue;
            }
            let newest = stream.get_last_raw_message_by_subject(&subject).await;
            let begun = newest.map_err(away)?.time.unix_timestamp_nanos() / 1000;
            if begun <= microseconds_before_now(age) {
                stream.purge().filter(subject).await.map_err(away)?;
                count += 1;
            }
        }
        Ok(count)
    }

    async fn store(&self) -> Result<ObjectStore, CheckpointError> {
        let opened = streams::object_store(&self.jetstream, CHECKPOINTS_STORE, &self.bus).await;
        opened.map_err(away)
    }

    /// The stream behind the store, if the store was ever needed.
    async fn stream(&self) -> Result<Option<stream::Stream>, CheckpointError> {
        let found = self
            .jetstream
            .get_stream(format!("OBJ_{CHECKPOINTS_STORE}"));
        match found.await {
            Ok(found) => Ok(Some(found)),
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(error)
                    if error.error_code() == ErrorCode::STREAM_NOT_FOUND =>
                {
                    Ok(None)
                }
                _ => Err(away(error)),
            },
        }
    }
}

fn microseconds_before_now(age: Duration) -> i128 {
    i128::from(clock::now_us()) - i128::try_from(age.as_micros()).unwrap_or(i128::MAX)
}

async fn info(store: &ObjectStore, object: &str) -> Result<Option<ObjectInfo>, CheckpointError> {
    match store.info(object).await {
        Ok(info) => Ok((!info.deleted).then_some(info)),
        Err(error) if error.kind() == InfoErrorKind::NotFound => Ok(None),
        Err(error) => Err(away(error)),
    }
}

fn away(error: impl std::fmt::Display) -> CheckpointError {
    CheckpointError::Away(error.to_string())
}
