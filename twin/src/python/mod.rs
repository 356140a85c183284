//! Estimators that are Python scripts: what `rovi_python` runs, driven by frames.

mod filter;
mod source;

pub use filter::{PythonFilter, PythonState};
pub use source::ScriptSource;
