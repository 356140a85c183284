//! Reads rules and episodes from their buckets, as they are and as they change.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::kv::{Entry, Operation, Store};
use futures_util::StreamExt;
use rovi_common::{streams, subjects};

use crate::fleet::{Fleet, Shared};

const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Follows both buckets until the service stops.
pub(crate) async fn follow(fleet: Arc<Fleet>) {
    let shared = fleet.shared();
    while !shared.stop.is_cancelled() {
        let problem = tokio::select! {
            () = shared.stop.cancelled() => return,
            problem = follow_once(shared) => problem,
        };
        tracing::debug!("alerts wait: {problem}");
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_AGAIN / 4) => {}
        }
    }
}

/// Follows one life of the buckets; returns why that ended.
async fn follow_once(shared: &Shared) -> String {
    let (jetstream, bus) = (&shared.jetstream, &shared.settings.bus);
    let rules = match jetstream.get_key_value(subjects::ALERT_RULES_BUCKET).await {
        Ok(bucket) => bucket,
        Err(error) => return format!("the bucket of rules, which the hub makes, is away: {error}"),
    };
    let alerts = match streams::bucket(jetstream, subjects::ALERTS_BUCKET, bus).await {
        Ok(bucket) => bucket,
        Err(error) => return format!("the bucket of alerts is away: {error}"),
    };
    shared.alerts.begin();
    let (mut of_rules, mut of_alerts) = match (
        rules.watch_with_history(">").await,
        alerts.watch_with_history(">").await,
    ) {
        (Ok(of_rules), Ok(of_alerts)) => (of_rules, of_alerts),
        (Err(error), _) | (_, Err(error)) => return format!("a bucket cannot be read: {error}"),
    };
    let mut look = tokio::time::interval(LOOK_AGAIN);
    loop {
        tokio::select! {
            entry = of_rules.next() => match entry {
                Some(Ok(entry)) => take_rule(shared, &entry),
                _ => return "the rules are no longer watched".to_owned(),
            },
            entry = of_alerts.next() => match entry {
                Some(Ok(entry)) => take_episode(shared, &entry),
                _ => return "the alerts are no longer watched".to_owned(),
            },
            _ = look.tick() => if !(is_same(&rules).await && is_same(&alerts).await) {
                return "a bucket was made again".to_owned();
            },
        }
    }
}

async fn is_same(bucket: &Store) -> bool {
    let made = bucket.stream.cached_info().created;
    let info = bucket.stream.get_info().await;
    info.is_ok_and(|info| info.created == made)
}

fn take_rule(shared: &Shared, entry: &Entry) {
    if entry.operation != Operation::Put {
        if let Ok(rule) = entry.key.parse() {
            shared.alerts.forget(&rule);
        }
        return;
    }
    match serde_json::from_slice(&entry.value) {
        Ok(rule) => shared.alerts.apply(rule),
        Err(error) => tracing::error!("alert rule {} cannot be read: {error}", entry.key),
    }
}

fn take_episode(shared: &Shared, entry: &Entry) {
    if entry.operation != Operation::Put {
        return;
    }
    match serde_json::from_slice(&entry.value) {
        Ok(episode) => shared.alerts.place(entry.revision, episode),
        Err(error) => tracing::error!("alert {} cannot be read: {error}", entry.key),
    }
}
