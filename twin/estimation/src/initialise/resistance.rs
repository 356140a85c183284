//! Series resistance: what the voltage does when the current steps from one row to the next.

use super::{Fit, Outcome, median, rms};
use crate::observation::Observation;

/// The least step of the current: the nominal capacity over so many hours.
const LEAST_STEP: f64 = 20.0;
/// The longest time between the two rows, s: later, RC pairs have moved.
const MOST_SECONDS: f64 = 2.0;
/// Steps further from the median than so many times the median distance are left out.
const OUTLIER: f64 = 5.0;

pub(super) fn find(rows: &[Observation], nominal_ah: f64) -> Outcome<f64> {
    let step = |pair: &[Observation]| match pair {
        [before, after] => {
            let change = after.current - before.current;
            let is_step =
                change.abs() >= nominal_ah / LEAST_STEP && after.time - before.time <= MOST_SECONDS;
            is_step.then(|| (change, (after.voltage - before.voltage) / change))
        }
        _ => None,
    };
    let steps: Vec<(f64, f64)> = rows.windows(2).filter_map(step).collect();
    let mut ratios: Vec<f64> = steps.iter().map(|(_, ratio)| *ratio).collect();
    let Some(middle) = median(&mut ratios) else {
        return Err(format!(
            "no current steps by {:.3} A or more within {MOST_SECONDS} s",
            nominal_ah / LEAST_STEP
        ));
    };
    let mut distances: Vec<f64> = ratios.iter().map(|ratio| (ratio - middle).abs()).collect();
    let reach = OUTLIER * median(&mut distances).unwrap_or(0.0);
    // The least squares over what is near: large steps tell more.
    let near = || {
        steps
            .iter()
            .filter(|(_, ratio)| (ratio - middle).abs() <= reach)
    };
    let squares: f64 = near().map(|(change, _)| change * change).sum();
    let products: f64 = near().map(|(change, ratio)| change * change * ratio).sum();
    let ohm = products / squares;
    if !(ohm > 0.0 && ohm.is_finite()) {
        return Err(format!("the steps of the current give {ohm} ohm"));
    }
    let rmse = rms(near().map(|(_, ratio)| ratio - ohm));
    let rows = 2 * near().count();
    Ok((ohm, Fit { rmse, rows }))
}
