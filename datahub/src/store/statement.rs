//! Statements put together at run time from fixed text, quoted identifiers and binds.
//!
//! Names of batteries and columns come from outside: they pass only through
//! [`AstPass::push_identifier`] or as binds, never as text.

use diesel::{
    PgConnection, QueryResult, RunQueryDsl,
    data_types::PgTimestamp,
    pg::{Pg, PgQueryBuilder},
    query_builder::{AstPass, Query, QueryBuilder, QueryFragment, QueryId},
    sql_types::{BigInt, Double, Text, Timestamptz, Untyped},
};
use rovi_common::name::BatteryName;

pub(crate) use super::bind::{ArrayBind, Element, US_1970_TO_2000};
pub(super) use super::cell::CellBind;

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
    Cell(CellBind),
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

    pub(super) fn cell(mut self, cell: CellBind) -> Self {
        self.parts.push(Part::Cell(cell));
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

    /// Returns the text of a statement that binds nothing, for several that are sent at once.
    pub(super) fn without_binds(&self) -> QueryResult<String> {
        let mut text = PgQueryBuilder::default();
        self.to_sql(&mut text, &Pg)?;
        Ok(text.finish())
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
                Part::Cell(cell) => cell.bind(&mut out)?,
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
