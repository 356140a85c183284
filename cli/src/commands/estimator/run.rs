//! One estimator over rows, whatever it is made of.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use anyhow::{Context, Result, anyhow};
use rovi_common::rows::Columns;
use rovi_estimation::{Document, Estimator, Observation};
use rovi_python::{
    Belief, Cancel, Outcome, Python, ROWS_AT_ONCE, Script, ScriptFile, Session, Start, is_script,
};

use super::Common;
use crate::hub::read_attachment;

/// A row as estimators see it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Row {
    /// Its place in the file, from 0.
    pub(super) number: usize,
    pub(super) time: f64,
    pub(super) current: f64,
    pub(super) voltage: f64,
    pub(super) temperature: Option<f64>,
}

/// What an estimator said after a row.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Estimate {
    pub(super) row: Row,
    pub(super) belief: Belief,
    /// The voltage expected before the row and its variance; nothing for a row that only starts.
    pub(super) predicted: Option<(f64, f64)>,
}

/// An estimator at work.
pub(super) struct Run {
    /// The file's name, to show.
    pub(super) name: String,
    engine: Engine,
    kept: Vec<Row>,
    /// Rows without a step, by reason, with the newest reason.
    pub(super) left_out: BTreeMap<&'static str, (usize, String)>,
    read: usize,
}

enum Engine {
    Native(Box<Estimator>),
    Python(Box<Session>),
}

impl Run {
    /// Reads a definition and starts it.
    pub(super) fn start(path: &Path, common: &Common, metadata: Option<&str>) -> Result<Self> {
        let definition =
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let engine = if is_script(&definition) {
            start_script(&definition, common, metadata)
        } else {
            Document::from_json(&definition)
                .map(|(document, _)| Engine::Native(Box::new(Estimator::new(&document))))
                .map_err(Into::into)
        };
        Ok(Self {
            name: path
                .file_name()
                .unwrap_or(path.as_os_str())
                .to_string_lossy()
                .into_owned(),
            engine: engine.with_context(|| format!("{} cannot be run", path.display()))?,
            kept: Vec::new(),
            left_out: BTreeMap::new(),
            read: 0,
        })
    }

    /// Returns the names of the states.
    pub(super) fn states(&self) -> &[String] {
        match &self.engine {
            Engine::Native(estimator) => estimator.state_names(),
            Engine::Python(session) => session.state_names(),
        }
    }

    /// Takes rows and returns what the estimator says after each of them that counts.
    pub(super) fn take(&mut self, columns: &Columns) -> Result<Vec<Estimate>> {
        let mut rows = Vec::with_capacity(columns.rows());
        for at in 0..columns.rows() {
            match row_of(columns, at, self.read + at) {
                Ok(row) => rows.push((at, row)),
                Err(lacking) => self.leave_out("incomplete", lacking),
            }
        }
        self.read += columns.rows();
        let mut estimates = Vec::with_capacity(rows.len());
        match &mut self.engine {
            Engine::Native(estimator) => {
                let estimator = estimator.as_mut();
                let mut refused = Vec::new();
                for (_, row) in rows {
                    match step(estimator, row) {
                        Ok(estimate) => estimates.push(estimate),
                        Err(error) => refused.push(error),
                    }
                }
                for error in refused {
                    self.leave_out("refused", error);
                }
            }
            Engine::Python(_) => {
                for some in rows.chunks(ROWS_AT_ONCE) {
                    self.ask_script(columns, some, &mut estimates)?;
                }
            }
        }
        Ok(estimates)
    }

    fn ask_script(
        &mut self,
        columns: &Columns,
        rows: &[(usize, Row)],
        estimates: &mut Vec<Estimate>,
    ) -> Result<()> {
        let mut rest = rows;
        while !rest.is_empty() {
            let Engine::Python(session) = &mut self.engine else {
                return Ok(());
            };
            let take: Vec<usize> = rest.iter().map(|(at, _)| *at).collect();
            let begun = session.belief().clone();
            let taken = session.take(columns, &take, false)?;
            let (done, later) = rest.split_at(taken.outcomes.len().max(1).min(rest.len()));
            rest = later;
            self.apply(
                taken.outcomes,
                done.iter().map(|(_, row)| *row),
                &begun,
                estimates,
            );
            if let Some(text) = taken.refusal {
                self.leave_out("refused", text);
            }
            if taken.offline {
                self.estimate_offline(estimates)?;
            }
        }
        Ok(())
    }

    fn estimate_offline(&mut self, estimates: &mut Vec<Estimate>) -> Result<()> {
        let kept = std::mem::take(&mut self.kept);
        if let Engine::Python(session) = &mut self.engine {
            session.estimate_offline()?;
        }
        for rows in kept.chunks(ROWS_AT_ONCE) {
            let Engine::Python(session) = &mut self.engine else {
                return Ok(());
            };
            let begun = session.belief().clone();
            let taken = session.replay(rows.len())?;
            self.apply(taken.outcomes, rows.iter().copied(), &begun, estimates);
        }
        Ok(())
    }

    fn apply(
        &mut self,
        outcomes: Vec<Outcome>,
        rows: impl Iterator<Item = Row>,
        begun: &Belief,
        estimates: &mut Vec<Estimate>,
    ) {
        for (outcome, row) in outcomes.into_iter().zip(rows) {
            let (belief, predicted) = match outcome {
                Outcome::Started => (begun.clone(), None),
                Outcome::Stepped { belief, predicted } => (belief, predicted),
                Outcome::Kept => {
                    self.kept.push(row);
                    continue;
                }
                Outcome::Refused => {
                    self.leave_out("refused", format!("row {}", row.number));
                    continue;
                }
            };
            estimates.push(Estimate {
                row,
                belief,
                predicted,
            });
        }
    }

    fn leave_out(&mut self, kind: &'static str, why: String) {
        let (count, last) = self.left_out.entry(kind).or_default();
        // The traceback follows the rows that it is about.
        *count += usize::from(!why.starts_with("Traceback"));
        *last = why;
    }
}

fn start_script(definition: &str, common: &Common, metadata: Option<&str>) -> Result<Engine> {
    let mut files = Vec::with_capacity(common.files.len());
    for path in &common.files {
        let (name, content) = read_attachment(path)?;
        let content: Arc<[u8]> = content.into();
        files.push(ScriptFile { name, content });
    }
    let script = Script::new(definition, files, common.required_time)?;
    let metadata = metadata.and_then(|text| serde_json::from_str(text).ok());
    let start = Start {
        state: None,
        metadata: metadata.as_ref(),
    };
    let python = Python::new(common.python())?;
    let session = Session::start(&python, &script, start, Cancel::default());
    let session = session.map_err(|error| anyhow!("{error}"))?;
    Ok(Engine::Python(Box::new(session)))
}

fn row_of(columns: &Columns, at: usize, number: usize) -> Result<Row, String> {
    let quantity = |name: &str| {
        let value = columns.get(name).and_then(|column| column.number(at));
        let value = value.filter(|value| value.is_finite());
        value.ok_or_else(|| format!("row {number} has no `{name}`"))
    };
    Ok(Row {
        number,
        time: quantity("test_time")?,
        current: quantity("current")?,
        voltage: quantity("voltage")?,
        temperature: quantity("temperature").ok(),
    })
}

fn step(estimator: &mut Estimator, row: Row) -> Result<Estimate, String> {
    let observation = Observation {
        time: row.time,
        current: row.current,
        voltage: row.voltage,
        temperature: row.temperature,
    };
    let step = estimator.observe(&observation);
    let step = step.map_err(|error| format!("row {}: {error}", row.number))?;
    let belief = Belief {
        mean: estimator.mean().to_vec(),
        covariance: estimator.covariance().to_vec(),
    };
    Ok(Estimate {
        row,
        belief,
        predicted: step.map(|step| (step.predicted_voltage, step.predicted_variance)),
    })
}
