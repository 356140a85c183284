//! What is asked of history over HTTP; see `docs/PROTOCOL.md`.

pub(super) mod export_rows;
pub(super) mod question;
pub(super) mod read_rows;
pub(super) mod read_statistics;
pub(super) mod signals;

mod open;
mod pairs;
