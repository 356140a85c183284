//! Self-discharge: what state of charge loses at rest beyond what flowed.

use serde::{Deserialize, Serialize};

use super::{Charge, Figure, SECONDS_PER_HOUR};
use crate::model::Interval;

/// Rest is a current below the one that would fill the battery in so many hours.
pub(super) const LITTLE: f64 = 1000.0;
/// Relaxation that must be over before the rest counts, s.
const RELAXATION: f64 = SECONDS_PER_HOUR;
/// The least rest after it that tells something, s.
const LEAST: f64 = 6.0 * SECONDS_PER_HOUR;
const MONTH: f64 = 30.0 * 24.0 * SECONDS_PER_HOUR;

/// A rest, and what the last long one told.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Rest {
    begun: Option<f64>,
    /// Time, state of charge and its variance once relaxed.
    relaxed: Option<[f64; 3]>,
    /// Share of the capacity that flowed since.
    moved: f64,
    pub(super) loss: Option<Figure>,
}

impl Rest {
    pub(super) fn take(&mut self, interval: &Interval, time: f64, charge: &Charge) {
        let begun = *self.begun.get_or_insert(time - interval.duration);
        let Some([start, soc, variance]) = self.relaxed else {
            if time - begun >= RELAXATION {
                self.relaxed = Some([time, charge.soc, charge.variance]);
            }
            return;
        };
        self.moved += interval.charge / (SECONDS_PER_HOUR * charge.capacity_ah);
        let duration = time - start;
        if duration >= LEAST {
            let lost = soc + self.moved - charge.soc;
            // What leaks turns the hysteresis, too, which without a current the filter takes for charge.
            let (reach, rate) = charge.hysteresis_reach;
            let turned = reach * (1.0 - libm::exp(-rate * lost.abs()));
            // The two beliefs are correlated; taken as independent, the deviation is an upper bound.
            let deviation = (variance + charge.variance + turned * turned).sqrt();
            self.loss = deviation.is_finite().then(|| Figure {
                value: lost / duration * MONTH,
                deviation: Some(deviation / duration * MONTH),
            });
        }
    }

    pub(super) fn end(&mut self) {
        if self.begun.is_some() {
            (self.begun, self.relaxed, self.moved) = (None, None, 0.0);
        }
    }
}
