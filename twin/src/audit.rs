//! Who did what at this twin: sent to the hub, which keeps it, until it has.

use std::{sync::Arc, time::Duration};

use async_nats::Request;
use rovi_common::{
    auth::{Gate, audit::Entry},
    lifecycle::Lifecycle,
    subjects,
};
use tokio::{
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// How long an answer waits for its entry.
const WAITS_AT_MOST: Duration = Duration::from_secs(2);
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// Entries that are held while the hub is away; beyond, calls wait.
const MOST_HELD: usize = 1000;

/// Has the gate's entries sent to the hub.
pub(crate) fn start(gate: &Gate, nats: &async_nats::Client, lifecycle: &Lifecycle) {
    let held = Arc::new(Semaphore::new(MOST_HELD));
    let (tasks, stop) = (lifecycle.tracker().clone(), lifecycle.stop_token());
    let nats = nats.clone();
    gate.audit().go_to(move |entry| {
        let (nats, stop) = (nats.clone(), stop.clone());
        let (held, tasks) = (Arc::clone(&held), tasks.clone());
        Box::pin(async move {
            let place = held.acquire_owned().await;
            let kept = tasks.spawn(async move {
                until_kept(&nats, &entry, &stop).await;
                drop(place);
            });
            let _kept_or_held = timeout(WAITS_AT_MOST, kept).await;
        })
    });
}

async fn until_kept(nats: &async_nats::Client, entry: &Entry, stop: &CancellationToken) {
    let payload = serde_json::to_vec(entry).unwrap_or_default();
    loop {
        let request = Request::new()
            .payload(payload.clone().into())
            .timeout(Some(WAITS_AT_MOST));
        match nats.send_request(subjects::AUDIT, request).await {
            Ok(_kept) => return,
            Err(error) if stop.is_cancelled() => {
                tracing::error!("an entry of the audit is lost, {error}: {entry:?}");
                return;
            }
            Err(error) => tracing::warn!("an entry of the audit waits for the hub: {error}"),
        }
        sleep(RETRY_AFTER).await;
    }
}
