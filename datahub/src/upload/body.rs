//! Bodies of rows in forms that frames do not have: NDJSON and CSV.

use rovi_common::rows::{Column, Columns, Value};

use super::{
    decode::{Encoding, Limits, decode},
    decoded::Decoded,
    integers,
    sift::sift,
};

/// The form of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyForm {
    Json,
    Ndjson,
    Csv,
    Msgpack,
}

/// Decodes a body.
///
/// # Errors
/// Why nothing of it is used, and where.
pub(crate) fn decode_body(
    bytes: &[u8],
    form: BodyForm,
    limits: &Limits,
) -> Result<Decoded, String> {
    let whole = |encoding| decode(bytes, encoding, limits).map_err(|error| error.to_string());
    match form {
        BodyForm::Json => whole(Encoding::Json),
        BodyForm::Msgpack => whole(Encoding::Msgpack),
        BodyForm::Ndjson => ndjson(bytes, limits),
        BodyForm::Csv => csv(bytes, limits),
    }
}

fn ndjson(bytes: &[u8], limits: &Limits) -> Result<Decoded, String> {
    let mut all = Decoded::default();
    for (number, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        if line.trim_ascii().is_empty() {
            continue;
        }
        let decoded = decode(line, Encoding::Json, limits);
        let decoded = decoded.map_err(|error| format!("line {}: {error}", number + 1))?;
        if all.columns.width() + decoded.columns.width() > limits.columns
            && all.columns.wider_with(&decoded.columns) > limits.columns
        {
            return Err(format!(
                "line {}: more than {} columns in all",
                number + 1,
                limits.columns
            ));
        }
        all.append(decoded);
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

/// Reads CSV with a header; a column is of the narrowest type that all its cells have, and an
/// empty cell is null.
fn csv(bytes: &[u8], limits: &Limits) -> Result<Decoded, String> {
    let mut reader = csv::Reader::from_reader(bytes);
    let wrong = |error: csv::Error| format!("no CSV: {error}");
    let names = reader.headers().map_err(wrong)?.clone();
    let mut cells: Vec<Vec<String>> = vec![Vec::new(); names.len()];
    for record in reader.records() {
        let record = record.map_err(wrong)?;
        for (column, cell) in cells.iter_mut().zip(&record) {
            column.push(cell.to_owned());
        }
    }
    let names = names.iter().map(str::to_owned);
    let columns = names.zip(cells.iter().map(|cells| typed(cells))).collect();
    sift(columns, limits).map_err(|error| error.to_string())
}

fn typed(cells: &[String]) -> Column {
    let is_all =
        |is_one: fn(&str) -> bool| cells.iter().all(|cell| cell.is_empty() || is_one(cell));
    let parse: fn(&str) -> Option<Value> = if is_all(|cell| cell.parse::<i64>().is_ok()) {
        |cell| cell.parse().ok().map(Value::Int)
    } else if is_all(|cell| cell.parse::<f64>().is_ok()) {
        number
    } else if is_all(|cell| truth(cell).is_some()) {
        |cell| truth(cell).map(Value::Bool)
    } else {
        |cell| Some(Value::Text(cell.to_owned()))
    };
    let mut column = Column::new();
    for cell in cells {
        column.push(match cell.as_str() {
            "" => Value::Null,
            text if text.contains('\0') => {
                Value::Refused("text with a NUL character cannot be stored".to_owned())
            }
            text => parse(text).unwrap_or(Value::Null),
        });
    }
    column
}

/// Reads a number of a column that has fractions; whole ones are rounded nowhere: where a float
/// cannot be exact, the cell stays an integer or is refused.
fn number(cell: &str) -> Option<Value> {
    const EXACT: i64 = 1 << 53;
    match cell.parse::<i64>() {
        Ok(whole) if !(-EXACT..=EXACT).contains(&whole) => Some(Value::Int(whole)),
        Ok(_) => cell.parse().ok().map(Value::Float),
        Err(_) => integers::refined(cell.trim_start_matches('+').as_bytes())
            .or_else(|| cell.parse().ok().map(Value::Float)),
    }
}

fn truth(cell: &str) -> Option<bool> {
    match cell {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        rows: usize::MAX,
        row_bytes: 1000,
        columns: 5,
    };

    fn body(text: &str, form: BodyForm) -> Result<Decoded, String> {
        decode_body(text.as_bytes(), form, &LIMITS)
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
    fn whole_numbers_of_csv_are_not_rounded() {
        let text = "a\n0.5\n9007199254740993\n18446744073709551616\n18446744073709551617\n7\n";
        let decoded = body(text, BodyForm::Csv).unwrap();
        let column = decoded.columns.get("a").unwrap();
        assert_eq!(column.get(1), Value::Int(9_007_199_254_740_993));
        assert_eq!(column.get(2), Value::Float(2.0_f64.powi(64)));
        assert_eq!(decoded.rejected[0].offset, 3);
        assert!(decoded.rejected[0].reason.contains("18446744073709551617"));
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
