//! Rows on their way from a connection to a writer, and what the connection hears of them.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rovi_common::name::BatteryName;
use tokio::sync::watch;

use crate::{
    relayed::Place,
    store::sessions::Claim,
    upload::{
        Decoded,
        marks::Marks,
        room::{Notice, Room, Seat},
    },
};

/// Rows of one frame, waiting to be stored.
#[derive(Debug)]
pub struct Batch {
    /// The connection they came by.
    pub uploader: Arc<Uploader>,
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
    pub seat: Seat,
    /// Lines of `hub.rejected_rows` that these rows come from, by row; empty for an upload.
    pub replayed: Vec<i64>,
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

#[cfg(test)]
impl Batch {
    /// Makes a batch of a battery's first connection, in the session that has the battery's number.
    pub(crate) fn sample(battery_id: i64, position: i64, decoded: Decoded) -> Self {
        use futures_util::FutureExt;

        let room = crate::upload::room::Rooms::new(1000, 100).of(battery_id);
        let claim = Claim {
            battery_id,
            newest: Place::default(),
            relayed: Place::default(),
            session: uuid::Uuid::from_u128(u128::from(battery_id.unsigned_abs())),
            attempt: 1,
            position: 0,
        };
        let name = format!("b{battery_id}").parse().unwrap();
        Self {
            seat: room.take(1).now_or_never().flatten().unwrap(),
            uploader: Arc::new(Uploader::new(claim, name, room, None)),
            position,
            received: 0,
            begins_segment: false,
            weight: decoded.sent,
            decoded,
            replayed: Vec::new(),
        }
    }
}

/// Why no further row of a connection is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// A newer connection of the session took over, or the battery was removed.
    Refused(String),
    /// Rows cannot be stored now, and why: the client may come again.
    Unavailable(String),
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
    /// How many of the rows stored by this connection were rejected.
    pub rejected: u64,
    /// Position and reason of the first of them.
    pub first_rejection: Option<(i64, String)>,
    rejects: VecDeque<(i64, String)>,
}

impl Progress {
    /// Tells whether [`Uploader::take_rejects`] has something to give.
    pub fn has_rejects(&self) -> bool {
        !self.rejects.is_empty()
    }
}

/// One upload connection as the writers see it.
#[derive(Debug)]
pub struct Uploader {
    /// What it may store.
    pub claim: Claim,
    /// The battery's name.
    pub battery: BatteryName,
    /// Where it stands on the bus; only for connections that want to hear of that and of each
    /// rejected row.
    marks: Option<Mutex<Marks>>,
    progress: watch::Sender<Progress>,
    room: Room,
}

impl Uploader {
    /// Makes the writers' view of a connection; with `marks`, it hears of every row.
    pub fn new(claim: Claim, battery: BatteryName, room: Room, marks: Option<Marks>) -> Self {
        let progress = watch::Sender::new(Progress {
            stored: claim.position,
            ..Progress::default()
        });
        Self {
            claim,
            battery,
            marks: marks.map(Mutex::new),
            progress,
            room,
        }
    }

    /// Returns the room that the battery's connections share.
    pub fn room(&self) -> &Room {
        &self.room
    }

    /// Tells the battery's connections that it is set aside, or that it is no more.
    pub fn set_aside(&self, notice: Option<Notice>) {
        self.room.set_aside(notice);
    }

    /// Returns the position below which all rows are on the bus or rejected.
    pub fn relayed(&self) -> i64 {
        self.marks().map_or(0, |mut marks| marks.relayed())
    }

    /// Returns how far the battery is on the bus, for connections that hear of it.
    pub fn watch_relayed(&self) -> Option<watch::Receiver<Place>> {
        self.marks().map(|marks| marks.follower().watch())
    }

    fn marks(&self) -> Option<MutexGuard<'_, Marks>> {
        let marks = self.marks.as_ref()?;
        Some(marks.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns a view of the progress that can be waited for.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Returns the positions and reasons of rows rejected since the last call, `most` at once, and
    /// whether these are all.
    ///
    /// There are never more than the connection's window.
    pub fn take_rejects(&self, most: usize) -> (Vec<(i64, String)>, bool) {
        let (mut rejects, mut are_all) = (Vec::new(), true);
        self.progress.send_if_modified(|progress| {
            let count = progress.rejects.len().min(most);
            rejects.extend(progress.rejects.drain(..count));
            are_all = progress.rejects.is_empty();
            false
        });
        (rejects, are_all)
    }

    /// Tells that all rows below `position` are durable, where the newest of them stands, and
    /// which of them were rejected.
    pub fn stored(&self, position: i64, newest: Option<Place>, rejects: Vec<(i64, String)>) {
        if let Some(mut marks) = self.marks() {
            marks.stored(position, newest);
        }
        self.progress.send_modify(|progress| {
            progress.stored = progress.stored.max(position);
            progress.rejected += rejects.len() as u64;
            if progress.first_rejection.is_none() {
                progress.first_rejection = rejects.first().cloned();
            }
            if self.marks.is_some() {
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

    /// Returns why nothing more will be stored, once the connection was told that.
    pub fn ending(&self) -> Option<Ending> {
        self.progress.borrow().ending.clone()
    }

    /// Tells whether the connection was already told that nothing more will be stored.
    pub fn has_ended(&self) -> bool {
        self.progress.borrow().ending.is_some()
    }
}
