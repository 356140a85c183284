//! State of health in the terms of those who run batteries: what the filter learnt, and what flowed.
//!
//! Charge and energy are counted from the rows alone, by the same intervals the filter moves over; energy takes the
//! mean of the voltages at both ends. What is estimated comes with its standard deviation.

mod rest;
mod round_trip;

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::model::Interval;
use rest::Rest;
use round_trip::RoundTrip;

const SECONDS_PER_HOUR: f64 = 3600.0;

/// A figure with its standard deviation, where it is an estimate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// In the unit of the figure.
    pub value: f64,
    /// In the same unit; `None` for what is counted or given.
    pub deviation: Option<f64>,
}

/// Where the nominal capacity comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NominalFrom {
    /// The document says it.
    Document,
    /// The battery's metadata said it when the document was registered.
    Metadata,
    /// Nobody says it: it is the capacity that the estimator starts from.
    Initial,
}

/// The health of a battery.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Health {
    /// Capacity over the nominal one; 1 is as good as new.
    pub state_of_health: Figure,
    /// The nominal capacity, A·h.
    pub nominal_capacity_ah: f64,
    /// Where it comes from.
    pub nominal_capacity_from: NominalFrom,
    /// Series resistance over the document's, the mean of its values; `None` unless it is estimated.
    pub resistance_growth: Option<Figure>,
    /// Charge that went in, A·h.
    pub charged_ah: f64,
    /// Charge that came out, A·h.
    pub discharged_ah: f64,
    /// Energy that went in, W·h.
    pub charged_wh: f64,
    /// Energy that came out, W·h.
    pub discharged_wh: f64,
    /// Charge that went in and out over twice the nominal capacity.
    pub equivalent_full_cycles: f64,
    /// Energy out over energy in, of the last closed loop of charge over at least a tenth of the nominal capacity.
    pub round_trip_efficiency: Option<f64>,
    /// Share of the capacity lost in 30 days, from the last rest that was long enough to tell.
    pub self_discharge_per_month: Option<Figure>,
}

/// What stays the same for all rows.
#[derive(Clone, Debug)]
pub(crate) struct HealthRules {
    pub(crate) nominal_ah: f64,
    pub(crate) nominal_from: NominalFrom,
    /// The document's capacity, A·h.
    pub(crate) initial_ah: f64,
    /// Where the capacity stands among the states.
    pub(crate) capacity: Option<usize>,
    /// Where the values of the series resistance stand.
    pub(crate) resistance: Option<Range<usize>>,
    /// The mean of the document's values, ohm.
    pub(crate) initial_ohm: f64,
}

impl HealthRules {
    /// Capacity over the nominal one, if it is estimated.
    pub(crate) fn capacity_ratio(&self, mean: &[f64]) -> Option<f64> {
        let capacity = mean.get(self.capacity?)?;
        Some(capacity / self.nominal_ah)
    }

    /// Series resistance over the document's, if it is estimated.
    pub(crate) fn resistance_ratio(&self, mean: &[f64]) -> Option<f64> {
        let values = mean.get(self.resistance.clone()?)?;
        Some(values.iter().sum::<f64>() / length(values) / self.initial_ohm)
    }
}

#[expect(clippy::cast_precision_loss, reason = "at most 40")]
fn length(values: &[f64]) -> f64 {
    values.len() as f64
}

/// What flowed so far; part of the snapshot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Meter {
    /// C.
    charged: f64,
    /// C.
    discharged: f64,
    /// J.
    energy_in: f64,
    /// J.
    energy_out: f64,
    round_trip: RoundTrip,
    rest: Rest,
}

/// The state of charge after a step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Charge {
    pub(crate) soc: f64,
    pub(crate) variance: f64,
    pub(crate) capacity_ah: f64,
    /// See [`CellModel::hysteresis_reach`](crate::model::CellModel::hysteresis_reach).
    pub(crate) hysteresis_reach: (f64, f64),
}

impl Meter {
    /// Counts one interval: `voltages` stand at its two ends, `time` is that of the later one.
    #[inline]
    pub(crate) fn take(
        &mut self,
        rules: &HealthRules,
        interval: &Interval,
        (voltages, time): ([f64; 2], f64),
        charge: impl FnOnce() -> Charge,
    ) {
        let nominal = SECONDS_PER_HOUR * rules.nominal_ah;
        let voltage = f64::midpoint(voltages[0], voltages[1]);
        for part in interval.parts {
            if part > 0.0 {
                self.charged += part;
                self.energy_in += part * voltage;
            } else if part < 0.0 {
                self.discharged -= part;
                self.energy_out -= part * voltage;
            } else {
                continue;
            }
            self.round_trip.take(part, part * voltage, nominal);
        }
        let little = rules.nominal_ah / rest::LITTLE;
        if interval.current_before.abs() < little && interval.current_after.abs() < little {
            self.rest.take(interval, time, &charge());
        } else {
            self.rest.end();
        }
    }

    /// A new segment began: nobody knows what happened between.
    pub(crate) fn interrupt(&mut self) {
        self.rest.end();
        self.round_trip.interrupt();
    }

    pub(crate) fn health(&self, rules: &HealthRules, mean: &[f64], covariance: &[f64]) -> Health {
        let n = mean.len();
        let block = |range: Range<usize>| -> f64 {
            let entry = |i: usize, j: usize| covariance.get(i * n + j).copied().unwrap_or(0.0);
            let row = |i: usize| -> f64 { range.clone().map(|j| entry(i, j)).sum() };
            range.clone().map(row).sum()
        };
        let state_of_health = match (rules.capacity, rules.capacity_ratio(mean)) {
            (Some(index), Some(value)) => Figure {
                value,
                deviation: Some(block(index..index + 1).sqrt() / rules.nominal_ah),
            },
            _ => Figure {
                value: rules.initial_ah / rules.nominal_ah,
                deviation: None,
            },
        };
        let resistance_growth = rules.resistance_ratio(mean).map(|value| {
            let range = rules.resistance.clone().unwrap_or_default();
            let count = length(mean.get(range.clone()).unwrap_or_default());
            Figure {
                value,
                deviation: Some(block(range).max(0.0).sqrt() / count / rules.initial_ohm),
            }
        });
        let hours = |seconds: f64| seconds / SECONDS_PER_HOUR;
        Health {
            state_of_health,
            nominal_capacity_ah: rules.nominal_ah,
            nominal_capacity_from: rules.nominal_from,
            resistance_growth,
            charged_ah: hours(self.charged),
            discharged_ah: hours(self.discharged),
            charged_wh: hours(self.energy_in),
            discharged_wh: hours(self.energy_out),
            equivalent_full_cycles: hours(self.charged + self.discharged)
                / (2.0 * rules.nominal_ah),
            round_trip_efficiency: self.round_trip.efficiency,
            self_discharge_per_month: self.rest.loss,
        }
    }
}
