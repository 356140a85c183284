//! The equivalent circuit model of a cell: how its state moves over one interval, and its terminal voltage.
//!
//! The state vector holds the transients `soc`, `q0` (C, only with a series capacitor), `i_rc[..]` (A), `hyst` (V),
//! then the estimated parameters in the order of their declaration. Current is in A, positive while charging.
//!
//! # Corrections
//! The default physics differs from Moirae 0.3 in these points; `compat: "moirae-0.3"` brings each of them back
//! (see `model/moirae.rs`):
//! 1. *Constant current* holds the current of the earlier row over the whole interval for charge, hysteresis **and**
//!    RC pairs. Moirae lets the RC pairs relax towards the current of the later row.
//! 2. *Linear current* drives the RC pairs from the current at the start of the interval, which is the exact solution.
//!    Moirae starts them from the current at the end.
//! 3. An interval in which a linear current changes sign is cut where it crosses zero. The coulombic efficiency and the
//!    direction of hysteresis belong to the part; Moirae takes both from the start of the interval, and can move
//!    hysteresis away from its limit on a ramp that ends at zero.
//! 4. Hysteresis heads for `±h0` by the sign of the charge moved, however small the current. Moirae scales the limit
//!    with currents below 1 uA, so it decays on a ramp that begins at zero.
//! 5. `dt = 0` moves nothing, in both current modes. Moirae divides by zero in the linear mode.
//! 6. An RC pair with a time constant of zero or below (a sigma point outside the physical range) relaxes at once
//!    instead of growing without bound.
//!
//! Kept as they are: parameters are taken at the start of the interval, the RC temperature too; nothing is clamped.

mod moirae;
mod sound;

use crate::interpolation::{Curve, Scalar};

/// Seconds in an hour: capacity is in A·h, charge in C.
const SECONDS_PER_HOUR: f64 = 3600.0;

/// Which equations of motion hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Physics {
    /// The corrected equations.
    Sound,
    /// Those of Moirae 0.3, to the last branch.
    Moirae03,
}

/// How the current runs between two rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CurrentBehavior {
    /// Held from the earlier row.
    Constant,
    /// A straight line from row to row.
    Linear,
}

impl CurrentBehavior {
    /// How many measured currents move a state over one interval, if they have an error.
    pub(crate) fn current_errors(self, noise: Option<f64>) -> usize {
        match (noise, self) {
            (None, _) => 0,
            (Some(_), Self::Constant) => 1,
            (Some(_), Self::Linear) => 2,
        }
    }
}

/// A resistance that may fall with temperature: `R(s) * exp(-g (T - T_ref))`, ohm.
#[derive(Clone, Debug)]
pub(crate) struct Resistance {
    pub(crate) base: Curve,
    /// `g`, 1/degC.
    pub(crate) temperature_dependence: Scalar,
    /// `T_ref`, degC.
    pub(crate) reference_temperature: f64,
    /// Ageing of a simulated cell; 1 in estimators.
    pub(crate) scale: f64,
}

impl Resistance {
    /// The part of the resistance that is the same for every sigma point.
    fn common_factor(&self, temperature: Option<f64>) -> f64 {
        match (temperature, self.temperature_dependence) {
            (Some(t), Scalar::Fixed(g)) => {
                self.scale * libm::exp(-g * (t - self.reference_temperature))
            }
            _ => self.scale,
        }
    }

    #[inline]
    fn at(&self, soc: f64, state: &[f64], factor: f64, temperature: Option<f64>) -> f64 {
        let resistance = self.base.at(soc, state) * factor;
        match (temperature, self.temperature_dependence) {
            (Some(t), Scalar::State(_)) => {
                let g = self.temperature_dependence.at(state);
                resistance * libm::exp(-g * (t - self.reference_temperature))
            }
            _ => resistance,
        }
    }
}

/// A resistor and a capacitor side by side.
#[derive(Clone, Debug)]
pub(crate) struct RcPair {
    pub(crate) resistance: Resistance,
    /// Farad.
    pub(crate) capacitance: Curve,
}

/// The circuit, with its parameters fixed or bound to the state vector.
#[derive(Clone, Debug)]
pub(crate) struct CellModel {
    pub(crate) physics: Physics,
    pub(crate) behavior: CurrentBehavior,
    /// A·h.
    pub(crate) capacity: Scalar,
    pub(crate) coulombic_efficiency: Scalar,
    /// V.
    pub(crate) ocv_reference: Curve,
    /// V/degC.
    pub(crate) ocv_entropic: Curve,
    /// degC.
    pub(crate) ocv_temperature: Scalar,
    pub(crate) r0: Resistance,
    /// Series capacitor, F.
    pub(crate) c0: Option<Curve>,
    pub(crate) rc_pairs: Vec<RcPair>,
    /// Largest hysteresis, V.
    pub(crate) hysteresis: Curve,
    pub(crate) hysteresis_rate: Scalar,
    /// Variance of the measured current, A^2; see `filter/current.rs`.
    pub(crate) current_noise: Option<f64>,
}

/// Temperature, and what follows from it alone: the same for all sigma points of a row.
#[derive(Clone, Debug)]
pub(crate) struct Conditions {
    temperature: Option<f64>,
    r0_factor: f64,
    rc_factors: Vec<f64>,
}

impl Conditions {
    pub(crate) fn new(model: &CellModel, temperature: Option<f64>) -> Self {
        Self {
            temperature,
            r0_factor: model.r0.common_factor(temperature),
            rc_factors: model
                .rc_pairs
                .iter()
                .map(|pair| pair.resistance.common_factor(temperature))
                .collect(),
        }
    }

    /// degC.
    pub(crate) fn temperature(&self) -> Option<f64> {
        self.temperature
    }

    /// Moves to another temperature without allocating; does nothing if it is the same.
    pub(crate) fn set(&mut self, model: &CellModel, temperature: Option<f64>) {
        if self.temperature.map(f64::to_bits) == temperature.map(f64::to_bits) {
            return;
        }
        self.temperature = temperature;
        self.r0_factor = model.r0.common_factor(temperature);
        for (factor, pair) in self.rc_factors.iter_mut().zip(&model.rc_pairs) {
            *factor = pair.resistance.common_factor(temperature);
        }
    }
}

/// Current and time between two rows, and what follows from them alone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interval {
    /// s.
    pub(crate) duration: f64,
    /// A, at the start.
    pub(crate) current_before: f64,
    /// A, at the end.
    pub(crate) current_after: f64,
    /// A/s; 0 where the current is held.
    pub(crate) slope: f64,
    /// C, over the whole interval.
    pub(crate) charge: f64,
    /// C of each part of one sign; the second is 0 unless the current changes sign.
    pub(crate) parts: [f64; 2],
}

impl Interval {
    /// The interval of `duration` seconds, at least 0, from one current to another.
    pub(crate) fn new(model: &CellModel, duration: f64, before: f64, after: f64) -> Self {
        let is_ramp = model.behavior == CurrentBehavior::Linear && duration > 0.0;
        let slope = if is_ramp {
            (after - before) / duration
        } else {
            0.0
        };
        let charge = duration * (before + slope * duration / 2.0);
        let parts = if is_ramp && before * after < 0.0 {
            let crossing = duration * (before / (before - after));
            [0.5 * before * crossing, 0.5 * after * (duration - crossing)]
        } else {
            [charge, 0.0]
        };
        Self {
            duration,
            current_before: before,
            current_after: after,
            slope,
            charge,
            parts,
        }
    }
}

impl CellModel {
    /// The number of transients: the first entries of the state vector.
    pub(crate) fn transients(&self) -> usize {
        2 + usize::from(self.c0.is_some()) + self.rc_pairs.len()
    }

    /// The number of errors of the current that stand in the state vector behind the transients.
    pub(crate) fn current_errors(&self) -> usize {
        self.behavior.current_errors(self.current_noise)
    }

    /// Moves the transients of `state`, the whole state vector, over the interval; estimated parameters stay.
    ///
    /// `start` are the conditions at the start of the interval.
    #[inline]
    pub(crate) fn advance(&self, interval: &Interval, start: &Conditions, state: &mut [f64]) {
        match self.physics {
            Physics::Sound => sound::advance(self, interval, start, state),
            Physics::Moirae03 => moirae::advance(self, interval, start, state),
        }
    }

    /// Terminal voltage, V, while `current` flows.
    #[inline]
    pub(crate) fn voltage(&self, state: &[f64], current: f64, conditions: &Conditions) -> f64 {
        let temperature = conditions.temperature;
        let (transients, _) = state.split_at(self.transients());
        let [soc, rest @ .., hysteresis] = transients else {
            return f64::NAN;
        };
        let soc = *soc;
        let mut voltage = self.open_circuit_voltage(soc, state, temperature);
        voltage += current * self.r0.at(soc, state, conditions.r0_factor, temperature);
        let (charge, branch_currents) = rest.split_at(usize::from(self.c0.is_some()));
        if let (Some(c0), [q0]) = (&self.c0, charge) {
            voltage += q0 / c0.at(soc, state);
        }
        for ((pair, factor), branch) in self
            .rc_pairs
            .iter()
            .zip(&conditions.rc_factors)
            .zip(branch_currents)
        {
            voltage += branch * pair.resistance.at(soc, state, *factor, temperature);
        }
        voltage + hysteresis
    }

    /// How far the hysteresis may reach from where it is, as a share of the capacity by the slope of the open-circuit
    /// voltage, and how fast it follows charge.
    pub(crate) fn hysteresis_reach(&self, state: &[f64]) -> (f64, f64) {
        /// A small part of the capacity.
        const STEP: f64 = 0.005;
        let (transients, _) = state.split_at(self.transients());
        let [soc, .., hysteresis] = *transients else {
            return (f64::NAN, f64::NAN);
        };
        let volts = self.hysteresis.at(soc, state).abs() + hysteresis.abs();
        let ocv = |soc: f64| self.ocv_reference.at(soc, state);
        let slope = (ocv(soc + STEP) - ocv(soc - STEP)) / (2.0 * STEP);
        let share = if volts > 0.0 {
            volts / slope.abs()
        } else {
            0.0
        };
        (share, self.hysteresis_rate.at(state).abs())
    }

    #[inline]
    fn open_circuit_voltage(&self, soc: f64, state: &[f64], temperature: Option<f64>) -> f64 {
        let reference = self.ocv_reference.at(soc, state);
        match temperature {
            Some(t) => {
                reference + (t - self.ocv_temperature.at(state)) * self.ocv_entropic.at(soc, state)
            }
            None => reference,
        }
    }
}
