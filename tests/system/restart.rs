//! Crashes and restarts of hub and twin lose nothing, double nothing and change no bit.

use std::{process::Child, time::Duration};

use rovi_common::testing::eventually;
use system_tests::Stack;

use crate::{cell::Cell, life_of_a_row::seqs_on_the_stream};

const PATIENCE: Duration = Duration::from_mins(2);

/// Waits until at least `rows` rows of the battery are stored.
async fn stored(stack: &Stack, battery: &str, rows: i64) {
    let sql = format!(
        "SELECT coalesce(max(last_seq), 0) AS value FROM hub.batteries WHERE name = '{battery}'"
    );
    let mut database = stack.database();
    eventually(PATIENCE, || {
        let seq = database.number(&sql);
        async move {
            if seq >= rows {
                Ok(())
            } else {
                Err(format!("{seq} rows are stored"))
            }
        }
    })
    .await;
}

async fn ended(mut stream: Child) {
    let status = tokio::task::spawn_blocking(move || stream.wait())
        .await
        .unwrap()
        .unwrap();
    assert!(status.success(), "rovicli stream ended with {status}");
}

#[tokio::test]
async fn a_hub_killed_while_rows_stream_in_loses_none_and_doubles_none() {
    let mut stack = Stack::start().await;
    let cell = Cell::registered(&stack, "hubless", 60_000).await;
    let stream = cell.stream(&stack).spawn().unwrap();
    for kills in 1..=3 {
        stored(&stack, "hubless", kills * 5_000).await;
        stack.kill_hub();
        stack.start_hub();
    }
    ended(stream).await;
    assert_eq!(stack.database().dense_rows("hubless"), cell.rows);
    stack.relayed("hubless").await;
    assert_eq!(
        seqs_on_the_stream(&stack, "hubless").await,
        (1..=cell.rows).collect::<Vec<_>>()
    );
    cell.estimated(&stack).await;
    cell.assert_estimates_are_exact(&mut stack.database());
}

#[tokio::test]
async fn estimates_after_killing_the_twin_equal_those_of_a_run_without_interruption() {
    let mut stack = Stack::start().await;
    let cell = Cell::registered(&stack, "twinless", 40_000).await;
    let stream = cell.stream(&stack).spawn().unwrap();
    for kills in 1..=2 {
        stored(&stack, "twinless", kills * 8_000).await;
        stack.kill_twin();
        stack.start_twin();
    }
    ended(stream).await;
    cell.estimated(&stack).await;
    cell.assert_estimates_are_exact(&mut stack.database());
}

#[tokio::test]
async fn an_estimator_registered_after_the_data_catches_up_and_survives_restarts_of_everything() {
    let mut stack = Stack::start().await;
    let cell = Cell::simulated(&stack, "late", 5_000).await;
    assert!(cell.stream(&stack).status().unwrap().success());
    stack
        .run_rovicli(&["register", "late", "0", cell.estimator()])
        .await;
    cell.estimated(&stack).await;

    stack.stop_twin();
    stack.stop_hub();
    stack.nats.server.stop();
    stack.postgres.server.stop();
    stack.postgres.server.start_again().unwrap();
    stack.nats.server.start_again().unwrap();
    stack.start_hub();
    stack.start_twin();
    stack.ready().await;

    let status = eventually(PATIENCE, || async {
        let status = stack.get("/online/status").await?;
        let ready = status["late"]["seq"] == cell.rows;
        if ready {
            Ok(status)
        } else {
            Err(status.to_string())
        }
    })
    .await;
    assert_eq!(status["late"]["is_ready"], true);
    cell.assert_estimates_are_exact(&mut stack.database());
}
