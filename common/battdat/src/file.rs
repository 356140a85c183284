//! A battdat file: what batteries and tables it has.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use hdf5::{File, MinorErrorCode};

use crate::{
    attributes,
    column::{ColumnInfo, LeftOut},
    error::BattdatError,
    scan,
    table::Table,
};

/// Room for unpacked chunks of one table, in bytes. Too small, and a chunk is unpacked again for
/// every part of it that is read; it is allocated only as far as chunks are that large.
const CHUNK_CACHE_BYTES: usize = 16 << 20;

/// One table of a battery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableEntry {
    /// Its name, such as `raw_data`.
    pub name: String,
    /// How many rows it has.
    pub rows: usize,
    /// The columns that can be read, in the order of the file.
    pub columns: Vec<ColumnInfo>,
}

/// One battery of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatteryEntry {
    /// The group that the battery is stored in; `None` for the tables at the root.
    pub prefix: Option<String>,
    /// Its tables, by name.
    pub tables: Vec<TableEntry>,
    /// Nodes and columns beside them that are not read.
    pub left_out: Vec<LeftOut>,
    /// Metadata stored in the battery's own group, as battdat's streaming writer does.
    pub metadata_json: Option<String>,
}

/// An open battdat file.
#[derive(Debug)]
pub struct BattdatFile {
    path: PathBuf,
    file: File,
    metadata: Option<String>,
    version: Option<String>,
    batteries: Vec<BatteryEntry>,
    left_out: Vec<LeftOut>,
    problems: Vec<String>,
}

impl BattdatFile {
    /// Opens a file for reading and lists what is in it; reads no rows.
    ///
    /// # Errors
    /// - `Io`: the file is missing, a folder, or may not be read.
    /// - `NotHdf5`, `Truncated`, `InUse`: as they say.
    /// - `NoTables`: it is HDF5, but no battery is in it.
    /// - `Hdf5`: libhdf5 failed otherwise.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, BattdatError> {
        let path = path.as_ref();
        let file = open_hdf5(path)?;
        let mut problems = Vec::new();
        let metadata = read_metadata(&file, &mut problems);
        let version = attributes::read_text(&file, "battdat_version").unwrap_or_default();
        let scanned = scan::file(&file).map_err(BattdatError::hdf5(path, "list its contents"))?;
        problems.extend(scanned.problems);
        if scanned.batteries.is_empty() {
            return Err(BattdatError::NoTables {
                path: path.to_owned(),
                found_instead: scanned.left_out.iter().map(ToString::to_string).collect(),
            });
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            metadata,
            version,
            batteries: scanned.batteries,
            left_out: scanned.left_out,
            problems,
        })
    }

    /// Returns the path the file was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the metadata of all batteries in the file, as stored; it need not be JSON, which
    /// is then one of [`BattdatFile::problems`].
    pub fn metadata_json(&self) -> Option<&str> {
        self.metadata.as_deref()
    }

    /// Returns the version of battery-data-toolkit that wrote the file.
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// Returns the batteries; at least one, that of the root first.
    pub fn batteries(&self) -> &[BatteryEntry] {
        &self.batteries
    }

    /// Returns nodes of the file that belong to no battery and are not read.
    pub fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }

    /// Returns what is wrong with the file without keeping it from being read, one sentence each.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// Finds a battery. Without a prefix (or with `""` or `"/"`) it is that of the root, or else
    /// the only one.
    ///
    /// # Errors
    /// - `UnknownBattery`: no battery has this prefix.
    /// - `AmbiguousBattery`: no prefix was given, and there are several.
    pub fn battery(&self, prefix: Option<&str>) -> Result<&BatteryEntry, BattdatError> {
        let prefix = prefix.map(|prefix| prefix.trim_matches('/'));
        let prefix = prefix.filter(|prefix| !prefix.is_empty());
        let found = self
            .batteries
            .iter()
            .find(|battery| battery.prefix.as_deref() == prefix);
        match (found, prefix, self.batteries.as_slice()) {
            (Some(battery), _, _) | (None, None, [battery]) => Ok(battery),
            (None, None, _) => Err(BattdatError::AmbiguousBattery {
                path: self.path.clone(),
                prefixes: self.prefixes(),
            }),
            (None, Some(prefix), _) => Err(BattdatError::UnknownBattery {
                path: self.path.clone(),
                prefix: prefix.to_owned(),
                prefixes: self.prefixes(),
            }),
        }
    }

    /// Opens a table of a battery; see [`BattdatFile::battery`] for the prefix.
    ///
    /// # Errors
    /// - `UnknownBattery`, `AmbiguousBattery`: the battery cannot be told.
    /// - `UnknownTable`: the battery has no table of this name.
    /// - `UnreadableFilter`: its compression is not available here.
    /// - `NoReadableColumn`: every column was left out.
    /// - `Hdf5`: libhdf5 failed otherwise.
    pub fn table(&self, prefix: Option<&str>, name: &str) -> Result<Table, BattdatError> {
        let battery = self.battery(prefix)?;
        let prefix = battery.prefix.as_deref();
        let Some(entry) = battery.tables.iter().find(|table| table.name == name) else {
            return Err(BattdatError::UnknownTable {
                path: self.path.clone(),
                prefix: battery.prefix.clone(),
                table: name.to_owned(),
                tables: battery
                    .tables
                    .iter()
                    .map(|table| table.name.clone())
                    .collect(),
            });
        };
        let node = node_path(prefix, name);
        let dataset = self
            .file
            .dataset(&node)
            .map_err(BattdatError::hdf5(&self.path, format!("open table {node}")))?;
        Table::open(&self.path, node, dataset, entry.columns.clone())
    }

    fn prefixes(&self) -> Vec<String> {
        let prefixes = self.batteries.iter();
        prefixes
            .filter_map(|battery| battery.prefix.clone())
            .collect()
    }
}

/// Returns the path of a node of a battery.
pub(crate) fn node_path(prefix: Option<&str>, name: &str) -> String {
    prefix.map_or_else(|| format!("/{name}"), |prefix| format!("/{prefix}/{name}"))
}

/// Opens the HDF5 file, telling apart the ways in which that fails.
fn open_hdf5(path: &Path) -> Result<File, BattdatError> {
    let io_error = |source| BattdatError::Io {
        path: path.to_owned(),
        source,
    };
    // Missing files and forbidden ones have better words from the system than from libhdf5.
    let opened = fs::File::open(path).map_err(io_error)?;
    if opened.metadata().map_err(io_error)?.is_dir() {
        return Err(io_error(io::ErrorKind::IsADirectory.into()));
    }
    File::with_options()
        .with_fapl(|plist| plist.chunk_cache(521, CHUNK_CACHE_BYTES, 1.0))
        .open(path)
        .map_err(|source| {
            let path = path.to_owned();
            let is = |code| source.contains_minor(code);
            if is(MinorErrorCode::NotHdf5) {
                BattdatError::NotHdf5 { path }
            } else if is(MinorErrorCode::Truncated) {
                BattdatError::Truncated { path }
            } else if is(MinorErrorCode::CantLockFile) {
                BattdatError::InUse { path }
            } else {
                BattdatError::hdf5(&path, "open it as HDF5")(source)
            }
        })
}

/// Reads the file's metadata, noting what is wrong with it.
fn read_metadata(file: &File, problems: &mut Vec<String>) -> Option<String> {
    let metadata = match attributes::read_text(file, "metadata") {
        Ok(Some(text)) => text,
        Ok(None) => {
            problems.push("the file has no metadata (attribute `metadata` of the root)".to_owned());
            return None;
        }
        Err(error) => {
            problems.push(format!("the file's metadata cannot be read: {error}"));
            return None;
        }
    };
    match serde_json::from_str::<serde_json::Value>(&metadata) {
        Ok(value) if value.is_object() => {}
        Ok(_) => problems.push("the file's metadata is not a JSON object".to_owned()),
        Err(error) => problems.push(format!("the file's metadata is not JSON: {error}")),
    }
    Some(metadata)
}
