//! Hop 5 of 7: frames of stored rows, from the partitions of the stream to the batteries' workers.
//!
//! In: messages of the partitions' shared consumers. Out: a [`Delivery`] in the mailbox of every
//! live worker of the battery. A frame that cannot be read is told in the log, counted and
//! terminated; the gap it leaves is closed from the hub. A partition whose stream or consumer is
//! missing is opened again.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
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
const OPEN_AGAIN: Duration = Duration::from_millis(500);

/// What keeps partitions from being followed, for the readiness.
#[derive(Debug)]
pub struct Partitions {
    problems: Mutex<BTreeMap<u32, String>>,
    readiness: Readiness,
}

impl Partitions {
    /// Returns `count` partitions that are not followed yet.
    pub fn new(count: u32, readiness: Readiness) -> Self {
        let unopened = |partition| (partition, "not opened yet".to_owned());
        Self {
            problems: Mutex::new((0..count).map(unopened).collect()),
            readiness,
        }
    }

    fn tell(&self, partition: u32, problem: Option<String>) {
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        match problem {
            Some(problem) => problems.insert(partition, problem),
            None => problems.remove(&partition),
        };
        self.readiness
            .set(READY_PART, problems.values().next().cloned());
    }
}

/// Takes the frames of one partition until the service stops, then hands the partition over.
pub async fn follow(fleet: Arc<Fleet>, partition: u32, partitions: Arc<Partitions>) {
    let stop = fleet.shared().stop.clone();
    let mut owned = None;
    while !stop.is_cancelled() {
        let ended = tokio::select! {
            () = stop.cancelled() => break,
            ended = follow_once(&fleet, partition, &partitions, &mut owned) => ended,
        };
        partitions.tell(partition, Some(ended));
        // Else the server would keep the partition for the pulls that ended.
        if let Some(stream) = owned.take() {
            fleet.shared().metrics.partitions.dec();
            hand_over(&stream, partition).await;
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(OPEN_AGAIN) => {}
        }
    }
    fleet.ended().await;
    if let Some(stream) = owned {
        hand_over(&stream, partition).await;
    }
}

/// Lets another twin have the partition at once.
async fn hand_over(stream: &Stream, partition: u32) {
    let consumer = subjects::partition_consumer(partition);
    let unpinned = stream.unpin_consumer(&consumer, OWNER_GROUP);
    match tokio::time::timeout(Duration::from_secs(2), unpinned).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!("{consumer} is not handed over: {error}"),
        Err(_) => tracing::debug!("{consumer} is not handed over: the bus does not answer"),
    }
}

/// Takes frames from one opening of the consumer; returns why it ended.
async fn follow_once(
    fleet: &Fleet,
    partition: u32,
    partitions: &Partitions,
    owned: &mut Option<Stream>,
) -> String {
    let (stream, mut messages) = match open(fleet, partition).await {
        Ok(opened) => opened,
        Err(problem) => return problem,
    };
    partitions.tell(partition, None);
    let bus_epoch = bus_epoch(&stream);
    while let Some(message) = messages.next().await {
        let message = match message {
            Ok(message) => message,
            Err(error) => return format!("partition {partition} is opened again: {error}"),
        };
        if owned.is_none() {
            *owned = Some(stream.clone());
            fleet.shared().metrics.partitions.inc();
        }
        take(fleet, message, &bus_epoch).await;
    }
    format!("partition {partition} is opened again: its pulls ended")
}

async fn open(fleet: &Fleet, partition: u32) -> Result<(Stream, pull::Stream), String> {
    let stream = open_stream(fleet.shared()).await?;
    let name = subjects::partition_consumer(partition);
    let text = |error: &dyn std::error::Error| format!("consumer {name} cannot be used: {error}");
    let consumer = stream
        .get_or_create_consumer(&name, streams::partition_consumer(partition))
        .await
        .map_err(|error| text(&error))?;
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

/// Opens the stream of rows, which the hub makes.
///
/// # Errors
/// Why it cannot be used now.
pub async fn open_stream(shared: &Shared) -> Result<Stream, String> {
    let name = subjects::ROWS_STREAM;
    let opened = shared.jetstream.get_stream(name).await;
    opened.map_err(|error| format!("the stream {name}, which the hub makes, is away: {error}"))
}

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
    let delivery = Delivery {
        frame: Arc::new(frame),
        origin: Origin {
            bus_epoch: Arc::clone(bus_epoch),
            stream_sequence,
        },
        receipt: Receipt::new(acker),
    };
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
