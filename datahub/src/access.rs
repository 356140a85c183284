//! Tokens, revocations of JWTs and placements: the tables are the truth, this hub's memory and the bucket `rovi_access`
//! follow.
//!
//! A change made here counts here at once and goes to the bucket at once. Changes of other hubs are
//! found in the tables within `LOOK_EVERY`; the bucket is compared with the tables after each
//! change, on each new life of the bus, and now and then.

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_nats::jetstream::kv;
use bytes::Bytes;
use futures_util::TryStreamExt;
use rovi_common::{
    auth::{
        Known, Placement, Revocation, TokenRecord,
        record::{WHOLE, placement_key, revocation_key, token_key},
    },
    error::ErrorChain,
    lifecycle::Lifecycle,
    streams, subjects,
};
use serde::Serialize;
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use crate::{
    bus::{Bus, BusError},
    store::{
        Pool, StoreError,
        access::{self, Fingerprint},
        revocations,
    },
};

/// How often the tables are looked at for changes of other hubs.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often they are looked at until they could be read once: nobody is let in before.
const FIRST_EVERY: Duration = Duration::from_millis(20);
/// How often the bucket is compared with the tables where nothing changed.
const COMPARE_EVERY: Duration = Duration::from_mins(1);
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// How long a change waits for the bucket before it is answered.
const TOLD_WITHIN: Duration = Duration::from_secs(1);

/// Keeps what is known, and the bucket, equal to the tables.
#[derive(Debug)]
pub struct AccessKeeper {
    bus: Arc<Bus>,
    pool: Pool,
    known: Arc<Known>,
    changed: Notify,
}

impl AccessKeeper {
    /// Makes the keeper; nothing is read until [`AccessKeeper::start`].
    pub fn new(bus: Arc<Bus>, pool: Pool, known: Arc<Known>) -> Arc<Self> {
        Arc::new(Self {
            bus,
            pool,
            known,
            changed: Notify::new(),
        })
    }

    /// Starts following the tables, until the service stops.
    pub fn start(self: &Arc<Self>, lifecycle: &Lifecycle) {
        let (stop, keeper) = (lifecycle.stop_token(), Arc::clone(self));
        lifecycle.supervise("access", async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = keeper.follow() => {}
            }
        });
        let (stop, keeper) = (lifecycle.stop_token(), Arc::clone(self));
        lifecycle.supervise("access.projection", async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = keeper.project() => {}
            }
        });
    }

    /// Puts a changed token into force: here, and on the bus if it answers soon.
    pub(crate) async fn apply_token(&self, token: TokenRecord) {
        let (key, value) = (token_key(&token.id), encode(&token));
        self.known.put_token(token);
        self.tell(key, value).await;
    }

    /// Puts a changed placement into force: here, and on the bus if it answers soon.
    pub(crate) async fn apply_placement(&self, placement: Placement) {
        let (key, value) = (placement_key(&placement.battery), encode(&placement));
        self.known.place(placement);
        self.tell(key, value).await;
    }

    /// Puts a revocation of JWTs into force: here, and on the bus if it answers soon.
    pub(crate) async fn apply_revocation(&self, revocation: Revocation) {
        let (key, value) = (revocation_key(&revocation.id), encode(&revocation));
        self.known.revoke(revocation);
        self.tell(key, value).await;
    }

    async fn tell(&self, key: String, value: Bytes) {
        let told = async {
            if self.bus.life().is_none() {
                return false;
            }
            match self.bucket().await {
                Ok(bucket) => bucket.put(key, value).await.is_ok(),
                Err(_away) => false,
            }
        };
        // What is not told now is told by the comparison.
        let _told_or_not = timeout(TOLD_WITHIN, told).await;
        self.changed.notify_one();
    }

    /// Makes what is known equal to the tables, again and again.
    async fn follow(&self) {
        let mut seen = None;
        loop {
            match self.read_if_changed(seen.as_ref()).await {
                Ok(Some(fingerprint)) => {
                    seen = Some(fingerprint);
                    self.changed.notify_one();
                }
                Ok(None) => {}
                // The pool tells of it by its own means; what was known goes on to count.
                Err(error) => tracing::debug!("tokens are not read: {}", ErrorChain(&error)),
            }
            let is_complete = self.known.is_complete();
            sleep(if is_complete { LOOK_EVERY } else { FIRST_EVERY }).await;
        }
    }

    async fn read_if_changed(
        &self,
        seen: Option<&Fingerprint>,
    ) -> Result<Option<Fingerprint>, StoreError> {
        let seen = seen.cloned();
        let read = move |conn: &mut _| {
            let fingerprint = access::fingerprint(conn)?;
            if seen.as_ref() == Some(&fingerprint) {
                return Ok(None);
            }
            let tokens = access::tokens(conn)?;
            let placed = access::placements(conn)?;
            Ok(Some((
                fingerprint,
                tokens,
                placed,
                revocations::list(conn)?,
            )))
        };
        let Some((fingerprint, tokens, placements, revoked)) = self.pool.run(read).await? else {
            return Ok(None);
        };
        let revoked = revoked.into_iter().map(|one| one.record);
        self.known.revoke_all(revoked.collect());
        let tokens = tokens.into_iter().map(|token| token.record).collect();
        self.known.replace(tokens, placements);
        self.known.set_complete();
        Ok(Some(fingerprint))
    }

    /// Makes the bucket equal to the tables, again and again.
    async fn project(&self) {
        let mut states = self.bus.watch();
        while self.bus.ready().await.is_some() {
            states.mark_unchanged();
            match self.project_once().await {
                Ok(()) => {
                    let until = async {
                        tokio::select! {
                            () = self.changed.notified() => {}
                            _life = states.changed() => {}
                        }
                    };
                    let _changed_or_not = timeout(COMPARE_EVERY, until).await;
                }
                Err(problem) => {
                    tracing::warn!("the bucket of tokens waits to be mended: {problem}");
                    self.bus.doubt();
                    sleep(RETRY_AFTER).await;
                }
            }
        }
    }

    async fn project_once(&self) -> Result<(), String> {
        let bucket = self
            .bucket()
            .await
            .map_err(|error| ErrorChain(&error).to_string())?;
        // The bucket is read before the tables: so the tables can only be newer.
        let mut told = entries(&bucket).await.map_err(|error| error.to_string())?;
        let read = |conn: &mut _| {
            let (tokens, placements) = (access::tokens(conn)?, access::placements(conn)?);
            Ok((tokens, placements, revocations::list(conn)?))
        };
        let (tokens, placements, revoked) = self
            .pool
            .run(read)
            .await
            .map_err(|error: StoreError| ErrorChain(&error).to_string())?;
        let tokens = tokens.iter().map(|token| &token.record);
        let tokens = tokens.map(|token| (token_key(&token.id), encode(token)));
        let placements = placements
            .iter()
            .map(|one| (placement_key(&one.battery), encode(one)));
        let revoked = revoked.iter().map(|one| &one.record);
        let revoked = revoked.map(|one| (revocation_key(&one.id), encode(one)));
        for (key, value) in tokens.chain(placements).chain(revoked) {
            let (revision, present) = told.remove(&key).unwrap_or_default();
            if present != value {
                let updated = bucket.update(key.as_str(), value, revision).await;
                updated.map_err(|error| error.to_string())?;
            }
        }
        // Whoever reads this knows that nothing is missing, however long the writing took.
        if told.remove(WHOLE).is_none() {
            let written = bucket.put(WHOLE, Bytes::new()).await;
            written.map_err(|error| error.to_string())?;
        }
        for key in told.into_keys() {
            let purged = bucket.purge(key.as_str()).await;
            purged.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    async fn bucket(&self) -> Result<kv::Store, BusError> {
        let name = subjects::ACCESS_BUCKET;
        let bucket = streams::bucket(self.bus.jetstream(), name, self.bus.settings()).await;
        bucket.map_err(BusError::request("open the bucket of tokens"))
    }
}

fn encode(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).unwrap_or_default().into()
}

/// Reads what the bucket says, and where.
async fn entries(bucket: &kv::Store) -> Result<HashMap<String, (u64, Bytes)>, async_nats::Error> {
    let keys: Vec<String> = bucket.keys().await?.try_collect().await?;
    let mut entries = HashMap::new();
    for key in keys {
        if let Some(entry) = bucket.entry(key.as_str()).await? {
            entries.insert(key, (entry.revision, entry.value));
        }
    }
    Ok(entries)
}
