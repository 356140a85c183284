//! Initial transients: how many there are, and what they are called, follows from the circuit.

use super::DocumentError;
use super::reader::Object;
use crate::model::CellModel;

type Result<T> = std::result::Result<T, DocumentError>;

pub(super) const TRANSIENT_KEYS: [&str; 4] = ["soc", "q0", "i_rc", "hyst"];
pub(super) const INPUT_KEYS: [&str; 3] = ["time", "current", "temperature"];

/// Names of the transients, in the order of the state vector.
pub(super) fn transient_names(model: &CellModel) -> Vec<String> {
    let mut names = vec!["soc".to_owned()];
    if model.c0.is_some() {
        names.push("q0".to_owned());
    }
    match model.rc_pairs.len() {
        1 => names.push("i_rc".to_owned()),
        count => names.extend((0..count).map(|k| format!("i_rc[{k}]"))),
    }
    names.push("hyst".to_owned());
    names
}

/// Their initial values; those that are not given start at 0.
pub(super) fn read_transients(object: &Object<'_>, model: &CellModel) -> Result<Vec<f64>> {
    let node = object.require("initial_transients", "at least {\"soc\": ..}")?;
    let transients = node.object(&TRANSIENT_KEYS)?;
    let mut values = vec![
        transients
            .require("soc", "the initial state of charge")?
            .number()?,
    ];
    match (&model.c0, transients.get("q0")) {
        (Some(_), _) => values.push(transients.number_or("q0", 0.0)?),
        (None, Some(q0)) => {
            return Err(q0.refuse("the circuit has no c0, so there is no q0; leave it out"));
        }
        (None, None) => {}
    }
    let pairs = model.rc_pairs.len();
    let currents = match transients.get("i_rc") {
        Some(node) => {
            let given = node.values()?;
            if given.len() != pairs {
                return Err(node.refuse(format!(
                    "expected {pairs} currents, one for each of rc_elements, got {}",
                    given.len()
                )));
            }
            given
        }
        None => vec![0.0; pairs],
    };
    values.extend(currents);
    values.push(transients.number_or("hyst", 0.0)?);
    Ok(values)
}
