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

fn assert_joint_agrees(name: &str) {
    let Some(folder) = trajectories() else { return };
    let reference = json(&folder, name);
    let document = document_of(&reference);
    let names: Vec<String> = serde_json::from_value(reference["state_names"].clone()).unwrap();
    assert_eq!(document.state_names(), names);
    let table = Table::open(&folder.join(format!("{name}.csv.gz")));
    assert_eq!(table.rows() as u64, reference["rows"].as_u64().unwrap());
    let worst = deviations(&document, &table);
    println!("{name}: {worst:?}");
    worst.assert_within(1e-7, 1e-9, 1e-7);
}

#[test]
fn the_origins_example_agrees_on_every_row() {
    assert_joint_agrees("i_joint_camp");
}

#[test]
fn a_narrow_spread_with_automatic_kappa_and_default_noises_agrees_on_every_row() {
    assert_joint_agrees("i_b_joint_camp_alpha01_kappa_auto");
}

#[test]
fn an_rc_pair_with_hysteresis_and_normalised_health_agrees_on_every_row() {
    assert_joint_agrees("iv_joint_lfp_rc_hyst");
}

#[test]
fn linear_current_with_every_circuit_element_agrees_for_every_style_recorded() {
    for style in ["linear", "nearest", "zero", "quadratic", "cubic"] {
        assert_joint_agrees(&format!("v_joint_drive_{style}"));
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
