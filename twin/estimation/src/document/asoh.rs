//! Health parameters in Moirae's `ECMASOH` form: read, checked, and bound to the model.
//!
//! Parameters are visited in the order of their declaration, which is the order of the estimated ones in the state
//! vector. One is estimated only if it is marked on each level of its path.

use super::error::{DocumentError, Warning};
use super::level::{Binder, Level, marks};
use super::reader::{Node, Object};
use crate::interpolation::{Curve, Scalar};
use crate::model::{CellModel, CurrentBehavior, Physics, RcPair, Resistance};

type Result<T> = std::result::Result<T, DocumentError>;

pub(super) const ASOH_KEYS: [&str; 8] = [
    "updatable",
    "q_t",
    "ce",
    "ocv",
    "r0",
    "c0",
    "rc_elements",
    "h0",
];
pub(super) const CAPACITY_KEYS: [&str; 2] = ["updatable", "base_values"];
pub(super) const OCV_KEYS: [&str; 4] = ["updatable", "ocv_ref", "ocv_ent", "reference_temperature"];
pub(super) const CURVE_KEYS: [&str; 4] = [
    "updatable",
    "base_values",
    "soc_pinpoints",
    "interpolation_style",
];
/// As [`CURVE_KEYS`], with the key that origins write there and nothing reads.
pub(super) const OCV_CURVE_KEYS: [&str; 5] = [
    "updatable",
    "base_values",
    "soc_pinpoints",
    "interpolation_style",
    "reference_temperature",
];
pub(super) const RESISTANCE_KEYS: [&str; 6] = [
    "updatable",
    "base_values",
    "soc_pinpoints",
    "interpolation_style",
    "reference_temperature",
    "temperature_dependence_factor",
];
pub(super) const RC_KEYS: [&str; 3] = ["updatable", "r", "c"];
pub(super) const HYSTERESIS_KEYS: [&str; 5] = [
    "updatable",
    "base_values",
    "soc_pinpoints",
    "interpolation_style",
    "gamma",
];

/// Reference temperature where a document gives none, degC.
const DEFAULT_TEMPERATURE: f64 = 25.0;
/// Hysteresis rate where a document gives none.
const DEFAULT_GAMMA: f64 = 50.0;

/// A cell read from a document.
#[derive(Clone, Debug)]
pub(crate) struct ReadCell {
    pub(crate) model: CellModel,
    /// Names of the estimated parameters, in the order of the state vector.
    pub(crate) names: Vec<String>,
    /// Their initial values, in the units of the document.
    pub(crate) values: Vec<f64>,
    /// Initial capacity, A·h.
    pub(crate) capacity_ah: f64,
}

/// Reads `asoh`. Answers the cell; odd but harmless finds go to `warnings`.
pub(crate) fn read(
    node: &Node<'_>,
    physics: Physics,
    behavior: CurrentBehavior,
    current_noise: Option<f64>,
    warnings: &mut Vec<Warning>,
) -> Result<ReadCell> {
    let asoh = node.object(&ASOH_KEYS)?;
    let marks = marks(&asoh, &["q_t", "ce", "ocv", "r0", "rc_elements", "h0"])?;
    let rc_nodes = asoh
        .get("rc_elements")
        .map_or(Ok(Vec::new()), |list| list.list())?;
    let transients = 2 + usize::from(asoh.get("c0").is_some()) + rc_nodes.len();
    let mut binder = Binder {
        first: transients + behavior.current_errors(current_noise),
        names: Vec::new(),
        values: Vec::new(),
        warnings,
    };

    let (capacity, capacity_ah) = read_capacity(&asoh, &marks, &mut binder)?;
    let ce = asoh.number_or("ce", 1.0)?;
    let coulombic_efficiency = binder.scalar("ce", ce, marks.contains(&"ce"));
    let ocv = read_ocv(&asoh, &marks, &mut binder)?;
    let r0 = asoh.require("r0", "the series resistance in ohm")?;
    let r0 = read_resistance(&r0, "r0", &marks, &mut binder)?;
    let c0 = asoh
        .get("c0")
        .map(|node| read_c0(&node, &mut binder))
        .transpose()?;
    let is_marked = marks.contains(&"rc_elements");
    let mut rc_pairs = Vec::new();
    for (k, node) in rc_nodes.iter().enumerate() {
        rc_pairs.push(read_rc_pair(node, k, is_marked, &mut binder)?);
    }
    let (hysteresis, hysteresis_rate) = read_hysteresis(&asoh, &marks, &mut binder)?;
    let (names, values) = (binder.names, binder.values);
    let (ocv_reference, ocv_entropic, ocv_temperature) = ocv;
    let model = CellModel {
        physics,
        behavior,
        capacity,
        coulombic_efficiency,
        ocv_reference,
        ocv_entropic,
        ocv_temperature,
        r0,
        c0,
        rc_pairs,
        hysteresis,
        hysteresis_rate,
        current_noise,
    };
    Ok(ReadCell {
        model,
        names,
        values,
        capacity_ah,
    })
}

/// The capacity, and its initial value in A·h.
fn read_capacity(
    asoh: &Object<'_>,
    marks: &[&str],
    binder: &mut Binder<'_>,
) -> Result<(Scalar, f64)> {
    let q_t = asoh.require("q_t", "the capacity in A h")?;
    let q_t = Level::new(&q_t, marks, &CAPACITY_KEYS)?;
    let initial = q_t
        .object
        .require("base_values", "the capacity in A h")?
        .number()?;
    if initial <= 0.0 {
        return Err(q_t.refuse("base_values", "the capacity must be positive (A h)"));
    }
    let capacity = q_t.scalar("base_values", "q_t.base_values", initial, binder)?;
    Ok((capacity, initial))
}

fn read_ocv(
    asoh: &Object<'_>,
    marks: &[&str],
    binder: &mut Binder<'_>,
) -> Result<(Curve, Curve, Scalar)> {
    let ocv = asoh.require("ocv", "the open-circuit voltage")?;
    let ocv = Level::new(&ocv, marks, &OCV_KEYS)?;
    let reference = ocv
        .object
        .require("ocv_ref", "the open-circuit voltage in V")?;
    let reference = read_ocv_curve(&ocv, &reference, None, binder)?;
    let entropic = match ocv.object.get("ocv_ent") {
        Some(node) => read_ocv_curve(&ocv, &node, Some(0.0), binder)?,
        None => Curve::Constant(Scalar::Fixed(0.0)),
    };
    let name = "ocv.reference_temperature";
    let temperature = ocv.scalar("reference_temperature", name, DEFAULT_TEMPERATURE, binder)?;
    Ok((reference, entropic, temperature))
}

fn read_ocv_curve(
    ocv: &Level<'_>,
    node: &Node<'_>,
    default: Option<f64>,
    binder: &mut Binder<'_>,
) -> Result<Curve> {
    let name = node.path().rsplit('.').next().unwrap_or_default();
    let is_reached = ocv.is_reached && ocv.marks.contains(&name);
    let level = Level::reached(node, is_reached, &OCV_CURVE_KEYS)?;
    if level.object.get("reference_temperature").is_some() {
        binder.warnings.push(Warning {
            path: level.object.path_of("reference_temperature"),
            message: "has no effect; the one of ocv counts".to_owned(),
        });
    }
    level.curve(&format!("ocv.{name}"), default, binder)
}

fn read_resistance(
    node: &Node<'_>,
    name: &str,
    marks: &[&str],
    binder: &mut Binder<'_>,
) -> Result<Resistance> {
    let level = Level::new(node, marks, &RESISTANCE_KEYS)?;
    let base = level.curve(name, None, binder)?;
    let factor = "temperature_dependence_factor";
    let temperature_dependence = level.scalar(factor, &format!("{name}.{factor}"), 0.0, binder)?;
    let reference_temperature = level
        .object
        .number_or("reference_temperature", DEFAULT_TEMPERATURE)?;
    Ok(Resistance {
        base,
        temperature_dependence,
        reference_temperature,
        scale: 1.0,
    })
}

fn read_c0(node: &Node<'_>, binder: &mut Binder<'_>) -> Result<Curve> {
    let level = Level::reached(node, true, &CURVE_KEYS)?;
    if !level.marks.is_empty() {
        return Err(level.refuse("updatable", "c0 cannot be estimated; leave this list empty"));
    }
    level.curve("c0", None, binder)
}

fn read_rc_pair(
    node: &Node<'_>,
    k: usize,
    is_marked: bool,
    binder: &mut Binder<'_>,
) -> Result<RcPair> {
    let level = Level::reached(node, is_marked, &RC_KEYS)?;
    let reached: &[&str] = if level.is_reached { &level.marks } else { &[] };
    let name = format!("rc_elements.{k}");
    let r = level.object.require("r", "the resistance in ohm")?;
    let resistance = read_resistance(&r, &format!("{name}.r"), reached, binder)?;
    let c = level.object.require("c", "the capacitance in F")?;
    let c = Level::new(&c, reached, &CURVE_KEYS)?;
    let capacitance = c.curve(&format!("{name}.c"), None, binder)?;
    Ok(RcPair {
        resistance,
        capacitance,
    })
}

fn read_hysteresis(
    asoh: &Object<'_>,
    marks: &[&str],
    binder: &mut Binder<'_>,
) -> Result<(Curve, Scalar)> {
    let Some(node) = asoh.get("h0") else {
        return Ok((
            Curve::Constant(Scalar::Fixed(0.0)),
            Scalar::Fixed(DEFAULT_GAMMA),
        ));
    };
    let level = Level::new(&node, marks, &HYSTERESIS_KEYS)?;
    let limit = level.curve("h0", Some(0.0), binder)?;
    let rate = level.scalar("gamma", "h0.gamma", DEFAULT_GAMMA, binder)?;
    Ok((limit, rate))
}
