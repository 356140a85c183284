//! The rows of a file that are to be sent.

use std::path::Path;

use anyhow::{Result, anyhow, ensure};
use rovi_battdat::{BattdatError, BattdatFile, BatteryEntry, ColumnInfo, Table};
use rovi_common::rows::Columns;
use serde_json::{Map, Value};
use tokio::sync::mpsc;

/// The table that is sent.
const TABLE: &str = "raw_data";
/// The column that tells when rows were measured, in s.
pub(super) const TIME_COLUMN: &str = "test_time";
/// Rows read at a time: many where they leave at once, few where they leave one by one.
const ROWS_AT_ONCE: usize = 8192;
const PACED_ROWS: usize = 1024;
/// Batches read ahead.
const BATCHES_AHEAD: usize = 2;

/// A table of a battery, and what people should know of it.
#[derive(Debug)]
pub(super) struct Source {
    table: Table,
    /// Rows to be sent.
    pub(super) rows: usize,
    /// Identifies the content.
    pub(super) fingerprint: [u8; 32],
    pub(super) prefix: Option<String>,
    pub(super) metadata: Option<String>,
    /// Names and rows of the battery's other tables.
    pub(super) others: Vec<(String, usize)>,
    /// Units and descriptions of columns, as the hub takes them.
    pub(super) meanings: Map<String, Value>,
    /// What is left out or changed, a sentence each.
    pub(super) notes: Vec<String>,
    batch_rows: usize,
}

impl Source {
    /// Opens a file and reads it once, for its fingerprint.
    pub(super) fn open(
        path: &Path,
        prefix: Option<&str>,
        max_rows: Option<usize>,
        paced: bool,
    ) -> Result<Self> {
        let file = BattdatFile::open(path)?;
        let battery = choose_battery(&file, prefix)?;
        let prefix = battery.prefix.as_deref();
        let table = file.table(prefix, TABLE)?;
        let has_time = table
            .columns()
            .iter()
            .any(|column| column.name == TIME_COLUMN);
        ensure!(
            has_time || !paced,
            "{}: table {TABLE} has no column `{TIME_COLUMN}` to take the pace from; \
             send it with --speedup max",
            path.display()
        );
        let mut notes = left_out(&file, battery);
        notes.extend(expanded(table.columns()));
        Ok(Self {
            rows: table.rows().min(max_rows.unwrap_or(usize::MAX)),
            fingerprint: table.fingerprint()?,
            prefix: battery.prefix.clone(),
            metadata: battery
                .metadata_json
                .as_deref()
                .or(file.metadata_json())
                .map(str::to_owned),
            others: others(battery),
            meanings: ColumnInfo::meanings(table.columns()),
            notes,
            batch_rows: if paced { PACED_ROWS } else { ROWS_AT_ONCE },
            table,
        })
    }

    /// Reads batches from row `start` on, on a thread that may block.
    pub(super) fn read_from(self, start: usize) -> mpsc::Receiver<Result<Columns, BattdatError>> {
        let (batches, reader) = mpsc::channel(BATCHES_AHEAD);
        tokio::task::spawn_blocking(move || {
            for first in (start..self.rows).step_by(self.batch_rows) {
                let end = self.rows.min(first + self.batch_rows);
                let rows = self.table.read(first..end);
                let failed = rows.is_err();
                // The receiver is gone after Ctrl-C or an error of the upload.
                if batches.blocking_send(rows).is_err() || failed {
                    return;
                }
            }
        });
        reader
    }
}

/// Finds the battery of a file; several without a choice are an error that lists them.
pub(in crate::commands) fn choose_battery<'a>(
    file: &'a BattdatFile,
    prefix: Option<&str>,
) -> Result<&'a BatteryEntry> {
    file.battery(prefix).map_err(|error| match &error {
        BattdatError::AmbiguousBattery { prefixes, .. } => {
            let first = prefixes.first().map_or("NAME", String::as_str);
            anyhow!("{error} with --prefix, such as --prefix {first}")
        }
        _ => error.into(),
    })
}

/// Names the tables beside the one that is sent row by row.
fn others(battery: &BatteryEntry) -> Vec<(String, usize)> {
    let others = battery.tables.iter().filter(|table| table.name != TABLE);
    others
        .map(|table| (table.name.clone(), table.rows))
        .collect()
}

/// Names what of the file is not sent, tables aside.
fn left_out(file: &BattdatFile, battery: &BatteryEntry) -> Vec<String> {
    let mut notes: Vec<String> = file
        .problems()
        .iter()
        .map(|text| format!("note: {text}"))
        .collect();
    let unread = battery.left_out.iter().chain(file.left_out());
    notes.extend(unread.map(|node| format!("not sent: {node}")));
    let others = file
        .batteries()
        .iter()
        .filter(|other| other.prefix != battery.prefix);
    notes.extend(others.filter_map(|other| {
        let prefix = other.prefix.as_ref()?;
        Some(format!(
            "not sent: battery `{prefix}` of the same file; see --prefix"
        ))
    }));
    notes
}

/// Names array columns and what their cells are sent as.
fn expanded(columns: &[ColumnInfo]) -> Vec<String> {
    let parts_of = |array: &str| {
        let parts = columns
            .iter()
            .filter(|part| part.expanded_from.as_deref() == Some(array));
        parts.map(|part| part.name.as_str()).collect::<Vec<_>>()
    };
    let mut arrays: Vec<&str> = columns
        .iter()
        .filter_map(|column| column.expanded_from.as_deref())
        .collect();
    arrays.dedup();
    let note = |array: &str| match parts_of(array).as_slice() {
        [only] => format!("array column `{array}` is sent as column `{only}`"),
        [first, .., last] => {
            format!("array column `{array}` is sent as columns `{first}` … `{last}`")
        }
        [] => format!("array column `{array}` is empty and not sent"),
    };
    arrays.into_iter().map(note).collect()
}

#[cfg(test)]
mod tests {
    use rovi_battdat::{BattdatWriter, ColumnKind};
    use rovi_common::rows::Column;

    use super::*;

    /// Writes tables of one integer column and three rows, each under its prefix.
    fn write(path: &Path, tables: &[(Option<&str>, &str, &[&str])]) {
        let mut file = BattdatWriter::create(path, "{}").unwrap();
        for (prefix, table, names) in tables {
            let columns: Vec<_> = names
                .iter()
                .map(|name| match name.split_once('[') {
                    Some((array, _)) => {
                        ColumnInfo::new(*name, ColumnKind::Int).with_expanded_from(array)
                    }
                    None => ColumnInfo::new(*name, ColumnKind::Int),
                })
                .collect();
            let cells = Column::Int(vec![Some(1), Some(2), Some(3)]);
            let rows = names.iter().map(|name| ((*name).to_owned(), cells.clone()));
            let mut writer = file.table(*prefix, table, &columns).unwrap();
            writer
                .append(&Columns::new(rows.collect()).unwrap())
                .unwrap();
            writer.finish().unwrap();
        }
        file.finish().unwrap();
    }

    #[test]
    fn several_batteries_without_a_prefix_are_listed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("two.h5");
        let tables: &[&str] = &["test_time"];
        write(
            &path,
            &[
                (Some("a"), "raw_data", tables),
                (Some("b"), "raw_data", tables),
            ],
        );
        let error = Source::open(&path, None, None, true)
            .unwrap_err()
            .to_string();
        assert!(error.contains("a, b"), "{error}");
        assert!(error.contains("--prefix a"), "{error}");
        let source = Source::open(&path, Some("b"), None, true).unwrap();
        assert_eq!(source.prefix.as_deref(), Some("b"));
        let notes = source.notes.join("\n");
        assert!(notes.contains("battery `a`"), "{notes}");
    }

    #[test]
    fn what_is_left_out_or_expanded_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cell.h5");
        let columns = ["test_time", "spectrum[0]", "spectrum[1]"];
        write(
            &path,
            &[
                (None, "raw_data", &columns),
                (None, "cycle_stats", &["cycle_number"]),
            ],
        );
        let source = Source::open(&path, None, Some(2), true).unwrap();
        assert_eq!(source.rows, 2);
        let notes = source.notes.join("\n");
        assert_eq!(source.others, [("cycle_stats".to_owned(), 3)]);
        assert!(
            notes.contains(
                "array column `spectrum` is sent as columns `spectrum[0]` … `spectrum[1]`"
            ),
            "{notes}"
        );
    }

    #[test]
    fn a_pace_needs_times() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cell.h5");
        write(&path, &[(None, "raw_data", &["voltage"])]);
        let error = Source::open(&path, None, None, true)
            .unwrap_err()
            .to_string();
        assert!(error.contains("--speedup max"), "{error}");
        assert!(Source::open(&path, None, None, false).is_ok());
    }

    #[tokio::test]
    async fn reading_begins_where_it_is_told_and_ends_at_max_rows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cell.h5");
        let plan = crate::simulation::Plan {
            rows: 20_000,
            ..Default::default()
        };
        crate::simulation::write_file(&plan, &path, |_| ()).unwrap();
        let source = Source::open(&path, None, Some(19_000), false).unwrap();
        let mut batches = source.read_from(5);
        let (mut rows, mut first) = (0, None);
        while let Some(batch) = batches.recv().await {
            let batch = batch.unwrap();
            first = first.or(batch.get(TIME_COLUMN).unwrap().number(0));
            rows += batch.rows();
        }
        assert_eq!((rows, first), (18_995, Some(5.0)));
    }
}
