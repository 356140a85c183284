//! Finding a cell's parameters in its first rows: capacity, open-circuit voltage, series resistance, RC pairs.
//!
//! Pure functions over rows in the order of time. What is found comes with its quality, what is not with the reason.
//! Values replace those of the document; its states, covariances and shapes stay as they are, so that an estimator has
//! the same states before and after.

mod capacity;
mod gathering;
mod halves;
mod ocv;
mod put;
mod relaxation;
mod resistance;

use serde::{Deserialize, Serialize};

use crate::observation::Observation;
use halves::monotone_parts;

pub use gathering::Gathering;

/// What is to be found.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// Time from the first row after which the rows are looked at, s.
    pub required_time_s: Option<f64>,
    /// Whether the capacity is.
    pub capacity: bool,
    /// Whether the open-circuit voltage is.
    pub ocv: bool,
    /// Whether the series resistance is.
    pub r0: bool,
    /// How many RC pairs are: 0, 1 or 2.
    pub rc_pairs: usize,
    /// The scale of currents, A·h.
    pub nominal_ah: f64,
    /// Empty and full, V; otherwise the extremes met.
    pub voltage_limits: Option<[f64; 2]>,
}

/// How well something was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// What, by its name in the document, such as `q_t` or `rc_elements`.
    pub what: String,
    /// The values found, in the units of the document; empty where nothing was.
    pub values: Vec<f64>,
    /// Root mean square of what the values leave unexplained, in the unit of `rmse_unit`.
    pub rmse: Option<f64>,
    /// `V`, `A h` or `ohm`.
    pub rmse_unit: String,
    /// Rows that the values rest on.
    pub rows: usize,
    /// Why nothing was found.
    pub reason: Option<String>,
}

/// What was found in some rows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// A·h.
    pub capacity_ah: Option<f64>,
    /// State of charge and open-circuit voltage (V), rising.
    pub ocv: Option<Vec<[f64; 2]>>,
    /// ohm.
    pub r0_ohm: Option<f64>,
    /// Resistance (ohm) and capacitance (F) of each RC pair, the fastest first.
    pub rc_pairs: Option<Vec<[f64; 2]>>,
    /// State of charge at the last row.
    pub soc: Option<f64>,
    /// How well each was found.
    pub qualities: Vec<Quality>,
}

/// A value with its quality, or why there is none.
type Outcome<T> = Result<(T, Fit), String>;

/// What a value leaves unexplained, and the rows it rests on.
#[derive(Clone, Copy, Debug)]
struct Fit {
    rmse: f64,
    rows: usize,
}

/// Looks for what is wanted in `rows`, which stand in the order of time; rows with numbers that are not finite are
/// passed over, and so are those that go back in time.
pub(crate) fn find(wanted: &Wanted, rows: &[Observation]) -> Found {
    let rows = usable(rows);
    let mut found = Found::default();
    let parts = monotone_parts(&rows, wanted.nominal_ah);
    // Resistance is wanted for the open-circuit voltage, too.
    let r0 = resistance::find(&rows, wanted.nominal_ah);
    let ohm = r0.as_ref().map_or(0.0, |(ohm, _)| *ohm);
    let capacity = capacity::find(&parts, &rows, (wanted, ohm));
    if let Ok((ohm, _)) = r0 {
        found.r0_ohm = wanted.r0.then_some(ohm);
    }
    let halves = capacity.as_ref().ok().map(|(halves, _)| halves.clone());
    if let Some(halves) = &halves {
        found.capacity_ah = wanted.capacity.then_some(halves.capacity_ah);
        found.soc = Some(halves.soc_at_end(&rows));
    }
    if wanted.capacity {
        let outcome = capacity.map(|(halves, fit)| (vec![halves.capacity_ah], fit));
        found.note("q_t", "A h", outcome);
    }
    if wanted.r0 {
        let outcome = r0.clone().map(|(ohm, fit)| (vec![ohm], fit));
        found.note("r0", "ohm", outcome);
    }
    if wanted.ocv {
        let outcome = halves.map_or_else(
            || Err("no full discharge to lay the curve over".to_owned()),
            |halves| ocv::find(&halves, &rows, ohm),
        );
        let values = |curve: &Vec<[f64; 2]>| curve.iter().map(|point| point[1]).collect();
        found.note(
            "ocv",
            "V",
            outcome.clone().map(|(curve, fit)| (values(&curve), fit)),
        );
        found.ocv = outcome.ok().map(|(curve, _)| curve);
    }
    if wanted.rc_pairs > 0 {
        let outcome = relaxation::find(&rows, wanted);
        let values = |pairs: &Vec<[f64; 2]>| pairs.iter().flatten().copied().collect();
        found.note(
            "rc_elements",
            "V",
            outcome.clone().map(|(pairs, fit)| (values(&pairs), fit)),
        );
        found.rc_pairs = outcome.ok().map(|(pairs, _)| pairs);
    }
    found
}

impl Found {
    fn note(&mut self, what: &str, rmse_unit: &str, outcome: Outcome<Vec<f64>>) {
        let what = what.to_owned();
        self.qualities.push(match outcome {
            Ok((values, fit)) => Quality {
                what,
                values,
                rmse: Some(fit.rmse),
                rmse_unit: rmse_unit.to_owned(),
                rows: fit.rows,
                reason: None,
            },
            Err(reason) => Quality {
                what,
                values: Vec::new(),
                rmse: None,
                rmse_unit: rmse_unit.to_owned(),
                rows: 0,
                reason: Some(reason),
            },
        });
    }
}

fn usable(rows: &[Observation]) -> Vec<Observation> {
    let mut usable: Vec<Observation> = Vec::with_capacity(rows.len());
    for row in rows {
        let is_finite = [row.time, row.current, row.voltage]
            .iter()
            .all(|value| value.is_finite());
        let is_later = usable.last().is_none_or(|before| before.time <= row.time);
        if is_finite && is_later {
            usable.push(*row);
        }
    }
    usable
}

/// The middle one of some values; `None` without any.
fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    values.get(middle).copied()
}

/// Root mean square.
fn rms(values: impl Iterator<Item = f64>) -> f64 {
    let (mut sum, mut count) = (0.0, 0.0_f64);
    for value in values {
        sum += value * value;
        count += 1.0;
    }
    (sum / count.max(1.0)).sqrt()
}
