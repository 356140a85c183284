//! `rovicli estimator`: runs estimators over a file, on this machine and without services.

mod check;
mod compare;
mod dump;
mod figures;
mod run;
mod source;

use std::path::PathBuf;

use anyhow::Result;
use rovi_python::{Sandbox, Settings};

/// Arguments of `rovicli estimator`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Runs an estimator over a file and shows what it says and whether it knows its errors.
    Check(check::Args),
    /// Runs two estimators over a file, side by side.
    Compare(compare::Args),
}

/// The rows, and how scripts are run.
#[derive(Debug, clap::Args)]
struct Common {
    /// The rows: a battdat file, or CSV with the columns `test_time`, `current`, `voltage` and perhaps `temperature`.
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Which battery of a battdat file that holds several.
    #[arg(long)]
    prefix: Option<String>,
    /// Uses the first N rows only.
    #[arg(long, value_name = "N", default_value_t = usize::MAX, hide_default_value = true)]
    rows: usize,
    /// Files that a script reads.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    files: Vec<PathBuf>,
    /// Span of history in seconds that a script's offline estimation gets, or for which a document whose `initialise`
    /// does not say gathers rows.
    #[arg(long, value_name = "S", default_value_t = 0.0)]
    required_time: f64,
    /// The interpreter of scripts.
    #[arg(long, value_name = "PROGRAM", default_value = "python3")]
    python: PathBuf,
    /// Runs scripts without the sandbox.
    #[arg(long)]
    no_sandbox: bool,
}

impl Common {
    fn python(&self) -> Settings {
        let sandbox = if self.no_sandbox {
            Sandbox::Off
        } else {
            Sandbox::Required
        };
        Settings {
            interpreter: self.python.clone(),
            sandbox,
            ..Settings::default()
        }
    }
}

pub(super) fn run(args: &Args) -> Result<()> {
    match &args.command {
        Command::Check(args) => check::run(args),
        Command::Compare(args) => compare::run(args),
    }
}
