//! Small dense linear algebra with a fixed order of operations, over row-major slices.
//!
//! Sizes are values of [`Dimension`]: for a [`Fixed`] one the compiler knows every loop bound, for [`Dynamic`] it does
//! not; the algorithm is written once.

#![expect(
    clippy::indexing_slicing,
    reason = "every function slices its matrices to the dimension first"
)]

/// The number of states of a filter.
pub(crate) trait Dimension: Copy {
    /// That number.
    fn size(self) -> usize;
}

/// A dimension known to the compiler.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fixed<const N: usize>;

impl<const N: usize> Dimension for Fixed<N> {
    #[inline]
    fn size(self) -> usize {
        N
    }
}

/// A dimension known when the document is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dynamic(pub(crate) usize);

impl Dimension for Dynamic {
    #[inline]
    fn size(self) -> usize {
        self.0
    }
}

/// A pivot this far below its diagonal entry is nothing but rounding.
const ROUNDING: f64 = 1e-14;

/// Writes the lower Cholesky factor of `matrix` into `factor`, reading the lower triangle only.
///
/// Shapes: both `[n, n]`; the upper triangle of `factor` is left alone and should be zero.
/// Answers `false`, with `factor` half written, unless `matrix` is finite and positive definite by more than rounding:
/// what a variance keeps, given the states before it, must exceed [`ROUNDING`] of it.
#[inline]
pub(crate) fn cholesky<D: Dimension>(dimension: D, matrix: &[f64], factor: &mut [f64]) -> bool {
    let n = dimension.size();
    let (matrix, factor) = (&matrix[..n * n], &mut factor[..n * n]);
    for j in 0..n {
        let mut pivot = matrix[j * n + j];
        for k in 0..j {
            pivot -= factor[j * n + k] * factor[j * n + k];
        }
        if !(pivot > ROUNDING * matrix[j * n + j].abs() && pivot.is_finite()) {
            return false;
        }
        let root = pivot.sqrt();
        factor[j * n + j] = root;
        let inverse = 1.0 / root;
        for i in j + 1..n {
            let mut sum = matrix[i * n + j];
            for k in 0..j {
                sum -= factor[i * n + k] * factor[j * n + k];
            }
            factor[i * n + j] = sum * inverse;
        }
    }
    true
}

/// Smallest eigenvalue left by [`repair`], of the matrix scaled to unit variances.
const CORRELATION_FLOOR: f64 = 1e-12;

/// Makes `covariance` positive definite: scales it to unit variances, clips its eigenvalues at a small positive
/// floor, scales back. The result is exactly symmetric.
///
/// Scaling first matters because states differ by many orders of magnitude: a floor taken from the largest variance
/// would drown the smallest. A variance of zero or below takes the one of `fallback` times the floor.
///
/// Shapes: `covariance` is `[n, n]`, `fallback` holds `n` positive variances.
pub(crate) fn repair(covariance: &mut [f64], fallback: &[f64]) {
    let n = fallback.len();
    let scale: Vec<f64> = (0..n)
        .map(|i| {
            let variance = covariance[i * n + i];
            let floor = CORRELATION_FLOOR * fallback[i];
            if variance > floor {
                variance.sqrt()
            } else {
                floor.sqrt()
            }
        })
        .collect();
    let mut scaled = vec![0.0; n * n];
    for i in 0..n {
        for j in 0..n {
            let mean = f64::midpoint(covariance[i * n + j], covariance[j * n + i]);
            scaled[i * n + j] = mean / (scale[i] * scale[j]);
        }
        scaled[i * n + i] = 1.0;
    }
    let vectors = eigenvectors(&mut scaled, n);
    for i in 0..n {
        for j in 0..=i {
            let mut sum = 0.0;
            for k in 0..n {
                let value = scaled[k * n + k].max(CORRELATION_FLOOR);
                sum += vectors[i * n + k] * value * vectors[j * n + k];
            }
            let entry = sum * (scale[i] * scale[j]);
            covariance[i * n + j] = entry;
            covariance[j * n + i] = entry;
        }
    }
}

/// Diagonalises the symmetric `matrix` in place by Jacobi rotations; answers the eigenvectors as columns.
fn eigenvectors(matrix: &mut [f64], n: usize) -> Vec<f64> {
    const MOST_SWEEPS: usize = 60;
    let mut vectors = vec![0.0; n * n];
    for i in 0..n {
        vectors[i * n + i] = 1.0;
    }
    for _ in 0..MOST_SWEEPS {
        let mut off_diagonal = 0.0_f64;
        for p in 0..n {
            for q in p + 1..n {
                off_diagonal = off_diagonal.max(matrix[p * n + q].abs());
                rotate(matrix, &mut vectors, n, (p, q));
            }
        }
        if off_diagonal < 1e-18 {
            break;
        }
    }
    vectors
}

/// One Jacobi rotation that zeroes `matrix[p, q]`.
fn rotate(matrix: &mut [f64], vectors: &mut [f64], n: usize, (p, q): (usize, usize)) {
    let off = matrix[p * n + q];
    if off.abs() < f64::MIN_POSITIVE {
        return;
    }
    let theta = (matrix[q * n + q] - matrix[p * n + p]) / (2.0 * off);
    let tangent = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
    let cosine = 1.0 / (tangent * tangent + 1.0).sqrt();
    let sine = tangent * cosine;
    let turn = |a: f64, b: f64| (cosine * a - sine * b, sine * a + cosine * b);
    for k in 0..n {
        (matrix[k * n + p], matrix[k * n + q]) = turn(matrix[k * n + p], matrix[k * n + q]);
    }
    for k in 0..n {
        (matrix[p * n + k], matrix[q * n + k]) = turn(matrix[p * n + k], matrix[q * n + k]);
        (vectors[k * n + p], vectors[k * n + q]) = turn(vectors[k * n + p], vectors[k * n + q]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn min_eigenvalue(matrix: &[f64], n: usize) -> f64 {
        let mut copy = matrix.to_vec();
        eigenvectors(&mut copy, n);
        (0..n)
            .map(|i| copy[i * n + i])
            .fold(f64::INFINITY, f64::min)
    }

    #[test]
    fn a_cholesky_factor_times_its_transpose_is_the_matrix() {
        let matrix = [4.0, 2.0, 0.4, 2.0, 5.0, 1.0, 0.4, 1.0, 3.0];
        let mut factor = [0.0; 9];
        assert!(cholesky(Fixed::<3>, &matrix, &mut factor));
        for i in 0..3 {
            for j in 0..3 {
                let product: f64 = (0..3).map(|k| factor[i * 3 + k] * factor[j * 3 + k]).sum();
                assert!((product - matrix[i * 3 + j]).abs() < 1e-15);
            }
        }
    }

    #[test]
    fn a_singular_or_infinite_matrix_has_no_factor() {
        let mut factor = [0.0; 4];
        assert!(!cholesky(Fixed::<2>, &[1.0, 1.0, 1.0, 1.0], &mut factor));
        assert!(!cholesky(Dynamic(2), &[1.0, 0.0, 0.0, 0.0], &mut factor));
        assert!(!cholesky(
            Dynamic(2),
            &[f64::INFINITY, 0.0, 0.0, 1.0],
            &mut factor
        ));
        assert!(!cholesky(
            Dynamic(2),
            &[f64::NAN, 0.0, 0.0, 1.0],
            &mut factor
        ));
    }

    #[test]
    fn eigenvalues_of_a_known_matrix_are_found() {
        let matrix = [2.0, 1.0, 1.0, 2.0];
        assert!((min_eigenvalue(&matrix, 2) - 1.0).abs() < 1e-15);
    }

    #[test]
    fn a_repaired_matrix_is_symmetric_and_can_be_factored_whatever_its_scales() {
        let mut bad = [1.0, 1.1e-4, 0.0, 1.1e-4, 1e-8, 0.0, 0.0, 0.0, -1e-20];
        repair(&mut bad, &[1.0, 1e-8, 1e-14]);
        for i in 0..3 {
            for j in 0..3 {
                assert_eq!(bad[i * 3 + j].to_bits(), bad[j * 3 + i].to_bits());
            }
        }
        let mut factor = [0.0; 9];
        assert!(cholesky(Fixed::<3>, &bad, &mut factor), "{bad:?}");
        assert!(0.5 < bad[0] && bad[0] < 1.2, "{bad:?}");
        assert!(0.5e-8 < bad[4] && bad[4] < 1.2e-8, "{bad:?}");
    }

    #[test]
    fn repairing_a_good_matrix_changes_only_rounding() {
        let good = [4.0, 2.0, 2.0, 5.0];
        let mut repaired = good;
        repair(&mut repaired, &[1.0, 1.0]);
        for (a, b) in good.iter().zip(&repaired) {
            assert!((a - b).abs() < 1e-14);
        }
    }
}
