//! Frames: what rows and estimates look like on the bus, in msgpack.
//!
//! A reader refuses an unknown `v` and accepts unknown keys.

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};

use crate::{
    msgpack,
    name::{BatteryName, EstimatorName},
    rows::{Columns, packed},
};

/// The version of both frames that this build writes.
pub const FRAME_VERSION: u32 = 1;
/// The most rows in one frame.
pub const MAX_FRAME_ROWS: usize = 256;
/// The most bytes in one frame.
pub const MAX_FRAME_BYTES: usize = 512 * 1024;
/// The most bytes of one row; a frame always holds at least one row.
pub const MAX_ROW_BYTES: usize = 256 * 1024;
/// Header of a row frame: `<epoch>:<first>-<last>`.
pub const SEQ_HEADER: &str = "Rovi-Seq";

/// Why bytes are not a frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The bytes are not msgpack of the frame's form.
    #[error("not a frame")]
    Decode(#[source] rmp_serde::decode::Error),
    /// The rows' numbers are none that rows have.
    #[error("the frame's {rows} rows cannot begin at seq {first_seq}")]
    Numbers {
        /// `seq` of the first row.
        first_seq: i64,
        /// Rows.
        rows: usize,
    },
    /// The columns differ in length from `received` or `seq`.
    #[error("the frame announces {expected} rows and carries {found}")]
    Length {
        /// Rows by `received` (row frames) or `seq` (estimate frames).
        expected: usize,
        /// Rows by the columns.
        found: usize,
    },
}

/// Consecutive stored rows of one battery, one epoch and one segment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RowFrame {
    /// [`FRAME_VERSION`].
    #[serde(deserialize_with = "known_version")]
    pub v: u32,
    /// Whose rows these are.
    pub battery: BatteryName,
    /// The life of the name: `(epoch, seq)` is the key of order everywhere.
    pub epoch: i64,
    /// The test within the battery's life.
    pub segment: i32,
    /// `seq` of the first row; the others follow without gaps.
    pub first_seq: i64,
    /// When the hub took each row, in microseconds since 1970.
    pub received: Vec<i64>,
    /// The columns as they stand in the table.
    pub columns: Columns,
}

impl RowFrame {
    /// Returns the `seq` of the last row.
    pub fn last_seq(&self) -> i64 {
        self.first_seq + i64::try_from(self.received.len()).unwrap_or(i64::MAX) - 1
    }

    /// Returns the value of [`SEQ_HEADER`].
    pub fn seq_header(&self) -> String {
        format!("{}:{}-{}", self.epoch, self.first_seq, self.last_seq())
    }

    /// Writes the frame.
    pub fn encode(&self) -> Bytes {
        encode(self)
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// See [`FrameError`]; nothing of the frame can be used then.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        let (mut frame, columns): (Self, _) = read(bytes)?;
        frame.columns = columns.unwrap_or(frame.columns);
        let (expected, found) = (frame.received.len(), frame.columns.rows());
        if frame.columns.width() > 0 && expected != found {
            return Err(FrameError::Length { expected, found });
        }
        let (first_seq, rows) = (frame.first_seq, expected);
        let last = i64::try_from(rows)
            .ok()
            .and_then(|rows| first_seq.checked_add(rows));
        if first_seq < 1 || last.is_none() {
            return Err(FrameError::Numbers { first_seq, rows });
        }
        Ok(frame)
    }
}

/// Reads [`SEQ_HEADER`]: epoch, first and last `seq`.
pub fn parse_seq_header(text: &str) -> Option<(i64, i64, i64)> {
    let (epoch, range) = text.split_once(':')?;
    let (first, last) = range.split_once('-')?;
    Some((epoch.parse().ok()?, first.parse().ok()?, last.parse().ok()?))
}

/// Estimates of one estimator after some rows of one battery and epoch, in the order of `seq`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EstimateFrame {
    /// [`FRAME_VERSION`].
    #[serde(deserialize_with = "known_version")]
    pub v: u32,
    /// Whose state is estimated.
    pub battery: BatteryName,
    /// By which of its estimators.
    pub estimator: EstimatorName,
    /// The revision of the registration that made it.
    pub revision: i64,
    /// Raised whenever rows already estimated are estimated anew.
    pub generation: i64,
    /// The epoch of the rows.
    pub epoch: i64,
    /// The row after which each estimate holds.
    pub seq: Vec<i64>,
    /// `test_time` of that row, in seconds.
    pub test_time: Vec<f64>,
    /// Table columns ([`estimate_column`]): a mean and a `…__std` for each state, in its unit.
    pub columns: Columns,
    /// First and last row of which this is all that the generation says: estimates of older
    /// generations of the same revision go from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<(i64, i64)>,
    /// What made these estimates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lineage: Option<Lineage>,
}

/// What made estimates, besides their registration and generation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lineage {
    /// Version of the twin.
    pub code_version: String,
    /// SHA-256 of the document or script, in hexadecimal.
    pub definition: String,
    /// How far rows may be late and still count, in seconds of `test_time`.
    pub horizon: f64,
    /// The first row that the estimator was given.
    pub rows_from: i64,
}

impl EstimateFrame {
    /// Writes the frame.
    pub fn encode(&self) -> Bytes {
        encode(self)
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// See [`FrameError`]; nothing of the frame can be used then.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        let (mut frame, columns): (Self, _) = read(bytes)?;
        frame.columns = columns.unwrap_or(frame.columns);
        let expected = frame.seq.len();
        for found in [frame.test_time.len(), frame.columns.rows()] {
            if found != expected {
                return Err(FrameError::Length { expected, found });
            }
        }
        Ok(frame)
    }
}

/// Names the table column of a state: `q_t.base_values[0]` becomes `q_t__base_values0`.
pub fn estimate_column(state: &str) -> String {
    state.replace('.', "__").replace(['[', ']'], "")
}

/// Names the table column of a state's standard deviation.
pub fn deviation_column(state: &str) -> String {
    format!("{}__std", estimate_column(state))
}

fn encode(frame: &impl Serialize) -> Bytes {
    // Writing into memory fails only for values that the constructors of columns keep out.
    rmp_serde::to_vec_named(frame)
        .expect("frames hold only values that msgpack has")
        .into()
}

/// Reads a frame, and its columns, which are most of it, apart from it where that is quicker.
fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, Option<Columns>), FrameError> {
    let (columns, rest) = packed::lift_columns(bytes).unzip();
    let frame = msgpack::from_slice(rest.as_deref().unwrap_or(bytes));
    Ok((frame.map_err(FrameError::Decode)?, columns))
}

/// Refuses a frame of another version; `v` is written first, so this comes before all else.
fn known_version<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let version = u32::deserialize(deserializer)?;
    if version == FRAME_VERSION {
        return Ok(version);
    }
    let message = format!("the frame has version {version}, this build reads {FRAME_VERSION}");
    Err(serde::de::Error::custom(message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::Column;

    fn frame() -> RowFrame {
        RowFrame {
            v: FRAME_VERSION,
            battery: "b7".parse().unwrap(),
            epoch: 2,
            segment: 1,
            first_seq: 41,
            received: vec![10, 11],
            columns: Columns::new(vec![(
                "voltage".to_owned(),
                Column::Float(vec![Some(3.5), None]),
            )])
            .unwrap(),
        }
    }

    #[test]
    fn a_row_frame_comes_back_as_it_was() {
        assert_eq!(RowFrame::decode(&frame().encode()).unwrap(), frame());
    }

    #[test]
    fn the_seq_header_tells_epoch_and_range() {
        assert_eq!(frame().seq_header(), "2:41-42");
        assert_eq!(parse_seq_header("2:41-42"), Some((2, 41, 42)));
        assert_eq!(parse_seq_header("2:41"), None);
    }

    #[test]
    fn a_frame_of_a_newer_version_is_refused_as_such() {
        let newer = RowFrame { v: 9, ..frame() };
        let error = RowFrame::decode(&newer.encode()).unwrap_err();
        let message = crate::error::ErrorChain(&error).to_string();
        assert!(
            message.contains("the frame has version 9, this build reads 1"),
            "{message}"
        );
    }

    #[test]
    fn a_frame_whose_parts_disagree_is_refused() {
        let torn = RowFrame {
            received: vec![1],
            ..frame()
        };
        let error = RowFrame::decode(&torn.encode()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the frame announces 1 rows and carries 2"
        );
    }

    #[test]
    fn a_frame_with_numbers_that_no_row_has_is_refused() {
        for first_seq in [i64::MIN, -1, 0, i64::MAX - 1, i64::MAX] {
            let odd = RowFrame {
                first_seq,
                ..frame()
            };
            // Such a frame cannot be made without overflow, so its bytes are.
            let odd = rmp_serde::to_vec_named(&odd).unwrap();
            let error = RowFrame::decode(&odd).unwrap_err();
            assert!(error.to_string().contains("cannot begin"), "{error}");
        }
    }

    #[test]
    fn a_frame_with_an_unknown_key_is_read_unless_it_is_nested_without_end() {
        let with = |depth: usize| {
            let mut bytes = frame().encode().to_vec();
            // One more key of the map.
            bytes[0] += 1;
            bytes.extend(b"\xa4more");
            bytes.extend(vec![0x91; depth]);
            bytes.push(0xc0);
            RowFrame::decode(&bytes)
        };
        assert_eq!(with(10).unwrap(), frame());
        assert!(matches!(with(1000), Err(FrameError::Decode(_))));
    }

    #[test]
    fn estimate_columns_follow_the_origin() {
        assert_eq!(
            estimate_column("rc_elements.0.r.base_values[2]"),
            "rc_elements__0__r__base_values2"
        );
    }
}
