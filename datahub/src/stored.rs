//! Rows that are committed: what hop 3 hands to hop 4.

use std::sync::Arc;

use rovi_common::{name::BatteryName, rows::Columns};
use tokio::sync::{mpsc, watch};

use crate::{
    bus::{Bus, BusState},
    relay::hints::Hints,
};

/// Rows of one battery, one epoch and one segment that are committed; only `store` makes them.
#[derive(Debug, Clone)]
pub struct StoredRows {
    /// The battery's line in `hub.batteries`.
    pub battery_id: i64,
    /// The battery's name.
    pub battery: BatteryName,
    /// The life of the name.
    pub epoch: i64,
    /// The segment of all these rows.
    pub segment: i32,
    /// `seq` of the first row; the others follow without gaps.
    pub first_seq: i64,
    /// When the hub took each row, in microseconds since 1970.
    pub received: Vec<i64>,
    /// The columns as they stand in the table; those without any value may be missing.
    pub columns: Columns,
}

/// Where the writers hand over what they committed, a group at a time. They never wait: what does
/// not fit, or comes while the bus is away, is left to the relay's sweep.
#[derive(Debug, Clone)]
pub(crate) struct StoredSender {
    queue: mpsc::Sender<Vec<StoredRows>>,
    bus: watch::Receiver<BusState>,
}

impl StoredSender {
    pub(crate) fn new(queue: mpsc::Sender<Vec<StoredRows>>, bus: &Bus) -> Self {
        let bus = bus.watch();
        Self { queue, bus }
    }

    /// Tells whether there is a bus for the rows.
    pub(crate) fn has_bus(&self) -> bool {
        matches!(*self.bus.borrow(), BusState::Ready(_))
    }

    /// Hands rows over; tells whether there was room.
    pub(crate) fn send(&self, rows: Vec<StoredRows>) -> bool {
        self.queue.try_send(rows).is_ok()
    }
}

/// What writers and relay have of each other.
#[derive(Debug, Clone)]
pub(crate) struct ToRelay {
    /// Takes what is committed.
    pub(crate) stored: StoredSender,
    /// Tells what became of it, to be marked with the next rows.
    pub(crate) hints: Arc<Hints>,
}
