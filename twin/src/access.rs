//! What the hub tells of tokens, revoked JWTs and batteries: follows the bucket `rovi_access`.
//!
//! What was heard once goes on to count while the bus or the hub is away, and while a bucket that was
//! lost is written anew.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::{
    self,
    kv::{Entry, Operation},
};
use futures_util::StreamExt;
use rovi_common::{
    auth::{Known, record::WHOLE},
    subjects,
};
use tokio_util::sync::CancellationToken;

const LOOK_AGAIN: Duration = Duration::from_secs(2);
const TRY_AGAIN: Duration = Duration::from_millis(500);

/// Follows the bucket until the service stops.
pub(crate) async fn follow(
    jetstream: jetstream::Context,
    known: Arc<Known>,
    stop: CancellationToken,
) {
    while !stop.is_cancelled() {
        let problem = tokio::select! {
            () = stop.cancelled() => return,
            problem = follow_once(&jetstream, &known) => problem,
        };
        tracing::debug!("tokens are not heard of: {problem}");
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(TRY_AGAIN) => {}
        }
    }
}

/// Follows one life of the bucket; returns why that ended.
async fn follow_once(jetstream: &jetstream::Context, known: &Known) -> String {
    let bucket = match jetstream.get_key_value(subjects::ACCESS_BUCKET).await {
        Ok(bucket) => bucket,
        Err(error) => return error.to_string(),
    };
    let made = bucket.stream.cached_info().created;
    let mut is_whole = false;
    let mut watch = match bucket.watch_with_history(">").await {
        Ok(watch) => watch,
        Err(error) => return error.to_string(),
    };
    let mut look = tokio::time::interval(LOOK_AGAIN);
    loop {
        tokio::select! {
            entry = watch.next() => match entry {
                Some(Ok(entry)) => {
                    take(known, &entry);
                    if entry.key == WHOLE {
                        is_whole = entry.operation == Operation::Put;
                    }
                    // Nothing is behind it.
                    if is_whole && entry.delta == 0 {
                        known.set_complete();
                    }
                }
                Some(Err(error)) => return error.to_string(),
                None => return "the bucket is no longer watched".to_owned(),
            },
            _ = look.tick() => match bucket.stream.get_info().await {
                Ok(info) if info.created == made => {}
                Ok(_) => return "the bucket was made again".to_owned(),
                Err(error) => return error.to_string(),
            },
        }
    }
}

fn take(known: &Known, entry: &Entry) {
    let (kind, name) = entry.key.split_once('.').unwrap_or_default();
    let is_gone = entry.operation != Operation::Put;
    let unreadable = |error: serde_json::Error| {
        tracing::error!("{} cannot be read and is left out: {error}", entry.key);
    };
    match (kind, is_gone) {
        ("token", true) => known.forget_token(name),
        ("token", false) => match serde_json::from_slice(&entry.value) {
            Ok(token) => known.put_token(token),
            Err(error) => unreadable(error),
        },
        ("battery", true) => {
            if let Ok(battery) = name.parse() {
                known.forget_place(&battery);
            }
        }
        ("battery", false) => match serde_json::from_slice(&entry.value) {
            Ok(placement) => known.place(placement),
            Err(error) => unreadable(error),
        },
        // Not taken back where the bucket is lost: the hub never takes one back either.
        ("revoked", false) => match serde_json::from_slice(&entry.value) {
            Ok(revocation) => known.revoke(revocation),
            Err(error) => unreadable(error),
        },
        _ => {}
    }
}
