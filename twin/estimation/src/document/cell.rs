//! The cell that a document describes.

use std::sync::Arc;

use super::asoh;
use super::current::{error_names, read_current_noise};
use super::error::{DocumentError, Warning};
use super::reader::{self, Node, Object};
use super::transients::{read_transients, transient_names};
use crate::interpolation::Scalar;
use crate::model::{CellModel, CurrentBehavior, Physics};

type Result<T> = std::result::Result<T, DocumentError>;

/// The keys of a document that only describes a cell.
const CELL_KEYS: [&str; 4] = ["compat", "current_behavior", "asoh", "initial_transients"];

/// A cell: its circuit model, and the transients it starts from. Made for simulation from a JSON object with
/// `asoh` and `initial_transients`, or taken from an estimator's document.
#[derive(Clone, Debug)]
pub struct Cell {
    pub(crate) model: Arc<CellModel>,
    pub(crate) transients: Vec<f64>,
    pub(crate) parameters: Vec<f64>,
    pub(crate) names: Arc<[String]>,
    pub(super) capacity_ah: f64,
}

impl Cell {
    /// Reads a JSON object with the keys `asoh`, `initial_transients`, and if wanted `current_behavior`, `compat`.
    ///
    /// # Errors
    /// As [`Document::from_json`](super::Document::from_json).
    pub fn from_json(text: &str) -> Result<(Self, Vec<Warning>)> {
        let value = reader::parse(text)?;
        let object = Node::root(&value).object(&CELL_KEYS)?;
        let mut warnings = Vec::new();
        let cell = Self::read(&object, &mut warnings)?;
        Ok((cell, warnings))
    }

    pub(super) fn read(object: &Object<'_>, warnings: &mut Vec<Warning>) -> Result<Self> {
        let physics = read_physics(object)?;
        let behavior = read_behavior(object)?;
        let current_noise = read_current_noise(object, physics)?;
        let node = object.require("asoh", "the health parameters")?;
        let asoh::ReadCell {
            model,
            names,
            values,
            capacity_ah,
        } = asoh::read(&node, physics, behavior, current_noise, warnings)?;
        let mut transients = read_transients(object, &model)?;
        transients.resize(transients.len() + model.current_errors(), 0.0);
        let mut all_names = transient_names(&model);
        all_names.extend(error_names(&model));
        all_names.extend(names);
        Ok(Self {
            model: Arc::new(model),
            transients,
            parameters: values,
            names: all_names.into(),
            capacity_ah,
        })
    }

    /// Names of the transients, in the order of the state vector: `soc`, `q0`, `i_rc[k]`, `hyst`.
    pub fn transient_names(&self) -> &[String] {
        self.names.split_at(self.transients.len()).0
    }

    /// Names of the transients that the circuit has, and of the estimated parameters.
    pub(super) fn given_names(&self) -> [&[String]; 2] {
        let (transients, parameters) = self.names.split_at(self.transients.len());
        let (given, _) = transients.split_at(self.model.transients());
        [given, parameters]
    }

    /// The capacity the document states, A·h.
    pub fn nominal_capacity_ah(&self) -> f64 {
        self.capacity_ah
    }

    /// Transients, then the estimated parameters: the whole state vector at the start.
    pub(crate) fn initial_state(&self) -> Vec<f64> {
        self.transients
            .iter()
            .chain(&self.parameters)
            .copied()
            .collect()
    }

    /// Where the capacity stands in the state vector, if it is estimated.
    pub(super) fn capacity_index(&self) -> Option<usize> {
        match self.model.capacity {
            Scalar::State(index) => Some(index),
            Scalar::Fixed(_) => None,
        }
    }
}

fn read_physics(object: &Object<'_>) -> Result<Physics> {
    let Some(compat) = object.get("compat") else {
        return Ok(Physics::Sound);
    };
    match compat.text()? {
        "moirae-0.3" => Ok(Physics::Moirae03),
        other => Err(compat.refuse(format!(
            "unknown version {other:?}; write \"moirae-0.3\", or leave it out for corrected physics"
        ))),
    }
}

fn read_behavior(object: &Object<'_>) -> Result<CurrentBehavior> {
    let Some(behavior) = object.get("current_behavior") else {
        return Ok(CurrentBehavior::Constant);
    };
    match behavior.text()? {
        "constant" => Ok(CurrentBehavior::Constant),
        "linear" => Ok(CurrentBehavior::Linear),
        other => Err(behavior.refuse(format!(
            "unknown behavior {other:?}; write \"constant\" or \"linear\""
        ))),
    }
}
