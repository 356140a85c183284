//! The dual estimator: one unscented filter over the transients and one over the parameters, side by side.
//!
//! Both see the same input and voltage. At a step, before either moves, the filter of the transients takes the mean of
//! the parameters as fixed, and the filter of the parameters the mean of the transients: it judges a set of parameters
//! by the voltage they give after moving those transients through the step. Neither sees the other's news of the same
//! step, and no covariance between the two is kept. The predicted voltage is that of the transients' filter.
//!
//! Source: Plett, "Extended Kalman filtering for battery management systems ... Part 3", J. Power Sources 134 (2004),
//! in the unscented form and with the coupling of Moirae 0.3.

#![expect(
    clippy::indexing_slicing,
    reason = "buffers are sized in `Dual::new` and cut at the number of transients"
)]

use super::{Belief, Measured, Noise, Passage, Prediction, System, Unscented, Weights};

/// One of the two filters before any row.
#[derive(Clone, Debug)]
pub(crate) struct Half {
    pub(crate) weights: Weights,
    pub(crate) noise: Noise,
}

/// Two filters, and their beliefs joined.
#[derive(Clone, Debug)]
pub(crate) struct Dual {
    transients: Unscented,
    parameters: Unscented,
    /// Variance of the measured voltage, V^2.
    sensor: f64,
    /// What the parameters' filter works on, times this, is a parameter.
    scale: Vec<f64>,
    /// Both beliefs, in the units of the document; its factor is not used.
    joined: Belief,
    scratch: Vec<f64>,
}

impl Dual {
    /// Filters over the transients and over the parameters, the latter divided by `scale`; `None` unless both blocks of
    /// `covariance` and both noises are positive definite.
    pub(crate) fn new(
        scale: Vec<f64>,
        mean: &[f64],
        covariance: &[f64],
        [transients, mut parameters]: [Half; 2],
    ) -> Option<Self> {
        let n = mean.len();
        let count = n - scale.len();
        let first = Belief::block(covariance, n, 0..count);
        let (second_mean, second) = scaled(&scale, mean, covariance);
        let mut process = parameters.noise.process.to_vec();
        divide(&scale, &mut process);
        parameters.noise.process = process.into();
        let mut dual = Self {
            sensor: parameters.noise.sensor,
            transients: Unscented::new(
                transients.weights,
                &mean[..count],
                &first,
                transients.noise,
            )?,
            parameters: Unscented::new(
                parameters.weights,
                &second_mean,
                &second,
                parameters.noise,
            )?,
            scale,
            joined: Belief::zero(n),
            scratch: vec![0.0; n],
        };
        dual.join();
        Some(dual)
    }

    /// Both beliefs, without covariance between them.
    pub(crate) fn belief(&self) -> &Belief {
        &self.joined
    }

    /// Replaces both beliefs; answers `false`, changing nothing, unless their covariances are positive definite.
    pub(crate) fn set_belief(&mut self, mean: &[f64], covariance: &[f64]) -> bool {
        let count = mean.len() - self.scale.len();
        let first = Belief::block(covariance, mean.len(), 0..count);
        let (second_mean, second) = scaled(&self.scale, mean, covariance);
        self.set_both([&mean[..count], &second_mean], [&first, &second])
    }

    /// Both beliefs as the filters hold them.
    pub(crate) fn held(&self) -> (Vec<f64>, Vec<f64>) {
        let n = self.joined.mean.len();
        let (mut mean, mut covariance) = (Vec::new(), vec![0.0; n * n]);
        for belief in [self.transients.belief(), self.parameters.belief()] {
            let (from, size) = (mean.len(), belief.mean.len());
            mean.extend_from_slice(&belief.mean);
            for (i, row) in belief.covariance.chunks_exact(size).enumerate() {
                let start = (from + i) * n + from;
                covariance[start..start + size].copy_from_slice(row);
            }
        }
        (mean, covariance)
    }

    /// Replaces both beliefs by ones of [`Dual::held`]; answers as [`Dual::set_belief`].
    pub(crate) fn set_held(&mut self, mean: &[f64], covariance: &[f64]) -> bool {
        let (n, count) = (mean.len(), mean.len() - self.scale.len());
        let first = Belief::block(covariance, n, 0..count);
        let second = Belief::block(covariance, n, count..n);
        self.set_both([&mean[..count], &mean[count..]], [&first, &second])
    }

    fn set_both(&mut self, means: [&[f64]; 2], covariances: [&[f64]; 2]) -> bool {
        if !self.transients.set_belief(means[0], covariances[0]) {
            return false;
        }
        if !self.parameters.set_belief(means[1], covariances[1]) {
            self.transients.undo();
            return false;
        }
        self.join();
        true
    }

    /// See [`Filter::step`](super::Filter::step).
    pub(crate) fn step(&mut self, passage: Passage<'_>, measured: Measured) -> Option<Prediction> {
        self.scratch.copy_from_slice(&self.joined.mean);
        let mut system = WithParametersFixed {
            passage,
            whole: &mut self.scratch,
        };
        let prediction = self.transients.step_any(&mut system, measured)?;
        if passage.model.current_noise.is_some() {
            self.scratch.copy_from_slice(&self.joined.mean);
            passage.advance_truly(&mut self.scratch);
            self.parameters.sensor = self.sensor + passage.voltage_noise(&self.scratch);
        }
        let mut system = WithTransientsFixed {
            passage,
            start: &self.joined.mean,
            scale: &self.scale,
            whole: &mut self.scratch,
        };
        let Some(other) = self.parameters.step_any(&mut system, measured) else {
            self.transients.undo();
            return None;
        };
        self.join();
        Some(Prediction {
            repaired: prediction.repaired || other.repaired,
            ..prediction
        })
    }

    fn join(&mut self) {
        let n = self.joined.mean.len();
        let count = n - self.scale.len();
        let (first, second) = (self.transients.belief(), self.parameters.belief());
        self.joined.mean[..count].copy_from_slice(&first.mean);
        for (i, row) in first.covariance.chunks_exact(count).enumerate() {
            self.joined.covariance[i * n..i * n + count].copy_from_slice(row);
        }
        for (i, row) in second.covariance.chunks_exact(n - count).enumerate() {
            self.joined.mean[count + i] = second.mean[i] * self.scale[i];
            for (j, entry) in row.iter().enumerate() {
                let scale = self.scale[i] * self.scale[j];
                self.joined.covariance[(count + i) * n + count + j] = entry * scale;
            }
        }
    }
}

/// The parameters' part of a belief, divided by `scale`.
fn scaled(scale: &[f64], mean: &[f64], covariance: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let (n, count) = (mean.len(), mean.len() - scale.len());
    let mut block = Belief::block(covariance, n, count..n);
    divide(scale, &mut block);
    let mean = mean[count..].iter().zip(scale).map(|(a, b)| a / b);
    (mean.collect(), block)
}

/// Divides each entry of a square matrix by the scales of its row and column.
fn divide(scale: &[f64], matrix: &mut [f64]) {
    let size = scale.len();
    for (at, entry) in matrix.iter_mut().enumerate() {
        *entry /= scale[at / size] * scale[at % size];
    }
}

/// The cell as the transients' filter sees it.
struct WithParametersFixed<'a> {
    passage: Passage<'a>,
    /// A whole state; the parameters in it are the ones to use.
    whole: &'a mut [f64],
}

impl System for WithParametersFixed<'_> {
    fn advance(&mut self, state: &mut [f64]) {
        let count = state.len();
        self.whole[..count].copy_from_slice(state);
        self.passage.advance(self.whole);
        state.copy_from_slice(&self.whole[..count]);
    }

    fn voltage(&mut self, state: &[f64]) -> f64 {
        self.whole[..state.len()].copy_from_slice(state);
        self.passage.voltage(self.whole)
    }
}

/// The cell as the parameters' filter sees it.
struct WithTransientsFixed<'a> {
    passage: Passage<'a>,
    /// The whole state before the step; its transients are the ones to use.
    start: &'a [f64],
    scale: &'a [f64],
    whole: &'a mut [f64],
}

impl System for WithTransientsFixed<'_> {
    fn advance(&mut self, _state: &mut [f64]) {}

    fn voltage(&mut self, state: &[f64]) -> f64 {
        let count = self.whole.len() - state.len();
        self.whole[..count].copy_from_slice(&self.start[..count]);
        for (i, value) in state.iter().enumerate() {
            self.whole[count + i] = value * self.scale[i];
        }
        self.passage.advance(self.whole);
        self.passage.voltage(self.whole)
    }
}
