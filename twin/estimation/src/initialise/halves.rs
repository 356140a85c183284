//! Half cycles: stretches in which charge only goes in, or only comes out.

use std::ops::RangeInclusive;

use crate::observation::Observation;

const SECONDS_PER_HOUR: f64 = 3600.0;
/// A current below nominal / this is rest.
const REST: f64 = 1000.0;
/// Charge that may flow the other way within a stretch, of the nominal capacity.
const SLACK: f64 = 0.005;

/// Rows between which charge flows one way.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Part {
    pub(super) rows: RangeInclusive<usize>,
    /// A·h, positive while charging.
    pub(super) charge_ah: f64,
}

/// A full discharge, and the charge beside it, where there is one.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Halves {
    pub(super) discharge: Part,
    pub(super) charge: Option<Part>,
    pub(super) capacity_ah: f64,
}

impl Halves {
    /// State of charge at the last row: the discharge ends empty.
    pub(super) fn soc_at_end(&self, rows: &[Observation]) -> f64 {
        let after = rows.get(*self.discharge.rows.end()..).unwrap_or_default();
        let flowed: f64 = after.windows(2).map(flow_ah).sum();
        (flowed / self.capacity_ah).clamp(0.0, 1.0)
    }
}

/// The charge that flows between two rows, A·h; the current of the earlier one is held.
pub(super) fn flow_ah(pair: &[Observation]) -> f64 {
    match pair {
        [before, after] => before.current * (after.time - before.time) / SECONDS_PER_HOUR,
        _ => 0.0,
    }
}

/// Cuts the rows where the direction of charge turns by more than a slack; rests belong to what they follow.
pub(super) fn monotone_parts(rows: &[Observation], nominal_ah: f64) -> Vec<Part> {
    let slack = SLACK * nominal_ah;
    let mut parts = Vec::new();
    let (mut start, mut extreme_at) = (0, 0);
    let (mut net, mut extreme, mut begin) = (0.0, 0.0, 0.0);
    let mut direction = 0.0_f64;
    for (k, pair) in rows.windows(2).enumerate() {
        net += flow_ah(pair);
        if direction == 0.0 {
            if f64::abs(net - begin) > slack {
                direction = (net - begin).signum();
                (extreme, extreme_at) = (net, k + 1);
            }
        } else if (net - extreme) * direction > 0.0 {
            (extreme, extreme_at) = (net, k + 1);
        } else if (extreme - net) * direction > slack {
            parts.push(Part {
                rows: start..=extreme_at,
                charge_ah: extreme - begin,
            });
            (start, begin) = (extreme_at, extreme);
            direction = -direction;
            (extreme, extreme_at) = (net, k + 1);
        }
    }
    if direction != 0.0 {
        parts.push(Part {
            rows: start..=extreme_at,
            charge_ah: extreme - begin,
        });
    }
    parts
}

/// Whether nothing flows to speak of.
pub(super) fn is_rest(current: f64, nominal_ah: f64) -> bool {
    current.abs() < nominal_ah / REST
}
