//! The launcher of scripts on its own; `twin` and `rovicli` are their own launchers.

use std::process::ExitCode;

fn main() -> ExitCode {
    rovi_python::sandbox::launch().unwrap_or(ExitCode::FAILURE)
}
