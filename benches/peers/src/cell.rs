//! The cell of `ukf_speed` written out by hand, as somebody would do who uses a library for filters.
//!
//! States: charge, hysteresis (V), capacity (A h), series resistance (ohm).

/// Open-circuit voltage at tenths of the charge, V.
pub const OCV: [f64; 11] = [2.9, 3.2, 3.3, 3.38, 3.45, 3.54, 3.66, 3.79, 3.93, 4.08, 4.2];
pub const START: [f64; 4] = [0.5, 0.0, 10.0, 0.02];
pub const COVARIANCE: [f64; 4] = [1e-4, 1e-4, 1e-6, 1e-6];
pub const PROCESS: [f64; 4] = [1e-10, 1e-10, 1e-14, 1e-14];
pub const SENSOR: f64 = 1e-6;
const HYSTERESIS: f64 = 0.01;
const RATE: f64 = 50.0;

/// A second between two rows.
#[derive(Clone, Copy)]
pub struct Row {
    /// A, in the row before.
    pub before: f64,
    /// A.
    pub current: f64,
    /// V.
    pub voltage: f64,
}

/// Charges and discharges by turns around half charge.
pub fn row(k: u32) -> Row {
    let current = |k: u32| {
        if (k / 900).is_multiple_of(2) {
            2.0
        } else {
            -2.0
        }
    };
    Row {
        before: current(k.saturating_sub(1)),
        current: current(k),
        voltage: 3.55 + 0.02 * current(k),
    }
}

#[inline]
pub fn advance(state: [f64; 4], row: Row) -> [f64; 4] {
    let [soc, hysteresis, capacity, resistance] = state;
    let share = row.before / (3600.0 * capacity);
    let kept = (-(RATE * share).abs()).exp();
    let most = HYSTERESIS * row.before.signum();
    [
        soc + share,
        kept * hysteresis + (1.0 - kept) * most,
        capacity,
        resistance,
    ]
}

#[inline]
pub fn voltage(state: [f64; 4], row: Row) -> f64 {
    let [soc, hysteresis, _, resistance] = state;
    let segment = ((soc * 10.0) as usize).min(9);
    let ocv = OCV[segment] + (OCV[segment + 1] - OCV[segment]) * (soc * 10.0 - segment as f64);
    ocv + row.current * resistance + hysteresis
}
