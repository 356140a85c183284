//! The newest picture of each battery's estimates as a file (`sink = "png"`).
//!
//! Such a twin only reads: it draws what the fleet's twins say on `rovi.estimates.>`, of the
//! estimator that `rovi.state` calls the champion. It has no fleet, so it claims no partition, runs
//! no estimator, and writes no checkpoint and no estimate.

mod draw;
mod follow;
mod recent;

use std::{
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex},
    time::Duration,
};

use actix_web::{App, HttpServer, dev::ServerHandle, middleware};
use async_nats::jetstream;
use rovi_common::{
    auth::{self, Gate},
    http::{self, Readiness},
    lifecycle::Lifecycle,
    streams,
    telemetry::Metrics,
    tls::{self, Tls, Trust},
};
use rovi_pictures::Folder;

use self::{draw::Pictures, recent::Recent};
use crate::{access, config::Settings, service::StartError};

const NATS_PART: &str = "nats";
const LOOK: Duration = Duration::from_secs(1);

/// A twin that draws, ready to run.
#[derive(Debug)]
pub struct Service {
    settings: Settings,
    folder: Folder,
    listener: TcpListener,
    nats: async_nats::Client,
    gate: Arc<Gate>,
    tls: Option<Tls>,
    lifecycle: Lifecycle,
    readiness: Readiness,
    metrics: Metrics,
}

impl Service {
    /// Tries the folder, opens the port and connects in the background; NATS may be away.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn from_config(settings: Settings) -> Result<Self, StartError> {
        settings.check().map_err(StartError::Settings)?;
        let gate = Gate::new(auth::Service::Twin, &settings.auth).map_err(StartError::Settings)?;
        let folder = Folder::open(settings.out.as_deref().unwrap_or(".".as_ref()))?;
        let address = settings.listen;
        let listener =
            TcpListener::bind(address).map_err(|source| StartError::Listen { address, source })?;
        let tls = Tls::open(&settings.tls)?;
        let trust = Trust::of(settings.tls.ca_file.as_deref())?;
        let seed = settings.nats_seed().map_err(StartError::Settings)?;
        let nats = streams::connect_as(&settings.nats_url, "twin", &trust, seed.as_ref()).await?;
        let parts = [NATS_PART, follow::STATES_PART, follow::ESTIMATES_PART];
        Ok(Self {
            settings,
            folder,
            listener,
            nats,
            gate,
            tls,
            lifecycle: Lifecycle::new(),
            readiness: Readiness::new(&parts),
            metrics: Metrics::new(),
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

    /// Runs until stopped; tells whether everything ended in time.
    ///
    /// # Errors
    /// [`StartError::Http`]: the HTTP server cannot be made.
    pub async fn run(self) -> Result<bool, StartError> {
        let server = self
            .start_http()
            .map_err(|error| StartError::Http(error.to_string()))?;
        self.start_tasks();
        let folder = &self.folder;
        tracing::info!(
            "the twin draws what others say: {}",
            folder.path().display()
        );
        self.lifecycle.stop_requested().await;
        server.stop(true).await;
        Ok(self.lifecycle.drained(self.settings.stop_timeout).await)
    }

    fn start_tasks(&self) {
        let (lifecycle, jetstream) = (&self.lifecycle, jetstream::new(self.nats.clone()));
        let recent: Arc<Mutex<Recent>> = Arc::default();
        for what in [follow::What::States, follow::What::Estimates] {
            let (jetstream, recent) = (jetstream.clone(), Arc::clone(&recent));
            let (readiness, stop) = (self.readiness.clone(), lifecycle.stop_token());
            let followed = Box::pin(follow::follow(what, jetstream, recent, readiness));
            lifecycle.supervise(what.part(), async move {
                stop.run_until_cancelled(followed).await;
            });
        }
        let pictures = Pictures::new(recent, self.folder.clone(), &self.metrics);
        lifecycle.supervise("pictures", pictures.keep(lifecycle.stop_token()));
        if let Some(tls) = &self.tls {
            tls.start(lifecycle, &self.metrics);
        }
        let known = Arc::clone(self.gate.known());
        let heard = access::follow(jetstream, known, lifecycle.stop_token());
        lifecycle.supervise("access", heard);
        let (nats, readiness) = (self.nats.clone(), self.readiness.clone());
        let stop = lifecycle.stop_token();
        lifecycle.supervise("look", async move {
            let looking = async {
                loop {
                    readiness.set(NATS_PART, streams::problem(&nats));
                    tokio::time::sleep(LOOK).await;
                }
            };
            stop.run_until_cancelled(looking).await;
        });
    }

    /// Serves `/health`, `/ready` and `/metrics`.
    fn start_http(&self) -> std::io::Result<ServerHandle> {
        let (readiness, metrics) = (self.readiness.clone(), self.metrics.clone());
        let gate = auth::guard::data(&self.gate);
        let server = HttpServer::new(move || {
            App::new()
                .wrap(middleware::from_fn(auth::guard))
                .wrap(middleware::from_fn(http::same_origin))
                .wrap(middleware::from_fn(http::careful_headers))
                .app_data(gate.clone())
                .configure(http::operations("twin", readiness.clone(), metrics.clone()))
        });
        let server = server
            .disable_signals()
            .workers(1)
            .client_request_timeout(http::HEAD_WITHIN)
            .max_connections(http::CONNECTIONS)
            .shutdown_timeout(2);
        let server = tls::listen(server, self.listener.try_clone()?, self.tls.as_ref())?.run();
        Ok(http::supervise(server, &self.lifecycle))
    }
}
