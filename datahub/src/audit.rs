//! Who did what: keeps the entries of this hub and of the twins in `hub.audit`, in one chain.
//!
//! An answer waits for its entry to be durable, up to [`WAITS_AT_MOST`]; beyond that the entry is
//! held until PostgreSQL takes it. One whose answer to a twin was lost may stand twice.

use std::{sync::Arc, time::Duration};

use async_nats::Message;
use futures_util::StreamExt;
use rovi_common::{
    auth::{Gate, audit::Entry},
    error::ErrorChain,
    lifecycle::Lifecycle,
    subjects,
};
use tokio::{
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    bus::{Bus, BusError},
    store::{Pool, audit},
};

/// How long an answer waits for its entry.
const WAITS_AT_MOST: Duration = Duration::from_secs(2);
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// Entries that are held while PostgreSQL is away; beyond, calls wait.
const MOST_HELD: usize = 1000;

/// Has the gate's entries kept, and those that twins send.
pub(crate) fn start(gate: &Gate, bus: &Arc<Bus>, pool: &Pool, lifecycle: &Lifecycle) {
    let held = Arc::new(Semaphore::new(MOST_HELD));
    let (tasks, stop) = (lifecycle.tracker().clone(), lifecycle.stop_token());
    let own = pool.clone();
    gate.audit().go_to(move |entry| {
        let (pool, stop) = (own.clone(), stop.clone());
        let (held, tasks) = (Arc::clone(&held), tasks.clone());
        Box::pin(async move {
            let place = held.acquire_owned().await;
            let kept = tasks.spawn(async move {
                until_kept(&pool, &entry, &stop).await;
                drop(place);
            });
            let _kept_or_held = timeout(WAITS_AT_MOST, kept).await;
        })
    });
    let (bus, pool, stop) = (Arc::clone(bus), pool.clone(), lifecycle.stop_token());
    lifecycle.supervise("audit", async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = serve(&bus, &pool) => {}
        }
    });
}

async fn until_kept(pool: &Pool, entry: &Entry, stop: &CancellationToken) {
    loop {
        let one = entry.clone();
        match pool.run(move |conn| audit::append(conn, &one)).await {
            Ok(()) => return,
            Err(error) if stop.is_cancelled() => {
                let why = ErrorChain(&error);
                tracing::error!("an entry of the audit is lost, {why}: {entry:?}");
                return;
            }
            Err(error) => tracing::warn!("an entry of the audit waits: {}", ErrorChain(&error)),
        }
        sleep(RETRY_AFTER).await;
    }
}

async fn serve(bus: &Bus, pool: &Pool) {
    while bus.ready().await.is_some() {
        match subscribe(bus).await {
            Ok(mut entries) => {
                while let Some(message) = entries.next().await {
                    keep(bus, pool, message).await;
                }
            }
            Err(error) => {
                tracing::warn!("twins' entries are not heard: {}", ErrorChain(&error));
                bus.doubt();
            }
        }
        sleep(RETRY_AFTER).await;
    }
}

async fn subscribe(bus: &Bus) -> Result<impl StreamExt<Item = Message> + use<>, BusError> {
    let queue = subjects::HUB_QUEUE.to_owned();
    let subscribed = bus.client().queue_subscribe(subjects::AUDIT, queue).await;
    subscribed.map_err(BusError::request("take a subscription"))
}

/// Answers once an entry is durable; a twin that hears nothing sends it again.
async fn keep(bus: &Bus, pool: &Pool, message: Message) {
    let Ok(entry) = serde_json::from_slice::<Entry>(&message.payload) else {
        tracing::error!("an entry that nobody can read is left out");
        return;
    };
    if let Err(error) = pool.run(move |conn| audit::append(conn, &entry)).await {
        tracing::warn!("a twin's entry waits: {}", ErrorChain(&error));
        return;
    }
    if let Some(inbox) = message.reply {
        let _sent_or_again = bus.client().publish(inbox, "kept".into()).await;
    }
}
