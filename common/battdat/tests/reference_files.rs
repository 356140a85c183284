//! Reads the files of the reference folder in full and compares cells with what
//! battery-data-toolkit itself reads from them.

#![expect(
    clippy::float_cmp,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test: values read from a file are exact, and what is unexpected ends it"
)]

use std::path::PathBuf;

use rovi_battdat::{BattdatError, BattdatFile, ColumnKind};
use rovi_common::rows::{Column, Columns, Value};

/// Returns the data folder beside the reference folder, or tells why the test is skipped.
#[expect(
    clippy::disallowed_methods,
    reason = "tells where the reference files are"
)]
fn data() -> Option<PathBuf> {
    let folder = std::env::var("ROVI_REFERENCE")
        .map(|reference| PathBuf::from(reference).join("../data"))
        .ok();
    if folder.is_none() {
        eprintln!("skipped: ROVI_REFERENCE does not name the folder of reference files");
    }
    folder
}

fn read_all(file: &BattdatFile, prefix: Option<&str>, table: &str) -> Columns {
    let table = file.table(prefix, table).unwrap();
    let mut rows = Columns::default();
    for chunk in table.chunks() {
        rows.append(chunk.unwrap());
    }
    assert_eq!(rows.rows(), table.rows());
    rows
}

fn number(rows: &Columns, column: &str, row: usize) -> f64 {
    rows.get(column).unwrap().number(row).unwrap()
}

/// Compares a sum with one made by exact addition; plain addition of so many loses some digits.
fn assert_sum(rows: &Columns, column: &str, expected: f64) {
    let sum: f64 = (0..rows.rows()).map(|row| number(rows, column, row)).sum();
    assert!(
        (sum - expected).abs() < 1e-9 * expected.abs(),
        "{column}: {sum}"
    );
}

fn text(rows: &Columns, column: &str, row: usize) -> String {
    match rows.get(column).unwrap().get(row) {
        Value::Text(text) => text,
        other => panic!("{column}[{row}] is {other}"),
    }
}

#[test]
fn a_public_file_of_110_705_rows_is_read_in_full() {
    let Some(data) = data() else { return };
    let file = BattdatFile::open(data.join("batch_B10A_cell_3.h5")).unwrap();
    assert_eq!(file.version(), Some("0.4.0"));
    assert!(
        file.metadata_json()
            .unwrap()
            .starts_with(r#"{"name":"CAMP_batch_B10A_cell_3""#)
    );
    assert!(file.problems().is_empty(), "{:?}", file.problems());

    let table = file.table(None, "raw_data").unwrap();
    let voltage = table
        .columns()
        .iter()
        .find(|column| column.name == "voltage")
        .unwrap();
    assert_eq!(voltage.unit.as_deref(), Some("V"));
    assert_eq!(
        voltage.description.as_deref(),
        Some("Measured voltage of the system")
    );

    let rows = read_all(&file, None, "raw_data");
    assert_eq!((rows.rows(), rows.width()), (110_705, 11));
    assert_eq!(number(&rows, "test_time", 8191), 1_242_504.552);
    assert_eq!(number(&rows, "test_time", 8192), 1_243_104.552);
    assert_eq!(
        number(&rows, "cycle_energy", 55_000),
        2.859_584_588_307_600_8
    );
    assert_eq!(
        rows.get("cycle_number").unwrap().get(110_704),
        Value::Int(931)
    );
    assert_eq!(text(&rows, "state", 55_000), "charging");
    assert_eq!(text(&rows, "method", 110_704), "short_nonrest");
    assert_sum(&rows, "voltage", 399_107.930_724_577_4);
    assert_sum(&rows, "current", -7_505.840_393_641_952);
    assert_sum(&rows, "cycle_capacity", 46_257.309_029_738_6);
    assert_sum(&rows, "substep_index", 841_397.0);
    let discharging = (0..rows.rows()).filter(|&row| text(&rows, "state", row) == "discharging");
    assert_eq!(discharging.count(), 48_676);
    assert_eq!(read_all(&file, None, "cycle_stats").rows(), 932);
}

#[test]
fn nodes_that_are_no_tables_are_named_and_left_out() {
    let Some(data) = data() else { return };
    let file = BattdatFile::open(data.join("LFP_single_RPT.h5")).unwrap();
    let rows = read_all(&file, None, "raw_data");
    assert_eq!((rows.rows(), rows.width()), (14_312, 9));
    assert_eq!(
        number(&rows, "hysteresis", 9_000),
        -0.019_997_373_223_304_75
    );
    assert_eq!(
        number(&rows, "current", 14_311),
        3.194_968_635_901_289_4e-14
    );
    assert_eq!(text(&rows, "protocol", 0), "Capacity Check");
    assert_sum(&rows, "SOC", 6_980.718_052_925_134_5);
    let left_out: Vec<_> = file.batteries()[0]
        .left_out
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        left_out,
        [
            "/asoh_history: list of variable length",
            "/cycling_protocols: list of variable length"
        ]
    );
    let table = file.table(None, "raw_data").unwrap();
    let undescribed = table
        .columns()
        .iter()
        .find(|column| column.name == "I_RC_1")
        .unwrap();
    assert_eq!(
        (
            undescribed.unit.as_deref(),
            undescribed.description.as_deref()
        ),
        (None, None)
    );
}

#[test]
fn batteries_under_prefixes_are_told_apart() {
    let Some(data) = data() else { return };
    let file = BattdatFile::open(data.join("prefix_two_batteries.h5")).unwrap();
    let sizes = |prefix, table| read_all(&file, Some(prefix), table).rows();
    assert_eq!(sizes("cell_A", "raw_data"), 40);
    assert_eq!(sizes("cell_A", "eis_data"), 6);
    assert_eq!(sizes("/cell_A", "cycle_stats"), 2);
    assert_eq!(sizes("cell_B", "raw_data"), 25);

    let error = file.table(None, "raw_data").unwrap_err();
    assert!(matches!(error, BattdatError::AmbiguousBattery { .. }));
    assert!(
        error.to_string().contains("2 batteries: cell_A, cell_B"),
        "{error}"
    );
    let error = file.table(Some("cell_C"), "raw_data").unwrap_err();
    assert!(
        error
            .to_string()
            .contains("no battery `cell_C`; it has cell_A, cell_B"),
        "{error}"
    );
    let error = file.table(Some("cell_B"), "eis_data").unwrap_err();
    assert!(
        error
            .to_string()
            .contains("no table `eis_data`; it has raw_data"),
        "{error}"
    );
}

#[test]
fn unusual_columns_keep_their_values() {
    let Some(data) = data() else { return };
    let file = BattdatFile::open(data.join("unusual_columns.h5")).unwrap();
    let rows = read_all(&file, None, "raw_data");
    assert_eq!((rows.rows(), rows.width()), (12, 20));
    assert_eq!(rows.get("flag").unwrap().get(0), Value::Bool(true));
    assert_eq!(rows.get("flag").unwrap().get(1), Value::Bool(false));
    assert_eq!(rows.get("i32").unwrap().get(11), Value::Int(-77));
    assert_eq!(rows.get("u8").unwrap().get(11), Value::Int(220));
    assert_eq!(
        rows.get("u64").unwrap().get(0),
        Value::Float(2.0_f64.powi(63))
    );
    assert!(matches!(rows.get("u64").unwrap().get(1), Value::Refused(_)));
    assert_eq!(number(&rows, "f32", 1), f64::from(0.090_909_09_f32));
    assert_eq!(text(&rows, "note", 0), "späť µΩ");
    assert_eq!(text(&rows, "note", 1), "");
    assert_eq!(text(&rows, "note", 3), "日本");
    assert_eq!(text(&rows, "when", 11), "2025-01-12T00:00:00+00:00");
    assert!(number(&rows, "nanv", 0).is_nan());
    assert_eq!(number(&rows, "inf", 2), f64::INFINITY);
    assert_eq!(number(&rows, "inf", 3), f64::NEG_INFINITY);
    assert_eq!(number(&rows, "vec[2]", 4), 8.0);
    assert_eq!(number(&rows, "column with space é", 5), 5.0);
}

#[test]
fn an_array_column_becomes_one_column_per_cell() {
    let Some(data) = data() else { return };
    let file = BattdatFile::open(data.join("unusual_columns.h5")).unwrap();
    let table = file.table(None, "raw_data").unwrap();
    let array = table
        .columns()
        .iter()
        .find(|column| column.name == "vec[1]")
        .unwrap();
    assert_eq!(array.expanded_from.as_deref(), Some("vec"));
    assert_eq!(array.kind, ColumnKind::Float);
}

#[test]
fn a_table_without_rows_has_typed_columns() {
    let Some(data) = data() else { return };
    let file = BattdatFile::open(data.join("empty_table.h5")).unwrap();
    let table = file.table(None, "raw_data").unwrap();
    assert_eq!(
        (table.rows(), table.columns().len(), table.chunks().count()),
        (0, 5, 0)
    );
    let rows = table.read(0..10).unwrap();
    assert_eq!(rows.get("cycle_number"), Some(&Column::Int(Vec::new())));
    assert_eq!(rows.get("voltage"), Some(&Column::Float(Vec::new())));
    table.fingerprint().unwrap();
}
