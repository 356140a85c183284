//! Bodies of rows, also in forms that frames do not have: NDJSON here, CSV in `csv_rows`.

use std::fmt;

use actix_web::http::StatusCode;
use rovi_common::{http::Problem, rows::Columns};

use super::{
    csv_rows,
    decode::{DecodeError, Encoding, Limits, bounded, decode, most_cells},
    decoded::Decoded,
};
use crate::store::tables::ColumnType;

/// The form of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyForm {
    Json,
    Ndjson,
    Csv,
    Msgpack,
}

/// Why nothing of a body is used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyError {
    /// It has more rows than one body may have.
    #[error("the body has more than {0} rows (body_rows); send them in several")]
    TooManyRows(usize),
    /// It is not what it should be; the text says where.
    #[error("{0}")]
    Unreadable(String),
}

impl From<DecodeError> for BodyError {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::TooManyRows { limit, .. } => Self::TooManyRows(limit),
            error => Self::Unreadable(error.to_string()),
        }
    }
}

impl From<BodyError> for Problem {
    fn from(error: BodyError) -> Self {
        let status = match error {
            BodyError::TooManyRows(_) => StatusCode::PAYLOAD_TOO_LARGE,
            BodyError::Unreadable(_) => StatusCode::BAD_REQUEST,
        };
        Self::new(status, error.to_string())
    }
}

/// Names and types of a table's columns, of which CSV says nothing.
pub(crate) type Known = [(String, ColumnType)];

/// Decodes a body for a table that has these columns.
///
/// # Errors
/// Why nothing of it is used, and where.
pub(crate) fn decode_body(
    bytes: &[u8],
    form: BodyForm,
    limits: &Limits,
    known: &Known,
) -> Result<Decoded, BodyError> {
    let whole = |encoding| decode(bytes, encoding, limits).map_err(BodyError::from);
    match form {
        BodyForm::Json => whole(Encoding::Json),
        BodyForm::Msgpack => whole(Encoding::Msgpack),
        BodyForm::Ndjson => ndjson(bytes, limits),
        BodyForm::Csv => csv_rows::decode(bytes, limits, known),
    }
}

fn ndjson(bytes: &[u8], limits: &Limits) -> Result<Decoded, BodyError> {
    let mut all = Decoded::default();
    for (number, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        if line.trim_ascii().is_empty() {
            continue;
        }
        let at_line =
            |why: &dyn fmt::Display| BodyError::Unreadable(format!("line {}: {why}", number + 1));
        let decoded = decode(line, Encoding::Json, limits).map_err(|error| at_line(&error))?;
        if all.columns.width() + decoded.columns.width() > limits.columns
            && all.columns.wider_with(&decoded.columns) > limits.columns
        {
            let most = limits.columns;
            return Err(at_line(&format_args!("more than {most} columns in all")));
        }
        let rows = all.columns.rows() + decoded.columns.rows();
        if rows.saturating_mul(all.columns.width() + decoded.columns.width()) > most_cells(bytes) {
            return Err(at_line(&DecodeError::TooSparse));
        }
        all.append(decoded);
        all = bounded(all, limits).map_err(|error| at_line(&error))?;
        if all.sent > limits.rows {
            return Err(BodyError::TooManyRows(limits.rows));
        }
    }
    Ok(all)
}

/// Counts the columns that two batches would have together.
trait Wider {
    fn wider_with(&self, other: &Columns) -> usize;
}

impl Wider for Columns {
    fn wider_with(&self, other: &Columns) -> usize {
        let new = other.iter().filter(|(name, _)| self.get(name).is_none());
        self.width() + new.count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_would_take_memory_far_beyond_their_bytes_are_refused_where_they_do() {
        let limits = Limits {
            columns: 800,
            ..LIMITS
        };
        let refusal = |text: &str| ndjson(text.as_bytes(), &limits).unwrap_err().to_string();
        let sparse: Vec<String> = (0..4000)
            .map(|n| format!("{{\"c{}\":1}}", n % 800))
            .collect();
        assert!(refusal(&sparse.join("\n")).contains("most rows lack most of the columns"));
        let rejected = refusal(&"{}\n".repeat(1001));
        assert!(rejected.starts_with("line 1001: more than 1000 rows cannot be stored"));
        assert_eq!(ndjson(&b"{}\n".repeat(1000), &limits).unwrap().sent, 1000);
    }

    const LIMITS: Limits = Limits {
        rows: usize::MAX,
        row_bytes: 1000,
        columns: 5,
        rejected: 1000,
    };

    fn body(text: &str, form: BodyForm) -> Result<Decoded, String> {
        decode_body(text.as_bytes(), form, &LIMITS, &[]).map_err(|error| error.to_string())
    }

    #[test]
    fn csv_and_ndjson_hold_what_json_holds() {
        let json = body(
            r#"[{"a": 1, "b": 0.5, "c": "x", "d": true}, {"a": 2, "b": 1.5, "c": null, "d": false}]"#,
            BodyForm::Json,
        );
        let csv = body("a,b,c,d\n1,0.5,x,true\n2,1.5,,false\n", BodyForm::Csv);
        assert_eq!(csv, json);
        let lines = "{\"a\": 1, \"b\": 0.5, \"c\": \"x\", \"d\": true}\n\n\
                     {\"a\": 2, \"b\": 1.5, \"c\": null, \"d\": false}\n";
        assert_eq!(body(lines, BodyForm::Ndjson), json);
    }

    #[test]
    fn a_body_of_more_rows_than_one_may_have_is_refused() {
        let limits = Limits { rows: 2, ..LIMITS };
        for (form, rows) in [
            (BodyForm::Json, "[{\"a\":1},{\"a\":1},{\"a\":1}]"),
            (BodyForm::Json, "{\"a\":[1,1,1]}"),
            (BodyForm::Ndjson, "{\"a\":1}\n{\"a\":1}\n{\"a\":1}"),
            (BodyForm::Csv, "a\n1\n1\n1"),
        ] {
            let refused = decode_body(rows.as_bytes(), form, &limits, &[]);
            assert_eq!(refused, Err(BodyError::TooManyRows(2)), "{rows}");
        }
    }

    #[test]
    fn a_wrong_line_is_named() {
        let error = body("{\"a\": 1}\n{", BodyForm::Ndjson).unwrap_err();
        assert!(error.starts_with("line 2: no JSON rows"), "{error}");
        let error = body("a,b\n1\n", BodyForm::Csv).unwrap_err();
        assert!(error.contains("line: 2"), "{error}");
    }

    #[test]
    fn lines_that_each_add_columns_stay_bounded() {
        let lines: Vec<String> = (0..6).map(|n| format!("{{\"c{n}\": 1}}")).collect();
        let error = body(&lines.join("\n"), BodyForm::Ndjson).unwrap_err();
        assert!(error.contains("line 6: more than 5 columns"), "{error}");
    }
}
