//! Rows in memory to typed columns.

use rovi_common::rows::{Column, Value};

use crate::layout::{Cell, Layout, Place};

/// Turns the rows in `bytes` into columns, in the order of the layout.
pub(crate) fn decode(layout: &Layout, bytes: &[u8]) -> Vec<(String, Column)> {
    layout
        .columns
        .iter()
        .zip(&layout.places)
        .map(|(column, place)| {
            let cells = bytes
                .chunks_exact(layout.stride)
                .filter_map(|row| row.get(place.offset..place.offset + place.width));
            (column.name.clone(), decode_column(place, cells))
        })
        .collect()
}

/// Turns the cells of one column into a typed column.
fn decode_column<'a>(place: &Place, cells: impl Iterator<Item = &'a [u8]>) -> Column {
    match place.cell {
        Cell::Bool => Column::Bool(
            cells
                .map(|cell| Some(cell.iter().any(|&byte| byte != 0)))
                .collect(),
        ),
        Cell::Int => Column::Int(
            words(cells)
                .map(|word| Some(i64::from_ne_bytes(word)))
                .collect(),
        ),
        Cell::Unsigned => decode_unsigned(words(cells).map(u64::from_ne_bytes)),
        Cell::Float => Column::Float(
            words(cells)
                .map(|word| Some(f64::from_ne_bytes(word)))
                .collect(),
        ),
        Cell::Text { padded } => {
            Column::Text(cells.map(|cell| Some(decode_text(cell, padded))).collect())
        }
    }
}

/// Takes cells of 8 bytes.
fn words<'a>(cells: impl Iterator<Item = &'a [u8]>) -> impl Iterator<Item = [u8; 8]> {
    cells.filter_map(|cell| cell.first_chunk().copied())
}

/// Appends the cells of rows without the bytes that only fill a text column, so that the same
/// content has the same bytes in columns of any width.
pub(crate) fn content(layout: &Layout, bytes: &[u8], out: &mut Vec<u8>) {
    for row in bytes.chunks_exact(layout.stride) {
        for place in &layout.places {
            let cell = row.get(place.offset..place.offset + place.width);
            let cell = cell.unwrap_or_default();
            match place.cell {
                Cell::Text { padded } => {
                    let text = text_bytes(cell, padded);
                    out.extend((text.len() as u64).to_le_bytes());
                    out.extend(text);
                }
                Cell::Bool | Cell::Int | Cell::Unsigned | Cell::Float => out.extend(cell),
            }
        }
    }
}

/// Takes text up to its first NUL.
fn decode_text(cell: &[u8], padded: bool) -> String {
    String::from_utf8_lossy(text_bytes(cell, padded)).into_owned()
}

/// Takes the bytes of a cell that are its text.
fn text_bytes(cell: &[u8], padded: bool) -> &[u8] {
    let end = cell.iter().position(|&byte| byte == 0);
    let text = cell.get(..end.unwrap_or(cell.len())).unwrap_or_default();
    if !padded {
        return text;
    }
    let end = text.iter().rposition(|&byte| byte != b' ');
    text.get(..end.map_or(0, |end| end + 1)).unwrap_or_default()
}

/// Takes unsigned integers: integers where they fit, else exact floats, else refused cells.
fn decode_unsigned(cells: impl Iterator<Item = u64>) -> Column {
    // Typed from the start, so that a column of no rows has its type too.
    let mut column = Column::Int(Vec::new());
    for cell in cells {
        column.push(match i64::try_from(cell) {
            Ok(integer) => Value::Int(integer),
            Err(_) => decode_large(cell),
        });
    }
    column
}

/// Takes an integer above 2^63 - 1 as a float if it is one exactly.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the loss is what is tested for; the float is at most 2^64"
)]
fn decode_large(integer: u64) -> Value {
    let float = integer as f64;
    if float as u128 == u128::from(integer) {
        return Value::Float(float);
    }
    Value::big_integer(&integer.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_ends_at_the_first_nul_and_padding_goes() {
        assert_eq!(decode_text(b"hold\0xx", false), "hold");
        assert_eq!(decode_text(b"nan", false), "nan");
        assert_eq!(decode_text(b"a  ", false), "a  ");
        assert_eq!(decode_text(b"a  ", true), "a");
        assert_eq!(decode_text(b"25 \xb0C", false), "25 \u{fffd}C");
    }

    #[test]
    fn a_large_integer_is_exact_or_refused() {
        let column = decode_unsigned([1, 1 << 63, (1 << 63) + 1].into_iter());
        assert_eq!(column.get(0), Value::Int(1));
        assert_eq!(column.get(1), Value::Float(2.0_f64.powi(63)));
        assert!(matches!(column.get(2), Value::Refused(_)));
        assert_eq!(decode_unsigned([7].into_iter()), Column::Int(vec![Some(7)]));
    }
}
