//! Statements put together at run time from fixed text, quoted identifiers and binds.
//!
//! Names of batteries and columns come from outside: they pass only through
//! [`AstPass::push_identifier`] or as binds, never as text. Arrays are encoded here once for a
//! whole group, straight from the columns of its batches.

use std::io::Write;

use diesel::{
    PgConnection, QueryResult, RunQueryDsl,
    data_types::PgTimestamp,
    pg::Pg,
    query_builder::{AstPass, Query, QueryFragment, QueryId},
    serialize::{self, IsNull, Output, ToSql},
    sql_types::{Array, BigInt, Bool, Double, Integer, Text, Timestamptz, Untyped},
};
use rovi_common::{name::BatteryName, rows::Column};
use uuid::Uuid;

/// Microseconds from 1970, where our times begin, to 2000, where PostgreSQL's do.
pub(crate) const US_1970_TO_2000: i64 = 946_684_800_000_000;

/// A statement; its text alone, not the length of its arrays, decides which one is prepared.
#[derive(Debug, Default)]
pub(crate) struct Statement {
    parts: Vec<Part>,
    cached: bool,
}

#[derive(Debug)]
enum Part {
    Sql(&'static str),
    Identifier(String),
    Array(ArrayBind),
    Long(i64),
    Real(f64),
    Text(String),
    Time(PgTimestamp),
}

impl Statement {
    /// Begins a statement that each connection prepares once.
    pub(super) fn cached() -> Self {
        Self {
            parts: Vec::new(),
            cached: true,
        }
    }

    /// Begins a statement that is used once.
    pub(crate) fn once() -> Self {
        Self::default()
    }

    pub(crate) fn sql(mut self, text: &'static str) -> Self {
        self.parts.push(Part::Sql(text));
        self
    }

    pub(crate) fn identifier(mut self, name: &str) -> Self {
        self.parts.push(Part::Identifier(name.to_owned()));
        self
    }

    /// Names the table of a battery.
    pub(crate) fn battery(self, name: &str) -> Self {
        self.sql("battery.").identifier(name)
    }

    /// Names the table of a battery's estimates.
    pub(super) fn estimates(self, battery: &BatteryName) -> Self {
        self.sql("estimates.").identifier(battery.as_str())
    }

    pub(super) fn array(mut self, array: ArrayBind) -> Self {
        self.parts.push(Part::Array(array));
        self
    }

    pub(crate) fn long(mut self, value: i64) -> Self {
        self.parts.push(Part::Long(value));
        self
    }

    pub(super) fn real(mut self, value: f64) -> Self {
        self.parts.push(Part::Real(value));
        self
    }

    pub(super) fn text(mut self, value: impl Into<String>) -> Self {
        self.parts.push(Part::Text(value.into()));
        self
    }

    /// Binds a time in microseconds since 1970; the ends of the range are PostgreSQL's infinities.
    pub(super) fn time(mut self, us: i64) -> Self {
        let since_2000 = match us {
            i64::MIN | i64::MAX => us,
            us => us.saturating_sub(US_1970_TO_2000),
        };
        self.parts.push(Part::Time(PgTimestamp(since_2000)));
        self
    }

    /// Applies `add` for each item.
    pub(super) fn each<T>(
        self,
        items: impl IntoIterator<Item = T>,
        add: impl Fn(Self, T) -> Self,
    ) -> Self {
        items.into_iter().fold(self, add)
    }
}

impl QueryFragment<Pg> for Statement {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        if !self.cached {
            out.unsafe_to_cache_prepared();
        }
        for part in &self.parts {
            match part {
                Part::Sql(text) => out.push_sql(text),
                Part::Identifier(name) => out.push_identifier(name)?,
                Part::Array(array) => array.bind(&mut out)?,
                Part::Long(value) => out.push_bind_param::<BigInt, _>(value)?,
                Part::Real(value) => out.push_bind_param::<Double, _>(value)?,
                Part::Text(value) => out.push_bind_param::<Text, _>(value)?,
                Part::Time(value) => out.push_bind_param::<Timestamptz, _>(value)?,
            }
        }
        Ok(())
    }
}

impl QueryId for Statement {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl Query for Statement {
    type SqlType = Untyped;
}

impl RunQueryDsl<PgConnection> for Statement {}

/// Types that columns of a table may have, and those of the hub's own arrays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Element {
    Bool,
    Long,
    Int,
    Double,
    Text,
    Time,
    Uuid,
}

impl Element {
    /// Returns PostgreSQL's number of the type.
    fn oid(self) -> u32 {
        match self {
            Self::Bool => 16,
            Self::Long => 20,
            Self::Int => 23,
            Self::Double => 701,
            Self::Text => 25,
            Self::Time => 1184,
            Self::Uuid => 2950,
        }
    }
}

/// An array in PostgreSQL's binary form.
#[derive(Debug)]
pub(crate) struct ArrayBind {
    element: Element,
    cells: i32,
    bytes: Vec<u8>,
}

/// Dimensions, flag for nulls, type, length and lower bound, 4 bytes each.
const HEADER_BYTES: usize = 20;
const NULL: i32 = -1;

impl ArrayBind {
    /// Begins an array with room for `cells`.
    pub(crate) fn new(element: Element, cells: usize) -> Self {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + 12 * cells);
        for word in [1, 1, element.oid(), 0, 1] {
            bytes.extend_from_slice(&word.to_be_bytes());
        }
        Self {
            element,
            cells: 0,
            bytes,
        }
    }

    pub(super) fn longs(values: impl IntoIterator<Item = i64>) -> Self {
        let mut array = Self::new(Element::Long, 0);
        values
            .into_iter()
            .for_each(|value| array.put(&value.to_be_bytes()));
        array
    }

    pub(super) fn ints(values: impl IntoIterator<Item = i32>) -> Self {
        let mut array = Self::new(Element::Int, 0);
        values
            .into_iter()
            .for_each(|value| array.put(&value.to_be_bytes()));
        array
    }

    pub(super) fn doubles(values: impl IntoIterator<Item = Option<f64>>) -> Self {
        let mut array = Self::new(Element::Double, 0);
        for value in values {
            match value {
                Some(value) => array.put(&value.to_be_bytes()),
                None => array.put_nulls(1),
            }
        }
        array
    }

    /// Times in microseconds since 1970.
    pub(super) fn times(values: impl IntoIterator<Item = i64>) -> Self {
        let mut array = Self::new(Element::Time, 0);
        values.into_iter().for_each(|value| array.put_time(value));
        array
    }

    pub(super) fn texts<'a>(values: impl IntoIterator<Item = &'a str>) -> Self {
        let mut array = Self::new(Element::Text, 0);
        values
            .into_iter()
            .for_each(|value| array.put(value.as_bytes()));
        array
    }

    pub(super) fn uuids(values: impl IntoIterator<Item = Option<Uuid>>) -> Self {
        let mut array = Self::new(Element::Uuid, 0);
        for value in values {
            match value {
                Some(value) => array.put(value.as_bytes()),
                None => array.put_nulls(1),
            }
        }
        array
    }

    /// Returns the cells without what stands before them.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn into_cells(mut self) -> Vec<u8> {
        self.bytes.split_off(HEADER_BYTES)
    }

    pub(super) fn put_long(&mut self, value: i64) {
        self.put(&value.to_be_bytes());
    }

    pub(super) fn put_int(&mut self, value: i32) {
        self.put(&value.to_be_bytes());
    }

    pub(super) fn put_time(&mut self, us: i64) {
        self.put(&us.saturating_sub(US_1970_TO_2000).to_be_bytes());
    }

    pub(super) fn put_nulls(&mut self, count: usize) {
        for _ in 0..count {
            self.bytes.extend_from_slice(&NULL.to_be_bytes());
        }
        self.count(count);
    }

    /// Appends the cells of a column from row `from` up to, not including, row `to`.
    ///
    /// The column has the array's type: fitting saw to that. A cell of another type would be
    /// written as null.
    pub(crate) fn put_column(&mut self, column: &Column, from: usize, to: usize) {
        match (self.element, column) {
            (Element::Bool, Column::Bool(cells)) => {
                self.put_cells(cells, from, to, |array, cell| array.put(&[u8::from(*cell)]));
            }
            (Element::Long, Column::Int(cells)) => {
                self.put_cells(cells, from, to, |array, cell| {
                    array.put(&cell.to_be_bytes());
                });
            }
            (Element::Double, Column::Float(cells)) => {
                self.put_cells(cells, from, to, |array, cell| {
                    array.put(&cell.to_be_bytes());
                });
            }
            (Element::Text, Column::Text(cells)) => {
                self.put_cells(cells, from, to, |array, cell| array.put(cell.as_bytes()));
            }
            (Element::Time, Column::Time(cells)) => {
                self.put_cells(cells, from, to, |array, cell| array.put_time(*cell));
            }
            (_, column) => {
                debug_assert!(
                    matches!(column, Column::Null(_)),
                    "{column:?} was not fitted"
                );
                self.put_nulls(to.saturating_sub(from));
            }
        }
    }

    fn put_cells<T>(
        &mut self,
        cells: &[Option<T>],
        from: usize,
        to: usize,
        put: impl Fn(&mut Self, &T),
    ) {
        for cell in cells.get(from..to).unwrap_or_default() {
            match cell {
                Some(cell) => put(self, cell),
                None => self.put_nulls(1),
            }
        }
    }

    fn put(&mut self, cell: &[u8]) {
        // Cells are bounded by the size of a row, far below 2 GiB.
        let length = i32::try_from(cell.len()).unwrap_or(NULL);
        self.bytes.extend_from_slice(&length.to_be_bytes());
        self.bytes.extend_from_slice(cell);
        self.count(1);
    }

    fn count(&mut self, cells: usize) {
        self.cells = self
            .cells
            .saturating_add(i32::try_from(cells).unwrap_or(i32::MAX));
    }

    fn bind<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        match self.element {
            Element::Bool => out.push_bind_param::<Array<Bool>, _>(self),
            Element::Long => out.push_bind_param::<Array<BigInt>, _>(self),
            Element::Int => out.push_bind_param::<Array<Integer>, _>(self),
            Element::Double => out.push_bind_param::<Array<Double>, _>(self),
            Element::Text => out.push_bind_param::<Array<Text>, _>(self),
            Element::Time => out.push_bind_param::<Array<Timestamptz>, _>(self),
            Element::Uuid => out.push_bind_param::<Array<diesel::sql_types::Uuid>, _>(self),
        }
    }
}

impl<T> ToSql<Array<T>, Pg> for ArrayBind {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        let (header, cells) = self.bytes.split_at(HEADER_BYTES);
        let (dimensions, rest) = header.split_at(HEADER_BYTES - 8);
        let lower_bound = rest.get(4..).unwrap_or_default();
        out.write_all(dimensions)?;
        out.write_all(&self.cells.to_be_bytes())?;
        out.write_all(lower_bound)?;
        out.write_all(cells)?;
        Ok(IsNull::No)
    }
}
