//! Cycles of a public file, compared with those that battery-data-toolkit computed into it.

use std::{path::PathBuf, time::Duration};

use rovi_common::testing::eventually;
use system_tests::Stack;

const PATIENCE: Duration = Duration::from_mins(3);
/// The file's columns; every one must be equal to the last bit.
const COLUMNS: [&str; 6] = [
    "cycle_start",
    "cycle_duration",
    "capacity_charge",
    "capacity_discharge",
    "energy_charge",
    "energy_discharge",
];

#[expect(
    clippy::disallowed_methods,
    reason = "tells where the reference files are"
)]
fn file() -> Option<PathBuf> {
    let folder = std::env::var("ROVI_REFERENCE").ok()?;
    Some(PathBuf::from(folder).join("../data/batch_B10A_cell_3.h5"))
}

#[tokio::test]
async fn cycles_of_a_public_file_equal_those_of_battery_data_toolkit_to_the_last_bit() {
    let Some(file) = file() else {
        eprintln!("skipped: ROVI_REFERENCE does not name the folder of reference files");
        return;
    };
    let stack = Stack::start().await;
    let file = file.to_str().unwrap();
    let stream = [
        "stream",
        file,
        "--name",
        "B10A",
        "--speedup",
        "max",
        "--all-tables",
    ];
    stack.run_rovicli(&stream).await;
    let mut database = stack.database();
    let rows = "SELECT coalesce(max(seq), 0) AS value FROM hub.cycle_cursors";
    eventually(PATIENCE, || {
        let seq = database.number(rows);
        async move {
            if seq == 110_705 {
                Ok(())
            } else {
                Err(format!("{seq} rows"))
            }
        }
    })
    .await;
    let joined = r#"FROM hub.cycles c JOIN tables."B10A/cycle_stats" f USING (cycle_number)
                    WHERE c.battery = 'B10A'"#;
    assert_eq!(
        database.number(&format!("SELECT count(*) AS value {joined}")),
        932
    );
    for column in COLUMNS {
        let differing =
            format!("SELECT count(*) AS value {joined} AND c.{column} IS DISTINCT FROM f.{column}");
        assert_eq!(database.number(&differing), 0, "{column}");
    }
}
