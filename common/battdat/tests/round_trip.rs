//! What is written is read back, cell by cell.

#![expect(clippy::unwrap_used, reason = "a test: what is unexpected ends it")]

use std::path::PathBuf;

use rovi_battdat::{BattdatError, BattdatFile, BattdatWriter, ColumnInfo, ColumnKind};
use rovi_common::rows::{Column, Columns, Value};
use tempfile::TempDir;

const METADATA: &str = r#"{"name":"Zelle µ","site_tag":"hall 3"}"#;

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cell.h5");
    (folder, path)
}

fn columns(columns: Vec<(&str, Column)>) -> Columns {
    let columns = columns
        .into_iter()
        .map(|(name, column)| (name.to_owned(), column));
    Columns::new(columns.collect()).unwrap()
}

fn floats(cells: &[f64]) -> Column {
    Column::Float(cells.iter().copied().map(Some).collect())
}

fn texts(cells: &[&str]) -> Column {
    Column::Text(cells.iter().map(|&cell| Some(cell.to_owned())).collect())
}

/// Writes one table in batches and reads it back.
fn round_trip(infos: &[ColumnInfo], batches: &[Columns]) -> Columns {
    let (_folder, path) = folder();
    let mut writer = BattdatWriter::create(&path, METADATA).unwrap();
    let mut table = writer.table(None, "raw_data", infos).unwrap();
    for batch in batches {
        table.append(batch).unwrap();
    }
    table.finish().unwrap();
    writer.finish().unwrap();
    let file = BattdatFile::open(&path).unwrap();
    assert!(file.problems().is_empty(), "{:?}", file.problems());
    file.table(None, "raw_data")
        .unwrap()
        .read(0..usize::MAX)
        .unwrap()
}

fn one(name: &str, kind: ColumnKind, batches: Vec<Column>) -> Column {
    let batches: Vec<_> = batches
        .into_iter()
        .map(|batch| columns(vec![(name, batch)]))
        .collect();
    let rows = round_trip(&[ColumnInfo::new(name, kind)], &batches);
    rows.get(name).unwrap().clone()
}

#[test]
fn every_kind_of_column_comes_back_as_it_was() {
    let infos = [
        ColumnInfo::new("test_time", ColumnKind::Float).with_unit("s"),
        ColumnInfo::new("cycle_number", ColumnKind::Int),
        ColumnInfo::new("column with space é", ColumnKind::Bool),
        ColumnInfo::new("vec[0]", ColumnKind::Float).with_expanded_from("vec"),
        ColumnInfo::new("vec[1]", ColumnKind::Float).with_expanded_from("vec"),
        ColumnInfo::new("note", ColumnKind::Text).with_description("říká obsluha"),
    ];
    let rows = columns(vec![
        (
            "test_time",
            floats(&[0.0, -0.0, f64::INFINITY, f64::NEG_INFINITY, 1e-300]),
        ),
        (
            "cycle_number",
            Column::Int([0, -1, i64::MAX, i64::MIN, 5].map(Some).to_vec()),
        ),
        (
            "column with space é",
            Column::Bool([true, false, true, true, false].map(Some).to_vec()),
        ),
        ("vec[0]", floats(&[0.0, 1.0, 2.0, 3.0, 4.0])),
        ("vec[1]", floats(&[0.5, 1.5, 2.5, 3.5, 4.5])),
        ("note", texts(&["späť µΩ", "", "nan", "日本", " x "])),
    ]);
    assert_eq!(round_trip(&infos, std::slice::from_ref(&rows)), rows);
    assert_eq!(round_trip(&infos, &[rows.clone(), rows.clone()]).rows(), 10);
}

#[test]
fn nan_stays_nan_and_null_becomes_nan_or_empty_text() {
    let read = one(
        "v",
        ColumnKind::Float,
        vec![Column::Float(vec![Some(f64::NAN), None])],
    );
    assert!(read.number(0).unwrap().is_nan() && read.number(1).unwrap().is_nan());
    let read = one(
        "v",
        ColumnKind::Text,
        vec![Column::Text(vec![Some("a".into()), None])],
    );
    assert_eq!(read, texts(&["a", ""]));
}

#[test]
fn text_longer_than_all_before_is_not_cut() {
    let long = "Ω".repeat(400);
    let batches = vec![
        texts(&["a"; 9000]),
        texts(&["bb"]),
        texts(&[&long]),
        texts(&["c"]),
    ];
    let read = one("note", ColumnKind::Text, batches);
    assert_eq!(read.len(), 9003);
    assert_eq!(read.get(8999), Value::Text("a".into()));
    assert_eq!(read.get(9000), Value::Text("bb".into()));
    assert_eq!(read.get(9001), Value::Text(long));
    assert_eq!(read.get(9002), Value::Text("c".into()));
}

#[test]
fn integers_with_a_null_become_floats_without_losing_digits() {
    let read = one(
        "n",
        ColumnKind::Int,
        vec![Column::Int(vec![Some(1 << 53)]), Column::Int(vec![None])],
    );
    assert_eq!(read.number(0), Some(2.0_f64.powi(53)));
    assert!(read.number(1).unwrap().is_nan());

    let (_folder, path) = folder();
    let mut writer = BattdatWriter::create(&path, METADATA).unwrap();
    let infos = [ColumnInfo::new("n", ColumnKind::Int)];
    let mut table = writer.table(None, "raw_data", &infos).unwrap();
    let rows = columns(vec![("n", Column::Int(vec![Some((1 << 53) + 1), None]))]);
    let error = table.append(&rows).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("column `n`, row 0: the integer 9007199254740993"),
        "{error}"
    );
}

#[test]
fn booleans_with_a_null_and_timestamps_become_floats() {
    let read = one(
        "b",
        ColumnKind::Bool,
        vec![Column::Bool(vec![Some(true)]), Column::Null(1)],
    );
    assert_eq!(read.number(0), Some(1.0));
    assert!(read.number(1).unwrap().is_nan());
    let read = one(
        "t",
        ColumnKind::Float,
        vec![Column::Time(vec![Some(1_700_000_000_250_000)])],
    );
    assert_eq!(read.number(0), Some(1_700_000_000.25));
}

#[test]
fn a_table_without_rows_is_a_table() {
    let infos = [
        ColumnInfo::new("voltage", ColumnKind::Float),
        ColumnInfo::new("state", ColumnKind::Text),
        ColumnInfo::new("flag", ColumnKind::Bool),
    ];
    let rows = round_trip(&infos, &[]);
    assert_eq!(rows.rows(), 0);
    assert_eq!(rows.get("voltage"), Some(&Column::Float(Vec::new())));
    assert_eq!(rows.get("state"), Some(&Column::Text(Vec::new())));
    assert_eq!(rows.get("flag"), Some(&Column::Bool(Vec::new())));
}

#[test]
fn batteries_units_and_metadata_come_back() {
    let (_folder, path) = folder();
    let mut writer = BattdatWriter::create(&path, METADATA).unwrap();
    let infos = [
        ColumnInfo::new("voltage", ColumnKind::Float),
        ColumnInfo::new("temperature", ColumnKind::Float).with_unit("K"),
        ColumnInfo::new("pressure", ColumnKind::Float)
            .with_unit("kPa")
            .with_description("in the cell"),
    ];
    for prefix in ["a", "b"] {
        let table = writer.table(Some(prefix), "raw_data", &infos).unwrap();
        table.finish().unwrap();
    }
    writer
        .table(Some("b"), "my table", &infos)
        .unwrap()
        .finish()
        .unwrap();
    assert!(matches!(
        writer.table(Some("a"), "raw_data", &infos),
        Err(BattdatError::Columns { .. })
    ));
    assert!(matches!(
        writer.table(Some("a/b"), "x", &infos),
        Err(BattdatError::Name { .. })
    ));
    writer.finish().unwrap();

    let file = BattdatFile::open(&path).unwrap();
    assert_eq!(file.metadata_json(), Some(METADATA));
    assert_eq!(file.version(), Some("0.4.6"));
    let prefixes: Vec<_> = file
        .batteries()
        .iter()
        .map(|b| b.prefix.as_deref())
        .collect();
    assert_eq!(prefixes, [Some("a"), Some("b")]);
    let table = file.table(Some("b"), "my table").unwrap();
    assert_eq!(table.columns()[2], infos[2]);
    let table = file.table(Some("a"), "raw_data").unwrap();
    let units: Vec<_> = table
        .columns()
        .iter()
        .map(|column| column.unit.as_deref())
        .collect();
    assert_eq!(units, [Some("V"), Some("K"), Some("kPa")]);
}

#[test]
fn the_fingerprint_is_of_the_content_alone() {
    let fingerprint = |cells: &[&[f64]], name: &str, metadata: &str| {
        let (_folder, path) = folder();
        let mut writer = BattdatWriter::create(&path, metadata).unwrap();
        let infos = [ColumnInfo::new(name, ColumnKind::Float)];
        let mut table = writer.table(None, "raw_data", &infos).unwrap();
        for batch in cells {
            table.append(&columns(vec![(name, floats(batch))])).unwrap();
        }
        table.finish().unwrap();
        writer.finish().unwrap();
        let file = BattdatFile::open(&path).unwrap();
        file.table(None, "raw_data").unwrap().fingerprint().unwrap()
    };
    let of_one_batch = fingerprint(&[&[1.0, 2.0]], "v", "{}");
    assert_eq!(fingerprint(&[&[1.0], &[2.0]], "v", METADATA), of_one_batch);
    assert_ne!(fingerprint(&[&[1.0, 3.0]], "v", "{}"), of_one_batch);
    assert_ne!(fingerprint(&[&[1.0, 2.0]], "w", "{}"), of_one_batch);
    assert_ne!(fingerprint(&[&[1.0]], "v", "{}"), of_one_batch);
}

#[test]
fn the_fingerprint_does_not_depend_on_the_width_of_texts() {
    let fingerprint = |batches: &[Columns]| {
        let (_folder, path) = folder();
        let mut writer = BattdatWriter::create(&path, METADATA).unwrap();
        let infos = [ColumnInfo::new("note", ColumnKind::Text)];
        let mut table = writer.table(None, "raw_data", &infos).unwrap();
        for batch in batches {
            table.append(batch).unwrap();
        }
        table.finish().unwrap();
        writer.finish().unwrap();
        let file = BattdatFile::open(&path).unwrap();
        file.table(None, "raw_data").unwrap().fingerprint().unwrap()
    };
    let batch = |cells| columns(vec![("note", texts(cells))]);
    let exactly_wide = fingerprint(&[batch(&["four", "fives"])]);
    assert_eq!(
        fingerprint(&[batch(&["four"]), batch(&["fives"])]),
        exactly_wide
    );
    assert_ne!(fingerprint(&[batch(&["fou", "rfives"])]), exactly_wide);
}

#[test]
fn what_cannot_be_written_is_refused_with_its_place() {
    let (_folder, path) = folder();
    assert!(matches!(
        BattdatWriter::create(&path, "[1]"),
        Err(BattdatError::Metadata { .. })
    ));
    let mut writer = BattdatWriter::create(&path, METADATA).unwrap();
    assert!(matches!(
        BattdatWriter::create(&path, METADATA),
        Err(BattdatError::Exists { .. })
    ));
    let infos = [ColumnInfo::new("v", ColumnKind::Float)];
    let mut table = writer.table(None, "raw_data", &infos).unwrap();
    table
        .append(&columns(vec![("v", floats(&[1.0, 2.0]))]))
        .unwrap();
    let error = table
        .append(&columns(vec![("v", texts(&["x"]))]))
        .unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("column `v`, row 2: \"x\" is not a number"),
        "{error}"
    );
    let error = table
        .append(&columns(vec![("w", floats(&[1.0]))]))
        .unwrap_err();
    assert!(error.to_string().contains("a column `w`"), "{error}");
    assert_eq!(table.finish().unwrap(), 2);
}
