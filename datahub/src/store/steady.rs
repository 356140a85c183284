//! A group of many batteries whose lines are expected where the last groups left them.
//!
//! Nothing is asked before the rows are numbered: moving the lines takes the batteries' turns. Where
//! a line or a session stands elsewhere, all is rolled back and the group goes step by step. So does
//! a group with one battery that another hub writes, too, or whose rows are many or not all fit.
//!
//! Hints of the bus that a group took along that is rolled back are written later, by themselves.

use diesel::{Connection, PgConnection, result::Error as DieselError};
use rovi_common::fault::{self, InjectedFault};

use super::{
    batteries::{self, Line},
    group::{ByBattery, Failure, Outcome, Outcomes, Rules},
    joined::{self, Part},
    known::Tables,
    neighbours::Seen,
    sessions, steps,
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
    let Some(works) = expected(tables, batches, by_battery, rules) else {
        return Ok(None);
    };
    let pieces: Vec<_> = works.iter().map(|(_, work)| work.pieces()).collect();
    let parts = works.iter().zip(&pieces);
    let parts: Vec<Part<'_, '_>> = parts
        .map(|((line, work), pieces)| work.number(line, pieces))
        .collect();
    let steps = steps::joined(batches, by_battery);
    let found: Vec<&Line> = works.iter().map(|(line, _)| *line).collect();
    let written = connection.transaction(|connection| {
        let lines = parts.iter().map(|part| &part.line);
        let relayed = rules.relayed(found.iter().copied());
        let bus = relayed.bus_epoch;
        let moved = batteries::advance_from(connection, &found, lines, relayed)?;
        if moved != found.len() || sessions::advance_all(connection, &steps)? != steps.len() {
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
    for ((_, work), (line, runs)) in works.into_iter().zip(numbered) {
        work.all_stored(&line, runs, &mut outcomes);
        lines.push(line);
    }
    let outcomes = outcomes.into_vec();
    Ok(Some(Committed { outcomes, lines }))
}

/// Returns the expected line of each battery and its rows, where the tables take all of them as they
/// are and the rows are few.
fn expected<'t>(
    tables: &'t Tables,
    batches: &'t [Batch],
    by_battery: &ByBattery,
    rules: &Rules,
) -> Option<Vec<(&'t Line, Work<'t>)>> {
    let most = joined::most_rows(by_battery.len());
    let works = by_battery.iter().map(|(&battery, places)| {
        let (line, table) = tables.steady(battery)?;
        let work = Work::new(batches, places, table, rules);
        let is_easy = table.is_current(line) && work.is_plain(rules) && work.rows() <= most;
        is_easy.then_some((line, work))
    });
    works.collect()
}

#[cfg(test)]
mod tests;
