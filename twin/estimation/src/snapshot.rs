//! The exact state of an estimator between two rows, saved and restored bit for bit.

use serde::{Deserialize, Serialize};

use crate::document::{Document, InitialInputs};
use crate::estimator::{Estimator, Phase};
use crate::health::Meter;
use crate::policy::Keepsake;
use crate::trust::Trust;

/// Format of [`Snapshot`] written by this version; 1 had no trust and health, which then begin anew.
const SNAPSHOT_VERSION: u32 = 2;

/// The exact state of an estimator. In a format that keeps the bits of `f64` (msgpack does) a restored estimator goes
/// on bit for bit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    version: u32,
    state_names: Vec<String>,
    /// As the filter holds them: see `Filter::held`.
    mean: Vec<f64>,
    covariance: Vec<f64>,
    phase: Phase,
    previous_time: f64,
    previous_current: f64,
    previous_temperature: Option<f64>,
    latest_time: Option<f64>,
    repairs: u64,
    #[serde(default)]
    previous_voltage: Option<f64>,
    #[serde(default)]
    trust: Trust,
    #[serde(default)]
    meter: Meter,
    #[serde(default)]
    keepsake: Keepsake,
}

/// Why a snapshot does not suit a document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The snapshot holds numbers no estimator has, or lists of the wrong length.
    #[error("the snapshot is damaged: {what}")]
    Damaged {
        /// What is wrong with it.
        what: &'static str,
    },
    /// The snapshot is of other states than the document's.
    #[error("the snapshot is of the states {snapshot:?}, the document asks for {document:?}")]
    OtherStates {
        /// In the snapshot.
        snapshot: Vec<String>,
        /// In the document.
        document: Vec<String>,
    },
    /// The snapshot was written by a newer version.
    #[error("the snapshot has format {found}; this version reads up to {SNAPSHOT_VERSION}")]
    Version {
        /// Its format.
        found: u32,
    },
}

impl Estimator {
    /// The exact state, for a checkpoint.
    pub fn snapshot(&self) -> Snapshot {
        let (mean, covariance) = self.filter.held();
        Snapshot {
            version: SNAPSHOT_VERSION,
            state_names: self.names.to_vec(),
            mean,
            covariance,
            phase: self.phase,
            previous_time: self.previous.time,
            previous_current: self.previous.current,
            previous_temperature: self.previous.temperature,
            latest_time: self.latest_time,
            repairs: self.repairs,
            previous_voltage: self.previous_voltage,
            trust: self.trust.clone(),
            meter: self.meter.clone(),
            keepsake: self.keepsake.clone(),
        }
    }

    /// Goes on from a snapshot, bit for bit, given the document it was made with.
    ///
    /// # Errors
    /// - `Version`: a newer version wrote it.
    /// - `OtherStates`: it belongs to another document.
    /// - `Damaged`: its numbers cannot be a belief.
    pub fn restore(document: &Document, snapshot: &Snapshot) -> Result<Self, RestoreError> {
        if snapshot.version > SNAPSHOT_VERSION {
            return Err(RestoreError::Version {
                found: snapshot.version,
            });
        }
        let mut estimator = Self::new(document);
        if snapshot.state_names != *estimator.names {
            return Err(RestoreError::OtherStates {
                snapshot: snapshot.state_names.clone(),
                document: estimator.names.to_vec(),
            });
        }
        snapshot.check(estimator.names.len())?;
        if !estimator
            .filter
            .set_held(&snapshot.mean, &snapshot.covariance)
        {
            return Err(RestoreError::Damaged {
                what: "the covariance is not positive definite",
            });
        }
        estimator.phase = snapshot.phase;
        estimator.previous = InitialInputs {
            time: snapshot.previous_time,
            current: snapshot.previous_current,
            temperature: snapshot.previous_temperature,
        };
        estimator
            .start
            .set(&estimator.model, snapshot.previous_temperature);
        estimator.latest_time = snapshot.latest_time;
        estimator.repairs = snapshot.repairs;
        estimator.previous_voltage = snapshot.previous_voltage;
        estimator.trust = snapshot.trust.clone();
        estimator.meter = snapshot.meter.clone();
        if snapshot.keepsake.len() == estimator.keepsake.len() {
            estimator.keepsake.clone_from(&snapshot.keepsake);
        }
        Ok(estimator)
    }
}

impl Snapshot {
    fn check(&self, n: usize) -> Result<(), RestoreError> {
        if self.mean.len() != n || self.covariance.len() != n * n {
            return Err(RestoreError::Damaged {
                what: "lists of the wrong length",
            });
        }
        let inputs = [self.previous_time, self.previous_current];
        let others = [
            self.previous_temperature,
            self.latest_time,
            self.previous_voltage,
        ];
        let mut numbers = self
            .mean
            .iter()
            .chain(&inputs)
            .chain(others.iter().flatten());
        if numbers.all(|value| value.is_finite()) {
            return Ok(());
        }
        Err(RestoreError::Damaged {
            what: "a number is not finite",
        })
    }
}
