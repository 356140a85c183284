//! What holds for every document and every row.

use rovi_estimation::{
    Document, Estimator, Observation, RestoreError, Simulator, Snapshot, StepError,
};
use serde_json::{Value, json};

use crate::support::is_positive_definite;

fn diagonal(variances: &[f64]) -> Value {
    let n = variances.len();
    let row = |i| {
        (0..n)
            .map(|j| if i == j { variances[i] } else { 0.0 })
            .collect::<Vec<_>>()
    };
    json!((0..n).map(row).collect::<Vec<_>>())
}

/// Seven states: soc, two RC pairs, hysteresis, capacity, two values of r0.
fn document(changes: Value) -> Document {
    let pair = |c: f64| json!({"r": {"base_values": 0.01}, "c": {"base_values": c}});
    let mut document = json!({
        "kind": "joint",
        "asoh": {
            "updatable": ["q_t", "r0"],
            "q_t": {"updatable": ["base_values"], "base_values": 2.1},
            "ocv": {"ocv_ref": {"base_values": [3.0, 3.3, 3.5, 3.6, 3.8, 4.2]}},
            "r0": {"updatable": ["base_values"], "base_values": [0.05, 0.045],
                   "temperature_dependence_factor": 0.01},
            "rc_elements": [pair(1000.0), pair(20000.0)],
            "h0": {"base_values": 0.01},
        },
        "initial_transients": {"soc": 0.45},
        "covariance_transient": diagonal(&[0.01, 0.01, 0.01, 1e-6]),
        "covariance_asoh": diagonal(&[0.01, 1e-4, 1e-4]),
        "transient_process_noise": diagonal(&[1e-10, 1e-8, 1e-8, 1e-10]),
        "asoh_process_noise": diagonal(&[1e-12, 1e-14, 1e-14]),
        "sensor_noise": 1e-6,
    });
    if let Value::Object(changes) = changes {
        document.as_object_mut().unwrap().extend(changes);
    }
    Document::from_json(&document.to_string()).unwrap().0
}

/// Noise of unit variance that is the same on every machine (sums of a linear congruential generator).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f64 {
        let mut uniform = || {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            f64::from(u32::try_from(self.0 >> 32).unwrap()) / f64::from(u32::MAX)
        };
        (0..12).map(|_| uniform()).sum::<f64>() - 6.0
    }
}

/// Rows of the document's own cell with another start, and 1 mV of noise.
fn rows(document: &Document, count: u32) -> Vec<Observation> {
    let mut simulator = Simulator::new(document.cell());
    simulator.set_capacity_ah(2.0);
    let mut noise = Noise(7);
    (0..count)
        .map(|k| {
            let time = f64::from(k) * 2.0;
            let current = [0.0, 1.5, -2.0, 3.0, -1.0][k as usize / 40 % 5];
            let temperature = Some(25.0 + (time / 100.0).sin());
            let voltage = simulator.step(time, current, temperature).unwrap();
            Observation {
                time,
                current,
                voltage: voltage + 1e-3 * noise.next(),
                temperature,
            }
        })
        .collect()
}

fn bits(estimator: &Estimator) -> Vec<u64> {
    estimator
        .mean()
        .iter()
        .chain(estimator.covariance())
        .map(|value| value.to_bits())
        .collect()
}

#[test]
fn the_covariance_is_symmetric_to_the_bit_and_positive_definite_after_every_row() {
    for changes in [
        json!({}),
        json!({"current_behavior": "linear"}),
        json!({"compat": "moirae-0.3", "normalize_asoh": true}),
    ] {
        let document = document(changes);
        let mut estimator = Estimator::new(&document);
        let n = estimator.state_names().len();
        for row in rows(&document, 600) {
            estimator.observe(&row).unwrap();
            let covariance = estimator.covariance();
            for i in 0..n {
                for j in 0..i {
                    assert_eq!(
                        covariance[i * n + j].to_bits(),
                        covariance[j * n + i].to_bits()
                    );
                }
            }
            assert!(is_positive_definite(covariance, n));
        }
        assert_eq!(estimator.repairs(), 0);
    }
}

#[test]
fn a_snapshot_resumes_bit_for_bit_at_any_row() {
    let document = document(json!({"current_behavior": "linear"}));
    let rows = rows(&document, 120);
    let mut whole = Estimator::new(&document);
    let mut resumed = Estimator::new(&document);
    for (k, row) in rows.iter().enumerate() {
        if k == 60 {
            whole.begin_segment();
            resumed.begin_segment();
        }
        let bytes = rmp_serde::to_vec_named(&resumed.snapshot()).unwrap();
        let snapshot: Snapshot = rmp_serde::from_slice(&bytes).unwrap();
        resumed = Estimator::restore(&document, &snapshot).unwrap();
        assert_eq!(whole.observe(row), resumed.observe(row));
        assert_eq!(bits(&whole), bits(&resumed), "row {k}");
    }
    assert_eq!(whole.snapshot(), resumed.snapshot());
}

#[test]
fn a_snapshot_of_other_states_or_a_newer_format_is_refused() {
    let document = document(json!({}));
    let mut snapshot = serde_json::to_value(Estimator::new(&document).snapshot()).unwrap();
    let restore = |value: &Value| {
        Estimator::restore(&document, &serde_json::from_value(value.clone()).unwrap()).unwrap_err()
    };
    let mut damaged = snapshot.clone();
    damaged["covariance"][0] = json!(-1.0);
    let what = "the covariance is not positive definite";
    assert_eq!(restore(&damaged), RestoreError::Damaged { what });
    damaged["covariance"] = json!([1.0]);
    assert!(matches!(restore(&damaged), RestoreError::Damaged { .. }));
    snapshot["state_names"][0] = json!("charge");
    assert!(matches!(
        restore(&snapshot),
        RestoreError::OtherStates { .. }
    ));
    snapshot["version"] = json!(3);
    assert_eq!(restore(&snapshot), RestoreError::Version { found: 3 });
}

#[test]
#[expect(clippy::too_many_lines, reason = "one list of cases")]
fn refused_rows_leave_no_trace() {
    let document = document(json!({}));
    let rows = rows(&document, 50);
    let mut clean = Estimator::new(&document);
    let mut disturbed = Estimator::new(&document);
    for row in &rows {
        clean.observe(row).unwrap();
        disturbed.observe(row).unwrap();
        let next = row.time + 1.0;
        let early = Observation {
            time: row.time - 1.0,
            ..*row
        };
        let back = StepError::TimeWentBack {
            latest: row.time,
            time: early.time,
        };
        assert_eq!(disturbed.observe(&early), Err(back));
        for (what, bad) in [
            (
                "time",
                Observation {
                    time: f64::NAN,
                    ..*row
                },
            ),
            (
                "current",
                Observation {
                    time: next,
                    current: f64::INFINITY,
                    ..*row
                },
            ),
            (
                "voltage",
                Observation {
                    time: next,
                    voltage: f64::NAN,
                    ..*row
                },
            ),
        ] {
            assert_eq!(disturbed.observe(&bad), Err(StepError::NotFinite { what }));
        }
        let absurd = Observation {
            time: next,
            voltage: 1e308,
            current: 1e308,
            ..*row
        };
        assert_eq!(
            disturbed.observe(&absurd),
            Err(StepError::Diverged { time: next })
        );
    }
    assert_eq!(bits(&clean), bits(&disturbed));
    // That a step failed counts for trust, until the next one succeeds.
    assert_ne!(clean.snapshot(), disturbed.snapshot());
    let next = Observation {
        time: rows[49].time + 2.0,
        ..rows[49]
    };
    assert_eq!(clean.observe(&next), disturbed.observe(&next));
    assert_eq!(clean.snapshot(), disturbed.snapshot());
}

#[test]
fn the_first_row_only_starts_and_initial_inputs_stand_for_it_where_given() {
    let inputs = json!({"initial_inputs": {"time": -10.0, "current": 2.0}});
    for (changes, charged_s) in [(json!({}), 5.0), (inputs, 15.0)] {
        let document = document(changes);
        let mut estimator = Estimator::new(&document);
        let row = |time: f64| Observation {
            time,
            current: 2.0,
            voltage: 3.6,
            temperature: None,
        };
        assert_eq!(estimator.observe(&row(0.0)), Ok(None));
        assert_eq!(estimator.mean(), document.initial_mean());
        assert_eq!(estimator.latest_time(), Some(0.0));
        let step = estimator.observe(&row(5.0)).unwrap().unwrap();
        let mut simulator = Simulator::new(document.cell());
        simulator.step(0.0, 2.0, None).unwrap();
        let voltage = simulator.step(charged_s, 2.0, None).unwrap();
        // The filter's expectation is an average over its belief, near the voltage at the mean.
        assert!((step.predicted_voltage - voltage).abs() < 0.05);
        assert!(step.predicted_variance > 1e-6);
    }
}

#[test]
fn a_new_segment_keeps_the_belief_and_its_first_row_only_starts() {
    let document = document(json!({}));
    let rows = rows(&document, 100);
    let mut estimator = Estimator::new(&document);
    estimator.begin_segment();
    for row in &rows {
        estimator.observe(row).unwrap();
    }
    let before = bits(&estimator);
    estimator.begin_segment();
    assert_eq!(estimator.observe(&rows[0]), Ok(None));
    assert_eq!(bits(&estimator), before);
    assert_eq!(estimator.latest_time(), Some(0.0));
    assert!(estimator.observe(&rows[1]).unwrap().is_some());
}

#[test]
fn a_row_without_temperature_holds_the_last_one() {
    let document = document(json!({}));
    let run = |second: Option<f64>| {
        let mut estimator = Estimator::new(&document);
        for (time, temperature) in [(0.0, Some(40.0)), (5.0, second), (10.0, second)] {
            let row = Observation {
                time,
                current: 3.0,
                voltage: 3.7,
                temperature,
            };
            estimator.observe(&row).unwrap();
        }
        bits(&estimator)
    };
    assert_eq!(run(None), run(Some(40.0)));
    assert_eq!(run(Some(f64::NAN)), run(Some(40.0)));
    assert_ne!(run(None), run(Some(25.0)));
}

#[test]
fn the_filter_finds_capacity_and_knows_its_error() {
    let document = document(json!({}));
    let mut estimator = Estimator::new(&document);
    let rows = rows(&document, 4000);
    let mut squares = Vec::new();
    for row in &rows {
        if let Some(step) = estimator.observe(row).unwrap() {
            squares.push(step.normalized_innovation().powi(2));
        }
    }
    let capacity = document.capacity_index().unwrap();
    let error = (estimator.mean()[capacity] - 2.0).abs();
    let deviation = estimator.standard_deviations().nth(capacity).unwrap();
    println!("capacity off by {error:e} A h, claimed {deviation:e} A h");
    assert!(error < 4.0 * deviation && deviation < 0.02);
    // The mean of N squares has standard deviation sqrt(2 / N) = 0.026 after the first thousand.
    let settled = &squares[1000..];
    assert_eq!(settled.len(), 2999);
    let mean = settled.iter().sum::<f64>() / 2999.0;
    println!("normalised innovation squared: {mean}");
    assert!(
        (0.9..1.1).contains(&mean),
        "normalised innovation squared is {mean}"
    );
}

#[test]
fn a_covariance_lost_to_rounding_is_repaired_and_counted() {
    // A linear model leaves nothing but rounding between the large variances and the exact sensor.
    let document = document(json!({
        "asoh": {
            "q_t": {"base_values": 2.0},
            "ocv": {"ocv_ref": {"base_values": [3.0, 4.0]}},
            "r0": {"base_values": 0.05},
            "rc_elements": [{"r": {"base_values": 0.01}, "c": {"base_values": 1000.0}}],
        },
        "covariance_transient": diagonal(&[1e8, 1e8, 1e8]),
        "covariance_asoh": null,
        "transient_process_noise": diagonal(&[1e-20, 1e-20, 1e-20]),
        "asoh_process_noise": null,
        "sensor_noise": 1e-20,
    }));
    let mut estimator = Estimator::new(&document);
    let mut repaired = 0;
    for row in rows(&document, 200) {
        if let Ok(Some(step)) = estimator.observe(&row) {
            repaired += u64::from(step.repaired);
        }
        assert!(is_positive_definite(
            estimator.covariance(),
            estimator.state_names().len()
        ));
    }
    assert!(repaired > 0, "the case no longer needs repair");
    assert_eq!(estimator.repairs(), repaired);
}

#[test]
fn an_estimator_moves_between_threads_and_can_be_copied() {
    fn assert_owned<T: Send + Sync + Clone + 'static>() {}
    assert_owned::<Estimator>();
    assert_owned::<Document>();
}
