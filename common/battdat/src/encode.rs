//! Typed columns to the rows of a table: how wide each field must be, and its bytes.

use rovi_common::rows::{Column, Columns, Value};

use crate::{
    column::{ColumnInfo, ColumnKind},
    layout::MAX_TEXT_BYTES,
};

/// A cell that cannot be written: the column, the row of the batch, and why.
#[derive(Debug)]
pub(crate) struct BadCell {
    pub(crate) column: String,
    pub(crate) row: usize,
    pub(crate) reason: String,
}

/// One field of a table to be written: a column, or the columns of one array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Field {
    /// The name of the field.
    pub(crate) name: String,
    /// The names of its columns.
    pub(crate) columns: Vec<String>,
    /// Tells an array of one cell from a plain column.
    pub(crate) is_array: bool,
    /// What its cells are written as.
    pub(crate) kind: ColumnKind,
    /// Bytes of one cell.
    pub(crate) width: usize,
}

impl Field {
    /// Groups columns into fields: those of one array that stand side by side are one field.
    pub(crate) fn of_columns(columns: &[ColumnInfo]) -> Vec<Self> {
        let mut fields = Vec::new();
        let mut rest = columns;
        while let Some((first, _)) = rest.split_first() {
            let length = array_length(rest);
            let (columns, tail) = rest.split_at(length.max(1));
            fields.push(Self {
                name: match (&first.expanded_from, length) {
                    (Some(array), 1..) => array.clone(),
                    _ => first.name.clone(),
                },
                columns: columns.iter().map(|column| column.name.clone()).collect(),
                is_array: length > 0,
                kind: first.kind,
                width: width_of(first.kind),
            });
            rest = tail;
        }
        fields
    }

    /// Widens the field so that it can hold the cells of these rows.
    pub(crate) fn widen_for(&mut self, rows: &Columns) {
        for column in self.columns.iter().filter_map(|name| rows.get(name)) {
            let (kind, width) = demand(column, self.kind);
            if kind != self.kind {
                self.kind = kind;
                self.width = width_of(kind);
            }
            if width > self.width {
                // Twice as wide at least, so that texts that grow cost few rewritings.
                self.width = width.max((self.width * 2).min(MAX_TEXT_BYTES));
            }
        }
    }

    /// Appends the cells of one row.
    fn encode_row(&self, cells: &Cells<'_>, row: usize, out: &mut Vec<u8>) -> Result<(), BadCell> {
        for (name, column) in self.columns.iter().zip(cells) {
            let value = column.map_or(Value::Null, |column| column.get(row));
            let start = out.len();
            encode_cell(self.kind, value, out).map_err(|reason| BadCell {
                column: name.clone(),
                row,
                reason,
            })?;
            out.resize(start + self.width, 0);
        }
        Ok(())
    }
}

/// The columns of one field in a batch, in order; `None` for one that the batch lacks.
type Cells<'a> = Vec<Option<&'a Column>>;

/// Encodes rows, each field after the other without gaps.
pub(crate) fn encode(fields: &[Field], rows: &Columns) -> Result<Vec<u8>, BadCell> {
    let cells: Vec<Cells<'_>> = fields
        .iter()
        .map(|field| field.columns.iter().map(|name| rows.get(name)).collect())
        .collect();
    let mut out = Vec::with_capacity(stride(fields) * rows.rows());
    for row in 0..rows.rows() {
        for (field, cells) in fields.iter().zip(&cells) {
            field.encode_row(cells, row, &mut out)?;
        }
    }
    Ok(out)
}

/// Returns the bytes of a row.
pub(crate) fn stride(fields: &[Field]) -> usize {
    fields
        .iter()
        .map(|field| field.width * field.columns.len())
        .sum()
}

/// Returns how many of the first columns are the cells `array[0]`, `array[1]` … of one array.
fn array_length(columns: &[ColumnInfo]) -> usize {
    let Some((first, Some(array))) = columns.first().map(|c| (c, c.expanded_from.as_ref())) else {
        return 0;
    };
    let is_cell = |(index, column): &(usize, &ColumnInfo)| {
        column.expanded_from.as_ref() == Some(array)
            && column.kind == first.kind
            && column.name == format!("{array}[{index}]")
    };
    columns.iter().enumerate().take_while(is_cell).count()
}

fn width_of(kind: ColumnKind) -> usize {
    match kind {
        ColumnKind::Bool | ColumnKind::Text => 1,
        ColumnKind::Int | ColumnKind::Float => 8,
    }
}

/// Returns the kind and width that the cells of a column need in a field of this kind.
fn demand(column: &Column, kind: ColumnKind) -> (ColumnKind, usize) {
    let plain = (kind, width_of(kind));
    match kind {
        ColumnKind::Float => plain,
        ColumnKind::Text => {
            let longest = |cells: &[Option<String>]| cells.iter().flatten().map(String::len).max();
            let width = match column {
                Column::Text(cells) => longest(cells).unwrap_or(0),
                Column::Mixed(cells) => cells.iter().map(text_bytes).max().unwrap_or(0),
                _ => 0,
            };
            (kind, width.clamp(1, MAX_TEXT_BYTES))
        }
        // HDF5 has no null: a float can be NaN, integers and booleans must become floats.
        ColumnKind::Bool | ColumnKind::Int => {
            let has_null_or_float = match column {
                Column::Null(cells) => *cells > 0,
                Column::Bool(cells) => cells.contains(&None),
                Column::Int(cells) => cells.contains(&None),
                Column::Float(_) | Column::Time(_) => kind == ColumnKind::Int && !column.is_empty(),
                Column::Text(_) => false,
                Column::Mixed(cells) => cells
                    .iter()
                    .any(|cell| matches!(cell, Value::Null | Value::Float(_) | Value::Time(_))),
            };
            if has_null_or_float {
                (ColumnKind::Float, 8)
            } else {
                plain
            }
        }
    }
}

fn text_bytes(value: &Value) -> usize {
    match value {
        Value::Text(text) => text.len(),
        _ => 0,
    }
}

/// Appends the bytes of one cell; those of a text without the NULs that fill its width.
fn encode_cell(kind: ColumnKind, value: Value, out: &mut Vec<u8>) -> Result<(), String> {
    match (kind, value) {
        (_, Value::Refused(reason)) => return Err(reason.to_string()),
        (ColumnKind::Bool, Value::Bool(cell)) => out.push(u8::from(cell)),
        (ColumnKind::Int, Value::Int(cell)) => out.extend(cell.to_ne_bytes()),
        (ColumnKind::Float, value) => out.extend(float(&value)?.to_ne_bytes()),
        (ColumnKind::Text, Value::Null) => {}
        (ColumnKind::Text, Value::Text(text)) if text.len() > MAX_TEXT_BYTES => {
            return Err(format!(
                "a text of {} bytes; at most {MAX_TEXT_BYTES} are written",
                text.len()
            ));
        }
        (ColumnKind::Text, Value::Text(text)) if text.contains('\0') => {
            return Err("a text with a NUL character would be cut there".to_owned());
        }
        (ColumnKind::Text, Value::Text(text)) => out.extend(text.as_bytes()),
        (kind, value) => return Err(format!("{value} is not a {}", kind.name())),
    }
    Ok(())
}

/// Takes a value as a float: null is NaN, true is 1, a timestamp is UNIX time in seconds.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "integers are tested for loss; microseconds are rounded to the float's 0.24 us"
)]
fn float(value: &Value) -> Result<f64, String> {
    Ok(match value {
        Value::Null => f64::NAN,
        Value::Bool(cell) => f64::from(u8::from(*cell)),
        Value::Float(cell) => *cell,
        Value::Time(us) => *us as f64 / 1e6,
        Value::Int(cell) => {
            let float = *cell as f64;
            if float as i128 != i128::from(*cell) {
                return Err(format!(
                    "the integer {cell} cannot stand exactly in a column that has nulls or floats"
                ));
            }
            float
        }
        other => return Err(format!("{other} is not a number")),
    })
}
