//! Rules of alerts: twins ask, the hub commits, the bucket tells all twins.
//!
//! In: requests on `rovi.hub.alert_rules.*`. Out: lines of `hub.alert_rules`, an answer once they are
//! durable, and then the bucket `rovi_alert_rules`, which is made equal to the table after each
//! change, on each new life of the bus and every few seconds.

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_nats::{Message, jetstream::kv};
use futures_util::{StreamExt, TryStreamExt};
use rovi_common::{
    alerts::{AlertRule, AlertRuleReply},
    error::ErrorChain,
    lifecycle::Lifecycle,
    streams, subjects,
};
use serde::de::DeserializeOwned;
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use crate::{
    bus::{Bus, BusError},
    store::{Pool, StoreError, alert_rules},
};

const RETRY_AFTER: Duration = Duration::from_millis(500);
/// How often the bucket is compared with the table, for rules that another hub could not tell.
const COMPARE_EVERY: Duration = Duration::from_secs(10);

/// Why the bucket does not equal the table.
#[derive(Debug, thiserror::Error)]
enum ProjectionError {
    /// The bus is away or refuses.
    #[error(transparent)]
    Bus(BusError),
    /// The table cannot be read.
    #[error("the alert rules cannot be read")]
    Store(#[source] StoreError),
}

/// Answers twins about rules.
#[derive(Debug, Clone)]
pub struct AlertRules {
    bus: Arc<Bus>,
    pool: Pool,
    changed: Arc<Notify>,
}

impl AlertRules {
    /// Makes the service; nothing is answered until [`AlertRules::start`].
    pub fn new(bus: Arc<Bus>, pool: Pool) -> Self {
        let changed = Arc::default();
        Self { bus, pool, changed }
    }

    /// Starts answering and keeping the bucket, until the service stops.
    pub fn start(self, lifecycle: &Lifecycle) {
        let (stop, keeper) = (lifecycle.stop_token(), self.clone());
        lifecycle.supervise("alert_rules.projection", async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = keeper.keep() => {}
            }
        });
        let stop = lifecycle.stop_token();
        lifecycle.supervise("alert_rules", async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.serve() => {}
            }
        });
    }

    async fn serve(self) {
        while self.bus.ready().await.is_some() {
            match self.subscribe().await {
                Ok(mut requests) => {
                    while let Some(request) = requests.next().await {
                        self.answer(request).await;
                    }
                }
                Err(error) => {
                    tracing::warn!("alert rules cannot be served: {}", ErrorChain(&error));
                    self.bus.doubt();
                }
            }
            sleep(RETRY_AFTER).await;
        }
    }

    async fn subscribe(&self) -> Result<impl StreamExt<Item = Message> + use<>, BusError> {
        let client = self.bus.client();
        let what = "take a subscription";
        let queue = || subjects::HUB_QUEUE.to_owned();
        let put = client.queue_subscribe(subjects::PUT_ALERT_RULE, queue());
        let put = put.await.map_err(BusError::request(what))?;
        let delete = client.queue_subscribe(subjects::DELETE_ALERT_RULE, queue());
        let delete = delete.await.map_err(BusError::request(what))?;
        Ok(futures_util::stream::select(put, delete))
    }

    async fn answer(&self, request: Message) {
        let reply = self.commit(&request).await;
        // Not with the whole rule: paths of webhooks are often secrets.
        let outcome = match &reply {
            AlertRuleReply::Done(rule) => format!("{}, revision {}", rule.rule, rule.revision),
            refused => format!("{refused:?}"),
        };
        tracing::info!("a request on {} is answered: {outcome}", request.subject);
        if let Some(inbox) = request.reply {
            let body = serde_json::to_vec(&reply).unwrap_or_default();
            if let Err(error) = self.bus.client().publish(inbox, body.into()).await {
                tracing::warn!("an answer about an alert rule was not sent: {error}");
            }
        }
        self.changed.notify_one();
    }

    async fn commit(&self, request: &Message) -> AlertRuleReply {
        if request.subject.as_str() == subjects::PUT_ALERT_RULE {
            let put = match parse(&request.payload) {
                Ok(put) => put,
                Err(refused) => return refused,
            };
            let commit = move |conn: &mut _| alert_rules::put(conn, &put);
            return answer_of(self.pool.run(commit).await);
        }
        let delete = match parse(&request.payload) {
            Ok(delete) => delete,
            Err(refused) => return refused,
        };
        let commit = move |conn: &mut _| alert_rules::delete(conn, &delete);
        answer_of(self.pool.run(commit).await)
    }

    /// Makes the bucket equal to the table, again and again.
    async fn keep(&self) {
        let mut states = self.bus.watch();
        while self.bus.ready().await.is_some() {
            states.mark_unchanged();
            match self.project().await {
                Ok(()) => {
                    let until = async {
                        tokio::select! {
                            () = self.changed.notified() => {}
                            _life = states.changed() => {}
                        }
                    };
                    let _changed_or_not = timeout(COMPARE_EVERY, until).await;
                }
                Err(error) => {
                    tracing::warn!(
                        "the bucket of alert rules waits to be mended: {}",
                        ErrorChain(&error)
                    );
                    self.bus.doubt();
                    sleep(RETRY_AFTER).await;
                }
            }
        }
    }

    async fn project(&self) -> Result<(), ProjectionError> {
        let name = subjects::ALERT_RULES_BUCKET;
        let bucket = streams::bucket(self.bus.jetstream(), name, self.bus.settings()).await;
        let bucket = bucket.map_err(refused("open the bucket of alert rules"))?;
        // The bucket is read before the table: so the table can only be newer.
        let mut known = entries(&bucket).await?;
        let rules = self.pool.run(alert_rules::list).await;
        for rule in rules.map_err(ProjectionError::Store)? {
            let key = rule.rule.to_string();
            let (place, told) = known.remove(&key).unwrap_or((0, None));
            if told.as_ref() == Some(&rule) {
                continue;
            }
            let value = serde_json::to_vec(&rule).unwrap_or_default();
            let updated = bucket.update(key.as_str(), value.into(), place).await;
            updated.map_err(refused("take an alert rule"))?;
        }
        for key in known.into_keys() {
            let purged = bucket.purge(key.as_str()).await;
            purged.map_err(refused("forget an alert rule"))?;
        }
        Ok(())
    }
}

/// Reads what the bucket says, and where.
async fn entries(
    bucket: &kv::Store,
) -> Result<HashMap<String, (u64, Option<AlertRule>)>, ProjectionError> {
    let what = "list the alert rules";
    let keys = bucket.keys().await.map_err(refused(what))?;
    let keys: Vec<String> = keys.try_collect().await.map_err(refused(what))?;
    let mut entries = HashMap::new();
    for key in keys {
        let entry = bucket.entry(key.as_str()).await.map_err(refused(what))?;
        if let Some(entry) = entry {
            let rule = serde_json::from_slice(&entry.value).ok();
            entries.insert(key, (entry.revision, rule));
        }
    }
    Ok(entries)
}

fn refused<E: Into<async_nats::Error>>(what: &'static str) -> impl FnOnce(E) -> ProjectionError {
    move |error| ProjectionError::Bus(BusError::request(what)(error))
}

fn parse<T: DeserializeOwned>(payload: &[u8]) -> Result<T, AlertRuleReply> {
    serde_json::from_slice(payload).map_err(|error| AlertRuleReply::Refused {
        detail: format!("the request is not of the form that the hub knows: {error}"),
    })
}

fn answer_of(committed: Result<Option<AlertRule>, StoreError>) -> AlertRuleReply {
    match committed {
        Ok(Some(rule)) => AlertRuleReply::Done(Box::new(rule)),
        Ok(None) => AlertRuleReply::NotFound,
        Err(error) => AlertRuleReply::Unavailable {
            detail: ErrorChain(&error).to_string(),
        },
    }
}
