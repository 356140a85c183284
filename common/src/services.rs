//! Which services there are, as their heartbeats tell; each service may listen by itself.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::{news::Heartbeat, subjects};

/// Instances known at most; the bus is open to anybody who may connect.
const MAX_INSTANCES: usize = 1024;
/// How long one that fell silent is still told of.
const REMEMBERED: Duration = Duration::from_hours(1);
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// The newest heartbeat of each instance.
#[derive(Debug, Default)]
pub struct Services {
    heard: Mutex<BTreeMap<(String, String), (Instant, Heartbeat)>>,
}

/// An instance, alive or silent.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Known {
    /// What it said last.
    #[serde(flatten)]
    pub heartbeat: Heartbeat,
    /// How long ago that was, in seconds.
    pub silent_s: f64,
    /// Whether it is silent for three intervals without having said that it stops.
    pub is_stale: bool,
}

impl Services {
    /// Returns the newest heartbeats of those that are not silent for too long, by service and
    /// instance.
    pub fn all(&self) -> Vec<Heartbeat> {
        let heard = self.heard();
        let alive = (heard.values()).filter(|(at, heartbeat)| is_alive(*at, heartbeat));
        alive.map(|(_, one)| one.clone()).collect()
    }

    /// Returns all that were heard within an hour, silent ones marked; those that said that they
    /// stop are left out once they have.
    pub fn known(&self) -> Vec<Known> {
        let mut heard = self.heard();
        heard.retain(|_, (at, _)| at.elapsed() <= REMEMBERED);
        let known = heard.values().map(|(at, heartbeat)| Known {
            heartbeat: heartbeat.clone(),
            silent_s: at.elapsed().as_secs_f64(),
            is_stale: !is_alive(*at, heartbeat),
        });
        let has_stopped = |one: &Known| one.is_stale && one.heartbeat.state == "stopping";
        known.filter(|one| !has_stopped(one)).collect()
    }

    /// Hears heartbeats until the service stops; the client renews its subscription by itself.
    pub async fn listen(self: Arc<Self>, nats: async_nats::Client, stop: CancellationToken) {
        while !stop.is_cancelled() {
            if let Ok(mut heartbeats) = nats.subscribe(subjects::all_heartbeats()).await {
                loop {
                    let message = tokio::select! {
                        () = stop.cancelled() => return,
                        message = heartbeats.next() => message,
                    };
                    let Some(message) = message else { break };
                    if let Ok(heartbeat) = serde_json::from_slice(&message.payload) {
                        self.hear(heartbeat);
                    }
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(TRY_AGAIN) => {}
            }
        }
    }

    fn hear(&self, heartbeat: Heartbeat) {
        let mut heard = self.heard();
        if heard.len() >= MAX_INSTANCES {
            heard.retain(|_, (at, heartbeat)| is_alive(*at, heartbeat));
        }
        let key = (heartbeat.service.clone(), heartbeat.instance.clone());
        if heard.len() < MAX_INSTANCES || heard.contains_key(&key) {
            heard.insert(key, (Instant::now(), heartbeat));
        }
    }

    fn heard(&self) -> MutexGuard<'_, BTreeMap<(String, String), (Instant, Heartbeat)>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_alive(at: Instant, heartbeat: &Heartbeat) -> bool {
    let patience = heartbeat.interval_s.clamp(0.1, 600.0) * 3.0;
    at.elapsed().as_secs_f64() <= patience
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heartbeat(instance: &str, state: &str) -> Heartbeat {
        serde_json::from_value(serde_json::json!({
            "v": 1, "service": "twin", "instance": instance, "version": "1", "at": 0,
            "uptime_s": 1, "interval_s": 0.1, "state": state, "problems": {}, "lag": {},
            "queues": {},
        }))
        .unwrap()
    }

    fn long_ago() -> Instant {
        Instant::now().checked_sub(Duration::from_secs(5)).unwrap()
    }

    #[test]
    fn a_silent_instance_is_marked_unless_it_said_that_it_stops() {
        let services = Services::default();
        for (instance, state) in [("a", "ready"), ("b", "ready"), ("c", "stopping")] {
            services.hear(heartbeat(instance, state));
        }
        for (at, heartbeat) in services.heard().values_mut() {
            if heartbeat.instance != "a" {
                *at = long_ago();
            }
        }
        let known = services.known();
        let marks = known
            .iter()
            .map(|one| (one.heartbeat.instance.as_str(), one.is_stale));
        assert_eq!(marks.collect::<Vec<_>>(), [("a", false), ("b", true)]);
        assert_eq!(services.all().len(), 1);
    }
}
