//! Rows in CSV: a header line, and cells whose types nobody tells.
//!
//! Cells are read as the table has their column. A column that is new is of numbers (or of truths)
//! if most of its cells are: so a word among measurements costs its row, which is kept with the
//! reason, and not the whole column its type.

use rovi_common::rows::{BIG_INTEGER, Column, Refusal, Value};
use serde_json::{Map, json};

use super::{
    body::{BodyError, Known},
    decode::Limits,
    decoded::{Decoded, RejectedRow},
    integers, kept,
    sift::sift,
};
use crate::store::tables::ColumnType;

/// Reads a body of CSV; an empty cell is null.
pub(super) fn decode(bytes: &[u8], limits: &Limits, known: &Known) -> Result<Decoded, BodyError> {
    let table = Text {
        bytes,
        separator: separator(bytes),
    };
    let names = table.names()?;
    // Read twice rather than kept as text, which takes many times the memory of numbers.
    let mut seen = vec![Seen::default(); names.len()];
    let mut rows = 0;
    table.each_row(|row| {
        rows += 1;
        let cells = seen.iter_mut().zip(row);
        cells.for_each(|(seen, cell)| seen.look(cell, table.has_commas()));
        (rows <= limits.rows)
            .then_some(())
            .ok_or(BodyError::TooManyRows(limits.rows))
    })?;
    let kinds = seen.iter().zip(&names).map(|(seen, name)| {
        let told = known.iter().find(|(known, _)| known == name);
        seen.reading(told.map(|(_, kind)| kind), table.has_commas())
    });
    let readings: Vec<Reading> = kinds.collect();
    let mut columns = vec![Column::new(); names.len()];
    table.each_row(|row| {
        for ((column, reading), cell) in columns.iter_mut().zip(&readings).zip(row) {
            column.push(reading.read(cell));
        }
        Ok(())
    })?;
    let columns = names.iter().cloned().zip(columns).collect();
    let mut decoded = sift(columns, limits).map_err(BodyError::from)?;
    table.fill_bodies((&names, &readings), &mut decoded.rejected)?;
    Ok(decoded)
}

/// Finds what separates the cells: `;` where the header has one outside of quotes, else a tab where
/// it has one, else `,`. Names with a `,` in them are common where `;` separates.
fn separator(bytes: &[u8]) -> u8 {
    let is_end = |byte: &u8| matches!(byte, b'\n' | b'\r');
    let mut is_quoted = false;
    let mut has_tab = false;
    for byte in bytes.iter().skip_while(|byte| is_end(byte)) {
        match byte {
            b'"' => is_quoted = !is_quoted,
            _ if is_quoted => {}
            b';' => return b';',
            b'\t' => has_tab = true,
            end if is_end(end) => break,
            _ => {}
        }
    }
    if has_tab { b'\t' } else { b',' }
}

/// A body, and how its cells are separated.
struct Text<'a> {
    bytes: &'a [u8],
    separator: u8,
}

impl Text<'_> {
    /// Whether a comma may stand in a number, where others have a point.
    fn has_commas(&self) -> bool {
        self.separator != b','
    }

    fn reader(&self) -> csv::Reader<&[u8]> {
        csv::ReaderBuilder::new()
            .delimiter(self.separator)
            .from_reader(self.bytes)
    }

    fn names(&self) -> Result<Vec<String>, BodyError> {
        let mut reader = self.reader();
        let names = reader.headers().map_err(|error| self.unreadable(&error))?;
        Ok(names.iter().map(str::to_owned).collect())
    }

    fn each_row(
        &self,
        mut take: impl FnMut(&csv::StringRecord) -> Result<(), BodyError>,
    ) -> Result<(), BodyError> {
        let mut reader = self.reader();
        let mut row = csv::StringRecord::new();
        while reader
            .read_record(&mut row)
            .map_err(|error| self.unreadable(&error))?
        {
            take(&row)?;
        }
        Ok(())
    }

    fn unreadable(&self, error: &csv::Error) -> BodyError {
        let separator = char::from(self.separator);
        BodyError::Unreadable(format!(
            "no CSV: {error}; the header line has {separator:?} between its names"
        ))
    }

    /// Fills in what was sent of rejected rows, which ascend.
    fn fill_bodies(
        &self,
        (names, readings): (&[String], &[Reading]),
        rejected: &mut [RejectedRow],
    ) -> Result<(), BodyError> {
        let mut left = rejected.iter_mut().peekable();
        let mut offset = 0;
        if left.peek().is_none() {
            return Ok(());
        }
        self.each_row(|row| {
            if let Some(rejected) = left.next_if(|rejected| rejected.offset == offset) {
                let cells = names.iter().zip(readings).zip(row);
                let cells = cells.map(|((name, reading), cell)| (name.clone(), reading.keep(cell)));
                rejected.body = cells.collect::<Map<_, _>>().into();
            }
            offset += 1;
            Ok(())
        })
    }
}

/// How many cells of a column so far are what; empty ones are not counted.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    whole: usize,
    fractions: usize,
    truths: usize,
    words: usize,
}

/// How the cells of a column are read.
#[derive(Debug, Clone, Copy)]
struct Reading {
    kind: Kind,
    has_commas: bool,
    /// Whether the table does not know the column: then nobody else refuses words among numbers.
    is_new: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Whole,
    Number,
    Truth,
    Text,
}

impl Seen {
    fn look(&mut self, cell: &str, has_commas: bool) {
        let counter = match cell {
            "" => return,
            cell if cell.parse::<i64>().is_ok() => &mut self.whole,
            cell if float(cell, has_commas).is_some() => &mut self.fractions,
            cell if truth(cell).is_some() => &mut self.truths,
            _ => &mut self.words,
        };
        *counter += 1;
    }

    fn reading(self, told: Option<&ColumnType>, has_commas: bool) -> Reading {
        // What no cell of CSV can be is for the table to refuse.
        let told = told.filter(|kind| !matches!(kind, ColumnType::Time | ColumnType::Foreign(_)));
        let number = if self.fractions == 0 {
            Kind::Whole
        } else {
            Kind::Number
        };
        let numbers = self.whole + self.fractions;
        let half = (numbers + self.truths + self.words) / 2;
        let kind = match told {
            Some(ColumnType::Int | ColumnType::Float) => number,
            Some(ColumnType::Bool) => Kind::Truth,
            None if numbers > half => number,
            None if self.truths > half => Kind::Truth,
            Some(_) | None => Kind::Text,
        };
        Reading {
            kind,
            has_commas,
            is_new: told.is_none(),
        }
    }
}

impl Reading {
    fn read(self, cell: &str) -> Value {
        let value = match self.kind {
            _ if cell.is_empty() => Some(Value::Null),
            _ if cell.contains('\0') => Some(Value::Refused(Refusal::Nul)),
            Kind::Whole => cell.parse().ok().map(Value::Int),
            Kind::Number => number(cell, self.has_commas),
            Kind::Truth => truth(cell).map(Value::Bool),
            Kind::Text => None,
        };
        match value {
            Some(value) => value,
            None if self.is_new && self.kind != Kind::Text => Value::Refused(Refusal::Word),
            None => Value::Text(cell.to_owned()),
        }
    }

    /// Reads a cell of a row that is rejected, as it is kept.
    fn keep(self, cell: &str) -> serde_json::Value {
        match self.read(cell) {
            Value::Refused(Refusal::Integer(digits)) => json!({ BIG_INTEGER: *digits }),
            Value::Refused(_) => cell.into(),
            value => kept::to_json(&value),
        }
    }
}

/// Reads a number of a column that has fractions; whole ones are rounded nowhere: where a float
/// cannot be exact, the cell stays an integer or is refused.
fn number(cell: &str, has_commas: bool) -> Option<Value> {
    const EXACT: i64 = 1 << 53;
    match cell.parse::<i64>() {
        Ok(whole) if !(-EXACT..=EXACT).contains(&whole) => Some(Value::Int(whole)),
        Ok(_) => cell.parse().ok().map(Value::Float),
        Err(_) => integers::refined(cell.trim_start_matches('+').as_bytes())
            .or_else(|| float(cell, has_commas).map(Value::Float)),
    }
}

/// Reads a float; where commas separate no cells, one may stand for the point.
fn float(cell: &str, has_commas: bool) -> Option<f64> {
    cell.parse().ok().or_else(|| {
        let (whole, fraction) = cell.split_once(',').filter(|_| has_commas)?;
        let has_digits = fraction.starts_with(|letter: char| letter.is_ascii_digit());
        let is_plain = has_digits && !whole.contains(['.', 'e', 'E']);
        format!("{whole}.{fraction}")
            .parse()
            .ok()
            .filter(|_| is_plain)
    })
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
        rows: 10,
        row_bytes: 1000,
        columns: 5,
        rejected: 3,
    };

    fn decoded(text: &str, known: &Known) -> Decoded {
        decode(text.as_bytes(), &LIMITS, known).unwrap()
    }

    fn refusal(text: &str) -> String {
        decode(text.as_bytes(), &LIMITS, &[])
            .unwrap_err()
            .to_string()
    }

    fn cells(decoded: &Decoded, name: &str) -> Vec<Value> {
        let column = decoded.columns.get(name).unwrap();
        (0..column.len()).map(|row| column.get(row)).collect()
    }

    #[test]
    fn columns_are_read_as_the_table_has_them() {
        let known = [
            ("a", ColumnType::Float),
            ("b", ColumnType::Text),
            ("c", ColumnType::Bool),
        ];
        let known = known.map(|(name, kind)| (name.to_owned(), kind));
        let decoded = decoded("a,b,c,d\n1,2,true,3\nx,4,5,6\n", &known);
        let text = |text: &str| Value::Text(text.to_owned());
        assert_eq!(cells(&decoded, "a"), [Value::Int(1), text("x")]);
        assert_eq!(cells(&decoded, "b"), [text("2"), text("4")]);
        assert_eq!(cells(&decoded, "c"), [Value::Bool(true), text("5")]);
        assert_eq!(cells(&decoded, "d"), [Value::Int(3), Value::Int(6)]);
    }

    #[test]
    fn words_among_the_numbers_of_a_new_column_cost_only_their_rows() {
        let decoded = decoded(
            "v,on,w\nV,-,hi\n3.5,true,7\nn/a,false,8\n3.7,,x\n4,,\n",
            &[],
        );
        let volts = [3.5, 3.7, 4.0].map(Value::Float);
        assert_eq!(cells(&decoded, "v"), volts);
        assert_eq!(cells(&decoded, "on")[..2], [Value::Bool(true), Value::Null]);
        let rejected: Vec<_> = decoded
            .rejected
            .iter()
            .map(|row| (row.offset, row.reason.as_str(), row.body.clone()))
            .collect();
        let reason = "column `v`: most cells of this new column are numbers or truths, and this \
                      one is not";
        assert_eq!(
            rejected[0],
            (0, reason, json!({"v": "V", "on": "-", "w": "hi"}))
        );
        assert_eq!(rejected[1].2, json!({"v": "n/a", "on": false, "w": "8"}));
        assert_eq!((rejected.len(), decoded.sent), (2, 5));
    }

    #[test]
    fn where_numbers_are_no_majority_a_new_column_is_text() {
        let decoded = decoded("a,b\n1,true\nx,1\n,y\n", &[]);
        assert_eq!(cells(&decoded, "a")[0], Value::Text("1".to_owned()));
        assert_eq!(cells(&decoded, "b")[0], Value::Text("true".to_owned()));
        assert_eq!(decoded.rejected, []);
    }

    #[test]
    fn semicolons_and_tabs_separate_where_the_header_has_them_and_commas_are_points_then() {
        let expected = [
            ("t, s", vec![Value::Float(0.5), Value::Float(1.0)]),
            ("I", vec![Value::Float(-1.25e-3), Value::Float(2.5)]),
        ];
        for separator in [";", "\t"] {
            let text = format!("t, s{separator}I\n0,5{separator}-1,25e-3\n1{separator}2.5\n");
            let decoded = decoded(&text, &[]);
            for (name, values) in &expected {
                assert_eq!(cells(&decoded, name), *values, "{text}");
            }
        }
        let quoted = decoded("\"a;b\",c\n1,2\n", &[]);
        assert_eq!(cells(&quoted, "a;b"), [Value::Int(1)]);
        let no_numbers = decoded("a;b\n1.000,5;1,2,3\n,5;1,\n", &[]);
        assert_eq!(cells(&no_numbers, "b")[0], Value::Text("1,2,3".to_owned()));
        assert!(refusal("a\n0,5\n").contains("the header line has ',' between its names"));
    }

    #[test]
    fn whole_numbers_are_not_rounded() {
        let text = "a\n0.5\n9007199254740993\n18446744073709551616\n18446744073709551617\n7\n";
        let decoded = decoded(text, &[]);
        let column = decoded.columns.get("a").unwrap();
        assert_eq!(column.get(1), Value::Int(9_007_199_254_740_993));
        assert_eq!(column.get(2), Value::Float(2.0_f64.powi(64)));
        let rejected = &decoded.rejected[0];
        assert_eq!(rejected.offset, 3);
        assert!(rejected.reason.contains("18446744073709551617"));
        assert_eq!(
            rejected.body,
            json!({"a": {"integer": "18446744073709551617"}})
        );
    }

    #[test]
    fn too_many_rows_are_refused_as_soon_as_they_are() {
        let rows = |count: usize| format!("a,b\n{}", ",\n".repeat(count));
        assert_eq!(decoded(&rows(10), &[]).sent, 10);
        // The eleventh row is met before what is no CSV.
        assert!(refusal(&(rows(11) + "1,2,3\n")).starts_with("the body has more than 10 rows"));
    }
}
