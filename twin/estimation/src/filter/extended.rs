//! The extended Kalman filter; without its update it is Coulomb counting with a growing uncertainty.
//!
//! `x- = f(x)`, `P- = F P F' + Q`, `K = P- H' / (H P- H' + R)`; source: Jazwinski, *Stochastic Processes and Filtering
//! Theory* (1970), theorem 8.1. Letters as in the parent module; `F` and `H` are the Jacobians of motion and voltage.
//!
//! # Why the Jacobians are differences
//! Every parameter may be a curve of nine styles over a state, and two sets of equations move it: analytic derivatives
//! would be a second model to keep true to the first, with branches of their own at each knot. A forward difference
//! costs `2n` evaluations, fewer than the sigma points, and is the derivative of exactly the model that predicts. Its
//! step is 2^-14 of the initial standard deviation: curvature over it is far below that over the belief, which the
//! filter neglects anyhow, and rounding leaves at least six digits. At a knot it takes the slope above.
//! Styles that step (`nearest`, `zero`, ..) have slope 0 between their knots: the unscented filter suits them better.

#![expect(
    clippy::indexing_slicing,
    reason = "buffers are sized in `Extended::new` and sliced to the dimension on entry"
)]

use super::belief::{Belief, Keeper, Noise};
use super::{Measured, Prediction, System};
use crate::matrix::{Dimension, Dynamic, Fixed};

/// Length of a difference, in initial standard deviations.
const STEP: f64 = 1.0 / 16_384.0;
/// The least length of a difference, relative to the value: half of the digits.
const LEAST_STEP: f64 = 1.0 / 67_108_864.0;

/// A belief, the noises, and the room a step works in.
#[derive(Clone, Debug)]
pub(crate) struct Extended {
    keeper: Keeper,
    noise: Noise,
    learns: bool,
    /// Length of the difference for each state.
    steps: Vec<f64>,
    centre: Vec<f64>,
    point: Vec<f64>,
    /// `F`, `[n, n]`.
    motion: Vec<f64>,
    /// `F P`, `[n, n]`.
    product: Vec<f64>,
    /// `H`, `[n]`.
    slope: Vec<f64>,
    /// `P- H'`, `[n]`.
    cross: Vec<f64>,
}

impl Extended {
    /// A filter of `mean.len()` states, or, unless it `learns`, its prediction alone; `None` unless `covariance` is
    /// positive definite.
    pub(crate) fn new(
        mean: &[f64],
        covariance: &[f64],
        noise: Noise,
        learns: bool,
    ) -> Option<Self> {
        let n = mean.len();
        let keeper = Keeper::new(mean, covariance)?;
        let steps = keeper.scale.iter().map(|variance| STEP * variance.sqrt());
        Some(Self {
            steps: steps.collect(),
            keeper,
            noise,
            learns,
            centre: vec![0.0; n],
            point: vec![0.0; n],
            motion: vec![0.0; n * n],
            product: vec![0.0; n * n],
            slope: vec![0.0; n],
            cross: vec![0.0; n],
        })
    }

    /// The present belief.
    pub(crate) fn belief(&self) -> &Belief {
        &self.keeper.belief
    }

    /// Replaces the belief; answers `false`, changing nothing, unless `covariance` is positive definite.
    pub(crate) fn set_belief(&mut self, mean: &[f64], covariance: &[f64]) -> bool {
        self.keeper.set(mean, covariance)
    }

    /// See [`Filter::step`](super::Filter::step).
    pub(crate) fn step<S: System>(
        &mut self,
        system: &mut S,
        measured: Measured,
    ) -> Option<Prediction> {
        match self.steps.len() {
            2 => self.step_sized(Fixed::<2>, system, measured),
            3 => self.step_sized(Fixed::<3>, system, measured),
            4 => self.step_sized(Fixed::<4>, system, measured),
            6 => self.step_sized(Fixed::<6>, system, measured),
            8 => self.step_sized(Fixed::<8>, system, measured),
            n => self.step_sized(Dynamic(n), system, measured),
        }
    }

    fn step_sized<D: Dimension, S: System>(
        &mut self,
        n: D,
        system: &mut S,
        measured: Measured,
    ) -> Option<Prediction> {
        let voltage = self.linearise(n, system);
        self.predict(n);
        let variance = self.predict_output(n);
        if !Prediction::is_usable(voltage, variance) {
            return None;
        }
        if measured.counts && self.learns {
            let innovation = measured.voltage - voltage;
            self.keeper
                .condition(n, &self.cross, (variance, innovation));
        } else {
            self.keeper.mirror(n.size());
        }
        let repaired = self.keeper.settle(n)?;
        Some(Prediction {
            voltage,
            variance,
            repaired,
        })
    }

    /// Moves the mean, and finds both Jacobians; answers the voltage there.
    #[inline]
    fn linearise<D: Dimension, S: System>(&mut self, dimension: D, system: &mut S) -> f64 {
        let n = dimension.size();
        let mean = &self.keeper.belief.mean[..n];
        let (centre, point) = (&mut self.centre[..n], &mut self.point[..n]);
        let motion = &mut self.motion[..n * n];
        centre.copy_from_slice(mean);
        system.advance(centre);
        for j in 0..n {
            point.copy_from_slice(mean);
            let length = lengthen(&mut point[j], self.steps[j]);
            system.advance(point);
            for i in 0..n {
                motion[i * n + j] = (point[i] - centre[i]) / length;
            }
        }
        let voltage = system.voltage(centre);
        for j in 0..n {
            point.copy_from_slice(centre);
            let length = lengthen(&mut point[j], self.steps[j]);
            self.slope[j] = (system.voltage(point) - voltage) / length;
        }
        voltage
    }

    /// The predicted mean and the lower triangle of the predicted covariance.
    #[inline]
    fn predict<D: Dimension>(&mut self, dimension: D) {
        let n = dimension.size();
        let (motion, product) = (&self.motion[..n * n], &mut self.product[..n * n]);
        let before = &self.keeper.belief.covariance[..n * n];
        for i in 0..n {
            for j in 0..n {
                let mut sum = 0.0;
                for k in 0..n {
                    sum += motion[i * n + k] * before[k * n + j];
                }
                product[i * n + j] = sum;
            }
        }
        let (covariance, process) = (
            &mut self.keeper.next.covariance[..n * n],
            &self.noise.process[..n * n],
        );
        for i in 0..n {
            for j in 0..=i {
                let mut sum = process[i * n + j];
                for k in 0..n {
                    sum += product[i * n + k] * motion[j * n + k];
                }
                covariance[i * n + j] = sum;
            }
        }
        self.keeper.next.mean.copy_from_slice(&self.centre);
    }

    /// `P- H'` into the workspace; returns `H P- H' + R`.
    #[inline]
    fn predict_output<D: Dimension>(&mut self, dimension: D) -> f64 {
        let n = dimension.size();
        let covariance = &self.keeper.next.covariance[..n * n];
        let slope = &self.slope[..n];
        let mut variance = self.noise.sensor;
        for i in 0..n {
            let mut sum = 0.0;
            for j in 0..n {
                sum += covariance[i.max(j) * n + i.min(j)] * slope[j];
            }
            self.cross[i] = sum;
            variance += sum * slope[i];
        }
        variance
    }
}

/// Adds the length of a difference to `value`; answers what was added in truth, after rounding.
fn lengthen(value: &mut f64, step: f64) -> f64 {
    let before = *value;
    *value += step.max(LEAST_STEP * before.abs());
    *value - before
}
