//! Which filter a document asks for.

use super::Cell;
use super::error::{DocumentError, Warning};
use super::filter::{read_scales, read_weights};
use super::reader::Object;
use crate::filter::{Belief, Dual, Extended, Filter, Half, Noise, SquareRoot, Unscented, Weights};
use crate::model::Physics;

type Result<T> = std::result::Result<T, DocumentError>;

pub(super) const DUAL_UKF_KEYS: [&str; 2] = ["transient", "asoh"];

/// What a document estimates with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One filter over transients and health together.
    Joint,
    /// One filter over the transients and one over the health parameters.
    Dual,
    /// The model alone, which learns nothing from the voltage.
    CoulombCounting,
}

/// The filter, with the tuning that only it has.
#[derive(Clone, Debug)]
pub(crate) enum Plan {
    Unscented(Weights),
    SquareRoot(Weights),
    Extended,
    CoulombCounting,
    /// The weights of either, and what the parameters are divided by.
    Dual([Weights; 2], Vec<f64>),
}

impl Plan {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Unscented(_) | Self::SquareRoot(_) | Self::Extended => Kind::Joint,
            Self::CoulombCounting => Kind::CoulombCounting,
            Self::Dual(..) => Kind::Dual,
        }
    }

    /// The filter in words.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Unscented(_) => "joint UKF",
            Self::SquareRoot(_) => "joint square-root UKF",
            Self::Extended => "joint EKF",
            Self::CoulombCounting => "Coulomb counting",
            Self::Dual(..) => "dual UKF",
        }
    }

    /// The filter before any row; `None` unless the covariance and noise are positive definite.
    pub(crate) fn filter(&self, cell: &Cell, covariance: &[f64], noise: Noise) -> Option<Filter> {
        let mean = cell.initial_state();
        Some(match self {
            &Self::Unscented(weights) => {
                Filter::Joint(Unscented::new(weights, &mean, covariance, noise)?)
            }
            &Self::SquareRoot(weights) => Filter::SquareRoot(Box::new(SquareRoot::new(
                weights, &mean, covariance, noise,
            )?)),
            Self::Extended | Self::CoulombCounting => {
                let learns = matches!(self, Self::Extended);
                Filter::Extended(Box::new(Extended::new(&mean, covariance, noise, learns)?))
            }
            Self::Dual(weights, scale) => {
                let halves = halves(*weights, cell.transients.len(), mean.len(), &noise);
                Filter::Dual(Box::new(Dual::new(
                    scale.clone(),
                    &mean,
                    covariance,
                    halves,
                )?))
            }
        })
    }
}

fn halves(weights: [Weights; 2], count: usize, n: usize, noise: &Noise) -> [Half; 2] {
    let [first, second] = weights;
    let half = |weights, range: std::ops::Range<usize>| Half {
        weights,
        noise: Noise {
            process: Belief::block(&noise.process, n, range).into(),
            sensor: noise.sensor,
        },
    };
    [half(first, 0..count), half(second, count..n)]
}

/// Reads `kind`, before it is known how many states there are.
pub(super) fn read_kind(object: &Object<'_>) -> Result<Kind> {
    let kind = object.require("kind", "\"joint\", \"dual\" or \"coulomb_counting\"")?;
    match kind.text()? {
        "joint" => Ok(Kind::Joint),
        "dual" => Ok(Kind::Dual),
        "coulomb_counting" => Ok(Kind::CoulombCounting),
        other => Err(kind.refuse(format!(
            "unknown kind {other:?}; write \"joint\", \"dual\" or \"coulomb_counting\""
        ))),
    }
}

/// Reads `filter` and `ukf`.
pub(super) fn read_plan(
    object: &Object<'_>,
    kind: Kind,
    cell: &Cell,
    warnings: &mut Vec<Warning>,
) -> Result<Plan> {
    let (all, transients) = (cell.names.len(), cell.transients.len());
    let (filter, ukf) = (object.get("filter"), object.get("ukf"));
    if let (Some(filter), Kind::Dual | Kind::CoulombCounting) = (&filter, kind) {
        return Err(filter.refuse("only the joint estimator can be told which; leave it out"));
    }
    if kind == Kind::Dual {
        if all == transients {
            return Err(DocumentError::Field {
                path: "asoh.updatable".to_owned(),
                problem: "the dual estimator needs a parameter to estimate; mark one, or write \
                          \"joint\" for kind"
                    .to_owned(),
            });
        }
        let halves = ukf.map(|node| node.object(&DUAL_UKF_KEYS)).transpose()?;
        let weights = |key, size| {
            let node = halves.as_ref().and_then(|halves| halves.get(key));
            let weights = read_weights(node.as_ref(), size)?;
            Ok(match cell.model.physics {
                Physics::Moirae03 => weights.plain(),
                Physics::Sound => weights,
            })
        };
        let both = [
            weights("transient", transients)?,
            weights("asoh", all - transients)?,
        ];
        return Ok(Plan::Dual(both, read_scales(object, cell)?));
    }
    // Weights are checked even where they have no effect.
    let weights = read_weights(ukf.as_ref(), all)?;
    let name = filter.as_ref().map_or(Ok("ukf"), super::Node::text)?;
    let plan = match (kind, name) {
        (Kind::CoulombCounting, _) => Plan::CoulombCounting,
        (_, "ukf") => Plan::Unscented(weights),
        (_, "square_root_ukf") => Plan::SquareRoot(weights),
        (_, "ekf") => Plan::Extended,
        (_, other) => {
            return Err(DocumentError::Field {
                path: object.path_of("filter"),
                problem: format!(
                    "unknown filter {other:?}; write \"ukf\", \"square_root_ukf\" or \"ekf\""
                ),
            });
        }
    };
    if ukf.is_some() && matches!(plan, Plan::Extended | Plan::CoulombCounting) {
        warnings.push(Warning {
            path: object.path_of("ukf"),
            message: "has no effect: this filter has no sigma points".to_owned(),
        });
    }
    Ok(plan)
}
