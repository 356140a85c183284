//! The unscented Kalman filter with noise-augmented sigma points and one measured quantity.
//!
//! Letters as in the parent module and in `weights.rs`. Source of the algorithm: Wan and van der Merwe (2001), table
//! 7.3, with sigma points that are not drawn anew between prediction and output, as in Moirae.
//!
//! # The sums, with what is equal counted once
//! The points of the process-noise columns start from the mean, so they share the centre's evolution; those of the
//! sensor-noise column share its voltage too. With `d_i` the distance of evolved point `i` from the evolved centre and
//! `delta = W sum d_i`: `x- = centre + delta`, and since `2 W gamma^2 = 1` the noise points add exactly `Q` and
//! `2 W (n + 1) delta delta^T`, the centre `Wc_0 delta delta^T`. The same holds for the voltage.
//! So a step costs `2n + 1` evolutions and `4n + 1` voltages, and no large weights cancel.
//!
//! # What it does not promise
//! Nothing bounds the states: state of charge can leave `[0, 1]` as it can in Moirae.

#![expect(
    clippy::indexing_slicing,
    reason = "buffers are sized in `Unscented::new` and `Workspace::fit` and sliced to the dimension on entry"
)]

use std::sync::Arc;

use super::belief::{Belief, Keeper, Noise};
use super::workspace::{self, Workspace};
use super::{Measured, Prediction, System, Weights};
use crate::matrix::{Dimension, Dynamic, Fixed, cholesky};

/// A belief and the noises. A step allocates nothing unless it must repair.
#[derive(Clone, Debug)]
pub(crate) struct Unscented {
    pub(super) weights: Weights,
    pub(super) keeper: Keeper,
    pub(super) process: Arc<[f64]>,
    pub(super) sensor: f64,
    /// `gamma` times the columns of the root of `Q`, one column per row.
    pub(super) process_spread: Arc<[f64]>,
}

impl Unscented {
    /// A filter of `mean.len()` states; `None` unless `covariance` and the process noise are positive definite.
    pub(crate) fn new(
        weights: Weights,
        mean: &[f64],
        covariance: &[f64],
        noise: Noise,
    ) -> Option<Self> {
        let n = mean.len();
        Some(Self {
            weights,
            keeper: Keeper::new(mean, covariance)?,
            process_spread: spread_columns(n, &noise.process, weights.spread)?.into(),
            process: noise.process,
            sensor: noise.sensor,
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

    /// Goes back to the belief before the last step, which must have succeeded.
    pub(super) fn undo(&mut self) {
        self.keeper.swap();
    }

    /// See [`Filter::step`](super::Filter::step).
    pub(crate) fn step<S: System>(
        &mut self,
        system: &mut S,
        measured: Measured,
    ) -> Option<Prediction> {
        match self.keeper.scale.len() {
            2 => self.step_sized(Fixed::<2>, system, measured),
            3 => self.step_sized(Fixed::<3>, system, measured),
            4 => self.step_sized(Fixed::<4>, system, measured),
            5 => self.step_sized(Fixed::<5>, system, measured),
            6 => self.step_sized(Fixed::<6>, system, measured),
            7 => self.step_sized(Fixed::<7>, system, measured),
            8 => self.step_sized(Fixed::<8>, system, measured),
            9 => self.step_sized(Fixed::<9>, system, measured),
            10 => self.step_sized(Fixed::<10>, system, measured),
            11 => self.step_sized(Fixed::<11>, system, measured),
            12 => self.step_sized(Fixed::<12>, system, measured),
            n => self.step_sized(Dynamic(n), system, measured),
        }
    }

    /// As [`Unscented::step`], for systems that are not worth a copy of the code for every size.
    pub(super) fn step_any<S: System>(
        &mut self,
        system: &mut S,
        measured: Measured,
    ) -> Option<Prediction> {
        self.step_sized(Dynamic(self.keeper.scale.len()), system, measured)
    }

    pub(super) fn step_sized<D: Dimension, S: System>(
        &mut self,
        n: D,
        system: &mut S,
        measured: Measured,
    ) -> Option<Prediction> {
        workspace::lend((n.size(), self.weights.is_plain), |work| {
            self.step_within(work, n, system, measured)
        })
    }

    #[inline]
    fn step_within<D: Dimension, S: System>(
        &mut self,
        work: &mut Workspace,
        n: D,
        system: &mut S,
        measured: Measured,
    ) -> Option<Prediction> {
        self.evolve(work, n, system);
        let centre_voltage = self.predict_voltages(work, n, system);
        let (voltage, variance) = if self.weights.is_plain {
            self.predict_plainly(work, centre_voltage)
        } else {
            self.predict_mean(work, n);
            self.predict_covariance(work, n);
            let (shift, variance) = self.predict_output(work, n);
            (centre_voltage + shift, variance)
        };
        if !Prediction::is_usable(voltage, variance) {
            return None;
        }
        if !measured.counts {
            self.keeper.mirror(n.size());
        } else if self.weights.is_plain {
            self.condition_plainly(work, variance, measured.voltage - voltage);
        } else {
            let innovation = measured.voltage - voltage;
            self.keeper
                .condition(n, &work.cross, (variance, innovation));
        }
        let repaired = self.keeper.settle(n)?;
        Some(Prediction {
            voltage,
            variance,
            repaired,
        })
    }

    /// Evolves the centre and the `2n` state points.
    #[inline]
    pub(super) fn evolve<D: Dimension, S: System>(
        &self,
        work: &mut Workspace,
        dimension: D,
        system: &mut S,
    ) {
        let n = dimension.size();
        let belief = &self.keeper.belief;
        let (mean, factor) = (&belief.mean[..n], &belief.factor[..n * n]);
        let (centre, points) = (&mut work.centre[..n], &mut work.points[..2 * n * n]);
        centre.copy_from_slice(mean);
        system.advance(centre);
        for column in 0..n {
            for (side, sign) in [(0, self.weights.spread), (n, -self.weights.spread)] {
                let row = (side + column) * n;
                let point = &mut points[row..row + n];
                for i in 0..n {
                    point[i] = mean[i] + sign * factor[i * n + column];
                }
                system.advance(point);
            }
        }
    }

    /// Voltages of the state points and of the process-noise points, less the centre's (0 for plain sums), which is
    /// returned.
    #[inline]
    pub(super) fn predict_voltages<D: Dimension, S: System>(
        &self,
        work: &mut Workspace,
        dimension: D,
        system: &mut S,
    ) -> f64 {
        let n = dimension.size();
        let (centre, point) = (&work.centre[..n], &mut work.point[..n]);
        let (points, voltages) = (&work.points[..2 * n * n], &mut work.voltages[..4 * n]);
        let spread = &self.process_spread[..n * n];
        let centre_voltage = system.voltage(centre);
        let origin = if self.weights.is_plain {
            0.0
        } else {
            centre_voltage
        };
        for row in 0..2 * n {
            voltages[row] = system.voltage(&points[row * n..(row + 1) * n]) - origin;
        }
        for column in 0..n {
            let noise = &spread[column * n..(column + 1) * n];
            for (row, sign) in [(2 * n, 1.0), (3 * n, -1.0)] {
                for i in 0..n {
                    point[i] = centre[i] + sign * noise[i];
                }
                voltages[row + column] = system.voltage(point) - origin;
            }
        }
        centre_voltage
    }

    /// The predicted mean; evolved points become distances from it.
    #[inline]
    pub(super) fn predict_mean<D: Dimension>(&mut self, work: &mut Workspace, dimension: D) {
        let n = dimension.size();
        let (points, centre) = (&mut work.points[..2 * n * n], &work.centre[..n]);
        let (delta, mean) = (&mut work.delta[..n], &mut self.keeper.next.mean[..n]);
        for i in 0..n {
            let mut sum = 0.0;
            for row in 0..2 * n {
                points[row * n + i] -= centre[i];
                sum += points[row * n + i];
            }
            delta[i] = self.weights.other * sum;
            mean[i] = centre[i] + delta[i];
            for row in 0..2 * n {
                points[row * n + i] -= delta[i];
            }
        }
    }

    /// The lower triangle of the predicted covariance.
    #[inline]
    fn predict_covariance<D: Dimension>(&mut self, work: &Workspace, dimension: D) {
        let n = dimension.size();
        let Weights {
            other,
            centre_and_sensor,
            ..
        } = self.weights;
        let (points, delta) = (&work.points[..2 * n * n], &work.delta[..n]);
        let shared = centre_and_sensor + 2.0 * other * count(n);
        let covariance = &mut self.keeper.next.covariance[..n * n];
        let process = &self.process[..n * n];
        for i in 0..n {
            for j in 0..=i {
                let mut sum = 0.0;
                for row in 0..2 * n {
                    sum += points[row * n + i] * points[row * n + j];
                }
                covariance[i * n + j] =
                    process[i * n + j] + (shared * (delta[i] * delta[j]) + other * sum);
            }
        }
    }

    /// `Pxy` into the workspace; returns how far the predicted voltage lies from the centre's, and `Pyy`.
    #[inline]
    fn predict_output<D: Dimension>(&self, work: &mut Workspace, dimension: D) -> (f64, f64) {
        let n = dimension.size();
        let Weights {
            other,
            centre_and_sensor,
            ..
        } = self.weights;
        let (points, delta) = (&work.points[..2 * n * n], &work.delta[..n]);
        let (voltages, cross) = (&mut work.voltages[..4 * n], &mut work.cross[..n]);
        let spread = &self.process_spread[..n * n];
        let mut sum = 0.0;
        for voltage in voltages.iter() {
            sum += voltage;
        }
        let shift = other * sum;
        let mut squares = 0.0;
        for voltage in voltages.iter_mut() {
            *voltage -= shift;
            squares += *voltage * *voltage;
        }
        let variance = self.sensor + (centre_and_sensor * (shift * shift) + other * squares);
        // Process-noise points stand at `±noise - delta`, centre and sensor-noise points at `-delta`.
        let mut noise_sum = 0.0;
        for column in 0..n {
            noise_sum += voltages[2 * n + column] + voltages[3 * n + column];
        }
        let along_delta = centre_and_sensor * shift - other * noise_sum;
        for i in 0..n {
            let mut sum = 0.0;
            for row in 0..2 * n {
                sum += points[row * n + i] * voltages[row];
            }
            for column in 0..n {
                let difference = voltages[2 * n + column] - voltages[3 * n + column];
                sum += spread[column * n + i] * difference;
            }
            cross[i] = along_delta * delta[i] + other * sum;
        }
        (shift, variance)
    }
}

#[expect(clippy::cast_precision_loss, reason = "at most 40")]
fn count(n: usize) -> f64 {
    n as f64
}

/// `spread` times the columns of the root of `matrix`, one column per row; `None` unless it is positive definite.
pub(super) fn spread_columns(n: usize, matrix: &[f64], spread: f64) -> Option<Vec<f64>> {
    let mut root = vec![0.0; n * n];
    if !cholesky(Dynamic(n), matrix, &mut root) {
        return None;
    }
    let entry = |at: usize| spread * root[(at % n) * n + at / n];
    Some((0..n * n).map(entry).collect())
}
