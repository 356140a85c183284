//! One writer thread: collect a group, write it, answer.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use diesel::PgConnection;
use rovi_common::error::ErrorChain;
use tokio::{runtime::Runtime, sync::mpsc, time::timeout};

use super::{
    Order, Wiring,
    ahead::{Panicked, Second},
    answer,
    aside::{self, Asides, Ended},
    inbox::Wake,
    link::Link,
    parked::Parking,
    rest::Shape,
    waiting::Waiting,
};
use crate::{
    batch::{Batch, Ending},
    store::{
        StoreError,
        group::{self, Failure, Outcome, Rules, Tables},
    },
};

/// First and longest pause before connecting again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// Tables that are kept in mind, some hundred bytes each: thousands of a fleet share their layouts.
const MOST_TABLES: usize = 20_000;

/// Why a battery is set aside that nothing failed for, as its clients are told.
const SLOW_CHANGE: &str = "the table is given a column of another type, which rewrites its rows";
const NO_THREAD: &str = "the system gives the hub no thread to write the table from";

/// A writer thread's state.
pub(super) struct Writer {
    pub(super) wiring: Wiring,
    pub(super) inbox: mpsc::Receiver<Order>,
    /// What came and is not written yet.
    pub(super) waiting: Waiting,
    /// The thread's own: it outlives the service's while the last rows are written.
    pub(super) runtime: Runtime,
    pub(super) link: Option<Link>,
    /// Where commits are slow.
    pub(super) second: Second,
    /// Groups in a row whose commits were slow.
    pub(super) slow_commits: u32,
    pub(super) tables: Tables,
    pub(super) parking: Parking,
    pub(super) asides: Asides,
    pub(super) is_closing: bool,
}

/// The hub stops and PostgreSQL is away.
struct GivenUp;

impl Writer {
    pub(super) fn new(wiring: Wiring, inbox: mpsc::Receiver<Order>, runtime: Runtime) -> Self {
        Self {
            waiting: Waiting::new(wiring.rules.neighbours),
            wiring,
            inbox,
            runtime,
            link: None,
            second: Second::default(),
            slow_commits: 0,
            tables: Tables::default(),
            parking: Parking::default(),
            asides: Asides::new(),
            is_closing: false,
        }
    }

    /// Writes until the writers are closed and nothing is left.
    pub(super) fn run(mut self) {
        loop {
            match self.wait() {
                Wake::Look => {}
                // As a panic of this thread itself would, it stops the service.
                Wake::Tried(Ended::Panicked) => return,
                Wake::Tried(ended) => self.settle(ended),
                Wake::End => break,
            }
            let group = self.collect();
            let shape = Shape::of(&group);
            let begun = Instant::now();
            if !group.is_empty()
                && let Err(Panicked) = self.write_and_go_ahead(group)
            {
                return;
            }
            self.try_parked();
            self.rest(shape, begun.elapsed());
        }
        // All is written but what is parked, which gets one more try each.
        while !self.asides.is_idle() {
            let ended = self.runtime.block_on(self.asides.ended());
            self.settle(ended);
        }
        self.retry_all_parked();
        let left = self.parking.drain();
        if !left.is_empty() {
            let rows: usize = left.iter().map(|batch| batch.decoded.sent).sum();
            tracing::error!("{rows} rows that were not acknowledged are given up at the stop");
            self.refuse(left);
        }
    }

    /// Tells whether no battery is set aside, for which the writer would have to look again.
    pub(super) fn is_undisturbed(&self) -> bool {
        self.parking.is_empty() && self.asides.is_idle()
    }

    /// Writes a group; batteries at which it fails are written alone, the rest at once.
    pub(super) fn write(&mut self, mut group: Vec<Batch>) {
        let mut alone: BTreeMap<i64, Vec<Batch>> = BTreeMap::new();
        let mut later = Vec::new();
        let mut joined = true;
        while !group.is_empty() {
            match self.attempt(&group, |connection, tables, batches, rules| {
                group::write(connection, tables, batches, rules, joined)
            }) {
                Ok(outcomes) => later = self.answer(std::mem::take(&mut group), outcomes),
                Err(Some(failure)) => {
                    tracing::debug!("a group was rolled back: {}", ErrorChain(&failure.error));
                    // Once more, with a statement for each table, to find the one at fault.
                    if std::mem::take(&mut joined) && failure.battery.is_none() {
                        continue;
                    }
                    let at_fault =
                        |batch: &Batch| failure.battery.is_none_or(|id| id == batch.battery_id());
                    for batch in group.extract_if(.., |batch| at_fault(batch)) {
                        alone.entry(batch.battery_id()).or_default().push(batch);
                    }
                }
                Err(None) => {
                    for batches in alone.into_values() {
                        self.refuse(batches);
                    }
                    return self.refuse(group);
                }
            }
        }
        self.write_one_by_one(alone, later);
    }

    /// Writes batteries alone, and those of `later` too, but for those whose table is rewritten.
    pub(super) fn write_one_by_one(
        &mut self,
        mut alone: BTreeMap<i64, Vec<Batch>>,
        later: Vec<(Batch, bool)>,
    ) {
        let mut aside: BTreeMap<i64, Vec<Batch>> = BTreeMap::new();
        for (batch, is_slow) in later {
            let place = if is_slow { &mut aside } else { &mut alone };
            place.entry(batch.battery_id()).or_default().push(batch);
        }
        for (battery, batches) in aside {
            self.wiring.metrics.batteries_parked.inc();
            let homeless = self.parking.park_briefly(battery, batches, SLOW_CHANGE);
            self.refuse(homeless);
        }
        for (battery, batches) in alone {
            self.write_alone(battery, batches);
        }
    }

    /// Writes one battery's batches; parks the battery where that is not possible now.
    fn write_alone(&mut self, battery: i64, batches: Vec<Batch>) -> bool {
        match self.attempt(&batches, aside::write_alone) {
            Ok(outcomes) => {
                self.answer(batches, outcomes);
                true
            }
            Err(Some(failure)) => {
                self.park(battery, batches, &failure);
                false
            }
            Err(None) => {
                self.refuse(batches);
                true
            }
        }
    }

    fn park(&mut self, battery: i64, batches: Vec<Batch>, failure: &Failure) {
        let name = batches
            .first()
            .map(|batch| batch.uploader.battery.to_string());
        let known = self.parking.len();
        let reason = ErrorChain(&failure.error).to_string();
        let (pause, homeless) = self.parking.park(battery, batches, &reason);
        self.refuse(homeless);
        if self.parking.len() > known {
            self.wiring.metrics.batteries_parked.inc();
            tracing::warn!(
                "battery {} cannot be written now and is set aside, next try in {pause:?}: {reason}",
                name.unwrap_or_default(),
            );
        }
    }

    /// Tries the parked batteries whose time has come, each on a thread of its own.
    fn try_parked(&mut self) {
        while self.asides.has_room()
            && let Some((battery, batches)) = self.parking.due(self.wiring.group.rows, false)
        {
            self.asides.start(self.wiring.clone(), battery, batches);
        }
    }

    /// Notes what became of a battery that was tried aside.
    fn settle(&mut self, ended: Ended) {
        match ended {
            Ended::Written(battery) => self.written(battery),
            Ended::Failed(battery, batches, failure) => self.park(battery, batches, &failure),
            Ended::NotTried(battery, batches) => {
                let (_, homeless) = self.parking.park(battery, batches, NO_THREAD);
                self.refuse(homeless);
            }
            Ended::Panicked => (),
        }
    }

    /// Notes that batches of a parked battery were written.
    fn written(&mut self, battery: i64) {
        if self.parking.settle(battery) {
            self.wiring.metrics.batteries_parked.dec();
            tracing::info!("a battery that was set aside is written again");
        }
    }

    /// Tries every parked battery once more, before the end.
    fn retry_all_parked(&mut self) {
        let mut tries = self.parking.len();
        while tries > 0 && !self.parking.is_empty() {
            let Some((battery, batches)) = self.parking.due(self.wiring.group.rows, true) else {
                return;
            };
            if self.write_alone(battery, batches) {
                self.written(battery);
            } else {
                tries -= 1;
            }
        }
    }

    /// Runs one transaction, again and again while PostgreSQL is away; `Err(None)` when given up.
    fn attempt(
        &mut self,
        batches: &[Batch],
        work: impl Fn(&mut PgConnection, &mut Tables, &[Batch], &Rules) -> Result<Vec<Outcome>, Failure>,
    ) -> Result<Vec<Outcome>, Option<Failure>> {
        loop {
            let mut link = if let Some(link) = self.link.take() {
                link
            } else {
                // What took this one along may have taken the other.
                self.second = Second::None;
                self.connect().map_err(|GivenUp| None)?
            };
            let timer = self.wiring.metrics.commit_seconds.start_timer();
            let written = aside::between_faults(|| {
                let rules = &self.wiring.rules;
                work(&mut link.connection, &mut self.tables, batches, rules)
            });
            match written {
                Ok(outcomes) => {
                    timer.observe_duration();
                    self.wiring.metrics.groups.inc();
                    self.keep(link);
                    return Ok(outcomes);
                }
                Err(failure) if matches!(failure.error, StoreError::Away(_)) => {
                    timer.stop_and_discard();
                    tracing::warn!("PostgreSQL was lost: {}", ErrorChain(&failure.error));
                }
                Err(failure) => {
                    timer.stop_and_discard();
                    self.link = Some(link);
                    return Err(Some(failure));
                }
            }
        }
    }

    /// Keeps the connection for the next group, and what is known of tables within its bounds.
    pub(super) fn keep(&mut self, mut link: Link) {
        if self.tables.len() > MOST_TABLES {
            self.tables.clear();
        }
        match link.trim() {
            Ok(()) => self.link = Some(link),
            Err(error) => tracing::debug!("a connection is given up: {error}"),
        }
    }

    /// Connects; tries again until it succeeds or the hub gives up.
    fn connect(&self) -> Result<Link, GivenUp> {
        let mut pause = PAUSES.0;
        loop {
            if self.wiring.give_up.is_cancelled() {
                return Err(GivenUp);
            }
            match Link::open(&self.wiring) {
                Ok(link) => return Ok(link),
                Err(error) => tracing::debug!("no PostgreSQL for a writer: {}", ErrorChain(&error)),
            }
            let give_up = self.wiring.give_up.cancelled();
            if self
                .runtime
                .block_on(async { timeout(pause, give_up).await.is_ok() })
            {
                return Err(GivenUp);
            }
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    pub(super) fn answer(&self, batches: Vec<Batch>, outcomes: Vec<Outcome>) -> Vec<(Batch, bool)> {
        let wiring = &self.wiring;
        answer::answer(batches, outcomes, wiring.stored.as_ref(), &wiring.metrics)
    }

    pub(super) fn refuse(&self, batches: Vec<Batch>) {
        let reason = "the service stops while PostgreSQL is away".to_owned();
        answer::refuse(batches, &Ending::Unavailable(reason), &self.wiring.metrics);
    }
}
