//! A hub of one test, and clients that speak to it.

use std::{net::SocketAddr, time::Duration};

use datahub::{config::Settings, service::Service, store::keep_openssl};
use diesel::{
    Connection, PgConnection, QueryableByName, RunQueryDsl, connection::SimpleConnection, sql_types,
};
use futures_util::{SinkExt, StreamExt};
use rovi_common::{
    lifecycle::Lifecycle,
    testing::{self, TestPostgres, eventually},
};
use serde_json::Value;
use tokio::{net::TcpStream, task::JoinSet, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{Message, client::IntoClientRequest, http::HeaderValue},
};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A running hub.
pub(crate) struct TestHub {
    pub(crate) address: SocketAddr,
    pub(crate) lifecycle: Lifecycle,
    running: JoinSet<bool>,
}

impl TestHub {
    pub(crate) async fn start(postgres: &TestPostgres) -> Self {
        Self::start_with(postgres, |_| ()).await
    }

    pub(crate) async fn start_with(
        postgres: &TestPostgres,
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        let hub = Self::start_unready(&postgres.server.url(), change).await;
        eventually(PATIENCE, async || {
            let metrics = reqwest::get(hub.url("/ready")).await.unwrap();
            let text = metrics.text().await.unwrap();
            if text.contains("postgresql") {
                Err(text)
            } else {
                Ok(())
            }
        })
        .await;
        hub
    }

    pub(crate) async fn start_unready(
        database_url: &str,
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        let mut settings = Settings {
            listen: "127.0.0.1:0".parse().unwrap(),
            database_url: database_url.parse().unwrap(),
            // Nothing listens there: ingest needs no bus.
            nats_url: "nats://127.0.0.1:9".parse().unwrap(),
            http_workers: 2,
            ..Settings::default()
        };
        change(&mut settings);
        let service = Service::from_config(settings).await.unwrap();
        let (address, lifecycle) = (service.address(), service.lifecycle());
        let mut running = JoinSet::new();
        running.spawn(service.run());
        Self {
            address,
            lifecycle,
            running,
        }
    }

    /// Stops the hub and tells whether it stopped well.
    pub(crate) async fn stop(mut self) -> bool {
        self.lifecycle.stop();
        let ended = timeout(PATIENCE, self.running.join_next()).await;
        ended.expect("the hub stops in time").unwrap().unwrap()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Returns a counter or gauge, named with its labels.
    pub(crate) async fn metric(&self, name: &str) -> i64 {
        let metrics = reqwest::get(self.url("/metrics")).await.unwrap();
        let text = metrics.text().await.unwrap();
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let value = value.unwrap_or_else(|| panic!("no {name} in {text}"));
        value.parse().unwrap()
    }

    /// Asks with a method and a body of JSON; returns status and answer.
    pub(crate) async fn ask(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let method = method.parse().unwrap();
        let request = reqwest::Client::new().request(method, self.url(path));
        let request = if body.is_null() {
            request
        } else {
            request.json(&body)
        };
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// Posts rows and returns how many were taken.
    pub(crate) async fn post_rows(&self, battery: &str, rows: Value) -> Value {
        let (status, answer) = self
            .ask("POST", &format!("/db/upload/{battery}"), rows)
            .await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// Opens a silent socket.
    pub(crate) async fn silent(&self, path: &str) -> Client {
        Client::connect(self.address, path, false).await.unwrap()
    }

    /// Opens a socket in `rovi.v1` and reads the greeting.
    pub(crate) async fn speaking(&self, path: &str) -> (Client, Value) {
        let mut client = Client::connect(self.address, path, true).await.unwrap();
        let hello = client.message().await;
        assert_eq!(hello["type"], "hello", "{hello}");
        (client, hello)
    }
}

/// An upload socket.
pub(crate) struct Client {
    pub(crate) socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Client {
    pub(crate) async fn connect(
        address: SocketAddr,
        path: &str,
        speaks: bool,
    ) -> Result<Self, tungstenite::Error> {
        let url = format!("ws://{address}/db/upload/{path}");
        let mut request = url.into_client_request().unwrap();
        if speaks {
            let protocol = HeaderValue::from_static("rovi.v1");
            request
                .headers_mut()
                .insert("Sec-WebSocket-Protocol", protocol);
        }
        let (socket, _response) = tokio_tungstenite::connect_async(request).await?;
        Ok(Self { socket })
    }

    pub(crate) async fn send(&mut self, rows: &impl serde::Serialize) {
        let bytes = rmp_serde::to_vec(rows).unwrap();
        self.socket.send(Message::binary(bytes)).await.unwrap();
    }

    pub(crate) async fn send_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.unwrap();
    }

    /// Sends frames so that they arrive together.
    pub(crate) async fn send_together(&mut self, frames: &[Value]) {
        for frame in frames {
            let bytes = rmp_serde::to_vec(frame).unwrap();
            self.socket.feed(Message::binary(bytes)).await.unwrap();
        }
        self.socket.flush().await.unwrap();
    }

    /// Sends what the server may refuse half-way, and reads its close.
    pub(crate) async fn send_and_hear_close(&mut self, rows: &Value) -> (u16, String) {
        let bytes = rmp_serde::to_vec(rows).unwrap();
        let (mut sink, mut stream) = (&mut self.socket).split();
        let hear = async {
            loop {
                match stream.next().await {
                    Some(Ok(Message::Close(Some(frame)))) => {
                        return (frame.code.into(), frame.reason.to_string());
                    }
                    Some(Ok(_)) => {}
                    other => panic!("no close frame: {other:?}"),
                }
            }
        };
        let (_sent, heard) = tokio::join!(sink.send(Message::binary(bytes)), hear);
        heard
    }

    /// Returns the next JSON message.
    pub(crate) async fn message(&mut self) -> Value {
        loop {
            match self.next().await {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Close(reason) => panic!("closed: {reason:?}"),
                _ => {}
            }
        }
    }

    /// Reads until all rows below `position` are stored; returns the rejected ones.
    pub(crate) async fn until_stored(&mut self, position: i64) -> Vec<Value> {
        let mut rejects = Vec::new();
        loop {
            let message = self.message().await;
            if message["type"] == "reject" {
                rejects.push(message);
            } else if message["stored"].as_i64() >= Some(position) {
                return rejects;
            }
        }
    }

    /// Closes and waits for the answer; returns its code and reason.
    pub(crate) async fn close(mut self) -> (u16, String) {
        self.socket.close(None).await.unwrap();
        self.closed().await
    }

    /// Reads until the server closes; returns code and reason.
    pub(crate) async fn closed(&mut self) -> (u16, String) {
        loop {
            if let Message::Close(frame) = self.next().await {
                let frame = frame.unwrap();
                return (frame.code.into(), frame.reason.to_string());
            }
        }
    }

    /// Returns the next message; none once the connection is gone.
    pub(crate) async fn try_next(&mut self) -> Option<Message> {
        self.socket.next().await?.ok()
    }

    async fn next(&mut self) -> Message {
        let next = timeout(PATIENCE, self.socket.next()).await;
        next.expect("the server says something")
            .expect("the socket is open")
            .unwrap()
    }
}

#[derive(QueryableByName)]
struct Json {
    #[diesel(sql_type = sql_types::Text)]
    json: String,
}

/// Asks PostgreSQL; the answer's rows come as objects.
pub(crate) fn query(postgres: &TestPostgres, sql: &str) -> Value {
    let mut connection = PgConnection::establish(&postgres.server.url()).unwrap();
    query_on(&mut connection, sql)
}

pub(crate) fn query_on(connection: &mut PgConnection, sql: &str) -> Value {
    let sql = format!("SELECT coalesce(json_agg(q), '[]')::text AS json FROM ({sql}) q");
    let rows: Json = diesel::sql_query(sql).get_result(connection).unwrap();
    serde_json::from_str(&rows.json).unwrap()
}

/// Opens a connection of the test's own.
pub(crate) fn connect(postgres: &TestPostgres) -> PgConnection {
    PgConnection::establish(&postgres.server.url()).unwrap()
}

/// Runs statements.
pub(crate) fn run(connection: &mut PgConnection, sql: &str) {
    connection.batch_execute(sql).unwrap();
}

pub(crate) fn execute(postgres: &TestPostgres, sql: &str) {
    let mut connection = PgConnection::establish(&postgres.server.url()).unwrap();
    diesel::sql_query(sql).execute(&mut connection).unwrap();
}

pub(crate) fn postgres() -> TestPostgres {
    keep_openssl();
    testing::postgres()
}

/// A table that somebody holds.
pub(crate) struct TableLock {
    connection: PgConnection,
}

impl TableLock {
    pub(crate) fn take(postgres: &TestPostgres, battery: &str) -> Self {
        let mut connection = PgConnection::establish(&postgres.server.url()).unwrap();
        connection
            .batch_execute(&format!(
                "BEGIN; LOCK TABLE battery.\"{battery}\" IN ACCESS EXCLUSIVE MODE"
            ))
            .unwrap();
        Self { connection }
    }

    pub(crate) fn unlock(&mut self) {
        self.connection.batch_execute("COMMIT").unwrap();
    }
}
