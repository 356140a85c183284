//! One estimator over rows, whatever it is made of.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use anyhow::{Context, Result, anyhow, ensure};
use rovi_common::rows::Columns;
use rovi_estimation::{Document, Estimator, Found, Gathering, Observation};
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
    Native(Box<Native>),
    Python(Box<Session>),
}

/// A document at work, as a twin runs it.
struct Native {
    document: Document,
    estimator: Estimator,
    gathering: Option<Gathering>,
    found: Option<Found>,
}

impl Run {
    /// Reads a definition and starts it.
    pub(super) fn start(path: &Path, common: &Common, metadata: Option<&str>) -> Result<Self> {
        let definition =
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let engine = if is_script(&definition) {
            start_script(&definition, common, metadata)
        } else {
            Native::start(&definition, common.required_time)
                .map(|native| Engine::Native(Box::new(native)))
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
            Engine::Native(native) => native.estimator.state_names(),
            Engine::Python(session) => session.state_names(),
        }
    }

    /// Returns what a document found out from its first rows, once it has.
    pub(super) fn found(&self) -> Option<&Found> {
        match &self.engine {
            Engine::Native(native) => native.found.as_ref(),
            Engine::Python(_) => None,
        }
    }

    /// Returns how many rows wait until they tell how to start.
    pub(super) fn waiting(&self) -> usize {
        match &self.engine {
            Engine::Native(native) => {
                let gathering = native.gathering.as_ref();
                gathering.map_or(0, |gathering| gathering.rows().len())
            }
            Engine::Python(_) => self.kept.len(),
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
            Engine::Native(native) => {
                let mut refused = Vec::new();
                for (_, row) in rows {
                    match native.take(row) {
                        Ok(estimate) => estimates.extend(estimate),
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
        value.ok_or_else(|| format!("row {number} has no number in `{name}`"))
    };
    Ok(Row {
        number,
        time: quantity("test_time")?,
        current: quantity("current")?,
        voltage: quantity("voltage")?,
        temperature: quantity("temperature").ok(),
    })
}

impl Native {
    fn start(definition: &str, required_time: f64) -> Result<Self> {
        let (document, _) = Document::from_json(definition)?;
        let wanted = document.initialise();
        ensure!(
            required_time > 0.0 || wanted.is_none_or(|wanted| wanted.required_time_s.is_some()),
            "initialise.required_time is missing; say it there or by --required-time"
        );
        Ok(Self {
            estimator: Estimator::new(&document),
            gathering: Gathering::wanted_by(&document, required_time),
            document,
            found: None,
        })
    }

    /// Steps over a row, or keeps it; nothing is said of a row that is kept.
    fn take(&mut self, row: Row) -> Result<Option<Estimate>, String> {
        let observation = Observation {
            time: row.time,
            current: row.current,
            voltage: row.voltage,
            temperature: row.temperature,
        };
        if let Some(gathering) = &mut self.gathering {
            if !gathering.take(observation) {
                return Ok(None);
            }
            let initialised = self.document.initialised(gathering.rows());
            self.gathering = None;
            let (document, found) = initialised.map_err(|error| format!("initialise: {error}"))?;
            self.estimator = Estimator::new(&document);
            self.found = Some(found);
        }
        let step = self.estimator.observe(&observation);
        let step = step.map_err(|error| format!("row {}: {error}", row.number))?;
        let belief = Belief {
            mean: self.estimator.mean().to_vec(),
            covariance: self.estimator.covariance().to_vec(),
        };
        Ok(Some(Estimate {
            row,
            belief,
            predicted: step.map(|step| (step.predicted_voltage, step.predicted_variance)),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LFP: &str = include_str!("../../../../docs/examples/lfp.json");

    fn row(number: u32) -> Row {
        let current = if number % 20 < 10 { -10.0 } else { 0.0 };
        Row {
            number: 0,
            time: f64::from(number),
            current,
            voltage: 3.3 + 0.005 * current,
            temperature: None,
        }
    }

    #[test]
    fn a_document_that_starts_from_data_gathers_rows_as_a_twin_does() {
        let text = LFP.replacen('{', "{\"initialise\": {\"r0\": true},", 1);
        let refused = Native::start(&text, 0.0)
            .err()
            .map(|error| error.to_string());
        assert!(refused.unwrap_or_default().contains("--required-time"));
        let mut native = Native::start(&text, 100.0).unwrap();
        for number in 0..100 {
            assert_eq!(native.take(row(number)), Ok(None));
        }
        // The row that completes them starts, and the next one steps.
        let started = native.take(row(100)).unwrap().unwrap();
        assert_eq!(started.predicted, None);
        let found = native
            .found
            .as_ref()
            .and_then(|found| found.r0_ohm)
            .unwrap();
        assert!((found - 0.005).abs() < 1e-12, "{found}");
        assert!(started.belief.mean.contains(&found));
        assert!(native.take(row(101)).unwrap().unwrap().predicted.is_some());
    }
}
