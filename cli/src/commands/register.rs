//! `rovicli register BATTERY VALID_FROM DEFINITION`: registers an estimator.

use std::path::PathBuf;

use anyhow::{Context, Result};
use rovi_common::name::{BatteryName, EstimatorName};

use crate::hub::{Hub, NewEstimator, read_attachment};

/// Arguments of `rovicli register`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The battery, which the hub must know.
    battery: BatteryName,
    /// Rows with `test_time` below this, in seconds, are not used.
    #[arg(allow_negative_numbers = true)]
    valid_from: f64,
    /// The estimator: a native document (JSON) or a Python script.
    definition: PathBuf,
    /// Files that the script reads.
    files: Vec<PathBuf>,
    /// Span of history in seconds that the script's offline estimation gets before its estimator is made.
    #[arg(long, value_name = "S", default_value_t = 0.0)]
    required_time: f64,
    /// Name of the estimator; one of this name that is there already is replaced.
    #[arg(long, value_name = "NAME", default_value_t)]
    estimator: EstimatorName,
}

#[expect(clippy::print_stdout, reason = "this is the output")]
pub(super) async fn run(hub: &Hub, args: Args) -> Result<()> {
    let definition = std::fs::read_to_string(&args.definition)
        .with_context(|| format!("cannot read {}", args.definition.display()))?;
    let files = args.files.iter().map(|path| read_attachment(path));
    let new = NewEstimator {
        battery: args.battery.clone(),
        estimator: args.estimator.clone(),
        valid_from: args.valid_from,
        required_time: args.required_time,
        definition,
        files: files.collect::<Result<_>>()?,
    };
    let answer = hub
        .register_estimator(new)
        .await
        .with_context(|| format!("{} was not registered", args.definition.display()))?;
    println!("registered {answer}");
    Ok(())
}
