//! The simulated cell, its metadata, and an estimator document that knows it badly.

use serde_json::{Value, json};

use super::{MEAN_TEMPERATURE, Plan};

/// Capacity of the new cell, A·h.
pub const CAPACITY_AH: f64 = 2.5;
/// Series resistance of the new cell at 25 °C, ohm.
pub const R0_OHM: f64 = 0.030;
/// Resistance of the new cell's RC pair, ohm.
pub const R1_OHM: f64 = 0.015;
const C1_FARAD: f64 = 2000.0;
/// How the series resistance falls with temperature, 1/°C.
const R0_TEMPERATURE_FACTOR: f64 = 0.01;
/// State of charge of a charged cell.
pub(super) const CHARGED_SOC: f64 = 0.9;
/// Open-circuit voltage at state of charge 0, 0.1 … 1, V: that of a nickel-manganese-cobalt cell.
const OCV_V: [f64; 11] = [
    3.0, 3.42, 3.52, 3.59, 3.63, 3.68, 3.77, 3.88, 3.98, 4.08, 4.2,
];

/// How wrong the estimator's first guesses are, as factors on the truth.
const GUESSED_CAPACITY: f64 = 0.8;
const GUESSED_R0: f64 = 2.0;
const GUESSED_R1: f64 = 0.5;
/// How wrong its first state of charge is.
const GUESSED_SOC_ERROR: f64 = -0.1;
/// How unsure the estimator says it is, as a share of its guesses.
const GUESS_DEVIATION: f64 = 0.3;

/// The cell as it is when new, for `rovi_estimation::Cell`.
pub(super) fn true_cell(initial_soc: f64) -> Value {
    json!({
        "current_behavior": "constant",
        "asoh": asoh([CAPACITY_AH, R0_OHM, R1_OHM]),
        "initial_transients": transients(initial_soc),
    })
}

/// Makes a native estimator document for a simulated cell, with deliberately wrong capacity,
/// resistances and state of charge, so that they can be seen to converge.
pub fn estimator_document(plan: &Plan) -> Value {
    let guesses = [
        CAPACITY_AH * GUESSED_CAPACITY,
        R0_OHM * GUESSED_R0,
        R1_OHM * GUESSED_R1,
    ];
    let unsure = guesses.map(|guess| (guess * GUESS_DEVIATION).powi(2));
    #[expect(clippy::cast_precision_loss, reason = "row numbers are far below 2^52")]
    let rows = plan.rows.max(1) as f64;
    // A random walk gets as far within all rows as the cell ages.
    let walk = |share: f64, new: f64| (share.max(1e-3) * new).powi(2) / rows;
    let walks = [
        walk(plan.fade, CAPACITY_AH),
        walk(plan.growth, R0_OHM),
        walk(plan.growth, R1_OHM),
    ];
    json!({
        "kind": "joint",
        "current_behavior": "constant",
        "normalize_asoh": true,
        "asoh": asoh(guesses),
        "initial_transients": transients(plan.initial_soc + GUESSED_SOC_ERROR),
        "covariance_transient": diagonal([1e-2, 1e-4, 1e-10]),
        "covariance_asoh": diagonal(unsure),
        "transient_process_noise": diagonal([1e-10, 1e-8, 1e-14]),
        "asoh_process_noise": diagonal(walks),
        "sensor_noise": [[plan.noise_v.max(1e-4).powi(2)]],
        "ukf": {"alpha_param": 1.0, "beta_param": 2.0, "kappa_param": 0.0},
    })
}

/// Makes metadata of battery-data-toolkit's form for a simulated cell.
pub fn metadata(plan: &Plan) -> Value {
    json!({
        "name": plan.name,
        "comments": format!(
            "simulated: {:?} profile, seed {}, a row each {} s, capacity -{} %, resistance +{} %",
            plan.profile, plan.seed, plan.interval_s, plan.fade * 100.0, plan.growth * 100.0
        ),
        "is_measurement": false,
        "battery": {"nominal_capacity": CAPACITY_AH, "cathode": {"name": "NMC532"}},
        "modeling": {
            "name": "rovicli simulate",
            "version": env!("CARGO_PKG_VERSION"),
            "type": "empirical",
        },
    })
}

/// Health parameters in Moirae's form; capacity and resistances are to be estimated.
fn asoh([capacity, r0, r1]: [f64; 3]) -> Value {
    json!({
        "updatable": ["q_t", "r0", "rc_elements"],
        "q_t": {"updatable": ["base_values"], "base_values": [[capacity]]},
        "ce": [[1.0]],
        "ocv": {
            "updatable": [],
            "ocv_ref": fixed(&OCV_V),
            "ocv_ent": fixed(&[0.0]),
            "reference_temperature": [[MEAN_TEMPERATURE]],
        },
        "r0": estimated_resistance(r0, R0_TEMPERATURE_FACTOR),
        "c0": null,
        "rc_elements": [{
            "updatable": ["r"],
            "r": estimated_resistance(r1, 0.0),
            "c": fixed(&[C1_FARAD]),
        }],
        "h0": {
            "updatable": [],
            "base_values": [[0.0]],
            "soc_pinpoints": null,
            "interpolation_style": "linear",
            "gamma": [[50.0]],
        },
    })
}

/// A parameter by state of charge, at equally spaced points from 0 to 1.
fn fixed(values: &[f64]) -> Value {
    json!({
        "updatable": [],
        "base_values": [values],
        "soc_pinpoints": null,
        "interpolation_style": "linear",
    })
}

fn estimated_resistance(ohm: f64, temperature_factor: f64) -> Value {
    json!({
        "updatable": ["base_values"],
        "base_values": [[ohm]],
        "soc_pinpoints": null,
        "interpolation_style": "linear",
        "reference_temperature": MEAN_TEMPERATURE,
        "temperature_dependence_factor": [[temperature_factor]],
    })
}

fn transients(soc: f64) -> Value {
    json!({"soc": [[soc]], "q0": null, "i_rc": [[0.0]], "hyst": [[0.0]]})
}

fn diagonal(variances: [f64; 3]) -> Value {
    let [a, b, c] = variances;
    json!([[a, 0.0, 0.0], [0.0, b, 0.0], [0.0, 0.0, c]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_true_cell_is_read_without_a_warning() {
        let (cell, warnings) =
            rovi_estimation::Cell::from_json(&true_cell(CHARGED_SOC).to_string()).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        assert_eq!(cell.transient_names(), ["soc", "i_rc", "hyst"]);
    }
}
