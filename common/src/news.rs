//! News of batteries and services on the bus, in JSON: states, events, heartbeats.
//!
//! The forms are described for others in `asyncapi.json` beside this file. A reader refuses an
//! unknown `v` and accepts unknown keys.

use std::{collections::BTreeMap, mem};

use litemap::LiteMap;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use crate::{
    name::{BatteryName, EstimatorName},
    registration::Champion,
};

/// The version of the news that this build writes.
pub const NEWS_VERSION: u32 = 1;
/// The description of all subjects and messages, an `AsyncAPI` document in JSON.
pub const ASYNC_API: &str = include_str!("asyncapi.json");

/// A number with its standard deviation, in the unit of its name; null where it is not finite.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Estimated {
    /// The mean.
    pub mean: Option<f64>,
    /// The standard deviation, where one is known.
    pub std: Option<f64>,
}

impl Estimated {
    /// Takes two numbers; what is not finite becomes null.
    pub fn new(mean: f64, std: f64) -> Self {
        let finite = |value: f64| value.is_finite().then_some(value);
        Self {
            mean: finite(mean),
            std: finite(std),
        }
    }
}

/// What one estimator of a battery says.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct EstimatorState {
    /// The revision of its registration.
    pub revision: i64,
    /// Raised whenever rows already estimated are estimated anew.
    pub generation: i64,
    /// The epoch of the last row dealt with; 0 before the first.
    pub epoch: i64,
    /// The last row dealt with; 0 before the first.
    pub seq: i64,
    /// `test_time` of the last row used, in seconds.
    pub test_time: Option<f64>,
    /// `starting`, `catching_up`, `live`, `paused` or `broken`.
    pub phase: String,
    /// States and what is derived from them, by name.
    #[serde(serialize_with = "as_map")]
    pub values: LiteMap<String, Estimated>,
    /// What keeps the estimator from its work.
    pub error: Option<String>,
    /// `healthy`, `suspect` or `diverged`; null where nobody watches over it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<String>,
}

/// The newest row of a battery and what its estimators say: `rovi.state.<battery>`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BatteryState {
    /// [`NEWS_VERSION`].
    pub v: u32,
    /// The battery.
    pub battery: BatteryName,
    /// The life of the battery's name.
    pub epoch: i64,
    /// The newest row; 0 before the first.
    pub seq: i64,
    /// The test within the battery's life.
    pub segment: i32,
    /// When the hub took the row, in microseconds since 1970.
    pub received: i64,
    /// The row's cells by column; null where a cell is null or no finite number.
    #[serde(serialize_with = "as_map")]
    pub row: LiteMap<String, Value>,
    /// Columns that were left out because the row is large.
    pub omitted: usize,
    /// The estimators by name.
    #[serde(serialize_with = "as_map")]
    pub estimators: LiteMap<EstimatorName, EstimatorState>,
    /// Which of them is the champion; `default` where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub champion: Option<Champion>,
    /// The instance of the twin that says so.
    pub by: String,
}

/// Writes a map as such, also where it is empty. States are kept of every battery, so their maps are
/// no larger than their entries.
fn as_map<K: Serialize, V: Serialize, S: Serializer>(
    map: &LiteMap<K, V>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(map.iter())
}

fn shrink<K: Ord, V>(map: &mut LiteMap<K, V>) {
    let mut entries = mem::replace(map, LiteMap::new()).into_tuple_vec();
    entries.shrink_to_fit();
    *map = LiteMap::from_sorted_store_unchecked(entries);
}

impl BatteryState {
    /// Returns a state that knows nothing yet.
    pub fn unknown(battery: BatteryName) -> Self {
        Self {
            v: NEWS_VERSION,
            battery,
            epoch: 0,
            seq: 0,
            segment: 0,
            received: 0,
            row: LiteMap::new(),
            omitted: 0,
            estimators: LiteMap::new(),
            champion: None,
            by: String::new(),
        }
    }

    /// Gives back room that its maps do not need.
    pub fn shrink(&mut self) {
        shrink(&mut self.row);
        for (_, estimator) in &mut self.estimators {
            shrink(&mut estimator.values);
        }
        shrink(&mut self.estimators);
    }

    /// Writes the state.
    pub fn encode(&self) -> Vec<u8> {
        to_json(self)
    }

    /// Reads a state.
    ///
    /// # Errors
    /// The bytes are no state of this version.
    pub fn decode(bytes: &[u8]) -> serde_json::Result<Self> {
        let state: Self = serde_json::from_slice(bytes)?;
        known_version(state.v).map(|()| state)
    }

    /// Returns the name of the estimator whose numbers count.
    pub fn champion(&self) -> EstimatorName {
        let champion = self.champion.as_ref();
        let named = champion.and_then(|champion| champion.estimator.clone());
        named.unwrap_or_default()
    }

    /// Returns a value of an estimator, such as `state_of_charge`.
    pub fn value(&self, estimator: &EstimatorName, name: &str) -> Option<Estimated> {
        self.estimators.get(estimator)?.values.get(name).copied()
    }

    /// Returns a cell of the newest row as a number.
    pub fn number(&self, column: &str) -> Option<f64> {
        self.row.get(column)?.as_f64()
    }
}

/// Something that happened to a battery: `rovi.event.<battery>`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Event {
    /// [`NEWS_VERSION`].
    pub v: u32,
    /// The same for an event that comes twice.
    pub id: String,
    /// The battery.
    #[schema(value_type = String)]
    pub battery: BatteryName,
    /// When it was noticed, in microseconds since 1970.
    pub at: i64,
    /// What happened.
    #[serde(flatten)]
    pub happening: Happening,
}

/// What an [`Event`] tells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Happening {
    /// An estimator is registered.
    EstimatorRegistered(EstimatorChange),
    /// An estimator is replaced by another of its name.
    EstimatorReplaced(EstimatorChange),
    /// An estimator is removed.
    EstimatorRemoved(EstimatorChange),
    /// An estimator became the champion of its battery.
    EstimatorPromoted(EstimatorChange),
    /// An estimator takes no rows for now.
    EstimatorPaused(EstimatorChange),
    /// An estimator goes on after a pause.
    EstimatorResumed(EstimatorChange),
    /// An estimator starts anew.
    EstimatorReset(EstimatorChange),
    /// A candidate was compared with the champion, or could not be.
    BacktestEnded(BacktestChange),
    /// An estimator cannot do its work.
    EstimatorFailed(EstimatorChange),
    /// An estimator does its work again.
    EstimatorRecovered(EstimatorChange),
    /// An alert begins.
    AlertRaised(AlertChange),
    /// An alert ends.
    AlertCleared(AlertChange),
}

/// An estimator and what is said of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct EstimatorChange {
    /// The estimator.
    #[schema(value_type = String)]
    pub estimator: EstimatorName,
    /// The revision of its registration.
    pub revision: i64,
    /// Why, where there is a reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A backtest and what is said of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct BacktestChange {
    /// Which.
    pub backtest: String,
    /// How it ended: `done`, `failed`, `cancelled` or `lost`.
    pub state: String,
    /// Why, where there is a reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// An alert and what is said of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AlertChange {
    /// The rule.
    pub rule: String,
    /// The revision of the rule.
    pub revision: i64,
    /// Counts the times that this rule was broken by this battery; raise and clear share it.
    pub episode: u64,
    /// How grave it is, as the rule says.
    pub severity: String,
    /// What was found, in words.
    pub detail: String,
    /// The value that was looked at, where it is a number.
    pub value: Option<f64>,
    /// The newest row at that moment.
    pub epoch: i64,
    /// The newest row at that moment.
    pub seq: i64,
}

impl Event {
    /// Writes the event.
    pub fn encode(&self) -> Vec<u8> {
        to_json(self)
    }

    /// Reads an event.
    ///
    /// # Errors
    /// The bytes are no event of this version.
    pub fn decode(bytes: &[u8]) -> serde_json::Result<Self> {
        let event: Self = serde_json::from_slice(bytes)?;
        known_version(event.v).map(|()| event)
    }
}

/// A sign of life of a service: `rovi.service.<service>.<instance>`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Heartbeat {
    /// [`NEWS_VERSION`].
    pub v: u32,
    /// `datahub` or `twin`.
    pub service: String,
    /// Which of them; another after each start.
    pub instance: String,
    /// Its version.
    pub version: String,
    /// When this was said, in microseconds since 1970.
    pub at: i64,
    /// How long the service runs, in seconds.
    pub uptime_s: u64,
    /// Seconds until the next heartbeat; a service silent for thrice as long is gone.
    pub interval_s: f64,
    /// `ready`, `waiting` or `stopping`.
    pub state: String,
    /// What keeps it from being ready, by part.
    pub problems: BTreeMap<String, String>,
    /// How far it is behind, by what: rows.
    pub lag: BTreeMap<String, i64>,
    /// What waits in its queues, by queue.
    pub queues: BTreeMap<String, i64>,
    /// What it did since its start, by what: two heartbeats tell how fast.
    #[serde(default)]
    pub totals: BTreeMap<String, i64>,
}

fn known_version(v: u32) -> serde_json::Result<()> {
    if v == NEWS_VERSION {
        return Ok(());
    }
    let message = format!("it has version {v}, this build reads {NEWS_VERSION}");
    Err(serde::de::Error::custom(message))
}

pub(crate) fn to_json(news: &impl Serialize) -> Vec<u8> {
    // Maps have text for keys and floats that are not finite become null: nothing can fail.
    serde_json::to_vec(news).expect("news hold only values that JSON has")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_is_none_is_null_and_not_text() {
        let text = serde_json::to_string(&Estimated::new(f64::NAN, f64::INFINITY)).unwrap();
        assert_eq!(text, r#"{"mean":null,"std":null}"#);
    }

    #[test]
    fn a_state_comes_back_as_it_was_and_another_version_is_refused() {
        let mut state = BatteryState::unknown("b7".parse().unwrap());
        state.row.insert("voltage".to_owned(), 3.5.into());
        assert_eq!(BatteryState::decode(&state.encode()).unwrap(), state);
        state.v = 9;
        let error = BatteryState::decode(&state.encode()).unwrap_err();
        assert!(error.to_string().contains("version 9"), "{error}");
    }

    #[test]
    fn an_event_says_what_happened_beside_its_battery() {
        let event = Event {
            v: NEWS_VERSION,
            id: "b7.default.3".to_owned(),
            battery: "b7".parse().unwrap(),
            at: 1,
            happening: Happening::EstimatorRemoved(EstimatorChange {
                estimator: EstimatorName::default(),
                revision: 3,
                reason: None,
            }),
        };
        let json: Value = serde_json::from_slice(&event.encode()).unwrap();
        assert_eq!(json["type"], "estimator_removed");
        assert_eq!(json["estimator"], "default");
        assert_eq!(Event::decode(&event.encode()).unwrap(), event);
    }
}
