//! States of batteries whose rows came before there was a stream of states: once for each new one.

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use futures_util::StreamExt;
use rovi_common::subjects;

use crate::{
    filter::Position,
    fleet::Shared,
    subscribe::{announced_rows, open_stream},
};

/// Frames asked for at once.
const FRAMES_PER_PULL: usize = 64;

/// Looks at the last frame of every battery.
///
/// # Errors
/// The rows cannot be read now.
pub(crate) async fn fill(shared: &Shared) -> Result<(), String> {
    let text = |error: &dyn std::error::Error| format!("the newest rows cannot be read: {error}");
    let stream = open_stream(shared).await?;
    let config = pull::Config {
        filter_subject: subjects::all_stored_rows(),
        deliver_policy: DeliverPolicy::LastPerSubject,
        ack_policy: AckPolicy::None,
        memory_storage: true,
        num_replicas: 1,
        ..pull::Config::default()
    };
    let consumer = stream.create_consumer(config).await;
    let consumer = consumer.map_err(|error| text(&error))?;
    let mut left = consumer.cached_info().num_pending;
    let messages = consumer.stream().max_messages_per_batch(FRAMES_PER_PULL);
    let mut messages = messages.messages().await.map_err(|error| text(&error))?;
    while left > 0 {
        let Some(message) = messages.next().await else {
            return Err("the newest rows cannot be read: the pulls ended".to_owned());
        };
        let message = message.map_err(|error| text(&error))?;
        left -= 1;
        let battery = subjects::parse_stored_rows(&message.subject);
        let rows = announced_rows(message.headers.as_ref());
        if let (Some((_, battery)), Some((epoch, _, seq))) = (battery, rows) {
            let last = Position { epoch, seq };
            shared.outlet.row(&battery, last, &message.payload, false);
        }
    }
    Ok(())
}
