//! battdat's HDF5, which can only be sent once it is complete: written into a temporary folder.
//!
//! The table `raw_data` has the columns alone, so that a file that was streamed in comes out as it
//! was; timestamps are UNIX time in seconds, and HDF5 has no null (see `TableWriter::append`).

use std::path::Path;

use rovi_battdat::{BattdatError, BattdatWriter, ColumnInfo, ColumnKind};
use tokio::sync::mpsc;

use crate::{
    history::picks::Picks,
    store::{rows::Selected, tables::ColumnType},
};

/// battdat's name of the table of rows.
const TABLE: &str = "raw_data";

/// Writes pages as they come into a new file; returns the number of rows. Blocks.
///
/// # Errors
/// The disk is full, or a cell does not fit its column; names the file and the place.
pub(crate) fn write(
    path: &Path,
    metadata: &str,
    picks: &Picks,
    mut pages: mpsc::Receiver<Selected>,
) -> Result<usize, BattdatError> {
    let mut file = BattdatWriter::create(path, metadata)?;
    let mut table = file.table(None, TABLE, &columns(picks))?;
    while let Some(page) = pages.blocking_recv() {
        table.append(&page.columns)?;
    }
    let rows = table.finish()?;
    file.finish()?;
    Ok(rows)
}

/// Describes the columns as battdat does in a table's attribute.
pub(crate) fn table_metadata(picks: &Picks) -> String {
    rovi_battdat::table_metadata(TABLE, &columns(picks))
}

fn columns(picks: &Picks) -> Vec<ColumnInfo> {
    let mut columns: Vec<ColumnInfo> = picks
        .iter()
        .map(|pick| {
            let kind = match pick.kind {
                ColumnType::Bool => ColumnKind::Bool,
                ColumnType::Int => ColumnKind::Int,
                ColumnType::Float | ColumnType::Time => ColumnKind::Float,
                ColumnType::Text | ColumnType::Foreign(_) => ColumnKind::Text,
            };
            let column = ColumnInfo::new(pick.name, kind);
            match pick.unit {
                Some(unit) => column.with_unit(unit),
                None => column,
            }
        })
        .collect();
    ColumnInfo::join_arrays(&mut columns);
    columns
}
