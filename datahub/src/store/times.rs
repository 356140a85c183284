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

/// A battery with many units, some of which may be missing.
#[derive(Debug, Clone, QueryableByName)]
pub(crate) struct LongHistory {
    #[diesel(sql_type = sql_types::BigInt)]
    pub(crate) id: i64,
    #[diesel(sql_type = sql_types::Text)]
    pub(crate) name: String,
    /// Counts its corrections, each of which takes units away.
    #[diesel(sql_type = sql_types::BigInt)]
    pub(crate) corrections: i64,
    /// Whether many of its newest units are missing.
    #[diesel(sql_type = sql_types::Bool)]
    pub(crate) is_behind: bool,
}

/// Lists batteries of which many of the newest units are missing, or had rows corrected.
///
/// # Errors
/// PostgreSQL is away or refuses.
pub(crate) fn behind(connection: &mut PgConnection) -> Result<Vec<LongHistory>, StoreError> {
    let found = Statement::cached()
        .sql("SELECT * FROM (SELECT id, name, corrections, last_seq / ")
        .long(UNIT_ROWS)
        .sql(" - coalesce((SELECT max(block) + 1 FROM hub.rollups r WHERE r.battery_id = b.id AND r.epoch = b.epoch AND column_name = ")
        .text(RECEIVED)
        .sql(" AND level = ")
        .long(LEVEL)
        .sql("), (first_seq - 1) / ")
        .long(UNIT_ROWS)
        .sql(") >= ")
        .long(FEW_UNITS)
        .sql(" AS is_behind FROM hub.batteries b WHERE form > 0 AND (last_seq - first_seq) / ")
        .long(UNIT_ROWS)
        .sql(" >= ")
        .long(FEW_UNITS)
        .sql(") long WHERE is_behind OR corrections > 0")
        .load(connection)?;
    Ok(found)
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
        if source.is_empty() {
            return Ok(None);
        }
        // While another had the lock.
        if !source.has_its_form(connection)? {
            return Ok(Some(from));
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

/// Makes a unit from its rows, also where there are none: the unit then has none in any range.
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

/// Forgets units, which are then looked through until they are made again.
pub(super) fn forget(
    connection: &mut PgConnection,
    battery_id: i64,
    units: RangeInclusive<i64>,
) -> QueryResult<()> {
    Statement::cached()
        .sql("DELETE FROM hub.rollups WHERE battery_id = ")
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
    let newest = last.min(line.last_seq);
    let units = (
        (first - 1).div_euclid(UNIT_ROWS),
        (newest - 1).div_euclid(UNIT_ROWS),
    );
    if limits.is_empty() || units.1 - units.0 < FEW_UNITS {
        return Ok(vec![(first, last)]);
    }
    let rows_of = |unit: i64| (unit * UNIT_ROWS + 1, (unit + 1) * UNIT_ROWS);
    let hits = hits(connection, line, units, limits)?;
    let hits = hits.into_iter().map(rows_of);
    let hits = hits.map(|(begin, end)| (begin.max(first), end.min(last)));
    let after = (rows_of(units.1).1 + 1, last);
    Ok(joined(
        hits.chain([after]).filter(|(begin, end)| begin <= end),
    ))
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

/// Returns the units that may have rows within all limits, in order; of one that is not made nobody
/// knows.
fn hits(
    connection: &mut PgConnection,
    line: &Line,
    (first, last): (i64, i64),
    limits: &[Limit],
) -> QueryResult<Vec<i64>> {
    let statement = Statement::cached()
        .sql("SELECT unit AS number FROM generate_series(")
        .long(first)
        .sql(", ")
        .long(last)
        .sql(") unit WHERE NOT EXISTS (SELECT");
    // PostgreSQL takes NaN for the largest number, here and where rows are compared.
    let found: Vec<Number> = of_battery(statement, line)
        .sql(" AND level = ")
        .long(LEVEL)
        .sql(" AND block = unit AND block BETWEEN ")
        .long(first)
        .sql(" AND ")
        .long(last)
        .sql(" AND (false")
        .each(limits, |statement, (name, from, to)| {
            let statement = statement.sql(" OR (column_name = ").text(*name);
            let statement = statement.sql(" AND (greatest >= ").real(from - ROUNDING_S);
            let statement = statement.sql(" AND least <= ").real(to + ROUNDING_S);
            statement.sql(") IS NOT TRUE)")
        })
        .sql(")) ORDER BY unit")
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
