//! A wiped or absent broker costs time, never data; an absent database is said and waited for.

use std::time::Duration;

use rovi_common::testing::eventually;
use system_tests::Stack;

use crate::{cell::Cell, life_of_a_row::seqs_on_the_stream};

const PATIENCE: Duration = Duration::from_mins(1);

#[tokio::test]
async fn uploads_go_on_while_nats_is_away_and_the_bus_heals_after_it_was_wiped() {
    let mut stack = Stack::start().await;
    let cell = Cell::registered(&stack, "bus", 12_000).await;
    let first = stack
        .rovicli(&[
            "stream",
            cell.file(),
            "--name",
            "bus",
            "--speedup",
            "max",
            "--max-rows",
            "6000",
        ])
        .status()
        .unwrap();
    assert!(first.success());
    stack.relayed("bus").await;

    stack.nats.server.wipe().unwrap();
    assert!(
        cell.stream(&stack).status().unwrap().success(),
        "uploads need no NATS"
    );
    assert_eq!(stack.database().dense_rows("bus"), cell.rows);

    stack.nats.server.start_again().unwrap();
    stack.ready().await;
    stack.relayed("bus").await;
    eventually(PATIENCE, || async {
        let seqs = seqs_on_the_stream(&stack, "bus").await;
        let whole = seqs == (1..=cell.rows).collect::<Vec<_>>();
        if whole {
            Ok(())
        } else {
            Err(format!("{} rows on the stream", seqs.len()))
        }
    })
    .await;
    cell.estimated(&stack).await;
    cell.assert_estimates_are_exact(&mut stack.database());
}

#[tokio::test]
async fn services_started_without_database_and_bus_wait_and_say_so() {
    let mut stack = Stack::servers();
    stack.postgres.server.stop();
    stack.nats.server.stop();
    stack.start_hub();
    stack.start_twin();
    for url in [stack.hub_url(), stack.twin_url()] {
        let body = eventually(PATIENCE, || async {
            let answer = stack.http().get(format!("{url}/ready")).send().await;
            let answer = answer.map_err(|error| error.to_string())?;
            assert_eq!(answer.status(), 503);
            answer.text().await.map_err(|error| error.to_string())
        })
        .await;
        assert!(body.to_lowercase().contains("nats"), "{body}");
    }
    stack.postgres.server.start_again().unwrap();
    stack.nats.server.start_again().unwrap();
    stack.ready().await;
}
