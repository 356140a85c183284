//! The filter's tuning: spread of the sigma points, process noise, sensor noise.

use super::current::with_error_noise;
use super::error::{DocumentError, Warning};
use super::matrices::{Entries, read_matrix, read_variance};
use super::reader::{Node, Object};
use super::{Cell, Kind};
use crate::filter::{Noise, Weights, augmented_columns};
use crate::model::Physics;

type Result<T> = std::result::Result<T, DocumentError>;

pub(super) const UKF_KEYS: [&str; 3] = ["alpha_param", "kappa_param", "beta_param"];

/// Variance of a noise the document does not give.
pub(super) const DEFAULT_NOISE: f64 = 1e-8;

/// The weights of the sigma points over so many states.
pub(super) fn read_weights(node: Option<&Node<'_>>, states: usize) -> Result<Weights> {
    let Some(node) = node else {
        return Ok(Weights::new(states, 1.0, Some(0.0), 2.0));
    };
    let ukf = node.object(&UKF_KEYS)?;
    let alpha = ukf.number_or("alpha_param", 1.0)?;
    let beta = ukf.number_or("beta_param", 2.0)?;
    let refuse = |key: &str, problem: String| {
        Err(DocumentError::Field {
            path: ukf.path_of(key),
            problem,
        })
    };
    if !(0.001..=1.0).contains(&alpha) {
        return refuse(
            "alpha_param",
            format!("must lie in [0.001, 1], got {alpha}"),
        );
    }
    if beta < 0.0 {
        return refuse("beta_param", format!("must be at least 0, got {beta}"));
    }
    let columns = augmented_columns(states);
    let kappa = match ukf.get("kappa_param") {
        None => Some(0.0),
        Some(node) if node.is_text() => match node.text()? {
            "automatic" => None,
            other => {
                return refuse(
                    "kappa_param",
                    format!("write a number or \"automatic\", not {other:?}"),
                );
            }
        },
        Some(node) => Some(node.number()?),
    };
    if let Some(kappa) = kappa.filter(|kappa| columns + kappa <= 0.0) {
        return refuse(
            "kappa_param",
            format!("must be above -{columns} (-(2n + 1)), got {kappa}"),
        );
    }
    Ok(Weights::new(states, alpha, kappa, beta))
}

/// What the estimated parameters are divided by: their initial values with `normalize_asoh`, else 1.
pub(super) fn read_scales(object: &Object<'_>, cell: &Cell) -> Result<Vec<f64>> {
    let is_normalized = object
        .get("normalize_asoh")
        .map_or(Ok(false), |node| node.flag())?;
    let scale = |&value: &f64| {
        // A variance that under- or overflows would be none.
        let is_usable = (DEFAULT_NOISE * value * value).is_normal();
        if is_normalized && is_usable {
            value
        } else {
            1.0
        }
    };
    Ok(cell.parameters.iter().map(scale).collect())
}

/// Both noises, the default standing for what is missing.
pub(super) fn read_noise(
    object: &Object<'_>,
    cell: &Cell,
    kind: Kind,
    warnings: &mut Vec<Warning>,
) -> Result<Noise> {
    let [transient_names, asoh_names] = cell.given_names();
    // A missing noise is that of the filter's own coordinates, which normalisation scales.
    let scales = read_scales(object, cell)?;
    let default_transient = Entries::Default(vec![DEFAULT_NOISE; transient_names.len()]);
    let default_asoh = Entries::Default(
        scales
            .iter()
            .map(|scale| DEFAULT_NOISE * scale * scale)
            .collect(),
    );
    let keys = ["transient_process_noise", "asoh_process_noise"];
    let mut transient = read_matrix(object, keys[0], transient_names, &default_transient)?;
    let mut asoh = read_matrix(object, keys[1], asoh_names, &default_asoh)?;
    let given = keys.map(|key| object.get(key).is_some());
    if given[0] != given[1] && !asoh_names.is_empty() {
        let (here, other) = if given[0] {
            (keys[0], keys[1])
        } else {
            (keys[1], keys[0])
        };
        // Moirae's dual estimator reads each for itself.
        let message = if cell.model.physics == Physics::Moirae03 && kind != Kind::Dual {
            transient = default_transient.diagonal();
            asoh = default_asoh.diagonal();
            format!("has no effect: Moirae reads it only together with {other}")
        } else {
            format!("{other} is missing; its variances are taken as {DEFAULT_NOISE:e} per step")
        };
        warnings.push(Warning {
            path: here.to_owned(),
            message,
        });
    }
    let sensor =
        read_variance(object, "sensor_noise", ("voltage", "V^2"))?.unwrap_or(DEFAULT_NOISE);
    let transient = with_error_noise(transient, &cell.model);
    Ok(Noise {
        process: join_blocks(&transient, &asoh).into(),
        sensor,
    })
}

/// The block-diagonal matrix of two square ones, row-major.
pub(super) fn join_blocks(first: &[Vec<f64>], second: &[Vec<f64>]) -> Vec<f64> {
    let (a, b) = (first.len(), second.len());
    let above = first
        .iter()
        .flat_map(|row| row.iter().copied().chain(vec![0.0; b]));
    let below = second
        .iter()
        .flat_map(|row| vec![0.0; a].into_iter().chain(row.iter().copied()));
    above.chain(below).collect()
}
