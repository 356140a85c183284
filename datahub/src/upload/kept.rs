//! Cells for which JSON has no form, as they stand in `hub.rejected_rows`: a map of one word.
//!
//! `{"timestamp_us": 5}`, `{"float": "NaN"}`, `{"integer": "18446744073709551617"}`,
//! `{"bin": [255]}`, and `{"repeated": [1, 2]}` for a column that the row names twice. So a row
//! that is sent again is the row that came.

use rovi_common::rows::{Refusal, Value};
use serde_json::{Value as Json, json};

const TIMESTAMP: &str = "timestamp_us";
const FLOAT: &str = "float";
const REPEATED: &str = "repeated";

/// Writes a cell.
pub(crate) fn to_json(value: &Value) -> Json {
    match value {
        Value::Time(us) => time(*us),
        Value::Float(value) => float(*value),
        Value::Refused(reason) => reason.to_string().into(),
        Value::Null => Json::Null,
        Value::Bool(value) => (*value).into(),
        Value::Int(value) => (*value).into(),
        Value::Text(value) => value.clone().into(),
    }
}

/// Writes a timestamp in microseconds since 1970.
pub(super) fn time(us: i64) -> Json {
    json!({ TIMESTAMP: us })
}

/// Writes a float; JSON has no NaN and no infinity.
pub(super) fn float(value: f64) -> Json {
    serde_json::Number::from_f64(value)
        .map_or_else(|| json!({ FLOAT: value.to_string() }), Json::Number)
}

/// Keeps a further cell of a column that stands in a row already, and so loses neither.
pub(super) fn repeat(cell: &mut Json, again: Json) {
    if let Some(cells) = cell.get_mut(REPEATED).and_then(Json::as_array_mut) {
        cells.push(again);
    } else {
        let first = cell.take();
        *cell = json!({ REPEATED: [first, again] });
    }
}

/// Reads a cell.
pub(super) fn from_json(json: Json) -> Value {
    if let Json::Object(words) = &json
        && words.len() == 1
    {
        let float = words.get(FLOAT).and_then(Json::as_str);
        if let Some(Ok(value)) = float.map(str::parse) {
            return Value::Float(value);
        }
        if let Some(us) = words.get(TIMESTAMP).and_then(Json::as_i64) {
            return Value::Time(us);
        }
        if let Some(cells) = words.get(REPEATED).and_then(Json::as_array) {
            let times = u32::try_from(cells.len()).unwrap_or(u32::MAX);
            return Value::Refused(Refusal::Repeated(times));
        }
    }
    // What is neither a map nor an array is a value.
    serde_json::from_value(json).unwrap_or(Value::Refused(Refusal::Map))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_that_a_table_may_hold_comes_back_as_it_was() {
        for value in [
            Value::Null,
            Value::Bool(true),
            Value::Int(i64::MIN),
            Value::Float(0.1),
            Value::Float(f64::NEG_INFINITY),
            Value::Text("{}".into()),
            Value::Time(-5),
        ] {
            assert_eq!(from_json(to_json(&value)), value);
        }
        let nan = from_json(to_json(&Value::Float(f64::NAN)));
        assert!(matches!(nan, Value::Float(value) if value.is_nan()));
    }

    #[test]
    fn what_no_table_may_hold_is_refused_again() {
        for json in [
            json!({"bin": [255]}),
            json!([1]),
            json!({"integer": "18446744073709551617"}),
            json!({"repeated": [1, 2]}),
        ] {
            assert!(matches!(from_json(json), Value::Refused(_)));
        }
    }
}
