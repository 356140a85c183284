//! Files that are damaged, foreign, or hold more than tables: each is told apart in words.

#![expect(clippy::unwrap_used, reason = "a test: what is unexpected ends it")]

use std::{fs, path::Path};

use hdf5::{File, H5Type, types::VarLenUnicode};
use rovi_battdat::{BattdatError, BattdatFile, BattdatWriter, ColumnInfo, ColumnKind};
use rovi_common::rows::{Column, Columns, Value};

/// A row of types that battdat does not write, some of which no column can hold.
#[derive(H5Type, Clone, Debug)]
#[repr(C)]
struct OddRow {
    voltage: f32,
    complex: Complex,
    comment: VarLenUnicode,
    flag: bool,
    large: u64,
    small: i8,
    spectrum: [i16; 2],
    waveform: [f64; 300],
}

#[derive(H5Type, Clone, Debug)]
#[repr(C)]
struct Complex {
    re: f64,
    im: f64,
}

fn odd_row() -> OddRow {
    OddRow {
        voltage: 3.5,
        complex: Complex { re: 1.0, im: 2.0 },
        comment: "x".parse().unwrap(),
        flag: true,
        large: u64::MAX,
        small: -3,
        spectrum: [7, -8],
        waveform: [0.0; 300],
    }
}

fn write_cell(path: &Path, rows: u32) {
    let mut writer = BattdatWriter::create(path, "{}").unwrap();
    let infos = [ColumnInfo::new("voltage", ColumnKind::Float)];
    let mut table = writer.table(None, "raw_data", &infos).unwrap();
    let cells = Column::Float((0..rows).map(|row| Some(f64::from(row).sin())).collect());
    table
        .append(&Columns::new(vec![("voltage".into(), cells)]).unwrap())
        .unwrap();
    table.finish().unwrap();
    writer.finish().unwrap();
}

#[test]
fn a_file_that_cannot_be_opened_says_why_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cell.h5");
    let error = BattdatFile::open(&path).unwrap_err();
    assert!(matches!(error, BattdatError::Io { .. }), "{error}");
    assert!(error.to_string().contains("cell.h5"), "{error}");

    assert!(matches!(
        BattdatFile::open(folder.path()),
        Err(BattdatError::Io { .. })
    ));

    fs::write(&path, "test_time,voltage\n0,3.5\n").unwrap();
    let error = BattdatFile::open(&path).unwrap_err();
    assert!(matches!(error, BattdatError::NotHdf5 { .. }), "{error}");
    fs::write(&path, "").unwrap();
    let error = BattdatFile::open(&path).unwrap_err();
    assert!(matches!(error, BattdatError::NotHdf5 { .. }), "{error}");
}

#[test]
fn a_file_cut_anywhere_is_an_error_not_a_panic() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole.h5");
    write_cell(&whole, 20_000);
    let bytes = fs::read(&whole).unwrap();
    let cut = folder.path().join("cut.h5");
    for length in (96..bytes.len()).step_by(bytes.len() / 40) {
        fs::write(&cut, &bytes[..length]).unwrap();
        let error = BattdatFile::open(&cut).unwrap_err();
        assert!(
            matches!(error, BattdatError::Truncated { .. }),
            "{length}: {error}"
        );
    }
}

#[test]
fn damaged_rows_are_an_error_that_names_the_rows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cell.h5");
    write_cell(&path, 100_000);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 4000].fill(0x55);
    fs::write(&path, bytes).unwrap();
    let file = BattdatFile::open(&path).unwrap();
    let table = file.table(None, "raw_data").unwrap();
    let chunks: Vec<_> = table.chunks().collect();
    let error = chunks.last().unwrap().as_ref().unwrap_err();
    assert!(error.to_string().contains("of table /raw_data"), "{error}");
    assert!(chunks.iter().rev().skip(1).all(Result::is_ok));
}

#[test]
fn a_column_outside_its_row_is_named_as_damage() {
    let whole = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files/big_endian.h5");
    let mut bytes = fs::read(whole).unwrap();
    let name = b"cycle_number\0";
    let place = bytes
        .windows(name.len())
        .position(|window| window == name)
        .unwrap();
    // The name takes 16 bytes; the column's place in the row follows.
    bytes[place + 18] = 134;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cell.h5");
    fs::write(&path, bytes).unwrap();
    let error = BattdatFile::open(&path).unwrap_err().to_string();
    assert!(
        error.contains("/raw_data: cannot be opened: a column lies outside its row"),
        "{error}"
    );
}

#[test]
fn rows_that_are_only_claimed_are_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cell.h5");
    write_cell(&path, 1);
    let file = File::open_rw(&path).unwrap();
    file.dataset("raw_data")
        .unwrap()
        .resize((1_usize << 50,))
        .unwrap();
    file.close().unwrap();
    let error = BattdatFile::open(&path).unwrap_err().to_string();
    assert!(
        error.contains("/raw_data: it claims far more rows"),
        "{error}"
    );
}

#[test]
fn an_hdf5_file_without_tables_lists_what_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.h5");
    let file = File::create(&path).unwrap();
    file.new_dataset::<f64>()
        .shape((3,))
        .create("voltages")
        .unwrap();
    file.create_group("results").unwrap();
    file.close().unwrap();
    let error = BattdatFile::open(&path).unwrap_err().to_string();
    assert!(error.contains("/voltages: not a table"), "{error}");
    assert!(
        error.contains("/results: a group without battdat tables"),
        "{error}"
    );
}

#[test]
fn a_battery_without_raw_data_lists_its_tables() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cell.h5");
    let mut writer = BattdatWriter::create(&path, "{}").unwrap();
    let infos = [ColumnInfo::new("cycle_number", ColumnKind::Int)];
    writer
        .table(None, "cycle_stats", &infos)
        .unwrap()
        .finish()
        .unwrap();
    writer.finish().unwrap();
    let error = BattdatFile::open(&path)
        .unwrap()
        .table(None, "raw_data")
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("no table `raw_data`; it has cycle_stats"),
        "{error}"
    );
}

#[test]
fn columns_that_cannot_be_held_are_left_out_and_the_others_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("odd.h5");
    let file = File::create(&path).unwrap();
    let rows = vec![odd_row(), odd_row()];
    file.new_dataset_builder()
        .with_data(&rows)
        .create("raw_data")
        .unwrap();
    file.link_external("/etc/hosts", "/", "elsewhere").unwrap();
    file.link_soft("/nowhere", "dangling").unwrap();
    file.close().unwrap();

    let file = BattdatFile::open(&path).unwrap();
    assert_eq!(file.metadata_json(), None);
    assert_eq!(file.problems().len(), 2, "{:?}", file.problems());
    let battery = file.battery(None).unwrap();
    let left_out: Vec<_> = battery.left_out.iter().map(ToString::to_string).collect();
    let is_left_out = |start: &str| left_out.iter().any(|node| node.starts_with(start));
    assert!(
        is_left_out("/raw_data/complex: a column that cannot be read: a nested"),
        "{left_out:?}"
    );
    assert!(
        is_left_out("/raw_data/comment: a column that cannot be read: text of variable"),
        "{left_out:?}"
    );
    assert!(
        is_left_out("/raw_data/waveform: a column that cannot be read: an array of 300"),
        "{left_out:?}"
    );
    assert!(
        is_left_out("/elsewhere: a link to another file"),
        "{left_out:?}"
    );
    assert!(is_left_out("/dangling: cannot be opened"), "{left_out:?}");

    let rows = file.table(None, "raw_data").unwrap().read(0..2).unwrap();
    let cells: Vec<_> = rows.row(1).collect();
    assert_eq!(cells[0], ("voltage", Value::Float(3.5)));
    assert_eq!(cells[1], ("flag", Value::Bool(true)));
    assert!(matches!(cells[2], ("large", Value::Refused(_))));
    assert_eq!(cells[3], ("small", Value::Int(-3)));
    assert_eq!(cells[4], ("spectrum[0]", Value::Int(7)));
    assert_eq!(cells[5], ("spectrum[1]", Value::Int(-8)));
    assert_eq!(cells.len(), 6);
}

#[test]
fn numbers_of_any_byte_order_and_width_are_read() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files/big_endian.h5");
    let file = BattdatFile::open(path).unwrap();
    let table = file.table(None, "raw_data").unwrap();
    let voltage = table
        .columns()
        .iter()
        .find(|column| column.name == "voltage");
    assert_eq!(voltage.unwrap().unit.as_deref(), Some("V"));
    let rows = table.read(0..2).unwrap();
    let expected = [
        ("cycle_number", Value::Int(0), Value::Int(-2)),
        ("test_time", Value::Float(0.5), Value::Float(1.5)),
        ("voltage", Value::Float(3.5), Value::Float(4.25)),
        (
            "state",
            Value::Text("charging".into()),
            Value::Text("µ".into()),
        ),
        ("flag", Value::Bool(true), Value::Bool(false)),
        ("large", Value::Float(2.0_f64.powi(63)), Value::Int(7)),
        ("matrix[0][1]", Value::Int(2), Value::Int(-2)),
        ("matrix[1][0]", Value::Int(3), Value::Int(-3)),
    ];
    for (name, first, second) in expected {
        let column = rows.get(name).unwrap();
        assert_eq!((column.get(0), column.get(1)), (first, second), "{name}");
    }
    let precise = rows.get("precise").unwrap();
    assert_eq!(precise.get(0), Value::Float(1.25));
    assert!(precise.number(1).unwrap().is_nan());
}

#[test]
fn a_filter_that_is_not_here_is_named_with_a_way_out() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files/blosc.h5");
    let file = BattdatFile::open(path).unwrap();
    let error = file.table(None, "raw_data").unwrap_err();
    assert!(
        matches!(error, BattdatError::UnreadableFilter { .. }),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .contains("blosc, which cannot be read here; write it again"),
        "{error}"
    );
}

#[test]
fn metadata_that_is_not_json_is_reported_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cell.h5");
    write_cell(&path, 1);
    let file = File::open_rw(&path).unwrap();
    file.delete_attr("metadata").unwrap();
    let text: VarLenUnicode = "not {json".parse().unwrap();
    let attribute = file.new_attr::<VarLenUnicode>().create("metadata").unwrap();
    attribute.write_scalar(&text).unwrap();
    file.close().unwrap();
    let file = BattdatFile::open(&path).unwrap();
    assert_eq!(file.metadata_json(), Some("not {json"));
    assert!(
        file.problems()[0].contains("not JSON"),
        "{:?}",
        file.problems()
    );
    assert_eq!(file.table(None, "raw_data").unwrap().rows(), 1);
}

#[test]
fn files_and_tables_can_be_sent_to_a_blocking_thread() {
    fn is_send_and_sync<T: Send + Sync>() {}
    is_send_and_sync::<BattdatFile>();
    is_send_and_sync::<rovi_battdat::Table>();
    is_send_and_sync::<BattdatWriter>();
    is_send_and_sync::<BattdatError>();
}
