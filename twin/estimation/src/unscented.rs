//! The unscented Kalman filter with noise-augmented sigma points and one measured quantity.
//!
//! # Letters
//! `n` states, one output; `x` mean, `P` covariance, `Q` process noise (added each step, whatever its length), `R`
//! sensor noise; `L = 2n + 1` columns of the augmented root: state, process noise, sensor noise.
//! `c = alpha^2 (L + kappa)`, `gamma = sqrt(c)`, `lambda = c - L`; weights `Wm_0 = lambda / c`,
//! `Wc_0 = Wm_0 + 1 - alpha^2 + beta`, `W = 1 / (2c)` for all other points.
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
    reason = "buffers are sized in `Filter::new` and sliced to the dimension on entry"
)]

use crate::matrix::{Dimension, Dynamic, Fixed, cholesky, repair};
use crate::model::{CellModel, Conditions, Interval};

/// Spread and weights of the sigma points.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Weights {
    /// `gamma`.
    pub(crate) spread: f64,
    /// `W`.
    pub(crate) other: f64,
    /// `Wc_0 + 2 W`: the centre and the sensor-noise points, which share the centre's state.
    centre_and_sensor: f64,
}

impl Weights {
    /// The weights for `n` states; `kappa` is `None` for Moirae's "automatic", `3 - L`.
    ///
    /// `alpha` must lie in `[0.001, 1]` and `L + kappa` be positive: documents are checked for both.
    pub(crate) fn new(n: usize, alpha: f64, kappa: Option<f64>, beta: f64) -> Self {
        let columns = augmented_columns(n);
        let kappa = kappa.unwrap_or(3.0 - columns);
        let c = alpha * alpha * (columns + kappa);
        let centre_mean = (c - columns) / c;
        let centre = centre_mean + 1.0 - alpha * alpha + beta;
        let other = 1.0 / (2.0 * c);
        Self {
            spread: alpha * (columns + kappa).sqrt(),
            other,
            centre_and_sensor: centre + 2.0 * other,
        }
    }
}

/// `L = 2n + 1`.
#[expect(clippy::cast_precision_loss, reason = "at most 81")]
pub(crate) fn augmented_columns(n: usize) -> f64 {
    (2 * n + 1) as f64
}

/// What the filter knows of the system besides its model; all in model coordinates.
#[derive(Clone, Debug)]
pub(crate) struct Noise {
    /// `Q`, `[n, n]` row-major, positive definite.
    pub(crate) process: Vec<f64>,
    /// `R`, V^2, positive.
    pub(crate) sensor: f64,
}

/// The mean and covariance held by a filter.
#[derive(Clone, Debug)]
pub(crate) struct Belief {
    /// `x`, `[n]`.
    pub(crate) mean: Vec<f64>,
    /// `P`, `[n, n]` row-major, exactly symmetric.
    pub(crate) covariance: Vec<f64>,
    /// Lower Cholesky factor of `P`.
    factor: Vec<f64>,
}

/// One step's input: the interval, the conditions at both ends, and what was measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Passage<'a> {
    pub(crate) model: &'a CellModel,
    pub(crate) interval: &'a Interval,
    pub(crate) start: &'a Conditions,
    pub(crate) end: &'a Conditions,
    /// V.
    pub(crate) measured: f64,
}

impl Passage<'_> {
    #[inline]
    fn advance(&self, state: &mut [f64]) {
        self.model.advance(self.interval, self.start, state);
    }

    #[inline]
    fn voltage(&self, state: &[f64]) -> f64 {
        self.model
            .voltage(state, self.interval.current_after, self.end)
    }
}

/// The voltage a step expected, and whether its covariance needed repair.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Prediction {
    pub(crate) voltage: f64,
    pub(crate) variance: f64,
    pub(crate) repaired: bool,
}

/// A belief, the noises, and the room a step works in. A step allocates nothing unless it must repair.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    weights: Weights,
    belief: Belief,
    /// Initial variances: the scale of each state for repairs.
    scale: Vec<f64>,
    process: Vec<f64>,
    sensor: f64,
    /// `gamma` times the columns of the root of `Q`, one column per row.
    process_spread: Vec<f64>,
    work: Workspace,
}

/// Buffers of one step; nothing in them outlives it.
#[derive(Clone, Debug)]
struct Workspace {
    point: Vec<f64>,
    centre: Vec<f64>,
    /// `[2n, n]`: evolved points, then their distances from the predicted mean.
    points: Vec<f64>,
    delta: Vec<f64>,
    /// `[4n]`: voltages of the state points, then of the process-noise points, less the centre's.
    voltages: Vec<f64>,
    /// `Pxy`, `[n]`.
    cross: Vec<f64>,
    mean: Vec<f64>,
    covariance: Vec<f64>,
    factor: Vec<f64>,
}

impl Filter {
    /// A filter of `mean.len()` states; `None` unless `covariance` and the process noise are positive definite.
    pub(crate) fn new(
        weights: Weights,
        mean: &[f64],
        covariance: &[f64],
        noise: Noise,
    ) -> Option<Self> {
        let n = mean.len();
        let mut root = vec![0.0; n * n];
        if !cholesky(Dynamic(n), &noise.process, &mut root) {
            return None;
        }
        let process_spread = (0..n * n)
            .map(|at| weights.spread * root[(at % n) * n + at / n])
            .collect();
        let scale = (0..n).map(|i| covariance[i * n + i]).collect();
        let mut filter = Self {
            weights,
            belief: Belief {
                mean: vec![0.0; n],
                covariance: vec![0.0; n * n],
                factor: root,
            },
            scale,
            process: noise.process,
            sensor: noise.sensor,
            process_spread,
            work: Workspace::new(n),
        };
        filter.set_belief(mean, covariance).then_some(filter)
    }

    /// The present belief.
    pub(crate) fn belief(&self) -> &Belief {
        &self.belief
    }

    /// Replaces the belief; answers `false`, changing nothing, unless `covariance` is positive definite.
    pub(crate) fn set_belief(&mut self, mean: &[f64], covariance: &[f64]) -> bool {
        let n = mean.len();
        let mut factor = vec![0.0; n * n];
        if !self.factor(covariance, &mut factor) {
            return false;
        }
        self.belief = Belief {
            mean: mean.to_vec(),
            covariance: covariance.to_vec(),
            factor,
        };
        true
    }

    /// The same arithmetic as in a step, so that a restored belief has the factor of the saved one.
    fn factor(&self, covariance: &[f64], factor: &mut [f64]) -> bool {
        cholesky(Dynamic(self.belief.mean.len()), covariance, factor)
    }

    /// Conditions the belief on one measurement; `None`, with the belief as it was, where a number ceased to be
    /// finite or the predicted variance is not positive.
    pub(crate) fn step(&mut self, passage: &Passage<'_>) -> Option<Prediction> {
        match self.belief.mean.len() {
            2 => self.step_sized(Fixed::<2>, passage),
            3 => self.step_sized(Fixed::<3>, passage),
            4 => self.step_sized(Fixed::<4>, passage),
            5 => self.step_sized(Fixed::<5>, passage),
            6 => self.step_sized(Fixed::<6>, passage),
            7 => self.step_sized(Fixed::<7>, passage),
            8 => self.step_sized(Fixed::<8>, passage),
            9 => self.step_sized(Fixed::<9>, passage),
            10 => self.step_sized(Fixed::<10>, passage),
            11 => self.step_sized(Fixed::<11>, passage),
            12 => self.step_sized(Fixed::<12>, passage),
            n => self.step_sized(Dynamic(n), passage),
        }
    }

    fn step_sized<D: Dimension>(&mut self, n: D, passage: &Passage<'_>) -> Option<Prediction> {
        self.evolve(n, passage);
        let centre_voltage = self.predict_voltages(n, passage);
        self.predict_state(n);
        let (shift, variance) = self.predict_output(n);
        let voltage = centre_voltage + shift;
        if !(variance > 0.0 && variance.is_finite() && voltage.is_finite()) {
            return None;
        }
        self.update(n, variance, passage.measured - voltage);
        let repaired = self.settle(n)?;
        Some(Prediction {
            voltage,
            variance,
            repaired,
        })
    }

    /// Evolves the centre and the `2n` state points.
    #[inline]
    fn evolve<D: Dimension>(&mut self, dimension: D, passage: &Passage<'_>) {
        let n = dimension.size();
        let (mean, factor) = (&self.belief.mean[..n], &self.belief.factor[..n * n]);
        let work = &mut self.work;
        let (centre, points) = (&mut work.centre[..n], &mut work.points[..2 * n * n]);
        centre.copy_from_slice(mean);
        passage.advance(centre);
        for column in 0..n {
            for (side, sign) in [(0, self.weights.spread), (n, -self.weights.spread)] {
                let row = (side + column) * n;
                let point = &mut points[row..row + n];
                for i in 0..n {
                    point[i] = mean[i] + sign * factor[i * n + column];
                }
                passage.advance(point);
            }
        }
    }

    /// Voltages of the state points and of the process-noise points, less the centre's, which is returned.
    #[inline]
    fn predict_voltages<D: Dimension>(&mut self, dimension: D, passage: &Passage<'_>) -> f64 {
        let n = dimension.size();
        let work = &mut self.work;
        let (centre, point) = (&work.centre[..n], &mut work.point[..n]);
        let (points, voltages) = (&work.points[..2 * n * n], &mut work.voltages[..4 * n]);
        let spread = &self.process_spread[..n * n];
        let centre_voltage = passage.voltage(centre);
        for row in 0..2 * n {
            voltages[row] = passage.voltage(&points[row * n..(row + 1) * n]) - centre_voltage;
        }
        for column in 0..n {
            let noise = &spread[column * n..(column + 1) * n];
            for (row, sign) in [(2 * n, 1.0), (3 * n, -1.0)] {
                for i in 0..n {
                    point[i] = centre[i] + sign * noise[i];
                }
                voltages[row + column] = passage.voltage(point) - centre_voltage;
            }
        }
        centre_voltage
    }

    /// The predicted mean and the lower triangle of the predicted covariance; points become distances from the mean.
    #[inline]
    fn predict_state<D: Dimension>(&mut self, dimension: D) {
        let n = dimension.size();
        let Weights {
            other,
            centre_and_sensor,
            ..
        } = self.weights;
        let work = &mut self.work;
        let (points, centre) = (&mut work.points[..2 * n * n], &work.centre[..n]);
        let (delta, mean) = (&mut work.delta[..n], &mut work.mean[..n]);
        for i in 0..n {
            let mut sum = 0.0;
            for row in 0..2 * n {
                points[row * n + i] -= centre[i];
                sum += points[row * n + i];
            }
            delta[i] = other * sum;
            mean[i] = centre[i] + delta[i];
            for row in 0..2 * n {
                points[row * n + i] -= delta[i];
            }
        }
        let shared = centre_and_sensor + 2.0 * other * count(n);
        let (process, covariance) = (&self.process[..n * n], &mut work.covariance[..n * n]);
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
    fn predict_output<D: Dimension>(&mut self, dimension: D) -> (f64, f64) {
        let n = dimension.size();
        let Weights {
            other,
            centre_and_sensor,
            ..
        } = self.weights;
        let work = &mut self.work;
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

    /// The posterior mean, and the posterior covariance mirrored from its lower triangle.
    #[inline]
    fn update<D: Dimension>(&mut self, dimension: D, variance: f64, innovation: f64) {
        let n = dimension.size();
        let work = &mut self.work;
        let (mean, cross) = (&mut work.mean[..n], &work.cross[..n]);
        let covariance = &mut work.covariance[..n * n];
        for i in 0..n {
            let gain = cross[i] / variance;
            mean[i] += gain * innovation;
            for j in 0..=i {
                let entry = covariance[i * n + j] - gain * cross[j];
                covariance[i * n + j] = entry;
                covariance[j * n + i] = entry;
            }
        }
    }

    /// Takes the posterior over if it is finite, repairing its covariance where that is not positive definite.
    #[inline]
    fn settle<D: Dimension>(&mut self, dimension: D) -> Option<bool> {
        let n = dimension.size();
        let work = &mut self.work;
        if !work.mean[..n].iter().all(|value| value.is_finite()) {
            return None;
        }
        let mut repaired = false;
        if !cholesky(dimension, &work.covariance, &mut work.factor) {
            if !work.covariance.iter().all(|value| value.is_finite()) {
                return None;
            }
            repair(&mut work.covariance, &self.scale);
            repaired = true;
            if !cholesky(dimension, &work.covariance, &mut work.factor) {
                return None;
            }
        }
        std::mem::swap(&mut self.belief.mean, &mut work.mean);
        std::mem::swap(&mut self.belief.covariance, &mut work.covariance);
        std::mem::swap(&mut self.belief.factor, &mut work.factor);
        Some(repaired)
    }
}

impl Workspace {
    fn new(n: usize) -> Self {
        Self {
            point: vec![0.0; n],
            centre: vec![0.0; n],
            points: vec![0.0; 2 * n * n],
            delta: vec![0.0; n],
            voltages: vec![0.0; 4 * n],
            cross: vec![0.0; n],
            mean: vec![0.0; n],
            covariance: vec![0.0; n * n],
            factor: vec![0.0; n * n],
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "at most 40")]
fn count(n: usize) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Document;
    use crate::estimator::{Estimator, Observation};

    /// The filter of a document of four states, and a step for it.
    fn filter() -> (Filter, CellModel) {
        let document = r#"{
            "kind": "joint",
            "asoh": {
                "updatable": ["q_t", "r0"],
                "q_t": {"updatable": ["base_values"], "base_values": 2.0},
                "ocv": {"ocv_ref": {"base_values": [3.0, 3.6, 3.7, 4.2]}},
                "r0": {"updatable": ["base_values"], "base_values": 0.05},
                "h0": {"base_values": 0.01}
            },
            "initial_transients": {"soc": 0.5},
            "covariance_transient": [[0.01, 0.0001], [0.0001, 1e-4]],
            "covariance_asoh": [[0.01, 0.0], [0.0, 1e-4]]
        }"#;
        let (document, _) = Document::from_json(document).unwrap();
        (document.filter(), document.cell.model.clone())
    }

    #[test]
    fn a_dimension_known_to_the_compiler_gives_the_bits_of_one_that_is_not() {
        let (mut fixed, model) = filter();
        let mut dynamic = fixed.clone();
        let conditions = Conditions::new(&model, Some(25.0));
        for k in 0..50_u32 {
            let current = f64::from(k % 7) - 3.0;
            let interval = Interval::new(&model, 10.0, current, current + 1.0);
            let passage = Passage {
                model: &model,
                interval: &interval,
                start: &conditions,
                end: &conditions,
                measured: 3.65 + 0.05 * current,
            };
            let a = fixed.step_sized(Fixed::<4>, &passage).unwrap();
            let b = dynamic.step_sized(Dynamic(4), &passage).unwrap();
            assert_eq!(a.voltage.to_bits(), b.voltage.to_bits());
            assert_eq!(a.variance.to_bits(), b.variance.to_bits());
        }
        let bits = |filter: &Filter| -> Vec<u64> {
            let belief = filter.belief();
            belief
                .mean
                .iter()
                .chain(&belief.covariance)
                .map(|value| value.to_bits())
                .collect()
        };
        assert_eq!(bits(&fixed), bits(&dynamic));
    }

    #[test]
    fn default_weights_are_those_of_moirae() {
        let weights = Weights::new(4, 1.0, Some(0.0), 2.0);
        assert!((weights.spread - 3.0).abs() < 1e-15);
        assert!((weights.other - 1.0 / 18.0).abs() < 1e-16);
        assert!((weights.centre_and_sensor - (2.0 + 1.0 / 9.0)).abs() < 1e-15);
    }

    #[test]
    fn thirty_estimated_values_of_one_curve_are_handled_like_any_others() {
        let n = 30;
        let row = |i: usize, size: usize| -> Vec<f64> {
            (0..size).map(|j| if i == j { 1e-4 } else { 0.0 }).collect()
        };
        let matrix = |size: usize| -> Vec<Vec<f64>> { (0..size).map(|i| row(i, size)).collect() };
        let values: Vec<f64> = (0..n).map(|k| 3.0 + 0.04 * f64::from(k)).collect();
        let document = serde_json::json!({
            "kind": "joint",
            "asoh": {
                "updatable": ["ocv"],
                "q_t": {"base_values": 2.0},
                "ocv": {"updatable": ["ocv_ref"],
                        "ocv_ref": {"updatable": ["base_values"], "base_values": values}},
                "r0": {"base_values": 0.05},
            },
            "initial_transients": {"soc": 0.5},
            "covariance_transient": matrix(2),
            "covariance_asoh": matrix(30),
        });
        let (document, _) = Document::from_json(&document.to_string()).unwrap();
        assert_eq!(document.state_names().len(), 32);
        let mut estimator = Estimator::new(&document);
        for k in 0..200_u32 {
            let time = f64::from(k);
            let row = Observation {
                time,
                current: 1.0,
                voltage: 3.7,
                temperature: None,
            };
            estimator.observe(&row).unwrap();
        }
        assert_eq!(estimator.repairs(), 0);
    }
}
