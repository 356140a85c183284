//! The bus as the hub sees it: whether it answers, and whether it is still the one that was
//! filled.
//!
//! The rows stream carries a bus epoch in its metadata, and `hub.bus` has it, too. Where they
//! differ, or the stream is missing, the bus was wiped: then the hub makes the stream anew and
//! forgets what it knew to be relayed, and the relay fills the stream again from the tables.
//! Several hubs agree without talking: NATS lets one of them make the stream, and the table
//! takes over whatever epoch the stream has.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_nats::{
    Client,
    jetstream::{
        self, ErrorCode,
        context::{ContextBuilder, GetStreamErrorKind},
        stream::{self, Stream},
    },
};
use diesel::{Connection, PgConnection, RunQueryDsl, sql_types};
use rovi_common::{
    error::ErrorChain,
    http::Readiness,
    streams::{self, BUS_EPOCH, BusSettings},
    subjects,
};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::store::{Pool, StoreError};

/// The part of `/ready` that tells about the bus.
pub const READY_NATS: &str = "nats";

/// How long the bus has to answer a request or to acknowledge a frame.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Frames that wait for their acknowledgement; each battery has one at most.
const MAX_FRAMES_IN_FLIGHT: usize = 1024;
const CHECK_EVERY: Duration = Duration::from_secs(5);
const CHECK_AGAIN_AFTER_A_PROBLEM: Duration = Duration::from_millis(500);
/// Many who doubt at once make one check.
const CHECK_AT_MOST_EVERY: Duration = Duration::from_millis(100);

/// Why the bus cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// NATS is not connected, too old, or without `JetStream`.
    #[error("{0}")]
    Away(String),
    /// A request about a stream failed.
    #[error("NATS does not {what}")]
    Request {
        /// What was asked.
        what: &'static str,
        /// What NATS or the client said.
        #[source]
        source: async_nats::Error,
    },
    /// The database did not take the bus epoch.
    #[error("the bus epoch cannot be compared with the database")]
    Store(#[source] StoreError),
}

impl BusError {
    /// Wraps what the client said when asked to do `what`.
    pub fn request<E>(what: &'static str) -> impl FnOnce(E) -> Self
    where
        E: Into<async_nats::Error>,
    {
        move |source| Self::Request {
            what,
            source: source.into(),
        }
    }
}

/// Whether the bus can be used now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BusState {
    /// It cannot, for this reason.
    Away(String),
    /// It can.
    Ready(BusLife),
}

/// One time of being connected to one life of the bus: a change means that anything on the bus
/// may have been lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BusLife {
    /// Raised by every connection.
    pub connection: u64,
    /// The epoch that the rows stream carries.
    pub epoch: Uuid,
}

/// The connection to NATS and what is known about it.
#[derive(Debug)]
pub struct Bus {
    jetstream: jetstream::Context,
    settings: BusSettings,
    state: watch::Sender<BusState>,
    doubt: Notify,
    limits_applied: AtomicBool,
}

impl Bus {
    /// Takes over a connection; nothing is sent until [`Bus::keep_checking`] runs.
    pub fn new(client: Client, settings: BusSettings) -> Self {
        let jetstream = ContextBuilder::new()
            .timeout(ANSWER_WITHIN)
            .max_ack_inflight(MAX_FRAMES_IN_FLIGHT)
            .backpressure_on_inflight(true)
            .build(client);
        let unknown = BusState::Away("NATS was not asked yet".to_owned());
        Self {
            jetstream,
            settings,
            state: watch::Sender::new(unknown),
            doubt: Notify::new(),
            limits_applied: AtomicBool::new(false),
        }
    }

    /// Returns the `JetStream` context.
    pub fn jetstream(&self) -> &jetstream::Context {
        &self.jetstream
    }

    /// Returns the connection.
    pub fn client(&self) -> Client {
        self.jetstream.client()
    }

    /// Returns how much the bus keeps.
    pub fn settings(&self) -> &BusSettings {
        &self.settings
    }

    /// Returns the present life of the bus, if it can be used.
    pub fn life(&self) -> Option<BusLife> {
        match *self.state.borrow() {
            BusState::Ready(life) => Some(life),
            BusState::Away(_) => None,
        }
    }

    /// Watches the state.
    pub fn watch(&self) -> watch::Receiver<BusState> {
        self.state.subscribe()
    }

    /// Asks for a check now, after something on the bus failed.
    pub fn doubt(&self) {
        self.doubt.notify_one();
    }

    /// Waits until the bus can be used and returns its life.
    pub async fn ready(&self) -> Option<BusLife> {
        let mut states = self.watch();
        let ready = states.wait_for(|state| matches!(state, BusState::Ready(_)));
        match *ready.await.ok()? {
            BusState::Ready(life) => Some(life),
            BusState::Away(_) => None,
        }
    }

    /// Checks the bus for as long as the service runs and tells its state.
    pub async fn keep_checking(
        self: Arc<Self>,
        pool: Pool,
        readiness: Readiness,
        stop: CancellationToken,
    ) {
        loop {
            let pause = self.tell(self.check(&pool).await, &readiness);
            let doubted = async {
                tokio::time::sleep(CHECK_AT_MOST_EVERY).await;
                self.doubt.notified().await;
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
                () = doubted => {}
            }
        }
    }

    /// Tells everyone the state and returns when to look again.
    fn tell(&self, checked: Result<BusLife, BusError>, readiness: &Readiness) -> Duration {
        let (problem, pause) = match &checked {
            // That PostgreSQL is away is told by its own part of readiness.
            Ok(_) | Err(BusError::Store(StoreError::Away(_))) => (None, CHECK_EVERY),
            Err(error) => (
                Some(ErrorChain(error).to_string()),
                CHECK_AGAIN_AFTER_A_PROBLEM,
            ),
        };
        readiness.set(READY_NATS, problem);
        let pause = if checked.is_ok() {
            pause
        } else {
            CHECK_AGAIN_AFTER_A_PROBLEM
        };
        let state = match checked {
            Ok(life) => BusState::Ready(life),
            Err(error) => BusState::Away(ErrorChain(&error).to_string()),
        };
        self.state.send_if_modified(|known| {
            let changed = *known != state;
            *known = state;
            changed
        });
        pause
    }

    /// Looks at the rows stream and makes it where it is missing.
    ///
    /// # Errors
    /// See [`BusError`]; the next check may succeed.
    pub async fn check(&self, pool: &Pool) -> Result<BusLife, BusError> {
        let client = self.client();
        let connection = client.statistics().connects.load(Ordering::Relaxed);
        if let Some(problem) = streams::problem(&client) {
            return Err(BusError::Away(problem));
        }
        if !self.limits_applied.swap(true, Ordering::Relaxed) {
            self.apply_limits(&self.rows_stream().await?).await;
        }
        let epoch = self.rows_epoch().await?;
        let adopted = pool
            .run(move |conn| adopt_epoch(conn, epoch))
            .await
            .map_err(BusError::Store)?;
        if adopted {
            tracing::warn!(
                bus.epoch = %epoch,
                "the bus is new or was wiped: filling its window from the tables"
            );
        }
        Ok(BusLife { connection, epoch })
    }

    /// Returns the epoch of the rows stream, after making the stream where it is missing.
    ///
    /// # Errors
    /// NATS does not answer, or has no room for the stream.
    pub async fn rows_epoch(&self) -> Result<Uuid, BusError> {
        let stream = self.rows_stream().await?;
        let config = &stream.cached_info().config;
        let known = config.metadata.get(BUS_EPOCH);
        if let Some(epoch) = known.and_then(|text| Uuid::parse_str(text).ok()) {
            return Ok(epoch);
        }
        // Somebody else made the stream: what it holds cannot be trusted to be complete.
        self.mark_stream(config.clone()).await
    }

    async fn rows_stream(&self) -> Result<Stream, BusError> {
        match self.jetstream.get_stream(subjects::ROWS_STREAM).await {
            Ok(stream) => return Ok(stream),
            Err(error) if is_missing(&error.kind()) => {}
            Err(error) => return Err(BusError::request("tell about the rows stream")(error)),
        }
        let config = streams::rows_stream(&self.settings, &Uuid::new_v4().to_string());
        match self.jetstream.create_stream(config).await {
            Ok(stream) => Ok(stream),
            // Another hub may have been faster: then its stream, with its epoch, is the one.
            Err(error) => (self.jetstream.get_stream(subjects::ROWS_STREAM).await)
                .map_err(|_missing| BusError::request("make the rows stream")(error)),
        }
    }

    /// Brings the limits of a stream that exists to those of the settings.
    ///
    /// Asked for once by each start of a hub: so hubs of different settings do not quarrel.
    pub async fn apply_limits(&self, stream: &Stream) {
        let found = &stream.cached_info().config;
        let wanted = stream::Config {
            max_age: self.settings.max_age,
            max_bytes: self.settings.max_bytes,
            num_replicas: self.settings.replicas,
            ..found.clone()
        };
        if wanted == *found {
            return;
        }
        let name = &found.name;
        match self.jetstream.update_stream(&wanted).await {
            Ok(_) => tracing::info!("the limits of stream {name} are those of the settings now"),
            Err(error) => tracing::warn!(
                "stream {name} keeps its limits, which are not those of the settings: {error}"
            ),
        }
    }

    async fn mark_stream(&self, config: stream::Config) -> Result<Uuid, BusError> {
        let epoch = Uuid::new_v4();
        let metadata = HashMap::from([(BUS_EPOCH.to_owned(), epoch.to_string())]);
        let marked = stream::Config {
            metadata: config.metadata.into_iter().chain(metadata).collect(),
            ..config
        };
        self.jetstream
            .update_stream(marked)
            .await
            .map_err(BusError::request("mark the rows stream with a bus epoch"))?;
        Ok(epoch)
    }
}

fn is_missing(error: &GetStreamErrorKind) -> bool {
    matches!(error, GetStreamErrorKind::JetStream(error)
        if error.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

/// Takes over the epoch of the stream; tells whether it is a new one, so that nothing counts as
/// relayed any more.
fn adopt_epoch(conn: &mut PgConnection, epoch: Uuid) -> Result<bool, StoreError> {
    conn.transaction(|conn| {
        let changed = diesel::sql_query(
            "INSERT INTO hub.bus AS known (epoch) VALUES ($1) \
             ON CONFLICT (\"only\") DO UPDATE SET epoch = excluded.epoch \
             WHERE known.epoch <> excluded.epoch",
        )
        .bind::<sql_types::Uuid, _>(epoch)
        .execute(conn)?;
        if changed == 0 {
            return Ok(false);
        }
        // All are locked, since a writer may just now mark rows as relayed that the old bus had; and
        // in the order in which writers lock, so that neither waits for the other.
        diesel::sql_query(
            "UPDATE hub.batteries battery SET relayed_seq = 0 FROM ( \
               SELECT id FROM hub.batteries ORDER BY id FOR NO KEY UPDATE \
             ) AS known WHERE battery.id = known.id",
        )
        .execute(conn)?;
        Ok(true)
    })
}
