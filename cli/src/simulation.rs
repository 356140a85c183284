//! A cell under load, simulated with the equivalent circuit that the native estimators use: input
//! for the demo, tests, benches, and people without a cell.
//!
//! The cell ages while it works: capacity falls and resistances rise steadily from the first row
//! to the last. Every row carries the truth beside what a cycler would have measured. The same
//! [`Plan`] gives the same rows, bit for bit.

mod cell;
mod grid;
mod noise;
mod profile;

use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;
use rovi_battdat::{BattdatError, BattdatWriter, ColumnInfo, ColumnKind};
use rovi_common::rows::{Column, Columns};
use rovi_estimation::{Cell, Simulator, StepError};

use self::{noise::gaussian, profile::Load};

pub use self::{
    cell::{CAPACITY_AH, R0_OHM, R1_OHM, estimator_document, metadata},
    profile::Profile,
};

/// Rows of one batch.
const BATCH_ROWS: usize = 4096;
/// Mean of the temperature, and the reference temperature of the resistances, °C.
const MEAN_TEMPERATURE: f64 = 25.0;
/// How far the temperature swings within a day, °C.
const TEMPERATURE_SWING: f64 = 4.0;
const SECONDS_PER_DAY: f64 = 86_400.0;

/// What is simulated.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The battery's name in the metadata.
    pub name: String,
    /// How many rows.
    pub rows: usize,
    /// Time between rows, s.
    pub interval_s: f64,
    /// Seeds the load and the noise.
    pub seed: u64,
    /// What the cell is used for.
    pub profile: Profile,
    /// Share of the capacity that is lost from the first row to the last, `[0, 1)`.
    pub fade: f64,
    /// Share by which the resistances rise from the first row to the last, from 0.
    pub growth: f64,
    /// Standard deviation of the voltage's noise, V.
    pub noise_v: f64,
    /// State of charge before the first row, from 0 empty to 1 full.
    pub initial_soc: f64,
    /// Capacity before the first row, as a share of a new cell's.
    pub initial_capacity: f64,
}

impl Default for Plan {
    /// A day of driving, a row a second, with ageing that can be seen within it.
    fn default() -> Self {
        Self {
            name: "simulated-cell".to_owned(),
            rows: 86_400,
            interval_s: 1.0,
            seed: 1,
            profile: Profile::Drive,
            fade: 0.1,
            growth: 0.3,
            noise_v: 0.001,
            initial_soc: cell::CHARGED_SOC,
            initial_capacity: 1.0,
        }
    }
}

/// Sudden damage to a cell, as factors on what its plan says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Damage {
    /// Of the capacity.
    pub capacity: f64,
    /// Of all resistances.
    pub resistance: f64,
}

impl Damage {
    const NONE: Self = Self {
        capacity: 1.0,
        resistance: 1.0,
    };
}

/// Why a simulation failed.
#[derive(Debug, thiserror::Error)]
pub enum SimulationError {
    /// The model cannot make the step.
    #[error("row {row} cannot be simulated")]
    Step {
        /// The row, counted from 0.
        row: usize,
        /// The model's reason.
        #[source]
        source: StepError,
    },
    /// The file cannot be written.
    #[error(transparent)]
    File(#[from] BattdatError),
}

/// The columns of a simulated file, in order, with units.
pub fn columns() -> Vec<ColumnInfo> {
    let float = |name: &str, unit: &str| ColumnInfo::new(name, ColumnKind::Float).with_unit(unit);
    vec![
        float("test_time", "s"),
        float("current", "A"),
        float("voltage", "V"),
        float("temperature", "C"),
        ColumnInfo::new("cycle_number", ColumnKind::Int),
        ColumnInfo::new("true_soc", ColumnKind::Float)
            .with_description("State of charge of the simulated cell, 0 empty and 1 full"),
        float("true_capacity", "A-hr").with_description("Capacity of the simulated cell"),
        float("true_r0", "Ohm").with_description("Series resistance of the simulated cell at 25 C"),
        float("true_r1", "Ohm").with_description("RC resistance of the simulated cell"),
    ]
}

/// The values of one row, in the order of [`columns`].
struct Row {
    test_time: f64,
    current: f64,
    voltage: f64,
    temperature: f64,
    cycle_number: i64,
    truth: [f64; 4],
}

/// A running simulation: an iterator over batches of rows.
#[derive(Debug)]
pub struct Simulation {
    plan: Plan,
    simulator: Simulator,
    load: Load,
    random: ChaCha12Rng,
    row: usize,
    damage: Damage,
}

impl Simulation {
    /// Begins with a cell at rest.
    ///
    /// # Panics
    /// Never: the cell's document is a constant.
    pub fn new(plan: Plan) -> Self {
        let (cell, _warnings) = Cell::from_json(&cell::true_cell(plan.initial_soc).to_string())
            .expect("a test reads this very document");
        Self {
            simulator: Simulator::new(&cell),
            load: Load::new(plan.profile),
            random: ChaCha12Rng::seed_from_u64(plan.seed),
            row: 0,
            damage: Damage::NONE,
            plan,
        }
    }

    /// Damages the cell from the next row on; only the latest damage counts.
    pub fn damage(&mut self, damage: Damage) {
        self.damage = damage;
    }

    /// Returns the next `count` rows, also beyond the last of the plan: the cell ages no further there.
    ///
    /// # Errors
    /// The model cannot make the step.
    pub fn take_rows(&mut self, count: usize) -> Result<Columns, SimulationError> {
        let mut rows = Vec::with_capacity(count);
        for _ in 0..count {
            let row = self.row;
            rows.push(
                self.next_row()
                    .map_err(|source| SimulationError::Step { row, source })?,
            );
        }
        Ok(batch(&rows))
    }

    #[expect(clippy::cast_precision_loss, reason = "row numbers are far below 2^52")]
    fn next_row(&mut self) -> Result<Row, StepError> {
        let test_time = self.row as f64 * self.plan.interval_s;
        let age = (self.row as f64 / self.plan.rows.max(2).saturating_sub(1) as f64).min(1.0);
        let new = CAPACITY_AH * self.plan.initial_capacity;
        let capacity = new * (1.0 - self.plan.fade * age) * self.damage.capacity;
        let resistance_scale = (1.0 + self.plan.growth * age) * self.damage.resistance;
        self.simulator.set_capacity_ah(capacity);
        self.simulator.set_r0_scale(resistance_scale);
        self.simulator.set_rc_resistance_scale(resistance_scale);
        let day = 2.0 * std::f64::consts::PI * test_time / SECONDS_PER_DAY;
        let temperature = MEAN_TEMPERATURE + TEMPERATURE_SWING * libm::sin(day);
        let rate = self
            .load
            .rate(self.plan.interval_s, self.simulator.soc(), &mut self.random);
        let current = rate * CAPACITY_AH;
        let voltage = self.simulator.step(test_time, current, Some(temperature))?;
        self.row += 1;
        Ok(Row {
            test_time,
            current,
            voltage: voltage + self.plan.noise_v * gaussian(&mut self.random),
            temperature,
            cycle_number: self.load.cycle(),
            truth: [
                self.simulator.soc(),
                capacity,
                R0_OHM * resistance_scale,
                R1_OHM * resistance_scale,
            ],
        })
    }
}

impl Iterator for Simulation {
    type Item = Result<Columns, SimulationError>;

    fn next(&mut self) -> Option<Self::Item> {
        let count = BATCH_ROWS.min(self.plan.rows.saturating_sub(self.row));
        if count == 0 {
            return None;
        }
        let rows = self.take_rows(count);
        if rows.is_err() {
            self.row = self.plan.rows;
        }
        Some(rows)
    }
}

fn batch(rows: &[Row]) -> Columns {
    let float =
        |cell: fn(&Row) -> f64| Column::Float(rows.iter().map(|row| Some(cell(row))).collect());
    let int = |cell: fn(&Row) -> i64| Column::Int(rows.iter().map(|row| Some(cell(row))).collect());
    let cells = [
        float(|row| row.test_time),
        float(|row| row.current),
        float(|row| row.voltage),
        float(|row| row.temperature),
        int(|row| row.cycle_number),
        float(|row| row.truth[0]),
        float(|row| row.truth[1]),
        float(|row| row.truth[2]),
        float(|row| row.truth[3]),
    ];
    let names = columns().into_iter().map(|column| column.name);
    Columns::new(names.zip(cells).collect()).expect("each name has one column of all rows")
}

/// Writes a simulation as a battdat file and returns how many rows it has; `each` is told the
/// number of rows written so far.
///
/// # Errors
/// See [`SimulationError`]; a file already there is left as it is.
pub fn write_file(
    plan: &Plan,
    path: &std::path::Path,
    mut each: impl FnMut(usize),
) -> Result<usize, SimulationError> {
    let mut file = BattdatWriter::create(path, &metadata(plan).to_string())?;
    let mut table = file.table(None, "raw_data", &columns())?;
    let mut written = 0;
    for batch in Simulation::new(plan.clone()) {
        let batch = batch?;
        table.append(&batch)?;
        written += batch.rows();
        each(written);
    }
    table.finish()?;
    file.finish()?;
    Ok(written)
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;
    use rovi_battdat::BattdatFile;
    use rovi_estimation::{Document, Estimator, Observation};

    use super::*;

    fn all(plan: &Plan) -> Columns {
        let mut rows = Columns::default();
        Simulation::new(plan.clone()).for_each(|batch| rows.append(batch.unwrap()));
        rows
    }

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-12
    }

    fn number(rows: &Columns, name: &str, row: usize) -> f64 {
        rows.get(name).unwrap().number(row).unwrap()
    }

    #[test]
    fn the_same_seed_gives_the_same_file_and_another_seed_another() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = |seed: u64, file: &str| {
            let plan = Plan {
                rows: 5000,
                seed,
                ..Plan::default()
            };
            let path = folder.path().join(file);
            assert_eq!(write_file(&plan, &path, |_| ()).unwrap(), 5000);
            std::fs::read(path).unwrap()
        };
        let first = bytes(7, "a.h5");
        assert!(first == bytes(7, "b.h5"), "the files differ");
        assert!(first != bytes(8, "c.h5"), "the files are equal");
    }

    #[test]
    fn a_simulated_file_opens_with_all_its_columns_and_units() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cell.h5");
        let plan = Plan {
            rows: 100,
            ..Plan::default()
        };
        write_file(&plan, &path, |_| ()).unwrap();
        let file = BattdatFile::open(&path).unwrap();
        assert_eq!(file.problems(), &[] as &[String]);
        let metadata: serde_json::Value =
            serde_json::from_str(file.metadata_json().unwrap()).unwrap();
        assert_eq!(metadata["name"], "simulated-cell");
        assert_eq!(metadata["battery"]["nominal_capacity"], CAPACITY_AH);
        let table = file.table(None, "raw_data").unwrap();
        let names: Vec<&str> = table
            .columns()
            .iter()
            .map(|info| info.name.as_str())
            .collect();
        let expected: Vec<String> = columns().into_iter().map(|info| info.name).collect();
        assert_eq!(names, expected);
        let voltage = table
            .columns()
            .iter()
            .find(|info| info.name == "voltage")
            .unwrap();
        assert_eq!(voltage.unit.as_deref(), Some("V"));
        assert_eq!(table.read(0..100).unwrap(), all(&plan));
    }

    #[test]
    fn the_cell_ages_from_the_first_row_to_the_last() {
        let rows = all(&Plan {
            rows: 1000,
            fade: 0.2,
            growth: 0.5,
            ..Plan::default()
        });
        assert!(close(number(&rows, "true_capacity", 0), CAPACITY_AH));
        assert!(close(
            number(&rows, "true_capacity", 999),
            0.8 * CAPACITY_AH
        ));
        assert!(close(number(&rows, "true_r0", 999), 1.5 * R0_OHM));
    }

    #[test]
    fn rows_go_on_beyond_the_plan_without_further_ageing() {
        let plan = Plan {
            rows: 10,
            fade: 0.2,
            ..Plan::default()
        };
        let mut simulation = Simulation::new(plan);
        let rows = simulation.take_rows(30).unwrap();
        assert_eq!(rows.rows(), 30);
        assert!(close(number(&rows, "true_capacity", 29), 0.8 * CAPACITY_AH));
        assert!(close(number(&rows, "test_time", 29), 29.0));
    }

    #[test]
    fn damage_shows_from_the_next_row_on() {
        let mut simulation = Simulation::new(Plan {
            fade: 0.0,
            growth: 0.0,
            ..Plan::default()
        });
        simulation.take_rows(5).unwrap();
        simulation.damage(Damage {
            capacity: 0.8,
            resistance: 1.5,
        });
        let rows = simulation.take_rows(1).unwrap();
        assert!(close(number(&rows, "true_capacity", 0), 0.8 * CAPACITY_AH));
        assert!(close(number(&rows, "true_r0", 0), 1.5 * R0_OHM));
    }

    #[test]
    fn every_profile_keeps_the_cell_between_empty_and_full() {
        for &profile in Profile::value_variants() {
            let rows = all(&Plan {
                rows: 50_000,
                profile,
                ..Plan::default()
            });
            for row in 0..rows.rows() {
                let soc = number(&rows, "true_soc", row);
                assert!(
                    (0.05..0.99).contains(&soc),
                    "{profile:?} row {row}: soc {soc}"
                );
            }
            let cycles = number(&rows, "cycle_number", rows.rows() - 1);
            assert!(cycles >= 1.0, "{profile:?}: {cycles} cycles");
        }
    }

    #[test]
    fn the_estimator_document_converges_on_the_truth() {
        let plan = Plan::default();
        let (document, warnings) =
            Document::from_json(&estimator_document(&plan).to_string()).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        let mut estimator = Estimator::new(&document);
        let rows = all(&plan);
        for row in 0..rows.rows() {
            let observation = Observation {
                time: number(&rows, "test_time", row),
                current: number(&rows, "current", row),
                voltage: number(&rows, "voltage", row),
                temperature: Some(number(&rows, "temperature", row)),
            };
            estimator.observe(&observation).unwrap();
        }
        let deviations: Vec<f64> = estimator.standard_deviations().collect();
        let last = rows.rows() - 1;
        for (state, truth, within) in [
            ("soc", "true_soc", 0.01),
            ("q_t.base_values", "true_capacity", 0.02),
            ("r0.base_values", "true_r0", 0.02),
            ("rc_elements.0.r.base_values", "true_r1", 0.1),
        ] {
            let at = estimator
                .state_names()
                .iter()
                .position(|name| name == state)
                .unwrap();
            let (mean, truth) = (estimator.mean()[at], number(&rows, truth, last));
            let sigmas = (mean - truth).abs() / deviations[at];
            println!(
                "{state}: {mean} ± {} (truth {truth}, {sigmas:.1} sigma)",
                deviations[at]
            );
            assert!(
                (mean - truth).abs() < within * truth,
                "{state}: {mean}, truth {truth}"
            );
            assert!(sigmas < 4.0, "{state}: {sigmas} standard deviations away");
        }
    }
}
