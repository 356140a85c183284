//! Few rows for each of many tables in one statement.
//!
//! A fleet sends each battery's row by itself, and a statement for each table would be a round
//! trip for each row. `WITH "0" AS (INSERT …), "1" AS (INSERT …) SELECT` is one for all.

use diesel::{PgConnection, QueryResult, RunQueryDsl};

use super::{
    batteries::Line,
    insert::{find_columns, own_columns},
    number::{Numbered, Run},
    statement::{CellBind, Element, Statement},
    tables::Table,
};

/// Rows of one table up to which they are written together with those of a few other tables, and
/// with those of a fleet, which has more tables than a connection keeps statements for; measured,
/// see `docs/BENCHMARKS.md`.
const MOST_ROWS: (usize, usize) = (4, 16);
/// Tables of a group that is one of a fleet.
const MANY_TABLES: usize = 50;
/// Tables of one statement: more gain nothing, since planning grows with them.
const MOST_TABLES: usize = 50;
/// Values of one statement; PostgreSQL takes 65,535.
const MOST_CELLS: usize = 16_384;

/// One battery's part of the statement.
pub(super) struct Part<'p, 'a> {
    /// Where the rows leave the battery's line.
    pub(super) line: Line,
    /// Its table.
    pub(super) table: &'p Table,
    /// Its rows.
    pub(super) rows: Vec<Numbered<'p, 'a>>,
}

impl Part<'_, '_> {
    fn cells(&self) -> usize {
        let rows: usize = self.rows.iter().map(Numbered::len).sum();
        rows * (3 + self.table.columns().len())
    }

    /// Gives up the rows and returns how they were numbered.
    pub(super) fn settle(self) -> (Line, Vec<Run>) {
        (
            self.line,
            self.rows.into_iter().map(|rows| rows.run).collect(),
        )
    }
}

/// Returns how many rows a table of a group of so many may have.
pub(super) fn most_rows(tables: usize) -> usize {
    let (of_few, of_many) = MOST_ROWS;
    if tables < MANY_TABLES {
        of_few
    } else {
        of_many
    }
}

/// Inserts all rows of all parts.
///
/// # Errors
/// As diesel's; which table is at fault is not told.
pub(super) fn insert(connection: &mut PgConnection, parts: &[Part<'_, '_>]) -> QueryResult<()> {
    let mut rest = parts;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(fitting(rest));
        statement(now).execute(connection)?;
        rest = later;
    }
    Ok(())
}

/// Counts the first parts that one statement takes; at least one.
fn fitting(parts: &[Part<'_, '_>]) -> usize {
    let mut cells = 0;
    let fits = |part: &&Part<'_, '_>| {
        cells += part.cells();
        cells <= MOST_CELLS
    };
    parts
        .iter()
        .take(MOST_TABLES)
        .take_while(fits)
        .count()
        .max(1)
}

fn statement(parts: &[Part<'_, '_>]) -> Statement {
    let parts = parts.iter().filter(|part| !part.rows.is_empty());
    let mut statement = Statement::once();
    for (number, part) in parts.enumerate() {
        statement = statement
            .sql(if number == 0 { "WITH " } else { ", " })
            .identifier(&number.to_string())
            .sql(" AS (INSERT INTO ")
            .battery(&part.line.name)
            .sql(" (seq, received, segment")
            .each(own_columns(part.table), |statement, (name, _)| {
                statement.sql(", ").identifier(name)
            })
            .sql(") VALUES ");
        statement = values(statement, part).sql(")");
    }
    statement.sql(" SELECT")
}

fn values(mut statement: Statement, part: &Part<'_, '_>) -> Statement {
    let mut separator = "(";
    for rows in &part.rows {
        let columns = find_columns(rows, part.table);
        let segment = rows.run.segment.to_be_bytes();
        for (row, seq) in rows.rows() {
            let cells = own_columns(part.table).zip(&columns);
            statement = statement
                .sql(separator)
                .cell(CellBind::new(Element::Long, &seq.to_be_bytes()))
                .sql(", ")
                .cell(CellBind::time(rows.piece.received))
                .sql(", ")
                .cell(CellBind::new(Element::Int, &segment))
                .each(cells, |statement, ((_, element), column)| {
                    statement
                        .sql(", ")
                        .cell(CellBind::of(element, *column, row))
                })
                .sql(")");
            separator = ", (";
        }
    }
    statement
}
