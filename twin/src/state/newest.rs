//! The last row of a frame, in JSON.

use litemap::LiteMap;
use rovi_common::{frame::RowFrame, news::BatteryState, rows::Value as Cell};
use serde_json::Value;

/// The most bytes of cells in a state; a row may have 256 KiB.
const MAX_ROW_BYTES: usize = 32 << 10;

/// Puts the last row of a frame into a state.
pub(super) fn put_row(state: &mut BatteryState, frame: &RowFrame) {
    let last = frame.received.len().saturating_sub(1);
    state.epoch = frame.epoch;
    state.seq = frame.last_seq();
    state.segment = frame.segment;
    state.received = frame.received.get(last).copied().unwrap_or_default();
    (state.row, state.omitted) = row(frame, last);
}

/// Writes the cells of a row; those that would make it too large are counted instead.
pub(crate) fn row(frame: &RowFrame, row: usize) -> (LiteMap<String, Value>, usize) {
    let (mut cells, mut omitted, mut bytes) = (LiteMap::new(), 0, 0);
    for (name, cell) in frame.columns.row(row) {
        let (value, size) = json(cell);
        bytes += name.len() + size;
        if bytes > MAX_ROW_BYTES {
            bytes -= name.len() + size;
            omitted += 1;
        } else {
            cells.insert(name.to_owned(), value);
        }
    }
    (cells, omitted)
}

/// Turns a cell into JSON and tells about how many bytes it takes there; times are microseconds
/// since 1970, and what is no finite number is null.
fn json(cell: Cell) -> (Value, usize) {
    match cell {
        Cell::Null | Cell::Refused(_) => (Value::Null, 4),
        Cell::Bool(value) => (value.into(), 5),
        Cell::Int(value) | Cell::Time(value) => (value.into(), 20),
        Cell::Float(value) => (value.into(), 20),
        Cell::Text(text) => {
            let bytes = text.len();
            (text.into(), bytes)
        }
    }
}

#[cfg(test)]
mod tests {
    use rovi_common::{
        frame::FRAME_VERSION,
        rows::{Column, Columns},
    };

    use super::*;

    fn frame(columns: Vec<(String, Column)>) -> RowFrame {
        RowFrame {
            v: FRAME_VERSION,
            battery: "b7".parse().unwrap(),
            epoch: 2,
            segment: 3,
            first_seq: 41,
            received: vec![10, 11],
            columns: Columns::new(columns).unwrap(),
        }
    }

    #[test]
    fn the_last_row_of_the_frame_is_the_newest() {
        let voltage = Column::Float(vec![Some(3.5), Some(f64::NAN)]);
        let frame = frame(vec![("voltage".to_owned(), voltage)]);
        let mut state = BatteryState::unknown("b7".parse().unwrap());
        put_row(&mut state, &frame);
        assert_eq!((state.epoch, state.seq, state.received), (2, 42, 11));
        assert_eq!(state.row.get("voltage"), Some(&Value::Null));
    }

    #[test]
    fn a_large_cell_is_left_out_and_counted() {
        let text = Column::Text(vec![None, Some("x".repeat(40_000))]);
        let voltage = Column::Float(vec![Some(3.5), Some(3.6)]);
        let columns = vec![("log".to_owned(), text), ("voltage".to_owned(), voltage)];
        let (cells, omitted) = row(&frame(columns), 1);
        assert_eq!((cells.len(), omitted), (1, 1));
        assert_eq!(cells.get("voltage"), Some(&3.6.into()));
    }
}
