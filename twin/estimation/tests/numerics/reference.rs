//! Agreement with Moirae 0.3.0 over its recorded trajectories.
//!
//! The folder is named by `ROVI_REFERENCE`; without it these tests say so and pass.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::{cell_of, deviations, document_of, simulation_deviation};
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

fn json(folder: &Path, name: &str) -> Value {
    let path = folder.join(format!("{name}.json"));
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    serde_json::from_str(&text).unwrap()
}

fn assert_agrees(name: &str) {
    let Some(folder) = trajectories() else { return };
    let reference = json(&folder, name);
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
    let document = document_of(&json(&folder, "iii_dual_camp"));
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
        let mut reference = json(&folder, name);
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
        let reference = json(&folder, name);
        let transients = &reference["initial_transients"];
        let behavior = &reference["current_behavior"];
        assert_simulation_agrees(name, &reference["asoh"], transients, behavior);
    }
}

#[test]
fn forward_simulations_with_linear_current_agree() {
    let Some(folder) = trajectories() else { return };
    for style in ["linear", "cubic"] {
        let truth = &json(&folder, &format!("v_joint_drive_{style}"))["truth"];
        let name = format!("v_sim_{style}");
        assert_simulation_agrees(
            &name,
            &truth["asoh"],
            &truth["transients"],
            &"linear".into(),
        );
    }
}
