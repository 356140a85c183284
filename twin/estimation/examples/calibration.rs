//! Whether 95 % intervals cover 95 %: 400 simulated cells whose truth walks as the filter believes, one sample a cell
//! and state at the end. One JSON line a kind; ends with an error where a joint filter leaves 95 +- 2.5 %.
//!
//! `cargo run --release -p rovi-estimation --example calibration`. The second run of each ages the cell outside the
//! model (its capacity falls steadily): what is covered then is reported, not bounded.

#![expect(clippy::print_stdout, reason = "the lines are the result")]

use rovi_estimation::{Cell, Document, Estimator, Observation, Simulator};
use serde_json::{Value, json};

const CELLS: u32 = 400;
const ROWS: u32 = 1500;
const CAPACITY: f64 = 2.0;
const RESISTANCE: f64 = 0.05;
/// Initial standard deviations of state of charge, capacity and resistance.
const INITIAL: [f64; 3] = [0.03, 0.05, 0.004];
/// Steps of the walk of capacity and resistance.
const WALK: [f64; 2] = [2e-4, 1e-5];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut failed = Vec::new();
    for filter in ["ukf", "square_root_ukf", "ekf"] {
        for ageing in [0.0, 0.1] {
            let covered = covered(filter, ageing)?;
            let shares = covered.map(|count| 100.0 * f64::from(count) / f64::from(CELLS));
            println!(
                "{}",
                json!({"filter": filter, "ageing": ageing, "covered_percent":
                    {"soc": shares[0], "capacity": shares[1], "resistance": shares[2]}})
            );
            if ageing == 0.0 && shares.iter().any(|share| (share - 95.0).abs() > 2.5) {
                failed.push(filter);
            }
        }
    }
    if failed.is_empty() {
        Ok(())
    } else {
        Err(format!("intervals do not cover 95 +- 2.5 %: {failed:?}").into())
    }
}

fn asoh() -> Value {
    json!({
        "updatable": ["q_t", "r0"],
        "q_t": {"updatable": ["base_values"], "base_values": CAPACITY},
        "ocv": {"ocv_ref": {"base_values": [3.0, 4.0]}},
        "r0": {"updatable": ["base_values"], "base_values": RESISTANCE},
    })
}

fn document(filter: &str) -> Result<Document, Box<dyn std::error::Error>> {
    let square = |value: f64| value * value;
    let document = json!({
        "kind": "joint", "filter": filter,
        "asoh": asoh(),
        "initial_transients": {"soc": 0.5},
        "covariance_transient": [[square(INITIAL[0]), 0.0], [0.0, 1e-14]],
        "covariance_asoh": [[square(INITIAL[1]), 0.0], [0.0, square(INITIAL[2])]],
        "transient_process_noise": [[1e-16, 0.0], [0.0, 1e-16]],
        "asoh_process_noise": [[square(WALK[0]), 0.0], [0.0, square(WALK[1])]],
        "sensor_noise": 1e-5,
    });
    Ok(Document::from_json(&document.to_string())?.0)
}

fn covered(filter: &str, ageing: f64) -> Result<[u32; 3], Box<dyn std::error::Error>> {
    let document = document(filter)?;
    let mut counts = [0; 3];
    for seed in 0..CELLS {
        let mut noise = Noise(u64::from(seed).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        noise.normal();
        let soc = 0.5 + INITIAL[0] * noise.normal();
        let mut capacity = CAPACITY + INITIAL[1] * noise.normal();
        let mut resistance = RESISTANCE + INITIAL[2] * noise.normal();
        let cell = json!({"asoh": asoh(), "initial_transients": {"soc": soc}});
        let (cell, _) = Cell::from_json(&cell.to_string())?;
        let mut simulator = Simulator::new(&cell);
        let mut estimator = Estimator::new(&document);
        for k in 0..=ROWS {
            // 40 % of the capacity up and down, with a smaller wave on it that shows the resistance.
            let slow = if (k / 300).is_multiple_of(2) {
                1.0
            } else {
                -1.0
            };
            let current = slow + if (k / 5).is_multiple_of(2) { 0.5 } else { -0.5 };
            simulator.set_capacity_ah(capacity);
            simulator.set_r0_ohm(resistance);
            let time = 10.0 * f64::from(k);
            let voltage = simulator.step(time, current, None)? + 1e-5_f64.sqrt() * noise.normal();
            estimator.observe(&Observation {
                time,
                current,
                voltage,
                temperature: None,
            })?;
            if k < ROWS {
                capacity += WALK[0] * noise.normal() - ageing * CAPACITY / f64::from(ROWS);
                resistance += WALK[1] * noise.normal();
            }
        }
        // The walk after the last step is the filter's next one.
        let truth = [simulator.soc(), capacity, resistance];
        let deviations: Vec<f64> = estimator.standard_deviations().collect();
        let states = [(0, truth[0]), (2, truth[1]), (3, truth[2])];
        for (count, (state, truth)) in counts.iter_mut().zip(states) {
            let mean = estimator.mean().get(state).ok_or("no such state")?;
            let deviation = deviations.get(state).ok_or("no such state")?;
            *count += u32::from((mean - truth).abs() <= 1.959_964 * deviation);
        }
    }
    Ok(counts)
}

/// Noise of unit variance that is the same on every machine.
struct Noise(u64);

impl Noise {
    fn uniform(&mut self) -> f64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        f64::from(u32::try_from(self.0 >> 32).unwrap_or(u32::MAX)) / f64::from(u32::MAX)
    }

    fn normal(&mut self) -> f64 {
        // Box and Muller; the exact tails matter for coverage.
        let radius = (-2.0 * libm::log(self.uniform().max(1e-300))).sqrt();
        radius * libm::cos(std::f64::consts::TAU * self.uniform())
    }
}
