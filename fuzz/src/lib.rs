//! What must hold for any bytes. Each function is the target of a libFuzzer binary of its name,
//! and of the tests over the kept cases in `cases/`, which `datahub/tests/fuzzed/` runs as well.

use datahub::{fuzzing, upload::Decoded};
use rovi_common::{
    frame::{EstimateFrame, RowFrame, parse_seq_header},
    name::{BatteryName, slug},
    rows::{Column, Value},
};

/// Upload frames: the first bit tells whether it is JSON.
pub fn frames(bytes: &[u8]) {
    let Some((first, bytes)) = bytes.split_first() else {
        return;
    };
    if let Ok(decoded) = fuzzing::frame(bytes, first & 1 == 1) {
        assert!(decoded.sent <= fuzzing::LIMITS.rows);
        check(decoded);
    }
}

/// Bodies of posts: the first byte tells the form.
pub fn bodies(bytes: &[u8]) {
    if let Some((form, bytes)) = bytes.split_first()
        && let Ok(decoded) = fuzzing::body(bytes, *form)
    {
        check(decoded);
    }
}

/// What decoding promises to the writers.
fn check(mut decoded: Decoded) {
    let names: Vec<&str> = decoded.columns.iter().map(|(name, _)| name).collect();
    assert!(names.len() <= fuzzing::LIMITS.columns, "{names:?}");
    for name in &names {
        assert!(
            (1..=64).contains(&name.len()) && !name.contains('\0'),
            "{name:?}"
        );
        assert!(
            !["seq", "received", "segment", "epoch", "ctid"].contains(name),
            "{name:?}"
        );
        assert_eq!(
            names.iter().filter(|other| other == &name).count(),
            1,
            "{names:?}"
        );
    }
    if !names.is_empty() {
        assert_eq!(
            decoded.sent,
            decoded.columns.rows() + decoded.rejected.len()
        );
    }
    for (_, column) in decoded.columns.iter() {
        let usable = |row| match column.get(row) {
            Value::Refused(_) => false,
            Value::Text(text) => !text.contains('\0'),
            _ => true,
        };
        assert!((0..column.len()).all(usable), "{column:?}");
    }
    let offsets: Vec<usize> = decoded.rejected.iter().map(|row| row.offset).collect();
    assert!(offsets.is_sorted_by(|a, b| a < b), "{offsets:?}");
    assert!(offsets.last().is_none_or(|last| *last < decoded.sent));
    // Resuming drops rows from the front; what is left is still whole.
    let (sent, rejected) = (decoded.sent, decoded.rejected.len());
    let half = sent / 2;
    decoded.skip(half);
    assert_eq!(decoded.sent, sent - half);
    assert!(decoded.rejected.len() <= rejected);
    assert!(decoded.rejected.iter().all(|row| row.offset < decoded.sent));
}

/// Frames on the bus: rows and estimates.
pub fn bus(bytes: &[u8]) {
    if let Ok(frame) = RowFrame::decode(bytes) {
        assert!(frame.last_seq() >= frame.first_seq - 1);
        let header = parse_seq_header(&frame.seq_header());
        assert_eq!(
            header,
            Some((frame.epoch, frame.first_seq, frame.last_seq()))
        );
        let again = RowFrame::decode(&frame.encode()).expect("what we write we read");
        assert_eq!(again.encode(), frame.encode());
    }
    if let Ok(frame) = EstimateFrame::decode(bytes) {
        assert_eq!(frame.seq.len(), frame.test_time.len());
        EstimateFrame::decode(&frame.encode()).expect("what we write we read");
    }
    let _refused = fuzzing::estimates("rovi.estimates.b7.default", bytes);
}

/// Names and slugs, and what stands for them on the bus.
pub fn names(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let slugged: BatteryName = slug(text).parse().expect("a slug is a name");
    assert_eq!(
        slug(slugged.as_str()),
        slugged.as_str(),
        "a slug stays as it is"
    );
    if let Ok(name) = text.parse::<BatteryName>() {
        assert_eq!(name.as_str(), text);
        assert!(!text.contains(['.', '*', '>', ' ', '"', '/']));
    }
    let _no_header = parse_seq_header(text);
}

/// Ranges, intervals and formulas of questions: a formula has a cell for each row, null or finite.
pub fn questions(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    assert!(!fuzzing::is_reversed_range(text), "{text:?}");
    if let Some(cells) = fuzzing::formula(text) {
        assert_eq!(cells.len(), 3, "{text}");
        assert!(
            cells.iter().flatten().all(|cell| cell.is_finite()),
            "{text}"
        );
    }
}

/// Identifiers are quoted so that they can be read back, and arrays hold their cells.
pub fn statements(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes).replace('\0', "");
    let names: Vec<&str> = text.split('\n').collect();
    let sql = fuzzing::quoted(&names);
    let mut rest = sql.as_str();
    for name in &names {
        let (found, after) = unquoted(rest);
        assert_eq!(found, *name, "{sql}");
        rest = after.strip_prefix(',').expect("a comma follows");
    }
    let columns = [
        Column::Text(names.iter().map(|name| Some((*name).to_owned())).collect()),
        Column::Int(bytes.chunks(8).map(number).map(Some).collect()),
    ];
    for column in columns {
        let mut cells = fuzzing::array(&column);
        for row in 0..column.len() {
            let rest = cells.split_off(4);
            let length = i32::from_be_bytes(cells.try_into().expect("4 bytes"));
            let mut cell = rest;
            cells = cell.split_off(usize::try_from(length).expect("a length"));
            match column.get(row) {
                Value::Text(text) => assert_eq!(cell, text.as_bytes()),
                Value::Int(value) => assert_eq!(cell, value.to_be_bytes()),
                other => panic!("{other:?}"),
            }
        }
        assert!(cells.is_empty());
    }
}

fn number(bytes: &[u8]) -> i64 {
    bytes
        .iter()
        .fold(0, |number, byte| number << 8 | i64::from(*byte))
}

/// Reads a quoted identifier as PostgreSQL does; returns it and what follows.
fn unquoted(sql: &str) -> (String, &str) {
    let mut rest = sql.strip_prefix('"').expect("a quote begins");
    let mut name = String::new();
    loop {
        let (piece, after) = rest.split_once('"').expect("a quote ends");
        name.push_str(piece);
        match after.strip_prefix('"') {
            Some(after) => {
                name.push('"');
                rest = after;
            }
            None => return (name, after),
        }
    }
}

/// What passes the guard of WebSocket frames does not depend on how bytes are cut.
pub fn guard(bytes: &[u8]) {
    let Some((piece, bytes)) = bytes.split_first() else {
        return;
    };
    let piece = usize::from(*piece).max(1);
    let whole = fuzzing::guarded([bytes].into_iter());
    let cut = fuzzing::guarded(bytes.chunks(piece));
    assert!(
        whole.starts_with(&cut) || cut.starts_with(&whole),
        "{whole:?} {cut:?}"
    );
    assert!(whole.len() <= bytes.len() + 10);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kept_case_holds() {
        type Target = (&'static str, fn(&[u8]));
        let targets: [Target; 7] = [
            ("frames", frames),
            ("bodies", bodies),
            ("bus", bus),
            ("names", names),
            ("questions", questions),
            ("statements", statements),
            ("guard", guard),
        ];
        for (name, target) in targets {
            target(b"");
            let folder = format!("{}/../fuzz/cases/{name}", env!("CARGO_MANIFEST_DIR"));
            for case in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                target(&std::fs::read(case.path()).unwrap());
            }
        }
    }
}
