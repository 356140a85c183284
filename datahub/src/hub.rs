//! What handlers are handed: made once in `service.rs`.

use std::sync::Arc;

use rovi_common::{http::Problem, name::BatteryName, rows::SharedNames, services::Services};
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::Settings,
    corrections::Corrections,
    deletions::Deletions,
    history::roller::Roller,
    metrics::HubMetrics,
    relayed::Board,
    store::{Pool, batteries},
    upload::{bodies::Bodies, open::OpenUploads, room::Rooms},
    writer::Writers,
};

/// The parts of the hub that requests use.
#[derive(Debug)]
pub struct Hub {
    /// The settings.
    pub settings: Settings,
    /// Connections for queries.
    pub pool: Pool,
    /// The writer threads.
    pub writers: Writers,
    /// Memory for large frames while they come.
    pub frames: Arc<Semaphore>,
    /// Memory for bodies of requests.
    pub bodies: Bodies,
    /// Names of columns that rows of many batteries have.
    pub names: Arc<SharedNames>,
    /// Room in the writers' queues.
    pub rooms: Rooms,
    /// The connections that are open.
    pub uploads: Arc<OpenUploads>,
    /// What follows a deletion.
    pub deletions: Arc<Deletions>,
    /// Tells twins of corrected rows.
    pub corrections: Arc<Corrections>,
    /// How far batteries are on the bus.
    pub board: Arc<Board>,
    /// The services that were heard on the bus.
    pub services: Arc<Services>,
    /// The metrics.
    pub metrics: HubMetrics,
    /// Makes rollups of batteries whose history is reduced.
    pub roller: Roller,
    /// Exports that may begin now.
    pub exports: Arc<Semaphore>,
    /// Files of rows that may be taken in now.
    pub files: Arc<Semaphore>,
    /// Cancelled when the service shall stop.
    pub stop: CancellationToken,
    /// Upload sockets, which close before the HTTP server stops.
    pub sockets: TaskTracker,
}

impl Hub {
    /// Whether there is such a battery.
    ///
    /// # Errors
    /// 503 while PostgreSQL is away.
    pub async fn knows(&self, battery: &BatteryName) -> Result<bool, Problem> {
        let name = battery.clone();
        let find = move |connection: &mut _| Ok(batteries::find(connection, name.as_str())?);
        Ok(self.pool.run(find).await?.is_some())
    }
}
