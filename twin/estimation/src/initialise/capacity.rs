//! Capacity: the charge of a discharge from full to empty.

use super::halves::{Halves, Part, flow_ah};
use super::{Fit, Outcome, Wanted, rms};
use crate::observation::Observation;

/// How near to a limit an end must come, of the distance between the limits.
const NEAR: f64 = 0.05;
/// The least charge of a full discharge, of the nominal capacity.
const LEAST: f64 = 0.3;

/// Finds the full discharges; the slowest counts, since fast ones end early. The spread of all of them is the error.
///
/// Where no limits are given, voltages without the drop of the series resistance are compared: a load moves the extremes.
/// Then a discharge is full, too, that covers all charge that ever moved, whatever voltages a pulse has reached.
pub(super) fn find(
    parts: &[Part],
    rows: &[Observation],
    (wanted, r0_ohm): (&Wanted, f64),
) -> Outcome<Halves> {
    let ohm = if wanted.voltage_limits.is_some() {
        0.0
    } else {
        r0_ohm
    };
    let extremes = |rows: &[Observation]| extremes(rows, ohm);
    let [low, high] = wanted.voltage_limits.unwrap_or_else(|| extremes(rows));
    let near = NEAR * (high - low);
    let range = |part: &Part| extremes(rows.get(part.rows.clone()).unwrap_or_default());
    let all_ah = match wanted.voltage_limits {
        Some(_) => f64::INFINITY,
        None => span_ah(rows),
    };
    let full: Vec<usize> = (0..parts.len())
        .filter(|&k| {
            let Some(part) = parts.get(k) else {
                return false;
            };
            let [lowest, highest] = range(part);
            // The cell is full where the charge before ended, whatever the first loaded voltage is.
            let before = k.checked_sub(1).and_then(|k| parts.get(k));
            let was_full = before.map_or(highest, |charge| range(charge)[1]);
            let reaches_both = lowest <= low + near && highest.max(was_full) >= high - near;
            let covers_all = -part.charge_ah >= (1.0 - NEAR) * all_ah;
            -part.charge_ah >= LEAST * wanted.nominal_ah && (reaches_both || covers_all)
        })
        .collect();
    let slowest = full.iter().copied().min_by(|&a, &b| {
        let rate = |k: usize| {
            parts
                .get(k)
                .map_or(f64::INFINITY, |part| mean_current(part, rows))
        };
        rate(a).total_cmp(&rate(b))
    });
    let Some((at, part)) = slowest.and_then(|at| Some((at, parts.get(at)?))) else {
        return Err(format!(
            "no discharge of {:.3} A h or more goes from {high:.3} V to {low:.3} V",
            LEAST * wanted.nominal_ah
        ));
    };
    let capacity_ah = -part.charge_ah;
    let others = full.iter().filter_map(|&k| parts.get(k));
    let is_whole = |part: &&Part| part.charge_ah >= 0.9 * capacity_ah;
    let neighbours = [at.checked_sub(1), Some(at + 1)];
    let charge = neighbours
        .into_iter()
        .flatten()
        .filter_map(|k| parts.get(k))
        .find(is_whole);
    let halves = Halves {
        discharge: part.clone(),
        charge: charge.cloned(),
        capacity_ah,
    };
    let rmse = rms(others.map(|other| -other.charge_ah - capacity_ah));
    let rows = part.rows.clone().count();
    Ok((halves, Fit { rmse, rows }))
}

/// The most charge that lies between two rows, A·h.
fn span_ah(rows: &[Observation]) -> f64 {
    let mut net = 0.0_f64;
    let (mut lowest, mut highest) = (net, net);
    for pair in rows.windows(2) {
        net += flow_ah(pair);
        (lowest, highest) = (lowest.min(net), highest.max(net));
    }
    highest - lowest
}

fn mean_current(part: &Part, rows: &[Observation]) -> f64 {
    let rows = rows.get(part.rows.clone()).unwrap_or_default();
    let flowing = rows.iter().filter(|row| row.current < 0.0);
    let (sum, count) = flowing.fold((0.0, 0.0), |(sum, count), row| {
        (sum - row.current, count + 1.0)
    });
    sum / f64::max(count, 1.0)
}

/// The lowest and the highest voltage, without what drops over `ohm`.
fn extremes(rows: &[Observation], ohm: f64) -> [f64; 2] {
    rows.iter()
        .fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], row| {
            let voltage = row.voltage - row.current * ohm;
            [low.min(voltage), high.max(voltage)]
        })
}
