//! How the rows of a table lie in memory while they are read: packed, in native byte order, each
//! number widened to 64 bits, columns of other types skipped. libhdf5 converts to this layout.

use std::collections::HashSet;

use hdf5::Datatype;

use crate::{
    column::{ColumnInfo, ColumnKind},
    raw::{self, Class, Member},
};

/// The longest text that is read or written, in bytes; a longer type is a claim, not a text.
pub(crate) const MAX_TEXT_BYTES: usize = 65_536;
/// The most cells that an array column is expanded into, one column each.
const MAX_ARRAY_CELLS: usize = 256;

/// How one cell lies in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cell {
    /// One byte, true where it is not 0.
    Bool,
    /// `i64`.
    Int,
    /// `u64`.
    Unsigned,
    /// `f64`.
    Float,
    /// Bytes up to the first NUL, without the spaces at the end if `padded`.
    Text { padded: bool },
}

impl Cell {
    fn kind(self) -> ColumnKind {
        match self {
            Self::Bool => ColumnKind::Bool,
            Self::Int | Self::Unsigned => ColumnKind::Int,
            Self::Float => ColumnKind::Float,
            Self::Text { .. } => ColumnKind::Text,
        }
    }
}

/// Where the cells of one column lie in a row.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) cell: Cell,
    /// Bytes from the start of the row.
    pub(crate) offset: usize,
    /// Bytes of the cell.
    pub(crate) width: usize,
}

/// The rows of a table in memory.
#[derive(Debug)]
pub(crate) struct Layout {
    /// The type to read rows as; `None` where no column can be read.
    pub(crate) row: Option<Datatype>,
    /// Bytes of a row.
    pub(crate) stride: usize,
    /// One place for each of `columns`.
    pub(crate) places: Vec<Place>,
    /// The columns, in the order of the file, without units.
    pub(crate) columns: Vec<ColumnInfo>,
    /// Columns that are not read, by name and reason.
    pub(crate) left_out: Vec<(String, String)>,
}

/// A field whose cells columns can hold.
struct Field {
    cell: Cell,
    element: Datatype,
    shape: Vec<usize>,
}

impl Layout {
    /// Lays out the rows of a compound type; a member that no column can hold is left out.
    pub(crate) fn of(table: &Datatype) -> hdf5::Result<Self> {
        let members = raw::members(table)?;
        let mut taken: HashSet<String> = HashSet::new();
        let stored: HashSet<String> = members.iter().map(name_of).collect();
        let mut layout = Self {
            row: None,
            stride: 0,
            places: Vec::new(),
            columns: Vec::new(),
            left_out: Vec::new(),
        };
        let mut kept = Vec::new();
        for member in members {
            let name = name_of(&member);
            let names_free = |columns: &[ColumnInfo]| {
                columns.iter().all(|column| {
                    !taken.contains(&column.name)
                        && (column.name == name || !stored.contains(&column.name))
                })
            };
            let field = field(&member.dtype)?.and_then(|field| {
                let columns = columns(&name, &field);
                if names_free(&columns) {
                    Ok((field, columns))
                } else {
                    Err("another column has the same name".to_owned())
                }
            });
            match field {
                Ok((field, columns)) => {
                    taken.extend(columns.iter().map(|column| column.name.clone()));
                    kept.push(layout.add(member, &field, columns)?);
                }
                Err(reason) => layout.left_out.push((name, reason)),
            }
        }
        if !kept.is_empty() {
            layout.row = Some(raw::compound(&kept)?);
        }
        Ok(layout)
    }

    /// Adds a field's columns at the end of the row.
    fn add(
        &mut self,
        stored: Member,
        field: &Field,
        columns: Vec<ColumnInfo>,
    ) -> hdf5::Result<Member> {
        let width = field.element.size();
        for column in columns {
            self.places.push(Place {
                cell: field.cell,
                offset: self.stride,
                width,
            });
            self.columns.push(column);
            self.stride += width;
        }
        let dtype = if field.shape.is_empty() {
            field.element.clone()
        } else {
            raw::array(&field.element, &field.shape)?
        };
        Ok(Member {
            name: stored.name,
            dtype,
        })
    }
}

fn name_of(member: &Member) -> String {
    member.name.to_string_lossy().into_owned()
}

/// Finds how a field's cells can be held; otherwise the reason why not.
fn field(stored: &Datatype) -> hdf5::Result<Result<Field, String>> {
    let class = raw::class(stored)?;
    let Class::Array { shape } = class else {
        return Ok(cell(stored, &class)?.map(|(cell, element)| Field {
            cell,
            element,
            shape: Vec::new(),
        }));
    };
    let cells = shape
        .iter()
        .try_fold(1, |n: usize, &dim| n.checked_mul(dim));
    match cells {
        Some(1..=MAX_ARRAY_CELLS) => {}
        Some(cells) => {
            return Ok(Err(format!(
                "an array of {cells} values in each row; at most {MAX_ARRAY_CELLS} become columns"
            )));
        }
        None => return Ok(Err("an array of impossible size".to_owned())),
    }
    let (array, stored) = (stored, raw::element(stored)?);
    if cells.and_then(|cells| cells.checked_mul(stored.size())) != Some(array.size()) {
        return Ok(Err(
            "an array of another size than its values; the file is damaged".to_owned(),
        ));
    }
    let class = raw::class(&stored)?;
    Ok(cell(&stored, &class)?.map(|(cell, element)| Field {
        cell,
        element,
        shape,
    }))
}

/// Finds how one value can be held, and in which type it is read.
fn cell(stored: &Datatype, class: &Class) -> hdf5::Result<Result<(Cell, Datatype), String>> {
    let bytes = stored.size();
    Ok(Ok(match *class {
        Class::Integer { .. } if bytes > 8 => {
            return Ok(Err(format!("integers of {} bits", bytes.saturating_mul(8))));
        }
        Class::Integer { signed: false } if bytes == 8 => {
            (Cell::Unsigned, Datatype::from_type::<u64>()?)
        }
        Class::Integer { .. } => (Cell::Int, Datatype::from_type::<i64>()?),
        Class::Float => (Cell::Float, Datatype::from_type::<f64>()?),
        // Bytes need no conversion: the type of the file is the type in memory.
        Class::Boolean => (Cell::Bool, stored.clone()),
        Class::Text { .. } if bytes > MAX_TEXT_BYTES => {
            return Ok(Err(format!(
                "text of {bytes} bytes in each row; at most {MAX_TEXT_BYTES} are read"
            )));
        }
        Class::Text { padded } => (Cell::Text { padded }, stored.clone()),
        Class::Compound => return Ok(Err("a nested table or complex number".to_owned())),
        Class::Array { .. } => return Ok(Err("arrays of arrays".to_owned())),
        Class::Other(what) => return Ok(Err(what.to_owned())),
    }))
}

/// Names the columns of a field: one, or one for each cell of an array, last index fastest.
fn columns(name: &str, field: &Field) -> Vec<ColumnInfo> {
    let kind = field.cell.kind();
    if field.shape.is_empty() {
        return vec![ColumnInfo::new(name, kind)];
    }
    let mut names = vec![name.to_owned()];
    for &dim in &field.shape {
        names = names
            .iter()
            .flat_map(|name| (0..dim).map(move |index| format!("{name}[{index}]")))
            .collect();
    }
    names
        .into_iter()
        .map(|cell| ColumnInfo::new(cell, kind).with_expanded_from(name))
        .collect()
}
