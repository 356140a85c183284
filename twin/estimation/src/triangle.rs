//! Orthogonal triangularisation and rank-1 downdate, over row-major slices, in a fixed order of operations.
//!
//! Source: Golub and Van Loan, *Matrix Computations* (4th ed.), sections 5.2 and 6.5.

#![expect(
    clippy::indexing_slicing,
    reason = "both functions are given the shape of their arrays"
)]

/// Turns `array`, `[rows, columns]` with at least as many rows as columns, into its upper triangle by Householder
/// reflections; what is below the triangle is then without meaning.
pub(crate) fn triangularise(array: &mut [f64], rows: usize, columns: usize) {
    for k in 0..columns {
        let mut square = 0.0;
        for i in k..rows {
            square += array[i * columns + k] * array[i * columns + k];
        }
        let head = array[k * columns + k];
        let length = square.sqrt();
        if length <= 0.0 {
            continue;
        }
        // The sign that adds: nothing cancels.
        let turned = if head > 0.0 { -length } else { length };
        let first = head - turned;
        // beta = 2 / v'v with v = (first, rest).
        let beta = 1.0 / (square - head * turned);
        for j in k + 1..columns {
            let mut dot = first * array[k * columns + j];
            for i in k + 1..rows {
                dot += array[i * columns + k] * array[i * columns + j];
            }
            dot *= beta;
            array[k * columns + j] -= dot * first;
            for i in k + 1..rows {
                array[i * columns + j] -= dot * array[i * columns + k];
            }
        }
        array[k * columns + k] = turned;
    }
}

/// Makes the upper triangle `R` that of `R' R - v v'`; answers `false`, with both half done, if that is not positive
/// definite. `vector` is used up.
pub(crate) fn downdate(triangle: &mut [f64], vector: &mut [f64], columns: usize) -> bool {
    for k in 0..columns {
        let pivot = triangle[k * columns + k];
        let square = (pivot - vector[k]) * (pivot + vector[k]);
        if !(square > 0.0 && square.is_finite()) {
            return false;
        }
        let root = square.sqrt().copysign(pivot);
        let (cosine, sine) = (root / pivot, vector[k] / pivot);
        triangle[k * columns + k] = root;
        for j in k + 1..columns {
            let entry = (triangle[k * columns + j] - sine * vector[j]) / cosine;
            vector[j] = cosine * vector[j] - sine * entry;
            triangle[k * columns + j] = entry;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `R' R` of the upper triangle in front of `array`.
    fn square(array: &[f64], columns: usize) -> Vec<f64> {
        let entry = |i: usize, j: usize| {
            (0..=i.min(j))
                .map(|k| array[k * columns + i] * array[k * columns + j])
                .sum()
        };
        (0..columns * columns)
            .map(|at| entry(at / columns, at % columns))
            .collect()
    }

    #[test]
    fn a_triangle_has_the_square_of_its_array_and_a_downdate_takes_a_row_off() {
        let array = [1.0, 2.0, -0.5, 4.0, 3.0, 1.0, 0.0, 2.0, -2.0, 0.3];
        let (rows, columns) = (5, 2);
        let product = |from: usize, at: usize| -> f64 {
            (from..rows)
                .map(|r| array[r * columns + at / 2] * array[r * columns + at % 2])
                .sum()
        };
        let mut triangle = array;
        triangularise(&mut triangle, rows, columns);
        let close = |a: f64, b: f64| (a - b).abs() < 1e-14;
        let all = square(&triangle, columns);
        assert!((0..4).all(|at| close(all[at], product(0, at))));
        assert!(downdate(&mut triangle, &mut [1.0, 2.0], columns));
        let less = square(&triangle, columns);
        assert!((0..4).all(|at| close(less[at], product(1, at))));
        assert!(!downdate(&mut triangle, &mut [100.0, 0.0], columns));
    }
}
