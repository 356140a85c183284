//! The lane of one battery: one frame in flight, each continuing the last.

use std::{sync::Arc, time::Duration};

use rovi_common::{clock::now_us, name::BatteryName};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::timeout,
};
use uuid::Uuid;

use super::{
    RelayError, Shared,
    frames::{self, EncodedFrame, Frames},
    stream::{self, LastRow, Sent},
    table::{self, Behind, Chunk, Relayed, Standing, StreamEnd, Tail},
};
use crate::{bus::BusError, relayed::Place, stored::StoredRows};

/// A lane without work for this long is closed; opening one again costs two look-ups.
const IDLE: Duration = Duration::from_secs(30);
/// A lane that is refused this often in a row leaves the battery to whoever is faster.
const MAX_REFUSALS: usize = 8;
/// Rows read from the table at once, at first; more once their size is known.
pub(super) const FIRST_CHUNK_ROWS: i64 = 64;
const MAX_CHUNK_ROWS: i64 = 4096;
/// Size at which a chunk of rows is large enough.
const CHUNK_KIB: i64 = 2048;

/// What a lane is given to do.
#[derive(Debug)]
pub(super) enum Work {
    /// Rows just stored, with their share of the memory for waiting rows.
    Rows(StoredRows, OwnedSemaphorePermit),
    /// The table has rows that were not marked as relayed.
    Behind(Behind),
}

/// Whether everything that was to be sent is on the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    /// Somebody else sent a frame meanwhile.
    Refused,
}

/// Relays the rows of one battery.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) shared: Arc<Shared>,
    pub(super) battery_id: i64,
    pub(super) battery: BatteryName,
    /// Where the next frame goes, on the bus of this epoch; unknown at first and after a refusal.
    pub(super) tail: Option<(Uuid, Tail)>,
    /// The first of the rows that are being relayed from memory.
    in_hand: Option<LastRow>,
    inbox: mpsc::Receiver<Work>,
    /// Work taken from the inbox that could not be joined to the work before.
    next: Option<Work>,
}

impl Lane {
    pub(super) fn new(
        shared: Arc<Shared>,
        battery_id: i64,
        battery: BatteryName,
        inbox: mpsc::Receiver<Work>,
    ) -> Self {
        Self {
            shared,
            battery_id,
            battery,
            tail: None,
            in_hand: None,
            inbox,
            next: None,
        }
    }

    /// Works until there is nothing more to do, or until something fails: then what waits here is
    /// dropped, since the table has it and the sweep comes back.
    pub(super) async fn run(mut self) {
        while let Some(work) = self.next_work().await {
            let done = match work {
                Work::Rows(rows, _room) => self.relay(rows).await,
                Work::Behind(behind) => self.relay_missing(&behind).await,
            };
            if let Err(error) = done {
                return self.shared.report(&self.battery, &error);
            }
        }
    }

    async fn next_work(&mut self) -> Option<Work> {
        if let Some(work) = self.next.take() {
            return Some(work);
        }
        if let Ok(work) = timeout(IDLE, self.inbox.recv()).await {
            return work;
        }
        // What was sent in this moment is still worked off; later work opens a new lane.
        self.inbox.close();
        self.inbox.recv().await
    }

    /// Sends rows from memory where they continue the stream, else from the table.
    async fn relay(&mut self, mut rows: StoredRows) -> Result<(), RelayError> {
        self.join_waiting(&mut rows);
        self.in_hand = rows.received.first().map(|&received| LastRow {
            epoch: rows.epoch,
            seq: rows.first_seq,
            received,
        });
        let tail = self.located().await?;
        if tail.epoch != rows.epoch || rows.first_seq > tail.last_seq + 1 {
            return self.catch_up().await;
        }
        let rows = frames::after(rows, tail.last_seq);
        match self.send(rows, tail.last_seq).await? {
            Outcome::Done => Ok(()),
            Outcome::Refused => self.catch_up().await,
        }
    }

    /// Joins small groups that wait: one frame at a time is in flight, so frames must grow.
    fn join_waiting(&mut self, rows: &mut StoredRows) {
        while let Ok(work) = self.inbox.try_recv() {
            let left = match work {
                Work::Rows(next, room) => {
                    frames::join(rows, next).map(|next| Work::Rows(next, room))
                }
                behind @ Work::Behind(_) => Some(behind),
            };
            if left.is_some() {
                self.next = left;
                return;
            }
        }
    }

    /// Sends what the sweep found missing, unless it was only not marked yet.
    async fn relay_missing(&mut self, behind: &Behind) -> Result<(), RelayError> {
        // What is known here may be what is wrong: somebody may have purged the stream, or be
        // sending everything anew.
        (self.tail, self.in_hand) = (None, None);
        let tail = self.located().await?;
        if tail.epoch == behind.epoch && tail.last_seq >= behind.last_seq {
            self.mark_relayed();
            return Ok(());
        }
        self.catch_up().await
    }

    /// Sends from the table whatever the stream lacks.
    pub(super) async fn catch_up(&mut self) -> Result<(), RelayError> {
        let mut limit = FIRST_CHUNK_ROWS;
        let mut refusals = 0;
        while refusals < MAX_REFUSALS {
            let tail = self.located().await?;
            let Some(chunk) = self.rows_after(tail, limit).await? else {
                // The battery's epoch is over.
                self.tail = None;
                refusals += 1;
                continue;
            };
            limit = next_limit(limit, &chunk.rows);
            let last_read = chunk.rows.last().map_or(chunk.last_seq, frames::last_seq);
            if self.send_all(chunk.rows, tail.last_seq).await? == Outcome::Refused {
                refusals += 1;
                continue;
            }
            if last_read >= chunk.last_seq {
                // The newest rows may have been deleted before they were sent.
                self.pass_over_deleted(chunk.last_seq);
                self.mark_relayed();
                self.shared.set_readable(&self.battery, Ok(()));
                return Ok(());
            }
            refusals = 0;
        }
        Err(RelayError::Contended)
    }

    /// Reads from the table; `None` where the battery's epoch is over.
    pub(super) async fn rows_after(
        &self,
        tail: Tail,
        limit: i64,
    ) -> Result<Option<Chunk>, RelayError> {
        let _turn = self.shared.table_turn().await;
        let (battery_id, battery) = (self.battery_id, self.battery.clone());
        let read = move |conn: &mut _| table::rows_after(conn, battery_id, &battery, tail, limit);
        self.shared.pool.run(read).await.map_err(RelayError::Store)
    }

    async fn send_all(
        &mut self,
        chunks: Vec<StoredRows>,
        mut after: i64,
    ) -> Result<Outcome, RelayError> {
        for rows in chunks {
            let last_seq = frames::last_seq(&rows);
            if self.send(rows, after).await? == Outcome::Refused {
                return Ok(Outcome::Refused);
            }
            after = last_seq;
        }
        Ok(Outcome::Done)
    }

    /// Sends rows that were found to follow the row `after` of the stream.
    ///
    /// Between two frames the bus may be wiped, and the stream have another end: what does not
    /// follow that one is as good as refused.
    async fn send(&mut self, rows: StoredRows, mut after: i64) -> Result<Outcome, RelayError> {
        for frame in Frames::of(rows) {
            let tail = self.located().await?;
            if (tail.epoch, tail.last_seq) != (frame.epoch, after)
                || self.send_frame(&frame).await? == Outcome::Refused
            {
                return Ok(Outcome::Refused);
            }
            after = frame.last_seq;
        }
        Ok(Outcome::Done)
    }

    pub(super) async fn send_frame(&mut self, frame: &EncodedFrame) -> Result<Outcome, RelayError> {
        let tail = self.located().await?;
        let shared = Arc::clone(&self.shared);
        let _room = shared.room_in_flight(frame.bytes.len()).await;
        // Without an acknowledgement the frame may be on the stream or not.
        let bus_epoch = self.tail.take().map(|(bus_epoch, _)| bus_epoch);
        let sent = stream::send(&shared.bus, &self.battery, frame, tail.stream_seq);
        match sent.await.map_err(RelayError::Bus)? {
            Sent::Refused => {
                shared.metrics.refusals.inc();
                Ok(Outcome::Refused)
            }
            Sent::Stored(stream_seq) => {
                let tail = Tail {
                    stream_seq,
                    epoch: frame.epoch,
                    last_seq: frame.last_seq,
                };
                self.tail = bus_epoch.map(|bus_epoch| (bus_epoch, tail));
                self.mark_relayed();
                shared.metrics.count(frame);
                Ok(Outcome::Done)
            }
        }
    }

    /// Returns where the next frame goes, from the stream and the table where it is not known.
    pub(super) async fn located(&mut self) -> Result<Tail, RelayError> {
        let away = || BusError::Away("the bus is away".to_owned());
        let life = self.shared.bus.life().ok_or_else(away);
        let bus_epoch = life.map_err(RelayError::Bus)?.epoch;
        if let Some((known_on, tail)) = self.tail
            && known_on == bus_epoch
        {
            return Ok(tail);
        }
        match self.compare().await? {
            Standing::Continue(tail) => {
                self.tail = Some((bus_epoch, tail));
                Ok(tail)
            }
            Standing::NoBattery => Err(RelayError::NoBattery),
            Standing::BusChanged => Err(RelayError::BusChanged),
        }
    }

    /// Reads the battery's end of the stream, then compares it with the table.
    async fn compare(&self) -> Result<Standing, RelayError> {
        let _turn = self.shared.table_turn().await;
        let bus = &self.shared.bus;
        let last = stream::last_message(bus, &self.battery);
        let last = last.await.map_err(RelayError::Bus)?;
        let bus_epoch = match last.and_then(|last| last.row) {
            Some(_) => None,
            None => Some(bus.rows_epoch().await.map_err(RelayError::Bus)?),
        };
        let max_age = i64::try_from(bus.settings().max_age.as_micros()).unwrap_or(i64::MAX);
        let end = StreamEnd {
            battery_id: self.battery_id,
            battery: self.battery.clone(),
            last,
            bus_epoch,
            window_begin: now_us().saturating_sub(max_age),
            in_hand: self.in_hand,
        };
        let compare = move |conn: &mut _| table::standing(conn, &end);
        self.shared
            .pool
            .run(compare)
            .await
            .map_err(RelayError::Store)
    }

    /// Goes on behind rows that are not in the table any more.
    fn pass_over_deleted(&mut self, last_seq: i64) {
        if let Some((_, tail)) = &mut self.tail {
            tail.last_seq = tail.last_seq.max(last_seq);
        }
    }

    fn mark_relayed(&self) {
        if let Some((bus_epoch, tail)) = self.tail {
            let relayed = Relayed {
                battery_id: self.battery_id,
                epoch: tail.epoch,
                seq: tail.last_seq,
            };
            self.shared.hints.note(bus_epoch, relayed);
            let place = Place {
                epoch: tail.epoch,
                seq: tail.last_seq,
            };
            self.shared.board.note(self.battery_id, place);
        }
    }
}

/// Chooses how many rows to read next, by the size of those just read.
fn next_limit(limit: i64, chunk: &[StoredRows]) -> i64 {
    let kib: i64 = chunk
        .iter()
        .map(|rows| i64::from(frames::weight_kib(rows)))
        .sum();
    let fitting = limit.saturating_mul(CHUNK_KIB) / kib.max(1);
    fitting.clamp(1, (limit * 8).min(MAX_CHUNK_ROWS))
}
