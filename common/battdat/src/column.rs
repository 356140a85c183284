//! What a caller is told of a column, and of what was left out.

use serde_json::{Map, Value, json};

/// The longest unit and description that the hub takes.
const UNIT_BYTES: usize = 63;
const DESCRIPTION_BYTES: usize = 4096;

/// What the cells of a column are read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ColumnKind {
    /// Truth values.
    Bool,
    /// Integers of any width; those beyond 64 bits with sign come as exact floats or refused.
    Int,
    /// Floating-point numbers; NaN and infinities as they are.
    Float,
    /// Text up to its first NUL; bytes that are not UTF-8 become U+FFFD.
    Text,
}

impl ColumnKind {
    /// Names the kind in messages to users.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bool => "boolean",
            Self::Int => "integer",
            Self::Float => "float",
            Self::Text => "text",
        }
    }
}

/// One column of a table, as read or to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnInfo {
    /// The column's name; `name[0]`, `name[1]` … for the cells of an array column.
    pub name: String,
    /// What its cells are.
    pub kind: ColumnKind,
    /// The unit as written in the file, such as `V`; `None` where none is given.
    pub unit: Option<String>,
    /// What the column holds, in words.
    pub description: Option<String>,
    /// The array column that this one is a part of.
    pub expanded_from: Option<String>,
}

impl ColumnInfo {
    /// Describes a column without unit or description.
    pub fn new(name: impl Into<String>, kind: ColumnKind) -> Self {
        Self {
            name: name.into(),
            kind,
            unit: None,
            description: None,
            expanded_from: None,
        }
    }

    /// Collects units and descriptions as the hub takes them; longer ones are left out.
    pub fn meanings(columns: &[Self]) -> Map<String, Value> {
        let said = |column: &Self| {
            let unit = column
                .unit
                .as_deref()
                .filter(|unit| unit.len() <= UNIT_BYTES);
            let text = column.description.as_deref();
            let text = text.filter(|text| text.len() <= DESCRIPTION_BYTES);
            let meaning = json!({"unit": unit, "description": text});
            (unit.is_some() || text.is_some()).then(|| (column.name.clone(), meaning))
        };
        columns.iter().filter_map(said).collect()
    }

    /// Takes runs of columns `name[0]`, `name[1]` … of one kind as the cells of an array `name`, as
    /// reading a file names them; a run that does not begin at 0 stays as it is.
    pub fn join_arrays(columns: &mut [Self]) {
        let cell = |column: &Self| {
            let (array, index) = column.name.strip_suffix(']')?.rsplit_once('[')?;
            let index: usize = index.parse().ok()?;
            // The form in which reading writes an index, and no array of arrays.
            let is_plain = column.name == format!("{array}[{index}]") && !array.ends_with(']');
            is_plain.then(|| (array.to_owned(), index))
        };
        let names: Vec<String> = columns.iter().map(|column| column.name.clone()).collect();
        let mut before: Option<(String, usize, ColumnKind)> = None;
        for column in columns {
            let continued = before.take();
            let Some((array, index)) = cell(column) else {
                continue;
            };
            let follows = match continued {
                Some((known, last, kind)) => {
                    known == array && last + 1 == index && kind == column.kind
                }
                None => false,
            };
            if (index == 0 || follows) && !names.contains(&array) {
                column.expanded_from = Some(array.clone());
                before = Some((array, index, column.kind));
            }
        }
    }

    /// Adds a unit, such as `A-hr`.
    #[must_use]
    pub fn with_unit(mut self, unit: impl Into<String>) -> Self {
        self.unit = Some(unit.into());
        self
    }

    /// Adds a description in words.
    #[must_use]
    pub fn with_description(mut self, description: impl Into<String>) -> Self {
        self.description = Some(description.into());
        self
    }

    /// Tells of which array column this is one cell.
    #[must_use]
    pub fn with_expanded_from(mut self, array: impl Into<String>) -> Self {
        self.expanded_from = Some(array.into());
        self
    }
}

/// A node or column of a file that is not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Where it is in the file, such as `/asoh_history` or `/raw_data/spectrum`.
    pub path: String,
    /// Why it is left out.
    pub reason: String,
}

impl std::fmt::Display for LeftOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.path, self.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_file_says_of_its_columns_goes_to_the_hub() {
        let columns = [
            ColumnInfo::new("voltage", ColumnKind::Float).with_unit("V"),
            ColumnInfo::new("note", ColumnKind::Text),
            ColumnInfo::new("p", ColumnKind::Float)
                .with_unit("x".repeat(64))
                .with_description("Pressure"),
        ];
        let expected = json!({
            "voltage": {"unit": "V", "description": null},
            "p": {"unit": null, "description": "Pressure"},
        });
        assert_eq!(Value::Object(ColumnInfo::meanings(&columns)), expected);
    }
}
