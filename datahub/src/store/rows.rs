//! Rows read back from a battery's table, a bounded page at a time.

use std::{ops::RangeInclusive, slice};

use diesel::{Connection, PgConnection, QueryResult, QueryableByName, RunQueryDsl, sql_types};
use rovi_common::{
    name::BatteryName,
    rows::{Column, Columns},
};

use super::{
    StoreError,
    batteries::Line,
    cells::collect,
    copy_out,
    source::{Of, Source, SourceError},
    statement::{ArrayBind, Statement},
    tables::ColumnType,
};
use crate::stored::StoredRows;

/// Which rows are asked for; all bounds are inclusive and hold together.
#[derive(Debug, Clone, PartialEq)]
pub struct Selection {
    /// First and last `seq`.
    pub seq: RangeInclusive<i64>,
    /// First and last `test_time`, in seconds; rows without one are left out then.
    pub test_time: Option<(f64, f64)>,
    /// First and last `time`, in seconds since 1970; rows without one are left out then.
    pub time: Option<(f64, f64)>,
    /// First and last `received`, in microseconds since 1970.
    pub received: Option<(i64, i64)>,
}

impl Selection {
    /// Selects all rows.
    pub fn all() -> Self {
        Self::by_seq(1..=i64::MAX)
    }

    /// Selects rows by `seq` alone.
    pub fn by_seq(seq: RangeInclusive<i64>) -> Self {
        Self {
            seq,
            test_time: None,
            time: None,
            received: None,
        }
    }

    /// Tells whether `seq` alone decides.
    pub fn is_by_seq(&self) -> bool {
        self.test_time.is_none() && self.time.is_none() && self.received.is_none()
    }
}

/// How much of a selection is read at once, and from which end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageLimits {
    /// Most rows.
    pub rows: usize,
    /// Bytes of cells after which a page ends; it has one row at least.
    pub bytes: usize,
    /// Whether the newest row comes first.
    pub descending: bool,
}

/// Rows in the order of `seq`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Selected {
    /// `seq` of each row.
    pub seq: Vec<i64>,
    /// When the hub took each row, in microseconds since 1970; null where estimates outlive it.
    pub received: Vec<Option<i64>>,
    /// Segment of each row; null where estimates outlive it.
    pub segment: Vec<Option<i32>>,
    /// The columns asked for.
    pub columns: Columns,
    /// Whether the limits left rows out.
    pub more: bool,
}

impl Selected {
    /// Turns the order of the rows around.
    #[must_use]
    pub fn reversed(mut self) -> Self {
        self.seq.reverse();
        self.received.reverse();
        self.segment.reverse();
        let turned = |column: &Column| {
            let mut turned = column.clone();
            drop(turned.split_off(0));
            (0..column.len())
                .rev()
                .for_each(|row| turned.push(column.get(row)));
            turned
        };
        let columns = self
            .columns
            .iter()
            .map(|(name, column)| (name.to_owned(), turned(column)));
        self.columns = Columns::new(columns.collect()).unwrap_or_default();
        self
    }
}

/// Names and types of columns, in the order in which they are wanted.
pub type Form = [(String, ColumnType)];

/// Reads rows by a range of `seq`, at most `limit`, cut at segments; all columns.
///
/// # Errors
/// PostgreSQL is away or refuses, or the battery's table is missing.
pub fn read(
    connection: &mut PgConnection,
    battery: &BatteryName,
    range: RangeInclusive<i64>,
    limit: i64,
) -> Result<Vec<StoredRows>, StoreError> {
    connection.transaction(|connection| {
        let source = match Source::open(connection, battery, &Of::Rows) {
            Ok(source) => source,
            Err(SourceError::NoBattery(_)) => return Ok(Vec::new()),
            // Rows that were stored cannot be gone without a word.
            Err(error @ SourceError::NoTable(_)) => {
                return Err(diesel::result::Error::QueryBuilderError(error.into()).into());
            }
            Err(SourceError::Store(error)) => return Err(error),
        };
        let limits = PageLimits {
            rows: usize::try_from(limit).unwrap_or_default(),
            bytes: usize::MAX,
            descending: false,
        };
        let selection = Selection::by_seq(range);
        let parts = slice::from_ref(&selection);
        let rows = page(connection, &source, parts, source.columns(), limits)?;
        Ok(by_segment(battery, &source.line, rows))
    })
}

/// Reads rows from one end of the parts of a selection, up to a bound.
///
/// # Errors
/// As diesel's.
pub fn page(
    connection: &mut PgConnection,
    source: &Source,
    parts: &[Selection],
    columns: &Form,
    limits: PageLimits,
) -> QueryResult<Selected> {
    if source.is_empty() {
        return Ok(Selected::default());
    }
    if source.is_rows()
        && !limits.descending
        && let [one] = parts
        && one.is_by_seq()
    {
        let seq = (*one.seq.start(), *one.seq.end());
        return copy_out::page(connection, &source.line.name, seq, columns, limits);
    }
    // One more tells whether there are more.
    let limit = i64::try_from(limits.rows).unwrap_or(i64::MAX);
    let statement = |part: &Selection| {
        chosen(select(source, columns), source, part)
            .sql(if limits.descending {
                " ORDER BY own.seq DESC LIMIT "
            } else {
                " ORDER BY own.seq LIMIT "
            })
            .long(limit.saturating_add(1))
    };
    if limits.descending {
        collect(
            connection,
            parts.iter().rev().map(statement),
            columns,
            limits,
        )
    } else {
        collect(connection, parts.iter().map(statement), columns, limits)
    }
}

/// Reads the rows of these `seq`, in ascending order, up to so many bytes of cells.
///
/// # Errors
/// As diesel's.
pub fn of_seqs(
    connection: &mut PgConnection,
    source: &Source,
    seqs: &[i64],
    columns: &Form,
    bytes: usize,
) -> QueryResult<Selected> {
    if source.is_empty() {
        return Ok(Selected::default());
    }
    let statement = select(source, columns)
        .sql(" AND own.seq = ANY(")
        .array(ArrayBind::longs(seqs.iter().copied()))
        .sql(") ORDER BY own.seq");
    let limits = PageLimits {
        rows: usize::MAX,
        bytes,
        descending: false,
    };
    collect(connection, [statement], columns, limits)
}

/// Finds the first and last `seq` of the parts of a selection; `None` where they have no rows.
///
/// # Errors
/// As diesel's.
pub fn bounds(
    connection: &mut PgConnection,
    source: &Source,
    parts: &[Selection],
) -> QueryResult<Option<(i64, i64)>> {
    if source.is_empty() {
        return Ok(None);
    }
    let mut find = |part: &Selection, end: &'static str| -> QueryResult<Option<i64>> {
        let statement = Statement::once()
            .sql("SELECT ")
            .sql(end)
            .sql("(own.seq) AS seq");
        let statement = chosen(source.from(statement), source, part);
        Ok(statement.get_result::<End>(connection)?.seq)
    };
    let first = parts.iter().find_map(|part| find(part, "min").transpose());
    let last = parts
        .iter()
        .rev()
        .find_map(|part| find(part, "max").transpose());
    Ok(first.transpose()?.zip(last.transpose()?))
}

#[derive(QueryableByName)]
struct End {
    #[diesel(sql_type = sql_types::Nullable<sql_types::BigInt>)]
    seq: Option<i64>,
}

fn select(source: &Source, columns: &Form) -> Statement {
    let times = source.times();
    let statement = Statement::once()
        .sql("SELECT own.seq, ")
        .sql(times)
        .sql("received, ")
        .sql(times)
        .sql("segment")
        .each(columns, |statement, (name, kind)| {
            let statement = statement.sql(", own.").identifier(name);
            match kind {
                ColumnType::Foreign(_) => statement.sql("::text"),
                _ => statement,
            }
        });
    source.from(statement)
}

/// Adds the conditions of a selection.
fn chosen(statement: Statement, source: &Source, selection: &Selection) -> Statement {
    let times = source.times();
    let mut statement = statement
        .sql(" AND own.seq BETWEEN ")
        .long(*selection.seq.start())
        .sql(" AND ")
        .long(*selection.seq.end());
    if let Some((from, to)) = selection.received {
        statement = statement.sql(" AND ").sql(times).sql("received BETWEEN ");
        statement = statement.time(from).sql(" AND ").time(to);
    }
    if let Some((from, to)) = selection.test_time {
        statement = statement.sql(" AND own.test_time BETWEEN ");
        statement = statement.real(from).sql(" AND ").real(to);
    }
    if let Some((from, to)) = selection.time {
        statement = statement.sql(" AND ").sql(times).sql("\"time\" BETWEEN ");
        statement = match source.time() {
            Some(ColumnType::Time) => statement.time(us(from)).sql(" AND ").time(us(to)),
            _ => statement.real(from).sql(" AND ").real(to),
        };
    }
    statement
}

/// Turns seconds into whole microseconds; what is beyond their range becomes infinite.
#[expect(
    clippy::cast_possible_truncation,
    reason = "`as` saturates, which is what is wanted"
)]
fn us(seconds: f64) -> i64 {
    (seconds * 1e6).round() as i64
}

/// Cuts rows where the segment changes, and at holes in `seq`.
pub(crate) fn by_segment(battery: &BatteryName, line: &Line, rows: Selected) -> Vec<StoredRows> {
    let mut cut: Vec<StoredRows> = Vec::new();
    let mut columns = rows.columns;
    let mut taken = 0;
    let segments = rows
        .segment
        .iter()
        .map(|segment| segment.unwrap_or_default());
    let keys: Vec<(i64, i32)> = rows.seq.iter().copied().zip(segments).collect();
    let continues = |a: &(i64, i32), b: &(i64, i32)| a.0 + 1 == b.0 && a.1 == b.1;
    for run in keys.chunk_by(continues) {
        let rest = columns.split_off(run.len());
        let run_columns = std::mem::replace(&mut columns, rest);
        let received = rows.received.iter().skip(taken).take(run.len());
        taken += run.len();
        if let Some(&(first_seq, segment)) = run.first() {
            cut.push(StoredRows {
                battery_id: line.id,
                battery: battery.clone(),
                epoch: line.epoch,
                segment,
                first_seq,
                received: received.map(|us| us.unwrap_or_default()).collect(),
                columns: run_columns,
            });
        }
    }
    cut
}
