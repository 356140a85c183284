//! The other tables of a file, which go to the hub as they are.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rovi_battdat::BattdatFile;
use rovi_common::{name::BatteryName, rows::Columns};

use crate::hub::Hub;

/// Stores one table of a battery in the file.
pub(super) async fn store(
    hub: &Hub,
    battery: &BatteryName,
    file: &Path,
    (prefix, name): (Option<&str>, &str),
) -> Result<()> {
    let (file, prefix, table) = (file.to_owned(), prefix.map(str::to_owned), name.to_owned());
    let reading = tokio::task::spawn_blocking(move || read(&file, prefix.as_deref(), &table));
    let columns = reading.await.context("reading the file was broken off")??;
    hub.store_table(battery, name, &columns)
        .await
        .with_context(|| format!("table {name} was not stored"))
}

fn read(file: &PathBuf, prefix: Option<&str>, name: &str) -> Result<Columns> {
    let table = BattdatFile::open(file)?.table(prefix, name)?;
    let rows = 0..table.rows();
    Ok(table.read(rows)?)
}
