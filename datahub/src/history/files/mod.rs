//! Forms of files, written page by page.

pub(crate) mod battdat;
mod csv;
pub(crate) mod frames;
mod json;
mod parquet;

use std::sync::Arc;

use super::{format::Format, picks::Picks};
use crate::store::{rows::Selected, source::Source};

/// Rows cannot be written in a form.
#[derive(Debug, thiserror::Error)]
#[error("rows cannot be written as {form}")]
pub(crate) struct WriteError {
    pub(crate) form: &'static str,
    #[source]
    pub(crate) source: Box<dyn std::error::Error + Send + Sync>,
}

impl WriteError {
    fn of<E>(form: &'static str) -> impl Fn(E) -> Self
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        move |source| Self {
            form,
            source: source.into(),
        }
    }
}

/// Writes a file page by page; what is ready is appended to `out` each time.
pub(crate) trait FileWriter: Send {
    /// Writes what stands before the first row.
    fn begin(&mut self, out: &mut Vec<u8>) -> Result<(), WriteError>;
    /// Writes rows.
    fn rows(&mut self, rows: Selected, out: &mut Vec<u8>) -> Result<(), WriteError>;
    /// Writes what stands behind the last row.
    fn end(&mut self, out: &mut Vec<u8>) -> Result<(), WriteError>;
}

/// Returns what writes a form row by row; none for those that need all rows at once, which are
/// HDF5 and the JSON of a page.
///
/// `metadata` are the battery's, as they were sent.
pub(crate) fn writer(
    format: Format,
    source: &Arc<Source>,
    picks: &Arc<Picks>,
    metadata: &str,
) -> Result<Option<Box<dyn FileWriter>>, WriteError> {
    Ok(Some(match format {
        Format::Csv => Box::new(csv::CsvFile::new(picks)),
        Format::Ndjson => Box::new(json::JsonRows::LINES),
        Format::Msgpack => Box::new(frames::FramesFile::new(source)),
        Format::Parquet => Box::new(parquet::ParquetFile::new(picks, metadata)?),
        Format::Json | Format::Hdf5 => return Ok(None),
    }))
}

/// Returns what writes a JSON array of rows, of any length.
pub(crate) fn json_array() -> Box<dyn FileWriter> {
    Box::new(json::JsonRows::ARRAY)
}

/// Writes one page as a whole file.
pub(crate) fn whole(
    mut writer: Box<dyn FileWriter>,
    rows: Selected,
) -> Result<Vec<u8>, WriteError> {
    let mut out = Vec::new();
    writer.begin(&mut out)?;
    writer.rows(rows, &mut out)?;
    writer.end(&mut out)?;
    Ok(out)
}
