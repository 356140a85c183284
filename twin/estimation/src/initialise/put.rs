//! The document with what was found in place of what it said.

use serde_json::{Value, json};

use super::{Found, find};
use crate::document::{Document, DocumentError};
use crate::observation::Observation;

impl Document {
    /// Looks in `rows`, which stand in the order of time, for what the document's `initialise` asks for, and puts it into
    /// the document.
    ///
    /// What cannot be found stays as the document says; [`Found::qualities`] tells the reason. Curves are evaluated at
    /// the pinpoints the document has, so that its states stay the same; a single resistance takes every place of a
    /// curve. Where a capacity was found, the state of charge becomes that of the last row.
    ///
    /// # Errors
    /// A curve of the document refuses the values found.
    pub fn initialised(&self, rows: &[Observation]) -> Result<(Self, Found), DocumentError> {
        let Some(wanted) = self.initialise() else {
            return Ok((self.clone(), Found::default()));
        };
        let found = find(wanted, rows);
        Ok((self.with_found(&found)?, found))
    }

    /// The document with what was found before.
    ///
    /// # Errors
    /// As [`Document::initialised`].
    pub fn with_found(&self, found: &Found) -> Result<Self, DocumentError> {
        let Some(source) = &self.source else {
            return Ok(self.clone());
        };
        let mut value = (**source).clone();
        put(&mut value, found);
        Ok(Self::from_value(value)?.0)
    }
}

fn put(document: &mut Value, found: &Found) {
    let Some(asoh) = document.get_mut("asoh") else {
        return;
    };
    if let Some(capacity) = found.capacity_ah {
        set(asoh, "/q_t/base_values", json!(capacity));
    }
    if let (Some(curve), Some(reference)) = (&found.ocv, asoh.pointer_mut("/ocv/ocv_ref")) {
        put_curve(reference, curve);
    }
    if let (Some(ohm), Some(r0)) = (found.r0_ohm, asoh.get_mut("r0")) {
        fill(r0, ohm);
    }
    for (k, [ohm, farad]) in found.rc_pairs.iter().flatten().enumerate() {
        for (key, value) in [("r", ohm), ("c", farad)] {
            if let Some(element) = asoh.pointer_mut(&format!("/rc_elements/{k}/{key}")) {
                fill(element, *value);
            }
        }
    }
    if let Some(soc) = found.soc {
        set(document, "/initial_transients/soc", json!(soc));
    }
    // The filter starts from the last of the rows, not from an input before them.
    set(document, "/initial_inputs", Value::Null);
}

fn set(value: &mut Value, pointer: &str, to: Value) {
    if let Some(place) = value.pointer_mut(pointer) {
        *place = to;
    }
}

/// Lays the curve through the pinpoints of the document, which has more than one.
fn put_curve(reference: &mut Value, curve: &[[f64; 2]]) {
    let count = numbers(&reference["base_values"]).len();
    let given = numbers(&reference["soc_pinpoints"]);
    let pinpoints = if given.len() == count {
        given
    } else {
        crate::interpolation::evenly_spaced(count)
    };
    let values: Vec<f64> = pinpoints.iter().map(|soc| at(curve, *soc)).collect();
    reference["base_values"] = json!(values);
}

/// Straight lines; the first and the last go on outside.
fn at(curve: &[[f64; 2]], soc: f64) -> f64 {
    let last = curve.len().saturating_sub(1).max(1);
    let next = curve.partition_point(|point| point[0] < soc).clamp(1, last);
    match (curve.get(next - 1), curve.get(next)) {
        (Some([x0, y0]), Some([x1, y1])) => y0 + (y1 - y0) * (soc - x0) / (x1 - x0),
        _ => f64::NAN,
    }
}

/// Puts one value into every place of a curve.
fn fill(element: &mut Value, value: f64) {
    let count = numbers(&element["base_values"]).len().max(1);
    element["base_values"] = json!(vec![value; count]);
}

fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(list) => list.iter().flat_map(numbers).collect(),
        other => other.as_f64().into_iter().collect(),
    }
}
