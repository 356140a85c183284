//! From bytes on the bus to estimates that a table can take.

use std::collections::BTreeMap;

use rovi_common::{
    frame::EstimateFrame,
    name::{BatteryName, EstimatorName},
    rows::{Column, Value},
    subjects,
};

use crate::{
    config::MAX_COLUMN_NAME_BYTES,
    store::estimates::{Estimates, OWN_COLUMNS},
};

/// The most columns of one frame.
const MAX_COLUMNS: usize = 800;
/// The longest version or digest in a lineage.
const MAX_LINEAGE_BYTES: usize = 128;
/// Columns of PostgreSQL's own in every table.
const SYSTEM_COLUMNS: [&str; 6] = ["tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"];

/// A frame that fits a table.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Accepted {
    /// Whose table.
    pub(super) battery: BatteryName,
    /// What goes into it.
    pub(super) estimates: Estimates,
}

/// Reads a frame that came on `subject`.
///
/// # Errors
/// Why no table can ever take it, for the log.
pub(super) fn accept(subject: &str, payload: &[u8]) -> Result<Accepted, String> {
    let frame = EstimateFrame::decode(payload)
        .map_err(|error| rovi_common::error::ErrorChain(&error).to_string())?;
    if subjects::estimates_of(&frame.battery, &frame.estimator) != subject {
        return Err(format!(
            "the frame is of estimator `{}` of battery `{}`",
            frame.estimator, frame.battery
        ));
    }
    if frame.epoch < 1 || frame.revision < 0 || frame.generation < 0 {
        return Err(format!(
            "epoch {}, revision {} or generation {} is out of range",
            frame.epoch, frame.revision, frame.generation
        ));
    }
    if let Some(seq) = frame.seq.iter().find(|seq| **seq < 1) {
        return Err(format!("seq {seq} is below 1"));
    }
    if frame.columns.width() > MAX_COLUMNS {
        let width = frame.columns.width();
        return Err(format!("{width} columns, the limit is {MAX_COLUMNS}"));
    }
    check_lineage(&frame)?;
    let columns = frame.columns.into_vec().into_iter();
    let columns = columns.map(|(name, column)| {
        check_name(&name)?;
        let cells = numbers(column).map_err(|kind| format!("column `{name}` holds {kind}"))?;
        Ok((name, cells))
    });
    Ok(Accepted {
        battery: frame.battery,
        estimates: Estimates {
            estimator: frame.estimator,
            epoch: frame.epoch,
            revision: frame.revision,
            generation: frame.generation,
            seq: frame.seq,
            test_time: frame.test_time,
            columns: columns.collect::<Result<_, String>>()?,
            replaces: frame.replaces.into_iter().collect(),
            lineage: frame.lineage,
        },
    })
}

fn check_lineage(frame: &EstimateFrame) -> Result<(), String> {
    if let Some((first, last)) = frame.replaces
        && (first < 1 || last < first)
    {
        return Err(format!("it replaces the rows {first} to {last}"));
    }
    let Some(lineage) = &frame.lineage else {
        return Ok(());
    };
    let is_text = |text: &str| text.len() <= MAX_LINEAGE_BYTES && !text.contains('\0');
    let is_number = lineage.horizon.is_finite() && lineage.rows_from >= 0;
    if is_text(&lineage.code_version) && is_text(&lineage.definition) && is_number {
        return Ok(());
    }
    Err("its lineage is not of the form that the hub knows".to_owned())
}

fn check_name(name: &str) -> Result<(), String> {
    let is_taken = OWN_COLUMNS.contains(&name) || SYSTEM_COLUMNS.contains(&name);
    if name.is_empty() || name.len() > MAX_COLUMN_NAME_BYTES || name.contains('\0') || is_taken {
        return Err(format!("`{name}` cannot name a column"));
    }
    Ok(())
}

/// Turns cells into floats, or tells the kind of a cell that is no number.
fn numbers(column: Column) -> Result<Vec<Option<f64>>, &'static str> {
    match column {
        Column::Float(cells) => Ok(cells),
        Column::Null(cells) => Ok(vec![None; cells]),
        other => (0..other.len())
            .map(|row| match other.get(row) {
                Value::Null => Ok(None),
                Value::Float(value) => Ok(Some(value)),
                #[expect(clippy::cast_precision_loss, reason = "a quantity, not an identifier")]
                Value::Int(value) => Ok(Some(value as f64)),
                value => Err(value.kind()),
            })
            .collect(),
    }
}

/// Joins estimates of the same registration and columns, each `seq` once and in order: one
/// statement takes many frames.
pub(super) fn merge(all: impl IntoIterator<Item = Estimates>) -> Vec<Estimates> {
    type Key = (EstimatorName, i64, i64, i64, Vec<String>, Option<String>);
    let mut parts: BTreeMap<Key, Vec<Estimates>> = BTreeMap::new();
    for one in all {
        let names = one.columns.iter().map(|(name, _)| name.clone()).collect();
        let key = (
            one.estimator.clone(),
            one.epoch,
            one.revision,
            one.generation,
            names,
            one.lineage.as_ref().map(|lineage| format!("{lineage:?}")),
        );
        parts.entry(key).or_default().push(one);
    }
    let mut merged: Vec<Estimates> = parts.into_values().filter_map(join).collect();
    merged.iter_mut().for_each(each_seq_once);
    merged.retain(|estimates| !estimates.seq.is_empty() || !estimates.replaces.is_empty());
    merged
}

/// Joins estimates of the same columns, with room for all at once.
fn join(parts: Vec<Estimates>) -> Option<Estimates> {
    let rows: usize = parts.iter().map(|part| part.seq.len()).sum();
    let mut parts = parts.into_iter();
    let mut joined = parts.next()?;
    let more = rows - joined.seq.len();
    joined.seq.reserve_exact(more);
    joined.test_time.reserve_exact(more);
    for (_, cells) in &mut joined.columns {
        cells.reserve_exact(more);
    }
    for part in parts {
        append(&mut joined, part);
    }
    Some(joined)
}

fn append(known: &mut Estimates, more: Estimates) {
    known.seq.extend(more.seq);
    known.test_time.extend(more.test_time);
    known.replaces.extend(more.replaces);
    for ((_, cells), (_, more)) in known.columns.iter_mut().zip(more.columns) {
        cells.extend(more);
    }
}

/// Sorts by `seq` and keeps the first estimate of each: an equal one changes nothing.
fn each_seq_once(estimates: &mut Estimates) {
    if estimates.seq.is_sorted_by(|a, b| a < b) {
        return;
    }
    let mut order: Vec<usize> = (0..estimates.seq.len()).collect();
    order.sort_by_key(|&row| estimates.seq.get(row));
    order.dedup_by_key(|row| estimates.seq.get(*row));
    estimates.seq = picked(&estimates.seq, &order);
    estimates.test_time = picked(&estimates.test_time, &order);
    for (_, cells) in &mut estimates.columns {
        *cells = picked(cells, &order);
    }
}

fn picked<T: Copy>(cells: &[T], order: &[usize]) -> Vec<T> {
    order
        .iter()
        .filter_map(|&row| cells.get(row).copied())
        .collect()
}

#[cfg(test)]
mod tests {
    use rovi_common::{frame::FRAME_VERSION, rows::Columns};

    use super::*;

    fn frame(column: &str, cells: Column) -> EstimateFrame {
        EstimateFrame {
            v: FRAME_VERSION,
            battery: "b7".parse().unwrap(),
            estimator: EstimatorName::default(),
            revision: 1,
            generation: 0,
            epoch: 1,
            seq: (1..).take(cells.len()).collect(),
            test_time: vec![0.5; cells.len()],
            columns: Columns::new(vec![(column.to_owned(), cells)]).unwrap(),
            replaces: None,
            lineage: None,
        }
    }

    fn refusal(frame: &EstimateFrame) -> String {
        accept("rovi.estimates.b7.default", &frame.encode()).unwrap_err()
    }

    #[test]
    fn whatever_no_table_can_take_is_refused_with_a_reason() {
        let good = frame("soc", Column::Float(vec![Some(0.5)]));
        assert!(accept("rovi.estimates.b7.default", &good.encode()).is_ok());
        assert!(accept("rovi.estimates.b8.default", &good.encode()).is_err());
        assert!(accept("rovi.estimates.b7.default", b"junk").is_err());
        assert!(refusal(&frame("seq", Column::Float(vec![Some(0.5)]))).contains("`seq`"));
        assert!(refusal(&frame("soc", Column::Bool(vec![Some(true)]))).contains("boolean"));
        let mut early = good.clone();
        early.seq = vec![0];
        assert!(refusal(&early).contains("seq 0"));
        let long = "x".repeat(64);
        assert!(refusal(&frame(&long, Column::Null(1))).contains("cannot name"));
    }

    #[test]
    fn integers_among_floats_are_numbers_too() {
        let mixed = Column::Mixed(vec![Value::Int(1), Value::Float(0.5), Value::Null]);
        assert_eq!(numbers(mixed), Ok(vec![Some(1.0), Some(0.5), None]));
    }

    #[test]
    fn frames_of_one_registration_become_one_statement_with_each_seq_once() {
        let part = |seq: &[i64], generation| Estimates {
            estimator: EstimatorName::default(),
            epoch: 1,
            revision: 1,
            generation,
            seq: seq.to_vec(),
            test_time: vec![0.0; seq.len()],
            columns: vec![(
                "soc".to_owned(),
                seq.iter()
                    .map(|seq| u32::try_from(*seq).ok().map(f64::from))
                    .collect(),
            )],
            replaces: Vec::new(),
            lineage: None,
        };
        let merged = merge([
            part(&[3, 4], 0),
            part(&[1, 2, 3], 0),
            part(&[4], 1),
            part(&[], 2),
        ]);
        assert_eq!(merged.len(), 2);
        assert_eq!(merged[0], part(&[1, 2, 3, 4], 0));
        assert_eq!(merged[1], part(&[4], 1));
    }
}
