//! What handlers are handed: made once in `service.rs`.

use std::sync::Arc;

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::Settings, metrics::HubMetrics, relayed::Board, store::Pool, upload::room::Rooms,
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
    /// Room in the writers' queues.
    pub rooms: Rooms,
    /// How far batteries are on the bus.
    pub board: Arc<Board>,
    /// The metrics.
    pub metrics: HubMetrics,
    /// Cancelled when the service shall stop.
    pub stop: CancellationToken,
    /// Upload sockets, which close before the HTTP server stops.
    pub sockets: TaskTracker,
}
