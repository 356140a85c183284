//! Command `rovicli`.

use std::process::ExitCode;

use clap::Parser;
use rovicli::commands::Cli;

fn main() -> ExitCode {
    // The program starts itself again as the launcher of a script.
    rovi_python::sandbox::launch().unwrap_or_else(|| rovicli::commands::run(Cli::parse()))
}
