//! What a document wants to be found out from the first rows before its filter starts.

use super::error::DocumentError;
use super::reader::Object;
use super::trust::read_range;
use crate::initialise::Wanted;
use crate::interpolation::Curve;
use crate::model::CellModel;

type Result<T> = std::result::Result<T, DocumentError>;

pub(super) const INITIALISE_KEYS: [&str; 7] = [
    "required_time",
    "capacity",
    "ocv",
    "r0",
    "rc_pairs",
    "nominal_capacity",
    "voltage_limits",
];

pub(super) fn read_initialise(
    object: &Object<'_>,
    capacity_ah: f64,
    model: &CellModel,
) -> Result<Option<Wanted>> {
    let Some(node) = object.get("initialise") else {
        return Ok(None);
    };
    let initialise = node.object(&INITIALISE_KEYS)?;
    let pairs = model.rc_pairs.len();
    let flag = |key| initialise.get(key).map_or(Ok(false), |node| node.flag());
    let required_time_s = match initialise.get("required_time") {
        Some(node) => Some(positive(&node)?),
        None => None,
    };
    let nominal_ah = match initialise.get("nominal_capacity") {
        Some(node) => positive(&node)?,
        None => capacity_ah,
    };
    let rc_pairs = match initialise.get("rc_pairs") {
        None => 0,
        Some(node) => {
            let wanted = node.number()?;
            [0_usize, 1, 2]
                .into_iter()
                .find(|&count| {
                    (wanted - f64::from(u8::try_from(count).unwrap_or(u8::MAX))).abs() < 0.5
                })
                .filter(|&count| count == 0 || count == pairs)
                .ok_or_else(|| {
                    node.refuse(format!(
                        "must be 0, or the number of rc_elements in the document ({pairs}) and at \
                         most 2; got {wanted}"
                    ))
                })?
        }
    };
    let limits = match initialise.get("voltage_limits") {
        Some(_) => Some(read_range(&initialise, "voltage_limits", [0.0, 0.0])?),
        None => None,
    };
    let wanted = Wanted {
        required_time_s,
        capacity: flag("capacity")?,
        ocv: flag("ocv")?,
        r0: flag("r0")?,
        rc_pairs,
        nominal_ah,
        voltage_limits: limits,
    };
    if let Some(node) = initialise.get("ocv")
        && wanted.ocv
        && matches!(model.ocv_reference, Curve::Constant(_))
    {
        return Err(node.refuse(
            "asoh.ocv.ocv_ref has one value; give it one for each state of charge at which the \
             curve is wanted",
        ));
    }
    if !(wanted.capacity || wanted.ocv || wanted.r0 || rc_pairs > 0) {
        return Err(node.refuse("asks for nothing; set capacity, ocv, r0 or rc_pairs"));
    }
    Ok(Some(wanted))
}

fn positive(node: &super::Node<'_>) -> Result<f64> {
    let value = node.number()?;
    if value > 0.0 {
        return Ok(value);
    }
    Err(node.refuse(format!("must be positive, got {value}")))
}
