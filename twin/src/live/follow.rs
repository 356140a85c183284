//! Follows the stream of states onto the board, and makes the stream anew where it is lost: it
//! lives in memory, so a restart of NATS empties it.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::{
    Message,
    consumer::{DeliverPolicy, pull},
    stream::Stream,
};
use futures_util::StreamExt;
use rovi_common::{http::Readiness, news::BatteryState, streams, subjects};

use super::board::Place;
use crate::{
    fleet::{Fleet, Shared},
    state::fill,
};

/// The part of the readiness that this task tells.
pub(crate) const READY_PART: &str = "state";
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Follows the stream until the service stops.
pub(crate) async fn follow(fleet: Arc<Fleet>, readiness: Readiness) {
    let shared = fleet.shared();
    while !shared.stop.is_cancelled() {
        let problem = tokio::select! {
            () = shared.stop.cancelled() => return,
            problem = follow_once(shared, &readiness) => problem,
        };
        readiness.set(READY_PART, Some(problem));
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_AGAIN / 4) => {}
        }
    }
}

/// Follows one life of the stream; returns why that ended.
async fn follow_once(shared: &Shared, readiness: &Readiness) -> String {
    let name = subjects::STATE_STREAM;
    let text = |error: &dyn std::error::Error| format!("the stream {name} is away: {error}");
    let stream = streams::ensure_states(&shared.jetstream, &shared.settings.bus).await;
    let stream = match stream {
        Ok(stream) => stream,
        Err(error) => return text(&error),
    };
    let life = life(&stream);
    let mut messages = match read(&stream).await {
        Ok(messages) => messages,
        Err(error) => return text(&*error),
    };
    for battery in shared.board.begin(life) {
        shared.outlet.touch(&battery);
    }
    if stream.cached_info().state.messages == 0
        && let Err(problem) = fill(shared).await
    {
        tracing::info!("batteries without new rows have no state yet: {problem}");
    }
    readiness.set(READY_PART, None);
    let mut look = tokio::time::interval(LOOK_AGAIN);
    loop {
        tokio::select! {
            message = messages.next() => match message {
                Some(Ok(message)) => take(shared, life, &message),
                Some(Err(error)) => return text(&error),
                None => return format!("the stream {name} is no longer followed; trying again"),
            },
            _ = look.tick() => match stream.get_info().await {
                Ok(info) if info.created.unix_timestamp_nanos() == life => {}
                Ok(_) => return format!("the stream {name} was made again"),
                Err(error) => return text(&error),
            },
        }
    }
}

/// Reads the newest state of each battery, then each that comes.
async fn read(stream: &Stream) -> Result<pull::Ordered, async_nats::Error> {
    let config = pull::OrderedConfig {
        filter_subject: subjects::all_states(),
        deliver_policy: DeliverPolicy::LastPerSubject,
        ..pull::OrderedConfig::default()
    };
    Ok(stream.create_consumer(config).await?.messages().await?)
}

fn life(stream: &Stream) -> i128 {
    stream.cached_info().created.unix_timestamp_nanos()
}

/// Puts a state on the board; one that cannot be read is told in the log and left out.
fn take(shared: &Shared, life: i128, message: &Message) {
    let Some(battery) = subjects::parse_state(&message.subject) else {
        return;
    };
    if message.payload.is_empty() {
        return shared.board.remove(&battery);
    }
    let sequence = message.info().map_or(0, |info| info.stream_sequence);
    match BatteryState::decode(&message.payload) {
        Ok(state) if state.battery == battery => {
            shared.board.offer(state, Place { life, sequence });
        }
        Ok(state) => {
            tracing::warn!(
                "a state of {} on {} is left out",
                state.battery,
                message.subject
            );
        }
        Err(error) => tracing::warn!("a state of {battery} cannot be read: {error}"),
    }
}
