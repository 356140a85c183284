//! How a state looks to watchers: `{"battery:<name>:data": {"timestamp": …, "voltage": …}}`.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use bytestring::ByteString;
use rovi_common::{clock, name::BatteryName, news::BatteryState};
use serde_json::{Map, Value, json};

use super::board::Version;

/// Always there, null where nothing is known.
const BASIC: [&str; 3] = ["voltage", "current", "temperature"];
/// What the champion says, with `__std` for its standard deviation.
const ESTIMATED: [&str; 2] = ["state_of_charge", "state_of_health"];
/// Names that are ours; a column of such a name is shown as `<name>_`.
const OURS: [&str; 16] = [
    "timestamp",
    "estimator_phase",
    "estimator_error",
    "estimator_trust",
    "epoch",
    "seq",
    "segment",
    "estimates",
    "champion",
    "omitted",
    "ws_timestamp",
    "latency_ms",
    "state_of_charge",
    "state_of_health",
    "state_of_charge__std",
    "state_of_health__std",
];
/// A written message serves others as long as its latency is right to so many milliseconds.
const FRESH_MS: i64 = 2;

/// The fields that a watcher asked for; none means all. `timestamp` always comes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Fields(BTreeSet<String>);

impl Fields {
    /// Takes the names of fields.
    pub(super) fn new(names: impl IntoIterator<Item = String>) -> Self {
        Self(names.into_iter().collect())
    }

    fn has(&self, name: &str) -> bool {
        self.0.is_empty() || self.0.contains(name)
    }
}

/// What was written of a state, by choice of fields.
#[derive(Debug, Default)]
pub(super) struct Shapes(Mutex<Vec<Shape>>);

#[derive(Debug)]
struct Shape {
    fields: Arc<Fields>,
    body: Arc<str>,
    /// The last message with a latency, and when it was written, in milliseconds since 1970.
    message: Option<(i64, ByteString)>,
}

impl Version {
    /// Writes `"battery:<name>:data":{…`, without the last brace, once for each choice of fields.
    fn with_shape<T>(&self, fields: &Arc<Fields>, then: impl FnOnce(&mut Shape) -> T) -> T {
        let mut shapes = self.shapes.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = shapes
            .iter()
            .position(|known| Arc::ptr_eq(&known.fields, fields) || known.fields == *fields);
        let at = found.unwrap_or_else(|| {
            shapes.push(Shape {
                fields: Arc::clone(fields),
                body: body(&self.state, fields).into(),
                message: None,
            });
            shapes.len() - 1
        });
        #[expect(clippy::indexing_slicing, reason = "`at` was found or appended above")]
        then(&mut shapes[at])
    }

    /// Returns the entry of this battery in a snapshot.
    pub(super) fn entry(&self, fields: &Arc<Fields>) -> Arc<str> {
        self.with_shape(fields, |shape| Arc::clone(&shape.body))
    }

    /// Returns the message that tells of this state, with the time from hub to here; those who ask
    /// within moments share its bytes.
    pub(super) fn message(&self, fields: &Arc<Fields>) -> ByteString {
        let now = clock::now_us() / 1000;
        let timestamp = self.state.received / 1000;
        self.with_shape(fields, |shape| match &shape.message {
            Some((written, message)) if (0..=FRESH_MS).contains(&(now - written)) => {
                message.clone()
            }
            _ => {
                // A hub whose clock is ahead of ours makes no negative latency.
                let latency = (now - timestamp).max(0);
                let text = format!(
                    "{{{},\"ws_timestamp\":{now},\"latency_ms\":{latency}}}}}",
                    shape.body
                );
                let message = ByteString::from(text);
                shape.message = Some((now, message.clone()));
                message
            }
        })
    }
}

/// Tells that a battery is no more.
pub(super) fn gone(battery: &BatteryName) -> ByteString {
    format!("{{\"battery:{battery}:data\":null}}").into()
}

/// A message that is no state: `{"notice": {"type": …}}`.
pub(super) fn notice(kind: &str, mut detail: Value) -> ByteString {
    if let Some(detail) = detail.as_object_mut() {
        detail.insert("type".to_owned(), kind.into());
    }
    json!({ "notice": detail }).to_string().into()
}

/// Writes snapshots of at most about `most_bytes` each; the first always, however empty.
pub(super) fn snapshots(
    present: &[Arc<Version>],
    fields: &Arc<Fields>,
    most_bytes: usize,
) -> Vec<ByteString> {
    let mut snapshots = Vec::new();
    let mut text = String::from("{");
    for version in present {
        let entry = version.entry(fields);
        if text.len() > 1 {
            if text.len() + entry.len() + 3 > most_bytes {
                text.push('}');
                snapshots.push(text.into());
                text = String::from("{");
            } else {
                text.push(',');
            }
        }
        text.push_str(&entry);
        text.push('}');
    }
    text.push('}');
    snapshots.push(text.into());
    snapshots
}

fn body(state: &BatteryState, fields: &Fields) -> String {
    let mut body = format!(
        "\"battery:{}:data\":{{\"timestamp\":{}",
        state.battery,
        state.received / 1000
    );
    for (name, value) in shape(state) {
        if fields.has(&name) {
            body.push(',');
            // Text of JSON, quoted as such.
            body.push_str(&Value::String(name).to_string());
            body.push(':');
            body.push_str(&value.to_string());
        }
    }
    body
}

/// Lays a state out flat, `timestamp` apart.
pub(crate) fn shape(state: &BatteryState) -> Map<String, Value> {
    let mut shape = Map::new();
    for (name, value) in &state.row {
        let name = if OURS.contains(&name.as_str()) {
            format!("{name}_")
        } else {
            name.clone()
        };
        shape.insert(name, value.clone());
    }
    for name in BASIC {
        shape.entry(name).or_insert(Value::Null);
    }
    let champion = state.champion();
    for name in ESTIMATED {
        let value = state.value(&champion, name).unwrap_or_default();
        shape.insert(name.to_owned(), value.mean.into());
        shape.insert(format!("{name}__std"), value.std.into());
    }
    for (name, value) in [("epoch", state.epoch), ("seq", state.seq)] {
        shape.insert(name.to_owned(), value.into());
    }
    shape.insert("segment".to_owned(), state.segment.into());
    if state.omitted > 0 {
        shape.insert("omitted".to_owned(), state.omitted.into());
    }
    // For lists, which have no room for all that the estimators say.
    let worst = (state.estimators.values()).max_by_key(|one| gravity(&one.phase));
    let phase = worst.map(|one| one.phase.clone());
    let error = state.estimators.values().find_map(|one| one.error.clone());
    shape.insert("estimator_phase".to_owned(), phase.into());
    shape.insert("estimator_error".to_owned(), error.into());
    let trust = state.estimators.get(&champion);
    let trust = trust.and_then(|one| one.trust.clone());
    shape.insert("estimator_trust".to_owned(), trust.into());
    let estimates = state.estimators.iter();
    let estimates: Map<String, Value> = estimates
        .map(|(name, one)| {
            (
                name.to_string(),
                serde_json::to_value(one).unwrap_or_default(),
            )
        })
        .collect();
    shape.insert("estimates".to_owned(), estimates.into());
    shape.insert("champion".to_owned(), champion.as_str().into());
    shape
}

/// How much a phase asks for somebody's eye.
fn gravity(phase: &str) -> u8 {
    match phase {
        "live" => 0,
        "catching_up" => 1,
        "starting" => 2,
        _ => 3,
    }
}

#[cfg(test)]
mod tests {
    use rovi_common::{
        name::EstimatorName,
        news::{Estimated, EstimatorState},
    };

    use super::*;
    use crate::live::board::Place;

    fn version() -> Version {
        let mut state = BatteryState::unknown("b7".parse().unwrap());
        state.received = 1_700_000_000_123_456;
        state.row.insert("voltage".to_owned(), 3.5.into());
        state.row.insert("seq".to_owned(), "mine".into());
        let charge = Estimated::new(0.5, f64::NAN);
        let values = [("state_of_charge".to_owned(), charge)]
            .into_iter()
            .collect();
        let default = EstimatorState {
            values,
            ..EstimatorState::default()
        };
        state.estimators.insert(EstimatorName::default(), default);
        Version {
            state,
            place: Place {
                life: 1,
                sequence: 1,
            },
            shapes: Shapes::default(),
        }
    }

    fn parse(text: &str) -> Value {
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    #[test]
    fn a_message_has_the_six_fields_and_null_for_what_is_not_known() {
        let message = parse(&version().message(&Arc::default()));
        let data = &message["battery:b7:data"];
        assert_eq!(data["timestamp"], 1_700_000_000_123_i64);
        assert_eq!(data["voltage"], 3.5);
        assert_eq!(data["state_of_charge"], 0.5);
        for name in [
            "current",
            "temperature",
            "state_of_health",
            "state_of_charge__std",
        ] {
            assert!(data.get(name).is_some_and(Value::is_null), "{name}: {data}");
        }
        assert_eq!((&data["seq"], &data["seq_"]), (&0.into(), &"mine".into()));
        assert!(data["latency_ms"].as_i64() >= Some(0));
    }

    #[test]
    fn a_clock_that_is_ahead_makes_no_negative_latency() {
        let mut version = version();
        version.state.received = i64::MAX;
        let message = parse(&version.message(&Arc::default()));
        assert_eq!(message["battery:b7:data"]["latency_ms"], 0);
    }

    #[test]
    fn the_gravest_phase_stands_for_all_estimators_and_its_error_is_told() {
        let mut version = version();
        let state = |phase: &str, error: Option<&str>| EstimatorState {
            phase: phase.to_owned(),
            error: error.map(str::to_owned),
            trust: (phase == "live").then(|| "suspect".to_owned()),
            ..EstimatorState::default()
        };
        let estimators = &mut version.state.estimators;
        estimators.insert("a".parse().unwrap(), state("broken", Some("no such file")));
        estimators.insert("default".parse().unwrap(), state("live", None));
        let message = parse(&version.message(&Arc::default()));
        let data = &message["battery:b7:data"];
        assert_eq!(data["estimator_phase"], "broken");
        assert_eq!(data["estimator_error"], "no such file");
        assert_eq!(data["estimator_trust"], "suspect", "that of the champion");
    }

    #[test]
    fn only_the_fields_asked_for_come_and_a_snapshot_has_no_latency() {
        let fields = Arc::new(Fields::new(["voltage".to_owned()]));
        let present = [Arc::new(version())];
        let snapshots = snapshots(&present, &fields, 1000);
        let expected =
            json!({"battery:b7:data": {"timestamp": 1_700_000_000_123_i64, "voltage": 3.5}});
        assert_eq!(snapshots.len(), 1);
        assert_eq!(parse(&snapshots[0]), expected);
    }

    #[test]
    fn a_large_snapshot_comes_in_parts_and_an_empty_one_is_an_empty_object() {
        let present: Vec<_> = (0..3).map(|_| Arc::new(version())).collect();
        let parts = snapshots(&present, &Arc::default(), 10);
        assert_eq!(parts.len(), 3);
        assert!(parts.iter().all(|part| parse(part).is_object()));
        assert_eq!(snapshots(&[], &Arc::default(), 10), ["{}"]);
    }

    #[test]
    fn those_who_ask_at_once_share_the_bytes() {
        let (version, fields) = (version(), Arc::default());
        let messages: Vec<_> = (0..20).map(|_| version.message(&fields)).collect();
        let shared = messages.windows(2);
        let shared = shared.filter(|pair| pair[0].as_ptr() == pair[1].as_ptr());
        assert!(shared.count() >= 1);
    }
}
