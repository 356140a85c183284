//! `rovicli delete BATTERY`: ends a battery, after its name was typed once more.

use std::io::{BufRead, Write, stderr, stdin};

use anyhow::{Context, Result, ensure};
use rovi_common::name::BatteryName;

use crate::hub::Hub;

/// Arguments of `rovicli delete`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The battery.
    battery: BatteryName,
    /// Drops its tables instead of keeping them as `<name>@<epoch>`.
    #[arg(long)]
    drop: bool,
    /// Does not ask for the name once more.
    #[arg(long)]
    yes: bool,
}

#[expect(clippy::print_stdout, reason = "this is the output")]
pub(super) async fn run(hub: &Hub, args: &Args) -> Result<()> {
    let battery = &args.battery;
    if !args.yes {
        let told = hub.what_deleting_means(battery).await?;
        let typed = tokio::task::spawn_blocking(move || ask(&told)).await??;
        let is_meant = typed.trim() == battery.as_str();
        ensure!(
            is_meant,
            "nothing was deleted: {:?} is not {battery}",
            typed.trim()
        );
    }
    let kept_as = hub.delete(battery, args.drop).await?;
    println!("deleted {battery}");
    for table in kept_as {
        println!("its table is kept as {table}");
    }
    Ok(())
}

fn ask(told: &str) -> Result<String> {
    let mut out = stderr();
    write!(out, "{told}\nType the battery's name to delete it: ")?;
    out.flush()?;
    let mut typed = String::new();
    stdin()
        .lock()
        .read_line(&mut typed)
        .context("the name cannot be read; say --yes where nobody can type")?;
    Ok(typed)
}
