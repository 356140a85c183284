//! A group of many batteries whose lines are expected where the last groups left them.
//!
//! Nothing is asked before the rows are numbered: moving the lines takes the batteries' turns. Where
//! a line or a session stands elsewhere, all is rolled back and the group goes step by step. So does
//! a group with one battery that another hub writes, too, or whose rows are many or not all fit.
//!
//! Hints of the bus that a group took along that is rolled back are written later, by themselves.

use std::borrow::Cow;

use diesel::{Connection, PgConnection, QueryResult, result::Error as DieselError};
use rovi_common::fault::{self, InjectedFault};

use super::{
    batteries::{self, Line},
    group::{ByBattery, Failure, Outcome, Outcomes, Rules},
    joined::{self, Part},
    known::Tables,
    neighbours::Seen,
    number::Piece,
    sessions::{self, Step},
    steps,
    work::Work,
};
use crate::batch::Batch;

/// Why nothing was written.
enum Stop {
    /// A line or a session is not where it was expected, or the bus is another one.
    Elsewhere,
    Failed(Failure),
}

impl From<DieselError> for Stop {
    fn from(error: DieselError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<InjectedFault> for Stop {
    fn from(fault: InjectedFault) -> Self {
        Self::Failed(fault.into())
    }
}

/// A group that is committed.
struct Committed {
    outcomes: Vec<Outcome>,
    /// Where it left the lines.
    lines: Vec<Line>,
}

/// Writes a group of many batteries with few rows each, where that is likely to succeed; `None` where
/// nothing was written and the group has to go step by step.
pub(super) fn write(
    connection: &mut PgConnection,
    tables: &mut Tables,
    group: (&[Batch], &ByBattery),
    rules: &Rules,
) -> Result<Option<Vec<Outcome>>, Failure> {
    let mut seen = tables.take_seen();
    let written = move_on(connection, (tables, &mut seen), group, rules);
    tables.keep_seen(seen);
    let written = written.inspect_err(|_| tables.unsettle(group.1.keys().copied()))?;
    Ok(written.map(|committed| {
        tables.moved(committed.lines);
        committed.outcomes
    }))
}

fn move_on(
    connection: &mut PgConnection,
    (tables, seen): (&Tables, &mut Seen),
    (batches, by_battery): (&[Batch], &ByBattery),
    rules: &Rules,
) -> Result<Option<Committed>, Failure> {
    let steps = steps::joined(batches, by_battery);
    let Some(turns) = expected(tables, (batches, &steps), by_battery, rules) else {
        return Ok(None);
    };
    let pieces: Vec<_> = turns.iter().map(|turn| turn.work.pieces()).collect();
    let parts = turns.iter().zip(&pieces);
    let parts: Vec<Part<'_, '_>> = parts.map(|(turn, pieces)| turn.number(pieces)).collect();
    let written = connection.transaction(|connection| {
        let found = turns.iter().map(|turn| &*turn.found);
        let lines = parts.iter().map(|part| &part.line);
        let relayed = rules.relayed(found.clone());
        let bus = relayed.bus_epoch;
        let moved = batteries::advance_from(connection, found, lines, relayed)?;
        if moved != turns.len() || !have_moved(connection, &turns)? {
            return Err(Stop::Elsewhere);
        }
        if let Some(bus) = bus
            && !batteries::knows_bus(connection, bus)?
        {
            return Err(Stop::Elsewhere);
        }
        fault::point("hub.in_write")?;
        joined::insert(connection, &parts, (rules.neighbours, seen))?;
        fault::point("hub.before_commit")?;
        Ok(())
    });
    match written {
        Ok(()) => {}
        Err(Stop::Elsewhere) => return Ok(None),
        Err(Stop::Failed(failure)) => return Err(failure),
    }
    let numbered: Vec<_> = parts.into_iter().map(Part::settle).collect();
    drop(pieces);
    let mut outcomes = Outcomes::new(batches.len());
    let mut lines = Vec::with_capacity(numbered.len());
    for (turn, (line, runs)) in turns.into_iter().zip(numbered) {
        turn.work.all_stored(&line, runs, &mut outcomes);
        lines.push(line);
    }
    let outcomes = outcomes.into_vec();
    Ok(Some(Committed { outcomes, lines }))
}

/// One battery's part of a group.
struct Turn<'t> {
    /// Where its line is expected.
    found: Cow<'t, Line>,
    /// What its sessions do.
    steps: &'t [Step],
    work: Work<'t>,
}

impl Turn<'_> {
    /// Tells whether moving the line is all that is to be done.
    fn is_carried(&self) -> bool {
        let rows = self.work.rows();
        matches!(self.steps, [step] if self.found.carries(step, rows))
    }

    /// Numbers the rows, and says whose the line is then.
    fn number<'p, 'a>(&'p self, pieces: &'p [Piece<'a>]) -> Part<'p, 'a> {
        let mut part = self.work.number(&self.found, pieces);
        if !self.is_carried() {
            part.line.give_to(self.steps);
        }
        part
    }
}

/// Moves the sessions that do not move with their lines; tells whether all stood where they should.
fn have_moved(connection: &mut PgConnection, turns: &[Turn<'_>]) -> QueryResult<bool> {
    let apart: Vec<&Turn<'_>> = turns.iter().filter(|turn| !turn.is_carried()).collect();
    if apart.is_empty() {
        return Ok(true);
    }
    sessions::write_down(connection, apart.iter().map(|turn| &*turn.found))?;
    let steps: Vec<Step> = apart.iter().flat_map(|turn| turn.steps).copied().collect();
    Ok(sessions::advance(connection, &steps)?.len() == steps.len())
}

/// Returns the turn of each battery, where the tables take all rows as they are and these are few.
fn expected<'t>(
    tables: &'t Tables,
    (batches, steps): (&'t [Batch], &'t [Step]),
    by_battery: &ByBattery,
    rules: &Rules,
) -> Option<Vec<Turn<'t>>> {
    let most = joined::most_rows(by_battery.len());
    let mut steps = steps.chunk_by(|a, b| a.battery == b.battery);
    let turns = by_battery.iter().map(|(&battery, places)| {
        let (line, table) = tables.steady(battery)?;
        let steps = steps.next()?;
        let work = Work::new(batches, places, table, rules);
        let is_easy = table.is_current(line) && work.is_plain(rules) && work.rows() <= most;
        let found = line.found_by(steps);
        is_easy.then_some(Turn { found, steps, work })
    });
    turns.collect()
}

#[cfg(test)]
mod tests;
