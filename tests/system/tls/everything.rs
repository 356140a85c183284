//! With the right authority everything works as without TLS.

use std::{process::Command, time::Duration};

use futures_util::StreamExt;
use rovi_common::{rights::Party, testing::eventually};
use serde_json::json;
use system_tests::{Stack, binary};
use tokio_tungstenite::{
    Connector, connect_async_tls_with_config,
    tungstenite::{Message, client::IntoClientRequest},
};

use super::secured;
use crate::cell::Cell;

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn rows_estimates_sockets_events_and_the_bus_work_over_tls_with_an_own_authority() {
    let mut stack = Stack::servers();
    stack.encrypt();
    stack.ask_everybody();
    let written = secured(&stack).certify(-1, 1);
    stack.nats.server.set_tls(written.cert, written.key);
    stack.nats.server.stop();
    stack.nats.server.start_again().unwrap();
    assert!(stack.nats.server.url().starts_with("tls://"));
    stack.start_hub();
    stack.start_twin();
    stack.ready().await;

    // rovicli: HTTP and the upload socket; the bus; the twin, that reads from the hub.
    let cell = Cell::registered(&stack, "b7", 300).await;
    let streamed = cell.stream(&stack).output().unwrap();
    assert!(streamed.status.success(), "{streamed:?} {}", stack.logs());
    stack.relayed("b7").await;
    cell.estimated(&stack).await;
    let status = stack.get("/online/status").await.unwrap();
    assert_eq!(status["b7"]["seq"], 300);
    let top = eventually(PATIENCE, || async {
        let top = stack.run_rovicli(&["top", "--once"]).await;
        if top.contains("b7") {
            Ok(top)
        } else {
            Err(top)
        }
    });
    top.await;

    // A command of the hub beside it.
    let mut command = Command::new(binary("datahub"));
    command
        .args(["relay", "rebuild", "--battery", "b7"])
        .current_dir(stack.folder())
        .env("DATABASE_URL", stack.database_url())
        .env("NATS_URL", stack.nats.server.url())
        .env("ROVI_HUB_TLS__CA_FILE", secured(&stack).ca_file())
        .envs([stack.nats_seed(&Party::Hub)]);
    let done = tokio::task::spawn_blocking(move || command.output());
    let done = done.await.unwrap().unwrap();
    assert!(done.status.success(), "{done:?}");
    let told = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(told.contains("1 of 1: b7"), "{told}");

    // The live socket and events of the twin, through the hub.
    let url = format!("{}/ws", stack.hub_url().replacen("http", "ws", 1));
    let mut request = url.as_str().into_client_request().unwrap();
    let bearer = format!("Bearer {}", stack.token().unwrap().expose());
    request
        .headers_mut()
        .insert("authorization", bearer.parse().unwrap());
    let tls = Connector::Rustls(stack.trust().config());
    let (mut socket, _) = connect_async_tls_with_config(request, None, true, Some(tls))
        .await
        .unwrap();
    let first = tokio::time::timeout(PATIENCE, socket.next()).await.unwrap();
    assert!(matches!(first, Some(Ok(Message::Text(text))) if text.contains("battery:b7:data")));
    let events = format!("{}/events?battery=b7", stack.hub_url());
    let mut events = stack.http().get(events).send().await.unwrap();
    let first = tokio::time::timeout(PATIENCE, events.chunk())
        .await
        .unwrap();
    assert!(first.unwrap().is_some());
}

#[tokio::test]
async fn browsers_are_told_to_come_by_tls_alone_and_to_show_the_cookie_there_alone() {
    let mut stack = Stack::servers();
    stack.encrypt();
    stack.ask_everybody();
    stack.start_hub_without_bus().await;
    let session = format!("{}/auth/session", stack.hub_url());
    let request = stack.http().post(&session).json(&json!({}));
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 204);
    let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
    assert!(header("set-cookie").ends_with("; Secure"), "{answer:?}");
    assert!(header("strict-transport-security").starts_with("max-age="));
}
