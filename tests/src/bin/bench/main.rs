//! `make bench`: the speed of the parts and of the whole, each beside its peer, in one run.
//!
//! Prints a table and writes `target/bench/summary.json`:
//! `{"name": {"value": …, "unit": …, "peer": …}}`.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![expect(clippy::cast_precision_loss, reason = "row counts are far below 2^52")]

mod copy;
mod ingest;
mod live;
mod path;
mod reduce;
mod rows;
mod summary;

use std::process::Command;

use clap::Parser as _;
use system_tests::{Stack, binary};

use crate::summary::Summary;

/// Rows of the comparison with `\copy`.
const COPY_ROWS: usize = 1_000_000;
/// Alternating pairs of upload and `\copy`; the median counts.
const COPY_PAIRS: usize = 5;
/// Frames of one row from a client that never reads.
const SINGLE_ROWS: usize = 300_000;
/// Rows through the whole path.
const PATH_ROWS: usize = 500_000;

/// What can be measured; without any, all is.
#[derive(Debug, clap::Parser)]
struct Args {
    /// Measure only these, without writing the summary.
    #[arg(value_enum)]
    only: Vec<Measurement>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Measurement {
    Filter,
    Columnar,
    Single,
    Path,
    Reduce,
    Live,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let wanted = |one| args.only.is_empty() || args.only.contains(&one);
    let mut summary = Summary::default();
    if wanted(Measurement::Filter) {
        filter_steps(&mut summary)?;
    }
    let mut stack = Stack::servers();
    stack.start_hub();
    stack.hub_ready().await;
    if wanted(Measurement::Columnar) {
        ingest::columnar_beside_copy(&stack, &mut summary, COPY_ROWS, COPY_PAIRS).await?;
    }
    if wanted(Measurement::Single) {
        ingest::single_rows(&stack, &mut summary, SINGLE_ROWS).await?;
    }
    if wanted(Measurement::Reduce) {
        reduce::reduce_beside_date_bin(&stack, &mut summary).await?;
    }
    if wanted(Measurement::Path) || wanted(Measurement::Live) {
        stack.start_twin();
        stack.ready().await;
    }
    if wanted(Measurement::Live) {
        live::everyone(&stack, &mut summary).await?;
    }
    if wanted(Measurement::Path) {
        path::rows_to_estimates(&stack, &mut summary, PATH_ROWS).await?;
    }
    if args.only.is_empty() {
        summary.write()
    } else {
        Ok(())
    }
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
