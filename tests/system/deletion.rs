//! The end of a battery, with a twin that follows it, and its next life under the same name.

use std::time::Duration;

use rovi_common::testing::eventually;
use system_tests::Stack;
use tokio::task::JoinSet;

use crate::cell::Cell;

const PATIENCE: Duration = Duration::from_mins(2);

#[tokio::test]
async fn a_battery_that_is_deleted_and_comes_again_is_estimated_as_a_new_one() {
    let stack = Stack::start().await;
    let cell = Cell::registered(&stack, "phoenix", 3_000).await;
    assert!(cell.stream(&stack).status().unwrap().success());
    cell.estimated(&stack).await;
    let first = stack.get("/online/status").await.unwrap()["phoenix"].clone();

    let told = stack.run_rovicli(&["delete", "phoenix", "--yes"]).await;
    assert!(told.contains(r#"battery."phoenix@1""#), "{told}");
    assert!(told.contains(r#"estimates."phoenix@1""#), "{told}");
    eventually(PATIENCE, || async {
        match stack.get("/online/status").await? {
            status if status.get("phoenix").is_none() => Ok(()),
            status => Err(status.to_string()),
        }
    })
    .await;

    // The same file again: other rows could hide that old ones are still there.
    stack
        .run_rovicli(&["metadata", cell.file(), "--name", "phoenix"])
        .await;
    stack
        .run_rovicli(&["register", "phoenix", "0", cell.estimator()])
        .await;
    let status = stack.get("/online/phoenix").await.unwrap();
    assert!(
        !status.to_string().contains(r#""is_ready":true"#),
        "{status}"
    );
    assert!(cell.stream(&stack).status().unwrap().success());
    cell.estimated(&stack).await;
    let mut database = stack.database();
    cell.assert_estimates_are_exact(&mut database);
    let old = r#"SELECT count(*) AS value FROM estimates."phoenix" WHERE epoch < 2"#;
    assert_eq!(database.number(old), 0);
    let second = eventually(PATIENCE, || async {
        let status = stack.get("/online/status").await?["phoenix"].clone();
        if status["seq"] == cell.rows {
            Ok(status)
        } else {
            Err(status.to_string())
        }
    })
    .await;
    assert_eq!(second["mean"], first["mean"]);
    assert_eq!(second["covariance"], first["covariance"]);
}

#[tokio::test]
async fn a_hub_killed_while_it_deletes_leaves_the_battery_whole_or_gone() {
    let mut stack = Stack::start().await;
    let cell = Cell::simulated(&stack, "halfway", 500).await;
    assert!(cell.stream(&stack).status().unwrap().success());
    // Somebody reads the table, so the deletion waits in the middle.
    let mut reader = stack.database();
    reader.run("BEGIN; LOCK TABLE battery.halfway IN ACCESS SHARE MODE");
    let delete = stack
        .http()
        .delete(format!("{}/db/halfway?confirm=halfway", stack.hub_url()));
    let mut deleting = JoinSet::new();
    deleting.spawn(delete.send());
    let mut database = stack.database();
    let waiting = "SELECT count(*) AS value FROM pg_locks \
                   WHERE NOT granted AND mode = 'AccessExclusiveLock'";
    eventually(PATIENCE, || {
        let waiting = database.number(waiting);
        async move {
            if waiting > 0 {
                Ok(())
            } else {
                Err("nobody waits".to_owned())
            }
        }
    })
    .await;
    stack.kill_hub();
    let _broken = deleting.join_next().await;
    reader.run("COMMIT");
    stack.start_hub();
    stack.hub_ready().await;
    // PostgreSQL may find out about the dead hub only after it did what it was told, but then it
    // was told no commit.
    assert_eq!(database.dense_rows("halfway"), cell.rows);
    let rows = stack.get("/db/halfway/rows?limit=1").await.unwrap();
    assert_eq!(
        (&rows["epoch"], &rows["last_seq"]),
        (&1.into(), &cell.rows.into())
    );
    stack
        .run_rovicli(&["delete", "halfway", "--yes", "--drop"])
        .await;
    assert!(stack.get("/db/halfway/rows").await.is_err());
}
