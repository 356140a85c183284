//! What happened to batteries, on its way to `rovi.event.<battery>`: in order, sent until the stream
//! has it, once by its identifier.

use std::time::Duration;

use async_nats::jetstream::{self, message::PublishMessage};
use rovi_common::{
    clock,
    news::{EstimatorChange, Event, Happening, NEWS_VERSION},
    registration::Registration,
    streams::{self, BusSettings, EVENT_DEDUPE},
    subjects,
};
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;

/// Events that wait to be sent; beyond that the newest are lost and told in the log.
const QUEUE: usize = 4096;
const TRY_AGAIN: Duration = Duration::from_millis(500);

/// Takes events and sends them.
#[derive(Debug)]
pub struct Events {
    queue: mpsc::Sender<Event>,
    inbox: Mutex<mpsc::Receiver<Event>>,
}

impl Default for Events {
    fn default() -> Self {
        let (queue, inbox) = mpsc::channel(QUEUE);
        Self {
            queue,
            inbox: Mutex::new(inbox),
        }
    }
}

impl Events {
    /// Has an event sent.
    pub fn tell(&self, event: Event) {
        if let Err(error) = self.queue.try_send(event) {
            tracing::error!("an event is lost, too many wait for the bus: {error}");
        }
    }

    /// Tells of a registration or removal, if it is a new one: a twin that starts hears of old ones.
    ///
    /// Every twin does; the stream takes the first and knows the others by their identifier.
    pub fn tell_registration(&self, registration: &Registration, replaces: bool) {
        let fresh = i64::try_from(EVENT_DEDUPE.as_micros()).unwrap_or(i64::MAX) / 2;
        if clock::now_us().saturating_sub(registration.changed) > fresh {
            return;
        }
        let change = EstimatorChange {
            estimator: registration.estimator.clone(),
            revision: registration.revision,
            reason: None,
        };
        let happening = match (registration.deleted, registration.standing.change.as_str()) {
            (true, _) => Happening::EstimatorRemoved(change),
            (false, "promoted") => Happening::EstimatorPromoted(change),
            (false, "paused") => Happening::EstimatorPaused(change),
            (false, "resumed") => Happening::EstimatorResumed(change),
            (false, "reset") => Happening::EstimatorReset(change),
            (false, _) if replaces => Happening::EstimatorReplaced(change),
            (false, _) => Happening::EstimatorRegistered(change),
        };
        let (battery, version) = (registration.battery.clone(), registration.version());
        self.tell(Event {
            v: NEWS_VERSION,
            id: format!("{battery}.{}.revision.{version}", registration.estimator),
            battery,
            at: registration.changed,
            happening,
        });
    }

    /// Sends events until the service stops.
    pub async fn send(
        &self,
        jetstream: jetstream::Context,
        settings: BusSettings,
        stop: CancellationToken,
    ) {
        let mut inbox = self.inbox.lock().await;
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => return,
                event = inbox.recv() => event,
            };
            let Some(event) = event else { return };
            tokio::select! {
                () = stop.cancelled() => return,
                () = until_sent(&jetstream, &settings, &event) => {}
            }
        }
    }
}

async fn until_sent(jetstream: &jetstream::Context, settings: &BusSettings, event: &Event) {
    while let Err(problem) = send(jetstream, settings, event).await {
        tracing::debug!("event {} waits for the bus: {problem}", event.id);
        tokio::time::sleep(TRY_AGAIN).await;
    }
}

/// Sends one event; one that the stream has already is taken for sent.
///
/// # Errors
/// NATS is away or refuses.
pub(crate) async fn send(
    jetstream: &jetstream::Context,
    settings: &BusSettings,
    event: &Event,
) -> Result<(), String> {
    let message = || {
        PublishMessage::build()
            .payload(event.encode().into())
            .message_id(&event.id)
    };
    let subject = subjects::event_of(&event.battery);
    let sent = match jetstream.send_publish(subject.clone(), message()).await {
        Ok(acknowledged) => acknowledged.await,
        Err(error) => Err(error),
    };
    if sent.is_ok() {
        return Ok(());
    }
    // The stream may be missing: it is made by whoever needs it first.
    let made = streams::ensure_events(jetstream, settings).await;
    made.map_err(|error| error.to_string())?;
    let sent = jetstream.send_publish(subject, message()).await;
    let sent = sent.map_err(|error| error.to_string())?;
    sent.await.map(drop).map_err(|error| error.to_string())
}
