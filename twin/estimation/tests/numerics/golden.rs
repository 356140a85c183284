//! Agreement with an independent implementation on input of our own: `tests/golden` at the workspace's root.

use std::path::Path;

use rovi_estimation::Document;

use crate::support::deviations;
use crate::table::Table;

fn assert_golden(name: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
    let text = std::fs::read_to_string(folder.join(format!("{name}.json"))).unwrap();
    let (document, warnings) = Document::from_json(&text).unwrap();
    assert_eq!(warnings, []);
    let table = Table::open(&folder.join(format!("{name}.csv")));
    let worst = deviations(&document, &table, table.rows());
    println!("{name}: {worst:?}");
    worst.assert_within(1e-8, 1e-11, 1e-8);
}

#[test]
fn held_current_with_a_narrow_spread_agrees_with_numpy_on_every_row() {
    assert_golden("joint_held_current");
}

#[test]
fn corrected_physics_agrees_with_its_exact_solution_in_numpy_on_every_row() {
    assert_golden("joint_corrected_physics");
}

#[test]
fn ramped_current_through_a_series_capacitor_agrees_with_numpy_on_every_row() {
    assert_golden("joint_ramped_current");
}
