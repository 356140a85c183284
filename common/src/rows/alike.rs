//! Rows that have the form of those before them, read straight into their columns: who sends row
//! by row sends the same names and types again and again.

use std::fmt;

use serde::{
    Deserializer,
    de::{self, DeserializeSeed, MapAccess, Visitor},
};

use super::{Column, Columns, Value};

impl Columns {
    /// Appends a row that has these columns in this order, each cell of its column's type.
    ///
    /// # Errors
    /// The row has another form, or cannot be read; nothing was appended.
    pub fn read_alike<'de, D: Deserializer<'de>>(&mut self, row: D) -> Result<(), D::Error> {
        let rows = self.rows;
        let read = row.deserialize_map(AlikeVisitor(self));
        match read {
            Ok(()) => self.rows += 1,
            Err(_) => self.truncate(rows),
        }
        read
    }
}

/// Reads a row behind those of the columns; leaves some columns longer where that fails.
struct AlikeVisitor<'c>(&'c mut Columns);

impl<'de> Visitor<'de> for AlikeVisitor<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a row of the same form")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut row: A) -> Result<(), A::Error> {
        let other_form = || de::Error::custom("the row has another form");
        let Columns { names, cells, .. } = self.0;
        let names = names.as_deref().into_iter().flatten();
        for (name, column) in names.zip(cells) {
            if row.next_key_seed(Named(name))? != Some(true)
                || !column.push_alike(row.next_value()?)
            {
                return Err(other_form());
            }
        }
        match row.next_key_seed(Named(""))? {
            None => Ok(()),
            Some(_) => Err(other_form()),
        }
    }
}

/// Reads a name and tells whether it is this one.
struct Named<'n>(&'n str);

impl<'de> DeserializeSeed<'de> for Named<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, name: D) -> Result<bool, D::Error> {
        name.deserialize_str(self)
    }
}

impl Visitor<'_> for Named<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<bool, E> {
        Ok(name == self.0)
    }
}

impl Column {
    /// Returns no cells, of the column's type.
    pub(super) fn none_alike(&self) -> Self {
        match self {
            Self::Null(_) => Self::Null(0),
            Self::Bool(_) => Self::Bool(Vec::new()),
            Self::Int(_) => Self::Int(Vec::new()),
            Self::Float(_) => Self::Float(Vec::new()),
            Self::Text(_) => Self::Text(Vec::new()),
            Self::Time(_) => Self::Time(Vec::new()),
            Self::Mixed(_) => Self::Mixed(Vec::new()),
        }
    }

    /// Appends a cell of the column's own type, or a null to a column that has no other; tells
    /// whether it did.
    fn push_alike(&mut self, value: Value) -> bool {
        match (self, value) {
            (Self::Null(n), Value::Null) => *n += 1,
            (Self::Bool(cells), Value::Bool(value)) => cells.push(Some(value)),
            (Self::Int(cells), Value::Int(value)) | (Self::Time(cells), Value::Time(value)) => {
                cells.push(Some(value));
            }
            (Self::Float(cells), Value::Float(value)) => cells.push(Some(value)),
            (Self::Text(cells), Value::Text(value)) => cells.push(Some(value)),
            _ => return false,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(json: &str) -> Columns {
        serde_json::from_str(json).unwrap()
    }

    fn appended(columns: &mut Columns, row: &str) -> bool {
        columns
            .read_alike(&mut serde_json::Deserializer::from_str(row))
            .is_ok()
    }

    #[test]
    fn a_row_of_the_same_form_is_appended() {
        let mut rows = columns(r#"{"a": [1], "b": ["x"], "c": [null], "d": [true], "e": [0.5]}"#);
        let row = r#"{"a": 2, "b": "y", "c": null, "d": false, "e": 1.5}"#;
        assert!(appended(&mut rows, row));
        let both = r#"{"a": [1, 2], "b": ["x", "y"], "c": [null, null], "d": [true, false],
            "e": [0.5, 1.5]}"#;
        assert_eq!(rows, columns(both));
    }

    #[test]
    fn a_row_of_another_form_leaves_the_columns_as_they_were() {
        let before = columns(r#"{"a": [1], "b": ["x"]}"#);
        for row in [
            r#"{"a": 2}"#,
            r#"{"a": 2, "b": "y", "c": 1}"#,
            r#"{"b": "y", "a": 2}"#,
            r#"{"a": 2, "a": 3}"#,
            r#"{"a": 2, "b": null}"#,
            r#"{"a": 2, "b": 5}"#,
            r#"{"a": 2.5, "b": "y"}"#,
            r#"{"a": 2, "b": ["y"]}"#,
            r#"{"a": 2, "b": "y\u0000"}"#,
            r#"[{"a": 2, "b": "y"}]"#,
            r#"{"a": 2, "b": "y"#,
            "7",
        ] {
            let mut rows = before.clone();
            assert!(!appended(&mut rows, row), "{row}");
            assert_eq!(rows, before, "{row}");
        }
    }

    #[test]
    fn rows_go_on_after_one_that_was_not_alike() {
        let mut rows = columns(r#"{"a": [1], "b": ["x"]}"#);
        assert!(!appended(&mut rows, r#"{"a": 2}"#));
        assert!(appended(&mut rows, r#"{"a": 3, "b": "z"}"#));
        assert_eq!(rows, columns(r#"{"a": [1, 3], "b": ["x", "z"]}"#));
    }
}
