//! One table: its columns and rows.

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use hdf5::Dataset;
use rovi_common::rows::Columns;
use sha2::{Digest, Sha256};

use crate::{
    cells,
    column::ColumnInfo,
    error::BattdatError,
    filters,
    layout::{Cell, Layout},
    raw,
};

/// How many rows [`Table::chunks`] reads at a time.
pub const CHUNK_ROWS: usize = 8192;

/// The most bytes that are read at a time; a table of wide rows is read in smaller parts.
const MAX_READ_BYTES: usize = 16 << 20;

/// An open table.
#[derive(Debug)]
pub struct Table {
    path: PathBuf,
    node: String,
    dataset: Dataset,
    row: hdf5::Datatype,
    layout: Layout,
    rows: usize,
}

impl Table {
    /// Opens a table that the scan of the file listed with these columns.
    pub(crate) fn open(
        path: &Path,
        node: String,
        dataset: Dataset,
        columns: Vec<ColumnInfo>,
    ) -> Result<Self, BattdatError> {
        let missing = filters::missing(&dataset).map_err(BattdatError::hdf5(
            path,
            format!("read how table {node} is stored"),
        ))?;
        if let Some(filter) = missing {
            return Err(BattdatError::UnreadableFilter {
                path: path.to_owned(),
                table: node,
                filter,
            });
        }
        let mut layout = dataset
            .dtype()
            .and_then(|dtype| Layout::of(&dtype))
            .map_err(BattdatError::hdf5(
                path,
                format!("read the columns of table {node}"),
            ))?;
        layout.columns = columns;
        let Some(row) = layout.row.take() else {
            return Err(BattdatError::NoReadableColumn {
                path: path.to_owned(),
                table: node,
                left_out: (layout.left_out.into_iter())
                    .map(|(column, reason)| format!("{column}: {reason}"))
                    .collect(),
            });
        };
        Ok(Self {
            path: path.to_owned(),
            rows: dataset.size(),
            node,
            dataset,
            row,
            layout,
        })
    }

    /// Returns the columns in the order of the file, the cells of an array side by side.
    pub fn columns(&self) -> &[ColumnInfo] {
        &self.layout.columns
    }

    /// Returns the number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Reads a range of rows; those beyond the end are not there. The memory used grows with the
    /// range.
    ///
    /// # Errors
    /// - `Hdf5`: a part of the file cannot be read, as in a damaged file.
    pub fn read(&self, range: Range<usize>) -> Result<Columns, BattdatError> {
        let mut rows = Columns::default();
        self.read_parts(range, |bytes| {
            rows.append(self.decode(bytes));
        })?;
        if rows.width() == 0 {
            return Ok(self.decode(&[]));
        }
        Ok(rows)
    }

    /// Reads the table from start to end, [`CHUNK_ROWS`] rows at a time.
    pub fn chunks(&self) -> Chunks<'_> {
        Chunks {
            table: self,
            next: 0,
        }
    }

    /// Digests the names and kinds of the columns and all cells, as SHA-256.
    ///
    /// The same content gives the same digest on machines of one byte order, whatever the file's
    /// compression, byte order and width of texts, and whatever else is in it.
    ///
    /// # Errors
    /// - `Hdf5`: a part of the file cannot be read, as in a damaged file.
    pub fn fingerprint(&self) -> Result<[u8; 32], BattdatError> {
        let mut digest = Sha256::new();
        for (column, place) in self.layout.columns.iter().zip(&self.layout.places) {
            let kind: &[u8] = match place.cell {
                Cell::Bool => b"bool",
                Cell::Int => b"int",
                Cell::Unsigned => b"uint",
                Cell::Float => b"float",
                Cell::Text { .. } => b"text",
            };
            // Lengths before texts, so that no two lists of columns look the same.
            for text in [column.name.as_bytes(), kind] {
                digest.update((text.len() as u64).to_le_bytes());
                digest.update(text);
            }
        }
        digest.update((self.rows as u64).to_le_bytes());
        let mut content = Vec::new();
        self.read_parts(0..self.rows, |bytes| {
            content.clear();
            cells::content(&self.layout, bytes, &mut content);
            digest.update(&content);
        })?;
        Ok(digest.finalize().into())
    }

    fn decode(&self, bytes: &[u8]) -> Columns {
        let columns = Columns::new(cells::decode(&self.layout, bytes));
        columns.expect("the layout gives each column a name of its own and all rows")
    }

    /// Reads rows into one buffer, part by part, and shows each part to `take`.
    fn read_parts(
        &self,
        range: Range<usize>,
        mut take: impl FnMut(&[u8]),
    ) -> Result<(), BattdatError> {
        let stride = self.layout.stride.max(1);
        let part = (MAX_READ_BYTES / stride).clamp(1, CHUNK_ROWS);
        let end = range.end.min(self.rows);
        let mut buffer = Vec::new();
        let mut start = range.start;
        while start < end {
            let count = part.min(end - start);
            buffer.resize(count * stride, 0);
            raw::read_rows(&self.dataset, &self.row, (start, count), &mut buffer).map_err(
                BattdatError::hdf5(
                    &self.path,
                    format!(
                        "read rows {start} to {} of table {}",
                        start + count,
                        self.node
                    ),
                ),
            )?;
            take(&buffer);
            start += count;
        }
        Ok(())
    }
}

/// The rows of a table, [`CHUNK_ROWS`] at a time; ends after the first error.
#[derive(Debug)]
pub struct Chunks<'a> {
    table: &'a Table,
    next: usize,
}

impl Iterator for Chunks<'_> {
    type Item = Result<Columns, BattdatError>;

    fn next(&mut self) -> Option<Self::Item> {
        let start = self.next;
        if start >= self.table.rows {
            return None;
        }
        let rows = self.table.read(start..start.saturating_add(CHUNK_ROWS));
        self.next = if rows.is_ok() {
            start + CHUNK_ROWS
        } else {
            self.table.rows
        };
        Some(rows)
    }
}
