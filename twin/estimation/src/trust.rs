//! Whether an estimator may be believed: the innovations against what the filter claims of them, the sensor, and the
//! plausibility of what was learnt.
//!
//! A filter that knows its errors has normalised innovations `z` that are independent and of unit variance. Windows of
//! `W` rows are judged one by one, so that the rate of false alarms is known:
//! - the average of `z^2` against the band that a chi-square variable of `W` degrees of freedom over `W` leaves with a
//!   probability of 1e-6 on either side (Wilson and Hilferty, PNAS 17 (1931)); above [`DIVERGED_AVERAGE`] the filter
//!   has diverged;
//! - the autocorrelation at lag 1, `sum z_k z_{k-1} / sum z_k^2`, against `5 / sqrt(W)` (Box and Jenkins; less than
//!   1e-6 for white innovations).
//!
//! At once counts a voltage beyond [`JUMP`] standard deviations (1e-15 a row), and one that stays the same to the bit
//! over [`STUCK_ROWS`] rows while the expected one moves by more than [`STUCK_RANGE`] standard deviations.
//! So on clean data a window of 100 rows raises an alarm with a probability below 4e-6.
//!
//! Everything here is part of the snapshot, and follows from rows and belief alone.

use serde::{Deserialize, Serialize};

/// Average of the normalised innovation squared from which on a filter has diverged: errors five times as large as
/// claimed.
pub(crate) const DIVERGED_AVERAGE: f64 = 25.0;
/// A single innovation beyond so many standard deviations is a jump.
pub(crate) const JUMP: f64 = 8.0;
/// Rows with the same voltage before a sensor can count as stuck.
pub(crate) const STUCK_ROWS: u32 = 10;
/// Range of the expected voltage over rows of the same measured one, in standard deviations, that tells a stuck sensor.
pub(crate) const STUCK_RANGE: f64 = 6.0;
/// Steps that fail in a row before the filter counts as diverged.
pub(crate) const FAILURES: u32 = 3;
/// Standard normal quantile of 1 - 1e-6.
const BAND_QUANTILE: f64 = 4.753_424;
/// Autocorrelation allowed, times the root of the window.
const MOST_CORRELATION: f64 = 5.0;

/// How far an estimator may be believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrustState {
    /// What it claims and what is measured agree.
    #[default]
    Healthy,
    /// Something does not fit: the claimed uncertainties, or the sensor.
    Suspect,
    /// Its estimates are wrong.
    Diverged,
}

impl TrustState {
    /// Returns the word for it, as documents of all kinds have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Suspect => "suspect",
            Self::Diverged => "diverged",
        }
    }
}

/// Why an estimator is not healthy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The average normalised innovation squared lies above its band: the filter claims too little uncertainty.
    InnovationsTooLarge,
    /// It lies below: the filter claims too much.
    InnovationsTooSmall,
    /// Innovations follow each other: the model misses something that lasts.
    InnovationsCorrelated,
    /// A single voltage far from what was expected.
    VoltageJump,
    /// The voltage stays the same to the bit while it should move.
    VoltageStuck,
    /// The capacity left its range.
    CapacityImplausible,
    /// The series resistance left its range.
    ResistanceImplausible,
    /// The state of charge left its range.
    SocImplausible,
    /// Steps fail because numbers cease to be finite.
    StepsFail,
}

/// What is done when an estimator has diverged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDivergence {
    /// It is told, nothing else.
    #[default]
    Report,
    /// The belief of the last healthy window comes back and follows the current alone until the voltage fits again.
    Hold,
    /// The document's belief comes back; state of charge stays, brought between 0 and 1.
    Reinitialise,
    /// The document's covariance comes back, the mean stays.
    Inflate,
}

/// What a document says of trust.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct TrustRules {
    /// Rows of a window.
    pub(crate) window: u32,
    pub(crate) on_divergence: OnDivergence,
    /// Plausible capacity, of the nominal one.
    pub(crate) capacity: [f64; 2],
    /// Plausible series resistance, of the document's.
    pub(crate) resistance: [f64; 2],
    /// Plausible state of charge.
    pub(crate) soc: [f64; 2],
}

impl Default for TrustRules {
    fn default() -> Self {
        Self {
            window: 100,
            on_divergence: OnDivergence::Report,
            capacity: [0.2, 1.5],
            resistance: [0.2, 5.0],
            soc: [-0.1, 1.1],
        }
    }
}

impl TrustRules {
    /// The band of the average normalised innovation squared over a window.
    pub(crate) fn band(&self) -> [f64; 2] {
        let spread = 2.0 / (9.0 * f64::from(self.window));
        let cube = |quantile: f64| {
            let root = 1.0 - spread + quantile * spread.sqrt();
            root.max(0.0) * root.max(0.0) * root.max(0.0)
        };
        [cube(-BAND_QUANTILE), cube(BAND_QUANTILE)]
    }
}

/// What was learnt, in proportion to what it began with; `None` where it is not estimated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Learnt {
    pub(crate) soc: f64,
    pub(crate) capacity: Option<f64>,
    pub(crate) resistance: Option<f64>,
}

/// The verdict and the figures it rests on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Trust {
    /// The verdict.
    pub state: TrustState,
    /// Why, unless healthy.
    pub reason: Option<Reason>,
    /// Time of the row at which `state` or `reason` last changed, s.
    pub since: Option<f64>,
    /// Average normalised innovation squared of the last whole window.
    pub nis_average: Option<f64>,
    /// Autocorrelation of the innovations of the last whole window at lag 1.
    pub autocorrelation: Option<f64>,
    /// How often the policy on divergence acted.
    pub interventions: u64,
    /// Whether the voltage is left aside, by the policy `hold`.
    pub is_holding: bool,
    window: Window,
    sensor: Sensor,
    failures: u32,
}

/// The window that is being filled.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Window {
    rows: u32,
    squares: f64,
    products: f64,
    previous: f64,
    alarm: Option<Reason>,
}

/// Rows of one and the same voltage.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Sensor {
    voltage: f64,
    rows: u32,
    lowest: f64,
    highest: f64,
}

/// What a step meant for the present window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// The window is not full.
    Open,
    /// It ended, and the filter has not diverged.
    Believed,
    /// It ended, and the filter has diverged.
    Diverged,
}

/// What a step showed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shown {
    pub(crate) time: f64,
    pub(crate) measured: f64,
    pub(crate) expected: f64,
    pub(crate) variance: f64,
}

impl Trust {
    /// Takes a step in.
    #[inline]
    pub(crate) fn take(
        &mut self,
        rules: &TrustRules,
        shown: &Shown,
        learnt: impl FnOnce() -> Learnt,
    ) -> Judgement {
        self.failures = 0;
        let deviation = shown.variance.sqrt();
        let z = (shown.measured - shown.expected) / deviation;
        let window = &mut self.window;
        window.squares += z * z;
        window.products += z * window.previous;
        window.previous = z;
        window.rows += 1;
        let alarm = if self.sensor.is_stuck(shown, deviation) {
            Some(Reason::VoltageStuck)
        } else if z.abs() > JUMP {
            Some(Reason::VoltageJump)
        } else {
            None
        };
        if alarm.is_some() {
            self.alarm(alarm, shown.time);
        }
        if self.window.rows < rules.window {
            return Judgement::Open;
        }
        self.close(rules, shown.time, &learnt())
    }

    /// Takes note of a step that failed; answers whether the filter has diverged thereby.
    pub(crate) fn take_failure(&mut self, time: f64) -> bool {
        self.failures += 1;
        if self.failures < FAILURES {
            return false;
        }
        self.failures = 0;
        self.window = Window::default();
        self.tell((TrustState::Diverged, Some(Reason::StepsFail)), time);
        true
    }

    /// Begins a new window, as after a new segment: what came before and what comes do not follow each other.
    pub(crate) fn interrupt(&mut self) {
        self.window.previous = 0.0;
        self.sensor = Sensor::default();
    }

    #[cold]
    fn alarm(&mut self, alarm: Option<Reason>, time: f64) {
        self.window.alarm = alarm;
        if self.state == TrustState::Healthy {
            self.tell((TrustState::Suspect, alarm), time);
        }
    }

    #[inline(never)]
    fn close(&mut self, rules: &TrustRules, time: f64, learnt: &Learnt) -> Judgement {
        let rows = f64::from(self.window.rows);
        let average = self.window.squares / rows;
        // Innovations that are all 0 have no correlation.
        let correlation = self.window.products / self.window.squares.max(f64::MIN_POSITIVE);
        let alarm = self.window.alarm;
        let previous = self.window.previous;
        self.window = Window {
            previous,
            ..Window::default()
        };
        self.nis_average = Some(average);
        self.autocorrelation = Some(correlation);
        let [low, high] = rules.band();
        let verdict = if let Some(reason) = implausible(rules, learnt) {
            (TrustState::Diverged, Some(reason))
        } else if average > DIVERGED_AVERAGE {
            (TrustState::Diverged, Some(Reason::InnovationsTooLarge))
        } else if alarm.is_some() {
            (TrustState::Suspect, alarm)
        } else if average > high {
            (TrustState::Suspect, Some(Reason::InnovationsTooLarge))
        } else if average < low {
            (TrustState::Suspect, Some(Reason::InnovationsTooSmall))
        } else if correlation.abs() > MOST_CORRELATION / rows.sqrt() {
            (TrustState::Suspect, Some(Reason::InnovationsCorrelated))
        } else {
            (TrustState::Healthy, None)
        };
        self.tell(verdict, time);
        if self.is_holding && average <= high && verdict.0 != TrustState::Diverged {
            self.is_holding = false;
        }
        if verdict.0 == TrustState::Diverged {
            Judgement::Diverged
        } else {
            Judgement::Believed
        }
    }

    fn tell(&mut self, (state, reason): (TrustState, Option<Reason>), time: f64) {
        if (state, reason) != (self.state, self.reason) {
            (self.state, self.reason) = (state, reason);
            self.since = Some(time);
        }
    }
}

fn implausible(rules: &TrustRules, learnt: &Learnt) -> Option<Reason> {
    let outside = |value: f64, [low, high]: [f64; 2]| !(low <= value && value <= high);
    if learnt
        .capacity
        .is_some_and(|ratio| outside(ratio, rules.capacity))
    {
        Some(Reason::CapacityImplausible)
    } else if learnt
        .resistance
        .is_some_and(|ratio| outside(ratio, rules.resistance))
    {
        Some(Reason::ResistanceImplausible)
    } else if outside(learnt.soc, rules.soc) {
        Some(Reason::SocImplausible)
    } else {
        None
    }
}

impl Sensor {
    #[inline]
    fn is_stuck(&mut self, shown: &Shown, deviation: f64) -> bool {
        if shown.measured.to_bits() != self.voltage.to_bits() || self.rows == 0 {
            self.voltage = shown.measured;
            self.rows = 1;
            (self.lowest, self.highest) = (shown.expected, shown.expected);
            return false;
        }
        self.rows = self.rows.saturating_add(1);
        self.lowest = self.lowest.min(shown.expected);
        self.highest = self.highest.max(shown.expected);
        self.rows >= STUCK_ROWS && self.highest - self.lowest > STUCK_RANGE * deviation
    }
}
