//! The process that reads an uploaded file. libhdf5 is written in C and promises nothing of files
//! made to attack it: so a file meets it in a process that can do nothing but read this one file
//! and write to its output (`confine`).
//!
//! The output is a sequence of records: a byte that names the kind, the length as four bytes (little
//! endian), and so many bytes. First `HEAD`, then `ROWS` in the form of uploads, with a `NOTE` before
//! them, last `END`; or `WRONG` at any place. The other end trusts none of it.

use std::{
    env,
    ffi::OsString,
    io::{self, BufWriter, Write},
    ops::Range,
    path::Path,
    process::ExitCode,
};

use rovi_battdat::{BattdatError, BattdatFile, BatteryEntry, ColumnInfo, Table};
use rovi_common::{
    error::ErrorChain,
    rows::{Column, Columns, Value},
};
use serde::{Deserialize, Serialize};
use serde_json::Map;

use super::confine::confine;

/// The first argument of the process; the path of the file and perhaps a prefix follow.
pub(super) const READ: &str = "read-battdat";
/// What is in the file, a [`Head`] in JSON.
pub(super) const HEAD: u8 = b'H';
/// Some rows, in msgpack.
pub(super) const ROWS: u8 = b'R';
/// What of the rows that follow is stored otherwise, in words.
pub(super) const NOTE: u8 = b'N';
/// Why it cannot be read, a [`Wrong`] in JSON.
pub(super) const WRONG: u8 = b'W';
/// All rows were told.
pub(super) const END: u8 = b'E';
/// The table that is stored.
const TABLE: &str = "raw_data";
/// Rows of a record, as far as they fit [`USUAL_BYTES`].
const ROWS_AT_ONCE: usize = 1024;
const USUAL_BYTES: usize = 8 << 20;

/// What is in a file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) rows: u64,
    pub(super) prefix: Option<String>,
    /// Identifies the content of the table.
    pub(super) fingerprint: [u8; 32],
    pub(super) metadata: Option<String>,
    /// Units and descriptions of columns, as `PATCH /db/{battery}/columns` takes them.
    pub(super) columns: Map<String, serde_json::Value>,
    /// What is left out, a sentence each.
    pub(super) notes: Vec<String>,
    /// What the kernel lacks for the whole confinement.
    pub(super) unconfined: Option<String>,
}

/// Why a file cannot be read.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Wrong {
    pub(super) text: String,
    /// The field of the request that would mend it.
    pub(super) field: Option<String>,
}

/// Reads a file where the program was started for that; else returns nothing. To be called first of
/// all in `main`, before there are other threads.
pub fn read_if_asked() -> Option<ExitCode> {
    let mut args = env::args_os().skip(1);
    if args.next() != Some(OsString::from(READ)) {
        return None;
    }
    let path = args.next().unwrap_or_default();
    let prefix = args.next().map(|text| text.to_string_lossy().into_owned());
    let mut out = BufWriter::new(io::stdout().lock());
    let told = match confine(path.as_ref()) {
        Ok(unconfined) => tell(path.as_ref(), prefix.as_deref(), unconfined, &mut out),
        Err(text) => record(&mut out, WRONG, &json(&Wrong { text, field: None })),
    };
    // Nobody hears of it where the hub has gone.
    let told = told.and_then(|()| out.flush());
    Some(told.map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS))
}

fn tell(
    path: &Path,
    prefix: Option<&str>,
    unconfined: Option<String>,
    out: &mut impl Write,
) -> io::Result<()> {
    match read(path, prefix, unconfined, out) {
        Ok(()) => record(out, END, &[]),
        Err(Stopped::Wrong(error)) => record(out, WRONG, &json(&wrong(path, &error))),
        Err(Stopped::Told(error)) => Err(error),
    }
}

/// Why reading ended early.
enum Stopped {
    Wrong(BattdatError),
    Told(io::Error),
}

fn read(
    path: &Path,
    prefix: Option<&str>,
    unconfined: Option<String>,
    out: &mut impl Write,
) -> Result<(), Stopped> {
    let file = BattdatFile::open(path).map_err(Stopped::Wrong)?;
    let battery = file.battery(prefix).map_err(Stopped::Wrong)?;
    let table = file.table(battery.prefix.as_deref(), TABLE);
    let table = table.map_err(Stopped::Wrong)?;
    let head = Head {
        rows: table.rows() as u64,
        prefix: battery.prefix.clone(),
        fingerprint: table.fingerprint().map_err(Stopped::Wrong)?,
        metadata: (battery.metadata_json.as_deref())
            .or(file.metadata_json())
            .map(str::to_owned),
        columns: ColumnInfo::meanings(table.columns()),
        notes: notes(&file, battery),
        unconfined,
    };
    record(out, HEAD, &json(&head)).map_err(Stopped::Told)?;
    for start in (0..table.rows()).step_by(ROWS_AT_ONCE) {
        let end = table.rows().min(start + ROWS_AT_ONCE);
        tell_rows(&table, start..end, out)?;
    }
    Ok(())
}

/// Tells some rows, in parts where they are wide.
fn tell_rows(table: &Table, rows: Range<usize>, out: &mut impl Write) -> Result<(), Stopped> {
    let read = table.read(rows.clone()).map_err(Stopped::Wrong)?;
    let (read, note) = emptied(read, rows.start);
    let bytes = rmp_serde::to_vec_named(&read);
    let bytes = bytes.map_err(|error| Stopped::Told(io::Error::other(error)))?;
    if bytes.len() <= USUAL_BYTES || rows.len() == 1 {
        let note = note.map_or(Ok(()), |note| record(out, NOTE, note.as_bytes()));
        let told = note.and_then(|()| record(out, ROWS, &bytes));
        return told.map_err(Stopped::Told);
    }
    drop((read, bytes));
    let middle = rows.start + rows.len() / 2;
    tell_rows(table, rows.start..middle, out)?;
    tell_rows(table, middle..rows.end, out)
}

/// Empties cells that no table can hold, and says which.
fn emptied(rows: Columns, start: usize) -> (Columns, Option<String>) {
    let (mut first, mut cells) = (None, 0_u64);
    let mut columns = rows.into_vec();
    for (name, column) in &mut columns {
        let Column::Mixed(values) = column else {
            continue;
        };
        for (row, value) in (start + 1..).zip(values) {
            if let Value::Refused(reason) = value {
                cells += 1;
                first.get_or_insert_with(|| format!("row {row}, column `{name}`: {reason}"));
                *value = Value::Null;
            }
        }
    }
    let note = first.map(|first| format!("{cells} cells are stored as null, first {first}"));
    let columns = Columns::new(columns).expect("names and lengths are as they were");
    (columns, note)
}

/// Names what of the file is not stored.
fn notes(file: &BattdatFile, battery: &BatteryEntry) -> Vec<String> {
    let problems = file.problems().iter().cloned();
    let left_out = battery.left_out.iter().chain(file.left_out());
    let left_out = left_out.map(|node| format!("not stored: {node}"));
    let tables = battery.tables.iter().filter(|table| table.name != TABLE);
    let tables =
        tables.map(|table| format!("not stored: table {} ({} rows)", table.name, table.rows));
    let others = file.batteries().iter();
    let others = others.filter(|other| other.prefix != battery.prefix);
    let others = others.filter_map(|other| other.prefix.as_deref());
    let others = others.map(|other| format!("not stored: battery `{other}` of the same file"));
    problems
        .chain(left_out)
        .chain(tables)
        .chain(others)
        .collect()
}

/// Says what is wrong; the name of the temporary file is nobody's business.
fn wrong(path: &Path, error: &BattdatError) -> Wrong {
    let text = ErrorChain(error).to_string();
    let field = match error {
        BattdatError::AmbiguousBattery { .. } | BattdatError::UnknownBattery { .. } => {
            Some("prefix".to_owned())
        }
        _ => None,
    };
    Wrong {
        text: text.replace(&path.display().to_string(), "the file"),
        field,
    }
}

fn record(out: &mut impl Write, kind: u8, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    out.write_all(&[kind])?;
    out.write_all(&length.to_le_bytes())?;
    out.write_all(bytes)?;
    out.flush()
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("texts and numbers can be written as JSON")
}
