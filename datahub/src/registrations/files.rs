//! Companion files: twins put them into the object store, the hub keeps them for good.

use rovi_common::{
    files::{FileRef, Files, FilesError, MAX_FILE_BYTES, MAX_FILES, MAX_FILES_BYTES},
    registration::Reply,
};

use super::projection::ProjectionError;
use crate::{
    bus::Bus,
    store::{Pool, estimator_files},
};

/// Reads the files that a registration names.
///
/// # Errors
/// The reply: they are too large, missing, or the bus is away.
pub(super) async fn read(bus: &Bus, named: &[FileRef]) -> Result<Vec<Vec<u8>>, Reply> {
    let bytes: usize = named.iter().map(|file| file.bytes).sum();
    let largest = named.iter().map(|file| file.bytes).max().unwrap_or(0);
    if named.len() > MAX_FILES || bytes > MAX_FILES_BYTES || largest > MAX_FILE_BYTES {
        let files = named.len();
        let detail =
            format!("{files} files with {bytes} bytes are more than an estimator may have");
        return Err(Reply::Refused { detail });
    }
    if named.is_empty() {
        return Ok(Vec::new());
    }
    let read = async {
        let files = Files::open(bus.jetstream(), bus.settings()).await?;
        let mut contents = Vec::with_capacity(named.len());
        for file in named {
            contents.push(files.get(file).await?);
        }
        Ok(contents)
    };
    read.await.map_err(|error: FilesError| {
        let detail = error.to_string();
        match error {
            FilesError::Damaged { .. } => Reply::Refused { detail },
            FilesError::Missing { .. } | FilesError::Away(_) => Reply::Unavailable { detail },
        }
    })
}

/// Puts all files that the object store lacks, one at a time, so that one is in memory.
pub(super) async fn mend(bus: &Bus, pool: &Pool) -> Result<(), ProjectionError> {
    let digests = pool.run(estimator_files::digests).await;
    let digests = digests.map_err(ProjectionError::Store)?;
    if digests.is_empty() {
        return Ok(());
    }
    let files = Files::open(bus.jetstream(), bus.settings()).await?;
    files.sweep(&digests.iter().cloned().collect()).await?;
    put_missing(&files, pool, digests).await
}

/// Puts those of a registration that the object store lacks: it may have been wiped since they were
/// read from it.
pub(super) async fn put(bus: &Bus, pool: &Pool, named: &[FileRef]) -> Result<(), ProjectionError> {
    if named.is_empty() {
        return Ok(());
    }
    let files = Files::open(bus.jetstream(), bus.settings()).await?;
    let digests = named.iter().map(|file| file.digest.clone()).collect();
    put_missing(&files, pool, digests).await
}

async fn put_missing(
    files: &Files,
    pool: &Pool,
    digests: Vec<String>,
) -> Result<(), ProjectionError> {
    for digest in digests {
        if files.holds(&digest).await? {
            continue;
        }
        let read = move |conn: &mut _| estimator_files::content(conn, &digest);
        let content = pool.run(read).await.map_err(ProjectionError::Store)?;
        if let Some(content) = content {
            files.put(&content).await?;
        }
    }
    Ok(())
}
