//! Types of columns: ours, PostgreSQL's and those of values.

use rovi_common::rows::{Column, Value};

use super::statement::Element;

/// The type of a column.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ColumnType {
    /// `boolean`
    Bool,
    /// `bigint`
    Int,
    /// `double precision`
    Float,
    /// `text`
    Text,
    /// `timestamptz`
    Time,
    /// A type that somebody else gave it; its name in PostgreSQL.
    Foreign(String),
}

impl ColumnType {
    /// Names the type in messages to users.
    pub fn noun(&self) -> &str {
        match self {
            Self::Bool => "boolean",
            Self::Int => "integer",
            Self::Float => "float",
            Self::Text => "text",
            Self::Time => "timestamp",
            Self::Foreign(name) => name,
        }
    }

    /// Names the type in SQL.
    pub(super) fn sql(&self) -> &'static str {
        match self {
            Self::Bool => "boolean",
            Self::Int => "bigint",
            Self::Float => "double precision",
            Self::Text | Self::Foreign(_) => "text",
            Self::Time => "timestamptz",
        }
    }

    /// Returns a column of this type without cells.
    pub(super) fn empty(&self) -> Column {
        match self {
            Self::Bool => Column::Bool(Vec::new()),
            Self::Int => Column::Int(Vec::new()),
            Self::Float => Column::Float(Vec::new()),
            Self::Text | Self::Foreign(_) => Column::Text(Vec::new()),
            Self::Time => Column::Time(Vec::new()),
        }
    }

    /// Reads PostgreSQL's name of a type.
    pub(super) fn from_sql(name: &str) -> Self {
        match name {
            "boolean" => Self::Bool,
            "bigint" => Self::Int,
            "double precision" => Self::Float,
            "text" => Self::Text,
            "timestamp with time zone" => Self::Time,
            other => Self::Foreign(other.to_owned()),
        }
    }

    /// Returns how cells of this type are sent.
    pub(super) fn element(&self) -> Element {
        match self {
            Self::Bool => Element::Bool,
            Self::Int => Element::Long,
            Self::Float => Element::Double,
            Self::Text | Self::Foreign(_) => Element::Text,
            Self::Time => Element::Time,
        }
    }

    /// Tells whether all cells of `column` are of this type or null.
    pub(super) fn is_type_of(&self, column: &Column) -> bool {
        matches!(
            (self, column),
            (_, Column::Null(_))
                | (Self::Bool, Column::Bool(_))
                | (Self::Int, Column::Int(_))
                | (Self::Float, Column::Float(_))
                | (Self::Text, Column::Text(_))
                | (Self::Time, Column::Time(_))
        )
    }

    /// Returns the type for a new column with these cells; none while all are null.
    pub(super) fn for_new(column: &Column) -> Option<Self> {
        match column {
            Column::Null(_) => None,
            Column::Bool(_) => Some(Self::Bool),
            Column::Int(_) => Some(Self::Int),
            Column::Float(_) => Some(Self::Float),
            Column::Text(_) => Some(Self::Text),
            Column::Time(_) => Some(Self::Time),
            Column::Mixed(cells) => {
                let first = cells.iter().find_map(Self::of_value)?;
                let has_float = cells.iter().any(|cell| matches!(cell, Value::Float(_)));
                Some(match first {
                    Self::Int if has_float => Self::Float,
                    first => first,
                })
            }
        }
    }

    fn of_value(value: &Value) -> Option<Self> {
        match value {
            Value::Null | Value::Refused(_) => None,
            Value::Bool(_) => Some(Self::Bool),
            Value::Int(_) => Some(Self::Int),
            Value::Float(_) => Some(Self::Float),
            Value::Text(_) => Some(Self::Text),
            Value::Time(_) => Some(Self::Time),
        }
    }
}
