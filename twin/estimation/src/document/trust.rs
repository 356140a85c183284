//! What a document says of trust: how long a window is, what is plausible, and what follows when a filter diverges.

use super::error::DocumentError;
use super::reader::Object;
use crate::trust::{OnDivergence, TrustRules};

type Result<T> = std::result::Result<T, DocumentError>;

pub(super) const TRUST_KEYS: [&str; 5] = [
    "window",
    "on_divergence",
    "capacity_range",
    "resistance_range",
    "soc_range",
];

/// Fewer rows than these tell nothing, and more tell it too late.
const WINDOWS: std::ops::RangeInclusive<u32> = 20..=100_000;

pub(super) fn read_trust(object: &Object<'_>) -> Result<TrustRules> {
    let defaults = TrustRules::default();
    let Some(node) = object.get("trust") else {
        return Ok(defaults);
    };
    let trust = node.object(&TRUST_KEYS)?;
    let window = match trust.get("window") {
        None => defaults.window,
        Some(node) => {
            let rows = node.positive_integer()?;
            if !WINDOWS.contains(&rows) {
                return Err(node.refuse(format!(
                    "must lie in [{}, {}] rows, got {rows}",
                    WINDOWS.start(),
                    WINDOWS.end()
                )));
            }
            rows
        }
    };
    let on_divergence = match trust.get("on_divergence") {
        None => defaults.on_divergence,
        Some(node) => match node.text()? {
            "report" => OnDivergence::Report,
            "hold" => OnDivergence::Hold,
            "reinitialise" => OnDivergence::Reinitialise,
            "inflate" => OnDivergence::Inflate,
            other => {
                return Err(node.refuse(format!(
                    "unknown policy {other:?}; write \"report\", \"hold\", \"reinitialise\" or \
                     \"inflate\""
                )));
            }
        },
    };
    Ok(TrustRules {
        window,
        on_divergence,
        capacity: read_range(&trust, "capacity_range", defaults.capacity)?,
        resistance: read_range(&trust, "resistance_range", defaults.resistance)?,
        soc: read_range(&trust, "soc_range", defaults.soc)?,
    })
}

/// Two numbers, the lower first.
pub(super) fn read_range(object: &Object<'_>, key: &str, default: [f64; 2]) -> Result<[f64; 2]> {
    let Some(node) = object.get(key) else {
        return Ok(default);
    };
    match node.values()?.as_slice() {
        &[low, high] if low < high => Ok([low, high]),
        _ => Err(node.refuse("expected two numbers, the lower first")),
    }
}
