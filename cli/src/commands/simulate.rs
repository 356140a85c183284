//! `rovicli simulate OUT.h5`: writes a file of a simulated cell.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    naming,
    simulation::{self, Plan, Profile},
};

const SECONDS_PER_HOUR: f64 = 3600.0;
const DEFAULT_HOURS: f64 = 24.0;

/// Arguments of `rovicli simulate`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The file to write; it must not exist.
    out: PathBuf,
    /// How long the cell is used, in hours of its own time [default: 24].
    #[arg(long, conflicts_with = "rows", allow_negative_numbers = true)]
    hours: Option<f64>,
    /// How many rows to write, instead of --hours.
    #[arg(long)]
    rows: Option<usize>,
    /// Seconds between rows.
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 1.0,
        allow_negative_numbers = true
    )]
    interval: f64,
    /// Seed of load and noise: the same seed makes the same file.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// What the cell is used for.
    #[arg(long, value_enum, default_value_t = Profile::Drive)]
    profile: Profile,
    /// Share of the capacity that the cell loses from the first row to the last.
    #[arg(
        long,
        value_name = "SHARE",
        default_value_t = 0.1,
        allow_negative_numbers = true
    )]
    fade: f64,
    /// Share by which its resistances rise from the first row to the last.
    #[arg(
        long,
        value_name = "SHARE",
        default_value_t = 0.3,
        allow_negative_numbers = true
    )]
    growth: f64,
    /// Standard deviation of the noise of the voltage, in V.
    #[arg(
        long,
        value_name = "VOLT",
        default_value_t = 0.001,
        allow_negative_numbers = true
    )]
    noise: f64,
    /// Name of the battery in the metadata [default: the file's name].
    #[arg(long)]
    name: Option<String>,
    /// Also writes an estimator document for this cell, with wrong first guesses of capacity and
    /// resistance, to be seen converging; it must not exist.
    #[arg(long, value_name = "OUT.json")]
    estimator: Option<PathBuf>,
}

impl Args {
    fn plan(&self) -> Result<Plan> {
        ensure!(
            self.interval.is_finite() && self.interval > 0.0,
            "--interval is {}, it must be above 0 seconds",
            self.interval
        );
        ensure!(
            (0.0..1.0).contains(&self.fade),
            "--fade is {}, it must be 0 or more and below 1",
            self.fade
        );
        for (flag, value) in [("--growth", self.growth), ("--noise", self.noise)] {
            ensure!(
                value.is_finite() && value >= 0.0,
                "{flag} is {value}, it must be 0 or more"
            );
        }
        Ok(Plan {
            name: naming::choose(self.name.as_deref(), None, None, &self.out).text,
            rows: self.rows()?,
            interval_s: self.interval,
            seed: self.seed,
            profile: self.profile,
            fade: self.fade,
            growth: self.growth,
            noise_v: self.noise,
            ..Plan::default()
        })
    }

    fn rows(&self) -> Result<usize> {
        if let Some(rows) = self.rows {
            ensure!(rows > 0, "--rows is 0, there must be at least one row");
            return Ok(rows);
        }
        let hours = self.hours.unwrap_or(DEFAULT_HOURS);
        let rows = hours * SECONDS_PER_HOUR / self.interval;
        ensure!(
            (1.0..=1e10).contains(&rows),
            "--hours is {hours}: that makes {rows} rows of {} s; it must be 1 to 10^10 rows",
            self.interval
        );
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 1 and 10^10, as checked above"
        )]
        Ok(rows as usize)
    }
}

#[expect(clippy::print_stdout, reason = "this is the output")]
pub(super) fn run(args: &Args) -> Result<()> {
    let plan = args.plan()?;
    if let Some(path) = &args.estimator {
        check_writable(path, &args.out)?;
    }
    let bar = ProgressBar::new(plan.rows as u64).with_style(
        ProgressStyle::with_template("simulating {bar:30} {human_pos} of {human_len} rows")
            .context("the bar's template is wrong")?,
    );
    let written = simulation::write_file(&plan, &args.out, |rows| bar.set_position(rows as u64))?;
    bar.finish_and_clear();
    println!(
        "{}: {written} rows of battery `{}`, {:.1} h, seed {}",
        args.out.display(),
        plan.name,
        hours(&plan),
        plan.seed
    );
    if let Some(path) = &args.estimator {
        let document = serde_json::to_string_pretty(&simulation::estimator_document(&plan))?;
        std::fs::write(path, document + "\n")
            .with_context(|| format!("cannot write {}", path.display()))?;
        println!(
            "{}: an estimator that begins with wrong guesses; register it with `rovicli register {} 0 {}`",
            path.display(),
            rovi_common::name::slug(&plan.name),
            path.display()
        );
    }
    Ok(())
}

/// Refuses a place for the estimator document before the work is done: people edit theirs.
fn check_writable(document: &Path, out: &Path) -> Result<()> {
    ensure!(
        document != out,
        "--estimator names the file of the cell, {}; choose another name",
        out.display()
    );
    ensure!(
        !document.exists(),
        "{} exists already; remove it or choose another name",
        document.display()
    );
    let folder = document
        .parent()
        .filter(|path| !path.as_os_str().is_empty());
    ensure!(
        folder.is_none_or(Path::is_dir),
        "cannot write {}: there is no such folder",
        document.display()
    );
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn hours(plan: &Plan) -> f64 {
    plan.rows as f64 * plan.interval_s / SECONDS_PER_HOUR
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimator_document_overwrites_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let cell = folder.path().join("cell.h5");
        let edited = folder.path().join("cell.json");
        std::fs::write(&edited, "edited").unwrap();
        let args = |estimator: &Path| Args {
            out: cell.clone(),
            hours: None,
            rows: Some(1),
            interval: 1.0,
            seed: 1,
            profile: Profile::Drive,
            fade: 0.1,
            growth: 0.3,
            noise: 0.001,
            name: None,
            estimator: Some(estimator.to_owned()),
        };
        for taken in [
            &cell,
            &edited,
            &folder.path().join("missing").join("x.json"),
        ] {
            run(&args(taken)).unwrap_err();
            assert!(!cell.exists(), "{}", taken.display());
        }
        assert_eq!(std::fs::read_to_string(&edited).unwrap(), "edited");
        run(&args(&folder.path().join("other.json"))).unwrap();
        assert!(cell.exists());
    }
}
