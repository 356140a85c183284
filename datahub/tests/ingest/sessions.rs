//! Sessions: sending again is harmless, an older connection is fenced off.

use std::time::Duration;

use rovi_common::testing::{TestPostgres, eventually};
use serde_json::{Value, json};
use uuid::{NoContext, Timestamp, Uuid};

use crate::support::{Client, PATIENCE, TableLock, TestHub, execute, postgres, query};

const SESSION: &str = "0b5f4f10-6f5e-4a57-9a3e-3f1d6c1f7a01";

fn rows(from: i64, to: i64) -> Value {
    json!({"n": (from..to).collect::<Vec<i64>>()})
}

#[tokio::test]
async fn a_silent_upload_is_stored_before_its_close_is_answered() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    let mut client = hub.silent("b7").await;
    for n in 0..2000 {
        client.send(&json!({"n": n, "v": 3.5})).await;
    }
    assert_eq!(client.close().await.0, 1000);
    assert_eq!(
        query(
            &postgres,
            r#"SELECT count(*), max(seq), bool_and(seq = n + 1) FROM battery."b7""#
        ),
        json!([{"count": 2000, "max": 2000, "bool_and": true}])
    );
    eventually(PATIENCE, async || {
        let left = query(&postgres, "SELECT id FROM hub.sessions");
        if left == json!([]) { Ok(()) } else { Err(left) }
    })
    .await;
}

#[tokio::test]
async fn the_greeting_tells_limits_session_and_position() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    let (_client, hello) = hub.speaking(&format!("b7?session={SESSION}")).await;
    assert_eq!(
        hello,
        json!({
            "type": "hello", "battery": "b7", "epoch": 1, "session": SESSION, "position": 0,
            "relayed": 0,
            "limits": {
                "frame_bytes": 4_194_304, "rows_per_frame": 65_536, "row_bytes": 262_144,
                "columns": 800, "column_name_bytes": 63, "window_rows": 262_144,
                "queue_bytes": 67_108_864, "group_wait_ms": 2500, "idle_timeout_s": 300,
                "session_days": 7, "session_memory_days": 365,
            },
        })
    );
}

#[tokio::test]
async fn a_session_resumed_after_a_cut_stores_each_row_once() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    let path = format!("b7?session={SESSION}");
    let (mut client, _) = hub.speaking(&path).await;
    client.send(&rows(0, 100)).await;
    client.until_stored(100).await;
    client.send(&rows(100, 200)).await;
    drop(client);
    // The client knows of 100 rows and sends again from 50, in frames cut otherwise.
    let (mut client, hello) = hub.speaking(&format!("{path}&from=50")).await;
    assert!(hello["position"].as_i64().unwrap() >= 100, "{hello}");
    for from in (50..300).step_by(25) {
        client.send(&rows(from, from + 25)).await;
    }
    client.until_stored(300).await;
    assert_eq!(
        query(
            &postgres,
            r#"SELECT count(*), max(seq), bool_and(seq = n + 1) FROM battery."b7""#
        ),
        json!([{"count": 300, "max": 300, "bool_and": true}])
    );
}

#[tokio::test]
async fn an_older_connection_of_a_session_stores_nothing_more() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    let path = format!("b7?session={SESSION}");
    let (mut old, _) = hub.speaking(&path).await;
    old.send(&rows(0, 10)).await;
    old.until_stored(10).await;
    let (mut new, _) = hub.speaking(&format!("{path}&from=10")).await;
    old.send(&rows(10, 20)).await;
    let (code, reason) = old.closed().await;
    assert_eq!(code, 1008);
    assert_eq!(reason, "a newer connection of the session took over");
    new.send(&rows(10, 30)).await;
    new.until_stored(30).await;
    assert_eq!(
        query(
            &postgres,
            r#"SELECT count(*), max(seq), bool_and(seq = n + 1) FROM battery."b7""#
        ),
        json!([{"count": 30, "max": 30, "bool_and": true}])
    );
}

#[tokio::test]
async fn sessions_of_another_battery_with_holes_or_ended_are_refused() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    store_a_row(&hub, SESSION).await;
    let refused = async |path: String| refusal(&hub, &path).await;
    let (status, told) = refused(format!("b8?session={SESSION}")).await;
    assert!(
        status == 409 && told.contains("belongs to another battery"),
        "{status} {told}"
    );
    let (status, told) = refused(format!("b7?session={SESSION}&from=5")).await;
    assert!(
        status == 409 && told.contains("would leave a hole"),
        "{status} {told}"
    );
    execute(
        &postgres,
        "UPDATE hub.sessions SET used = now() - interval '8 days'",
    );
    for _ in 0..2 {
        let (status, told) = refused(format!("b7?session={SESSION}")).await;
        assert!(
            status == 409 && told.contains("has ended"),
            "{status} {told}"
        );
    }
    let (status, told) = refused("b7?segment=old".into()).await;
    assert!(
        status == 400 && told.contains("segment=new"),
        "{status} {told}"
    );
}

/// Stores the first row of a session, and closes it.
async fn store_a_row(hub: &TestHub, session: &str) {
    let (mut client, _) = hub.speaking(&format!("b7?session={session}")).await;
    client.send(&rows(0, 1)).await;
    client.until_stored(1).await;
    client.close().await;
}

/// Asks for a socket that is refused; returns status and answer.
async fn refusal(hub: &TestHub, path: &str) -> (u16, String) {
    let url = hub.url(&format!("/db/upload/{path}"));
    let socket = [
        ("Upgrade", "websocket"),
        ("Connection", "upgrade"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "x3JJHMbDL1EzLkh9GBhXDw=="),
    ];
    let client = reqwest::Client::new();
    let request = socket
        .iter()
        .fold(client.get(url), |request, (key, value)| {
            request.header(*key, *value)
        });
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

/// Waits until these sessions are known, after doing something before each look.
async fn until_sessions_are(postgres: &TestPostgres, expected: &Value, before: impl Fn()) {
    let known = "SELECT id, used > now() - interval '1 hour' AS is_fresh FROM hub.sessions \
                 ORDER BY noted_position, used";
    eventually(PATIENCE, async || {
        before();
        let found = query(postgres, known);
        if found == *expected {
            Ok(())
        } else {
            Err(found)
        }
    })
    .await;
}

#[tokio::test]
async fn sessions_of_no_use_are_forgotten_and_whoever_comes_back_stores_nothing_twice() {
    let postgres = postgres();
    let hub = TestHub::start_with(&postgres, |settings| {
        settings.sessions.interval = Duration::from_millis(20);
    })
    .await;
    // Its name tells its age; the other's does not, and hardly anybody remembers the third.
    let timed = Uuid::new_v7(Timestamp::from_unix(NoContext, 1_700_000_000, 0)).to_string();
    let ancient = Uuid::new_v4().to_string();
    execute(
        &postgres,
        &format!(
            "WITH b AS (INSERT INTO hub.batteries (name) VALUES ('b7') RETURNING id) \
             INSERT INTO hub.sessions (id, battery_id, attempt, noted_position, used) \
             SELECT s.id::uuid, b.id, 1, s.position, now() - s.unused FROM b, (VALUES \
               ('{timed}', 5, interval '1 day'), ('{SESSION}', 5, '8 days'), \
               ('{ancient}', 5, '366 days'), (gen_random_uuid()::text, 0, '8 days') \
             ) AS s(id, position, unused)"
        ),
    );
    // It is remembered as long as it is in use.
    let (client, hello) = hub.speaking(&format!("b7?session={timed}&from=5")).await;
    assert_eq!(hello["position"], 5);
    let unused = |days: i32| {
        let used = format!("used = now() - interval '{days} days'");
        let update = format!("UPDATE hub.sessions SET {used} WHERE id = '{timed}'");
        execute(&postgres, &update);
    };
    unused(5);
    let ended = json!({"id": SESSION, "is_fresh": false});
    let kept = json!([ended, {"id": timed, "is_fresh": true}]);
    until_sessions_are(&postgres, &kept, || ()).await;
    client.close().await;
    // Until the hub has noticed that it is closed, it is in use.
    until_sessions_are(&postgres, &json!([ended]), || unused(8)).await;

    for (session, from, says) in [
        (timed.as_str(), 0, "by the time in its name"),
        (SESSION, 0, "has ended"),
        (&ancient, 5, "is not known, so nothing of it is stored"),
    ] {
        let (status, told) = refusal(&hub, &format!("b7?session={session}&from={from}")).await;
        assert!(status == 409 && told.contains(says), "{status} {told}");
    }
    let (_client, hello) = hub.speaking(&format!("b7?session={ancient}")).await;
    assert_eq!(
        hello["position"], 0,
        "and so the client knows that it is new"
    );
    eventually(PATIENCE, async || {
        match hub.metric("datahub_sessions_forgotten_total").await {
            3 => Ok(()),
            forgotten => Err(forgotten),
        }
    })
    .await;
}

#[tokio::test]
async fn a_client_is_read_no_further_than_its_window() {
    let postgres = postgres();
    let hub = TestHub::start_with(&postgres, |settings| {
        settings.rows_per_frame = 10;
        settings.window_rows = 20;
    })
    .await;
    let (mut client, hello) = hub.speaking("b7").await;
    assert_eq!(hello["limits"]["window_rows"], 20);
    client.send(&rows(0, 1)).await;
    client.until_stored(1).await;
    let mut locked = TableLock::take(&postgres, "b7");
    for from in 0..10 {
        client.send(&rows(from * 10 + 1, from * 10 + 11)).await;
    }
    eventually(PATIENCE, async || {
        match hub.metric("datahub_rows_waiting").await {
            20 => Ok(()),
            rows => Err(format!("{rows} rows wait")),
        }
    })
    .await;
    locked.unlock();
    client.until_stored(101).await;
    assert!(hub.stop().await);
}

#[tokio::test]
async fn a_client_is_read_no_further_than_its_window_though_its_rows_differ() {
    let postgres = postgres();
    let hub = TestHub::start_with(&postgres, |settings| {
        settings.rows_per_frame = 10;
        settings.window_rows = 20;
    })
    .await;
    let (mut client, _) = hub.speaking("b7").await;
    let row = |n: i64| match n % 2 {
        0 => json!({"n": n}),
        _ => json!({"v": n}),
    };
    for n in 0..2 {
        client.send(&row(n)).await;
    }
    client.until_stored(2).await;
    let mut locked = TableLock::take(&postgres, "b7");
    for n in 2..200 {
        client.send(&row(n)).await;
    }
    eventually(PATIENCE, async || {
        match hub.metric("datahub_rows_waiting").await {
            20 => Ok(()),
            rows if rows > 20 => panic!("{rows} rows wait"),
            rows => Err(format!("{rows} rows wait")),
        }
    })
    .await;
    locked.unlock();
    client.until_stored(200).await;
    assert!(hub.stop().await);
}

#[tokio::test]
async fn too_many_rows_in_a_frame_are_refused_with_1008() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    let mut client = Client::connect(hub.address, "b7", false).await.unwrap();
    client.send(&rows(0, 65_537)).await;
    let (code, reason) = client.closed().await;
    assert_eq!(code, 1008);
    assert!(
        reason.contains("65537 rows, the limit is 65536"),
        "{reason}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_an_older_connection_that_wait_with_those_of_a_newer_are_stored_once() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    let path = format!("b7?session={SESSION}");
    let (mut client, _) = hub.speaking(&path).await;
    client.send(&rows(0, 10)).await;
    client.until_stored(10).await;
    let mut lock = TableLock::take(&postgres, "b7");
    let waiting = async |rows: i64| {
        eventually(PATIENCE, async || {
            match hub.metric("datahub_rows_waiting").await {
                waiting if waiting >= rows => Ok(()),
                waiting => Err(format!("{waiting} rows wait")),
            }
        })
        .await;
    };
    client.send(&rows(10, 20)).await;
    waiting(10).await;
    drop(client);
    let (mut client, hello) = hub.speaking(&format!("{path}&from=10")).await;
    assert_eq!(hello["position"], 10);
    client.send(&rows(10, 30)).await;
    // The older rows may have been judged already.
    waiting(20).await;
    lock.unlock();
    client.until_stored(30).await;
    assert_eq!(
        query(
            &postgres,
            r#"SELECT count(*), max(seq), bool_and(seq = n + 1) FROM battery."b7""#
        ),
        json!([{"count": 30, "max": 30, "bool_and": true}])
    );
}
