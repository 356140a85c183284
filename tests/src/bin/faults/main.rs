//! `make faults`: real stacks, a fault in each, and the whole log of acknowledgements compared
//! with the tables and the stream.
//!
//! Every cycle prints its seed; `--seed` and `--only` run one again.

#![expect(clippy::print_stdout, reason = "it tells what it does")]

use std::{process::ExitCode, time::Instant};

use clap::{Parser, ValueEnum as _};
use system_tests::fault::Fault;

/// What to try.
#[derive(Debug, clap::Parser)]
struct Args {
    /// Rounds through the faults.
    #[arg(long, default_value_t = 1)]
    cycles: u64,
    /// Seed of the first round; each further one has the next.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only these faults.
    #[arg(long, value_enum, num_args = 1..)]
    only: Vec<Fault>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let faults = if args.only.is_empty() {
        Fault::value_variants().to_vec()
    } else {
        args.only
    };
    let mut failed = Vec::new();
    for seed in (args.seed..).take(usize::try_from(args.cycles).unwrap_or(usize::MAX)) {
        for fault in &faults {
            let name = fault.to_possible_value().unwrap_or_default();
            let name = name.get_name().to_owned();
            let begun = Instant::now();
            // What panics in a trial costs only that trial.
            let trial = tokio::task::LocalSet::new();
            let fault = *fault;
            let running = trial.run_until(async move {
                tokio::task::spawn_local(async move { fault.trial(seed).await }).await
            });
            let told = match running.await {
                Ok(Ok(seen)) => format!("{seen:?}"),
                Ok(Err(error)) => {
                    failed.push(format!("--seed {seed} --only {name}"));
                    format!("FAILED: {error:#}")
                }
                Err(panic) => {
                    failed.push(format!("--seed {seed} --only {name}"));
                    format!("FAILED: {panic}")
                }
            };
            println!(
                "{name:20} seed {seed:4} {:5.1} s  {told}",
                begun.elapsed().as_secs_f64()
            );
        }
    }
    if failed.is_empty() {
        println!("nothing was lost");
        return ExitCode::SUCCESS;
    }
    println!("{} failed; again with:", failed.len());
    for one in failed {
        println!("  {one}");
    }
    ExitCode::FAILURE
}
