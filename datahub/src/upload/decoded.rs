//! Rows as they come out of decoding.

use rovi_common::rows::{Column, Columns, Value};

/// Who found that a row cannot be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusedBy {
    /// Decoding: nested values, names, sizes.
    Form,
    /// Fitting: types of the table's columns.
    Type,
    /// PostgreSQL: constraints that somebody added, rows that fit no page.
    Database,
}

/// A row that is not stored in the battery's table.
#[derive(Debug, Clone, PartialEq)]
pub struct RejectedRow {
    /// Its place among the rows that were sent together.
    pub offset: usize,
    /// Who refused it, for the metrics.
    pub refused_by: RefusedBy,
    /// Why, for the person who sent it.
    pub reason: String,
    /// The row as it was sent.
    pub body: serde_json::Value,
}

/// Rows that were sent together.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Decoded {
    /// The number of rows sent: those in `columns` and those in `rejected`.
    pub sent: usize,
    /// The rows that can be stored as far as can be told without the table.
    pub columns: Columns,
    /// The others, by offset.
    pub rejected: Vec<RejectedRow>,
}

impl Decoded {
    /// Drops the first `count` rows.
    pub fn skip(&mut self, count: usize) {
        let rejected = self.rejected.partition_point(|row| row.offset < count);
        self.columns = self.columns.split_off(count.saturating_sub(rejected));
        self.rejected.drain(..rejected);
        for row in &mut self.rejected {
            row.offset -= count;
        }
        self.sent = self.sent.saturating_sub(count);
    }

    /// Tells whether `other` may be appended as if both had come in one frame: whatever a table
    /// makes of the ones, it makes of the others.
    pub fn goes_with(&self, other: &Self) -> bool {
        self.columns.has_form_of(&other.columns)
    }

    /// Appends the rows of `other`.
    pub fn append(&mut self, mut other: Self) {
        for row in &mut other.rejected {
            row.offset += self.sent;
        }
        self.sent += other.sent;
        self.columns.append(other.columns);
        self.rejected.append(&mut other.rejected);
    }

    /// Splits: keeps the first `at` rows and returns the others.
    #[must_use]
    pub fn split_off(&mut self, at: usize) -> Self {
        let rejected = self.rejected.partition_point(|row| row.offset < at);
        let mut tail = Self {
            sent: self.sent.saturating_sub(at),
            columns: self.columns.split_off(at.saturating_sub(rejected)),
            rejected: self.rejected.split_off(rejected),
        };
        for row in &mut tail.rejected {
            row.offset -= at;
        }
        self.sent = self.sent.min(at);
        tail
    }

    /// Cuts the rows into pieces of so many, in order.
    ///
    /// They are taken from the end: so each cell is moved once, and no piece holds the memory that
    /// all of them had.
    pub fn pieces(mut self, rows: usize) -> impl Iterator<Item = Self> {
        let rows = rows.max(1);
        let mut pieces = Vec::new();
        while self.sent > rows {
            pieces.push(self.split_off((self.sent - 1) / rows * rows));
        }
        self.columns.shrink_to_fit();
        pieces.push(self);
        pieces.into_iter().rev()
    }

    /// Returns the place among the rows sent of a row of `columns`.
    pub fn offset_of(&self, row: usize) -> usize {
        let mut offset = row;
        for rejected in &self.rejected {
            if rejected.offset > offset {
                break;
            }
            offset += 1;
        }
        offset
    }

    /// Returns the memory that the rows take, in bytes, for the bounds of queues.
    pub fn weight(&self) -> usize {
        const REJECTED: usize = 1024;
        let columns: usize = self
            .columns
            .iter()
            .map(|(_, column)| weight_of(column))
            .sum();
        columns + self.rejected.len() * REJECTED + 256
    }
}

pub(super) fn weight_of(column: &Column) -> usize {
    let text: usize = match column {
        Column::Text(cells) => cells.iter().flatten().map(String::len).sum(),
        Column::Mixed(cells) => cells.iter().map(text_bytes).sum(),
        _ => 0,
    };
    let cell = match column {
        Column::Null(_) => 0,
        Column::Bool(_) => 1,
        Column::Int(_) | Column::Float(_) | Column::Time(_) => 16,
        Column::Text(_) | Column::Mixed(_) => 32,
    };
    text + column.len() * cell + 64
}

pub(super) fn text_bytes(value: &Value) -> usize {
    match value {
        Value::Text(text) => text.len(),
        _ => 0,
    }
}

/// Describes a row that cannot be stored; its body is filled in later.
pub(super) fn set_aside(offset: usize, reason: &str) -> RejectedRow {
    RejectedRow {
        offset,
        refused_by: RefusedBy::Form,
        reason: reason.to_owned(),
        body: serde_json::Value::Null,
    }
}
