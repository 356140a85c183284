//! Reads states and estimates from their streams, as anybody may.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_nats::jetstream::{
    self, Message,
    consumer::{DeliverPolicy, pull},
    stream::Stream,
};
use futures_util::StreamExt;
use rovi_common::{frame::EstimateFrame, http::Readiness, news::BatteryState, subjects};

use super::recent::Recent;

/// Parts of the readiness that are told here.
pub(super) const STATES_PART: &str = "states";
pub(super) const ESTIMATES_PART: &str = "estimates";
const LOOK_AGAIN: Duration = Duration::from_secs(2);
const TRY_AGAIN: Duration = Duration::from_millis(500);

/// Which stream is read.
#[derive(Debug, Clone, Copy)]
pub(super) enum What {
    States,
    Estimates,
}

impl What {
    pub(super) fn part(self) -> &'static str {
        match self {
            Self::States => STATES_PART,
            Self::Estimates => ESTIMATES_PART,
        }
    }

    fn stream(self) -> &'static str {
        match self {
            Self::States => subjects::STATE_STREAM,
            Self::Estimates => subjects::ESTIMATES_STREAM,
        }
    }

    fn subjects(self) -> String {
        match self {
            Self::States => subjects::all_states(),
            Self::Estimates => subjects::all_estimates(),
        }
    }
}

/// Follows a stream, and the one that is made in its place, until it is dropped.
pub(super) async fn follow(
    what: What,
    jetstream: jetstream::Context,
    recent: Arc<Mutex<Recent>>,
    readiness: Readiness,
) {
    loop {
        let problem = follow_once(what, &jetstream, &recent, &readiness).await;
        readiness.set(what.part(), Some(problem));
        tokio::time::sleep(TRY_AGAIN).await;
    }
}

/// Follows one life of the stream; returns why that ended.
async fn follow_once(
    what: What,
    jetstream: &jetstream::Context,
    recent: &Mutex<Recent>,
    readiness: &Readiness,
) -> String {
    let name = what.stream();
    // It is the hub's and the other twins' to make.
    let stream = match jetstream.get_stream(name).await {
        Ok(stream) => stream,
        Err(error) => return format!("the stream {name} is away: {error}"),
    };
    let mut messages = match read(&stream, what.subjects()).await {
        Ok(messages) => messages,
        Err(error) => return format!("the stream {name} cannot be read: {error}"),
    };
    readiness.set(what.part(), None);
    let made = stream.cached_info().created;
    let mut look = tokio::time::interval(LOOK_AGAIN);
    loop {
        tokio::select! {
            message = messages.next() => match message {
                Some(Ok(message)) => take(what, recent, &message),
                Some(Err(error)) => return format!("the stream {name} is away: {error}"),
                None => return format!("the stream {name} is no longer followed; trying again"),
            },
            _ = look.tick() => match stream.get_info().await {
                Ok(info) if info.created == made => {}
                Ok(_) => return format!("the stream {name} was made again"),
                Err(error) => return format!("the stream {name} is away: {error}"),
            },
        }
    }
}

/// Reads the newest message of each subject, then each that comes.
async fn read(stream: &Stream, filter_subject: String) -> Result<pull::Ordered, async_nats::Error> {
    let config = pull::OrderedConfig {
        filter_subject,
        deliver_policy: DeliverPolicy::LastPerSubject,
        ..pull::OrderedConfig::default()
    };
    Ok(stream.create_consumer(config).await?.messages().await?)
}

/// Takes a message; one that cannot be read is told in the log and left out.
fn take(what: What, recent: &Mutex<Recent>, message: &Message) {
    let mut recent = recent.lock().unwrap_or_else(PoisonError::into_inner);
    let unreadable = |error: &dyn std::error::Error| {
        tracing::warn!("a message on {} cannot be read: {error}", message.subject);
    };
    match what {
        What::States if message.payload.is_empty() => {
            if let Some(battery) = subjects::parse_state(&message.subject) {
                recent.forget(&battery);
            }
        }
        What::States => match BatteryState::decode(&message.payload) {
            Ok(state) => recent.name_champion(&state),
            Err(error) => unreadable(&error),
        },
        What::Estimates => match EstimateFrame::decode(&message.payload) {
            Ok(frame) => recent.take(&frame),
            Err(error) => unreadable(&error),
        },
    }
}
