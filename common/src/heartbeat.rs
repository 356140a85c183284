//! Signs of life: every few seconds a service says on the bus who and how it is.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use async_nats::Client;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    clock,
    http::Readiness,
    news::{self, Heartbeat, NEWS_VERSION},
    streams, subjects,
};

/// Makes the name of this run of a service; no two runs share one.
pub fn new_instance() -> String {
    let mut name = Uuid::new_v4().simple().to_string();
    name.truncate(12);
    name
}

/// How far a service is behind and what waits in it, by name.
#[derive(Debug, Clone, Default)]
pub struct Load {
    /// Rows behind.
    pub lag: BTreeMap<String, i64>,
    /// What waits in queues.
    pub queues: BTreeMap<String, i64>,
    /// What was done since the start.
    pub totals: BTreeMap<String, i64>,
}

/// What says the heartbeats of one run of a service.
#[derive(Debug, Clone)]
pub struct Pulse {
    /// The bus.
    pub client: Client,
    /// `datahub` or `twin`.
    pub service: &'static str,
    /// See [`new_instance`].
    pub instance: String,
    /// What keeps it from being ready.
    pub readiness: Readiness,
    /// How often it is said.
    pub interval: Duration,
}

impl Pulse {
    /// Says it until the service stops, and once more then.
    pub async fn beat(self, load: impl Fn() -> Load + Send, stop: CancellationToken) {
        let started = Instant::now();
        let mut tick = tokio::time::interval(self.interval);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = tick.tick() => self.say(started, load(), false).await,
            }
        }
        self.say(started, load(), true).await;
    }

    async fn say(&self, started: Instant, load: Load, is_stopping: bool) {
        // Without a connection it would wait in the client's buffer and come too late.
        if streams::problem(&self.client).is_some() {
            return;
        }
        let heartbeat = self.heartbeat(started, load, is_stopping);
        let subject = subjects::heartbeat_of(self.service, &self.instance);
        let sent = self
            .client
            .publish(subject, news::to_json(&heartbeat).into());
        if let Err(error) = sent.await {
            tracing::debug!("a heartbeat is not sent: {error}");
        }
    }

    fn heartbeat(&self, started: Instant, load: Load, is_stopping: bool) -> Heartbeat {
        let problems = self.readiness.problems().into_iter();
        let problems: BTreeMap<String, String> = problems
            .map(|(part, problem)| (part.to_owned(), problem))
            .collect();
        let state = match (is_stopping, problems.is_empty()) {
            (true, _) => "stopping",
            (false, true) => "ready",
            (false, false) => "waiting",
        };
        Heartbeat {
            v: NEWS_VERSION,
            service: self.service.to_owned(),
            instance: self.instance.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            at: clock::now_us(),
            uptime_s: started.elapsed().as_secs(),
            interval_s: self.interval.as_secs_f64(),
            state: state.to_owned(),
            problems,
            lag: load.lag,
            queues: load.queues,
            totals: load.totals,
        }
    }
}
