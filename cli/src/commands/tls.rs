//! `rovicli tls`: an authority of one's own, and certificates for hub, twin, NATS and PostgreSQL.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use anyhow::Result;
use clap::Subcommand;

use crate::certificates::{Authority, Counts, Written};

const DAY_S: i64 = 86_400;
/// Clocks of others may be behind.
const EARLIER_S: i64 = 3600;

/// Arguments of `rovicli tls`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Makes an authority: `ca.pem` for everybody, `ca.key` for nobody but who makes certificates.
    NewCa {
        /// The folder to write into.
        folder: PathBuf,
        /// What the authority is called.
        #[arg(long, default_value = "rovi authority")]
        name: String,
        /// For how many days it counts.
        #[arg(long, value_name = "DAYS", default_value_t = 3650)]
        days: u32,
    },
    /// Makes a certificate of the folder's authority, or renews it: `<first name>.pem` and `.key`.
    NewCert {
        /// The folder with the authority, to write into.
        folder: PathBuf,
        /// Host names and IP addresses by which the server is reached.
        #[arg(required = true)]
        names: Vec<String>,
        /// For how many days it counts.
        #[arg(long, value_name = "DAYS", default_value_t = 365)]
        days: u32,
    },
}

pub(super) fn run(args: &Args) -> Result<()> {
    let mut out = io::stdout();
    let Written { cert, key } = match &args.task {
        Task::NewCa { folder, name, days } => Authority::make(folder, name, &from_now(*days))?.1,
        Task::NewCert {
            folder,
            names,
            days,
        } => Authority::open(folder)?.certify(folder, names, &from_now(*days))?,
    };
    writeln!(out, "{}\n{}", cert.display(), key.display())?;
    Ok(())
}

fn from_now(days: u32) -> Counts {
    let now = rovi_common::clock::now_us() / 1_000_000;
    now - EARLIER_S..now + i64::from(days) * DAY_S
}
