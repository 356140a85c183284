//! Retention: old rows go, those that somebody still needs stay, and everybody is told.

use std::time::Duration;

use reqwest::Method;
use rovi_common::testing::eventually;
use serde_json::{Value, json};

use crate::{
    hub::Hub,
    support::{PATIENCE, Servers},
};

async fn start(servers: &Servers, max_rows: Option<i64>) -> Hub {
    Hub::start_with(servers, |settings| {
        settings.retention.max_rows = max_rows;
        settings.retention.interval = Duration::from_millis(50);
        settings.cycles.interval = Duration::from_millis(50);
    })
    .await
}

async fn set(hub: &Hub, battery: &str, rule: Value) -> (u16, Value) {
    let request = reqwest::Client::new()
        .put(hub.url(&format!("/db/{battery}/retention")))
        .json(&rule);
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

/// Waits until the table holds exactly the rows `first..=last`.
async fn left(servers: &Servers, battery: &str, first: i64, last: i64) {
    let value = |what: &str| format!("SELECT {what} AS value FROM battery.{battery}");
    eventually(PATIENCE, async || {
        let found = (
            servers.try_number(&value("coalesce(min(seq), 0)"))?,
            servers.try_number(&value("coalesce(max(seq), 0)"))?,
            servers.try_number(&value("count(*)"))?,
        );
        let expected = (first, last, last - first + 1);
        if found == expected {
            Ok(())
        } else {
            Err(format!("{found:?}, not {expected:?}"))
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_newest_rows_stay_and_readers_are_told_which() {
    let servers = Servers::start();
    let hub = start(&servers, Some(100)).await;
    hub.upload("b7", 0..5000).await;
    left(&servers, "b7", 4901, 5000).await;
    let answer = reqwest::get(hub.url("/db/b7/rows?limit=1")).await.unwrap();
    assert_eq!(answer.headers()["Rovi-First-Seq"], "4901");
    let rows: Value = answer.json().await.unwrap();
    assert_eq!(
        (&rows["first_seq"], &rows["seq"]),
        (&json!(4901), &json!([4901]))
    );
    let (_, stats) = hub.ask(Method::GET, "/db/stats").await;
    let stats = &stats["b7"]["data_stats"];
    assert_eq!(
        (&stats["rows"], &stats["first_seq"]),
        (&json!(100), &json!(4901))
    );
    hub.upload("b7", 5000..5010).await;
    left(&servers, "b7", 4911, 5010).await;
    // What was learnt of the rows stays.
    assert_eq!(
        servers.number("SELECT max(rows) AS value FROM hub.cycles"),
        0
    );
    assert_eq!(
        servers.number("SELECT min(first_seq) AS value FROM hub.cycles"),
        1
    );
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_go_by_the_time_they_were_received() {
    let servers = Servers::start();
    let hub = start(&servers, None).await;
    servers.battery("b7");
    servers.store_as("b7", 3000, "now() - interval '10 days'", "'x'");
    servers.store_as("b7", 500, "now() - interval '1 day'", "'x'");
    let (status, told) = set(&hub, "b7", json!({"max_age": "2d"})).await;
    assert_eq!((status, &told["own"]["max_age"]), (200, &json!("2days")));
    left(&servers, "b7", 3001, 3500).await;
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_battery_s_own_rule_comes_before_that_of_the_settings() {
    let servers = Servers::start();
    let hub = start(&servers, Some(10)).await;
    hub.upload("other", 0..1).await;
    hub.upload("own", 0..1).await;
    assert_eq!(set(&hub, "own", json!({})).await.0, 200);
    hub.upload("own", 1..40).await;
    hub.upload("other", 1..40).await;
    left(&servers, "other", 31, 40).await;
    left(&servers, "own", 1, 40).await;
    let (_, told) = set(&hub, "own", json!({"max_rows": 5})).await;
    assert_eq!(told["in_force"], json!({"max_rows": 5}));
    left(&servers, "own", 36, 40).await;
    let (_, told) = set(&hub, "own", Value::Null).await;
    assert_eq!(
        (&told["own"], &told["in_force"]),
        (&Value::Null, &json!({"max_rows": 10}))
    );
    for wrong in [
        json!({"max_rows": -1}),
        json!({"max_rows": 0}),
        json!({"max_age": "0s"}),
        json!({"max_age": "soon"}),
        json!({"age": 1}),
    ] {
        assert_eq!(set(&hub, "own", wrong.clone()).await.0, 400, "{wrong}");
    }
    assert_eq!(set(&hub, "nobody", json!({})).await.0, 404);
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_not_on_the_bus_stay_and_the_bus_is_filled_from_what_is_left() {
    let mut servers = Servers::start();
    let hub = start(&servers, Some(100)).await;
    hub.upload("b7", 0..300).await;
    left(&servers, "b7", 201, 300).await;
    servers.nats.server.stop();
    hub.upload("b7", 300..1000).await;
    // The cycles go on, so retention had its turns, too.
    eventually(PATIENCE, async || {
        match servers.try_number("SELECT seq AS value FROM hub.cycle_cursors")? {
            1000 => Ok(()),
            seq => Err(format!("{seq}")),
        }
    })
    .await;
    let first = "SELECT first_seq AS value FROM hub.batteries";
    assert!(servers.number(first) <= 301);
    servers.nats.server.start_again().unwrap();
    left(&servers, "b7", 901, 1000).await;

    // A bus that lost everything gets what the table has.
    let bucket = async_nats::connect(servers.nats.server.url())
        .await
        .unwrap();
    let jetstream = async_nats::jetstream::new(bucket);
    jetstream.delete_stream("ROVI_ROWS").await.unwrap();
    servers.stream_equals_table("b7").await;
    let frames = servers.frames("b7").await;
    assert_eq!(frames[0].first_seq, 901);
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_never_touches_the_next_life_of_a_name() {
    let servers = Servers::start();
    let hub = start(&servers, Some(10)).await;
    hub.upload("b7", 0..100).await;
    left(&servers, "b7", 91, 100).await;
    assert_eq!(hub.ask(Method::DELETE, "/db/b7?confirm=b7").await.0, 200);
    hub.upload("b7", 0..5).await;
    let cursor = "SELECT seq AS value FROM hub.cycle_cursors";
    eventually(PATIENCE, async || match servers.try_number(cursor)? {
        5 => Ok(()),
        seq => Err(format!("{seq}")),
    })
    .await;
    left(&servers, "b7", 1, 5).await;
    hub.stop().await;
}
