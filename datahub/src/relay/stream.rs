//! The rows stream: reading a battery's last message, and appending after it by compare-and-set.

use std::error::Error;

use async_nats::jetstream::{
    context::{PublishError, PublishErrorKind},
    message::PublishMessage,
    stream::LastRawMessageErrorKind,
};
use rovi_common::{
    fault,
    frame::{RowFrame, SEQ_HEADER},
    name::BatteryName,
    subjects,
};

use super::frames::EncodedFrame;
use crate::bus::{Bus, BusError};

/// Names the subjects among which the expected last message is looked for.
///
/// The stream stores `rovi.rows.<battery>` as `rovi.rows.<partition>.<battery>`. The server
/// compares with the transformed subject by itself; looking in all partitions keeps the
/// expectation true even where somebody changed their number.
const EXPECTED_SUBJECT_HEADER: &str = "Nats-Expected-Last-Subject-Sequence-Subject";

/// The newest message of a battery on the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LastMessage {
    /// Its place in the stream.
    pub(super) stream_seq: u64,
    /// Its last row; `None` where the message is no frame of ours.
    pub(super) row: Option<LastRow>,
}

/// The newest row of a battery on the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LastRow {
    /// The life of the battery's name.
    pub(super) epoch: i64,
    /// The row's place in that life.
    pub(super) seq: i64,
    /// When the hub took it, in microseconds since 1970; tells two histories apart.
    pub(super) received: i64,
}

/// What came of sending a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// It is on the stream at this place.
    Stored(u64),
    /// Another message came before: read the last one again.
    Refused,
}

/// Reads the newest message of a battery, whatever its partition.
///
/// # Errors
/// NATS is away or the stream is missing.
pub(super) async fn last_message(
    bus: &Bus,
    battery: &BatteryName,
) -> Result<Option<LastMessage>, BusError> {
    let what = "tell the last frame of a battery";
    let stream = bus.jetstream().get_stream_no_info(subjects::ROWS_STREAM);
    let stream = stream.await.map_err(BusError::request(what))?;
    // Asked of the stream's leader: a replica's answer may be old, and then every frame refused.
    let subject = subjects::stored_rows_of(battery);
    let message = match stream.get_last_raw_message_by_subject(&subject).await {
        Ok(message) => message,
        Err(error) if matches!(error.kind(), LastRawMessageErrorKind::NoMessageFound) => {
            return Ok(None);
        }
        Err(error) => return Err(BusError::request(what)(error)),
    };
    let row = RowFrame::decode(&message.payload).ok().and_then(|frame| {
        Some(LastRow {
            epoch: frame.epoch,
            seq: frame.last_seq(),
            received: *frame.received.last()?,
        })
    });
    let stream_seq = message.sequence;
    if row.is_none() {
        tracing::warn!(
            battery.id = %battery,
            "message {stream_seq} of the rows stream, on the subject of {battery}, is no row \
             frame: going on after it"
        );
    }
    Ok(Some(LastMessage { stream_seq, row }))
}

/// Appends a frame if `expected` is still the battery's last message (0: there is none).
///
/// # Errors
/// NATS is away, the stream is missing, or no acknowledgement came; the frame may have been
/// stored all the same.
pub(super) async fn send(
    bus: &Bus,
    battery: &BatteryName,
    frame: &EncodedFrame,
    expected: u64,
) -> Result<Sent, BusError> {
    let message = PublishMessage::build()
        .payload(frame.bytes.clone())
        .header(SEQ_HEADER, frame.seq_header.as_str())
        .header(
            EXPECTED_SUBJECT_HEADER,
            subjects::stored_rows_of(battery).as_str(),
        )
        .expected_last_subject_sequence(expected);
    fault::point("hub.before_publish").map_err(BusError::request("take a frame of rows"))?;
    let publish = bus
        .jetstream()
        .send_publish(subjects::rows_of(battery), message);
    let acknowledged = match publish.await {
        Ok(acknowledgement) => acknowledgement.await,
        Err(error) => Err(error),
    };
    fault::point("hub.after_publish").map_err(BusError::request("acknowledge a frame of rows"))?;
    match acknowledged {
        Ok(stored) => Ok(Sent::Stored(stored.sequence)),
        Err(error) if is_refusal(&error) => Ok(Sent::Refused),
        Err(error) => Err(BusError::request("take a frame of rows")(error)),
    }
}

/// Whether another message came before; clustered servers have a second code for it, which the
/// client only passes on as text.
fn is_refusal(error: &PublishError) -> bool {
    let is_wrong_sequence =
        |source: &(dyn Error + 'static)| source.to_string().contains("wrong last sequence");
    error.kind() == PublishErrorKind::WrongLastSequence
        || error.source().is_some_and(is_wrong_sequence)
}
