//! One column of typed cells.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{SeqAccess, Visitor},
    ser::SerializeSeq,
};

use super::value::{Value, serialize_time};

/// The most cells for which room is made before any is read; a length on the wire is a claim.
pub(super) const MAX_RESERVED_CELLS: usize = 4096;

/// The cells of one column, in the order of the rows; `None` is SQL `NULL`.
#[derive(Debug, Clone, PartialEq)]
pub enum Column {
    /// This many cells, all null; the column has no type yet.
    Null(usize),
    /// SQL `boolean`.
    Bool(Vec<Option<bool>>),
    /// SQL `bigint`.
    Int(Vec<Option<i64>>),
    /// SQL `double precision`.
    Float(Vec<Option<f64>>),
    /// SQL `text`.
    Text(Vec<Option<String>>),
    /// SQL `timestamptz`, in microseconds since 1970-01-01T00:00:00Z.
    Time(Vec<Option<i64>>),
    /// Cells of several kinds, or some that no column can hold; never stored as such.
    Mixed(Vec<Value>),
}

/// Applies one expression to the cells, whatever their type.
macro_rules! each_vec {
    ($column:expr, $cells:ident => $typed:expr, $null:ident => $untyped:expr) => {
        match $column {
            Column::Null($null) => $untyped,
            Column::Bool($cells) => $typed,
            Column::Int($cells) => $typed,
            Column::Float($cells) => $typed,
            Column::Text($cells) => $typed,
            Column::Time($cells) => $typed,
            Column::Mixed($cells) => $typed,
        }
    };
}

impl Column {
    /// Returns a column of no cells and no type.
    pub fn new() -> Self {
        Self::Null(0)
    }

    /// Returns the number of cells.
    pub fn len(&self) -> usize {
        each_vec!(self, cells => cells.len(), n => *n)
    }

    /// Tells whether the column has no cells.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Names the type of the cells in messages to users.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null(_) => "null",
            Self::Bool(_) => "boolean",
            Self::Int(_) => "integer",
            Self::Float(_) => "float",
            Self::Text(_) => "text",
            Self::Time(_) => "timestamp",
            Self::Mixed(_) => "mixed",
        }
    }

    /// Returns the cell of a row; [`Value::Null`] beyond the end.
    pub fn get(&self, row: usize) -> Value {
        fn cell<T: Clone>(cells: &[Option<T>], row: usize, value: fn(T) -> Value) -> Value {
            cells.get(row).cloned().flatten().map_or(Value::Null, value)
        }
        match self {
            Self::Null(_) => Value::Null,
            Self::Bool(cells) => cell(cells, row, Value::Bool),
            Self::Int(cells) => cell(cells, row, Value::Int),
            Self::Float(cells) => cell(cells, row, Value::Float),
            Self::Text(cells) => cell(cells, row, Value::Text),
            Self::Time(cells) => cell(cells, row, Value::Time),
            Self::Mixed(cells) => cells.get(row).cloned().unwrap_or(Value::Null),
        }
    }

    /// Returns the cell of a row as a float, where it is a number.
    #[expect(
        clippy::cast_precision_loss,
        reason = "physical quantities, not identifiers"
    )]
    pub fn number(&self, row: usize) -> Option<f64> {
        match self {
            Self::Int(cells) => cells.get(row).copied().flatten().map(|value| value as f64),
            Self::Float(cells) => cells.get(row).copied().flatten(),
            _ => None,
        }
    }

    /// Appends a cell; one of another kind turns the column into [`Column::Mixed`].
    pub fn push(&mut self, value: Value) {
        match (&mut *self, value) {
            (Self::Null(n), Value::Null) => *n += 1,
            (Self::Bool(cells), Value::Null) => cells.push(None),
            (Self::Int(cells) | Self::Time(cells), Value::Null) => cells.push(None),
            (Self::Float(cells), Value::Null) => cells.push(None),
            (Self::Text(cells), Value::Null) => cells.push(None),
            (Self::Bool(cells), Value::Bool(value)) => cells.push(Some(value)),
            (Self::Int(cells), Value::Int(value)) | (Self::Time(cells), Value::Time(value)) => {
                cells.push(Some(value));
            }
            (Self::Float(cells), Value::Float(value)) => cells.push(Some(value)),
            (Self::Text(cells), Value::Text(value)) => cells.push(Some(value)),
            (Self::Mixed(cells), value) => cells.push(value),
            (Self::Null(n), value) => *self = Self::begin(*n, value),
            (_, value) => {
                self.make_mixed().push(value);
            }
        }
    }

    /// Makes a column of `nulls` empty cells and one that has the first value.
    fn begin(nulls: usize, value: Value) -> Self {
        fn after<T: Clone>(nulls: usize, value: T) -> Vec<Option<T>> {
            let mut cells = vec![None; nulls];
            cells.push(Some(value));
            cells
        }
        match value {
            Value::Null => Self::Null(nulls + 1),
            Value::Bool(value) => Self::Bool(after(nulls, value)),
            Value::Int(value) => Self::Int(after(nulls, value)),
            Value::Float(value) => Self::Float(after(nulls, value)),
            Value::Text(value) => Self::Text(after(nulls, value)),
            Value::Time(value) => Self::Time(after(nulls, value)),
            Value::Refused(_) => {
                let mut cells = vec![Value::Null; nulls];
                cells.push(value);
                Self::Mixed(cells)
            }
        }
    }

    /// Turns the column into [`Column::Mixed`] and returns its cells.
    pub fn make_mixed(&mut self) -> &mut Vec<Value> {
        if !matches!(self, Self::Mixed(_)) {
            *self = Self::Mixed((0..self.len()).map(|row| self.get(row)).collect());
        }
        match self {
            Self::Mixed(cells) => cells,
            _ => unreachable!("the column was made mixed above"),
        }
    }

    /// Appends the cells of `other`; both keep their types where they agree.
    pub fn append(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::Null(n), Self::Null(more)) => *n += more,
            (Self::Bool(cells), Self::Bool(mut more)) => cells.append(&mut more),
            (Self::Int(cells), Self::Int(mut more)) | (Self::Time(cells), Self::Time(mut more)) => {
                cells.append(&mut more);
            }
            (Self::Float(cells), Self::Float(mut more)) => cells.append(&mut more),
            (Self::Text(cells), Self::Text(mut more)) => cells.append(&mut more),
            (Self::Mixed(cells), Self::Mixed(mut more)) => cells.append(&mut more),
            (Self::Null(0), more) => *self = more,
            (_, more) => (0..more.len()).for_each(|row| self.push(more.get(row))),
        }
    }

    /// Splits the column: keeps the first `at` cells and returns the others.
    #[must_use]
    pub fn split_off(&mut self, at: usize) -> Self {
        match self {
            Self::Null(n) => {
                let rest = n.saturating_sub(at);
                *n -= rest;
                Self::Null(rest)
            }
            Self::Bool(cells) => Self::Bool(cells.split_off(at.min(cells.len()))),
            Self::Int(cells) => Self::Int(cells.split_off(at.min(cells.len()))),
            Self::Float(cells) => Self::Float(cells.split_off(at.min(cells.len()))),
            Self::Text(cells) => Self::Text(cells.split_off(at.min(cells.len()))),
            Self::Time(cells) => Self::Time(cells.split_off(at.min(cells.len()))),
            Self::Mixed(cells) => Self::Mixed(cells.split_off(at.min(cells.len()))),
        }
    }

    /// Drops all cells but the first `at`.
    pub fn truncate(&mut self, at: usize) {
        each_vec!(self, cells => cells.truncate(at), n => *n = at.min(*n));
    }

    /// Gives back memory that the cells do not need.
    pub fn shrink_to_fit(&mut self) {
        match self {
            Self::Null(_) => {}
            Self::Bool(cells) => cells.shrink_to_fit(),
            Self::Int(cells) | Self::Time(cells) => cells.shrink_to_fit(),
            Self::Float(cells) => cells.shrink_to_fit(),
            Self::Text(cells) => cells.shrink_to_fit(),
            Self::Mixed(cells) => cells.shrink_to_fit(),
        }
    }

    /// Keeps the cells of those rows for which `keep` holds.
    pub fn retain(&mut self, keep: &[bool]) {
        fn kept<T>(cells: &mut Vec<T>, keep: &[bool]) {
            let mut flags = keep.iter();
            cells.retain(|_| flags.next().copied().unwrap_or(false));
        }
        match self {
            Self::Null(n) => *n = keep.iter().take(*n).filter(|&&keep| keep).count(),
            Self::Bool(cells) => kept(cells, keep),
            Self::Int(cells) | Self::Time(cells) => kept(cells, keep),
            Self::Float(cells) => kept(cells, keep),
            Self::Text(cells) => kept(cells, keep),
            Self::Mixed(cells) => kept(cells, keep),
        }
    }
}

impl Default for Column {
    fn default() -> Self {
        Self::new()
    }
}

impl Serialize for Column {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Time(i64);
        impl Serialize for Time {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serialize_time(self.0, serializer)
            }
        }
        if let Self::Time(cells) = self {
            return serializer.collect_seq(cells.iter().map(|cell| cell.map(Time)));
        }
        each_vec!(self, cells => serializer.collect_seq(cells), n => {
            let mut seq = serializer.serialize_seq(Some(*n))?;
            (0..*n).try_for_each(|_| seq.serialize_element(&None::<()>))?;
            seq.end()
        })
    }
}

impl<'de> Deserialize<'de> for Column {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ColumnVisitor)
    }
}

/// Reads an array of cells; also used where an array was already begun.
pub(super) struct ColumnVisitor;

impl<'de> Visitor<'de> for ColumnVisitor {
    type Value = Column;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of cells")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Column, A::Error> {
        let room = seq.size_hint().unwrap_or(0).min(MAX_RESERVED_CELLS);
        let mut column = Column::new();
        while let Some(value) = seq.next_element::<Value>()? {
            let was_untyped = matches!(column, Column::Null(_));
            column.push(value);
            if was_untyped {
                each_vec!(&mut column, cells => cells.reserve(room), _n => ());
            }
        }
        Ok(column)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(json: &str) -> Column {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_column_takes_the_type_of_its_first_value() {
        assert_eq!(
            column("[null, 1, null]"),
            Column::Int(vec![None, Some(1), None])
        );
        assert_eq!(column("[1.5, null]"), Column::Float(vec![Some(1.5), None]));
        assert_eq!(column("[null, null]"), Column::Null(2));
        assert_eq!(column("[]"), Column::Null(0));
    }

    #[test]
    fn cells_of_several_kinds_are_kept_as_sent() {
        let mixed = Column::Mixed(vec![Value::Int(1), Value::Float(2.5), Value::Null]);
        assert_eq!(column("[1, 2.5, null]"), mixed);
    }

    #[test]
    fn appending_splitting_and_keeping_agree() {
        let mut left = column("[1, null, 3]");
        let right = left.split_off(1);
        assert_eq!(left.len(), 1);
        left.append(right);
        assert_eq!(left, column("[1, null, 3]"));
        left.retain(&[true, false, true]);
        assert_eq!(left, column("[1, 3]"));
    }

    #[test]
    fn msgpack_round_trip_keeps_types_and_bits() {
        let bits = f64::from_bits(0x3ff0_0000_0000_0001);
        for column in [
            Column::Float(vec![Some(bits), None, Some(-0.0)]),
            Column::Int(vec![Some(i64::MIN), None, Some(i64::MAX)]),
            Column::Text(vec![Some("Ω".into()), None]),
            Column::Bool(vec![Some(true), None]),
            Column::Time(vec![Some(-5), None]),
            Column::Null(3),
        ] {
            let bytes = rmp_serde::to_vec(&column).unwrap();
            assert_eq!(rmp_serde::from_slice::<Column>(&bytes).unwrap(), column);
        }
    }
}
