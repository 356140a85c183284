//! What holds for every kind of estimator: edge inputs, snapshots, positive definiteness.

use rovi_estimation::{Document, Estimator, Observation, Snapshot, StepError};
use serde_json::{Value, json};

use crate::cells::{Noise, cell, document_with, rows_of};
use crate::support::is_positive_definite;

/// Every kind and filter, by what is changed in a document.
fn kinds() -> Vec<(&'static str, Value)> {
    vec![
        ("joint", json!({})),
        ("root", json!({"filter": "square_root_ukf"})),
        ("extended", json!({"filter": "ekf"})),
        ("dual", json!({"kind": "dual", "normalize_asoh": true})),
        (
            "dual of Moirae",
            json!({"kind": "dual", "compat": "moirae-0.3"}),
        ),
        ("counting", json!({"kind": "coulomb_counting"})),
        (
            "holding",
            json!({"trust": {"on_divergence": "hold", "window": 20}}),
        ),
        ("noisy current", json!({"current_noise": 1e-4})),
        (
            "noisy current, root, linear",
            json!({"current_noise": 1e-4, "current_behavior": "linear", "filter": "square_root_ukf"}),
        ),
        (
            "noisy current, extended, linear",
            json!({"current_noise": 1e-4, "current_behavior": "linear", "filter": "ekf"}),
        ),
        (
            "noisy current, dual",
            json!({"current_noise": 1e-4, "kind": "dual", "normalize_asoh": true}),
        ),
    ]
}

fn bits(estimator: &Estimator) -> Vec<u64> {
    let numbers = estimator.mean().iter().chain(estimator.covariance());
    numbers.map(|value| value.to_bits()).collect()
}

fn assert_sound(name: &str, estimator: &Estimator) {
    let n = estimator.mean().len();
    let covariance = estimator.covariance();
    for i in 0..n {
        for j in 0..i {
            let (a, b) = (covariance[i * n + j], covariance[j * n + i]);
            assert_eq!(a.to_bits(), b.to_bits(), "{name}: not symmetric");
        }
    }
    assert!(
        is_positive_definite(covariance, n),
        "{name}: {covariance:?}"
    );
    assert!(estimator.mean().iter().all(|value| value.is_finite()));
}

#[test]
fn a_snapshot_of_any_kind_resumes_bit_for_bit_at_any_row() {
    for (name, changes) in kinds() {
        let document = document_with(&changes);
        let mut whole = Estimator::new(&document);
        let mut resumed = whole.clone();
        for (k, row) in rows_of(&cell(), 160, 1).iter().enumerate() {
            if k == 80 {
                whole.begin_segment();
                resumed.begin_segment();
            }
            let bytes = rmp_serde::to_vec_named(&resumed.snapshot()).unwrap();
            let snapshot: Snapshot = rmp_serde::from_slice(&bytes).unwrap();
            resumed = Estimator::restore(&document, &snapshot).unwrap();
            assert_eq!(whole.observe(row), resumed.observe(row), "{name}, row {k}");
            assert_eq!(bits(&whole), bits(&resumed), "{name}, row {k}");
        }
        assert_eq!(whole.snapshot(), resumed.snapshot(), "{name}");
        assert_eq!(whole.health(), resumed.health(), "{name}");
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one list of cases for every kind")]
fn edge_inputs_are_handled_as_documented_by_every_kind() {
    for (name, changes) in kinds() {
        let mut estimator = Estimator::new(&document_with(&changes));
        let rows = rows_of(&cell(), 50, 2);
        for row in &rows {
            estimator.observe(row).unwrap();
        }
        let last = rows[49];
        let before = bits(&estimator);
        let at = |seconds: f64| Observation {
            time: last.time + seconds,
            ..last
        };
        for (what, bad) in [
            ("time", at(f64::NAN)),
            ("time", at(f64::INFINITY)),
            (
                "current",
                Observation {
                    current: f64::NAN,
                    ..at(1.0)
                },
            ),
            (
                "voltage",
                Observation {
                    voltage: f64::NEG_INFINITY,
                    ..at(1.0)
                },
            ),
        ] {
            assert_eq!(
                estimator.observe(&bad),
                Err(StepError::NotFinite { what }),
                "{name}"
            );
        }
        let back = estimator.observe(&at(-1.0));
        assert!(
            matches!(back, Err(StepError::TimeWentBack { .. })),
            "{name}: {back:?}"
        );
        assert_eq!(
            bits(&estimator),
            before,
            "{name}: a refused row left a trace"
        );

        let soc = estimator.soc();
        estimator.observe(&at(0.0)).unwrap().unwrap();
        assert!(
            (estimator.soc() - soc).abs() < 0.01,
            "{name}: no time, no charge"
        );
        let rest = Observation {
            current: 0.0,
            ..at(1.0)
        };
        estimator.observe(&rest).unwrap().unwrap();
        // A year without rows: at rest nothing flows, and RC pairs forget their currents.
        let year = 365.0 * 86_400.0;
        let gap = Observation {
            current: 0.0,
            ..at(year)
        };
        estimator.observe(&gap).unwrap().unwrap();
        // A current that is only measured as 0 may have flowed for a year.
        let is_rest = !name.starts_with("noisy");
        assert!(!is_rest || (estimator.soc() - soc).abs() < 0.02, "{name}");
        assert_sound(name, &estimator);
    }
}

#[test]
fn two_hundred_thousand_steps_keep_every_covariance_symmetric_and_positive_definite() {
    let mut noise = Noise::new(3);
    for (name, changes) in kinds() {
        let mut estimator = Estimator::new(&document_with(&changes));
        for k in 0..200_000_u32 {
            let current = [2.0, -2.0, 0.0, 1.0, -1.0][k as usize / 300 % 5];
            let row = Observation {
                time: f64::from(k),
                current,
                voltage: 3.6 + 0.06 * current + 1e-3 * noise.next(),
                temperature: None,
            };
            estimator.observe(&row).unwrap();
            if k % 5000 == 0 {
                assert_sound(name, &estimator);
            }
        }
        assert_sound(name, &estimator);
    }
}

#[test]
fn the_extended_filter_finds_what_the_unscented_one_finds() {
    let rows = rows_of(&cell(), 3000, 4);
    let run = |changes: Value| {
        let mut estimator = Estimator::new(&document_with(&changes));
        for row in &rows {
            estimator.observe(row).unwrap();
        }
        estimator
    };
    let (unscented, extended) = (run(json!({})), run(json!({"filter": "ekf"})));
    let deviations: Vec<f64> = unscented.standard_deviations().collect();
    for (i, deviation) in deviations.iter().enumerate() {
        let off = (unscented.mean()[i] - extended.mean()[i]).abs() / deviation;
        assert!(off < 0.5, "{}: {off} sd apart", unscented.state_names()[i]);
    }
}

#[test]
fn coulomb_counting_learns_nothing_and_its_uncertainty_grows() {
    let document = document_with(&json!({"kind": "coulomb_counting"}));
    let mut estimator = Estimator::new(&document);
    let (mut charge, mut previous) = (0.0, 0.0);
    let mut variance = estimator.covariance()[0];
    for (k, row) in rows_of(&cell(), 500, 5).iter().enumerate() {
        if k > 0 {
            charge += previous * 2.0;
        }
        previous = row.current;
        let wrong = Observation {
            voltage: row.voltage - 1.0,
            ..*row
        };
        estimator.observe(&wrong).unwrap();
        assert!(estimator.covariance()[0] >= variance || k == 0 || row.current.abs() > 0.0);
        variance = estimator.covariance()[0].min(variance);
    }
    let expected = document.initial_mean()[0] + charge / (3600.0 * document.nominal_capacity_ah());
    assert!((estimator.soc() - expected).abs() < 1e-12);
    let capacity = document.capacity_index().unwrap();
    assert_eq!(
        estimator.mean()[capacity].to_bits(),
        document.initial_mean()[capacity].to_bits()
    );
    assert!(estimator.covariance()[0] > document_variance(&document));
}

fn document_variance(document: &Document) -> f64 {
    Estimator::new(document).covariance()[0]
}

#[test]
fn forty_states_are_estimated_and_a_dual_filter_may_have_one() {
    let values: Vec<f64> = (0..38).map(|k| 3.0 + 0.03 * f64::from(k)).collect();
    let diagonal = |size: usize| -> Vec<Vec<f64>> {
        let entry = |i, j| if i == j { 1e-4 } else { 0.0 };
        (0..size)
            .map(|i| (0..size).map(|j| entry(i, j)).collect())
            .collect()
    };
    for changes in [
        json!({}),
        json!({"filter": "ekf"}),
        json!({"filter": "square_root_ukf"}),
        json!({"kind": "dual"}),
    ] {
        let mut document = json!({
            "kind": "joint",
            "asoh": {
                "updatable": ["ocv"],
                "q_t": {"base_values": 2.0},
                "ocv": {"updatable": ["ocv_ref"],
                        "ocv_ref": {"updatable": ["base_values"], "base_values": values}},
                "r0": {"base_values": 0.05},
            },
            "initial_transients": {"soc": 0.5},
            "covariance_transient": diagonal(2),
            "covariance_asoh": diagonal(38),
        });
        document
            .as_object_mut()
            .unwrap()
            .extend(changes.as_object().unwrap().clone());
        let (document, _) = Document::from_json(&document.to_string()).unwrap();
        assert_eq!(document.state_names().len(), 40);
        let mut estimator = Estimator::new(&document);
        for k in 0..200_u32 {
            let row = Observation {
                time: f64::from(k),
                current: 1.0,
                voltage: 3.7,
                temperature: None,
            };
            estimator.observe(&row).unwrap();
        }
        assert_eq!(estimator.repairs(), 0);
        assert_sound("forty", &estimator);
    }
    let one = document_with(&json!({"kind": "dual", "asoh": {
        "updatable": ["q_t"], "q_t": {"updatable": ["base_values"], "base_values": 2.0},
        "ocv": {"ocv_ref": {"base_values": [3.0, 4.0]}}, "r0": {"base_values": 0.05}},
        "covariance_transient": [[0.01, 0.0], [0.0, 1e-6]], "covariance_asoh": 0.01,
        "transient_process_noise": [[1e-10, 0.0], [0.0, 1e-10]], "asoh_process_noise": 1e-12,
    }));
    let mut estimator = Estimator::new(&one);
    for row in rows_of(&cell(), 300, 6) {
        estimator.observe(&row).unwrap();
    }
    assert_sound("one", &estimator);
}

/// What the plain form can only repair, the root form carries.
#[test]
fn the_square_root_form_needs_no_repair_where_the_plain_form_does() {
    let hard = |filter: &str| {
        document_with(&json!({
            "filter": filter,
            "asoh": {
                "q_t": {"base_values": 2.0},
                "ocv": {"ocv_ref": {"base_values": [3.0, 4.0]}},
                "r0": {"base_values": 0.05},
                "rc_elements": [{"r": {"base_values": 0.01}, "c": {"base_values": 1000.0}}],
            },
            "covariance_transient": [[1e8, 0.0, 0.0], [0.0, 1e8, 0.0], [0.0, 0.0, 1e8]],
            "covariance_asoh": null,
            "transient_process_noise": [[1e-20, 0.0, 0.0], [0.0, 1e-20, 0.0], [0.0, 0.0, 1e-20]],
            "asoh_process_noise": null,
            "sensor_noise": 1e-20,
        }))
    };
    let mut repairs = Vec::new();
    for filter in ["ukf", "square_root_ukf"] {
        let mut estimator = Estimator::new(&hard(filter));
        for row in rows_of(&cell(), 200, 7) {
            let _refused = estimator.observe(&row);
        }
        repairs.push(estimator.repairs());
    }
    assert!(repairs[0] > 0, "the case no longer needs repair");
    assert_eq!(repairs[1], 0);
}

#[test]
fn the_worked_examples_are_read_without_a_warning_and_run() {
    for text in [
        include_str!("../../../../docs/examples/lfp.json"),
        include_str!("../../../../docs/examples/nmc.json"),
    ] {
        let (document, warnings) = Document::from_json(text).unwrap();
        assert_eq!(warnings, []);
        let mut estimator = Estimator::new(&document);
        for row in rows_of(document.cell(), 500, 8) {
            estimator.observe(&row).unwrap();
        }
        assert_sound("example", &estimator);
        assert!((estimator.health().state_of_health.value - 1.0).abs() < 0.2);
    }
}
