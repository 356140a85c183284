//! The corrected equations of motion; the list of corrections stands in the parent module.

use super::{CellModel, Conditions, Interval, SECONDS_PER_HOUR};

/// Moves the transients of `state` over the interval; its parameters stay.
#[inline]
pub(super) fn advance(
    model: &CellModel,
    interval: &Interval,
    start: &Conditions,
    state: &mut [f64],
) {
    let capacity = SECONDS_PER_HOUR * model.capacity.at(state);
    let efficiency = model.coulombic_efficiency.at(state);
    let rate = model.hysteresis_rate.at(state);
    let Some(&soc) = state.first() else { return };
    let limit = model.hysteresis.at(soc, state);
    let has_c0 = usize::from(model.c0.is_some());
    for (k, (pair, factor)) in model.rc_pairs.iter().zip(&start.rc_factors).enumerate() {
        let tau = pair.resistance.at(soc, state, *factor, start.temperature)
            * pair.capacitance.at(soc, state);
        if let Some(branch) = state.get_mut(1 + has_c0 + k) {
            *branch = relax(*branch, tau, interval);
        }
    }
    let (transients, _) = state.split_at_mut(model.transients());
    let [soc, rest @ .., hysteresis] = transients else {
        return;
    };
    for charge in interval.parts {
        if charge == 0.0 {
            continue;
        }
        let stored = if charge > 0.0 {
            efficiency * charge
        } else {
            charge
        } / capacity;
        *soc += stored;
        *hysteresis = approach(*hysteresis, limit, rate * stored);
    }
    if let (1, [q0, ..]) = (has_c0, rest) {
        *q0 += interval.charge;
    }
}

/// Current through the resistor of an RC pair: the exact solution of `tau di/dt = I(t) - i`.
#[inline]
fn relax(branch: f64, tau: f64, interval: &Interval) -> f64 {
    let dt = interval.duration;
    if dt <= 0.0 {
        return branch;
    }
    if tau <= 0.0 {
        return interval.current_before + interval.slope * dt;
    }
    let decay = libm::exp(-dt / tau);
    branch * decay
        + (1.0 - decay) * (interval.current_before - interval.slope * tau)
        + interval.slope * dt
}

/// Hysteresis heads for `+limit` while charging and `-limit` while discharging, by the share of capacity moved.
#[inline]
fn approach(hysteresis: f64, limit: f64, moved: f64) -> f64 {
    let decay = libm::exp(-moved.abs());
    let target = if moved < 0.0 { -limit } else { limit };
    decay * hysteresis + (1.0 - decay) * target
}
