//! `rovicli estimator`: runs estimators over a file, on this machine and without services, and
//! commands registered ones.

mod backtest;
mod check;
mod compare;
mod control;
mod dump;
mod figures;
mod run;
mod source;

use std::path::PathBuf;

use anyhow::Result;
use rovi_python::{Sandbox, Settings};

use crate::hub::Hub;

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
    /// Runs a candidate over a battery's stored rows and compares it with the champion.
    Backtest(backtest::Args),
    /// Makes a registered estimator, or the candidate of a backtest, the champion.
    Promote(control::PromoteArgs),
    /// Has an estimator take no rows until it is resumed.
    Pause(control::Args),
    /// Has an estimator go on behind the last row it took.
    Resume(control::Args),
    /// Has an estimator start anew from the first row.
    Reset(control::Args),
    /// Removes an estimator; its estimates stay.
    Remove(control::Args),
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

pub(super) async fn run(hub: Result<Hub>, args: Args) -> Result<()> {
    match args.command {
        Command::Check(args) => check::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Backtest(args) => backtest::run(&hub?, args).await,
        Command::Promote(args) => control::promote(&hub?, &args).await,
        Command::Pause(args) => control::control(&hub?, &args, "pause").await,
        Command::Resume(args) => control::control(&hub?, &args, "resume").await,
        Command::Reset(args) => control::control(&hub?, &args, "reset").await,
        Command::Remove(args) => control::remove(&hub?, &args).await,
    }
}
