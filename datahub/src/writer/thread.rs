//! One writer thread: collect a group, write it, answer.

use std::{
    collections::{BTreeMap, HashSet},
    time::{Duration, Instant},
};

use diesel::{Connection, PgConnection, connection::SimpleConnection};
use rovi_common::{error::ErrorChain, fault};
use tokio::{runtime::Runtime, sync::mpsc, time::timeout};

use super::{Wiring, answer, parked::Parking};
use crate::{
    batch::{Batch, Ending},
    store::{
        self, StoreError,
        group::{self, Failure, Outcome, Tables},
    },
};

/// First and longest pause before connecting again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// Tables after which a connection is replaced: PostgreSQL keeps about 40 kB a prepared statement.
const MOST_TABLES: usize = 2000;

/// A writer thread's state.
pub(super) struct Writer {
    wiring: Wiring,
    inbox: mpsc::Receiver<Batch>,
    /// The thread's own: it outlives the service's while the last rows are written.
    runtime: Runtime,
    connection: Option<PgConnection>,
    tables: Tables,
    parking: Parking,
    is_closing: bool,
}

/// Why a writer goes on.
enum Wake {
    /// Rows came.
    Batch(Batch),
    /// A parked battery's time has come.
    Retry,
    /// The writers are closed, and everything that came is written.
    End,
}

/// The hub stops and PostgreSQL is away.
struct GivenUp;

impl Writer {
    pub(super) fn new(wiring: Wiring, inbox: mpsc::Receiver<Batch>, runtime: Runtime) -> Self {
        Self {
            wiring,
            inbox,
            runtime,
            connection: None,
            tables: Tables::new(),
            parking: Parking::default(),
            is_closing: false,
        }
    }

    /// Writes until the writers are closed and nothing is left.
    pub(super) fn run(mut self) {
        loop {
            let first = match self.wait() {
                Wake::Batch(batch) => Some(batch),
                Wake::Retry => None,
                Wake::End => break,
            };
            let group = self.collect(first);
            if !group.is_empty() {
                self.write(group);
            }
            self.retry_parked();
        }
        // All is written but what is parked, which gets one more try each.
        self.retry_all_parked();
        let left = self.parking.drain();
        if !left.is_empty() {
            let rows: usize = left.iter().map(|batch| batch.decoded.sent).sum();
            tracing::error!("{rows} rows that were not acknowledged are given up at the stop");
            self.refuse(left);
        }
    }

    /// Waits for something to do.
    fn wait(&mut self) -> Wake {
        let patience = self
            .parking
            .next_retry()
            .map(|at| at.saturating_duration_since(Instant::now()));
        let patience = patience.unwrap_or(Duration::from_hours(1));
        let closing = self.wiring.closing.clone();
        let (inbox, is_closing) = (&mut self.inbox, &mut self.is_closing);
        let received = self.runtime.block_on(async {
            if *is_closing {
                return Some(inbox.recv().await);
            }
            tokio::select! {
                biased;
                received = timeout(patience, inbox.recv()) => received.ok(),
                () = closing.cancelled() => {
                    *is_closing = true;
                    inbox.close();
                    Some(inbox.recv().await)
                }
            }
        });
        match received {
            Some(Some(batch)) => Wake::Batch(batch),
            Some(None) => Wake::End,
            None => Wake::Retry,
        }
    }

    /// Adds what arrived meanwhile, up to the bounds of a group.
    fn collect(&mut self, first: Option<Batch>) -> Vec<Batch> {
        let mut group = Vec::new();
        let (mut rows, mut bytes) = (0, 0);
        let mut batteries = HashSet::new();
        let mut next = first;
        while let Some(batch) = next.take().or_else(|| self.inbox.try_recv().ok()) {
            let Some(batch) = self.parking.append(batch) else {
                continue;
            };
            if batch.uploader.has_ended() {
                self.refuse(vec![batch]);
                continue;
            }
            rows += batch.decoded.sent;
            bytes += batch.weight;
            batteries.insert(batch.battery_id());
            group.push(batch);
            if rows >= self.wiring.group_rows
                || bytes >= self.wiring.group_bytes
                || batteries.len() >= self.wiring.group_tables
            {
                break;
            }
        }
        group
    }

    /// Writes a group; batteries at which it fails are written alone, the rest at once.
    fn write(&mut self, mut group: Vec<Batch>) {
        let mut alone: BTreeMap<i64, Vec<Batch>> = BTreeMap::new();
        while !group.is_empty() {
            match self.attempt(&group, |connection, tables, batches, rules| {
                group::write(connection, tables, batches, rules)
            }) {
                Ok(outcomes) => {
                    for batch in self.answer(std::mem::take(&mut group), outcomes) {
                        alone.entry(batch.battery_id()).or_default().push(batch);
                    }
                }
                Err(Some(failure)) => {
                    tracing::debug!("a group was rolled back: {}", ErrorChain(&failure.error));
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
        for (battery, batches) in alone {
            self.write_alone(battery, batches);
        }
    }

    /// Writes one battery's batches; parks the battery where that is not possible now.
    fn write_alone(&mut self, battery: i64, batches: Vec<Batch>) -> bool {
        let mut tolerant = false;
        loop {
            let written = self.attempt(&batches, |connection, tables, batches, rules| {
                group::write_alone(connection, tables, batches, rules, tolerant)
            });
            match written {
                Ok(outcomes) => {
                    let later = self.answer(batches, outcomes);
                    debug_assert!(
                        later.is_empty(),
                        "a transaction of one battery changes tables"
                    );
                    return true;
                }
                Err(Some(failure)) if failure.is_of_rows && !tolerant => tolerant = true,
                Err(Some(failure)) => {
                    self.park(battery, batches, &failure);
                    return false;
                }
                Err(None) => {
                    self.refuse(batches);
                    return true;
                }
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

    /// Tries the parked battery whose time has come.
    fn retry_parked(&mut self) {
        if let Some((battery, batches)) = self.parking.due(self.wiring.group_rows, false) {
            self.retry(battery, batches);
        }
    }

    /// Tries every parked battery once more, before the end.
    fn retry_all_parked(&mut self) {
        let mut tries = self.parking.len();
        while tries > 0 && !self.parking.is_empty() {
            let Some((battery, batches)) = self.parking.due(self.wiring.group_rows, true) else {
                return;
            };
            if !self.retry(battery, batches) {
                tries -= 1;
            }
        }
    }

    /// Tries a parked battery; tells whether its batches were written.
    fn retry(&mut self, battery: i64, batches: Vec<Batch>) -> bool {
        let written = self.write_alone(battery, batches);
        if written && self.parking.settle(battery) {
            self.wiring.metrics.batteries_parked.dec();
            tracing::info!("a battery that was set aside is written again");
        }
        written
    }

    /// Runs one transaction, again and again while PostgreSQL is away; `Err(None)` when given up.
    fn attempt(
        &mut self,
        batches: &[Batch],
        work: impl Fn(
            &mut PgConnection,
            &mut Tables,
            &[Batch],
            &group::Rules,
        ) -> Result<Vec<Outcome>, Failure>,
    ) -> Result<Vec<Outcome>, Option<Failure>> {
        loop {
            let mut connection = match self.connection.take() {
                Some(connection) => connection,
                None => self.connect().map_err(|GivenUp| None)?,
            };
            let timer = self.wiring.metrics.commit_seconds.start_timer();
            let mut written = Ok(())
                .and_then(|()| Ok(fault::point("hub.before_write")?))
                .and_then(|()| {
                    let rules = &self.wiring.rules;
                    work(&mut connection, &mut self.tables, batches, rules)
                });
            if let (Ok(_), Err(fault)) = (&written, fault::point("hub.after_commit")) {
                written = Err(fault.into());
            }
            match written {
                Ok(outcomes) => {
                    timer.observe_duration();
                    self.wiring.metrics.groups.inc();
                    self.keep(connection);
                    return Ok(outcomes);
                }
                Err(failure) if matches!(failure.error, StoreError::Away(_)) => {
                    timer.stop_and_discard();
                    tracing::warn!("PostgreSQL was lost: {}", ErrorChain(&failure.error));
                }
                Err(failure) => {
                    timer.stop_and_discard();
                    self.connection = Some(connection);
                    return Err(Some(failure));
                }
            }
        }
    }

    /// Keeps a connection for the next group, unless it has prepared too many statements.
    fn keep(&mut self, connection: PgConnection) {
        if self.tables.len() <= MOST_TABLES {
            self.connection = Some(connection);
        } else {
            self.tables.clear();
        }
    }

    /// Connects; tries again until it succeeds or the hub gives up.
    fn connect(&self) -> Result<PgConnection, GivenUp> {
        let mut pause = PAUSES.0;
        loop {
            match open(&self.wiring) {
                Ok(connection) => return Ok(connection),
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

    fn answer(&self, batches: Vec<Batch>, outcomes: Vec<Outcome>) -> Vec<Batch> {
        let wiring = &self.wiring;
        answer::answer(batches, outcomes, wiring.stored.as_ref(), &wiring.metrics)
    }

    fn refuse(&self, batches: Vec<Batch>) {
        let reason = "the service stops while PostgreSQL is away".to_owned();
        answer::refuse(batches, &Ending::Unavailable(reason), &self.wiring.metrics);
    }
}

/// Opens a writer's connection: durable commits, short waits for locks.
fn open(wiring: &Wiring) -> Result<PgConnection, StoreError> {
    let mut connection = PgConnection::establish(&store::connection_url(&wiring.url))?;
    let lock_ms = wiring.lock_timeout.as_millis().max(1);
    connection.batch_execute(&format!(
        "SET application_name = 'datahub writer'; SET lock_timeout = {lock_ms}; \
         SET TIME ZONE 'UTC'; SELECT set_config('synchronous_commit', 'on', false) \
         WHERE current_setting('synchronous_commit') = 'off'"
    ))?;
    store::plain_messages(&mut connection);
    Ok(connection)
}
