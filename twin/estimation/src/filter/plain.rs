//! The sums of a step over every point, one by one in Moirae's order.
//!
//! They round more than those of `unscented.rs`: a process noise far below its state loses digits when it is added to
//! it and taken off again, the same ones at every step. A dual estimator amplifies that, so that only with these sums
//! the recorded runs of Moirae are met over their full length. Used for `kind: "dual"` with `compat: "moirae-0.3"`.

#![expect(
    clippy::indexing_slicing,
    reason = "buffers are sized in `Unscented::new` and `Workspace::fit`"
)]

use super::Unscented;
use super::workspace::Workspace;

impl Unscented {
    /// The predicted mean, the lower triangle of the predicted covariance and `Pxy` into their places; returns the
    /// predicted voltage and `Pyy`.
    pub(super) fn predict_plainly(
        &mut self,
        work: &mut Workspace,
        centre_voltage: f64,
    ) -> (f64, f64) {
        let n = self.keeper.scale.len();
        let width = n + 1;
        self.lay_out(work, n, centre_voltage);
        let (weight, centre_weight) = (self.weights.other, self.weights.centre);
        let points = &mut work.points_and_voltages;
        let others = points.len() / width - 1;
        let centre_mean = 1.0 - (0..others).fold(0.0, |sum, _| sum + weight);
        // The weights of points with no weight at the centre do not sum to it in rounded numbers.
        let centre_mean = if centre_mean.abs() < 1e-12 {
            0.0
        } else {
            centre_mean
        };
        let weight_of = |row: usize| if row == 0 { centre_mean } else { weight };
        let total = pairwise(others + 1, &weight_of);
        for column in 0..n {
            let value = |row: usize| weight_of(row) * points[row * width + column];
            let mean = (0..=others).fold(0.0, |sum, row| sum + value(row)) / total;
            take_off(&mut points[column..], width, mean);
            self.keeper.next.mean[column] = mean;
        }
        let voltage = pairwise(others + 1, &|row| weight_of(row) * points[row * width + n]) / total;
        take_off(&mut points[n..], width, voltage);
        let product = |i: usize, j: usize| {
            (0..=others).fold(0.0_f64, |sum, row| {
                let weight = if row == 0 { centre_weight } else { weight };
                let (one, other) = (points[row * width + i], points[row * width + j]);
                one.mul_add(weight * other, sum)
            })
        };
        for i in 0..n {
            for j in 0..=i {
                self.keeper.next.covariance[i * n + j] = product(i, j);
            }
            work.cross[i] = product(i, n);
        }
        (voltage, product(n, n))
    }

    /// `x = x- + K (y - yhat)`, `P = P- - K Pyy K'` from the lower triangle, mirrored.
    pub(super) fn condition_plainly(&mut self, work: &Workspace, variance: f64, innovation: f64) {
        let n = self.keeper.scale.len();
        let (next, cross) = (&mut self.keeper.next, &work.cross);
        let inverse = 1.0 / variance;
        for i in 0..n {
            let gain = cross[i] * inverse;
            next.mean[i] += gain * innovation;
            for (j, other) in cross[..=i].iter().enumerate() {
                let entry = next.covariance[i * n + j] - gain * (variance * (other * inverse));
                next.covariance[i * n + j] = entry;
                next.covariance[j * n + i] = entry;
            }
        }
    }

    /// Every point with its voltage: the centre, then the columns of state, process noise and sensor noise, added and
    /// taken off.
    fn lay_out(&self, work: &mut Workspace, n: usize, centre_voltage: f64) {
        let spread = &self.process_spread;
        let sensor = self.weights.spread * self.sensor.sqrt();
        let mut rows = work.points_and_voltages.chunks_exact_mut(n + 1);
        let mut write = |voltage: f64, state: &dyn Fn(usize) -> f64| {
            if let Some(row) = rows.next() {
                for (i, place) in row[..n].iter_mut().enumerate() {
                    *place = state(i);
                }
                row[n] = voltage;
            }
        };
        write(centre_voltage, &|i| work.centre[i]);
        for (side, sign) in [(0, 1.0), (n, -1.0)] {
            for column in 0..n {
                let row = side + column;
                write(work.voltages[row], &|i| work.points[row * n + i]);
            }
            for column in 0..n {
                write(work.voltages[2 * n + side + column], &|i| {
                    work.centre[i] + sign * spread[column * n + i]
                });
            }
            write(centre_voltage + sign * sensor, &|i| work.centre[i]);
        }
    }
}

/// Subtracts `mean` from every `width`-th of `column`.
fn take_off(column: &mut [f64], width: usize, mean: f64) {
    for value in column.iter_mut().step_by(width) {
        *value -= mean;
    }
}

/// The sum of `count` values in numpy's order along one axis: eight sums side by side, then the rest.
fn pairwise(count: usize, value: &impl Fn(usize) -> f64) -> f64 {
    const LANES: usize = 8;
    let whole = if count < LANES {
        0
    } else {
        count - count % LANES
    };
    let mut sum = 0.0;
    if whole > 0 {
        let mut lanes: [f64; LANES] = std::array::from_fn(value);
        for row in LANES..whole {
            lanes[row % LANES] += value(row);
        }
        let [a, b, c, d, e, f, g, h] = lanes;
        sum = ((a + b) + (c + d)) + ((e + f) + (g + h));
    }
    (whole..count).fold(sum, |sum, row| sum + value(row))
}
