//! Open-circuit voltage: the middle between a slow discharge and the charge beside it, less what the series resistance
//! drops; so hysteresis and slow overvoltages, which have opposite signs, cancel.

use super::halves::{Halves, Part, flow_ah};
use super::{Fit, Outcome, rms};
use crate::observation::Observation;

/// Points of the curve.
const POINTS: u32 = 41;

pub(super) fn find(halves: &Halves, rows: &[Observation], r0_ohm: f64) -> Outcome<Vec<[f64; 2]>> {
    let down = trace(&halves.discharge, rows, (1.0, halves.capacity_ah), r0_ohm);
    let up = halves
        .charge
        .as_ref()
        .map(|charge| trace(charge, rows, (0.0, charge.charge_ah), r0_ohm));
    if down.len() < 10 {
        return Err(format!(
            "only {} rows of the discharge carry current",
            down.len()
        ));
    }
    let mut curve = Vec::new();
    let mut gaps = Vec::new();
    let mut highest = f64::NEG_INFINITY;
    for point in 0..POINTS {
        let soc = f64::from(point) / f64::from(POINTS - 1);
        let falling = at(&down, soc);
        let voltage = match &up {
            Some(up) if up.len() >= 10 => {
                let rising = at(up, soc);
                gaps.push((rising - falling) / 2.0);
                f64::midpoint(falling, rising)
            }
            _ => falling,
        };
        // Noise must not turn the curve back.
        highest = highest.max(voltage);
        curve.push([soc, highest]);
    }
    let rows = down.len() + up.map_or(0, |up| up.len());
    let middle = rms(gaps.iter().copied());
    // What is not explained is how far the halves' distance varies around its own size.
    let rmse = if gaps.is_empty() {
        0.0
    } else {
        rms(gaps.iter().map(|gap| gap - middle))
    };
    Ok((curve, Fit { rmse, rows }))
}

/// State of charge and voltage without the drop of the series resistance, in rising order of charge.
fn trace(
    part: &Part,
    rows: &[Observation],
    (start, capacity_ah): (f64, f64),
    ohm: f64,
) -> Vec<[f64; 2]> {
    let rows = rows.get(part.rows.clone()).unwrap_or_default();
    let mut soc = start;
    let mut points = Vec::with_capacity(rows.len());
    let sign = part.charge_ah.signum();
    for pair in rows.windows(2) {
        if let [before, _] = pair
            && before.current * sign > 0.0
        {
            points.push([soc, before.voltage - before.current * ohm]);
        }
        soc += flow_ah(pair) / capacity_ah;
    }
    points.sort_by(|a, b| a[0].total_cmp(&b[0]));
    points
}

/// The line through the points beside `soc`; the end value outside.
fn at(points: &[[f64; 2]], soc: f64) -> f64 {
    let next = points.partition_point(|point| point[0] < soc);
    match (
        next.checked_sub(1).and_then(|k| points.get(k)),
        points.get(next),
    ) {
        (Some([x0, y0]), Some([x1, y1])) if x1 > x0 => y0 + (y1 - y0) * (soc - x0) / (x1 - x0),
        (Some([_, y]), _) | (None, Some([_, y])) => *y,
        (None, None) => f64::NAN,
    }
}
