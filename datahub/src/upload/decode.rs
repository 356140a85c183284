//! Hop 2 of 7: bytes → typed columns of rows.
//!
//! Input: one frame or body, msgpack or JSON, in any of the three forms of `docs/PROTOCOL.md`.
//! Output: a [`Decoded`] batch. A row that cannot be stored is set aside with its reason and the
//! others go on; only what cannot be read at all is an error.

use std::{borrow::Cow, fmt};

use rovi_common::rows::{Cell, Column, Value, packed};
use serde::{
    Deserializer,
    de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor},
};

use super::{
    decoded::{Decoded, set_aside},
    integers, kept, raw,
    sift::{sift, usable_row},
};
use crate::config::Settings;

/// How deep lists and maps of msgpack may stand in each other, as in JSON: reading takes stack for each,
/// and a thread whose stack is full ends the whole service.
pub(super) const MAX_DEPTH: usize = 128;

/// What one frame may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most rows of one frame or body.
    pub rows: usize,
    /// Most bytes of one row.
    pub row_bytes: usize,
    /// Most columns.
    pub columns: usize,
    /// Most rows of one frame or body that cannot be stored: each takes many times the memory of
    /// its bytes.
    pub rejected: usize,
}

impl Limits {
    /// Returns the limits of frames.
    pub fn of_frames(settings: &Settings) -> Self {
        Self {
            rows: settings.rows_per_frame,
            row_bytes: settings.row_bytes,
            columns: settings.columns,
            rejected: settings.rows_per_frame,
        }
    }

    /// Returns the limits of bodies.
    pub fn of_bodies(settings: &Settings) -> Self {
        Self {
            rows: settings.body_rows,
            ..Self::of_frames(settings)
        }
    }
}

/// How the bytes are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Binary frames, `application/msgpack`.
    Msgpack,
    /// Text frames, everything else.
    Json,
}

/// Why a whole frame is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes are no rows; since their number is unknown, the connection ends.
    #[error("{0}")]
    Undecodable(String),
    /// The frame has more rows than one may have.
    #[error("the frame has {rows} rows, the limit is {limit}")]
    TooManyRows {
        /// Rows found.
        rows: usize,
        /// Rows allowed.
        limit: usize,
    },
    /// More rows cannot be stored than may be kept of one frame or body.
    #[error("more than {limit} rows cannot be stored, the first because: {reason}; none is kept")]
    TooManyRejected {
        /// Rejected rows allowed.
        limit: usize,
        /// Why the first is rejected.
        reason: String,
    },
    /// The rows have too many columns that most of them lack.
    #[error(
        "most rows lack most of the columns, which takes too much memory; send fewer rows at once, \
         or those with the same columns together"
    )]
    TooSparse,
}

/// Cells that rows may have together, sent or not: as many as their bytes could say, and some more.
pub(super) fn most_cells(bytes: &[u8]) -> usize {
    bytes.len().saturating_add(2 << 20)
}

/// Refuses what has more rejected rows than may be kept.
pub(super) fn bounded(decoded: Decoded, limits: &Limits) -> Result<Decoded, DecodeError> {
    let limit = limits.rejected;
    match decoded.rejected.first() {
        Some(first) if decoded.rejected.len() > limit => {
            let reason = first.reason.clone();
            Err(DecodeError::TooManyRejected { limit, reason })
        }
        _ => Ok(decoded),
    }
}

/// Decodes one frame or body.
///
/// # Errors
/// See [`DecodeError`]; nothing of the frame is used then.
pub fn decode(bytes: &[u8], encoding: Encoding, limits: &Limits) -> Result<Decoded, DecodeError> {
    let bytes = match encoding {
        Encoding::Msgpack => Cow::Borrowed(bytes),
        Encoding::Json => integers::rewrite(bytes),
    };
    let form = match encoding {
        Encoding::Msgpack => form_of_msgpack(&bytes, limits),
        Encoding::Json => form_of_json(&bytes, limits),
    };
    let form = form.map_err(DecodeError::Undecodable)?;
    let rows = form.sent();
    if rows > limits.rows {
        let limit = limits.rows;
        return Err(DecodeError::TooManyRows { rows, limit });
    }
    let mut decoded = match form {
        Form::Rows(rows) if rows.is_sparse => return Err(DecodeError::TooSparse),
        Form::Rows(rows) => bounded(rows.decoded, limits)?,
        Form::Batch(columns) => sift(columns, limits)?,
    };
    if !decoded.rejected.is_empty() {
        raw::fill_bodies(&bytes, encoding, &mut decoded.rejected);
    }
    Ok(decoded)
}

/// Reads rows as `hub.rejected_rows` keeps them, each as if it came anew.
pub fn decode_kept(kept: Vec<serde_json::Value>, limits: &Limits) -> Decoded {
    let limits = &Limits {
        rejected: usize::MAX,
        ..*limits
    };
    let mut rows = Rows::with_cells(usize::MAX);
    for body in kept {
        let offset = rows.decoded.sent;
        let before = rows.decoded.rejected.len();
        let shown = body.clone();
        if let serde_json::Value::Object(cells) = body {
            let cell = |(name, cell)| (name, kept::from_json(cell));
            rows.take(cells.into_iter().map(cell).collect(), limits);
        } else {
            rows.decoded.sent += 1;
            let why = "what was sent is no map of columns";
            rows.decoded.rejected.push(set_aside(offset, why));
        }
        if let Some(row) = rows.decoded.rejected.get_mut(before) {
            row.body = shown;
        }
    }
    rows.decoded
}

fn form_of_msgpack(bytes: &[u8], limits: &Limits) -> Result<Form, String> {
    if let Some(columns) = packed::columns(bytes).filter(|columns| !columns.is_empty()) {
        return Ok(Form::Batch(columns));
    }
    let mut rest = bytes;
    let mut deserializer = rmp_serde::Deserializer::new(&mut rest);
    deserializer.set_max_depth(MAX_DEPTH);
    let form = FormSeed(limits, most_cells(bytes))
        .deserialize(&mut deserializer)
        .map_err(|error| format!("no msgpack rows: {error}"))?;
    if rest.is_empty() {
        return Ok(form);
    }
    Err(format!(
        "{} bytes stand after the msgpack value",
        rest.len()
    ))
}

fn form_of_json(bytes: &[u8], limits: &Limits) -> Result<Form, String> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let form = FormSeed(limits, most_cells(bytes))
        .deserialize(&mut deserializer)
        .and_then(|form| deserializer.end().map(|()| form));
    form.map_err(|error| match no_number(bytes, &error) {
        Some(word) => {
            let (line, column) = (error.line(), error.column());
            format!("no JSON rows: JSON has no {word} (line {line} column {column}); send null")
        }
        None => format!("no JSON rows: {error}"),
    })
}

/// Finds what many languages write for numbers that JSON has no form for, where reading ended.
fn no_number(bytes: &[u8], error: &serde_json::Error) -> Option<&'static str> {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let line = lines.nth(error.line().checked_sub(1)?)?;
    let rest = line.get(error.column().checked_sub(1)?..)?;
    let words = ["NaN", "Infinity"];
    words
        .into_iter()
        .find(|word| rest.starts_with(word.as_bytes()))
}

/// What was read, by its form.
enum Form {
    Rows(Rows),
    Batch(Vec<(String, Column)>),
}

impl Form {
    fn sent(&self) -> usize {
        match self {
            Self::Rows(rows) => rows.decoded.sent,
            Self::Batch(columns) => columns.first().map_or(0, |(_, column)| column.len()),
        }
    }
}

/// Rows that came one by one.
struct Rows {
    decoded: Decoded,
    most_cells: usize,
    /// Whether the rows would have more cells together.
    is_sparse: bool,
}

impl Rows {
    fn with_cells(most_cells: usize) -> Self {
        Self {
            decoded: Decoded::default(),
            most_cells,
            is_sparse: false,
        }
    }

    /// Takes a row in, or sets it aside.
    ///
    /// Rows beyond a limit are only counted: the frame is refused.
    fn take(&mut self, row: Vec<(String, Value)>, limits: &Limits) {
        let offset = self.decoded.sent;
        self.decoded.sent += 1;
        if offset >= limits.rows || self.decoded.rejected.len() > limits.rejected {
            return;
        }
        let columns = &mut self.decoded.columns;
        let width = columns.width() + row.len().min(limits.columns);
        self.is_sparse |= width.saturating_mul(columns.rows() + 1) > self.most_cells;
        if self.is_sparse {
            return;
        }
        let kept = usable_row(row, limits, columns)
            .and_then(|row| columns.push_row(row).map_err(|error| error.to_string()));
        if let Err(reason) = kept {
            self.decoded.rejected.push(set_aside(offset, &reason));
        }
    }
}

/// The limits, and the cells that rows may have together.
struct FormSeed<'a>(&'a Limits, usize);

impl<'de> DeserializeSeed<'de> for FormSeed<'_> {
    type Value = Form;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Form, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for FormSeed<'_> {
    type Value = Form;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a row (map of values), a batch (map of arrays) or an array of rows")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Form, A::Error> {
        let mut row: Vec<(String, Value)> = Vec::new();
        let mut columns: Vec<(String, Column)> = Vec::new();
        while let Some((name, cell)) = map.next_entry::<String, Cell>()? {
            match cell {
                Cell::One(value) => row.push((name, value)),
                Cell::Many(column) => columns.push((name, column)),
            }
            if let (Some((single, _)), Some((array, _))) = (row.first(), columns.first()) {
                return Err(de::Error::custom(format!(
                    "the map mixes single values (`{single}`) and arrays (`{array}`); \
                     a row has only values, a batch only arrays"
                )));
            }
        }
        if !columns.is_empty() {
            return Ok(Form::Batch(columns));
        }
        let mut rows = Rows::with_cells(self.1);
        rows.take(row, self.0);
        Ok(Form::Rows(rows))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Form, A::Error> {
        let mut rows = Rows::with_cells(self.1);
        while let Some(row) = seq.next_element_seed(RowSeed)? {
            rows.take(row, self.0);
        }
        Ok(Form::Rows(rows))
    }
}

/// Reads a map of values.
struct RowSeed;

impl<'de> DeserializeSeed<'de> for RowSeed {
    type Value = Vec<(String, Value)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for RowSeed {
    type Value = Vec<(String, Value)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a row: a map of column names to values")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut row = Vec::new();
        while let Some(entry) = map.next_entry()? {
            row.push(entry);
        }
        Ok(row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        rows: 100,
        row_bytes: 1000,
        columns: 5,
        rejected: 60,
    };

    fn json(text: &str) -> Result<Decoded, DecodeError> {
        decode(text.as_bytes(), Encoding::Json, &LIMITS)
    }

    fn refusal(text: &str) -> String {
        json(text).unwrap_err().to_string()
    }

    fn rejection(text: &str) -> String {
        json(text).unwrap().rejected[0].reason.clone()
    }

    #[test]
    fn what_json_has_no_number_for_is_named() {
        for (sent, told) in [
            (
                r#"{"a": NaN}"#,
                "JSON has no NaN (line 1 column 7); send null",
            ),
            ("[{\"a\": 1},\n{\"a\": -Infinity}]", "JSON has no Infinity"),
            (r#"{"a": [1, NaN]}"#, "JSON has no NaN"),
        ] {
            assert!(refusal(sent).contains(told), "{}", refusal(sent));
        }
        assert!(!refusal(r#"{"a": "NaN" 1}"#).contains("no NaN"));
    }

    #[test]
    fn what_is_nested_too_deep_is_refused_in_either_encoding() {
        for deep in [b"\x81\xa1a".repeat(1000), b"\x91".repeat(1000)] {
            assert!(decode(&deep, Encoding::Msgpack, &LIMITS).is_err());
        }
        let cell = [b"\x81\xa1a".as_slice(), &b"\x91".repeat(1000)].concat();
        let refused = decode(&cell, Encoding::Msgpack, &LIMITS).unwrap_err();
        assert!(refused.to_string().contains("depth"), "{refused}");
        assert!(refusal(&r#"{"a":"#.repeat(1000)).contains("recursion limit"));
    }

    #[test]
    fn the_three_forms_hold_the_same_rows() {
        let batch = json(r#"{"a": [1, 2], "b": ["x", null]}"#).unwrap();
        let rows = json(r#"[{"a": 1, "b": "x"}, {"a": 2, "b": null}]"#).unwrap();
        assert_eq!(batch, rows);
        assert_eq!(json(r#"{"a": 1, "b": "x"}"#).unwrap().sent, 1);
        assert_eq!(json("[]").unwrap().sent, 0);
    }

    #[test]
    fn msgpack_and_json_hold_the_same_rows() {
        let value = serde_json::json!([{"a": 1, "b": "x"}, {"a": 2, "b": null}]);
        let bytes = rmp_serde::to_vec(&value).unwrap();
        let decoded = decode(&bytes, Encoding::Msgpack, &LIMITS).unwrap();
        assert_eq!(decoded, json(&value.to_string()).unwrap());
    }

    #[test]
    fn a_map_that_mixes_both_is_refused() {
        assert!(refusal(r#"{"a": 1, "b": [1]}"#).contains("mixes single values (`a`)"));
    }

    #[test]
    fn columns_of_unequal_length_are_refused() {
        assert!(refusal(r#"{"a": [1, 2], "b": [1]}"#).contains("column `b` has 1 values"));
    }

    #[test]
    fn bytes_after_the_value_are_refused() {
        assert!(refusal("{\"a\": 1} {").contains("trailing"));
        let refused = decode(&[0x81, 0xa1, b'a', 1, 7], Encoding::Msgpack, &LIMITS);
        assert!(refused.unwrap_err().to_string().contains("1 bytes stand"));
    }

    #[test]
    fn bytes_that_end_early_are_refused() {
        let error = decode(&[0xdf, 0xff, 0xff, 0xff, 0xff], Encoding::Msgpack, &LIMITS);
        assert!(error.unwrap_err().to_string().contains("no msgpack rows"));
    }

    #[test]
    fn a_nested_value_costs_only_its_row_and_is_kept_as_sent() {
        let decoded = json(r#"[{"a": 1}, {"a": {"x": [1, null]}}, {"a": 3}]"#).unwrap();
        assert_eq!((decoded.sent, decoded.columns.rows()), (3, 2));
        assert_eq!(decoded.rejected[0].offset, 1);
        assert!(
            decoded.rejected[0]
                .reason
                .contains("column `a`: a nested map")
        );
        let body = serde_json::json!({"a": {"x": [1, null]}});
        assert_eq!(decoded.rejected[0].body, body);
    }

    #[test]
    fn a_row_that_names_a_column_twice_costs_only_itself() {
        let decoded = json(r#"[{"a": 1}, {"seq": 2, "seq_": 3}, {"a": 4, "a": 5}, {"a": 6}]"#);
        let decoded = decoded.unwrap();
        assert_eq!((decoded.sent, decoded.columns.rows()), (4, 2));
        let reasons = decoded.rejected.iter().map(|row| row.reason.as_str());
        let reasons: Vec<&str> = reasons.collect();
        assert_eq!(
            reasons,
            ["column `seq_` stands twice", "column `a` stands twice"]
        );
    }

    #[test]
    fn a_nested_value_in_a_column_costs_only_its_row() {
        let decoded = json(r#"{"a": [1, [2], 3], "b": [4, 5, 6]}"#).unwrap();
        assert_eq!(
            decoded.columns.get("a"),
            Some(&Column::Int(vec![Some(1), Some(3)]))
        );
        let body = serde_json::json!({"a": [2], "b": 5});
        assert_eq!(decoded.rejected[0].body, body);
    }

    #[test]
    fn an_integer_beyond_64_bits_costs_its_row_unless_it_is_exact_as_a_float() {
        let decoded = json(r#"[{"a": 18446744073709551616}, {"a": 18446744073709551617}]"#);
        let decoded = decoded.unwrap();
        let exact = Column::Float(vec![Some(2.0_f64.powi(64))]);
        assert_eq!(decoded.columns.get("a"), Some(&exact));
        let row = &decoded.rejected[0];
        assert!(
            row.reason
                .contains("column `a`: the integer 18446744073709551617 has more than 64 bits"),
            "{}",
            row.reason
        );
        let body = serde_json::json!({"a": {"integer": "18446744073709551617"}});
        assert_eq!(row.body, body);
        let batch = json(r#"{"a": [1, 18446744073709551617]}"#).unwrap();
        assert_eq!((batch.columns.rows(), batch.rejected.len()), (1, 1));
    }

    #[test]
    fn names_are_checked_and_those_of_the_hub_get_an_underscore() {
        let row = json(r#"{"seq": 1, "ctid": 2, "tableoid": 3}"#).unwrap();
        let names: Vec<&str> = row.columns.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["seq_", "ctid_", "tableoid_"]);
        assert!(rejection(r#"{"": 1}"#).contains("empty name"));
        assert!(rejection(r#"{"a\u0000": 1}"#).contains("NUL"));
        let long = "ä".repeat(32);
        assert!(rejection(&format!(r#"{{"{long}": 1}}"#)).contains("64 bytes, the limit is 63"));
        assert!(rejection(&format!(r#"{{"{long}": [1]}}"#)).contains("64 bytes"));
    }

    #[test]
    fn too_many_columns_or_bytes_cost_the_row() {
        assert!(rejection(r#"{"a":1,"b":1,"c":1,"d":1,"e":1,"f":1}"#).contains("6 columns"));
        assert!(rejection(r#"{"a":[1],"b":[1],"c":[1],"d":[1],"e":[1],"f":[1]}"#).contains('6'));
        let text = "x".repeat(1000);
        assert!(rejection(&format!(r#"{{"a": "{text}"}}"#)).contains("limit is 1000"));
        let decoded = json(&format!(r#"{{"a": ["{text}", "y"]}}"#)).unwrap();
        assert_eq!((decoded.columns.rows(), decoded.rejected.len()), (1, 1));
    }

    #[test]
    fn rows_that_each_add_columns_stay_bounded() {
        let rows: Vec<String> = (0..50).map(|n| format!("{{\"c{n}\": 1}}")).collect();
        let decoded = json(&format!("[{}]", rows.join(","))).unwrap();
        assert_eq!((decoded.columns.width(), decoded.rejected.len()), (5, 45));
    }

    #[test]
    fn pieces_have_all_rows_in_order_and_only_memory_of_their_own() {
        let rows: Vec<String> = (0..100)
            .map(|n| match n % 7 {
                3 => "{}".to_owned(),
                _ => format!(r#"{{"a": {n}}}"#),
            })
            .collect();
        let whole = json(&format!("[{}]", rows.join(","))).unwrap();
        for size in [1, 8, 99, 100, 1000] {
            let mut pieces = whole.clone().pieces(size);
            let mut joined = pieces.next().unwrap();
            assert_eq!(joined.sent, size.min(100));
            let Some(Column::Int(cells)) = joined.columns.get("a") else {
                panic!("{joined:?}");
            };
            assert!(cells.capacity() <= size.min(86));
            for piece in pieces {
                assert!(piece.sent <= size);
                joined.append(piece);
            }
            assert_eq!(joined, whole, "{size}");
        }
    }

    #[test]
    fn rows_that_cannot_be_stored_are_kept_up_to_a_limit() {
        let rows = |count: usize| format!("[{}]", vec!["{}"; count].join(","));
        assert_eq!(json(&rows(60)).unwrap().rejected.len(), 60);
        let batch = |count: usize| format!(r#"{{"a": [{}]}}"#, vec!["[]"; count].join(","));
        assert_eq!(json(&batch(60)).unwrap().rejected.len(), 60);
        let nameless = format!(r#"{{"": [{}]}}"#, vec!["1"; 61].join(","));
        for (sent, reason) in [
            (rows(61), "the row has no columns"),
            (batch(61), "column `a`: a nested array"),
            (nameless, "a column has an empty name"),
        ] {
            let told = refusal(&sent);
            assert!(told.starts_with("more than 60 rows cannot be stored, the first because:"));
            assert!(told.contains(reason), "{told}");
        }
    }

    #[test]
    fn rows_that_share_few_columns_do_not_take_memory_beyond_their_bytes() {
        let limits = Limits {
            rows: usize::MAX,
            columns: 800,
            ..LIMITS
        };
        let rows = |count: usize, columns: usize| {
            let row = |n: usize| serde_json::json!({format!("c{}", n % columns): 1});
            let rows: Vec<_> = (0..count).map(row).collect();
            decode(
                &rmp_serde::to_vec(&rows).unwrap(),
                Encoding::Msgpack,
                &limits,
            )
        };
        assert_eq!(rows(1000, 800).unwrap().columns.width(), 800);
        assert_eq!(rows(100_000, 1).unwrap().columns.rows(), 100_000);
        assert_eq!(rows(4000, 800), Err(DecodeError::TooSparse));
    }

    #[test]
    fn too_many_rows_are_refused() {
        let rows = vec!["{\"a\":1}"; 101].join(",");
        assert_eq!(
            json(&format!("[{rows}]")),
            Err(DecodeError::TooManyRows {
                rows: 101,
                limit: 100
            })
        );
    }

    #[test]
    fn skipping_and_splitting_keep_offsets_right() {
        let mut decoded = json(r#"[{"a":0},{"a":{}},{"a":2},{"":3},{"a":4}]"#).unwrap();
        let offsets: Vec<usize> = (0..3).map(|row| decoded.offset_of(row)).collect();
        assert_eq!(offsets, [0, 2, 4]);
        let mut tail = decoded.split_off(3);
        assert_eq!((decoded.sent, decoded.columns.rows()), (3, 2));
        assert_eq!((tail.sent, tail.rejected[0].offset), (2, 0));
        tail.skip(1);
        assert_eq!(
            (tail.sent, tail.rejected.len(), tail.columns.rows()),
            (1, 0, 1)
        );
    }
}
