//! Command `rovicli`.

use std::process::ExitCode;

use clap::Parser;
use rovicli::commands::Cli;

fn main() -> ExitCode {
    rovicli::commands::run(Cli::parse())
}
