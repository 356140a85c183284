//! The belief of a filter, and how a posterior takes its place.

#![expect(
    clippy::indexing_slicing,
    reason = "buffers are sized in `Keeper::new` and sliced to the dimension on entry"
)]

use std::sync::Arc;

use crate::matrix::{Dimension, Dynamic, cholesky, repair};

/// What the filter knows of the system besides its model; all in model coordinates.
#[derive(Clone, Debug)]
pub(crate) struct Noise {
    /// `Q`, `[n, n]` row-major, positive definite.
    pub(crate) process: Arc<[f64]>,
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
    pub(super) factor: Vec<f64>,
}

impl Belief {
    pub(super) fn zero(n: usize) -> Self {
        Self {
            mean: vec![0.0; n],
            covariance: vec![0.0; n * n],
            factor: vec![0.0; n * n],
        }
    }

    /// A diagonal block of a square matrix of `n` rows.
    pub(crate) fn block(matrix: &[f64], n: usize, range: std::ops::Range<usize>) -> Vec<f64> {
        let rows = matrix.chunks_exact(n).skip(range.start).take(range.len());
        rows.flat_map(|row| row[range.clone()].iter().copied())
            .collect()
    }
}

/// A belief, and the room in which the next one is made.
#[derive(Clone, Debug)]
pub(super) struct Keeper {
    pub(super) belief: Belief,
    /// The posterior in the making; after [`Keeper::settle`], the belief before.
    pub(super) next: Belief,
    /// Initial variances: the scale of each state for repairs.
    pub(super) scale: Arc<[f64]>,
}

impl Keeper {
    /// `None` unless `covariance` is positive definite.
    pub(super) fn new(mean: &[f64], covariance: &[f64]) -> Option<Self> {
        let n = mean.len();
        let mut keeper = Self {
            belief: Belief::zero(n),
            next: Belief::zero(n),
            scale: (0..n).map(|i| covariance[i * n + i]).collect(),
        };
        keeper.set(mean, covariance).then_some(keeper)
    }

    /// Replaces the belief; answers `false`, changing nothing, unless `covariance` is positive definite.
    ///
    /// The factor comes of the same arithmetic as in a step, so that a restored belief has the factor of the saved one.
    pub(super) fn set(&mut self, mean: &[f64], covariance: &[f64]) -> bool {
        self.next.mean.copy_from_slice(mean);
        self.next.covariance.copy_from_slice(covariance);
        if !cholesky(Dynamic(mean.len()), covariance, &mut self.next.factor) {
            return false;
        }
        self.swap();
        true
    }

    /// The belief and the one before change places.
    pub(super) fn swap(&mut self) {
        std::mem::swap(&mut self.belief, &mut self.next);
    }

    /// Makes the lower triangle of the predicted covariance in `next` that of the posterior, and mirrors it; moves the
    /// mean by the innovation. `cross` is `Pxy`.
    #[inline]
    pub(super) fn condition<D: Dimension>(
        &mut self,
        dimension: D,
        cross: &[f64],
        (variance, innovation): (f64, f64),
    ) {
        let n = dimension.size();
        let (mean, cross) = (&mut self.next.mean[..n], &cross[..n]);
        let covariance = &mut self.next.covariance[..n * n];
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

    /// Leaves the prediction as it is, mirrored.
    pub(super) fn mirror(&mut self, n: usize) {
        for i in 0..n {
            for j in 0..i {
                self.next.covariance[j * n + i] = self.next.covariance[i * n + j];
            }
        }
    }

    /// Takes the posterior over if it is finite, repairing its covariance where that is not positive definite.
    #[inline]
    pub(super) fn settle<D: Dimension>(&mut self, dimension: D) -> Option<bool> {
        let n = dimension.size();
        let next = &mut self.next;
        if !next.mean[..n].iter().all(|value| value.is_finite()) {
            return None;
        }
        let mut repaired = false;
        if !cholesky(dimension, &next.covariance, &mut next.factor) {
            if !next.covariance.iter().all(|value| value.is_finite()) {
                return None;
            }
            repair(&mut next.covariance, &self.scale);
            repaired = true;
            if !cholesky(dimension, &next.covariance, &mut next.factor) {
                return None;
            }
        }
        self.swap();
        Some(repaired)
    }
}
