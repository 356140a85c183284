//! Hop 4 of 7: stored rows → frames on `rovi.rows.<battery>`.
//!
//! In: [`StoredRows`] after their commit, and from a sweep those batteries whose rows were stored
//! elsewhere or while the bus was away. Out: frames on the rows stream, each appended by
//! compare-and-set after the battery's last one. On failure nothing is marked as relayed, what
//! is held in memory is dropped, and the sweep comes back: the table is the truth.
//!
//! Reading order: `Relay::run` gives each battery with work a lane; a lane (`battery`) knows
//! the end of its battery on the `stream`, compares it with the `table`, and sends
//! `frames`; `hints` remember what was acknowledged; `sweep` finds what is missing; `rebuild` sends all anew.

mod battery;
mod frames;
pub(crate) mod hints;
pub(crate) mod lag;
pub mod rebuild;
mod stream;
mod sweep;
mod table;

use std::{
    collections::{HashMap, HashSet},
    mem,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use prometheus::{IntCounter, IntGauge};
use rovi_common::{
    error::ErrorChain, http::Readiness, lifecycle::Lifecycle, name::BatteryName, telemetry::Metrics,
};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Semaphore, SemaphorePermit, mpsc},
    time::{MissedTickBehavior, interval},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    battery::{Lane, Work},
    frames::EncodedFrame,
    hints::Hints,
    table::Behind,
};
use crate::{
    bus::{Bus, BusError},
    relayed::Board,
    store::{Pool, StoreError},
    stored::StoredRows,
};

/// The part of `/ready` that tells about the relay.
pub const READY_RELAY: &str = "relay";

/// Groups of rows that wait in one lane; what comes beyond is read from the table later, which costs
/// more than to keep it: their memory is bounded by `queue_kib`.
const LANE_QUEUE: usize = 256;
/// Batteries found by the sweep that wait for a lane.
const SWEEP_QUEUE: usize = 256;
/// Lanes that look into the table at once. Each uses a connection of the pool for a moment.
const TABLE_TURNS: usize = 3;
/// Memory of frames that wait for their acknowledgement, in KiB.
const IN_FLIGHT_KIB: u32 = 64 * 1024;
const FLUSH_HINTS_EVERY: Duration = Duration::from_millis(200);
/// How long the relay goes on after the order to stop, for the writers' last groups.
const FINISH_WITHIN: Duration = Duration::from_secs(5);

/// The settings of the relay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RelaySettings {
    /// How often the hub looks for batteries whose rows are not on the bus, whoever stored them.
    /// Too low costs the database a look at every battery, too high delays rows of a hub that
    /// died. More than 256 such batteries are only counted, and looked at every ten seconds.
    #[serde(with = "humantime_serde")]
    pub sweep_interval: Duration,
    /// Most KiB of stored rows that wait in memory to be relayed; rows beyond are read from the
    /// table again. Too high costs memory while the bus is slow, too low costs reading.
    pub queue_kib: u32,
}

impl Default for RelaySettings {
    fn default() -> Self {
        Self {
            sweep_interval: Duration::from_secs(1),
            queue_kib: 128 * 1024,
        }
    }
}

impl RelaySettings {
    /// What usable settings are.
    pub(crate) const NEEDS: &str =
        "relay.sweep_interval must be 10 ms or more and relay.queue_kib 1 or more";

    pub(crate) fn is_usable(&self) -> bool {
        self.sweep_interval >= Duration::from_millis(10) && self.queue_kib >= 1
    }
}

/// Why a lane gave up; all of it is tried again by the sweep.
#[derive(Debug, thiserror::Error)]
enum RelayError {
    /// The bus is away or did not acknowledge.
    #[error("the bus did not take the rows")]
    Bus(#[source] BusError),
    /// The table cannot be read.
    #[error("the rows cannot be read from their table")]
    Store(#[source] StoreError),
    /// The bus was wiped and is about to be filled again.
    #[error("the bus was wiped just now")]
    BusChanged,
    /// Other hubs send the same rows faster.
    #[error("other hubs relay the same rows")]
    Contended,
    /// The battery was deleted.
    #[error("the battery does not exist any more")]
    NoBattery,
}

/// What the relay counts.
#[derive(Debug, Clone)]
struct RelayMetrics {
    frames: IntCounter,
    rows: IntCounter,
    refusals: IntCounter,
    not_kept: IntCounter,
    behind: IntGauge,
    batteries_behind: IntGauge,
    oldest_s: IntGauge,
    lanes: IntGauge,
    unreadable: IntGauge,
}

impl RelayMetrics {
    fn new(metrics: &Metrics) -> Self {
        Self {
            frames: metrics.counter(
                "datahub_frames_relayed_total",
                "Frames of rows that the bus acknowledged.",
            ),
            rows: metrics.counter(
                "datahub_rows_relayed_total",
                "Rows in frames that the bus acknowledged.",
            ),
            refusals: metrics.counter(
                "datahub_relay_refusals_total",
                "Frames that the bus refused because another came before.",
            ),
            not_kept: metrics.counter(
                "datahub_relay_rows_not_kept_total",
                "Stored rows for which the relay had no room; it reads them from the table.",
            ),
            behind: metrics.gauge(
                "datahub_rows_not_relayed",
                "Stored rows that were not marked as relayed at the last sweep.",
            ),
            batteries_behind: metrics.gauge(
                "datahub_batteries_not_relayed",
                "Batteries with such rows at the last sweep.",
            ),
            oldest_s: metrics.gauge(
                "datahub_relay_oldest_seconds",
                "Age of the oldest row that was found missing on the bus, of the batteries \
                 furthest behind.",
            ),
            unreadable: metrics.gauge(
                "datahub_relay_unreadable_tables",
                "Batteries that are not relayed because their tables cannot be read.",
            ),
            lanes: metrics.gauge(
                "datahub_relay_lanes",
                "Batteries whose rows were relayed lately.",
            ),
        }
    }

    fn count(&self, frame: &EncodedFrame) {
        self.frames.inc();
        let rows = frame.last_seq - frame.first_seq + 1;
        self.rows.inc_by(u64::try_from(rows).unwrap_or(0));
    }
}

/// What all lanes use.
#[derive(Debug)]
struct Shared {
    bus: Arc<Bus>,
    pool: Pool,
    settings: RelaySettings,
    readiness: Readiness,
    metrics: RelayMetrics,
    hints: Arc<Hints>,
    board: Arc<Board>,
    table_turns: Semaphore,
    in_flight: Semaphore,
    trouble: Mutex<Option<String>>,
    /// Batteries whose tables cannot be read.
    unreadable: Mutex<HashSet<BatteryName>>,
}

impl Shared {
    async fn table_turn(&self) -> Option<SemaphorePermit<'_>> {
        self.table_turns.acquire().await.ok()
    }

    async fn room_in_flight(&self, bytes: usize) -> Option<SemaphorePermit<'_>> {
        let kib = u32::try_from(bytes / 1024 + 1).unwrap_or(IN_FLIGHT_KIB);
        let kib = kib.min(IN_FLIGHT_KIB);
        self.in_flight.acquire_many(kib).await.ok()
    }

    /// Tells what ended a lane, where somebody can do something about it.
    fn report(&self, battery: &BatteryName, error: &RelayError) {
        let chain = ErrorChain(error);
        tracing::debug!(battery.id = %battery, "relaying {battery} stopped: {chain}");
        match error {
            RelayError::BusChanged => self.bus.doubt(),
            RelayError::Contended | RelayError::NoBattery => {}
            // One battery's table must not take the whole hub out of service.
            RelayError::Store(StoreError::Query(_)) => self.set_readable(battery, Err(error)),
            RelayError::Bus(_) | RelayError::Store(_) => {
                self.bus.doubt();
                let trouble = format!("relaying {battery}: {chain}");
                *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(trouble);
            }
        }
    }

    /// Notes whether a battery's table can be read; tells a change.
    fn set_readable(&self, battery: &BatteryName, readable: Result<(), &RelayError>) {
        let mut unreadable = self
            .unreadable
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let changed = match &readable {
            Ok(()) => unreadable.remove(battery),
            Err(_) => unreadable.insert(battery.clone()),
        };
        let tables = i64::try_from(unreadable.len()).unwrap_or(i64::MAX);
        self.metrics.unreadable.set(tables);
        if let (true, Err(error)) = (changed, readable) {
            let chain = ErrorChain(error);
            tracing::warn!(battery.id = %battery, "{battery} is not relayed: {chain}");
        }
    }

    fn has_trouble(&self) -> bool {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.is_some()
    }

    fn take_trouble(&self) -> Option<String> {
        mem::take(&mut *self.trouble.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Relays the rows of all batteries.
#[derive(Debug)]
pub struct Relay {
    shared: Arc<Shared>,
    /// Memory for rows that wait, in KiB.
    queue: Arc<Semaphore>,
    lanes: HashMap<i64, mpsc::Sender<Work>>,
    tasks: TaskTracker,
    /// Held by a running flush of hints, too.
    flushing: Arc<()>,
}

/// What the relay is made of.
#[derive(Debug)]
pub struct RelayParts {
    /// The bus, which somebody keeps checking.
    pub bus: Arc<Bus>,
    /// PostgreSQL.
    pub pool: Pool,
    /// The settings.
    pub settings: RelaySettings,
    /// Where the relay tells whether it works.
    pub readiness: Readiness,
}

impl Relay {
    /// Has the relay's metrics exist at 0 in a hub that relays nothing.
    pub(crate) fn register_metrics(metrics: &Metrics) {
        RelayMetrics::new(metrics);
    }

    /// Makes the relay; nothing is sent until [`Relay::start`].
    pub fn new(parts: RelayParts, metrics: &Metrics) -> Self {
        let queue_kib = usize::try_from(parts.settings.queue_kib).unwrap_or(usize::MAX);
        let shared = Shared {
            bus: parts.bus,
            pool: parts.pool,
            settings: parts.settings,
            readiness: parts.readiness,
            metrics: RelayMetrics::new(metrics),
            hints: Arc::default(),
            board: Arc::default(),
            table_turns: Semaphore::new(TABLE_TURNS),
            in_flight: Semaphore::new(IN_FLIGHT_KIB as usize),
            trouble: Mutex::default(),
            unreadable: Mutex::default(),
        };
        Self {
            shared: Arc::new(shared),
            queue: Arc::new(Semaphore::new(queue_kib.min(Semaphore::MAX_PERMITS))),
            lanes: HashMap::new(),
            tasks: TaskTracker::new(),
            flushing: Arc::default(),
        }
    }

    /// Returns what tells connections how far their batteries are on the bus.
    pub fn board(&self) -> Arc<Board> {
        Arc::clone(&self.shared.board)
    }

    /// Returns what writers take along of what the bus acknowledged.
    pub(crate) fn hints(&self) -> Arc<Hints> {
        Arc::clone(&self.shared.hints)
    }

    /// Starts relaying the rows that come from `stored`; ends when its senders are gone.
    pub fn start(self, lifecycle: &Lifecycle, stored: mpsc::Receiver<Vec<StoredRows>>) {
        let (found, sweeps) = mpsc::channel(SWEEP_QUEUE);
        let stop = lifecycle.stop_token();
        let sweep = sweep::run(Arc::clone(&self.shared), found, stop.clone());
        lifecycle.supervise("relay.sweep", sweep);
        lifecycle.supervise("relay", self.run(stored, sweeps, stop));
    }

    /// Gives each battery with work a lane.
    async fn run(
        mut self,
        mut stored: mpsc::Receiver<Vec<StoredRows>>,
        mut sweeps: mpsc::Receiver<Behind>,
        stop: CancellationToken,
    ) {
        let mut flush = interval(FLUSH_HINTS_EVERY);
        flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let finished = async {
            stop.cancelled().await;
            tokio::time::sleep(FINISH_WITHIN).await;
        };
        tokio::pin!(finished);
        loop {
            tokio::select! {
                rows = stored.recv() => match rows {
                    Some(group) => group.into_iter().for_each(|rows| self.take_stored(rows)),
                    None => break,
                },
                Some(behind) = sweeps.recv() => self.take_behind(behind),
                _ = flush.tick() => self.flush_hints(),
                () = &mut finished => break,
            }
        }
        self.finish(&stop).await;
    }

    fn take_stored(&mut self, rows: StoredRows) {
        let count = u64::try_from(rows.received.len()).unwrap_or(0);
        let kib = frames::weight_kib(&rows).min(self.shared.settings.queue_kib);
        let room = Arc::clone(&self.queue).try_acquire_many_owned(kib);
        let taken = match room {
            Ok(room) if self.shared.bus.life().is_some() => {
                let (id, battery) = (rows.battery_id, rows.battery.clone());
                self.hand_over(id, &battery, Work::Rows(rows, room))
            }
            _ => false,
        };
        if !taken {
            self.shared.metrics.not_kept.inc_by(count);
        }
    }

    fn take_behind(&mut self, behind: Behind) {
        let id = behind.id;
        // A lane that has work catches up by itself when it meets the hole.
        let has_work = |lane: &mpsc::Sender<Work>| lane.capacity() < lane.max_capacity();
        if self.lanes.get(&id).is_some_and(has_work) {
            return;
        }
        match behind.name.parse() {
            Ok(battery) => {
                self.hand_over(id, &battery, Work::Behind(behind));
            }
            Err(error) => tracing::error!("line {id} of hub.batteries cannot be relayed: {error}"),
        }
    }

    /// Puts work into the battery's lane, opening one if there is none; false if it is full.
    fn hand_over(&mut self, id: i64, battery: &BatteryName, work: Work) -> bool {
        let work = match self.lanes.get(&id).map(mpsc::Sender::try_reserve) {
            Some(Ok(place)) => {
                place.send(work);
                return true;
            }
            Some(Err(mpsc::error::TrySendError::Full(()))) => return false,
            Some(Err(mpsc::error::TrySendError::Closed(()))) | None => work,
        };
        let (lane, inbox) = mpsc::channel(LANE_QUEUE);
        let taken = lane.try_send(work).is_ok();
        self.lanes.insert(id, lane);
        let lane = Lane::new(Arc::clone(&self.shared), id, battery.clone(), inbox);
        self.tasks.spawn(lane.run());
        taken
    }

    /// Writes hints beside the flow of rows, and forgets closed lanes.
    fn flush_hints(&mut self) {
        self.lanes.retain(|_, lane| !lane.is_closed());
        let lanes = i64::try_from(self.lanes.len()).unwrap_or(i64::MAX);
        self.shared.metrics.lanes.set(lanes);
        if self.shared.hints.is_resting() {
            return;
        }
        // One flush at a time: the next one takes what comes meanwhile.
        if let (Some(life), 1) = (self.shared.bus.life(), Arc::strong_count(&self.flushing)) {
            let (shared, running) = (Arc::clone(&self.shared), Arc::clone(&self.flushing));
            self.tasks.spawn(async move {
                shared.hints.flush_due(&shared.pool, life.epoch).await;
                drop(running);
            });
        }
    }

    /// Lets every lane send what it has, and writes the last hints.
    async fn finish(mut self, stop: &CancellationToken) {
        if !stop.is_cancelled() {
            tracing::debug!("no more rows are stored: the relay ends");
        }
        self.lanes.clear();
        self.tasks.close();
        self.tasks.wait().await;
        if let Some(life) = self.shared.bus.life() {
            self.shared.hints.flush(&self.shared.pool, life.epoch).await;
        }
    }
}
