//! Reads and writes HDF5 files of battery-data-toolkit ("battdat", versions 0.4.x).
//!
//! Any battdat file opens without knowing its columns before: they, their types and their units
//! come from the file. What cannot be read is left out by name and reason, never silently and
//! never with a panic. Written files are in `PyTables`' layout and open with the toolkit itself.
//!
//! This is the only crate that links libhdf5. Every call into it takes one process-wide lock and
//! may block on the disk: asynchronous callers use a blocking thread.
//!
//! What is not promised: safety against files made to attack libhdf5 itself. Tables whose rows lie
//! in other files are left out, so a file cannot show what else is on the disk.
//!
//! ```no_run
//! # fn main() -> Result<(), rovi_battdat::BattdatError> {
//! let file = rovi_battdat::BattdatFile::open("cell.h5")?;
//! let table = file.table(None, "raw_data")?;
//! for rows in table.chunks() {
//!     println!("{} rows of {:?}", rows?.rows(), table.columns());
//! }
//! # Ok(())
//! # }
//! ```

mod file;
mod table;

mod table_writer;
mod writer;

mod column;
mod error;
mod filters;

mod attributes;
mod cells;
mod encode;
mod layout;
mod raw;
mod scan;
mod schema;

mod session;

pub use column::{ColumnInfo, ColumnKind, LeftOut};
pub use error::BattdatError;
pub use file::{BattdatFile, BatteryEntry, TableEntry};
pub use filters::FilterName;
pub use schema::write as table_metadata;
pub use session::session;
pub use table::{CHUNK_ROWS, Chunks, Table};
pub use table_writer::TableWriter;
pub use writer::{BATTDAT_VERSION, BattdatWriter};
