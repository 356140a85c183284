//! What a caller is told of a column, and of what was left out.

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
