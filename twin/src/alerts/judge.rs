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
            let states = [before?, state];
            if !is_one_course(states, estimator.as_ref(), value) {
                return None;
            }
            let values = states.map(|state| read(state, estimator.as_ref(), value));
            rate(value, values, seconds_between(before?, state), *above_per_s)
        }
        Condition::Unhealthy { estimator } => {
            let estimator = estimator.clone().unwrap_or_else(|| state.champion());
            let found = state.estimators.get(&estimator)?;
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
            detail: format!(
                "{name} is {mean:.6}{std}, {word} {bound} with probability {probability:.3}"
            ),
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

/// Whether a value at two rows is of one course: cells of rows are, and what one estimator said of
/// both as they came. A promotion or a recomputation is no change of the battery.
fn is_one_course(
    states: [&BatteryState; 2],
    estimator: Option<&EstimatorName>,
    value: &str,
) -> bool {
    let is_cell = |state: &BatteryState| estimator.is_none() && state.number(value).is_some();
    if states.into_iter().all(is_cell) {
        return true;
    }
    let course = |state: &BatteryState| {
        let name = estimator.cloned().unwrap_or_else(|| state.champion());
        let said = state.estimators.get(&name);
        let said = said.filter(|said| said.phase == "live" && !is_cell(state))?;
        Some((name, said.revision, said.generation))
    };
    let [before, now] = states.map(course);
    before.is_some() && before == now
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
    use rovi_common::{news::EstimatorState, registration::Champion};

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
            values: values.into_iter().collect(),
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
    fn a_promotion_or_a_recomputation_is_no_change_of_the_battery() {
        let rate =
            condition(r#"{"kind": "rate", "value": "state_of_health", "above_per_s": 0.01}"#);
        let second: EstimatorName = "second".parse().unwrap();
        let at = |received_s: i64, health: f64, generation: i64, phase: &str| {
            let mut state = self::health(health, 0.01);
            state.received = received_s * 1_000_000;
            let other = state.estimators[&EstimatorName::default()].clone();
            state.estimators.insert(second.clone(), other);
            for (_, said) in &mut state.estimators {
                (said.generation, said.phase) = (generation, phase.to_owned());
            }
            state
        };
        let broken = |before: &BatteryState, after: &BatteryState| {
            judge(&rate, after, Some(before), 0).and_then(|verdict| verdict.is_broken)
        };
        let before = at(0, 0.9, 1, "live");
        assert_eq!(broken(&before, &at(1, 0.8, 1, "live")), Some(true));
        assert_eq!(broken(&before, &at(1, 0.8, 2, "live")), None);
        assert_eq!(
            broken(&at(0, 0.9, 2, "catching_up"), &at(1, 0.8, 2, "live")),
            None
        );
        let mut promoted = at(1, 0.8, 1, "live");
        promoted.champion = Some(Champion {
            era: 5,
            estimator: Some(second.clone()),
            epoch: 1,
            from_seq: 2,
        });
        assert_eq!(broken(&before, &promoted), None);
    }

    #[test]
    fn an_unhealthy_estimator_is_the_champion_unless_it_is_named() {
        let mut state = health(0.9, 0.01);
        let second: EstimatorName = "second".parse().unwrap();
        let failing = EstimatorState {
            error: Some("it failed".to_owned()),
            ..EstimatorState::default()
        };
        state.estimators.insert(second.clone(), failing);
        let any = condition(r#"{"kind": "unhealthy"}"#);
        let named = condition(r#"{"kind": "unhealthy", "estimator": "second"}"#);
        assert_eq!(is_broken(&any, &state), Some(false));
        assert_eq!(is_broken(&named, &state), Some(true));
        state.champion = Some(Champion {
            era: 5,
            estimator: Some(second),
            epoch: 1,
            from_seq: 2,
        });
        assert_eq!(is_broken(&any, &state), Some(true));
    }

    #[test]
    fn silence_is_counted_from_the_newest_row() {
        let stale = condition(r#"{"kind": "stale", "after_s": 5}"#);
        let at = |now_s: i64| judge(&stale, &state(3.0, 100), None, now_s * 1_000_000).unwrap();
        assert_eq!(at(104).is_broken, Some(false));
        assert_eq!(at(106).is_broken, Some(true));
    }
}
