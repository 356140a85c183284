//! Writes one table, batch by batch.

use std::{
    marker::PhantomData,
    path::{Path, PathBuf},
};

use hdf5::{Dataset, Datatype, Group};
use rovi_common::rows::Columns;

use crate::{
    attributes,
    column::{ColumnInfo, ColumnKind},
    encode::{self, BadCell, Field},
    error::BattdatError,
    raw::{self, Member},
    schema,
    table::Table,
    writer::{BATTDAT_VERSION, BattdatWriter, MAX_ATTRIBUTE_BYTES},
};

/// Bytes of a compressed chunk before compression: larger ones compress better, smaller ones make
/// reading a few rows cheaper.
const CHUNK_BYTES: usize = 128 << 10;
/// Level 5 of 9: within a few per cent of the smallest size at a third of the time.
const DEFLATE_LEVEL: u8 = 5;
/// The name of a table while it is copied to wider fields.
const WIDER_NAME: &str = "rovi_wider_copy";

/// A table being written. Rows appended are in the file only after [`TableWriter::finish`].
#[derive(Debug)]
pub struct TableWriter<'a> {
    path: PathBuf,
    group: Group,
    name: String,
    columns: Vec<ColumnInfo>,
    fields: Vec<Field>,
    stored: Option<Stored>,
    rows: usize,
    file: PhantomData<&'a mut BattdatWriter>,
}

/// The table in the file.
#[derive(Debug)]
struct Stored {
    dataset: Dataset,
    row: Datatype,
}

impl TableWriter<'_> {
    /// Begins a table; nothing is written before the first rows, which tell how wide texts are.
    pub(crate) fn begin(
        path: &Path,
        group: Group,
        name: &str,
        columns: &[ColumnInfo],
    ) -> Result<Self, BattdatError> {
        let problem = |reason| BattdatError::Columns {
            path: path.to_owned(),
            reason,
        };
        let fields = Field::of_columns(columns);
        let mut names: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
        names.sort_unstable();
        if let Some([name, _]) = names.array_windows().find(|[a, b]| a == b) {
            return Err(problem(format!("column `{name}` stands twice")));
        }
        if let Some(name) = names
            .iter()
            .find(|name| name.is_empty() || name.contains('\0'))
        {
            return Err(problem(format!("{name:?} cannot name a column in HDF5")));
        }
        if fields.is_empty() {
            return Err(problem(format!("table `{name}` has no columns")));
        }
        if group.link_exists(name) {
            return Err(problem(format!("table `{name}` is in the file already")));
        }
        Ok(Self {
            path: path.to_owned(),
            group,
            name: name.to_owned(),
            columns: columns.to_owned(),
            fields,
            stored: None,
            rows: 0,
            file: PhantomData,
        })
    }

    /// Appends rows. A column that they lack is null.
    ///
    /// HDF5 has no null: in a float column it is NaN, in a text column the empty text, and an
    /// integer or boolean column with a null (or an integer column with a float) becomes a float
    /// column. Timestamps are written as UNIX time in seconds.
    ///
    /// # Errors
    /// - `Columns`: the rows have a column that the table was not begun with; none was appended.
    /// - `Cell`: a cell is not of its column's kind, or an integer would lose digits as a float;
    ///   none was appended.
    /// - `Hdf5`: the rows cannot be written, as on a full disk; the table is not usable any more.
    pub fn append(&mut self, rows: &Columns) -> Result<(), BattdatError> {
        self.check_columns(rows)?;
        if rows.rows() == 0 {
            return Ok(());
        }
        let mut fields = self.fields.clone();
        for field in &mut fields {
            field.widen_for(rows);
        }
        let bytes = encode::encode(&fields, rows).map_err(|bad| self.cell(bad, self.rows))?;
        if fields != self.fields {
            self.widen(fields)?;
        }
        self.write(&bytes, rows.rows()).map_err(BattdatError::hdf5(
            &self.path,
            format!("write table {}", self.name),
        ))
    }

    /// Completes the table with the descriptions of its columns; returns the number of rows.
    ///
    /// # Errors
    /// - `Columns`: the descriptions of the columns are longer than an HDF5 attribute.
    /// - `Hdf5`: libhdf5 failed.
    pub fn finish(mut self) -> Result<usize, BattdatError> {
        let schema = schema::write(&self.name, &self.columns);
        if schema.len() > MAX_ATTRIBUTE_BYTES {
            return Err(BattdatError::Columns {
                path: self.path,
                reason: format!(
                    "the descriptions of the columns of table `{}` have {} bytes; \
                     at most {MAX_ATTRIBUTE_BYTES} fit",
                    self.name,
                    schema.len()
                ),
            });
        }
        let rows = self.rows;
        self.write_attributes(&schema).map_err(BattdatError::hdf5(
            &self.path,
            format!("finish table {}", self.name),
        ))?;
        Ok(rows)
    }

    fn check_columns(&self, rows: &Columns) -> Result<(), BattdatError> {
        let is_known = |name: &str| self.columns.iter().any(|column| column.name == name);
        let Some((unknown, _)) = rows.iter().find(|(name, _)| !is_known(name)) else {
            return Ok(());
        };
        Err(BattdatError::Columns {
            path: self.path.clone(),
            reason: format!(
                "the rows have a column `{unknown}` that table `{}` was not begun with",
                self.name
            ),
        })
    }

    fn cell(&self, bad: BadCell, rows_before: usize) -> BattdatError {
        BattdatError::Cell {
            path: self.path.clone(),
            column: bad.column,
            row: (rows_before + bad.row) as u64,
            reason: bad.reason,
        }
    }

    /// Makes the table's dataset under a name.
    fn create(&self, name: &str) -> hdf5::Result<Stored> {
        let members: hdf5::Result<Vec<Member>> = self.fields.iter().map(member).collect();
        let row = raw::compound(&members?)?;
        let chunk_rows = (CHUNK_BYTES / row.size().max(1)).max(1);
        let dataset = self
            .group
            .new_dataset_builder()
            .empty_as(&row)
            .shape((0..,))
            .chunk((chunk_rows,))
            .shuffle()
            .deflate(DEFLATE_LEVEL)
            .create(name)?;
        Ok(Stored { dataset, row })
    }

    /// Writes encoded rows at the end.
    fn write(&mut self, bytes: &[u8], count: usize) -> hdf5::Result<()> {
        let stored = match self.stored.take() {
            Some(stored) => stored,
            None => self.create(&self.name)?,
        };
        stored.dataset.resize((self.rows + count,))?;
        raw::write_rows(&stored.dataset, &stored.row, (self.rows, count), bytes)?;
        self.rows += count;
        self.stored = Some(stored);
        Ok(())
    }

    /// Takes wider fields: copies what is in the file to a new table in place of the old.
    fn widen(&mut self, fields: Vec<Field>) -> Result<(), BattdatError> {
        let narrow = std::mem::replace(&mut self.fields, fields);
        let Some(old) = self.stored.take() else {
            return Ok(());
        };
        let fail =
            |source| BattdatError::hdf5(&self.path, format!("widen table {}", self.name))(source);
        let wider = self.create(WIDER_NAME).map_err(fail)?;
        wider.dataset.resize((self.rows,)).map_err(fail)?;
        let columns = stored_columns(&narrow);
        let old = Table::open(&self.path, self.name.clone(), old.dataset, columns)?;
        let mut start = 0;
        for rows in old.chunks() {
            let rows = rows?;
            let bytes = encode::encode(&self.fields, &rows).map_err(|bad| self.cell(bad, start))?;
            raw::write_rows(&wider.dataset, &wider.row, (start, rows.rows()), &bytes)
                .map_err(fail)?;
            start += rows.rows();
        }
        drop(old);
        self.group.unlink(&self.name).map_err(fail)?;
        self.group.relink(WIDER_NAME, &self.name).map_err(fail)?;
        self.stored = Some(wider);
        Ok(())
    }

    /// Writes the attributes by which `PyTables` and battdat know a table.
    fn write_attributes(&mut self, schema: &str) -> hdf5::Result<()> {
        let dataset = match self.stored.take() {
            Some(stored) => stored.dataset,
            None => self.create(&self.name)?.dataset,
        };
        attributes::write_text(&dataset, "CLASS", "TABLE")?;
        attributes::write_text(&dataset, "TITLE", "")?;
        attributes::write_text(&dataset, "VERSION", "2.7")?;
        for (index, field) in self.fields.iter().enumerate() {
            let (dtype, fill) = match field.kind {
                ColumnKind::Bool => (raw::bits()?, vec![0]),
                ColumnKind::Text => (raw::text(1, false)?, vec![0]),
                ColumnKind::Int => (Datatype::from_type::<i64>()?, vec![0; 8]),
                ColumnKind::Float => (Datatype::from_type::<f64>()?, vec![0; 8]),
            };
            attributes::write_text(&dataset, &format!("FIELD_{index}_NAME"), &field.name)?;
            attributes::write_value(&dataset, &format!("FIELD_{index}_FILL"), &dtype, &fill)?;
        }
        let rows = (self.rows as u64).to_ne_bytes();
        attributes::write_value(&dataset, "NROWS", &Datatype::from_type::<i64>()?, &rows)?;
        attributes::write_text(&dataset, "battdat_version", BATTDAT_VERSION)?;
        attributes::write_text(&dataset, "metadata", schema)
    }
}

/// Returns the type of a field in the file.
fn member(field: &Field) -> hdf5::Result<Member> {
    let element = match field.kind {
        ColumnKind::Bool => raw::bits()?,
        ColumnKind::Int => Datatype::from_type::<i64>()?,
        ColumnKind::Float => Datatype::from_type::<f64>()?,
        // ASCII by declaration, UTF-8 by content: what PyTables itself does with such texts.
        ColumnKind::Text => raw::text(field.width, false)?,
    };
    Ok(Member {
        name: std::ffi::CString::new(field.name.as_str()).map_err(|error| error.to_string())?,
        dtype: if field.is_array {
            raw::array(&element, &[field.columns.len()])?
        } else {
            element
        },
    })
}

/// Returns the columns of a table in the file, in its order.
fn stored_columns(fields: &[Field]) -> Vec<ColumnInfo> {
    fields
        .iter()
        .flat_map(|field| {
            field
                .columns
                .iter()
                .map(|name| ColumnInfo::new(name, field.kind))
        })
        .collect()
}
