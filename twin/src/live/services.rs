//! Which services live, as their heartbeats tell.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use rovi_common::{news::Heartbeat, subjects};

use crate::fleet::Fleet;

/// Instances known at most; the bus is open to anybody who may connect.
const MAX_INSTANCES: usize = 1024;
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// The newest heartbeat of each instance that is not silent for too long.
#[derive(Debug, Default)]
pub struct Services {
    heard: Mutex<BTreeMap<(String, String), (Instant, Heartbeat)>>,
}

impl Services {
    /// Returns the newest heartbeats, by service and instance.
    pub fn all(&self) -> Vec<Heartbeat> {
        let mut heard = self.heard();
        heard.retain(|_, (at, heartbeat)| is_alive(*at, heartbeat));
        heard.values().map(|(_, one)| one.clone()).collect()
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

/// Hears heartbeats until the service stops; the client renews its subscription by itself.
pub(crate) async fn listen(fleet: Arc<Fleet>, nats: async_nats::Client) {
    let shared = fleet.shared();
    while !shared.stop.is_cancelled() {
        if let Ok(mut heartbeats) = nats.subscribe(subjects::all_heartbeats()).await {
            loop {
                let message = tokio::select! {
                    () = shared.stop.cancelled() => return,
                    message = heartbeats.next() => message,
                };
                let Some(message) = message else { break };
                if let Ok(heartbeat) = serde_json::from_slice(&message.payload) {
                    shared.services.hear(heartbeat);
                }
            }
        }
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = tokio::time::sleep(TRY_AGAIN) => {}
        }
    }
}
