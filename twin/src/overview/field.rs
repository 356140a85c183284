//! What can be asked of a battery by name: its newest row, its estimates, and how it stands.

use std::collections::BTreeSet;

use rovi_common::{
    filter::Scalar,
    name::EstimatorName,
    news::{BatteryState, EstimatorState},
};
use serde_json::{Map, Value};

/// What is known of every battery, besides its row and estimates.
pub(super) const COMMON: [&str; 12] = [
    "battery",
    "epoch",
    "seq",
    "segment",
    "received",
    "phase",
    "estimated_seq",
    "rows_behind",
    "revision",
    "generation",
    "latest_time",
    "error",
];

/// A battery as one estimator sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen<'s> {
    pub(super) state: &'s BatteryState,
    estimates: Option<&'s EstimatorState>,
}

impl<'s> Seen<'s> {
    /// Looks through the eyes of an estimator, or of the champion where none is named.
    pub(super) fn new(state: &'s BatteryState, estimator: Option<&EstimatorName>) -> Self {
        let champion = state.champion();
        let estimates = state.estimators.get(estimator.unwrap_or(&champion));
        Self { state, estimates }
    }

    /// Returns a value by name: common ones first, then estimates, then columns of the row.
    pub(super) fn get(&self, name: &str) -> Option<Value> {
        if COMMON.contains(&name) {
            return self.common(name);
        }
        self.estimate(name)
            .or_else(|| self.state.row.get(name).cloned())
    }

    /// Returns the same for a condition; null is as good as nothing.
    pub(super) fn scalar(&self, name: &str) -> Option<Scalar> {
        scalar(&self.get(name)?)
    }

    fn common(&self, name: &str) -> Option<Value> {
        let (state, estimates) = (self.state, self.estimates);
        match name {
            "battery" => Some(state.battery.as_str().into()),
            "epoch" => Some(state.epoch.into()),
            "seq" => Some(state.seq.into()),
            "segment" => Some(state.segment.into()),
            "received" => Some(state.received.into()),
            "phase" => estimates.map(|one| one.phase.as_str().into()),
            "estimated_seq" => estimates.map(|one| one.seq.into()),
            "rows_behind" => estimates.map(|one| {
                let dealt_with = if one.epoch == state.epoch { one.seq } else { 0 };
                (state.seq - dealt_with).max(0).into()
            }),
            "revision" => estimates.map(|one| one.revision.into()),
            "generation" => estimates.map(|one| one.generation.into()),
            "latest_time" => estimates.and_then(|one| one.test_time).map(Value::from),
            "error" => estimates.and_then(|one| one.error.as_deref().map(Value::from)),
            _ => None,
        }
    }

    fn estimate(&self, name: &str) -> Option<Value> {
        let values = &self.estimates?.values;
        if let Some(value) = values.get(long(name)) {
            return Some(value.mean.into());
        }
        let of_deviation = name.strip_suffix("__std")?;
        values.get(long(of_deviation)).map(|value| value.std.into())
    }

    /// Writes everything that is known.
    pub(super) fn all(&self) -> Map<String, Value> {
        let mut all = Map::new();
        for (name, value) in &self.state.row {
            all.insert(name.clone(), value.clone());
        }
        for (name, value) in self.estimates.into_iter().flat_map(|one| &one.values) {
            all.insert(name.clone(), value.mean.into());
            all.insert(format!("{name}__std"), value.std.into());
        }
        for name in COMMON {
            all.insert(name.to_owned(), self.common(name).unwrap_or_default());
        }
        all
    }

    /// Adds the names of its row and estimates.
    pub(super) fn add_names(&self, names: &mut BTreeSet<&'s str>) {
        names.extend(self.state.row.keys().map(String::as_str));
        let values = self.estimates.into_iter().flat_map(|one| one.values.keys());
        names.extend(values.map(String::as_str));
    }
}

/// Names that people use for what estimators call at length.
pub(super) fn long(name: &str) -> &str {
    match name {
        "soh" => "state_of_health",
        "soc" => "state_of_charge",
        other => other,
    }
}

pub(super) fn scalar(value: &Value) -> Option<Scalar> {
    match value {
        Value::Number(number) => number.as_f64().map(Scalar::Number),
        Value::String(text) => Some(Scalar::Text(text.clone())),
        Value::Bool(value) => Some(Scalar::Text(value.to_string())),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}
