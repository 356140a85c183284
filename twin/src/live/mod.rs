//! Hop 7 of 7, the last step: states from `rovi.state` to everyone who watches.
//!
//! `follow` reads the states of all batteries, whichever twin said them, onto the [`Board`]. Each
//! watcher has an `inbox`: the newest state of each battery that it has not got yet, so a slow one
//! costs nobody else anything. A state is written once for each distinct choice of fields
//! (`shape`) and shared. `socket` and `stream` are the two ways out, `resume` gives a watcher
//! that comes back the rows it missed.

mod board;
mod follow;
mod inbox;
mod query;
mod resume;
mod shape;
mod socket;
mod stream;
mod watcher;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

pub use self::board::{Board, Place, Version};
pub(crate) use self::{
    follow::{READY_PART, follow},
    socket::{__path_get_socket, get_socket},
    stream::{__path_get_events, get_events},
};
use crate::fleet::Fleet;

/// The most bytes of a message to a watcher; a larger snapshot comes in several.
pub(crate) const MESSAGE_BYTES: usize = 1 << 20;

/// Counts one watcher for as long as it lives.
#[derive(Debug)]
pub(crate) struct Seat {
    fleet: Arc<Fleet>,
}

impl Seat {
    /// Takes a seat, unless all are taken.
    pub(crate) fn take(fleet: &Arc<Fleet>) -> Option<Self> {
        let shared = fleet.shared();
        let most = shared.settings.live.sockets;
        let taken = shared
            .watchers
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |taken| {
                (taken < most).then_some(taken + 1)
            });
        taken.ok()?;
        shared.metrics.live.sockets.inc();
        Some(Self {
            fleet: Arc::clone(fleet),
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let shared = self.fleet.shared();
        shared.watchers.fetch_sub(1, Ordering::AcqRel);
        shared.metrics.live.sockets.dec();
    }
}

/// How many watchers there are.
pub type Watchers = AtomicUsize;
