//! Bodies of rows in forms that frames do not have: NDJSON and CSV.

use rovi_common::rows::{Column, Columns, Refusal, Value};

use super::{
    decode::{DecodeError, Encoding, Limits, bounded, decode, most_cells},
    decoded::Decoded,
    integers,
    sift::sift,
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
) -> Result<Decoded, String> {
    let whole = |encoding| decode(bytes, encoding, limits).map_err(|error| error.to_string());
    match form {
        BodyForm::Json => whole(Encoding::Json),
        BodyForm::Msgpack => whole(Encoding::Msgpack),
        BodyForm::Ndjson => ndjson(bytes, limits),
        BodyForm::Csv => csv(bytes, limits, known),
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
        let rows = all.columns.rows() + decoded.columns.rows();
        if rows.saturating_mul(all.columns.width() + decoded.columns.width()) > most_cells(bytes) {
            return Err(format!("line {}: {}", number + 1, DecodeError::TooSparse));
        }
        all.append(decoded);
        all = bounded(all, limits).map_err(|error| format!("line {}: {error}", number + 1))?;
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

/// Reads CSV with a header; an empty cell is null. A column is read as the table has it, so that a
/// cell that does not fit costs only its row; a new one is of the narrowest type that all its
/// cells have.
fn csv(bytes: &[u8], limits: &Limits, known: &Known) -> Result<Decoded, String> {
    let mut reader = csv::Reader::from_reader(bytes);
    let names = reader.headers().map_err(|error| no_csv(&error))?.clone();
    // Read twice rather than kept as text, which takes many times the memory of numbers.
    let fits = names.iter().map(|name| Fits::of_column(known, name));
    let mut fits: Vec<Fits> = fits.collect();
    each_record(bytes, |record| {
        fits.iter_mut()
            .zip(record)
            .for_each(|(fits, cell)| fits.look(cell));
    })?;
    let mut columns = vec![Column::new(); names.len()];
    each_record(bytes, |record| {
        for ((column, fits), cell) in columns.iter_mut().zip(&fits).zip(record) {
            column.push(fits.read(cell));
        }
    })?;
    let names = names.iter().map(str::to_owned);
    sift(names.zip(columns).collect(), limits).map_err(|error| error.to_string())
}

fn no_csv(error: &csv::Error) -> String {
    format!("no CSV: {error}")
}

fn each_record(bytes: &[u8], mut take: impl FnMut(&csv::StringRecord)) -> Result<(), String> {
    let mut reader = csv::Reader::from_reader(bytes);
    let mut record = csv::StringRecord::new();
    while reader
        .read_record(&mut record)
        .map_err(|error| no_csv(&error))?
    {
        take(&record);
    }
    Ok(())
}

/// What all cells of a column so far can be read as.
#[derive(Debug, Clone, Copy)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a kind that cells may have besides others"
)]
struct Fits {
    whole: bool,
    number: bool,
    truth: bool,
    /// Whether the table knows better: other cells are for it to refuse.
    is_fixed: bool,
}

impl Fits {
    fn of_column(known: &Known, name: &str) -> Self {
        let kind = known.iter().find(|(known, _)| known == name);
        let told = |kind: &&ColumnType| !matches!(kind, ColumnType::Time | ColumnType::Foreign(_));
        let kind = kind.map(|(_, kind)| kind).filter(told);
        let is_number = matches!(kind, Some(ColumnType::Int | ColumnType::Float));
        Self {
            whole: is_number || kind.is_none(),
            number: is_number || kind.is_none(),
            truth: matches!(kind, None | Some(ColumnType::Bool)),
            is_fixed: kind.is_some(),
        }
    }

    fn look(&mut self, cell: &str) {
        let number = cell.parse::<f64>().is_ok();
        if cell.is_empty() || (self.is_fixed && !number) {
            return;
        }
        self.whole = self.whole && cell.parse::<i64>().is_ok();
        if !self.is_fixed {
            self.number = self.number && number;
            self.truth = self.truth && truth(cell).is_some();
        }
    }

    fn read(self, cell: &str) -> Value {
        let value = match cell {
            "" => None,
            text if text.contains('\0') => Some(Value::Refused(Refusal::Nul)),
            text if self.whole => text.parse().ok().map(Value::Int),
            text if self.number => number(text),
            text if self.truth => truth(text).map(Value::Bool),
            _ => None,
        };
        match value {
            Some(value) => value,
            None if cell.is_empty() => Value::Null,
            None => Value::Text(cell.to_owned()),
        }
    }
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

    #[test]
    fn lines_that_would_take_memory_far_beyond_their_bytes_are_refused_where_they_do() {
        let limits = Limits {
            columns: 800,
            ..LIMITS
        };
        let refusal = |text: &str| ndjson(text.as_bytes(), &limits).unwrap_err();
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
        decode_body(text.as_bytes(), form, &LIMITS, &[])
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
    fn columns_of_csv_are_read_as_the_table_has_them() {
        let known = [
            ("a", ColumnType::Float),
            ("b", ColumnType::Text),
            ("c", ColumnType::Bool),
        ];
        let known = known.map(|(name, kind)| (name.to_owned(), kind));
        let text = "a,b,c,d\n1,2,true,3\nx,4,5,6\n";
        let decoded = decode_body(text.as_bytes(), BodyForm::Csv, &LIMITS, &known).unwrap();
        let column = |name| decoded.columns.get(name).unwrap();
        assert_eq!(column("a").get(0), Value::Int(1));
        assert_eq!(column("a").get(1), Value::Text("x".to_owned()));
        assert_eq!(column("b").get(0), Value::Text("2".to_owned()));
        assert_eq!(column("c").get(0), Value::Bool(true));
        assert_eq!(column("c").get(1), Value::Text("5".to_owned()));
        assert_eq!(column("d").get(1), Value::Int(6));
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
