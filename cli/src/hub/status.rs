//! What the twin says of a battery's estimators.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// The state of one estimator. Fields that a twin leaves out are `None` or empty.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct EstimatorStatus {
    /// Whether it has used a row.
    pub is_ready: bool,
    /// Names of the states, such as `q_t.base_values`.
    pub state_names: Vec<String>,
    /// `test_time` of the newest row used, s.
    pub latest_time: Option<f64>,
    /// Means, in the order of `state_names`.
    #[serde(deserialize_with = "numbers")]
    pub mean: Vec<f64>,
    /// Their covariance.
    #[serde(deserialize_with = "rows_of_numbers")]
    pub covariance: Vec<Vec<f64>>,
    /// `seq` of the newest row used.
    pub seq: Option<i64>,
    /// Rows that are stored and not used yet.
    pub rows_behind: Option<i64>,
    /// What it is doing, such as `live` or `catching_up`.
    pub phase: Option<String>,
    /// Rows that were not used, by reason.
    pub skipped: BTreeMap<String, u64>,
    /// What is odd about its document or its first row.
    pub warnings: Vec<String>,
    /// What last went wrong.
    pub last_error: Option<String>,
    /// Its name.
    pub estimator: Option<String>,
    /// `champion` or `shadow`.
    pub role: Option<String>,
}

/// Reads numbers; JSON writes those that are not finite as null.
fn numbers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
    let numbers = Vec::<Option<f64>>::deserialize(deserializer)?;
    Ok(finite(numbers))
}

fn rows_of_numbers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Vec<f64>>, D::Error> {
    let rows = Vec::<Vec<Option<f64>>>::deserialize(deserializer)?;
    Ok(rows.into_iter().map(finite).collect())
}

fn finite(numbers: Vec<Option<f64>>) -> Vec<f64> {
    let numbers = numbers.into_iter();
    numbers.map(|number| number.unwrap_or(f64::NAN)).collect()
}

/// A parameter that people look for: its name in tables, unit, and the state it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameter {
    /// Name of the state.
    pub state: &'static str,
    /// Name for people.
    pub label: &'static str,
    /// Unit of what is shown.
    pub unit: &'static str,
    /// What the state is multiplied by to be shown, as a power of ten.
    scale: i32,
    decimals: usize,
}

impl Parameter {
    /// State of charge.
    pub const SOC: Self = Self::new("soc", "charge", "%", 2, 1);
    /// Capacity.
    pub const CAPACITY: Self = Self::new("q_t.base_values", "capacity", "A·h", 0, 4);
    /// Series resistance.
    pub const R0: Self = Self::new("r0.base_values", "R0", "mΩ", 3, 3);

    const fn new(
        state: &'static str,
        label: &'static str,
        unit: &'static str,
        scale: i32,
        decimals: usize,
    ) -> Self {
        Self {
            state,
            label,
            unit,
            scale,
            decimals,
        }
    }

    /// Writes mean and standard deviation, such as `2.4971 ± 0.0031 A·h`.
    pub fn show(&self, status: &EstimatorStatus) -> Option<String> {
        let (mean, deviation) = status.state(self.state)?;
        let scale = 10_f64.powi(self.scale);
        let decimals = self.decimals;
        let unit = self.unit;
        Some(format!(
            "{:.decimals$} ± {:.decimals$} {unit}",
            mean * scale,
            deviation * scale
        ))
    }
}

impl EstimatorStatus {
    /// Returns mean and standard deviation of a state.
    pub fn state(&self, name: &str) -> Option<(f64, f64)> {
        let at = self.state_names.iter().position(|known| known == name)?;
        let variance = self.covariance.get(at)?.get(at)?;
        Some((*self.mean.get(at)?, variance.sqrt()))
    }

    /// Returns name, mean and standard deviation of every state.
    pub fn states(&self) -> impl Iterator<Item = (&str, f64, f64)> {
        self.state_names.iter().filter_map(|name| {
            self.state(name)
                .map(|(mean, std)| (name.as_str(), mean, std))
        })
    }
}

/// All estimators of a battery by name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Estimators(pub BTreeMap<String, EstimatorStatus>);

impl Estimators {
    /// Reads the answer of `GET /online/{battery}`.
    ///
    /// # Errors
    /// The text is not of that form.
    pub fn from_json(text: &str) -> Result<Self, serde_json::Error> {
        let value: Value = serde_json::from_str(text)?;
        let estimators = match value.get("estimators") {
            Some(estimators) => estimators.clone(),
            None => value,
        };
        BTreeMap::deserialize(estimators).map(Self)
    }

    /// Returns the estimator shown first: the champion, else `default`, else the first by name.
    pub fn main(&self) -> Option<(&str, &EstimatorStatus)> {
        let champion = self
            .0
            .iter()
            .find(|(_, status)| status.role.as_deref() == Some("champion"));
        champion
            .or_else(|| self.0.get_key_value("default"))
            .or_else(|| self.0.iter().next())
            .map(|(name, status)| (name.as_str(), status))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = r#"{"is_ready": true, "state_names": ["soc", "q_t.base_values"],
        "latest_time": 12.0, "mean": [0.5, 2.0], "covariance": [[0.0001, 0], [0, 0.04]],
        "seq": 9, "something_new": []}"#;

    #[test]
    fn a_parameter_is_shown_with_its_deviation_and_unit() {
        let status: EstimatorStatus = serde_json::from_str(STATUS).unwrap();
        assert_eq!(Parameter::SOC.show(&status).unwrap(), "50.0 ± 1.0 %");
        assert_eq!(
            Parameter::CAPACITY.show(&status).unwrap(),
            "2.0000 ± 0.2000 A·h"
        );
        assert_eq!(Parameter::R0.show(&status), None);
    }

    #[test]
    fn an_estimator_that_is_not_ready_has_no_numbers() {
        let status: EstimatorStatus = serde_json::from_str(r#"{"is_ready": false}"#).unwrap();
        assert_eq!(status.states().count(), 0);
        assert_eq!(Parameter::SOC.show(&status), None);
    }

    #[test]
    fn the_default_estimator_is_shown_first() {
        let text =
            format!(r#"{{"estimators": {{"a": {{"is_ready": false}}, "default": {STATUS}}}}}"#);
        let estimators = Estimators::from_json(&text).unwrap();
        assert_eq!(estimators.main().unwrap().0, "default");
    }
}
