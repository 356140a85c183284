//! `rovicli credentials`: what the containers of a stack need at their first start.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use anyhow::Result;
use url::Url;

use crate::first_start::FirstStart;

/// Arguments of `rovicli credentials`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The folder, in which each container has one of its own; what is there already is kept.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// URL of a hub for which `rovicli` shall find the admin's token. May stand many times.
    #[arg(long = "hub", value_name = "URL")]
    hubs: Vec<Url>,
    /// The password of a database that is there already, taken at the first start.
    #[arg(
        long,
        env = "POSTGRES_PASSWORD",
        hide_env_values = true,
        value_name = "PASSWORD"
    )]
    postgres_password: Option<String>,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let password = args.postgres_password.as_deref();
    let password = password.filter(|password| !password.is_empty());
    FirstStart::prepare(&args.out, &args.hubs, password)?;
    // Whatever is printed here stays in the containers' log: no secrets.
    writeln!(
        io::stdout(),
        "The credentials are in {}; that of the admin is admin/admin.token",
        args.out.display()
    )?;
    Ok(())
}
