//! Which estimators there are: follows the bucket that the hub keeps.
//!
//! Changes arrive as they are made. Every few seconds the bucket itself is looked at: one that was
//! wiped and made again is read from its beginning, and what it lacks meanwhile stays in force,
//! since the hub will write it again.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::kv::{Entry, Operation, Watch};
use futures_util::StreamExt;
use rovi_common::{http::Readiness, registration::Registration, subjects};

use crate::fleet::Fleet;

/// The part of the readiness that this task tells.
pub const READY_PART: &str = "registrations";

const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Follows the bucket until the service stops.
pub async fn follow(fleet: Arc<Fleet>, readiness: Readiness) {
    let stop = fleet.shared().stop.clone();
    while !stop.is_cancelled() {
        let problem = tokio::select! {
            () = stop.cancelled() => return,
            problem = follow_once(&fleet, &readiness) => problem,
        };
        readiness.set(READY_PART, Some(problem));
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_AGAIN / 4) => {}
        }
    }
}

/// Follows one life of the bucket; returns why that ended.
async fn follow_once(fleet: &Fleet, readiness: &Readiness) -> String {
    let name = subjects::ESTIMATORS_BUCKET;
    let missing = |error: &dyn std::error::Error| {
        format!("the bucket {name}, which the hub makes, cannot be read: {error}")
    };
    let bucket = match fleet.shared().jetstream.get_key_value(name).await {
        Ok(bucket) => bucket,
        Err(error) => return missing(&error),
    };
    let made = bucket.stream.cached_info().created;
    let mut watch: Watch = match bucket.watch_with_history(">").await {
        Ok(watch) => watch,
        Err(error) => return missing(&error),
    };
    readiness.set(READY_PART, None);
    let mut look = tokio::time::interval(LOOK_AGAIN);
    loop {
        tokio::select! {
            entry = watch.next() => match entry {
                Some(Ok(entry)) => apply(fleet, &entry),
                Some(Err(error)) => return missing(&error),
                None => return format!("the bucket {name} is no longer watched; trying again"),
            },
            _ = look.tick() => match bucket.stream.get_info().await {
                Ok(info) if info.created == made => {}
                Ok(_) => return format!("the bucket {name} was made again"),
                Err(error) => return missing(&error),
            },
        }
    }
}

fn apply(fleet: &Fleet, entry: &Entry) {
    let key = &entry.key;
    if entry.operation != Operation::Put {
        if let Some((battery, estimator)) = subjects::parse_estimator_key(key) {
            fleet.forget(&battery, &estimator);
        }
        return;
    }
    match serde_json::from_slice::<Registration>(&entry.value) {
        Ok(registration) => fleet.apply(registration),
        Err(error) => tracing::error!("registration {key} cannot be read and is left out: {error}"),
    }
}
