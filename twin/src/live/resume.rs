//! The rows that a watcher missed, with their estimates, from the streams.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_nats::jetstream::{
    consumer::{AckPolicy, DeliverPolicy, pull},
    stream::{DirectGetErrorKind, Stream},
};
use futures_util::StreamExt;
use litemap::LiteMap;
use rovi_common::{
    frame::{EstimateFrame, RowFrame, deviation_column, estimate_column},
    name::{BatteryName, EstimatorName},
    news::{BatteryState, Estimated, EstimatorState},
    registration::Registration,
    rows::Columns,
    subjects,
};
use rovi_estimation::{Document, TrustState};

use super::board::{Place, Version};
use crate::{
    estimates::trust_number,
    filter::Position,
    fleet::{Fleet, Shared},
    state::newest,
    subscribe::{announced_rows, decode, open_stream},
};

/// Frames asked for at once.
const FRAMES_PER_PULL: usize = 16;
/// How long the bus may take for the next frame.
const PATIENCE: Duration = Duration::from_secs(5);

/// Reads rows between a position and a state.
pub(super) struct Missed {
    battery: BatteryName,
    next: Position,
    until: i64,
    rows: pull::Stream,
    estimates: Estimates,
}

impl Missed {
    /// Looks for the rows after `since` and before the state's own.
    ///
    /// # Errors
    /// Why they cannot be had, in words for the watcher.
    pub(super) async fn open(
        fleet: &Fleet,
        newest: &BatteryState,
        since: Position,
    ) -> Result<Self, String> {
        let shared = fleet.shared();
        if since.epoch != newest.epoch || since.seq > newest.seq {
            return Err("the battery's rows began anew".to_owned());
        }
        let (count, most) = (newest.seq - since.seq, shared.settings.live.replay_rows);
        if count > i64::try_from(most).unwrap_or(i64::MAX) {
            return Err(format!(
                "{count} rows were missed, at most {most} are sent again"
            ));
        }
        // The stream keeps them as they were.
        let corrections = fleet.find(&newest.battery).map(|known| known.corrections());
        if corrections.is_some_and(|told| told.touch(since.epoch, since.seq + 1, newest.seq)) {
            return Err("some of these rows were corrected or deleted since".to_owned());
        }
        let stream = open_stream(shared).await?;
        let first = first_behind(&stream, &newest.battery, since).await?;
        let Some((sequence, time)) = first else {
            return Err("the bus holds these rows no longer".to_owned());
        };
        let filter = subjects::stored_rows_of(&newest.battery);
        let policy = DeliverPolicy::ByStartSequence {
            start_sequence: sequence,
        };
        let rows = read(&stream, filter, policy).await?.0;
        // A row's estimates come after the row.
        let policy = DeliverPolicy::ByStartTime { start_time: time };
        Ok(Self {
            battery: newest.battery.clone(),
            next: Position {
                seq: since.seq + 1,
                ..since
            },
            until: newest.seq,
            rows,
            estimates: Estimates::open(fleet, newest, policy).await?,
        })
    }

    /// Returns the next rows, with the estimates that hold after each; none at the end.
    ///
    /// # Errors
    /// Why the rows cannot be had, in words for the watcher.
    pub(super) async fn next(&mut self) -> Result<Vec<Version>, String> {
        while self.next.seq < self.until {
            let message = tokio::time::timeout(PATIENCE, self.rows.next()).await;
            let Ok(Some(Ok(message))) = message else {
                return Err("the bus does not hand out the rows".to_owned());
            };
            let frame = decode(&self.battery, &message.payload)?;
            if frame.epoch != self.next.epoch || frame.first_seq > self.next.seq {
                return Err("the bus holds these rows no longer".to_owned());
            }
            if frame.last_seq() < self.next.seq {
                continue;
            }
            self.estimates.read_up_to(frame.last_seq()).await?;
            let rows = self.rows_of(&frame);
            if !rows.is_empty() {
                return Ok(rows);
            }
        }
        Ok(Vec::new())
    }

    fn rows_of(&mut self, frame: &RowFrame) -> Vec<Version> {
        let mut versions = Vec::new();
        for (row, (seq, &received)) in (frame.first_seq..).zip(&frame.received).enumerate() {
            if seq != self.next.seq || seq >= self.until {
                continue;
            }
            self.next.seq += 1;
            let mut state = BatteryState::unknown(self.battery.clone());
            (state.epoch, state.seq) = (frame.epoch, seq);
            (state.segment, state.received) = (frame.segment, received);
            (state.row, state.omitted) = newest::row(frame, row);
            state.estimators = self.estimates.after(seq);
            let place = Place {
                life: 0,
                sequence: 0,
            };
            versions.push(Version {
                state,
                place,
                shapes: super::shape::Shapes::default(),
            });
        }
        versions
    }
}

/// Finds the first frame with rows behind a position: its sequence, and when it was stored.
///
/// Frames of a battery stand in the order of their rows, so halving finds it.
async fn first_behind(
    stream: &Stream,
    battery: &BatteryName,
    since: Position,
) -> Result<Option<(u64, time::OffsetDateTime)>, String> {
    let text = |error: &dyn std::error::Error| format!("the bus does not tell: {error}");
    let info = stream.get_info().await.map_err(|error| text(&error))?;
    let (mut low, mut high) = (info.state.first_sequence, info.state.last_sequence + 1);
    let mut found = None;
    while low < high {
        let middle = low + (high - low) / 2;
        let subject = subjects::stored_rows_of(battery);
        let message = stream.direct_get_next_for_subject(subject, Some(middle));
        match message.await {
            Ok(message) => {
                let rows = announced_rows(Some(&message.headers));
                let (epoch, _, last) = rows.ok_or("a frame does not say which rows it holds")?;
                if (epoch, last) > (since.epoch, since.seq) {
                    found = Some((message.sequence, message.time));
                    high = middle;
                } else {
                    low = message.sequence + 1;
                }
            }
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => high = middle,
            Err(error) => return Err(text(&error)),
        }
    }
    Ok(found)
}

/// Opens a reader, and tells how many messages wait for it.
async fn read(
    stream: &Stream,
    filter_subject: String,
    deliver_policy: DeliverPolicy,
) -> Result<(pull::Stream, u64), String> {
    let text = |error: &dyn std::error::Error| format!("the bus cannot be read: {error}");
    let config = pull::Config {
        filter_subject,
        deliver_policy,
        ack_policy: AckPolicy::None,
        inactive_threshold: Duration::from_secs(30),
        memory_storage: true,
        num_replicas: 1,
        ..pull::Config::default()
    };
    let consumer = stream.create_consumer(config).await;
    let consumer = consumer.map_err(|error| text(&error))?;
    let pending = consumer.cached_info().num_pending;
    let messages = consumer.stream().max_messages_per_batch(FRAMES_PER_PULL);
    let messages = messages.messages().await.map_err(|error| text(&error))?;
    Ok((messages, pending))
}

/// Estimates of all estimators of a battery, read along with its rows.
struct Estimates {
    names: BTreeMap<EstimatorName, Names>,
    messages: Option<pull::Stream>,
    pending: u64,
    read: BTreeMap<i64, Vec<(EstimatorName, EstimatorState)>>,
    newest: LiteMap<EstimatorName, EstimatorState>,
    /// Revision and generation of what holds now: what was said before of a row may be replaced by
    /// estimates that come much later.
    in_force: BTreeMap<EstimatorName, (i64, i64)>,
    read_to: i64,
}

impl Estimates {
    async fn open(
        fleet: &Fleet,
        state: &BatteryState,
        policy: DeliverPolicy,
    ) -> Result<Self, String> {
        let (shared, battery): (&Shared, _) = (fleet.shared(), &state.battery);
        let in_force = state.estimators.iter();
        let in_force = in_force.map(|(name, one)| (name.clone(), (one.revision, one.generation)));
        let known = fleet.find(battery).map(|known| known.registrations());
        let known = known.unwrap_or_default().into_iter();
        let names = known.map(|(name, registration)| (name, Names::of(&registration)));
        let stream = shared
            .jetstream
            .get_stream(subjects::ESTIMATES_STREAM)
            .await;
        let (messages, pending) = match stream {
            Ok(stream) => {
                let read = read(&stream, subjects::all_estimates_of(battery), policy).await?;
                (Some(read.0), read.1)
            }
            // Nothing was ever estimated.
            Err(_missing) => (None, 0),
        };
        Ok(Self {
            names: names.collect(),
            messages,
            pending,
            read: BTreeMap::new(),
            newest: LiteMap::new(),
            in_force: in_force.collect(),
            read_to: 0,
        })
    }

    /// Reads on until estimates of a row were seen or nothing is left.
    async fn read_up_to(&mut self, seq: i64) -> Result<(), String> {
        while self.read_to < seq && self.pending > 0 {
            let Some(messages) = &mut self.messages else {
                return Ok(());
            };
            let message = tokio::time::timeout(PATIENCE, messages.next()).await;
            let Ok(Some(Ok(message))) = message else {
                return Err("the bus does not hand out the estimates".to_owned());
            };
            self.pending -= 1;
            if let Ok(frame) = EstimateFrame::decode(&message.payload) {
                self.take(&frame);
            }
        }
        Ok(())
    }

    fn take(&mut self, frame: &EstimateFrame) {
        let names = self.names.get(&frame.estimator);
        let made_by = (frame.revision, frame.generation);
        let in_force = self.in_force.get(&frame.estimator);
        let holds = in_force.is_none_or(|in_force| made_by >= *in_force);
        for (row, (&seq, &test_time)) in frame.seq.iter().zip(&frame.test_time).enumerate() {
            let values = values_by_column(names, &frame.columns, row);
            let state = EstimatorState {
                revision: frame.revision,
                generation: frame.generation,
                epoch: frame.epoch,
                seq,
                test_time: Some(test_time),
                phase: "live".to_owned(),
                values,
                error: None,
                trust: trust_of(&frame.columns, row),
            };
            let read = self.read.entry(seq).or_default();
            read.push((frame.estimator.clone(), state));
            if holds {
                self.read_to = self.read_to.max(seq);
            }
        }
    }

    /// Returns what was estimated up to a row.
    fn after(&mut self, seq: i64) -> LiteMap<EstimatorName, EstimatorState> {
        let later = self.read.split_off(&(seq + 1));
        for (name, state) in std::mem::replace(&mut self.read, later)
            .into_values()
            .flatten()
        {
            self.newest.insert(name, state);
        }
        self.newest.clone()
    }
}

const HEALTH: &str = "state_of_health";

/// What the columns of an estimator's frames mean.
struct Names {
    states: Vec<String>,
}

impl Names {
    fn of(registration: &Arc<Registration>) -> Self {
        let read = Document::from_json(&registration.definition);
        let states = read.map_or_else(|_| Vec::new(), |(document, _)| document.state_names());
        Self { states }
    }
}

/// Names the estimates of one row as a state does.
fn values_by_column(
    names: Option<&Names>,
    columns: &Columns,
    row: usize,
) -> LiteMap<String, Estimated> {
    let number = |column: &str| {
        let cell = columns.get(column).and_then(|column| column.number(row));
        cell.unwrap_or(f64::NAN)
    };
    let mut values = LiteMap::new();
    let Some(names) = names else { return values };
    for name in &names.states {
        let mean = number(&estimate_column(name));
        let value = Estimated::new(mean, number(&deviation_column(name)));
        if name == "soc" {
            values.insert("state_of_charge".to_owned(), value);
        }
        values.insert(name.clone(), value);
    }
    // What it is measured by is the estimator's to know: it may have begun from data.
    let deviation = number(&deviation_column(HEALTH));
    if deviation.is_finite() {
        let health = Estimated::new(number(HEALTH), deviation);
        values.insert(HEALTH.to_owned(), health);
    }
    values
}

/// Reads how far the estimator could be believed, where the frame says so.
fn trust_of(columns: &Columns, row: usize) -> Option<String> {
    let number = columns.get("trust")?.number(row)?;
    let known = [
        TrustState::Healthy,
        TrustState::Suspect,
        TrustState::Diverged,
    ];
    let mut known = known.into_iter();
    let state = known.find(|state| trust_number(*state) >= number)?;
    Some(state.as_str().to_owned())
}
