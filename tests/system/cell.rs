//! A simulated cell for a test: its file, its estimator, and what a run without any interruption
//! says of it.

use std::{path::PathBuf, process::Command, time::Duration};

use rovi_common::testing::eventually;
use rovi_estimation::{Document, Estimator, Observation};
use system_tests::{Database, Stack};

const PATIENCE: Duration = Duration::from_mins(2);

/// Files of one simulated cell.
pub(crate) struct Cell {
    pub(crate) name: &'static str,
    pub(crate) rows: i64,
    pub(crate) file: PathBuf,
    pub(crate) estimator: PathBuf,
}

impl Cell {
    /// Simulates a cell and registers its estimator.
    pub(crate) async fn registered(stack: &Stack, name: &'static str, rows: i64) -> Self {
        let cell = Self::simulated(stack, name, rows).await;
        stack
            .run_rovicli(&["metadata", cell.file(), "--name", name])
            .await;
        stack
            .run_rovicli(&["register", name, "0", cell.estimator()])
            .await;
        cell
    }

    /// Simulates a cell only.
    pub(crate) async fn simulated(stack: &Stack, name: &'static str, rows: i64) -> Self {
        let file = stack.folder().join(format!("{name}.h5"));
        let estimator = stack.folder().join(format!("{name}.json"));
        let cell = Self {
            name,
            rows,
            file,
            estimator,
        };
        let rows = rows.to_string();
        let simulate = ["simulate", cell.file(), "--rows", &rows, "--seed", "7"];
        stack
            .run_rovicli(&[&simulate[..], &["--estimator", cell.estimator()]].concat())
            .await;
        cell
    }

    pub(crate) fn file(&self) -> &str {
        self.file.to_str().unwrap()
    }

    pub(crate) fn estimator(&self) -> &str {
        self.estimator.to_str().unwrap()
    }

    /// Prepares the command that streams the file as fast as the hub acknowledges.
    pub(crate) fn stream(&self, stack: &Stack) -> Command {
        stack.rovicli(&[
            "stream",
            self.file(),
            "--name",
            self.name,
            "--speedup",
            "max",
        ])
    }

    /// Waits until every row is estimated and the estimates are in the table.
    pub(crate) async fn estimated(&self, stack: &Stack) {
        // Frames that a killed hub had in hand come again later, behind newer ones: the newest
        // estimate says nothing of the earlier ones. The first row only starts.
        let stored = format!(r#"SELECT count(*) AS value FROM estimates."{}""#, self.name);
        let exists = format!(
            "SELECT count(*) AS value FROM pg_tables
             WHERE schemaname = 'estimates' AND tablename = '{}'",
            self.name
        );
        let mut database = stack.database();
        eventually(PATIENCE, || {
            let there = database.number(&exists) > 0;
            let stored = if there { database.number(&stored) } else { 0 };
            async move {
                if stored == self.rows - 1 {
                    Ok(())
                } else {
                    Err(format!("{stored} estimates"))
                }
            }
        })
        .await;
    }

    /// Runs the estimator over the battery's table in one go and compares every stored estimate.
    ///
    /// # Panics
    /// An estimate is missing, doubled, or differs in its last bit.
    pub(crate) fn assert_estimates_are_exact(&self, database: &mut Database) {
        let text = std::fs::read_to_string(&self.estimator).unwrap();
        let (document, _warnings) = Document::from_json(&text).unwrap();
        let mut estimator = Estimator::new(&document);
        let read = |database: &mut Database, column: &str| {
            database.samples(&format!(
                r#"SELECT seq, "{column}" AS value FROM battery."{}" ORDER BY seq"#,
                self.name
            ))
        };
        let times = read(database, "test_time");
        let currents = read(database, "current");
        let voltages = read(database, "voltage");
        let temperatures = read(database, "temperature");
        let mut expected = Vec::new();
        for (row, time) in times.iter().enumerate() {
            let observation = Observation {
                time: time.value,
                current: currents[row].value,
                voltage: voltages[row].value,
                temperature: Some(temperatures[row].value),
            };
            if estimator.observe(&observation).unwrap().is_some() {
                expected.push((time.seq, estimator.mean().to_vec()));
            }
        }
        assert_eq!(times.len(), usize::try_from(self.rows).unwrap());
        for (state, name) in estimator.state_names().iter().enumerate() {
            let column = rovi_common::frame::estimate_column(name);
            let stored = database.samples(&format!(
                r#"SELECT seq, "{column}" AS value FROM estimates."{}" ORDER BY seq"#,
                self.name
            ));
            assert_eq!(
                stored.len(),
                expected.len(),
                "number of estimates of {name}"
            );
            for (sample, (seq, means)) in stored.iter().zip(&expected) {
                assert_eq!(sample.seq, *seq);
                assert_eq!(
                    sample.value.to_bits(),
                    means[state].to_bits(),
                    "{name} at row {seq}"
                );
            }
        }
    }
}
