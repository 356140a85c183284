//! A fleet that does not exist: simulated cells, or a file played again and again, streamed at a
//! steady pace for as long as wanted. Demo, load tests and pages are tried with it.
//!
//! What a battery sends depends on the seed alone, never on the clock: rows that were due while the
//! program or the hub stood still are sent afterwards, in order.

mod fault;
mod pace;
mod recording;
mod sender;
mod source;

use std::sync::atomic::{AtomicU64, Ordering};

pub use self::{
    fault::{Fault, Plan as FaultPlan, Trouble},
    pace::Beat,
    recording::Recording,
    sender::send,
    source::Source,
};

/// How far the whole fleet is.
#[derive(Debug, Default)]
pub struct Tally {
    /// Rows that the hub acknowledged as durable.
    pub stored: AtomicU64,
    /// Rows that the hub refused and kept.
    pub rejected: AtomicU64,
    /// Connections that broke and are made anew.
    pub broken: AtomicU64,
}

impl Tally {
    fn add(counter: &AtomicU64, rows: u64) {
        counter.fetch_add(rows, Ordering::Relaxed);
    }
}
