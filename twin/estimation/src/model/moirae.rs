//! The equations of motion of Moirae 0.3.0, quirks included, for documents with `compat: "moirae-0.3"`.
//!
//! Operations stand in Moirae's own order: on a current ramp that ends at zero the branch taken depends on the last
//! bit. Its assertion on the sign of such ramps, which aborts on 2 % of current pairs, is left out.

use super::{CellModel, Conditions, CurrentBehavior, Interval, SECONDS_PER_HOUR};

/// Below this current, A, Moirae does not normalise the direction of hysteresis.
const SMALL_CURRENT: f64 = 1e-6;

/// Moves the transients of `state` over the interval; its parameters stay.
#[inline]
pub(super) fn advance(
    model: &CellModel,
    interval: &Interval,
    start: &Conditions,
    state: &mut [f64],
) {
    let &Interval {
        duration,
        current_before,
        current_after,
        slope,
        charge,
        ..
    } = interval;
    let capacity = SECONDS_PER_HOUR * model.capacity.at(state);
    let efficiency = if current_before < 0.0 {
        1.0
    } else {
        model.coulombic_efficiency.at(state)
    };
    let rate = efficiency * model.hysteresis_rate.at(state) / capacity;
    let Some(&soc) = state.first() else { return };
    let limit = model.hysteresis.at(soc, state);
    let has_c0 = usize::from(model.c0.is_some());
    for (k, (pair, factor)) in model.rc_pairs.iter().zip(&start.rc_factors).enumerate() {
        let tau = pair.resistance.at(soc, state, *factor, start.temperature)
            * pair.capacitance.at(soc, state);
        let decay = libm::exp(-duration / tau);
        if let Some(branch) = state.get_mut(1 + has_c0 + k) {
            *branch =
                *branch * decay + (1.0 - decay) * (current_after - slope * tau) + slope * duration;
        }
    }
    let (transients, _) = state.split_at_mut(model.transients());
    let [soc, rest @ .., hysteresis] = transients else {
        return;
    };
    *soc += efficiency * (charge / capacity);
    *hysteresis = hysteresis_after(model.behavior, interval, [*hysteresis, limit, rate]);
    if let (1, [q0, ..]) = (has_c0, rest) {
        *q0 += charge;
    }
}

fn hysteresis_after(
    behavior: CurrentBehavior,
    interval: &Interval,
    [hysteresis, limit, rate]: [f64; 3],
) -> f64 {
    let &Interval {
        duration,
        current_before,
        current_after,
        slope,
        ..
    } = interval;
    let mut target = limit * current_before;
    if current_before.abs() > SMALL_CURRENT {
        target /= current_before.abs();
    }
    let one_way = current_before * current_after >= 0.0;
    if behavior == CurrentBehavior::Constant || one_way {
        return solve(hysteresis, target, rate, [duration, current_before, slope]);
    }
    let crossing = -current_before / slope;
    let middle = solve(hysteresis, target, rate, [crossing, current_before, slope]);
    solve(middle, -target, rate, [duration - crossing, 0.0, slope])
}

/// One stretch of hysteresis: `ramp` is its duration, first current and slope.
fn solve(hysteresis: f64, target: f64, rate: f64, ramp: [f64; 3]) -> f64 {
    let [duration, current, slope] = ramp;
    let mut exponent = rate * duration * (current + 0.5 * slope * duration);
    if current > -(slope * duration) {
        exponent = -exponent;
    }
    let decay = libm::exp(exponent);
    decay * hysteresis + (1.0 - decay) * target
}
