//! Values in PostgreSQL's binary form, encoded here once, straight from the columns of batches.
//!
//! A cell is its length in 4 bytes and its bytes, or the length -1 for null; so it stands in an
//! array, in a `COPY` and, without the length, in a bind of its own.

use std::io::Write;

use diesel::{
    QueryResult,
    pg::Pg,
    query_builder::AstPass,
    serialize::{self, IsNull, Output, ToSql},
    sql_types::{Array, BigInt, Bool, Double, Integer, Text, Timestamptz},
};
use rovi_common::rows::Column;
use uuid::Uuid;

/// Microseconds from 1970, where our times begin, to 2000, where PostgreSQL's do.
pub(crate) const US_1970_TO_2000: i64 = 946_684_800_000_000;

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

/// Stands in place of the length of a cell that is null.
pub(super) const NULL: i32 = -1;

/// Appends a cell.
pub(super) fn put(out: &mut Vec<u8>, cell: &[u8]) {
    // Cells are bounded by the size of a row, far below 2 GiB.
    let length = i32::try_from(cell.len()).unwrap_or(NULL);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(cell);
}

/// Appends a cell of eight bytes, as most are.
pub(super) fn put_eight(out: &mut Vec<u8>, [a, b, c, d, e, f, g, h]: [u8; 8]) {
    out.extend_from_slice(&[0, 0, 0, 8, a, b, c, d, e, f, g, h]);
}

/// Appends a cell that is null.
pub(super) fn put_null(out: &mut Vec<u8>) {
    out.extend_from_slice(&NULL.to_be_bytes());
}

/// Appends a time in microseconds since 1970.
pub(super) fn put_time(out: &mut Vec<u8>, us: i64) {
    put_eight(out, since_2000(us));
}

/// Appends the cell of a column that has the type of `element`: fitting saw to that. A cell of
/// another type would be written as null.
pub(super) fn put_cell(out: &mut Vec<u8>, element: Element, column: &Column, row: usize) {
    fn cell<T>(cells: &[Option<T>], row: usize) -> Option<&T> {
        cells.get(row).and_then(Option::as_ref)
    }
    let put_some = |out: &mut Vec<u8>, bytes: Option<[u8; 8]>| match bytes {
        Some(bytes) => put_eight(out, bytes),
        None => put_null(out),
    };
    match (element, column) {
        (Element::Double, Column::Float(cells)) => {
            put_some(out, cell(cells, row).map(|cell| cell.to_be_bytes()));
        }
        (Element::Long, Column::Int(cells)) => {
            put_some(out, cell(cells, row).map(|cell| cell.to_be_bytes()));
        }
        (Element::Time, Column::Time(cells)) => {
            put_some(out, cell(cells, row).map(|&us| since_2000(us)));
        }
        (Element::Text, Column::Text(cells)) => match cell(cells, row) {
            Some(text) => put(out, text.as_bytes()),
            None => put_null(out),
        },
        (Element::Bool, Column::Bool(cells)) => match cell(cells, row) {
            Some(&cell) => put(out, &[u8::from(cell)]),
            None => put_null(out),
        },
        (_, column) => {
            debug_assert!(
                matches!(column, Column::Null(_)),
                "{column:?} was not fitted"
            );
            put_null(out);
        }
    }
}

/// Returns a time in microseconds since 1970 as PostgreSQL has it.
pub(super) fn since_2000(us: i64) -> [u8; 8] {
    us.saturating_sub(US_1970_TO_2000).to_be_bytes()
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
        self.put(&since_2000(us));
    }

    pub(super) fn put_nulls(&mut self, count: usize) {
        for _ in 0..count {
            put_null(&mut self.bytes);
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
        put(&mut self.bytes, cell);
        self.count(1);
    }

    fn count(&mut self, cells: usize) {
        self.cells = self
            .cells
            .saturating_add(i32::try_from(cells).unwrap_or(i32::MAX));
    }

    pub(super) fn bind<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
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
