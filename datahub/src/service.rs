//! The composition root: everything is made and wired here, and stopped in order.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use actix_web::{
    App, HttpServer,
    dev::{Server, ServerHandle},
    middleware::from_fn,
    web,
};
use rovi_common::{
    auth::{self, Gate},
    cors,
    heartbeat::{self, Load, Pulse},
    http::{self, Readiness},
    lifecycle::Lifecycle,
    services::Services,
    sink::Sink,
    slow_body, streams,
    telemetry::Metrics,
    tls::{self, Tls, TlsError, Trust},
};
use rovi_pictures::{Folder, FolderError};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::task::TaskTracker;
use utoipa::OpenApi;

use crate::{
    access::AccessKeeper,
    alert_rules::AlertRules,
    api::{self, TwinProxy},
    audit,
    bus::{Bus, READY_NATS},
    config::Settings,
    corrections::Corrections,
    cycles::Cycles,
    deletions::Deletions,
    estimates::EstimateWriter,
    history::roller::Roller,
    hub::Hub,
    metrics::HubMetrics,
    prepare,
    registrations::Registrations,
    relay::{READY_RELAY, Relay, RelayParts},
    relayed::Board,
    retention::Retention,
    sessions::SessionKeeper,
    sink::Pictures,
    store::Pool,
    stored::{StoredSender, ToRelay},
    upload::{bodies::Bodies, open::OpenUploads, room::Rooms},
    writer::Writers,
};

/// Parts that readiness tells about; those of the bus only where it is used.
const PARTS: [&str; 3] = ["postgresql", READY_NATS, READY_RELAY];
const PARTS_WITHOUT_BUS: [&str; 1] = ["postgresql"];
/// Groups of committed rows between writers and relay; the relay only hands them on.
const STORED_QUEUE: usize = 256;

/// Why the service cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The settings are wrong.
    #[error("the settings are wrong: {0}")]
    Settings(String),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The system gives no thread or socket.
    #[error("cannot start")]
    Start(#[source] std::io::Error),
    /// The way to the twin cannot be made.
    #[error("the HTTP client for the twin cannot be made")]
    Twin(#[source] reqwest::Error),
    /// A file of TLS is unusable.
    #[error("TLS cannot be used")]
    Tls(#[from] TlsError),
    /// The URL of NATS is unusable.
    #[error("the URL of NATS is unusable")]
    Nats(#[source] async_nats::ConnectError),
    /// The folder of pictures cannot be used.
    #[error("pictures cannot be kept")]
    Folder(#[source] FolderError),
}

/// The service, listening.
#[derive(Debug)]
pub struct Service {
    address: SocketAddr,
    lifecycle: Lifecycle,
    hub: web::Data<Hub>,
    server: ServerBox,
}

/// The server has no `Debug`.
struct ServerBox(Server);

impl std::fmt::Debug for ServerBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Server")
    }
}

impl Service {
    /// Makes every part and binds the address; PostgreSQL and NATS may still be away.
    ///
    /// # Errors
    /// See [`ServiceError`].
    pub async fn from_config(settings: Settings) -> Result<Self, ServiceError> {
        settings.check().map_err(ServiceError::Settings)?;
        let gate = Gate::new(auth::Service::Hub, &settings.auth).map_err(ServiceError::Settings)?;
        let (listener, address) = listen(settings.listen)?;
        let lifecycle = Lifecycle::new();
        let folder = folder(&settings)?;
        let readiness = readiness(folder.as_ref());
        let registry = Metrics::new();
        let (tls, trust) = secure(&settings, &lifecycle, &registry)?;
        let metrics = HubMetrics::new(&registry);
        let pool = Pool::new(&settings.database_url, settings.pool_size);
        let nats = connect(&settings, &trust, folder.as_ref()).await?;

        prepare::start(&settings, &pool, &lifecycle, &readiness);
        let services = Arc::new(Services::default());
        let bus = Arc::new(Bus::new(nats, settings.bus.clone()));
        // Without these nobody hears of the hub, and it never takes the bus to be there.
        if folder.is_none() {
            start_pulse(&bus.client(), &settings, &readiness, &registry, &lifecycle);
            start_bus(&bus, &services, &pool, &readiness, &lifecycle);
        }
        let uploads = Arc::new(OpenUploads::default());
        let metered = (&registry, &metrics);
        start_keepers(&bus, (&pool, &uploads), &settings, metered, &lifecycle);
        let keeper = start_access(&gate, &bus, &pool, &lifecycle);
        let deletions = start_deletions(&bus, &pool, &uploads, &registry, &lifecycle);
        let corrections = start_corrections(&bus, &pool, &lifecycle);
        let publishes = folder.is_none();
        let relay = publishes.then(|| relay_parts(bus, &pool, &settings, &readiness));
        let (board, relay) = start_relay(relay, &registry, &lifecycle);
        let writers = Writers::start(&settings, &lifecycle, relay, &metrics);
        let hub = web::Data::new(Hub {
            bodies: Bodies::new(&settings, metrics.body_bytes.clone()),
            rooms: Rooms::new(settings.queue_bytes, settings.battery_queue_bytes),
            roller: Roller::start(&pool, &metrics.rows_stored, &lifecycle),
            exports: Arc::new(Semaphore::new(settings.exports)),
            frames: Arc::new(Semaphore::new(settings.frames_bytes as usize)),
            files: Arc::new(Semaphore::new(settings.files)),
            names: Arc::default(),
            settings,
            pool,
            writers: writers.map_err(ServiceError::Start)?,
            uploads,
            deletions,
            corrections,
            board,
            services,
            metrics,
            stop: lifecycle.stop_token(),
            sockets: TaskTracker::new(),
        });
        start_pictures(&hub, folder, &lifecycle);
        let access = (auth::guard::data(&gate), web::Data::from(keeper));
        let ways = (listener, tls, &trust);
        let server = serve(ways, (hub.clone(), access), &readiness, &registry)?;
        Ok(Self {
            address,
            lifecycle,
            hub,
            server: ServerBox(server),
        })
    }

    /// Returns the address listened on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns what stops the service.
    pub fn lifecycle(&self) -> Lifecycle {
        self.lifecycle.clone()
    }

    /// Runs until stopped; tells whether all rows in hand were stored and all tasks ended in time.
    ///
    /// Order of the stop: sockets flush and close with 1012, HTTP stops, writers write what they
    /// have, the other tasks end.
    pub async fn run(self) -> bool {
        let Self {
            lifecycle,
            hub,
            server: ServerBox(server),
            ..
        } = self;
        let handle = http::supervise(server, &lifecycle);
        lifecycle.stop_requested().await;
        let half = hub.settings.shutdown_timeout / 2;
        let sockets_closed = close_sockets(&hub, &handle, half).await;
        hub.writers.close();
        let give_up = hub.writers.clone();
        let impatience = tokio::time::sleep(half);
        let drained = lifecycle.drained(hub.settings.shutdown_timeout);
        tokio::pin!(impatience, drained);
        let drained = loop {
            tokio::select! {
                drained = &mut drained => break drained,
                () = &mut impatience, if !impatience.is_elapsed() => give_up.give_up(),
            }
        };
        sockets_closed && drained
    }
}

async fn close_sockets(hub: &Hub, handle: &ServerHandle, patience: Duration) -> bool {
    hub.sockets.close();
    // A second more than each socket takes for itself.
    let patience = patience + Duration::from_secs(1);
    let in_time = tokio::time::timeout(patience, hub.sockets.wait())
        .await
        .is_ok();
    if !in_time {
        let open = hub.sockets.len();
        tracing::error!("{open} upload sockets did not close within {patience:?}");
        hub.writers.give_up();
    }
    handle.stop(in_time).await;
    in_time
}

/// Binds an address; returns the one that was bound, whose port is known then.
fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ServiceError> {
    let bound = TcpListener::bind(address);
    let listener = bound.map_err(|source| ServiceError::Listen { address, source })?;
    let address = listener.local_addr().map_err(ServiceError::Start)?;
    Ok((listener, address))
}

/// Returns what must answer before the hub is ready.
fn readiness(folder: Option<&Folder>) -> Readiness {
    match folder {
        Some(_) => Readiness::new(&PARTS_WITHOUT_BUS),
        None => Readiness::new(&PARTS),
    }
}

/// Connects to NATS, unless pictures are kept instead of publishing.
async fn connect(
    settings: &Settings,
    trust: &Trust,
    folder: Option<&Folder>,
) -> Result<async_nats::Client, ServiceError> {
    let seed = settings.nats_seed().map_err(ServiceError::Settings)?;
    let nats = match folder {
        Some(_) => streams::unconnected(&settings.nats_url).await,
        None => streams::connect_as(&settings.nats_url, "datahub", trust, seed.as_ref()).await,
    };
    nats.map_err(ServiceError::Nats)
}

/// Starts listening to services, and looking whether the bus is there.
fn start_bus(
    bus: &Arc<Bus>,
    services: &Arc<Services>,
    pool: &Pool,
    readiness: &Readiness,
    lifecycle: &Lifecycle,
) {
    let heard = Arc::clone(services).listen(bus.client(), lifecycle.stop_token());
    lifecycle.supervise("services", heard);
    let stop = lifecycle.stop_token();
    let checks = Arc::clone(bus).keep_checking(pool.clone(), readiness.clone(), stop);
    lifecycle.supervise("bus", checks);
}

/// Opens the folder of pictures, where the hub shall keep them instead of publishing.
fn folder(settings: &Settings) -> Result<Option<Folder>, ServiceError> {
    let out = settings
        .out
        .as_deref()
        .filter(|_| settings.sink == Sink::Png);
    out.map(Folder::open)
        .transpose()
        .map_err(ServiceError::Folder)
}

/// Starts what keeps tokens, and who did what.
fn start_access(
    gate: &Gate,
    bus: &Arc<Bus>,
    pool: &Pool,
    lifecycle: &Lifecycle,
) -> Arc<AccessKeeper> {
    let known = Arc::clone(gate.known());
    let keeper = AccessKeeper::new(Arc::clone(bus), pool.clone(), known);
    keeper.start(lifecycle);
    audit::start(gate, bus, pool, lifecycle);
    keeper
}

/// Starts what works by itself beside ingest: nobody asks it for anything.
fn start_keepers(
    bus: &Arc<Bus>,
    (pool, uploads): (&Pool, &Arc<OpenUploads>),
    settings: &Settings,
    (registry, metrics): (&Metrics, &HubMetrics),
    lifecycle: &Lifecycle,
) {
    AlertRules::new(Arc::clone(bus), pool.clone()).start(lifecycle);
    EstimateWriter::new(Arc::clone(bus), pool.clone(), registry).start(lifecycle);
    Retention::new(pool.clone(), settings.retention.clone(), registry).start(lifecycle);
    let stored = metrics.rows_stored.clone();
    let (uploads, watched) = (Arc::clone(uploads), (registry, stored.clone()));
    SessionKeeper::new(pool.clone(), uploads, settings.sessions, watched).start(lifecycle);
    Cycles::new(pool.clone(), settings.cycles.clone(), registry, stored).start(lifecycle);
}

fn start_corrections(bus: &Arc<Bus>, pool: &Pool, lifecycle: &Lifecycle) -> Arc<Corrections> {
    let corrections = Corrections::new(Arc::clone(bus), pool.clone());
    corrections.start(lifecycle);
    corrections
}

/// Starts registrations and what follows the deletion of a battery.
fn start_deletions(
    bus: &Arc<Bus>,
    pool: &Pool,
    uploads: &Arc<OpenUploads>,
    metrics: &Metrics,
    lifecycle: &Lifecycle,
) -> Arc<Deletions> {
    let registrations = Registrations::new(Arc::clone(bus), pool.clone(), metrics);
    registrations.clone().start(lifecycle);
    let uploads = Arc::clone(uploads);
    let deletions = Deletions::new(Arc::clone(bus), pool.clone(), registrations, uploads);
    let deletions = Arc::new(deletions);
    deletions.start(lifecycle);
    deletions
}

/// Starts drawing, where pictures are kept.
fn start_pictures(hub: &web::Data<Hub>, folder: Option<Folder>, lifecycle: &Lifecycle) {
    if let Some(folder) = folder {
        lifecycle.supervise("pictures", Pictures::new(hub.clone(), folder).keep());
    }
}

fn relay_parts(
    bus: Arc<Bus>,
    pool: &Pool,
    settings: &Settings,
    readiness: &Readiness,
) -> RelayParts {
    RelayParts {
        bus,
        pool: pool.clone(),
        settings: settings.relay.clone(),
        readiness: readiness.clone(),
    }
}

/// Starts the relay; returns how far batteries are on the bus, and what writers need of it.
fn start_relay(
    parts: Option<RelayParts>,
    metrics: &Metrics,
    lifecycle: &Lifecycle,
) -> (Arc<Board>, Option<ToRelay>) {
    // Rows stay in the tables until a hub that publishes finds them there.
    let Some(parts) = parts else {
        Relay::register_metrics(metrics);
        return (Arc::default(), None);
    };
    let pool = parts.pool.clone();
    let (queue, inbox) = mpsc::channel(STORED_QUEUE);
    let stored = StoredSender::new(queue, &parts.bus);
    let relay = Relay::new(parts, metrics);
    let board = relay.board();
    let asking = Arc::clone(&board).keep_asking(pool, lifecycle.stop_token());
    lifecycle.supervise("relayed", asking);
    let hints = relay.hints();
    relay.start(lifecycle, inbox);
    (board, Some(ToRelay { stored, hints }))
}

/// Says on the bus that the hub lives, and how much waits in it.
fn start_pulse(
    nats: &async_nats::Client,
    settings: &Settings,
    readiness: &Readiness,
    metrics: &Metrics,
    lifecycle: &Lifecycle,
) {
    let pulse = Pulse {
        client: nats.clone(),
        service: "datahub",
        instance: heartbeat::new_instance(),
        readiness: readiness.clone(),
        interval: settings.heartbeat_interval,
    };
    let metrics = metrics.clone();
    let load = move || {
        let named = |name: &str, metric| (name.to_owned(), metrics.read(metric).unwrap_or(0));
        Load {
            lag: [named("rows_not_relayed", "datahub_rows_not_relayed")].into(),
            queues: [
                named("rows_waiting", "datahub_rows_waiting"),
                named("upload_sockets", "datahub_upload_sockets"),
                named("batteries_parked", "datahub_batteries_parked"),
            ]
            .into(),
            totals: totals(&metrics),
        }
    };
    lifecycle.supervise("pulse", pulse.beat(load, lifecycle.stop_token()));
}

/// What decides about callers, and what keeps it.
type AccessData = (web::Data<Gate>, web::Data<AccessKeeper>);

/// What the hub did since its start; what it refused by who refused it.
fn totals(metrics: &Metrics) -> BTreeMap<String, i64> {
    let named = |name: &str, metric| (name.to_owned(), metrics.read(metric).unwrap_or(0));
    let refused = metrics
        .read_by_label("datahub_rows_rejected_total")
        .into_iter();
    let refused = refused.map(|(by, rows)| (format!("refused_by_{by}"), rows));
    let counted = [
        named("rows", "datahub_rows_stored_total"),
        named("frames_refused", "datahub_frames_refused_total"),
    ];
    refused.chain(counted).collect()
}

/// Reads what clients are shown, which is kept fresh from then on, and whom the hub believes.
fn secure(
    settings: &Settings,
    lifecycle: &Lifecycle,
    metrics: &Metrics,
) -> Result<(Option<Tls>, Trust), ServiceError> {
    let trust = Trust::of(settings.tls.ca_file.as_deref())?;
    let tls = Tls::open(&settings.tls)?;
    if let Some(tls) = &tls {
        tls.start(lifecycle, metrics);
    }
    Ok((tls, trust))
}

fn serve(
    (listener, tls, trust): (TcpListener, Option<Tls>, &Trust),
    (hub, (gate, keeper)): (web::Data<Hub>, AccessData),
    readiness: &Readiness,
    metrics: &Metrics,
) -> Result<Server, ServiceError> {
    let (readiness, metrics) = (readiness.clone(), metrics.clone());
    let settings = &hub.settings;
    let twin = TwinProxy::new(settings.twin_url.clone(), trust).map_err(ServiceError::Twin)?;
    let twin = web::Data::new(twin);
    let cors = web::Data::new(settings.cors.clone());
    let (workers, shutdown) = (settings.http_workers, settings.shutdown_timeout / 4);
    let openapi = http::written(&api::ApiDoc::openapi());
    let app = move || {
        App::new()
            .wrap(from_fn(auth::guard))
            .wrap(from_fn(http::same_origin))
            .wrap(from_fn(slow_body::bounded))
            .wrap(from_fn(cors::cors))
            .wrap(from_fn(http::careful_headers))
            .app_data(cors.clone())
            .app_data(gate.clone())
            .app_data(keeper.clone())
            .app_data(hub.clone())
            .app_data(twin.clone())
            .configure(http::operations(
                "datahub",
                readiness.clone(),
                metrics.clone(),
            ))
            .configure(http::docs(openapi.clone()))
            .configure(api::routes)
    };
    let mut server = HttpServer::new(app)
        .disable_signals()
        .client_request_timeout(http::HEAD_WITHIN)
        .max_connections(http::CONNECTIONS)
        // Acknowledgements are small, and the next one must not wait for the client's system to
        // confirm the one before, which may take 40 ms.
        .tcp_nodelay(true)
        .shutdown_timeout(shutdown.as_secs().max(1));
    if workers > 0 {
        server = server.workers(workers);
    }
    let server = tls::listen(server, listener, tls.as_ref());
    Ok(server.map_err(ServiceError::Start)?.run())
}
