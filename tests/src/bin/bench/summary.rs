//! Figures, printed as they come and kept in one file.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::{Value, json};

/// The figures so far, by name.
#[derive(Debug, Default)]
pub(crate) struct Summary(BTreeMap<String, Value>);

impl Summary {
    /// Prints and keeps a figure; `peer` says what it was measured against.
    pub(crate) fn add(&mut self, name: &str, value: f64, unit: &str, peer: &str) {
        println!("{name:<28} {value:>14.3} {unit:<24} ({peer})");
        self.0.insert(
            name.to_owned(),
            json!({"value": value, "unit": unit, "peer": peer}),
        );
    }

    /// Writes `target/bench/summary.json`.
    pub(crate) fn write(&self) -> anyhow::Result<()> {
        let folder = Path::new("target/bench");
        fs::create_dir_all(folder)?;
        let file = folder.join("summary.json");
        fs::write(&file, serde_json::to_string_pretty(&self.0)?)?;
        println!("written to {}", file.display());
        Ok(())
    }
}

/// Returns the middle one of an odd number of figures.
pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Returns the figure below which a share of all are.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of a length is one"
)]
pub(crate) fn percentile(figures: &[f64], share: f64) -> f64 {
    let mut figures = figures.to_vec();
    figures.sort_by(f64::total_cmp);
    let place = (figures.len() as f64 * share) as usize;
    figures
        .get(place)
        .or(figures.last())
        .copied()
        .unwrap_or(f64::NAN)
}
