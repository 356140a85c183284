//! The composition root: what the service is made of, how it starts and how it stops.
//!
//! It starts and serves with NATS or the hub away and says so in `/ready`. It stops in this order:
//! no more rows, last checkpoints, acknowledgements, partitions handed over, HTTP.

use std::{
    net::{SocketAddr, TcpListener},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use actix_web::{App, HttpServer, dev::ServerHandle, middleware, web};
use async_nats::jetstream;
use prometheus::IntCounter;
use rovi_common::{
    auth::{self, Gate, gate::read_token},
    config::{self, ServiceArgs},
    cors,
    heartbeat::{self, Load, Pulse},
    http::{self, Readiness},
    lifecycle::Lifecycle,
    sink::{Sink, SinkArgs},
    slow_body, streams,
    telemetry::{self, Metrics},
    tls::{self, Tls, TlsError, Trust},
};
use rovi_python::Python;
use serde::Serialize;
use tokio::sync::{Semaphore, watch};

use crate::{
    access,
    alerts::{self, Alerts, Hooks},
    api,
    ask::{self, Owners},
    audit,
    backtest::Backtests,
    checkpoint::Checkpoints,
    commands,
    config::{ENV_PREFIX, Settings},
    corrections,
    documents::Documents,
    events::Events,
    fleet::{Fleet, Shared},
    hub::Hub,
    live::{self, Watchers},
    metrics::TwinMetrics,
    overview::MetadataAnswers,
    registrations, share, sink,
    state::{self, Outlet},
    status::{self, Phase},
    subscribe::{self, RowsStream},
};

const NATS_PART: &str = "nats";
const HUB_PART: &str = "hub";
const LOOK: Duration = Duration::from_secs(1);
const HTTP_WORKERS: usize = 2;
/// Scripts that are loaded at the same time in order to be registered.
const SCRIPT_CHECKS: usize = 2;

/// The command line of the service.
#[derive(Debug, clap::Parser, Serialize)]
#[command(
    name = "twin",
    version,
    about = "The Digital Twin: estimates the state of batteries"
)]
pub struct Flags {
    /// The flags that every service takes.
    #[command(flatten)]
    #[serde(flatten)]
    pub service: ServiceArgs,
    /// Where news go.
    #[command(flatten)]
    #[serde(flatten)]
    pub sink: SinkArgs,
}

/// Why the service does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting cannot be used.
    #[error("the settings are wrong: {0}")]
    Settings(String),
    /// The address is taken or not of this machine.
    #[error("{address} cannot be listened on")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The URL of NATS cannot be used.
    #[error("NATS cannot be used")]
    Nats(#[from] async_nats::ConnectError),
    /// A file of TLS cannot be used.
    #[error("TLS cannot be used")]
    Tls(#[from] TlsError),
    /// Nothing can be made that runs scripts.
    #[error(transparent)]
    Python(#[from] rovi_python::Unavailable),
    /// The folder of pictures cannot be used.
    #[error("pictures cannot be kept")]
    Folder(#[from] rovi_pictures::FolderError),
    /// The HTTP client or server cannot be made.
    #[error("HTTP cannot be used: {0}")]
    Http(String),
}

/// Reads the settings and runs the service until it is told to stop.
///
/// # Errors
/// The settings are wrong or the address is taken.
pub async fn start(flags: Flags) -> anyhow::Result<ExitCode> {
    let args = &flags.service;
    let loaded = match config::load::<Settings>(ENV_PREFIX, args, &flags) {
        Ok(loaded) => loaded,
        Err(error) => {
            telemetry::init(telemetry::LogFormat::default(), "info");
            return Err(error.into());
        }
    };
    telemetry::init(loaded.settings.log_format, &loaded.settings.log);
    if args.print_config {
        loaded.print(&mut std::io::stdout())?;
        return Ok(ExitCode::SUCCESS);
    }
    loaded.settings.check().map_err(StartError::Settings)?;
    if args.check {
        return Ok(ExitCode::SUCCESS);
    }
    let settings = loaded.settings;
    let clean = match settings.sink {
        Sink::Nats => Service::from_config(settings).await?.run().await?,
        Sink::Png => sink::Service::from_config(settings).await?.run().await?,
    };
    Ok(if clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The service, ready to run.
#[derive(Debug)]
pub struct Service {
    listener: TcpListener,
    fleet: Arc<Fleet>,
    lifecycle: Lifecycle,
    readiness: Readiness,
    metrics: Metrics,
    nats: async_nats::Client,
    gate: Arc<Gate>,
    tls: Option<Tls>,
}

impl Service {
    /// Opens the port and connects in the background; NATS and the hub may be away.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn from_config(settings: Settings) -> Result<Self, StartError> {
        settings.check().map_err(StartError::Settings)?;
        let gate = Gate::new(auth::Service::Twin, &settings.auth).map_err(StartError::Settings)?;
        let address = settings.listen;
        let listener =
            TcpListener::bind(address).map_err(|source| StartError::Listen { address, source })?;
        let tls = Tls::open(&settings.tls)?;
        let trust = Trust::of(settings.tls.ca_file.as_deref())?;
        let seed = settings.nats_seed().map_err(StartError::Settings)?;
        let nats = streams::connect_as(&settings.nats_url, "twin", &trust, seed.as_ref()).await?;
        let jetstream = jetstream::new(nats.clone());
        let hub = hub(&settings, &nats, &trust)?;
        let lifecycle = Lifecycle::new();
        let metrics = Metrics::new();
        let shared = Shared {
            checkpoints: Checkpoints::new(jetstream.clone(), settings.bus.clone()),
            backtests: Backtests::new(jetstream.clone(), &settings),
            hub,
            jetstream,
            metrics: TwinMetrics::new(&metrics),
            stop: lifecycle.stop_token(),
            python: Arc::new(Python::new(settings.python.clone())?),
            scripts: Arc::new(Semaphore::new(settings.python_estimators.get())),
            script_checks: Semaphore::new(SCRIPT_CHECKS),
            catch_ups: Semaphore::new(settings.concurrent_catch_ups.get()),
            knows_corrections: watch::Sender::new(false),
            access: Arc::clone(gate.known()),
            instance: heartbeat::new_instance(),
            outlet: Outlet::default(),
            board: Arc::default(),
            watchers: Watchers::default(),
            services: Arc::default(),
            owners: Owners::default(),
            rows_stream: RowsStream::default(),
            documents: Documents::default(),
            metadata_answers: MetadataAnswers::default(),
            events: Events::default(),
            alerts: Alerts::default(),
            hooks: hooks(&settings)?,
            settings,
        };
        Ok(Self {
            listener,
            fleet: Fleet::new(Arc::new(shared)),
            lifecycle,
            readiness: Readiness::new(&[
                NATS_PART,
                HUB_PART,
                subscribe::READY_PART,
                registrations::READY_PART,
                live::READY_PART,
            ]),
            metrics,
            nats,
            gate,
            tls,
        })
    }

    /// Returns the address listened on; port 0 in the settings has become a free one.
    ///
    /// # Errors
    /// The socket is gone.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Returns the lifecycle, to stop the service.
    pub fn lifecycle(&self) -> Lifecycle {
        self.lifecycle.clone()
    }

    /// Returns what keeps the service from being ready.
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// Runs until stopped; tells whether everything ended in time and without failure.
    ///
    /// # Errors
    /// [`StartError::Http`]: the HTTP server cannot be made.
    pub async fn run(self) -> Result<bool, StartError> {
        let address = self
            .listener
            .local_addr()
            .map_err(|error| StartError::Http(error.to_string()))?;
        let stop_timeout = self.fleet.shared().settings.stop_timeout;
        let (lifecycle, nats) = (self.lifecycle.clone(), self.nats.clone());
        let server = self
            .start_http()
            .map_err(|error| StartError::Http(error.to_string()))?;
        self.start_tasks();
        let scheme = self.tls.as_ref().map_or("http", |_| "https");
        tracing::info!("the twin listens on {scheme}://{address}");
        lifecycle.stop_requested().await;
        let saved = self.workers_ended(stop_timeout).await;
        server.stop(true).await;
        let drained = lifecycle.drained(stop_timeout).await;
        // What is still in the connection's buffer, acknowledgements among it, goes out.
        let flushed = tokio::time::timeout(Duration::from_secs(2), nats.flush()).await;
        Ok(saved && drained && flushed.is_ok())
    }

    async fn workers_ended(&self, within: Duration) -> bool {
        let in_time = tokio::time::timeout(within, self.fleet.ended())
            .await
            .is_ok();
        if !in_time {
            tracing::error!(
                "estimators did not stop within {within:?}; they go on from their last checkpoints"
            );
        }
        in_time
    }

    fn start_http(&self) -> std::io::Result<ServerHandle> {
        let fleet = web::Data::from(Arc::clone(&self.fleet));
        let (readiness, metrics) = (self.readiness.clone(), self.metrics.clone());
        let gate = auth::guard::data(&self.gate);
        let cors = web::Data::new(self.fleet.shared().settings.cors.clone());
        let openapi = http::written(&api::openapi());
        let server = HttpServer::new(move || {
            App::new()
                .wrap(middleware::from_fn(auth::guard))
                .wrap(middleware::from_fn(http::same_origin))
                .wrap(middleware::from_fn(slow_body::bounded))
                .wrap(middleware::from_fn(cors::cors))
                .wrap(middleware::from_fn(http::careful_headers))
                .app_data(cors.clone())
                .app_data(gate.clone())
                .app_data(fleet.clone())
                .configure(http::operations("twin", readiness.clone(), metrics.clone()))
                .configure(http::docs(openapi.clone()))
                .configure(api::routes)
        });
        let server = server
            .disable_signals()
            .workers(HTTP_WORKERS)
            .client_request_timeout(http::HEAD_WITHIN)
            .max_connections(http::CONNECTIONS)
            // A message to a watcher must not wait for its system to confirm the one before.
            .tcp_nodelay(true)
            .shutdown_timeout(2);
        let server = tls::listen(server, self.listener.try_clone()?, self.tls.as_ref())?.run();
        Ok(http::supervise(server, &self.lifecycle))
    }

    fn start_tasks(&self) {
        let (fleet, lifecycle) = (&self.fleet, &self.lifecycle);
        let partitions = Arc::new(subscribe::Partitions::new(self.readiness.clone()));
        lifecycle.supervise("share", share::run(Arc::clone(fleet), partitions));
        lifecycle.supervise("corrections", corrections::follow(Arc::clone(fleet)));
        let shared = fleet.shared();
        let known = Arc::clone(self.gate.known());
        let heard = access::follow(shared.jetstream.clone(), known, shared.stop.clone());
        lifecycle.supervise("access", heard);
        audit::start(&self.gate, &self.nats, lifecycle);
        if let Some(tls) = &self.tls {
            tls.start(lifecycle, &self.metrics);
        }
        let registered = registrations::follow(Arc::clone(fleet), self.readiness.clone());
        lifecycle.supervise("registrations", registered);
        let looked = look(Arc::clone(fleet), self.nats.clone(), self.readiness.clone());
        lifecycle.supervise("look", looked);
        let answered = commands::serve(Arc::clone(fleet), self.nats.clone());
        lifecycle.supervise("commands", answered);
        let shared = fleet.shared();
        let swept = shared.checkpoints.clone().keep_swept(shared.stop.clone());
        lifecycle.supervise("checkpoints.sweep", swept);
        self.start_news();
    }

    /// Starts what tells everyone: states, events, heartbeats.
    fn start_news(&self) {
        let (fleet, lifecycle) = (&self.fleet, &self.lifecycle);
        let shared = Arc::clone(fleet.shared());
        lifecycle.supervise("state", state::publish(Arc::clone(fleet)));
        let followed = live::follow(Arc::clone(fleet), self.readiness.clone());
        lifecycle.supervise("live", followed);
        let services = Arc::clone(&shared.services);
        let heard = services.listen(self.nats.clone(), shared.stop.clone());
        lifecycle.supervise("services", heard);
        let answered = ask::answer(Arc::clone(fleet), self.nats.clone());
        lifecycle.supervise("answers", answered);
        lifecycle.supervise("alerts.follow", alerts::follow(Arc::clone(fleet)));
        lifecycle.supervise("alerts", alerts::run(Arc::clone(fleet)));
        lifecycle.supervise("webhooks", alerts::deliver(Arc::clone(fleet)));
        let pulse = Pulse {
            client: self.nats.clone(),
            service: "twin",
            instance: shared.instance.clone(),
            readiness: self.readiness.clone(),
            interval: shared.settings.heartbeat_interval,
        };
        let (metrics, registry) = (shared.metrics.clone(), self.metrics.clone());
        let beating = pulse.beat(move || load(&metrics, &registry), shared.stop.clone());
        lifecycle.supervise("pulse", beating);
        lifecycle.supervise("events", async move {
            let (jetstream, bus) = (shared.jetstream.clone(), shared.settings.bus.clone());
            shared
                .events
                .send(jetstream, bus, shared.stop.clone())
                .await;
        });
    }
}

/// Looks at NATS, the hub and the fleet again and again, for readiness and metrics.
async fn look(fleet: Arc<Fleet>, nats: async_nats::Client, readiness: Readiness) {
    let shared = fleet.shared();
    let mut tick = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        readiness.set(NATS_PART, streams::problem(&nats));
        tokio::select! {
            () = shared.stop.cancelled() => return,
            problem = shared.hub.problem() => readiness.set(HUB_PART, problem),
        }
        measure(&fleet);
    }
}

/// Makes the way to the hub, which knows us by the services' token.
fn hub(settings: &Settings, nats: &async_nats::Client, trust: &Trust) -> Result<Hub, StartError> {
    let token = settings.auth.service_token_file.as_deref();
    let token = token.map(|file| read_token("auth.service_token_file", file));
    let token = token.transpose().map_err(StartError::Settings)?;
    let (url, timeout) = (settings.hub_url.clone(), settings.hub_timeout);
    Hub::new(nats.clone(), (url, token.as_deref()), (timeout, trust))
        .map_err(|error| StartError::Http(error.to_string()))
}

/// Reads the secret and makes the way to those who are told of alerts.
fn hooks(settings: &Settings) -> Result<Hooks, StartError> {
    let secret = match &settings.alerts.webhook_secret_file {
        Some(file) => Some(std::fs::read(file).map_err(|error| {
            let file = file.display();
            StartError::Settings(format!("alerts.webhook_secret_file: {file}: {error}"))
        })?),
        None => None,
    };
    let secret = secret.as_deref().map(<[u8]>::trim_ascii);
    if secret.is_some_and(<[u8]>::is_empty) {
        let problem = "alerts.webhook_secret_file: the file is empty";
        return Err(StartError::Settings(problem.to_owned()));
    }
    let reach = settings.webhook_reach().map_err(StartError::Settings)?;
    let hooks = Hooks::new(Trust::default().http(), secret, reach);
    hooks.map_err(|error| StartError::Http(error.to_string()))
}

/// How far the twin is behind, for its heartbeats.
fn load(metrics: &TwinMetrics, registry: &Metrics) -> Load {
    let named = |name: &str, value| (name.to_owned(), value);
    let counted = |counter: &IntCounter| i64::try_from(counter.get()).unwrap_or(i64::MAX);
    let skipped = registry
        .read_by_label("twin_rows_skipped_total")
        .into_iter();
    let skipped = skipped.map(|(reason, rows)| (format!("skipped_{reason}"), rows));
    Load {
        lag: [
            named("rows_behind", metrics.rows_behind.get()),
            named("checkpoint_age_s", metrics.checkpoint_age.get()),
        ]
        .into(),
        queues: [
            named("live_sockets", metrics.live.sockets.get()),
            named("estimators", metrics.estimators.get()),
            named("partitions", metrics.partitions.get()),
        ]
        .into(),
        totals: skipped
            .chain([named("rows", counted(&metrics.rows))])
            .collect(),
    }
}

fn measure(fleet: &Fleet) {
    let (mut rows_behind, mut oldest, mut live) = (0, Duration::ZERO, 0);
    let now = Instant::now();
    for battery in fleet.all() {
        let (newest, reports) = battery.reports();
        for report in reports {
            live += i64::from(report.phase == Phase::Live);
            // One that is paused is meant to fall behind.
            if report.phase == Phase::Paused {
                continue;
            }
            rows_behind = rows_behind.max(status::rows_behind(report.position, newest));
            if let Some(since) = report.unsaved_since {
                oldest = oldest.max(now.duration_since(since));
            }
        }
    }
    let metrics = &fleet.shared().metrics;
    metrics.rows_behind.set(rows_behind);
    metrics.estimators_live.set(live);
    metrics
        .checkpoint_age
        .set(i64::try_from(oldest.as_secs()).unwrap_or(i64::MAX));
}
