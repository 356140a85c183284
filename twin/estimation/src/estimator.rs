//! The online estimator: rows in, beliefs out.

use serde::{Deserialize, Serialize};

use crate::document::{Document, InitialInputs};
use crate::error::StepError;
use crate::model::{CellModel, Conditions, CurrentBehavior, Interval, Physics};
use crate::unscented::{Filter, Passage};

/// Temperature Moirae assumes for a row that brings none, degC.
const MOIRAE_TEMPERATURE: f64 = 25.0;
/// Format of [`Snapshot`] written by this version.
const SNAPSHOT_VERSION: u32 = 1;

/// One row as the estimator sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observation {
    /// Seconds from the start of the test.
    pub time: f64,
    /// A, positive while charging.
    pub current: f64,
    /// Terminal voltage, V.
    pub voltage: f64,
    /// degC; one that is not finite counts as none. Without one the last known temperature holds (25 degC with
    /// `compat: "moirae-0.3"`); before any is known, nothing depends on temperature.
    pub temperature: Option<f64>,
}

/// What a row was expected to show, and did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Terminal voltage expected before the row was seen, V.
    pub predicted_voltage: f64,
    /// Its variance, sensor noise included, V^2; positive.
    pub predicted_variance: f64,
    /// Measured less expected voltage, V.
    pub innovation: f64,
    /// The covariance had ceased to be positive definite and its eigenvalues were clipped.
    pub repaired: bool,
}

impl Step {
    /// The innovation in standard deviations of what was expected; its square averages 1 where the filter knows its
    /// errors.
    pub fn normalized_innovation(&self) -> f64 {
        self.innovation / self.predicted_variance.sqrt()
    }
}

/// Where an estimator stands between rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Phase {
    /// No row yet.
    Fresh,
    /// A segment began: the next row only starts.
    Waiting,
    /// The next row is a step.
    Running,
}

/// The exact state of an estimator. In a format that keeps the bits of `f64` (msgpack does) a restored estimator goes
/// on bit for bit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    version: u32,
    state_names: Vec<String>,
    mean: Vec<f64>,
    covariance: Vec<f64>,
    phase: Phase,
    previous_time: f64,
    previous_current: f64,
    previous_temperature: Option<f64>,
    latest_time: Option<f64>,
    repairs: u64,
}

/// Why a snapshot does not suit a document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The snapshot holds numbers no estimator has, or lists of the wrong length.
    #[error("the snapshot is damaged: {what}")]
    Damaged {
        /// What is wrong with it.
        what: &'static str,
    },
    /// The snapshot is of other states than the document's.
    #[error("the snapshot is of the states {snapshot:?}, the document asks for {document:?}")]
    OtherStates {
        /// In the snapshot.
        snapshot: Vec<String>,
        /// In the document.
        document: Vec<String>,
    },
    /// The snapshot was written by a newer version.
    #[error("the snapshot has format {found}; this version reads up to {SNAPSHOT_VERSION}")]
    Version {
        /// Its format.
        found: u32,
    },
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

/// A joint unscented Kalman filter over one cell. Owned and `Send`: one worker moves it row by row.
#[derive(Clone, Debug)]
pub struct Estimator {
    model: CellModel,
    filter: Filter,
    names: Vec<String>,
    rule: TemperatureRule,
    initial_inputs: Option<InitialInputs>,
    phase: Phase,
    previous: InitialInputs,
    start: Conditions,
    end: Conditions,
    latest_time: Option<f64>,
    repairs: u64,
}

impl Estimator {
    /// An estimator that has seen no row.
    pub fn new(document: &Document) -> Self {
        let model = document.cell.model.clone();
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
            names: document.state_names(),
            rule,
            initial_inputs,
            phase: Phase::Fresh,
            previous,
            latest_time: None,
            repairs: 0,
        }
    }

    /// Conditions the belief on one row.
    ///
    /// The first row only starts the filter and gives `None`: the input before the next one is the document's
    /// `initial_inputs` where it has them, else this row. So does the first row of a segment, always as that input.
    ///
    /// # Errors
    /// In each case the belief, and the row the next step starts from, stay as they were.
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
                return Ok(None);
            }
            _ => {
                self.begin(input, time);
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
        }
    }

    /// Names of the states, in the order of [`Estimator::mean`].
    pub fn state_names(&self) -> &[String] {
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

    /// Time of the last row taken, s.
    pub fn latest_time(&self) -> Option<f64> {
        self.latest_time
    }

    /// How many steps had to repair their covariance.
    pub fn repairs(&self) -> u64 {
        self.repairs
    }

    /// The exact state, for a checkpoint.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            version: SNAPSHOT_VERSION,
            state_names: self.names.clone(),
            mean: self.mean().to_vec(),
            covariance: self.covariance().to_vec(),
            phase: self.phase,
            previous_time: self.previous.time,
            previous_current: self.previous.current,
            previous_temperature: self.previous.temperature,
            latest_time: self.latest_time,
            repairs: self.repairs,
        }
    }

    /// Goes on from a snapshot, bit for bit, given the document it was made with.
    ///
    /// # Errors
    /// - `Version`: a newer version wrote it.
    /// - `OtherStates`: it belongs to another document.
    /// - `Damaged`: its numbers cannot be a belief.
    pub fn restore(document: &Document, snapshot: &Snapshot) -> Result<Self, RestoreError> {
        if snapshot.version > SNAPSHOT_VERSION {
            return Err(RestoreError::Version {
                found: snapshot.version,
            });
        }
        let mut estimator = Self::new(document);
        if snapshot.state_names != estimator.names {
            return Err(RestoreError::OtherStates {
                snapshot: snapshot.state_names.clone(),
                document: estimator.names,
            });
        }
        let n = estimator.names.len();
        if snapshot.mean.len() != n || snapshot.covariance.len() != n * n {
            return Err(RestoreError::Damaged {
                what: "lists of the wrong length",
            });
        }
        let times = [snapshot.previous_time, snapshot.previous_current];
        let others = [snapshot.previous_temperature, snapshot.latest_time];
        let mut numbers = snapshot
            .mean
            .iter()
            .chain(&times)
            .chain(others.iter().flatten());
        if !numbers.all(|value| value.is_finite()) {
            return Err(RestoreError::Damaged {
                what: "a number is not finite",
            });
        }
        if !estimator
            .filter
            .set_belief(&snapshot.mean, &snapshot.covariance)
        {
            return Err(RestoreError::Damaged {
                what: "the covariance is not positive definite",
            });
        }
        estimator.phase = snapshot.phase;
        estimator.previous = InitialInputs {
            time: snapshot.previous_time,
            current: snapshot.previous_current,
            temperature: snapshot.previous_temperature,
        };
        estimator
            .start
            .set(&estimator.model, snapshot.previous_temperature);
        estimator.latest_time = snapshot.latest_time;
        estimator.repairs = snapshot.repairs;
        Ok(estimator)
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
            measured: voltage,
        };
        let prediction = self
            .filter
            .step(&passage)
            .ok_or(StepError::Diverged { time })?;
        std::mem::swap(&mut self.start, &mut self.end);
        self.previous = input;
        self.latest_time = Some(time);
        self.repairs += u64::from(prediction.repaired);
        Ok(Step {
            predicted_voltage: prediction.voltage,
            predicted_variance: prediction.variance,
            innovation: voltage - prediction.voltage,
            repaired: prediction.repaired,
        })
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

fn check_finite(observation: &Observation) -> Result<(), StepError> {
    let Observation {
        time,
        current,
        voltage,
        ..
    } = *observation;
    for (what, value) in [("time", time), ("current", current), ("voltage", voltage)] {
        if !value.is_finite() {
            return Err(StepError::NotFinite { what });
        }
    }
    Ok(())
}
