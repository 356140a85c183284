//! The online estimator: rows in, beliefs out.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::document::{Document, InitialInputs};
use crate::error::StepError;
use crate::filter::{Filter, Measured, Passage, Prediction};
use crate::health::{Charge, Health, HealthRules, Meter};
use crate::model::{CellModel, Conditions, CurrentBehavior, Interval, Physics};
use crate::observation::{Observation, Step, check_finite};
use crate::policy::Keepsake;
use crate::trust::{Judgement, Learnt, OnDivergence, Shown, Trust, TrustRules};

/// Temperature Moirae assumes for a row that brings none, degC.
const MOIRAE_TEMPERATURE: f64 = 25.0;

/// Where an estimator stands between rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Phase {
    /// No row yet.
    Fresh,
    /// A segment began: the next row only starts.
    Waiting,
    /// The next row is a step.
    Running,
}

/// How the temperature of a step is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TemperatureRule {
    /// The initial inputs carry none, so Moirae drops it from every row.
    Ignore,
    /// Moirae's rule.
    OrTwentyFive,
    /// The last known one holds.
    HoldLast,
}

/// One of the filters over one cell, with what it tells of trust and health. Owned and `Send`: one worker moves it row
/// by row.
#[derive(Clone, Debug)]
pub struct Estimator {
    pub(crate) model: Arc<CellModel>,
    pub(crate) filter: Filter,
    pub(crate) names: Arc<[String]>,
    rule: TemperatureRule,
    initial_inputs: Option<InitialInputs>,
    pub(crate) phase: Phase,
    pub(crate) previous: InitialInputs,
    /// V, of the row before; `None` before the first of a segment.
    pub(crate) previous_voltage: Option<f64>,
    pub(crate) start: Conditions,
    end: Conditions,
    pub(crate) latest_time: Option<f64>,
    pub(crate) repairs: u64,
    pub(crate) trust_rules: TrustRules,
    pub(crate) trust: Trust,
    health_rules: HealthRules,
    pub(crate) meter: Meter,
    pub(crate) keepsake: Keepsake,
}

impl Estimator {
    /// An estimator that has seen no row.
    pub fn new(document: &Document) -> Self {
        let model = Arc::clone(&document.cell.model);
        let initial_inputs = document.initial_inputs;
        let rule = match (document.physics, initial_inputs) {
            (Physics::Sound, _) => TemperatureRule::HoldLast,
            (
                Physics::Moirae03,
                Some(InitialInputs {
                    temperature: None, ..
                }),
            ) => TemperatureRule::Ignore,
            (Physics::Moirae03, _) => TemperatureRule::OrTwentyFive,
        };
        let previous = initial_inputs.unwrap_or(InitialInputs {
            time: 0.0,
            current: 0.0,
            temperature: None,
        });
        let conditions = Conditions::new(&model, previous.temperature);
        Self {
            start: conditions.clone(),
            end: conditions,
            filter: document.filter(),
            model,
            names: Arc::clone(&document.cell.names),
            rule,
            initial_inputs,
            phase: Phase::Fresh,
            previous,
            previous_voltage: None,
            latest_time: None,
            repairs: 0,
            trust_rules: document.trust,
            trust: Trust::default(),
            health_rules: document.health_rules(),
            meter: Meter::default(),
            keepsake: Keepsake::new(document),
        }
    }

    /// Conditions the belief on one row.
    ///
    /// The first row only starts the filter and gives `None`: the input before the next one is the document's
    /// `initial_inputs` where it has them, else this row. So does the first row of a segment, always as that input.
    ///
    /// # Errors
    /// In each case the belief, and the row the next step starts from, stay as they were; only after the third
    /// `Diverged` in a row the document's policy on divergence acts.
    /// - `NotFinite`: time, current or voltage is NaN or infinite.
    /// - `TimeWentBack`: the row lies before the one before it.
    /// - `ZeroTimeStep`: only for linear current with `compat: "moirae-0.3"`.
    /// - `Diverged`: the posterior would not be finite.
    pub fn observe(&mut self, observation: &Observation) -> Result<Option<Step>, StepError> {
        check_finite(observation)?;
        let time = observation.time;
        let input = InitialInputs {
            time,
            current: observation.current,
            temperature: self.temperature_of(observation),
        };
        match (self.phase, self.initial_inputs) {
            (Phase::Running, _) => {}
            (Phase::Fresh, Some(initial)) => {
                self.begin(initial, time);
                self.previous_voltage = Some(observation.voltage);
                return Ok(None);
            }
            _ => {
                if self.phase == Phase::Waiting {
                    self.filter.forget_current_errors(&self.model);
                }
                self.begin(input, time);
                self.previous_voltage = Some(observation.voltage);
                return Ok(None);
            }
        }
        let latest = self
            .latest_time
            .unwrap_or(self.previous.time)
            .max(self.previous.time);
        if time < latest {
            return Err(StepError::TimeWentBack { latest, time });
        }
        self.step(input, observation.voltage).map(Some)
    }

    /// Tells that another test began: the belief is kept, and the next row only starts. Before the first row it
    /// changes nothing.
    pub fn begin_segment(&mut self) {
        if self.phase == Phase::Running {
            self.phase = Phase::Waiting;
            self.previous_voltage = None;
            self.trust.interrupt();
            self.meter.interrupt();
        }
    }

    /// Names of the states, in the order of [`Estimator::mean`]; shared by all estimators of a document.
    pub fn state_names(&self) -> &Arc<[String]> {
        &self.names
    }

    /// Means of the states in the units of the document. Shape: `[n]`.
    pub fn mean(&self) -> &[f64] {
        &self.filter.belief().mean
    }

    /// Covariance of the states, symmetric. Shape: `[n, n]` row-major.
    pub fn covariance(&self) -> &[f64] {
        &self.filter.belief().covariance
    }

    /// Standard deviations of the states. Shape: `[n]`.
    pub fn standard_deviations(&self) -> impl Iterator<Item = f64> + '_ {
        let next_diagonal = self.names.len() + 1;
        self.covariance()
            .iter()
            .step_by(next_diagonal)
            .map(|variance| variance.sqrt())
    }

    /// Mean of the state of charge.
    pub fn soc(&self) -> f64 {
        self.mean().first().copied().unwrap_or(f64::NAN)
    }

    /// How far the estimator may be believed, and why.
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// The band in which the average normalised innovation squared of a window lies while the filter knows its errors.
    pub fn trust_band(&self) -> [f64; 2] {
        self.trust_rules.band()
    }

    /// State of health in the terms of those who run batteries.
    pub fn health(&self) -> Health {
        self.meter
            .health(&self.health_rules, self.mean(), self.covariance())
    }

    /// Time of the last row taken, s.
    pub fn latest_time(&self) -> Option<f64> {
        self.latest_time
    }

    /// How many steps had to repair their covariance.
    pub fn repairs(&self) -> u64 {
        self.repairs
    }

    fn temperature_of(&self, observation: &Observation) -> Option<f64> {
        let given = observation.temperature.filter(|value| value.is_finite());
        match self.rule {
            TemperatureRule::Ignore => None,
            TemperatureRule::OrTwentyFive => Some(given.unwrap_or(MOIRAE_TEMPERATURE)),
            TemperatureRule::HoldLast => given.or(self.previous.temperature),
        }
    }

    fn begin(&mut self, input: InitialInputs, time: f64) {
        self.previous = input;
        self.start.set(&self.model, input.temperature);
        self.latest_time = Some(time);
        self.phase = Phase::Running;
    }

    fn step(&mut self, input: InitialInputs, voltage: f64) -> Result<Step, StepError> {
        let InitialInputs {
            time,
            current,
            temperature,
        } = input;
        let duration = time - self.previous.time;
        check_duration(&self.model, duration, time)?;
        let interval = Interval::new(&self.model, duration, self.previous.current, current);
        self.end.set(&self.model, temperature);
        let passage = Passage {
            model: &self.model,
            interval: &interval,
            start: &self.start,
            end: &self.end,
        };
        let measured = Measured {
            voltage,
            counts: !self.trust.is_holding,
        };
        let Some(prediction) = self.filter.step(passage, measured) else {
            if self.trust.take_failure(time) {
                self.intervene();
            }
            return Err(StepError::Diverged { time });
        };
        if self.trust_rules.on_divergence == OnDivergence::Hold {
            self.model
                .advance(&interval, &self.start, &mut self.keepsake.mean);
        }
        std::mem::swap(&mut self.start, &mut self.end);
        self.previous = input;
        self.latest_time = Some(time);
        self.repairs += u64::from(prediction.repaired);
        self.count(&interval, (voltage, time));
        self.judge(&prediction, (voltage, time));
        Ok(Step {
            predicted_voltage: prediction.voltage,
            predicted_variance: prediction.variance,
            innovation: voltage - prediction.voltage,
            repaired: prediction.repaired,
        })
    }

    fn count(&mut self, interval: &Interval, (voltage, time): (f64, f64)) {
        let voltages = [self.previous_voltage.unwrap_or(voltage), voltage];
        self.previous_voltage = Some(voltage);
        let belief = self.filter.belief();
        let charge = || Charge {
            soc: belief.mean.first().copied().unwrap_or(f64::NAN),
            variance: belief.covariance.first().copied().unwrap_or(f64::NAN),
            capacity_ah: self.model.capacity.at(&belief.mean),
            hysteresis_reach: self.model.hysteresis_reach(&belief.mean),
        };
        self.meter
            .take(&self.health_rules, interval, (voltages, time), charge);
    }

    fn judge(&mut self, prediction: &Prediction, (voltage, time): (f64, f64)) {
        let shown = Shown {
            time,
            measured: voltage,
            expected: prediction.voltage,
            variance: prediction.variance,
        };
        let (mean, health) = (&self.filter.belief().mean, &self.health_rules);
        let learnt = || Learnt {
            soc: mean.first().copied().unwrap_or(f64::NAN),
            capacity: health.capacity_ratio(mean),
            resistance: health.resistance_ratio(mean),
        };
        match self.trust.take(&self.trust_rules, &shown, learnt) {
            Judgement::Open => {}
            Judgement::Believed => self.keep_if_healthy(),
            Judgement::Diverged => self.intervene(),
        }
    }
}

/// Refuses the one step Moirae does not define.
pub(crate) fn check_duration(model: &CellModel, duration: f64, time: f64) -> Result<(), StepError> {
    let is_moirae_ramp =
        model.physics == Physics::Moirae03 && model.behavior == CurrentBehavior::Linear;
    if is_moirae_ramp && duration <= 0.0 {
        return Err(StepError::ZeroTimeStep { time });
    }
    Ok(())
}
