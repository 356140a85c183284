//! `make bench`: the speed of the parts and of the whole, each beside its peer, in one run.
//!
//! Prints a table and writes `target/bench/summary.json`:
//! `{"name": {"value": …, "unit": …, "peer": …}}`.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![expect(clippy::cast_precision_loss, reason = "row counts are far below 2^52")]

mod abuse;
mod alter;
mod deployed;
mod fleet;
mod ingest;
mod live;
mod path;
mod peer;
mod processor;
mod reduce;
mod replay;
mod rows;
mod secure;
mod single;
mod socket;
mod summary;
mod twins;

use std::process::Command;

use clap::Parser as _;
use system_tests::binary;

use crate::summary::Summary;

/// Rows through the whole path.
const PATH_ROWS: usize = 500_000;

/// What can be measured; without any, all is.
#[derive(Debug, clap::Parser)]
struct Args {
    /// Measure only these, without writing the summary.
    #[arg(value_enum)]
    only: Vec<Measurement>,
    /// How long the fleet's sockets are held.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Batteries of the fleet, each with a socket and a table.
    #[arg(long, default_value_t = 10_000)]
    batteries: usize,
    /// Rows of the table that is changed.
    #[arg(long, default_value_t = 10_000_000)]
    table_rows: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Measurement {
    Filter,
    Columnar,
    Relay,
    Resend,
    Secure,
    Single,
    Ack,
    Fleet,
    Fleet10k,
    Alter,
    Path,
    Replay,
    Reduce,
    Live,
    Twins,
    Abuse,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let wanted = |one| args.only.is_empty() || args.only.contains(&one);
    let mut summary = Summary::default();
    rovicli::open_files::allow(2 * args.batteries as u64)?;
    if wanted(Measurement::Filter) {
        filter_steps(&mut summary)?;
    }
    let mut stack = deployed::servers()?;
    if wanted(Measurement::Columnar) {
        ingest::columnar(&mut stack, &mut summary).await?;
    }
    if wanted(Measurement::Relay) {
        ingest::relayed(&mut stack, &mut summary).await?;
    }
    if wanted(Measurement::Resend) {
        ingest::resend(&mut stack, &mut summary).await?;
    }
    if wanted(Measurement::Secure) {
        secure::beside_plain(&mut summary).await?;
    }
    if wanted(Measurement::Single) || wanted(Measurement::Ack) {
        let half = single::beside_pgbench(&mut stack, &mut summary).await?;
        single::acknowledgements(&mut stack, &mut summary, half).await?;
    }
    if wanted(Measurement::Alter) {
        alter::stall(&mut stack, &mut summary, args.table_rows).await?;
    }
    if wanted(Measurement::Fleet) {
        // A database of its own: nothing of the measurements before is in its way.
        let mut stack = deployed::servers()?;
        fleet::one_row_each(&mut stack, &mut summary, args.batteries).await?;
    }
    if wanted(Measurement::Fleet10k) {
        let mut stack = deployed::servers()?;
        let fleet = (args.batteries, args.seconds);
        fleet::held(&mut stack, &mut summary, fleet).await?;
    }
    if wanted(Measurement::Reduce) {
        let mut stack = deployed::servers()?;
        stack.start_hub();
        stack.hub_ready().await;
        reduce::reduce_beside_date_bin(&stack, &mut summary).await?;
    }
    if wanted(Measurement::Live) {
        let stack = deployed::start().await?;
        live::everyone(&stack, &mut summary).await?;
    }
    if wanted(Measurement::Twins) {
        twins::fleet(&mut summary, (args.batteries, args.seconds)).await?;
    }
    if wanted(Measurement::Abuse) {
        let mut stack = deployed::servers()?;
        abuse::good_beside_bad(&mut stack, &mut summary).await?;
    }
    estimation(&wanted, &mut summary).await?;
    if args.only.is_empty() {
        summary.write()
    } else {
        Ok(())
    }
}

/// What a twin does with rows that are there, and with those that come.
async fn estimation(
    wanted: &impl Fn(Measurement) -> bool,
    summary: &mut Summary,
) -> anyhow::Result<()> {
    if wanted(Measurement::Replay) {
        let stack = deployed::start().await?;
        replay::history(&stack, summary).await?;
    }
    if wanted(Measurement::Path) {
        let mut stack = deployed::start().await?;
        path::rows_to_estimates(&mut stack, summary, PATH_ROWS).await?;
    }
    Ok(())
}

/// Steps a second of the filter alone, measured by the example of `rovi-estimation`.
fn filter_steps(summary: &mut Summary) -> anyhow::Result<()> {
    let output = Command::new(binary("examples/ukf_speed")).output()?;
    let speeds: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&output.stdout)?;
    for (name, value) in speeds {
        let value = value.as_f64().unwrap_or(f64::NAN);
        let peer = (name == "ukf4_steps_per_s").then_some("the origin's Moirae: 1,864 steps/s");
        summary.add(&name, value, "steps/s on one core", peer.unwrap_or("-"));
    }
    Ok(())
}
