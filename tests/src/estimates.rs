//! What a native estimator says of a battery's rows, beside a run of the same rows in this process
//! that nothing ever interrupted: equal to the last bit, or it is told where not.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use rovi_common::frame::{EstimateFrame, RowFrame};
use rovi_estimation::Document;
use serde::Deserialize;
use serde_json::Value;
use twin::{
    estimates::{Outbox, Sender},
    filter::{Filter, Rules},
};

/// Every number of the estimate of a row, as bits, by `seq`.
pub type Estimates = BTreeMap<i64, BTreeMap<String, u64>>;

/// What a run gives.
#[derive(Debug)]
pub struct Uninterrupted {
    estimates: Estimates,
    mean: Vec<u64>,
    covariance: Vec<u64>,
}

/// Runs a document over frames without any bus.
///
/// # Errors
/// The document cannot be read.
pub fn uninterrupted(document: &str, frames: &[RowFrame]) -> Result<Uninterrupted> {
    let (document, _) = Document::from_json(document)?;
    let first = frames.first().context("there are rows")?;
    let sender = Sender {
        battery: first.battery.clone(),
        estimator: "default".parse()?,
        revision: 1,
        generation: 1,
    };
    let mut outbox = Outbox::with_health(sender, document.state_names().into());
    let rules = Rules {
        valid_from: 0.0,
        horizon: 3600.0,
    };
    let mut filter = Filter::new(document, rules, first.epoch);
    let mut estimates = Estimates::new();
    for frame in frames {
        filter.take(frame, &mut outbox);
        for bytes in outbox.take().0 {
            add(&mut estimates, &EstimateFrame::decode(&bytes)?);
        }
    }
    let bits = |numbers: &[f64]| numbers.iter().map(|number| number.to_bits()).collect();
    Ok(Uninterrupted {
        estimates,
        mean: bits(filter.estimator().mean()),
        covariance: bits(filter.estimator().covariance()),
    })
}

fn add(estimates: &mut Estimates, frame: &EstimateFrame) {
    for (row, &seq) in frame.seq.iter().enumerate() {
        let columns = frame.columns.iter();
        let numbers = columns.filter_map(|(name, column)| {
            let number = column.number(row)?;
            Some((name.to_owned(), number.to_bits()))
        });
        estimates.insert(seq, numbers.collect());
    }
}

impl Uninterrupted {
    /// Compares with what stands in the table, as the hub's frames of it.
    ///
    /// # Errors
    /// The first row that differs.
    pub fn equals_stored(&self, frames: &[RowFrame]) -> Result<()> {
        let mut stored = Estimates::new();
        for frame in frames {
            for (row, seq) in (frame.first_seq..).take(frame.received.len()).enumerate() {
                let columns = frame.columns.iter();
                let numbers = columns.filter_map(|(name, column)| {
                    let is_known = self.names().any(|known| known == name);
                    let number = column.number(row).filter(|_| is_known)?;
                    Some((name.to_owned(), number.to_bits()))
                });
                stored.insert(seq, numbers.collect());
            }
        }
        let (found, expected) = (stored.len(), self.estimates.len());
        ensure!(
            found == expected,
            "{found} estimates are stored, not {expected}"
        );
        for (seq, expected) in &self.estimates {
            let found = stored.get(seq);
            ensure!(
                found == Some(expected),
                "row {seq} was estimated as {found:?}, not {expected:?}"
            );
        }
        Ok(())
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        let first = self.estimates.values().next().into_iter();
        first.flat_map(|numbers| numbers.keys().map(String::as_str))
    }

    /// Compares with the state that a twin shows.
    ///
    /// # Errors
    /// What differs.
    pub fn equals_state(&self, status: &Value) -> Result<()> {
        let numbers = |values: &Value| -> Vec<u64> {
            let values = values.as_array().into_iter().flatten();
            values.filter_map(Value::as_f64).map(f64::to_bits).collect()
        };
        let mean = numbers(status.get("mean").unwrap_or(&Value::Null));
        ensure!(mean == self.mean, "the state is {status}");
        let rows = status.get("covariance").and_then(Value::as_array);
        let covariance: Vec<u64> = rows.into_iter().flatten().flat_map(numbers).collect();
        ensure!(covariance == self.covariance, "the covariance is {status}");
        Ok(())
    }
}

/// Reads row frames that stand one after another.
///
/// # Errors
/// The bytes are no frames.
pub fn frames(bytes: &[u8]) -> Result<Vec<RowFrame>> {
    let mut reader = rmp_serde::Deserializer::new(bytes);
    let mut frames = Vec::new();
    while !reader.get_ref().is_empty() {
        frames.push(RowFrame::deserialize(&mut reader)?);
    }
    Ok(frames)
}
