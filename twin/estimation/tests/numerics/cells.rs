//! A cell, documents that believe in it, and noise that is the same on every machine.

use rovi_estimation::{Cell, Document, Observation, Simulator};
use serde_json::{Value, json};

/// Noise of unit variance: sums of a linear congruential generator.
pub(crate) struct Noise(u64);

impl Noise {
    pub(crate) fn new(seed: u64) -> Self {
        let mut noise = Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        noise.next();
        noise
    }

    pub(crate) fn uniform(&mut self) -> f64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        f64::from(u32::try_from(self.0 >> 32).unwrap()) / f64::from(u32::MAX)
    }

    pub(crate) fn next(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }
}

fn asoh() -> Value {
    json!({
        "updatable": ["q_t", "r0"],
        "q_t": {"updatable": ["base_values"], "base_values": 2.0},
        "ocv": {"ocv_ref": {"base_values": [3.0, 3.3, 3.5, 3.6, 3.8, 4.2]}},
        "r0": {"updatable": ["base_values"], "base_values": 0.05},
        "rc_elements": [{"r": {"base_values": 0.01}, "c": {"base_values": 2000.0}}],
        "h0": {"base_values": 0.005},
    })
}

/// 2 A h, 50 mohm, one RC pair of 20 s, 5 mV of hysteresis; half full.
pub(crate) fn cell() -> Cell {
    let cell = json!({"asoh": asoh(), "initial_transients": {"soc": 0.5}});
    Cell::from_json(&cell.to_string()).unwrap().0
}

pub(crate) fn diagonal(variances: &[f64]) -> Value {
    let n = variances.len();
    let entry = |i: usize, j: usize| if i == j { variances[i] } else { 0.0 };
    let row = |i| (0..n).map(|j| entry(i, j)).collect::<Vec<_>>();
    json!((0..n).map(row).collect::<Vec<_>>())
}

/// The document of that cell: `soc`, `i_rc`, `hyst`, capacity, resistance; 1 mV of sensor noise.
pub(crate) fn document_json(changes: &Value) -> Value {
    let mut document = json!({
        "kind": "joint",
        "asoh": asoh(),
        "initial_transients": {"soc": 0.5},
        "covariance_transient": diagonal(&[1e-3, 1e-4, 1e-7]),
        "covariance_asoh": diagonal(&[0.01, 2.5e-5]),
        "transient_process_noise": diagonal(&[1e-10, 1e-8, 1e-11]),
        "asoh_process_noise": diagonal(&[1e-10, 1e-13]),
        "sensor_noise": 1e-6,
    });
    if let Value::Object(changes) = changes {
        document.as_object_mut().unwrap().extend(changes.clone());
    }
    document
}

pub(crate) fn document_with(changes: &Value) -> Document {
    let text = document_json(changes).to_string();
    Document::from_json(&text).unwrap().0
}

/// The current of row `k`, A: charge and discharge around half charge, with rests and changes.
pub(crate) fn current(k: u32) -> f64 {
    [0.0, 1.5, -2.0, 3.0, -1.0, 0.0, -1.5][k as usize / 40 % 7]
}

/// Rows of `cell`, 2 s apart, with 1 mV of noise.
pub(crate) fn rows_of(cell: &Cell, count: u32, seed: u64) -> Vec<Observation> {
    let mut simulator = Simulator::new(cell);
    let mut noise = Noise::new(seed);
    (0..count)
        .map(|k| {
            let (time, current) = (2.0 * f64::from(k), current(k));
            let voltage = simulator.step(time, current, None).unwrap();
            Observation {
                time,
                current,
                voltage: voltage + 1e-3 * noise.next(),
                temperature: None,
            }
        })
        .collect()
}
