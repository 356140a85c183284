//! The rows that are sent: 12 columns as a cycler records them.

use rovi_common::rows::{Column, Columns};

/// Rows in one frame of the upload.
pub(crate) const FRAME_ROWS: usize = 8192;

/// Makes `rows` rows from row `first` on: 8 floats, 2 integers, 2 texts.
pub(crate) fn batch(first: usize, rows: usize) -> Columns {
    let places = first..first + rows;
    let float = |scale: f64, period: usize| {
        let value = |row: usize| Some(scale * (row % period) as f64 / period as f64);
        Column::Float(places.clone().map(value).collect())
    };
    let integer = |divisor: usize| {
        let value = |row: usize| i64::try_from(row / divisor).ok();
        Column::Int(places.clone().map(value).collect())
    };
    let text = |words: &[&str]| {
        let value = |row: usize| {
            words
                .get(row / 1000 % words.len())
                .map(|&word| word.to_owned())
        };
        Column::Text(places.clone().map(value).collect())
    };
    let time = places.clone().map(|row| Some(row as f64)).collect();
    let columns = [
        ("test_time", Column::Float(time)),
        ("current", float(3.0, 977)),
        ("voltage", float(4.2, 1009)),
        ("temperature", float(25.0, 1013)),
        ("cycle_capacity", float(1.5, 1019)),
        ("cycle_energy", float(5.5, 1021)),
        ("internal_resistance", float(0.05, 1031)),
        ("cycle_time", float(3600.0, 1033)),
        ("cycle_number", integer(3600)),
        ("step_index", integer(1000)),
        ("state", text(&["charging", "hold", "discharging"])),
        (
            "method",
            text(&["constant_current", "constant_voltage", "rest"]),
        ),
    ];
    let columns = columns.map(|(name, column)| (name.to_owned(), column));
    Columns::new(columns.into()).expect("the columns are of one length")
}

/// Cuts `rows` rows into frames.
pub(crate) fn frames(rows: usize) -> impl Iterator<Item = Columns> {
    let starts = (0..rows).step_by(FRAME_ROWS);
    starts.map(move |first| batch(first, FRAME_ROWS.min(rows - first)))
}
