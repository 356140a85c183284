//! State and health of batteries, estimated row by row.
//!
//! A [`Document`] says what is known of a cell and what is to be learnt; an [`Estimator`] made of it takes
//! [`Observation`]s and holds a belief: the mean and covariance of state of charge, other transients, and the health
//! parameters marked as updatable. A [`Simulator`] runs the same model forward.
//!
//! Conventions: current is positive while charging (A), voltage in V, temperature in degC, time in s, capacity in A·h.
//! Arithmetic is plain IEEE double precision in a fixed order, exponentials come from `libm`, and nothing is fused, so
//! one code version gives the same bits wherever it runs.
//!
//! ```
//! use rovi_estimation::{Document, Estimator, Observation};
//!
//! let (document, warnings) = Document::from_json(r#"{
//!     "kind": "joint",
//!     "asoh": {
//!         "updatable": ["q_t"],
//!         "q_t": {"updatable": ["base_values"], "base_values": 2.0},
//!         "ocv": {"ocv_ref": {"base_values": [3.0, 3.6, 4.2]}},
//!         "r0": {"base_values": 0.05}
//!     },
//!     "initial_transients": {"soc": 0.5},
//!     "covariance_transient": [[0.01, 0.0], [0.0, 1e-6]],
//!     "covariance_asoh": 0.04
//! }"#)?;
//! assert!(warnings.is_empty());
//! let mut estimator = Estimator::new(&document);
//! let row = |time, voltage| Observation { time, current: 1.0, voltage, temperature: None };
//! assert!(estimator.observe(&row(0.0, 3.65))?.is_none(), "the first row only starts");
//! let step = estimator.observe(&row(10.0, 3.66))?.expect("a step");
//! assert!(step.normalized_innovation().abs() < 1.0);
//! assert_eq!(**estimator.state_names(), ["soc", "hyst", "q_t.base_values"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Nothing here waits, logs, or touches files and networks.

mod document;
mod error;
mod estimator;
mod filter;
mod health;
mod initialise;
mod interpolation;
mod matrix;
mod model;
mod observation;
mod policy;
mod simulator;
mod snapshot;
mod spline;
mod triangle;
mod trust;

pub use document::{Cell, Document, DocumentError, InitialInputs, Kind, Warning, schema};
pub use error::StepError;
pub use estimator::Estimator;
pub use health::{Figure, Health, NominalFrom};
pub use initialise::{Found, Gathering, Quality, Wanted};
pub use observation::{Observation, Step};
pub use simulator::Simulator;
pub use snapshot::{RestoreError, Snapshot};
pub use trust::{OnDivergence, Reason, Trust, TrustState};
