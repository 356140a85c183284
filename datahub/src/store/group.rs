//! Hop 3 of 7, the transaction: batches of many batteries → rows with `(epoch, seq)`.
//!
//! One transaction takes the batteries' turns in the order of their ids, moves the sessions,
//! writes the rows and moves the batteries' lines; where these are expected to stand, moving them
//! is taking the turns (`store/steady.rs`, `store/at_once.rs`). It changes no table: batches that
//! want a change, and those at which a group failed, are written by [`write_alone`].
//!
//! **A commit whose answer was lost** is tried again with the same batches. A batch whose session
//! already stands at or beyond its end, under the same attempt, was in that commit
//! ([`Outcome::Before`]); any other was not. No other writer can have moved the session there: it
//! takes the attempt to move it, and an attempt belongs to one connection of one hub.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use diesel::{Connection, PgConnection, result::Error as DieselError};
use rovi_common::{
    fault::{self, InjectedFault},
    rows::Columns,
};

pub(crate) use super::known::Tables;
use super::{
    StoreError, at_once,
    batteries::{self, Line},
    fit, insert,
    neighbours::Neighbours,
    number::Run,
    sessions, steady, steps,
    tables::{self, Change, Table},
    work::{self, Work},
};
use crate::{
    batch::Batch,
    relay::hints::{Hints, Marks},
    relayed::Place,
    upload::RejectedRow,
};

/// What writing needs to know besides the rows.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    /// A larger fall of `test_time`, in seconds, begins a segment.
    pub(crate) horizon_s: f64,
    /// Most columns of a table.
    pub(crate) columns: usize,
    /// How long a battery's transaction of its own waits for a lock, in milliseconds.
    pub(crate) alone_lock_ms: u128,
    /// Which batteries are written together.
    pub(crate) neighbours: Neighbours,
    /// How far the bus is, which is marked in lines that move anyway.
    pub(crate) hints: Option<Arc<Hints>>,
}

impl Rules {
    /// Returns what is to be marked as relayed in lines that are about to be moved.
    pub(super) fn relayed<'l>(&self, lines: impl IntoIterator<Item = &'l Line>) -> Marks {
        let hints = self.hints.as_ref();
        hints.map_or_else(Marks::default, |hints| hints.hand_over(lines))
    }
}

/// What became of a batch.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It is committed.
    Stored(Stored),
    /// It was committed before, by a commit whose answer was lost: at this place or below. The
    /// transaction that finds this has locked lines, so that its own commit is no empty one and
    /// takes the one before to the disk.
    Before(Place),
    /// A newer connection of the session took over; nothing was written.
    Superseded,
    /// The battery was removed; nothing was written.
    Removed,
    /// The table must change first; nothing was written.
    Later {
        /// Whether that rewrites many rows.
        is_slow: bool,
    },
}

/// Where the rows of a batch are.
#[derive(Debug)]
pub(crate) struct Stored {
    /// The life of the name.
    pub(crate) epoch: i64,
    /// The rows, in order.
    pub(crate) runs: Vec<Run>,
    /// The rows that `runs` count, where they are not simply the batch's.
    pub(crate) fitted: Option<Columns>,
    /// The rows that are kept in `hub.rejected_rows` instead.
    pub(crate) rejected: Vec<RejectedRow>,
}

/// Why a transaction was rolled back.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The battery at fault, where that is known.
    pub(crate) battery: Option<i64>,
    /// Whether PostgreSQL refused rows, as opposed to not getting at them.
    pub(crate) is_of_rows: bool,
    /// What PostgreSQL said.
    pub(crate) error: StoreError,
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self {
            battery: None,
            is_of_rows: false,
            error,
        }
    }
}

impl From<DieselError> for Failure {
    fn from(error: DieselError) -> Self {
        StoreError::from(error).into()
    }
}

impl From<InjectedFault> for Failure {
    /// As if the connection was lost, so that nobody knows what was written.
    fn from(fault: InjectedFault) -> Self {
        Self {
            battery: None,
            is_of_rows: false,
            error: StoreError::Away(fault.into()),
        }
    }
}

impl Failure {
    pub(super) fn of(battery: i64) -> impl Fn(DieselError) -> Self {
        move |error| Self {
            battery: Some(battery),
            ..error.into()
        }
    }

    pub(super) fn of_rows(battery: i64) -> impl Fn(DieselError) -> Self {
        move |error| Self {
            is_of_rows: true,
            ..Self::of(battery)(error)
        }
    }
}

/// Rows from which on rewriting a table is not for a writer's own thread.
const LARGE_ROWS: i64 = 100_000;

/// The batches of one battery, by their place in the group.
pub(super) type ByBattery = BTreeMap<i64, Vec<usize>>;

/// Writes a group in one transaction; the outcomes stand in the order of `batches`. Where all lines
/// are expected where the last groups left them, that takes one statement for a group of one battery
/// (`store/at_once.rs`), and fewer for others (`store/steady.rs`).
///
/// With `joined`, batteries with few rows share statements; a failure then may not tell which
/// battery is at fault, and the same group without it does.
///
/// # Errors
/// Nothing was written, or the connection was lost and nobody knows.
pub(crate) fn write(
    connection: &mut PgConnection,
    tables: &mut Tables,
    batches: &[Batch],
    rules: &Rules,
    joined: bool,
) -> Result<Vec<Outcome>, Failure> {
    let by_battery = by_battery(batches);
    let written = match by_battery.len() {
        _ if !joined => None,
        1 => at_once::write(connection, tables, batches, rules)?,
        _ => steady::write(connection, tables, (batches, &by_battery), rules)?,
    };
    if let Some(outcomes) = written {
        return Ok(outcomes);
    }
    let batteries: Vec<i64> = by_battery.keys().copied().collect();
    let written = connection.transaction(|connection| {
        step_by_step(connection, tables, (batches, by_battery), (rules, joined))
    });
    let (outcomes, turns) = written.inspect_err(|_| tables.unsettle(batteries))?;
    tables.left(&turns.found, turns.left);
    Ok(outcomes)
}

/// Sorts batches by battery.
fn by_battery(batches: &[Batch]) -> ByBattery {
    let mut by_battery = ByBattery::new();
    for (place, batch) in batches.iter().enumerate() {
        let places = by_battery.entry(batch.battery_id()).or_default();
        places.push(place);
    }
    by_battery
}

/// Lines as they were found, and those that were moved, as they were left.
struct Turns {
    found: Vec<Line>,
    left: Vec<Line>,
}

/// Takes turns, then moves the sessions, then writes the rows, then moves the lines.
fn step_by_step(
    connection: &mut PgConnection,
    tables: &mut Tables,
    (batches, mut by_battery): (&[Batch], ByBattery),
    (rules, joined): (&Rules, bool),
) -> Result<(Vec<Outcome>, Turns), Failure> {
    let mut outcomes = Outcomes::new(batches.len());
    let mut lines = lock(connection, &mut by_battery, &mut outcomes)?;
    let found = lines.clone();
    sessions::write_down(connection, &lines)?;
    load_tables(connection, tables, &lines)?;
    for line in &lines {
        let columns = |&place: &usize| batches.get(place).map(|batch| &batch.decoded.columns);
        let places = by_battery.get(&line.id).into_iter().flatten();
        let table = looked_at(connection, tables, line, places.filter_map(columns))?;
        let wants = |place: &usize| {
            columns(place).is_some_and(|rows| fit::wants_change(rows, table, rules.columns))
        };
        let places = by_battery.get(&line.id);
        if places.is_some_and(|places| places.iter().any(wants)) {
            let is_slow = line.last_seq > LARGE_ROWS
                && places
                    .into_iter()
                    .flatten()
                    .any(|&place| rewrites(batches, place, table));
            outcomes.set_all(by_battery.remove(&line.id), || Outcome::Later { is_slow });
        }
    }
    lines.retain(|line| by_battery.contains_key(&line.id));
    steps::take(connection, batches, &lines, &mut by_battery, &mut outcomes)?;
    fault::point("hub.in_write")?;
    lines.retain(|line| by_battery.contains_key(&line.id));
    let mut seen = tables.take_seen();
    let works = lines.iter_mut().filter_map(|line| {
        let places = by_battery.get(&line.id)?;
        let work = Work::new(batches, places, tables.get(line.id)?, rules);
        Some((line, work))
    });
    let works: Vec<(&mut Line, Work<'_>)> = works.collect();
    if joined && works.len() > 1 {
        let together = (rules.neighbours, &mut seen);
        let written = work::write_joined(connection, works, together, &mut outcomes);
        tables.keep_seen(seen);
        written?;
    } else {
        for (line, work) in works {
            work.write(connection, line, &mut outcomes)?;
        }
        tables.keep_seen(seen);
    }
    if !lines.is_empty() {
        let steps = steps::joined(batches, &by_battery);
        let mut steps = steps.chunk_by(|a, b| a.battery == b.battery);
        for line in &mut lines {
            line.give_to(steps.next().unwrap_or_default());
        }
        batteries::advance(connection, &lines, rules.relayed(&lines))?;
    }
    fault::point("hub.before_commit")?;
    let turns = Turns { found, left: lines };
    Ok((outcomes.into_vec(), turns))
}

/// Writes batches of one battery in a transaction of its own, which may change the table.
///
/// With `tolerant`, rows that PostgreSQL refuses are set aside instead of failing all.
///
/// # Errors
/// Nothing was written, or the connection was lost and nobody knows.
pub(crate) fn write_alone(
    connection: &mut PgConnection,
    tables: &mut Tables,
    batches: &[Batch],
    rules: &Rules,
    tolerant: bool,
) -> Result<Vec<Outcome>, Failure> {
    let Some(battery) = batches.first().map(Batch::battery_id) else {
        return Ok(Vec::new());
    };
    // Whatever happened before, what is known of this table is read again.
    tables.forget(battery);
    let written = connection.transaction(|connection| {
        insert::set_lock_timeout(connection, rules.alone_lock_ms)?;
        let mut by_battery = ByBattery::from([(battery, (0..batches.len()).collect())]);
        let mut outcomes = Outcomes::new(batches.len());
        let mut lines = lock(connection, &mut by_battery, &mut outcomes)?;
        sessions::write_down(connection, &lines)?;
        for line in &mut lines {
            line.give_to(&[]);
        }
        steps::take(connection, batches, &lines, &mut by_battery, &mut outcomes)?;
        let (Some(line), Some(places)) = (lines.first_mut(), by_battery.remove(&battery)) else {
            return Ok((outcomes.into_vec(), None));
        };
        tables::begin_anew_if_gone(connection, line)?;
        if tolerant {
            insert::lock_table(connection, line, false)?;
        }
        let mut table = tables::load(connection, line)?;
        let mut ready = Vec::new();
        // A change sees the rows that came before it, however batches were grouped.
        for place in places {
            if let Some(batch) = batches.get(place)
                && fit::wants_change(&batch.decoded.columns, &table, rules.columns)
            {
                let work = Work::new(batches, &std::mem::take(&mut ready), &table, rules);
                work.tolerating(tolerant)
                    .write(connection, line, &mut outcomes)?;
                work::change(connection, line, &mut table, batch, rules)?;
            }
            ready.push(place);
        }
        let work = Work::new(batches, &ready, &table, rules);
        work.tolerating(tolerant)
            .write(connection, line, &mut outcomes)?;
        batteries::advance(connection, &lines, rules.relayed(&lines))?;
        fault::point("hub.before_commit")?;
        Ok((outcomes.into_vec(), Some(table)))
    });
    let (outcomes, table) = written.map_err(|failure: Failure| Failure {
        battery: Some(battery),
        ..failure
    })?;
    // A table that takes no changes now may take them the next time.
    if let Some(table) = table.filter(|table| table.frozen.is_none()) {
        tables.note([(battery, table)]);
    }
    Ok(outcomes)
}

/// The outcomes of a group as they become known.
pub(super) struct Outcomes(Vec<Option<Outcome>>);

impl Outcomes {
    pub(super) fn new(batches: usize) -> Self {
        Self(std::iter::repeat_with(|| None).take(batches).collect())
    }

    pub(super) fn set(&mut self, place: usize, outcome: Outcome) {
        if let Some(slot) = self.0.get_mut(place) {
            *slot = Some(outcome);
        }
    }

    pub(super) fn set_all(&mut self, places: Option<Vec<usize>>, outcome: impl Fn() -> Outcome) {
        for place in places.unwrap_or_default() {
            self.set(place, outcome());
        }
    }

    pub(super) fn into_vec(self) -> Vec<Outcome> {
        let outcomes = self.0.into_iter();
        outcomes
            .map(|outcome| outcome.unwrap_or(Outcome::Removed))
            .collect()
    }
}

/// Takes the batteries' turns; those that were removed leave `by_battery`.
fn lock(
    connection: &mut PgConnection,
    by_battery: &mut ByBattery,
    outcomes: &mut Outcomes,
) -> Result<Vec<Line>, Failure> {
    let ids: Vec<i64> = by_battery.keys().copied().collect();
    let lines = batteries::lock(connection, &ids)?;
    let found: HashSet<i64> = lines.iter().map(|line| line.id).collect();
    for id in ids.iter().filter(|id| !found.contains(id)) {
        outcomes.set_all(by_battery.remove(id), || Outcome::Removed);
    }
    Ok(lines)
}

/// Tells whether a batch wants a column of another type, for which PostgreSQL rewrites the table.
fn rewrites(batches: &[Batch], place: usize, table: &Table) -> bool {
    let wanted = batches
        .get(place)
        .map(|batch| fit::wanted(&batch.decoded.columns, &mut table.clone(), usize::MAX));
    let is_widening = |change: &Change| matches!(change, Change::Widen(_));
    wanted.is_some_and(|changes| changes.iter().any(is_widening))
}

/// Reads what tables look like that are new to this writer or were changed; their lines are held.
fn load_tables(
    connection: &mut PgConnection,
    tables: &mut Tables,
    lines: &[Line],
) -> Result<(), Failure> {
    let is_current = |line: &&Line| {
        tables
            .get(line.id)
            .is_some_and(|table| table.is_current(line))
    };
    let outdated: Vec<&Line> = lines.iter().filter(|line| !is_current(line)).collect();
    if !outdated.is_empty() {
        tables.note(tables::load_all(connection, &outdated)?);
    }
    Ok(())
}

/// Returns a table that is known and current, read again if some of `rows` would be rejected for what is known
/// of it: people change tables, too, and do not raise its form.
fn looked_at<'t, 'r>(
    connection: &mut PgConnection,
    tables: &'t mut Tables,
    line: &Line,
    mut rows: impl Iterator<Item = &'r Columns>,
) -> Result<&'t Table, Failure> {
    let table = tables.entry(line.id);
    if rows.any(|rows| fit::may_reject(rows, table)) {
        tables::look_again(connection, line, table).map_err(Failure::of(line.id))?;
    }
    Ok(table)
}
