//! `rovicli nats`: who may do what on the bus.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use anyhow::Result;
use clap::Subcommand;
use rovi_common::auth::role::Word;

use crate::bus_credentials::{BusCredentials, USERS_FILE};

/// Arguments of `rovicli nats`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Makes the credentials of hub, twin, operator and administrator, and the settings by which
    /// the server knows them; what is there already is kept.
    Credentials {
        /// The folder; it is made where it is missing.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Makes one more, for who may hear the states of this tenant's batteries and nothing else.
        /// May stand many times.
        #[arg(long = "reader", value_name = "TENANT")]
        readers: Vec<Word>,
    },
}

pub(super) fn run(args: &Args) -> Result<()> {
    let Task::Credentials { out, readers } = &args.task;
    let made = BusCredentials::bring_up_to_date(out, readers)?;
    let mut lines = io::stdout();
    for (party, is_new) in &made.parties {
        let file = made.seed_file(party);
        let what = if *is_new { "made" } else { "kept" };
        writeln!(lines, "{what}  {party:<16}{}", file.display())?;
    }
    writeln!(
        lines,
        "wrote {}, for the server's settings to include",
        out.join(USERS_FILE).display()
    )?;
    Ok(())
}
