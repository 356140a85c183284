//! `rovicli fake`: a fleet that does not exist sends what its seed says, at the pace asked.

use std::{process::Command, time::Duration};

use rovi_common::{
    local::{ServerProcess, Signal},
    testing::eventually,
};
use system_tests::{Database, Stack};

const PATIENCE: Duration = Duration::from_mins(1);

async fn hub_only() -> Stack {
    let mut stack = Stack::servers();
    stack.start_hub();
    stack.hub_ready().await;
    stack
}

/// Waits until a battery has so many rows.
async fn rows(database: &mut Database, battery: &str, least: i64) {
    let exists = format!(
        "SELECT count(*) AS value FROM pg_tables
         WHERE schemaname = 'battery' AND tablename = '{battery}'"
    );
    let count = format!(r#"SELECT count(*) AS value FROM battery."{battery}""#);
    eventually(PATIENCE, || {
        let there = database.number(&exists) > 0;
        let rows = if there { database.number(&count) } else { 0 };
        async move {
            if rows >= least {
                Ok(())
            } else {
                Err(format!("{rows} rows"))
            }
        }
    })
    .await;
}

fn spawn(stack: &Stack, command: Command) -> ServerProcess {
    let log = stack.folder().join("fake.log");
    ServerProcess::spawn("fake", command, &log).expect("the program was built")
}

#[tokio::test]
async fn a_fake_fleet_makes_up_for_a_pause_and_keeps_its_pace() {
    let stack = hub_only().await;
    let mut database = stack.database();
    let fake = ["fake", "--batteries", "3", "--rate", "50", "--seed", "4"];
    let mut fleet = spawn(&stack, stack.rovicli(&fake));
    rows(&mut database, "fake-03", 50).await;
    fleet.signal(Signal::STOP);
    // The pause is the fault under test.
    tokio::time::sleep(Duration::from_secs(2)).await;
    fleet.signal(Signal::CONT);
    rows(&mut database, "fake-03", 250).await;
    let ended = fleet.stop(Signal::INT, PATIENCE);
    assert!(ended.is_some_and(|status| status.success()), "{ended:?}");
    for battery in ["fake-01", "fake-02", "fake-03"] {
        let stored = database.dense_rows(battery);
        // Row n is measured n/50 s after the first, and came after that.
        let misplaced = database.number(&format!(
            r#"SELECT count(*) AS value FROM battery."{battery}"
               WHERE abs(test_time - (seq - 1) / 50.0) > 1e-9"#
        ));
        assert_eq!(misplaced, 0, "{battery}");
        let took_ms = database.number(&format!(
            r#"SELECT (extract(epoch FROM max(received) - min(received)) * 1000)::bigint AS value
               FROM battery."{battery}""#
        ));
        let due = took_ms / 20 + 1;
        // The pause alone was worth 100 rows.
        assert!(
            (stored - due).abs() <= 40,
            "{battery}: {stored} rows in {took_ms} ms"
        );
    }
}

#[tokio::test]
async fn the_same_seed_sends_the_same_rows_and_no_two_cells_are_alike() {
    let stack = hub_only().await;
    for name in ["one", "again"] {
        let fake = [
            "fake",
            "--batteries",
            "2",
            "--rate",
            "100",
            "--for",
            "1",
            "--name",
            name,
        ];
        stack.run_rovicli(&fake).await;
    }
    let mut database = stack.database();
    let mut voltages = |battery: &str| {
        let read = format!(
            r#"SELECT voltage::text AS value FROM battery."{battery}" ORDER BY seq LIMIT 50"#
        );
        database.texts(&read)
    };
    let first = voltages("one-01");
    assert_eq!(first.len(), 50);
    assert_eq!(first, voltages("again-01"));
    assert_ne!(first, voltages("one-02"));
}

#[tokio::test]
async fn a_file_is_played_again_and_again_in_time_that_rises() {
    let stack = hub_only().await;
    let file = stack.folder().join("cell.h5").display().to_string();
    stack
        .run_rovicli(&["simulate", &file, "--rows", "30"])
        .await;
    let fake = [
        "fake",
        "--file",
        &file,
        "--batteries",
        "1",
        "--rate",
        "100",
        "--for",
        "1",
    ];
    stack.run_rovicli(&fake).await;
    let mut database = stack.database();
    let stored = database.dense_rows("fake-01");
    assert!(stored > 60, "{stored} rows");
    let steps = database.texts(
        r#"SELECT DISTINCT (later.test_time - row.test_time)::text AS value
           FROM battery."fake-01" row JOIN battery."fake-01" later ON later.seq = row.seq + 1"#,
    );
    assert!(steps.iter().all(|step| step == "1"), "{steps:?}");
    let rounds = database.texts(
        r#"SELECT DISTINCT voltage::text AS value FROM battery."fake-01" WHERE seq IN (1, 31, 61)"#,
    );
    assert_eq!(rounds.len(), 1, "{rounds:?}");
}

#[tokio::test]
async fn registered_fake_cells_are_estimated() {
    let stack = Stack::start().await;
    let fake = ["fake", "--batteries", "2", "--rate", "20", "--register"];
    let mut fleet = spawn(&stack, stack.rovicli(&fake));
    eventually(PATIENCE, || async {
        let status = stack.get("/online/status").await?;
        let soc = |name: &str| status[name]["mean"][0].as_f64();
        match (soc("fake-01"), soc("fake-02")) {
            (Some(_), Some(_)) => Ok(()),
            _ => Err(status.to_string()),
        }
    })
    .await;
    assert!(fleet.stop(Signal::INT, PATIENCE).is_some());
}
