//! Writes battdat files in `PyTables`' layout.

use std::path::{Path, PathBuf};

use hdf5::{File, Group};

use crate::{attributes, column::ColumnInfo, error::BattdatError, table_writer::TableWriter};

/// The version of battery-data-toolkit whose layout is written.
pub const BATTDAT_VERSION: &str = "0.4.6";

/// The longest text of an attribute, in bytes: an HDF5 object header holds 64 KiB.
pub(crate) const MAX_ATTRIBUTE_BYTES: usize = 64_000;

/// A battdat file being written. What is not finished may be lost: end with
/// [`BattdatWriter::finish`].
#[derive(Debug)]
pub struct BattdatWriter {
    path: PathBuf,
    file: File,
}

impl BattdatWriter {
    /// Makes a new file with the metadata of its batteries (battdat's `BatteryMetadata`).
    ///
    /// # Errors
    /// - `Metadata`: `metadata_json` is not a JSON object, or longer than 64 000 bytes.
    /// - `Exists`: there is a file of this name; it is left as it is.
    /// - `Hdf5`: the file cannot be made.
    pub fn create(path: impl AsRef<Path>, metadata_json: &str) -> Result<Self, BattdatError> {
        let path = path.as_ref().to_owned();
        if let Some(reason) = metadata_problem(metadata_json) {
            return Err(BattdatError::Metadata { path, reason });
        }
        if path.exists() {
            return Err(BattdatError::Exists { path });
        }
        let file =
            File::create_excl(&path).map_err(BattdatError::hdf5(&path, "make the HDF5 file"))?;
        write_file_attributes(&file, metadata_json)
            .map_err(BattdatError::hdf5(&path, "write the metadata"))?;
        Ok(Self { path, file })
    }

    /// Begins a table of a battery, with the columns that its rows have, each in this order.
    ///
    /// The cells of an array column (`name[0]`, `name[1]` … side by side, all expanded from
    /// `name`) are written as one array again. Without prefix the table is at the root.
    ///
    /// # Errors
    /// - `Name`: the prefix or the name cannot be used in HDF5.
    /// - `Columns`: there is no column, one stands twice, or the table exists already.
    /// - `Hdf5`: libhdf5 failed.
    pub fn table(
        &mut self,
        prefix: Option<&str>,
        name: &str,
        columns: &[ColumnInfo],
    ) -> Result<TableWriter<'_>, BattdatError> {
        for name in prefix.into_iter().chain([name]) {
            if name.is_empty() || name == "." || name.contains(['/', '\0']) {
                return Err(BattdatError::Name {
                    path: self.path.clone(),
                    name: name.to_owned(),
                });
            }
        }
        let group = self.group(prefix).map_err(BattdatError::hdf5(
            &self.path,
            format!("make room for table {name}"),
        ))?;
        TableWriter::begin(&self.path, group, name, columns)
    }

    /// Writes all that is still in memory and closes the file.
    ///
    /// # Errors
    /// - `Hdf5`: the file could not be written to its end, as on a full disk.
    pub fn finish(self) -> Result<(), BattdatError> {
        let finish = |source| BattdatError::hdf5(&self.path, "finish the file")(source);
        self.file.flush().map_err(finish)?;
        self.file.close().map_err(finish)
    }

    /// Returns the group of a battery, made where it is missing.
    fn group(&self, prefix: Option<&str>) -> hdf5::Result<Group> {
        let Some(prefix) = prefix else {
            return self.file.group("/");
        };
        if self.file.link_exists(prefix) {
            return self.file.group(prefix);
        }
        let group = self.file.create_group(prefix)?;
        write_group_attributes(&group)?;
        Ok(group)
    }
}

fn metadata_problem(metadata_json: &str) -> Option<String> {
    if metadata_json.len() > MAX_ATTRIBUTE_BYTES {
        let found = metadata_json.len();
        return Some(format!(
            "it has {found} bytes; at most {MAX_ATTRIBUTE_BYTES} fit"
        ));
    }
    match serde_json::from_str::<serde_json::Map<_, serde_json::Value>>(metadata_json) {
        Ok(_) if metadata_json.contains('\0') => Some("it has a NUL character".to_owned()),
        Ok(_) => None,
        Err(error) => Some(format!("it is not a JSON object: {error}")),
    }
}

/// `PyTables` opens a file by these; battdat reads the metadata and its own version.
fn write_file_attributes(file: &File, metadata_json: &str) -> hdf5::Result<()> {
    write_group_attributes(file)?;
    attributes::write_text(file, "PYTABLES_FORMAT_VERSION", "2.1")?;
    attributes::write_text(file, "metadata", metadata_json)?;
    attributes::write_text(file, "battdat_version", BATTDAT_VERSION)
}

fn write_group_attributes(group: &Group) -> hdf5::Result<()> {
    attributes::write_text(group, "CLASS", "GROUP")?;
    attributes::write_text(group, "TITLE", "")?;
    attributes::write_text(group, "VERSION", "1.0")
}
