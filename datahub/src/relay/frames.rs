//! Cutting stored rows into frames, and joining small ones.

use std::mem;

use bytes::Bytes;
use rovi_common::{
    frame::{FRAME_VERSION, MAX_FRAME_BYTES, MAX_FRAME_ROWS, RowFrame},
    rows::{Column, Columns},
};

use crate::stored::StoredRows;

/// One frame as it goes out.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct EncodedFrame {
    /// The life of the battery's name.
    pub(super) epoch: i64,
    /// `seq` of the first row.
    pub(super) first_seq: i64,
    /// `seq` of the last row.
    pub(super) last_seq: i64,
    /// The value of [`SEQ_HEADER`](rovi_common::frame::SEQ_HEADER).
    pub(super) seq_header: String,
    /// The frame in msgpack, at most [`MAX_FRAME_BYTES`].
    pub(super) bytes: Bytes,
}

/// The frames of some stored rows in the order of `seq`, each cut when it is asked for.
#[derive(Debug)]
pub(super) struct Frames {
    /// What is left, the next rows on top.
    rest: Vec<RowFrame>,
}

impl Frames {
    /// Begins with the first row.
    pub(super) fn of(rows: StoredRows) -> Self {
        let all = RowFrame {
            v: FRAME_VERSION,
            battery: rows.battery,
            epoch: rows.epoch,
            segment: rows.segment,
            first_seq: rows.first_seq,
            received: rows.received,
            columns: rows.columns,
        };
        let rest = if all.received.is_empty() {
            Vec::new()
        } else {
            vec![all]
        };
        Self { rest }
    }

    /// Puts back `frame` as two parts, of which the first has `at` rows.
    fn split(&mut self, mut frame: RowFrame, at: usize) {
        let later = RowFrame {
            v: frame.v,
            battery: frame.battery.clone(),
            epoch: frame.epoch,
            segment: frame.segment,
            first_seq: frame.first_seq + seq_step(at),
            received: frame.received.split_off(at),
            columns: frame.columns.split_off(at),
        };
        self.rest.push(later);
        self.rest.push(frame);
    }
}

impl Iterator for Frames {
    type Item = EncodedFrame;

    fn next(&mut self) -> Option<EncodedFrame> {
        loop {
            let frame = self.rest.pop()?;
            let rows = frame.received.len();
            if rows > MAX_FRAME_ROWS {
                // Halves of whole frames: each cell is moved a few times, not once for a frame.
                let whole_frames = rows.div_ceil(MAX_FRAME_ROWS).div_ceil(2);
                let at = (whole_frames * MAX_FRAME_ROWS).min(rows - 1);
                self.split(frame, at);
                continue;
            }
            let bytes = frame.encode();
            if bytes.len() > MAX_FRAME_BYTES && rows > 1 {
                self.split(frame, rows / 2);
                continue;
            }
            return Some(EncodedFrame {
                epoch: frame.epoch,
                first_seq: frame.first_seq,
                last_seq: frame.last_seq(),
                seq_header: frame.seq_header(),
                bytes,
            });
        }
    }
}

/// Returns the `seq` of the last of these rows.
pub(super) fn last_seq(rows: &StoredRows) -> i64 {
    rows.first_seq + seq_step(rows.received.len()) - 1
}

/// Drops the rows up to and including `seq`.
#[must_use]
pub(super) fn after(mut rows: StoredRows, seq: i64) -> StoredRows {
    let known = usize::try_from(seq + 1 - rows.first_seq).unwrap_or(0);
    let known = known.min(rows.received.len());
    rows.received.drain(..known);
    rows.columns = rows.columns.split_off(known);
    rows.first_seq += seq_step(known);
    rows
}

/// Appends `next` to `rows` where both fit one frame; else gives it back.
///
/// Only rows of one form are joined, so that every column keeps the type that it has in the
/// table.
pub(super) fn join(rows: &mut StoredRows, next: StoredRows) -> Option<StoredRows> {
    let fits = next.epoch == rows.epoch
        && next.segment == rows.segment
        && next.first_seq == last_seq(rows) + 1
        && rows.received.len() + next.received.len() <= MAX_FRAME_ROWS
        && same_form(&rows.columns, &next.columns);
    if !fits {
        return Some(next);
    }
    rows.received.extend(next.received);
    rows.columns.append(next.columns);
    None
}

fn same_form(left: &Columns, right: &Columns) -> bool {
    let kind = mem::discriminant::<Column>;
    left.width() == right.width()
        && (left.iter().zip(right.iter()))
            .all(|(left, right)| left.0 == right.0 && kind(left.1) == kind(right.1))
}

/// Estimates the memory of rows, in KiB and at least 1.
pub(super) fn weight_kib(rows: &StoredRows) -> u32 {
    let cells = rows.received.len() * (rows.columns.width() + 1);
    let text: usize = rows
        .columns
        .iter()
        .map(|(_, column)| text_bytes(column))
        .sum();
    let bytes = cells * size_of::<Option<f64>>() + text;
    u32::try_from(bytes / 1024 + 1).unwrap_or(u32::MAX)
}

fn text_bytes(column: &Column) -> usize {
    match column {
        Column::Text(cells) => cells.iter().flatten().map(|text| text.len() + 8).sum(),
        _ => 0,
    }
}

fn seq_step(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(first_seq: i64, count: usize, text: &str) -> StoredRows {
        let seqs = (0..count).map(|row| Some(first_seq + seq_step(row)));
        let columns = vec![
            ("n".to_owned(), Column::Int(seqs.collect())),
            (
                "note".to_owned(),
                Column::Text(vec![Some(text.to_owned()); count]),
            ),
        ];
        StoredRows {
            battery_id: 1,
            battery: "b7".parse().unwrap(),
            epoch: 1,
            segment: 0,
            first_seq,
            received: vec![5; count],
            columns: Columns::new(columns).unwrap(),
        }
    }

    fn decoded(frames: Frames) -> Vec<RowFrame> {
        frames
            .map(|frame| {
                assert!(frame.bytes.len() <= MAX_FRAME_BYTES);
                let decoded = RowFrame::decode(&frame.bytes).unwrap();
                assert_eq!(decoded.last_seq(), frame.last_seq);
                assert_eq!(decoded.seq_header(), frame.seq_header);
                decoded
            })
            .collect()
    }

    fn cells(frames: &[RowFrame]) -> Vec<i64> {
        let column = |frame: &RowFrame| match frame.columns.get("n") {
            Some(Column::Int(cells)) => cells.iter().flatten().copied().collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        };
        frames.iter().flat_map(column).collect()
    }

    #[test]
    fn frames_carry_every_row_once_in_order_and_at_most_256_rows() {
        for count in [1, 255, 256, 257, 512, 513, 10_000] {
            let frames = decoded(Frames::of(rows(41, count, "x")));
            assert_eq!(frames.len(), count.div_ceil(MAX_FRAME_ROWS));
            assert_eq!(
                cells(&frames),
                (41..41 + seq_step(count)).collect::<Vec<_>>()
            );
        }
        assert_eq!(Frames::of(rows(1, 0, "")).count(), 0);
    }

    #[test]
    fn rows_of_many_bytes_make_smaller_frames() {
        let wide = "w".repeat(200 * 1024);
        let frames = decoded(Frames::of(rows(1, 7, &wide)));
        assert_eq!(cells(&frames), (1..8).collect::<Vec<_>>());
        assert!(frames.iter().all(|frame| frame.received.len() <= 2));
    }

    #[test]
    fn small_groups_join_only_where_they_continue_in_one_form() {
        let mut first = rows(1, 2, "x");
        assert!(join(&mut first, rows(3, 2, "x")).is_none());
        assert_eq!(last_seq(&first), 4);
        assert!(join(&mut first, rows(6, 1, "x")).is_some(), "a hole");
        let other_segment = StoredRows {
            segment: 1,
            ..rows(5, 1, "x")
        };
        assert!(join(&mut first, other_segment).is_some());
        let mut other_form = rows(5, 1, "x");
        other_form.columns =
            Columns::new(vec![("n".to_owned(), Column::Float(vec![Some(1.0)]))]).unwrap();
        assert!(join(&mut first, other_form).is_some());
    }

    #[test]
    fn rows_already_sent_are_cut_off() {
        assert_eq!(after(rows(5, 4, "x"), 6).first_seq, 7);
        assert_eq!(after(rows(5, 4, "x"), 6).columns.rows(), 2);
        assert_eq!(after(rows(5, 4, "x"), 3).received.len(), 4);
        assert_eq!(after(rows(5, 4, "x"), 8).received.len(), 0);
    }
}
