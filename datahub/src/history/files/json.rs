//! JSON: one object a row, as lines or as one array. Times are microseconds since 1970; NaN and
//! infinities are null, since JSON has none.

use rovi_common::rows::Columns;
use serde::{Serialize, Serializer, ser::SerializeMap};

use super::{FileWriter, WriteError};
use crate::store::rows::Selected;

pub(super) struct JsonRows {
    begin: &'static str,
    /// Stands before each row but the first.
    between: &'static str,
    /// Stands behind each row.
    after: &'static str,
    end: &'static str,
    has_rows: bool,
}

impl JsonRows {
    /// NDJSON: one row a line.
    pub(super) const LINES: Self = Self {
        begin: "",
        between: "",
        after: "\n",
        end: "",
        has_rows: false,
    };
    /// One array of all rows.
    pub(super) const ARRAY: Self = Self {
        begin: "[",
        between: ",\n",
        after: "",
        end: "]\n",
        has_rows: false,
    };
}

impl FileWriter for JsonRows {
    fn begin(&mut self, out: &mut Vec<u8>) -> Result<(), WriteError> {
        out.extend_from_slice(self.begin.as_bytes());
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
            if std::mem::replace(&mut self.has_rows, true) {
                out.extend_from_slice(self.between.as_bytes());
            }
            serde_json::to_writer(&mut *out, &row).map_err(WriteError::of("JSON"))?;
            out.extend_from_slice(self.after.as_bytes());
        }
        Ok(())
    }

    fn end(&mut self, out: &mut Vec<u8>) -> Result<(), WriteError> {
        out.extend_from_slice(self.end.as_bytes());
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
