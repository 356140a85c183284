//! What is told at once: through the hub's port, to sockets, event streams and `rovicli top`.

use std::time::Duration;

use futures_util::StreamExt;
use rovi_common::testing::eventually;
use serde_json::{Value, json};
use system_tests::Stack;
use tokio_tungstenite::{
    connect_async,
    tungstenite::{Message, client::IntoClientRequest},
};

const PATIENCE: Duration = Duration::from_secs(30);

async fn upload(stack: &Stack, battery: &str, voltage: f64) {
    let url = format!("{}/db/upload/{battery}", stack.hub_url());
    let rows = json!([{"test_time": 1.0, "current": 1.0, "voltage": voltage}]);
    let answer = stack.http().post(url).json(&rows).send().await.unwrap();
    assert!(answer.status().is_success());
}

#[tokio::test]
async fn the_hub_passes_live_sockets_and_event_streams_on() {
    let mut stack = Stack::start().await;
    let url = format!("{}/ws", stack.hub_url().replace("http", "ws"));
    let (mut socket, _) = connect_async(&url).await.unwrap();
    let text = |message: Message| -> Option<Value> {
        match message {
            Message::Text(text) => Some(serde_json::from_str(&text).unwrap()),
            _ => None,
        }
    };
    upload(&stack, "b7", 3.5).await;
    let mut seen = Value::Null;
    while seen["battery:b7:data"]["voltage"] != 3.5 {
        let message = tokio::time::timeout(PATIENCE, socket.next()).await.unwrap();
        seen = text(message.unwrap().unwrap()).unwrap_or_default();
    }

    let events = format!("{}/events?battery=b7", stack.hub_url());
    let mut events = stack.http().get(events).send().await.unwrap();
    assert_eq!(events.headers()["content-type"], "text/event-stream");
    let first = events.chunk().await.unwrap().unwrap();
    assert!(first.starts_with(b"id: b7:1:1\ndata: "), "{first:?}");

    let mut foreign = url.as_str().into_client_request().unwrap();
    let origin = "http://elsewhere.example".parse().unwrap();
    foreign.headers_mut().insert("origin", origin);
    let refused = connect_async(foreign).await.unwrap_err();
    assert!(refused.to_string().contains("403"), "{refused}");
    let wrong = connect_async(format!("{url}?filter=a")).await.unwrap_err();
    assert!(wrong.to_string().contains("400"), "{wrong}");

    let services = eventually(PATIENCE, || async {
        let services = stack.get("/online/services").await?;
        let count = services.as_array().map_or(0, Vec::len);
        if count >= 2 {
            Ok(services)
        } else {
            Err(services.to_string())
        }
    })
    .await;
    let names: Vec<_> = services
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["service"])
        .collect();
    assert_eq!(json!(names), json!(["datahub", "twin"]));

    let shown = stack.run_rovicli(&["top", "--once"]).await;
    assert!(
        shown.contains("3.5000 V") && shown.contains("datahub"),
        "{shown}"
    );

    stack.kill_twin();
    let code = loop {
        match tokio::time::timeout(PATIENCE, socket.next()).await.unwrap() {
            Some(Ok(Message::Close(Some(frame)))) => break u16::from(frame.code),
            Some(Ok(_)) => {}
            other => panic!("no close: {other:?}"),
        }
    };
    assert_eq!(code, 1012);
    let away = connect_async(&url).await.unwrap_err();
    assert!(away.to_string().contains("503"), "{away}");
}
