//! Batteries whose tables cannot be written: their clients hear why, their neighbours nothing.

use std::time::Duration;

use rovi_common::testing::eventually;
use serde_json::{Value, json};

use crate::support::{PATIENCE, TableLock, TestHub, postgres, query};

async fn parked(hub: &TestHub, batteries: i64) {
    eventually(PATIENCE, async || {
        match hub.metric("datahub_batteries_parked").await {
            parked if parked >= batteries => Ok(()),
            parked => Err(format!("{parked} batteries are set aside")),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_a_locked_table_hear_why_they_wait() {
    let postgres = postgres();
    let hub = TestHub::start_with(&postgres, |settings| {
        settings.post_timeout = Duration::from_millis(300);
    })
    .await;
    let (mut client, _) = hub.speaking("b7").await;
    client.send(&json!({"a": 1})).await;
    client.until_stored(1).await;
    let mut lock = TableLock::take(&postgres, "b7");
    client.send(&json!({"a": 2})).await;
    parked(&hub, 1).await;
    let waiting = loop {
        let message = client.message().await;
        if message["type"] != "ack" {
            break message;
        }
    };
    assert_eq!(waiting["type"], "waiting");
    let reason = waiting["reason"].as_str().unwrap();
    assert!(reason.contains("lock timeout"), "{reason}");
    let (status, problem) = hub.ask("POST", "/db/upload/b7", json!([{"a": 3}])).await;
    let detail = problem["detail"].as_str().unwrap();
    assert!(status == 503 && detail.contains("lock timeout"), "{detail}");
    // Whoever comes meanwhile hears it, too.
    let (mut late, _) = hub.speaking("b7").await;
    assert_eq!(late.message().await["type"], "waiting");
    lock.unlock();
    client.until_stored(2).await;
    late.send(&json!({"a": 4})).await;
    late.until_stored(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_locked_tables_leave_the_others_their_room() {
    const LOCKED: i64 = 12;
    let postgres = postgres();
    let hub = TestHub::start_with(&postgres, |settings| {
        settings.battery_queue_bytes = 100_000;
        settings.queue_bytes = 400_000;
    })
    .await;
    let mut clients = Vec::new();
    let mut locks = Vec::new();
    for battery in 0..LOCKED {
        let name = format!("locked{battery}");
        hub.post_rows(&name, json!([{"text": "x"}])).await;
        clients.push(hub.speaking(&name).await.0);
        locks.push(TableLock::take(&postgres, &name));
    }
    for client in &mut clients {
        client.send(&json!({"text": "first"})).await;
    }
    parked(&hub, LOCKED).await;
    // Each of them has as much to store as all the room there is for such batteries.
    let text = "x".repeat(20_000);
    for client in &mut clients {
        for _ in 0..5 {
            client.send(&json!({"text": text})).await;
        }
    }
    for round in 0..5 {
        let (status, answer) = hub
            .ask(
                "POST",
                "/db/upload/free",
                json!([{"text": text, "n": round}]),
            )
            .await;
        assert_eq!((status, answer), (200, json!(1)));
    }
    for lock in &mut locks {
        lock.unlock();
    }
    for (battery, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.until_stored(6).await, Vec::<Value>::new());
        let rows = format!(r#"SELECT count(*) FROM battery."locked{battery}""#);
        assert_eq!(query(&postgres, &rows), json!([{"count": 7}]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_gone_with_a_full_window_leaves_no_socket_behind() {
    let postgres = postgres();
    let hub = TestHub::start_with(&postgres, |settings| {
        (settings.rows_per_frame, settings.window_rows) = (4, 4);
    })
    .await;
    let path = "b7?session=0b5f4f10-6f5e-4a57-9a3e-3f1d6c1f7a02";
    let (mut client, _) = hub.speaking(path).await;
    client.send(&json!({"a": 0})).await;
    client.until_stored(1).await;
    let mut lock = TableLock::take(&postgres, "b7");
    for a in 1..9 {
        client.send(&json!({"a": a})).await;
    }
    parked(&hub, 1).await;
    drop(client);
    let (mut again, _) = hub.speaking(&format!("{path}&from=1")).await;
    lock.unlock();
    eventually(PATIENCE, async || {
        match hub.metric("datahub_upload_sockets").await {
            1 => Ok(()),
            open => Err(format!("{open} sockets are open")),
        }
    })
    .await;
    for a in 1..9 {
        again.send(&json!({"a": a})).await;
    }
    again.until_stored(9).await;
    let stored = "SELECT count(*) AS rows, count(DISTINCT a) AS different FROM battery.b7";
    assert_eq!(
        query(&postgres, stored),
        json!([{"rows": 9, "different": 9}])
    );
    assert!(hub.stop().await);
}
