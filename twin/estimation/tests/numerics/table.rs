//! Plain and gzipped CSV tables of numbers.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;

/// Columns by name; empty cells are NaN.
pub(crate) struct Table {
    columns: HashMap<String, Vec<f64>>,
    rows: usize,
}

impl Table {
    pub(crate) fn open(path: &Path) -> Self {
        let bytes = std::fs::read(path)
            .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
        let mut text = String::new();
        if path.extension().is_some_and(|extension| extension == "gz") {
            GzDecoder::new(bytes.as_slice())
                .read_to_string(&mut text)
                .unwrap();
        } else {
            text = String::from_utf8(bytes).unwrap();
        }
        Self::parse(&text)
    }

    fn parse(text: &str) -> Self {
        let mut lines = text.lines();
        let names: Vec<&str> = lines.next().unwrap().split(',').collect();
        let mut columns = vec![Vec::new(); names.len()];
        for line in lines {
            for (column, cell) in columns.iter_mut().zip(line.split(',')) {
                column.push(if cell.is_empty() {
                    f64::NAN
                } else {
                    cell.parse().unwrap()
                });
            }
        }
        let rows = columns[0].len();
        assert!(
            columns.iter().all(|column| column.len() == rows),
            "a ragged table"
        );
        let columns = names
            .iter()
            .map(|name| (*name).to_owned())
            .zip(columns)
            .collect();
        Self { columns, rows }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn column(&self, name: &str) -> &[f64] {
        self.columns
            .get(name)
            .unwrap_or_else(|| panic!("no column {name}"))
    }
}
