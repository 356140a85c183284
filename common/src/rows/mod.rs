//! Rows of a battery as typed columns: what an upload is decoded into, what is stored, and what
//! travels in frames.

mod alike;
mod cell;
mod column;
mod columns;
pub mod packed;
mod refusal;
mod shared_names;
mod value;

pub use cell::Cell;
pub use column::Column;
pub use columns::{Columns, ColumnsError};
pub use refusal::Refusal;
pub use shared_names::SharedNames;
pub use value::{BIG_INTEGER, Value, timestamp_us};
