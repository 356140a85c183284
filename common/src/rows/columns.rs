//! Several columns of equal length: a batch of rows.

use std::{fmt, mem, sync::Arc};

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
///
/// Batches of one form may share their names: rows that come one by one would otherwise be mostly
/// names.
#[derive(Debug, Clone, Default)]
pub struct Columns {
    /// One for each column; none where there are none.
    pub(super) names: Option<Arc<Vec<String>>>,
    pub(super) cells: Vec<Column>,
    pub(super) rows: usize,
}

impl PartialEq for Columns {
    fn eq(&self, other: &Self) -> bool {
        self.rows == other.rows && self.has_names_of(other) && self.cells == other.cells
    }
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
        let (names, cells) = columns.into_iter().unzip();
        Ok(Self {
            names: Some(Arc::new(names)),
            cells,
            rows,
        })
    }

    /// Returns no rows of the same form, for rows that [`Columns::read_alike`] reads.
    #[must_use]
    pub fn form(&self) -> Self {
        Self {
            names: self.names.clone(),
            cells: self.cells.iter().map(Column::none_alike).collect(),
            rows: 0,
        }
    }

    /// Returns the names of the columns, in order.
    fn names(&self) -> &[String] {
        self.names.as_deref().map_or(&[], Vec::as_slice)
    }

    /// Tells whether `other` has the same names in the same order.
    fn has_names_of(&self, other: &Self) -> bool {
        match (&self.names, &other.names) {
            (Some(mine), Some(theirs)) if Arc::ptr_eq(mine, theirs) => true,
            _ => self.names() == other.names(),
        }
    }

    /// Returns the number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Returns the number of columns.
    pub fn width(&self) -> usize {
        self.cells.len()
    }

    /// Returns the column of this name.
    pub fn get(&self, name: &str) -> Option<&Column> {
        self.iter()
            .find(|(known, _)| *known == name)
            .map(|(_, column)| column)
    }

    /// Tells whether `other` has the same columns in the same order, each of the same one type.
    pub fn has_form_of(&self, other: &Self) -> bool {
        let same = |(mine, theirs): (&Column, &Column)| {
            mem::discriminant(mine) == mem::discriminant(theirs)
                && !matches!(mine, Column::Mixed(_))
        };
        self.has_names_of(other) && self.cells.iter().zip(&other.cells).all(same)
    }

    /// Returns names and columns in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Column)> {
        let names = self.names().iter().map(String::as_str);
        names.zip(&self.cells)
    }

    /// Gives up the columns in order.
    pub fn into_vec(self) -> Vec<(String, Column)> {
        let names = self.names.map(Arc::unwrap_or_clone).unwrap_or_default();
        names.into_iter().zip(self.cells).collect()
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
            self.column_mut(place, &name).push(value);
        }
        self.rows += 1;
        self.pad();
        Ok(())
    }

    /// Appends the rows of `other`, as [`Columns::push_row`] would.
    pub fn append(&mut self, other: Self) {
        let rows = other.rows;
        let names = other.names.as_deref().into_iter().flatten();
        for (place, (name, column)) in names.zip(other.cells).enumerate() {
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
        let columns = self.cells.iter_mut();
        Self {
            names: self.names.clone(),
            cells: columns.map(|column| column.split_off(at)).collect(),
            rows: rest,
        }
    }

    /// Drops all rows but the first `rows`.
    pub fn truncate(&mut self, rows: usize) {
        self.rows = self.rows.min(rows);
        for column in &mut self.cells {
            column.truncate(rows);
        }
    }

    /// Gives back memory that the cells do not need, as after a [`Columns::split_off`].
    pub fn shrink_to_fit(&mut self) {
        for column in &mut self.cells {
            column.shrink_to_fit();
        }
    }

    /// Keeps those rows for which `keep` holds.
    pub fn retain(&mut self, keep: &[bool]) {
        self.rows = keep.iter().take(self.rows).filter(|&&keep| keep).count();
        self.cells.iter_mut().for_each(|column| column.retain(keep));
    }

    /// Finds a column, first where the same form would have it, and makes it where it is missing.
    fn column_mut(&mut self, place: usize, name: &str) -> &mut Column {
        let is_it = |known: &String| known == name;
        let names = self.names();
        let at = match names.get(place) {
            Some(known) if is_it(known) => Some(place),
            _ => names.iter().position(is_it),
        };
        let at = at.unwrap_or_else(|| {
            Arc::make_mut(self.names.get_or_insert_default()).push(name.to_owned());
            self.cells.push(Column::Null(self.rows));
            self.cells.len() - 1
        });
        #[expect(clippy::indexing_slicing, reason = "`at` was found or appended above")]
        &mut self.cells[at]
    }

    /// Fills columns that fell behind with nulls.
    fn pad(&mut self) {
        for column in &mut self.cells {
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
    fn a_form_has_no_rows_and_takes_those_that_are_alike() {
        let rows = columns(r#"{"a": [1], "b": ["x"], "c": [null], "d": [true], "e": [0.5]}"#);
        let rows = rows.unwrap();
        let mut form = rows.form();
        assert_eq!((form.rows(), form.width()), (0, 5));
        let row = r#"{"a": 1, "b": "x", "c": null, "d": true, "e": 0.5}"#;
        let mut row = serde_json::Deserializer::from_str(row);
        form.read_alike(&mut row).unwrap();
        assert_eq!(form, rows);
    }

    #[test]
    fn names_that_are_shared_change_for_nobody_else() {
        let rows = columns(r#"{"a": [1]}"#).unwrap();
        let mut wider = rows.clone();
        wider.push_row(vec![("b".into(), Value::Int(2))]).unwrap();
        assert_eq!((rows.width(), wider.width()), (1, 2));
        assert!(rows.get("b").is_none());
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
