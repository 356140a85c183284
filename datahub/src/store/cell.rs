//! Values of their own in PostgreSQL's binary form, as binds of a statement.

use std::io::Write;

use diesel::{
    QueryResult,
    pg::Pg,
    query_builder::AstPass,
    serialize::{self, IsNull, Output, ToSql},
    sql_types::{BigInt, Bool, Double, Integer, Text, Timestamptz},
};
use rovi_common::rows::Column;

use super::bind::{Element, NULL, put_cell, put_null};

/// A value of its own.
#[derive(Debug)]
pub(super) struct CellBind {
    element: Element,
    /// Its length and its bytes.
    cell: Vec<u8>,
}

impl CellBind {
    /// Takes a cell of a column; see [`put_cell`].
    pub(super) fn of(element: Element, column: Option<&Column>, row: usize) -> Self {
        let mut cell = Vec::with_capacity(12);
        match column {
            Some(column) => put_cell(&mut cell, element, column, row),
            None => put_null(&mut cell),
        }
        Self { element, cell }
    }

    pub(super) fn bind<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        match self.element {
            Element::Bool => out.push_bind_param::<Bool, _>(self),
            Element::Long => out.push_bind_param::<BigInt, _>(self),
            Element::Int => out.push_bind_param::<Integer, _>(self),
            Element::Double => out.push_bind_param::<Double, _>(self),
            Element::Text => out.push_bind_param::<Text, _>(self),
            Element::Time => out.push_bind_param::<Timestamptz, _>(self),
            Element::Uuid => out.push_bind_param::<diesel::sql_types::Uuid, _>(self),
        }
    }
}

/// One value of any type that an [`Element`] names.
macro_rules! cell_to_sql {
    ($($kind:ty),*) => {
        $(impl ToSql<$kind, Pg> for CellBind {
            fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
                match self.cell.split_first_chunk::<4>() {
                    Some((length, bytes)) if *length != NULL.to_be_bytes() => {
                        out.write_all(bytes)?;
                        Ok(IsNull::No)
                    }
                    _ => Ok(IsNull::Yes),
                }
            }
        })*
    };
}

cell_to_sql!(
    Bool,
    BigInt,
    Integer,
    Double,
    Text,
    Timestamptz,
    diesel::sql_types::Uuid
);
