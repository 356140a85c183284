//! Row frames as on the bus, one after another.

use std::sync::Arc;

use rovi_common::frame::{FRAME_VERSION, MAX_FRAME_BYTES, MAX_FRAME_ROWS, RowFrame};

use super::{FileWriter, WriteError};
use crate::{
    store::{
        rows::{self, Selected},
        source::Source,
    },
    stored::StoredRows,
};

pub(crate) struct FramesFile {
    source: Arc<Source>,
}

impl FramesFile {
    pub(super) fn new(source: &Arc<Source>) -> Self {
        Self {
            source: Arc::clone(source),
        }
    }
}

impl FileWriter for FramesFile {
    fn begin(&mut self, _out: &mut Vec<u8>) -> Result<(), WriteError> {
        Ok(())
    }

    fn rows(&mut self, rows: Selected, out: &mut Vec<u8>) -> Result<(), WriteError> {
        for run in rows::by_segment(&self.source.battery, &self.source.line, rows) {
            write_frames(run, out);
        }
        Ok(())
    }

    fn end(&mut self, _out: &mut Vec<u8>) -> Result<(), WriteError> {
        Ok(())
    }
}

/// Cuts rows into frames; one that is too large in bytes is cut in half.
fn write_frames(mut run: StoredRows, body: &mut Vec<u8>) {
    while run.received.len() > MAX_FRAME_ROWS {
        let rest = split_off(&mut run, MAX_FRAME_ROWS);
        write_frames(std::mem::replace(&mut run, rest), body);
    }
    let rows = run.received.len();
    let frame = RowFrame {
        v: FRAME_VERSION,
        battery: run.battery.clone(),
        epoch: run.epoch,
        segment: run.segment,
        first_seq: run.first_seq,
        received: run.received.clone(),
        columns: run.columns.clone(),
    };
    let bytes = frame.encode();
    if bytes.len() <= MAX_FRAME_BYTES || rows < 2 {
        return body.extend_from_slice(&bytes);
    }
    let rest = split_off(&mut run, rows / 2);
    write_frames(run, body);
    write_frames(rest, body);
}

fn split_off(run: &mut StoredRows, at: usize) -> StoredRows {
    StoredRows {
        received: run.received.split_off(at),
        columns: run.columns.split_off(at),
        first_seq: run.first_seq + i64::try_from(at).unwrap_or_default(),
        battery: run.battery.clone(),
        ..*run
    }
}
