//! Which stored rows were corrected or deleted: follows the bucket that the hub keeps.
//!
//! Nothing is estimated before the bucket was read once; what comes later makes estimators go back.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::kv::{Entry, Operation};
use futures_util::StreamExt;
use rovi_common::{
    corrections::{CORRECTIONS_VERSION, Corrections},
    streams, subjects,
};

use crate::fleet::Fleet;

const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Follows the bucket until the service stops.
pub async fn follow(fleet: Arc<Fleet>) {
    let stop = fleet.shared().stop.clone();
    while !stop.is_cancelled() {
        let problem = tokio::select! {
            () = stop.cancelled() => return,
            problem = follow_once(&fleet) => problem,
        };
        tracing::debug!("{problem}");
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_AGAIN / 4) => {}
        }
    }
}

/// Follows one life of the bucket; returns why that ended.
async fn follow_once(fleet: &Fleet) -> String {
    let name = subjects::CORRECTIONS_BUCKET;
    let missing =
        |error: &dyn std::error::Error| format!("the bucket {name} cannot be read: {error}");
    let shared = fleet.shared();
    let opened = streams::bucket(&shared.jetstream, name, &shared.settings.bus).await;
    let bucket = match opened {
        Ok(bucket) => bucket,
        Err(error) => return missing(&error),
    };
    let info = bucket.stream.cached_info();
    let (made, mut left) = (info.created, info.state.messages);
    let mut watch = match bucket.watch_with_history(">").await {
        Ok(watch) => watch,
        Err(error) => return missing(&error),
    };
    let mut look = tokio::time::interval(LOOK_AGAIN);
    let (mut seen, mut missed) = (0, None);
    loop {
        if left == 0 {
            shared.knows_corrections.send_replace(true);
        }
        tokio::select! {
            entry = watch.next() => match entry {
                Some(Ok(entry)) => {
                    seen = entry.revision.max(seen);
                    left = if entry.delta == 0 { 0 } else { left.saturating_sub(1) };
                    apply(fleet, &entry);
                }
                Some(Err(error)) => return missing(&error),
                None => return format!("the bucket {name} is no longer watched; trying again"),
            },
            _ = look.tick() => match bucket.stream.get_info().await {
                Ok(info) if info.created != made => {
                    return format!("the bucket {name} was made again");
                }
                Ok(info) => {
                    // What is silent about the same entry twice has lost its way.
                    let is_behind = info.state.messages > 0 && info.state.last_sequence > seen;
                    if is_behind && missed == Some(seen) {
                        return format!("the watch of {name} missed entries behind {seen}");
                    }
                    missed = is_behind.then_some(seen);
                }
                Err(error) => return missing(&error),
            },
        }
    }
}

fn apply(fleet: &Fleet, entry: &Entry) {
    if entry.operation != Operation::Put {
        return;
    }
    match serde_json::from_slice::<Corrections>(&entry.value) {
        Ok(told) if told.v == CORRECTIONS_VERSION => fleet.battery(&told.battery).correct(told),
        Ok(told) => tracing::error!(
            "corrections of {} have version {}, this build reads {CORRECTIONS_VERSION}",
            told.battery,
            told.v
        ),
        Err(error) => {
            tracing::error!("corrections {} cannot be read: {error}", entry.key);
        }
    }
}
