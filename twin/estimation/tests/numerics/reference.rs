//! Agreement with Moirae 0.3.0 over its recorded trajectories.
//!
//! The folder is named by `ROVI_REFERENCE`; without it these tests say so and pass.

use std::path::{Path, PathBuf};

use rovi_estimation::{Document, Observation};
use serde_json::{Value, json};

use crate::support::{cell_of, deviations, document_of, observation, simulation_deviation};
use crate::table::Table;

#[expect(
    clippy::disallowed_methods,
    reason = "only a test knows where the references stand"
)]
fn trajectories() -> Option<PathBuf> {
    if let Ok(folder) = std::env::var("ROVI_REFERENCE") {
        return Some(Path::new(&folder).join("trajectories"));
    }
    println!("skipped: ROVI_REFERENCE does not name the folder of reference trajectories");
    None
}

fn read(folder: &Path, name: &str) -> Value {
    let path = folder.join(format!("{name}.json"));
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    serde_json::from_str(&text).unwrap()
}

fn assert_agrees(name: &str) {
    let Some(folder) = trajectories() else { return };
    let reference = read(&folder, name);
    let document = document_of(&reference);
    let names: Vec<String> = serde_json::from_value(reference["state_names"].clone()).unwrap();
    assert_eq!(document.state_names(), names);
    let table = Table::open(&folder.join(format!("{name}.csv.gz")));
    assert_eq!(table.rows() as u64, reference["rows"].as_u64().unwrap());
    let worst = deviations(&document, &table, table.rows());
    println!("{name}: {worst:?}");
    worst.assert_within(1e-7, 1e-9, 1e-7);
}

#[test]
fn the_dual_estimator_agrees_on_every_row_of_a_stable_run() {
    assert_agrees("iii_c_dual_lfp");
}

/// Two of Moirae's own runs that differ in rounding alone part here later on.
#[test]
fn the_dual_estimator_agrees_on_a_chaotic_run_while_rounding_allows() {
    let Some(folder) = trajectories() else { return };
    let document = document_of(&read(&folder, "iii_dual_camp"));
    let table = Table::open(&folder.join("iii_dual_camp.csv.gz"));
    let worst = deviations(&document, &table, 500);
    println!("iii_dual_camp: {worst:?}");
    worst.assert_within(1e-5, 1e-7, 1e-5);
}

/// The same filter by another arithmetic: an independent check of both.
#[test]
fn the_square_root_form_agrees_with_the_recorded_plain_form() {
    let Some(folder) = trajectories() else { return };
    for name in [
        "i_joint_camp",
        "iv_joint_lfp_rc_hyst",
        "v_joint_drive_cubic",
    ] {
        let mut reference = read(&folder, name);
        reference["filter"] = "square_root_ukf".into();
        let table = Table::open(&folder.join(format!("{name}.csv.gz")));
        let worst = deviations(&document_of(&reference), &table, table.rows());
        println!("{name}, square root: {worst:?}");
        worst.assert_within(1e-6, 1e-8, 1e-6);
    }
}

#[test]
fn the_origins_example_agrees_on_every_row() {
    assert_agrees("i_joint_camp");
}

#[test]
fn a_narrow_spread_with_automatic_kappa_and_default_noises_agrees_on_every_row() {
    assert_agrees("i_b_joint_camp_alpha01_kappa_auto");
}

#[test]
fn an_rc_pair_with_hysteresis_and_normalised_health_agrees_on_every_row() {
    assert_agrees("iv_joint_lfp_rc_hyst");
}

#[test]
fn linear_current_with_every_circuit_element_agrees_for_every_style_recorded() {
    for style in ["linear", "nearest", "zero", "quadratic", "cubic"] {
        assert_agrees(&format!("v_joint_drive_{style}"));
    }
}

fn assert_simulation_agrees(name: &str, asoh: &Value, transients: &Value, behavior: &Value) {
    let Some(folder) = trajectories() else { return };
    let cell = cell_of(asoh, transients, behavior, &"moirae-0.3".into());
    let table = Table::open(&folder.join(format!("{name}.csv.gz")));
    let worst = simulation_deviation(&cell, &table);
    println!("{name}: relative {worst:e}");
    assert!(worst <= 1e-12, "{name} strays by {worst}");
}

#[test]
fn forward_simulations_with_held_current_agree() {
    let Some(folder) = trajectories() else { return };
    for name in ["vi_1_rint", "vi_2_rc1_hyst_ce", "vi_4_cubic_extrap_temp"] {
        let reference = read(&folder, name);
        let transients = &reference["initial_transients"];
        let behavior = &reference["current_behavior"];
        assert_simulation_agrees(name, &reference["asoh"], transients, behavior);
    }
}

#[test]
fn forward_simulations_with_linear_current_agree() {
    let Some(folder) = trajectories() else { return };
    for style in ["linear", "cubic"] {
        let truth = &read(&folder, &format!("v_joint_drive_{style}"))["truth"];
        let name = format!("v_sim_{style}");
        assert_simulation_agrees(
            &name,
            &truth["asoh"],
            &truth["transients"],
            &"linear".into(),
        );
    }
}

/// The recorded rows of a real file, and its document with `initialise`.
fn first_rows(
    folder: &Path,
    name: &str,
    initialise: &Value,
    seconds: f64,
) -> (Document, Vec<Observation>) {
    let mut document = read(folder, name);
    document["kind"] = "joint".into();
    document["ukf"] = Value::Null;
    document["initialise"] = initialise.clone();
    let document = document_of(&document);
    let table = Table::open(&folder.join(format!("{name}.csv.gz")));
    let begin = table.column("test_time")[0];
    let rows = (0..table.rows()).map(|k| observation(&table, k));
    let rows = rows.filter(|row| row.time - begin <= seconds).collect();
    (document, rows)
}

/// A performance test of a simulated LFP cell of 30 A h, 5 mohm and 1.5 mohm: a slow cycle, pulses that go below the
/// lower voltage limit, a long relaxation. Its document holds the true curve.
#[test]
fn the_first_rows_of_a_real_file_give_its_parameters() {
    let Some(folder) = trajectories() else { return };
    let wanted = json!({"capacity": true, "ocv": true, "r0": true, "rc_pairs": 1});
    for seconds in [180_000.0, 259_200.0, f64::INFINITY] {
        let (document, rows) = first_rows(&folder, "iii_c_dual_lfp", &wanted, seconds);
        let (initialised, found) = document.initialised(&rows).unwrap();
        println!("{seconds}: {found:?}");
        assert!(
            found
                .qualities
                .iter()
                .all(|quality| quality.reason.is_none())
        );
        let near = |value: f64, truth: f64, share: f64| {
            assert!(
                (value / truth - 1.0).abs() <= share,
                "{value}, in truth {truth}"
            );
        };
        near(found.capacity_ah.unwrap(), 30.0, 0.01);
        near(found.r0_ohm.unwrap(), 0.005, 0.001);
        near(found.rc_pairs.as_ref().unwrap()[0][0], 0.0015, 0.02);
        assert_eq!(initialised.state_names(), document.state_names());
    }
}

#[test]
fn the_first_rows_of_a_cycled_cell_give_its_capacity_and_resistance() {
    let Some(folder) = trajectories() else { return };
    let wanted = json!({"capacity": true, "ocv": true, "r0": true});
    let (document, rows) = first_rows(&folder, "i_joint_camp", &wanted, 400_000.0);
    let (_, found) = document.initialised(&rows).unwrap();
    println!("{found:?}");
    // The cell gives 1.50 A h at a twentieth of its capacity an hour, less at higher currents.
    assert!((found.capacity_ah.unwrap() - 1.50).abs() < 0.02);
    assert!((found.r0_ohm.unwrap() - 0.045).abs() < 0.005);
    assert!(
        found
            .qualities
            .iter()
            .all(|quality| quality.reason.is_none())
    );
}
