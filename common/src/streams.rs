//! The bus: connecting to NATS, and the one place that says how streams, buckets and consumers
//! are made.

use std::{collections::HashMap, time::Duration};

use async_nats::{
    Client, ConnectOptions, Event,
    jetstream::{
        self,
        consumer::{AckPolicy, PriorityPolicy, pull},
        context::{CreateKeyValueErrorKind, CreateStreamError},
        kv,
        object_store::{self, ObjectStore},
        stream::{self, StorageType, SubjectTransform},
    },
};
use serde::{Deserialize, Serialize};

use crate::{
    config::ServiceUrl,
    rights::{self, seed::Seed},
    subjects,
    tls::Trust,
};

/// The oldest NATS server with everything that is used here.
pub const MIN_SERVER: (u64, u64) = (2, 12);
/// The priority group in which one twin owns a partition.
pub const OWNER_GROUP: &str = "owner";
/// Key of the bus epoch in the metadata of the rows stream.
pub const BUS_EPOCH: &str = "rovi-bus-epoch";
/// How long the owner of a partition may be silent before another twin takes over.
pub const PRIORITY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a frame may stay without acknowledgement before it comes again.
///
/// Checkpoints, after which frames are acknowledged, come far more often.
pub const ACK_WAIT: Duration = Duration::from_mins(1);
/// The server's default of 1,000 stalls a partition of many batteries.
const MAX_ACK_PENDING: i64 = 65_536;

/// How long it is told that a twin or its claim on a partition ended.
const SHARE_MARKERS: Duration = Duration::from_mins(1);

/// The most bytes of all states together: some hundred thousand batteries of few columns.
const STATE_BYTES: i64 = 128 << 20;
/// The most bytes of all events together.
const EVENT_BYTES: i64 = 256 << 20;
/// How long events live.
const EVENT_AGE: Duration = Duration::from_hours(7 * 24);
/// How long an event that is published again under its identifier is known as the same.
pub const EVENT_DEDUPE: Duration = Duration::from_mins(10);

/// How much the bus keeps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BusSettings {
    /// Number of partitions of the rows stream, fixed when the stream is made; the most twins
    /// that can share the work.
    pub partitions: u32,
    /// Age at which the streams forget; readers fetch older rows from the hub.
    #[serde(with = "humantime_serde")]
    pub max_age: Duration,
    /// Size at which each stream forgets its oldest messages, in bytes.
    pub max_bytes: i64,
    /// Copies of each stream in a NATS cluster: 1 or 3.
    pub replicas: usize,
}

impl Default for BusSettings {
    fn default() -> Self {
        Self {
            partitions: 16,
            max_age: Duration::from_hours(7 * 24),
            max_bytes: 10 << 30,
            replicas: 1,
        }
    }
}

/// Connects to NATS as [`connect_as`] does, as nobody; the authorities of the system count.
///
/// # Errors
/// The URL's credentials are unusable.
pub async fn connect(url: &ServiceUrl, name: &str) -> Result<Client, async_nats::ConnectError> {
    connect_as(url, name, &Trust::default(), None).await
}

/// Connects to NATS in the background and keeps connecting for ever; over TLS where the URL begins with
/// `tls://` or the server asks for it, and proving by the seed who it is, where there is one.
///
/// Returns at once; whether the bus answers is for the readiness check to say.
///
/// # Errors
/// The URL's credentials are unusable.
pub async fn connect_as(
    url: &ServiceUrl,
    name: &str,
    trust: &Trust,
    seed: Option<&Seed>,
) -> Result<Client, async_nats::ConnectError> {
    let options = match seed {
        Some(seed) => ConnectOptions::with_nkey(seed.expose().to_owned()),
        None => ConnectOptions::new(),
    };
    options
        .name(name)
        .custom_inbox_prefix(rights::inbox_prefix(name))
        .tls_client_config(trust.config().as_ref().clone())
        .retry_on_initial_connect()
        .connection_timeout(Duration::from_secs(3))
        .ping_interval(Duration::from_secs(5))
        .reconnect_delay_callback(|attempt| {
            let doubled = 50 << attempt.min(6);
            Duration::from_millis(doubled.min(2000))
        })
        .event_callback(|event| async move {
            match event {
                // Something that the server refuses, such as a subject without permission.
                Event::ServerError(error) => tracing::warn!("nats: {error}"),
                event => tracing::info!("nats: {event}"),
            }
        })
        .connect(url.expose())
        .await
}

/// Makes a client that never connects, for a service that runs without the bus: what waits for the
/// bus waits for good.
///
/// # Errors
/// The URL's credentials are unusable.
pub async fn unconnected(url: &ServiceUrl) -> Result<Client, async_nats::ConnectError> {
    ConnectOptions::new()
        .retry_on_initial_connect()
        // The first attempt waits for this, too.
        .reconnect_delay_callback(|_attempt| Duration::MAX)
        .connect(url.expose())
        .await
}

/// Tells why the bus cannot be used now, or nothing.
pub fn problem(client: &Client) -> Option<String> {
    if client.connection_state() != async_nats::connection::State::Connected {
        return Some("NATS is not connected; trying again, and the log says why".to_owned());
    }
    let version = client.server_info().version;
    let mut numbers = version
        .split('.')
        .map_while(|part| part.parse::<u64>().ok());
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    (found < MIN_SERVER).then(|| {
        let (major, minor) = MIN_SERVER;
        format!("NATS server {version} is too old, {major}.{minor} or newer is needed")
    })
}

/// Describes the stream of row frames; `bus_epoch` marks this life of the bus.
pub fn rows_stream(settings: &BusSettings, bus_epoch: &str) -> stream::Config {
    stream::Config {
        name: subjects::ROWS_STREAM.to_owned(),
        subjects: vec![subjects::all_rows()],
        subject_transform: Some(SubjectTransform {
            source: subjects::all_rows(),
            destination: subjects::stored_rows_transform(settings.partitions),
        }),
        metadata: HashMap::from([(BUS_EPOCH.to_owned(), bus_epoch.to_owned())]),
        ..file_stream(settings)
    }
}

/// Describes the stream of estimate frames.
pub fn estimates_stream(settings: &BusSettings) -> stream::Config {
    stream::Config {
        name: subjects::ESTIMATES_STREAM.to_owned(),
        subjects: vec![subjects::all_estimates()],
        ..file_stream(settings)
    }
}

/// Describes the stream of states: in memory, the newest of each battery.
pub fn state_stream(settings: &BusSettings) -> stream::Config {
    stream::Config {
        name: subjects::STATE_STREAM.to_owned(),
        subjects: vec![subjects::all_states()],
        storage: StorageType::Memory,
        max_messages_per_subject: 1,
        max_bytes: STATE_BYTES,
        num_replicas: settings.replicas,
        allow_direct: true,
        ..stream::Config::default()
    }
}

/// Describes the stream of events.
pub fn events_stream(settings: &BusSettings) -> stream::Config {
    stream::Config {
        name: subjects::EVENTS_STREAM.to_owned(),
        subjects: vec![subjects::all_events()],
        max_age: EVENT_AGE,
        max_bytes: EVENT_BYTES,
        duplicate_window: EVENT_DEDUPE,
        ..file_stream(settings)
    }
}

fn file_stream(settings: &BusSettings) -> stream::Config {
    stream::Config {
        storage: StorageType::File,
        max_age: settings.max_age,
        max_bytes: settings.max_bytes,
        num_replicas: settings.replicas,
        allow_direct: true,
        ..stream::Config::default()
    }
}

/// Describes the consumer by which one twin at a time owns a partition.
pub fn partition_consumer(partition: u32) -> pull::Config {
    pull::Config {
        durable_name: Some(subjects::partition_consumer(partition)),
        filter_subject: subjects::partition_rows(partition),
        ack_policy: AckPolicy::Explicit,
        ack_wait: ACK_WAIT,
        max_ack_pending: MAX_ACK_PENDING,
        priority_policy: PriorityPolicy::PinnedClient,
        priority_groups: vec![OWNER_GROUP.to_owned()],
        priority_timeout: PRIORITY_TIMEOUT,
        ..pull::Config::default()
    }
}

/// Opens a key-value bucket, making it where it is missing.
///
/// # Errors
/// NATS is away, or holds a bucket of this name with another form.
pub async fn bucket(
    jetstream: &jetstream::Context,
    name: &str,
    settings: &BusSettings,
) -> Result<kv::Store, jetstream::context::CreateKeyValueError> {
    let config = kv::Config {
        bucket: name.to_owned(),
        history: 1,
        storage: StorageType::File,
        num_replicas: settings.replicas,
        ..kv::Config::default()
    };
    open_or_make(jetstream, config).await
}

async fn open_or_make(
    jetstream: &jetstream::Context,
    config: kv::Config,
) -> Result<kv::Store, jetstream::context::CreateKeyValueError> {
    let name = config.bucket.clone();
    match jetstream.create_key_value(config).await {
        Err(error) if error.kind() == CreateKeyValueErrorKind::BucketCreate => jetstream
            .get_key_value(name)
            .await
            .map_err(|_missing| error),
        made => made,
    }
}

/// Opens the bucket by which twins share partitions, making it where it is missing. It is in
/// memory, and its entries end by themselves.
///
/// # Errors
/// NATS is away, or holds a bucket of this name with another form.
pub async fn shares_bucket(
    jetstream: &jetstream::Context,
    settings: &BusSettings,
) -> Result<kv::Store, jetstream::context::CreateKeyValueError> {
    let config = kv::Config {
        bucket: subjects::SHARES_BUCKET.to_owned(),
        history: 1,
        storage: StorageType::Memory,
        num_replicas: settings.replicas,
        limit_markers: Some(SHARE_MARKERS),
        ..kv::Config::default()
    };
    open_or_make(jetstream, config).await
}

/// Opens an object store, making it where it is missing.
///
/// # Errors
/// NATS is away.
pub async fn object_store(
    jetstream: &jetstream::Context,
    name: &str,
    settings: &BusSettings,
) -> Result<ObjectStore, jetstream::context::CreateObjectStoreError> {
    if let Ok(found) = jetstream.get_object_store(name).await {
        return Ok(found);
    }
    let config = object_store::Config {
        bucket: name.to_owned(),
        storage: StorageType::File,
        num_replicas: settings.replicas,
        ..object_store::Config::default()
    };
    jetstream.create_object_store(config).await
}

/// Makes the stream of states where it is missing.
///
/// # Errors
/// NATS is away, or holds a stream of this name with another form.
pub async fn ensure_states(
    jetstream: &jetstream::Context,
    settings: &BusSettings,
) -> Result<stream::Stream, CreateStreamError> {
    jetstream.get_or_create_stream(state_stream(settings)).await
}

/// Makes the stream of events where it is missing.
///
/// # Errors
/// NATS is away, or holds a stream of this name with another form.
pub async fn ensure_events(
    jetstream: &jetstream::Context,
    settings: &BusSettings,
) -> Result<stream::Stream, CreateStreamError> {
    jetstream
        .get_or_create_stream(events_stream(settings))
        .await
}

/// Makes the stream of estimates where it is missing.
///
/// # Errors
/// NATS is away, or holds a stream of this name with another form.
pub async fn ensure_estimates(
    jetstream: &jetstream::Context,
    settings: &BusSettings,
) -> Result<stream::Stream, CreateStreamError> {
    jetstream
        .get_or_create_stream(estimates_stream(settings))
        .await
}
