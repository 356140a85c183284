//! Batteries whose tables cannot be written now, each with its own queue.
//!
//! The queues are bounded by the room that each battery's connections have to take first, and
//! together by the room of batteries that are set aside. Where a battery is set aside while that
//! is full, the connections whose rows have no place there end with 1013: nothing of theirs was
//! acknowledged, and the rows of other batteries need the room that they hold.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    batch::{Batch, Ending, Uploader},
    upload::room::Notice,
};

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
    since: Instant,
    /// A connection, by which all of the battery's are told.
    uploader: Option<Arc<Uploader>>,
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
    ///
    /// Returns the pause before the next try, and batches for which there is no room.
    pub(super) fn park(
        &mut self,
        battery: i64,
        batches: Vec<Batch>,
        reason: &str,
    ) -> (Duration, Vec<Batch>) {
        let (parked, homeless) = self.put_back(battery, batches, reason);
        parked.pause = (parked.pause * 2).min(PAUSES.1);
        parked.retry_at = Instant::now() + parked.pause;
        (parked.pause, homeless)
    }

    /// Sets a battery aside that is to be tried at once; returns batches for which there is no room.
    pub(super) fn park_briefly(
        &mut self,
        battery: i64,
        batches: Vec<Batch>,
        reason: &str,
    ) -> Vec<Batch> {
        self.put_back(battery, batches, reason).1
    }

    /// Puts batches in front of their battery's queue and tells its connections why they wait.
    fn put_back(
        &mut self,
        battery: i64,
        batches: Vec<Batch>,
        reason: &str,
    ) -> (&mut Parked, Vec<Batch>) {
        let parked = self.batteries.entry(battery).or_insert_with(|| Parked {
            batches: VecDeque::new(),
            pause: PAUSES.0 / 2,
            retry_at: Instant::now(),
            is_tried: false,
            since: Instant::now(),
            uploader: None,
        });
        if let Some(batch) = batches.first() {
            let notice = Notice {
                since: parked.since,
                reason: reason.into(),
            };
            batch.uploader.set_aside(Some(notice));
            parked.uploader = Some(Arc::clone(&batch.uploader));
        }
        let (mut kept, mut homeless) = (Vec::new(), Vec::new());
        for mut batch in batches {
            if finds_room(&mut batch) {
                kept.push(batch);
            } else {
                homeless.push(batch);
            }
        }
        for batch in kept.into_iter().rev() {
            parked.batches.push_front(batch);
        }
        parked.is_tried = false;
        (parked, homeless)
    }

    /// Appends a batch to its battery's queue; gives it back if the battery is not parked, or if
    /// there is no room, after telling its connection.
    pub(super) fn append(&mut self, mut batch: Batch) -> Option<Batch> {
        match self.batteries.get_mut(&batch.battery_id()) {
            Some(parked) if !batch.uploader.has_ended() && finds_room(&mut batch) => {
                parked.batches.push_back(batch);
                None
            }
            _ => Some(batch),
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
            parked.tell_end();
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

impl Parked {
    fn tell_end(&self) {
        if let Some(uploader) = &self.uploader {
            uploader.set_aside(None);
        }
    }
}

/// Moves a batch's room to where those of batteries that are set aside have theirs; where there is
/// none, its connection ends, and later rows of it are not stored either.
fn finds_room(batch: &mut Batch) -> bool {
    if batch.seat.is_aside() {
        return true;
    }
    if batch.uploader.has_ended() || !batch.seat.move_aside() {
        let reason = "the battery is set aside and there is no more room for its rows";
        batch.uploader.end(Ending::Unavailable(reason.to_owned()));
        return false;
    }
    true
}
