//! The error of the measured current, as states beside those of the cell.
//!
//! A measured current is the true one plus an error `e_k`, white, of variance `current_noise`. The true current drives
//! the cell and drops over its series resistance. One sample serves more than one sum: held from the earlier row
//! (`constant`), `e_k` enters the voltage of row `k` and the motion from there to row `k + 1`; on a straight line
//! (`linear`), `e_k` and `e_{k+1}` enter one motion, `e_{k+1}` the voltage at its end and the next motion, too. Taken
//! as independent from step to step, half the variance of charge would be lost on straight lines. So the error of the
//! last row is part of the state, and with `linear` the one to come as well: its covariance with charge, voltage and
//! everything else is the filter's own, in sigma points as in Jacobians, and so is its snapshot.
//!
//! Source: state augmentation for coloured and correlated noise, Simon, *Optimal State Estimation* (2006), sections
//! 7.1 and 7.2; with sigma points, Särkkä, *Bayesian Filtering and Smoothing* (2013), section 5.5.
//!
//! A step hands the errors on: the newest becomes the last, and the process noise of the state thus set to zero is the
//! error to come. Process noise must be positive definite, so that the one handed on gets [`SETTLED_NOISE`] of it.
//!
//! A dual estimator carries the errors beside its transients. Its filter of the parameters takes their means, as it
//! does with all transients, and counts what the newest error does to the voltage as noise of its sensor.

#![expect(
    clippy::indexing_slicing,
    reason = "a state holds the transients and the errors of its model"
)]

use super::{Filter, Passage};
use crate::model::{CellModel, Interval};

/// The process noise of an error that is known to stay, as a share of its variance.
pub(crate) const SETTLED_NOISE: f64 = 1e-9;

impl Passage<'_> {
    /// Moves `state` by the true current, and hands the errors on.
    pub(super) fn advance_truly(&self, state: &mut [f64]) {
        let (at, count) = (self.model.transients(), self.model.current_errors());
        let last = at + count - 1;
        let Interval {
            duration,
            current_before,
            current_after,
            ..
        } = *self.interval;
        let (before, after) = (current_before - state[at], current_after - state[last]);
        let interval = Interval::new(self.model, duration, before, after);
        self.model.advance(&interval, self.start, state);
        state[at] = state[last];
        state[last] = 0.0;
    }

    /// The voltage of a moved state while the true current flows.
    pub(super) fn voltage_truly(&self, state: &[f64]) -> f64 {
        let current = self.interval.current_after - state[self.model.transients()];
        self.model.voltage(state, current, self.end)
    }

    /// The variance that the newest error alone gives the voltage of a moved state, V^2: central differences over one
    /// deviation to either side.
    pub(super) fn voltage_noise(&self, state: &[f64]) -> f64 {
        let Some(variance) = self.model.current_noise else {
            return 0.0;
        };
        let (current, deviation) = (self.interval.current_after, variance.sqrt());
        let voltage = |error: f64| self.model.voltage(state, current - error, self.end);
        let half = 0.5 * (voltage(deviation) - voltage(-deviation));
        half * half
    }
}

impl Filter {
    /// Another sample of the current takes the place of the last: nothing is known of its error.
    pub(crate) fn forget_current_errors(&mut self, model: &CellModel) {
        let Some(variance) = model.current_noise else {
            return;
        };
        let belief = self.belief();
        let (mut mean, mut covariance) = (belief.mean.clone(), belief.covariance.clone());
        let (n, first) = (mean.len(), model.transients());
        let errors = first..first + model.current_errors();
        mean[errors.clone()].fill(0.0);
        for (at, entry) in covariance.iter_mut().enumerate() {
            let (i, j) = (at / n, at % n);
            if errors.contains(&i) || errors.contains(&j) {
                *entry = if i == j { variance } else { 0.0 };
            }
        }
        // A diagonal block beside a part of a positive definite matrix is one; should rounding object, the belief stays.
        let _is_set = self.set_belief(&mean, &covariance);
    }
}
