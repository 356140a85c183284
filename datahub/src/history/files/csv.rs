//! CSV: times are microseconds since 1970, null is empty.

use std::sync::Arc;

use rovi_common::rows::Value;

use super::{FileWriter, WriteError};
use crate::{history::picks::Picks, store::rows::Selected};

pub(super) struct CsvFile {
    picks: Arc<Picks>,
}

impl CsvFile {
    pub(super) fn new(picks: &Arc<Picks>) -> Self {
        Self {
            picks: Arc::clone(picks),
        }
    }
}

impl FileWriter for CsvFile {
    fn begin(&mut self, out: &mut Vec<u8>) -> Result<(), WriteError> {
        let names = self.picks.iter().map(|pick| pick.name);
        let mut writer = csv::Writer::from_writer(out);
        let names = ["seq", "received", "segment"].into_iter().chain(names);
        writer.write_record(names).map_err(WriteError::of("CSV"))
    }

    fn rows(&mut self, rows: Selected, out: &mut Vec<u8>) -> Result<(), WriteError> {
        let mut writer = csv::Writer::from_writer(out);
        let own = rows.seq.iter().zip(&rows.received).zip(&rows.segment);
        for (row, ((seq, received), segment)) in own.enumerate() {
            let own = [
                seq.to_string(),
                text(received.as_ref()),
                text(segment.as_ref()),
            ];
            let cells = rows.columns.row(row).map(|(_, value)| cell(value));
            let record = own.into_iter().chain(cells);
            writer.write_record(record).map_err(WriteError::of("CSV"))?;
        }
        writer.flush().map_err(WriteError::of("CSV"))
    }

    fn end(&mut self, _out: &mut Vec<u8>) -> Result<(), WriteError> {
        Ok(())
    }
}

fn text(number: Option<&impl ToString>) -> String {
    number.map(ToString::to_string).unwrap_or_default()
}

fn cell(value: Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Text(text) => text,
        Value::Time(us) => us.to_string(),
        value => value.to_string(),
    }
}
