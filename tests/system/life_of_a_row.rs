//! The walk through ARCHITECTURE.md, step by step.

use async_nats::jetstream;
use futures_util::StreamExt;
use rovi_common::{frame::RowFrame, subjects};
use system_tests::Stack;

use crate::cell::Cell;

#[tokio::test]
async fn a_streamed_file_is_stored_relayed_estimated_and_shown() {
    let stack = Stack::start().await;
    let cell = Cell::registered(&stack, "life", 3000).await;

    // Hops 1 to 3: every row is in the table, numbered without gaps.
    let status = cell.stream(&stack).status().unwrap();
    assert!(status.success(), "{}", stack.logs());
    let mut database = stack.database();
    assert_eq!(database.dense_rows("life"), cell.rows);

    // Hop 4: the stream holds the same rows in the same order.
    stack.relayed("life").await;
    assert_eq!(
        seqs_on_the_stream(&stack, "life").await,
        (1..=cell.rows).collect::<Vec<_>>()
    );

    // Hops 5 to 7: every estimate is stored, and the newest is shown through the hub.
    cell.estimated(&stack).await;
    cell.assert_estimates_are_exact(&mut database);
    let status = stack.get("/online/status").await.unwrap();
    assert_eq!(status["life"]["is_ready"], true);
    assert_eq!(status["life"]["seq"], cell.rows);
    let soc = status["life"]["mean"][0].as_f64().unwrap();
    let truth = database
        .samples(r#"SELECT seq, true_soc AS value FROM battery."life" ORDER BY seq DESC LIMIT 1"#);
    assert!(
        (soc - truth[0].value).abs() < 0.05,
        "state of charge {soc}, truth {truth:?}"
    );
}

#[tokio::test]
async fn two_batteries_whose_names_come_to_the_same_characters_stay_apart() {
    let stack = Stack::start().await;
    for (file, name, rows) in [("one.h5", "cell/1", "20"), ("two.h5", "cell 1", "30")] {
        let simulate = ["simulate", file, "--rows", rows, "--name", name];
        stack.run_rovicli(&simulate).await;
        stack
            .run_rovicli(&["stream", file, "--speedup", "max"])
            .await;
    }
    let mut database = stack.database();
    assert_eq!(database.dense_rows("cell-1"), 20);
    assert_eq!(database.dense_rows("cell-1-2"), 30);

    // Neither registering nor the name that was given makes another battery of it.
    assert_eq!(
        stack.run_rovicli(&["metadata", "two.h5"]).await.trim(),
        "cell-1-2"
    );
    let by_name = ["--name", "cell-1-2", "--speedup", "max"];
    stack
        .run_rovicli(&[&["stream", "two.h5"], &by_name[..]].concat())
        .await;
    assert_eq!(database.dense_rows("cell-1-2"), 30);
}

/// Reads every frame of a battery and returns the rows' numbers in the stream's order.
pub(crate) async fn seqs_on_the_stream(stack: &Stack, battery: &str) -> Vec<i64> {
    let client = async_nats::connect(stack.nats.server.url()).await.unwrap();
    let stream = jetstream::new(client)
        .get_stream(subjects::ROWS_STREAM)
        .await
        .unwrap();
    let config = jetstream::consumer::pull::OrderedConfig {
        filter_subject: subjects::stored_rows_of(&battery.parse().unwrap()),
        ..Default::default()
    };
    let consumer = stream.create_consumer(config).await.unwrap();
    let mut left = consumer.cached_info().num_pending;
    let mut messages = consumer.messages().await.unwrap();
    let mut seqs = Vec::new();
    while left > 0 {
        let message = messages.next().await.unwrap().unwrap();
        let frame = RowFrame::decode(&message.payload).unwrap();
        seqs.extend(frame.first_seq..=frame.last_seq());
        left -= 1;
    }
    seqs
}
