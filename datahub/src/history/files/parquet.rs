//! Parquet: `seq`, `received` and `segment` before the columns; the battery's metadata and the
//! units of columns stand under the keys by which battery-data-toolkit finds them.

use std::sync::Arc;

use ::parquet::{
    basic::{Compression, LogicalType, Repetition, TimeUnit, Type as Physical},
    data_type::{ByteArray, DataType},
    errors::ParquetError,
    file::{metadata::KeyValue, properties::WriterProperties, writer::SerializedFileWriter},
    schema::types::{Type, TypePtr},
};
use rovi_common::rows::{Column, Value};

use super::{FileWriter, WriteError, battdat};
use crate::{
    history::picks::Picks,
    store::{rows::Selected, tables::ColumnType},
};

/// Rows and bytes of cells after which a row group is written: what waits in memory.
const GROUP_ROWS: usize = 1 << 17;
const GROUP_BYTES: usize = 32 << 20;

pub(super) struct ParquetFile {
    writer: Option<SerializedFileWriter<Vec<u8>>>,
    waiting: Vec<Selected>,
}

impl ParquetFile {
    pub(super) fn new(picks: &Picks, metadata: &str) -> Result<Self, WriteError> {
        let key = |key: &str, value: String| KeyValue::new(key.to_owned(), value);
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_key_value_metadata(Some(vec![
                key("battery_metadata", metadata.to_owned()),
                key("table_metadata", battdat::table_metadata(picks)),
            ]))
            .build();
        let schema = schema(picks).map_err(WriteError::of("Parquet"))?;
        let writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties));
        Ok(Self {
            writer: Some(writer.map_err(WriteError::of("Parquet"))?),
            waiting: Vec::new(),
        })
    }

    fn write_group(&mut self, out: &mut Vec<u8>) -> Result<(), ParquetError> {
        let waiting = std::mem::take(&mut self.waiting);
        let Some(writer) = self.writer.as_mut().filter(|_| !waiting.is_empty()) else {
            return Ok(());
        };
        write_group(writer, &waiting)?;
        out.append(writer.inner_mut());
        Ok(())
    }
}

impl FileWriter for ParquetFile {
    fn begin(&mut self, _out: &mut Vec<u8>) -> Result<(), WriteError> {
        Ok(())
    }

    fn rows(&mut self, rows: Selected, out: &mut Vec<u8>) -> Result<(), WriteError> {
        self.waiting.push(rows);
        let rows: usize = self.waiting.iter().map(|page| page.seq.len()).sum();
        let width = |page: &Selected| {
            page.columns
                .iter()
                .map(|(_, column)| bytes(column))
                .sum::<usize>()
        };
        let waiting: usize = self.waiting.iter().map(width).sum();
        if rows >= GROUP_ROWS || waiting >= GROUP_BYTES {
            self.write_group(out).map_err(WriteError::of("Parquet"))?;
        }
        Ok(())
    }

    fn end(&mut self, out: &mut Vec<u8>) -> Result<(), WriteError> {
        self.write_group(out).map_err(WriteError::of("Parquet"))?;
        if let Some(writer) = self.writer.take() {
            out.append(&mut writer.into_inner().map_err(WriteError::of("Parquet"))?);
        }
        Ok(())
    }
}

fn bytes(column: &Column) -> usize {
    match column {
        Column::Text(cells) => cells.iter().flatten().map(|text| 24 + text.len()).sum(),
        column => 16 * column.len(),
    }
}

fn schema(picks: &Picks) -> Result<TypePtr, ParquetError> {
    let mut fields = vec![
        field("seq", &ColumnType::Int, Physical::INT64)?,
        field("received", &ColumnType::Time, Physical::INT64)?,
        field("segment", &ColumnType::Int, Physical::INT32)?,
    ];
    for pick in picks.iter() {
        let physical = match pick.kind {
            ColumnType::Bool => Physical::BOOLEAN,
            ColumnType::Int | ColumnType::Time => Physical::INT64,
            ColumnType::Float => Physical::DOUBLE,
            ColumnType::Text | ColumnType::Foreign(_) => Physical::BYTE_ARRAY,
        };
        fields.push(field(pick.name, pick.kind, physical)?);
    }
    Type::group_type_builder("rows")
        .with_fields(fields)
        .build()
        .map(Arc::new)
}

fn field(name: &str, kind: &ColumnType, physical: Physical) -> Result<TypePtr, ParquetError> {
    let logical = match kind {
        ColumnType::Time => Some(LogicalType::timestamp(true, TimeUnit::MICROS)),
        ColumnType::Text | ColumnType::Foreign(_) => Some(LogicalType::String),
        ColumnType::Bool | ColumnType::Int | ColumnType::Float => None,
    };
    Type::primitive_type_builder(name, physical)
        .with_repetition(Repetition::OPTIONAL)
        .with_logical_type(logical)
        .build()
        .map(Arc::new)
}

/// Writes pages as one row group, column by column.
fn write_group(
    writer: &mut SerializedFileWriter<Vec<u8>>,
    pages: &[Selected],
) -> Result<(), ParquetError> {
    use ::parquet::column::writer::ColumnWriter as Typed;
    let mut group = writer.next_row_group()?;
    let mut place = 0_usize;
    while let Some(mut column) = group.next_column()? {
        for page in pages {
            let cells = |at: usize| page.columns.iter().nth(at).map(|(_, column)| column);
            let of_table = place.checked_sub(3).and_then(cells);
            match (place, column.untyped()) {
                (0, Typed::Int64ColumnWriter(to)) => write(to, page.seq.iter().copied().map(Some)),
                (1, Typed::Int64ColumnWriter(to)) => write(to, page.received.iter().copied()),
                (2, Typed::Int32ColumnWriter(to)) => write(to, page.segment.iter().copied()),
                (_, Typed::BoolColumnWriter(to)) => write(to, values(of_table, boolean)),
                (_, Typed::Int64ColumnWriter(to)) => write(to, values(of_table, long)),
                (_, Typed::DoubleColumnWriter(to)) => write(to, values(of_table, double)),
                (_, Typed::ByteArrayColumnWriter(to)) => write(to, values(of_table, text)),
                _ => Err(ParquetError::General(format!(
                    "column {place} has no such type"
                ))),
            }?;
        }
        column.close()?;
        place += 1;
    }
    group.close().map(drop)
}

fn write<T: DataType>(
    to: &mut ::parquet::column::writer::ColumnWriterImpl<'_, T>,
    cells: impl Iterator<Item = Option<T::T>>,
) -> Result<(), ParquetError> {
    let (mut values, mut levels) = (Vec::new(), Vec::new());
    for cell in cells {
        levels.push(i16::from(cell.is_some()));
        values.extend(cell);
    }
    to.write_batch(&values, Some(&levels), None).map(drop)
}

/// Takes the cells of a column; one of another kind, as after a change of the table, is null.
fn values<T>(
    column: Option<&Column>,
    of: fn(&Value) -> Option<T>,
) -> impl Iterator<Item = Option<T>> {
    let rows = column.map_or(0, Column::len);
    (0..rows).map(move |row| column.and_then(|column| of(&column.get(row))))
}

fn boolean(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(value) => Some(*value),
        _ => None,
    }
}

fn long(value: &Value) -> Option<i64> {
    match value {
        Value::Int(value) | Value::Time(value) => Some(*value),
        _ => None,
    }
}

fn double(value: &Value) -> Option<f64> {
    match value {
        Value::Float(value) => Some(*value),
        _ => None,
    }
}

fn text(value: &Value) -> Option<ByteArray> {
    match value {
        Value::Text(text) => Some(ByteArray::from(text.as_str())),
        _ => None,
    }
}
