//! Named intervals: parts of a battery's history that people speak of, and what was in them.

use diesel::{
    Connection, OptionalExtension, PgConnection, QueryResult, QueryableByName, RunQueryDsl,
    sql_query,
    sql_types::{BigInt, Double, Integer, Json, Nullable, Text},
};
use rovi_common::{name::BatteryName, rows::Columns};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    StoreError,
    batteries::{self, Line},
    rows::{self, PageLimits, Selection},
    samples::{Samples, Which},
    source::{Of, Source, SourceError},
    statement::Statement,
    tables::{self, ColumnType},
    times,
};
use crate::cycles::throughput::Throughput;

/// The most intervals of a battery.
const MOST_INTERVALS: i64 = 10_000;
/// Columns of one query: an array is made of at most 100 values.
const COLUMNS_AT_ONCE: usize = 100;

/// Where an interval begins and ends; both ends belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Bounds {
    /// By rows.
    Rows {
        /// First and last `seq`.
        seq: (i64, i64),
    },
    /// By the time of one test.
    Times {
        /// The test.
        segment: i32,
        /// First and last `test_time`, s.
        test_time: (f64, f64),
    },
}

/// Why an interval is not kept or not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IntervalError {
    /// There is no such battery.
    #[error("there is no such battery")]
    NoBattery,
    /// There is no such interval.
    #[error("there is no such interval")]
    NoInterval,
    /// No row is in it.
    #[error("{0}")]
    Empty(String),
    /// The battery has too many.
    #[error("the battery has {MOST_INTERVALS} intervals, which is the most; delete some")]
    TooMany,
}

/// An interval.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Interval {
    pub(crate) label: String,
    pub(crate) bounds: Bounds,
    pub(crate) note: Option<String>,
    /// Microseconds since 1970.
    pub(crate) changed: i64,
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Text)]
    label: String,
    #[diesel(sql_type = Nullable<BigInt>)]
    first_seq: Option<i64>,
    #[diesel(sql_type = Nullable<BigInt>)]
    last_seq: Option<i64>,
    #[diesel(sql_type = Nullable<Integer>)]
    segment: Option<i32>,
    #[diesel(sql_type = Nullable<Double>)]
    first_test_time: Option<f64>,
    #[diesel(sql_type = Nullable<Double>)]
    last_test_time: Option<f64>,
    #[diesel(sql_type = Nullable<Text>)]
    note: Option<String>,
    #[diesel(sql_type = BigInt)]
    changed: i64,
}

impl From<Row> for Interval {
    fn from(row: Row) -> Self {
        let bounds = match (row.first_seq, row.last_seq) {
            (Some(first), Some(last)) => Bounds::Rows { seq: (first, last) },
            _ => Bounds::Times {
                segment: row.segment.unwrap_or_default(),
                test_time: (
                    row.first_test_time.unwrap_or(f64::NEG_INFINITY),
                    row.last_test_time.unwrap_or(f64::INFINITY),
                ),
            },
        };
        Self {
            label: row.label,
            bounds,
            note: row.note,
            changed: row.changed,
        }
    }
}

type Answer<T> = Result<Result<T, IntervalError>, StoreError>;

/// Keeps an interval under its label, in place of one that is there.
///
/// # Errors
/// - `NoBattery`, `TooMany`.
/// - `Empty`: no row of the battery is in it, or it reaches beyond the newest.
pub(crate) fn put(
    connection: &mut PgConnection,
    battery: &BatteryName,
    (label, bounds, note): (&str, Bounds, Option<&str>),
) -> Answer<()> {
    connection.transaction(|connection| {
        let Some(line) = batteries::find(connection, battery.as_str())? else {
            return Ok(Err(IntervalError::NoBattery));
        };
        if let Err(error) = rows_in(connection, &line, bounds)? {
            return Ok(Err(error));
        }
        let (rows, times) = match bounds {
            Bounds::Rows { seq } => (Some(seq), None),
            Bounds::Times { segment, test_time } => (None, Some((segment, test_time))),
        };
        let written = sql_query(
            "INSERT INTO hub.intervals (battery_id, label, first_seq, last_seq, segment, \
               first_test_time, last_test_time, note) \
             SELECT $1, $2, $3, $4, $5, $6, $7, $8 WHERE $9 > ( \
               SELECT count(*) FROM hub.intervals WHERE battery_id = $1 AND label <> $2) \
             ON CONFLICT (battery_id, label) DO UPDATE SET first_seq = excluded.first_seq, \
               last_seq = excluded.last_seq, segment = excluded.segment, \
               first_test_time = excluded.first_test_time, \
               last_test_time = excluded.last_test_time, note = excluded.note, changed = now()",
        )
        .bind::<BigInt, _>(line.id)
        .bind::<Text, _>(label)
        .bind::<Nullable<BigInt>, _>(rows.map(|(first, _)| first))
        .bind::<Nullable<BigInt>, _>(rows.map(|(_, last)| last))
        .bind::<Nullable<Integer>, _>(times.map(|(segment, _)| segment))
        .bind::<Nullable<Double>, _>(times.map(|(_, (first, _))| first))
        .bind::<Nullable<Double>, _>(times.map(|(_, (_, last))| last))
        .bind::<Nullable<Text>, _>(note)
        .bind::<BigInt, _>(MOST_INTERVALS)
        .execute(connection)?;
        Ok(if written > 0 {
            Ok(())
        } else {
            Err(IntervalError::TooMany)
        })
    })
}

/// Lists a battery's intervals by label; `None` where there is no such battery.
///
/// # Errors
/// PostgreSQL is away or refuses.
pub(crate) fn list(
    connection: &mut PgConnection,
    battery: &BatteryName,
) -> Result<Option<Vec<Interval>>, StoreError> {
    let Some(line) = batteries::find(connection, battery.as_str())? else {
        return Ok(None);
    };
    let rows: Vec<Row> = sql_query(
        "SELECT label, first_seq, last_seq, segment, first_test_time, last_test_time, note, \
           (extract(epoch FROM changed) * 1000000)::bigint AS changed \
         FROM hub.intervals WHERE battery_id = $1 ORDER BY label",
    )
    .bind::<BigInt, _>(line.id)
    .load(connection)?;
    Ok(Some(rows.into_iter().map(Interval::from).collect()))
}

/// Forgets an interval; false where there is none.
///
/// # Errors
/// PostgreSQL is away or refuses.
pub(crate) fn delete(
    connection: &mut PgConnection,
    battery: &BatteryName,
    label: &str,
) -> Result<bool, StoreError> {
    let deleted = sql_query(
        "DELETE FROM hub.intervals i USING hub.batteries b \
         WHERE b.id = i.battery_id AND b.name = $1 AND i.label = $2",
    )
    .bind::<Text, _>(battery.as_str())
    .bind::<Text, _>(label)
    .execute(connection)?;
    Ok(deleted > 0)
}

/// Returns the first and the last row of an interval as it is now: where it is given by
/// `test_time`, rows between them may lie outside it, and late ones may have moved its ends.
///
/// # Errors
/// The battery or the interval is not known, or its rows are gone.
pub fn resolve(
    connection: &mut PgConnection,
    battery: &BatteryName,
    label: &str,
) -> Result<Option<(i64, i64)>, StoreError> {
    let found = find(connection, battery, label)?;
    let Ok((line, interval)) = found else {
        return Ok(None);
    };
    Ok(rows_in(connection, &line, interval.bounds)?.ok())
}

fn find(
    connection: &mut PgConnection,
    battery: &BatteryName,
    label: &str,
) -> Answer<(Line, Interval)> {
    let Some(line) = batteries::find(connection, battery.as_str())? else {
        return Ok(Err(IntervalError::NoBattery));
    };
    let row: Option<Row> = sql_query(
        "SELECT label, first_seq, last_seq, segment, first_test_time, last_test_time, note, \
           (extract(epoch FROM changed) * 1000000)::bigint AS changed \
         FROM hub.intervals WHERE battery_id = $1 AND label = $2",
    )
    .bind::<BigInt, _>(line.id)
    .bind::<Text, _>(label)
    .get_result(connection)
    .optional()?;
    Ok(match row {
        Some(row) => Ok((line, row.into())),
        None => Err(IntervalError::NoInterval),
    })
}

/// Finds the first and the last row within bounds.
fn rows_in(connection: &mut PgConnection, line: &Line, bounds: Bounds) -> Answer<(i64, i64)> {
    #[derive(QueryableByName)]
    struct Ends {
        #[diesel(sql_type = Nullable<BigInt>)]
        first: Option<i64>,
        #[diesel(sql_type = Nullable<BigInt>)]
        last: Option<i64>,
    }
    let empty = |what: String| Ok(Err(IntervalError::Empty(what)));
    if let Bounds::Rows { seq: (_, last) } = bounds
        && last > line.last_seq
    {
        return empty(format!(
            "its last row is {last}, the newest is {}",
            line.last_seq
        ));
    }
    if line.form == 0 {
        return empty("the battery has no rows".to_owned());
    }
    if let Bounds::Times { .. } = bounds
        && !has_time(connection, line)?
    {
        return empty("the rows have no column `test_time`".to_owned());
    }
    let (mut first, mut last) = (None, None);
    for (begin, end) in spans(connection, line, bounds)? {
        let statement = Statement::once().sql("SELECT min(seq) AS first, max(seq) AS last FROM ");
        let ends: Ends = within(statement.battery(&line.name), bounds)
            .sql(" AND seq BETWEEN ")
            .long(begin)
            .sql(" AND ")
            .long(end)
            .get_result(connection)?;
        first = first.or(ends.first);
        last = ends.last.or(last);
    }
    match first.zip(last) {
        Some(ends) => Ok(Ok(ends)),
        None => empty("no row is in it".to_owned()),
    }
}

/// Finds where rows within bounds may be.
fn spans(
    connection: &mut PgConnection,
    line: &Line,
    bounds: Bounds,
) -> QueryResult<Vec<(i64, i64)>> {
    match bounds {
        Bounds::Rows { seq } => Ok(vec![seq]),
        Bounds::Times {
            test_time: (from, to),
            ..
        } => times::spans(
            connection,
            line,
            (1, line.last_seq),
            &[("test_time", from, to)],
        ),
    }
}

fn has_time(connection: &mut PgConnection, line: &Line) -> QueryResult<bool> {
    let table = tables::load(connection, line)?;
    Ok(table.columns().iter().any(|(name, _)| name == "test_time"))
}

fn within(statement: Statement, bounds: Bounds) -> Statement {
    match bounds {
        Bounds::Rows { seq: (first, last) } => {
            let statement = statement.sql(" WHERE seq BETWEEN ").long(first);
            statement.sql(" AND ").long(last)
        }
        Bounds::Times {
            segment,
            test_time: (first, last),
        } => {
            let statement = statement.sql(" WHERE segment = ").long(segment.into());
            let statement = statement.sql(" AND test_time BETWEEN ").real(first);
            statement.sql(" AND ").real(last)
        }
    }
}

/// What was in an interval.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Statistics {
    pub(crate) interval: Interval,
    /// First and last row.
    pub(crate) seq: (i64, i64),
    /// By column: `count`, `min`, `max`, `mean`, `std`, `last`; numbers that are not finite do not
    /// count.
    pub(crate) columns: Map<String, Value>,
    /// Charge in and out, A·h, energy in and out, W·h.
    pub(crate) throughput: Option<[f64; 4]>,
}

/// Sums an interval up.
///
/// # Errors
/// As [`resolve`]'s, told apart.
pub(crate) fn statistics(
    connection: &mut PgConnection,
    battery: &BatteryName,
    label: &str,
) -> Answer<Statistics> {
    connection.transaction(|connection| {
        let (line, interval) = match find(connection, battery, label)? {
            Ok(found) => found,
            Err(error) => return Ok(Err(error)),
        };
        let seq = match rows_in(connection, &line, interval.bounds)? {
            Ok(seq) => seq,
            Err(error) => return Ok(Err(error)),
        };
        let mut columns = aggregates(connection, &line, interval.bounds, seq)?;
        let last = last_row(connection, battery, seq.1)?;
        for (name, column) in last.iter() {
            if let Some(Value::Object(values)) = columns.get_mut(name) {
                let last = column.number(0).filter(|value| value.is_finite());
                values.insert("last".to_owned(), last.into());
            }
        }
        let throughput = throughput(connection, &line, interval.bounds, seq)?;
        Ok(Ok(Statistics {
            interval,
            seq,
            columns,
            throughput,
        }))
    })
}

/// Aggregates the columns of numbers.
fn aggregates(
    connection: &mut PgConnection,
    line: &Line,
    bounds: Bounds,
    (first, last): (i64, i64),
) -> QueryResult<Map<String, Value>> {
    #[derive(QueryableByName)]
    struct Values {
        #[diesel(sql_type = Json)]
        values: Value,
    }
    const FINITE: &str = " NOT IN ('NaN', 'Infinity', '-Infinity')), ";
    let table = tables::load(connection, line)?;
    let is_number = |kind: &ColumnType| matches!(kind, ColumnType::Int | ColumnType::Float);
    let columns = table.columns().iter().filter(|(_, kind)| is_number(kind));
    let names: Vec<&String> = columns.map(|(name, _)| name).collect();
    let mut all = Map::new();
    for names in names.chunks(COLUMNS_AT_ONCE) {
        let mut separator = "";
        let mut statement = Statement::once().sql("SELECT json_build_array(");
        for name in names {
            statement = statement.sql(separator).sql("json_build_object(");
            let aggregates = [
                ("'count', count(", ") FILTER (WHERE "),
                ("'min', min(", ") FILTER (WHERE "),
                ("'max', max(", ") FILTER (WHERE "),
                ("'mean', avg(", "::double precision) FILTER (WHERE "),
                ("'std', stddev_samp(", "::double precision) FILTER (WHERE "),
            ];
            for (begin, end) in aggregates {
                statement = statement.sql(begin).identifier(name).sql(end);
                statement = statement
                    .identifier(name)
                    .sql("::double precision")
                    .sql(FINITE);
            }
            statement = statement.sql("'last', NULL)");
            separator = ", ";
        }
        let statement = statement.sql(") AS values FROM ").battery(&line.name);
        let found: Values = within(statement, bounds)
            .sql(" AND seq BETWEEN ")
            .long(first)
            .sql(" AND ")
            .long(last)
            .get_result(connection)?;
        let values = found.values.as_array().cloned().unwrap_or_default();
        all.extend(names.iter().map(|name| (*name).clone()).zip(values));
    }
    Ok(all)
}

fn last_row(
    connection: &mut PgConnection,
    battery: &BatteryName,
    seq: i64,
) -> Result<Columns, StoreError> {
    let source = match Source::open(connection, battery, &Of::Rows) {
        Ok(source) => source,
        Err(SourceError::Store(error)) => return Err(error),
        Err(SourceError::NoBattery(_) | SourceError::NoTable(_)) => return Ok(Columns::default()),
    };
    let limits = PageLimits {
        rows: 1,
        bytes: usize::MAX,
        descending: false,
    };
    let row = [Selection::by_seq(seq..=seq)];
    let page = connection.transaction(|connection| {
        rows::page(connection, &source, &row, source.columns(), limits)
    })?;
    Ok(page.columns)
}

fn throughput(
    connection: &mut PgConnection,
    line: &Line,
    bounds: Bounds,
    (first, last): (i64, i64),
) -> QueryResult<Option<[f64; 4]>> {
    let Some(samples) = Samples::of(connection, line)? else {
        return Ok(None);
    };
    let is_within = |time: f64, segment: i32| match bounds {
        Bounds::Rows { .. } => true,
        Bounds::Times {
            segment: own,
            test_time: (first, last),
        } => segment == own && (first..=last).contains(&time),
    };
    let mut throughput = Throughput::default();
    samples.each(connection, Which::Range(first, last), |sample| {
        if sample
            .point
            .is_some_and(|point| is_within(point.time, sample.segment))
        {
            throughput.add(&sample);
        }
    })?;
    Ok(throughput.sums())
}
