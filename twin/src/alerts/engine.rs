//! Raises and clears alerts.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use async_nats::jetstream::{
    consumer::{AckPolicy, DeliverPolicy, pull},
    kv,
};
use futures_util::StreamExt;
use rovi_common::{
    alerts::{AlertRule, Episode, RuleDefinition},
    clock,
    name::{BatteryName, EstimatorName},
    news::{Event, NEWS_VERSION},
    streams::{self, EVENT_DEDUPE},
    subjects,
};

use super::judge::{Verdict, judge};
use crate::{
    events,
    fleet::{Fleet, Shared},
    live::Version,
};

/// How often states are judged.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long a change may be untold before somebody else looks after it, in microseconds.
const TOLD_WITHIN_US: i64 = 5_000_000;

type Key = (EstimatorName, BatteryName);

/// What was seen of the batteries and since when rules are broken or kept.
#[derive(Debug, Default)]
struct Engine {
    seen: HashMap<BatteryName, Seen>,
    since: HashMap<Key, (bool, Instant)>,
}

/// The two newest states of a battery with different rows.
#[derive(Debug)]
struct Seen {
    newest: Arc<Version>,
    before: Option<Arc<Version>>,
}

/// Judges states until the service stops.
pub(crate) async fn run(fleet: Arc<Fleet>) {
    let shared = fleet.shared();
    let mut engine = Engine::default();
    let mut tick = tokio::time::interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = engine.look(shared) => {}
        }
    }
}

impl Engine {
    async fn look(&mut self, shared: &Shared) {
        let rules = shared.alerts.rules();
        let placed = shared.alerts.placed();
        if rules.is_empty() && placed.is_empty() {
            *self = Self::default();
            return;
        }
        let alive = alive(shared);
        let mut changes = Vec::new();
        let present = shared.board.all();
        self.see_all(&present);
        for version in present {
            if is_ours(shared, &alive, &version.state.by) {
                for rule in &rules {
                    changes.extend(self.judge(shared, rule, &version));
                }
            }
        }
        let names: HashSet<&EstimatorName> = rules.iter().map(|rule| &rule.rule).collect();
        self.since.retain(|(rule, _), _| names.contains(rule));
        for (place, episode) in placed {
            if episode.is_active && !names.contains(&episode.rule) {
                changes.push((place, end(&episode, "the rule was removed")));
            } else if episode.is_active && shared.board.has_ended(&episode.battery) {
                changes.push((place, end(&episode, "the battery was deleted")));
            }
            if !episode.is_told && clock::now_us() - episode.at() > TOLD_WITHIN_US {
                tell_again(shared, place, episode).await;
            }
        }
        for (place, episode) in changes {
            change(shared, place, episode).await;
        }
    }

    /// Takes the states of all batteries that there are, and forgets the others.
    fn see_all(&mut self, present: &[Arc<Version>]) {
        for version in present {
            self.see(version);
        }
        if self.seen.len() > present.len() {
            let names = present.iter().map(|version| &version.state.battery);
            let names: HashSet<&BatteryName> = names.collect();
            self.seen.retain(|battery, _| names.contains(battery));
            self.since.retain(|(_, battery), _| names.contains(battery));
        }
    }

    fn see(&mut self, version: &Arc<Version>) {
        let battery = &version.state.battery;
        let Some(seen) = self.seen.get_mut(battery) else {
            let newest = Arc::clone(version);
            let seen = Seen {
                newest,
                before: None,
            };
            self.seen.insert(battery.clone(), seen);
            return;
        };
        let older = std::mem::replace(&mut seen.newest, Arc::clone(version));
        if older.state.epoch != version.state.epoch {
            // Another life of the name: what was before is nothing to compare with.
            seen.before = None;
        } else if older.state.seq != version.state.seq {
            seen.before = Some(older);
        }
    }

    /// Tells what has to change about one rule and battery.
    fn judge(
        &mut self,
        shared: &Shared,
        rule: &AlertRule,
        version: &Version,
    ) -> Option<(u64, Episode)> {
        let definition = rule.definition.as_ref()?;
        let state = &version.state;
        if !definition.is_for(&state.battery) {
            return None;
        }
        let before = self.seen.get(&state.battery)?.before.as_ref();
        let before = before.map(|before| &before.state);
        let now = clock::now_us();
        let verdict = judge(&definition.condition, state, before, now)?;
        let known = shared.alerts.find(&rule.rule, &state.battery);
        let is_active = known.as_ref().is_some_and(|(_, known)| known.is_active);
        let key = (rule.rule.clone(), state.battery.clone());
        let is_broken = verdict.is_broken.unwrap_or(is_active);
        if is_broken == is_active {
            self.since.remove(&key);
            return None;
        }
        if !self.has_held(key, is_broken, definition) {
            return None;
        }
        let place = known.as_ref().map_or(0, |(place, _)| *place);
        let known = known.map(|(_, known)| known);
        Some((place, next(known, rule, definition, version, verdict)))
    }

    fn has_held(&mut self, key: Key, is_broken: bool, definition: &RuleDefinition) -> bool {
        let now = Instant::now();
        let since = self.since.entry(key).or_insert((is_broken, now));
        if since.0 != is_broken {
            *since = (is_broken, now);
        }
        now.duration_since(since.1).as_secs_f64() >= definition.hold_s
    }
}

/// Begins an episode, or ends the one that lasts.
fn next(
    known: Option<Episode>,
    rule: &AlertRule,
    definition: &RuleDefinition,
    version: &Version,
    verdict: Verdict,
) -> Episode {
    let now = clock::now_us();
    let state = &version.state;
    let begins = known.as_ref().is_none_or(|known| !known.is_active);
    let count = known.as_ref().map_or(0, |known| known.episode);
    let raised = known.map_or(now, |known| known.raised);
    Episode {
        rule: rule.rule.clone(),
        revision: rule.revision,
        battery: state.battery.clone(),
        episode: if begins { count + 1 } else { count },
        severity: definition.severity,
        is_active: begins,
        raised: if begins { now } else { raised },
        cleared: (!begins).then_some(now),
        detail: verdict.detail,
        value: verdict.value,
        epoch: state.epoch,
        seq: state.seq,
        is_told: false,
    }
}

fn end(episode: &Episode, detail: &str) -> Episode {
    Episode {
        is_active: false,
        cleared: Some(clock::now_us()),
        detail: detail.to_owned(),
        value: None,
        is_told: false,
        ..episode.clone()
    }
}

/// Returns the instances of twins that live, in order.
fn alive(shared: &Shared) -> Vec<String> {
    let all = shared.services.all().into_iter();
    let twins = all.filter(|one| one.service == "twin" && one.state != "stopping");
    let mut alive: Vec<String> = twins.map(|one| one.instance).collect();
    alive.push(shared.instance.clone());
    alive.sort_unstable();
    alive
}

/// Whether this twin judges a battery: it spoke last for it, or whoever did lives no more and this
/// one is the first of those who do. Two that think so do no harm.
fn is_ours(shared: &Shared, alive: &[String], by: &String) -> bool {
    if *by == shared.instance {
        return true;
    }
    !alive.contains(by) && alive.first() == Some(&shared.instance)
}

/// Writes a change by compare-and-set and tells it; nothing, where another twin was faster.
async fn change(shared: &Shared, place: u64, episode: Episode) {
    let Ok(bucket) = bucket(shared).await else {
        return;
    };
    if let Some(place) = write(&bucket, place, &episode).await {
        shared.alerts.place(place, episode.clone());
        tell(shared, &bucket, place, episode).await;
    }
}

/// Tells a change whose twin may have ended between writing and telling.
async fn tell_again(shared: &Shared, place: u64, episode: Episode) {
    let Ok(bucket) = bucket(shared).await else {
        return;
    };
    let dedupe = i64::try_from(EVENT_DEDUPE.as_micros()).unwrap_or(i64::MAX) / 2;
    let is_recent = clock::now_us() - episode.at() < dedupe;
    if is_recent {
        return tell(shared, &bucket, place, episode).await;
    }
    match was_told(shared, &episode).await {
        Ok(false) => tell(shared, &bucket, place, episode).await,
        Ok(true) => told(shared, &bucket, place, episode).await,
        Err(error) => tracing::debug!("the events cannot be read: {error}"),
    }
}

async fn tell(shared: &Shared, bucket: &kv::Store, place: u64, episode: Episode) {
    let event = Event {
        v: NEWS_VERSION,
        id: episode.event_id(),
        battery: episode.battery.clone(),
        at: episode.at(),
        happening: episode.happening(),
    };
    match events::send(&shared.jetstream, &shared.settings.bus, &event).await {
        Ok(()) => {
            shared.metrics.live.alerts.inc();
            told(shared, bucket, place, episode).await;
        }
        Err(problem) => tracing::warn!("alert {} waits for the bus: {problem}", event.id),
    }
}

async fn told(shared: &Shared, bucket: &kv::Store, place: u64, episode: Episode) {
    let episode = Episode {
        is_told: true,
        ..episode
    };
    if let Some(place) = write(bucket, place, &episode).await {
        shared.alerts.place(place, episode);
    }
}

async fn bucket(shared: &Shared) -> Result<kv::Store, ()> {
    let name = subjects::ALERTS_BUCKET;
    let bucket = streams::bucket(&shared.jetstream, name, &shared.settings.bus).await;
    bucket.map_err(|error| tracing::debug!("the bucket of alerts is away: {error}"))
}

async fn write(bucket: &kv::Store, place: u64, episode: &Episode) -> Option<u64> {
    let key = format!("{}.{}", episode.rule, episode.battery);
    let value = serde_json::to_vec(episode).ok()?;
    let written = bucket.update(key.as_str(), value.into(), place).await;
    written
        .inspect_err(|error| tracing::debug!("alert {key} is not written: {error}"))
        .ok()
}

/// Looks among the events for one that the stream no longer knows by its identifier.
async fn was_told(shared: &Shared, episode: &Episode) -> Result<bool, async_nats::Error> {
    let stream = shared.jetstream.get_stream(subjects::EVENTS_STREAM).await?;
    let nanos = i128::from(episode.at()) * 1000;
    let config = pull::Config {
        filter_subject: subjects::event_of(&episode.battery),
        deliver_policy: DeliverPolicy::ByStartTime {
            start_time: time::OffsetDateTime::from_unix_timestamp_nanos(nanos)?,
        },
        ack_policy: AckPolicy::None,
        ..pull::Config::default()
    };
    let consumer = stream.create_consumer(config).await?;
    let mut left = consumer.cached_info().num_pending;
    let mut messages = consumer.messages().await?;
    let id = episode.event_id();
    while left > 0
        && let Some(message) = messages.next().await
    {
        left -= 1;
        if Event::decode(&message?.payload).is_ok_and(|event| event.id == id) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use rovi_common::news::BatteryState;

    use super::*;

    fn version(battery: &str, epoch: i64, seq: i64) -> Arc<Version> {
        Version::of(BatteryState {
            epoch,
            seq,
            ..BatteryState::unknown(battery.parse().unwrap())
        })
    }

    #[test]
    fn a_battery_that_is_no_more_is_forgotten() {
        let mut engine = Engine::default();
        let (first, second) = (version("b7", 1, 1), version("b8", 1, 1));
        engine.see_all(&[first, Arc::clone(&second)]);
        for battery in ["b7", "b8"] {
            let key = ("rule".parse().unwrap(), battery.parse().unwrap());
            engine.since.insert(key, (true, Instant::now()));
        }
        engine.see_all(&[second]);
        let left = engine
            .seen
            .keys()
            .chain(engine.since.keys().map(|key| &key.1));
        let left: Vec<&str> = left.map(BatteryName::as_str).collect();
        assert_eq!(left, ["b8", "b8"]);
    }

    #[test]
    fn the_next_life_of_a_name_begins_without_a_past() {
        let mut engine = Engine::default();
        let before = |engine: &Engine| {
            let seen = engine.seen.values().next().unwrap();
            seen.before.as_ref().map(|before| before.state.seq)
        };
        engine.see_all(&[version("b7", 1, 1)]);
        engine.see_all(&[version("b7", 1, 2)]);
        assert_eq!(before(&engine), Some(1));
        engine.see_all(&[version("b7", 2, 1)]);
        assert_eq!(before(&engine), None);
    }
}
