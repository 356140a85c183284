//! Several columns of equal length: a batch of rows.

use std::{fmt, mem};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, Visitor},
};

use super::{Column, Value};

/// Why columns do not form rows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ColumnsError {
    /// A column has another length than the first one.
    #[error("column `{column}` has {found} values where `{first}` has {expected}")]
    Length {
        /// The first column's name.
        first: String,
        /// The first column's length.
        expected: usize,
        /// The name of the column that differs.
        column: String,
        /// Its length.
        found: usize,
    },
    /// A name stands twice.
    #[error("column `{0}` stands twice")]
    Duplicate(String),
}

/// A batch of rows as named columns of equal length, in the order they were sent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Columns {
    pub(super) columns: Vec<(String, Column)>,
    pub(super) rows: usize,
}

impl Columns {
    /// Makes a batch of named columns.
    ///
    /// # Errors
    /// - `Length`: the columns differ in length.
    /// - `Duplicate`: two columns have the same name.
    pub fn new(columns: Vec<(String, Column)>) -> Result<Self, ColumnsError> {
        let Some((first, column)) = columns.first() else {
            return Ok(Self::default());
        };
        let rows = column.len();
        if let Some((name, column)) = columns.iter().find(|(_, column)| column.len() != rows) {
            return Err(ColumnsError::Length {
                first: first.clone(),
                expected: rows,
                column: name.clone(),
                found: column.len(),
            });
        }
        let mut names: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        if let Some([name, _]) = names.array_windows().find(|[a, b]| a == b) {
            return Err(ColumnsError::Duplicate((*name).to_owned()));
        }
        Ok(Self { columns, rows })
    }

    /// Returns the number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Returns the number of columns.
    pub fn width(&self) -> usize {
        self.columns.len()
    }

    /// Returns the column of this name.
    pub fn get(&self, name: &str) -> Option<&Column> {
        self.columns
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, column)| column)
    }

    /// Tells whether `other` has the same columns in the same order, each of the same one type.
    pub fn has_form_of(&self, other: &Self) -> bool {
        let same = |(mine, theirs): (&(String, Column), &(String, Column))| {
            mine.0 == theirs.0
                && mem::discriminant(&mine.1) == mem::discriminant(&theirs.1)
                && !matches!(mine.1, Column::Mixed(_))
        };
        self.width() == other.width() && self.columns.iter().zip(&other.columns).all(same)
    }

    /// Returns names and columns in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Column)> {
        self.columns
            .iter()
            .map(|(name, column)| (name.as_str(), column))
    }

    /// Gives up the columns in order.
    pub fn into_vec(self) -> Vec<(String, Column)> {
        self.columns
    }

    /// Returns the cells of one row, in the order of the columns.
    pub fn row(&self, row: usize) -> impl Iterator<Item = (&str, Value)> {
        self.iter()
            .map(move |(name, column)| (name, column.get(row)))
    }

    /// Appends a row; columns it lacks become null, columns it adds are null before it.
    ///
    /// # Errors
    /// - `Duplicate`: the row names a column twice; nothing was appended.
    pub fn push_row(&mut self, row: Vec<(String, Value)>) -> Result<(), ColumnsError> {
        let mut names: Vec<&str> = row.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        if let Some([name, _]) = names.array_windows().find(|[a, b]| a == b) {
            return Err(ColumnsError::Duplicate((*name).to_owned()));
        }
        for (place, (name, value)) in row.into_iter().enumerate() {
            self.column_mut(place, name).push(value);
        }
        self.rows += 1;
        self.pad();
        Ok(())
    }

    /// Appends the rows of `other`, as [`Columns::push_row`] would.
    pub fn append(&mut self, other: Self) {
        let rows = other.rows;
        for (place, (name, column)) in other.columns.into_iter().enumerate() {
            self.column_mut(place, name).append(column);
        }
        self.rows += rows;
        self.pad();
    }

    /// Splits the batch: keeps the first `at` rows and returns the others.
    #[must_use]
    pub fn split_off(&mut self, at: usize) -> Self {
        let rest = self.rows.saturating_sub(at);
        self.rows -= rest;
        let split = |(name, column): &mut (String, Column)| (name.clone(), column.split_off(at));
        Self {
            columns: self.columns.iter_mut().map(split).collect(),
            rows: rest,
        }
    }

    /// Drops all rows but the first `rows`.
    pub fn truncate(&mut self, rows: usize) {
        self.rows = self.rows.min(rows);
        for (_, column) in &mut self.columns {
            column.truncate(rows);
        }
    }

    /// Gives back memory that the cells do not need, as after a [`Columns::split_off`].
    pub fn shrink_to_fit(&mut self) {
        for (_, column) in &mut self.columns {
            column.shrink_to_fit();
        }
    }

    /// Keeps those rows for which `keep` holds.
    pub fn retain(&mut self, keep: &[bool]) {
        self.rows = keep.iter().take(self.rows).filter(|&&keep| keep).count();
        self.columns
            .iter_mut()
            .for_each(|(_, column)| column.retain(keep));
    }

    /// Finds a column, first where the same form would have it, and makes it where it is missing.
    fn column_mut(&mut self, place: usize, name: String) -> &mut Column {
        let at = match self.columns.get(place) {
            Some((known, _)) if *known == name => place,
            _ => self
                .columns
                .iter()
                .position(|(known, _)| *known == name)
                .unwrap_or_else(|| {
                    self.columns.push((name, Column::Null(self.rows)));
                    self.columns.len() - 1
                }),
        };
        #[expect(clippy::indexing_slicing, reason = "`at` was found or appended above")]
        &mut self.columns[at].1
    }

    /// Fills columns that fell behind with nulls.
    fn pad(&mut self) {
        for (_, column) in &mut self.columns {
            let missing = self.rows.saturating_sub(column.len());
            if missing > 0 {
                column.append(Column::Null(missing));
            }
        }
    }
}

impl Serialize for Columns {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for Columns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ColumnsVisitor;
        impl<'de> Visitor<'de> for ColumnsVisitor {
            type Value = Columns;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of column names to arrays of equal length")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Columns, A::Error> {
                let mut columns = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    columns.push(entry);
                }
                Columns::new(columns).map_err(de::Error::custom)
            }
        }
        deserializer.deserialize_map(ColumnsVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(json: &str) -> Result<Columns, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn columns_of_unequal_length_are_refused_by_name() {
        let error = columns(r#"{"a": [1, 2], "b": [1]}"#).unwrap_err();
        assert!(
            error.starts_with("column `b` has 1 values where `a` has 2"),
            "{error}"
        );
    }

    #[test]
    fn a_column_may_not_stand_twice() {
        let error = columns(r#"{"a": [1], "a": [2]}"#).unwrap_err();
        assert!(error.starts_with("column `a` stands twice"), "{error}");
    }

    #[test]
    fn rows_pushed_one_by_one_equal_the_columns() {
        let mut pushed = Columns::default();
        pushed.push_row(vec![("a".into(), Value::Int(1))]).unwrap();
        pushed
            .push_row(vec![
                ("b".into(), Value::Float(0.5)),
                ("a".into(), Value::Null),
            ])
            .unwrap();
        pushed.push_row(vec![("a".into(), Value::Int(3))]).unwrap();
        assert_eq!(
            pushed,
            columns(r#"{"a": [1, null, 3], "b": [null, 0.5, null]}"#).unwrap()
        );
    }

    #[test]
    fn the_same_form_is_the_same_names_and_types_in_order() {
        let rows = columns(r#"{"a": [1], "b": [null]}"#).unwrap();
        assert!(rows.has_form_of(&columns(r#"{"a": [2, 3], "b": [null, null]}"#).unwrap()));
        for other in [
            r#"{"a": [1]}"#,
            r#"{"b": [null], "a": [1]}"#,
            r#"{"a": [0.5], "b": [null]}"#,
            r#"{"a": [1], "b": [1]}"#,
        ] {
            assert!(!rows.has_form_of(&columns(other).unwrap()), "{other}");
        }
        let mixed = columns(r#"{"a": [1, "x"]}"#).unwrap();
        assert!(!mixed.has_form_of(&mixed));
    }

    #[test]
    fn a_batch_cut_anywhere_joins_again() {
        let whole = columns(r#"{"a": [1, 2, 3], "b": ["x", null, "z"]}"#).unwrap();
        for at in 0..=3 {
            let mut head = whole.clone();
            let tail = head.split_off(at);
            assert_eq!((head.rows(), tail.rows()), (at, 3 - at));
            head.append(tail);
            assert_eq!(head.rows(), 3);
            if at > 0 {
                assert_eq!(head, whole);
            }
        }
    }
}
