//! Whole selections as files, sent while they are read: memory does not grow with their length.
//!
//! A client that reads slowly is waited for without a connection to PostgreSQL. An error in the
//! middle breaks the transfer off, so that no client takes a part for the whole.

use std::{io, path::Path, pin::Pin, sync::Arc};

use actix_web::body::SizedStream;
use bytes::Bytes;
use futures_util::{Stream, stream};
use rovi_battdat::BattdatError;
use rovi_common::{auth::budget::Place, error::ErrorChain};
use tokio::{
    io::AsyncReadExt,
    sync::{OwnedSemaphorePermit, mpsc},
};

use super::{
    files::{FileWriter, WriteError, battdat},
    pages::{Pages, ReadError},
};

/// Pages between the thread that reads and the one that writes a file.
const PAGES_AHEAD: usize = 2;
/// Bytes of a finished file that are read at once.
const FILE_CHUNK: usize = 128 << 10;

/// Why an export broke off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExportError {
    /// The rows could not be read to their end.
    #[error("the rows could not be read to their end")]
    Read(#[from] ReadError),
    /// The rows could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The HDF5 file could not be written.
    #[error("the HDF5 file could not be written")]
    Battdat(#[from] BattdatError),
    /// The temporary file failed.
    #[error("the temporary file failed")]
    File(#[from] io::Error),
    /// A thread ended by a panic.
    #[error("a thread of the export ended by a panic")]
    Panicked,
}

/// Counts among the exports that may run at once, of all and of one principal.
pub(crate) type Permit = (OwnedSemaphorePermit, Place);

pub(crate) type Body = Pin<Box<dyn Stream<Item = Result<Bytes, ExportError>>>>;

enum Stage {
    Begin,
    Rows,
    Done,
}

struct Sending {
    pages: Pages,
    /// Away while a thread for blocking work writes.
    writer: Option<Box<dyn FileWriter>>,
    stage: Stage,
    _permit: Permit,
}

/// Reads, writes and sends page by page, each when the client took the one before.
pub(crate) fn body(pages: Pages, writer: Box<dyn FileWriter>, permit: Permit) -> Body {
    let sending = Sending {
        pages,
        writer: Some(writer),
        stage: Stage::Begin,
        _permit: permit,
    };
    Box::pin(stream::try_unfold(sending, async |mut sending| {
        let battery = sending.pages.source().battery.clone();
        let chunk = sending.next().await;
        if let Err(error) = &chunk {
            tracing::warn!(%battery, "an export broke off: {}", ErrorChain(error));
        }
        Ok(chunk?.map(|chunk| (chunk, sending)))
    }))
}

impl Sending {
    /// Returns the next bytes of the file; some forms need several pages for any.
    async fn next(&mut self) -> Result<Option<Bytes>, ExportError> {
        loop {
            let out = match self.stage {
                Stage::Begin => {
                    self.stage = Stage::Rows;
                    self.write(|writer, out| writer.begin(out)).await?
                }
                Stage::Rows => {
                    if let Some(page) = self.pages.next().await? {
                        self.write(|writer, out| writer.rows(page, out)).await?
                    } else {
                        self.stage = Stage::Done;
                        self.write(|writer, out| writer.end(out)).await?
                    }
                }
                Stage::Done => return Ok(None),
            };
            if !out.is_empty() {
                return Ok(Some(out.into()));
            }
        }
    }

    /// Writes on a thread for blocking work: a page takes longer than a thread of sockets may.
    async fn write(
        &mut self,
        write: impl FnOnce(&mut dyn FileWriter, &mut Vec<u8>) -> Result<(), WriteError> + Send + 'static,
    ) -> Result<Vec<u8>, ExportError> {
        let mut writer = self.writer.take().ok_or(ExportError::Panicked)?;
        let written = tokio::task::spawn_blocking(move || {
            let mut out = Vec::new();
            write(writer.as_mut(), &mut out).map(|()| (writer, out))
        });
        let (writer, out) = written.await.map_err(|_panic| ExportError::Panicked)??;
        self.writer = Some(writer);
        Ok(out)
    }
}

/// Writes a whole battdat file, then sends it; it is gone from the disk when the body is.
pub(crate) async fn battdat_body(
    mut pages: Pages,
    metadata: String,
    permit: Permit,
) -> Result<SizedStream<Body>, ExportError> {
    let folder = tempfile::Builder::new().prefix("rovi-export-").tempdir()?;
    let path = folder.path().join("export.h5");
    let (to_file, from_pages) = mpsc::channel(PAGES_AHEAD);
    let (file, picks) = (path.clone(), Arc::clone(pages.picks()));
    let writing =
        tokio::task::spawn_blocking(move || battdat::write(&file, &metadata, &picks, from_pages));
    while let Some(page) = pages.next().await? {
        // A writer that stopped tells why below.
        if to_file.send(page).await.is_err() {
            break;
        }
    }
    drop(to_file);
    writing.await.map_err(|_panic| ExportError::Panicked)??;
    let (file, length) = open(&path).await?;
    let body = stream::try_unfold((file, permit), async |(mut file, permit)| {
        let mut chunk = vec![0; FILE_CHUNK];
        let read = file.read(&mut chunk).await?;
        chunk.truncate(read);
        Ok((read > 0).then(|| (Bytes::from(chunk), (file, permit))))
    });
    // An open file can be read after its name is gone.
    drop(folder);
    Ok(SizedStream::new(length, Box::pin(body)))
}

async fn open(path: &Path) -> Result<(tokio::fs::File, u64), ExportError> {
    let file = tokio::fs::File::open(path).await?;
    let length = file.metadata().await?.len();
    Ok((file, length))
}
