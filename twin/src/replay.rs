//! Reading a battery's messages of the past from the stream, in order.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::{
    Message,
    consumer::{AckPolicy, DeliverPolicy, pull},
    stream::{LastRawMessageErrorKind, Stream},
};
use futures_util::{FutureExt, StreamExt};
use rovi_common::{corrections::Corrections, fault, frame::RowFrame, name::BatteryName, subjects};
use tokio::time::timeout;

use crate::{
    catch_up::CatchUpError,
    checkpoint::Origin,
    filter::{Continuity, Position},
    run::{Run, continuity, end_of, is_corrected},
    subscribe::{announced_rows, decode},
};

/// Frames in memory while one estimator reads.
const FRAMES_PER_PULL: usize = 64;
/// Frames handed to the estimator at once.
const FRAMES_AT_ONCE: usize = 16;
const PULL_EXPIRES: Duration = Duration::from_secs(5);
/// How long the server may take to forget a reader before it is left to it.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// The battery's last message.
pub(crate) enum Last {
    Nothing,
    /// One that does not say which rows it holds.
    Unreadable,
    Rows(Position),
}

pub(crate) async fn last_message(
    stream: &Stream,
    battery: &BatteryName,
) -> Result<Last, CatchUpError> {
    let subject = subjects::stored_rows_of(battery);
    match stream.get_last_raw_message_by_subject(&subject).await {
        Ok(message) => {
            let rows = announced_rows(Some(&message.headers)).map(|(epoch, _, seq)| (epoch, seq));
            let rows = rows.or_else(|| {
                let frame = decode(battery, &message.payload).ok()?;
                Some((frame.epoch, frame.last_seq()))
            });
            Ok(rows.map_or(Last::Unreadable, |(epoch, seq)| {
                Last::Rows(Position { epoch, seq })
            }))
        }
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(Last::Nothing),
        Err(error) => Err(CatchUpError::Stream(format!(
            "the last message of {subject} cannot be read: {error}"
        ))),
    }
}

/// What the reader found next.
pub(crate) enum Read {
    /// Frames that continue, and where the last of them stands.
    Frames(Vec<Arc<RowFrame>>, Origin),
    /// Rows of `epoch` are missing before the row `before`.
    Gap { epoch: i64, before: i64 },
    /// No message is left.
    End,
}

/// Reads a battery's messages in order.
pub(crate) struct Reader {
    battery: BatteryName,
    bus_epoch: Arc<str>,
    /// Rows of the stream that the table may have otherwise.
    corrections: Arc<Corrections>,
    messages: pull::Stream,
    pending: u64,
    held: Option<Message>,
    stream: Stream,
    consumer: String,
}

impl Reader {
    pub(crate) async fn open(run: &Run<'_>, stream: &Stream) -> Result<Self, CatchUpError> {
        let battery = run.worker.battery.name.clone();
        let text = |error: &dyn std::error::Error| {
            CatchUpError::Stream(format!("the rows of {battery} cannot be read: {error}"))
        };
        let config = consumer(&battery, run.origin.stream_sequence);
        let made = stream.create_consumer(config).await;
        let made = made.map_err(|error| text(&error))?;
        let messages = made
            .stream()
            .max_messages_per_batch(FRAMES_PER_PULL)
            .expires(PULL_EXPIRES)
            .heartbeat(PULL_EXPIRES / 2)
            .messages()
            .await
            .map_err(|error| text(&error))?;
        Ok(Self {
            pending: made.cached_info().num_pending,
            consumer: made.cached_info().name.clone(),
            stream: stream.clone(),
            bus_epoch: Arc::clone(&run.origin.bus_epoch),
            corrections: run.worker.battery.corrections(),
            messages,
            held: None,
            battery,
        })
    }

    /// Ends the reading. The server would find out by itself, half a minute later; until then it counts
    /// the reader among the thousand consumers that a stream may have, and others would wait.
    pub(crate) async fn close(self) {
        drop(self.messages);
        let removed = self.stream.delete_consumer(&self.consumer);
        if !matches!(timeout(CLOSE_WITHIN, removed).await, Ok(Ok(_))) {
            tracing::debug!("a reader of {} is left to the server", self.battery);
        }
    }

    /// Returns the next frames behind `position`; those of older epochs than the target's are
    /// passed over where they do not continue, since nobody can fill their gaps.
    ///
    /// May be dropped while waiting: no message is lost by that.
    pub(crate) async fn next(
        &mut self,
        mut position: Option<Position>,
        target: Option<Position>,
    ) -> Result<Read, CatchUpError> {
        fault::passed("twin.catching_up");
        let mut frames = Vec::new();
        let mut origin = Origin {
            bus_epoch: Arc::clone(&self.bus_epoch),
            stream_sequence: 0,
        };
        while frames.len() < FRAMES_AT_ONCE {
            let message = match self.message(frames.is_empty()).await? {
                Some(message) => message,
                None if frames.is_empty() => return Ok(Read::End),
                None => break,
            };
            let info = message
                .info()
                .map_err(|error| CatchUpError::Stream(error.to_string()))?;
            let (sequence, pending) = (info.stream_sequence, info.pending);
            if is_old(&message, position) {
                self.pending = pending;
                continue;
            }
            let frame = match decode(&self.battery, &message.payload) {
                Ok(frame) => frame,
                Err(reason) => {
                    tracing::error!("frame {sequence} of {} is left out: {reason}", self.battery);
                    self.pending = pending;
                    continue;
                }
            };
            match continuity(position, &frame) {
                Continuity::Next if !is_corrected(&self.corrections, &frame) => {
                    position = Some(end_of(&frame));
                    origin.stream_sequence = sequence;
                    frames.push(Arc::new(frame));
                }
                Continuity::Old => {}
                _ if target.is_some_and(|target| frame.epoch < target.epoch) => {}
                found if frames.is_empty() => {
                    self.held = Some(message);
                    // The rows of a corrected frame are missing, too.
                    let before = match found {
                        Continuity::Next => frame.last_seq() + 1,
                        _ => frame.first_seq,
                    };
                    let epoch = frame.epoch;
                    return Ok(Read::Gap { epoch, before });
                }
                _ => {
                    self.held = Some(message);
                    break;
                }
            }
            self.pending = pending;
        }
        Ok(Read::Frames(frames, origin))
    }

    /// Returns the next message, waiting for it only if asked to, or nothing at the end.
    async fn message(&mut self, wait: bool) -> Result<Option<Message>, CatchUpError> {
        if let Some(held) = self.held.take() {
            return Ok(Some(held));
        }
        if self.pending == 0 {
            // More may have come since; what is already here is taken along.
            return match self.messages.next().now_or_never() {
                Some(Some(Ok(message))) => Ok(Some(message)),
                _ => Ok(None),
            };
        }
        let next = if wait {
            self.messages.next().await
        } else {
            match self.messages.next().now_or_never() {
                Some(next) => next,
                None => return Ok(None),
            }
        };
        match next {
            Some(Ok(message)) => Ok(Some(message)),
            Some(Err(error)) => Err(CatchUpError::Stream(format!(
                "the rows of {} cannot be read on: {error}",
                self.battery
            ))),
            None => Err(CatchUpError::Stream("the pulls ended".to_owned())),
        }
    }
}

/// Whether a message says that all its rows were dealt with, without decoding it.
fn is_old(message: &Message, position: Option<Position>) -> bool {
    let (Some(position), Some((epoch, first, last))) =
        (position, announced_rows(message.headers.as_ref()))
    else {
        return false;
    };
    position.continuity(epoch, first, last) == Continuity::Old
}

/// Describes a consumer that reads a battery's frames once, behind a message.
fn consumer(battery: &BatteryName, after: u64) -> pull::Config {
    let deliver_policy = match after {
        0 => DeliverPolicy::All,
        _ => DeliverPolicy::ByStartSequence {
            start_sequence: after + 1,
        },
    };
    pull::Config {
        filter_subject: subjects::stored_rows_of(battery),
        deliver_policy,
        ack_policy: AckPolicy::None,
        inactive_threshold: Duration::from_secs(30),
        memory_storage: true,
        num_replicas: 1,
        ..pull::Config::default()
    }
}
