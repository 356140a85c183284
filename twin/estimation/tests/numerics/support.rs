//! Running an estimator over a recorded trajectory, and measuring how far it strays.

use rovi_estimation::{Cell, Document, Estimator, Observation, Simulator};
use serde_json::{Value, json};

use crate::table::Table;

/// Keys of an estimator's document: all else in a reference file says where it came from.
const DOCUMENT_KEYS: [&str; 14] = [
    "kind",
    "filter",
    "current_behavior",
    "normalize_asoh",
    "asoh",
    "initial_transients",
    "initial_inputs",
    "covariance_transient",
    "covariance_asoh",
    "transient_process_noise",
    "asoh_process_noise",
    "sensor_noise",
    "ukf",
    "initialise",
];

/// The document within a reference file, to be run as Moirae runs it.
pub(crate) fn document_of(reference: &Value) -> Document {
    let mut document = json!({"compat": "moirae-0.3"});
    for key in DOCUMENT_KEYS {
        document[key] = reference[key].clone();
    }
    Document::from_json(&document.to_string()).unwrap().0
}

/// The cell within a reference file.
pub(crate) fn cell_of(asoh: &Value, transients: &Value, behavior: &Value, compat: &Value) -> Cell {
    let cell = json!({
        "asoh": asoh, "initial_transients": transients, "current_behavior": behavior,
        "compat": compat,
    });
    Cell::from_json(&cell.to_string()).unwrap().0
}

/// The largest deviations met on a trajectory.
#[derive(Debug, Default)]
pub(crate) struct Deviations {
    /// Of means, in posterior standard deviations.
    pub(crate) mean: f64,
    /// Of predicted voltages, V.
    pub(crate) voltage: f64,
    /// Of covariances, in products of standard deviations.
    pub(crate) covariance: f64,
    pub(crate) repairs: u64,
}

impl Deviations {
    pub(crate) fn assert_within(&self, mean: f64, voltage: f64, covariance: f64) {
        assert!(self.mean <= mean, "mean strays by {} sd", self.mean);
        assert!(
            self.voltage <= voltage,
            "predicted voltage strays by {} V",
            self.voltage
        );
        assert!(
            self.covariance <= covariance,
            "covariance strays by {}",
            self.covariance
        );
        assert_eq!(self.repairs, 0);
    }
}

/// Row `k` of a trajectory.
pub(crate) fn observation(table: &Table, k: usize) -> Observation {
    Observation {
        time: table.column("test_time")[k],
        current: table.column("current")[k],
        voltage: table.column("voltage")[k],
        temperature: Some(table.column("temperature")[k]),
    }
}

/// Runs the first `rows` of a trajectory and compares each.
pub(crate) fn deviations(document: &Document, table: &Table, rows: usize) -> Deviations {
    let mut estimator = Estimator::new(document);
    let names = estimator.state_names().to_vec();
    let n = names.len();
    let means: Vec<&[f64]> = names
        .iter()
        .map(|name| table.column(&format!("mean[{name}]")))
        .collect();
    let covariances: Vec<&[f64]> = (0..n * n)
        .map(|at| table.column(&format!("cov[{}][{}]", at / n, at % n)))
        .collect();
    let mut worst = Deviations::default();
    for k in 0..rows {
        let step = estimator.observe(&observation(table, k)).unwrap();
        assert_eq!(step.is_none(), k == 0);
        if let Some(step) = step {
            let off = (step.predicted_voltage - table.column("v_pred")[k]).abs();
            worst.voltage = worst.voltage.max(off);
        }
        let sd: Vec<f64> = (0..n).map(|i| covariances[i * n + i][k].sqrt()).collect();
        for i in 0..n {
            worst.mean = worst
                .mean
                .max((estimator.mean()[i] - means[i][k]).abs() / sd[i]);
            for j in 0..n {
                let off = (estimator.covariance()[i * n + j] - covariances[i * n + j][k]).abs();
                worst.covariance = worst.covariance.max(off / (sd[i] * sd[j]));
            }
        }
    }
    worst.repairs = estimator.repairs();
    worst
}

/// The largest relative deviation of a simulated trajectory over all its columns.
pub(crate) fn simulation_deviation(cell: &Cell, table: &Table) -> f64 {
    let names = cell.transient_names().to_vec();
    let mut simulator = Simulator::new(cell);
    let mut worst = 0.0_f64;
    for k in 0..table.rows() {
        let at = |name: &str| table.column(name)[k];
        let voltage = simulator
            .step(at("time"), at("current"), Some(at("temperature")))
            .unwrap();
        let transients = simulator.transients().iter().copied();
        let ours = transients.chain([voltage]);
        let theirs = names
            .iter()
            .map(|name| at(name))
            .chain([at("terminal_voltage")]);
        for (a, b) in ours.zip(theirs) {
            // Hysteresis and branch currents decay towards 0: below a microvolt only the absolute error counts.
            worst = worst.max((a - b).abs() / b.abs().max(1e-6));
        }
    }
    worst
}

/// Whether a Cholesky factor exists.
pub(crate) fn is_positive_definite(matrix: &[f64], n: usize) -> bool {
    let mut factor = matrix.to_vec();
    for j in 0..n {
        for k in 0..j {
            for i in j..n {
                factor[i * n + j] -= factor[i * n + k] * factor[j * n + k];
            }
        }
        if factor[j * n + j] <= 0.0 {
            return false;
        }
        let root = factor[j * n + j].sqrt();
        for i in j..n {
            factor[i * n + j] /= root;
        }
    }
    true
}
