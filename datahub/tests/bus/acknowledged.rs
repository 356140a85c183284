//! What uploaders hear of the bus.

use futures_util::{SinkExt, StreamExt};
use rovi_common::testing::eventually;
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{Message, client::IntoClientRequest, http::HeaderValue},
};

use crate::{
    hub::Hub,
    support::{PATIENCE, Servers},
};

const SESSION: &str = "0b5f4f10-6f5e-4a57-9a3e-3f1d6c1f7a01";

/// An upload socket in `rovi.v1`, and the acknowledgements it heard.
struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    relayed: i64,
    stored: i64,
}

impl Client {
    async fn open(hub: &Hub) -> Self {
        let url = format!("ws://{}/db/upload/b7?session={SESSION}", hub.address);
        let mut request = url.into_client_request().unwrap();
        let protocol = HeaderValue::from_static("rovi.v1");
        request
            .headers_mut()
            .insert("Sec-WebSocket-Protocol", protocol);
        let (socket, _) = tokio_tungstenite::connect_async(request).await.unwrap();
        let mut client = Self {
            socket,
            relayed: 0,
            stored: 0,
        };
        let hello = client.message().await;
        client.relayed = hello["relayed"].as_i64().unwrap();
        client.stored = hello["position"].as_i64().unwrap();
        client
    }

    async fn send(&mut self, rows: &Value) {
        let bytes = rmp_serde::to_vec(rows).unwrap();
        self.socket.send(Message::binary(bytes)).await.unwrap();
    }

    async fn message(&mut self) -> Value {
        loop {
            let next = timeout(PATIENCE, self.socket.next()).await;
            let next = next.unwrap_or_else(|_| panic!("silence after {:?}", self.heard()));
            if let Message::Text(text) = next.unwrap().unwrap() {
                return serde_json::from_str(&text).unwrap();
            }
        }
    }

    fn heard(&self) -> (i64, i64) {
        (self.stored, self.relayed)
    }

    /// Listens until `done` likes what is stored and relayed.
    async fn until(&mut self, done: impl Fn(i64, i64) -> bool) {
        while !done(self.stored, self.relayed) {
            let message = self.message().await;
            if message["type"] == "ack" {
                let relayed = message["relayed"].as_i64().unwrap();
                assert!(
                    relayed >= self.relayed,
                    "{message} after {:?}",
                    self.heard()
                );
                self.relayed = relayed;
                self.stored = message["stored"].as_i64().unwrap();
                assert!(relayed <= self.stored, "{message}");
            }
        }
    }
}

fn rows(count: i64) -> Value {
    json!({"voltage": vec![3.5; usize::try_from(count).unwrap()]})
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_told_as_relayed_once_the_bus_has_them_and_rejected_ones_with_them() {
    let servers = Servers::start();
    let hub = Hub::start(&servers).await;
    let mut client = Client::open(&hub).await;
    for _ in 0..20 {
        client.send(&rows(300)).await;
        client
            .send(&json!([{"voltage": "x"}, {"voltage": {}}]))
            .await;
    }
    client.until(|_, relayed| relayed == 20 * 302).await;
    let frames = servers.frames("b7").await;
    assert_eq!(frames.last().unwrap().last_seq(), 6000);
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_bus_away_rows_are_stored_and_told_as_relayed_when_it_is_back() {
    let mut servers = Servers::start();
    let hub = Hub::start(&servers).await;
    let mut client = Client::open(&hub).await;
    client.send(&rows(10)).await;
    client.until(|_, relayed| relayed == 10).await;
    servers.nats.server.kill();
    eventually(PATIENCE, async || {
        let ready = reqwest::get(hub.url("/ready")).await.unwrap();
        if ready.status().is_success() {
            Err("ready")
        } else {
            Ok(())
        }
    })
    .await;
    for _ in 0..10 {
        client.send(&rows(10)).await;
    }
    client.until(|stored, _| stored == 110).await;
    assert_eq!(client.relayed, 10);
    let metrics = reqwest::get(hub.url("/metrics")).await.unwrap();
    let metrics = metrics.text().await.unwrap();
    assert!(
        metrics.contains("\ndatahub_rows_left_to_sweep_total 100\n"),
        "{metrics}"
    );
    // Whoever resumes meanwhile is told no more than is true.
    drop(client);
    let mut client = Client::open(&hub).await;
    assert!(client.stored == 110 && client.relayed <= 10);
    servers.nats.server.start_again().unwrap();
    client.until(|_, relayed| relayed == 110).await;
    drop(client);
    let mut client = Client::open(&hub).await;
    client.until(|_, relayed| relayed == 110).await;
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_another_hub_relayed_are_told_too() {
    let servers = Servers::start();
    // Nothing listens there, so this hub stores and cannot relay.
    let no_nats = "nats://127.0.0.1:9".parse().unwrap();
    let mute = Hub::start_unready(&servers, |settings| settings.nats_url = no_nats).await;
    mute.ready("postgresql").await;
    let mut client = Client::open(&mute).await;
    client.send(&rows(500)).await;
    client.until(|stored, _| stored == 500).await;
    assert_eq!(client.relayed, 0);
    let other = Hub::start(&servers).await;
    client.until(|_, relayed| relayed == 500).await;
    other.stop().await;
    mute.stop().await;
}
