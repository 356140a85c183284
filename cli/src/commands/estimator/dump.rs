//! A run as CSV: a line for each row, every float with all its digits.

use std::{fs::File, io::BufWriter, path::Path};

use anyhow::{Context, Result};

use super::run::Estimate;

/// Writes estimates with the columns `row,test_time,current,voltage,temperature,v_pred,v_pred_var,mean[…],cov[i][j]`.
pub(super) struct Dump {
    writer: csv::Writer<BufWriter<File>>,
    has_head: bool,
}

impl Dump {
    pub(super) fn create(path: &Path) -> Result<Self> {
        let file =
            File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self {
            writer: csv::Writer::from_writer(BufWriter::new(file)),
            has_head: false,
        })
    }

    /// Writes a line, and the head before the first.
    pub(super) fn add(&mut self, states: &[String], estimate: &Estimate) -> Result<()> {
        if !self.has_head {
            self.writer.write_record(head(states))?;
            self.has_head = true;
        }
        let Estimate {
            row,
            belief,
            predicted,
        } = estimate;
        let number =
            |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:?}"));
        let first = [
            row.number.to_string(),
            number(Some(row.time)),
            number(Some(row.current)),
            number(Some(row.voltage)),
            number(row.temperature),
            number(predicted.map(|(voltage, _)| voltage)),
            number(predicted.map(|(_, variance)| variance)),
        ];
        let values = belief.mean.iter().chain(&belief.covariance).copied();
        // Before its first step an estimator may have no belief.
        let width = states.len() * (states.len() + 1);
        let values = values.map(|value| number(Some(value)));
        let values = values
            .chain(std::iter::repeat_n(String::new(), width))
            .take(width);
        self.writer.write_record(first.into_iter().chain(values))?;
        Ok(())
    }

    /// Writes what is left.
    pub(super) fn finish(mut self) -> Result<()> {
        self.writer
            .flush()
            .context("the dump cannot be written to its end")
    }
}

fn head(states: &[String]) -> Vec<String> {
    let first = [
        "row",
        "test_time",
        "current",
        "voltage",
        "temperature",
        "v_pred",
        "v_pred_var",
    ];
    let mut head: Vec<String> = first.iter().map(ToString::to_string).collect();
    head.extend(states.iter().map(|state| format!("mean[{state}]")));
    let places = 0..states.len();
    head.extend(
        places
            .clone()
            .flat_map(|i| places.clone().map(move |j| format!("cov[{i}][{j}]"))),
    );
    head
}
