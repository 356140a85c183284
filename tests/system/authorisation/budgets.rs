//! How much a principal may ask for: told, kept to, and nobody else's affair.

use std::time::{Duration, Instant};

use futures_util::SinkExt;
use rovi_common::testing::eventually;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::{
    live::connect,
    support::{ADMIN, PATIENCE, Secure},
};

const ROWS_PER_S: u32 = 50;

async fn tight() -> Secure {
    let mut settings = Vec::new();
    for (key, value) in [
        ("ROWS_PER_S", "50"),
        ("ROWS_READ_PER_S", "10"),
        ("BATTERIES_PER_HOUR", "2"),
        ("REGISTRATIONS_PER_HOUR", "1"),
        ("SOCKETS", "1"),
        ("EXPORTS", "1"),
    ] {
        settings.push((format!("AUTH__BUDGETS__ENGINEER__{key}"), value));
    }
    let settings: Vec<(&str, &str)> = settings
        .iter()
        .map(|(name, value)| (name.as_str(), *value))
        .collect();
    Secure::with(&settings).await
}

fn rows(count: usize) -> Value {
    let row = |n: usize| json!({"test_time": n, "voltage": 3.5});
    (0..count).map(row).collect()
}

#[tokio::test]
async fn limits_are_told_and_what_goes_beyond_is_refused_with_a_time_to_come_back() {
    let secure = tight().await;
    let (_, token) = secure.token(&["engineer"], None).await;
    let (_, other) = secure.token(&["engineer"], None).await;
    let ask = async |method: &str, path: &str, body: &Value| {
        secure.ask(method, &secure.hub(path), &token, body).await
    };
    let (_, limits) = ask("GET", "/limits", &Value::Null).await;
    assert_eq!(limits["role"], "engineer");
    assert_eq!(limits["budget"]["rows_per_s"], ROWS_PER_S);
    assert_eq!(limits["taken"], json!({"sockets": 0, "exports": 0}));

    // Rows may be overdrawn once; then it is somebody else's turn.
    assert_eq!(ask("POST", "/db/upload/b1", &rows(1000)).await.0, 200);
    let refused = secure.stack.http().post(secure.hub("/db/upload/b1"));
    let refused = refused
        .bearer_auth(&token)
        .json(&rows(1))
        .send()
        .await
        .unwrap();
    assert_eq!(refused.status(), 429);
    assert!(refused.headers().contains_key("retry-after"));
    let told: Value = refused.json().await.unwrap();
    assert_eq!(told["field"], "rows_per_s");
    // Nor do files go beyond it.
    let (status, told) = ask("POST", "/db/upload/b1/battdat", &rows(1)).await;
    assert_eq!((status, &told["field"]), (429, &json!("rows_per_s")));
    let url = secure.hub("/db/upload/b1");
    assert_eq!(secure.ask("POST", &url, &other, &rows(1)).await.0, 200);

    assert_eq!(ask("GET", "/db/b1/rows", &Value::Null).await.0, 200);
    for path in [
        "/db/b1/rows",
        "/db/b1/rows/export?format=csv",
        "/db/b1/histogram",
    ] {
        let (status, told) = ask("GET", path, &Value::Null).await;
        assert_eq!(
            (status, &told["field"]),
            (429, &json!("rows_read_per_s")),
            "{path}"
        );
    }

    let register = async |name: &str| ask("POST", "/db/register", &json!({"name": name})).await;
    assert_eq!(register("b2").await.0, 200);
    // The second would be called b2-2: it is a battery of its own, too.
    for one_more in ["b3", "b2!"] {
        let (status, told) = register(one_more).await;
        assert_eq!(
            (status, &told["field"]),
            (429, &json!("batteries_per_hour")),
            "{one_more}"
        );
    }
    assert_eq!(register("b2").await.0, 200, "it exists");

    let estimator = async || {
        let url = secure.hub("/online/register");
        let request = secure.stack.http().post(url).bearer_auth(&token);
        let form = [("name", "b1"), ("definition", "no definition")];
        request.form(&form).send().await.unwrap().status().as_u16()
    };
    assert_eq!(estimator().await, 400);
    assert_eq!(estimator().await, 429);
}

#[tokio::test]
async fn a_socket_beyond_the_budget_is_slowed_and_not_cut() {
    let secure = tight().await;
    let (_, token) = secure.token(&["engineer"], None).await;
    let url = secure.hub("/db/upload/b1");
    let mut socket = connect(&url, &token).await.unwrap();
    let second = connect(&url, &token).await.unwrap_err();
    assert!(second.contains("429"), "{second}");
    let since = Instant::now();
    // The first second's rows at once, then those of two more.
    for _ in 0..3 {
        let frame = Message::text(rows(ROWS_PER_S as usize).to_string());
        socket.send(frame).await.unwrap();
    }
    eventually(PATIENCE, || async {
        let url = secure.hub("/db/b1/rows?limit=1");
        let (_, told) = secure.ask("GET", &url, ADMIN, &Value::Null).await;
        if told["last_seq"] == 3 * ROWS_PER_S {
            Ok(())
        } else {
            Err(told.to_string())
        }
    })
    .await;
    let took = since.elapsed();
    assert!(took > Duration::from_millis(1500), "{took:?}");
    socket.close(None).await.unwrap();
    // The place is free again.
    eventually(PATIENCE, || async { connect(&url, &token).await.map(drop) }).await;
}
