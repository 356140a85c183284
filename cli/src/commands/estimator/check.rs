//! `rovicli estimator check DEFINITION --data FILE`: one estimator over a file.

use std::{path::PathBuf, time::Instant};

use anyhow::{Result, ensure};
use rovi_estimation::Found;
use rovi_python::Belief;

use super::{Common, dump::Dump, figures::Figures, run::Run, source::Source};

/// Arguments of `rovicli estimator check`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The estimator: a native document (JSON) or a Python script.
    definition: PathBuf,
    #[command(flatten)]
    common: Common,
    /// Writes every estimate into this CSV file.
    #[arg(long, value_name = "FILE")]
    dump: Option<PathBuf>,
}

#[expect(clippy::print_stdout, reason = "this is the output")]
pub(super) fn run(args: &Args) -> Result<()> {
    let mut source = Source::open(&args.common)?;
    let mut run = Run::start(&args.definition, &args.common, source.metadata.as_deref())?;
    let mut dump = args.dump.as_deref().map(Dump::create).transpose()?;
    let mut figures = Figures::default();
    let began = Instant::now();
    let mut rows = 0_usize;
    while let Some(columns) = source.next()? {
        rows += columns.rows();
        for estimate in run.take(&columns)? {
            figures.add(&estimate);
            if let Some(dump) = &mut dump {
                dump.add(run.states(), &estimate)?;
            }
        }
    }
    let took = began.elapsed();
    dump.map(Dump::finish).transpose()?;
    let Some(last) = &figures.last else {
        let why = left_out(&run);
        anyhow::bail!("no row of {} was used{why}", args.common.data.display());
    };
    ensure!(!last.belief.mean.is_empty(), "{} tells no state", run.name);
    println!(
        "{}: {rows} rows in {:.2} s{}",
        run.name,
        took.as_secs_f64(),
        left_out(&run)
    );
    print!("{}", run.found().map(initialisation).unwrap_or_default());
    print!("{}", figures.table());
    print!("{}", states(run.states(), &last.belief));
    Ok(())
}

/// The end values with their standard deviations.
fn states(names: &[String], belief: &Belief) -> String {
    let deviations = belief.covariance.iter().step_by(names.len() + 1);
    let lines = names.iter().zip(belief.mean.iter().zip(deviations));
    let head = format!(
        "  {:<40} {:>14}  {:>12}\n",
        "state at the end", "mean", "sd"
    );
    let lines = lines.map(|(name, (mean, variance))| {
        format!("  {name:<40} {mean:>14.6e}  {:>12.3e}\n", variance.sqrt())
    });
    std::iter::once(head).chain(lines).collect()
}

/// What was found in the first rows, with what it leaves unexplained.
pub(super) fn initialisation(found: &Found) -> String {
    let lines = found.qualities.iter().map(|quality| {
        let what = format!("found in the first rows: {}", quality.what);
        let values = match quality.values.as_slice() {
            [] => "nothing".to_owned(),
            [value] => format!("{value:.6e}"),
            [first, .., last] => format!("{first:.4e}..{last:.4e}"),
        };
        let told = match (&quality.reason, quality.rmse) {
            (Some(reason), _) => reason.clone(),
            (None, rmse) => format!(
                "rmse {:.2e} {} over {} rows",
                rmse.unwrap_or(0.0),
                quality.rmse_unit,
                quality.rows
            ),
        };
        format!("  {what:<40} {values:>14}  {told}\n")
    });
    lines.collect()
}

/// Says which rows made no step, and why.
pub(super) fn left_out(run: &Run) -> String {
    let kinds = run.left_out.iter();
    let kinds = kinds.map(|(kind, (count, why))| format!("; {count} {kind}, the last: {why}"));
    let waiting = match run.waiting() {
        0 => String::new(),
        rows => format!("; {rows} rows do not span the required time yet"),
    };
    kinds.chain([waiting]).collect::<Vec<_>>().concat()
}
