//! A row as it goes into an estimator, and what comes of it.

use crate::error::StepError;

/// One row as the estimator sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observation {
    /// Seconds from the start of the test.
    pub time: f64,
    /// A, positive while charging.
    pub current: f64,
    /// Terminal voltage, V.
    pub voltage: f64,
    /// degC; one that is not finite counts as none. Without one the last known temperature holds (25 degC with
    /// `compat: "moirae-0.3"`); before any is known, nothing depends on temperature.
    pub temperature: Option<f64>,
}

/// What a row was expected to show, and did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Terminal voltage expected before the row was seen, V.
    pub predicted_voltage: f64,
    /// Its variance, sensor noise included, V^2; positive.
    pub predicted_variance: f64,
    /// Measured less expected voltage, V.
    pub innovation: f64,
    /// The covariance had ceased to be positive definite and its eigenvalues were clipped.
    pub repaired: bool,
}

impl Step {
    /// The innovation in standard deviations of what was expected; its square averages 1 where the filter knows its
    /// errors.
    pub fn normalized_innovation(&self) -> f64 {
        self.innovation / self.predicted_variance.sqrt()
    }
}

/// Refuses a row without the numbers a step needs.
pub(crate) fn check_finite(observation: &Observation) -> Result<(), StepError> {
    let Observation {
        time,
        current,
        voltage,
        ..
    } = *observation;
    for (what, value) in [("time", time), ("current", current), ("voltage", voltage)] {
        if !value.is_finite() {
            return Err(StepError::NotFinite { what });
        }
    }
    Ok(())
}
