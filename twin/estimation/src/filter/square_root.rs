//! The unscented filter whose covariance is carried as its root, for runs so long or so ill-conditioned that the plain
//! form would lose positive definiteness.
//!
//! The weighted distances of all points from their means, the voltage in front of the states, stand in an array `A`
//! with `A' A = [[Pyy, Pyx], [Pxy, P-]]`. One orthogonal triangularisation `A = Q R` gives everything: `R` has
//! `sqrt(Pyy)` in its corner, the gain times it beside, and below the root of the posterior `P- - K Pyy K'`, which is
//! never subtracted. Only a negative weight of the centre (small `alpha`) asks for a rank-1 downdate.
//!
//! Sources: van der Merwe and Wan, "The square-root unscented Kalman filter", ICASSP 2001; Kaminski, Bryson and
//! Schmidt, "Discrete square root filtering", IEEE Trans. Automatic Control 16 (1971), for the array; Golub and Van
//! Loan, *Matrix Computations*, 5.1 and 6.5 for reflections and downdates.

#![expect(
    clippy::indexing_slicing,
    reason = "buffers are sized in `SquareRoot::new` and sliced to the dimension on entry"
)]

use super::belief::{Belief, Noise};
use super::workspace::{self, Workspace};
use super::{Measured, Prediction, System, Unscented, Weights};
use crate::matrix::Dynamic;
use crate::triangle::{downdate, triangularise};

/// An unscented filter, and the array its step works in.
#[derive(Clone, Debug)]
pub(crate) struct SquareRoot {
    /// Its belief's factor is the truth here, the covariance follows.
    inner: Unscented,
    sensor_deviation: f64,
    /// `A`, `[4n + 3, n + 1]`.
    array: Vec<f64>,
    /// The centre's row of `A`, where its weight is negative.
    centre_row: Vec<f64>,
    /// `R` while a downdate is tried.
    spare: Vec<f64>,
}

impl SquareRoot {
    /// As [`Unscented::new`].
    pub(crate) fn new(
        weights: Weights,
        mean: &[f64],
        covariance: &[f64],
        noise: Noise,
    ) -> Option<Self> {
        let n = mean.len();
        let sensor_deviation = noise.sensor.sqrt();
        let mut filter = Self {
            inner: Unscented::new(weights, mean, covariance, noise)?,
            sensor_deviation,
            array: vec![0.0; (4 * n + 3) * (n + 1)],
            centre_row: vec![0.0; n + 1],
            spare: vec![0.0; (n + 1) * (n + 1)],
        };
        filter.follow_root();
        Some(filter)
    }

    /// The present belief.
    pub(crate) fn belief(&self) -> &Belief {
        self.inner.belief()
    }

    /// Replaces the belief; answers `false`, changing nothing, unless `covariance` is positive definite.
    pub(crate) fn set_belief(&mut self, mean: &[f64], covariance: &[f64]) -> bool {
        let is_set = self.inner.set_belief(mean, covariance);
        self.follow_root();
        is_set
    }

    /// Makes the covariance that of the root, to the bit.
    fn follow_root(&mut self) {
        let belief = &mut self.inner.keeper.belief;
        square(belief.mean.len(), &belief.factor, &mut belief.covariance);
    }

    /// Replaces the belief by one with the lower root `root`; answers `false`, changing nothing, unless it is one.
    pub(crate) fn set_root(&mut self, mean: &[f64], root: &[f64]) -> bool {
        let n = mean.len();
        let is_root = root.len() == n * n
            && root.iter().all(|value| value.is_finite())
            && (0..n).all(|i| root[i * n + i] > 0.0);
        if !is_root {
            return false;
        }
        let next = &mut self.inner.keeper.next;
        next.mean.copy_from_slice(mean);
        next.factor.copy_from_slice(root);
        square(n, &next.factor, &mut next.covariance);
        self.inner.keeper.swap();
        true
    }

    /// See [`Filter::step`](super::Filter::step).
    pub(crate) fn step<S: System>(
        &mut self,
        system: &mut S,
        measured: Measured,
    ) -> Option<Prediction> {
        let n = self.centre_row.len() - 1;
        workspace::lend((n, false), |work| {
            self.step_within(work, n, system, measured)
        })
    }

    fn step_within<S: System>(
        &mut self,
        work: &mut Workspace,
        n: usize,
        system: &mut S,
        measured: Measured,
    ) -> Option<Prediction> {
        self.inner.evolve(work, Dynamic(n), system);
        let centre_voltage = self.inner.predict_voltages(work, Dynamic(n), system);
        self.inner.predict_mean(work, Dynamic(n));
        let shift = self.inner.weights.other * work.voltages.iter().sum::<f64>();
        let voltage = centre_voltage + shift;
        // The column in front is conditioned upon: with the voltage behind, the states' root stays the predicted one.
        let place = if measured.counts { 0 } else { n };
        self.fill(work, n, (place, shift));
        triangularise(&mut self.array, 4 * n + 3, n + 1);
        let repaired = !self.apply_centre(n + 1);
        let variance = column_square(&self.array, n + 1, place);
        if !Prediction::is_usable(voltage, variance) {
            return None;
        }
        self.take_root(n, place, measured.voltage - voltage)?;
        Some(Prediction {
            voltage,
            variance,
            repaired,
        })
    }

    /// Writes the array: state points, process-noise points, sensor-noise points, centre.
    fn fill(&mut self, work: &Workspace, n: usize, (place, shift): (usize, f64)) {
        let Unscented {
            weights,
            process_spread,
            ..
        } = &self.inner;
        let weight = weights.other.sqrt();
        let first = usize::from(place == 0);
        let mut rows = self.array.chunks_exact_mut(n + 1);
        let mut write = |scale: f64, voltage: f64, state: &dyn Fn(usize) -> f64| {
            if let Some(row) = rows.next() {
                row[place] = scale * voltage;
                for i in 0..n {
                    row[first + i] = scale * state(i);
                }
            }
        };
        for row in 0..2 * n {
            write(weight, work.voltages[row] - shift, &|i| {
                work.points[row * n + i]
            });
        }
        for (half, sign) in [(2 * n, 1.0), (3 * n, -1.0)] {
            for column in 0..n {
                write(weight, work.voltages[half + column] - shift, &|i| {
                    sign * process_spread[column * n + i] - work.delta[i]
                });
            }
        }
        for sign in [1.0, -1.0] {
            let noise = sign * weights.spread * self.sensor_deviation;
            write(weight, noise - shift, &|i| -work.delta[i]);
        }
        let centre = weights.centre;
        write(centre.max(0.0).sqrt(), -shift, &|i| -work.delta[i]);
        let scale = (-centre).max(0.0).sqrt();
        self.centre_row[place] = -scale * shift;
        for i in 0..n {
            self.centre_row[first + i] = -scale * work.delta[i];
        }
    }

    /// Takes a negative weight of the centre off; answers `false`, leaving the larger covariance, if that cannot be.
    fn apply_centre(&mut self, columns: usize) -> bool {
        if self.centre_row.iter().all(|&value| value == 0.0) {
            return true;
        }
        let used = columns * columns;
        self.spare.copy_from_slice(&self.array[..used]);
        if downdate(&mut self.spare, &mut self.centre_row, columns) {
            self.array[..used].copy_from_slice(&self.spare);
            return true;
        }
        false
    }

    /// The posterior out of the triangle; `None`, with the belief as it was, unless it is finite and has full rank.
    fn take_root(&mut self, n: usize, place: usize, innovation: f64) -> Option<()> {
        let first = usize::from(place == 0);
        let columns = n + 1;
        let next = &mut self.inner.keeper.next;
        for i in 0..n {
            let sign = self.array[(first + i) * columns + first + i].signum();
            for j in 0..=n - 1 - i {
                next.factor[(i + j) * n + i] =
                    sign * self.array[(first + i) * columns + first + i + j];
            }
            if first == 1 {
                next.mean[i] += self.array[1 + i] / self.array[0] * innovation;
            }
        }
        let is_usable = next.mean.iter().all(|value| value.is_finite())
            && next.factor.iter().all(|value| value.is_finite())
            && (0..n).all(|i| next.factor[i * n + i] > 0.0);
        if !is_usable {
            return None;
        }
        square(n, &next.factor, &mut next.covariance);
        self.inner.keeper.swap();
        Some(())
    }
}

/// The square of a column of a triangle.
fn column_square(triangle: &[f64], columns: usize, place: usize) -> f64 {
    (0..=place)
        .map(|row| triangle[row * columns + place] * triangle[row * columns + place])
        .sum()
}

/// `covariance = root root'`, symmetric to the bit.
fn square(n: usize, root: &[f64], covariance: &mut [f64]) {
    for i in 0..n {
        for j in 0..=i {
            let mut sum = 0.0;
            for k in 0..=j {
                sum += root[i * n + k] * root[j * n + k];
            }
            covariance[i * n + j] = sum;
            covariance[j * n + i] = sum;
        }
    }
}
