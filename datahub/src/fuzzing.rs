//! What `fuzz/` feeds with bytes that nobody meant; only built with the feature `fuzzing`.

use bytes::Bytes;
use diesel::pg::Pg;
use rovi_common::rows::{Column, Columns};

use crate::{
    estimates,
    history::{expression::Expression, range, statistics::Every},
    store::{
        statement::{ArrayBind, Element, Statement},
        tables::ColumnType,
    },
    upload::{
        Decoded,
        body::{BodyForm, decode_body},
        decode::{Encoding, Limits, decode},
        guard::Guard,
    },
};

/// The limits that fuzzed frames and bodies have, small enough to be met.
pub const LIMITS: Limits = Limits {
    rows: 100,
    row_bytes: 200,
    columns: 6,
    rejected: 1000,
};

/// Decodes a frame.
///
/// # Errors
/// Why it is refused.
pub fn frame(bytes: &[u8], is_text: bool) -> Result<Decoded, String> {
    let encoding = if is_text {
        Encoding::Json
    } else {
        Encoding::Msgpack
    };
    decode(bytes, encoding, &LIMITS).map_err(|error| error.to_string())
}

/// Decodes a body; the form is chosen by a number.
///
/// # Errors
/// Why it is refused.
pub fn body(bytes: &[u8], form: u8) -> Result<Decoded, String> {
    let known = [
        ("a", ColumnType::Float),
        ("b", ColumnType::Text),
        ("c", ColumnType::Bool),
    ];
    let known = known.map(|(name, kind)| (name.to_owned(), kind));
    let known = if form & 4 == 4 { known.as_slice() } else { &[] };
    let form = match form % 4 {
        0 => BodyForm::Json,
        1 => BodyForm::Ndjson,
        2 => BodyForm::Csv,
        _ => BodyForm::Msgpack,
    };
    decode_body(bytes, form, &LIMITS, known).map_err(|error| error.to_string())
}

/// Looks at a frame of estimates as it comes from the bus.
///
/// # Errors
/// Why no table takes it.
pub fn estimates(subject: &str, bytes: &[u8]) -> Result<(), String> {
    estimates::check(subject, bytes)
}

/// Reads a text as ranges of questions; tells whether one ends before it begins.
pub fn is_reversed_range(text: &str) -> bool {
    const NOW_US: i64 = 1_800_000_000_000_000;
    let _refused = Every::parse(text);
    range::seq("seq", text).is_ok_and(|(from, to)| from > to)
        || range::numbers("test_time", text).is_ok_and(|(from, to)| from > to)
        || range::seconds("time", text, NOW_US).is_ok_and(|(from, to)| from > to)
        || range::microseconds("received", text, NOW_US).is_ok_and(|(from, to)| from > to)
}

/// Reads a text as a formula and returns its cells over three rows.
pub fn formula(text: &str) -> Option<Vec<Option<f64>>> {
    let columns = Columns::new(vec![
        (
            "v".to_owned(),
            Column::Float(vec![Some(f64::NAN), Some(-2.0), None]),
        ),
        (
            "n".to_owned(),
            Column::Int(vec![Some(0), Some(i64::MAX), None]),
        ),
    ]);
    let formula: Expression = text.parse().ok()?;
    Some(formula.evaluate(&columns.ok()?, 3))
}

/// Returns the text of a statement that names these identifiers one after another.
pub fn quoted(names: &[&str]) -> String {
    let statement = names.iter().fold(Statement::once(), |statement, name| {
        statement.identifier(name).sql(",")
    });
    diesel::debug_query::<Pg, _>(&statement).to_string()
}

/// Returns a column as an array in PostgreSQL's binary form: its cells, each after its length.
pub fn array(column: &Column) -> Vec<u8> {
    let element = match column {
        Column::Bool(_) => Element::Bool,
        Column::Int(_) => Element::Long,
        Column::Float(_) => Element::Double,
        Column::Time(_) => Element::Time,
        _ => Element::Text,
    };
    let mut array = ArrayBind::new(element, column.len());
    array.put_column(column, 0, column.len());
    array.into_cells()
}

/// Returns what passes the guard of WebSocket frames that may have 100 bytes.
pub fn guarded<'b>(pieces: impl Iterator<Item = &'b [u8]>) -> Vec<u8> {
    let mut guard = Guard::new(100);
    pieces
        .flat_map(|piece| guard.pass(Bytes::copy_from_slice(piece)))
        .collect()
}
