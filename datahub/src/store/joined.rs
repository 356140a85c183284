//! Few rows for each of many tables in one statement.
//!
//! A fleet sends each battery's row by itself, and a statement for each table would be a round
//! trip for each row. `WITH "0" AS (INSERT …), "1" AS (INSERT …) SELECT` is one for all. Where the
//! same neighbours came together lately, it is prepared.

use diesel::{
    PgConnection, QueryResult, RunQueryDsl,
    data_types::PgTimestamp,
    pg::Pg,
    query_builder::{AstPass, QueryFragment, QueryId},
    sql_types::{BigInt, Bool, Double, Integer, Nullable, Text, Timestamptz, Uuid},
};
use rovi_common::rows::Column;

use super::{
    batteries::Line,
    insert::{find_columns, own_columns},
    neighbours::{Neighbours, Seen},
    number::{Numbered, Run},
    statement::{Element, US_1970_TO_2000},
    tables::Table,
};

/// Rows of one table up to which they are written together with those of a few other tables, and
/// with those of a fleet, which has more tables than a connection keeps statements for; measured,
/// see `docs/BENCHMARKS.md`.
const MOST_ROWS: (usize, usize) = (4, 16);
/// Tables of a group that is one of a fleet.
const MANY_TABLES: usize = 50;
/// Tables of a statement that is used once: more gain nothing, since planning grows with them.
const MOST_TABLES: usize = 50;
/// Neighbours that are worth a statement of their own.
const LEAST_NEIGHBOURS: usize = 8;
/// Values of one statement; PostgreSQL takes 65,535.
const MOST_CELLS: usize = 16_384;
/// `seq`, `received` and `segment`.
const OWN_CELLS: usize = 3;

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
    fn rows(&self) -> usize {
        self.rows.iter().map(Numbered::len).sum()
    }

    /// Returns what decides the part's text.
    fn key(&self) -> (i64, i64, usize) {
        (self.line.id, self.line.form, self.rows())
    }

    /// Counts the values, or some more.
    fn cells(&self) -> usize {
        self.rows() * (OWN_CELLS + self.table.columns().len())
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

/// Inserts all rows of all parts, which stand in the order of their batteries' ids.
///
/// # Errors
/// As diesel's; which table is at fault is not told.
pub(super) fn insert(
    connection: &mut PgConnection,
    parts: &[Part<'_, '_>],
    (neighbours, seen): (Neighbours, &mut Seen),
) -> QueryResult<()> {
    let parts: Vec<&Part<'_, '_>> = parts.iter().filter(|part| part.rows() > 0).collect();
    let mut others = Vec::new();
    let place = |part: &Part<'_, '_>| neighbours.place(part.line.id);
    for together in parts.chunk_by(|a, b| place(a) == place(b)) {
        let is_worth_it = together.len() >= LEAST_NEIGHBOURS && fitting(together) == together.len();
        let set = || together.iter().map(|part| part.key()).collect();
        let first = together.first().filter(|_| is_worth_it);
        if first.is_some_and(|first| seen.again(place(first), set())) {
            Joined::of(together, true).execute(connection)?;
        } else {
            others.extend_from_slice(together);
        }
    }
    let mut rest = others.as_slice();
    while !rest.is_empty() {
        let (now, later) = rest.split_at(fitting(rest));
        Joined::of(now, false).execute(connection)?;
        rest = later;
    }
    Ok(())
}

/// Counts the first parts that one statement takes; at least one.
fn fitting(parts: &[&Part<'_, '_>]) -> usize {
    let mut cells = 0;
    let fits = |part: &&&Part<'_, '_>| {
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

/// The statement. A group of a fleet has ten thousand values: each is put here once, and none is
/// copied that a column holds.
struct Joined<'j> {
    parts: &'j [&'j Part<'j, 'j>],
    /// Of all rows, one after another.
    cells: Vec<Cell<'j>>,
    is_prepared: bool,
}

impl<'j> Joined<'j> {
    fn of(parts: &'j [&'j Part<'j, 'j>], is_prepared: bool) -> Self {
        let mut cells = Vec::with_capacity(parts.iter().map(|part| part.cells()).sum());
        for part in parts {
            for rows in &part.rows {
                let columns = find_columns(rows, part.table);
                for (row, seq) in rows.rows() {
                    let own = [
                        Cell::Long(seq),
                        Cell::time(rows.piece.received),
                        Cell::Int(rows.run.segment),
                    ];
                    cells.extend(own);
                    let elements = own_columns(part.table).map(|(_, element)| element);
                    let others = elements.zip(&columns);
                    cells.extend(others.map(|(element, column)| Cell::of(element, *column, row)));
                }
            }
        }
        Self {
            parts,
            cells,
            is_prepared,
        }
    }
}

impl QueryFragment<Pg> for Joined<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        if !self.is_prepared {
            out.unsafe_to_cache_prepared();
        }
        let mut cells = self.cells.iter();
        for (number, part) in self.parts.iter().enumerate() {
            out.push_sql(if number == 0 { "WITH " } else { ", " });
            out.push_identifier(&number.to_string())?;
            out.push_sql(" AS (INSERT INTO battery.");
            out.push_identifier(&part.line.name)?;
            out.push_sql(" (seq, received, segment");
            let mut width = OWN_CELLS;
            for (name, _) in own_columns(part.table) {
                out.push_sql(", ");
                out.push_identifier(name)?;
                width += 1;
            }
            out.push_sql(") VALUES ");
            for row in 0..part.rows() {
                out.push_sql(if row == 0 { "(" } else { ", (" });
                for (place, cell) in cells.by_ref().take(width).enumerate() {
                    if place > 0 {
                        out.push_sql(", ");
                    }
                    cell.bind(&mut out)?;
                }
                out.push_sql(")");
            }
            out.push_sql(")");
        }
        out.push_sql(" SELECT");
        Ok(())
    }
}

impl QueryId for Joined<'_> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl RunQueryDsl<PgConnection> for Joined<'_> {}

/// A value, as diesel binds it.
#[derive(Debug, Clone, Copy)]
enum Cell<'a> {
    Null(Element),
    Bool(bool),
    Long(i64),
    Int(i32),
    Double(f64),
    Text(&'a str),
    Time(PgTimestamp),
}

impl<'a> Cell<'a> {
    /// Takes a time in microseconds since 1970.
    fn time(us: i64) -> Self {
        Self::Time(PgTimestamp(us.saturating_sub(US_1970_TO_2000)))
    }

    /// Takes a cell of a column that has the type of `element`: fitting saw to that. A cell of
    /// another type would be written as null.
    fn of(element: Element, column: Option<&'a Column>, row: usize) -> Self {
        fn cell<T>(cells: &[Option<T>], row: usize) -> Option<&T> {
            cells.get(row).and_then(Option::as_ref)
        }
        let found = match (element, column) {
            (Element::Bool, Some(Column::Bool(cells))) => cell(cells, row).copied().map(Self::Bool),
            (Element::Long, Some(Column::Int(cells))) => cell(cells, row).copied().map(Self::Long),
            (Element::Double, Some(Column::Float(cells))) => {
                cell(cells, row).copied().map(Self::Double)
            }
            (Element::Text, Some(Column::Text(cells))) => {
                cell(cells, row).map(|text| Self::Text(text))
            }
            (Element::Time, Some(Column::Time(cells))) => cell(cells, row).copied().map(Self::time),
            (_, column) => {
                debug_assert!(
                    matches!(column, None | Some(Column::Null(_))),
                    "{column:?} was not fitted"
                );
                None
            }
        };
        found.unwrap_or(Self::Null(element))
    }

    fn bind<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        match self {
            Self::Null(element) => null(*element, out),
            Self::Bool(value) => out.push_bind_param::<Bool, _>(value),
            Self::Long(value) => out.push_bind_param::<BigInt, _>(value),
            Self::Int(value) => out.push_bind_param::<Integer, _>(value),
            Self::Double(value) => out.push_bind_param::<Double, _>(value),
            Self::Text(value) => out.push_bind_param::<Text, _>(value),
            Self::Time(value) => out.push_bind_param::<Timestamptz, _>(value),
        }
    }
}

fn null(element: Element, out: &mut AstPass<'_, '_, Pg>) -> QueryResult<()> {
    match element {
        Element::Bool => out.push_bind_param::<Nullable<Bool>, _>(&None::<bool>),
        Element::Long => out.push_bind_param::<Nullable<BigInt>, _>(&None::<i64>),
        Element::Int => out.push_bind_param::<Nullable<Integer>, _>(&None::<i32>),
        Element::Double => out.push_bind_param::<Nullable<Double>, _>(&None::<f64>),
        Element::Text => out.push_bind_param::<Nullable<Text>, _>(&None::<&str>),
        Element::Time => out.push_bind_param::<Nullable<Timestamptz>, _>(&None::<PgTimestamp>),
        Element::Uuid => out.push_bind_param::<Nullable<Uuid>, _>(&None::<uuid::Uuid>),
    }
}
