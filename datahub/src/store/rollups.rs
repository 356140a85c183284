//! `hub.rollups`: the smallest and largest values of blocks of rows, so that a wide range is
//! reduced without reading its rows.
//!
//! They are made from the tables and add nothing to them: what is missing is read from the rows.
//! A unit of blocks is made in one transaction, under the same lock as [`invalidate`] takes, so
//! that none is made from rows that are just being changed.

use std::ops::RangeInclusive;

use diesel::{PgConnection, QueryResult, QueryableByName, RunQueryDsl, sql_types};
use rovi_common::rows::Column;

use super::{
    StoreError,
    batteries::Line,
    derived,
    rows::{self, PageLimits, Selection},
    source::Source,
    statement::{ArrayBind, Element, Statement},
    tables::ColumnType,
    times,
};

/// Rows of a block, by level. A unit, which is made at once, is a block of the last level.
pub const BLOCK_ROWS: [i64; 2] = [256, 4096];
/// Rows of a unit.
pub const UNIT_ROWS: i64 = BLOCK_ROWS[1];
/// The column that every block has, in seconds since 1970.
pub const RECEIVED: &str = "received";
/// The columns that ranges are given of.
const AXES: [&str; 3] = [RECEIVED, "test_time", "time"];
/// Begins the key of the advisory lock of a battery: `roll` in ASCII.
const LOCK: i64 = 0x726f_6c6c;

/// The smallest and largest value of some rows, and the first row that has each.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Extremes {
    /// Values that count.
    pub values: i64,
    /// Smallest value and its `seq`.
    pub least: Option<(f64, i64)>,
    /// Largest value and its `seq`.
    pub greatest: Option<(f64, i64)>,
}

impl Extremes {
    /// Takes a value that is to be shown, if it is a finite number: infinity would hide the largest
    /// one that can be drawn.
    pub fn take(&mut self, value: f64, seq: i64) {
        if value.is_finite() {
            self.take_place(value, seq);
        }
    }

    /// Takes a place on an axis; NaN is none, but a range may reach to infinity.
    fn take_place(&mut self, value: f64, seq: i64) {
        if !value.is_nan() {
            self.merge(&Self {
                values: 1,
                least: Some((value, seq)),
                greatest: Some((value, seq)),
            });
        }
    }

    /// Takes what other rows have.
    pub fn merge(&mut self, other: &Self) {
        self.values += other.values;
        if let Some(least) = other.least
            && self.least.is_none_or(|known| least.0 < known.0)
        {
            self.least = Some(least);
        }
        if let Some(greatest) = other.greatest
            && self.greatest.is_none_or(|known| greatest.0 > known.0)
        {
            self.greatest = Some(greatest);
        }
    }
}

/// A column's extremes in one block.
#[derive(Debug, Clone, PartialEq)]
pub struct Block {
    /// Place of the column among those asked for.
    pub column: usize,
    /// Number of the block on its level.
    pub block: i64,
    /// What its rows have.
    pub extremes: Extremes,
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = sql_types::BigInt)]
    number: i64,
}

/// Returns which of these units are made, in order.
///
/// # Errors
/// As diesel's.
pub fn made(
    connection: &mut PgConnection,
    source: &Source,
    units: RangeInclusive<i64>,
) -> QueryResult<Vec<i64>> {
    let found: Vec<Number> = of_battery(
        Statement::cached().sql("SELECT block AS number"),
        &source.line,
    )
    .sql(" AND level = 1 AND column_name = ")
    .text(RECEIVED)
    .sql(" AND block BETWEEN ")
    .long(*units.start())
    .sql(" AND ")
    .long(*units.end())
    .sql(" ORDER BY block")
    .load(connection)?;
    Ok(found.into_iter().map(|unit| unit.number).collect())
}

/// Returns the first complete units from `first` on that are not made on a level of units.
///
/// # Errors
/// As diesel's.
pub(crate) fn missing(
    connection: &mut PgConnection,
    line: &Line,
    (level, first): (i64, i64),
    limit: i64,
) -> QueryResult<Vec<i64>> {
    let statement = Statement::cached()
        .sql("SELECT unit AS number FROM generate_series(")
        .long(first)
        .sql(", ")
        .long(line.last_seq / UNIT_ROWS - 1)
        .sql(") unit WHERE NOT EXISTS (SELECT");
    let found: Vec<Number> = of_battery(statement, line)
        .sql(" AND level = ")
        .long(level)
        .sql(" AND block = unit AND block >= ")
        .long(first)
        .sql(" AND column_name = ")
        .text(RECEIVED)
        .sql(") ORDER BY unit LIMIT ")
        .long(limit)
        .load(connection)?;
    Ok(found.into_iter().map(|unit| unit.number).collect())
}

/// Reads blocks of a level, in order; a column without a value in a block is left out there.
///
/// # Errors
/// As diesel's.
pub fn blocks(
    connection: &mut PgConnection,
    source: &Source,
    level: usize,
    columns: &[&str],
    blocks: RangeInclusive<i64>,
) -> QueryResult<Vec<Block>> {
    #[derive(QueryableByName)]
    struct Line {
        #[diesel(sql_type = sql_types::BigInt)]
        place: i64,
        #[diesel(sql_type = sql_types::BigInt)]
        block: i64,
        #[diesel(sql_type = sql_types::BigInt)]
        values: i64,
        #[diesel(sql_type = sql_types::Nullable<sql_types::Double>)]
        least: Option<f64>,
        #[diesel(sql_type = sql_types::Nullable<sql_types::BigInt>)]
        least_seq: Option<i64>,
        #[diesel(sql_type = sql_types::Nullable<sql_types::Double>)]
        greatest: Option<f64>,
        #[diesel(sql_type = sql_types::Nullable<sql_types::BigInt>)]
        greatest_seq: Option<i64>,
    }
    let statement = Statement::cached()
        .sql("SELECT array_position(")
        .array(ArrayBind::texts(columns.iter().copied()))
        .sql(", column_name)::bigint AS place, block, \"values\", least, least_seq, greatest, greatest_seq");
    let lines: Vec<Line> = of_battery(statement, &source.line)
        .sql(" AND level = ")
        .long(i64::try_from(level).unwrap_or_default())
        .sql(" AND column_name = ANY(")
        .array(ArrayBind::texts(columns.iter().copied()))
        .sql(") AND block BETWEEN ")
        .long(*blocks.start())
        .sql(" AND ")
        .long(*blocks.end())
        .sql(" ORDER BY block")
        .load(connection)?;
    let block = |line: Line| Block {
        column: usize::try_from(line.place - 1).unwrap_or_default(),
        block: line.block,
        extremes: Extremes {
            values: line.values,
            least: line.least.zip(line.least_seq),
            greatest: line.greatest.zip(line.greatest_seq),
        },
    };
    Ok(lines.into_iter().map(block).collect())
}

/// Makes the blocks of a unit from the rows, unless another hub has made them meanwhile.
///
/// # Errors
/// PostgreSQL is away or refuses.
pub fn make(connection: &mut PgConnection, source: &Source, unit: i64) -> Result<(), StoreError> {
    derived(connection, |connection| {
        lock(connection, source.line.id)?;
        if !source.has_its_form(connection)? {
            return Ok(());
        }
        if made(connection, source, unit..=unit)? == [unit] {
            return Ok(());
        }
        let seqs = unit * UNIT_ROWS + 1..=(unit + 1) * UNIT_ROWS;
        let numeric = |(_, kind): &&(String, ColumnType)| {
            matches!(kind, ColumnType::Int | ColumnType::Float | ColumnType::Time)
        };
        let columns: Vec<_> = source.columns().iter().filter(numeric).cloned().collect();
        let limits = PageLimits {
            rows: usize::MAX,
            bytes: usize::MAX,
            descending: false,
        };
        let page = rows::page(
            connection,
            source,
            &[Selection::by_seq(seqs)],
            &columns,
            limits,
        )?;
        let received = Column::Time(page.received);
        let columns = page.columns.iter().chain([(RECEIVED, &received)]);
        let mut lines = Lines::default();
        for (name, column) in columns {
            lines.add(name, column, &page.seq, unit);
        }
        insert(connection, source, &lines)?;
        Ok(())
    })
}

/// Forgets the blocks that hold any of these rows; call it in the transaction that changes or
/// removes rows, for every battery whose rows it touches.
///
/// # Errors
/// As diesel's.
pub fn invalidate(
    connection: &mut PgConnection,
    battery_id: i64,
    seqs: RangeInclusive<i64>,
) -> QueryResult<()> {
    lock(connection, battery_id)?;
    // Blocks go as whole units, so that a unit is there entirely or not at all.
    let unit_of = |seq: i64| (seq.max(1) - 1) / UNIT_ROWS;
    let (first, last) = (unit_of(*seqs.start()), unit_of(*seqs.end()));
    times::forget(connection, battery_id, first..=last)?;
    for (level, rows) in (0_i64..).zip(BLOCK_ROWS) {
        let blocks = UNIT_ROWS / rows;
        Statement::cached()
            .sql("DELETE FROM hub.rollups WHERE battery_id = ")
            .long(battery_id)
            .sql(" AND level = ")
            .long(level)
            .sql(" AND block BETWEEN ")
            .long(first * blocks)
            .sql(" AND ")
            .long(last.saturating_mul(blocks).saturating_add(blocks - 1))
            .execute(connection)?;
    }
    Ok(())
}

pub(super) fn lock(connection: &mut PgConnection, battery_id: i64) -> QueryResult<()> {
    Statement::cached()
        .sql("SELECT pg_advisory_xact_lock(hashint8extended(")
        .long(battery_id)
        .sql(", ")
        .long(LOCK)
        .sql("))")
        .execute(connection)
        .map(drop)
}

pub(super) fn of_battery(statement: Statement, line: &Line) -> Statement {
    statement
        .sql(" FROM hub.rollups WHERE battery_id = ")
        .long(line.id)
        .sql(" AND epoch = ")
        .long(line.epoch)
}

/// Blocks to be written.
#[derive(Default)]
struct Lines {
    names: Vec<String>,
    levels: Vec<i64>,
    blocks: Vec<i64>,
    extremes: Vec<Extremes>,
}

impl Lines {
    fn add(&mut self, name: &str, column: &Column, seqs: &[i64], unit: i64) {
        let take = if AXES.contains(&name) {
            Extremes::take_place
        } else {
            Extremes::take
        };
        for (level, rows) in (0_i64..).zip(BLOCK_ROWS) {
            let first = unit * UNIT_ROWS / rows;
            let count = usize::try_from(UNIT_ROWS / rows).unwrap_or(1);
            let mut blocks = vec![Extremes::default(); count];
            for (row, &seq) in seqs.iter().enumerate() {
                let place = usize::try_from((seq - 1) / rows - first).unwrap_or(usize::MAX);
                if let (Some(block), Some(value)) = (blocks.get_mut(place), number(column, row)) {
                    take(block, value, seq);
                }
            }
            for (block, extremes) in (first..).zip(blocks) {
                // The unit's own line tells that it is made, rows or not.
                if extremes.values > 0 || (name == RECEIVED && rows == UNIT_ROWS) {
                    self.names.push(name.to_owned());
                    self.levels.push(level);
                    self.blocks.push(block);
                    self.extremes.push(extremes);
                }
            }
        }
    }
}

/// Returns a cell as a number; a time in seconds since 1970.
#[expect(
    clippy::cast_precision_loss,
    reason = "moments are far below 2^53 microseconds"
)]
pub fn number(column: &Column, row: usize) -> Option<f64> {
    match column {
        Column::Time(cells) => cells.get(row).copied().flatten().map(|us| us as f64 / 1e6),
        column => column.number(row),
    }
}

fn insert(connection: &mut PgConnection, source: &Source, lines: &Lines) -> QueryResult<()> {
    let extremes = || lines.extremes.iter();
    let seqs = |of: fn(&Extremes) -> Option<(f64, i64)>| {
        let mut array = ArrayBind::new(Element::Long, lines.extremes.len());
        for extremes in extremes() {
            match of(extremes) {
                Some((_, seq)) => array.put_long(seq),
                None => array.put_nulls(1),
            }
        }
        array
    };
    let values = |of: fn(&Extremes) -> Option<(f64, i64)>| {
        ArrayBind::doubles(extremes().map(|extremes| of(extremes).map(|(value, _)| value)))
    };
    Statement::cached()
        .sql("INSERT INTO hub.rollups SELECT ")
        .long(source.line.id)
        .sql(", ")
        .long(source.line.epoch)
        .sql(", n.* FROM unnest(")
        .array(ArrayBind::texts(lines.names.iter().map(String::as_str)))
        .sql(", ")
        .array(ArrayBind::longs(lines.levels.iter().copied()))
        .sql(", ")
        .array(ArrayBind::longs(lines.blocks.iter().copied()))
        .sql(", ")
        .array(ArrayBind::longs(extremes().map(|extremes| extremes.values)))
        .sql(", ")
        .array(values(|extremes| extremes.least))
        .sql(", ")
        .array(seqs(|extremes| extremes.least))
        .sql(", ")
        .array(values(|extremes| extremes.greatest))
        .sql(", ")
        .array(seqs(|extremes| extremes.greatest))
        .sql(") n")
        .execute(connection)
        .map(drop)
}
