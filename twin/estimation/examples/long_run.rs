//! Ten million steps of every kind: the covariance stays symmetric and positive definite. One JSON line each.
//!
//! `cargo run --release -p rovi-estimation --example long_run [steps]`; ends with an error where the claim fails.
//! The last field is a hash of the final beliefs: it is the same for every processor the code is built for.

#![expect(clippy::print_stdout, reason = "the lines are the result")]

use rovi_estimation::{Document, Estimator, Observation};
use serde_json::{Value, json};

/// Steps between two looks at the covariance.
const LOOK: u32 = 10_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let steps = match std::env::args().nth(1) {
        Some(steps) => steps.parse()?,
        None => 10_000_000,
    };
    for changes in [
        json!({}),
        json!({"current_behavior": "linear"}),
        json!({"filter": "square_root_ukf"}),
        json!({"filter": "ekf"}),
        json!({"kind": "dual"}),
        json!({"kind": "dual", "compat": "moirae-0.3"}),
        json!({"kind": "coulomb_counting"}),
    ] {
        let estimator = run(&document(&changes)?, steps)?;
        let hash = hash(&estimator);
        println!(
            "{}",
            json!({"changes": changes, "steps": steps, "repairs": estimator.repairs(), "hash": hash})
        );
    }
    Ok(())
}

fn document(changes: &Value) -> Result<Document, Box<dyn std::error::Error>> {
    let diagonal = |variances: &[f64]| -> Vec<Vec<f64>> {
        let entry = |i: usize, j: usize| {
            if i == j {
                variances.get(i).copied().unwrap_or(0.0)
            } else {
                0.0
            }
        };
        let n = variances.len();
        (0..n)
            .map(|i| (0..n).map(|j| entry(i, j)).collect())
            .collect()
    };
    let mut document = json!({
        "kind": "joint",
        "asoh": {
            "updatable": ["q_t", "r0"],
            "q_t": {"updatable": ["base_values"], "base_values": 2.0},
            "ocv": {"ocv_ref": {"base_values": [3.0, 3.3, 3.5, 3.6, 3.8, 4.2]}},
            "r0": {"updatable": ["base_values"], "base_values": 0.05,
                   "temperature_dependence_factor": 0.01},
            "rc_elements": [{"r": {"base_values": 0.01}, "c": {"base_values": 2000.0}}],
            "h0": {"base_values": 0.005},
        },
        "initial_transients": {"soc": 0.5},
        "covariance_transient": diagonal(&[1e-3, 1e-4, 1e-7]),
        "covariance_asoh": diagonal(&[0.01, 2.5e-5]),
        "transient_process_noise": diagonal(&[1e-10, 1e-8, 1e-11]),
        "asoh_process_noise": diagonal(&[1e-10, 1e-13]),
        "sensor_noise": 1e-6,
    });
    for (key, value) in changes.as_object().into_iter().flatten() {
        if let Some(object) = document.as_object_mut() {
            object.insert(key.clone(), value.clone());
        }
    }
    Ok(Document::from_json(&document.to_string())?.0)
}

fn run(document: &Document, steps: u32) -> Result<Estimator, Box<dyn std::error::Error>> {
    let mut estimator = Estimator::new(document);
    let mut random = 1_u64;
    for k in 0..=steps {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let noise = f64::from(u32::try_from(random >> 32)?) / f64::from(u32::MAX) - 0.5;
        let current = match k / 300 % 5 {
            0 => 2.0,
            1 => -2.0,
            2 => 0.0,
            3 => 1.0,
            _ => -1.0,
        };
        estimator.observe(&Observation {
            time: f64::from(k),
            current,
            voltage: 3.55 + 0.06 * current + 3e-3 * noise,
            temperature: Some(25.0 + 5.0 * noise),
        })?;
        if k % LOOK == 0 {
            check(&estimator)?;
        }
    }
    check(&estimator)?;
    Ok(estimator)
}

fn check(estimator: &Estimator) -> Result<(), String> {
    let n = estimator.mean().len();
    let mut factor: Vec<Vec<f64>> = estimator
        .covariance()
        .chunks(n)
        .map(<[f64]>::to_vec)
        .collect();
    for i in 0..n {
        for j in 0..i {
            let (a, b) = (entry(&factor, i, j), entry(&factor, j, i));
            if a.to_bits() != b.to_bits() {
                return Err(format!("not symmetric at {i}, {j}: {a} and {b}"));
            }
        }
    }
    for j in 0..n {
        let pivot = entry(&factor, j, j);
        if pivot.is_nan() || pivot <= 0.0 {
            return Err(format!("not positive definite: pivot {pivot} of state {j}"));
        }
        for i in j + 1..n {
            let share = entry(&factor, i, j) / pivot;
            let above = factor.get(j).cloned().unwrap_or_default();
            if let Some(row) = factor.get_mut(i) {
                row.iter_mut()
                    .zip(above)
                    .for_each(|(value, other)| *value -= share * other);
            }
        }
    }
    Ok(())
}

fn entry(matrix: &[Vec<f64>], i: usize, j: usize) -> f64 {
    matrix
        .get(i)
        .and_then(|row| row.get(j))
        .copied()
        .unwrap_or(f64::NAN)
}

/// FNV-1a over the bits of mean and covariance.
fn hash(estimator: &Estimator) -> String {
    let values = estimator.mean().iter().chain(estimator.covariance());
    let bytes = values.flat_map(|value| value.to_bits().to_le_bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}
