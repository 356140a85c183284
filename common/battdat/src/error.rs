//! What can go wrong with a battdat file, in words for the person who has the file.

use std::{io, path::PathBuf};

use crate::filters::FilterName;

/// Why a battdat file could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BattdatError {
    /// No prefix was given, and the file holds several batteries.
    #[error(
        "{} holds {} batteries: {}; choose one of these prefixes",
        path.display(), prefixes.len(), prefixes.join(", ")
    )]
    AmbiguousBattery {
        /// The file.
        path: PathBuf,
        /// The prefixes to choose from.
        prefixes: Vec<String>,
    },
    /// A cell does not fit the column that it should be written to.
    #[error("{}: column `{column}`, row {row}: {reason}", path.display())]
    Cell {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// The row, counted from 0 over all that was appended.
        row: u64,
        /// What is wrong with the cell.
        reason: String,
    },
    /// The columns appended to a table are not those it was begun with.
    #[error("{}: {reason}", path.display())]
    Columns {
        /// The file.
        path: PathBuf,
        /// How they differ.
        reason: String,
    },
    /// The file to be written exists.
    #[error("{} exists already; remove it or choose another name", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The HDF5 library failed in a way not named by another variant.
    #[error("{}: cannot {action}", path.display())]
    Hdf5 {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: String,
        /// The library's reason.
        #[source]
        source: hdf5::Error,
    },
    /// Another process has the file open for writing.
    #[error(
        "{} is in use by another process; close it there, or copy the file and read the copy",
        path.display()
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be opened at all: it is missing, or it may not be read.
    #[error("cannot open {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The metadata to be written is not a JSON object or too long for an HDF5 attribute.
    #[error("{}: the metadata cannot be written: {reason}", path.display())]
    Metadata {
        /// The file to be written.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A battery or table name cannot be that of an HDF5 group.
    #[error(
        "{}: `{name}` cannot name a battery or table in HDF5: it is empty, `.`, or has a `/` or NUL",
        path.display()
    )]
    Name {
        /// The file to be written.
        path: PathBuf,
        /// The name.
        name: String,
    },
    /// The file is HDF5 but has no battdat table.
    #[error(
        "{} is an HDF5 file without battdat tables{}; write it with battery-data-toolkit's `to_hdf`",
        path.display(), found(found_instead)
    )]
    NoTables {
        /// The file.
        path: PathBuf,
        /// What is in the file instead.
        found_instead: Vec<String>,
    },
    /// The file is not HDF5.
    #[error(
        "{} is not an HDF5 file; battdat files are written by battery-data-toolkit's `to_hdf`",
        path.display()
    )]
    NotHdf5 {
        /// The file.
        path: PathBuf,
    },
    /// The table is listed, but no column of it can be read.
    #[error("{}: table {table} has no column that can be read{}", path.display(), found(left_out))]
    NoReadableColumn {
        /// The file.
        path: PathBuf,
        /// The table's path in the file.
        table: String,
        /// Columns and why each is left out.
        left_out: Vec<String>,
    },
    /// The file ends early.
    #[error("{} is cut off; copy or download it again", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
    },
    /// No battery of the file has this prefix.
    #[error("{} has no battery `{prefix}`; it has {}", path.display(), listed(prefixes))]
    UnknownBattery {
        /// The file.
        path: PathBuf,
        /// The prefix asked for.
        prefix: String,
        /// The prefixes that are there.
        prefixes: Vec<String>,
    },
    /// The battery has no such table.
    #[error(
        "{}: {} has no table `{table}`; it has {}",
        path.display(), battery(prefix.as_deref()), listed(tables)
    )]
    UnknownTable {
        /// The file.
        path: PathBuf,
        /// The battery's prefix.
        prefix: Option<String>,
        /// The table asked for.
        table: String,
        /// The tables that are there.
        tables: Vec<String>,
    },
    /// The table is compressed with a filter that this machine's HDF5 library lacks.
    #[error(
        "{}: table {table} is compressed with {filter}, which cannot be read here; \
         write it again with `to_hdf(..., complib='zlib')` or `ptrepack --complib=zlib`",
        path.display()
    )]
    UnreadableFilter {
        /// The file.
        path: PathBuf,
        /// The table's path in the file.
        table: String,
        /// The filter.
        filter: FilterName,
    },
}

impl BattdatError {
    /// Returns a `map_err` argument that says what was tried.
    pub(crate) fn hdf5(
        path: &std::path::Path,
        action: impl Into<String>,
    ) -> impl FnOnce(hdf5::Error) -> Self {
        move |source| Self::Hdf5 {
            path: path.to_owned(),
            action: action.into(),
            source,
        }
    }
}

/// Names a battery by its prefix.
fn battery(prefix: Option<&str>) -> String {
    prefix.map_or_else(|| "it".to_owned(), |prefix| format!("battery `{prefix}`"))
}

/// Lists names, or says that there are none.
fn listed(names: &[String]) -> String {
    match names {
        [] => "none".to_owned(),
        names => names.join(", "),
    }
}

/// Lists what was found, in brackets.
fn found(names: &[String]) -> String {
    match names {
        [] => String::new(),
        names => format!(" ({})", names.join("; ")),
    }
}
