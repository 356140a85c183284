//! Alert rules: what twin and hub say to each other, what the buckets
//! [`ALERT_RULES_BUCKET`](crate::subjects::ALERT_RULES_BUCKET) and
//! [`ALERTS_BUCKET`](crate::subjects::ALERTS_BUCKET) hold, in JSON.

use serde::{Deserialize, Serialize};
use url::Url;

use crate::{
    name::{BatteryName, EstimatorName},
    news::Happening,
};

/// When an alert is raised.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Condition {
    /// A value lies beyond a bound.
    Threshold {
        /// A value of the estimator, such as `state_of_health`, or a column of the newest row.
        value: String,
        /// The estimator whose value is meant; a column of the newest row if left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(value_type = Option<String>)]
        estimator: Option<EstimatorName>,
        /// Raised below this.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        below: Option<f64>,
        /// Raised above this.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        above: Option<f64>,
        /// How sure it must be that the value lies beyond, 0 to 1; a value without a standard
        /// deviation is sure.
        #[serde(default = "half")]
        probability: f64,
        /// How far the value must come back for the alert to end.
        #[serde(default)]
        hysteresis: f64,
    },
    /// A value changes faster than this, in either direction, in its unit a second.
    Rate {
        /// As in `threshold`.
        value: String,
        /// As in `threshold`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(value_type = Option<String>)]
        estimator: Option<EstimatorName>,
        /// The bound, per second between the times at which the hub took the rows.
        above_per_s: f64,
    },
    /// An estimator cannot do its work.
    Unhealthy {
        /// Which; the champion if left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(value_type = Option<String>)]
        estimator: Option<EstimatorName>,
    },
    /// No row came for this long.
    Stale {
        /// In seconds.
        after_s: f64,
    },
    /// Rows came again after a pause this long; ends with the next row that comes in time.
    Gap {
        /// In seconds.
        after_s: f64,
    },
}

fn half() -> f64 {
    0.5
}

/// What a rule says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RuleDefinition {
    /// The batteries it is for; all if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub batteries: Option<Vec<BatteryName>>,
    /// When an alert is raised.
    pub condition: Condition,
    /// How long the condition must hold, or not hold, before an alert begins or ends, in seconds.
    #[serde(default)]
    pub hold_s: f64,
    /// `info`, `warning` or `critical`.
    #[serde(default)]
    pub severity: Severity,
    /// Where begin and end are posted to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub webhook: Option<Url>,
}

/// How grave an alert is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// To be known.
    Info,
    /// To be looked at.
    #[default]
    Warning,
    /// To be acted on.
    Critical,
}

impl Severity {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

impl RuleDefinition {
    /// Checks what the form alone cannot tell.
    ///
    /// # Errors
    /// The field at fault, and what is wrong with it.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let time = |field, value: f64| {
            if value.is_finite() && value >= 0.0 {
                return Ok(());
            }
            Err((field, format!("is {value}, it must be a number of seconds")))
        };
        time("hold_s", self.hold_s)?;
        match &self.condition {
            Condition::Threshold {
                below,
                above,
                probability,
                hysteresis,
                ..
            } => {
                if below.is_some() == above.is_some() {
                    let wrong = "needs one of `below` and `above`".to_owned();
                    return Err(("condition", wrong));
                }
                if !(0.0..1.0).contains(probability) {
                    let wrong = format!("is {probability}, it must be 0 or more and below 1");
                    return Err(("condition.probability", wrong));
                }
                if !(hysteresis.is_finite() && *hysteresis >= 0.0) {
                    let wrong = format!("is {hysteresis}, it must be 0 or more");
                    return Err(("condition.hysteresis", wrong));
                }
                Ok(())
            }
            Condition::Rate { above_per_s, .. } => {
                if above_per_s.is_finite() && *above_per_s > 0.0 {
                    return Ok(());
                }
                let wrong = format!("is {above_per_s}, it must be above 0");
                Err(("condition.above_per_s", wrong))
            }
            Condition::Stale { after_s } | Condition::Gap { after_s } => {
                time("condition.after_s", *after_s)
            }
            Condition::Unhealthy { .. } => Ok(()),
        }
    }

    /// Whether the rule is for a battery.
    pub fn is_for(&self, battery: &BatteryName) -> bool {
        self.batteries
            .as_ref()
            .is_none_or(|batteries| batteries.contains(battery))
    }
}

/// A rule as the hub keeps it; a removed one stays as a tombstone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AlertRule {
    /// The name, formed as those of estimators are.
    pub rule: EstimatorName,
    /// Raised by every change of any rule and never used again.
    pub revision: i64,
    /// What it says; `None` in a tombstone.
    pub definition: Option<RuleDefinition>,
    /// When the hub committed it, in microseconds since 1970.
    pub changed: i64,
}

/// The request on [`PUT_ALERT_RULE`](crate::subjects::PUT_ALERT_RULE).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PutAlertRule {
    /// The name; a rule of it is replaced.
    pub rule: EstimatorName,
    /// What it says, already checked by the twin.
    pub definition: RuleDefinition,
}

/// The request on [`DELETE_ALERT_RULE`](crate::subjects::DELETE_ALERT_RULE).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeleteAlertRule {
    /// The rule to remove.
    pub rule: EstimatorName,
}

/// The hub's answer to both requests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum AlertRuleReply {
    /// The change is committed.
    Done(Box<AlertRule>),
    /// No such rule.
    NotFound,
    /// The request cannot be taken.
    Refused {
        /// Why.
        detail: String,
    },
    /// The database is away; asking again later may succeed.
    Unavailable {
        /// What the hub was told.
        detail: String,
    },
}

/// The newest time that a battery broke a rule, under `<rule>.<battery>`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Episode {
    /// The rule.
    #[schema(value_type = String)]
    pub rule: EstimatorName,
    /// The revision of the rule by which it began or ended.
    pub revision: i64,
    /// The battery.
    #[schema(value_type = String)]
    pub battery: BatteryName,
    /// Counts the times.
    pub episode: u64,
    /// How grave it is.
    pub severity: Severity,
    /// Whether it lasts.
    pub is_active: bool,
    /// When it began, in microseconds since 1970.
    pub raised: i64,
    /// When it ended, in microseconds since 1970.
    pub cleared: Option<i64>,
    /// What was found at the last change, in words.
    pub detail: String,
    /// The value at the last change, where it is a number.
    pub value: Option<f64>,
    /// The newest row at the last change.
    pub epoch: i64,
    /// The newest row at the last change.
    pub seq: i64,
    /// Whether the last change is among the events.
    pub is_told: bool,
}

impl Episode {
    /// Tells the last change.
    pub fn happening(&self) -> Happening {
        let change = crate::news::AlertChange {
            rule: self.rule.to_string(),
            revision: self.revision,
            episode: self.episode,
            severity: self.severity.as_str().to_owned(),
            detail: self.detail.clone(),
            value: self.value,
            epoch: self.epoch,
            seq: self.seq,
        };
        if self.is_active {
            Happening::AlertRaised(change)
        } else {
            Happening::AlertCleared(change)
        }
    }

    /// When the last change was, in microseconds since 1970.
    pub fn at(&self) -> i64 {
        self.cleared.unwrap_or(self.raised)
    }

    /// Names the last change: the same for whoever tells it.
    pub fn event_id(&self) -> String {
        let change = if self.is_active { "raised" } else { "cleared" };
        format!(
            "alert.{}.{}.{}.{change}",
            self.rule, self.battery, self.episode
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> RuleDefinition {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_rule_needs_one_bound_and_sound_numbers() {
        let sound = r#"{"condition": {"kind": "threshold", "value": "voltage", "below": 2.5}}"#;
        assert_eq!(read(sound).check(), Ok(()));
        for (text, field) in [
            (
                r#"{"condition": {"kind": "threshold", "value": "v"}}"#,
                "condition",
            ),
            (
                r#"{"condition": {"kind": "threshold", "value": "v", "below": 1, "probability": 1}}"#,
                "condition.probability",
            ),
            (
                r#"{"condition": {"kind": "stale", "after_s": -1}}"#,
                "condition.after_s",
            ),
            (
                r#"{"condition": {"kind": "unhealthy"}, "hold_s": -2}"#,
                "hold_s",
            ),
        ] {
            assert_eq!(read(text).check().unwrap_err().0, field, "{text}");
        }
    }

    #[test]
    fn an_unknown_key_is_refused() {
        let text = r#"{"condition": {"kind": "stale", "after_s": 1, "before": 2}}"#;
        let error = serde_json::from_str::<RuleDefinition>(text).unwrap_err();
        assert!(error.to_string().contains("before"), "{error}");
    }
}
