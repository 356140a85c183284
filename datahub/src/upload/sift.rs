//! Which rows a table may hold, as far as that can be told without the table: names, sizes,
//! values that no column has.

use std::iter;

use rovi_common::rows::{Column, Columns, Value};

use super::{
    decode::{DecodeError, Limits, bounded},
    decoded::{Decoded, RejectedRow, set_aside, text_bytes, weight_of},
};
use crate::config::MAX_COLUMN_NAME_BYTES;

/// Makes the names of a row usable, or tells why it cannot be stored.
pub(super) fn usable_row(
    mut row: Vec<(String, Value)>,
    limits: &Limits,
    before: &Columns,
) -> Result<Vec<(String, Value)>, String> {
    if row.is_empty() {
        return Err("the row has no columns".to_owned());
    }
    if row.len() > limits.columns {
        return Err(too_many_columns(row.len(), limits));
    }
    let mut bytes = 0;
    let mut added = 0;
    // Rows of the same form name their columns in the same order.
    let hints = before
        .iter()
        .map(|(name, _)| Some(name))
        .chain(iter::repeat(None));
    for ((name, value), hint) in row.iter_mut().zip(hints) {
        if let Value::Refused(reason) = value {
            return Err(format!("column `{name}`: {reason}"));
        }
        check_time(name, value)?;
        bytes += name.len() + 9 + text_bytes(value);
        rename(name)?;
        added += usize::from(hint != Some(name) && before.get(name).is_none());
    }
    if bytes > limits.row_bytes {
        return Err(too_large(bytes, limits));
    }
    if before.width() + added > limits.columns {
        return Err(too_many_columns(before.width() + added, limits));
    }
    Ok(row)
}

/// Tells whether the last row may be stored as those before it, whose columns it has.
pub(super) fn last_row_fits(rows: &Columns, limits: &Limits) -> bool {
    let mut bytes = 0;
    for (name, column) in rows.iter() {
        let text = match column {
            Column::Text(cells) => cells.last().and_then(Option::as_ref).map_or(0, String::len),
            Column::Time(cells) if cells.last().is_some_and(|us| is_too_early(*us)) => {
                return false;
            }
            _ => 0,
        };
        bytes += name.len() + 9 + text;
    }
    bytes <= limits.row_bytes
}

fn is_too_early(us: Option<i64>) -> bool {
    us.is_some_and(|us| us < EARLIEST_US)
}

/// Returns the name that a column has in the table.
///
/// # Errors
/// Why no column may have this name.
pub(crate) fn column_name(mut name: String) -> Result<String, String> {
    rename(&mut name)?;
    Ok(name)
}

fn too_many_columns(found: usize, limits: &Limits) -> String {
    format!("{found} columns, the limit is {}", limits.columns)
}

fn too_large(bytes: usize, limits: &Limits) -> String {
    let limit = limits.row_bytes;
    format!("the row has {bytes} bytes, the limit is {limit}")
}

/// Gives a column its name in the table: those of the hub and of PostgreSQL get a `_`.
fn rename(name: &mut String) -> Result<(), String> {
    let taken = [
        "seq", "received", "segment", "epoch", "tableoid", "xmin", "cmin", "xmax", "cmax", "ctid",
    ];
    if name.is_empty() {
        return Err("a column has an empty name".to_owned());
    }
    if name.contains('\0') {
        return Err(format!("the column name {name:?} holds a NUL character"));
    }
    if name.len() > MAX_COLUMN_NAME_BYTES {
        let (bytes, limit) = (name.len(), MAX_COLUMN_NAME_BYTES);
        return Err(format!(
            "the column name `{name}` has {bytes} bytes, the limit is {limit}"
        ));
    }
    if taken.contains(&name.as_str()) {
        name.push('_');
    }
    Ok(())
}

/// The earliest time of PostgreSQL's `timestamptz`, in microseconds since 1970; its latest one is
/// beyond 64 bits.
const EARLIEST_US: i64 = -210_866_803_200_000_000;

fn check_time(name: &str, value: &Value) -> Result<(), String> {
    match value {
        Value::Time(us) if *us < EARLIEST_US => Err(format!(
            "column `{name}`: a timestamp before the year 4713 BC"
        )),
        _ => Ok(()),
    }
}

/// Separates the rows of a batch of columns that can be stored from those that cannot.
pub(super) fn sift(
    mut columns: Vec<(String, Column)>,
    limits: &Limits,
) -> Result<Decoded, DecodeError> {
    let refused = |error: rovi_common::rows::ColumnsError| {
        DecodeError::Undecodable(format!("the columns form no rows: {error}"))
    };
    let width = columns.len();
    let names = columns.iter_mut().try_for_each(|(name, _)| rename(name));
    let columns = Columns::new(columns).map_err(refused)?;
    let sent = columns.rows();
    let general = match names {
        Err(reason) => Some(reason),
        Ok(()) if width > limits.columns => Some(too_many_columns(width, limits)),
        Ok(()) => None,
    };
    if let Some(reason) = general {
        let kept = 0..sent.min(limits.rejected.saturating_add(1));
        let decoded = Decoded {
            sent,
            columns: Columns::default(),
            rejected: kept.map(|offset| set_aside(offset, &reason)).collect(),
        };
        return bounded(decoded, limits);
    }
    let rejected = unusable_rows(&columns, limits);
    let columns = keep_others(columns, &rejected).map_err(refused)?;
    let decoded = Decoded {
        sent,
        columns,
        rejected,
    };
    bounded(decoded, limits)
}

/// Finds the rows of a batch that no table can hold; looks at cells only where there may be some.
fn unusable_rows(columns: &Columns, limits: &Limits) -> Vec<RejectedRow> {
    let text: usize = columns
        .iter()
        .map(|(_, column)| match column {
            Column::Text(_) | Column::Mixed(_) => weight_of(column),
            _ => 0,
        })
        .sum();
    let suspicious = |(_, column): &(&str, &Column)| {
        matches!(column, Column::Mixed(_) | Column::Time(_)) || text > limits.row_bytes
    };
    let suspects: Vec<(&str, &Column)> = columns.iter().filter(suspicious).collect();
    if suspects.is_empty() {
        return Vec::new();
    }
    let reason_of = |row: usize| {
        let mut bytes = 9 * columns.width();
        for (name, column) in &suspects {
            let value = column.get(row);
            if let Value::Refused(reason) = value {
                return Some(format!("column `{name}`: {reason}"));
            }
            if let Err(reason) = check_time(name, &value) {
                return Some(reason);
            }
            bytes += text_bytes(&value);
        }
        (bytes > limits.row_bytes).then(|| too_large(bytes, limits))
    };
    (0..columns.rows())
        .filter_map(|row| Some(set_aside(row, &reason_of(row)?)))
        .take(limits.rejected.saturating_add(1))
        .collect()
}

/// Drops the rows set aside; a column that was mixed because of them has its type again.
fn keep_others(
    mut columns: Columns,
    rejected: &[RejectedRow],
) -> Result<Columns, rovi_common::rows::ColumnsError> {
    if rejected.is_empty() {
        return Ok(columns);
    }
    let mut keep = vec![true; columns.rows()];
    for row in rejected {
        if let Some(kept) = keep.get_mut(row.offset) {
            *kept = false;
        }
    }
    columns.retain(&keep);
    let typed = |(name, column): (String, Column)| match column {
        Column::Mixed(cells) => {
            let mut column = Column::new();
            for cell in cells {
                column.push(cell);
            }
            (name, column)
        }
        column => (name, column),
    };
    Columns::new(columns.into_vec().into_iter().map(typed).collect())
}
