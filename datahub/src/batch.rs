//! Rows on their way from a connection to a writer, and what the connection hears of them.

use std::mem;

use rovi_common::name::BatteryName;
use tokio::sync::{OwnedSemaphorePermit, watch};

use crate::{store::sessions::Claim, upload::Decoded};

/// Rows of one frame, waiting to be stored.
#[derive(Debug)]
pub struct Batch {
    /// The connection they came by.
    pub uploader: std::sync::Arc<Uploader>,
    /// Position of the first row in the session.
    pub position: i64,
    /// When the hub took the rows, in microseconds since 1970.
    pub received: i64,
    /// Whether the first row was asked to begin a segment.
    pub begins_segment: bool,
    /// The rows.
    pub decoded: Decoded,
    /// The memory they take, in bytes.
    pub weight: usize,
    /// Room in the queues, given back when the batch is answered.
    pub room: Vec<OwnedSemaphorePermit>,
}

impl Batch {
    /// Returns the position after the last row.
    pub fn end(&self) -> i64 {
        self.position + i64::try_from(self.decoded.sent).unwrap_or(i64::MAX)
    }

    /// Returns the id of the battery.
    pub fn battery_id(&self) -> i64 {
        self.uploader.claim.battery_id
    }
}

/// Why no further row of a connection is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// A newer connection of the session took over, or the battery was removed.
    Refused(String),
    /// The hub gave up: it stops while PostgreSQL is away.
    Unavailable,
    /// A defect of the hub.
    Defect(String),
}

/// How far a connection's rows are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// All rows of the session below this position are durable.
    pub stored: i64,
    /// Set once nothing more will be stored.
    pub ending: Option<Ending>,
    rejects: Vec<(i64, String)>,
}

/// One upload connection as the writers see it.
#[derive(Debug)]
pub struct Uploader {
    /// What it may store.
    pub claim: Claim,
    /// The battery's name.
    pub battery: BatteryName,
    /// Whether it wants to hear of rejected rows.
    pub wants_rejects: bool,
    progress: watch::Sender<Progress>,
}

impl Uploader {
    /// Makes the writers' view of a connection.
    pub fn new(claim: Claim, battery: BatteryName, wants_rejects: bool) -> Self {
        let progress = watch::Sender::new(Progress {
            stored: claim.position,
            ..Progress::default()
        });
        Self {
            claim,
            battery,
            wants_rejects,
            progress,
        }
    }

    /// Returns a view of the progress that can be waited for.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Returns the positions and reasons of rows rejected since the last call.
    ///
    /// There are never more than the connection's window.
    pub fn take_rejects(&self) -> Vec<(i64, String)> {
        let mut rejects = Vec::new();
        self.progress.send_if_modified(|progress| {
            rejects = mem::take(&mut progress.rejects);
            false
        });
        rejects
    }

    /// Tells that all rows below `position` are durable, and which of them were rejected.
    pub fn stored(&self, position: i64, rejects: Vec<(i64, String)>) {
        self.progress.send_modify(|progress| {
            progress.stored = progress.stored.max(position);
            if self.wants_rejects {
                progress.rejects.extend(rejects);
            }
        });
    }

    /// Tells that nothing more will be stored.
    pub fn end(&self, ending: Ending) {
        self.progress.send_modify(|progress| {
            progress.ending.get_or_insert(ending);
        });
    }

    /// Tells whether the connection was already told that nothing more will be stored.
    pub fn has_ended(&self) -> bool {
        self.progress.borrow().ending.is_some()
    }
}
