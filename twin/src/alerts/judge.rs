//! Whether a state breaks a rule.

use rovi_common::{
    alerts::Condition,
    name::EstimatorName,
    news::{BatteryState, Estimated},
};

/// What is said of one state.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Verdict {
    /// Whether the rule is broken; `None` keeps what was said before.
    pub(super) is_broken: Option<bool>,
    /// What was found, in words.
    pub(super) detail: String,
    /// The value, where it is a number.
    pub(super) value: Option<f64>,
}

/// Judges a state beside the one before; `now` is in microseconds since 1970.
pub(super) fn judge(
    condition: &Condition,
    state: &BatteryState,
    before: Option<&BatteryState>,
    now: i64,
) -> Option<Verdict> {
    match condition {
        Condition::Threshold {
            value,
            estimator,
            below,
            above,
            probability,
            hysteresis,
        } => {
            let found = read(state, estimator.as_ref(), value)?;
            let bound = Bound {
                below: *below,
                above: *above,
                probability: *probability,
                hysteresis: *hysteresis,
            };
            bound.judge(value, found)
        }
        Condition::Rate {
            value,
            estimator,
            above_per_s,
        } => {
            let values = [before?, state].map(|state| read(state, estimator.as_ref(), value));
            rate(value, values, seconds_between(before?, state), *above_per_s)
        }
        Condition::Unhealthy { estimator } => {
            let found = state.estimators.get(estimator)?;
            Some(Verdict {
                is_broken: Some(found.error.is_some()),
                detail: match &found.error {
                    Some(error) => format!("estimator {estimator}: {error}"),
                    None => format!("estimator {estimator} does its work"),
                },
                value: None,
            })
        }
        Condition::Stale { after_s } => {
            let silent = micros_to_s(now.saturating_sub(state.received));
            Some(Verdict {
                is_broken: Some(silent > *after_s),
                detail: format!("the newest row came {silent:.1} s ago"),
                value: Some(silent),
            })
        }
        Condition::Gap { after_s } => {
            let pause = seconds_between(before?, state);
            Some(Verdict {
                is_broken: Some(pause > *after_s),
                detail: format!("rows paused for {pause:.1} s"),
                value: Some(pause),
            })
        }
    }
}

/// Compares a value at two rows.
fn rate(
    name: &str,
    [then, now]: [Option<Estimated>; 2],
    seconds: f64,
    bound: f64,
) -> Option<Verdict> {
    let rate = (now?.mean? - then?.mean?).abs() / seconds;
    (seconds > 0.0).then(|| Verdict {
        is_broken: Some(rate > bound),
        detail: format!("{name} changes by {rate:.6} per second"),
        value: Some(rate),
    })
}

struct Bound {
    below: Option<f64>,
    above: Option<f64>,
    probability: f64,
    hysteresis: f64,
}

impl Bound {
    fn judge(&self, name: &str, found: Estimated) -> Option<Verdict> {
        let mean = found.mean?;
        // How far the mean lies beyond the bound.
        let (beyond, word, bound) = match (self.below, self.above) {
            (Some(below), _) => (below - mean, "below", below),
            (None, Some(above)) => (mean - above, "above", above),
            (None, None) => return None,
        };
        let probability = match found.std {
            Some(std) if std > 0.0 => {
                0.5 * libm::erfc(-beyond / std * std::f64::consts::FRAC_1_SQRT_2)
            }
            _ => f64::from(u8::from(beyond > 0.0)),
        };
        let is_surely_beyond = beyond > 0.0 || self.probability < 0.5;
        let is_broken = if probability >= self.probability && is_surely_beyond && probability > 0.0
        {
            Some(true)
        } else if beyond <= -self.hysteresis {
            Some(false)
        } else {
            None
        };
        let std = found
            .std
            .map_or_else(String::new, |std| format!(" ± {std:.6}"));
        Some(Verdict {
            is_broken,
            detail: format!("{name} is {mean:.6}{std}, {word} {bound} by {probability:.3}"),
            value: Some(mean),
        })
    }
}

fn read(state: &BatteryState, estimator: Option<&EstimatorName>, value: &str) -> Option<Estimated> {
    match estimator {
        Some(estimator) => state.value(estimator, value),
        // A name of an estimate means the champion's, unless a column has it.
        None => match state.number(value) {
            Some(number) => Some(Estimated::new(number, f64::NAN)),
            None => state.value(&state.champion(), value),
        },
    }
}

fn seconds_between(before: &BatteryState, state: &BatteryState) -> f64 {
    micros_to_s(state.received.saturating_sub(before.received))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "microseconds since 1970 are below 2^53"
)]
fn micros_to_s(micros: i64) -> f64 {
    micros as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use rovi_common::news::EstimatorState;

    use super::*;

    fn state(voltage: f64, received_s: i64) -> BatteryState {
        let mut state = BatteryState::unknown("b7".parse().unwrap());
        state.row.insert("voltage".to_owned(), voltage.into());
        state.received = received_s * 1_000_000;
        state
    }

    fn health(mean: f64, std: f64) -> BatteryState {
        let mut state = state(3.7, 0);
        let values = [("state_of_health".to_owned(), Estimated::new(mean, std))];
        let estimator = EstimatorState {
            values: values.into(),
            ..EstimatorState::default()
        };
        state.estimators.insert(EstimatorName::default(), estimator);
        state
    }

    fn condition(text: &str) -> Condition {
        serde_json::from_str(text).unwrap()
    }

    fn is_broken(condition: &Condition, state: &BatteryState) -> Option<bool> {
        judge(condition, state, None, 0).and_then(|verdict| verdict.is_broken)
    }

    #[test]
    fn a_threshold_waits_until_it_is_sure() {
        let sure = condition(
            r#"{"kind": "threshold", "value": "state_of_health", "below": 0.8, "probability": 0.95}"#,
        );
        assert_eq!(is_broken(&sure, &health(0.79, 0.02)), None);
        assert_eq!(is_broken(&sure, &health(0.79, 0.005)), Some(true));
        assert_eq!(is_broken(&sure, &health(0.81, 0.05)), Some(false));
        assert_eq!(is_broken(&sure, &state(3.7, 0)), None);
    }

    #[test]
    fn a_value_must_come_back_by_the_hysteresis() {
        let low = condition(
            r#"{"kind": "threshold", "value": "voltage", "below": 3.0, "hysteresis": 0.2}"#,
        );
        assert_eq!(is_broken(&low, &state(2.9, 0)), Some(true));
        assert_eq!(is_broken(&low, &state(3.1, 0)), None);
        assert_eq!(is_broken(&low, &state(3.3, 0)), Some(false));
    }

    #[test]
    fn rates_and_gaps_compare_two_rows() {
        let rate = condition(r#"{"kind": "rate", "value": "voltage", "above_per_s": 0.1}"#);
        let gap = condition(r#"{"kind": "gap", "after_s": 5}"#);
        let (before, after) = (state(3.0, 0), state(4.0, 2));
        let verdict = |condition| judge(condition, &after, Some(&before), 0).unwrap();
        assert_eq!(verdict(&rate).value, Some(0.5));
        assert_eq!(verdict(&rate).is_broken, Some(true));
        assert_eq!(verdict(&gap).is_broken, Some(false));
        assert_eq!(judge(&rate, &after, None, 0), None);
    }

    #[test]
    fn silence_is_counted_from_the_newest_row() {
        let stale = condition(r#"{"kind": "stale", "after_s": 5}"#);
        let at = |now_s: i64| judge(&stale, &state(3.0, 100), None, now_s * 1_000_000).unwrap();
        assert_eq!(at(104).is_broken, Some(false));
        assert_eq!(at(106).is_broken, Some(true));
    }
}
