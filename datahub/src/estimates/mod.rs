//! Hop 7 of 7, the table's part: frames on `rovi.estimates.*.*` → `estimates."<battery>"`.
//!
//! In: frames, by one durable consumer that all hubs share, in any order and any number of
//! times. Out: lines of the tables, committed before the frames are acknowledged. On failure: a
//! frame that no table can take is counted, logged and ended; one whose table is locked comes
//! again later; with PostgreSQL away everything waits. None of them holds up the others.
//!
//! `accept` says what a frame must be, `write` how a batch becomes transactions.

mod accept;
mod write;

use std::{
    collections::{BTreeMap, HashMap},
    mem,
    sync::Arc,
    time::Duration,
};

use async_nats::jetstream::{
    self, AckKind,
    consumer::{AckPolicy, pull},
};
use futures_util::StreamExt;
use prometheus::{IntCounter, IntCounterVec};
use rovi_common::{
    error::ErrorChain, lifecycle::Lifecycle, name::BatteryName, streams, telemetry::Metrics,
};
use tokio::{
    runtime::Handle,
    sync::mpsc,
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;

use self::write::{Outcome, Tables};
use crate::{
    bus::{Bus, BusError},
    store::{Pool, StoreError, estimates::Estimates},
};

/// Name of the durable consumer that all hubs share.
const CONSUMER: &str = "hub";
/// How long a frame may stay without acknowledgement before it comes again: as long as estimates
/// are missing in their table after a hub was killed. Frames in hand are kept by saying so.
const ACK_WAIT: Duration = Duration::from_secs(5);
/// How often it is said of frames in hand that they are in hand.
const IN_HAND_EVERY: Duration = Duration::from_secs(2);
/// How long the last frames in hand may take after the order to stop.
const FINISH_WITHIN: Duration = Duration::from_secs(2);
/// Frames of locked tables wait unacknowledged; at this many nothing more would come.
const MAX_ACK_PENDING: i64 = 65_536;
/// Frames fetched at once, and written at once.
const BATCH_FRAMES: usize = 400;
/// Bytes after which a batch takes no more frames: some twenty thousand estimates. Others wait behind
/// it, and [`ACK_WAIT`] runs for them.
const BATCH_BYTES: usize = 4 << 20;
/// Bytes fetched at once; they wait in memory while those before are written.
const FETCHED_BYTES: usize = 2 * BATCH_BYTES;
/// How long a batch waits for more frames after its first.
const BATCH_WAIT: Duration = Duration::from_millis(10);
const FETCH_EXPIRES: Duration = Duration::from_secs(30);
const FETCH_HEARTBEAT: Duration = Duration::from_secs(5);
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// How long a battery whose table is locked is left alone.
const PARKED_FOR: Duration = Duration::from_secs(2);
const MAX_DELAY: Duration = Duration::from_mins(1);
/// A frame that PostgreSQL refuses, though its table is free, is given up after this many tries:
/// more than ten minutes.
const MAX_TRIES: i64 = 20;

/// Stores estimates.
#[derive(Debug)]
pub struct EstimateWriter {
    bus: Arc<Bus>,
    pool: Pool,
    tables: Arc<Tables>,
    /// Batteries whose table was locked, and until when they are left alone.
    parked: HashMap<BatteryName, Instant>,
    limits_applied: bool,
    stored: IntCounter,
    refused: IntCounterVec,
}

/// What was read at once.
#[derive(Debug, Default)]
struct Batch {
    shares: BTreeMap<BatteryName, Share>,
    /// Messages that no table can take, and why.
    refused: Vec<(jetstream::Message, String)>,
}

impl Batch {
    /// Reads the frames, and joins those of one registration.
    fn of(messages: Vec<jetstream::Message>) -> Self {
        let mut batch = Self::default();
        for message in messages {
            match accept::accept(&message.subject, &message.payload) {
                Err(reason) => batch.refused.push((message, reason)),
                Ok(accepted) => {
                    let share = batch.shares.entry(accepted.battery).or_default();
                    share.messages.push(message);
                    share.estimates.push(accepted.estimates);
                }
            }
        }
        for share in batch.shares.values_mut() {
            share.estimates = accept::merge(mem::take(&mut share.estimates));
        }
        batch
    }

    /// Lets another hub have it at once.
    async fn give_back(&self) {
        let refused = self.refused.iter().map(|(message, _)| message);
        let others = self.shares.values().flat_map(|share| &share.messages);
        for message in refused.chain(others) {
            acknowledge(message, AckKind::Nak(None)).await;
        }
    }
}

/// The messages of one battery in a batch, and what they hold.
#[derive(Debug, Default)]
struct Share {
    messages: Vec<jetstream::Message>,
    estimates: Vec<Estimates>,
}

impl EstimateWriter {
    /// Makes the writer; nothing is fetched until [`EstimateWriter::start`].
    pub fn new(bus: Arc<Bus>, pool: Pool, metrics: &Metrics) -> Self {
        let refused = metrics.counters(
            "datahub_estimate_frames_refused_total",
            "Frames of estimates that no table can take, by reason.",
            &["reason"],
        );
        for reason in ["malformed", "no_battery", "database"] {
            refused.with_label_values(&[reason]);
        }
        Self {
            bus,
            pool,
            tables: Arc::default(),
            parked: HashMap::new(),
            limits_applied: false,
            stored: metrics.counter(
                "datahub_estimates_stored_total",
                "Lines made or replaced in tables of estimates.",
            ),
            refused,
        }
    }

    /// Starts storing, until the service stops.
    pub fn start(self, lifecycle: &Lifecycle) {
        let stop = lifecycle.stop_token();
        lifecycle.supervise("estimates", self.run(stop));
    }

    async fn run(mut self, stop: CancellationToken) {
        while let Some(Some(_life)) = stop.run_until_cancelled(self.bus.ready()).await {
            if let Err(error) = self.follow(&stop).await {
                tracing::info!("waiting for estimates again: {}", ErrorChain(&error));
                self.bus.doubt();
            }
            stop.run_until_cancelled(sleep(RETRY_AFTER)).await;
        }
    }

    /// Stores what comes until the bus fails or the service stops; while a batch is written the next
    /// one is read.
    async fn follow(&mut self, stop: &CancellationToken) -> Result<(), BusError> {
        let opened = stop.run_until_cancelled(self.open()).await;
        let Some(messages) = opened.transpose()? else {
            return Ok(());
        };
        let (read, mut batches) = mpsc::channel(1);
        let fetching = fetch(messages, read, stop.clone());
        // On one thread all the time, which has the memory of the batches before at hand.
        let runtime = Handle::current();
        let reading = tokio::task::spawn_blocking(move || runtime.block_on(fetching));
        let storing = async {
            while let Some(batch) = batches.recv().await {
                if stop.is_cancelled() {
                    batch.give_back().await;
                } else {
                    self.store(batch, stop).await;
                }
            }
        };
        let (read, ()) = tokio::join!(reading, storing);
        // A panic was told; what it had read comes again.
        read.unwrap_or(Ok(()))
    }

    /// Opens the consumer that all hubs share.
    async fn open(&mut self) -> Result<pull::Stream, BusError> {
        let what = "hand out estimates";
        let stream = streams::ensure_estimates(self.bus.jetstream(), self.bus.settings());
        let stream = stream.await.map_err(BusError::request(what))?;
        if !mem::replace(&mut self.limits_applied, true) {
            self.bus.apply_limits(&stream).await;
        }
        let config = pull::Config {
            durable_name: Some(CONSUMER.to_owned()),
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WAIT,
            max_ack_pending: MAX_ACK_PENDING,
            ..pull::Config::default()
        };
        // Made, or brought to these settings where an older hub made it.
        let consumer = stream.create_consumer(config);
        let consumer = consumer.await.map_err(BusError::request(what))?;
        let messages = consumer
            .stream()
            .max_messages_per_batch(BATCH_FRAMES)
            .max_bytes_per_batch(FETCHED_BYTES)
            .expires(FETCH_EXPIRES)
            .heartbeat(FETCH_HEARTBEAT)
            .messages();
        messages.await.map_err(BusError::request(what))
    }

    /// Stores a batch and answers every message of it.
    async fn store(&mut self, batch: Batch, stop: &CancellationToken) {
        self.parked.retain(|_, until| *until > Instant::now());
        for (message, reason) in batch.refused {
            self.refuse(&message, "malformed", &reason).await;
        }
        let mut work = BTreeMap::new();
        let mut messages = BTreeMap::new();
        for (battery, share) in batch.shares {
            if self.parked.contains_key(&battery) {
                for message in &share.messages {
                    later(message).await;
                }
                continue;
            }
            work.insert(battery.clone(), share.estimates);
            messages.insert(battery, share.messages);
        }
        let in_hand = keep(messages.values().flatten());
        let written = tokio::select! {
            written = self.write(Arc::new(work)) => written,
            () = in_hand => Vec::new(),
            () = patience(stop) => {
                // PostgreSQL is away, and another hub may have it.
                for message in messages.values().flatten() {
                    acknowledge(message, AckKind::Nak(None)).await;
                }
                return;
            }
        };
        for (battery, outcome) in written {
            for message in messages.remove(&battery).unwrap_or_default() {
                self.answer(&battery, &message, &outcome).await;
            }
            match outcome {
                Outcome::Stored(lines) => self.stored.inc_by(lines),
                Outcome::Busy(reason) => self.park(battery, &reason),
                Outcome::NoBattery | Outcome::Refused(_) => {}
            }
        }
    }

    /// Writes until PostgreSQL is there to say yes or no.
    async fn write(
        &self,
        work: Arc<BTreeMap<BatteryName, Vec<Estimates>>>,
    ) -> Vec<(BatteryName, Outcome)> {
        loop {
            let (tables, work) = (Arc::clone(&self.tables), Arc::clone(&work));
            let written = self
                .pool
                .run(move |conn| write::write_all(conn, &tables, &work))
                .await;
            match written {
                Ok(outcomes) => return outcomes,
                Err(error @ StoreError::Away(_)) => {
                    tracing::debug!("estimates wait: {}", ErrorChain(&error));
                }
                Err(error) => tracing::error!("estimates wait: {}", ErrorChain(&error)),
            }
            sleep(RETRY_AFTER).await;
        }
    }

    async fn answer(&self, battery: &BatteryName, message: &jetstream::Message, outcome: &Outcome) {
        match outcome {
            Outcome::Stored(_) => acknowledge(message, AckKind::Ack).await,
            Outcome::Busy(_) => later(message).await,
            Outcome::NoBattery => {
                let reason = format!("there is no battery `{battery}`");
                self.refuse(message, "no_battery", &reason).await;
            }
            Outcome::Refused(reason) if tries(message) >= MAX_TRIES => {
                self.refuse(message, "database", reason).await;
            }
            Outcome::Refused(reason) => {
                tracing::warn!(
                    battery.id = %battery,
                    "estimates of {battery} are tried again later: {reason}"
                );
                later(message).await;
            }
        }
    }

    fn park(&mut self, battery: BatteryName, reason: &str) {
        tracing::warn!(battery.id = %battery, "estimates of {battery} wait: {reason}");
        self.parked.insert(battery, Instant::now() + PARKED_FOR);
    }

    /// Ends a message that can never be stored.
    async fn refuse(&self, message: &jetstream::Message, label: &str, reason: &str) {
        let subject = &message.subject;
        tracing::warn!("a frame of estimates on {subject} is refused: {reason}");
        self.refused.with_label_values(&[label]).inc();
        acknowledge(message, AckKind::Term).await;
    }
}

/// Tells whether a frame could be stored.
#[cfg(feature = "fuzzing")]
pub(crate) fn check(subject: &str, payload: &[u8]) -> Result<(), String> {
    accept::accept(subject, payload).map(|accepted| drop(accept::merge([accepted.estimates])))
}

/// Reads batches until the bus fails or the service stops; the thread may be blocked.
async fn fetch(
    mut messages: pull::Stream,
    read: mpsc::Sender<Batch>,
    stop: CancellationToken,
) -> Result<(), BusError> {
    while let Some(Some(first)) = stop.run_until_cancelled(messages.next()).await {
        let batch = Batch::of(collect(first, &mut messages).await?);
        if read.send(batch).await.is_err() {
            break;
        }
    }
    if stop.is_cancelled() {
        give_back(messages).await;
    }
    Ok(())
}

/// Adds what else is there, up to the bounds of a batch.
async fn collect(
    first: Result<jetstream::Message, pull::MessagesError>,
    messages: &mut pull::Stream,
) -> Result<Vec<jetstream::Message>, BusError> {
    let what = "hand out estimates";
    let first = first.map_err(BusError::request(what))?;
    let mut bytes = first.payload.len();
    let mut batch = vec![first];
    let deadline = Instant::now() + BATCH_WAIT;
    while batch.len() < BATCH_FRAMES
        && bytes < BATCH_BYTES
        && let Ok(Some(next)) = timeout_at(deadline, messages.next()).await
    {
        let next = next.map_err(BusError::request(what))?;
        bytes += next.payload.len();
        batch.push(next);
    }
    Ok(batch)
}

/// Gives frames back that came and were not looked at: another hub takes them at once.
async fn give_back(mut messages: pull::Stream) {
    let deadline = Instant::now() + BATCH_WAIT;
    while let Ok(Some(Ok(message))) = timeout_at(deadline, messages.next()).await {
        acknowledge(&message, AckKind::Nak(None)).await;
    }
}

/// Says again and again that frames are in hand; never ends.
async fn keep<'m>(messages: impl Iterator<Item = &'m jetstream::Message> + Clone) {
    loop {
        sleep(IN_HAND_EVERY).await;
        for message in messages.clone() {
            acknowledge(message, AckKind::Progress).await;
        }
    }
}

/// Waits until the service stops, and a little longer.
async fn patience(stop: &CancellationToken) {
    stop.cancelled().await;
    sleep(FINISH_WITHIN).await;
}

/// How often the message was delivered.
fn tries(message: &jetstream::Message) -> i64 {
    message.info().map_or(1, |info| info.delivered)
}

/// Has the message delivered again, each time later.
async fn later(message: &jetstream::Message) {
    let doublings = u32::try_from(tries(message).clamp(0, 6)).unwrap_or(0);
    let delay = PARKED_FOR.saturating_mul(1 << doublings) / 2;
    acknowledge(message, AckKind::Nak(Some(delay.min(MAX_DELAY)))).await;
}

/// Answers a message; one whose answer is lost comes again and changes nothing.
async fn acknowledge(message: &jetstream::Message, kind: AckKind) {
    if let Err(error) = message.ack_with(kind).await {
        tracing::debug!("a frame of estimates will come again: {error}");
    }
}
