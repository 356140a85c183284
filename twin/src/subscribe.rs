//! Hop 5 of 7: frames of stored rows, from the partitions of the stream to the batteries' workers.
//!
//! In: messages of the partitions' shared consumers. Out: a [`Delivery`] in the mailbox of every
//! live worker of the battery. A frame that cannot be read is told in the log, counted and
//! terminated; the gap it leaves is closed from the hub. A partition whose stream or consumer is
//! missing is opened again.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use async_nats::{
    HeaderMap,
    jetstream::{AckKind, Message, consumer::pull, stream::Stream},
};
use futures_util::StreamExt;
use rovi_common::{
    error::ErrorChain,
    frame::{RowFrame, SEQ_HEADER, parse_seq_header},
    http::Readiness,
    name::BatteryName,
    streams::{self, OWNER_GROUP, PRIORITY_TIMEOUT},
    subjects,
};
use tokio_util::sync::CancellationToken;

use crate::{
    checkpoint::Origin,
    filter::Position,
    fleet::{Delivery, Fleet, Receipt, Shared},
};

/// The part of the readiness that these tasks tell.
pub const READY_PART: &str = "rows";

/// A pull ends well before the partition would go to another twin.
const PULL_EXPIRES: Duration = Duration::from_secs(2);
const _: () = assert!(PULL_EXPIRES.as_millis() * 2 <= PRIORITY_TIMEOUT.as_millis());
/// Frames that one partition may hold in memory before they are handed on.
const FRAMES_PER_PULL: usize = 64;
/// How long the stream need not be opened again.
const STREAM_KEPT: Duration = Duration::from_millis(200);
const OPEN_AGAIN: Duration = Duration::from_millis(500);
const LOOK_AT_CONNECTION: Duration = Duration::from_millis(500);

/// What keeps partitions from being followed, for the readiness.
#[derive(Debug)]
pub struct Partitions {
    problems: Mutex<(Option<String>, BTreeMap<u32, String>)>,
    readiness: Readiness,
}

impl Partitions {
    /// Returns what says that this twin's share is not known yet.
    pub fn new(readiness: Readiness) -> Self {
        let unknown = "this twin's share of the partitions is not known yet".to_owned();
        Self {
            problems: Mutex::new((Some(unknown), BTreeMap::new())),
            readiness,
        }
    }

    /// Tells what keeps the twin from knowing its share.
    pub(crate) fn tell_share(&self, problem: Option<String>) {
        self.change(|(share, _)| *share = problem);
    }

    /// Tells what keeps one of its partitions from being followed.
    pub(crate) fn tell(&self, partition: u32, problem: Option<String>) {
        self.change(|(_, problems)| {
            match problem {
                Some(problem) => problems.insert(partition, problem),
                None => problems.remove(&partition),
            };
        });
    }

    fn change(&self, change: impl FnOnce(&mut (Option<String>, BTreeMap<u32, String>))) {
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut problems);
        let (share, partitions) = &*problems;
        let first = share.as_ref().or_else(|| partitions.values().next());
        self.readiness.set(READY_PART, first.cloned());
    }
}

/// A partition whose frames the server sends to this twin alone.
#[derive(Debug)]
pub struct Owned {
    stream: Stream,
    partition: u32,
}

impl Owned {
    /// Lets another twin have the frames at once.
    pub(crate) async fn hand_over(&self) {
        let consumer = subjects::partition_consumer(self.partition);
        let unpinned = self.stream.unpin_consumer(&consumer, OWNER_GROUP);
        match tokio::time::timeout(Duration::from_secs(2), unpinned).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!("{consumer} is not handed over: {error}"),
            Err(_) => tracing::debug!("{consumer} is not handed over: the bus does not answer"),
        }
    }
}

/// Takes the frames of one partition until it has to stop; returns what must be handed over.
pub async fn follow(
    fleet: Arc<Fleet>,
    partition: u32,
    partitions: Arc<Partitions>,
    stop: CancellationToken,
) -> Option<Owned> {
    let mut owned = None;
    while !stop.is_cancelled() {
        let ended = tokio::select! {
            () = stop.cancelled() => break,
            ended = follow_once(&fleet, partition, &partitions, &mut owned) => ended,
        };
        partitions.tell(partition, Some(ended));
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(OPEN_AGAIN) => {}
        }
    }
    owned
}

/// Takes frames from one opening of the consumer; returns why it ended.
async fn follow_once(
    fleet: &Fleet,
    partition: u32,
    partitions: &Partitions,
    owned: &mut Option<Owned>,
) -> String {
    let connection = connection(fleet);
    let (stream, mut messages) = match open(fleet, partition).await {
        Ok(opened) => opened,
        Err(problem) => return problem,
    };
    let before = owned.replace(Owned {
        stream: stream.clone(),
        partition,
    });
    if before.is_some() {
        fleet.look_again(partition);
    }
    partitions.tell(partition, None);
    let bus_epoch = bus_epoch(&stream);
    let mut look = tokio::time::interval(LOOK_AT_CONNECTION);
    loop {
        let message = tokio::select! {
            message = messages.next() => message,
            // Behind a new connection stands maybe another server, which knows neither the pulls
            // nor the pin of before; what it says to them may be as quiet as no rows.
            _ = look.tick() => {
                if self::connection(fleet) == connection {
                    continue;
                }
                return format!("partition {partition} is opened again: NATS was away");
            }
        };
        match message {
            Some(Ok(message)) => take(fleet, message, &bus_epoch).await,
            Some(Err(error)) => return format!("partition {partition} is opened again: {error}"),
            None => return format!("partition {partition} is opened again: its pulls ended"),
        }
    }
}

/// Counts the connections to NATS so far.
fn connection(fleet: &Fleet) -> u64 {
    let client = fleet.shared().jetstream.client();
    client.statistics().connects.load(Ordering::Relaxed)
}

async fn open(fleet: &Fleet, partition: u32) -> Result<(Stream, pull::Stream), String> {
    let stream = open_stream(fleet.shared()).await?;
    check_partitions(&stream, fleet.shared().settings.bus.partitions)?;
    let name = subjects::partition_consumer(partition);
    let text = |error: &dyn std::error::Error| format!("consumer {name} cannot be used: {error}");
    let consumer = stream
        .get_or_create_consumer(&name, streams::partition_consumer(partition))
        .await
        .map_err(|error| text(&error))?;
    // This twin has the claim: whoever had the partition before gets no more of it.
    let owned = Owned {
        stream: stream.clone(),
        partition,
    };
    owned.hand_over().await;
    let messages = consumer
        .stream()
        .group(OWNER_GROUP)
        .max_messages_per_batch(FRAMES_PER_PULL)
        .expires(PULL_EXPIRES)
        .heartbeat(PULL_EXPIRES / 2)
        .messages()
        .await
        .map_err(|error| text(&error))?;
    Ok((stream, messages))
}

/// The number of partitions is fixed when the stream is made.
fn check_partitions(stream: &Stream, expected: u32) -> Result<(), String> {
    let transform = stream.cached_info().config.subject_transform.as_ref();
    let made = transform.and_then(|made| subjects::parse_partitions(&made.destination));
    if made.is_none_or(|made| made == expected) {
        return Ok(());
    }
    let made = made.unwrap_or_default();
    Err(format!(
        "bus.partitions is {expected}, but the stream {} was made with {made}; set it to {made}",
        subjects::ROWS_STREAM
    ))
}

/// Opens the stream of rows, which the hub makes.
///
/// # Errors
/// Why it cannot be used now.
pub async fn open_stream(shared: &Shared) -> Result<Stream, String> {
    let mut kept = shared.rows_stream.0.lock().await;
    if let Some((at, stream)) = &*kept
        && at.elapsed() < STREAM_KEPT
    {
        return Ok(stream.clone());
    }
    let name = subjects::ROWS_STREAM;
    let opened = shared
        .jetstream
        .get_stream(name)
        .await
        .map_err(|error| format!("the stream {name}, which the hub makes, is away: {error}"))?;
    *kept = Some((Instant::now(), opened.clone()));
    Ok(opened)
}

/// The stream of rows as it was just opened: thousands of estimators open it at once.
#[derive(Debug, Default)]
pub struct RowsStream(tokio::sync::Mutex<Option<(Instant, Stream)>>);

/// Returns the mark of this life of the bus.
pub fn bus_epoch(stream: &Stream) -> Arc<str> {
    let metadata = &stream.cached_info().config.metadata;
    let marked = metadata.get(streams::BUS_EPOCH).map(String::as_str);
    marked.unwrap_or_default().into()
}

/// Reads epoch, first and last `seq` from a frame's header.
pub fn announced_rows(headers: Option<&HeaderMap>) -> Option<(i64, i64, i64)> {
    parse_seq_header(headers?.get(SEQ_HEADER)?.as_str())
}

async fn take(fleet: &Fleet, message: Message, bus_epoch: &Arc<str>) {
    fleet.shared().metrics.frames.inc();
    let Some((_, name)) = subjects::parse_stored_rows(&message.subject) else {
        return refuse(fleet, &message, "the subject names no battery").await;
    };
    let battery = fleet.battery(&name);
    if let Some((epoch, _, last)) = announced_rows(message.headers.as_ref()) {
        let last = Position { epoch, seq: last };
        let nobody_waits = !battery.note(last);
        let outlet = &fleet.shared().outlet;
        outlet.row(&name, last, &message.payload, !nobody_waits);
        if nobody_waits {
            if let Err(error) = message.ack().await {
                tracing::debug!("a frame of {name} is not acknowledged: {error}");
            }
            return;
        }
    }
    let frame = match decode(&name, &message.payload) {
        Ok(frame) => frame,
        Err(reason) => return refuse(fleet, &message, &reason).await,
    };
    let stream_sequence = message.info().map_or(0, |info| info.stream_sequence);
    let (_, acker) = message.split();
    let delivery = Arc::new(Delivery {
        frame: Arc::new(frame),
        origin: Origin {
            bus_epoch: Arc::clone(bus_epoch),
            stream_sequence,
        },
        receipt: Receipt::new(acker),
    });
    battery.deliver(&delivery);
    delivery.receipt.done().await;
}

/// Reads the frame of a battery.
///
/// # Errors
/// Why it is none, in words.
pub fn decode(battery: &BatteryName, payload: &[u8]) -> Result<RowFrame, String> {
    let frame = RowFrame::decode(payload).map_err(|error| ErrorChain(&error).to_string())?;
    if frame.battery != *battery {
        return Err(format!("it says it is of {}", frame.battery));
    }
    if frame.received.is_empty() {
        return Err("it holds no rows".to_owned());
    }
    Ok(frame)
}

async fn refuse(fleet: &Fleet, message: &Message, reason: &str) {
    fleet.shared().metrics.bad_frames.inc();
    let subject = &message.subject;
    let sequence = message.info().map_or(0, |info| info.stream_sequence);
    tracing::error!("frame {sequence} on {subject} is left out: {reason}");
    if let Err(error) = message.ack_with(AckKind::Term).await {
        tracing::debug!("frame {sequence} is not terminated: {error}");
    }
}
