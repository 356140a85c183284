//! Real scripts in real processes.

#[cfg(test)]
mod escape;
#[cfg(test)]
mod estimate;
#[cfg(test)]
mod faults;

use std::{path::PathBuf, time::Duration};

use rovi_common::rows::{Column, Columns};
use rovi_python::{Cancel, Limits, Python, Script, Session, SessionError, Settings, Start};

/// The ten lines of `docs/ESTIMATORS.md`.
pub(crate) const PLAIN: &str = include_str!("../plain.py");

/// The settings of a test: short limits, and the launcher that this package builds.
pub(crate) fn settings() -> Settings {
    Settings {
        launcher: Some(PathBuf::from(env!("CARGO_BIN_EXE_rovi-python"))),
        limits: Limits {
            start_timeout: Duration::from_mins(5),
            batch_timeout: Duration::from_mins(5),
            ..Limits::default()
        },
        ..Settings::default()
    }
}

/// Returns the interpreter of a test.
pub(crate) fn python() -> Python {
    Python::new(settings()).expect("threads can be made")
}

/// Returns a script without files.
pub(crate) fn script(definition: &str) -> Script {
    Script::new(definition, Vec::new(), 0.0).expect("there are no files")
}

/// Starts a script without files or a state.
///
/// # Errors
/// As the session's.
pub(crate) fn start(python: &Python, definition: &str) -> Result<Session, SessionError> {
    Session::start(
        python,
        &script(definition),
        Start::default(),
        Cancel::default(),
    )
}

/// Rows with these times, and a voltage that rises with them.
pub(crate) fn rows(times: &[f64]) -> Columns {
    let column = |value: fn(f64) -> f64| {
        Column::Float(times.iter().map(|&time| Some(value(time))).collect())
    };
    Columns::new(vec![
        ("test_time".to_owned(), column(|time| time)),
        ("current".to_owned(), column(|_| 1.0)),
        ("voltage".to_owned(), column(|time| 3.5 + 1e-3 * time)),
    ])
    .expect("the columns have different names and one length")
}
