//! Frames of one row of the same form as others before, decoded into the columns of those, or into
//! new ones that share their names: making columns of each row takes several times as long.

use rovi_common::rows::Columns;

use super::{
    decode::{Encoding, Limits, MAX_DEPTH},
    decoded::Decoded,
    integers,
    sift::last_row_fits,
};

/// Appends the row of a frame, as appending what [`decode`](super::decode::decode) makes of it
/// would; tells whether it did. Where the frame is anything else, or its row cannot be stored,
/// nothing was changed.
pub(super) fn append(
    rows: &mut Decoded,
    frame: &[u8],
    encoding: Encoding,
    limits: &Limits,
) -> bool {
    let before = rows.columns.rows();
    if rows.columns.width() == 0 {
        return false;
    }
    let is_alike = match encoding {
        Encoding::Msgpack => read_msgpack(&mut rows.columns, frame),
        Encoding::Json => read_json(&mut rows.columns, &integers::rewrite(frame)),
    };
    let is_appended = is_alike && last_row_fits(&rows.columns, limits);
    if is_appended {
        rows.sent += 1;
    } else {
        rows.columns.truncate(before);
    }
    is_appended
}

fn read_msgpack(columns: &mut Columns, mut frame: &[u8]) -> bool {
    let mut deserializer = rmp_serde::Deserializer::new(&mut frame);
    deserializer.set_max_depth(MAX_DEPTH);
    columns.read_alike(&mut deserializer).is_ok() && frame.is_empty()
}

fn read_json(columns: &mut Columns, frame: &[u8]) -> bool {
    let mut deserializer = serde_json::Deserializer::from_slice(frame);
    columns.read_alike(&mut deserializer).is_ok() && deserializer.end().is_ok()
}

#[cfg(test)]
mod tests {
    use rovi_common::rows::Value;

    use super::*;
    use crate::upload::decode::decode;

    const LIMITS: Limits = Limits {
        rows: 100,
        row_bytes: 60,
        columns: 5,
        rejected: 60,
    };

    /// Appends each frame the short way or, where that does not take it, the long one, and compares
    /// with the long one; returns how many went the short way.
    fn appended(frames: &[Vec<u8>], encoding: Encoding) -> usize {
        let mut taken = 0;
        let decoded = |frame: &Vec<u8>| decode(frame, encoding, &LIMITS).ok();
        for pair in frames.windows(2) {
            let (Some(mut rows), next) = (decoded(&pair[0]), decoded(&pair[1])) else {
                continue;
            };
            let mut expected = rows.clone();
            if append(&mut rows, &pair[1], encoding, &LIMITS) {
                let next = next.unwrap();
                assert!(expected.goes_with(&next), "{pair:?}");
                let mut alone = Decoded {
                    columns: rows.columns.form(),
                    ..Decoded::default()
                };
                assert!(append(&mut alone, &pair[1], encoding, &LIMITS));
                assert_eq!(alone, next, "{pair:?}");
                expected.append(next);
                taken += 1;
            }
            assert_eq!(rows, expected, "{pair:?}");
        }
        taken
    }

    #[test]
    fn rows_in_json_are_appended_as_if_each_was_decoded_by_itself() {
        let long = format!(r#"{{"a": 2, "b": "{}"}}"#, "x".repeat(50));
        let frames = [
            r#"{"a": 1, "b": "x"}"#,
            r#"{"a": 2, "b": "y"}"#,
            r#" {"a":3,"b":"Ω"} "#,
            r#"{"a": 4, "b": "y"} {"#,
            r#"{"a": 4, "b": "z"}"#,
            r#"{"a": 5, "b": null}"#,
            r#"{"a": 5, "b": "z"}"#,
            r#"{"a": 18446744073709551617, "b": "z"}"#,
            r#"{"a": 6, "b": "z"}"#,
            &long,
            r#"{"a": 7, "b": "z"}"#,
            r#"{"a": [7], "b": ["z"]}"#,
            r#"{"a": 8, "b": "z"}"#,
            r#"[{"a": 9, "b": "z"}]"#,
            r#"{"seq": 9}"#,
            r#"{"seq": 9}"#,
            r#"{"seq_": 9}"#,
            "{}",
            "{}",
        ];
        let frames: Vec<Vec<u8>> = frames.map(|frame| frame.as_bytes().to_vec()).into();
        assert_eq!(appended(&frames, Encoding::Json), 4);
    }

    #[test]
    fn rows_in_msgpack_are_appended_as_if_each_was_decoded_by_itself() {
        let frame = |a: Value, time: i64| {
            let row = std::collections::BTreeMap::from([("a", a), ("t", Value::Time(time))]);
            rmp_serde::to_vec(&row).unwrap()
        };
        let good = frame(Value::Float(0.5), 5);
        let mut behind = good.clone();
        behind.push(7);
        let frames = [
            good.clone(),
            frame(Value::Float(f64::NEG_INFINITY), -5),
            frame(Value::Float(1.5), i64::MIN),
            good.clone(),
            frame(Value::Int(1), 5),
            good.clone(),
            behind,
            good.clone(),
            good.get(..5).unwrap().to_vec(),
            good,
        ];
        assert_eq!(appended(&frames, Encoding::Msgpack), 1);
    }
}
