//! Where the rows of a range of times may be.
//!
//! Of every unit of rows `hub.rollups` keeps the first and last `received`, `test_time` and `time`
//! on a level of their own, made from the table behind the uploads, of batteries with many rows.
//! What is not made is looked through row by row, as are the units that may have rows of the range.
//!
//! An index would do this in every upload, and fleets would have twice the files. BRIN, the
//! cheapest, also loses its meaning where rows are removed: new ones take their pages, after which
//! each page has rows of all times, whereas units follow `seq`.

use std::ops::RangeInclusive;

use diesel::{PgConnection, QueryResult, QueryableByName, RunQueryDsl, sql_types};
use rovi_common::name::BatteryName;

use super::{
    StoreError,
    batteries::Line,
    derived,
    rollups::{RECEIVED, UNIT_ROWS, lock, missing, of_battery},
    rows::Selection,
    source::{Of, Source, SourceError},
    statement::{ArrayBind, Statement},
    tables::ColumnType,
};
use crate::history::range::as_seconds;

/// Where these lines stand among the rollups, which have levels 0 and 1.
const LEVEL: i64 = 2;
/// Units that are looked through rather than made: so many are read within some ten milliseconds.
const FEW_UNITS: i64 = 64;
const COUNT: &str = "count(";
/// What a bound may differ from a cell by rounding to microseconds, in seconds.
const ROUNDING_S: f64 = 1e-6;

/// A range that a column's values must be in: its name, first and last value.
pub(super) type Limit = (&'static str, f64, f64);

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = sql_types::BigInt)]
    number: i64,
}

#[derive(QueryableByName)]
struct Name {
    #[diesel(sql_type = sql_types::Text)]
    name: String,
}

/// Lists batteries of which many units are not made.
///
/// # Errors
/// PostgreSQL is away or refuses.
pub(crate) fn behind(connection: &mut PgConnection) -> Result<Vec<String>, StoreError> {
    let names: Vec<Name> = Statement::cached()
        .sql("SELECT name FROM hub.batteries b WHERE form > 0 AND (last_seq - first_seq) / ")
        .long(UNIT_ROWS)
        .sql(" >= ")
        .long(FEW_UNITS)
        .sql(" AND last_seq / ")
        .long(UNIT_ROWS)
        .sql(" - coalesce((SELECT max(block) + 1 FROM hub.rollups r WHERE r.battery_id = b.id AND r.epoch = b.epoch AND column_name = ")
        .text(RECEIVED)
        .sql(" AND level = ")
        .long(LEVEL)
        .sql("), (first_seq - 1) / ")
        .long(UNIT_ROWS)
        .sql(") >= ")
        .long(FEW_UNITS)
        .load(connection)?;
    Ok(names.into_iter().map(|line| line.name).collect())
}

/// Makes the first unit of a battery that is missing from `from` on; returns where to go on.
///
/// # Errors
/// PostgreSQL is away or refuses.
pub(crate) fn advance(
    connection: &mut PgConnection,
    battery: &BatteryName,
    from: i64,
) -> Result<Option<i64>, StoreError> {
    derived(connection, |connection| {
        let source = match Source::open(connection, battery, &Of::Rows) {
            Ok(source) => source,
            Err(SourceError::NoBattery(_) | SourceError::NoTable(_)) => return Ok(None),
            Err(SourceError::Store(error)) => return Err(error),
        };
        lock(connection, source.line.id)?;
        // What went while another had the lock is told by the line as it is now.
        if source.is_empty() || !source.is_current(connection)? {
            return Ok(None);
        }
        let line = &source.line;
        let from = from.max((line.first_seq - 1) / UNIT_ROWS);
        let Some(unit) = missing(connection, line, (LEVEL, from), 1)?.pop() else {
            return Ok(None);
        };
        make(connection, &source, unit)?;
        Ok(Some(unit + 1))
    })
}

/// Makes a unit from its rows, also where there are none, so that no unit is missing in between.
fn make(connection: &mut PgConnection, source: &Source, unit: i64) -> QueryResult<()> {
    let columns = [
        (RECEIVED, Some(&ColumnType::Time)),
        ("test_time", source.test_time()),
        ("time", source.time()),
    ];
    let aggregates = |aggregate: &'static str| {
        move |statement: Statement, (name, kind): &(&'static str, Option<&ColumnType>)| {
            let statement = statement.sql(if *name == RECEIVED { "" } else { ", " });
            let (before, after) = match kind {
                Some(ColumnType::Time) if aggregate != COUNT => ("extract(epoch FROM ", "))"),
                Some(ColumnType::Int | ColumnType::Float | ColumnType::Time) => ("", ")"),
                _ => return statement.sql("NULL"),
            };
            let statement = statement.sql(before).sql(aggregate);
            statement.identifier(name).sql(after)
        }
    };
    Statement::once()
        .sql("INSERT INTO hub.rollups SELECT ")
        .long(source.line.id)
        .sql(", ")
        .long(source.line.epoch)
        .sql(", one.name, ")
        .long(LEVEL)
        .sql(", ")
        .long(unit)
        .sql(", coalesce(one.\"values\", 0), one.least, NULL, one.greatest, NULL FROM (SELECT ARRAY[")
        .each(&columns, aggregates(COUNT))
        .sql("]::bigint[] AS \"values\", ARRAY[")
        .each(&columns, aggregates("min("))
        .sql("]::float8[] AS least, ARRAY[")
        .each(&columns, aggregates("max("))
        .sql("]::float8[] AS greatest FROM ")
        .battery(&source.line.name)
        .sql(" WHERE seq BETWEEN ")
        .long(unit * UNIT_ROWS + 1)
        .sql(" AND ")
        .long((unit + 1) * UNIT_ROWS)
        .sql(") made, unnest(")
        .array(ArrayBind::texts(columns.iter().map(|(name, _)| *name)))
        .sql(", made.\"values\", made.least, made.greatest) AS one (name, \"values\", least, greatest)")
        .execute(connection)
        .map(drop)
}

/// Has units looked through whose rows were changed; the first ones are forgotten, as retention has
/// no rows of them left. None may be missing in between.
pub(super) fn invalidate(
    connection: &mut PgConnection,
    battery_id: i64,
    units: RangeInclusive<i64>,
) -> QueryResult<()> {
    let change = if *units.start() == 0 {
        "DELETE FROM hub.rollups"
    } else {
        "UPDATE hub.rollups SET least = '-infinity', greatest = 'infinity'"
    };
    Statement::cached()
        .sql(change)
        .sql(" WHERE battery_id = ")
        .long(battery_id)
        .sql(" AND level = ")
        .long(LEVEL)
        .sql(" AND block BETWEEN ")
        .long(*units.start())
        .sql(" AND ")
        .long(*units.end())
        .execute(connection)
        .map(drop)
}

/// First and last unit that are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Made {
    first: i64,
    last: i64,
}

/// Finds which of these units are made; `None` where there are none or one is missing in between.
fn made(
    connection: &mut PgConnection,
    line: &Line,
    (first, last): (i64, i64),
) -> QueryResult<Option<Made>> {
    #[derive(QueryableByName)]
    struct Found {
        #[diesel(sql_type = sql_types::Nullable<sql_types::BigInt>)]
        first: Option<i64>,
        #[diesel(sql_type = sql_types::Nullable<sql_types::BigInt>)]
        last: Option<i64>,
        #[diesel(sql_type = sql_types::BigInt)]
        count: i64,
    }
    let statement = Statement::cached()
        .sql("SELECT min(block) AS first, max(block) AS last, count(*) AS count");
    let found: Found = of_units(statement, line, (first, last))
        .sql(" AND column_name = ")
        .text(RECEIVED)
        .get_result(connection)?;
    let ends = found.first.zip(found.last);
    let made = ends.map(|(first, last)| Made { first, last });
    Ok(made.filter(|made| made.last - made.first + 1 == found.count))
}

fn of_units(statement: Statement, line: &Line, (first, last): (i64, i64)) -> Statement {
    of_battery(statement, line)
        .sql(" AND level = ")
        .long(LEVEL)
        .sql(" AND block BETWEEN ")
        .long(first)
        .sql(" AND ")
        .long(last)
}

/// Cuts a selection into parts, in the order of `seq`, beside which it has no rows.
///
/// # Errors
/// As diesel's.
pub(crate) fn narrow(
    connection: &mut PgConnection,
    source: &Source,
    selection: &Selection,
) -> QueryResult<Vec<Selection>> {
    let seqs = spans(
        connection,
        &source.line,
        (*selection.seq.start(), *selection.seq.end()),
        &limits(source, selection),
    )?;
    let part = |(first, last)| Selection {
        seq: first..=last,
        ..selection.clone()
    };
    Ok(seqs.into_iter().map(part).collect())
}

fn limits(source: &Source, selection: &Selection) -> Vec<Limit> {
    let received = selection.received;
    let received = received.map(|(from, to)| (as_seconds(from), as_seconds(to)));
    // Estimates have test times of their own.
    let test_time = selection.test_time.filter(|_| source.is_rows());
    let named = [
        (RECEIVED, received),
        ("test_time", test_time),
        ("time", selection.time),
    ];
    let limit = |(name, range): (&'static str, Option<(f64, f64)>)| {
        range.map(|(from, to)| (name, from, to))
    };
    named.into_iter().filter_map(limit).collect()
}

/// Finds where among these rows those may be that keep all limits.
///
/// # Errors
/// As diesel's.
pub(super) fn spans(
    connection: &mut PgConnection,
    line: &Line,
    (first, last): (i64, i64),
    limits: &[Limit],
) -> QueryResult<Vec<(i64, i64)>> {
    let first = first.max(1);
    let whole = vec![(first, last)];
    let newest = last.min(line.last_seq);
    let units = (
        (first - 1).div_euclid(UNIT_ROWS),
        (newest - 1).div_euclid(UNIT_ROWS),
    );
    if limits.is_empty() || units.1 - units.0 < FEW_UNITS {
        return Ok(whole);
    }
    let Some(made) = made(connection, line, units)? else {
        return Ok(whole);
    };
    let rows_of = |unit: i64| (unit * UNIT_ROWS + 1, (unit + 1) * UNIT_ROWS);
    let before = (first, rows_of(made.first).0 - 1);
    let after = (rows_of(made.last).1 + 1, last);
    let hits = hits(connection, line, units, limits)?;
    let hits = hits.into_iter().map(rows_of);
    let hits = hits.map(|(begin, end)| (begin.max(first), end.min(last)));
    let parts = std::iter::once(before).chain(hits).chain([after]);
    Ok(joined(parts.filter(|(begin, end)| begin <= end)))
}

/// Joins parts that follow each other without a gap.
fn joined(parts: impl Iterator<Item = (i64, i64)>) -> Vec<(i64, i64)> {
    let mut joined: Vec<(i64, i64)> = Vec::new();
    for (begin, end) in parts {
        match joined.last_mut() {
            Some(part) if part.1 + 1 == begin => part.1 = end,
            _ => joined.push((begin, end)),
        }
    }
    joined
}

/// Returns the units that may have rows within all limits, in order.
fn hits(
    connection: &mut PgConnection,
    line: &Line,
    units: (i64, i64),
    limits: &[Limit],
) -> QueryResult<Vec<i64>> {
    let names = ArrayBind::texts(limits.iter().map(|(name, ..)| *name));
    // PostgreSQL takes NaN for the largest number, here and where rows are compared.
    let found: Vec<Number> = of_units(
        Statement::cached().sql("SELECT block AS number"),
        line,
        units,
    )
    .sql(" AND column_name = ANY(")
    .array(names)
    .sql(") AND (false")
    .each(limits, |statement, (name, from, to)| {
        let statement = statement.sql(" OR (column_name = ").text(*name);
        let statement = statement.sql(" AND greatest >= ").real(from - ROUNDING_S);
        statement
            .sql(" AND least <= ")
            .real(to + ROUNDING_S)
            .sql(")")
    })
    .sql(") GROUP BY block HAVING count(*) = ")
    .long(i64::try_from(limits.len()).unwrap_or(i64::MAX))
    .sql(" ORDER BY block")
    .load(connection)?;
    Ok(found.into_iter().map(|unit| unit.number).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_without_a_gap_are_one() {
        let parts = [(1, 10), (11, 20), (31, 40), (41, 41), (50, 60)];
        assert_eq!(joined(parts.into_iter()), [(1, 20), (31, 41), (50, 60)]);
    }
}
