//! Interpolating B-splines of degree 2 and 3 with the end conditions of `scipy.interpolate.interp1d`.
//!
//! A spline is `s -> sum_j c_j B_j(s)` over a clamped knot vector; outside the data its end polynomial continues.
//! Coefficients come from the dense collocation system `B_j(x_i) c_j = y_i`, solved once.

#![expect(
    clippy::indexing_slicing,
    reason = "indices follow from the knot count fixed in `Spline::new`"
)]

use nalgebra::DMatrix;

/// Largest degree offered.
const MAX_DEGREE: usize = 3;

/// The basis of an interpolating spline and the inverse of its collocation matrix.
#[derive(Clone, Debug)]
pub(crate) struct Spline {
    degree: usize,
    knots: Vec<f64>,
    count: usize,
    /// `[count, count]` row-major; coefficients are this matrix times the values.
    inverse: Vec<f64>,
    collocation: DMatrix<f64>,
}

impl Spline {
    /// Builds the basis over the sorted, distinct abscissae `x`; `None` where there are too few of them
    /// (a spline of degree `k` needs `k + 1`).
    pub(crate) fn new(degree: usize, x: &[f64]) -> Option<Self> {
        let count = x.len();
        if count <= degree || degree > MAX_DEGREE {
            return None;
        }
        let knots = clamped_knots(degree, x);
        let mut spline = Self {
            degree,
            knots,
            count,
            inverse: Vec::new(),
            collocation: DMatrix::zeros(count, count),
        };
        for (row, &at) in x.iter().enumerate() {
            let (first, basis) = spline.basis(at);
            for (offset, &value) in basis.iter().take(degree + 1).enumerate() {
                spline.collocation[(row, first + offset)] = value;
            }
        }
        let inverse = spline.collocation.clone().try_inverse()?;
        spline.inverse = inverse.transpose().as_slice().to_vec();
        Some(spline)
    }

    /// The coefficients that make the spline pass through `y` at the abscissae.
    pub(crate) fn coefficients(&self, y: &[f64]) -> Option<Vec<f64>> {
        let values = DMatrix::from_column_slice(self.count, 1, y);
        let solved = self.collocation.clone().lu().solve(&values)?;
        Some(solved.as_slice().to_vec())
    }

    /// Coefficient `j` for values that change from call to call, without solving again.
    pub(crate) fn coefficient(&self, j: usize, value: impl Fn(usize) -> f64) -> f64 {
        let row = &self.inverse[j * self.count..(j + 1) * self.count];
        row.iter()
            .enumerate()
            .map(|(k, weight)| weight * value(k))
            .sum()
    }

    /// The spline's value at `s`, given its coefficients.
    pub(crate) fn at(&self, s: f64, coefficient: impl Fn(usize) -> f64) -> f64 {
        let (first, basis) = self.basis(s);
        let mut sum = 0.0;
        for (offset, weight) in basis.iter().take(self.degree + 1).enumerate() {
            sum += weight * coefficient(first + offset);
        }
        sum
    }

    /// The basis functions that are not zero at `s`, and the index of the first of them (Cox and de Boor).
    fn basis(&self, s: f64) -> (usize, [f64; MAX_DEGREE + 1]) {
        let (degree, knots) = (self.degree, &self.knots);
        let mut span = degree;
        while span + 1 < self.count && s >= knots[span + 1] {
            span += 1;
        }
        let mut basis = [1.0, 0.0, 0.0, 0.0];
        let mut left = [0.0; MAX_DEGREE + 1];
        let mut right = [0.0; MAX_DEGREE + 1];
        for order in 1..=degree {
            left[order] = s - knots[span + 1 - order];
            right[order] = knots[span + order] - s;
            let mut saved = 0.0;
            for r in 0..order {
                let part = basis[r] / (right[r + 1] + left[order - r]);
                basis[r] = saved + right[r + 1] * part;
                saved = left[order - r] * part;
            }
            basis[order] = saved;
        }
        (span - degree, basis)
    }
}

/// Knots of scipy's `make_interp_spline`: "not-a-knot" for cubic, mid-points for quadratic.
fn clamped_knots(degree: usize, x: &[f64]) -> Vec<f64> {
    let last = x.len() - 1;
    let inner: Vec<f64> = match degree {
        2 => (1..last.saturating_sub(1))
            .map(|i| f64::midpoint(x[i], x[i + 1]))
            .collect(),
        _ => x[2..=last.saturating_sub(2).max(1)].to_vec(),
    };
    let mut knots = vec![x[0]; degree + 1];
    knots.extend(inner);
    knots.extend(std::iter::repeat_n(x[last], degree + 1));
    knots
}
