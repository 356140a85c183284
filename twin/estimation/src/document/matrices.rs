//! Covariances and noises: square, symmetric, positive definite, of the size the states ask for.

use super::DocumentError;
use super::reader::{Node, Object};
use crate::matrix::{Dynamic, cholesky};

type Result<T> = std::result::Result<T, DocumentError>;

/// How far two mirrored entries may differ, relative to the standard deviations they belong to.
const ASYMMETRY: f64 = 1e-9;

/// What to do where the matrix is absent.
#[derive(Clone, Debug)]
pub(super) enum Entries {
    Required,
    /// Take these variances, without covariances.
    Default(Vec<f64>),
}

impl Entries {
    /// The default as a matrix.
    pub(super) fn diagonal(&self) -> Vec<Vec<f64>> {
        let Self::Default(variances) = self else {
            return Vec::new();
        };
        let row = |(i, variance): (usize, &f64)| {
            (0..variances.len())
                .map(|j| if i == j { *variance } else { 0.0 })
                .collect()
        };
        variances.iter().enumerate().map(row).collect()
    }
}

/// Reads the matrix under `key`, one row and column for each of `names`.
pub(super) fn read_matrix(
    object: &Object<'_>,
    key: &str,
    names: &[String],
    absent: &Entries,
) -> Result<Vec<Vec<f64>>> {
    let n = names.len();
    let Some(node) = object.get(key) else {
        return match absent {
            Entries::Required if n > 0 => Err(DocumentError::Field {
                path: object.path_of(key),
                problem: format!("missing; give a {n}x{n} matrix for [{}]", names.join(", ")),
            }),
            _ => Ok(absent.diagonal()),
        };
    };
    let rows = node.rows()?;
    let is_empty = rows.iter().all(Vec::is_empty);
    if n == 0 && is_empty {
        return Ok(Vec::new());
    }
    if rows.len() != n || rows.iter().any(|row| row.len() != n) {
        let width = rows.iter().map(Vec::len).max().unwrap_or(0);
        let got = if rows.iter().any(|row| row.len() != width) {
            "rows of different lengths".to_owned()
        } else {
            format!("{}x{width}", rows.len())
        };
        return Err(node.refuse(format!(
            "expected {n}x{n} for [{}], got {got}",
            names.join(", ")
        )));
    }
    check_entries(&node, &rows, names)?;
    Ok(mirrored(&rows))
}

/// The matrix with its lower triangle on both sides: symmetric to the bit.
fn mirrored(rows: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let entry = |i: usize, j: usize| {
        rows.get(i.max(j))
            .and_then(|row| row.get(i.min(j)).copied())
    };
    (0..rows.len())
        .map(|i| (0..rows.len()).filter_map(|j| entry(i, j)).collect())
        .collect()
}

/// Reads the variance of one measured quantity: a number or a 1x1 matrix.
pub(super) fn read_variance(
    object: &Object<'_>,
    key: &str,
    (quantity, unit): (&str, &str),
) -> Result<Option<f64>> {
    let Some(node) = object.get(key) else {
        return Ok(None);
    };
    let rows = node.rows()?;
    match rows.as_slice() {
        [row] if row.len() == 1 => {
            check_entries(&node, &rows, &[quantity.to_owned()])?;
            Ok(Some(row.iter().sum()))
        }
        _ => Err(node.refuse(format!(
            "expected 1x1 for [{quantity}]: the variance in {unit}"
        ))),
    }
}

fn check_entries(node: &Node<'_>, rows: &[Vec<f64>], names: &[String]) -> Result<()> {
    let n = names.len();
    let flat: Vec<f64> = rows.iter().flatten().copied().collect();
    let entry = |i: usize, j: usize| flat.get(i * n + j).copied().unwrap_or(f64::NAN);
    for (i, name) in names.iter().enumerate() {
        let variance = entry(i, i);
        if variance <= 0.0 {
            return Err(node.refuse(format!(
                "not positive definite: the variance of {name} is {variance}; give a positive \
                 one, however small (such as 1e-12)"
            )));
        }
        for (j, other) in names.iter().enumerate().take(i) {
            let tolerance = ASYMMETRY * (variance * entry(j, j)).sqrt();
            if (entry(i, j) - entry(j, i)).abs() > tolerance {
                return Err(node.refuse(format!(
                    "not symmetric: {} for ({name}, {other}) but {} for ({other}, {name})",
                    entry(i, j),
                    entry(j, i)
                )));
            }
        }
    }
    if !cholesky(Dynamic(n), &flat, &mut vec![0.0; n * n]) {
        return Err(node.refuse(
            "not positive definite: some covariance is too large for its variances; lower it",
        ));
    }
    Ok(())
}
