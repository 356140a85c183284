//! PostgreSQL lost, tables locked, the service stopped, two hubs at once: nothing acknowledged is
//! lost and nothing is stored twice.

use std::time::Duration;

use futures_util::{FutureExt, SinkExt};
use rovi_common::testing::{TestPostgres, eventually};
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::timeout};
use tokio_tungstenite::tungstenite::Message;

use crate::support::{Client, PATIENCE, TableLock, TestHub, execute, postgres, query};

fn rows(from: i64, to: i64) -> Value {
    let voltages: Vec<f64> = (from..to).map(|_| 3.7).collect();
    json!({"n": (from..to).collect::<Vec<i64>>(), "voltage": voltages})
}

/// Sends frames until the socket ends; returns the acknowledged position and the close code.
async fn send_until_closed(mut client: Client, from: i64) -> (i64, u16) {
    let mut next = from;
    let mut stored = from;
    loop {
        // As a client that reads and writes: what is there to read comes first.
        while let Some(message) = client.try_next().now_or_never() {
            match message {
                Some(Message::Text(text)) => {
                    let message: Value = serde_json::from_str(&text).unwrap();
                    stored = message["stored"].as_i64().unwrap_or(stored);
                }
                Some(Message::Close(frame)) => {
                    return (stored, frame.map_or(0, |frame| frame.code.into()));
                }
                Some(_) => {}
                None => return (stored, 0),
            }
        }
        let bytes = rmp_serde::to_vec(&rows(next, next + 100)).unwrap();
        let sending = client.socket.send(Message::binary(bytes));
        if let Ok(Ok(())) = timeout(Duration::from_millis(200), sending).await {
            next += 100;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Every row of the battery is in its table once, and `seq` numbers them as they were sent.
fn assert_rows_are_dense(postgres: &TestPostgres, battery: &str, rows: impl Into<Value>) {
    let sql =
        format!(r#"SELECT count(*), max(seq), bool_and(seq = n + 1) FROM battery."{battery}""#);
    let rows = rows.into();
    let dense = json!([{"count": rows, "max": rows, "bool_and": true}]);
    assert_eq!(query(postgres, &sql), dense, "{battery}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_acknowledged_before_postgresql_was_killed_are_there_once() {
    let mut postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    let mut clients = Vec::new();
    for battery in 0..4 {
        clients.push(hub.speaking(&format!("b{battery}")).await.0);
    }
    let mut next = 0;
    for round in 0..3 {
        for client in &mut clients {
            for from in (next..next + 1000).step_by(50) {
                client.send(&rows(from, from + 50)).await;
            }
        }
        next += 1000;
        postgres.server.kill();
        eventually(PATIENCE, async || {
            let ready = reqwest::get(hub.url("/ready"))
                .await
                .unwrap()
                .text()
                .await
                .unwrap();
            if ready.contains("postgresql") {
                Ok(())
            } else {
                Err(ready)
            }
        })
        .await;
        let stats = reqwest::get(hub.url("/db/stats")).await.unwrap();
        assert_eq!(stats.status(), 503, "round {round}");
        assert!(stats.headers().contains_key("Retry-After"));
        postgres.server.start_again().unwrap();
    }
    for client in &mut clients {
        client.until_stored(next).await;
    }
    for battery in 0..4 {
        assert_rows_are_dense(&postgres, &format!("b{battery}"), next);
    }
    assert!(hub.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_table_delays_only_its_battery() {
    let postgres = postgres();
    let hub = TestHub::start_with(&postgres, |settings| settings.writers = 1).await;
    let (mut locked, _) = hub.speaking("locked").await;
    let (mut free, _) = hub.speaking("free").await;
    for client in [&mut locked, &mut free] {
        client.send(&rows(0, 10)).await;
        client.until_stored(10).await;
    }
    let mut lock = TableLock::take(&postgres, "locked");
    let mut slowest = Duration::ZERO;
    for round in 1..30 {
        locked.send(&rows(round * 10, round * 10 + 10)).await;
        free.send(&rows(round * 10, round * 10 + 10)).await;
        let begun = std::time::Instant::now();
        free.until_stored(round * 10 + 10).await;
        slowest = slowest.max(begun.elapsed());
    }
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    assert_eq!(hub.metric("datahub_batteries_parked").await, 1);
    lock.unlock();
    locked.until_stored(300).await;
    eventually(PATIENCE, async || {
        match hub.metric("datahub_batteries_parked").await {
            0 => Ok(()),
            parked => Err(format!("{parked} parked")),
        }
    })
    .await;
    for battery in ["locked", "free"] {
        assert_rows_are_dense(&postgres, battery, 300);
    }
    assert!(hub.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_under_load_closes_with_1012_and_loses_no_acknowledged_row() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    let mut loads = JoinSet::new();
    for battery in 0..3 {
        let (mut client, _) = hub.speaking(&format!("b{battery}")).await;
        client.send(&rows(0, 100)).await;
        client.until_stored(100).await;
        loads.spawn(async move { (battery, send_until_closed(client, 100).await) });
    }
    eventually(PATIENCE, async || {
        match hub.metric("datahub_rows_stored_total").await {
            rows if rows > 3000 => Ok(()),
            rows => Err(format!("{rows} rows stored")),
        }
    })
    .await;
    assert!(
        hub.stop().await,
        "all rows in hand are stored and all tasks end"
    );
    while let Some(load) = loads.join_next().await {
        let (battery, (stored, code)) = load.unwrap();
        assert_eq!(code, 1012);
        assert_rows_are_dense(&postgres, &format!("b{battery}"), stored);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hubs_that_write_one_battery_keep_seq_dense() {
    let postgres = postgres();
    let hubs = [
        TestHub::start(&postgres).await,
        TestHub::start(&postgres).await,
    ];
    let mut uploads = JoinSet::new();
    for upload in 0..4 {
        let (mut client, _) = hubs[upload % 2].speaking("b7").await;
        uploads.spawn(async move {
            for from in (0..2000).step_by(20) {
                client.send(&rows(from, from + 20)).await;
            }
            client.until_stored(2000).await;
        });
    }
    while let Some(upload) = uploads.join_next().await {
        upload.unwrap();
    }
    assert_eq!(
        query(
            &postgres,
            r#"SELECT count(*), max(seq), count(DISTINCT n) AS n FROM battery."b7""#
        ),
        json!([{"count": 8000, "max": 8000, "n": 2000}])
    );
    for hub in hubs {
        assert!(hub.stop().await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_starts_while_postgresql_is_away_and_is_ready_once_it_is_there() {
    let mut postgres = postgres();
    postgres.server.kill();
    let hub = TestHub::start_unready(&postgres.server.url(), |_| ()).await;
    let stats = reqwest::get(hub.url("/db/stats")).await.unwrap();
    assert_eq!(stats.status(), 503);
    assert!(Client::connect(hub.address, "b7", true).await.is_err());
    assert_eq!(
        reqwest::get(hub.url("/health")).await.unwrap().status(),
        200
    );
    postgres.server.start_again().unwrap();
    eventually(PATIENCE, async || {
        let stats = reqwest::get(hub.url("/db/stats")).await.unwrap();
        if stats.status() == 200 {
            Ok(())
        } else {
            Err(stats.text().await.unwrap())
        }
    })
    .await;
    let (mut client, _) = hub.speaking("b7").await;
    client.send(&rows(0, 10)).await;
    client.until_stored(10).await;
    assert!(hub.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_while_postgresql_is_away_ends_in_time() {
    let mut postgres = postgres();
    let hub = TestHub::start_with(&postgres, |settings| {
        settings.shutdown_timeout = Duration::from_secs(4);
    })
    .await;
    let (mut client, _) = hub.speaking("b7").await;
    client.send(&rows(0, 10)).await;
    client.until_stored(10).await;
    postgres.server.kill();
    client.send(&rows(10, 20)).await;
    eventually(PATIENCE, async || {
        match hub.metric("datahub_rows_waiting").await {
            rows if rows > 0 => Ok(()),
            rows => Err(format!("{rows} rows wait")),
        }
    })
    .await;
    let begun = std::time::Instant::now();
    hub.stop().await;
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(client.closed().await.0, 1012);
}

#[tokio::test]
async fn a_view_that_keeps_a_column_from_widening_is_named_in_the_reason() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    let (mut client, _) = hub.speaking("b7").await;
    client.send(&json!({"a": 1})).await;
    client.until_stored(1).await;
    execute(
        &postgres,
        r#"CREATE VIEW public.of_an_analyst AS SELECT a FROM battery."b7""#,
    );
    client.send(&json!({"a": 2.5})).await;
    let rejects = client.until_stored(2).await;
    let reason = rejects[0]["reason"].as_str().unwrap();
    assert!(reason.contains("used by a view"), "{reason}");
    execute(&postgres, "DROP VIEW public.of_an_analyst");
    client.send(&json!({"a": 2.5})).await;
    assert_eq!(client.until_stored(3).await, Vec::<Value>::new());
}

#[tokio::test]
async fn the_rows_of_a_table_dropped_by_hand_are_not_found() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    let (mut client, _) = hub.speaking("b7").await;
    client.send(&json!({"a": 1})).await;
    client.until_stored(1).await;
    execute(&postgres, r#"DROP TABLE battery."b7""#);
    let answer = reqwest::get(hub.url("/db/b7/rows")).await.unwrap();
    let status = answer.status().as_u16();
    let problem = answer.text().await.unwrap();
    assert!(
        status == 404 && problem.contains("its table is missing"),
        "{status} {problem}"
    );
}
