//! RC pairs: the relaxation of the voltage after a current ended.
//!
//! After a current `I` that flowed for `T`, `V(t) = V_end - sum I R_k (1 - exp(-T / tau_k)) exp(-t / tau_k)`. For given
//! time constants this is linear, so they are searched on a grid (each at least three times the one before) and the
//! rest follows by least squares; the best grid place is refined twice. The relaxation with the most rows counts.

#![expect(
    clippy::indexing_slicing,
    reason = "windows of two, and one time constant and weight for each pair asked for"
)]

use nalgebra::{DMatrix, DVector};

use super::halves::is_rest;
use super::{Fit, Outcome, Wanted, rms};
use crate::observation::Observation;

/// The fewest rows of a relaxation.
const FEWEST_ROWS: usize = 20;
/// The most rows of one that are used; the first ones tell most.
const MOST_ROWS: usize = 2000;
/// The least current before it: the nominal capacity over so many hours.
const LEAST_CURRENT: f64 = 20.0;
/// Places on the first grid of time constants.
const GRID: u32 = 16;
/// The least ratio of two time constants.
const APART: f64 = 3.0;

/// A rest after a current.
struct Relaxation<'a> {
    rows: &'a [Observation],
    /// When the current ended, s.
    start: f64,
    /// A.
    current: f64,
    /// How long it had flowed, s.
    duration: f64,
}

pub(super) fn find(rows: &[Observation], wanted: &Wanted) -> Outcome<Vec<[f64; 2]>> {
    let relaxations = relaxations(rows, wanted.nominal_ah);
    let Some(longest) = relaxations
        .iter()
        .max_by_key(|relaxation| relaxation.rows.len())
    else {
        return Err(format!(
            "no rest of {FEWEST_ROWS} rows follows a steady current of {:.3} A or more",
            wanted.nominal_ah / LEAST_CURRENT
        ));
    };
    let (pairs, rmse) = longest.fit(wanted.rc_pairs)?;
    let rows = longest.rows.len();
    Ok((pairs, Fit { rmse, rows }))
}

fn relaxations(rows: &[Observation], nominal_ah: f64) -> Vec<Relaxation<'_>> {
    let mut found = Vec::new();
    let mut k = 1;
    while let (Some(before), Some(row)) = (rows.get(k - 1), rows.get(k)) {
        let begins =
            before.current.abs() >= nominal_ah / LEAST_CURRENT && is_rest(row.current, nominal_ah);
        if !begins {
            k += 1;
            continue;
        }
        let rest = rows.get(k..).unwrap_or_default();
        let count = rest
            .iter()
            .take(MOST_ROWS)
            .take_while(|row| is_rest(row.current, nominal_ah))
            .count();
        let loaded = rows.get(..k).unwrap_or_default();
        let steady = |row: &&Observation| {
            (row.current - before.current).abs() <= 0.02 * before.current.abs()
        };
        let first = loaded
            .iter()
            .rev()
            .take_while(steady)
            .last()
            .unwrap_or(before);
        if count >= FEWEST_ROWS {
            found.push(Relaxation {
                rows: rest.get(..count).unwrap_or_default(),
                start: row.time,
                current: before.current,
                duration: row.time - first.time,
            });
        }
        k += count.max(1);
    }
    found
}

impl Relaxation<'_> {
    fn fit(&self, count: usize) -> Result<(Vec<[f64; 2]>, f64), String> {
        let times: Vec<f64> = self.rows.iter().map(|row| row.time - self.start).collect();
        let last = times.last().copied().unwrap_or(0.0);
        let gap = times.windows(2).map(|pair| pair[1] - pair[0]);
        let first = gap.filter(|gap| *gap > 0.0).fold(f64::INFINITY, f64::min);
        let mut range = [first, last];
        let mut best: Option<(f64, Vec<f64>, DVector<f64>)> = None;
        for _ in 0..3 {
            let ratio = (range[1] / range[0]).max(1.0);
            let place = |k: u32| range[0] * libm::pow(ratio, f64::from(k) / f64::from(GRID - 1));
            let grid: Vec<f64> = (0..GRID).map(place).collect();
            let slow: Vec<f64> = match (&best, count) {
                // Once near, each time constant is refined around its own place.
                (Some((_, taus, _)), 2) => (0..GRID)
                    .map(|k| taus[1] * libm::pow(4.0, f64::from(k) / f64::from(GRID - 1) - 0.5))
                    .collect(),
                _ => grid.clone(),
            };
            for &fast in &grid {
                let second: &[f64] = if count == 2 { &slow } else { &[f64::INFINITY] };
                for &slow in second.iter().filter(|slow| **slow >= APART * fast) {
                    let taus: Vec<f64> = [fast, slow].into_iter().take(count).collect();
                    let Some((rmse, weights)) = self.solve(&times, &taus) else {
                        continue;
                    };
                    if best.as_ref().is_none_or(|(least, ..)| rmse < *least) {
                        best = Some((rmse, taus, weights));
                    }
                }
            }
            if let Some((_, taus, _)) = &best {
                let step = libm::pow(ratio, 1.0 / f64::from(GRID - 1));
                range = [taus[0] / step, taus[0] * step];
            }
        }
        let (rmse, taus, weights) = best.ok_or("the voltage at rest follows no exponential")?;
        let pairs = taus
            .iter()
            .zip(weights.iter().skip(1))
            .map(|(tau, weight)| {
                let charged = 1.0 - libm::exp(-self.duration / tau);
                let ohm = weight / (self.current * charged);
                [ohm, tau / ohm]
            });
        let pairs: Vec<[f64; 2]> = pairs.collect();
        if pairs
            .iter()
            .flatten()
            .all(|value| *value > 0.0 && value.is_finite())
        {
            return Ok((pairs, rmse));
        }
        Err("the relaxation gives no positive resistances; ask for fewer RC pairs".to_owned())
    }

    /// `V_end` and the amplitudes for given time constants by least squares, and what is left.
    fn solve(&self, times: &[f64], taus: &[f64]) -> Option<(f64, DVector<f64>)> {
        let entry = |row: usize, column: usize| match column.checked_sub(1) {
            None => 1.0,
            Some(k) => libm::exp(-times[row] / taus[k]),
        };
        let matrix = DMatrix::from_fn(times.len(), taus.len() + 1, entry);
        let voltages = DVector::from_iterator(times.len(), self.rows.iter().map(|row| row.voltage));
        let transposed = matrix.transpose();
        let weights = (&transposed * &matrix)
            .lu()
            .solve(&(&transposed * &voltages))?;
        let left = &voltages - &matrix * &weights;
        Some((rms(left.iter().copied()), weights))
    }
}
