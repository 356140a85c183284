//! What may stand beside a name in an upload: one value, or an array of them.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};

use super::{Column, Value, column::ColumnVisitor, value::ValueVisitor};

/// A value or a whole column.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// Anything but an array.
    One(Value),
    /// An array.
    Many(Column),
}

impl<'de> Deserialize<'de> for Cell {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CellVisitor)
    }
}

struct CellVisitor;

/// Hands what is no array to [`ValueVisitor`].
macro_rules! one_value {
    ($($visit:ident: $type:ty),*) => {
        $(fn $visit<E: serde::de::Error>(self, value: $type) -> Result<Cell, E> {
            ValueVisitor.$visit(value).map(Cell::One)
        })*
    };
}

impl<'de> Visitor<'de> for CellVisitor {
    type Value = Cell;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value or an array of values")
    }

    one_value! {
        visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64,
        visit_str: &str, visit_string: String, visit_bytes: &[u8]
    }

    fn visit_unit<E>(self) -> Result<Cell, E> {
        Ok(Cell::One(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Cell, E> {
        Ok(Cell::One(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cell, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, ext: D) -> Result<Cell, D::Error> {
        ValueVisitor.visit_newtype_struct(ext).map(Cell::One)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Cell, A::Error> {
        ColumnVisitor.visit_seq(seq).map(Cell::Many)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Cell, A::Error> {
        ValueVisitor.visit_map(map).map(Cell::One)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_is_a_column_and_all_else_a_value() {
        let cell = |json: &str| serde_json::from_str::<Cell>(json).unwrap();
        assert_eq!(
            cell("[1, null]"),
            Cell::Many(Column::Int(vec![Some(1), None]))
        );
        assert_eq!(cell("1.5"), Cell::One(Value::Float(1.5)));
        assert_eq!(cell("null"), Cell::One(Value::Null));
        assert!(matches!(cell("{\"a\": 1}"), Cell::One(Value::Refused(_))));
    }
}
