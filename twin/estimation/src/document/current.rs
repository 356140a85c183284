//! The error of the measured current: states of their own, which the document gives by one variance.

use super::error::DocumentError;
use super::matrices::read_variance;
use super::reader::Object;
use crate::filter::SETTLED_NOISE;
use crate::model::{CellModel, Physics};

/// Reads `current_noise`, the variance of the measured current.
pub(super) fn read_current_noise(
    object: &Object<'_>,
    physics: Physics,
) -> Result<Option<f64>, DocumentError> {
    let noise = read_variance(object, "current_noise", ("current", "A^2"))?;
    if noise.is_some() && physics == Physics::Moirae03 {
        return Err(DocumentError::Field {
            path: object.path_of("current_noise"),
            problem: "Moirae takes the current as exact; leave it out, or leave out compat"
                .to_owned(),
        });
    }
    Ok(noise)
}

/// Names of the errors, which stand behind the transients.
pub(super) fn error_names(model: &CellModel) -> impl Iterator<Item = String> {
    let names = ["current_error", "next_current_error"];
    names
        .into_iter()
        .take(model.current_errors())
        .map(str::to_owned)
}

/// The covariance of the transients with that of the errors: each is as yet unknown.
pub(super) fn with_error_covariance(transients: Vec<Vec<f64>>, model: &CellModel) -> Vec<Vec<f64>> {
    let variance = model.current_noise.unwrap_or(0.0);
    with_diagonal(transients, &vec![variance; model.current_errors()])
}

/// The process noise of the transients with that of the errors: each step brings one new error, the last.
pub(super) fn with_error_noise(transients: Vec<Vec<f64>>, model: &CellModel) -> Vec<Vec<f64>> {
    let variance = model.current_noise.unwrap_or(0.0);
    let noises: &[f64] = match model.current_errors() {
        0 => &[],
        1 => &[variance],
        _ => &[SETTLED_NOISE * variance, variance],
    };
    with_diagonal(transients, noises)
}

fn with_diagonal(mut matrix: Vec<Vec<f64>>, variances: &[f64]) -> Vec<Vec<f64>> {
    let (before, size) = (matrix.len(), matrix.len() + variances.len());
    for row in &mut matrix {
        row.resize(size, 0.0);
    }
    for (k, variance) in variances.iter().enumerate() {
        let entry = |j| if j == before + k { *variance } else { 0.0 };
        matrix.push((0..size).map(entry).collect());
    }
    matrix
}
