//! What `current_noise` makes of a current that is measured with an error.

use rovi_estimation::{Cell, Document, Estimator, Observation, Simulator};
use serde_json::{Value, json};

use crate::cells::{Noise, diagonal};

const CAPACITY: f64 = 2.0;
const RESISTANCE: f64 = 0.05;
/// Standard deviation of the measured current, A.
const CURRENT_DEVIATION: f64 = 0.2;
const SENSOR: f64 = 1e-4;
const INITIAL_SOC: f64 = 1e-5;
const SECONDS: f64 = 30.0;

/// Every filter, by what is changed in a document.
fn filters() -> [Value; 5] {
    [
        json!({}),
        json!({"filter": "square_root_ukf"}),
        json!({"filter": "ekf"}),
        json!({"kind": "dual"}),
        json!({"kind": "coulomb_counting"}),
    ]
}

fn asoh() -> Value {
    json!({
        "updatable": ["r0"],
        "q_t": {"base_values": CAPACITY},
        "ocv": {"ocv_ref": {"base_values": [3.0, 4.0]}},
        "r0": {"updatable": ["base_values"], "base_values": RESISTANCE},
    })
}

/// A linear cell whose resistance is as good as known.
fn document(changes: &Value, behavior: &str, current_noise: Option<f64>) -> Document {
    let mut document = json!({
        "kind": "joint",
        "asoh": asoh(),
        "current_behavior": behavior,
        "initial_transients": {"soc": 0.5},
        "covariance_transient": diagonal(&[INITIAL_SOC, 1e-16]),
        "covariance_asoh": diagonal(&[1e-16]),
        "transient_process_noise": diagonal(&[1e-16, 1e-18]),
        "asoh_process_noise": diagonal(&[1e-20]),
        "sensor_noise": SENSOR,
        "current_noise": current_noise,
    });
    let changes = changes.as_object().unwrap().clone();
    document.as_object_mut().unwrap().extend(changes);
    Document::from_json(&document.to_string()).unwrap().0
}

/// The share of simulated cells whose charge lies within the 95 % interval after the last row. The true current drives
/// the cell, the filter sees it with noise.
fn covered(document: &Document, behavior: &str) -> f64 {
    const CELLS: u32 = 1000;
    let mut count = 0;
    for seed in 0..CELLS {
        let mut noise = Noise::new(u64::from(seed));
        let soc = 0.5 + INITIAL_SOC.sqrt() * noise.next();
        let cell = json!({"asoh": asoh(), "current_behavior": behavior,
            "initial_transients": {"soc": soc}});
        let mut simulator = Simulator::new(&Cell::from_json(&cell.to_string()).unwrap().0);
        let mut estimator = Estimator::new(document);
        for k in 0..60_u32 {
            let time = SECONDS * f64::from(k);
            let current = if (k / 7).is_multiple_of(2) { 1.0 } else { -1.0 };
            let voltage = simulator.step(time, current, None).unwrap();
            let row = Observation {
                time,
                current: current + CURRENT_DEVIATION * noise.next(),
                voltage: voltage + SENSOR.sqrt() * noise.next(),
                temperature: None,
            };
            estimator.observe(&row).unwrap();
        }
        let deviation = estimator.standard_deviations().next().unwrap();
        let off = (estimator.soc() - simulator.soc()).abs();
        count += u32::from(off <= 1.959_964 * deviation);
    }
    100.0 * f64::from(count) / f64::from(CELLS)
}

#[test]
fn intervals_of_charge_cover_what_they_state_only_if_the_noise_of_the_current_is_told() {
    for changes in filters() {
        for behavior in ["constant", "linear"] {
            let covered = |noise| covered(&document(&changes, behavior, noise), behavior);
            let told = covered(Some(CURRENT_DEVIATION * CURRENT_DEVIATION));
            let untold = covered(None);
            assert!((told - 95.0).abs() < 2.5, "{changes} {behavior}: {told} %");
            assert!(untold < 70.0, "{changes} {behavior}: {untold} %");
        }
    }
}

#[test]
fn one_step_has_the_variances_and_the_covariance_that_a_linear_cell_has_exactly() {
    // soc- = soc + (w0 e0 + w1 e1), v = soc- + r0 e1, up to signs that both share.
    let whole = SECONDS / (3600.0 * CAPACITY);
    for (behavior, [w0, w1]) in [
        ("constant", [whole, 0.0]),
        ("linear", [whole / 2.0, whole / 2.0]),
    ] {
        let noise = CURRENT_DEVIATION * CURRENT_DEVIATION;
        let before = INITIAL_SOC + 1e-16;
        let predicted = before + noise * (w0 * w0 + w1 * w1);
        let along = w1 + RESISTANCE;
        let variance = before + noise * (w0 * w0 + along * along) + SENSOR;
        let cross = before + noise * (w0 * w0 + w1 * along);
        for changes in filters() {
            let mut estimator = Estimator::new(&document(&changes, behavior, Some(noise)));
            let mut step = None;
            for k in 0..2 {
                let row = Observation {
                    time: SECONDS * f64::from(k),
                    current: 1.0,
                    voltage: 3.56,
                    temperature: None,
                };
                step = estimator.observe(&row).unwrap();
            }
            let is_counting = changes["kind"] == "coulomb_counting";
            let learnt = if is_counting {
                0.0
            } else {
                cross * cross / variance
            };
            let close = |got: f64, expected: f64| (got / expected - 1.0).abs() < 1e-6;
            let (got, soc) = (step.unwrap().predicted_variance, estimator.covariance()[0]);
            assert!(
                close(got, variance),
                "{changes} {behavior}: {got}, not {variance}"
            );
            let posterior = predicted - learnt;
            assert!(
                close(soc, posterior),
                "{changes} {behavior}: {soc}, not {posterior}"
            );
        }
    }
}

#[test]
fn a_new_segment_knows_nothing_of_the_error_of_its_first_current() {
    let noise = CURRENT_DEVIATION * CURRENT_DEVIATION;
    for changes in filters() {
        let mut estimator = Estimator::new(&document(&changes, "constant", Some(noise)));
        let at = estimator.state_names().iter();
        let at = at.take_while(|name| *name != "current_error").count();
        let n = estimator.mean().len();
        let row = |k: u32| Observation {
            time: SECONDS * f64::from(k),
            current: 1.0,
            voltage: 3.5,
            temperature: None,
        };
        for k in 0..5 {
            estimator.observe(&row(k)).unwrap();
        }
        estimator.begin_segment();
        estimator.observe(&row(0)).unwrap();
        let (mean, covariance) = (estimator.mean(), estimator.covariance());
        assert!(mean[at].abs() < 1e-15, "{changes}: {mean:?}");
        assert!((covariance[at * n + at] / noise - 1.0).abs() < 1e-12);
        assert!(
            covariance[at * n].abs() < 1e-18,
            "{changes}: {covariance:?}"
        );
    }
}

#[test]
fn moirae_and_odd_variances_are_refused_by_name() {
    for (changes, problem) in [
        (
            json!({"current_noise": 0.01, "compat": "moirae-0.3"}),
            "takes the current as exact",
        ),
        (
            json!({"current_noise": 0.0}),
            "the variance of current is 0",
        ),
        (
            json!({"current_noise": [1.0, 2.0]}),
            "expected 1x1 for [current]",
        ),
    ] {
        let mut document = crate::cells::document_json(&changes);
        document["every"] = json!(1);
        let error = Document::from_json(&document.to_string())
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("current_noise: ") && error.contains(problem),
            "{error}"
        );
    }
}
