//! Companion files of estimators: in PostgreSQL for good, in the object store [`FILES_STORE`] for twins.
//!
//! A file is named by the SHA-256 of its content, so it never changes under its name, and one that several
//! estimators use is there once.

use std::collections::HashSet;

use async_nats::jetstream::{
    self,
    object_store::{InfoErrorKind, ObjectStore},
};
use futures_util::TryStreamExt;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;

use crate::{
    streams::{self, BusSettings},
    subjects::FILES_STORE,
};

/// The most companion files of an estimator.
pub const MAX_FILES: usize = 32;
/// The most bytes of one.
pub const MAX_FILE_BYTES: usize = 8 << 20;
/// The most bytes of all of one estimator.
pub const MAX_FILES_BYTES: usize = 16 << 20;

/// How long the registration that follows a file may take, in seconds.
const REGISTERED_WITHIN_S: i64 = 3600;

/// A companion file, as a registration names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRef {
    /// Its name in the script's folder, without a path.
    pub name: String,
    /// SHA-256 of its content in hexadecimal.
    pub digest: String,
    /// Its length in bytes.
    pub bytes: usize,
}

impl FileRef {
    /// Names a file with this content.
    pub fn new(name: String, content: &[u8]) -> Self {
        Self {
            name,
            digest: digest(content),
            bytes: content.len(),
        }
    }
}

/// Why a file cannot be had or kept.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The object store does not hold it; it will once the hub has put it there again.
    #[error("the file {name} ({digest}) is not in the object store {FILES_STORE} yet")]
    Missing {
        /// Its name.
        name: String,
        /// Its digest.
        digest: String,
    },
    /// What is there is not the file.
    #[error("what the object store {FILES_STORE} holds as {digest} is something else")]
    Damaged {
        /// The digest looked for.
        digest: String,
    },
    /// The bus is away or refuses.
    #[error("the object store {FILES_STORE} cannot be used: {0}")]
    Away(String),
}

/// SHA-256 in hexadecimal.
pub fn digest(content: &[u8]) -> String {
    format!("{:x}", Sha256::digest(content))
}

/// The object store of companion files.
#[derive(Clone)]
pub struct Files(ObjectStore);

impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Files").finish_non_exhaustive()
    }
}

impl Files {
    /// Opens the object store, making it where it is missing.
    ///
    /// # Errors
    /// [`FilesError::Away`].
    pub async fn open(
        jetstream: &jetstream::Context,
        settings: &BusSettings,
    ) -> Result<Self, FilesError> {
        let opened = streams::object_store(jetstream, FILES_STORE, settings).await;
        opened.map(Self).map_err(away)
    }

    /// Puts a file where it is missing.
    ///
    /// # Errors
    /// [`FilesError::Away`].
    pub async fn put(&self, content: &[u8]) -> Result<(), FilesError> {
        let digest = digest(content);
        if self.holds(&digest).await? {
            return Ok(());
        }
        let mut reader = content;
        let put = self.0.put(digest.as_str(), &mut reader).await;
        put.map(drop).map_err(away)
    }

    /// Tells whether the file of a digest is there.
    ///
    /// # Errors
    /// [`FilesError::Away`].
    pub async fn holds(&self, digest: &str) -> Result<bool, FilesError> {
        match self.0.info(digest).await {
            Ok(info) => Ok(!info.deleted),
            Err(error) if error.kind() == InfoErrorKind::NotFound => Ok(false),
            Err(error) => Err(away(error)),
        }
    }

    /// Removes files that no estimator has had for a while; a newer one may be about to be registered.
    ///
    /// # Errors
    /// [`FilesError::Away`].
    pub async fn sweep(&self, in_use: &HashSet<String>) -> Result<(), FilesError> {
        let mut listed = self.0.list().await.map_err(away)?;
        let oldest = crate::clock::now_us() / 1_000_000 - REGISTERED_WITHIN_S;
        while let Some(info) = listed.try_next().await.map_err(away)? {
            let is_old = info.modified.is_some_and(|at| at.unix_timestamp() < oldest);
            if is_old && !in_use.contains(&info.name) {
                self.0.delete(&info.name).await.map_err(away)?;
            }
        }
        Ok(())
    }

    /// Reads a file and checks it.
    ///
    /// # Errors
    /// See [`FilesError`].
    pub async fn get(&self, file: &FileRef) -> Result<Vec<u8>, FilesError> {
        if !self.holds(&file.digest).await? {
            let (name, digest) = (file.name.clone(), file.digest.clone());
            return Err(FilesError::Missing { name, digest });
        }
        let object = self.0.get(&file.digest).await.map_err(away)?;
        let mut content = Vec::new();
        let most = u64::try_from(MAX_FILE_BYTES).unwrap_or(u64::MAX) + 1;
        let read = object.take(most).read_to_end(&mut content).await;
        read.map_err(away)?;
        if content.len() != file.bytes || digest(&content) != file.digest {
            let digest = file.digest.clone();
            return Err(FilesError::Damaged { digest });
        }
        Ok(content)
    }
}

fn away(error: impl std::fmt::Display) -> FilesError {
    FilesError::Away(error.to_string())
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use super::*;
    use crate::testing;

    #[tokio::test]
    async fn a_file_is_read_as_it_was_put_and_a_missing_one_is_named() {
        let nats = testing::nats();
        let url = nats.server.url().parse().unwrap();
        let jetstream = jetstream::new(streams::connect(&url, "test").await.unwrap());
        let settings = BusSettings::default();
        let patience = std::time::Duration::from_secs(10);
        let files = testing::eventually(patience, || Files::open(&jetstream, &settings)).await;
        let content: Vec<u8> = (0..300_000_u32).map(|i| (i % 251) as u8).collect();
        let named = FileRef::new("large.bin".to_owned(), &content);
        let missing = files.get(&named).await.unwrap_err();
        assert!(matches!(missing, FilesError::Missing { .. }), "{missing}");
        for _ in 0..2 {
            files.put(&content).await.unwrap();
        }
        let again = Files::open(&jetstream, &settings).await.unwrap();
        assert_eq!(again.get(&named).await.unwrap(), content);
        let shorter = FileRef {
            bytes: 1,
            ..named.clone()
        };
        let damaged = again.get(&shorter).await.unwrap_err();
        assert!(matches!(damaged, FilesError::Damaged { .. }), "{damaged}");
        files.put(b"").await.unwrap();
        let empty = FileRef::new("empty".to_owned(), b"");
        assert_eq!(files.get(&empty).await.unwrap(), b"");
    }
}
