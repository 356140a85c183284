//! Forward simulation of a cell by the model the estimators use.
//!
//! A simulator makes test data: it follows a current, and its capacity and resistances can be changed on the way, as
//! ageing changes them.

use crate::document::Cell;
use crate::error::StepError;
use crate::estimator::check_duration;
use crate::interpolation::{Curve, Scalar};
use crate::model::{CellModel, Conditions, Interval};

/// A cell that runs.
#[derive(Clone, Debug)]
pub struct Simulator {
    model: CellModel,
    state: Vec<f64>,
    moved: Vec<f64>,
    transients: usize,
    conditions: Conditions,
    previous: Option<(f64, f64)>,
}

impl Simulator {
    /// A cell at rest in its initial transients, before any input.
    pub fn new(cell: &Cell) -> Self {
        let state = cell.initial_state();
        Self {
            model: CellModel::clone(&cell.model),
            moved: state.clone(),
            transients: cell.transients.len(),
            conditions: Conditions::new(&cell.model, None),
            previous: None,
            state,
        }
    }

    /// Moves to `time` (s) while `current` (A, positive while charging) flows at `temperature` (degC), and answers the
    /// terminal voltage there, V. The first input only starts: it meets the initial transients.
    ///
    /// # Errors
    /// In each case the cell stays as it was.
    /// - `NotFinite`: an input is NaN or infinite.
    /// - `TimeWentBack`: `time` lies before the input before it.
    /// - `ZeroTimeStep`: only for linear current with `compat: "moirae-0.3"`.
    /// - `Diverged`: the transients would not be finite.
    pub fn step(
        &mut self,
        time: f64,
        current: f64,
        temperature: Option<f64>,
    ) -> Result<f64, StepError> {
        let inputs = [
            ("time", time),
            ("current", current),
            ("temperature", temperature.unwrap_or(0.0)),
        ];
        for (what, value) in inputs {
            if !value.is_finite() {
                return Err(StepError::NotFinite { what });
            }
        }
        if let Some((latest, previous_current)) = self.previous {
            if time < latest {
                return Err(StepError::TimeWentBack { latest, time });
            }
            check_duration(&self.model, time - latest, time)?;
            let interval = Interval::new(&self.model, time - latest, previous_current, current);
            self.moved.copy_from_slice(&self.state);
            self.model
                .advance(&interval, &self.conditions, &mut self.moved);
            if !self.moved.iter().all(|value| value.is_finite()) {
                return Err(StepError::Diverged { time });
            }
            std::mem::swap(&mut self.state, &mut self.moved);
        }
        self.conditions.set(&self.model, temperature);
        self.previous = Some((time, current));
        Ok(self.model.voltage(&self.state, current, &self.conditions))
    }

    /// State of charge; 0 is empty and 1 full, and nothing keeps it between.
    pub fn soc(&self) -> f64 {
        self.state.first().copied().unwrap_or(f64::NAN)
    }

    /// Transients in the order of [`Cell::transient_names`].
    pub fn transients(&self) -> &[f64] {
        self.state.split_at(self.transients).0
    }

    /// The present capacity, A·h.
    pub fn capacity_ah(&self) -> f64 {
        self.model.capacity.at(&self.state)
    }

    /// Changes the capacity, A·h; state of charge stays.
    pub fn set_capacity_ah(&mut self, capacity_ah: f64) {
        self.model.capacity = Scalar::Fixed(capacity_ah);
    }

    /// Makes the series resistance one value, ohm, at its reference temperature and every state of charge.
    pub fn set_r0_ohm(&mut self, resistance_ohm: f64) {
        self.model.r0.base = Curve::Constant(Scalar::Fixed(resistance_ohm));
        self.model.r0.scale = 1.0;
        self.refresh();
    }

    /// Multiplies the series resistance of the document; 1 is the cell as described.
    pub fn set_r0_scale(&mut self, factor: f64) {
        self.model.r0.scale = factor;
        self.refresh();
    }

    /// Multiplies the resistances of all RC pairs of the document; 1 is the cell as described.
    pub fn set_rc_resistance_scale(&mut self, factor: f64) {
        for pair in &mut self.model.rc_pairs {
            pair.resistance.scale = factor;
        }
        self.refresh();
    }

    /// What depends on temperature alone also holds the scales.
    fn refresh(&mut self) {
        self.conditions = Conditions::new(&self.model, self.conditions.temperature());
    }
}
