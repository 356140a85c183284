//! The capacity that state of health is measured by.

use super::error::DocumentError;
use super::reader::Object;
use crate::health::NominalFrom;

/// What state of health is measured by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Nominal {
    /// A·h.
    pub(super) ah: f64,
    pub(super) from: NominalFrom,
}

/// Reads the keys of the document; the initial capacity serves where there are none.
pub(super) fn read_nominal(object: &Object<'_>, initial_ah: f64) -> Result<Nominal, DocumentError> {
    let Some(node) = object.get("nominal_capacity") else {
        return Ok(Nominal {
            ah: initial_ah,
            from: NominalFrom::Initial,
        });
    };
    let ah = node.number()?;
    if ah <= 0.0 {
        return Err(node.refuse(format!("must be positive (A h), got {ah}")));
    }
    let from = match object.get("nominal_capacity_from") {
        None => NominalFrom::Document,
        Some(node) => match node.text()? {
            "document" => NominalFrom::Document,
            "metadata" => NominalFrom::Metadata,
            other => {
                let problem = format!("unknown source {other:?}; leave it out");
                return Err(node.refuse(problem));
            }
        },
    };
    Ok(Nominal { ah, from })
}
