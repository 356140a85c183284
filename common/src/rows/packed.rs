//! Columns in msgpack, read kind by kind: rows and estimates are long arrays of cells of one kind, which
//! are read at every hop, and looking at the kind of each cell anew takes most of that.
//!
//! Whatever is read here is what serde would read, and what is not plain is left to it.

use rmp::{Marker, decode};
use serde::de::IgnoredAny;

use super::{Column, Columns, column::MAX_RESERVED_CELLS};
use crate::msgpack;

/// The byte of a cell that is null.
const NULL: u8 = 0xc0;
/// The byte before the eight of a float.
const FLOAT: u8 = 0xcb;
/// A map of nothing.
const EMPTY_MAP: u8 = 0x80;

/// Reads a map in which every value is an array, in the order of its names; nothing where all of
/// `bytes` is anything else.
pub fn columns(bytes: &[u8]) -> Option<Vec<(String, Column)>> {
    let mut rest = bytes;
    let columns = read_columns(&mut rest)?;
    rest.is_empty().then_some(columns)
}

/// Takes the columns out of a map that has them under `columns`; returns them, and the map with no
/// columns in their place.
pub(crate) fn lift_columns(bytes: &[u8]) -> Option<(Columns, Vec<u8>)> {
    let mut rest = bytes;
    for _ in 0..decode::read_map_len(&mut rest).ok()? {
        if text(&mut rest)? == "columns" {
            let before = bytes.get(..bytes.len() - rest.len())?;
            let columns = Columns::new(read_columns(&mut rest)?).ok()?;
            return Some((columns, [before, [EMPTY_MAP].as_slice(), rest].concat()));
        }
        let _passed_over: IgnoredAny = msgpack::read(&mut rest).ok()?;
    }
    None
}

fn read_columns(bytes: &mut &[u8]) -> Option<Vec<(String, Column)>> {
    let count = decode::read_map_len(bytes).ok()?;
    let named = |_| {
        let name = text(bytes)?;
        let column = column(bytes)?;
        Some((name.to_owned(), column))
    };
    (0..count).map(named).collect()
}

fn column(bytes: &mut &[u8]) -> Option<Column> {
    decode::read_array_len(&mut &**bytes).ok()?;
    let mut rest = *bytes;
    if let Some(column) = plain(&mut rest) {
        *bytes = rest;
        return Some(column);
    }
    msgpack::read(bytes).ok()
}

/// Reads an array whose cells are of one kind, or null.
fn plain(bytes: &mut &[u8]) -> Option<Column> {
    let count = usize::try_from(decode::read_array_len(bytes).ok()?).ok()?;
    let cells = bytes.iter().take(count);
    let nulls = cells.take_while(|byte| **byte == NULL).count();
    *bytes = bytes.get(nulls..)?;
    if nulls == count {
        return Some(Column::Null(count));
    }
    let size = (nulls, count);
    match Marker::from_u8(*bytes.first()?) {
        Marker::F64 => typed(bytes, size, float).map(Column::Float),
        Marker::True | Marker::False => typed(bytes, size, boolean).map(Column::Bool),
        Marker::FixStr(_) | Marker::Str8 | Marker::Str16 | Marker::Str32 => {
            typed(bytes, size, cell_text).map(Column::Text)
        }
        _ => typed(bytes, size, integer).map(Column::Int),
    }
}

/// Reads the cells behind the first nulls; nothing where one is of another kind.
#[inline]
fn typed<T: Clone>(
    bytes: &mut &[u8],
    (nulls, count): (usize, usize),
    read: impl Fn(&mut &[u8]) -> Option<T>,
) -> Option<Vec<Option<T>>> {
    let mut cells = Vec::with_capacity(count.min(nulls + MAX_RESERVED_CELLS));
    cells.resize(nulls, None);
    while cells.len() < count {
        cells.push(match bytes.split_first()? {
            (&NULL, rest) => {
                *bytes = rest;
                None
            }
            _ => Some(read(bytes)?),
        });
    }
    Some(cells)
}

fn float(bytes: &mut &[u8]) -> Option<f64> {
    let ([FLOAT, number @ ..], rest) = bytes.split_first_chunk::<9>()? else {
        return None;
    };
    *bytes = rest;
    Some(f64::from_be_bytes(*number))
}

fn integer(bytes: &mut &[u8]) -> Option<i64> {
    decode::read_int(bytes).ok()
}

fn boolean(bytes: &mut &[u8]) -> Option<bool> {
    decode::read_bool(bytes).ok()
}

/// Reads a text that a cell may hold.
fn cell_text(bytes: &mut &[u8]) -> Option<String> {
    let text = text(bytes).filter(|text| !text.contains('\0'));
    text.map(str::to_owned)
}

fn text<'b>(bytes: &mut &'b [u8]) -> Option<&'b str> {
    let (text, rest) = decode::read_str_from_slice(*bytes).ok()?;
    *bytes = rest;
    Some(text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::rows::Value;

    fn by_serde(bytes: &[u8]) -> Columns {
        rmp_serde::from_slice(bytes).unwrap()
    }

    fn packed(of: &impl serde::Serialize) -> Vec<u8> {
        rmp_serde::to_vec_named(of).unwrap()
    }

    #[test]
    fn columns_of_every_kind_are_those_that_serde_reads() {
        let long = "x".repeat(300);
        let many: Vec<Option<f64>> = (0..5000).map(|row| Some(f64::from(row))).collect();
        for column in [
            Column::Float(vec![None, Some(0.1), None, Some(-0.0), Some(f64::INFINITY)]),
            Column::Float(many),
            Column::Int(vec![
                Some(i64::MIN),
                Some(-1),
                None,
                Some(200),
                Some(i64::MAX),
            ]),
            Column::Bool(vec![None, Some(true), Some(false)]),
            Column::Text(vec![
                Some(String::new()),
                Some("Ω".to_owned()),
                Some(long),
                None,
            ]),
            Column::Time(vec![Some(-5), None, Some(7)]),
            Column::Mixed(vec![Value::Int(1), Value::Float(0.5), Value::Null]),
            Column::Null(3),
            Column::Null(0),
        ] {
            let twice = [("a", &column), ("b", &column)];
            let bytes = packed(&std::collections::BTreeMap::from(twice));
            let read = Columns::new(columns(&bytes).unwrap()).unwrap();
            assert_eq!(read, by_serde(&bytes));
        }
    }

    #[test]
    fn cells_that_are_not_plain_are_what_serde_makes_of_them() {
        for cells in [
            json!([0.5, 1, "x"]),
            json!([1, u64::MAX]),
            json!(["a\0b"]),
            json!([[1, [2]], {"a": 1}]),
        ] {
            let bytes = packed(&json!({ "a": cells }));
            let read = Columns::new(columns(&bytes).unwrap()).unwrap();
            assert_eq!(read, by_serde(&bytes), "{cells}");
        }
        let nan = packed(
            &[("a", vec![f64::NAN])]
                .into_iter()
                .collect::<std::collections::BTreeMap<_, _>>(),
        );
        let read = columns(&nan).unwrap();
        assert!(matches!(read[0].1.get(0), Value::Float(cell) if cell.is_nan()));
    }

    #[test]
    fn whatever_is_no_map_of_arrays_is_left_to_others() {
        for other in [
            json!({"a": 1}),
            json!([[1]]),
            json!({"a": [1], "b": 2}),
            json!(7),
        ] {
            assert_eq!(columns(&packed(&other)), None, "{other}");
        }
        let whole = packed(&json!({"a": [0.5, null, 1.5], "b": ["x", "y", null]}));
        for end in 0..whole.len() {
            assert_eq!(columns(&whole[..end]), None, "cut at {end}");
        }
        assert_eq!(
            columns(&[whole, vec![0]].concat()),
            None,
            "something behind"
        );
        // An array that says it has four thousand million cells.
        assert_eq!(columns(b"\x81\xa1a\xdd\xff\xff\xff\xff\xcb"), None);
    }
}
