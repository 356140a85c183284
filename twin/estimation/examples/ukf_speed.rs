//! Steps per second of the filter on one core, as one JSON line: `{"ukf4_steps_per_s":..,"ukf8_steps_per_s":..}`.
//!
//! Four states are soc, hysteresis, capacity and resistance; eight add two RC pairs and their resistances.

#![expect(clippy::print_stdout, reason = "the line is the result")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use rovi_estimation::{Document, Estimator, Observation, StepError};
use serde_json::{Value, json};

/// How long each size is measured.
const MEASURED: Duration = Duration::from_secs(2);
/// Rows between two looks at the clock.
const ROWS: u32 = 4096;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let four = steps_per_second(&document(0))?;
    let eight = steps_per_second(&document(2))?;
    println!(
        "{}",
        json!({"ukf4_steps_per_s": four.round(), "ukf8_steps_per_s": eight.round()})
    );
    Ok(())
}

/// The document of a cell with `pairs` RC pairs, their resistances estimated.
fn document(pairs: usize) -> Value {
    let pair = json!({
        "updatable": ["r"],
        "r": {"updatable": ["base_values"], "base_values": 0.01},
        "c": {"base_values": 2000.0},
    });
    json!({
        "kind": "joint",
        "asoh": {
            "updatable": ["q_t", "r0", "rc_elements"],
            "q_t": {"updatable": ["base_values"], "base_values": 10.0},
            "ocv": {"ocv_ref": {"base_values":
                [2.9, 3.2, 3.3, 3.38, 3.45, 3.54, 3.66, 3.79, 3.93, 4.08, 4.2]}},
            "r0": {"updatable": ["base_values"], "base_values": 0.02},
            "rc_elements": vec![pair; pairs],
            "h0": {"base_values": 0.01},
        },
        "initial_transients": {"soc": 0.5},
        "covariance_transient": diagonal(2 + pairs, 1e-4),
        "covariance_asoh": diagonal(2 + pairs, 1e-6),
        "transient_process_noise": diagonal(2 + pairs, 1e-10),
        "asoh_process_noise": diagonal(2 + pairs, 1e-14),
        "sensor_noise": 1e-6,
    })
}

fn diagonal(size: usize, variance: f64) -> Vec<Vec<f64>> {
    let entry = |i, j| if i == j { variance } else { 0.0 };
    (0..size)
        .map(|i| (0..size).map(|j| entry(i, j)).collect())
        .collect()
}

fn steps_per_second(document: &Value) -> Result<f64, Box<dyn std::error::Error>> {
    let (document, _) = Document::from_json(&document.to_string())?;
    let mut estimator = Estimator::new(&document);
    let mut row = 0_u32;
    run(&mut estimator, &mut row)?;
    let begun = Instant::now();
    let first = row;
    while begun.elapsed() < MEASURED {
        run(&mut estimator, &mut row)?;
    }
    black_box(estimator.mean());
    Ok(f64::from(row - first) / begun.elapsed().as_secs_f64())
}

/// Charges and discharges by turns around half charge, one row a second.
fn run(estimator: &mut Estimator, row: &mut u32) -> Result<(), StepError> {
    for _ in 0..ROWS {
        let current = if (*row / 900).is_multiple_of(2) {
            2.0
        } else {
            -2.0
        };
        let observation = Observation {
            time: f64::from(*row),
            current,
            voltage: 3.55 + 0.02 * current,
            temperature: None,
        };
        black_box(estimator.observe(black_box(&observation))?);
        *row += 1;
    }
    Ok(())
}
