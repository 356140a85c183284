//! Rows of a battdat or CSV file, in batches.

use std::{fs::File, io::BufReader, path::Path};

use anyhow::{Context, Result, bail, ensure};
use rovi_battdat::{BattdatFile, Table};
use rovi_common::rows::{Column, Columns, Value};

use super::Common;
use crate::commands::stream::choose_battery;

const BATCH: usize = 256;

/// The rows of a file.
pub(super) struct Source {
    rows: Rows,
    left: usize,
    /// The battery's metadata, in JSON.
    pub(super) metadata: Option<String>,
}

enum Rows {
    Battdat { table: Box<Table>, next: usize },
    Csv(Box<csv::Reader<BufReader<File>>>),
}

impl Source {
    pub(super) fn open(common: &Common) -> Result<Self> {
        let path = &common.data;
        let is_csv = path
            .extension()
            .is_some_and(|kind| kind.eq_ignore_ascii_case("csv"));
        let (rows, metadata) = if is_csv {
            (open_csv(path)?, None)
        } else {
            let file = BattdatFile::open(path)?;
            let battery = choose_battery(&file, common.prefix.as_deref())?;
            let table = file.table(battery.prefix.as_deref(), "raw_data")?;
            let metadata = battery.metadata_json.as_deref().or(file.metadata_json());
            let metadata = metadata.map(str::to_owned);
            let table = Box::new(table);
            (Rows::Battdat { table, next: 0 }, metadata)
        };
        Ok(Self {
            rows,
            left: common.rows,
            metadata,
        })
    }

    /// Returns the next rows, or nothing behind the last.
    pub(super) fn next(&mut self) -> Result<Option<Columns>> {
        let most = self.left.min(BATCH);
        let rows = match &mut self.rows {
            Rows::Battdat { table, next } => {
                let end = table.rows().min(*next + most);
                let rows = table.read(*next..end)?;
                *next = end;
                rows
            }
            Rows::Csv(reader) => read_csv(reader, most)?,
        };
        self.left -= rows.rows();
        Ok((rows.rows() > 0).then_some(rows))
    }
}

/// Columns that every estimator reads as numbers.
const QUANTITIES: [&str; 4] = ["test_time", "current", "voltage", "temperature"];

fn open_csv(path: &Path) -> Result<Rows> {
    let reader = csv::Reader::from_path(path);
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut headers = reader.with_context(|| format!("cannot read {}", path.display()))?;
    let headers = headers.headers()?.clone();
    for needed in ["test_time", "current", "voltage"] {
        let found: Vec<&str> = headers.iter().collect();
        ensure!(
            found.contains(&needed),
            "{} has no column `{needed}`, only {}",
            path.display(),
            found.join(", ")
        );
    }
    Ok(Rows::Csv(Box::new(csv::Reader::from_reader(
        BufReader::new(file),
    ))))
}

fn read_csv(reader: &mut csv::Reader<BufReader<File>>, most: usize) -> Result<Columns> {
    let names: Vec<String> = reader.headers()?.iter().map(str::to_owned).collect();
    let mut cells: Vec<Column> = names.iter().map(|_| Column::new()).collect();
    let mut record = csv::StringRecord::new();
    for _ in 0..most {
        if !reader.read_record(&mut record)? {
            break;
        }
        if record.len() != names.len() {
            bail!(
                "a row of the CSV has {} cells, the head has {}",
                record.len(),
                names.len()
            );
        }
        for ((name, column), text) in names.iter().zip(&mut cells).zip(&record) {
            let value = match cell(text) {
                // Else one such cell would make the whole column text.
                Value::Text(_) if QUANTITIES.contains(&name.as_str()) => Value::Null,
                value => value,
            };
            column.push(value);
        }
    }
    Ok(Columns::new(names.into_iter().zip(cells).collect())?)
}

/// Numbers are floats, so that a column has one type whatever its rows look like.
fn cell(text: &str) -> Value {
    match text.trim() {
        "" => Value::Null,
        text => match text.parse() {
            Ok(number) => Value::Float(number),
            Err(_no_number) => Value::Text(text.to_owned()),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_cell_that_is_no_number_costs_only_its_row() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let text = "test_time,current,voltage,note\n0,1,3.3,a\n1,abc,3.3,b\n2,1,3.3,7\n";
        file.write_all(text.as_bytes()).unwrap();
        let Ok(Rows::Csv(mut reader)) = open_csv(file.path()) else {
            panic!("it is a CSV");
        };
        let columns = read_csv(&mut reader, 10).unwrap();
        let current = columns.get("current").unwrap();
        let read: Vec<Option<f64>> = (0..3).map(|row| current.number(row)).collect();
        assert_eq!(read, [Some(1.0), None, Some(1.0)]);
    }
}
