//! NDJSON: one object a row. Times are microseconds since 1970; NaN and infinities are null, since
//! JSON has none.

use rovi_common::rows::Columns;
use serde::{Serialize, Serializer, ser::SerializeMap};

use super::{FileWriter, WriteError};
use crate::store::rows::Selected;

pub(super) struct NdjsonFile;

impl FileWriter for NdjsonFile {
    fn begin(&mut self, _out: &mut Vec<u8>) -> Result<(), WriteError> {
        Ok(())
    }

    fn rows(&mut self, rows: Selected, out: &mut Vec<u8>) -> Result<(), WriteError> {
        let own = rows.seq.iter().zip(&rows.received).zip(&rows.segment);
        for (place, ((&seq, &received), &segment)) in own.enumerate() {
            let row = Row {
                seq,
                received,
                segment,
                columns: &rows.columns,
                place,
            };
            serde_json::to_writer(&mut *out, &row).map_err(WriteError::of("NDJSON"))?;
            out.push(b'\n');
        }
        Ok(())
    }

    fn end(&mut self, _out: &mut Vec<u8>) -> Result<(), WriteError> {
        Ok(())
    }
}

struct Row<'a> {
    seq: i64,
    received: Option<i64>,
    segment: Option<i32>,
    columns: &'a Columns,
    place: usize,
}

impl Serialize for Row<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(3 + self.columns.width()))?;
        map.serialize_entry("seq", &self.seq)?;
        map.serialize_entry("received", &self.received)?;
        map.serialize_entry("segment", &self.segment)?;
        for (name, value) in self.columns.row(self.place) {
            map.serialize_entry(name, &value)?;
        }
        map.end()
    }
}
