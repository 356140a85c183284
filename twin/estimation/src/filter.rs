//! The filters: a belief about states, moved by a system and conditioned on one measured quantity.
//!
//! # Letters
//! `n` states, one output; `x` mean, `P` covariance, `Q` process noise (added each step, whatever its length), `R`
//! sensor noise, `S` or `Pyy` the variance of the predicted output, `K` gain. Minus marks a prediction: `x-`, `P-`.
//!
//! Each filter keeps `P` exactly symmetric and positive definite, and its belief as it was where a step fails. No step
//! allocates unless it must repair its covariance. What no row changes is shared by all filters of a document, and the
//! room that an unscented step works in is the thread's: thousands of filters wait for their next row.

mod belief;
mod current;
mod dual;
mod extended;
mod plain;
mod square_root;
mod unscented;
mod weights;
mod workspace;

pub(crate) use belief::{Belief, Noise};
pub(crate) use current::SETTLED_NOISE;
pub(crate) use dual::{Dual, Half};
pub(crate) use extended::Extended;
pub(crate) use square_root::SquareRoot;
pub(crate) use unscented::Unscented;
pub(crate) use weights::{Weights, augmented_columns};

use crate::model::{CellModel, Conditions, Interval};

/// What a filter asks of the world: how a state moves over one step, and what it then shows.
pub(crate) trait System {
    /// Moves `state`, `[n]`, over the step.
    fn advance(&mut self, state: &mut [f64]);
    /// The output of a moved state.
    fn voltage(&mut self, state: &[f64]) -> f64;
}

/// The interval of a step, and the conditions at both ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Passage<'a> {
    pub(crate) model: &'a CellModel,
    pub(crate) interval: &'a Interval,
    pub(crate) start: &'a Conditions,
    pub(crate) end: &'a Conditions,
}

impl System for Passage<'_> {
    #[inline]
    fn advance(&mut self, state: &mut [f64]) {
        if self.model.current_noise.is_some() {
            self.advance_truly(state);
        } else {
            self.model.advance(self.interval, self.start, state);
        }
    }

    #[inline]
    fn voltage(&mut self, state: &[f64]) -> f64 {
        if self.model.current_noise.is_some() {
            return self.voltage_truly(state);
        }
        self.model
            .voltage(state, self.interval.current_after, self.end)
    }
}

/// What was measured, and whether the belief may learn from it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    /// V.
    pub(crate) voltage: f64,
    /// Without it the step only predicts.
    pub(crate) counts: bool,
}

/// The voltage a step expected, and whether its covariance needed repair.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Prediction {
    pub(crate) voltage: f64,
    pub(crate) variance: f64,
    pub(crate) repaired: bool,
}

impl Prediction {
    fn is_usable(voltage: f64, variance: f64) -> bool {
        variance > 0.0 && variance.is_finite() && voltage.is_finite()
    }
}

/// One of the filters, over the model of a cell.
#[derive(Clone, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "most are the largest; the others are boxed so that it is no larger"
)]
pub(crate) enum Filter {
    /// The unscented filter over all states together.
    Joint(Unscented),
    /// The same, its covariance carried as a root.
    SquareRoot(Box<SquareRoot>),
    /// The extended filter, and Coulomb counting, which is its prediction alone.
    Extended(Box<Extended>),
    /// Two unscented filters side by side.
    Dual(Box<Dual>),
}

impl Filter {
    /// The present belief over all states.
    pub(crate) fn belief(&self) -> &Belief {
        match self {
            Self::Joint(filter) => filter.belief(),
            Self::SquareRoot(filter) => filter.belief(),
            Self::Extended(filter) => filter.belief(),
            Self::Dual(filter) => filter.belief(),
        }
    }

    /// Replaces the belief; answers `false`, changing nothing, unless `covariance` is positive definite.
    pub(crate) fn set_belief(&mut self, mean: &[f64], covariance: &[f64]) -> bool {
        match self {
            Self::Joint(filter) => filter.set_belief(mean, covariance),
            Self::SquareRoot(filter) => filter.set_belief(mean, covariance),
            Self::Extended(filter) => filter.set_belief(mean, covariance),
            Self::Dual(filter) => filter.set_belief(mean, covariance),
        }
    }

    /// The belief exactly as the filter holds it: the mean, and the covariance or, where that is made of it, its root.
    pub(crate) fn held(&self) -> (Vec<f64>, Vec<f64>) {
        let belief = self.belief();
        match self {
            Self::Joint(_) | Self::Extended(_) => (belief.mean.clone(), belief.covariance.clone()),
            Self::SquareRoot(_) => (belief.mean.clone(), belief.factor.clone()),
            Self::Dual(filter) => filter.held(),
        }
    }

    /// Replaces the belief by one of [`Filter::held`], to the bit; answers `false`, changing nothing, unless it is one.
    pub(crate) fn set_held(&mut self, mean: &[f64], matrix: &[f64]) -> bool {
        match self {
            Self::Joint(_) | Self::Extended(_) => self.set_belief(mean, matrix),
            Self::SquareRoot(filter) => filter.set_root(mean, matrix),
            Self::Dual(filter) => filter.set_held(mean, matrix),
        }
    }

    /// Moves the belief and conditions it on one measurement; `None`, with the belief as it was, where a number
    /// ceased to be finite or the predicted variance is not positive.
    pub(crate) fn step(
        &mut self,
        mut passage: Passage<'_>,
        measured: Measured,
    ) -> Option<Prediction> {
        match self {
            Self::Joint(filter) => filter.step(&mut passage, measured),
            Self::SquareRoot(filter) => filter.step(&mut passage, measured),
            Self::Extended(filter) => filter.step(&mut passage, measured),
            Self::Dual(filter) => filter.step(passage, measured),
        }
    }
}

#[cfg(test)]
impl Filter {
    /// `Q` of the unscented filter over all states.
    pub(crate) fn process_noise(&self) -> &[f64] {
        match self {
            Self::Joint(filter) => &filter.process,
            _ => &[],
        }
    }
}

#[cfg(test)]
mod tests;
