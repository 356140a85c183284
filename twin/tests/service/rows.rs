//! Rows for tests, and what a run that was never interrupted makes of them.

use std::collections::BTreeMap;

use rovi_common::{
    frame::{EstimateFrame, FRAME_VERSION, RowFrame},
    name::EstimatorName,
    rows::{Column, Columns},
};
use rovi_estimation::Document;
use twin::{
    estimates::{Outbox, Sender},
    filter::{Filter, Rules},
};

pub(crate) const DOCUMENT: &str =
    include_str!("../../../tests/golden/joint_corrected_physics.json");

/// One row: `test_time`, `current`, `voltage`, `temperature`.
pub(crate) type Row = [f64; 4];

/// A long discharge with a swinging current.
pub(crate) fn drive(rows: u32) -> Vec<Row> {
    let row = |k: u32| {
        let time = f64::from(k);
        let swing = (time * 0.05).sin();
        [
            time,
            -1.0 - 0.8 * swing,
            3.7 - 1e-5 * time - 0.02 * swing,
            25.0 + swing,
        ]
    };
    (1..=rows).map(row).collect()
}

/// Cuts rows into frames of `size`, from the row `first_seq`.
pub(crate) fn frames(battery: &str, rows: &[Row], first_seq: i64, size: usize) -> Vec<RowFrame> {
    let frame = |(chunk, rows): (usize, &[Row])| {
        let first = first_seq + i64::try_from(chunk * size).unwrap();
        frame(battery, (1, 1), first, rows)
    };
    rows.chunks(size).enumerate().map(frame).collect()
}

/// Makes a frame of an epoch and segment.
pub(crate) fn frame(
    battery: &str,
    (epoch, segment): (i64, i32),
    first_seq: i64,
    rows: &[Row],
) -> RowFrame {
    let column = |place: usize| Column::Float(rows.iter().map(|row| Some(row[place])).collect());
    let names = ["test_time", "current", "voltage", "temperature"];
    let columns = names.iter().enumerate();
    let columns = columns.map(|(place, name)| ((*name).to_owned(), column(place)));
    RowFrame {
        v: FRAME_VERSION,
        battery: battery.parse().unwrap(),
        epoch,
        segment,
        first_seq,
        received: vec![0; rows.len()],
        columns: Columns::new(columns.collect()).unwrap(),
    }
}

/// Every number of an estimate, as bits.
pub(crate) type Bits = BTreeMap<String, u64>;

/// Estimates by epoch and `seq`.
pub(crate) type Estimates = BTreeMap<(i64, i64), Bits>;

/// Takes estimate frames apart.
///
/// # Panics
/// One row was estimated differently before.
pub(crate) fn add_estimates(estimates: &mut Estimates, frame: &EstimateFrame) {
    for (row, &seq) in frame.seq.iter().enumerate() {
        let columns = frame.columns.iter();
        let mut bits: Bits = columns
            .map(|(name, column)| {
                (
                    name.to_owned(),
                    column.number(row).unwrap_or(f64::NAN).to_bits(),
                )
            })
            .collect();
        bits.insert("test_time".to_owned(), frame.test_time[row].to_bits());
        if let Some(before) = estimates.insert((frame.epoch, seq), bits.clone()) {
            assert_eq!(
                before, bits,
                "row {seq} was estimated again and differently"
            );
        }
    }
}

/// What a run gives that was never interrupted.
pub(crate) struct Uninterrupted {
    pub(crate) mean: Vec<f64>,
    pub(crate) covariance: Vec<f64>,
    pub(crate) estimates: Estimates,
}

/// Runs an estimator over frames without any bus.
pub(crate) fn uninterrupted(frames: &[RowFrame]) -> Uninterrupted {
    let (document, _) = Document::from_json(DOCUMENT).unwrap();
    let sender = Sender {
        battery: frames[0].battery.clone(),
        estimator: EstimatorName::default(),
        revision: 1,
        generation: 1,
    };
    let mut outbox = Outbox::with_health(sender, document.state_names().into());
    let rules = Rules {
        valid_from: 0.0,
        horizon: 3600.0,
    };
    let mut filter = Filter::new(document, rules, frames[0].epoch);
    let mut estimates = Estimates::new();
    for frame in frames {
        filter.take(frame, &mut outbox);
        for bytes in outbox.take().0 {
            add_estimates(&mut estimates, &EstimateFrame::decode(&bytes).unwrap());
        }
    }
    Uninterrupted {
        mean: filter.estimator().mean().to_vec(),
        covariance: filter.estimator().covariance().to_vec(),
        estimates,
    }
}
