//! Batteries whose tables cannot be written now, each with its own queue.
//!
//! The queues are bounded by the room that each battery's connections have to take first.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use crate::batch::Batch;

/// First and longest pause before a parked battery is tried again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(3));

/// A battery set aside.
#[derive(Debug)]
struct Parked {
    batches: VecDeque<Batch>,
    pause: Duration,
    retry_at: Instant,
    /// Whether some of its batches are being tried.
    is_tried: bool,
}

/// All batteries set aside by one writer.
#[derive(Debug, Default)]
pub(super) struct Parking {
    batteries: HashMap<i64, Parked>,
}

impl Parking {
    pub(super) fn len(&self) -> usize {
        self.batteries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batteries.is_empty()
    }

    /// Sets a battery aside, or puts its batches back in front after another failure.
    pub(super) fn park(&mut self, battery: i64, batches: Vec<Batch>) -> Duration {
        let parked = self.put_back(battery, batches);
        parked.pause = (parked.pause * 2).min(PAUSES.1);
        parked.retry_at = Instant::now() + parked.pause;
        parked.pause
    }

    /// Sets a battery aside that is to be tried at once.
    pub(super) fn park_briefly(&mut self, battery: i64, batches: Vec<Batch>) {
        self.put_back(battery, batches);
    }

    fn put_back(&mut self, battery: i64, batches: Vec<Batch>) -> &mut Parked {
        let parked = self.batteries.entry(battery).or_insert_with(|| Parked {
            batches: VecDeque::new(),
            pause: PAUSES.0 / 2,
            retry_at: Instant::now(),
            is_tried: false,
        });
        for batch in batches.into_iter().rev() {
            parked.batches.push_front(batch);
        }
        parked.is_tried = false;
        parked
    }

    /// Appends a batch to its battery's queue; gives it back if the battery is not parked.
    pub(super) fn append(&mut self, batch: Batch) -> Option<Batch> {
        match self.batteries.get_mut(&batch.battery_id()) {
            Some(parked) => {
                parked.batches.push_back(batch);
                None
            }
            None => Some(batch),
        }
    }

    /// Returns when the next battery is to be tried.
    pub(super) fn next_retry(&self) -> Option<Instant> {
        let waiting = self.batteries.values().filter(|parked| !parked.is_tried);
        waiting.map(|parked| parked.retry_at).min()
    }

    /// Takes the first batches, up to about `rows`, of the battery whose time has come.
    ///
    /// The battery stays parked until [`Parking::settle`].
    pub(super) fn due(&mut self, rows: usize, even_if_early: bool) -> Option<(i64, Vec<Batch>)> {
        let now = Instant::now();
        let (&battery, parked) = self
            .batteries
            .iter_mut()
            .filter(|(_, parked)| !parked.is_tried && (even_if_early || parked.retry_at <= now))
            .min_by_key(|(_, parked)| parked.retry_at)?;
        parked.is_tried = true;
        let mut taken = Vec::new();
        let mut count = 0;
        while count < rows
            && let Some(batch) = parked.batches.pop_front()
        {
            count += batch.decoded.sent;
            taken.push(batch);
        }
        Some((battery, taken))
    }

    /// Notes that a battery's batches were written: the next ones are due at once.
    ///
    /// Returns whether that was all, and the battery is parked no more.
    pub(super) fn settle(&mut self, battery: i64) -> bool {
        let Some(parked) = self.batteries.get_mut(&battery) else {
            return true;
        };
        if parked.batches.is_empty() {
            self.batteries.remove(&battery);
            return true;
        }
        parked.is_tried = false;
        parked.retry_at = Instant::now();
        parked.pause = PAUSES.0 / 2;
        false
    }

    /// Gives up everything.
    pub(super) fn drain(&mut self) -> Vec<Batch> {
        let parked = self.batteries.drain();
        parked.flat_map(|(_, parked)| parked.batches).collect()
    }
}
