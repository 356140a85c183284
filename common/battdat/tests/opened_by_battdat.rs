//! Opens a written file with battery-data-toolkit itself, where Python has it, and compares all.

#![expect(
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test: it says why it was skipped, and what is unexpected ends it"
)]

use std::{path::Path, process::Command};

use rovi_battdat::{BattdatWriter, ColumnInfo, ColumnKind};
use rovi_common::rows::{Column, Columns};
use serde_json::{Value, json};

/// Asks battery-data-toolkit what is in a file; `None` where Python does not have it.
fn opened_by_battdat(path: &Path, prefix: Option<&str>) -> Option<Value> {
    let import = Command::new("python3")
        .args(["-c", "import battdat"])
        .output();
    if !import.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: python3 has no battdat here (pip install battery-data-toolkit==0.4.6)");
        return None;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/check_with_battdat.py");
    let output = Command::new("python3")
        .arg(script)
        .arg(path)
        .args(prefix)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    eprintln!("{errors}");
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

fn infos() -> Vec<ColumnInfo> {
    vec![
        ColumnInfo::new("test_time", ColumnKind::Float),
        ColumnInfo::new("voltage", ColumnKind::Float).with_unit("V"),
        ColumnInfo::new("current", ColumnKind::Float),
        ColumnInfo::new("state", ColumnKind::Text),
        ColumnInfo::new("cycle_number", ColumnKind::Int),
        ColumnInfo::new("door open", ColumnKind::Bool),
        ColumnInfo::new("teplota článku", ColumnKind::Float)
            .with_unit("°C")
            .with_description("v čidle"),
        ColumnInfo::new("cells[0]", ColumnKind::Float)
            .with_expanded_from("cells")
            .with_unit("mV"),
        ColumnInfo::new("cells[1]", ColumnKind::Float)
            .with_expanded_from("cells")
            .with_unit("mV"),
        ColumnInfo::new("note", ColumnKind::Text),
    ]
}

fn batch(rows: Vec<(&str, Column)>) -> Columns {
    Columns::new(
        rows.into_iter()
            .map(|(name, cells)| (name.to_owned(), cells))
            .collect(),
    )
    .unwrap()
}

fn floats(cells: [f64; 2]) -> Column {
    Column::Float(cells.map(Some).to_vec())
}

fn texts(cells: [&str; 2]) -> Column {
    Column::Text(cells.map(|cell| Some(cell.to_owned())).to_vec())
}

/// Two batches of two rows; the second has longer texts, and lacks a column.
fn batches() -> [Columns; 2] {
    let first = batch(vec![
        ("test_time", floats([0.0, 0.1])),
        ("voltage", floats([3.3, 3.300_000_000_000_000_3])),
        ("current", floats([-1.5, 0.0])),
        ("state", texts(["hold", "charging"])),
        (
            "cycle_number",
            Column::Int(vec![Some(0), Some((1 << 53) + 1)]),
        ),
        ("door open", Column::Bool(vec![Some(true), Some(false)])),
        ("teplota článku", floats([f64::NAN, f64::INFINITY])),
        ("cells[0]", floats([1.0, 2.0])),
        ("cells[1]", floats([1.5, 2.5])),
        ("note", texts(["", "ž"])),
    ]);
    let mut second = first.clone().into_vec();
    second.pop();
    second[0].1 = floats([0.2, 0.3]);
    second[3].1 = texts(["discharging", "unknown"]);
    second[4].1 = Column::Int(vec![Some(i64::MAX), Some(i64::MAX)]);
    [first, Columns::new(second).unwrap()]
}

fn write(path: &Path, prefixes: &[Option<&str>]) {
    let metadata = json!({
        "name": "Zelle µ", "site_tag": "hall 3",
        "battery": {"nominal_capacity": 2.5, "cathode": {"name": "NMC"}},
    });
    let mut writer = BattdatWriter::create(path, &metadata.to_string()).unwrap();
    for prefix in prefixes {
        let mut table = writer.table(*prefix, "raw_data", &infos()).unwrap();
        for batch in &batches() {
            table.append(batch).unwrap();
        }
        assert_eq!(table.finish().unwrap(), 4);
    }
    let cycles = [
        ColumnInfo::new("cycle_number", ColumnKind::Int),
        ColumnInfo::new("capacity_charge", ColumnKind::Float),
    ];
    writer
        .table(prefixes[0], "cycle_stats", &cycles)
        .unwrap()
        .finish()
        .unwrap();
    writer.finish().unwrap();
}

fn assert_as_written(found: &Value) {
    assert_eq!(found["metadata"]["name"], "Zelle µ");
    assert_eq!(found["metadata"]["site_tag"], "hall 3");
    assert_eq!(found["metadata"]["battery"]["cathode"]["name"], "NMC");
    let table = &found["tables"]["raw_data"];
    assert_eq!(
        table["columns"],
        json!({
            "test_time": ["0.0", "0.1", "0.2", "0.3"],
            "voltage": ["3.3", "3.3000000000000003", "3.3", "3.3000000000000003"],
            "current": ["-1.5", "0.0", "-1.5", "0.0"],
            "state": ["hold", "charging", "discharging", "unknown"],
            "cycle_number": [0, 9_007_199_254_740_993_i64, i64::MAX, i64::MAX],
            "door open": [true, false, true, false],
            "teplota článku": ["nan", "inf", "nan", "inf"],
            "cells": [["1.0", "1.5"], ["2.0", "2.5"], ["1.0", "1.5"], ["2.0", "2.5"]],
            "note": ["", "ž", "", ""],
        })
    );
    let units = &table["units"];
    assert_eq!(units["current"], "A");
    assert_eq!(units["teplota článku"], "°C");
    assert_eq!(units["cells"], "mV");
    assert_eq!(table["dtypes"]["cycle_number"], "int64");
    assert_eq!(table["dtypes"]["door open"], "bool");
    assert_eq!(
        found["tables"]["cycle_stats"]["columns"]["cycle_number"],
        json!([])
    );
}

#[test]
fn battdat_opens_a_file_of_one_battery() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cell.h5");
    write(&path, &[None]);
    if let Some(found) = opened_by_battdat(&path, None) {
        assert_as_written(&found);
    }
}

#[test]
fn battdat_opens_a_file_of_several_batteries() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cells.h5");
    write(&path, &[Some("cell_A"), Some("cell_B")]);
    if let Some(found) = opened_by_battdat(&path, Some("cell_A")) {
        assert_eq!(found["prefixes"], json!(["cell_A", "cell_B"]));
        assert_as_written(&found);
    }
}
