//! The native estimator document: what is estimated, from where it starts, and how sure each part is.
//!
//! The keys are those of the reference runs: health parameters in Moirae's `ECMASOH` form, initial transients and
//! inputs, covariances, noises and the filter's tuning, besides `compat` and `every`. A document is checked
//! completely when it is read, so an [`Estimator`](crate::Estimator) can always be made of it.
//! The published form is [`schema`].

mod asoh;
mod cell;
mod current;
mod error;
mod filter;
mod initialise;
mod level;
mod matrices;
mod nominal;
mod plan;
mod reader;
mod transients;
mod trust;

use std::sync::Arc;

use serde_json::Value;

use current::with_error_covariance;
use filter::{join_blocks, read_noise};
use initialise::read_initialise;
use matrices::{Entries, read_matrix};
use nominal::{Nominal, read_nominal};
use plan::{Plan, read_kind, read_plan};
use reader::{Node, Object};
use transients::INPUT_KEYS;
use trust::read_trust;

use crate::filter::Filter;
use crate::health::{HealthRules, NominalFrom};
use crate::initialise::Wanted;
use crate::model::Physics;
use crate::trust::TrustRules;

pub use cell::Cell;
pub use error::{DocumentError, Warning};
pub use plan::Kind;

type Result<T> = std::result::Result<T, DocumentError>;

/// The keys of a document.
const DOCUMENT_KEYS: [&str; 20] = [
    "kind",
    "filter",
    "compat",
    "every",
    "current_behavior",
    "normalize_asoh",
    "asoh",
    "initial_transients",
    "initial_inputs",
    "covariance_transient",
    "covariance_asoh",
    "transient_process_noise",
    "asoh_process_noise",
    "sensor_noise",
    "current_noise",
    "ukf",
    "nominal_capacity",
    "nominal_capacity_from",
    "trust",
    "initialise",
];
/// The most states an estimator may have.
pub(crate) const MOST_STATES: usize = 40;

/// The published JSON Schema of the document, with a description and the unit of every property.
pub fn schema() -> &'static str {
    include_str!("document/schema.json")
}

/// What stands for the input before the first row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InitialInputs {
    /// s.
    pub time: f64,
    /// A, positive while charging.
    pub current: f64,
    /// degC; without one, documents with `compat: "moirae-0.3"` ignore temperature for ever.
    pub temperature: Option<f64>,
}

/// A checked estimator document. It holds everything an [`Estimator`](crate::Estimator) starts from.
#[derive(Clone, Debug)]
pub struct Document {
    pub(crate) cell: Cell,
    pub(crate) physics: Physics,
    pub(crate) initial_inputs: Option<InitialInputs>,
    pub(crate) covariance: Vec<f64>,
    pub(crate) trust: TrustRules,
    pub(crate) initialise: Option<Wanted>,
    plan: Plan,
    /// Before any row; estimators begin as copies of it, and share what no row changes.
    filter: Arc<Filter>,
    nominal: Nominal,
    every: u32,
    /// What was read, where it is to be changed by what is found in the first rows.
    pub(crate) source: Option<Arc<Value>>,
}

impl Document {
    /// Reads and checks a document.
    ///
    /// # Errors
    /// - `NotJson`: the text is no JSON.
    /// - `Field`: a field is missing, unknown or unusable; the message names its path and says what to do.
    pub fn from_json(text: &str) -> Result<(Self, Vec<Warning>)> {
        Self::from_value(reader::parse(text)?)
    }

    pub(crate) fn from_value(value: Value) -> Result<(Self, Vec<Warning>)> {
        let object = Node::root(&value).object(&DOCUMENT_KEYS)?;
        let kind = read_kind(&object)?;
        let mut warnings = Vec::new();
        let cell = Cell::read(&object, &mut warnings)?;
        let count = cell.names.len();
        if count > MOST_STATES {
            return Err(DocumentError::Field {
                path: "asoh".to_owned(),
                problem: format!(
                    "{count} states; at most {MOST_STATES} can be estimated, mark fewer as updatable"
                ),
            });
        }
        let [transient_names, asoh_names] = cell.given_names();
        let covariance = join_blocks(
            &with_error_covariance(
                read_matrix(
                    &object,
                    "covariance_transient",
                    transient_names,
                    &Entries::Required,
                )?,
                &cell.model,
            ),
            &read_matrix(&object, "covariance_asoh", asoh_names, &Entries::Required)?,
        );
        let noise = read_noise(&object, &cell, kind, &mut warnings)?;
        let plan = read_plan(&object, kind, &cell, &mut warnings)?;
        let every = object
            .get("every")
            .map_or(Ok(1), |node| node.positive_integer())?;
        let initial_inputs = read_initial_inputs(&object)?;
        let physics = cell.model.physics;
        let trust = read_trust(&object)?;
        let nominal = read_nominal(&object, cell.capacity_ah)?;
        let initialise = read_initialise(&object, nominal.ah, &cell.model)?;
        let filter = plan
            .filter(&cell, &covariance, noise)
            .expect("both matrices were factored when they were read");
        let source = initialise.is_some().then(|| Arc::new(value));
        Ok((
            Self {
                cell,
                physics,
                initial_inputs,
                covariance,
                trust,
                initialise,
                plan,
                filter: Arc::new(filter),
                nominal,
                every,
                source,
            },
            warnings,
        ))
    }

    /// Names of the states: transients, then estimated parameters such as `q_t.base_values`, `r0.base_values[2]`.
    pub fn state_names(&self) -> Vec<String> {
        self.cell.names.to_vec()
    }

    /// The same, as all estimators of the document share them.
    pub fn shared_state_names(&self) -> &Arc<[String]> {
        &self.cell.names
    }

    /// Publish an estimate each so many rows; at least 1.
    pub fn every(&self) -> u32 {
        self.every
    }

    /// The input before the first row, where the document gives one. A first row far later than its time makes a
    /// long first step, which deserves a warning.
    pub fn initial_inputs(&self) -> Option<&InitialInputs> {
        self.initial_inputs.as_ref()
    }

    /// The capacity that state of health is measured by, A·h: `nominal_capacity`, or the capacity the document starts
    /// from.
    pub fn nominal_capacity_ah(&self) -> f64 {
        self.nominal.ah
    }

    /// Where that capacity comes from.
    pub fn nominal_capacity_from(&self) -> NominalFrom {
        self.nominal.from
    }

    /// What the document estimates with.
    pub fn kind(&self) -> Kind {
        self.plan.kind()
    }

    /// The filter in words, such as `joint UKF`.
    pub fn filter_name(&self) -> &'static str {
        self.plan.name()
    }

    /// What is to be found out from the first rows before the filter starts, if anything.
    pub fn initialise(&self) -> Option<&Wanted> {
        self.initialise.as_ref()
    }

    /// Where the capacity (A·h) stands among the states, if it is estimated.
    pub fn capacity_index(&self) -> Option<usize> {
        self.cell.capacity_index()
    }

    /// Means of the states before any row, in the order of [`Document::state_names`].
    pub fn initial_mean(&self) -> Vec<f64> {
        self.cell.initial_state()
    }

    /// The filter before any row.
    pub(crate) fn filter(&self) -> Filter {
        Filter::clone(&self.filter)
    }

    /// What health is measured by.
    pub(crate) fn health_rules(&self) -> HealthRules {
        let resistance = self.cell.model.r0.base.states();
        let state = self.cell.initial_state();
        let values = resistance.clone().and_then(|range| state.get(range));
        let count = values.map_or(0, <[f64]>::len);
        let sum: f64 = values.into_iter().flatten().sum();
        HealthRules {
            nominal_ah: self.nominal.ah,
            nominal_from: self.nominal.from,
            initial_ah: self.cell.capacity_ah,
            capacity: self.capacity_index(),
            // A resistance that begins at 0 has nothing to be compared with.
            resistance: resistance.filter(|_| sum != 0.0),
            initial_ohm: sum / f64::from(u32::try_from(count).unwrap_or(u32::MAX)),
        }
    }

    /// The cell the estimator believes in, for simulation.
    pub fn cell(&self) -> &Cell {
        &self.cell
    }
}

fn read_initial_inputs(object: &Object<'_>) -> Result<Option<InitialInputs>> {
    let Some(node) = object.get("initial_inputs") else {
        return Ok(None);
    };
    let inputs = node.object(&INPUT_KEYS)?;
    Ok(Some(InitialInputs {
        time: inputs.number_or("time", 0.0)?,
        current: inputs.number_or("current", 0.0)?,
        temperature: inputs
            .get("temperature")
            .map(|node| node.number())
            .transpose()?,
    }))
}

#[cfg(test)]
mod tests;
