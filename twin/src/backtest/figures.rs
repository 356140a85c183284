//! How right an estimator is and whether it knows its errors, from its innovations: measured less
//! predicted voltage.

use std::f64::consts::TAU;

use rovi_common::news::Estimated;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::estimates::Shown;

/// The normal quantile of a two-sided band of 95 %.
const QUANTILE: f64 = 1.959_963_984_540_054;

/// Sums over steps.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sums {
    steps: u64,
    errors: f64,
    squares: f64,
    largest: f64,
    normalised_squares: f64,
    covered: u64,
    log_likelihood: f64,
}

/// Error of the voltage predicted before each row, in volts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct VoltageError {
    /// Root mean square.
    pub rmse: f64,
    /// Mean of measured less predicted.
    pub bias: f64,
    /// The largest, whatever its sign.
    pub max: f64,
}

/// Whether an estimator knows its errors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Consistency {
    /// Mean of the normalised innovations squared: 1 for a filter that knows its errors.
    pub mean_nis: f64,
    /// Where that lies for 95 % of such filters (chi-square).
    pub nis_band: [f64; 2],
    /// Whether it lies there.
    pub is_within_band: bool,
    /// Share of the rows whose voltage lies within the interval of 95 % predicted for it.
    pub coverage_95: f64,
    /// Sum of the logarithms of the predicted densities at the measured voltages; the larger of two
    /// estimators over the same rows predicted better.
    pub log_likelihood: f64,
}

/// What one side of a comparison showed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Side {
    /// The registered estimator, unless the definition was sent along.
    pub estimator: Option<String>,
    /// The revision of its registration; 0 of a definition that was sent along.
    pub revision: i64,
    /// Steps made.
    pub steps: u64,
    /// Rows without a step, by reason.
    pub skipped: std::collections::BTreeMap<String, u64>,
    /// Over the rows compared; nothing where no voltage is predicted.
    pub voltage: Option<VoltageError>,
    /// Over the rows compared; nothing where no voltage is predicted.
    pub consistency: Option<Consistency>,
    /// Mean and standard deviation after the last row, by state, besides `state_of_charge` and
    /// `state_of_health`.
    pub end: std::collections::BTreeMap<String, Estimated>,
    /// `test_time` of the last row used, in seconds.
    pub latest_time: Option<f64>,
}

impl Sums {
    pub(super) fn add(&mut self, shown: &Shown) {
        let error = shown.innovation;
        let normalised = error / shown.deviation;
        let nis = normalised * normalised;
        self.steps += 1;
        self.errors += error;
        self.squares += error * error;
        self.largest = self.largest.max(error.abs());
        self.normalised_squares += nis;
        self.covered += u64::from(normalised.abs() <= QUANTILE);
        self.log_likelihood -= 0.5 * (nis + libm::log(TAU * shown.deviation * shown.deviation));
    }

    /// Returns the number of steps added.
    pub(super) fn steps(&self) -> u64 {
        self.steps
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of rows")]
    pub(super) fn figures(&self) -> Option<(VoltageError, Consistency)> {
        if self.steps == 0 {
            return None;
        }
        let steps = self.steps as f64;
        let mean_nis = self.normalised_squares / steps;
        // Quantiles of chi-square after Wilson and Hilferty (1931), over its degrees of freedom.
        let spread = 2.0 / (9.0 * steps);
        let bound = |z: f64| (1.0 - spread + z * spread.sqrt()).powi(3);
        let nis_band = [bound(-QUANTILE), bound(QUANTILE)];
        let voltage = VoltageError {
            rmse: (self.squares / steps).sqrt(),
            bias: self.errors / steps,
            max: self.largest,
        };
        let consistency = Consistency {
            mean_nis,
            nis_band,
            is_within_band: (nis_band[0]..=nis_band[1]).contains(&mean_nis),
            coverage_95: self.covered as f64 / steps,
            log_likelihood: self.log_likelihood,
        };
        Some((voltage, consistency))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(innovations: &[f64], deviation: f64) -> Sums {
        let mut sums = Sums::default();
        for (&innovation, seq) in innovations.iter().zip(1..) {
            sums.add(&Shown {
                seq,
                innovation,
                deviation,
            });
        }
        sums
    }

    #[test]
    fn figures_are_those_of_the_innovations() {
        let (voltage, consistency) = sums(&[0.5, -0.5, 0.5, 1.5], 0.5).figures().unwrap();
        assert!((voltage.bias - 0.5).abs() < 1e-12);
        assert!((voltage.rmse - 0.75_f64.sqrt()).abs() < 1e-12);
        assert!((voltage.max - 1.5).abs() < 1e-12);
        assert!((consistency.mean_nis - 3.0).abs() < 1e-12);
        assert!((consistency.coverage_95 - 0.75).abs() < 1e-12);
        // Four normal densities: -2 ln(2 pi 0.25) - 12 / 2.
        let expected = -2.0 * (TAU * 0.25).ln() - 6.0;
        assert!((consistency.log_likelihood - expected).abs() < 1e-12);
    }

    #[test]
    fn the_band_is_that_of_chi_square() {
        // Quantiles of 100 degrees of freedom: 74.222 and 129.561.
        let (_, consistency) = sums(&[0.5; 100], 0.5).figures().unwrap();
        let [low, high] = consistency.nis_band;
        assert!((low - 0.74222).abs() < 1e-3, "{low}");
        assert!((high - 1.29561).abs() < 1e-3, "{high}");
        assert!(consistency.is_within_band);
    }

    #[test]
    fn without_a_predicted_voltage_there_are_no_figures() {
        assert_eq!(sums(&[], 0.5).figures(), None);
    }
}
